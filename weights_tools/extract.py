# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Copies tensors of a large checkpoint, by default the norms, into one small file that says where they are from."""

import fnmatch
import hashlib
import importlib.metadata
import json
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from weights_tools.checkpoint import CONFIG, INDEX, Checkpoint
from weights_tools.errors import CheckpointError
from weights_tools.files import checkpoint_written, exists_already, pieces, save_tensors

NORMS = ("*norm*.weight", "*norm*.bias")


def extract(
    checkpoint: Checkpoint,
    out: Path,
    patterns: Sequence[str] = (),
    *,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[str]:
    """Write the tensors whose keys match to `out`, as stored: quantized ones with their scales. It appears only once it
    is whole.

    The file's metadata says where they are from: `source` (the folder's name), `model_type`, `config_sha256`,
    `index_sha256` (where there is an index), `tool`, and `tensors`, JSON with `shard` and `sha256` (of the bytes as
    stored) for each key.

    Args:
        patterns: globs on whole keys; `*` takes dots, too. Without any: the norms, weights and biases
        force: replace `out`
        progress: is called with (tensors read, tensors in all)

    Returns:
        The keys written.

    Raises:
        CheckpointError: a pattern matches nothing, `out` exists or is a shard of the checkpoint, or a file can't be
            read or written
    """
    if out.exists() and not force:
        raise exists_already(out)
    norms = [key for key in checkpoint.keys() if any(fnmatch.fnmatchcase(key, norm) for norm in NORMS)]  # noqa: SIM118
    keys = checkpoint.select(patterns) if patterns else norms
    if not keys:
        raise CheckpointError(f"{checkpoint.folder}: no key matches {' or '.join(NORMS)}: name some with --keys")
    keys += [scale_key for key in keys if (scale_key := checkpoint.scale_key(key))]
    # realpath, because Path.resolve raises where links run in a circle.
    if os.path.realpath(out) in {os.path.realpath(checkpoint.folder / name) for name in checkpoint.shards()}:
        raise CheckpointError(f"{out}: is a shard of {checkpoint.folder}, so not even --force replaces it")
    tensors: dict[str, torch.Tensor] = {}
    origins: dict[str, dict[str, str]] = {}
    for key in keys:
        tensors[key] = checkpoint.tensor(key)
        digest = hashlib.sha256()
        for piece in pieces(tensors[key]):
            digest.update(piece)
        origins[key] = {"shard": checkpoint.shard(key), "sha256": digest.hexdigest()}
        progress(len(tensors), len(keys))
    metadata = {
        "source": checkpoint.folder.resolve().name,
        "model_type": str(checkpoint.config.get("model_type")),
        "config_sha256": _sha256(checkpoint.folder / CONFIG),
        "tool": f"tt-deepseek-norms {_version()}",
        "tensors": json.dumps(origins),
    }
    if (checkpoint.folder / INDEX).exists():
        metadata["index_sha256"] = _sha256(checkpoint.folder / INDEX)
    with checkpoint_written(out, force=force) as partial:
        save_tensors(tensors, partial, metadata)
    return keys


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("tt-deepseek-norms")
    except importlib.metadata.PackageNotFoundError:  # run from the source tree
        pyproject = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(pyproject.read_text())["project"]["version"])
