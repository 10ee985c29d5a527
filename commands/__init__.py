# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: each module is a command, run as `python -m commands.NAME` or scripts/NAME.py."""
