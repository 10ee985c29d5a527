# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""ttnn_norms: ttnn's own signatures, and replace_ttnn_norms, which puts them in ttnn's place."""

import ast
import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import ttnn

from integration import LayerNormArgumentError, TtnnReplacement, replace_ttnn_norms, ttnn_norms
from integration.ttnn_norms import Calls
from micro_ops.layernorm import LayerNorm, RMSNorm
from micro_ops.layernorm import op as op_module
from model_comparison.metrics import compare
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights

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


def on_device(tensor: torch.Tensor, device: Any, memory: ttnn.MemoryConfig = ttnn.DRAM_MEMORY_CONFIG) -> ttnn.Tensor:
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
    ("memory", "config"),
    [
        (ttnn.DRAM_MEMORY_CONFIG, None),
        (ttnn.L1_MEMORY_CONFIG, ttnn.LayerNormDefaultProgramConfig()),
        (width_sharded(), program_config()),  # as tt-metal's demos decode
    ],
    ids=["dram", "l1", "width-sharded"],
)
@pytest.mark.parametrize("name", OURS)
def test_is_the_golden_rounded_once(
    device: Any, name: str, memory: ttnn.MemoryConfig, config: ttnn_norms.ProgramConfig | None
) -> None:
    x = random_input(SHAPE)
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
    ("memory", "config", "cores"),
    [
        (ttnn.DRAM_MEMORY_CONFIG, None, None),
        (ttnn.DRAM_MEMORY_CONFIG, program_config(2), (0, 0, 1, 0)),
        (width_sharded(), program_config(2), None),  # the shards decide
    ],
    ids=["no grid", "interleaved", "sharded"],
)
@pytest.mark.parametrize("name", OURS)
def test_program_configs_grid_narrows_the_plan(
    device: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    memory: ttnn.MemoryConfig,
    config: ttnn_norms.ProgramConfig | None,
    cores: tuple[int, int, int, int] | None,
) -> None:
    seen = []

    def launch(*args: Any) -> None:
        seen.append(args)

    monkeypatch.setattr(op_module, "_launch", launch)
    OURS[name](on_device(random_input(SHAPE), device, memory), program_config=config)


@pytest.mark.parametrize("name", OURS)
def test_output_goes_where_it_is_wanted(x: ttnn.Tensor, name: str) -> None:
    y = OURS[name](x, memory_config=width_sharded())
    assert y.memory_config() == width_sharded()
    assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(OURS[name](x)))
