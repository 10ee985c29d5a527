# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The ground under ttnn: what is chosen, that nothing hangs, and that nothing is left behind.

The tests that open a device do so in processes of their own, since they end badly on purpose.
"""

import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import ttnn

import tt_device.platform
from tests.child import PATIENCE, Start, wait_for
from tests.programs import DEADLOCK
from tt_device import Arch, Platform, PlatformError, find_platform, guard, probe, runtime_root, session

ROUND_TRIP = """
    import ttnn

    x = torch.arange(64, dtype=torch.bfloat16).reshape(2, 32)
    assert torch.equal(ttnn.to_torch(ttnn.from_torch(x, device=device)), x)
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No card, no SFPI and no simulator named, whatever this machine has; gives an empty folder."""
    monkeypatch.delenv("TT_METAL_SIMULATOR", raising=False)
    monkeypatch.delenv("TT_METAL_RUNTIME_ROOT", raising=False)
    monkeypatch.setattr(tt_device.platform, "DEV", tmp_path / "no cards")
    monkeypatch.setattr(runtime_root, "SYSTEM_SFPI", tmp_path / "no sfpi")
    return tmp_path


# --- The choice ---


@pytest.mark.usefixtures("bare")
def test_wolfpine_is_what_is_left() -> None:
    platform = find_platform()
    assert (platform.backend, platform.arch) == ("wolfpine", "blackhole")
    assert find_platform("wormhole").arch == "wormhole"
    wolfpine = r"wolfpine [\d.]+ \(its deadlock report, idle cores and SrcB's rows mended\), blackhole"
    banner = wolfpine + r", ttnn 0\.81\.\d+, compiler: stand-in over riscv64-unknown-elf-g\+\+ [\d.]+"
    assert re.fullmatch(banner, str(platform))


@pytest.mark.usefixtures("bare")
def test_named_simulator_is_what_its_descriptor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    wormhole = find_platform("wormhole").location
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(wormhole))
    assert find_platform() == find_platform("wormhole")
    with pytest.raises(PlatformError, match=rf"\(blackhole\) must equal the arch of {wormhole} \(wormhole\)"):
        find_platform("blackhole")


def name_ttsim(monkeypatch: pytest.MonkeyPatch, library: Path, described: str | None) -> None:
    """Points TT_METAL_SIMULATOR at an empty library, beside a descriptor of the arch `described` if one is given."""
    library.touch()
    if described:
        library.with_name("soc_descriptor.yaml").write_text(f"grid:\n  x_size: 17\narch_name: {described}\n")
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(library))


@pytest.mark.parametrize(
    ("name", "described", "asked", "arch"),
    [
        ("libttsim_wh.so", None, None, Arch.wormhole),  # by its name
        ("libttsim_bh.so", "BLACKHOLE", None, Arch.blackhole),
        ("mine.so", "WORMHOLE_B0", None, Arch.wormhole),  # by its descriptor
        ("mine.so", None, "wormhole", Arch.wormhole),  # by what was asked for: nothing contradicts it
    ],
)
def test_ttsim(
    bare: Path, monkeypatch: pytest.MonkeyPatch, name: str, described: str | None, asked: str | None, arch: Arch
) -> None:
    name_ttsim(monkeypatch, bare / name, described)
    platform = find_platform(asked)
    assert (platform.backend, platform.arch, platform.location) == ("ttsim", arch, bare / name)


@pytest.mark.parametrize(
    ("name", "described", "asked", "message"),
    [
        ("mine.so", None, None, "nothing tells its arch"),
        ("libttsim_bh.so", "WORMHOLE_B0", None, r"\(wormhole\) must equal .* \(blackhole\)"),
        ("libttsim_bh.so", None, "wormhole", r"\(wormhole\) must equal .* \(blackhole\)"),
        ("mine.so", "QUASAR", None, r"\(quasar\) must be one of blackhole, wormhole"),
    ],
)
def test_ttsim_whose_arch_is_unknown_or_contradicted(
    bare: Path, monkeypatch: pytest.MonkeyPatch, name: str, described: str | None, asked: str | None, message: str
) -> None:
    name_ttsim(monkeypatch, bare / name, described)
    with pytest.raises(PlatformError, match=message):
        find_platform(asked)


def test_named_simulator_that_is_none(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(bare))
    with pytest.raises(PlatformError, match=r"holds a run\.sh"):
        find_platform()
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(bare / "missing.so"))
    with pytest.raises(PlatformError, match=r"missing\.so: neither"):
        find_platform()


def test_card_needs_sfpi(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Path("/dev/null")  # any character device
    number = node.stat().st_rdev
    (bare / "dev").mkdir()
    (bare / "dev" / "0").symlink_to(node)
    identity = bare / "sys" / f"{os.major(number)}:{os.minor(number)}" / "device" / "device"
    identity.parent.mkdir(parents=True)
    identity.write_text("0xb140\n")
    monkeypatch.setattr(tt_device.platform, "DEV", bare / "dev")
    monkeypatch.setattr(tt_device.platform, "SYS", bare / "sys")
    without = find_platform()
    assert without.backend == "wolfpine"
    assert str(without).endswith(f" (not card {bare}/dev/0: SFPI, its compiler, is not in {bare}/no sfpi)")
    (bare / "libttsim_wh.so").touch()
    with monkeypatch.context() as named:
        named.setenv("TT_METAL_SIMULATOR", str(bare / "libttsim_wh.so"))
        assert str(find_platform()).endswith(f" (not card {bare}/dev/0: SFPI, its compiler, is not in {bare}/no sfpi)")

    compiler = bare / "sfpi" / "compiler" / "bin" / "riscv-tt-elf-g++"
    compiler.parent.mkdir(parents=True)
    compiler.touch(mode=0o755)
    monkeypatch.setattr(runtime_root, "SYSTEM_SFPI", bare / "sfpi")
    card = find_platform()
    assert (card.backend, card.arch, card.location) == ("card", "blackhole", bare / "dev" / "0")
    assert str(card).endswith(f"compiler: SFPI in {bare / 'sfpi'}")
    with pytest.raises(PlatformError, match=r"\(wormhole\) must equal .* \(blackhole\)"):
        find_platform("wormhole")


def test_no_compiler_names_the_line_to_type(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bare))
    with pytest.raises(PlatformError, match=rf"riscv64-unknown-elf-g\+\+.* Type: {re.escape(runtime_root.APT_LINE)}"):
        find_platform()


def test_unknown_arch() -> None:
    with pytest.raises(PlatformError, match=r"\('grayskull'\) must be one of blackhole, wormhole"):
        find_platform("grayskull")


def test_runtime_root_is_built_once_by_two_at_once(bare: Path) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(runtime_root.ensure_runtime_root, [bare, bare])
    assert first == second
    assert [path for path in first.parent.iterdir() if path.is_dir()] == [first]
    built = first.stat().st_mtime_ns
    assert runtime_root.ensure_runtime_root(bare).stat().st_mtime_ns == built
    assert os.access(first / "runtime/sfpi/compiler/bin/riscv-tt-elf-g++", os.X_OK)
    assert (first / "tt_metal/hw/inc/api/core_local_mem.h").is_file()


def test_a_process_started_beside_an_open_device_chooses_as_its_parent(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents, root = str(find_platform()), runtime_root.ensure_runtime_root(bare)
    monkeypatch.setenv("TT_METAL_RUNTIME_ROOT", str(root))
    assert str(find_platform()) == parents
    assert runtime_root.ensure_runtime_root(bare) == root


@pytest.mark.usefixtures("bare")
def test_one_platform_a_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_guard = subprocess.Popen[bytes](["true"])
    wormhole, blackhole = find_platform("wormhole"), find_platform("blackhole")
    monkeypatch.setattr(session, "_device_is_open", False)
    monkeypatch.setattr(session, "_session", session._Session(wormhole, {}, tmp_path, no_guard))
    message = rf"this one opened \({re.escape(str(wormhole))}\), and can't open \({re.escape(str(blackhole))}\)"
    with pytest.raises(PlatformError, match=message), blackhole.open():
        pass
    no_guard.wait(PATIENCE)


# --- A device that is well ---


def test_leaves_everything_as_it_was(start: Start) -> None:
    run = start(f"""{ROUND_TRIP}
    try:
        with platform.open():
            pass
    except Exception as error:
        print(error)
    raise RuntimeError("from the block")
    """)
    run.wait_until_open()
    folder = run.run_folder
    run.go_on()
    assert run.end() == 1, run.stderr
    assert "RuntimeError: from the block" in run.stderr
    assert "a device is open in this process" in run.stdout
    assert "environment restored: True" in run.stdout
    assert "info" not in run.stdout + run.stderr, "ttnn's own chatter"
    assert not list(run.folder.iterdir())
    wait_for(lambda: not folder.exists())


# --- A device that is not ---


def test_simulator_that_dies_at_start(start: Start, tmp_path: Path, platform: Platform) -> None:
    simulator = tmp_path / platform.arch
    simulator.mkdir()
    for descriptor in tt_device.platform._wolfpine_folder(platform.arch).glob("*.yaml"):
        (simulator / descriptor.name).symlink_to(descriptor)
    (simulator / "run.sh").write_text("#!/bin/sh\necho ImportError: no flatbuffers >&2\nexit 7\n")
    (simulator / "run.sh").chmod(0o755)
    run = start(TT_METAL_SIMULATOR=str(simulator))
    assert run.end() == 3, run.stderr
    assert "the simulator ended (exit status 7)" in run.stderr
    assert "    ImportError: no flatbuffers" in run.stderr


@pytest.mark.parametrize(
    ("sent", "body", "reason"),
    [
        (signal.SIGKILL, ROUND_TRIP, r"the simulator ended \(exit status 137\) before the device was closed"),
        # ttnn gives up the GIL in both, and the first is not called by way of ttnn's Python.
        pytest.param(
            signal.SIGSTOP,
            "import ttnn; ttnn.from_torch(torch.ones(1, 32), device=device).cpu()",
            r"the device has not answered for \d+ s \(limit 15 s\)",
            marks=pytest.mark.long,
        ),
        pytest.param(
            signal.SIGSTOP,
            DEADLOCK,
            r"the device has not answered for \d+ s \(limit 15 s\)",
            marks=pytest.mark.long,
        ),
    ],
    ids=["killed", "stopped", "stopped-in-launch"],
)
def test_simulator_that_fails_in_the_middle(start: Start, sent: signal.Signals, body: str, reason: str) -> None:
    run = start(body, TT_METAL_SIMULATOR="", TT_DEVICE_TIMEOUT="15")
    run.wait_until_open()
    simulator, folder = run.simulator, run.run_folder
    os.kill(simulator, sent)
    run.go_on()
    assert run.end() == 3, run.stderr
    assert re.search(reason, run.stderr)
    assert re.search(r'Stack \(most recent call first\):\n(  File .*\n)*  File "<string>", line \d+', run.stderr)
    wait_for(lambda: not folder.exists())
    assert not guard._is_simulator_of(folder, simulator)


@pytest.mark.usefixtures("device")
def test_child_of_an_open_device_gets_a_simulator_of_its_own(platform: Platform) -> None:
    """Not the one that this process's environment names for ttnn, whose log and process id its guard watches."""
    assert find_platform().location == platform.location


