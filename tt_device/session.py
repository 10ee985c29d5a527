# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The life of an open device: its environment, its run folder, its guard.

ttnn reads its settings when a process opens a device for the first time, and lets go of the simulator only when the
process ends. So a process has one session, made at the first opening and kept to the end.

A session's run folder, `<cache>/runs/<pid>-<random>/`, holds all that ttnn and the simulator write beside compiled
kernels, and goes with the process:

    lock            locked by this process and its guard for as long as either lives
    simulator/      what ttnn is told is the simulator: links, and a run.sh that shows the real one to the guard
    python.sh       what starts wolfpine's server, mended
    simulator.pid   the real simulator's process id
    simulator.exit  its exit status, once it has ended
    simulator.log   what it prints
    generated/      ttnn's own logs and reports
"""

import atexit
import ctypes
import faulthandler
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from loguru import logger

from tt_device import guard, runtime_root
from tt_device.errors import PlatformError
from tt_device.target import ONE_CHIP, Mesh, Target

CACHE = platformdirs.user_cache_path("tt-deepseek-norms")
HEARTBEAT_SECONDS = 0.5
MIN_FREE = 200_000_000  # bytes; the kernels of the whole test suite take 95 MB
KERNEL_ASSERTS = {"TT_METAL_LIGHTWEIGHT_KERNEL_ASSERTS": "1", "TT_METAL_LLK_ASSERTS": "1"}
MENDED = Path(__file__).with_name("mended.py")
REAL = "real"  # in the run folder's simulator/: a link to the simulator that the rest stands for

# What UMD starts in place of the real run.sh. The inner shell execs the simulator, so that the process id that it wrote
# is the simulator's; the outer one waits for it and writes its exit status.
RUN_SH = """#!/bin/sh
cd {run} || exit
export TT_DEVICE_RUN={run} TT_DEVICE_PYTHON="$WOLFPINE_PYTHON" WOLFPINE_PYTHON={run}/python.sh
exec >simulator.log 2>&1
sh -c 'echo $$ >simulator.tmp; mv simulator.tmp simulator.pid; exec "$0" "$@"' {real} "$@"
echo $? >simulator.exit
"""

# What wolfpine's run.sh takes for Python.
PYTHON_SH = """#!/bin/sh
exec "$TT_DEVICE_PYTHON" -u {mended} "$@"
"""


@dataclass(frozen=True)
class _Session:
    target: Target
    settings: Mapping[str, str | None]
    temporary: Path
    guard: "subprocess.Popen[bytes]"


_session: _Session | None = None
_device_is_open = False


@contextmanager
def opened(target: Target, timeout: float, kernel_asserts: bool, mesh: Mesh = ONE_CHIP) -> Iterator[Any]:
    """ttnn's device on `target`, closed at the end; `Platform.open` says the rest."""
    global _device_is_open
    if _device_is_open:
        raise PlatformError("a device is open in this process: close it before opening another")
    session = _process_session(target, timeout, kernel_asserts)
    with environment(session.settings):
        try:
            import ttnn  # slow, and needless for choosing a platform
        except ImportError as error:
            raise PlatformError(f"can't import ttnn: {error}") from error
        logger.enable("ttnn")
        try:
            with environment({"TMPDIR": str(session.temporary)}):  # where Open MPI leaves its session folders
                device = _open_mesh(ttnn, mesh)
        except PlatformError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\nbacktrace:")[0]
            raise PlatformError(f"ttnn can't open {target}: {reason}") from error
        _device_is_open = True
        _tell(session.guard, guard.OPENED)
        try:
            yield device
        finally:
            _device_is_open = False
            ttnn.close_mesh_device(device)
            if mesh != ONE_CHIP:
                ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)
            _tell(session.guard, guard.CLOSED)


def _open_mesh(ttnn: Any, mesh: Mesh) -> Any:
    """
    Raises:
        PlatformError: there are not so many chips
    """
    if mesh == ONE_CHIP:
        return ttnn.open_device(device_id=0)
    chips = ttnn.get_num_devices()
    if mesh[0] * mesh[1] > chips:
        raise PlatformError(f"mesh ({mesh[0]}x{mesh[1]}) must have no more chips than there are ({chips})")
    fabric = ttnn.FabricConfig.FABRIC_1D if 1 in mesh else ttnn.FabricConfig.FABRIC_2D
    ttnn.set_fabric_config(fabric)  # before the mesh opens: what gathers over chips needs it
    try:
        return ttnn.open_mesh_device(ttnn.MeshShape(*mesh))
    except RuntimeError:
        ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)
        raise


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """os.environ with `changes` in it; None takes a variable out."""
    before = {name: os.environ.get(name) for name in changes}
    _change_environment(changes)
    try:
        yield
    finally:
        _change_environment(before)


