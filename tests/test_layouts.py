# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""As tests/test_tiles.py, of few rows: tiles of 16 rows and of one, and rows whole or in pieces in shards."""

from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm
from tests.cases import cases
from tests.layouts import DRAM, FORMS, NAN, Shape, expected, shards, to_device
from tests.tensors import random_input, random_weights, upload

pytestmark = pytest.mark.usefixtures("reads_back")


def run(device: Any, form: str, x: ttnn.Tensor, **more: Any) -> ttnn.Tensor:
    """The form's result, with random weights as `expected` has them."""
    norm, dtype, keywords = FORMS[form]
    weights = random_weights(x.shape[-1], dtype=dtype)[: 2 if norm is LayerNorm else 1]
    return norm.op(x, *[upload(weight, device) for weight in weights], **keywords, **more)


def input_of(form: str, shape: Shape) -> torch.Tensor:
    """As `expected` has it."""
    return random_input(shape, dtype=FORMS[form][1])


SIXTEEN = (16, 32)
OF_SIXTEEN = {
    **{f"DRAM, {rows} rows": ((rows, 300), DRAM) for rows in (5, 20)},  # over a team
    "one shard": ((20, 96), shards("HEIGHT", (32, 96), 1)),
    "one shard, padded": ((5, 72), shards("HEIGHT", (16, 96), 1)),
    "width-sharded": ((16, 256), shards("WIDTH", (16, 64), 4)),
    "width-sharded, padded": ((20, 200), shards("WIDTH", (32, 32), 7)),
}


@pytest.mark.parametrize(
    ("form", "place"),
    [
        *(("LayerNorm", place) for place in OF_SIXTEEN),
        *(pytest.param(form, "DRAM, 5 rows", marks=pytest.mark.long) for form in FORMS if form != "LayerNorm"),
    ],
)
def test_tiles_of_16_rows(device: Any, cores: int | None, form: str, place: str) -> None:
    shape, memory = OF_SIXTEEN[place]
    x = to_device(input_of(form, shape), device, SIXTEEN, memory)
    y = run(device, form, x, cores=cores if memory == DRAM else None)
    assert (y.tile, y.memory_config()) == (ttnn.Tile(SIXTEEN), memory)
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))


def test_weights_in_tiles_of_16_rows(device: Any, cores: int | None) -> None:
    x = to_device(input_of("LayerNorm", (5, 160)), device, SIXTEEN, DRAM)
    weights = [
        ttnn.from_torch(w, layout=ttnn.TILE_LAYOUT, tile=ttnn.Tile(SIXTEEN), pad_value=NAN) for w in random_weights(160)
    ]
    y = LayerNorm.op(x, *[ttnn.to_device(weight, device) for weight in weights], cores=cores)
    assert torch.equal(ttnn.to_torch(y), expected(device, "LayerNorm", (5, 160)))


ROW = (1, 32)  # a tile
STICKS: dict[str, tuple[Shape, Shape | None, ttnn.MemoryConfig]] = {
    "tiles of a row in DRAM": ((5, 300), ROW, DRAM),
    "tiles of a row, padded": ((1, 300), ROW, shards("HEIGHT", (1, 320), 1)),
    "tiles of a row, width-sharded": ((5, 300), ROW, shards("WIDTH", (5, 64), 5)),
    "tiles of a row, block-sharded": ((6, 300), ROW, shards("BLOCK", (3, 96), 4, 2)),  # the last ones are less wide
    "height-sharded, padded": ((5, 300), None, shards("HEIGHT", (3, 300), 2)),  # pages of 600 bytes, 608 apart
    "tiles of a row, a shard wider than W": ((5, 128), ROW, shards("WIDTH", (5, 256), 1)),
    "width-sharded": ((5, 160), None, shards("WIDTH", (5, 40), 4)),
    "block-sharded": ((6, 1200), None, shards("BLOCK", (3, 400), 3, 2)),
    "width-sharded, cut": ((1, 7200), None, shards("WIDTH", (1, 2400), 3)),  # over a team
}
# Rows that are normalized where they lie, in pieces of any size
IN_PLACES: dict[str, tuple[Shape, Shape | None, ttnn.MemoryConfig]] = {
    "pieces of 1024": ((1, 7168), ROW, shards("HEIGHT", (1, 7168), 1)),
    "pieces of 512": ((1, 1536), None, shards("HEIGHT", (1, 1536), 1)),
    "pieces of 256": ((2, 256), ROW, shards("HEIGHT", (1, 256), 2)),
    "pieces of 128": ((5, 384), ROW, shards("HEIGHT", (3, 384), 2)),
    "four rows": ((7, 384), None, shards("HEIGHT", (4, 384), 2)),
    "more rows than an unpacker counts": ((261, 128), None, shards("HEIGHT", (264, 128), 1)),  # 256
}
ALL_STICKS = STICKS | IN_PLACES
WAYS = [
    *(("LayerNorm", place) for place in ALL_STICKS),
    *((form, place) for form in FORMS if form != "LayerNorm" for place in ("pieces of 512",)),
    ("LayerNorm float32", "tiles of a row, padded"),
]
LONG_WAYS = [
    "LayerNorm: more rows than an unpacker counts",
    "LayerNorm: width-sharded, cut",
    "LayerNorm float32: pieces of 512",
    "RMSNorm, all rounded: pieces of 512",
    "RMSNorm float32: pieces of 512",
]


