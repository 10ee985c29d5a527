"""The one error of this package."""

from common.errors import OneLineError


class CheckpointError(OneLineError):
    """A checkpoint that can't be read or written. One line: which file, what is wrong, what to do."""
