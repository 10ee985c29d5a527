"""One device a session, for every test that asks for it; pytest's header says which."""

import os
from collections.abc import Iterator
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
