"""One device a session, for every test that asks for it; pytest's header says which. Counts of cases, at the end."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tt_device import Platform, PlatformError, find_platform


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("device")
    arch = os.environ.get("ARCH") or None
    group.addoption("--arch", default=arch, help="blackhole or wormhole (default: $ARCH, else what the device is)")
    group.addoption("--device-timeout", type=float, help="seconds after which a silent device counts as hung")


def pytest_report_header(config: pytest.Config) -> str:
    try:
        return f"device: {find_platform(config.getoption('arch'))}"
    except PlatformError as error:
        return f"device: none ({error})"


@pytest.fixture(scope="session")
def platform(pytestconfig: pytest.Config) -> Platform:
    """What `device` runs on, for tests that hold on one backend alone."""
    return find_platform(pytestconfig.getoption("arch"))


@pytest.fixture(scope="session")
def device(platform: Platform, pytestconfig: pytest.Config) -> Iterator[Any]:
    """The session's ttnn device."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        with capture.global_and_fixture_disabled():  # the guard's messages are for the terminal
            device = stack.enter_context(platform.open(pytestconfig.getoption("device_timeout")))
        yield device


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """`count("files: fuzz cases", 2000)` is added up over all tests, and printed at the end of the run."""
    return lambda what, number: record_property(f"count {what}", number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                counts.update({name: number for name, number in report.user_properties if name.startswith("count ")})
    if counts:
        terminalreporter.section("counts")
        for name, number in sorted(counts.items()):
            terminalreporter.line(f"{name.removeprefix('count ')}: {number}")
