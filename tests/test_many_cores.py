# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A row's result has the same bits on one core and on many, whatever the other rows are, and wherever it stands."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import ttnn

from integration import TtRMSNorm
from integration.mesh import as_pages
from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm, op, plan, reference
from micro_ops.layernorm.plan import Plan, check_contract, make_plan
from tests.tensors import random_input, random_weights, upload
from tt_device import Platform

ALL_ROUNDED = {"round_before_gamma": True, "round_inverse_rms": True}
# Which columns and rows are cut, by the width: 32 and 300 are too narrow to cut, 2100 is cut in two or three.
FORMS = {
    "LayerNorm 32": (LayerNorm, torch.bfloat16, 32, {}),
    "LayerNorm 2100": (LayerNorm, torch.bfloat16, 2100, {}),
    "LayerNorm 2100 float32": (LayerNorm, torch.float32, 2100, {}),
    "RMSNorm 300": (RMSNorm, torch.bfloat16, 300, {}),
    "RMSNorm 2100, all rounded": (RMSNorm, torch.bfloat16, 2100, ALL_ROUNDED),
}
CASES = [*((form, rows) for form in FORMS for rows in (1, 7, 33)), ("LayerNorm 2100", 2), ("LayerNorm 32", 1000)]


@cache
def _operands(form: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x with a constant row, one with an Inf and one with a NaN among its first seven; gamma and beta (1, W)."""
    _, dtype, width, _ = FORMS[form]
    x = random_input((max(rows for of, rows in CASES if of == form), width), dtype=dtype)
    x[2], x[4, -1], x[5, 0] = 0.3, float("inf"), float("nan")
    return x, *random_weights(width, dtype=dtype)


def _run(device: Any, form: str, x: torch.Tensor, cores: op.Cores, paged: bool = False) -> torch.Tensor:
    """The result's bits."""
    norm, _, _, keywords = FORMS[form]
    weights = [_paged(weight) if paged else weight for weight in _operands(form)[1:]]
    tensors = [upload(tensor, device) for tensor in (x, *weights[: 2 if norm is LayerNorm else 1])]
    y: torch.Tensor = ttnn.to_torch(norm.op(*tensors, cores=cores, **keywords))
    return y.view(torch.int32 if y.dtype == torch.float32 else torch.int16)


def _paged(weight: torch.Tensor) -> torch.Tensor:
    """As the norms upload it, but with NaNs where there are no elements."""
    is_element = as_pages(torch.ones_like(weight[0])) == 1
    return as_pages(weight[0]).masked_fill(~is_element, float("nan"))


@pytest.fixture(scope="module")
def one_core(device: Any) -> Callable[[str], torch.Tensor]:
    """By form: the bits of all rows on one core."""
    return cache(lambda form: _run(device, form, _operands(form)[0], cores=1))


def _cores(first: tuple[int, int], last: tuple[int, int]) -> ttnn.CoreRange:
    return ttnn.CoreRange(ttnn.CoreCoord(*first), ttnn.CoreCoord(*last))


def _case(form: str, rows: int, cores: str) -> Any:
    is_long = (
        form not in ("LayerNorm 2100", "RMSNorm 300")
        or (rows == 33 and FORMS[form][2] > 1000)
        or (rows == 7 and cores == "8 cores")  # 10 with gaps split as many rows
    )
    return pytest.param(form, rows, cores, marks=[pytest.mark.long] if is_long else [])


@pytest.mark.parametrize(
    ("form", "rows", "cores"),
    [_case(*case, cores) for case in CASES for cores in ("8 cores", "10 cores with gaps", "grid")],
)
def test_same_bits(
    device: Any, platform: Platform, one_core: Callable[[str], torch.Tensor], form: str, rows: int, cores: str
) -> None:
    x, expected = _operands(form)[0], one_core(form)
    # 3 to 7 goes over the gap between Blackhole's NoC columns 7 and 10.
    chosen = {"8 cores": 8, "10 cores with gaps": _cores((3, 1), (7, 2)), "grid": None}[cores]
    if cores == "grid" and platform.backend == "wolfpine":
        chosen = 12  # it simulates 3,000 cycles of one core a second
    # The last rows, backwards: the row that stood last on one core stands first.
    got = _run(device, form, x[-rows:].flip(0), chosen, paged=True)
    assert torch.equal(got, expected[-rows:].flip(0))


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=pytest.mark.long if form == "LayerNorm 32" else [])
        for form, (_, dtype, _, _) in FORMS.items()
        if dtype == torch.bfloat16
    ],
)
def test_the_same_bits_on_each_chip(one_core: Callable[[str], torch.Tensor], form: str) -> None:
    """They are those of a model that knows no chip."""
    norm, _, _, keywords = FORMS[form]
    x, gamma, beta = _operands(form)
    finite = x.isfinite().all(-1)
    if norm is LayerNorm:
        modelled = reference.layer_norm(x[finite], gamma.flatten(), beta.flatten())
    else:
        modelled = reference.rms_norm(x[finite], gamma.flatten(), **keywords)
    assert torch.equal(one_core(form)[finite], modelled.view(torch.int16))


