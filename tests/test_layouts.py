# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""As tests/test_tiles.py, of layouts of small models and of low latency: tiles of 16 rows."""

from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNorm
from tests.tensors import random_input, random_weights, upload
from tests.test_tiles import DRAM, FORMS, Shape, expected

pytestmark = pytest.mark.usefixtures("reads_back")
NAN = float("nan")


def shards(strategy: str, shape: Shape, cores: int, tile: Shape) -> ttnn.MemoryConfig:
    """Of a matrix padded to whole tiles, over the first `cores`."""
    height, width = (size + -size % of_tile for size, of_tile in zip(shape, tile, strict=True))
    return ttnn.create_sharded_memory_config(
        (1, 1, height, width), ttnn.CoreGrid(x=cores, y=1), getattr(ttnn.ShardStrategy, strategy)
    )


def run(device: Any, form: str, x: ttnn.Tensor, **more: Any) -> ttnn.Tensor:
    """The form's result, with random weights as `expected` has them."""
    norm, dtype, keywords = FORMS[form]
    weights = random_weights(x.shape[-1], dtype=dtype)[: 2 if norm is LayerNorm else 1]
    return norm.op(x, *[upload(weight, device) for weight in weights], **keywords, **more)


def tiles(device: Any, form: str, shape: Shape, tile: Shape, memory: ttnn.MemoryConfig) -> ttnn.Tensor:
    """A form's x in such tiles, padded with NaN."""
    x = random_input(shape, dtype=FORMS[form][1])
    on_host = ttnn.from_torch(x, layout=ttnn.TILE_LAYOUT, tile=ttnn.Tile(tile), pad_value=NAN)
    return ttnn.to_device(on_host, device, memory_config=memory)


SIXTEEN = (16, 32)
OF_SIXTEEN = {
    **{f"DRAM, {rows} rows": ((rows, 300), DRAM) for rows in (1, 5, 16, 20)},  # over a team
    "one shard": ((20, 96), shards("HEIGHT", (20, 96), 1, SIXTEEN)),
    "one shard, padded": ((5, 72), shards("HEIGHT", (5, 72), 1, SIXTEEN)),
    "width-sharded": ((16, 256), shards("WIDTH", (16, 256), 4, SIXTEEN)),
    "width-sharded, padded": ((20, 200), shards("WIDTH", (20, 200), 7, SIXTEEN)),
}


@pytest.mark.parametrize(
    ("form", "place"),
    [
        *(("LayerNorm", place) for place in OF_SIXTEEN),
        *((form, place) for form in FORMS if form != "LayerNorm" for place in ("DRAM, 5 rows", "one shard")),
    ],
)
def test_tiles_of_16_rows(device: Any, cores: int | None, form: str, place: str) -> None:
    shape, memory = OF_SIXTEEN[place]
    x = tiles(device, form, shape, SIXTEEN, memory)
    y = run(device, form, x, cores=cores if memory == DRAM else None)
    assert (y.tile, y.memory_config()) == (ttnn.Tile(SIXTEEN), memory)
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))


def test_weights_in_tiles_of_16_rows(device: Any, cores: int | None) -> None:
    x = tiles(device, "LayerNorm", (5, 160), SIXTEEN, DRAM)
    weights = [
        ttnn.from_torch(w, layout=ttnn.TILE_LAYOUT, tile=ttnn.Tile(SIXTEEN), pad_value=NAN) for w in random_weights(160)
    ]
    y = LayerNorm.op(x, *[ttnn.to_device(weight, device) for weight in weights], cores=cores)
    assert torch.equal(ttnn.to_torch(y), expected(device, "LayerNorm", (5, 160)))
