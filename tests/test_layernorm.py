# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The LayerNorm micro-op, by the steps of its plan. Device tests run the real kernels and look at what they wrote."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import ttnn
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from micro_ops.layernorm import LayerNormSingleCore, Tap, program
from micro_ops.layernorm.arguments import Operands
from micro_ops.layernorm.op import FIRST_CORE, chip_of
from micro_ops.layernorm.plan import make_plan
from model_comparison.metrics import compare
from tests.child import children_page_faults
from tests.tensors import (
    ALONE,
    EPSILON,
    NARROW,
    WAYS,
    WIDE,
    allocate_like,
    assert_equal_but_near_ties,
    errors_of,
    random_input,
    random_weights,
    run_layernorm,
    upload,
)


def run_tap(device: Any, x: torch.Tensor, tap: Tap) -> torch.Tensor:
    return run_layernorm(device, x, *random_weights(x.shape[-1]), tap=tap)


# --- Stage 1: the host ---


@pytest.mark.parametrize("shape", [(1, 32), (1, 64), (4, 128)])
def test_golden_vs_torch(shape: tuple[int, ...]) -> None:
    x, (gamma, beta) = random_input(shape), random_weights(shape[-1])
    golden = LayerNormSingleCore.golden(x, gamma, beta, EPSILON)
    reference = torch.nn.functional.layer_norm(
        x.double(), shape[-1:], gamma.double().flatten(), beta.double().flatten(), EPSILON
    )
    assert golden.dtype == torch.float64
    torch.testing.assert_close(golden, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("device")  # what knows the size of its L1
@WAYS
def test_kernel_descriptors(device: Any, shape: tuple[int, ...]) -> None:
    x = upload(random_input(shape), device)
    gamma, beta = (upload(t, device) for t in random_weights(shape[-1]))
    y = allocate_like(x)
    operands = Operands(x, gamma, beta)
    chip = chip_of(device, cores=FIRST_CORE)
    plan = make_plan(shape, program.dtypes_of(operands), chip)
    described = program.create_program(plan, chip, program.Variant(subtract_mean=True), operands, y, None, EPSILON)
    reader, writer, compute = described.kernels

    assert _runtime_args(reader)["input_address"] == x.buffer_address()
    assert _runtime_args(reader)["gamma_address"] == gamma.buffer_address()
    assert _runtime_args(reader)["beta_address"] == beta.buffer_address()
    assert _runtime_args(writer)["output_address"] == y.buffer_address()
    assert _runtime_args(compute)["lane_count_remainder"] == shape[-1] % 128
    for kernel in (reader, writer, compute):
        assert _runtime_args(kernel)["rows"] == shape[0]
    for kernel in (reader, compute):
        assert _runtime_args(kernel)["steps"] == plan.steps
    assert _runtime_args(writer)["own_steps"] == plan.steps
    accessors = list(ttnn.TensorAccessorArgs(x).get_compile_time_args())
    assert list(reader.compile_time_args)[: len(accessors)] == accessors


def _runtime_args(kernel: ttnn.KernelDescriptor) -> dict[str, int]:
    """The runtime arguments under the names by which the kernel finds them."""
    values = list(kernel.runtime_args[0][0])
    named = dict(kernel.named_compile_time_args)
    positions = {name.removeprefix("arg_"): at for name, at in named.items() if name.startswith("arg_")}
    return {name: values[at] for name, at in positions.items() if at < len(values)}


# --- Stage 2: the kernels, step by step ---


@WAYS
def test_program_executes(device: Any, shape: tuple[int, ...]) -> None:
    """The program runs, writes all of its output and nothing else."""
    x, gamma, beta, before, output, after = (
        upload(t, device)
        for t in (
            random_input(shape),
            *random_weights(shape[-1]),
            *(torch.full(shape, value, dtype=torch.bfloat16) for value in (11.0, math.nan, 13.0)),
        )
    )
    result = LayerNormSingleCore.op(x, gamma, beta, output, EPSILON)
    assert result.buffer_address() == output.buffer_address()
    assert not ttnn.to_torch(output).isnan().any(), "an element was not written"
    assert (ttnn.to_torch(before) == 11.0).all()
    assert (ttnn.to_torch(after) == 13.0).all()
    torch.testing.assert_close(ttnn.to_torch(x), random_input(shape), rtol=0, atol=0)


@WAYS
def test_tilize_untilize_passthrough(device: Any, shape: tuple[int, ...]) -> None:
    x = random_input(shape)
    torch.testing.assert_close(run_tap(device, x, Tap.INPUT), x, rtol=0, atol=0)


@WAYS
def test_mean_computation(device: Any, shape: tuple[int, ...]) -> None:
    x = random_input(shape, offset=3.0)
    mean = x.double().mean(dim=-1, keepdim=True)
    assert_equal_but_near_ties(run_tap(device, x, Tap.MEAN), mean)


@WAYS
def test_variance_computation(device: Any, shape: tuple[int, ...]) -> None:
    x = random_input(shape, offset=3.0)
    variance = x.double().var(dim=-1, unbiased=False, keepdim=True)
    assert_equal_but_near_ties(run_tap(device, x, Tap.VARIANCE), variance)


@WAYS
def test_rsqrt_computation(device: Any, shape: tuple[int, ...]) -> None:
    x = random_input(shape, std=1e-3, offset=0.0)  # so that epsilon counts: it is as large as the variance
    inverse_std = torch.rsqrt(x.double().var(dim=-1, unbiased=False, keepdim=True) + EPSILON)
    assert_equal_but_near_ties(run_tap(device, x, Tap.INVERSE_STD), inverse_std)


@WAYS
def test_standardization(device: Any, shape: tuple[int, ...]) -> None:
    x = random_input(shape)
    ones, zeros = torch.ones(shape[-1]), torch.zeros(shape[-1])
    standardized = LayerNormSingleCore.golden(x, ones, zeros, EPSILON)
    assert_equal_but_near_ties(run_tap(device, x, Tap.STANDARDIZED), standardized)


@WAYS
def test_gamma_multiply(device: Any, shape: tuple[int, ...]) -> None:
    x, (gamma, beta) = random_input(shape), random_weights(shape[-1])
    scaled = LayerNormSingleCore.golden(x, gamma, torch.zeros_like(beta), EPSILON)
    assert_equal_but_near_ties(run_layernorm(device, x, gamma, beta, tap=Tap.SCALED), scaled)


@WAYS
def test_full_layernorm(device: Any, shape: tuple[int, ...]) -> None:
    x, (gamma, beta) = random_input(shape), random_weights(shape[-1])
    y, golden = run_layernorm(device, x, gamma, beta), LayerNormSingleCore.golden(x, gamma, beta)
    assert_equal_but_near_ties(y, golden, beta)
    assert errors_of(y, golden).pcc >= 0.99999
    reference = torch.nn.functional.layer_norm(
        x.float(), shape[-1:], gamma.float().flatten(), beta.float().flatten(), EPSILON
    )
    assert compare(y, reference, operands=None).raw >= 0.99


# --- Stage 3: shapes, weights, edges ---


@pytest.mark.parametrize(
    "shape",
    [
        (1, 32),  # the plan's shapes
        (1, 64),
        (32, 32),  # groups that are all full
        (4, 128),
        (1, 1, 256),
        (2, 2, 512),
        (1, 7168),  # hidden_size
        (3, 7168),  # several wide rows: each has its own statistics
        # 64 groups, many more than the CBs hold at once, and a last one with a single row
        pytest.param((257, 32), marks=pytest.mark.long),
        (1, 128),  # k_norm while decoding
        (7, 512),  # the widest of one piece, and a last group that is not full
        (5, 384),  # pieces of three blocks
        (128,),  # rank 1
        (3, 1),  # one column: the deviation is zero, so the result is beta
        (2, 1, 3, 37),  # rank 4, prime width
        (37, 41),  # both prime: padding in each direction
        (3, 1025),  # a second tile with one element in it
        (1, 16384),  # the widest of the promise
        # So wide that L1 has room for single rows only
        pytest.param((2, 60_000), marks=pytest.mark.long),
    ],
)
def test_layernorm_shapes(device: Any, shape: tuple[int, ...]) -> None:
    x, (gamma, beta) = random_input(shape), random_weights(shape[-1])
    y, golden = run_layernorm(device, x, gamma, beta), LayerNormSingleCore.golden(x, gamma, beta)
    assert y.shape == x.shape
    assert_equal_but_near_ties(y, golden, beta)
    assert errors_of(y, golden).pcc >= 0.99999


def test_no_rows(device: Any) -> None:
    x = upload(torch.zeros(0, 128, dtype=torch.bfloat16), device)
    gamma, beta = (upload(t, device) for t in random_weights(128))
    assert tuple(LayerNormSingleCore.op(x, gamma, beta, allocate_like(x)).shape) == (0, 128)


B, F = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("gamma_dtype", "beta_dtype"), [(None, None), (B, None), (None, B)], ids=["neither", "gamma", "beta"]
)
@WAYS
def test_weights_are_optional(
    device: Any, shape: tuple[int, ...], gamma_dtype: torch.dtype | None, beta_dtype: torch.dtype | None
) -> None:
    x, (gamma, beta) = random_input(shape), random_weights(shape[-1])
    weights = (gamma if gamma_dtype else None, beta if beta_dtype else None)
    assert_equal_but_near_ties(run_layernorm(device, x, *weights), LayerNormSingleCore.golden(x, *weights), weights[1])


