# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Which device, which compiler: the choice, made without importing ttnn."""

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tt_device import runtime_root, session
from tt_device.errors import PlatformError
from tt_device.target import ONE_CHIP, Arch, Backend, Mesh, Target

DEV = Path("/dev/tenstorrent")  # one character device a card
SYS = Path("/sys/dev/char")  # what the kernel knows of each
PCI_ARCHES = {"0xb140": Arch.blackhole, "0x401e": Arch.wormhole}  # PCI device id of a card


@dataclass(frozen=True)
class Platform(Target):
    """A device that can be opened; `str()` is its one-line banner."""

    ttnn_version: str
    unused_card: Path | None = None
    """The character device of a card that can't be used, because SFPI is missing."""

    def __str__(self) -> str:
        name = {
            "card": f"card {self.location}",
            "ttsim": f"ttsim {self.location}",
            "wolfpine": f"wolfpine {_version('wolfpine')} (its deadlock report, idle cores and SrcB's rows mended)",
        }[self.backend]
        banner = f"{name}, {self.arch}, ttnn {self.ttnn_version}, compiler: {self.compiler}"
        if self.unused_card is None:
            return banner
        return f"{banner} (not card {self.unused_card}: SFPI, its compiler, is not in {runtime_root.SYSTEM_SFPI})"

    @contextmanager
    def open(
        self, timeout: float | None = None, *, kernel_asserts: bool = False, mesh: Mesh = ONE_CHIP
    ) -> Iterator[Any]:
        """Open the device, and close it at the end of the block, whether or not the block raises.

        timeout: seconds without any sign of life after which the device counts as one that does not answer; this
        process then ends with exit code 3. By default TT_DEVICE_TIMEOUT's value, else 50. The first opening's counts.

        kernel_asserts: compile the ASSERTs of kernels and LLK in. One that fails stops its core: a simulator says so
        and ends; on a card the launch never ends, and the guard ends this process. The first opening's choice counts.

        mesh: rows and columns of chips to open as one ttnn.MeshDevice, with the fabric between them; by default one
        chip, of however many there are.

        ttnn reads its settings once a process: a process may open a platform again after closing it, but not another
        one, and not two at once. The environment is what it was before once the block is left.

        Raises PlatformError if a device is open, another platform was opened before, there are fewer chips than in
        the mesh, or ttnn can't open this one.

            with find_platform().open() as device:
                x = ttnn.from_torch(torch.ones(1, 1024), device=device)
        """
        if timeout is None:
            timeout = _timeout_from_environment()
        with session.opened(self, timeout, kernel_asserts, mesh) as device:
            yield device


def as_mesh(text: str) -> Mesh:
    """Rows and columns of chips, as "1x2" tells them.

    Raises:
        ValueError: it tells something else
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ValueError(f"a mesh is given as rows x columns of chips, as 1x2, but not as {text!r}")
    return int(match[1]), int(match[2])


def find_platform(arch: str | None = None) -> Platform:
    """Choose a card if there is one and SFPI is installed, else TT_METAL_SIMULATOR's simulator, else wolfpine.

    arch: "blackhole" or "wormhole"; None takes what the card or the named simulator is, and blackhole for wolfpine.
    Raises PlatformError if there is nothing to choose, or if arch contradicts what was chosen.
    """
    wanted = None if arch is None else _as_arch(arch, f"arch ({arch!r})")
    ttnn_version = _version("ttnn")
    compiler = runtime_root.find_compiler()
    backend: Backend
    named = os.environ.get("TT_METAL_SIMULATOR")
    card = _first_card()
    if card is not None and compiler.sfpi is not None:
        backend, location, found = "card", card, _card_arch(card)
        card = None
    elif named:
        backend, location, found = _named_simulator(Path(named), wanted)
    else:
        return replace(find_wolfpine(wanted), unused_card=card)
    if wanted not in (None, found):
        raise PlatformError(f"arch asked for ({wanted}) must equal the arch of {location} ({found})")
    return Platform(backend, found, location, compiler, ttnn_version, unused_card=card)


def find_wolfpine(arch: Arch | None = None) -> Platform:
    """wolfpine's `arch`, blackhole by default, whatever else there is. Raises PlatformError if it is not installed."""
    arch = arch or Arch.blackhole
    return Platform("wolfpine", arch, _wolfpine_folder(arch), runtime_root.find_compiler(), _version("ttnn"))


