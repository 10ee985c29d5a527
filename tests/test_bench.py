# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""scripts/bench_norms.py and plot_scaling.py: cycles of launches, and the figures that are made of them."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import plot_scaling
from commands.bench_norms import BARS, Bar, Floor, Result, find_cases
from commands.bench_record import PATH, Record, Section
from model_comparison.peers import Case
from tests.child import PATIENCE, REPOSITORY, wait_for
from tt_device import Arch, Platform
from tt_device.cycles import CbEvent, CoreRun, CostTable, CycleCounter, Launch, cost_table

COSTS = CostTable(banks=8, bank=50, read_latency=100, write_latency=20, round_trip=180)


def run(name: str, *arguments: str | Path, installed: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs the script, or the module as it is installed in a folder."""
    command = [str(REPOSITORY / "scripts" / f"{name}.py")] if installed is None else ["-m", f"commands.{name}"]
    environment = {} if installed is None else {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=installed,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


def install(folder: Path) -> Path:
    """Copies all packages, and returns where the record lies then."""
    for package in REPOSITORY.glob("*/py.typed"):
        shutil.copytree(package.parent, folder / package.parent.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "commands" / PATH.name


@pytest.mark.long
def test_counts_a_warm_launch(tmp_path: Path, platform: Platform) -> None:
    """On wolfpine, whatever the other tests run on: it alone has a cost model."""
    arch = platform.arch
    done = run("bench_norms", "LayerNorm [1, 128]", "--arch", arch, "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert result["floor"]["launch"] < result["floor"]["cycles"] < result["cycles"] <= result["bar"]
    phases = ("start", "statistics", "normalize", "write")
    assert sum(result["phases"][phase] for phase in phases) == result["cycles"]
    assert all(result["phases"][phase] >= 0 for phase in phases)
    assert result["errors"]["exact"] >= 0.98
    assert result["peer"]["cycles"] > result["cycles"], "ttnn's recorded figure"
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "reached" in done.stdout
    assert f"(its deadlock report, idle cores and SrcB's rows mended), {arch}" in done.stderr


def test_unknown_case_exits_2_and_leaves_no_folder(tmp_path: Path) -> None:
    done = run("bench_norms", "GroupNorm*", "--output", tmp_path / "out")
    assert (done.returncode, done.stderr) == (2, "error: no case matches 'GroupNorm*'\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("where", ["checkout", "installed"])
def test_figures_are_recorded_in_a_checkout_alone(where: str, tmp_path: Path) -> None:
    """All sections of the smallest case, as recorded long ago."""
    case = "LayerNorm [1, 32]"
    record = install(tmp_path)
    if where == "checkout":
        shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    before = json.loads(record.read_text())
    old = {
        "ttnn": {"cycles": 9000, "cores": 1, "exact": 0.0, "raw": 0.0, "scaled": 9.0, "date": "2020-02-02"},
        "one-core": {"cycles": 8000, "date": "2020-02-02"},
        "ours": {"cycles": 8000, "cores": 1, "floor": 1000, "date": "2020-02-02"},
    }
    for section, entry in old.items():
        before["blackhole"].setdefault(section, {})[case] = entry
    record.write_text(json.dumps(before))
    recorded = old if where == "checkout" else ["ours"]  # a launch each
    sections = [word for section in recorded for word in ("--record", section)]
    done = run("bench_norms", case, *sections, "--output", tmp_path, installed=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert 0 < result["cycles"] <= result["one_core"] + 30 < result["peer"]["cycles"]
    after = json.loads(record.read_text())
    if where == "checkout":
        assert result["peer"]["cycles"] < 9000, "as measured, not as recorded"
        new = {section: after["blackhole"][section].pop(case) for section in old}
        for section, entry in old.items():
            del before["blackhole"][section][case]
            assert new[section].keys() == entry.keys()
            assert new[section]["date"] > entry["date"]
        assert new["ttnn"]["cycles"] == result["peer"]["cycles"]
        assert new["one-core"]["cycles"] == result["one_core"]
        assert new["ours"]["cycles"] == result["cycles"]
        assert new["ours"]["floor"] == result["floor"]["cycles"]
    assert after == before


def test_a_folder_that_cannot_be_written_exits_2_before_a_device_opens(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("bench_norms", "LayerNorm [1, 128]", "--output", tmp_path / "file" / "out")
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr
        == f"error: {tmp_path}/file/out: can't be written ([Errno 20] Not a directory: '{tmp_path}/file/out')\n"
    )


def test_reads_launches_as_they_end(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.touch()
    counter = CycleCounter(path)
    with path.open("a") as file:
        for event in (
            [1, 2, 90, "pushed", 0, 7],  # before the launch
            [1, 2, 100, "go", 0, 0x80],
            [2, 2, 110, "go", 0, 0x80],
            [1, 2, 130, "pushed", 3, 2],
            [2, 2, 140, "pushed", 3, 4],
            [1, 2, 150, "go", 0, 0],
            [1, 2, 160, "pushed", 3, 3],  # after this core's end
            [2, 2, 310, "go", 0, 0],
            [1, 2, 400, "go", 0, 0x80],
        ):
            file.write(json.dumps(event) + "\n")
        file.write("[1, 2, 450, ")
    (launch,) = counter.launches()
    first = CoreRun((1, 2), start=0, end=50, events=(CbEvent(30, 3, "pushed", 2),))
    last = CoreRun((2, 2), start=10, end=210, events=(CbEvent(40, 3, "pushed", 4),))
    assert launch == Launch((first, last))
    assert (launch.cycles, launch.cores, launch.last) == (210, 2, last)
    assert counter.launches() == []
    with path.open("a") as file:
        file.write('"go", 0, 0]\n')
    assert counter.launches() == [Launch((CoreRun((1, 2), 0, 50, ()),))]


# Each core pushes another number of pages; the most on the core that stands in the middle of the others.
ON_SEVERAL_CORES = """
import json, sys
import ttnn
from tests.programs import push_pages
from tt_device import Arch
from tt_device.cycles import open_counted

pages = {(0, 0): 3, (2, 1): 40, (3, 0): 12}
with open_counted(Arch(sys.argv[1])) as (_, device, counter):
    push_pages(device, pages)
    ttnn.synchronize_device(device)
    (launch,) = counter.launches()
for run in launch.runs:
    print(json.dumps([run.core, run.start, run.end, run.held(0)]))
"""


@pytest.mark.long
def test_keeps_cores_apart(tmp_path: Path, platform: Platform) -> None:
    """In the counter and in the timeline, on wolfpine, whatever the other tests run on."""
    trace = tmp_path / "trace.json.gz"
    done = subprocess.run(
        [sys.executable, "-c", ON_SEVERAL_CORES, platform.arch],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TT_SIM_TRACE_PERFETTO": str(trace)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    assert [(core, start) for core, start, _, _ in runs] == [([0, 0], 0), ([3, 0], 0), ([2, 1], 0)], "as they ended"
    for (_, _, end, held), pages in zip(runs, (3, 12, 40), strict=True):
        assert [count for _, count in held] == [1, 0] * pages
        assert 0 < held[0][0] < held[-1][0] < end
    wait_for(trace.exists)  # the simulator writes it as it ends
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert tracks == {"core (0, 0)", "core (2, 1)", "core (3, 0)"}


def test_knows_what_the_cost_model_charges() -> None:
    """24 GB/s a bank of Wormhole at 1 GHz is in its documentation. A round trip goes once around the ring of a row of
    the NoC, 17 or 10 hops of 9 cycles, and through 10 cycles of ends either way: no core is in a bank's column."""
    blackhole, wormhole = cost_table(Arch.blackhole), cost_table(Arch.wormhole)
    assert (blackhole.banks, wormhole.banks) == (8, 12)
    assert (blackhole.bank, wormhole.bank) == (pytest.approx(47.08, abs=0.01), 24)
    assert (blackhole.round_trip, wormhole.round_trip) == (17 * 9 + 20, 10 * 9 + 20)
    assert (blackhole.read_latency, blackhole.write_latency) == (126, 22)
    assert (wormhole.read_latency, wormhole.write_latency) == (99, 99)


@pytest.mark.parametrize(
    ("case", "busiest"),
    [
        (Case("LayerNorm", 1, 7168), 2 * 14336),  # bank 0 has x and y, and nothing is left for the others
        (Case("LayerNorm", 32, 7168), (2 * 32 + 2) * 14336 / 8),  # four rows a bank, and gamma and beta spread
        (Case("RMSNorm", 32, 7168), (2 * 32 + 1) * 14336 / 8),
        (Case("LayerNorm", 9, 7168), 2 * 2 * 14336),  # bank 0 has two rows, the others one
        (Case("RMSNorm", 2048, 512, has_weights=False), 2 * 2048 * 1024 / 8),
        (Case("RMSNorm", 1, 16384, torch.float32, has_weights=False), 2 * 65536),
    ],
    ids=str,
)
def test_floor_is_the_busiest_banks(case: Case, busiest: float) -> None:
    """busiest: its bytes, read and written"""
    floor = Floor.of(case, COSTS, launch=350)
    assert floor == Floor(launch=350, round_trip=180 + 100 + 20, transfer=busiest / 50)
    assert floor.cycles == round(350 + 300 + busiest / 50)


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        ({}, []),
        ({"bar": 2000, "one_core": 1970, "peer": {"cycles": 2000, "cores": 130}}, []),
        ({"bar": 1999}, ["bar"]),
        ({"one_core": 1969}, ["one core"]),  # launches of one program differ by 30 and more
        ({"peer": {"cycles": 1999, "cores": 130}}, ["ttnn"]),  # on however many cores
        ({"bar": 1000, "one_core": 1000, "peer": {"cycles": 1000, "cores": 1}}, ["bar", "one core", "ttnn"]),
    ],
)
def test_a_case_is_held_to_its_bar_to_one_core_and_to_ttnn(limits: dict[str, Any], missed: list[str]) -> None:
    unlimited = {"one_core": None, "bar": None, "peer": None}
    anything: Any = None
    result = Result(
        case="LayerNorm [1, 128]", cycles=2000, cores=2, floor=anything, phases=anything, errors=anything,
        **unlimited | limits,
    )  # fmt: skip
    assert result.missed == missed


