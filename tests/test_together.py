# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Several norms in one launch: each has the bits that it has alone, and what can't run side by side is refused."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import ttnn

from integration import TtRMSNorm
from micro_ops.layernorm import (
    LayerNorm,
    LayerNormArgumentError,
    LayerNormSingleCore,
    Prepared,
    RMSNorm,
    RMSNormSingleCore,
    run_together,
)
from micro_ops.layernorm.launch import free_l1
from tests.tensors import random_input, random_weights, upload

DRAM = ttnn.DRAM_MEMORY_CONFIG
STICKS, TILES = ttnn.ROW_MAJOR_LAYOUT, ttnn.TILE_LAYOUT
pytestmark = pytest.mark.usefixtures("reads_back")


def core_range(x: int, y: int, columns: int, rows: int) -> ttnn.CoreRange:
    return ttnn.CoreRange(ttnn.CoreCoord(x, y), ttnn.CoreCoord(x + columns - 1, y + rows - 1))


def by_width(width: int, x: int, y: int, columns: int, rows: int) -> ttnn.MemoryConfig:
    """One row of tiles, in shards side by side."""
    grid = ttnn.CoreRangeSet([core_range(x, y, columns, rows)])
    spec = ttnn.ShardSpec(grid, (32, width // (columns * rows)), ttnn.ShardOrientation.ROW_MAJOR)
    return ttnn.MemoryConfig(ttnn.TensorMemoryLayout.WIDTH_SHARDED, ttnn.BufferType.L1, spec)


class Call(NamedTuple):
    """
    Attributes:
        cores: of an interleaved tensor
    """

    norm: type[LayerNorm | RMSNorm]
    shape: tuple[int, ...]
    layout: ttnn.Layout
    memory: ttnn.MemoryConfig
    cores: ttnn.CoreRange | None = None
    dtype: torch.dtype = torch.bfloat16

    def arguments(self, device: Any, seed: int = 0) -> dict[str, Any]:
        """Tensors of their own each time."""
        x = random_input(self.shape, seed=seed, dtype=self.dtype)
        gamma, beta = (upload(w, device) for w in random_weights(self.shape[-1], seed + 1, self.dtype))
        on_device = ttnn.from_torch(x, layout=self.layout, device=device, memory_config=self.memory)
        more = {"beta_tensor": beta} if self.norm is LayerNorm else {}
        return {"input_tensor": on_device, "gamma_tensor": gamma, "cores": self.cores, **more}


Q_A = Call(RMSNorm, (1, 1536), TILES, by_width(1536, 0, 0, 4, 2))
KV_A = Call(RMSNorm, (1, 512), TILES, by_width(512, 2, 2, 4, 1))
CUT = Call(RMSNorm, (1, 7168), STICKS, DRAM, core_range(4, 3, 4, 1))  # the row goes over a team of cores
LONG = {"q_a and kv_a", "q_norm and k_norm"}  # the model's own widths
SHARDS = Call(RMSNorm, (1, 256), TILES, by_width(256, 0, 0, 2, 1))
TOGETHER = {
    "q_a and kv_a": (Q_A, KV_A),
    "q_norm and k_norm": (
        Call(RMSNorm, (1, 4, 33, 256), TILES, DRAM, core_range(0, 0, 4, 2)),
        Call(RMSNorm, (1, 1, 33, 256), TILES, DRAM, core_range(4, 0, 2, 1)),
    ),
    "sticks": (
        Call(LayerNorm, (6, 1025), STICKS, DRAM, core_range(0, 0, 2, 2)),
        Call(RMSNorm, (5, 300), STICKS, DRAM, core_range(2, 0, 2, 2), torch.float32),
    ),
    # With semaphores of equal ids and other values
    "tiles beside a stick": (Call(LayerNorm, (8, 200), TILES, DRAM, core_range(0, 0, 2, 2), torch.float32), CUT),
}


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(calls, marks=[pytest.mark.long] if name in LONG else [], id=name)
        for name, calls in TOGETHER.items()
    ],
)
def test_each_has_the_bits_that_it_has_alone(device: Any, calls: tuple[Call, ...]) -> None:
    arguments = [call.arguments(device) for call in calls]
    prepared = [call.norm.prepare(**given) for call, given in zip(calls, arguments, strict=True)]
    outputs = run_together(*prepared)
    for y, call, given in zip(outputs, calls, arguments, strict=True):
        assert (y.layout, y.memory_config()) == (call.layout, call.memory)
        assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(call.norm.op(**given)))