@pytest.mark.parametrize(
    ("dtype", "gamma_dtype", "beta_dtype"),
    [
        (F, F, F),
        (F, B, B),
        (B, F, F),
        pytest.param(B, B, F, marks=pytest.mark.long),
        pytest.param(F, None, F, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("shape", [(2, 1536), (5, 128)], ids=str)
def test_float32(
    device: Any,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    gamma_dtype: torch.dtype | None,
    beta_dtype: torch.dtype,
) -> None:
    x = random_input(shape, dtype=dtype)
    gamma = random_weights(shape[-1], dtype=gamma_dtype)[0] if gamma_dtype else None
    beta = random_weights(shape[-1], dtype=beta_dtype)[1]
    y, golden = run_layernorm(device, x, gamma, beta), LayerNormSingleCore.golden(x, gamma, beta)
    assert y.dtype == dtype
    if dtype == F:  # float32 throughout: a few roundings of 2^-24 each, no TF32 (2^-11) on the way
        assert errors_of(y, golden).relative_norm <= 2.0**-22
    else:
        assert_equal_but_near_ties(y, golden, beta)


@pytest.mark.parametrize("shape", [(2, 1536), (5, 128)], ids=str)
def test_float32_with_offset(device: Any, shape: tuple[int, ...]) -> None:
    """The float32 mean of 1e4 is rounded by up to 2^-11, which is 2^-17 of the deviation of 64."""
    x, weights = random_input(shape, 1e4, 64.0, dtype=F), random_weights(shape[-1], dtype=F)
    errors = errors_of(run_layernorm(device, x, *weights), LayerNormSingleCore.golden(x, *weights))
    assert errors.relative_norm <= 2.0**-16


DISTRIBUTIONS: dict[str, Callable[[tuple[int, ...]], torch.Tensor]] = {
    "N(0,1)": lambda shape: random_input(shape, 0.0, 1.0),
    "U(0,1)": lambda shape: torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(B),
    "U(-1e3,1e3)": lambda shape: ((torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5) * 2e3).to(B),
    "heavy tails": lambda shape: (random_input(shape, 0.0, 1.0).float() ** 5).to(B),
    # A residual stream: most columns small, a few massive ones.
    "DeepSeek-like": lambda shape: (
        random_input(shape, 0.0, 0.05).float() * (1 + 200 * (torch.arange(shape[-1]) % 97 == 5))
    ).to(B),
    "1e4 + 64 N(0,1)": lambda shape: random_input(shape, 1e4, 64.0),
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("shape", [(3, 64), (33, 128), (2, 1536)], ids=str)
def test_layernorm_distributions(device: Any, shape: tuple[int, ...], distribution: str) -> None:
    x, (gamma, beta) = DISTRIBUTIONS[distribution](shape), random_weights(shape[-1])
    y, golden = run_layernorm(device, x, gamma, beta), LayerNormSingleCore.golden(x, gamma, beta)
    # As for the edge cases: a mean of 1e4 is itself rounded in float32.
    assert_equal_but_near_ties(y, golden, beta, least=0.98 if "1e4" in distribution else 0.99)
    assert errors_of(y, golden).raw >= 0.99


@pytest.mark.long
@seed(0)  # else each edit of the test would draw other examples
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(1, 2048),
    rows=st.integers(1, 40),
    offset=st.sampled_from([0.0, 0.5, -100.0]),
    std=st.sampled_from([1e-3, 1.0, 300.0]),
    epsilon=st.floats(1e-12, 1e-1),
    weights=st.tuples(st.booleans(), st.booleans()),
    wide_dtype=st.booleans(),
)
def test_layernorm_properties(
    device: Any,
    width: int,
    rows: int,
    offset: float,
    std: float,
    epsilon: float,
    weights: tuple[bool, bool],
    wide_dtype: bool,
) -> None:
    # A float32 mean of -100 is rounded by up to 2^-18, 4e-6, of which elements 1e-3 from it keep too few bits.
    assume(not (wide_dtype and (offset, std) == (-100.0, 1e-3)))
    dtype = F if wide_dtype else B
    x, (gamma, beta) = random_input((rows, width), offset, std, dtype=dtype), random_weights(width)
    given_weights = (gamma if weights[0] else None, beta if weights[1] else None)
    golden = LayerNormSingleCore.golden(x, *given_weights, epsilon)
    y = run_layernorm(device, x, *given_weights, epsilon)
    assert_equal_but_near_ties(y, golden, given_weights[1], least=0)  # of a float32 row, no element need be equal


WEIGHTS: dict[str, Callable[[int], tuple[torch.Tensor, torch.Tensor]]] = {
    "identity": lambda width: (torch.ones(1, width), torch.zeros(1, width)),
    "scale and shift": lambda width: (torch.full((1, width), 2.0), torch.ones(1, width)),
    "random": random_weights,
    # The spread that kv_a_layernorm's trained gamma is reported to have, and a beta a thousand times larger.
    "tiny gamma": lambda width: (random_weights(width)[0] * 0.008 + 0.007, random_weights(width)[1] * 8),
}


@pytest.mark.parametrize("name", WEIGHTS)
@WAYS
def test_layernorm_weights(device: Any, shape: tuple[int, ...], name: str) -> None:
    x = random_input(shape)
    gamma, beta = (t.to(torch.bfloat16) for t in WEIGHTS[name](shape[-1]))
    assert_equal_but_near_ties(run_layernorm(device, x, gamma, beta), LayerNormSingleCore.golden(x, gamma, beta), beta)


@WAYS
@pytest.mark.parametrize(
    ("offset", "std", "epsilon"),
    [
        (0.0, 1000.0, EPSILON),
        (1e4, 64.0, EPSILON),  # a mean that lost bits in TF32 would be off by several units
        (0.0, 1e-3, 1e-12),
        (0.0, 1e-3, 1e-1),  # epsilon decides alone
    ],
    ids=["large", "large offset", "small epsilon", "large epsilon"],
)
def test_layernorm_edge_cases(device: Any, shape: tuple[int, ...], offset: float, std: float, epsilon: float) -> None:
    x, (gamma, beta) = random_input(shape, offset, std), random_weights(shape[-1])
    y, golden = run_layernorm(device, x, gamma, beta, epsilon), LayerNormSingleCore.golden(x, gamma, beta, epsilon)
    # At an offset of 1e4 the float32 mean is off by up to 2^-24 of it, which moves a few more elements over a tie.
    assert_equal_but_near_ties(y, golden, beta, least=0.98)


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        *((ALONE, 0.0), (NARROW, -3.140625), (WIDE, 1e4), ((2, 37), -3.140625), ((5, 100), 1e4), ((2, 7168), 1e4)),
        *(((1, width), 1e4) for width in (1312, 2624, 9024)),  # whose 1 / W needs the residual's one rounding
    ],
    ids=str,
)
def test_constant_rows_give_beta(device: Any, shape: tuple[int, ...], value: float) -> None:
    """Their mean must be the value itself, as a division by W gives it: eps 1e-6 shows any deviation times 1000."""
    x = torch.full(shape, value, dtype=torch.bfloat16)
    gamma, beta = random_weights(shape[-1])
    torch.testing.assert_close(run_layernorm(device, x, gamma, beta), beta.expand(shape), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [WIDE, NARROW, (3, 7168)], ids=str)
def test_rows_are_independent(device: Any, shape: tuple[int, ...]) -> None:
    """NaN and Inf stay in their rows, and a row alone gives the same bits, though it may go another way. The spoilt
    rows come out as Inf: the packer writes a float32 NaN so, as it does for a plain copy to bfloat16."""
    x, (gamma, beta) = random_input(shape), random_weights(shape[-1])
    alone = run_layernorm(device, x[:1], gamma, beta)
    x[1, 5], x[-1, -1] = math.nan, math.inf
    y = run_layernorm(device, x, gamma, beta)
    torch.testing.assert_close(y[:1], alone, rtol=0, atol=0)
    spoilt = {1, shape[0] - 1}
    assert {int(row) for row in (~y.isfinite()).all(dim=-1).nonzero()} == spoilt
    assert {int(row) for row in (~y.isfinite()).any(dim=-1).nonzero()} == spoilt


# --- The program cache ---


def test_program_cache(device: Any) -> None:
    """The second call with a shape compiles and builds nothing, and reads the tensors it was given, not those of the
    first: other addresses, interleaved shapes, buffers that were freed and allocated again."""
    shapes = (NARROW, ALONE, NARROW, ALONE, NARROW)
    held, entries, compilers = [], [], []
    for call, shape in enumerate(shapes):
        x, (gamma, beta) = random_input(shape, seed=call), random_weights(shape[-1], seed=call + 10)
        if call < 3:
            held.append(upload(x, device))  # pushes the next call's tensors to other addresses
        else:
            held.pop(0).deallocate()
        assert_equal_but_near_ties(
            run_layernorm(device, x, gamma, beta), LayerNormSingleCore.golden(x, gamma, beta), beta
        )
        entries.append(device.num_program_cache_entries())
        compilers.append(children_page_faults())
    assert len(set(entries[1:])) == 1, entries
    assert len(set(compilers[1:])) == 1, compilers


def test_epsilon_is_no_part_of_the_program(device: Any) -> None:
    x, (gamma, beta) = random_input(NARROW, std=1e-3, offset=0.0), random_weights(NARROW[-1])
    run_layernorm(device, x, gamma, beta, epsilon=1e-6)
    before = device.num_program_cache_entries(), children_page_faults()
    assert_equal_but_near_ties(
        run_layernorm(device, x, gamma, beta, 1e-2), LayerNormSingleCore.golden(x, gamma, beta, 1e-2), beta
    )
    assert (device.num_program_cache_entries(), children_page_faults()) == before
