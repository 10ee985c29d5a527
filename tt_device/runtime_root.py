# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The compiler for ttnn's kernels, and the folder in which ttnn looks for it.

ttnn compiles for the chip with Tenstorrent's SFPI compiler, which its wheel does not bring. Where SFPI is installed it
is used. Where it is not, `toolchain/` stands in for it over Debian's RISC-V GCC, by way of a runtime root of our own:
links to the installed ttnn, beside a `runtime/sfpi` that holds the stand-in.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tt_device.errors import PlatformError

TOOLCHAIN = Path(__file__).parent / "toolchain"
INTERPRETER = Path(sys.executable).resolve()
STOCK_FILE = "stock-gcc.env"
STOCK = dict(re.findall(r"^(\w+)='(.*)'$", (TOOLCHAIN / STOCK_FILE).read_text(), re.MULTILINE))
SYSTEM_SFPI = Path(STOCK["SYSTEM_SFPI"])
GXX = STOCK["GXX"]
MIN_GXX = 12  # Debian 12's, the oldest that the stand-in was tried with
PICOLIBC = Path(STOCK["PICOLIBC"])
HOST_CXX = Path(STOCK["HOST_CXX"])  # the standard library's headers, which Debian's RISC-V GCC comes without
APT_LINE = f"{STOCK['APT_INSTALL']} {STOCK['DEBIAN_PACKAGES']}"


@dataclass(frozen=True)
class Compiler:
    """What compiles the kernels; `str()` says it in a banner's words."""

    sfpi: Path | None
    """Folder of Tenstorrent's SFPI release, None for the stand-in."""
    description: str

    def __str__(self) -> str:
        return self.description


def find_compiler() -> Compiler:
    """SFPI from where ttnn looks for it (the runtime root, then /opt), else the stand-in.

    Raises PlatformError, with the line to type, if what the stand-in needs is missing too.
    """
    for sfpi in (base_root() / "runtime" / "sfpi", SYSTEM_SFPI):
        if os.access(sfpi / "compiler" / "bin" / "riscv-tt-elf-g++", os.X_OK):
            return Compiler(sfpi, f"SFPI in {sfpi}")
    missing = [GXX] if shutil.which(GXX) is None else []
    missing += [str(folder) for folder in (PICOLIBC, HOST_CXX) if not folder.is_dir()]
    if missing:
        raise PlatformError(f"no compiler: neither SFPI in {SYSTEM_SFPI} nor {' and '.join(missing)}. Type: {APT_LINE}")
    version = subprocess.run([GXX, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.partition(".")[0]) < MIN_GXX:
        raise PlatformError(f"{GXX} must be version {MIN_GXX} or later, but is {version}")
    return Compiler(None, f"stand-in over {GXX} {version}")


def base_root() -> Path:
    """The runtime root that ttnn would use by itself: TT_METAL_RUNTIME_ROOT, else the installed package.

    A process that was started by one with an open device finds a root there that was built here: its base counts.
    """
    named = os.environ.get("TT_METAL_RUNTIME_ROOT")
    if named:
        root = Path(named).absolute()
        built_here = (root / "runtime" / "sfpi" / STOCK_FILE).is_file()
        return (root / "tt_metal").readlink().parent if built_here else root
    spec = importlib.util.find_spec("ttnn")
    if spec is None or spec.origin is None:
        raise PlatformError("ttnn is not installed: pip install ttnn")
    return Path(spec.origin).parent


def ensure_runtime_root(cache: Path) -> Path:
    """A runtime root with the stand-in in it, under `cache`, built if missing. Two processes may call at once."""
    base = base_root()
    root = cache / "runtime" / _key(base)
    if not root.is_dir():
        root.parent.mkdir(parents=True, exist_ok=True)
        with (root.parent / ".lock").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            building = root.parent / ".building"
            shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
            if not root.is_dir():
                try:
                    _build(building, base)
                    building.rename(root)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
    return root


def _key(base: Path) -> str:
    """Another one for another ttnn (version or place), other files of the stand-in, another builder (this file), or
    another interpreter."""
    digest = hashlib.sha256(f"{importlib.metadata.version('ttnn')}\0{base}\0{INTERPRETER}".encode())
    for file in [Path(__file__), *sorted(path for path in TOOLCHAIN.rglob("*") if path.is_file())]:
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(root: Path, base: Path) -> None:
    sfpi = root / "runtime" / "sfpi"
    shutil.copytree(TOOLCHAIN, sfpi, ignore=shutil.ignore_patterns("riscv-tt-elf-g++", "__pycache__"))
    compiler = sfpi / "compiler" / "bin" / "riscv-tt-elf-g++"
    compiler.parent.mkdir(parents=True)
    # By this interpreter, without site-packages: the `python3` on PATH may be a launcher that takes longer than GCC.
    _, script = (TOOLCHAIN / compiler.name).read_text().split("\n", 1)
    compiler.write_text(f"#!{INTERPRETER} -SE\n{script}")
    compiler.chmod(0o755)

    for entry in base.iterdir():
        if entry.name != "runtime":
            (root / entry.name).symlink_to(entry)
    for entry in (base / "runtime").iterdir():
        if entry.name != "sfpi":
            (root / "runtime" / entry.name).symlink_to(entry)
