# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""ttnn_norms: ttnn's own signatures, and replace_ttnn_norms, which puts them in ttnn's place."""

import ast
import inspect
import linecache
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
import ttnn

from integration import LayerNormArgumentError, replace_ttnn_norms, ttnn_norms
from integration.ttnn_norms import Calls
from micro_ops.layernorm import LayerNorm, RMSNorm
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights
from tt_device import Platform

OURS = {"rms_norm": ttnn_norms.rms_norm, "layer_norm": ttnn_norms.layer_norm}
TTNNS = {name: getattr(ttnn, name) for name in OURS}
EPSILON = 1e-2  # large enough to tell
SHAPE = (1, 1, 32, 256)  # a token of each of 32 users, as tt-metal's demos lay them out
WIDTH = SHAPE[-1]
CORES = 4  # of a width-sharded tensor: two tiles each


def width_sharded(cores: int = CORES) -> ttnn.MemoryConfig:
    return ttnn.create_sharded_memory_config(
        (SHAPE[-2], WIDTH // cores),
        ttnn.CoreGrid(x=cores, y=1),
        ttnn.ShardStrategy.WIDTH,
        use_height_and_width_as_shard_shape=True,
    )


def program_config(cores: int = CORES, *, inplace: bool = False) -> ttnn.LayerNormShardedMultiCoreProgramConfig:
    return ttnn.LayerNormShardedMultiCoreProgramConfig(
        compute_with_storage_grid_size=(cores, 1),
        subblock_w=1,
        block_h=SHAPE[-2] // ttnn.TILE_SIZE,
        block_w=WIDTH // cores // ttnn.TILE_SIZE,
        inplace=inplace,
    )


def on_device(tensor: torch.Tensor, device: Any, memory: ttnn.MemoryConfig | None = None) -> ttnn.Tensor:
    return ttnn.from_torch(tensor, layout=ttnn.TILE_LAYOUT, device=device, memory_config=memory)


def as_sticks(weight: torch.Tensor, device: Any) -> ttnn.Tensor:
    """`weight` (1, W) as (1, 1, W/32, 32), row-major, as tt-metal's models keep the weights of norms."""
    return ttnn.from_torch(weight.reshape(1, 1, -1, 32), layout=ttnn.ROW_MAJOR_LAYOUT, device=device)


@pytest.fixture
def x(device: Any) -> ttnn.Tensor:
    return on_device(random_input(SHAPE), device)


# --- The signatures ---


@pytest.mark.parametrize("name", OURS)
def test_signature_is_ttnns(name: str) -> None:
    """ttnn tells its signatures to whoever calls it wrongly. One that changes is to be noticed here."""
    with pytest.raises(TypeError) as refused:
        TTNNS[name]()
    (signature,) = re.findall(rf"^  ({name}\(input_tensor.*\))$", str(refused.value), flags=re.MULTILINE)
    (function,) = ast.parse(f"def {signature}: ...").body
    assert isinstance(function, ast.FunctionDef)
    theirs = function.args
    assert not theirs.posonlyargs
    assert not theirs.defaults
    parameters = inspect.signature(OURS[name]).parameters.values()
    assert [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD] == [a.arg for a in theirs.args]
    keywords = {a.arg: ast.literal_eval(d) for a, d in zip(theirs.kwonlyargs, theirs.kw_defaults, strict=True) if d}
    ours = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
    assert list(ours.items()) == list(keywords.items()), "in this order"
    assert ours["epsilon"] == 1e-12


# --- The results ---


@pytest.mark.parametrize(
    "place",
    [
        lambda: (ttnn.DRAM_MEMORY_CONFIG, program_config(2)),
        lambda: (width_sharded(), program_config()),  # as tt-metal's demos decode
    ],
    ids=["interleaved", "width-sharded"],
)
@pytest.mark.parametrize("name", OURS)
def test_is_the_golden_rounded_once(device: Any, name: str, place: Callable[[], tuple[Any, Any]]) -> None:
    x = random_input(SHAPE)
    memory, config = place()
    gamma, beta = random_weights(WIDTH)
    bias = {"bias": as_sticks(beta, device)} if name == "layer_norm" else {}
    y = OURS[name](
        on_device(x, device, memory),
        epsilon=EPSILON,
        weight=as_sticks(gamma, device),
        program_config=config,
        **bias,
    )
    assert (y.layout, y.memory_config()) == (ttnn.TILE_LAYOUT, memory)
    if name == "layer_norm":
        assert_equal_but_near_ties(ttnn.to_torch(y), LayerNorm.golden(x, gamma, beta, EPSILON), beta)
    else:
        assert_equal_but_near_ties(ttnn.to_torch(y), RMSNorm.golden(x, gamma, EPSILON))


@pytest.mark.parametrize(
    ("source", "wanted", "given"),
    [
        (width_sharded, lambda: ttnn.L1_MEMORY_CONFIG, lambda: ttnn.L1_MEMORY_CONFIG),
        (width_sharded, lambda: ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG, width_sharded),  # by the input's shards, as ttnn's
    ],
    ids=["interleaved", "without a shard spec"],
)
def test_output_goes_where_it_is_wanted(
    device: Any, source: Callable[[], Any], wanted: Callable[[], Any], given: Callable[[], Any]
) -> None:
    x = random_input(SHAPE)
    y = ttnn_norms.rms_norm(on_device(x, device, source()), epsilon=EPSILON, memory_config=wanted())
    assert y.memory_config() == given()
    assert_equal_but_near_ties(ttnn.to_torch(y), RMSNorm.golden(x, None, EPSILON))


def test_in_place_overwrites_the_input(device: Any) -> None:
    x = on_device(random_input(SHAPE), device, width_sharded())
    expected = ttnn.to_torch(ttnn_norms.rms_norm(x))
    y = ttnn_norms.rms_norm(x, program_config=program_config(inplace=True), memory_config=width_sharded())
    assert y.buffer_address() == x.buffer_address()
    assert torch.equal(ttnn.to_torch(x), expected)


# --- The arguments ---


@pytest.mark.parametrize(
    ("place", "last", "in_place"),
    [
        (lambda: (ttnn.DRAM_MEMORY_CONFIG, None), None, False),
        (lambda: (ttnn.DRAM_MEMORY_CONFIG, ttnn.LayerNormDefaultProgramConfig()), None, False),  # has no grid
        (lambda: (ttnn.DRAM_MEMORY_CONFIG, program_config(2)), (1, 0), False),
        (lambda: (width_sharded(), program_config(2)), None, False),  # the shards decide
        (lambda: (width_sharded(), program_config(inplace=True)), None, True),
    ],
    ids=["none", "default", "interleaved", "sharded", "in place"],
)
@pytest.mark.parametrize("name", OURS)
def test_what_is_taken_of_a_program_config(
    device: Any,
    launches: list[dict[str, Any]],
    name: str,
    place: Callable[[], tuple[Any, Any]],
    last: tuple[int, int] | None,
    in_place: bool,
) -> None:
    memory, config = place()
    x = on_device(random_input(SHAPE), device, memory)
    OURS[name](x, program_config=config)
    (keywords,) = launches
    assert keywords.get("cores") == (None if last is None else ttnn.CoreRange((0, 0), last))
    assert keywords.get("output_tensor") is (x if in_place else None)


def test_a_narrow_grid_gives_the_same_bits(device: Any) -> None:
    x = on_device(random_input((64, 64)), device)  # four tiles, which all cores of a chip or two of them share
    wide, narrow = (ttnn_norms.rms_norm(x, program_config=config) for config in (None, program_config(2)))
    assert torch.equal(ttnn.to_torch(wide), ttnn.to_torch(narrow))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.long
def test_a_residual_is_added_first(device: Any, x: ttnn.Tensor, name: str) -> None:
    residual = on_device(random_input(SHAPE, seed=7), device)
    y, of_sum = (
        OURS[name](x, residual_input_tensor=residual, program_config=program_config(2)),
        OURS[name](on_device(ttnn.to_torch(x) + ttnn.to_torch(residual), device), program_config=program_config(2)),
    )
    assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(of_sum))