@pytest.mark.parametrize("calls", [(SHARDS, CUT)], ids=["shards beside a stick"])
@pytest.mark.long
def test_again_at_other_addresses(device: Any, calls: tuple[Call, ...]) -> None:
    """ttnn keeps the program of the first launch for the second, and must not keep what it was given to read."""
    kept, addresses = [], set()
    for seed in (0, 10):
        arguments = [call.arguments(device, seed) for call in calls]
        prepared = [call.norm.prepare(**given) for call, given in zip(calls, arguments, strict=True)]
        assert all(of.program.semaphores for of in prepared)
        programs = device.num_program_cache_entries()
        outputs = run_together(*prepared)
        assert device.num_program_cache_entries() == programs + (seed == 0)
        for y, call, given in zip(outputs, calls, arguments, strict=True):
            assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(call.norm.op(**given)))
        kept += prepared
        addresses |= {(tensor.buffer_address(), name) for of in prepared for name, tensor in of.tensors.items()}
    assert len(addresses) == sum(len(of.tensors) for of in kept)


def test_without_rows(device: Any) -> None:
    empty = upload(torch.zeros(0, 64, dtype=torch.bfloat16), device)
    x = upload(random_input((3, 64)), device)
    without = [norm.prepare(empty, *[None] * count) for norm, count in ((LayerNorm, 2), (RMSNorm, 1))]
    outputs = run_together(without[0], RMSNorm.prepare(x, None), without[1])
    assert [tuple(y.shape) for y in outputs] == [(0, 64), (3, 64), (0, 64)]
    assert torch.equal(ttnn.to_torch(outputs[1]), ttnn.to_torch(RMSNorm.op(x, None)))
    programs = device.num_program_cache_entries()
    assert len(run_together(*without)) == 2
    assert run_together() == []
    assert device.num_program_cache_entries() == programs


@pytest.mark.parametrize("memory", [by_width(2048, 0, 0, 4, 1)], ids=["shards"])
def test_shards_of_one_buffer(device: Any, memory: ttnn.MemoryConfig) -> None:
    """q_a and kv_a as one projection leaves them, each normalized in its place."""
    x = random_input((1, 2048))
    on_device = ttnn.from_torch(x, layout=TILES, device=device, memory_config=memory)
    q_a, kv_a = (ttnn.narrow(on_device, 1, start, width) for start, width in ((0, 1536), (1536, 512)))
    run_together(*(RMSNorm.prepare(half, None, half) for half in (q_a, kv_a)))
    alone = [ttnn.to_torch(RMSNorm.op(upload(part, device), None, cores=1)) for part in (x[:, :1536], x[:, 1536:])]
    assert torch.equal(ttnn.to_torch(on_device), torch.cat(alone, dim=1))


# --- What can't run side by side ---

LEFT, RIGHT = core_range(0, 0, 2, 2), core_range(2, 0, 2, 2)


def _output_is_input(x: ttnn.Tensor, _: ttnn.Tensor) -> list[Prepared]:
    return [RMSNorm.prepare(x, None, cores=LEFT), RMSNorm.prepare(x, None, x, cores=RIGHT)]


def _output_is_gamma(x: ttnn.Tensor, z: ttnn.Tensor) -> list[Prepared]:
    return [RMSNorm.prepare(z, ttnn.narrow(x, 0, 0, 1), cores=LEFT), RMSNorm.prepare(x, None, x, cores=RIGHT)]


def _outputs_are_one(x: ttnn.Tensor, z: ttnn.Tensor) -> list[Prepared]:
    y = ttnn.narrow(x, 0, 24, 24)
    return [RMSNorm.prepare(z, None, y, cores=cores) for cores in (LEFT, RIGHT)]


def _output_is_view(x: ttnn.Tensor, z: ttnn.Tensor) -> list[Prepared]:
    half = ttnn.narrow(x, 0, 24, 24)
    return [RMSNorm.prepare(x, None, cores=LEFT), RMSNorm.prepare(z, None, half, cores=RIGHT)]


def _cores_overlap(x: ttnn.Tensor, z: ttnn.Tensor) -> list[Prepared]:
    return [LayerNormSingleCore.prepare(x, None, None), RMSNormSingleCore.prepare(z, None)]


def _shards_overlap(x: ttnn.Tensor, _: ttnn.Tensor) -> list[Prepared]:
    q_a = Q_A.norm.prepare(**Q_A.arguments(x.device()))
    return [RMSNorm.prepare(x, None, cores=core_range(1, 1, 1, 1)), q_a]