def test_deadlocked_kernel(start: Start, platform: Platform) -> None:
    # wolfpine reports the deadlock itself, in 10 s or so; ttsim says nothing, so the limit has to pass.
    run = start(DEADLOCK, TT_DEVICE_TIMEOUT="50" if platform.backend == "wolfpine" else "10")
    run.wait_until_open()
    run.go_on()
    assert run.end() == 3, run.stderr
    if platform.backend == "wolfpine":
        assert "the kernels on the device are deadlocked" in run.stderr
        assert re.search(
            r"  1 of 6 cores wait in their kernels; by logical coordinates:\n"
            r"    core \(2, 1\): BRISC: oscillating in \[.*\n"
            r"  its whole log: ",
            run.stderr,
        )
    else:
        assert re.search(r"the device has not answered for \d+ s \(limit 10 s\)", run.stderr)
        assert "neither ttsim nor a card tells which core waits" in run.stderr


def test_killed_process_leaves_no_simulator(start: Start) -> None:
    run = start(TT_METAL_SIMULATOR="")
    run.wait_until_open()
    simulator, folder = run.simulator, run.run_folder
    assert guard._is_simulator_of(folder, simulator)
    run.process.kill()
    wait_for(lambda: not folder.exists())
    assert not guard._is_simulator_of(folder, simulator)


