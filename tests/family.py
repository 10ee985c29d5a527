# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of DeepSeek-V4 and of DeepSeek's relatives that are made in no time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from model_comparison.family import CONFIGS, write_relative
from weights_tools import write_synthetic
from weights_tools.architecture_v4 import GeometryV4

# Its compressors' kv_norm and its indexer's have their real widths, 512 and 128, and all else is small.
SMALL_V4 = GeometryV4(
    hidden_size=64,
    q_lora_rank=64,
    num_attention_heads=2,
    index_n_heads=2,
    moe_intermediate_size=32,
    o_lora_rank=16,
    vocab_size=64,
)
_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "q_lora_rank": 32,
    "kv_lora_rank": 48,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 16,
    "v_head_dim": 12,
    "head_dim": 16,
    "intermediate_size": 48,
    "ffn_hidden_size": 48,
    "moe_intermediate_size": 24,
    "expert_ffn_hidden_size": 24,
    "index_topk": 8,
    "vocab_size": 64,
}


def small_checkpoint(folder: Path, model: str, *, quantized: bool = False, **config: Any) -> Path:
    """
    Args:
        quantized: V4's matrices are float8, and its experts MXFP4
        config: what a relative's config.json says beside
    """
    if model == "v4":
        return write_synthetic(folder, replace(SMALL_V4, float8=quantized))
    return write_relative(folder, _small(CONFIGS[model]) | config)


def _small(config: dict[str, Any]) -> dict[str, Any]:
    """`config`, but with `_SIZES`, where it has one."""
    small = config | {name: size for name, size in _SIZES.items() if config.get(name) is not None}
    return small | ({"text_config": _small(config["text_config"])} if "text_config" in config else {})
