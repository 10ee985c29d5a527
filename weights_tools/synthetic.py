# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic checkpoints in DeepSeek's layout, with seeded weights: a small one, or single layers of the full size.

What they hold is listed in `architecture_v3` and `architecture_v4`. The weights of norms spread as reported of the
trained models.
"""

import hashlib
import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from loguru import logger
from platformdirs import user_cache_path

from weights_tools import float8, mxfp4
from weights_tools.architecture import Architecture, Spec
from weights_tools.architecture_v3 import Geometry
from weights_tools.checkpoint import CONFIG, INDEX
from weights_tools.errors import CheckpointError
from weights_tools.files import checkpoint_written, exists_already, save_tensors
from weights_tools.float8 import FLOAT8
from weights_tools.models import Model, small_geometry
from weights_tools.mxfp4 import PACKED

# Norm weights (mean, standard deviation). q_a and kv_a: as reported of the trained V3, whose kv_a gammas are tiny and
# of both signs; of V4's nothing is known to us. k_norm: its beta is large enough that a LayerNorm without it is plainly
# wrong.
_HIDDEN_GAMMA = (1.0, 0.2)
_Q_A_GAMMA = (0.44, 0.08)
_KV_A_GAMMA = (0.007, 0.008)
_SPREADS = {  # by the end of the key; all other vectors are gammas like those of hidden width
    "q_a_layernorm.weight": _Q_A_GAMMA,
    "q_norm.weight": _Q_A_GAMMA,
    "kv_a_layernorm.weight": _KV_A_GAMMA,
    "k_norm.weight": (1.0, 0.25),
    "k_norm.bias": (0.0, 0.5),
    # About the spread of the router's scores: both decide the choice.
    "e_score_correction_bias": (0.0, 0.1),
    "gate.bias": (0.0, 0.1),
    "attn_sink": (2.0, 1.0),  # e^2 is an eighth of the sum that softmax takes over 32 keys whose logits spread by 1
    "ape": (0.0, 1.0),  # as the gates that it is added to
    # Of hyper-connections, so that streams are weighted by token, and each in its own way.
    "hc_attn_base": (0.0, 1.0),
    "hc_ffn_base": (0.0, 1.0),
    "hc_head_base": (0.0, 1.0),
    "hc_attn_scale": (1.0, 0.1),
    "hc_ffn_scale": (1.0, 0.1),
    "hc_head_scale": (1.0, 0.1),
    "embed_tokens.weight": (0.0, 1.0),
    "embed.weight": (0.0, 1.0),
}
_INPUT_GAMMA = {  # of the norm before a matrix, by the matrix's name; all others follow one of hidden width
    "q_b_proj": _Q_A_GAMMA,
    "wq_b": _Q_A_GAMMA,
    "kv_b_proj": _KV_A_GAMMA,
    "hc_attn_fn": (1.0, 0.0),  # they follow a norm without gamma
    "hc_ffn_fn": (1.0, 0.0),
    "hc_head_fn": (1.0, 0.0),
}
_SHARD_BYTES = 2e9  # one shard's tensors are in memory at once
_STRIP = float8.SCALE_BLOCK[0]  # rows that are drawn at once


def write_synthetic(
    folder: str | Path,
    geometry: Architecture | None = None,
    *,
    seed: int = 0,
    force: bool = False,
    layers: Collection[int] = (),
    repeat_experts: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Write a checkpoint: `config.json`, the index, and shards: of a layer each, the embedding, the head.

    The same arguments give the same bytes. A tensor's values depend on the seed, its key and its shape alone, so fewer
    layers leave the others as they were. Matrices keep activations of order one.

    Args:
        folder: is made, with its parents. It appears under its name only once it is whole.
        geometry: V3.2's small one by default, 243 MB.
        force: replace `folder` if it is a checkpoint that this function wrote.
        layers: write only these, without embedding and head. config.json still speaks of the whole model, and the
            index's metadata lists them as `synthetic_layers`.
        repeat_experts: write expert 0's matrices for each routed expert of its layer, which makes the full size cheap
            to draw. The index's metadata says so as `synthetic_experts`. What depends on the experts' being different
            can't be seen in such a checkpoint.
        progress: is called with (bytes written, bytes in all) after each shard.

    Returns:
        `folder`, resolved.

    Raises:
        CheckpointError: `folder` exists (unless it is empty), it can't be written or does not fit the disk, or there is
            no such layer
    """
    geometry = geometry or Geometry()
    folder = Path(os.path.realpath(folder))  # a symlink stays, what it points to is replaced
    _check_replaceable(folder, force)
    shards = _plan_shards(geometry, layers)
    total_size = sum(_stored_bytes(spec) for specs in shards for spec in specs)
    metadata: dict[str, Any] = {"total_size": total_size, "synthetic_seed": seed}
    if layers:
        metadata["synthetic_layers"] = sorted(set(layers))
    if repeat_experts:
        metadata["synthetic_experts"] = "expert 0's matrices, repeated for each routed expert of its layer"
    weight_map: dict[str, str] = {}
    written = 0
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: can't be written ({error})") from error
    with checkpoint_written(folder, force=force) as partial:
        partial.mkdir()
        free = shutil.disk_usage(partial).free
        if total_size > free:
            raise CheckpointError(f"{folder}: needs {total_size / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB")
        for number, specs in enumerate(shards, 1):
            name = f"model-{number:05d}-of-{len(shards):06d}.safetensors"  # digits as on the hub
            tensors = _draw_shard(specs, seed, repeat_experts)
            save_tensors(tensors, partial / name, {})
            weight_map |= dict.fromkeys(tensors, name)
            written += sum(tensor.nbytes for tensor in tensors.values())
            progress(written, total_size)
        _write_json(partial / INDEX, {"metadata": metadata, "weight_map": weight_map})
        _write_json(partial / CONFIG, geometry.config())
        _check_replaceable(folder, force)  # again: what came meanwhile is not replaced either
    logger.info(f"wrote {folder}: {len(weight_map)} tensors, {total_size / 1e6:.0f} MB, seed {seed}")
    return folder