def test_bars_of_a_chip_and_a_dtype() -> None:
    blackhole, wormhole = ({str(case): bar for case, bar in find_cases("*", arch).items()} for arch in Arch)
    in_shards = {name for name in blackhole if "shards" in name}
    assert blackhole.keys() - in_shards == wormhole.keys(), "wolfpine's Wormhole can't read L1 of several cores back"
    assert len(in_shards) == 6 + 2
    assert blackhole["LayerNorm [1, 7168]"] == Bar(2400)
    assert wormhole["LayerNorm [1, 7168]"] == Bar(3240)
    assert wormhole["RMSNorm [1, 7168] float32"] == Bar(round(2100 * 1.35 * 2.2))
    assert blackhole["LayerNorm [1, 32]"] == Bar()
    record = Record(Arch.blackhole)
    assert wormhole["RMSNorm [2048, 512] without weights"].over(10_000, record) == 14_000
    sticks = record.get(Section.ours, "RMSNorm [1024, 128]")
    assert sticks is not None
    assert blackhole["RMSNorm [1024, 128] TILE"].over(1000, record) == round(1.25 * sticks["cycles"])
    assert len(wormhole) == len(BARS) + 4 + 6 + 4


@pytest.mark.parametrize("arch", Arch)
def test_what_is_recorded_is_measured(arch: Arch) -> None:
    """No entry is of a case that the bench has no longer; each has its figures."""
    cases = {str(case) for case in find_cases("*", arch)}
    figures = {
        Section.ttnn: {"cycles", "cores", "exact", "raw", "scaled", "date"},
        Section.one_core: {"cycles", "date"},
        Section.ours: {"cycles", "cores", "floor", "date"},
    }
    for section, entries in json.loads(PATH.read_text())[arch].items():
        assert entries.keys() <= cases, section
        assert all(entry.keys() == figures[Section(section)] for entry in entries.values()), section


def test_draws_what_is_recorded_and_names_what_is_not(tmp_path: Path) -> None:
    record = install(tmp_path)
    content = json.loads(record.read_text())
    shapes = {(rows, width) for width, many in plot_scaling.ROWS.items() for rows in many}
    shapes |= {(rows, width) for rows, many in plot_scaling.WIDTHS.items() for width in many}
    cases = sorted(str(Case("LayerNorm", *shape)) for shape in shapes)
    assert set(cases) <= {str(case) for case in find_cases("*", Arch.blackhole)}
    ours = {case: {"cycles": 2000, "cores": 1, "floor": 1000, "date": "2020-02-02"} for case in cases}
    content["blackhole"]["ours"] = ours
    record.write_text(json.dumps(content))
    figure = tmp_path / "scaling.png"
    done = run("plot_scaling", figure, installed=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert figure.read_bytes().startswith(b"\x89PNG")
    figure.unlink()
    del ours["LayerNorm [4, 128]"]
    record.write_text(json.dumps(content))
    done = run("plot_scaling", figure, installed=tmp_path)
    expected = "error: not recorded for blackhole (bench_norms.py --record ours): LayerNorm [4, 128]\n"
    assert (done.returncode, done.stderr, figure.exists()) == (2, expected, False)
