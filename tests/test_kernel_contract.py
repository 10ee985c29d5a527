# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""CBs that would deadlock the kernels never reach a device, and the kernels' own asserts stop what did."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import CbContractError, LayerNormSingleCore, op
from micro_ops.layernorm.plan import CB_RESIDUAL, CB_STREAM, Dtypes, check_contract, make_plan
from micro_ops.layernorm.program import KERNELS
from tests.child import Start
from tests.chips import ONE_CORE
from tests.programs import run_semaphores, with_pages
from tests.tensors import WAYS, WIDE, random_input, random_weights, upload
from tt_device import Platform

Count = Callable[[str, int], None]


@WAYS
def test_contract_holds_as_it_is(shape: tuple[int, ...]) -> None:
    check_contract(make_plan(shape, Dtypes(*[ttnn.bfloat16] * 3), ONE_CORE))


# WIDE goes in groups of 4 rows of 3 pieces: 12 pages a group, 2 tiles a step.
@pytest.mark.parametrize(
    ("index", "pages", "message"),
    [
        (0, 24, "CB_INPUT must hold whole groups of 12 pages, 3 at least, but holds 24"),  # the reader waits for ever
        (0, 40, "CB_INPUT must hold whole groups of 12 pages, 3 at least, but holds 40"),  # a group over the ring's end
        (0, 12 * 2**10, "CB_INPUT must hold 8192 pages at most, but holds 12288"),
        (1, 2, "CB_GAMMA must hold a row's 3 pages, but holds 2"),
        (2, 4, "CB_BETA must hold a row's 3 pages, but holds 4"),
        (3, 1, "CB_OUTPUT must hold whole steps of 2 pages, but holds 1"),
        (3, 0, "CB_OUTPUT must hold whole steps of 2 pages, but holds 0"),
        (CB_RESIDUAL, 24, "CB_RESIDUAL must hold what CB_INPUT does, 36 pages, but holds 24"),
        (CB_STREAM, 24, "CB_STREAM must hold a group, or a shard, of 12 pages, but holds 24"),
    ],
)
def test_wrong_page_counts_are_not_launched(
    device: Any, monkeypatch: pytest.MonkeyPatch, count: Count, index: int, pages: int, message: str
) -> None:
    monkeypatch.setattr(op, "make_plan", lambda *a, **more: with_pages(make_plan(*a, **more), index, pages))
    x, gamma, beta = (upload(t, device) for t in (random_input(WIDE), *random_weights(WIDE[-1])))
    before = device.num_program_cache_entries()
    with pytest.raises(CbContractError, match=message):
        LayerNormSingleCore.op(x, gamma, beta, residual=x if index in (CB_RESIDUAL, CB_STREAM) else None)
    assert device.num_program_cache_entries() == before
    count("kernels: page counts refused by the host", 1)


@pytest.mark.usefixtures("device")
def test_asserts_are_on_in_tests() -> None:
    assert os.environ["TT_METAL_LIGHTWEIGHT_KERNEL_ASSERTS"] == os.environ["TT_METAL_LLK_ASSERTS"] == "1"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_semaphores_are_left_as_the_firmware_sets_them(device: Any, dtype: torch.dtype) -> None:
    """At zero, or the op before or after would not end, and those that the firmware gives a maximum of 1 at that."""
    x, gamma, beta = (upload(t, device) for t in (random_input(WIDE, dtype=dtype), *random_weights(WIDE[-1])))
    LayerNormSingleCore.op(x, gamma, beta)
    assert run_semaphores(device, left=0) == (True, True)
    LayerNormSingleCore.op(x, gamma, beta)


