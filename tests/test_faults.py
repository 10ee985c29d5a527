# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Faults from outside at any time: kills, Ctrl-C, full and read-only disks, two at once. The next run always works.

Writers of checkpoints that are killed or meet a full disk are in test_bad_files.py, a device that fails under a run in
test_device.py.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.child import INTERRUPTIBLE, PATIENCE, REPOSITORY, Run, Start, wait_for
from tests.programs import DEADLOCK
from tt_device import guard, session

Count = Callable[[str, int], None]
INTERRUPTED = 128 + signal.SIGINT  # what a shell says of a process that SIGINT ended
# A launch with a known result, in a folder of compiled kernels that may be empty.
NORM = """
    import ttnn
    from micro_ops.layernorm import LayerNormSingleCore
    from tests.tensors import assert_equal_but_near_ties, random_input, random_weights, upload

    x, (gamma, beta) = random_input((5, 128)), random_weights(128)
    tensors = [upload(t, device) for t in (x, gamma, beta)]
    print("launching", flush=True)
    y = ttnn.to_torch(LayerNormSingleCore.op(*tensors))
    assert_equal_but_near_ties(y, LayerNormSingleCore.golden(x, gamma, beta), beta)
    print("closing", flush=True)
"""


def is_finished(cache: Path) -> bool:
    """Nothing of any run is left, and nothing is half built."""
    return not any(path.is_dir() for path in (cache / "runs").glob("*")) and not list(cache.rglob(".building"))


# --- Kills ---

STAGES: dict[str, Callable[[Run, Path], bool]] = {
    "building the runtime root": lambda _, cache: bool(list(cache.glob("runtime/*"))),
    "starting the simulator": lambda _, cache: bool(list(cache.glob("runs/*/simulator"))),
    "compiling the firmware": lambda _, cache: bool(list(cache.glob("kernels/**/firmware/**/*.o"))),
    "opening the device": lambda run, _: "open\n" in run.stdout,
    "compiling the kernels": lambda _, cache: bool(list(cache.glob("kernels/**/kernels/compute/**/*.o"))),
    "launching": lambda run, _: "launching\n" in run.stdout,
    "closing": lambda run, _: "closing\n" in run.stdout,
}


@pytest.mark.long
def test_killed_at_each_stage_the_next_run_works(start: Start, tmp_path: Path, count: Count) -> None:
    """One cache, empty at first, is handed from one killed run to the next."""
    cache = tmp_path / "tt-deepseek-norms"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "TT_METAL_RUNTIME_ROOT": ""}
    for stage, is_reached in STAGES.items():
        run = start(NORM, **environment)
        run.go_on()
        wait_for(partial(_is_at, run, cache, is_reached), period=0.002)
        assert run.process.poll() is None, (stage, run.stderr)
        folders = [folder for folder in cache.glob("runs/*") if folder.is_dir()]
        run.process.kill()
        run.process.wait(PATIENCE)
        wait_for(partial(_are_let_go, folders))
        count("faults: kills of a run", 1)
    run = start(NORM, **environment)
    run.go_on()
    assert run.end() == 0, run.stderr
    wait_for(lambda: is_finished(cache))
    count("faults: runs that worked after kills", 1)


def _is_at(run: Run, cache: Path, is_reached: Callable[[Run, Path], bool]) -> bool:
    return is_reached(run, cache) or run.process.poll() is not None


def _are_let_go(folders: list[Path]) -> bool:
    """No guard and no simulator lives. The folder of a run that had no guard yet is there until the next run."""
    simulators = [(folder, guard._read_pid(folder)) for folder in folders]
    alive = any(pid is not None and guard._is_simulator_of(folder, pid) for folder, pid in simulators)
    return not alive and not any(session._is_locked(folder / "lock") for folder in folders)


@pytest.mark.long
def test_two_at_once_with_an_empty_cache(start: Start, tmp_path: Path, count: Count) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path), "TT_METAL_RUNTIME_ROOT": ""}
    runs = [start(NORM, **environment) for _ in range(2)]
    for run in runs:
        run.go_on()
    for run in runs:
        assert run.end() == 0, run.stderr
        count("faults: runs at once that worked", 1)
    wait_for(lambda: is_finished(tmp_path / "tt-deepseek-norms"))