# --- The guard's parts ---


def test_removes_a_run_folder_that_is_written_to_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the script around a simulator that ended by itself: its exit status comes when it comes."""
    run, remove, calls = tmp_path / "run", shutil.rmtree, 0
    run.mkdir()

    def remove_late(folder: Path, ignore_errors: bool) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (folder / "simulator.exit").write_text("0\n")
        else:
            remove(folder, ignore_errors)

    monkeypatch.setattr(guard.shutil, "rmtree", remove_late)
    guard._end_run(run, wait=False)
    assert not run.exists()


def test_sweeps_what_a_killed_guard_left(tmp_path: Path) -> None:
    alive, lock = session._new_run_folder(tmp_path)
    dead = tmp_path / "1-dead"
    dead.mkdir()
    orphan = subprocess.Popen(["sleep", "100"], env={"TT_DEVICE_RUN": str(dead)}, start_new_session=True)
    (dead / "simulator.pid").write_text(f"{orphan.pid}\n")
    fresh, _ = session._new_run_folder(tmp_path)
    assert orphan.wait(PATIENCE) == -signal.SIGKILL
    assert sorted(path for path in tmp_path.iterdir() if path.is_dir()) == sorted([alive, fresh])
    os.close(lock)


def test_spares_a_process_that_took_the_simulators_id(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as stranger:
        (tmp_path / "simulator.pid").write_text(f"{stranger.pid}\n")
        guard.end_simulator(tmp_path)
        assert stranger.poll() is None
        stranger.kill()


def test_a_stopped_owner_is_not_silent() -> None:
    with subprocess.Popen(["sleep", "100"]) as owner:
        assert not guard._is_stopped(owner.pid)
        owner.send_signal(signal.SIGSTOP)
        wait_for(lambda: guard._is_stopped(owner.pid))
        owner.kill()


# What wolfpine reports on RISCs of Blackhole. It calls a loop that only reads L1 a firmware's, even in a kernel.
FOR_A_LAUNCH = "parked in a recognised firmware wait loop [0x400c, 0x443c] — polling a value nothing has written"
FOR_NCRISC = "parked in a recognised firmware wait loop [0x4318, 0x4778] — polling a value nothing has written"
FOR_A_SEMAPHORE = "parked in a recognised firmware wait loop [0xa2fc, 0xa304] — polling a value nothing has written"
FOR_A_PAGE = "oscillating in [0xa1b0, 0xa1bc] (4 unique PCs) — likely polling"
DEADLOCKED = "the kernels on the device are deadlocked"


def report_deadlock(watch: guard.Watch, cycle: int, states: list[str], now: float) -> None:
    """Writes wolfpine's report into the log, and has the guard look."""
    with (watch.simulator.run / "simulator.log").open("a") as log:
        print(f"[DEADLOCK cycle={cycle}] no observable progress for 50000 cycles", file=log)
        for state in states:
            print(f"  {state}", file=log)
        print("  (TT_SIM_DEADLOCK=0 to disable, TT_SIM_DEADLOCK_THRESHOLD=N to tune window)", file=log)
    watch.simulator.look(now)


