"""The one error of this package."""


class CheckpointError(ValueError):
    """A checkpoint that can't be read or written. One line: which file, what is wrong, what to do.

    It stays one line whatever a file put into it: a character that can't be printed is shown by its escape.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message))
