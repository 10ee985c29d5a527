# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The layouts of a ttnn graph: a row has the bits of the same row as a stick on one core, wherever and how it lies."""

import itertools
from typing import Any

import pytest
import torch
import ttnn

from integration import TtLayerNorm
from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm
from tests.cases import cases
from tests.layouts import DRAM, FORMS, L1, Shape, expected, operands
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights, upload

pytestmark = pytest.mark.usefixtures("reads_back")


def shards(strategy: str, shape: Shape, columns: int, rows: int, orientation: str = "ROW_MAJOR") -> ttnn.MemoryConfig:
    """Of a matrix padded to whole tiles, over `columns` x `rows` cores."""
    *_, height, width = shape
    padded = (height + -height % 32, width + -width % 32)
    return ttnn.create_sharded_memory_config(
        (1, 1, *padded),
        ttnn.CoreGrid(x=columns, y=rows),
        getattr(ttnn.ShardStrategy, strategy),
        getattr(ttnn.ShardOrientation, orientation),
    )


TILED: dict[str, tuple[Shape, ttnn.MemoryConfig]] = {
    "DRAM, whole rows": ((5, 96), DRAM),  # one core has them
    "DRAM, rows cut": ((33, 300), DRAM),  # over a team of cores; padding below and beside
    "DRAM, matrices": ((2, 2, 40, 64), DRAM),  # padding below each
    "width-sharded": ((12, 512), shards("WIDTH", (12, 512), 4, 2)),
    "width-sharded, two rows of tiles": ((40, 256), shards("WIDTH", (40, 256), 4, 1)),
    "width-sharded, more quads than cores": ((36, 160), shards("WIDTH", (36, 160), 5, 1)),  # and fewer in the last row
    "width-sharded, wide": ((36, 3130), shards("WIDTH", (36, 3130), 7, 1)),  # by stripes: as many more, and padded
    "width-sharded, padded": ((9, 200), shards("WIDTH", (9, 200), 7, 1)),
    "height-sharded": ((64, 64), shards("HEIGHT", (64, 64), 2, 1)),
    "height-sharded, padded": ((40, 72), shards("HEIGHT", (40, 72), 2, 1)),
    "block-sharded": ((40, 128), shards("BLOCK", (40, 128), 2, 2)),
    "block-sharded by columns": ((40, 96), shards("BLOCK", (40, 96), 2, 3, "COL_MAJOR")),
}
STICKS: dict[str, tuple[Shape, ttnn.MemoryConfig]] = {
    "L1": ((5, 300), L1),
    "height-sharded": ((64, 128), shards("HEIGHT", (64, 128), 2, 1)),
}


def to_device(
    x: torch.Tensor, device: Any, layout: ttnn.Layout, memory: ttnn.MemoryConfig, padding: float | None = None
) -> ttnn.Tensor:
    """Args:
    padding: what is put where a tile has no elements
    """
    if padding is None:
        return ttnn.from_torch(x, layout=layout, device=device, memory_config=memory)
    on_host = ttnn.from_torch(x).pad_to_tile(padding).to(layout)
    return ttnn.to_device(on_host, device, memory_config=memory)


def run(device: Any, form: str, shape: Shape, of_x: ttnn.Layout, memory: ttnn.MemoryConfig, **more: Any) -> Any:
    """The result of a form's operands, and the tensor that it was computed of."""
    norm, dtype, keywords = FORMS[form]
    x, *weights = operands(shape, dtype)
    on_device = to_device(x, device, of_x, memory, more.pop("padding", None))
    tensors = [upload(weight, device) for weight in weights[: 2 if norm is LayerNorm else 1]]
    return norm.op(on_device, *tensors, **keywords, **more), on_device


# Every place with one form, and every form in a place for each way through the kernels.
WAYS = [
    *(("LayerNorm", place) for place in TILED),
    *itertools.product(
        [form for form in FORMS if form != "LayerNorm"],
        ["DRAM, whole rows", "DRAM, rows cut"],
    ),
    ("LayerNorm float32", "width-sharded, more quads than cores"),
]


