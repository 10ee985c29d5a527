# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The tensors that a DeepSeek-V3 or V3.2 checkpoint holds: key, shape and type, from the sizes in its config.json.

Key names and types follow deepseek-ai/DeepSeek-V3 and DeepSeek-V3.2-Exp on the hub: one matrix an expert and
projection.

float8, where a checkpoint is in float8: all matrices of the attention, of its indexer and of the MLPs, but not the
router's (`mlp.gate`) and not `indexer.weights_proj`, nor embeddings, heads and `eh_proj`. float32: the router's
`e_score_correction_bias` and `indexer.k_norm`; DeepSeek's inference/model.py keeps both so, and remarks on each other
float32 parameter (RMSNorms, `weights_proj`, `lm_head`) that the checkpoint holds it in bf16.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import torch

from weights_tools.architecture import Architecture, Scales, Spec, check_fixed, check_sizes
from weights_tools.float8 import FLOAT8, SCALE_BLOCK

# What config.json must say (or not mention) for the list below to be right.
FIXED: dict[str, Any] = {"attention_bias": False, "moe_layer_freq": 1, "tie_word_embeddings": False}
MODEL_TYPES = {"v3": "deepseek_v3", "v32": "deepseek_v32"}  # as config.json names them
_SCALES = Scales(torch.float32, "weight_scale_inv")


@dataclass(frozen=True)
class Geometry(Architecture):
    """Sizes of V3 or V3.2, model and type. The defaults are those of the small synthetic checkpoint.

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
    num_nextn_predict_layers: int = 0

    model: Literal["v3", "v32"] = "v32"  # v3 has no indexer, and ignores the sizes of one
    float8: bool = False  # the matrices that are so on the hub, with a scale for each 128x128

    @classmethod
    def full(cls, model: Literal["v3", "v32"] = "v32") -> Self:
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
        """The geometry that a config.json of V3 or V3.2 describes.

        Raises:
            CheckpointError: it lacks a size, or has an option that changes the tensors
        """
        check_fixed(config, FIXED)
        model: Literal["v3", "v32"] = "v3" if config.get("model_type") == MODEL_TYPES["v3"] else "v32"
        sizes: dict[str, Any] = {name: config.get(name) for name in cls.size_names(model)}
        sizes["num_nextn_predict_layers"] = sizes["num_nextn_predict_layers"] or 0  # older configs don't mention it
        check_sizes(sizes)
        return cls(**sizes, model=model, float8=bool(config.get("quantization_config")))

    @classmethod
    def size_names(cls, model: Literal["v3", "v32"]) -> list[str]:
        """The fields that `model`'s config.json has."""
        names = [field.name for field in fields(cls) if field.name not in ("model", "float8")]
        return [name for name in names if model == "v32" or not name.startswith("index_")]

    def with_layers(self, number: int) -> Self:
        return replace(self, num_hidden_layers=number)

    def embedding(self) -> Iterator[Spec]:
        yield Spec("model.embed_tokens.weight", (self.vocab_size, self.hidden_size), torch.bfloat16)

    def head(self) -> Iterator[Spec]:
        yield _norm("model.norm", self.hidden_size)
        yield Spec("lm_head.weight", (self.vocab_size, self.hidden_size), torch.bfloat16)

    def decoder_layer(self, number: int) -> Iterator[Spec]:
        """Decoder layer `number`: a dense one, one with experts, or an MTP layer."""
        layer = f"model.layers.{number}"
        yield _norm(f"{layer}.input_layernorm", self.hidden_size)
        yield from _attention(self, f"{layer}.self_attn")
        if self.model == "v32":
            yield from _indexer(self, f"{layer}.self_attn.indexer")
        yield _norm(f"{layer}.post_attention_layernorm", self.hidden_size)
        if number < self.first_k_dense_replace:
            yield from _mlp(self, f"{layer}.mlp", self.intermediate_size)
        else:
            yield from _experts(self, f"{layer}.mlp")
        if number >= self.num_hidden_layers:
            yield from _mtp(self, layer)

    def config(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in self.size_names(self.model)}
        config = (
            sizes
            | FIXED
            | {
                "architectures": [{"v3": "DeepseekV3ForCausalLM", "v32": "DeepseekV32ForCausalLM"}[self.model]],
                "attention_dropout": 0.0,
                "bos_token_id": 0,
                "eos_token_id": 1,
                "ep_size": 1,
                "hidden_act": "silu",
                "initializer_range": 0.02,
                "max_position_embeddings": 163840,
                "model_type": MODEL_TYPES[self.model],
                "norm_topk_prob": True,
                "num_key_value_heads": self.num_attention_heads,
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
        if self.float8:
            config["quantization_config"] = {
                "activation_scheme": "dynamic",
                "fmt": "e4m3",
                "quant_method": "fp8",
                "weight_block_size": list(SCALE_BLOCK),
            }
        return config


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
    if not g.float8:
        return Spec(f"{name}.weight", (rows, columns), torch.bfloat16)
    return Spec(f"{name}.weight", (rows, columns), FLOAT8, _SCALES)
