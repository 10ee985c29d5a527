# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever the op can't serve is one error that names the argument, before anything is uploaded, compiled or allocated.

`generic_op` checks nothing: what gets past us hangs a chip or writes over another tensor.
"""

import math
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import ttnn
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from torch import nn

from integration import NormInputError, NotANormError, TtLayerNorm
from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, LayerNormSingleCore, RMSNorm, RMSNormSingleCore
from micro_ops.layernorm.arguments import validate_shape
from tests.child import PATIENCE, children_page_faults
from tests.tensors import EPSILON, allocate_like, assert_equal_but_near_ties, random_input, random_weights, upload

Count = Callable[[str, int], None]
SHAPE = (4, 128)


def state(device: Any) -> tuple[Any, ...]:
    """What an upload, an allocation, a compilation or a launch would change."""
    buffers = sorted((b.address, b.buffer_type) for b in ttnn._ttnn.reports.get_buffers(device))
    return buffers, device.num_program_cache_entries(), children_page_faults()


def test_a_compiler_would_be_seen() -> None:
    before = children_page_faults()
    subprocess.run(["true"], check=True, timeout=PATIENCE)
    assert children_page_faults() > before


@pytest.mark.parametrize("shape", [(2**31, 1), (2**16, 2**8, 2**7, 4)])
def test_too_many_rows(shape: tuple[int, ...]) -> None:
    with pytest.raises(LayerNormArgumentError, match="input must have fewer than 2147483648 rows, but has shape"):
        validate_shape(shape)
    validate_shape((shape[0] - 1, *shape[1:]))


@pytest.fixture(scope="module")
def given_tensors(device: Any) -> SimpleNamespace:
    """x, gamma, beta and y fit each other; each of the others does not fit them in one way."""
    x, (gamma, beta) = random_input(SHAPE), random_weights(SHAPE[-1])
    freed = upload(x, device)
    freed.deallocate()
    in_dram, in_l1 = ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG
    one_core, four_cores = ttnn.CoreGrid(y=1, x=1), ttnn.CoreGrid(y=1, x=4)
    sharded = ttnn.create_sharded_memory_config((32, 128), one_core, ttnn.ShardStrategy.HEIGHT)
    by_width = ttnn.create_sharded_memory_config((4, 80), four_cores, ttnn.ShardStrategy.WIDTH)
    made = SimpleNamespace(
        x=upload(x, device),
        gamma=upload(gamma, device),
        beta=upload(beta, device),
        wide=upload(random_weights(256)[0], device),
        flat=upload(gamma.flatten(), device),
        tall=upload(gamma.expand(2, -1).contiguous(), device),
        tiled=ttnn.from_torch(random_input((32, 128)), layout=ttnn.TILE_LAYOUT, device=device, memory_config=in_dram),
        block_float=ttnn.from_torch(
            random_input((32, 128)), dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT, device=device, memory_config=in_dram
        ),
        in_l1=ttnn.from_torch(x, layout=ttnn.ROW_MAJOR_LAYOUT, device=device, memory_config=in_l1),
        sharded=ttnn.from_torch(
            random_input((32, 128)), layout=ttnn.ROW_MAJOR_LAYOUT, device=device, memory_config=sharded
        ),
        by_width=ttnn.from_torch(
            random_input((4, 80)), layout=ttnn.ROW_MAJOR_LAYOUT, device=device, memory_config=by_width
        ),
        small_tiles=ttnn.from_torch(
            random_input((4, 128)), tile=ttnn.Tile((8, 32)), layout=ttnn.TILE_LAYOUT, device=device
        ),
        integers=upload(torch.zeros(SHAPE, dtype=torch.uint32), device),
        float32=upload(x.float(), device),
        rank_5=upload(x.reshape(1, 1, 1, *SHAPE), device),
        no_columns=upload(torch.zeros(4, 0, dtype=torch.bfloat16), device),
        endless=upload(torch.zeros(1, 200_000, dtype=torch.bfloat16), device),
        on_host=ttnn.from_torch(x),
        elsewhere=upload(x, device.create_submesh(ttnn.MeshShape(1, 1))),
        in_tiles=ttnn.from_torch(x, layout=ttnn.TILE_LAYOUT, device=device, memory_config=in_dram),
        tiles_by_width=ttnn.from_torch(
            x,
            layout=ttnn.TILE_LAYOUT,
            device=device,
            memory_config=ttnn.create_sharded_memory_config((32, 128), four_cores, ttnn.ShardStrategy.WIDTH),
        ),
        freed=freed,
        torch=x,
        none=None,
    )
    made.y = allocate_like(made.x)
    return made


# What is passed in place of one argument, and what the error says of it.
REFUSED: list[tuple[str, str, str]] = [
    ("input", "torch", r"input must be a ttnn\.Tensor, but is Tensor"),
    ("input", "none", r"input must be a ttnn\.Tensor, but is NoneType"),
    ("input", "on_host", r"input must be on the device, but is in StorageType\.HOST"),
    ("input", "freed", "input must be allocated, but its buffer has been freed"),
    ("input", "tiled", r"output must have the input's shape \(32, 128\).*, but has \(4, 128\)"),
    ("input", "block_float", r"but is DataType\.BFLOAT8_B: ttnn\.typecast\(input, ttnn\.bfloat16\) converts it"),
    ("input", "by_width", r"a multiple of 8 columns wide and divide 80 columns, but .* in L1 in 4 shards of 4 x 20"),
    ("input", "small_tiles", r"input's tiles must be 32, 16 or 1 x 32, but it is TILE \(8, 32\), interleaved in DRAM"),
    ("input", "integers", r"input\.dtype must be bfloat16 or float32, but is DataType\.UINT32"),
    ("input", "sharded", r"output must have the input's shape \(32, 128\)"),
    ("input", "rank_5", r"rank 1 to 4 and a column at least, but has shape \(1, 1, 1, 4, 128\)"),
    ("input", "no_columns", r"rank 1 to 4 and a column at least, but has shape \(4, 0\)"),
    ("gamma", "wide", r"gamma must have shape \(1, W\) or .*, but gamma\.shape=\(1, 256\) and input\.shape=\(4, 128\)"),
    ("beta", "tall", r"beta\.shape=\(2, 128\)"),
    ("beta", "freed", "beta must be allocated"),
    ("beta", "on_host", "beta must be on the device"),
    ("gamma", "torch", r"gamma must be a ttnn\.Tensor"),
    ("gamma", "in_l1", r"gamma must have shape \(1, W\) or .*, but gamma\.shape=\(4, 128\)"),
    ("gamma", "sharded", "gamma must be interleaved, but is .*HEIGHT_SHARDED"),
    ("beta", "tiled", r"beta\.layout must be ROW_MAJOR beside an input in ROW_MAJOR, interleaved in DRAM, but"),
    ("gamma", "elsewhere", "gamma must be on the input's device"),
    ("output", "elsewhere", "output must be on the input's device"),
    ("output", "gamma", r"output must have the input's shape \(4, 128\).*, but has \(1, 128\)"),
    ("output", "float32", r"output must have .* dtype DataType\.BFLOAT16, but has .* DataType\.FLOAT32"),
    ("output", "freed", "output must be allocated"),
    (
        "output",
        "small_tiles",
        r"layout, ROW_MAJOR, .*, or be ROW_MAJOR or TILE of 32, 16 or 1 x 32, but is TILE \(8, 32\)",
    ),
]
EPSILONS: list[tuple[object, str]] = [
    (0.0, "epsilon must be positive and finite in float32, but is 0.0"),
    (-1e-6, "epsilon must be positive and finite in float32, but is -1e-06"),
    (math.nan, "but is nan"),
    (math.inf, "but is inf"),
    (1e-39, "but is 1e-39"),  # a denormal, which the chip takes for zero
    (1e39, "but is 1e\\+39"),  # infinite in float32
    ("1e-6", "epsilon must be a number, but is '1e-6'"),
    (None, "epsilon must be a number, but is None"),
    (True, "epsilon must be a number, but is True"),
]


@pytest.mark.parametrize(("argument", "value", "message"), REFUSED, ids=[f"{a}-{v}" for a, v, _ in REFUSED])
def test_refuses_a_tensor(
    device: Any, given_tensors: SimpleNamespace, count: Count, argument: str, value: str, message: str
) -> None:
    g = given_tensors
    arguments = {"input_tensor": g.x, "gamma_tensor": g.gamma, "beta_tensor": g.beta, "output_tensor": g.y}
    arguments[f"{argument}_tensor"] = getattr(g, value)
    before = state(device)
    with pytest.raises(LayerNormArgumentError, match=message):
        LayerNormSingleCore.op(**arguments)
    if argument != "beta":
        del arguments["beta_tensor"]
        with pytest.raises(LayerNormArgumentError, match=message):
            RMSNormSingleCore.op(**arguments)
    assert state(device) == before
    count("before the launch: bad arguments refused", 1)


ROWS, TILES = ttnn.ROW_MAJOR_LAYOUT, ttnn.TILE_LAYOUT
# Of an input: what is asked of its output's layout, and what the error says of it. Tensors by their names.
LAYOUTS_REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("x", {"layout": "TILE"}, "layout must be ROW_MAJOR, TILE or None, but is 'TILE'"),
    ("x", {"layout": TILES, "output_tensor": "y"}, "asked for, Layout.TILE, but has Layout.ROW_MAJOR$"),
    (
        "x",
        {"layout": TILES, "output_tensor": "x"},
        "but has Layout.ROW_MAJOR: in the input's place it keeps the input's",
    ),
    ("in_tiles", {"output_tensor": "small_tiles"}, r"TILE \(32, 32\), .*, or be ROW_MAJOR, but is TILE \(8, 32\)"),
    (
        "in_tiles",
        {"layout": ROWS, "memory_config": "by_width"},
        r"output must have whole rows in each shard beside TILE \(32, 32\), .* but is ROW_MAJOR, in L1 in 4 shards",
    ),
    (
        "tiles_by_width",
        {"layout": ROWS},
        r"whole rows on the cores that have the input's, TILE .* 4 shards of 32 x 32, but is ROW_MAJOR, .* 32 x 32",
    ),
    ("x", {"layout": TILES, "memory_config": "by_width"}, r"output can't be Layout.TILE in .*: Physical shard shape"),
    (
        "in_tiles",
        {"layout": ROWS, "residual": "in_tiles", "residual_output": "x"},
        r"residual_output must have the input's layout, TILE \(32, 32\), .*, but is ROW_MAJOR",
    ),
    (
        "tiles_by_width",
        {"layout": ROWS, "memory_config": "x", "residual": "tiles_by_width", "residual_output": "in_tiles"},
        r"residual_output must lie as the input, TILE .* in 4 shards of 32 x 32, but is TILE .* interleaved in DRAM",
    ),
]


@pytest.mark.parametrize(("x", "asked", "message"), LAYOUTS_REFUSED)
def test_refuses_a_layout(
    device: Any, given_tensors: SimpleNamespace, count: Count, x: str, asked: dict[str, object], message: str
) -> None:
    named = {
        key: getattr(given_tensors, value, value) if isinstance(value, str) else value for key, value in asked.items()
    }
    if "memory_config" in named:
        named["memory_config"] = named["memory_config"].memory_config()
    before = state(device)
    with pytest.raises(LayerNormArgumentError, match=message):
        LayerNorm.op(getattr(given_tensors, x), None, None, **named)
    with pytest.raises(LayerNormArgumentError, match=message):
        RMSNorm.op(getattr(given_tensors, x), None, **named)
    assert state(device) == before
    count("before the launch: bad arguments refused", 2)


@pytest.mark.parametrize(("epsilon", "message"), EPSILONS, ids=[repr(e) for e, _ in EPSILONS])
def test_refuses_an_epsilon(
    device: Any, given_tensors: SimpleNamespace, count: Count, epsilon: Any, message: str
) -> None:
    before = state(device)
    with pytest.raises(LayerNormArgumentError, match=message):
        LayerNormSingleCore.op(given_tensors.x, given_tensors.gamma, given_tensors.beta, epsilon=epsilon)
    assert state(device) == before
    count("before the launch: bad arguments refused", 1)


def test_refuses_rows_that_do_not_fit_l1(device: Any, given_tensors: SimpleNamespace, count: Count) -> None:
    message = r"200000 elements need \d+ bytes of L1, but a core has \d+"
    norm = TtLayerNorm(200_000, torch.randn(200_000).bfloat16(), epsilon=EPSILON, device=device)
    before = state(device)
    with pytest.raises(NotANormError, match=message):
        TtLayerNorm.from_torch(nn.LayerNorm(200_000, dtype=torch.bfloat16), device=device)
    with pytest.raises(LayerNormArgumentError, match=message):
        LayerNormSingleCore.op(given_tensors.endless, None, None)
    with pytest.raises(NormInputError, match=message):
        norm(torch.zeros(1, 200_000, dtype=torch.bfloat16))
    assert state(device) == before
    count("before the launch: bad arguments refused", 3)


MODULE_REFUSES: list[tuple[Any, str]] = [
    (random_input((4, 64)), r"shape \(\.\.\., 128\) .*, but x\.shape=\(4, 64\)"),
    (torch.zeros((), dtype=torch.bfloat16), r"shape \(\.\.\., 128\) .*, but x\.shape=\(\)"),
    (random_input(SHAPE).half(), r"dtype torch\.bfloat16, but .*torch\.float16"),
    (torch.zeros(SHAPE, dtype=torch.int64), r"dtype torch\.bfloat16, but .*torch\.int64"),
    ([1.0] * 128, "must be a torch or ttnn tensor, but is list"),
    (None, "must be a torch or ttnn tensor, but is NoneType"),
]


@pytest.mark.parametrize(("x", "message"), MODULE_REFUSES)
def test_module_refuses(device: Any, count: Count, x: Any, message: str) -> None:
    norm = TtLayerNorm.from_torch(nn.LayerNorm(128, dtype=torch.bfloat16), device=device)
    before = state(device)
    with pytest.raises((ValueError, TypeError), match=message):
        norm(x)
    assert (state(device), norm.launches) == (before, 0)
    count("before the launch: bad arguments refused", 1)


def test_makes_host_tensors_right(device: Any) -> None:
    """Strides are the host's own business."""
    layer = nn.LayerNorm(128, dtype=torch.bfloat16)
    norm = TtLayerNorm.from_torch(layer, device=device)
    x = random_input((128, 6))
    for odd in (x.T, x.T[::2], x.T[:1].expand(5, -1), random_input((6, 256))[:, ::2], random_input((6, 129))[:, 1:]):
        assert not odd.is_contiguous()
        assert torch.equal(norm(odd), norm(odd.clone(memory_format=torch.contiguous_format)))


