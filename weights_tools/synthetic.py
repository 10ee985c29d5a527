"""A small checkpoint in DeepSeek-V3.2's layout: its key names, its norm widths, few heads and experts, seeded weights.

Key names and types follow deepseek-ai/DeepSeek-V3.2-Exp on the hub, in bf16 as its `inference/model.py` and
transformers' `conversion_mapping` read them: one matrix an expert and projection. `e_score_correction_bias` and
`indexer.k_norm` are float32: that file keeps both so, and remarks on each other float32 parameter (RMSNorms,
`weights_proj`, `lm_head`) that the checkpoint holds it in bf16. There is no MTP layer and no float8.
"""

import hashlib
import json
import math
import shutil
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from loguru import logger
from platformdirs import user_cache_path
from safetensors.torch import save

from weights_tools.checkpoint import CONFIG, INDEX, CheckpointError

# Norm weights (mean, standard deviation). q_a and kv_a: as reported of the trained V3, whose kv_a gammas are tiny and
# of both signs. k_norm: its beta is large enough that a LayerNorm without it is plainly wrong.
_HIDDEN_GAMMA = (1.0, 0.2)
_Q_A_GAMMA = (0.44, 0.08)
_KV_A_GAMMA = (0.007, 0.008)
_K_NORM_GAMMA = (1.0, 0.25)
_K_NORM_BETA = (0.0, 0.5)
_SCORE_BIAS = (0.0, 0.1)  # about the spread of the router's sigmoid scores: both have a say in the choice


@dataclass(frozen=True)
class Geometry:
    """Sizes, named as in config.json. Those that give a norm its width or a head its size are DeepSeek-V3.2's own."""

    hidden_size: int = 7168
    q_lora_rank: int = 1536
    kv_lora_rank: int = 512
    index_head_dim: int = 128
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128

    num_hidden_layers: int = 4  # three dense, then the first with experts
    first_k_dense_replace: int = 3
    num_attention_heads: int = 4
    index_n_heads: int = 4
    index_topk: int = 16  # so that a sequence of a few dozen tokens is long enough for the indexer to matter
    intermediate_size: int = 256
    moe_intermediate_size: int = 64
    n_shared_experts: int = 1
    n_routed_experts: int = 8
    n_group: int = 4
    topk_group: int = 2
    num_experts_per_tok: int = 2
    vocab_size: int = 256


def write_synthetic(
    folder: str | Path, geometry: Geometry | None = None, *, seed: int = 0, force: bool = False
) -> Path:
    """Write a checkpoint: `config.json`, the index, one shard a layer, one for the embedding, one for the head.

    The same seed and geometry give the same bytes. A tensor's values depend on the seed, its key and its shape alone,
    so fewer layers leave the others as they were. Matrices keep activations of order one.

    Args:
        folder: is made, with its parents. It appears under its name only once it is whole.
        geometry: 243 MB by default.
        force: replace `folder` if it is a checkpoint that this function wrote.

    Returns:
        `folder`, resolved.

    Raises:
        CheckpointError: `folder` exists (unless it is empty), or it can't be written.
    """
    geometry = geometry or Geometry()
    folder = Path(folder).resolve()  # a symlink stays, what it points to is replaced
    _check_replaceable(folder, force)
    # Beside the final place, so that the last step is one rename on one file system.
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        size = _write_into(partial, geometry, seed)
        _move_into_place(partial, folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: can't be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.info(f"wrote {folder}: {geometry.num_hidden_layers} layers, {size / 1e6:.0f} MB, seed {seed}")
    return folder


def default_checkpoint() -> Path:
    """The default geometry with seed 0, in the user's cache folder: written the first time, kept for the next.

    Raises:
        CheckpointError: it can't be written
    """
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]  # other code, other checkpoint
    folder = user_cache_path("tt-deepseek-norms") / "checkpoints" / f"synthetic-{version}"
    if not folder.exists():
        try:
            write_synthetic(folder)
        except CheckpointError:
            if not folder.exists():  # else another process was faster
                raise
    return folder


def _check_replaceable(folder: Path, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise CheckpointError(f"{folder}: exists already: choose another folder, or replace it with --force")
    if not _is_synthetic(folder):
        raise CheckpointError(f"{folder}: is no synthetic checkpoint, so not even --force replaces it: move it away")


def _is_synthetic(folder: Path) -> bool:
    try:
        return "synthetic_seed" in json.loads((folder / INDEX).read_text())["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_into(folder: Path, geometry: Geometry, seed: int) -> int:
    """Write all files of the checkpoint. Returns the tensors' size in bytes."""
    shards = [_embedding(geometry), *(_layer(geometry, i) for i in range(geometry.num_hidden_layers)), _head(geometry)]
    weight_map: dict[str, str] = {}
    total_size = 0
    for number, specs in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):06d}.safetensors"  # digits as on the hub
        with ThreadPoolExecutor() as pool:  # numpy draws without the interpreter's lock
            tensors = dict(pool.map(lambda spec: (spec.key, _draw(spec, seed)), specs))
        (folder / name).write_bytes(save(tensors, metadata={"format": "pt"}))
        weight_map |= dict.fromkeys(tensors, name)
        total_size += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total_size, "synthetic_seed": seed}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    (folder / CONFIG).write_text(json.dumps(_config(geometry), indent=2) + "\n")
    return total_size