def _as_arch(name: str, what: str) -> Arch:
    if name not in Arch:
        raise PlatformError(f"{what} must be one of {', '.join(Arch)}")
    return Arch(name)


def _first_card() -> Path | None:
    cards = [node for node in DEV.glob("*") if node.name.isdigit()]
    return min(cards, key=lambda node: int(node.name), default=None)


def _card_arch(card: Path) -> Arch:
    number = card.stat().st_rdev
    pci = SYS / f"{os.major(number)}:{os.minor(number)}" / "device" / "device"
    try:
        device_id = pci.read_text().strip()
    except OSError as error:
        raise PlatformError(f"can't tell what card {card} is: {error}") from error
    if device_id not in PCI_ARCHES:
        known = ", ".join(f"{key} {value}" for key, value in PCI_ARCHES.items())
        raise PlatformError(f"PCI device id of {card} ({device_id}) must be one of {known}")
    return PCI_ARCHES[device_id]


def _named_simulator(path: Path, wanted: Arch | None) -> tuple[Backend, Path, Arch]:
    """Backend, absolute path and architecture of the simulator that TT_METAL_SIMULATOR names."""
    path = session.real_simulator(path.absolute())
    if path.is_dir():
        if not (path / "run.sh").is_file():
            raise PlatformError(f"TT_METAL_SIMULATOR={path}: a simulator's folder holds a run.sh, this one does not")
        backend: Backend = "wolfpine"
        descriptor, by_name = path / "soc_descriptor.yaml", path.name
    elif path.suffix == ".so" and path.is_file():
        backend = "ttsim"
        descriptor = path.with_name("soc_descriptor.yaml")
        by_name = {"libttsim_bh": "blackhole", "libttsim_wh": "wormhole"}.get(re.sub(r"_x\d+$", "", path.stem), "")
    else:
        raise PlatformError(f"TT_METAL_SIMULATOR={path}: neither a simulator's folder nor a ttsim .so")
    described = _described_arch(descriptor)
    if described and by_name in Arch and described != by_name:
        raise PlatformError(
            f"arch in {descriptor} ({described}) must equal the one that {path} is named for ({by_name})"
        )
    arch = described or (Arch(by_name) if by_name in Arch else wanted)
    if arch is None:
        raise PlatformError(f"TT_METAL_SIMULATOR={path}: nothing tells its arch, ask for one of {', '.join(Arch)}")
    return backend, path, arch


def _described_arch(descriptor: Path) -> Arch | None:
    if not descriptor.is_file():
        return None
    name = re.search(r"^arch_name:\s*(\w+)", descriptor.read_text(), re.MULTILINE)
    arch = name[1].lower().removesuffix("_b0") if name else "none"
    return _as_arch(arch, f"arch_name in {descriptor} ({arch})")


def _wolfpine_folder(arch: Arch) -> Path:
    framework = importlib.util.find_spec("framework")  # the name under which wolfpine installs itself
    if framework is None or framework.origin is None:
        raise PlatformError("no card, no TT_METAL_SIMULATOR, and no wolfpine: pip install wolfpine")
    return Path(framework.origin).parent / "sim" / arch


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise PlatformError(f"{distribution} is not installed: pip install {distribution}") from None


def _timeout_from_environment() -> float:
    value = os.environ.get("TT_DEVICE_TIMEOUT", "50")
    try:
        return float(value)
    except ValueError:
        raise PlatformError(f"TT_DEVICE_TIMEOUT ({value!r}) must be a number of seconds") from None
