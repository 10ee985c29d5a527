# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""One device a session, for every test that asks for it; pytest's header says which. Counts of cases, at the end."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.child import Run, Start
from tt_device import ONE_CHIP, Arch, Mesh, Platform, PlatformError, as_mesh, find_platform


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("device")
    group.addoption("--arch", choices=list(Arch), help="default: what the device is")
    group.addoption(
        "--mesh", type=as_mesh, default=ONE_CHIP, help="of chips, as 1x2: its tests alone; default: 1x1, all"
    )
    group.addoption("--soak", type=float, default=20, help="seconds for test_memory.py to make its 10,000 calls in")
    group.addoption("--device-timeout", type=float, help="seconds after which a silent device counts as hung")


def pytest_report_header(config: pytest.Config) -> str:
    try:
        return f"device: {find_platform(config.getoption('arch'))}"
    except PlatformError as error:
        return f"device: none ({error})"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On several chips, what is about them."""
    if config.getoption("mesh") != ONE_CHIP:
        others = [item for item in items if "mesh" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def platform(pytestconfig: pytest.Config) -> Platform:
    """What `device` runs on, for tests that hold on one backend alone."""
    return find_platform(pytestconfig.getoption("arch"))


@pytest.fixture(scope="session")
def device(platform: Platform, pytestconfig: pytest.Config) -> Iterator[Any]:
    """The session's ttnn device, with the kernels' asserts on."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        with capture.global_and_fixture_disabled():  # the guard's messages are for the terminal
            timeout, mesh = pytestconfig.getoption("device_timeout"), pytestconfig.getoption("mesh")
            device = stack.enter_context(platform.open(timeout, kernel_asserts=True, mesh=mesh))
        yield device


@pytest.fixture(scope="session")
def mesh(device: Any) -> Any:
    """The device, for tests that hold on however many chips."""
    return device


@pytest.fixture(scope="session")
def cores(platform: Platform) -> int | None:
    """What a whole block's norms may take: wolfpine simulates 3,000 cycles of one core a second."""
    return 4 if platform.backend == "wolfpine" else None


@pytest.fixture
def reads_back(request: pytest.FixtureRequest, platform: Platform) -> None:
    """On wolfpine's Wormhole a read-back of what lies in the L1 of several cores hangs, of whatever op's result: a test
    with a parameter that is such a MemoryConfig, or a tuple with one in it, is expected to fail, and does not run."""
    import ttnn

    def memories(value: object) -> Iterator[object]:
        if isinstance(value, tuple):
            yield from chain.from_iterable(map(memories, value))
        elif isinstance(value, ttnn.MemoryConfig):
            yield value

    if (platform.backend, platform.arch) != ("wolfpine", "wormhole") or not hasattr(request.node, "callspec"):
        return
    if any(memory != ttnn.DRAM_MEMORY_CONFIG for memory in memories(tuple(request.node.callspec.params.values()))):
        pytest.xfail("wolfpine's Wormhole hangs in reading L1 of several cores back")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small synthetic checkpoints, of V3 and of V3.2."""
    from tests.small import SMALL, SMALL_V3
    from weights_tools import write_synthetic

    folder = tmp_path_factory.mktemp("checkpoint")
    return {model: write_synthetic(folder / model, of) for model, of in (("v3", SMALL_V3), ("v32", SMALL))}


@pytest.fixture
def block(folders: dict[str, Path]) -> Any:
    """V3.2's third layer, as HuggingFace has it."""
    from model_comparison.block import Block
    from weights_tools import Checkpoint

    return Block(Checkpoint(folders["v32"]), 3)


@pytest.fixture
def start(tmp_path: Path, platform: Platform) -> Iterator[Start]:
    """Start a `Run` in an empty folder; whatever happens, it does not outlive the test."""
    if platform.backend == "card":
        pytest.skip("these tests break the simulator on purpose")
    runs: list[Run] = []

    def start(body: str = "pass", *, kernel_asserts: bool = False, mesh: Mesh = ONE_CHIP, **environment: str) -> Run:
        folder = tmp_path / f"run-{len(runs)}" / "empty"
        folder.mkdir(parents=True)
        runs.append(Run(body, folder, platform.arch, kernel_asserts=kernel_asserts, mesh=mesh, **environment))
        return runs[-1]

    yield start
    for run in runs:
        with run.process:
            run.process.kill()


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """`count("files: fuzz cases", 2000)` is added up over all tests, and printed at the end of the run."""
    return lambda what, number: record_property(f"count {what}", number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, number in report.user_properties:
                    if name.startswith("count "):
                        counts[name] += number
    if counts:
        terminalreporter.section("counts")
        for name, number in sorted(counts.items()):
            terminalreporter.line(f"{name.removeprefix('count ')}: {number}")
