# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Processes of their own, for tests of how a process that opens a device ends."""

import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from tt_device import ONE_CHIP, Arch, Mesh, session

REPOSITORY = Path(__file__).parents[1]
PATIENCE = 300  # seconds, so that a test that waits for ever fails; on a busy machine nothing takes as long
# Before a command: Ctrl-C reaches it even where pytest was started with SIGINT ignored, as by nohup or a script's `&`.
INTERRUPTIBLE = ("env", "--default-signal=INT")


class Run:
    """A Python process that opens a device, says so, waits for a line, and runs `body` with `device` open."""

    def __init__(
        self,
        body: str,
        folder: Path,
        arch: Arch,
        *,
        kernel_asserts: bool = False,
        mesh: Mesh = ONE_CHIP,
        **environment: str,
    ) -> None:
        program = f"""
import os, sys, torch
from tt_device import find_platform

before = dict(os.environ)
platform = find_platform({str(arch)!r})
print(platform, flush=True)
try:
    with platform.open(kernel_asserts={kernel_asserts}, mesh={mesh}) as device:
        print("open", flush=True)
        sys.stdin.readline()
{textwrap.indent(textwrap.dedent(body), "        ")}
finally:
    print("environment restored:", dict(os.environ) == before)
"""
        self.folder = folder
        with (folder.parent / "stdout").open("w") as stdout, (folder.parent / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                [*INTERRUPTIBLE, sys.executable, "-c", program],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TT_DEVICE_TIMEOUT": "120", **environment},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                text=True,
            )

    def wait_until_open(self) -> None:
        wait_for(lambda: "open\n" in self.stdout or self.process.poll() is not None)
        assert self.process.poll() is None, self.stderr

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    @property
    def stdout(self) -> str:
        return (self.folder.parent / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder.parent / "stderr").read_text()

    @property
    def run_folder(self) -> Path:
        (folder,) = (session.CACHE / "runs").glob(f"{self.process.pid}-*")
        return folder

    @property
    def simulator(self) -> int:
        return int((self.run_folder / "simulator.pid").read_text())


Start = Callable[..., Run]


def wait_for(condition: Callable[[], bool], period: float = 0.1) -> None:
    """Looks each `period` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s"
        time.sleep(period)


def children_page_faults() -> int:
    """Of all children of this process that have ended, compilers among them: no process runs without one, so the count
    stands still exactly while none does."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
