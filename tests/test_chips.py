# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Rows whose columns are cut over chips: the two halves of a norm, here of one chip after another on the same one."""

from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm, reference
from micro_ops.layernorm.program import statistics_shape
from tests.cases import cases
from tests.layouts import DRAM, Shape, shards, to_device
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights, upload

FORMS = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def columns(tensor: torch.Tensor, chips: int) -> list[torch.Tensor]:
    """Of each chip."""
    return [part.contiguous() for part in tensor.chunk(chips, dim=-1)]


def run(
    device: Any,
    norm: Any,
    x: torch.Tensor,
    chips: int,
    residual: torch.Tensor | None = None,
    tile: Shape | None = None,
    memory: ttnn.MemoryConfig = DRAM,
    cores: int | None = 1,
    result_layout: ttnn.Layout | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and what was normalized. What pads a tile is NaN."""
    weights = random_weights(x.shape[-1], dtype=x.dtype)[: 2 if norm is LayerNorm else 1]
    sources = [to_device(part, device, tile, memory) for part in columns(x, chips)]
    if residual is None:
        made = [norm.partial_statistics(source, cores=cores) for source in sources]
    else:
        added = [to_device(part, device, tile, memory) for part in columns(residual, chips)]
        pairs = zip(sources, added, strict=True)
        both = [norm.partial_statistics(source, residual=r, cores=cores) for source, r in pairs]
        made, sources = [statistics for statistics, _ in both], [total for _, total in both]
    gathered = upload(torch.cat([ttnn.to_torch(statistics) for statistics in made]), device)
    of_chips = zip(*(columns(weight, chips) for weight in weights), strict=True)
    results = [
        ttnn.to_torch(
            norm.normalize_with(
                source, gathered, *(upload(w, device) for w in of_chip), layout=result_layout, cores=cores, **keywords
            )
        )
        for source, of_chip in zip(sources, of_chips, strict=True)
    ]
    return torch.cat(results, dim=-1), torch.cat([ttnn.to_torch(source) for source in sources], dim=-1)


def golden(norm: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = norm.golden(x, *random_weights(x.shape[-1], dtype=x.dtype)[: 2 if norm is LayerNorm else 1])
    return y


# A row alone in one piece, in several; groups, whole and not; columns that are no whole pieces
SHAPES = {"alone": ((1, 1536), 1), "alone, wide": ((1, 3072), 2), "groups": ((9, 600), 4), "narrow": ((6, 96), 8)}


@pytest.mark.parametrize(("shape", "chips"), cases(SHAPES, long=["alone, wide", "narrow"]))
@pytest.mark.parametrize("name", FORMS)
def test_is_the_golden_rounded_once(device: Any, name: str, shape: tuple[int, int], chips: int) -> None:
    x = random_input(shape)
    y, _ = run(device, FORMS[name], x, chips)
    beta = random_weights(shape[-1])[1] if name == "LayerNorm" else None
    assert_equal_but_near_ties(y, golden(FORMS[name], x), beta)


@pytest.mark.parametrize("name", FORMS)
def test_at_an_offset(device: Any, name: str) -> None:
    """The chips' means, which are near one another and far from zero, keep what tells them apart."""
    x = random_input((5, 512), offset=1e4, std=64.0)
    y, _ = run(device, FORMS[name], x, 4)
    assert_equal_but_near_ties(y, golden(FORMS[name], x), random_weights(512)[1] if name == "LayerNorm" else None)


@pytest.mark.parametrize("name", FORMS)
def test_float32(device: Any, name: str) -> None:
    x = random_input((6, 512), dtype=torch.float32)
    y, _ = run(device, FORMS[name], x, 2)
    expected = golden(FORMS[name], x)
    assert (y - expected).norm() / expected.norm() <= 1e-6


@pytest.mark.parametrize("name", FORMS)
def test_means_that_differ_between_chips(device: Any, name: str) -> None:
    """By far more than the elements of a chip do."""
    x = random_input((5, 256)) + torch.repeat_interleave(torch.tensor([-300.0, 40.0, 40.0, 1000.0]), 64).bfloat16()
    y, _ = run(device, FORMS[name], x, 4)
    assert_equal_but_near_ties(y, golden(FORMS[name], x), random_weights(256)[1] if name == "LayerNorm" else None)


@pytest.mark.parametrize(("name", "dtype"), [("LayerNorm", torch.bfloat16), ("RMSNorm", torch.float32)])
def test_a_residual_is_added_as_torch_adds_it(device: Any, name: str, dtype: torch.dtype) -> None:
    x, residual = random_input((7, 512), dtype=dtype), random_input((7, 512), offset=0.0, seed=3, dtype=dtype)
    y, total = run(device, FORMS[name], x, 2, residual)
    assert torch.equal(total, x + residual)
    of_sum, _ = run(device, FORMS[name], x + residual, 2)
    assert torch.equal(y, of_sum)


@pytest.mark.parametrize("name", FORMS)
def test_one_spoils_its_row_and_no_other(device: Any, name: str) -> None:
    """On all chips, whichever has it."""
    x = random_input((9, 256))
    good, _ = run(device, FORMS[name], x, 2)
    x[2, 255], x[5, 0] = float("nan"), float("inf")
    y, _ = run(device, FORMS[name], x, 2)
    assert not y[[2, 5]].isfinite().any()
    others = [row for row in range(9) if row not in (2, 5)]
    assert torch.equal(y[others], good[others])


def test_constant_rows_give_beta(device: Any) -> None:
    y, _ = run(device, LayerNorm, torch.full((5, 256), 0.3, dtype=torch.bfloat16), 4)
    assert torch.equal(y, random_weights(256)[1].expand(5, -1))


def test_a_row_has_the_same_bits_wherever_it_stands(device: Any, cores: int | None) -> None:
    x = random_input((70, 128))
    all_rows, _ = run(device, LayerNorm, x, 2, cores=cores)
    for rows in (slice(40, 41), slice(3, 36)):
        few, _ = run(device, LayerNorm, x[rows], 2, cores=cores)
        assert torch.equal(few, all_rows[rows])


Place = tuple[Shape, int, ttnn.MemoryConfig, int | None]  # what a chip has, of how many; and on how many cores
# Rows of tiles that one core has, and that several share, by quads or stripes; matrices whose rows are in two pages of
# statistics; and shards, which are added up from copies if padded.
TILED: dict[str, Place] = {
    "whole rows": ((40, 96), 2, DRAM, 1),
    "rows cut": ((9, 300), 4, DRAM, 4),
    "matrices": ((2, 20, 32), 8, DRAM, 2),
    "width-sharded": ((40, 256), 2, shards("WIDTH", (64, 64), 4), None),
    "width-sharded, wide": ((36, 3130), 1, shards("WIDTH", (64, 448), 7), None),
    "height-sharded, padded": ((40, 72), 2, shards("HEIGHT", (32, 96), 2), None),
}


@pytest.mark.usefixtures("reads_back")
@pytest.mark.parametrize("residual", [False, pytest.param(True, marks=pytest.mark.long)], ids=["", "residual"])
@pytest.mark.parametrize(
    ("name", "dtype", "place"),
    cases(
        {
            **{f"LayerNorm: {name}": ("LayerNorm", torch.bfloat16, place) for name, place in TILED.items()},
            "RMSNorm": ("RMSNorm", torch.bfloat16, TILED["rows cut"]),
            "RMSNorm, whole rows": ("RMSNorm", torch.bfloat16, TILED["whole rows"]),
            "LayerNorm float32": ("LayerNorm", torch.float32, TILED["rows cut"]),
            "RMSNorm float32": ("RMSNorm", torch.float32, TILED["whole rows"]),
        },
        long=[
            "LayerNorm: matrices",
            "LayerNorm: width-sharded",
            "LayerNorm: width-sharded, wide",
            "RMSNorm, whole rows",
            "LayerNorm float32",
        ],
    ),
)
def test_tiles_give_the_bits_of_sticks(
    device: Any, name: str, dtype: torch.dtype, place: Place, residual: bool
) -> None:
    (*rows, own), chips, memory, cores = place
    x = random_input((*rows, own * chips), dtype=dtype)
    r = random_input(tuple(x.shape), offset=0.0, seed=3, dtype=dtype) if residual else None
    y, source = run(device, FORMS[name], x, chips, r, (32, 32), memory, cores)
    of_sticks, source_of_sticks = run(device, FORMS[name], x, chips, r)
    assert torch.equal(y, of_sticks)
    assert torch.equal(source, source_of_sticks)


def test_tiles_to_sticks_and_back(device: Any) -> None:
    """The result in the other layout than the rows are in."""
    x = random_input((9, 128))
    y, _ = run(device, LayerNorm, x, 2)
    for tile, other in (((16, 32), ttnn.ROW_MAJOR_LAYOUT), (None, ttnn.TILE_LAYOUT)):
        converted, _ = run(device, LayerNorm, x, 2, tile=tile, result_layout=other)
        assert torch.equal(converted, y)


def test_rounds_before_gamma(device: Any) -> None:
    x = random_input((4, 256))
    y, _ = run(device, RMSNorm, x, 2, round_before_gamma=True)
    assert_equal_but_near_ties(y, RMSNorm.golden(x, random_weights(256)[0], round_before_gamma=True))


def test_rounds_the_inverse_rms(device: Any) -> None:
    """In bfloat16 it is that of one chip, unless it is a near-tie, and so are the bits."""
    x, rounded = random_input((9, 256)), {"round_before_gamma": True, "round_inverse_rms": True}
    expected = reference.rms_norm(x, random_weights(256)[0].flatten(), **rounded)
    for tile in (None, (32, 32)):
        y, _ = run(device, RMSNorm, x, 2, tile=tile, **rounded)
        assert torch.equal(y, expected)


def _bad(device: Any, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **more: Any) -> ttnn.Tensor:
    return ttnn.from_torch(torch.zeros(shape, dtype=dtype), device=device, **more)


REFUSED = {
    "three chips": (
        lambda device: _bad(device, (6, 128)),
        r"statistics must have shape \(2, 128\) or .* or \(16, 128\), .* but have \(6, 128\)",
    ),
    "bfloat16": (lambda device: _bad(device, (4, 128), torch.bfloat16), "dtype DataType.FLOAT32 and be ROW_MAJOR, but"),
    "tiles": (lambda device: _bad(device, (64, 128), layout=ttnn.TILE_LAYOUT), "and are Layout.TILE"),
}


@pytest.mark.parametrize(("statistics", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_statistics(device: Any, statistics: Any, message: str) -> None:
    x = upload(random_input((33, 64)), device)
    assert statistics_shape(33) == (2, 128)
    with pytest.raises(LayerNormArgumentError, match=message):
        RMSNorm.normalize_with(x, statistics(device), None)


def test_no_rows(device: Any) -> None:
    x = upload(torch.zeros(0, 64, dtype=torch.bfloat16), device)
    statistics = RMSNorm.partial_statistics(x)
    assert tuple(statistics.shape) == (0, 128)