def _freed(x: ttnn.Tensor, z: ttnn.Tensor) -> list[Prepared]:
    prepared = [RMSNorm.prepare(x, None, cores=LEFT), RMSNorm.prepare(z, None, cores=RIGHT)]
    z.deallocate()
    return prepared


REFUSED: dict[str, tuple[Callable[[ttnn.Tensor, ttnn.Tensor], list[Prepared]], str]] = {
    "output is input": (
        _output_is_input,
        "the output of one, at ADDRESS, shares memory with the input of another, at ADDRESS",
    ),
    "output is gamma": (
        _output_is_gamma,
        "the output of one, at ADDRESS, shares memory with the gamma of another, at ADDRESS",
    ),
    "outputs are one": (_outputs_are_one, "shares memory with the output of another, at 0x"),
    "output is a view": (_output_is_view, "shares memory with the input of another, at ADDRESS"),
    "cores": (_cores_overlap, "one takes (0, 0) to (0, 0) and another (0, 0) to (0, 0): give each a ttnn.CoreRange"),
    "shards": (_shards_overlap, "one takes (1, 1) to (1, 1) and another (0, 0) to (3, 1): give each a ttnn.CoreRange"),
    "freed": (_freed, "input must be allocated, but its buffer has been freed"),
}


@pytest.mark.parametrize(("prepare", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(device: Any, prepare: Callable[[ttnn.Tensor, ttnn.Tensor], list[Prepared]], message: str) -> None:
    # A view begins in the first bank of DRAM, of 8 or of 12.
    x, z = (upload(random_input((rows, 64)), device) for rows in (48, 24))
    prepared = prepare(x, z)
    programs = device.num_program_cache_entries()
    with pytest.raises(LayerNormArgumentError, match=re.escape(message.replace("ADDRESS", f"{x.buffer_address():#x}"))):
        run_together(*prepared)
    assert device.num_program_cache_entries() == programs


def test_l1_that_is_taken_meanwhile(device: Any) -> None:
    """By an output of another norm, for one; tensors in L1 leave less for CBs on every core."""
    x, z = (upload(random_input((4, 64)), device) for _ in range(2))
    prepared = [RMSNorm.prepare(x, None, cores=LEFT), RMSNorm.prepare(z, None, cores=RIGHT)]
    needed = prepared[0].l1_bytes
    pages = (free_l1(device) - needed) // 4096 + 1  # of each bank
    banks = ttnn.get_memory_view(device, ttnn.BufferType.L1).num_banks
    shape = ttnn.Shape([pages * banks, 2048])
    taking = ttnn.allocate_tensor_on_device(shape, ttnn.bfloat16, STICKS, device, ttnn.L1_MEMORY_CONFIG)
    left = free_l1(device)
    assert needed - 4096 <= left < needed
    with pytest.raises(
        LayerNormArgumentError, match=f"needs {needed} bytes of L1 for its CBs, but a core has {left} left"
    ):
        run_together(*prepared)
    taking.deallocate()
    assert torch.equal(*map(ttnn.to_torch, run_together(*prepared)))


def test_runs_as_often_as_it_is_given(device: Any) -> None:
    """In place, so that the second time is of the first one's result."""
    gamma, beta = random_weights(64)
    for_each = [(RMSNorm, (gamma,), LEFT), (LayerNorm, (gamma, beta), RIGHT)]
    prepared, expected = [], []
    for norm, weights, cores in for_each:
        x, once = (upload(random_input((3, 64)), device) for _ in range(2))
        on_device = [upload(weight, device) for weight in weights]
        prepared.append(norm.prepare(x, *on_device, x, cores=cores))
        expected.append(ttnn.to_torch(norm.op(norm.op(once, *on_device), *on_device)))
    run_together(*prepared)
    outputs = run_together(*prepared)
    assert all(torch.equal(ttnn.to_torch(y), wanted) for y, wanted in zip(outputs, expected, strict=True))


def test_modules(device: Any) -> None:
    """Of a decoder block while it decodes."""
    norms, inputs = [], []
    for width, cores in ((1536, LEFT), (512, RIGHT)):
        gamma, _ = random_weights(width)
        norms.append(TtRMSNorm(width, gamma.flatten(), epsilon=1e-6, device=device, cores=cores))
        inputs.append(upload(random_input((1, width)), device))
    outputs = run_together(*(norm.prepare(x) for norm, x in zip(norms, inputs, strict=True)))
    assert [norm.launches for norm in norms] == [1, 1]
    for y, norm, x in zip(outputs, norms, inputs, strict=True):
        assert torch.equal(ttnn.to_torch(y), ttnn.to_torch(norm(x)))
