# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic checkpoints in DeepSeek's layout, with seeded weights: a small one, or single layers of the full size.

What they hold is listed in `architecture`. The weights of norms spread as reported of the trained models.
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

from weights_tools.architecture import FIXED, MODEL_TYPES, Geometry, Model, Spec, decoder_layer, embedding, head
from weights_tools.checkpoint import CONFIG, INDEX
from weights_tools.errors import CheckpointError
from weights_tools.files import checkpoint_written, exists_already, save_tensors
from weights_tools.float8 import FLOAT8, SCALE_BLOCK, SCALE_SUFFIX, quantize, scale_shape

# Norm weights (mean, standard deviation). q_a and kv_a: as reported of the trained V3, whose kv_a gammas are tiny and
# of both signs. k_norm: its beta is large enough that a LayerNorm without it is plainly wrong.
_HIDDEN_GAMMA = (1.0, 0.2)
_Q_A_GAMMA = (0.44, 0.08)
_KV_A_GAMMA = (0.007, 0.008)
_VECTORS = {  # by the end of the key; all others are of hidden width
    "q_a_layernorm.weight": _Q_A_GAMMA,
    "kv_a_layernorm.weight": _KV_A_GAMMA,
    "k_norm.weight": (1.0, 0.25),
    "k_norm.bias": (0.0, 0.5),
    "e_score_correction_bias": (0.0, 0.1),  # about the spread of the sigmoid scores: both decide the choice
}
_INPUT_GAMMA = {  # of the norm before a matrix, by the matrix's name; all others follow one of hidden width
    "q_b_proj": _Q_A_GAMMA,
    "wq_b": _Q_A_GAMMA,
    "kv_b_proj": _KV_A_GAMMA,
}
_SHARD_BYTES = 2e9  # one shard's tensors are in memory at once


def write_synthetic(
    folder: str | Path,
    geometry: Geometry | None = None,
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
        geometry: 243 MB by default.
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
        _write_json(partial / CONFIG, _config(geometry))
        _check_replaceable(folder, force)  # again: what came meanwhile is not replaced either
    logger.info(f"wrote {folder}: {len(weight_map)} tensors, {total_size / 1e6:.0f} MB, seed {seed}")
    return folder


def default_checkpoint(model: Model = "v32") -> Path:
    """The default geometry with seed 0, in the user's cache folder: written the first time, kept for the next.

    Raises:
        CheckpointError: it can't be written
    """
    # Other code, other checkpoint.
    sources = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in ("architecture", "synthetic")]
    version = hashlib.sha256(b"".join(sources)).hexdigest()[:12]
    folder = user_cache_path("tt-deepseek-norms") / "checkpoints" / f"synthetic-{model}-{version}"
    if not folder.exists():
        try:
            write_synthetic(folder, Geometry(model=model))
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


def _plan_shards(geometry: Geometry, layers: Collection[int]) -> list[list[Spec]]:
    """The tensors of each file: one a layer, and where a layer is larger than `_SHARD_BYTES` several."""
    for number in layers:
        if number not in geometry.layer_numbers:
            raise CheckpointError(f"layer must be 0 to {geometry.layer_numbers[-1]}, but is {number}")
    parts = [decoder_layer(geometry, number) for number in sorted(set(layers or geometry.layer_numbers))]
    if not layers:
        parts = [embedding(geometry), *parts, head(geometry)]
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
    scales = 4 * math.prod(scale_shape(spec.shape)) if spec.dtype == FLOAT8 else 0
    return math.prod(spec.shape) * spec.dtype.itemsize + scales


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
    return {spec.key + suffix: tensor for spec, source in sources.items() for suffix, tensor in drawn[source].items()}


def _of_expert_0(spec: Spec) -> Spec:
    return spec._replace(key=re.sub(r"\.experts\.\d+\.", ".experts.0.", spec.key))


def _draw(spec: Spec, seed: int, stop: Event) -> dict[str, torch.Tensor]:
    """What is stored for `spec`, by the suffix of its key: the tensor, and its scales if it is float8.

    Raises:
        CancelledError: `stop` was set; it is looked at before each 128 rows, a row of scale blocks
    """
    mean, std = _spread(spec)
    # numpy's generator and not torch's: torch.randn's values depend on the vector width of the CPU.
    generator = np.random.default_rng([seed, zlib.crc32(spec.key.encode())])
    weight = torch.empty(spec.shape, dtype=spec.dtype, device="cpu")
    stored = {"": weight}
    if spec.dtype == FLOAT8:
        stored[SCALE_SUFFIX] = torch.empty(scale_shape(spec.shape), dtype=torch.float32, device="cpu")
    for number, rows in enumerate(torch.split(weight, SCALE_BLOCK[0])):
        if stop.is_set():
            raise CancelledError
        values = torch.from_numpy(generator.standard_normal(rows.shape, dtype=np.float32)).mul_(std).add_(mean)
        if spec.dtype == FLOAT8:
            rows[:], stored[SCALE_SUFFIX][number] = quantize(values)
        else:
            rows[:] = values
    return stored


def _spread(spec: Spec) -> tuple[float, float]:
    """Mean and standard deviation of the tensor's values."""
    if len(spec.shape) == 1:
        return next((spread for end, spread in _VECTORS.items() if spec.key.endswith(f".{end}")), _HIDDEN_GAMMA)
    module = spec.key.split(".")[-2]
    if module == "embed_tokens":
        return 0.0, 1.0
    # A matrix gives outputs of RMS about 1 for an input of RMS 1, or for a normed one times its norm's gamma.
    gamma = _INPUT_GAMMA.get(module, _HIDDEN_GAMMA)
    return 0.0, 1 / (math.hypot(*gamma) * math.sqrt(spec.shape[1]))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _config(geometry: Geometry) -> dict[str, Any]:
    """config.json as on the hub."""
    sizes = {name: getattr(geometry, name) for name in geometry.size_names(geometry.model)}
    config = (
        sizes
        | FIXED
        | {
            "architectures": [{"v3": "DeepseekV3ForCausalLM", "v32": "DeepseekV32ForCausalLM"}[geometry.model]],
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "ep_size": 1,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "max_position_embeddings": 163840,
            "model_type": MODEL_TYPES[geometry.model],
            "norm_topk_prob": True,
            "num_key_value_heads": geometry.num_attention_heads,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 40,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
            "rope_theta": 10000,
            "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }
    )
    if geometry.float8:
        config["quantization_config"] = {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": list(SCALE_BLOCK),
        }
    return config