LONG_WAYS = [
    "LayerNorm: width-sharded, wide",
    "LayerNorm: DRAM, matrices",
    "LayerNorm: width-sharded, padded",
    "LayerNorm float32: width-sharded, more quads than cores",
    "RMSNorm, all rounded: DRAM, rows cut",
    "RMSNorm float32: DRAM, rows cut",
]


@pytest.mark.parametrize(
    ("form", "place"),
    cases({f"{form}: {place}": (form, TILED[place]) for form, place in WAYS}, long=LONG_WAYS),
)
def test_tiles_give_the_bits_of_sticks(
    device: Any, cores: int | None, form: str, place: tuple[Shape, ttnn.MemoryConfig]
) -> None:
    shape, memory = place
    chosen = cores if memory in (DRAM, L1) else None
    y, x = run(device, form, shape, ttnn.TILE_LAYOUT, memory, padding=float("nan"), cores=chosen)
    assert (y.layout, y.memory_config()) == (ttnn.TILE_LAYOUT, x.memory_config())
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))


def test_more_rows_in_the_same_shards(device: Any) -> None:
    """As with more tokens: ttnn's program cache takes both launches for one program, and more cores add up."""
    for rows in (1, 9):
        y, _ = run(device, "RMSNorm", (rows, 256), ttnn.TILE_LAYOUT, shards("WIDTH", (rows, 256), 4, 1))
        assert torch.equal(ttnn.to_torch(y), expected(device, "RMSNorm", (rows, 256)))


@pytest.mark.parametrize("place", STICKS.values(), ids=STICKS)
def test_sticks_in_l1(device: Any, place: tuple[Shape, ttnn.MemoryConfig]) -> None:
    shape, memory = place
    y, x = run(device, "LayerNorm", shape, ttnn.ROW_MAJOR_LAYOUT, memory)
    assert (y.layout, y.memory_config()) == (ttnn.ROW_MAJOR_LAYOUT, x.memory_config())
    assert torch.equal(ttnn.to_torch(y), expected(device, "LayerNorm", shape))


SHARDED = (8, 512), shards("WIDTH", (8, 512), 4, 2)


@pytest.mark.parametrize("place", [TILED["DRAM, rows cut"], SHARDED], ids=["DRAM", "shards"])
def test_in_place(device: Any, cores: int | None, place: tuple[Shape, ttnn.MemoryConfig]) -> None:
    shape, memory = place
    x, gamma, beta = operands(shape, torch.bfloat16)
    on_device = to_device(x, device, ttnn.TILE_LAYOUT, memory)
    chosen = cores if memory == DRAM else None
    y = LayerNorm.op(on_device, upload(gamma, device), upload(beta, device), on_device, cores=chosen)
    assert y.buffer_address() == on_device.buffer_address()
    assert torch.equal(ttnn.to_torch(on_device), expected(device, "LayerNorm", shape))


@pytest.mark.parametrize(
    ("place", "memory"),
    [(SHARDED, DRAM), ((SHARDED[0], DRAM), SHARDED[1])],
    ids=["shards to DRAM", "DRAM to shards"],
)
def test_output_elsewhere(device: Any, place: tuple[Shape, ttnn.MemoryConfig], memory: ttnn.MemoryConfig) -> None:
    y, _ = run(device, "RMSNorm", place[0], ttnn.TILE_LAYOUT, place[1], memory_config=memory)
    assert y.memory_config() == memory
    assert torch.equal(ttnn.to_torch(y), expected(device, "RMSNorm", place[0]))


TO_STICKS = {
    "DRAM, rows cut": DRAM,
    "DRAM, matrices": DRAM,
    "height-sharded, padded": None,  # on the same cores, sticks of 72 elements, 96 apart
}
WAYS_TO_STICKS = [
    *(("LayerNorm", place) for place in TO_STICKS),
    *((form, "DRAM, rows cut") for form in ("LayerNorm float32", "RMSNorm")),
]