def matmul_config() -> ttnn.MatmulMultiCoreReuseProgramConfig:
    return ttnn.MatmulMultiCoreReuseProgramConfig(
        compute_with_storage_grid_size=(1, 1),
        in0_block_w=1,
        out_subblock_h=1,
        out_subblock_w=1,
        per_core_M=1,
        per_core_N=1,
    )


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    [
        ("rms_norm", "residual_input_tensor", object, "residual must be a ttnn.Tensor, but is object"),
        ("rms_norm", "bias", object, "bias must be None: the kernels add none to an RMSNorm; use ttnn.add("),
        ("rms_norm", "program_config", matmul_config, "but is MatmulMultiCoreReuseProgramConfig"),
        ("rms_norm", "program_config", lambda: program_config(64), "cores must be within the device's"),
        ("layer_norm", "epsilon", float, "epsilon must be positive"),
        ("layer_norm", "weight", lambda: torch.ones(WIDTH), "gamma must be a ttnn.Tensor, but is Tensor"),
    ],
)
def test_what_the_kernels_do_not_compute_is_an_error(
    x: ttnn.Tensor, name: str, argument: str, value: Callable[[], Any], message: str
) -> None:
    with pytest.raises(LayerNormArgumentError, match=re.escape(message)):
        OURS[name](x, **{argument: value()})