@pytest.mark.parametrize(
    ("form", "place"), cases({f"{form}: {place}": (form, ALL_STICKS[place]) for form, place in WAYS}, long=LONG_WAYS)
)
def test_sticks(device: Any, form: str, place: tuple[Shape, Shape | None, ttnn.MemoryConfig]) -> None:
    """Behind x, in L1, lies what is NaN, and behind the result x."""
    shape, tile, memory = place
    values = input_of(form, shape)
    behind = to_device(torch.full_like(values, NAN), device, tile, memory)
    x = to_device(values, device, tile, memory)
    y = run(device, form, x)
    assert (y.layout, y.memory_config()) == (x.layout, memory)
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))
    assert torch.equal(ttnn.to_torch(x), values)
    assert ttnn.to_torch(behind).isnan().all()
    assert memory == DRAM or y.buffer_address() < x.buffer_address() < behind.buffer_address()


@pytest.mark.parametrize("place", [ALL_STICKS[place] for place in ("width-sharded", "pieces of 512", "four rows")])
def test_in_place(device: Any, place: tuple[Shape, Shape | None, ttnn.MemoryConfig]) -> None:
    shape, tile, memory = place
    x = to_device(input_of("RMSNorm", shape), device, tile, memory)
    run(device, "RMSNorm", x, output_tensor=x)
    assert torch.equal(ttnn.to_torch(x), expected(device, "RMSNorm", shape))


@pytest.mark.parametrize("place", [ALL_STICKS[place] for place in ("width-sharded", "pieces of 512")])
@pytest.mark.parametrize("to_shards", [True, False])
def test_output_elsewhere(device: Any, place: tuple[Shape, Shape | None, ttnn.MemoryConfig], to_shards: bool) -> None:
    shape, tile, memory = place
    source, target = (DRAM, memory) if to_shards else (memory, DRAM)
    y = run(device, "LayerNorm", to_device(input_of("LayerNorm", shape), device, tile, source), memory_config=target)
    assert y.memory_config() == target
    assert torch.equal(ttnn.to_torch(y), expected(device, "LayerNorm", shape))


OTHER_LAYOUTS: dict[str, tuple[Shape, Shape | None, ttnn.MemoryConfig, ttnn.Layout, ttnn.MemoryConfig | None]] = {
    "to tiles": ((5, 300), None, DRAM, ttnn.TILE_LAYOUT, None),
    "to tiles, matrices": ((2, 33, 100), None, DRAM, ttnn.TILE_LAYOUT, ttnn.L1_MEMORY_CONFIG),  # padding below each
    "from a shard to tiles on its core": (
        *IN_PLACES["pieces of 512"],
        ttnn.TILE_LAYOUT,
        shards("HEIGHT", (32, 1536), 1),
    ),
    "from shards to tiles, cut": (*STICKS["width-sharded, cut"], ttnn.TILE_LAYOUT, DRAM),
    "to tiles in shards": ((5, 300), None, DRAM, ttnn.TILE_LAYOUT, shards("WIDTH", (32, 64), 5)),
    "from tiles of a row in shards": (*IN_PLACES["pieces of 128"], ttnn.ROW_MAJOR_LAYOUT, None),
}


@pytest.mark.parametrize(
    ("form", "place"),
    [
        *(pytest.param("LayerNorm", place, id=name) for name, place in OTHER_LAYOUTS.items()),
        *(
            pytest.param(form, OTHER_LAYOUTS["to tiles"], marks=pytest.mark.long)
            for form in ("LayerNorm float32", "RMSNorm, all rounded")
        ),
    ],
)
def test_output_in_another_layout(device: Any, form: str, place: Any) -> None:
    shape, tile, memory, layout, target = place
    y = run(device, form, to_device(input_of(form, shape), device, tile, memory), layout=layout, memory_config=target)
    assert (y.layout, y.memory_config()) == (layout, target or memory)
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))


@pytest.mark.parametrize("tile", [(32, 32), SIXTEEN])
def test_what_pads_an_output_in_tiles_is_not_written(device: Any, tile: Shape) -> None:
    shape = (2, 5, 300)
    untouched = ttnn.from_torch(torch.zeros(shape, dtype=torch.bfloat16), layout=ttnn.TILE_LAYOUT, tile=ttnn.Tile(tile))
    y = ttnn.to_device(untouched, device, memory_config=DRAM)
    assert run(device, "LayerNorm", to_device(input_of("LayerNorm", shape), device, None, DRAM), output_tensor=y) is y
    padded = y.cpu().to_torch_with_padded_shape()
    assert torch.equal(padded[:, :5, :300], expected(device, "LayerNorm", shape))
    assert (padded[:, 5:].count_nonzero(), padded[..., 300:].count_nonzero()) == (0, 0)


def test_refusals(device: Any) -> None:
    def norm_of(shape: Shape, tile: Shape | None, memory: ttnn.MemoryConfig, gamma: Any = None, **more: Any) -> None:
        RMSNorm.op(to_device(random_input(shape), device, tile, memory), gamma, **more)

    gamma = to_device(random_weights(64)[0], device, SIXTEEN, DRAM)
    with pytest.raises(
        LayerNormArgumentError, match=r"gamma.layout must be ROW_MAJOR beside an input in TILE \(1, 32\)"
    ):
        norm_of((5, 64), ROW, DRAM, gamma)
    gamma = to_device(random_weights(64)[0], device, ROW, DRAM)
    with pytest.raises(LayerNormArgumentError, match=r"gamma's tiles must be 32 x 32 or 16 x 32, but are .*1, 32"):
        norm_of((5, 64), SIXTEEN, DRAM, gamma)
    shape, tile, memory = IN_PLACES["four rows"]
    with pytest.raises(LayerNormArgumentError, match="cores must be as many as have shards, 2, but is 1"):
        norm_of(shape, tile, memory, cores=1)
