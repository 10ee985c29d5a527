# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Rows whose columns are cut over chips: the two halves of a norm, here of one chip after another on the same one."""

from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm
from micro_ops.layernorm.program import statistics_shape
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights, upload

FORMS = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def columns(tensor: torch.Tensor, chips: int) -> list[torch.Tensor]:
    """Of each chip."""
    return [part.contiguous() for part in tensor.chunk(chips, dim=-1)]


def run(
    device: Any, norm: Any, x: torch.Tensor, chips: int, residual: torch.Tensor | None = None, **keywords: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and what was normalized."""
    weights = random_weights(x.shape[-1], dtype=x.dtype)[: 2 if norm is LayerNorm else 1]
    sources = [upload(part, device) for part in columns(x, chips)]
    if residual is None:
        made = [norm.partial_statistics(source) for source in sources]
    else:
        added = [upload(part, device) for part in columns(residual, chips)]
        both = [norm.partial_statistics(source, residual=r) for source, r in zip(sources, added, strict=True)]
        made, sources = [statistics for statistics, _ in both], [total for _, total in both]
    gathered = upload(torch.cat([ttnn.to_torch(statistics) for statistics in made]), device)
    of_chips = zip(*(columns(weight, chips) for weight in weights), strict=True)
    results = [
        ttnn.to_torch(norm.normalize_with(source, gathered, *(upload(w, device) for w in of_chip), **keywords))
        for source, of_chip in zip(sources, of_chips, strict=True)
    ]
    return torch.cat(results, dim=-1), torch.cat([ttnn.to_torch(source) for source in sources], dim=-1)


def golden(norm: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = norm.golden(x, *random_weights(x.shape[-1], dtype=x.dtype)[: 2 if norm is LayerNorm else 1])
    return y


# A row alone in one piece, in several; groups, whole and not; columns that are no whole pieces
SHAPES = {"alone": ((1, 1536), 1), "alone, wide": ((1, 3072), 2), "groups": ((9, 600), 4), "narrow": ((6, 96), 8)}


@pytest.mark.parametrize(
    ("shape", "chips"),
    [pytest.param(*case, marks=[pytest.mark.long] if "wide" in name else [], id=name) for name, case in SHAPES.items()],
)
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


def test_a_row_has_the_same_bits_wherever_it_stands(device: Any) -> None:
    x = random_input((70, 128))
    all_rows, _ = run(device, LayerNorm, x, 2)
    for rows in (slice(40, 41), slice(3, 36)):
        few, _ = run(device, LayerNorm, x[rows], 2)
        assert torch.equal(few, all_rows[rows])


def test_rounds_before_gamma(device: Any) -> None:
    x = random_input((4, 256))
    y, _ = run(device, RMSNorm, x, 2, round_before_gamma=True)
    assert_equal_but_near_ties(y, RMSNorm.golden(x, random_weights(256)[0], round_before_gamma=True))


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


@pytest.mark.parametrize("half", [RMSNorm.partial_statistics, lambda x: RMSNorm.normalize_with(x, x, None)])
def test_tiles_are_refused_with_what_converts_them(device: Any, half: Any) -> None:
    x = ttnn.from_torch(random_input((32, 64)), layout=ttnn.TILE_LAYOUT, device=device)
    with pytest.raises(LayerNormArgumentError, match=r"ttnn\.to_layout\(input, ttnn\.ROW_MAJOR_LAYOUT\) converts it"):
        half(x)


def test_no_rows(device: Any) -> None:
    x = upload(torch.zeros(0, 64, dtype=torch.bfloat16), device)
    statistics = RMSNorm.partial_statistics(x)
    assert tuple(statistics.shape) == (0, 128)
