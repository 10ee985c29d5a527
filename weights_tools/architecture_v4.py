# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The tensors that a DeepSeek-V4 checkpoint holds: key, shape and type, from the sizes in its config.json.

Key names, shapes and types follow the headers of deepseek-ai/DeepSeek-V4-Flash and V4-Pro, as tools print them that
have read them: DeepSeek's own names, which transformers translates as it loads. A layer's attention is one of three, by
its entry in `compress_ratios`: 0 sees a sliding window alone; 4 (CSA) adds tokens compressed four to one, of which an
indexer chooses; 128 (HCA) adds all of those compressed 128 to one. The first `num_hash_layers` layers choose experts by
the token's id. MTP layers are `mtp.0`, ...: they see a window alone, and choose experts by scores.

Quantized, where a checkpoint is: float8 all matrices of the attention (of the indexer `wq_b` alone) and of the shared
expert, `e_proj` and `h_proj`; the routed experts MXFP4 with E8M0 scales throughout (Flash, Pro), or float8 with float32
scales throughout (Flash-Base, Pro-Base). float32: `hc_*`, `attn_sink`, `ape`, `gate.bias`. int64: `tid2eid`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from reprlib import repr as short
from typing import Any, Literal, Self

import torch

from weights_tools.architecture import Architecture, Scales, Spec, check_fixed, check_sizes
from weights_tools.errors import CheckpointError
from weights_tools.float8 import E8M0, FLOAT8, SCALE_BLOCK
from weights_tools.mxfp4 import PACKED

Experts = Literal["fp4", "fp8"]

# What config.json must say (or not mention) for the list below to be right.
FIXED: dict[str, Any] = {
    "attention_bias": False,
    "n_shared_experts": 1,
    "num_key_value_heads": 1,
    "tie_word_embeddings": False,
}
MODEL_TYPE = "deepseek_v4"  # as config.json names it
CSA, HCA = 4, 128  # tokens that a compressed one stands for
_RATIOS = (0, CSA, HCA)
_PRO: dict[str, Any] = {"hidden_size": 7168, "q_lora_rank": 1536, "routed_scaling_factor": 2.5}  # V4-Pro's


