# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What several packages need and none owns: refusals in one line, files written whole, how a command starts."""