@pytest.mark.parametrize("name", OURS)
def test_block_floats_are_refused_with_what_converts_them(device: Any, name: str) -> None:
    x = ttnn.from_torch(random_input(SHAPE), dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT, device=device)
    with pytest.raises(LayerNormArgumentError, match=r"BFLOAT8_B.*ttnn\.typecast\("):
        OURS[name](x)


# --- In ttnn's place ---


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The keywords of each call of the ops, which launch nothing and return their input."""
    calls: list[dict[str, Any]] = []

    def op(input_tensor: Any, *_: Any, **keywords: Any) -> Any:
        calls.append(keywords)
        return input_tensor

    monkeypatch.setattr(RMSNorm, "op", op)
    monkeypatch.setattr(LayerNorm, "op", op)
    return calls


def test_counts_launches_by_call_site(launches: list[dict[str, Any]]) -> None:
    with replace_ttnn_norms() as replaced:
        for _ in range(3):
            assert ttnn.rms_norm("x", epsilon=EPSILON) == "x"
        ttnn.layer_norm("x", recip_tensor=None)
    assert [keywords["epsilon"] for keywords in launches] == [EPSILON] * 3 + [1e-12]
    lines = [linecache.getline(site.file, site.line).strip() for site in replaced.sites]
    assert lines == ['assert ttnn.rms_norm("x", epsilon=EPSILON) == "x"', 'ttnn.layer_norm("x", recip_tensor=None)']
    assert [site.norm for site in replaced.sites] == ["rms_norm", "layer_norm"]
    assert list(replaced.sites.values()) == [Calls(launches=3), Calls(launches=1)]
    first, _ = replaced.sites
    assert f"{__file__}:{first.line}   rms_norm" in str(replaced)


def test_lists_what_it_could_not_serve(x: ttnn.Tensor, launches: list[dict[str, Any]]) -> None:
    with replace_ttnn_norms() as replaced:
        for bias in ("bias", None, "bias"):
            with suppress(LayerNormArgumentError):
                ttnn.rms_norm("x", bias=bias)
        with pytest.raises(LayerNormArgumentError, match="program_config"):
            ttnn.layer_norm(x, program_config="config")
        with pytest.raises(TypeError, match="unexpected keyword argument 'eps'"):
            ttnn.layer_norm("x", eps=EPSILON)
    assert len(launches) == 1
    rms_norm, layer_norm = replaced.sites.values()
    assert (rms_norm.launches, rms_norm.fallbacks, [*rms_norm.unserved.values()]) == (1, 0, [2])
    assert (layer_norm.launches, layer_norm.fallbacks, [*layer_norm.unserved.values()]) == (0, 0, [1])
    assert "2 x bias must be None" in str(replaced)
    assert "1 x program_config must be" in str(replaced)


def test_falls_back_to_ttnns_own_if_asked(launches: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*args: Any, **keywords: Any) -> Any:
        return args, keywords

    monkeypatch.setattr(ttnn, "rms_norm", own)
    with replace_ttnn_norms(fallback=True) as replaced:
        for bias in ("bias", None):
            y = ttnn.rms_norm("x", bias=bias, epsilon=EPSILON)
            assert y == ("x" if bias is None else (("x",), {"bias": "bias", "epsilon": EPSILON}))
    (calls,) = replaced.sites.values()
    assert (calls.launches, calls.fallbacks, [*calls.unserved.values()]) == (1, 1, [1])
    assert len(launches) == 1
    assert ttnn.rms_norm is own


def assert_ttnn_has_its_own() -> None:
    assert {name: getattr(ttnn, name) for name in TTNNS} == TTNNS


def test_restores(launches: list[dict[str, Any]]) -> None:
    with pytest.raises(ZeroDivisionError), replace_ttnn_norms():
        1 / 0  # noqa: B018
    assert_ttnn_has_its_own()
    replaced = replace_ttnn_norms()
    assert ttnn.rms_norm is not TTNNS["rms_norm"]
    kept = ttnn.rms_norm  # as `from ttnn import rms_norm` would
    replaced.restore()
    replaced.restore()
    assert_ttnn_has_its_own()
    with pytest.raises(TypeError, match="incompatible function arguments"):
        kept("x")  # ttnn's own
    assert not launches
    assert not replaced.sites


@pytest.mark.parametrize("first", [0, 1], ids=["outer first", "inner first"])
def test_nested_replacements(launches: list[dict[str, Any]], first: int) -> None:
    """The innermost counts, and whichever ends first, ttnn's own are back after the last."""
    replaced = [replace_ttnn_norms(), replace_ttnn_norms()]
    ttnn.rms_norm("x")
    assert [len(each.sites) for each in replaced] == [0, 1]
    ended, left = replaced[first], replaced[1 - first]
    for _ in range(2):
        ended.restore()
    ttnn.layer_norm("x")
    assert [site.norm for site in left.sites][-1] == "layer_norm"
    assert len(launches) == 2
    left.restore()
    assert_ttnn_has_its_own()


