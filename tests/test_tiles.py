# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The layouts of a ttnn graph: a row has the bits of the same row as a stick on one core, wherever and however it lies."""

from functools import cache
from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm
from tests.tensors import random_input, random_weights, upload
from tt_device import Platform

Shape = tuple[int, ...]


def shards(strategy: str, shape: Shape, columns: int, rows: int, orientation: str = "ROW_MAJOR") -> ttnn.MemoryConfig:
    """Of a matrix padded to whole tiles, over `columns` x `rows` cores."""
    *_, height, width = shape
    padded = (height + -height % 32, width + -width % 32)
    return ttnn.create_sharded_memory_config(
        (1, 1, *padded),
        ttnn.CoreGrid(x=columns, y=rows),
        getattr(ttnn.ShardStrategy, strategy),
        getattr(ttnn.ShardOrientation, orientation),
    )


L1 = ttnn.L1_MEMORY_CONFIG
DRAM = ttnn.DRAM_MEMORY_CONFIG
TILED: dict[str, tuple[Shape, ttnn.MemoryConfig]] = {
    "DRAM, whole rows": ((5, 96), DRAM),  # one core has them
    "DRAM, rows cut": ((33, 300), DRAM),  # over a team of cores; padding below and beside
    "DRAM, matrices": ((2, 2, 40, 64), DRAM),  # padding below each
    "L1": ((40, 64), L1),
    "width-sharded": ((32, 512), shards("WIDTH", (32, 512), 4, 2)),
    "width-sharded, one row": ((1, 256), shards("WIDTH", (1, 256), 2, 2)),
    "width-sharded, two rows of tiles": ((40, 256), shards("WIDTH", (40, 256), 4, 1)),
    "width-sharded, padded": ((32, 200), shards("WIDTH", (32, 200), 7, 1)),
    "height-sharded": ((128, 128), shards("HEIGHT", (128, 128), 2, 2)),
    "height-sharded, padded": ((64, 72), shards("HEIGHT", (64, 72), 2, 1)),
    "block-sharded": ((64, 256), shards("BLOCK", (64, 256), 4, 2)),
    "block-sharded by columns": ((64, 256), shards("BLOCK", (64, 256), 2, 4, "COL_MAJOR")),
}
STICKS: dict[str, tuple[Shape, ttnn.MemoryConfig]] = {
    "L1": ((5, 300), L1),
    "height-sharded": ((64, 128), shards("HEIGHT", (64, 128), 2, 1)),
}
FORMS = {
    "LayerNorm": (LayerNorm, torch.bfloat16, {}),
    "LayerNorm float32": (LayerNorm, torch.float32, {}),
    "RMSNorm": (RMSNorm, torch.bfloat16, {}),
    "RMSNorm, rounded twice": (RMSNorm, torch.bfloat16, {"round_before_gamma": True}),
    "RMSNorm float32": (RMSNorm, torch.float32, {}),
}


@pytest.fixture(autouse=True)
def _can_read_l1_back(request: pytest.FixtureRequest, platform: Platform) -> None:
    """On wolfpine's Wormhole a read-back of what lies in the L1 of several cores hangs (to_torch of any ttnn tensor)."""
    memory = next((value[1] for value in request.node.callspec.params.values() if isinstance(value, tuple)), None)
    if (platform.backend, platform.arch) == ("wolfpine", "wormhole") and memory and memory != DRAM:
        pytest.xfail("wolfpine's Wormhole hangs in reading L1 of several cores back")


def to_device(
    x: torch.Tensor, device: Any, layout: ttnn.Layout, memory: ttnn.MemoryConfig, padding: float | None = None
) -> ttnn.Tensor:
    """Args:
    padding: what is put where a tile has no elements
    """
    if padding is None:
        return ttnn.from_torch(x, layout=layout, device=device, memory_config=memory)
    on_host = ttnn.from_torch(x).pad_to_tile(padding).to(layout)
    return ttnn.to_device(on_host, device, memory_config=memory)


@cache
def _operands(shape: Shape, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return random_input(shape, dtype=dtype), *random_weights(shape[-1], dtype=dtype)


def run(device: Any, form: str, shape: Shape, layout: ttnn.Layout, memory: ttnn.MemoryConfig, **more: Any) -> Any:
    """The result of a form's operands, and the tensor that it was computed of."""
    norm, dtype, keywords = FORMS[form]
    x, *weights = _operands(shape, dtype)
    on_device = to_device(x, device, layout, memory, more.pop("padding", None))
    tensors = [upload(weight, device) for weight in weights[: 2 if norm is LayerNorm else 1]]
    return norm.op(on_device, *tensors, **keywords, **more), on_device


def expected(device: Any, form: str, shape: Shape) -> torch.Tensor:
    """As sticks on one core, whose bits tests/test_many_cores.py holds to the reference's."""
    norm, dtype, keywords = FORMS[form]
    x, *weights = _operands(shape, dtype)
    tensors = [upload(t, device) for t in (x.reshape(-1, shape[-1]), *weights[: 2 if norm is LayerNorm else 1])]
    y: torch.Tensor = ttnn.to_torch(norm.op(*tensors, cores=1, **keywords))
    return y.reshape(shape)


@pytest.mark.parametrize("place", TILED.values(), ids=TILED)
@pytest.mark.parametrize("form", FORMS)
def test_tiles_give_the_bits_of_sticks(device: Any, form: str, place: tuple[Shape, ttnn.MemoryConfig]) -> None:
    shape, memory = place
    y, x = run(device, form, shape, ttnn.TILE_LAYOUT, memory, padding=float("nan"))
    assert (y.layout, y.memory_config()) == (ttnn.TILE_LAYOUT, x.memory_config())
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))


@pytest.mark.parametrize("place", STICKS.values(), ids=STICKS)
@pytest.mark.parametrize("form", FORMS)
def test_sticks_in_l1(device: Any, form: str, place: tuple[Shape, ttnn.MemoryConfig]) -> None:
    shape, memory = place
    y, x = run(device, form, shape, ttnn.ROW_MAJOR_LAYOUT, memory)
    assert (y.layout, y.memory_config()) == (ttnn.ROW_MAJOR_LAYOUT, x.memory_config())
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))
