"""A checkpoint that is made in no time."""

from weights_tools import Geometry

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
