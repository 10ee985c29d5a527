# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How commands start: one way for a script, `python -m` and an installed entry point. No device is needed."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from common.command import ExitCode
from tests.child import PATIENCE, REPOSITORY

ENTRY_POINTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "120", "TERM": "dumb"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture
def entry_point(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The script that pip makes of an entry point."""
    module, _, function = ENTRY_POINTS[request.param].partition(":")
    script = tmp_path / request.param
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return script


@pytest.mark.parametrize("entry_point", ENTRY_POINTS, indirect=True)
@pytest.mark.long
def test_the_usage_of_an_entry_point(entry_point: Path) -> None:
    done = run(entry_point, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: {entry_point.name} [OPTIONS]" in done.stdout


def if_long(script: Path) -> list[pytest.MarkDecorator]:
    """It imports all of transformers."""
    return [pytest.mark.long] if script.name == "sweep_norms.py" else []


@pytest.mark.parametrize(
    "script",
    [pytest.param(path, marks=if_long(path), id=path.name) for path in sorted((REPOSITORY / "scripts").glob("*.py"))],
)
def test_the_usage_of_a_script(script: Path) -> None:
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: {script.name} [OPTIONS]" in done.stdout


@pytest.mark.parametrize("module", ["commands.compare_block", "weights_tools"])
def test_the_usage_of_a_module(module: str) -> None:
    done = run("-m", module, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: python -m {module} [OPTIONS]" in done.stdout


@pytest.mark.parametrize("script", ["compare_block.py", "measure_accuracy.py"])
def test_no_device_is_one_line(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(tmp_path / "nowhere"))
    monkeypatch.delenv("TT_LOGGER_LEVEL", raising=False)  # set while a device is open here; it asks for ttnn's log
    done = run(REPOSITORY / "scripts" / script)
    assert done.returncode == ExitCode.NO_DEVICE
    assert re.fullmatch(rf"error: TT_METAL_SIMULATOR={tmp_path}/nowhere.*\n", done.stderr)


def test_the_guard_ends_a_process_with_the_code_for_no_device() -> None:
    """Its signal's handler is `_exit`, which takes the signal's number."""
    assert signal.SIGQUIT == ExitCode.NO_DEVICE


def test_stdout_has_the_commands_own_output_alone() -> None:
    """A simulator prints to file descriptor 1, even as the process ends."""
    program = """
import atexit, os, typer
from common.command import start

app = typer.Typer()
atexit.register(os.write, 1, b"farewell\\n")

@app.command()
def main():
    os.write(1, b"chatter\\n")
    os.system("echo a child")
    print("result")

start(app, ends_at_interrupt=True)
"""
    done = run("-c", program)
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert done.stderr.split() == ["chatter", "a", "child", "farewell"]


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_command_may_lack_an_output(closed: str) -> None:
    """A service may be started without one."""
    program = "import typer; from common.command import start; app = typer.Typer()\n"
    program += "app.command()(lambda: print('result')); start(app, ends_at_interrupt=True)"
    shell = ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-c", program]
    done = subprocess.run(shell, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("result\n" if closed == "2>&-" else "")