FAULTS = {
    "none": "",
    "reader": "plan = with_pages(plan, 1, 5)",
    "compute": "plan = with_pages(plan, 0, 47)",
    "writer": "plan = with_pages(plan, 3, 3)",
    "stream": "plan = with_pages(plan, 8, 13)",
    "semaphores": "run_semaphores(device, left=1)",
}


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[] if fault == "compute" else pytest.mark.long) for fault in FAULTS]
)
def test_kernels_assert_their_contract(start: Start, platform: Platform, count: Count, fault: str) -> None:
    """One CB of another size than the kernels were made for, and no host that looks; or a semaphore above zero."""
    run = start(
        f"""
        from micro_ops.layernorm import LayerNormSingleCore, op
        from micro_ops.layernorm.plan import make_plan
        from tests.programs import run_semaphores, with_pages
        from tests.tensors import random_input, random_weights, upload
        def make_faulty(*arguments, **more):
            plan = make_plan(*arguments, **more)
            {FAULTS[fault]}
            return plan
        op.make_plan, op.check_contract = make_faulty, lambda _: None
        tensors = [upload(t, device) for t in (random_input({WIDE}), *random_weights({WIDE[-1]}))]
        y = LayerNormSingleCore.op(*tensors, residual=tensors[0] if {fault == "stream"} else None)
        print([t.cpu() for t in y] if isinstance(y, tuple) else y.cpu())
        """,
        kernel_asserts=True,
    )
    run.go_on()
    status = run.end()
    if fault == "none":
        assert status == 0, run.stderr
    else:
        assert status == (1 if platform.backend == "ttsim" else 3), run.stderr
        assert "ebreak" in run.stdout + run.stderr
        count("kernels: faults stopped by their asserts", 1)


# What is changed in which of the kernels' files, and what the compiler then says.
OVER_BUDGET = {
    "a 193rd row of a section": ("dest.h", "? 2 : 3;", "? 2 : 2;", "budget of Dest rows"),
    "a 33rd slot": ("fpu.h", "? 5 : 4)}", "? 7 : 4)}", "budget of replay slots"),
    "a ninth vector by the budget": ("vectors.h", "lregs = 8", "lregs = 7", "budget of LREGs"),
    "a ninth vector that is live": (
        "normalize.h",
        "vFloat z_a = scale_and_shift(y_a, scale_a, gamma, beta);",
        "vFloat ninth = dst_reg[0]; vFloat z_a = scale_and_shift(y_a, scale_a, gamma, beta); dst_reg[1] = ninth;",
        "are more than 8 live (a spill: over the budget of LREGs)",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("over", OVER_BUDGET)
def test_what_exceeds_the_budget_does_not_compile(start: Start, tmp_path: Path, over: str) -> None:
    file, old, new, message = OVER_BUDGET[over]
    shutil.copytree(KERNELS, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    run = start(
        f"""
        from pathlib import Path
        from micro_ops.layernorm import LayerNormSingleCore, program
        from tests.tensors import random_input, random_weights, upload
        program.KERNELS = Path({str(tmp_path)!r})
        tensors = [upload(t, device) for t in (random_input((4, 512)), *random_weights(512))]
        LayerNormSingleCore.op(*tensors)
        """
    )
    run.go_on()
    assert run.end() == 1
    assert message in run.stdout + run.stderr


def test_what_passes_vectors_is_inlined_by_force() -> None:
    """SFPI's compiler has no way to hand a vector to a function that it does not inline, and GCC only likes to."""
    text = "".join(text for file in sorted(KERNELS.iterdir()) if "vFloat" in (text := file.read_text()))
    functions = re.findall(r"^ *([\w ]*?)\b(\w+(?:\(\))?)\(([^()]*)\)(?: const)? \{", text, re.MULTILINE)
    passing = {name: before for before, name, parameters in functions if "vFloat" in before + parameters}
    assert len(passing) >= 15, passing
    assert {name for name, before in passing.items() if "sfpi_inline" not in before} == set()
    lambdas = re.findall(r"\[&?\](?:\([^()]*\))?( .{0,32})", text)
    assert len(lambdas) >= 4, lambdas
    assert all("always_inline" in after for after in lambdas), lambdas
