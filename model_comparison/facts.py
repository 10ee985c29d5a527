# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a report tells about a run beside its comparison: where it came from, and the cycles of its launches."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from micro_ops.layernorm.plan import CB_BETA, CB_GAMMA, CB_INPUT, CB_OUTPUT
from model_comparison.recording import Recording
from weights_tools import Checkpoint
from weights_tools.checkpoint import CONFIG, INDEX

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = ("tt-deepseek-norms", "ttnn", "torch", "transformers", "wolfpine")
CB_KEYS = {CB_INPUT: "input", CB_GAMMA: "gamma", CB_BETA: "beta", CB_OUTPUT: "output"}  # in report.json


@dataclass(frozen=True)
class LaunchCycles:
    """One launch by the cost model.

    Attributes:
        cycles: from GO of the first core to DONE of the last
        phases: their parts by name, and waits, of the core that ended last
        held: for each of that core's CBs, by its index: from which cycle on it held how many pages
    """

    cycles: int
    phases: Mapping[str, int]
    held: Mapping[int, Sequence[tuple[int, int]]]


def origin(recording: Recording, checkpoint: Checkpoint, device: Mapping[str, str], command: str) -> dict[str, Any]:
    """Facts by which somebody else can run the same.

    Args:
        device: what it ran on: "device", "backend", "arch" and "compiler"
        command: as it was typed
    """
    versions = {name: version for name in DISTRIBUTIONS if (version := _version(name))}
    return {
        **device,
        "versions": versions | {"python": platform.python_version()},
        "checkpoint": str(checkpoint.folder),
        "checkpoint_sha256": _fingerprint(checkpoint, recording),
        "commit": _commit(),
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def norm_cycles(recording: Recording, launches: Sequence[LaunchCycles]) -> list[dict[str, Any]]:
    """Of each norm, in order of execution: cycles, their phases, and what each CB held from which cycle on.

    Args:
        launches: the device's, one for each norm, in order
    """
    order = [name for name in recording.result.activations if name in recording.norms]
    return [
        {
            "name": name,
            "cycles": launch.cycles,
            "phases": dict(launch.phases),
            "cbs": {key: launch.held[cb] for cb, key in CB_KEYS.items()},
        }
        for name, launch in zip(order, launches, strict=True)
    ]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fingerprint(checkpoint: Checkpoint, recording: Recording) -> str:
    """SHA-256 over config.json, the index if there is one, and the compared norms' weights as loaded, by name: which
    checkpoint it was, without reading all of it."""
    digest = hashlib.sha256()
    for name in (CONFIG, INDEX):
        if (checkpoint.folder / name).is_file():
            digest.update((checkpoint.folder / name).read_bytes())
    for name, norm in sorted(recording.norms.items()):
        digest.update(name.encode())
        for weight in (norm.gamma, norm.beta):
            if weight is not None:
                digest.update(weight.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _commit() -> str | None:
    """Of the checkout that this file is in, with a + if files differ from it; None outside of one."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        run = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