# Of each argument, one that is right more often than not.
TENSORS = ["x", "float32", *["in_l1", "tiled", "integers", "freed", "on_host", "rank_5", "torch", "none", "sharded"]]
WEIGHTS = ["gamma", "beta", "none", *["wide", "flat", "tall", "freed", "tiled", "x", "elsewhere", "torch"]]
OUTPUTS = ["y", "none", *["gamma", "float32", "freed", "in_l1", "elsewhere", "on_host"]]


def mostly(values: list[str], right: int) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(values[:right]), st.sampled_from(values[:right]), st.sampled_from(values))


@pytest.mark.long
@seed(0)  # else each edit of the test would draw other examples
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    x=mostly(TENSORS, 2),
    gamma=mostly(WEIGHTS, 3),
    beta=mostly(WEIGHTS, 3),
    output=mostly(OUTPUTS, 2),
    epsilon=st.sampled_from([EPSILON, EPSILON, EPSILON, 1, 1e-2, *(e for e, _ in EPSILONS)]),
)
@example(x="x", gamma="gamma", beta="gamma", output="none", epsilon=EPSILON)  # one tensor twice is no fault
def test_nothing_gets_through_and_is_wrong(
    device: Any,
    given_tensors: SimpleNamespace,
    count: Count,
    x: str,
    gamma: str,
    beta: str,
    output: str,
    epsilon: Any,
) -> None:
    tensors = [getattr(given_tensors, name) for name in (x, gamma, beta, output)]
    before = state(device)
    try:
        y = LayerNormSingleCore.op(*tensors, epsilon)
    except LayerNormArgumentError:
        assert state(device) == before
        count("before the launch: random calls refused", 1)
        return
    on_host = [None if t is None else ttnn.to_torch(t) for t in tensors[:3]]
    golden = LayerNormSingleCore.golden(*on_host, epsilon)
    assert_equal_but_near_ties(ttnn.to_torch(y), golden, on_host[2], least=0)  # any epsilon, on few elements
    assert torch.equal(ttnn.to_torch(given_tensors.x), random_input(SHAPE)), "written over"
    count("before the launch: random calls served rightly", 1)
