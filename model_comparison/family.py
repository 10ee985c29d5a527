# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Small synthetic checkpoints of DeepSeek's relatives: transformers' own model and saver, with seeded weights.

Norms have the published model's widths and eps, and there are few heads, experts and layers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from model_comparison.meta_model import meta_model
from weights_tools.files import checkpoint_written
from weights_tools.synthetic import generator_of, kept_checkpoint

_MLA = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
_SMALL = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256}
_EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "intermediate_size": 256}
_YARN = {"type": "yarn", "rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}

# config.json, where it is not transformers' default
CONFIGS: dict[str, dict[str, Any]] = {
    "v2": {  # DeepSeek-V2-Lite
        **(_MLA | _SMALL | _EXPERTS),
        "model_type": "deepseek_v2",
        "hidden_size": 2048,
        "q_lora_rank": None,
        "first_k_dense_replace": 1,
        "n_shared_experts": 2,
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "max_position_embeddings": 163840,
        "rope_scaling": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "kimi": {  # Kimi K2.5
        "model_type": "kimi_k25",
        "tie_word_embeddings": False,
        "text_config": {
            **(_MLA | _SMALL | _EXPERTS),
            "model_type": "deepseek_v3",
            "hidden_size": 7168,
            "q_lora_rank": 1536,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "rms_norm_eps": 1e-5,
            "routed_scaling_factor": 2.827,
        },
        "vision_config": {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
    },
    "glm5": {  # GLM-5
        **(_MLA | _SMALL | _EXPERTS),
        "model_type": "glm_moe_dsa",
        "hidden_size": 6144,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "index_n_heads": 4,
        "index_head_dim": 128,
        "index_topk": 16,
        "n_group": 1,
        "topk_group": 1,
        "rms_norm_eps": 1e-5,
    },
    "longcat": {  # LongCat-Flash
        **(_MLA | _SMALL),
        "model_type": "longcat_flash",
        "hidden_size": 6144,
        "head_dim": 64,  # qk_rope_head_dim
        "num_hidden_layers": 8,  # two attentions in each of its four layers
        "q_lora_rank": 1536,
        "ffn_hidden_size": 256,
        "expert_ffn_hidden_size": 64,
        "n_routed_experts": 8,
        "zero_expert_num": 4,
        "moe_topk": 3,
    },
    "llama": {  # Llama 3
        **_SMALL,
        "model_type": "llama",
        "hidden_size": 4096,
        "head_dim": 128,
        "intermediate_size": 256,
        "rms_norm_eps": 1e-5,
    },
    "qwen3": {  # Qwen3
        **_SMALL,
        "model_type": "qwen3",
        "hidden_size": 4096,
        "head_dim": 128,
        "intermediate_size": 256,
    },
}


def default_relative(model: str) -> Path:
    """The checkpoint of `model`, a key of `CONFIGS`, with seed 0, in the user's cache folder: written the first time,
    kept for the next.

    Raises:
        CheckpointError: it can't be written
    """
    return kept_checkpoint(model, [Path(__file__)], lambda folder: write_relative(folder, CONFIGS[model]))


def write_relative(folder: Path, config: Mapping[str, Any], seed: int = 0) -> Path:
    """Write the checkpoint that `config` describes, as transformers saves it. A tensor's values depend on the seed, its
    name and its shape alone.

    Args:
        folder: appears under its name only once it is whole
    Raises:
        CheckpointError: it exists or can't be written
    """
    whole = meta_model(config).to_empty(device="cpu")
    for name, tensor in whole.state_dict().items():
        mean, std = _spread(name, tensor)
        values = torch.from_numpy(generator_of(name, seed).standard_normal(tensor.shape, dtype=np.float32))
        tensor.copy_(values.mul_(std).add_(mean))
    with checkpoint_written(folder, force=False) as partial, _without_progress_bar():
        whole.save_pretrained(partial)
    return folder


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    logging: Any = transformers.utils.logging  # without types
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _spread(name: str, tensor: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation: matrices give outputs of RMS about 1 for an input of RMS 1."""
    if tensor.ndim == 1:
        return (1.0, 0.2) if name.endswith("weight") else (0.0, 0.1)
    return 0.0, 1.0 if "embed" in name else tensor.shape[-1] ** -0.5
