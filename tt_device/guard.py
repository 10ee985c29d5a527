# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The process that watches over one that has a device open (its owner), so that nothing hangs or is left behind.

Run by file path, with the standard library alone, so that it stands within a tenth of a second. Its standard input is
a pipe on which the owner's heartbeat thread writes; its standard error is the owner's.

While ttnn waits for a device it waits for ever. Some of its calls hold the GIL meanwhile, and the heartbeat stops;
from others the heartbeat reports that a thread is still in the same call. Both are silence here. Silence alone proves
nothing, since compiling and simulating may last. A reason to end the owner is

- a simulator that has ended, after 2 s, while the device is open or the owner is silent;
- a deadlock that the simulator reports twice running, in which some core waits in its kernel (during a long upload all
  cores wait for a launch, and the simulator reports that, too);
- a deadlock of any kind that it goes on reporting for `timeout` seconds;
- `timeout` seconds of silence without any other sign of life: a compiler that the owner started and that has ended,
  or a message that the simulator has read from the owner;
- `timeout` seconds in which the simulator is stopped, or computes without reading what it is told;
- ten times `timeout` of silence, whatever the simulator reads: a kernel that computes for ever keeps it busy for ever.

The reason is printed, with the cores that wait if the simulator tells, and the owner ends with exit code 3. However the
owner ends, the simulator is ended after it.
"""

import os
import re
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

# What the owner writes: it runs Python; it is still in the same ttnn call; the device is open, closed; it is ending.
HEARTBEAT, WAITING, OPENED, CLOSED, ENDING = b".", b"w", b"o", b"x", b"e"

TICK_SECONDS = 0.25
DEAD_SIMULATOR_SECONDS = 2.0
BUSY_TIMEOUTS = 10
LAST_WORDS = 15  # lines
SHOW_CURSOR = "\033[?25h"

SHOWN_CORES = 8  # of those that wait alike

# wolfpine's report on a deadlock: a line for each core's state, and a last one.
DEADLOCK = re.compile(r"\[DEADLOCK cycle=(\d+)\] no observable progress for (\d+) cycles")
STATE = re.compile(r"  (NoC )?(?:tile=\((\d+), (\d+)\) )?(.+)")
RISC = re.compile(r"(?:B|NC|T)RISC\d?: ")
PARKED = "parked in a recognised firmware wait loop"  # so it calls each loop that only reads L1, a kernel's too
DEADLOCK_END = "  (TT_SIM_DEADLOCK=0 to disable, "
FIRMWARE_END = {"blackhole": 0x84E0, "wormhole": 0x7240}  # MEM_NOC_COUNTER_BASE of dev_mem_map.h; kernels lie above


def main() -> None:
    run, timeout, owner, owner_fd, arch, banner = sys.argv[1:]
    watch = Watch(Path(run), float(timeout), int(owner), int(owner_fd), arch)
    reason = watch.until_owner_ends()
    if reason:
        _report(reason, watch.simulator, banner)
        _end_owner(int(owner_fd))
    if not watch.ending and sys.stderr.isatty():
        print(SHOW_CURSOR, end="", file=sys.stderr, flush=True)  # a progress bar may have hidden it
    _end_run(Path(run), wait=watch.ending and not reason)


class Watch:
    """What is known of the owner and its simulator; times are in seconds."""

    def __init__(self, run: Path, timeout: float, owner: int, owner_fd: int, arch: str) -> None:
        self.timeout = timeout
        self.owner = owner
        self.owner_fd = owner_fd
        self.simulator = Simulator(run, arch)
        self.open = False
        self.ending = False  # the owner has said so, at a time when its simulator was alive
        self.silence = 0.0
        self.lifeless = 0.0  # silence without any other sign of life
        self.simulator_ended = 0.0
        self.simulator_deaf = 0.0  # it computes, or is stopped, and reads no message; asleep, it waits for one

    def until_owner_ends(self) -> str | None:
        """None when the owner has ended by itself, else the reason why it has to be ended."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self.owner_fd, select.POLLIN)
        compiled = read = None
        last = time.monotonic()
        while True:
            ready = {fd for fd, _ in poll.poll(TICK_SECONDS * 1000)}
            if self.owner_fd in ready:
                return None
            # Four ticks at most: while this machine or this process was suspended, the owner could not be heard.
            last, step = (now := time.monotonic()), min(now - last, 4 * TICK_SECONDS)
            if not _is_stopped(self.owner):
                self.silence += step
                self.lifeless += step
            self.simulator.look(now)
            self.simulator_ended += step if self.simulator.ended else 0.0
            if 0 in ready:
                message = os.read(0, 4096)
                if not message:  # the owner is ending
                    poll.unregister(0)
                self.hear(message)
            has_compiled = compiled != (compiled := _children_cpu(self.owner))
            has_read = read != (read := self.simulator.messages_read())
            self.lifeless = 0.0 if has_compiled or has_read else self.lifeless
            self.simulator_deaf = 0.0 if has_read or self.simulator.is_idle() else self.simulator_deaf + step
            if reason := self.reason_to_end():
                return reason

    def hear(self, message: bytes) -> None:
        for word in (message[i : i + 1] for i in range(len(message))):
            if word in (OPENED, CLOSED):
                self.open = word == OPENED
            elif word == ENDING:
                self.ending = not self.simulator.ended
            elif word == HEARTBEAT:
                self.silence = self.lifeless = 0.0

    def reason_to_end(self) -> str | None:
        simulator = self.simulator
        waited_for = self.open or self.silence >= DEAD_SIMULATOR_SECONDS
        if self.simulator_ended >= DEAD_SIMULATOR_SECONDS and waited_for and not self.ending:
            return f"the simulator ended ({simulator.exit_status()}) before the device was closed"
        if simulator.deadlocks >= 2:
            return "the kernels on the device are deadlocked"
        if simulator.stalled >= self.timeout:
            return f"nothing on the device has made progress for {simulator.stalled:.0f} s (limit {self.timeout:g} s)"
        if (unanswered := max(self.lifeless, self.simulator_deaf)) >= self.timeout:
            return f"the device has not answered for {unanswered:.0f} s (limit {self.timeout:g} s)"
        if self.silence >= BUSY_TIMEOUTS * self.timeout:
            return f"the device has been busy with one call for {self.silence:.0f} s"
        return None


