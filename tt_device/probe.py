# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""wolfpine's server with probes: writes when each core's launch starts and ends, and what goes through its circular
buffers. In the timeline of TT_SIM_TRACE_PERFETTO, tracks are named after cores, not wolfpine's tiles.

`cycles.py` has it started in place of wolfpine's own server: `python probe.py ARCH FILE`. It runs in the simulator's
process, and imports nothing of ours. FILE gets JSON lines `[x, y, cycle, kind, index, value]` for the core with the
logical coordinates (x, y):

    go      0, value   value lands in the launch mailbox: 0x80 starts a launch, 0 ends it
    pushed  cb, value  the CB's count of pages ever pushed
    popped  cb, value  the CB's count of pages ever popped
"""

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from framework.bridge.device import Device
from framework.device import tiles
from framework.sim.blackhole import coords as blackhole
from framework.sim.wormhole import coords as wormhole
from framework.trace.writers.perfetto import PerfettoWriter

# As ttnn 0.81 has them: where the mailboxes start (MEM_MAILBOX_BASE of dev_mem_map.h), the go message's signal byte in
# them, and a CB's counters: registers of the CB's overlay stream (stream_io_map.h).
MAILBOXES = {"blackhole": 0x60, "wormhole": 0x10}
GO_SIGNAL = 1171
COUNTERS = {"blackhole": {10: "pushed", 8: "popped"}, "wormhole": {4: "pushed", 3: "popped"}}


def main(arch: str, path: str) -> None:
    go, counters = MAILBOXES[arch] + GO_SIGNAL, COUNTERS[arch]
    cores = logical_cores(arch)
    name_tracks(cores)
    with Path(path).open("w") as out:

        def write(tile: Any, kind: str, index: int, value: int) -> None:
            x, y = cores[tile.coord_x, tile.coord_y]
            out.write(json.dumps([x, y, tile.clock.current_cycle, kind, index, value]) + "\n")
            if kind == "go":
                out.flush()  # the reader waits for the end of a launch

        make_tile = tiles.TensixTile.__init__

        def make_probed_tile(tile: Any, *args: Any, **kwargs: Any) -> None:
            make_tile(tile, *args, **kwargs)
            memory, overlay = tile.L1_mem, tile.noc_overlay

            def store(address: int, value: Any, size: int | None = None, _store: Any = memory.write) -> None:
                _store(address, value, size)
                if address <= go < address + (len(value) if size is None else size):
                    write(tile, "go", 0, value[go - address])

            def count(address: int, value: Any, size: int | None = None, _count: Any = overlay.write) -> None:
                _count(address, value, size)
                stream, register = address >> 12, (address & 0xFFF) >> 2
                if register in counters:
                    write(tile, counters[register], stream, overlay.stream_regs[stream][register])

            memory.write, overlay.write = store, count

        tiles.TensixTile.__init__ = make_probed_tile
        # A host write that runs no cycles: else the cores of a launch would start thousands of cycles apart.
        Device.write = Device.write_without_pump
        sys.argv = [f"framework.sim.{arch}"]
        runpy.run_module(f"framework.sim.{arch}", run_name="__main__")


def logical_cores(arch: str) -> dict[tuple[int, int], tuple[int, int]]:
    """Of each of wolfpine's tiles with a worker core, that core's logical coordinates: its rank among the columns and
    rows of workers on NoC 0. Wolfpine has coordinates of its own for tiles, on Wormhole other ones than NoC 0."""
    coords = {"blackhole": blackhole, "wormhole": wormhole}[arch]
    tile_of = coords.TENSIX_COORD_MAP  # by place on NoC 0
    xs, ys = (sorted(set(axis)) for axis in zip(*tile_of, strict=True))
    return {tile: (xs.index(x), ys.index(y)) for (x, y), tile in tile_of.items()}


def name_tracks(cores: dict[tuple[int, int], tuple[int, int]]) -> None:
    emit = PerfettoWriter._emit_raw

    def emit_named(writer: Any, event: dict[str, Any]) -> None:
        if event["name"] == "process_name":
            *_, tile_y, tile_x = map(int, re.findall(r"\d+", event["args"]["name"]))  # Tile chip=0 (y,x)
            if core := cores.get((tile_x, tile_y)):
                event["args"]["name"] = f"core {core}"
        emit(writer, event)

    PerfettoWriter._emit_raw = emit_named


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