def _change_environment(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _process_session(target: Target, timeout: float, kernel_asserts: bool) -> _Session:
    global _session
    if _session is None:
        try:
            _check_free_space(CACHE)
            run, lock = _new_run_folder(CACHE / "runs")
            # Without asserts even if the process that started this one has a device open with them: they cost cycles.
            settings = _settings(target, run) | (KERNEL_ASSERTS if kernel_asserts else dict.fromkeys(KERNEL_ASSERTS))
        except OSError as error:
            raise PlatformError(f"can't write in the cache folder (XDG_CACHE_HOME moves it): {error}") from error
        _session = _Session(target, settings, run / "tmp", _start_guard(target, run, lock, timeout))
    elif _session.target != target:
        raise PlatformError(
            f"ttnn keeps to one platform a process: this one opened ({_session.target}), and can't open ({target})"
        )
    return _session


def _check_free_space(cache: Path) -> None:
    """On a full disk each of ttnn's compilations fails by itself, in a page of text that does not say why."""
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < MIN_FREE:
        raise PlatformError(
            f"the cache folder {cache} must have {MIN_FREE / 1e6:.0f} MB free, for compiled kernels, but has"
            f" {free / 1e6:.0f} MB (XDG_CACHE_HOME moves it)"
        )


def _new_run_folder(runs: Path) -> tuple[Path, int]:
    """A fresh run folder and its lock's descriptor; sweeps what killed processes with killed guards left behind."""
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".lock").open("w") as gate:  # or a sweep could take a folder that is not locked yet
        fcntl.flock(gate, fcntl.LOCK_EX)
        for run in runs.iterdir():
            if run.is_dir() and not _is_locked(run / "lock"):
                guard.end_simulator(run)
                shutil.rmtree(run, ignore_errors=True)
        run = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))
        lock = os.open(run / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
    (run / "tmp").mkdir()
    return run, lock


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _settings(target: Target, run: Path) -> dict[str, str | None]:
    """Environment variables for ttnn and the simulator; None means that one must not be set."""
    settings: dict[str, str | None] = {
        "TT_METAL_LOGS_PATH": f"{run}/",  # the generated/ folder, by default in the current directory
        "TT_METAL_SHM_TRACKING_DISABLED": "1",  # else each process leaves a file in /dev/shm
        "OMPI_MCA_btl": "self",  # ... and Open MPI one of 16 MB, for messages between processes, of which there is one
        "TT_LOGGER_LEVEL": os.environ.get("TT_LOGGER_LEVEL", "error"),
        # Its record of launches grows by 2 kB with each generic_op, and is never let go.
        "TT_METAL_INSPECTOR": os.environ.get("TT_METAL_INSPECTOR", "0"),
    }
    if target.compiler.sfpi is None:
        root = runtime_root.ensure_runtime_root(CACHE)
        settings["TT_METAL_RUNTIME_ROOT"] = str(root)
        settings["TT_METAL_CACHE"] = f"{CACHE}/kernels/{root.name}/"  # ttnn's keys leave the compiler out
    else:
        settings["TT_METAL_CACHE"] = f"{CACHE}/kernels/sfpi/"
    if target.backend == "card":
        return settings | {"TT_METAL_SIMULATOR": None}
    if target.backend == "wolfpine" and (descriptor := target.location / "cluster_descriptor.yaml").is_file():
        # Without it, cores can't reach one another by NoC 1, since the coordinates are not translated, as a card's are.
        settings["TT_METAL_MOCK_CLUSTER_DESC_PATH"] = str(descriptor)
    return settings | {
        "TT_METAL_SIMULATOR": str(_simulator_for_ttnn(target, run)),
        "TT_METAL_SLOW_DISPATCH_MODE": "1",
        "TT_METAL_DISABLE_SFPLOADMACRO": "1",
        "WOLFPINE_PYTHON": os.environ.get("WOLFPINE_PYTHON", sys.executable),
        "TT_SIM_NO_HOST_STOP": "1",  # wolfpine would end this process by SIGTERM without a word; the guard says why
    }


def _simulator_for_ttnn(target: Target, run: Path) -> Path:
    """What TT_METAL_SIMULATOR is to name: links in the run folder, so that nobody's own folder is written to."""
    folder = run / "simulator"
    folder.mkdir()
    real = target.location
    (folder / REAL).symlink_to(real)
    if target.backend == "ttsim":
        (folder / real.name).symlink_to(real)
        descriptor = real.with_name("soc_descriptor.yaml")
        if not descriptor.is_file():
            name = {"blackhole": "blackhole_140_arch.yaml", "wormhole": "wormhole_b0_80_arch.yaml"}[target.arch]
            descriptor = runtime_root.base_root() / "tt_metal" / "soc_descriptors" / name
        (folder / "soc_descriptor.yaml").symlink_to(descriptor)
        return folder / real.name
    for descriptor in real.glob("*.yaml"):
        (folder / descriptor.name).symlink_to(descriptor)
    real_run_sh = shlex.quote(str(real / "run.sh"))
    for script, text in (
        (folder / "run.sh", RUN_SH.format(run=shlex.quote(str(run)), real=real_run_sh)),
        (run / "python.sh", PYTHON_SH.format(mended=shlex.quote(str(MENDED)))),
    ):
        script.write_text(text)
        script.chmod(0o755)
    return folder


def real_simulator(named: Path) -> Path:
    """What `named` stands for, if a process with an open device has put it into the environment that we inherited."""
    real = (named if named.is_dir() else named.parent) / REAL
    return real.readlink() if real.is_symlink() else named


def _start_guard(target: Target, run: Path, lock: int, timeout: float) -> "subprocess.Popen[bytes]":
    _let_guard_end_us()
    owner = os.pidfd_open(os.getpid())
    arguments = [str(run), str(timeout), str(os.getpid()), str(owner), target.arch, str(target)]
    process = subprocess.Popen(
        [sys.executable, "-IS", guard.__file__, *arguments],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=(owner, lock),
        start_new_session=True,  # or Ctrl-C would end the guard before its owner
        cwd="/",
    )
    os.close(owner)
    threading.Thread(target=_beat, args=(process,), name="tt_device heartbeat", daemon=True).start()
    atexit.register(_tell, process, guard.ENDING)
    return process


def _beat(process: "subprocess.Popen[bytes]") -> None:
    """Tell the guard again and again that Python runs here, and whether a thread waits in ttnn. While ttnn holds the
    GIL, this thread stands still, and the guard hears nothing."""
    while _tell(process, guard.WAITING if _waits_in_ttnn() else guard.HEARTBEAT):
        time.sleep(HEARTBEAT_SECONDS)


def _waits_in_ttnn() -> bool:
    """Whether a thread has been in one and the same ttnn call since this was last asked.

    The call's frame is marked: `f_trace_lines`, which is True in a new frame and concerns tracers alone, is set to
    False. So a frame with False is a call that was there the last time. The frame's address would not tell, since the
    next call's frame often has the same one; and a reference to the frame would keep the call's tensors alive, and free
    them in the heartbeat's thread.
    """
    if (ttnn := sys.modules.get("ttnn")) is None or ttnn.__file__ is None:
        return False
    folder = f"{Path(ttnn.__file__).parent}/"  # not by the module's name: from_torch's is "core"
    waits = False
    for frame in sys._current_frames().values():
        if frame.f_code.co_filename.startswith(folder):
            waits |= not frame.f_trace_lines
            frame.f_trace_lines = False
    return waits


def _tell(process: "subprocess.Popen[bytes]", message: bytes) -> bool:
    assert process.stdin is not None
    with suppress(OSError):  # the guard was killed
        process.stdin.write(message)
        return True
    return False


def _let_guard_end_us() -> None:
    """Make SIGQUIT print this thread's Python stack and end the process with exit code 3, its own number.

    A Python signal handler would wait for the GIL, which a stuck ttnn call never gives back. So both handlers are C.
    They stay for as long as the process lives: ttnn disconnects from the simulator in an exit handler, and that can
    hang, too.
    """
    libc = ctypes.CDLL(None)
    libc.signal(signal.SIGQUIT, ctypes.cast(libc._exit, ctypes.c_void_p))
    stderr = os.dup(2)
    faulthandler.register(signal.SIGQUIT, file=stderr, all_threads=False, chain=True)
