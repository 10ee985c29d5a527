# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Residuals of sticks (test_tiles.py: of tiles): s is torch's x + r, and the result has the bits of the norm of s."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm
from tests.cases import cases
from tests.layouts import DRAM, FORMS, L1, NAN, Shape, expected, operands, shards, to_device
from tests.tensors import random_input, upload

pytestmark = pytest.mark.usefixtures("reads_back")
INF = float("inf")
ROW = (1, 32)  # a tile


@dataclass(frozen=True)
class Place:
    """Where x, the residual and the outputs lie, and what else is said of them."""

    form: str
    shape: Shape
    memory: ttnn.MemoryConfig = field(default_factory=lambda: DRAM)
    tile: Shape | None = None
    in_place: tuple[str, str] | None = None  # which tensors y and s overwrite
    cores: int | None = None
    to_tiles: bool = False  # y, in DRAM


# Pieces of each size, in groups and alone, with and without padding; s in a ring and over a shard; every form.
PLACES = {
    "a row": Place("LayerNorm", (1, 1100)),  # two pieces of 1,024
    "rows alone": Place("RMSNorm", (3, 300)),  # a piece of 384
    "groups": Place("LayerNorm", (33, 1025), cores=2),  # rings that go round, a last group of one row; pieces of 512
    "narrow rows in L1": Place("RMSNorm, all rounded", (9, 33), L1, in_place=("x", "residual"), cores=1),
    "rows cut": Place("LayerNorm", (2, 7100)),  # over teams of 7 cores, which send one another their parts of s
    "rows cut, float32": Place("RMSNorm float32", (1, 5000), cores=3, in_place=("residual", "x")),
    "float32": Place("LayerNorm float32", (10, 300), cores=1),
    "float32, in its shard": Place("RMSNorm float32", (5, 384), shards("HEIGHT", (3, 384), 2)),
    "in its shard": Place("RMSNorm", (5, 1152), shards("HEIGHT", (3, 1152), 2), ROW),  # pieces of 128
    "in its shard, in place": Place(
        "RMSNorm, all rounded", (3, 2048), shards("HEIGHT", (3, 2048), 1), in_place=("residual", "x")
    ),
    "four rows in a shard": Place("LayerNorm", (7, 1152), shards("HEIGHT", (4, 1152), 2)),
    "width-sharded": Place("LayerNorm", (5, 160), shards("WIDTH", (5, 40), 4), in_place=("residual", "x")),
    "to tiles": Place("LayerNorm", (6, 300), cores=1, to_tiles=True),
    "in its shard, to tiles": Place("RMSNorm", (5, 384), shards("HEIGHT", (3, 384), 2), to_tiles=True),
}


@pytest.mark.parametrize(
    "place",
    cases(
        PLACES, long=[name for name in PLACES if name not in ("a row", "rows cut, float32", "in its shard", "to tiles")]
    ),
)
def test_a_residual_is_added_as_torch_adds_it(device: Any, cores: int | None, place: Place) -> None:
    """To the bit; bfloat16 sums of two are often ties. What is not finite stays so: a NaN may become an infinity."""
    norm, dtype, keywords = FORMS[place.form]
    x = random_input(place.shape, dtype=dtype)
    residual = random_input(place.shape, offset=0.0, std=1.0, seed=3, dtype=dtype)
    spoilt = [len(x) // 2] if len(x) > 1 else []  # rows
    for row in spoilt:
        x[row, :4], residual[row, 3:7] = torch.tensor([[INF, -INF, NAN, INF], [-INF, NAN, INF, -INF]])
    tensors = {name: to_device(t, device, place.tile, place.memory) for name, t in (("x", x), ("residual", residual))}
    weights = [upload(w, device) for w in operands(place.shape, dtype)[1:][: 2 if norm is LayerNorm else 1]]
    more: dict[str, Any] = {"cores": place.cores}
    if place.in_place:
        more |= dict(zip(("output_tensor", "residual_output"), map(tensors.get, place.in_place), strict=True))
    if place.memory == DRAM and place.cores is None:
        more["cores"] = cores
    if place.to_tiles:
        more |= {"layout": ttnn.TILE_LAYOUT, "memory_config": DRAM}
    y, total = norm.op(tensors["x"], *weights, residual=tensors["residual"], **keywords, **more)
    as_x = (tensors["x"].layout, place.memory)
    assert (y.layout, y.memory_config()) == ((ttnn.TILE_LAYOUT, DRAM) if place.to_tiles else as_x)
    assert (total.layout, total.memory_config()) == as_x
    of_sum, got = ttnn.to_torch(total), ttnn.to_torch(y)
    wanted = x + residual
    finite = wanted.isfinite()
    assert torch.equal(of_sum.isfinite(), finite)
    assert torch.equal(of_sum[finite], wanted[finite])
    others = [row for row in range(len(x)) if row not in spoilt]
    assert not got[spoilt].isfinite().any()
    assert torch.equal(got[others], expected(device, place.form, place.shape, wanted)[others])
    for name, before in (("x", x), ("residual", residual)):
        if place.in_place:
            overwrites = (y, total)[place.in_place.index(name)]
            assert overwrites.buffer_address() == tensors[name].buffer_address()
        else:
            assert torch.equal(ttnn.to_torch(tensors[name]).nan_to_num(7.0), before.nan_to_num(7.0)), "written over"


@pytest.mark.parametrize("memory", [DRAM, shards("HEIGHT", (1, 128), 1)], ids=["DRAM", "shards"])
def test_no_rows(device: Any, memory: ttnn.MemoryConfig) -> None:
    x = upload(torch.zeros(0, 128, dtype=torch.bfloat16), device)
    y, total = LayerNorm.op(x, None, None, residual=x, memory_config=memory)
    assert tuple(y.shape) == tuple(total.shape) == (0, 128)


def test_refusals(device: Any) -> None:
    x = upload(random_input((4, 128)), device)
    others = {
        r"the input's shape \(4, 128\), .*, but has \(4, 64\)": upload(random_input((4, 64)), device),
        r"BFLOAT16 .*, but has .*FLOAT32": upload(random_input((4, 128), dtype=torch.float32), device),
        r"layout ROW_MAJOR, interleaved in DRAM, but has .* in L1": to_device(random_input((4, 128)), device, None, L1),
    }
    for message, other in others.items():
        with pytest.raises(LayerNormArgumentError, match=message):
            RMSNorm.op(x, None, residual=other)
    with pytest.raises(LayerNormArgumentError, match=r"residual_output must not share memory with output"):
        RMSNorm.op(x, None, x, residual=x, residual_output=x)
    with pytest.raises(LayerNormArgumentError, match=r"residual_output must lie as memory_config says, .* in L1, but"):
        RMSNorm.op(x, None, residual=x, residual_output=x, memory_config=L1)
