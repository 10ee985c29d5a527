"""The command line: each module is a command, run as `python -m commands.NAME` or scripts/NAME.py."""

from enum import StrEnum


class Arch(StrEnum):
    """What `--arch` takes: `tt_device.platform.ARCHES`."""

    blackhole = "blackhole"
    wormhole = "wormhole"