@pytest.mark.parametrize("form", ["LayerNorm 2100", pytest.param("LayerNorm 2100 float32", marks=pytest.mark.long)])
@pytest.mark.parametrize("team_size", [2, 3])
def test_a_cut_row_has_the_same_bits(
    device: Any,
    monkeypatch: pytest.MonkeyPatch,
    one_core: Callable[[str], torch.Tensor],
    form: str,
    team_size: int,
) -> None:
    """Whether or not cost.py would cut it, and have gamma and beta sent: two rows, each over a team."""
    expected = one_core(form)[2:4]
    seen: list[Plan] = []

    def make_cut(shape: Any, dtypes: Any, chip: Any) -> Plan:
        cut = plan._plan(dtypes, chip, plan._split(shape[0], shape[1], dtypes, chip, 1, team_size))
        seen.append(cut)
        return cut

    monkeypatch.setattr(op, "make_plan", make_cut)
    monkeypatch.setattr(plan, "weights_are_multicast", lambda *_: True)
    got = _run(device, form, _operands(form)[0][2:4], cores=None, paged=True)
    assert torch.equal(got, expected)
    (cut,) = seen
    check_contract(cut)
    assert len(cut.shares) == 2 * team_size
    assert cut.rows_are_cut
    assert cut.weight_part is not None


@pytest.mark.parametrize(
    ("cores", "message"),
    [
        (0, "cores must be a number from 1 on or a ttnn.CoreRange, but is 0"),
        (True, "cores must be a number from 1 on or a ttnn.CoreRange, but is True"),
        ("8", "cores must be a number from 1 on or a ttnn.CoreRange, but is '8'"),
    ],
)
def test_cores_that_there_are_not(device: Any, cores: Any, message: str) -> None:
    _assert_refused(device, cores, message)


def test_a_range_that_is_not_on_the_chip(device: Any) -> None:
    _assert_refused(device, _cores((0, 0), (40, 1)), r"within the device's \d+ x \d+, but are \(0, 0\) to \(40, 1\)")


def _assert_refused(device: Any, cores: Any, message: str) -> None:
    x = upload(random_input((4, 128)), device)
    before = device.num_program_cache_entries()
    with pytest.raises(LayerNormArgumentError, match=message):
        LayerNorm.op(x, None, None, cores=cores)
    assert device.num_program_cache_entries() == before


def test_a_norm_keeps_to_its_cores(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cores: list[set[tuple[int, int]]] = []

    def spy(*arguments: Any) -> Plan:
        made = make_plan(*arguments)
        cores.append({share.core for share in made.shares})
        return made

    monkeypatch.setattr(op, "make_plan", spy)
    norm = TtRMSNorm(64, epsilon=1e-6, device=device, cores=_cores((1, 2), (2, 3)))
    norm(torch.ones(9, 64, dtype=torch.bfloat16))
    (used,) = cores
    assert len(used) == 3, "three groups of rows"
    assert used < {(1, 2), (2, 2), (1, 3), (2, 3)}
