# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Refusals: one line each, whatever a file put into it."""


class OneLineError(ValueError):
    """Which file or argument, what is wrong, what to do. A character that can't be printed is shown by its escape."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message))
