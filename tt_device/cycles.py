"""Simulated cycles of each launch, by wolfpine's cost model.

The model takes its figures from Tenstorrent's ISA documentation and tt-metal's measurements where they give any, and
charges nothing where they don't: a floor, not a measurement (`framework/perf` in wolfpine says which is which). Cycles
are good for comparing kernels in the same run, and tell no seconds.
"""

import json
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tt_device.platform import Platform, find_wolfpine
from tt_device.session import environment

PROBE = Path(__file__).with_name("probe.py")
GO, DONE = 0x80, 0  # signals of the launch mailbox

RUN_SH = """#!/bin/sh
export TT_SIM_COST_MODEL=1
exec "${{WOLFPINE_PYTHON:-python3}}" -u {probe} {arch} {out}
"""


@dataclass(frozen=True)
class CbEvent:
    """Pages that went into a circular buffer, or out of it.

    Attributes:
        cycle: since the launch's start
        cb: its index
        kind: "pushed" or "popped"
        pages: how many since the launch's start
    """

    cycle: int
    cb: int
    kind: str
    pages: int


@dataclass(frozen=True)
class Launch:
    """One launch of a program.

    Attributes:
        cycles: from GO to DONE, as both land in a core's launch mailbox; the slowest core's
        events: of its circular buffers, in order
    """

    cycles: int
    events: tuple[CbEvent, ...]


class CycleCounter:
    """Reads what the probes write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def launches(self) -> list[Launch]:
        """The launches that ended since the last call. Synchronize the device before."""
        launches = []
        running: dict[tuple[int, int], int] = {}  # core -> cycle of its GO
        slowest, events = 0, list[CbEvent]()
        with self._path.open() as file:
            file.seek(self._offset)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break  # still being written
                self._offset += len(line)
                x, y, cycle, kind, index, value = json.loads(line)
                if kind == "go" and value == GO:
                    if not running:
                        slowest, events = 0, []
                    running[x, y] = cycle
                elif kind == "go" and value == DONE and (x, y) in running:
                    slowest = max(slowest, cycle - running.pop((x, y)))
                    if not running:
                        launches.append(Launch(slowest, tuple(events)))
                elif kind != "go" and (x, y) in running and value:
                    events.append(CbEvent(cycle - running[x, y], index, kind, value))
        return launches


@contextmanager
def open_counted(arch: str | None = None, timeout: float | None = None) -> Iterator[tuple[Platform, Any, CycleCounter]]:
    """Opens wolfpine's device with the cost model on; TT_METAL_SIMULATOR and cards don't count.

    Arguments and errors are `find_platform`'s and `Platform.open`'s.
    """
    platform = find_wolfpine(arch)
    with tempfile.TemporaryDirectory(prefix="tt-cycles-") as folder:
        simulator, out = Path(folder, platform.arch), Path(folder, "events.jsonl")
        simulator.mkdir()
        out.touch()
        for descriptor in platform.location.glob("*.yaml"):
            (simulator / descriptor.name).symlink_to(descriptor)
        run_sh = simulator / "run.sh"
        run_sh.write_text(RUN_SH.format(probe=shlex.quote(str(PROBE)), arch=platform.arch, out=shlex.quote(str(out))))
        run_sh.chmod(0o755)
        counted = replace(platform, location=simulator)
        with counted.open(timeout) as device:
            yield counted, device, CycleCounter(out)


@dataclass(frozen=True)
class CostTable:
    """What the cost model charges, of what bounds a norm on one core.

    Attributes:
        flight: cycles of a packet to a neighbour, both ends included
        link: bytes a cycle of one NoC link
        read_latency, write_latency: cycles of a DRAM bank before it serves
        bank: bytes a cycle of one DRAM bank
        unpack: bytes a cycle from L1 of one unpacker
    """

    flight: int
    link: float
    read_latency: int
    write_latency: int
    bank: float
    unpack: float


def cost_table(arch: str) -> CostTable:
    """From wolfpine's own tables."""
    with environment({"TT_SIM_COST_MODEL": "1"}):
        from framework.perf import model

        noc, dram, unpacker = (
            model.noc_cost_model(arch),
            model.dram_cost_model(arch),
            model.unit_cost_model("UNPACK", arch),
        )
    size = 8192
    return CostTable(
        flight=noc.flight_cycles(1),
        link=size / noc.serialisation_cycles(size),
        read_latency=dram.service_cycles_for(is_write=False),
        write_latency=dram.service_cycles_for(is_write=True),
        bank=dram.channel_bytes_per_cycle(is_write=False),
        unpack=size / unpacker.unpack_data_phase_cycles(size, throttle_mode=2, datum_bytes=2),
    )
