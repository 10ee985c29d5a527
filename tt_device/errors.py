# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The package's one error."""


class PlatformError(RuntimeError):
    """No usable device, or a choice of device that contradicts itself; the message says what to change."""