@pytest.mark.parametrize(
    ("form", "place", "target"),
    [(form, TILED[place], TO_STICKS[place]) for form, place in WAYS_TO_STICKS],
    ids=map(": ".join, WAYS_TO_STICKS),
)
def test_tiles_to_sticks(
    device: Any,
    cores: int | None,
    form: str,
    place: tuple[Shape, ttnn.MemoryConfig],
    target: ttnn.MemoryConfig | None,
) -> None:
    shape, memory = place
    to_sticks = {"layout": ttnn.ROW_MAJOR_LAYOUT, "memory_config": target, "padding": float("nan")}
    y, _ = run(device, form, shape, ttnn.TILE_LAYOUT, memory, cores=cores if memory == DRAM else None, **to_sticks)
    assert (y.layout, y.memory_config()) == (ttnn.ROW_MAJOR_LAYOUT, target or memory)
    assert torch.equal(ttnn.to_torch(y), expected(device, form, shape))


# Each way of x, of the sum and of the result: rings and shards, rows cut and whole, padding, several rows of tiles.
IN_PLACE = {"in_place": True}  # the result overwrites x, the sum the residual
RESIDUALS = {
    "DRAM, rows cut": ("LayerNorm", TILED["DRAM, rows cut"], {}),
    "float32": ("LayerNorm float32", TILED["DRAM, rows cut"], {}),
    "shards": ("RMSNorm, all rounded", TILED["width-sharded, padded"], {}),
    "shards, two rows of tiles": ("LayerNorm", TILED["width-sharded, two rows of tiles"], {}),
    "shards, wide": ("RMSNorm", ((5, 3130), shards("WIDTH", (5, 3130), 7, 1)), {}),
    "shards to DRAM": ("LayerNorm", TILED["width-sharded, two rows of tiles"], {"memory_config": DRAM}),
    "shards to sticks": (
        "LayerNorm",
        TILED["width-sharded, two rows of tiles"],
        {"memory_config": DRAM, "layout": ttnn.ROW_MAJOR_LAYOUT},
    ),
    "many tiles of a core": ("RMSNorm", ((20, 640), DRAM), {"cores": 1}),  # the rings go round
    "shards, in place": ("LayerNorm", TILED["width-sharded, two rows of tiles"], IN_PLACE),
}


@pytest.mark.parametrize(
    ("form", "place", "more"),
    cases(RESIDUALS, long=[name for name in RESIDUALS if name not in ("DRAM, rows cut", "shards, in place")]),
)
def test_a_residual_is_added_as_torch_adds_it(
    device: Any,
    cores: int | None,
    form: str,
    place: tuple[Shape, ttnn.MemoryConfig],
    more: dict[str, Any],
) -> None:
    """To the bit; bfloat16 sums of two are often ties. What is not finite stays so: a NaN may become an infinity."""
    shape, memory = place
    norm, dtype, _ = FORMS[form]
    x = random_input(shape, dtype=dtype)
    residual = random_input(shape, offset=0.0, std=1.0, seed=3, dtype=dtype)
    inf = float("inf")
    x.view(-1)[:4], residual.view(-1)[:4] = torch.tensor([[inf] * 4, [1.0, inf, -inf, float("nan")]])
    on_device, added = (to_device(t, device, ttnn.TILE_LAYOUT, memory, float("nan")) for t in (x, residual))
    tensors = [upload(w, device) for w in operands(shape, dtype)[1:][: 2 if norm is LayerNorm else 1]]
    in_place = more == IN_PLACE
    more = {} if in_place else more
    outputs = {"output_tensor": on_device, "residual_output": added} if in_place else {}
    chosen = {"cores": cores} if memory == DRAM and "memory_config" not in more else {}
    y, total = norm.op(on_device, *tensors, residual=added, **chosen | FORMS[form][2] | outputs | more)
    assert y.layout == more.get("layout", ttnn.TILE_LAYOUT)
    stays = "layout" in more or "memory_config" not in more
    assert (total.layout, total.memory_config()) == (ttnn.TILE_LAYOUT, memory if stays else more["memory_config"])
    of_sum = ttnn.to_torch(total)
    assert torch.equal(of_sum.isfinite(), (x + residual).isfinite())
    assert torch.equal(of_sum[of_sum.isfinite()], (x + residual)[of_sum.isfinite()])
    assert torch.equal(ttnn.to_torch(y)[1:], expected(device, form, shape, x + residual)[1:])
    assert not ttnn.to_torch(y).reshape(-1, shape[-1])[0].isfinite().any()
    if in_place:
        assert (y.buffer_address(), total.buffer_address()) == (on_device.buffer_address(), added.buffer_address())


