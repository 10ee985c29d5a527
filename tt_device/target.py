# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a session opens: a part of what is known of a platform, so that the session need not know how it was chosen."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from tt_device.runtime_root import Compiler

Mesh = tuple[int, int]  # rows and columns of chips
ONE_CHIP: Mesh = (1, 1)
Backend = Literal["card", "ttsim", "wolfpine"]


class Arch(StrEnum):
    blackhole = "blackhole"
    wormhole = "wormhole"


@dataclass(frozen=True)
class Target:
    """A card or a simulator, and the compiler for it. A `Platform` is one, and its `str()` names it in a line."""

    backend: Backend
    arch: Arch
    location: Path
    """The card's character device, ttsim's `.so`, or the folder with the simulator's `run.sh`."""
    compiler: Compiler
