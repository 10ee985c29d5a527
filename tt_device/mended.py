# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Runs wolfpine's server with three faults mended: `python mended.py -u -m MODULE ...`, or `-u FILE ...`.

`session.py` gives wolfpine's run.sh a script that starts this for its Python. It runs in the simulator's process, and
imports nothing of ours.
"""

import runpy
import sys
from typing import Any


def main() -> None:
    del sys.path[0]  # our own folder, whose platform.py would stand for Python's
    from framework.device import deadlock
    from framework.pe.rv import spin

    # A loop that only waits is known by the states of its registers, of which no new one is among the last samples, so
    # many. Wolfpine's are 8: there the firmware's wait for a launch on Wormhole always has a new one, and where a core
    # is idle no deadlock is reported.
    deadlock._RECENT_PC_WINDOW = 64
    # A core whose firmware only waits is looked at every so many cycles, and rests when its program counter is twice in
    # the same 128 bytes. Wolfpine's are 100: there a loop of 8 cycles across a boundary is met on one side of it and on
    # the other in turn, and never rests, as TRISC2's on Wormhole. A prime meets a loop at all its places.
    spin.BASE_ATTEMPT_INTERVAL = 101
    _mend_unpacker()
    _, what, *arguments = sys.argv[1:]
    if what == "-m":
        module, *arguments = arguments
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__")
    else:
        sys.argv = [what, *arguments]
        runpy.run_path(what, run_name="__main__")


def _mend_unpacker() -> None:
    """An UNPACR that does not hand its source over moves the row that the next one begins at on by 16 if the register
    Unpack_Src_Reg_Set_Upd says so. Wolfpine's always does, so that what several UNPACRs bring into SrcB lies elsewhere
    than on a chip and on ttsim."""
    from framework.pe.tensix.backends.unpacker import UnPackerUnit

    flip = UnPackerUnit.flip_src_banks

    def flip_src_banks(self: Any, flips: bool, thread: int, *more: Any) -> None:
        state = self.backend.getThreadConfigValue(thread, "CFG_STATE_ID_StateID")
        if flips or self.getConfigValue(state, f"THCON_SEC{self.unpacker_id}_REG2_Unpack_Src_Reg_Set_Upd"):
            flip(self, flips, thread, *more)

    UnPackerUnit.flip_src_banks = flip_src_banks


if __name__ == "__main__":
    main()
