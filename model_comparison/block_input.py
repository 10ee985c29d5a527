# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a block is run on: a hidden state and the ids of its tokens, drawn or recorded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from model_comparison.block import Block

HIDDEN_STATES, INPUT_IDS = "hidden_states", "input_ids"  # keys in a file
# In trained residual streams few channels are far larger than the others, as here every 512th by 40 times (tt-metal's
# issue 49600).
OUTLIER_STRIDE, OUTLIER_SIZE = 512, 40.0
FEW_OPTIONS = 32  # an indexer that keeps more options takes too many tokens to have to choose
FEW_TOKENS = 16


class InputError(ValueError):
    """A file that holds no input for the block. One line."""


@dataclass(frozen=True)
class BlockInput:
    """
    Attributes:
        hidden_states: (B, S, *block.hidden_shape) bfloat16
        input_ids: (B, S) int64
        facts: where they come from; what JSON can hold
    """

    hidden_states: torch.Tensor
    input_ids: torch.Tensor
    facts: dict[str, Any]


def drawn_input(block: Block, tokens: int | None = None, seed: int = 0, *, outliers: bool = True) -> BlockInput:
    """One sequence of N(0, 1), seeded.

    Args:
        tokens: default: `default_tokens`
        outliers: every `OUTLIER_STRIDE`-th channel is `OUTLIER_SIZE` times as large
    """
    tokens = tokens or default_tokens(block)
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(1, tokens, *block.hidden_shape, generator=generator)
    if outliers:
        hidden_states[..., ::OUTLIER_STRIDE] *= OUTLIER_SIZE
    kind = f"N(0, 1), every {OUTLIER_STRIDE}th channel x {OUTLIER_SIZE:g}" if outliers else "N(0, 1)"
    input_ids = torch.randint(block.config.vocab_size, (1, tokens), generator=generator)
    return BlockInput(hidden_states.to(torch.bfloat16), input_ids, {"input": kind, "seed": seed})


def default_tokens(block: Block) -> int:
    """Enough that each compressor of the layer's closes a window, and that its indexer leaves keys out (else the
    block's output does not depend on the indexer's norms at all): 4 more than it keeps. `FEW_TOKENS` where it keeps
    more than `FEW_OPTIONS`: with DeepSeek's own numbers a simulator would take hours."""
    tokens = 0
    for module in block.layer.modules():
        window = getattr(module, "compress_rate", 1)  # tokens that become one key
        kept = getattr(module, "index_topk", 0)
        if window > 1:
            tokens = max(tokens, window + 4)
        if 0 < kept <= FEW_OPTIONS:
            tokens = max(tokens, window * (kept + 4))
    return tokens if tokens > 4 else FEW_TOKENS


def read_input(path: Path, block: Block) -> BlockInput:
    """A recorded hidden state: a safetensors file with `hidden_states` (B, S, *block.hidden_shape), and `input_ids`
    (B, S), which only a layer that routes by token ids needs.

    Raises:
        InputError: the file is none, or holds something else
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in (HIDDEN_STATES, INPUT_IDS) if key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
            held = ", ".join(file.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: can't read it as safetensors ({error})") from error
    if HIDDEN_STATES not in tensors:
        raise InputError(f"{path}: must hold {HIDDEN_STATES}, but holds {held or 'nothing'}")
    hidden_states = tensors[HIDDEN_STATES]
    shape, of_block = tuple(hidden_states.shape), block.hidden_shape
    if len(shape) != 2 + len(of_block) or shape[2:] != of_block or 0 in shape:
        expected = ", ".join(map(str, ("B", "S", *of_block)))
        raise InputError(f"{path}: {HIDDEN_STATES} must have shape ({expected}), but has {shape}")
    if not hidden_states.dtype.is_floating_point or hidden_states.dtype.itemsize < 2:
        raise InputError(f"{path}: {HIDDEN_STATES} must be bfloat16, float16 or float32, but is {hidden_states.dtype}")
    hidden_states = hidden_states.to(torch.bfloat16)
    if spoilt := int(hidden_states.isfinite().logical_not().sum()):
        raise InputError(f"{path}: {HIDDEN_STATES} holds {spoilt} NaN or Inf in bfloat16")
    input_ids = tensors.get(INPUT_IDS)
    if input_ids is None:
        if block.routes_by_id:
            raise InputError(f"{path}: must hold {INPUT_IDS}, too: layer {block.number} chooses experts by them")
        input_ids = torch.zeros(shape[:2], dtype=torch.int64)
    vocabulary = block.config.vocab_size
    if tuple(input_ids.shape) != shape[:2] or input_ids.dtype not in (torch.int32, torch.int64):
        raise InputError(
            f"{path}: {INPUT_IDS} must be int64 of shape {shape[:2]}, but is {input_ids.dtype} of"
            f" {tuple(input_ids.shape)}"
        )
    if input_ids.min() < 0 or input_ids.max() >= vocabulary:
        raise InputError(
            f"{path}: {INPUT_IDS} must be 0 to {vocabulary - 1} (vocab_size), but are {input_ids.min()} to"
            f" {input_ids.max()}"
        )
    return BlockInput(hidden_states, input_ids.long(), {"input": str(path), "seed": None})
