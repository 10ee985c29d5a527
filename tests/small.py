# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are made in no time."""

from dataclasses import replace

from weights_tools import Geometry, GeometryV4

# k_norm has its real width, 128, and all else is small.
SMALL = Geometry(
    hidden_size=256,
    q_lora_rank=64,
    kv_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=32,
    index_topk=8,
    intermediate_size=64,
    moe_intermediate_size=32,
    vocab_size=64,
)
SMALL_V3 = replace(SMALL, model="v3")  # no indexer
# Each size its own where it can, and nothing a multiple of a block: what is swapped or cut has another shape.
TINY = Geometry(
    hidden_size=64,
    q_lora_rank=32,
    kv_lora_rank=16,
    index_head_dim=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=12,  # not qk_nope_head_dim: kv_b_proj and o_proj must not swap the two
    intermediate_size=48,
    moe_intermediate_size=24,
    vocab_size=40,
)
# Likewise, but that no size is beyond a block of 128: transformers reads whole blocks alone.
TINY_V4 = GeometryV4(
    hidden_size=64,
    q_lora_rank=96,
    head_dim=16,
    qk_rope_head_dim=4,
    index_head_dim=24,
    hc_mult=3,
    num_attention_heads=6,
    index_n_heads=5,
    index_topk=2,
    o_groups=3,
    o_lora_rank=10,
    moe_intermediate_size=32,
    n_routed_experts=7,
    vocab_size=40,
)
