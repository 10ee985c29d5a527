# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Set-up: the lock serves from any mirror and answers pyproject.toml; a finished set-up costs nothing."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.child import PATIENCE, wait_for

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()


def test_lock_names_no_host_and_no_folder() -> None:
    assert "://" not in LOCK
    assert not re.search(r"\s/\w|--index|--find-links", LOCK)


def test_lock_answers_pyproject() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = pyproject["project"]["dependencies"] + pyproject["dependency-groups"]["dev"]
    wanted += [line for extra in pyproject["project"]["optional-dependencies"].values() for line in extra]
    wanted += pyproject["build-system"]["requires"]  # the project is built with what the lock installed
    pins = dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", LOCK, flags=re.MULTILINE))
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name]), (
            f"{requirement}: locked is {pins[requirement.name]}"
        )
    assert len(re.findall(r"^\S+==.* \\\n    --hash=sha256:", LOCK, flags=re.MULTILINE)) == len(pins)


@pytest.mark.parametrize(("arch", "options"), [("", []), ("wormhole", ["--arch", "wormhole"])])
@pytest.mark.parametrize("target", ["compare", "test", "bench"])
def test_make_asks_for_no_chip_of_its_own(target: str, arch: str, options: list[str]) -> None:
    """Else a simulator of the other chip is refused: TT_METAL_SIMULATOR=libttsim_wh.so make compare."""
    ours = ("ARCH", "MAKEFLAGS", "MAKELEVEL")  # of the make that runs the tests
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"ARCH": arch} if arch else {}
    made = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    words = made.stdout.splitlines()[-1].split()
    assert [word for i, word in enumerate(words) if "--arch" in words[max(i - 1, 0) : i + 1]] == options


def test_the_stock_compilers_places_stand_once() -> None:
    """All three read them from one file: the set-up that installs it, the choice of a compiler, the stand-in."""
    toolchain = ROOT / "tt_device" / "toolchain"
    values = re.findall(r"^\w+='(.*)'$", (toolchain / "stock-gcc.env").read_text(), flags=re.MULTILINE)
    assert len(values) == 6
    for reader in (
        ROOT / "scripts" / "setup.sh",
        ROOT / "tt_device" / "runtime_root.py",
        toolchain / "riscv-tt-elf-g++",
    ):
        text = reader.read_text()
        assert "stock-gcc.env" in text
        assert not [value for value in values if value in text], reader


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder that looks as set-up leaves it."""
    folder = tmp_path / "project"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    for name in ("scripts/setup.sh", "requirements.lock", "pyproject.toml", "tt_device/toolchain/stock-gcc.env"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    sources = "pwd && sha256sum requirements.lock pyproject.toml scripts/setup.sh"
    stamp = subprocess.run(["bash", "-c", sources], cwd=folder, capture_output=True, text=True, check=True).stdout
    (folder / ".venv/made-from").write_text(stamp)
    return folder


def test_a_finished_set_up_does_nothing(finished: Path) -> None:
    """There is no index to ask, and no uv."""
    done = _set_up(finished)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (finished.parent / "cache").exists()


@pytest.mark.parametrize("change", ["requirements.lock", "pyproject.toml", "moved", "no stamp", "no interpreter"])
def test_what_changed_is_set_up_anew(finished: Path, change: str) -> None:
    """Seen by its first step, which fails here: the index is nowhere."""
    match change:
        case "moved":
            finished = finished.rename(finished.with_name("elsewhere"))
        case "no stamp":
            (finished / ".venv/made-from").unlink()
        case "no interpreter":
            (finished / ".venv/bin/python").unlink()
        case _:
            with (finished / change).open("a") as file:
                file.write("\n")
    done = _set_up(finished)
    assert done.returncode == 1
    assert "set-up: fetching uv" in done.stderr
    assert "is a package index within reach?" in done.stderr
    assert not list((finished.parent / "cache").rglob("uv-*")), "a half-fetched uv is left behind"


def _environment(folder: Path) -> dict[str, str]:
    """With an empty cache, and an index that answers no request (nothing listens on the discard port)."""
    return os.environ | {
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }


def _set_up(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "scripts/setup.sh")]
    return subprocess.run(
        command, env=_environment(folder), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_cache_that_cannot_be_written_is_one_line(finished: Path) -> None:
    (finished / ".venv/made-from").unlink()
    (finished.parent / "cache").touch()
    done = _set_up(finished)
    assert done.returncode == 1
    folder = finished.parent / "cache" / "tt-deepseek-norms"
    assert f"set-up: can't write in {folder}: set XDG_CACHE_HOME to a folder that can be written" in done.stderr


def test_a_terminated_set_up_leaves_nothing_half_fetched(finished: Path) -> None:
    (finished / ".venv/made-from").unlink()
    with _fetching(finished) as terminated:
        os.killpg(terminated.pid, signal.SIGTERM)
        terminated.wait(PATIENCE)
    assert not list((finished.parent / "cache").rglob("uv-*"))


def test_a_link_to_the_folder_is_no_other_place(finished: Path) -> None:
    link = finished.with_name("link")
    link.symlink_to(finished)
    done = _set_up(link)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_killed_set_up_is_in_nobodys_way(finished: Path, count: Callable[[str, int], None]) -> None:
    """Killed while it fetches."""
    (finished / ".venv/made-from").unlink()
    with _fetching(finished) as killed:
        os.killpg(killed.pid, signal.SIGKILL)
    wait_for(lambda: _is_unlocked(finished))  # pip has the lock, too, until it is gone
    done = _set_up(finished)
    assert "waiting for another set-up" not in done.stderr
    assert "set-up: fetching uv" in done.stderr
    count("faults: kills of a set-up", 1)


@contextmanager
def _fetching(folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A set-up whose index has taken its call, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(PATIENCE)
        environment = _environment(folder) | {"PIP_INDEX_URL": f"http://127.0.0.1:{index.getsockname()[1]}/simple"}
        with subprocess.Popen([str(folder / "scripts/setup.sh")], env=environment, start_new_session=True) as process:
            index.accept()
            yield process


def _is_unlocked(folder: Path) -> bool:
    with (folder / "scripts/setup.sh").open() as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@pytest.mark.long
def test_a_wheel_holds_all_that_runs(tmp_path: Path, device_arguments: list[str]) -> None:
    """Kernels, the compiler stand-in, the report's page and ttnn's recorded figures; run from there, not from here."""
    source, installed = tmp_path / "source", tmp_path / "installed"
    ignored = shutil.ignore_patterns(".*", "build", "generated", "*.egg-info", "tests", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True, timeout=PATIENCE
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    kept = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    packages = {path.parent.name for path in source.glob("*/py.typed")}
    expected = {name for name in kept if name.split("/")[0] in packages and not name.endswith(".md")}
    assert expected <= {str(path.relative_to(installed)) for path in installed.rglob("*")}

    command = [sys.executable, "-m", "commands.compare_block", "--norms", "k_norm", "--isolated", "--tokens", "1"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    run = subprocess.run(
        [*command, "--report", str(tmp_path / "report"), *device_arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "PASS" in run.stdout
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.fixture
def device_arguments(pytestconfig: pytest.Config) -> list[str]:
    arch = pytestconfig.getoption("arch")
    return ["--arch", arch] if arch else []
