# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""scripts/bench_norms.py: cycles of launches, and the figures that are made of them."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child import PATIENCE, REPOSITORY, wait_for
from tt_device import Arch, Platform
from tt_device.cycles import CbEvent, CoreRun, CostTable, CycleCounter, Launch, cost_table

SCRIPT = REPOSITORY / "scripts" / "bench_norms.py"


def bench(*arguments: str | Path, installed: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs the script, or the module as it is installed in a folder."""
    command: list[str | Path] = [SCRIPT] if installed is None else ["-m", "commands.bench_norms"]
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


def test_counts_a_warm_launch(tmp_path: Path, platform: Platform) -> None:
    """On wolfpine, whatever the other tests run on: it alone has a cost model."""
    arch = platform.arch
    run = bench("LayerNorm [1, 128]", "--arch", arch, "--output", tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    (result,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert result["floor"]["launch"] < result["cycles"] <= result["bar"]
    phases = ("start", "statistics", "normalize", "write")
    assert sum(result["phases"][phase] for phase in phases) == result["cycles"]
    assert all(result["phases"][phase] >= 0 for phase in phases)
    assert result["errors"]["exact"] >= 0.98
    assert result["peer"]["cycles"] > result["cycles"], "ttnn's recorded figure"
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "reached" in run.stdout
    assert f"wolfpine 2.2, {arch}" in run.stderr


def test_unknown_case_exits_2_and_leaves_no_folder(tmp_path: Path) -> None:
    run = bench("GroupNorm*", "--output", tmp_path / "out")
    assert (run.returncode, run.stderr) == (2, "error: no case matches 'GroupNorm*'\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["checkout", "installed"])
def test_ttnns_figures_are_recorded_in_a_checkout_alone(where: str, tmp_path: Path) -> None:
    """Of the smallest case, which has a recorded figure already."""
    for package in REPOSITORY.glob("*/py.typed"):
        shutil.copytree(package.parent, tmp_path / package.parent.name, ignore=shutil.ignore_patterns("__pycache__"))
    if where == "checkout":
        shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    record = tmp_path / "commands" / "bench_peers.json"
    before = json.loads(record.read_text())
    before["blackhole"]["LayerNorm [1, 32]"]["date"] = "2020-02-02"
    record.write_text(json.dumps(before))
    run = bench("LayerNorm [1, 32]", "--peers", installed=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    after = json.loads(record.read_text())
    if where == "checkout":
        measured = after["blackhole"].pop("LayerNorm [1, 32]")
        recorded = before["blackhole"].pop("LayerNorm [1, 32]")
        assert (measured.keys(), measured["cores"]) == (recorded.keys(), recorded["cores"])
        assert measured["cycles"] > 0
        assert measured["date"] > recorded["date"]
    assert after == before
    assert "2020-02-02" not in run.stdout
    assert "HiFi4): measured 20" in run.stdout


def test_a_folder_that_cannot_be_written_exits_2_before_a_device_opens(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = bench("LayerNorm [1, 128]", "--output", tmp_path / "file" / "out")
    assert run.returncode == 2, run.stderr
    assert (
        run.stderr
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


def test_keeps_cores_apart(tmp_path: Path, platform: Platform) -> None:
    """In the counter and in the timeline, on wolfpine, whatever the other tests run on."""
    trace = tmp_path / "trace.json.gz"
    run = subprocess.run(
        [sys.executable, "-c", ON_SEVERAL_CORES, platform.arch],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TT_SIM_TRACE_PERFETTO": str(trace)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    runs = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[[")]
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
    """As wolfpine's documentation has it: 64 and 32 bytes a cycle on a link, 24 GB/s a bank at 1 GHz."""
    blackhole, wormhole = cost_table(Arch.blackhole), cost_table(Arch.wormhole)
    assert isinstance(blackhole, CostTable)
    assert (blackhole.link, wormhole.link, wormhole.bank) == (64, 32, 24)
    assert (blackhole.read_latency, wormhole.read_latency) == (126, 99)
