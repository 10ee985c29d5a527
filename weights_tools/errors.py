# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The one error of this package."""

from common.errors import OneLineError


class CheckpointError(OneLineError):
    """A checkpoint that can't be read or written. One line: which file, what is wrong, what to do."""