class Simulator:
    """The simulator that UMD starts in the run folder, once there is one; a card and ttsim have none."""

    def __init__(self, run: Path, arch: str) -> None:
        self.run = run
        self.arch = arch
        self.pid: int | None = None
        self.ended = False
        self.log_offset = 0
        # A simulator without progress reports a deadlock after each window of so many cycles. Of the latest reports
        # that follow each other without progress between:
        self.stalled = 0.0  # seconds from the first to the last
        self.deadlocks = 0  # how many of them name a core that waits in its kernel
        self.states: dict[tuple[int, int], list[str]] = {}  # by core's logical coordinates, in the last of them
        self._first_report = 0.0
        self._cycle = -(10**18)
        self._in_report = False

    def look(self, now: float) -> None:
        if self.pid is None:
            self.pid = _read_pid(self.run)
        elif not self.ended:
            self.ended = not _is_simulator_of(self.run, self.pid)
        with suppress(FileNotFoundError), (self.run / "simulator.log").open("rb") as log:
            log.seek(self.log_offset)
            text = log.read()
            text = text[: text.rfind(b"\n") + 1]  # the rest of the last line comes later
            self.log_offset += len(text)
            for line in text.decode(errors="replace").splitlines():
                self._read(line, now)

    def _read(self, line: str, now: float) -> None:
        if report := DEADLOCK.match(line):
            cycle, window = int(report[1]), int(report[2])
            if cycle - self._cycle > 2 * window:
                self._first_report, self.deadlocks = now, 0
            self._cycle, self.stalled, self.states = cycle, now - self._first_report, {}
            self._in_report = True
        elif self._in_report and line.startswith(DEADLOCK_END):
            self.deadlocks += bool(self.waiting_cores())
            self._in_report = False
        elif self._in_report and (state := STATE.fullmatch(line)):
            noc, x, y, what = state.groups()
            core = (0, 0) if x is None else logical_core(self.arch, int(x), int(y))
            self.states.setdefault(core, []).append(f"{noc or ''}{what}")

    def waiting_cores(self) -> dict[tuple[int, int], list[str]]:
        """Of each core that waits in its kernel, by its logical coordinates: what is reported on it, without the RISCs
        that wait in their firmware."""
        waiting = {}
        for core, states in self.states.items():
            risc_states = [state for state in states if RISC.match(state)]
            if in_kernel := [state for state in risc_states if self._is_in_kernel(state)]:
                in_kernel = [state.replace(PARKED, "parked in a wait loop of its kernel") for state in in_kernel]
                waiting[core] = in_kernel + [state for state in states if state not in risc_states]
        return waiting

    def _is_in_kernel(self, state: str) -> bool:
        return any(int(address, 16) >= FIRMWARE_END[self.arch] for address in re.findall("0x[0-9a-f]+", state))

    def messages_read(self) -> str | None:
        """The kernel's count of the simulator's reads: it grows with each message that the simulator takes."""
        if self.pid is None:
            return None
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/io").read_text().split()[5]  # syscr: N
        return None

    def is_idle(self) -> bool:
        return self.pid is None or self.ended or _stat(self.pid)[0] == "S"

    def exit_status(self) -> str:
        with suppress(OSError):
            return f"exit status {(self.run / 'simulator.exit').read_text().strip()}"
        return "killed"