@pytest.mark.parametrize(
    ("ncrisc", "cycles", "seconds", "reason"),
    [
        (FOR_A_PAGE, [106314], 0.0, None),
        (FOR_A_PAGE, [106314, 156378], 3.0, DEADLOCKED),
        (FOR_A_PAGE, [106314, 306314], 100.0, None),  # there was progress between
        (FOR_A_SEMAPHORE, [106314, 156378], 3.0, DEADLOCKED),
        (FOR_A_LAUNCH, [106314, 156378], 3.0, None),  # as long uploads look
        (FOR_A_LAUNCH, [106314, 156378], 61.0, "nothing on the device has made progress for 61 s (limit 60 s)"),
    ],
)
def test_idle_cores_are_no_deadlock(
    tmp_path: Path, ncrisc: str, cycles: list[int], seconds: float, reason: str | None
) -> None:
    watch = guard.Watch(tmp_path, timeout=60.0, owner=os.getpid(), owner_fd=-1, arch="blackhole")
    for i, cycle in enumerate(cycles):
        report_deadlock(watch, cycle, [f"BRISC: {FOR_A_LAUNCH}", f"NCRISC: {ncrisc}"], 1000.0 + i * seconds)
    assert watch.reason_to_end() == reason


def test_names_the_hung_cores_among_parked_ones(tmp_path: Path) -> None:
    """What one core waits for stands before what many wait for."""
    watch = guard.Watch(tmp_path, timeout=60.0, owner=os.getpid(), owner_fd=-1, arch="blackhole")
    states = [f"tile=({x}, 2) {risc}: {FOR_A_LAUNCH}" for x in range(1, 8) for risc in ("BRISC", "NCRISC", "TRISC0")]
    for x in range(1, 8):
        for y in (3, 4):
            states += [f"tile=({x}, {y}) BRISC: {FOR_NCRISC}", f"tile=({x}, {y}) NCRISC: {FOR_A_SEMAPHORE}"]
    states += [f"tile=(10, 3) BRISC: {FOR_A_PAGE}", f"tile=(10, 3) NCRISC: {FOR_A_LAUNCH}"]
    states += ["NoC tile=(10, 3) nui=0: 2 request(s) awaiting a response (2 unresolved)"]
    report_deadlock(watch, 106314, states, now=0.0)
    assert guard._describe_waiting(watch.simulator) == [
        "  15 of 22 cores wait in their kernels; by logical coordinates:",
        f"    core (7, 1): BRISC: {FOR_A_PAGE}",
        "    core (7, 1): NoC nui=0: 2 request(s) awaiting a response (2 unresolved)",
        "    core (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2) and 6 more: NCRISC: parked in a wait"
        " loop of its kernel [0xa2fc, 0xa304] — polling a value nothing has written",
    ]


