# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The tensors that a DeepSeek-V3 or V3.2 checkpoint holds: key, shape and type, from the sizes in its config.json.

The one list of them: `synthetic` writes it, `verify` holds a checkpoint to it. Key names and types follow
deepseek-ai/DeepSeek-V3 and DeepSeek-V3.2-Exp on the hub: one matrix an expert and projection.

float8, where a checkpoint is in float8: all matrices of the attention, of its indexer and of the MLPs, but not the
router's (`mlp.gate`) and not `indexer.weights_proj`, nor embeddings, heads and `eh_proj`. float32: the router's
`e_score_correction_bias` and `indexer.k_norm`; DeepSeek's inference/model.py keeps both so, and remarks on each other
float32 parameter (RMSNorms, `weights_proj`, `lm_head`) that the checkpoint holds it in bf16.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from reprlib import repr as short
from typing import Any, Literal, NamedTuple, Self

import torch

from weights_tools.errors import CheckpointError
from weights_tools.float8 import FLOAT8

Model = Literal["v3", "v32"]
MODEL_TYPES: dict[Model, str] = {"v3": "deepseek_v3", "v32": "deepseek_v32"}  # as config.json names them

# What config.json must say (or not mention) for the list below to be right.
FIXED: dict[str, Any] = {"attention_bias": False, "moe_layer_freq": 1, "tie_word_embeddings": False}