# --- Ctrl-C ---


def interrupt(process: "subprocess.Popen[str]", count: Count) -> None:
    """Sends SIGINT; the process must end within 5 s, and as a shell reports it with 130."""
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    status = process.wait(PATIENCE)
    assert time.monotonic() - sent <= 5.0
    assert (128 - status if status < 0 else status) == INTERRUPTED
    count("faults: Ctrl-C", 1)


@pytest.mark.parametrize("script", ["compare_block.py", "bench_norms.py"])
def test_interrupted_script(script: str, tmp_path: Path, count: Count) -> None:
    """While it opens the device."""
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [*INTERRUPTIBLE, sys.executable, str(REPOSITORY / "scripts" / script)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
            cwd=tmp_path,
        )
    with process:
        try:
            wait_for(lambda: "device: " in (tmp_path / "stderr").read_text())
            interrupt(process, count)
        finally:
            process.kill()
    assert "Traceback" not in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(
    ("started", "status", "printed"), [("--default-signal=INT", -signal.SIGINT, ""), ("--ignore-signal=INT", 0, "on")]
)
def test_a_command_in_the_background_is_not_interrupted(started: str, status: int, printed: str) -> None:
    """A shell starts `command &` of a script with SIGINT ignored."""
    program = (
        "import signal; from common.command import end_at_interrupt\n"
        "end_at_interrupt(); signal.raise_signal(signal.SIGINT); print('on')"
    )
    command = ["env", started, sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (status, printed), done.stderr


def test_interrupted_launch(start: Start, count: Count) -> None:
    """Python sees nothing of it, since ttnn holds the GIL."""
    run = start("from common.command import end_at_interrupt\nend_at_interrupt()\n" + DEADLOCK)
    run.wait_until_open()
    folder = run.run_folder
    simulator = guard._read_pid(folder)
    run.go_on()
    wait_for(lambda: "second launch" in run.stdout)
    interrupt(run.process, count)
    wait_for(lambda: not folder.exists())
    assert simulator is None or not guard._is_simulator_of(folder, simulator)


def test_interrupted_tool(tmp_path: Path, count: Count) -> None:
    """weights_tools, while it writes."""
    tool = [sys.executable, "-m", "weights_tools", "make", str(tmp_path / "made"), "--full", "--layers", "3"]
    with subprocess.Popen(
        [*INTERRUPTIBLE, *tool], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            wait_for(lambda: bool(list(tmp_path.glob(".made.*"))))
            interrupt(process, count)
        finally:
            process.kill()
    assert not (tmp_path / "made").exists()
    assert not list(tmp_path.iterdir())


# --- Disks ---


def in_namespace(mount: str, program: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs Python with a file system of its own mounted on `folder`, which holds its cache."""
    script = f'mount {mount} {folder} && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    return subprocess.run(
        [*command, "env", f"XDG_CACHE_HOME={folder}", "TT_METAL_RUNTIME_ROOT=", sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


OPEN = """
from tt_device import PlatformError, find_platform
try:
    with find_platform().open():
        pass
except PlatformError as error:
    print("PlatformError:", error)
"""


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("-t tmpfs -o size=64k none", "must have 200 MB free, for compiled kernels, but has 0 MB"),
        ("-t tmpfs -o size=100m none", "must have 200 MB free, for compiled kernels, but has 10[0-9] MB"),
        ("-t tmpfs -o ro none", "Read-only file system"),
    ],
    ids=["full", "nearly full", "read-only"],
)
def test_disk_that_takes_nothing(tmp_path: Path, count: Count, mount: str, message: str) -> None:
    done = in_namespace(mount, OPEN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PlatformError: "), done
    assert re.search(message, done.stdout)
    assert str(tmp_path) in done.stdout
    assert "Traceback" not in done.stderr
    count("faults: disks that take nothing", 1)