@dataclass(frozen=True)
class GeometryV4(Architecture):
    """Sizes of V4, and types. The defaults are those of the small synthetic checkpoint.

    Its norms and heads have DeepSeek-V4-Flash's own sizes, and there are few heads, experts and layers: of each kind of
    attention one that chooses experts by the token's id, and then, layers 3 and 4, CSA and HCA that do so by scores.
    """

    hidden_size: int = 4096
    q_lora_rank: int = 1024
    head_dim: int = 512
    qk_rope_head_dim: int = 64
    index_head_dim: int = 128
    hc_mult: int = 4  # streams of hyper-connections

    num_hidden_layers: int = 5
    num_hash_layers: int = 3
    num_attention_heads: int = 4
    index_n_heads: int = 4
    index_topk: int = 4  # so that a sequence of 32 tokens, 8 compressed ones, is long enough for the indexer to choose
    sliding_window: int = 128
    o_groups: int = 2
    o_lora_rank: int = 64
    moe_intermediate_size: int = 64
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    vocab_size: int = 256
    num_nextn_predict_layers: int = 0

    compress_ratios: tuple[int, ...] = (0, HCA, CSA, CSA, HCA)  # of the decoder layers, MTP layers not counted
    routed_scaling_factor: float = 1.5
    float8: bool = False  # matrices are quantized as on the hub
    experts: Experts = "fp4"  # how the routed experts are, if so

    @classmethod
    def small(cls, *, pro: bool = False) -> Self:
        """The small checkpoint's sizes, with the norm widths of V4-Flash or V4-Pro."""
        return replace(cls(), **_PRO) if pro else cls()

    @classmethod
    def full(cls, *, pro: bool = False) -> Self:
        """V4-Flash's or V4-Pro's own sizes, quantized: 284 billion or 1.6 trillion parameters without the MTP layer."""
        flash = cls(
            num_hidden_layers=43,
            num_attention_heads=64,
            index_n_heads=64,
            index_topk=512,
            o_groups=8,
            o_lora_rank=1024,
            moe_intermediate_size=2048,
            n_routed_experts=256,
            num_experts_per_tok=6,
            vocab_size=129280,
            num_nextn_predict_layers=1,
            compress_ratios=(0, 0, *(CSA, HCA) * 20, CSA),
            float8=True,
        )
        if not pro:
            return flash
        return replace(
            flash,
            **_PRO,
            num_hidden_layers=61,
            num_attention_heads=128,
            index_topk=1024,
            o_groups=16,
            moe_intermediate_size=3072,
            n_routed_experts=384,
            compress_ratios=(HCA, HCA, *(CSA, HCA) * 29, CSA),
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The geometry that a config.json of V4 describes.

        Raises:
            CheckpointError: it lacks a size, or has an option that changes the tensors
        """
        check_fixed(config, FIXED)
        sizes: dict[str, Any] = {name: config.get(name) for name in cls.size_names()}
        check_sizes(sizes)
        check_sizes({"o_groups": sizes["o_groups"]}, least=1)
        ratios, layers = config.get("compress_ratios"), sizes["num_hidden_layers"]
        if not isinstance(ratios, list) or len(ratios) < layers or any(ratio not in _RATIOS for ratio in ratios):
            raise CheckpointError(
                f"compress_ratios must be a list of 0, 4 or 128 for each of {layers} layers, but is {short(ratios)}"
            )
        quantization = config.get("quantization_config") or {}
        if not isinstance(quantization, dict):
            raise CheckpointError(f"quantization_config must be an object, but is {short(quantization)}")
        experts: Any = config.get("expert_dtype") or quantization.get("expert_dtype") or "fp4"
        if experts not in ("fp4", "fp8"):
            raise CheckpointError(f"expert_dtype must be 'fp4' or 'fp8', but is {short(experts)}")
        return cls(
            **sizes,
            compress_ratios=tuple(ratios[:layers]),
            routed_scaling_factor=config.get("routed_scaling_factor", 1.5),
            float8=bool(quantization),
            experts=experts,
        )

    @classmethod
    def size_names(cls) -> list[str]:
        """The fields that are whole numbers in config.json."""
        return [field.name for field in fields(cls) if field.type is int]

    def with_layers(self, number: int) -> Self:
        """Those beyond the known ones are CSA and HCA in turn."""
        ratios = self.compress_ratios + (CSA, HCA) * number
        return replace(self, num_hidden_layers=number, compress_ratios=ratios[:number])

    def embedding(self) -> Iterator[Spec]:
        yield Spec("embed.weight", (self.vocab_size, self.hidden_size), torch.bfloat16)

    def head(self) -> Iterator[Spec]:
        yield _norm("norm", self.hidden_size)
        yield Spec("head.weight", (self.vocab_size, self.hidden_size), torch.bfloat16)
        yield from _hyper_head(self, "")

    def decoder_layer(self, number: int) -> Iterator[Spec]:
        is_mtp = number >= self.num_hidden_layers
        layer = f"mtp.{number - self.num_hidden_layers}" if is_mtp else f"layers.{number}"
        yield _norm(f"{layer}.attn_norm", self.hidden_size)
        yield from _attention(self, f"{layer}.attn", 0 if is_mtp else self.compress_ratios[number])
        yield _norm(f"{layer}.ffn_norm", self.hidden_size)
        yield from _experts(self, f"{layer}.ffn", by_token=not is_mtp and number < self.num_hash_layers)
        for part in ("attn", "ffn"):
            mixes = (2 + self.hc_mult) * self.hc_mult  # to and from the streams, and among them
            yield Spec(f"{layer}.hc_{part}_fn", (mixes, self.hc_mult * self.hidden_size), torch.float32)
            yield Spec(f"{layer}.hc_{part}_base", (mixes,), torch.float32)
            yield Spec(f"{layer}.hc_{part}_scale", (3,), torch.float32)
        if is_mtp:
            yield from _mtp(self, layer)

    def config(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in self.size_names()}
        config = (
            sizes
            | FIXED
            | {
                "architectures": ["DeepseekV4ForCausalLM"],
                "attention_dropout": 0.0,
                "bos_token_id": 0,
                "compress_ratios": [*self.compress_ratios, *[0] * self.num_nextn_predict_layers],
                "compress_rope_theta": 160000,
                "eos_token_id": 1,
                "hc_eps": 1e-6,
                "hc_sinkhorn_iters": 20,
                "hidden_act": "silu",
                "initializer_range": 0.02,
                "max_position_embeddings": 1048576,
                "model_type": MODEL_TYPE,
                "norm_topk_prob": True,
                "rms_norm_eps": 1e-6,
                "rope_scaling": {
                    "beta_fast": 32,
                    "beta_slow": 1,
                    "factor": 16,
                    "original_max_position_embeddings": 65536,
                    "type": "yarn",
                },
                "rope_theta": 10000,
                "routed_scaling_factor": self.routed_scaling_factor,
                "scoring_func": "sqrtsoftplus",
                "swiglu_limit": 10.0,
                "topk_method": "noaux_tc",
                "torch_dtype": "bfloat16",
                "use_cache": True,
            }
        )
        if self.float8:
            config["expert_dtype"] = self.experts
            config["quantization_config"] = {
                "activation_scheme": "dynamic",
                "fmt": "e4m3",
                "quant_method": "fp8",
                "weight_block_size": list(SCALE_BLOCK),
            } | ({"scale_fmt": "ue8m0"} if self.experts == "fp4" else {})
        return config


def _attention(g: GeometryV4, attention: str, ratio: int) -> Iterator[Spec]:
    width = g.num_attention_heads * g.head_dim
    yield _matrix(g, f"{attention}.wq_a", g.q_lora_rank, g.hidden_size)
    yield _norm(f"{attention}.q_norm", g.q_lora_rank)
    yield _matrix(g, f"{attention}.wq_b", width, g.q_lora_rank)
    yield _matrix(g, f"{attention}.wkv", g.head_dim, g.hidden_size)
    yield _norm(f"{attention}.kv_norm", g.head_dim)
    yield _matrix(g, f"{attention}.wo_a", g.o_groups * g.o_lora_rank, width // g.o_groups)
    yield _matrix(g, f"{attention}.wo_b", g.hidden_size, g.o_groups * g.o_lora_rank)
    yield Spec(f"{attention}.attn_sink", (g.num_attention_heads,), torch.float32)
    if ratio:
        yield from _compressor(g, f"{attention}.compressor", ratio, g.head_dim)
    if ratio == CSA:
        indexer = f"{attention}.indexer"
        yield _matrix(g, f"{indexer}.wq_b", g.index_n_heads * g.index_head_dim, g.q_lora_rank)
        yield Spec(f"{indexer}.weights_proj.weight", (g.index_n_heads, g.hidden_size), torch.bfloat16)
        yield from _compressor(g, f"{indexer}.compressor", ratio, g.index_head_dim)


def _compressor(g: GeometryV4, compressor: str, ratio: int, width: int) -> Iterator[Spec]:
    columns = 2 * width if ratio == CSA else width  # CSA's windows overlap: each token is in two
    yield Spec(f"{compressor}.wkv.weight", (columns, g.hidden_size), torch.bfloat16)
    yield Spec(f"{compressor}.wgate.weight", (columns, g.hidden_size), torch.bfloat16)
    yield Spec(f"{compressor}.ape", (ratio, columns), torch.float32)
    yield _norm(f"{compressor}.norm", width)


def _experts(g: GeometryV4, ffn: str, by_token: bool) -> Iterator[Spec]:
    for expert in range(g.n_routed_experts):
        yield from _mlp(g, f"{ffn}.experts.{expert}", g.experts)
    yield from _mlp(g, f"{ffn}.shared_experts", "fp8")
    yield Spec(f"{ffn}.gate.weight", (g.n_routed_experts, g.hidden_size), torch.bfloat16)
    if by_token:
        table = (g.vocab_size, g.num_experts_per_tok)
        yield Spec(f"{ffn}.gate.tid2eid", table, torch.int64, options=g.n_routed_experts)
    else:
        yield Spec(f"{ffn}.gate.bias", (g.n_routed_experts,), torch.float32)


def _mlp(g: GeometryV4, mlp: str, quantized: Experts) -> Iterator[Spec]:
    yield _matrix(g, f"{mlp}.w1", g.moe_intermediate_size, g.hidden_size, quantized)
    yield _matrix(g, f"{mlp}.w2", g.hidden_size, g.moe_intermediate_size, quantized)
    yield _matrix(g, f"{mlp}.w3", g.moe_intermediate_size, g.hidden_size, quantized)


def _mtp(g: GeometryV4, layer: str) -> Iterator[Spec]:
    """What an MTP layer has beside a decoder layer: it joins the hidden state and the next token's embedding."""
    yield _norm(f"{layer}.enorm", g.hidden_size)
    yield _norm(f"{layer}.hnorm", g.hidden_size)
    yield _matrix(g, f"{layer}.e_proj", g.hidden_size, g.hidden_size)
    yield _matrix(g, f"{layer}.h_proj", g.hidden_size, g.hidden_size)
    yield _norm(f"{layer}.norm", g.hidden_size)
    yield from _hyper_head(g, f"{layer}.")


def _hyper_head(g: GeometryV4, prefix: str) -> Iterator[Spec]:
    """What makes one hidden state of the streams."""
    yield Spec(f"{prefix}hc_head_fn", (g.hc_mult, g.hc_mult * g.hidden_size), torch.float32)
    yield Spec(f"{prefix}hc_head_base", (g.hc_mult,), torch.float32)
    yield Spec(f"{prefix}hc_head_scale", (1,), torch.float32)


def _norm(name: str, width: int) -> Spec:
    return Spec(f"{name}.weight", (width,), torch.bfloat16)


def _matrix(g: GeometryV4, name: str, rows: int, columns: int, quantized: Experts = "fp8") -> Spec:
    if not g.float8:
        return Spec(f"{name}.weight", (rows, columns), torch.bfloat16)
    scales = Scales(E8M0 if g.experts == "fp4" else torch.float32, "scale")
    return Spec(f"{name}.weight", (rows, columns), PACKED if quantized == "fp4" else FLOAT8, scales)