@dataclass(frozen=True)
class Geometry:
    """Sizes, named as in config.json, model and type. The defaults are those of the small synthetic checkpoint.

    Its norms and heads have DeepSeek-V3.2's own sizes, and there are few heads, experts and layers.
    """

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
    num_nextn_predict_layers: int = 0  # MTP layers

    model: Model = "v32"  # v3 has no indexer, and ignores the sizes of one
    float8: bool = False  # the matrices that are so on the hub, with a scale for each 128x128

    @classmethod
    def full(cls, model: Model = "v32") -> Self:
        """DeepSeek's own sizes, in float8: 671 billion parameters without the MTP layer."""
        return cls(
            num_hidden_layers=61,
            num_attention_heads=128,
            index_n_heads=64,
            index_topk=2048,
            intermediate_size=18432,
            moe_intermediate_size=2048,
            n_routed_experts=256,
            n_group=8,
            topk_group=4,
            num_experts_per_tok=8,
            vocab_size=129280,
            num_nextn_predict_layers=1,
            model=model,
            float8=True,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The geometry that a config.json describes.

        Raises:
            CheckpointError: it is of another model, lacks a size, or has an option that changes the tensors
        """
        model_type = config.get("model_type")
        models = [model for model, name in MODEL_TYPES.items() if name == model_type]
        if not models:
            raise CheckpointError(f"model_type must be {' or '.join(MODEL_TYPES.values())}, but is {short(model_type)}")
        for name, value in FIXED.items():
            if config.get(name, value) != value:
                raise CheckpointError(f"{name} must be {value} (no other is known), but is {short(config[name])}")
        sizes: dict[str, Any] = {name: config.get(name) for name in cls.size_names(models[0])}
        sizes["num_nextn_predict_layers"] = sizes["num_nextn_predict_layers"] or 0  # older configs don't mention it
        for name, size in sizes.items():
            if type(size) is not int or size < 0:
                raise CheckpointError(f"{name} must be a whole number, but is {short(size)}")
        return cls(**sizes, model=models[0], float8=bool(config.get("quantization_config")))

    @classmethod
    def size_names(cls, model: Model) -> list[str]:
        """The fields that `model`'s config.json has."""
        names = [field.name for field in fields(cls) if field.name not in ("model", "float8")]
        return [name for name in names if model == "v32" or not name.startswith("index_")]

    @property
    def layer_numbers(self) -> range:
        """Of all decoder layers. The MTP layers are the last."""
        return range(self.num_hidden_layers + self.num_nextn_predict_layers)


class Spec(NamedTuple):
    """One tensor of a checkpoint. Where its dtype is float8, a tensor of scales belongs to it."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def all_tensors(g: Geometry) -> Iterator[Spec]:
    """All tensors of the checkpoint, MTP layers included, scales not."""
    yield from embedding(g)
    for number in g.layer_numbers:
        yield from decoder_layer(g, number)
    yield from head(g)


def embedding(g: Geometry) -> Iterator[Spec]:
    yield Spec("model.embed_tokens.weight", (g.vocab_size, g.hidden_size), torch.bfloat16)


def head(g: Geometry) -> Iterator[Spec]:
    yield _norm("model.norm", g.hidden_size)
    yield Spec("lm_head.weight", (g.vocab_size, g.hidden_size), torch.bfloat16)


def decoder_layer(g: Geometry, number: int) -> Iterator[Spec]:
    """Decoder layer `number`: a dense one, one with experts, or an MTP layer."""
    layer = f"model.layers.{number}"
    yield _norm(f"{layer}.input_layernorm", g.hidden_size)
    yield from _attention(g, f"{layer}.self_attn")
    if g.model == "v32":
        yield from _indexer(g, f"{layer}.self_attn.indexer")
    yield _norm(f"{layer}.post_attention_layernorm", g.hidden_size)
    if number < g.first_k_dense_replace:
        yield from _mlp(g, f"{layer}.mlp", g.intermediate_size)
    else:
        yield from _experts(g, f"{layer}.mlp")
    if number >= g.num_hidden_layers:
        yield from _mtp(g, layer)


def _attention(g: Geometry, attention: str) -> Iterator[Spec]:
    heads = g.num_attention_heads
    yield _matrix(g, f"{attention}.q_a_proj", g.q_lora_rank, g.hidden_size)
    yield _norm(f"{attention}.q_a_layernorm", g.q_lora_rank)
    yield _matrix(g, f"{attention}.q_b_proj", heads * (g.qk_nope_head_dim + g.qk_rope_head_dim), g.q_lora_rank)
    yield _matrix(g, f"{attention}.kv_a_proj_with_mqa", g.kv_lora_rank + g.qk_rope_head_dim, g.hidden_size)
    yield _norm(f"{attention}.kv_a_layernorm", g.kv_lora_rank)
    yield _matrix(g, f"{attention}.kv_b_proj", heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank)
    yield _matrix(g, f"{attention}.o_proj", g.hidden_size, heads * g.v_head_dim)


def _indexer(g: Geometry, indexer: str) -> Iterator[Spec]:
    yield _matrix(g, f"{indexer}.wq_b", g.index_n_heads * g.index_head_dim, g.q_lora_rank)
    yield _matrix(g, f"{indexer}.wk", g.index_head_dim, g.hidden_size)
    yield Spec(f"{indexer}.k_norm.weight", (g.index_head_dim,), torch.float32)
    yield Spec(f"{indexer}.k_norm.bias", (g.index_head_dim,), torch.float32)
    yield Spec(f"{indexer}.weights_proj.weight", (g.index_n_heads, g.hidden_size), torch.bfloat16)


def _experts(g: Geometry, mlp: str) -> Iterator[Spec]:
    for expert in range(g.n_routed_experts):
        yield from _mlp(g, f"{mlp}.experts.{expert}", g.moe_intermediate_size)
    yield from _mlp(g, f"{mlp}.shared_experts", g.n_shared_experts * g.moe_intermediate_size)
    yield Spec(f"{mlp}.gate.weight", (g.n_routed_experts, g.hidden_size), torch.bfloat16)
    yield Spec(f"{mlp}.gate.e_score_correction_bias", (g.n_routed_experts,), torch.float32)


def _mlp(g: Geometry, mlp: str, intermediate: int) -> Iterator[Spec]:
    yield _matrix(g, f"{mlp}.gate_proj", intermediate, g.hidden_size)
    yield _matrix(g, f"{mlp}.up_proj", intermediate, g.hidden_size)
    yield _matrix(g, f"{mlp}.down_proj", g.hidden_size, intermediate)


def _mtp(g: Geometry, layer: str) -> Iterator[Spec]:
    """What an MTP layer has beside a decoder layer: it joins the hidden state and the next token's embedding."""
    yield Spec(f"{layer}.embed_tokens.weight", (g.vocab_size, g.hidden_size), torch.bfloat16)
    yield _norm(f"{layer}.enorm", g.hidden_size)
    yield _norm(f"{layer}.hnorm", g.hidden_size)
    yield Spec(f"{layer}.eh_proj.weight", (g.hidden_size, 2 * g.hidden_size), torch.bfloat16)
    yield _norm(f"{layer}.shared_head.norm", g.hidden_size)
    yield Spec(f"{layer}.shared_head.head.weight", (g.vocab_size, g.hidden_size), torch.bfloat16)


def _norm(name: str, width: int) -> Spec:
    return Spec(f"{name}.weight", (width,), torch.bfloat16)


def _matrix(g: Geometry, name: str, rows: int, columns: int) -> Spec:
    return Spec(f"{name}.weight", (rows, columns), FLOAT8 if g.float8 else torch.bfloat16)