def _move_into_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    old = partial.with_suffix(".old")
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old)


class _Spec(NamedTuple):
    """One tensor: N(mean, std) of `shape`."""

    key: str
    shape: tuple[int, ...]
    mean: float
    std: float
    dtype: torch.dtype = torch.bfloat16


def _draw(spec: _Spec, seed: int) -> torch.Tensor:
    # numpy's generator and not torch's: torch.randn's values depend on the vector width of the CPU.
    generator = np.random.default_rng([seed, zlib.crc32(spec.key.encode())])
    values = torch.from_numpy(generator.standard_normal(spec.shape, dtype=np.float32))
    return values.mul_(spec.std).add_(spec.mean).to(spec.dtype)


def _embedding(g: Geometry) -> Iterator[_Spec]:
    yield _Spec("model.embed_tokens.weight", (g.vocab_size, g.hidden_size), 0.0, 1.0)


def _head(g: Geometry) -> Iterator[_Spec]:
    yield _Spec("model.norm.weight", (g.hidden_size,), *_HIDDEN_GAMMA)
    yield _linear("lm_head", g.vocab_size, g.hidden_size)


def _layer(g: Geometry, number: int) -> Iterator[_Spec]:
    layer = f"model.layers.{number}"
    yield _Spec(f"{layer}.input_layernorm.weight", (g.hidden_size,), *_HIDDEN_GAMMA)
    yield from _attention(g, f"{layer}.self_attn")
    yield _Spec(f"{layer}.post_attention_layernorm.weight", (g.hidden_size,), *_HIDDEN_GAMMA)
    if number < g.first_k_dense_replace:
        yield from _mlp(f"{layer}.mlp", g.hidden_size, g.intermediate_size)
        return
    for expert in range(g.n_routed_experts):
        yield from _mlp(f"{layer}.mlp.experts.{expert}", g.hidden_size, g.moe_intermediate_size)
    yield from _mlp(f"{layer}.mlp.shared_experts", g.hidden_size, g.n_shared_experts * g.moe_intermediate_size)
    yield _linear(f"{layer}.mlp.gate", g.n_routed_experts, g.hidden_size)
    yield _Spec(f"{layer}.mlp.gate.e_score_correction_bias", (g.n_routed_experts,), *_SCORE_BIAS, torch.float32)


def _attention(g: Geometry, attention: str) -> Iterator[_Spec]:
    heads = g.num_attention_heads
    yield _linear(f"{attention}.q_a_proj", g.q_lora_rank, g.hidden_size)
    yield _Spec(f"{attention}.q_a_layernorm.weight", (g.q_lora_rank,), *_Q_A_GAMMA)
    yield _linear(f"{attention}.q_b_proj", heads * (g.qk_nope_head_dim + g.qk_rope_head_dim), g.q_lora_rank, _Q_A_GAMMA)
    yield _linear(f"{attention}.kv_a_proj_with_mqa", g.kv_lora_rank + g.qk_rope_head_dim, g.hidden_size)
    yield _Spec(f"{attention}.kv_a_layernorm.weight", (g.kv_lora_rank,), *_KV_A_GAMMA)
    yield _linear(f"{attention}.kv_b_proj", heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank, _KV_A_GAMMA)
    yield _linear(f"{attention}.o_proj", g.hidden_size, heads * g.v_head_dim)

    indexer = f"{attention}.indexer"
    yield _linear(f"{indexer}.wq_b", g.index_n_heads * g.index_head_dim, g.q_lora_rank, _Q_A_GAMMA)
    yield _linear(f"{indexer}.wk", g.index_head_dim, g.hidden_size)
    yield _Spec(f"{indexer}.k_norm.weight", (g.index_head_dim,), *_K_NORM_GAMMA, torch.float32)
    yield _Spec(f"{indexer}.k_norm.bias", (g.index_head_dim,), *_K_NORM_BETA, torch.float32)
    yield _linear(f"{indexer}.weights_proj", g.index_n_heads, g.hidden_size)


def _mlp(mlp: str, hidden: int, intermediate: int) -> Iterator[_Spec]:
    yield _linear(f"{mlp}.gate_proj", intermediate, hidden)
    yield _linear(f"{mlp}.up_proj", intermediate, hidden)
    yield _linear(f"{mlp}.down_proj", hidden, intermediate)


def _linear(name: str, rows: int, columns: int, input_gamma: tuple[float, float] = _HIDDEN_GAMMA) -> _Spec:
    """A matrix that gives outputs of RMS about 1 for an input of RMS 1, or for a normed one times `input_gamma`."""
    return _Spec(f"{name}.weight", (rows, columns), 0.0, 1 / (math.hypot(*input_gamma) * math.sqrt(columns)))


def _config(geometry: Geometry) -> dict[str, Any]:
    """config.json as on the hub, less what speaks of float8 and MTP layers."""
    return asdict(geometry) | {
        "architectures": ["DeepseekV32ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "ep_size": 1,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 163840,
        "model_type": "deepseek_v32",
        "moe_layer_freq": 1,
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
        "tie_word_embeddings": False,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
