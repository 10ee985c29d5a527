# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated cycles of each launch, by wolfpine's cost model.

The model takes its figures from Tenstorrent's ISA documentation and tt-metal's measurements where they give any, and
charges nothing where they don't: a lower bound, not a measurement (`framework/perf` in wolfpine says which is which).
Cycles are good for comparing kernels in the same run, and tell no seconds.
"""

import json
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from tt_device.platform import Platform, find_wolfpine
from tt_device.session import environment
from tt_device.target import Arch

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
class CoreRun:
    """What one core did in a launch. Cycles count from the launch's start, when GO lands in its first core's mailbox.

    Attributes:
        core: its logical coordinates (x, y)
        start: cycle in which GO landed in this core's launch mailbox
        end: cycle in which DONE did
        events: of its circular buffers, in order
    """

    core: tuple[int, int]
    start: int
    end: int
    events: tuple[CbEvent, ...]

    def held(self, cb: int) -> list[tuple[int, int]]:
        """(cycle, pages that the CB held from then on), at each of its events."""
        counts = {"pushed": 0, "popped": 0}
        held = []
        for event in self.events:
            if event.cb == cb:
                counts[event.kind] = event.pages
                held.append((event.cycle, counts["pushed"] - counts["popped"]))
        return held


@dataclass(frozen=True)
class Launch:
    """One launch of a program.

    Attributes:
        runs: of its cores, in the order in which they ended
    """

    runs: tuple[CoreRun, ...]

    @property
    def cores(self) -> int:
        """How many it ran on."""
        return len(self.runs)

    @property
    def last(self) -> CoreRun:
        """The run of the core that ended last."""
        return self.runs[-1]

    @property
    def cycles(self) -> int:
        """From GO of the first core to DONE of the last."""
        return self.last.end


@dataclass(frozen=True)
class Phases:
    """A core's cycles in a launch, split at events of its circular buffers. Other rows are read and written meanwhile.

    Attributes:
        start: from the launch's start until the first piece of x is in L1
        statistics: until the first piece of the output is made
        normalize: until the last one is
        write: until the end
        compute_waits: of all these, cycles after the first piece of x in which there was none to work on
        writer_waits: of all these, cycles after the first output in which there was none to write
    """

    start: int
    statistics: int
    normalize: int
    write: int
    compute_waits: int
    writer_waits: int

    @classmethod
    def of(cls, run: CoreRun, cb_input: int, cb_output: int) -> "Phases":
        pushed_x, pushed_y = (
            [event.cycle for event in run.events if event.cb == cb and event.kind == "pushed"]
            for cb in (cb_input, cb_output)
        )
        return cls(
            start=pushed_x[0],
            statistics=pushed_y[0] - pushed_x[0],
            normalize=pushed_y[-1] - pushed_y[0],
            write=run.end - pushed_y[-1],
            compute_waits=_empty_cycles(run.held(cb_input)),
            writer_waits=_empty_cycles(run.held(cb_output)),
        )


def _empty_cycles(held: list[tuple[int, int]]) -> int:
    """Cycles between the first push and the last event in which the buffer held nothing."""
    return sum(until - since for (since, pages), (until, _) in pairwise(held) if pages == 0)


class CycleCounter:
    """Reads what the probes write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._first_go = 0
        self._running: dict[tuple[int, int], tuple[int, list[CbEvent]]] = {}  # core -> cycle of its GO, events since
        self._ended: list[CoreRun] = []

    def launches(self) -> list[Launch]:
        """The launches that ended since the last call. Synchronize the device before."""
        launches = []
        with self._path.open() as file:
            file.seek(self._offset)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break  # still being written
                self._offset += len(line)
                x, y, *event = json.loads(line)
                if self._ends_launch((x, y), *event):
                    launches.append(Launch(tuple(self._ended)))
        return launches

    def _ends_launch(self, core: tuple[int, int], cycle: int, kind: str, index: int, value: int) -> bool:
        if kind == "go" and value == GO:
            if not self._running:
                self._first_go, self._ended = cycle, []
            self._running[core] = cycle - self._first_go, []
        elif core in self._running and kind == "go" and value == DONE:
            start, events = self._running.pop(core)
            self._ended.append(CoreRun(core, start, cycle - self._first_go, tuple(events)))
            return not self._running
        elif core in self._running and kind != "go" and value:
            _, events = self._running[core]
            events.append(CbEvent(cycle - self._first_go, index, kind, value))
        return False


@contextmanager
def open_counted(
    arch: Arch | None = None, timeout: float | None = None
) -> Iterator[tuple[Platform, Any, CycleCounter]]:
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
    """What the cost model charges, of what bounds a norm on any number of cores.

    Attributes:
        banks: of DRAM
        bank: bytes a cycle of one of them, read or written
        read_latency, write_latency: cycles before a bank serves
        round_trip: cycles of a packet without data from a core to a bank and of the answer, where these two take fewest
    """

    banks: int
    bank: float
    read_latency: int
    write_latency: int
    round_trip: int


def cost_table(arch: Arch) -> CostTable:
    """From wolfpine's own tables."""
    with environment({"TT_SIM_COST_MODEL": "1"}):
        from framework import arch as arches
        from framework.network.tt_noc import noc_hop_count
        from framework.perf import model

        noc, dram = model.noc_cost_model(arch), model.dram_cost_model(arch)
    profile = getattr(arches, f"{arch.upper()}_PROFILE")
    grid = profile.noc_grid_x, profile.noc_grid_y
    workers = import_module(f"framework.sim.{arch}.coords").TENSIX_COORD_MAP  # by NoC 0's coordinates
    endpoints = [endpoint for bank in profile.dram_channel_physical_noc0_coords for endpoint in bank]
    return CostTable(
        banks=len(profile.dram_channel_physical_noc0_coords) * profile.dram_gddr_channels_per_tile,
        bank=dram.channel_occupancy_bytes_per_cycle(is_write=False),
        read_latency=dram.service_cycles_for(is_write=False),
        write_latency=dram.service_cycles_for(is_write=True),
        round_trip=min(
            noc.flight_cycles(noc_hop_count(worker, endpoint, *grid))
            + noc.flight_cycles(noc_hop_count(endpoint, worker, *grid))
            for worker in workers
            for endpoint in endpoints
        ),
    )