def logical_core(arch: str, x: int, y: int) -> tuple[int, int]:
    """Logical coordinates of the core on wolfpine's tile (x, y)."""
    if arch == "blackhole":
        return x - 1 if x < 8 else x - 3, y - 2  # NoC 0's coordinates; the columns 8 and 9 have no cores
    return x - 18, (y - 18) % 10  # wolfpine's own: columns from 18 on, rows 18 to 25, then 16 and 17


def end_simulator(run: Path) -> None:
    """Kill the simulator of a run folder, if it lives, and wait until it is gone."""
    pid = _read_pid(run)
    if pid is None or not _is_simulator_of(run, pid):
        return
    with suppress(ProcessLookupError):
        group = os.getpgid(pid)  # of its own, since UMD starts simulators detached
        if group == os.getpgid(0):
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(group, signal.SIGKILL)
    for _ in range(40):
        if not _is_simulator_of(run, pid):
            return
        time.sleep(0.05)


def _read_pid(run: Path) -> int | None:
    with suppress(FileNotFoundError):
        return int((run / "simulator.pid").read_text())
    return None


def _is_simulator_of(run: Path, pid: int) -> bool:
    """Whether the process lives and is the one that `run` started, not another that was given the same id since."""
    environment = b""
    with suppress(OSError):
        for _ in range(20):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if environment or _stat(pid)[0] == "Z":
                break
            time.sleep(0.01)  # in the middle of an exec a process has no environment
    return f"TT_DEVICE_RUN={run}".encode() in environment.split(b"\0")


def _is_stopped(pid: int) -> bool:
    return _stat(pid)[0] in "tT"


def _children_cpu(pid: int) -> tuple[str, str]:
    """User and system time of the process's children that have ended, in the kernel's ticks."""
    fields = _stat(pid)
    return fields[13], fields[14]


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the third field (state) on; a process that is gone counts as a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ["Z", *["0"] * 14]


def _report(reason: str, simulator: Simulator, banner: str) -> None:
    log = simulator.run / "simulator.log"
    lines = [f"tt_device: {reason}", f"  device: {banner}"]
    if log.is_file():
        kept = simulator.run.parent.parent / "logs" / f"simulator-{simulator.run.name}.log"
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(log, kept)
        if simulator.deadlocks:
            lines += _describe_waiting(simulator)
        else:
            words = log.read_text(errors="replace").splitlines()
            lines += ["  the simulator's last words:", *(f"    {line}" for line in words[-LAST_WORDS:])]
        lines += [f"  its whole log: {kept}"]
    else:
        lines += ["  neither ttsim nor a card tells which core waits: wolfpine does"]
    lines += ["  this process ends with exit code 3; its Python was here:"]
    with suppress(OSError):  # nobody reads the owner's standard error any more
        print("\n" + "\n".join(lines), file=sys.stderr, flush=True)


def _describe_waiting(simulator: Simulator) -> list[str]:
    """Lines on the cores that wait in their kernels; of those that wait alike one, and what few do first."""
    waiting = simulator.waiting_cores()
    cores_of: dict[str, list[str]] = {}
    for core, states in sorted(waiting.items()):
        for state in states:
            cores_of.setdefault(state, []).append(str(core))
    lines = [f"  {len(waiting)} of {len(simulator.states)} cores wait in their kernels; by logical coordinates:"]
    for state, cores in sorted(cores_of.items(), key=lambda item: len(item[1])):
        more = f" and {len(cores) - SHOWN_CORES} more" if len(cores) > SHOWN_CORES else ""
        lines += [f"    core {', '.join(cores[:SHOWN_CORES])}{more}: {state}"]
    return lines


def _end_owner(owner_fd: int) -> None:
    """SIGQUIT makes the owner show where it was and exit with code 3; SIGKILL, if that does not end it."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(owner_fd, number)
        poll = select.poll()
        poll.register(owner_fd, select.POLLIN)
        if poll.poll(2000):
            return


def _end_run(run: Path, wait: bool) -> None:
    simulator = _read_pid(run)
    deadline = time.monotonic() + (5 if wait else 0)  # it may still be writing what it was asked to record
    while simulator is not None and _is_simulator_of(run, simulator) and time.monotonic() < deadline:
        time.sleep(0.05)
    end_simulator(run)
    # The script around a simulator that ended by itself writes its exit status, perhaps into the folder that is being
    # removed, which then stays. What can't be removed is left to the next run.
    deadline = time.monotonic() + 5
    while run.exists() and time.monotonic() < deadline:
        shutil.rmtree(run, ignore_errors=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
