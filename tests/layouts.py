# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What tests of layouts share: the norms' forms, their operands, and the bits that are expected in whatever layout."""

from functools import cache
from typing import Any

import torch
import ttnn

from micro_ops.layernorm import LayerNorm, RMSNorm, reference
from tests.tensors import random_input, random_weights, upload

Shape = tuple[int, ...]
NAN = float("nan")
L1 = ttnn.L1_MEMORY_CONFIG
DRAM = ttnn.DRAM_MEMORY_CONFIG
FORMS = {
    "LayerNorm": (LayerNorm, torch.bfloat16, {}),
    "LayerNorm float32": (LayerNorm, torch.float32, {}),
    "RMSNorm": (RMSNorm, torch.bfloat16, {}),
    "RMSNorm, all rounded": (RMSNorm, torch.bfloat16, {"round_before_gamma": True, "round_inverse_rms": True}),
    "RMSNorm float32": (RMSNorm, torch.float32, {}),
}


@cache
def operands(shape: Shape, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return random_input(shape, dtype=dtype), *random_weights(shape[-1], dtype=dtype)


def expected(device: Any, form: str, shape: Shape, of: torch.Tensor | None = None) -> torch.Tensor:
    """The bits of the reference, to which tests/test_reference.py holds sticks; of float32, of sticks on one core.

    Args:
        of: what is normalized in the place of the form's own x
    """
    norm, dtype, keywords = FORMS[form]
    x, *weights = operands(shape, dtype)
    rows = (x if of is None else of).reshape(-1, shape[-1])
    given = weights[: 2 if norm is LayerNorm else 1]
    y: torch.Tensor
    if dtype == torch.float32:
        y = ttnn.to_torch(norm.op(*[upload(t, device) for t in (rows, *given)], cores=1, **keywords))
    else:
        modelled = reference.layer_norm if norm is LayerNorm else reference.rms_norm
        y = modelled(rows, *[weight.flatten() for weight in given], **keywords)
    return y.reshape(shape)


def shards(strategy: str, shard: Shape, cores: int, rows: int = 1) -> ttnn.MemoryConfig:
    """Of such shards, over the first `cores` of `rows`."""
    return ttnn.create_sharded_memory_config(
        shard,
        ttnn.CoreGrid(x=cores, y=rows),
        getattr(ttnn.ShardStrategy, strategy),
        use_height_and_width_as_shard_shape=True,
    )


def to_device(x: torch.Tensor, device: Any, tile: Shape | None, memory: ttnn.MemoryConfig) -> ttnn.Tensor:
    """In such tiles, padded with NaN; or row-major."""
    if tile is None:
        on_host = ttnn.from_torch(x, layout=ttnn.ROW_MAJOR_LAYOUT)
    else:
        on_host = ttnn.from_torch(x, layout=ttnn.TILE_LAYOUT, tile=ttnn.Tile(tile), pad_value=NAN)
    return ttnn.to_device(on_host, device, memory_config=memory)