# --- A graph ---

LOW = 32  # the bottleneck between down and up, as DeepSeek's q_a and q_b have one
PLACES = ("first", "second", "result")


class Graph:
    """An RMSNorm, down, up, the residual's sum, a LayerNorm, down: written in ttnn, and in torch in float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def matrix(rows: int, columns: int) -> torch.Tensor:
            return (torch.randn(rows, columns, generator=generator) / rows**0.5).bfloat16()

        self.x = random_input(SHAPE)
        self.down, self.up, self.head = matrix(WIDTH, LOW), matrix(LOW, WIDTH), matrix(WIDTH, LOW)
        self.gamma, _ = random_weights(WIDTH, seed=1)
        self.gamma_2, self.beta_2 = random_weights(WIDTH, seed=2)

    def golden(self) -> dict[str, torch.Tensor]:
        first = RMSNorm.golden(self.x, self.gamma, EPSILON)
        total = self.x.double() + first @ self.down.double() @ self.up.double()
        second = LayerNorm.golden(total, self.gamma_2, self.beta_2, EPSILON)
        return dict(zip(PLACES, (first, second, second @ self.head.double()), strict=True))

    def run(self, device: Any, memory: ttnn.MemoryConfig, config: ttnn_norms.ProgramConfig) -> dict[str, torch.Tensor]:
        """
        Args:
            memory, config: of the norms' inputs and outputs, and of the norms
        """
        exact = ttnn.init_device_compute_kernel_config(
            device.arch(), math_fidelity=ttnn.MathFidelity.HiFi4, math_approx_mode=False, fp32_dest_acc_en=True
        )
        common = {
            "epsilon": EPSILON,
            "memory_config": memory,
            "program_config": config,
            "compute_kernel_config": exact,
        }

        def linear(x: ttnn.Tensor, weight: torch.Tensor) -> ttnn.Tensor:
            # On one core: on wolfpine the multicasts of ttnn's own ops deadlock.
            return ttnn.linear(
                x, on_device(weight, device), core_grid=ttnn.CoreGrid(x=1, y=1), compute_kernel_config=exact
            )

        x = on_device(self.x, device)
        first = ttnn.rms_norm(ttnn.to_memory_config(x, memory), weight=as_sticks(self.gamma, device), **common)
        first = ttnn.to_memory_config(first, ttnn.L1_MEMORY_CONFIG)
        delta = linear(linear(first, self.down), self.up)
        one_core = ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(0, 0))
        # On one core: wolfpine ends where an idle core of this op divides by zero.
        total = ttnn.add(x, delta, sub_core_grids=ttnn.CoreRangeSet([one_core]))
        second = ttnn.layer_norm(
            ttnn.to_memory_config(total, memory),
            weight=as_sticks(self.gamma_2, device),
            bias=as_sticks(self.beta_2, device),
            **common,
        )
        second = ttnn.to_memory_config(second, ttnn.L1_MEMORY_CONFIG)
        outputs = (first, second, linear(second, self.head))
        return {place: ttnn.to_torch(y) for place, y in zip(PLACES, outputs, strict=True)}


@pytest.mark.long
def test_a_ttnn_graph_is_nearer_to_float64(device: Any, platform: Platform) -> None:
    graph, sharded = Graph(), (width_sharded(), program_config())
    interleaved = (ttnn.L1_MEMORY_CONFIG, ttnn.LayerNormDefaultProgramConfig())
    golden = graph.golden()
    # ttnn's sharded norms multicast, too.
    theirs = graph.run(device, *(interleaved if platform.backend == "wolfpine" else sharded))
    with replace_ttnn_norms() as replaced:
        ours = graph.run(device, *sharded)
    assert [(site.norm, calls) for site, calls in replaced.sites.items()] == [
        ("rms_norm", Calls(launches=1)),
        ("layer_norm", Calls(launches=1)),
    ]
    assert_equal_but_near_ties(ours["first"], golden["first"])
    for place in PLACES:
        ours_error, theirs_error = (float((y[place].double() - golden[place]).abs().mean()) for y in (ours, theirs))
        assert ours_error < theirs_error, place