@pytest.mark.parametrize("arch", Arch)
def test_knows_wolfpines_tiles(arch: Arch) -> None:
    cores = probe.logical_cores(arch)  # by wolfpine's own map
    assert len(cores) == {"blackhole": 140, "wormhole": 80}[arch]
    assert {tile: guard.logical_core(arch, *tile) for tile in cores} == cores


def test_tells_one_long_ttnn_call_from_many(monkeypatch: pytest.MonkeyPatch) -> None:
    waits_in_ttnn = session._waits_in_ttnn
    # The heartbeat of an open device asks, too, and marks frames.
    monkeypatch.setattr(session, "_waits_in_ttnn", lambda: False)
    entered, leave = SimpleQueue[None](), SimpleQueue[None]()
    names: dict[str, Any] = {"entered": entered, "leave": leave}
    code = "def call():\n    entered.put(None)\n    leave.get()"
    exec(compile(code, Path(ttnn.__file__).parent / "operations" / "core.py", "exec"), names)  # noqa: S102
    with ThreadPoolExecutor(max_workers=1) as pool:
        waits = []
        for _ in range(2):
            done = pool.submit(names["call"])
            entered.get(timeout=PATIENCE)
            waits.append([waits_in_ttnn() for _ in range(3)])
            leave.put(None)
            done.result()
    assert waits == [[False, True, True], [False, True, True]]
    assert not waits_in_ttnn()
