"""The package's one error."""


class PlatformError(RuntimeError):
    """No usable device, or a choice of device that contradicts itself; the message says what to change."""