# As a ttnn model keeps a weight of W elements, for the checkpoint's row-major (W,).
WEIGHTS = {
    "a stick": lambda w: ttnn.from_torch(w.reshape(1, 1, -1)),
    "a vector": lambda w: ttnn.from_torch(w.flatten()),
    "sticks of 32": lambda w: ttnn.from_torch(w.reshape(1, 1, -1, 32)),
    "tiles": lambda w: ttnn.from_torch(w.reshape(1, -1), layout=ttnn.TILE_LAYOUT, pad_value=float("nan")),
}


@pytest.mark.parametrize(
    ("way", "dtypes"),
    [
        *((way, ("bfloat16", "bfloat16")) for way in WEIGHTS),
        # Of x and of the weights: each mixture takes other ways through the unpackers.
        pytest.param("sticks of 32", ("bfloat16", "float32"), marks=pytest.mark.long),
        pytest.param("tiles", ("bfloat16", "float32"), marks=pytest.mark.long),
        ("tiles", ("float32", "bfloat16")),
    ],
)
def test_weights_as_models_keep_them(device: Any, cores: int | None, way: str, dtypes: tuple[str, str]) -> None:
    shape, of_x, of_weights = (32, 160), getattr(torch, dtypes[0]), getattr(torch, dtypes[1])
    x, (gamma, beta) = random_input(shape, dtype=of_x), random_weights(shape[-1], dtype=of_weights)
    weights = [ttnn.to_device(WEIGHTS[way](w), device) for w in (gamma, beta)]
    y = LayerNorm.op(to_device(x, device, ttnn.TILE_LAYOUT, DRAM), *weights, cores=cores)
    sticks = [upload(t, device) for t in (x, gamma, beta)]
    assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(LayerNorm.op(*sticks, cores=1)))


def test_exactness(device: Any, cores: int | None) -> None:
    """Of bfloat16 at an offset of 1e4, as of sticks: all but near-ties are the correctly rounded value."""
    shape = (32, 512)
    x, (gamma, beta) = random_input(shape, offset=1e4, std=64.0), random_weights(512)
    tensors = [to_device(x, device, ttnn.TILE_LAYOUT, DRAM), upload(gamma, device), upload(beta, device)]
    y = ttnn.to_torch(LayerNorm.op(*tensors, cores=cores))
    assert_equal_but_near_ties(y, LayerNorm.golden(x, gamma, beta), beta, least=0.996)


@pytest.mark.parametrize("form", ["LayerNorm", "LayerNorm float32", "RMSNorm"])
def test_a_bad_value_marks_its_row_and_no_other(device: Any, cores: int | None, form: str) -> None:
    norm, dtype, _ = FORMS[form]
    x = random_input((9, 300), dtype=dtype)
    good = x.clone()
    x[2, 299], x[5, 0] = float("nan"), float("inf")
    weights = (None,) if norm is RMSNorm else (None, None)
    tensors = (to_device(t, device, ttnn.TILE_LAYOUT, DRAM) for t in (x, good))
    y, of_good = (ttnn.to_torch(norm.op(tensor, *weights, cores=cores)) for tensor in tensors)
    assert not y[[2, 5]].isfinite().any()
    others = [row for row in range(9) if row not in (2, 5)]
    assert torch.equal(y[others], of_good[others])