def default_checkpoint(model: Model = "v32") -> Path:
    """The model's small geometry with seed 0, in the user's cache folder: written the first time, kept for the next.

    Raises:
        CheckpointError: it can't be written
    """
    modules = ("architecture", "architecture_v3", "architecture_v4", "synthetic")
    sources = [Path(__file__).with_name(f"{name}.py") for name in modules]
    return kept_checkpoint(model, sources, lambda folder: write_synthetic(folder, small_geometry(model)))


def kept_checkpoint(model: str, sources: Iterable[Path], write: Callable[[Path], object]) -> Path:
    """The synthetic checkpoint of `model` in the user's cache folder, which `write` makes the first time.

    Args:
        sources: the code that makes it: other code, other checkpoint
    Raises:
        CheckpointError: it can't be written
    """
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = user_cache_path("tt-deepseek-norms") / "checkpoints" / f"synthetic-{model}-{version}"
    if not folder.exists():
        try:
            write(folder)
        except CheckpointError:
            if not folder.exists():  # else another process was faster
                raise
    return folder


def _check_replaceable(folder: Path, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise exists_already(folder)
    if not _is_synthetic(folder):
        raise CheckpointError(f"{folder}: is no synthetic checkpoint, so not even --force replaces it: move it away")


def _is_synthetic(folder: Path) -> bool:
    try:
        return "synthetic_seed" in json.loads((folder / INDEX).read_text())["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _plan_shards(geometry: Architecture, layers: Collection[int]) -> list[list[Spec]]:
    """The tensors of each file: one a layer, and where a layer is larger than `_SHARD_BYTES` several."""
    for number in layers:
        if number not in geometry.layer_numbers:
            raise CheckpointError(f"layer must be 0 to {geometry.layer_numbers[-1]}, but is {number}")
    parts = [geometry.decoder_layer(number) for number in sorted(set(layers or geometry.layer_numbers))]
    if not layers:
        parts = [geometry.embedding(), *parts, geometry.head()]
    shards: list[list[Spec]] = []
    for part in parts:
        shards.append([])
        size = 0
        for spec in part:
            size += _stored_bytes(spec)
            if size > _SHARD_BYTES and shards[-1]:
                shards.append([])
                size = _stored_bytes(spec)
            shards[-1].append(spec)
    return shards


def _stored_bytes(spec: Spec) -> int:
    """Of the tensor and its scales."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in spec.stored().values())


def _draw_shard(specs: Iterable[Spec], seed: int, repeat_experts: bool) -> dict[str, torch.Tensor]:
    """The shard's content by key. Repeated experts share their memory."""
    sources = {spec: _of_expert_0(spec) if repeat_experts else spec for spec in specs}
    distinct = list(dict.fromkeys(sources.values()))
    stop = Event()
    with ThreadPoolExecutor() as pool:  # numpy releases the GIL while it draws
        try:
            drawn = dict(zip(distinct, pool.map(lambda spec: _draw(spec, seed, stop), distinct), strict=True))
        except BaseException:  # Ctrl-C, too: the pool waits for its threads, which draw a large tensor for seconds
            stop.set()
            raise
    return {
        key: tensor
        for spec, source in sources.items()
        for key, tensor in zip(spec.stored(), drawn[source], strict=True)
    }


def _of_expert_0(spec: Spec) -> Spec:
    return spec._replace(key=re.sub(r"\.experts\.\d+\.", ".experts.0.", spec.key))


def generator_of(key: str, seed: int) -> np.random.Generator:
    """What the tensor `key` is drawn by. numpy's and not torch's: torch.randn's depends on the CPU's vector width."""
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def _draw(spec: Spec, seed: int, stop: Event) -> list[torch.Tensor]:
    """What is stored for `spec`: the tensor, and its scales if it is quantized.

    Raises:
        CancelledError: `stop` was set; it is looked at before each 128 rows, a row of scale blocks
    """
    generator = generator_of(spec.key, seed)
    stored = [torch.empty(shape, dtype=dtype, device="cpu") for shape, dtype in spec.stored().values()]
    weight = stored[0]
    for number, rows in enumerate(torch.split(weight, _STRIP)):
        if stop.is_set():
            raise CancelledError
        if spec.options:
            choices = generator.random((len(rows), spec.options), dtype=np.float32).argsort(axis=1, kind="stable")
            rows[:] = torch.from_numpy(choices[:, : spec.shape[1]])
            continue
        mean, std = _spread(spec)
        drawn = generator.standard_normal((len(rows), *spec.shape[1:]), dtype=np.float32)
        values = torch.from_numpy(drawn).mul_(std).add_(mean)
        if spec.dtype == FLOAT8:
            rows[:], stored[1][number] = float8.quantize(values, stored[1].dtype)
        elif spec.dtype == PACKED:
            rows[:], stored[1][number * _STRIP :][: len(rows)] = mxfp4.quantize(values)
        else:
            rows[:] = values
    return stored


def _spread(spec: Spec) -> tuple[float, float]:
    """Mean and standard deviation of the tensor's values."""
    for end, spread in _SPREADS.items():
        if f".{spec.key}".endswith(f".{end}"):
            return spread
    if len(spec.shape) == 1:
        return _HIDDEN_GAMMA
    # A matrix gives outputs of RMS about 1 for an input of RMS 1, or for a normed one times its norm's gamma.
    gamma = _INPUT_GAMMA.get(spec.key.removesuffix(".weight").split(".")[-1], _HIDDEN_GAMMA)
    return 0.0, 1 / (math.hypot(*gamma) * math.sqrt(spec.shape[1]))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
