# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Gets a Tenstorrent device for ttnn: a card, or a simulated chip where there is none.

    from tt_device import find_platform

    platform = find_platform()
    print(platform)                      # wolfpine 2.2, blackhole, ttnn 0.81.1, compiler: ...
    with platform.open() as device:      # a ttnn device
        ...

While a device is open, nothing hangs for ever: a guard process (`guard.py`) ends this process with exit code 3 and a
message when the simulator dies, a kernel deadlocks, or the device does not answer. However this process ends, no
simulator outlives it.
"""

import os

from loguru import logger

from tt_device.errors import PlatformError
from tt_device.platform import Platform, as_mesh, find_platform
from tt_device.target import ONE_CHIP, Arch, Mesh

__all__ = ["ONE_CHIP", "Arch", "Mesh", "Platform", "PlatformError", "as_mesh", "find_platform"]

if "TT_LOGGER_LEVEL" not in os.environ:
    logger.disable("ttnn")  # its import prints the whole configuration; `Platform.open` enables it again