def test_a_module_takes_tiles(device: Any, cores: int | None) -> None:
    x, gamma, beta = operands((40, 96), torch.bfloat16)
    norm = TtLayerNorm(96, gamma.flatten(), beta.flatten(), epsilon=1e-6, device=device, cores=cores)
    on_device = to_device(x, device, ttnn.TILE_LAYOUT, DRAM)
    y, sticks = norm(on_device), norm.op(on_device, layout=ttnn.ROW_MAJOR_LAYOUT)
    assert (y.layout, y.memory_config(), norm.launches) == (ttnn.TILE_LAYOUT, DRAM, 2)
    assert sticks.layout == ttnn.ROW_MAJOR_LAYOUT
    for result in (y, sticks):
        assert torch.equal(ttnn.to_torch(result), expected(device, "LayerNorm", (40, 96)))


BAD_RESIDUALS = {
    "another shape": (
        (32, 64),
        ttnn.TILE_LAYOUT,
        r"residual must have the input's shape \(32, 96\), .* but has \(32, 64\)",
    ),
    "sticks": ((32, 96), ttnn.ROW_MAJOR_LAYOUT, r"residual must have the input's .* TILE \(32, 32\), .* ROW_MAJOR"),
}


@pytest.mark.parametrize(("shape", "layout", "message"), BAD_RESIDUALS.values(), ids=BAD_RESIDUALS)
def test_bad_residuals(device: Any, shape: Shape, layout: ttnn.Layout, message: str) -> None:
    x = to_device(random_input((32, 96)), device, ttnn.TILE_LAYOUT, DRAM)
    with pytest.raises(LayerNormArgumentError, match=message):
        RMSNorm.op(x, None, residual=to_device(random_input(shape), device, layout, DRAM))
    with pytest.raises(LayerNormArgumentError, match="residual_output must be None where residual is"):
        RMSNorm.op(x, None, residual_output=x)
    with pytest.raises(LayerNormArgumentError, match="residual_output must not share memory with output"):
        RMSNorm.op(x, None, x, residual=x, residual_output=x)


def test_views_of_one_buffer_that_overlap(device: Any) -> None:
    """Cores would write what others have still to read."""
    both = upload(random_input((72, 64)), device)
    upper, lower = (
        ttnn.narrow(both, 0, 0, 48),
        ttnn.narrow(both, 0, 24, 48),
    )  # 24 pages: in the first bank of either chip
    message = r"output must not share memory with input, but starts at .* in the buffer in which that starts at"
    with pytest.raises(LayerNormArgumentError, match=message):
        RMSNorm.op(upper, None, lower)


@pytest.mark.parametrize("shape", [(0, 64), (0, 32, 64), (2, 0, 64)])
@pytest.mark.parametrize("memory", [None, shards("HEIGHT", (32, 64), 1, 1)], ids=["DRAM", "shards"])
def test_no_rows(device: Any, shape: Shape, memory: ttnn.MemoryConfig | None) -> None:
    x = ttnn.from_torch(torch.zeros(shape, dtype=torch.bfloat16), layout=ttnn.TILE_LAYOUT, device=device)
    y, total = RMSNorm.op(x, None, residual=x, memory_config=memory)
    assert tuple(y.shape) == tuple(total.shape) == shape


def test_shards_stay_on_their_cores(device: Any) -> None:
    on_device = to_device(random_input(SHARDED[0]), device, ttnn.TILE_LAYOUT, SHARDED[1])
    with pytest.raises(LayerNormArgumentError, match="cores must be as many as have shards, 8, but is 4"):
        RMSNorm.op(on_device, None, cores=4)
    other = shards("WIDTH", SHARDED[0], 2, 2)
    with pytest.raises(LayerNormArgumentError, match=r"the input's shards, .* 8 shards of 32 x 64, but is .* 4 shards"):
        RMSNorm.op(on_device, None, memory_config=other)
