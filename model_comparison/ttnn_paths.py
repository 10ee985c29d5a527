# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Norms of DeepSeek's attention on ttnn paths, as a graph that is written in ttnn has them: `ttnn.linear`, the norm of
the tiles that it left in DRAM, `ttnn.linear`.

HuggingFace's forward stays as it is. Each module of a path has a stand-in, which takes the tensor that the one before
left on the device, and gives the forward a copy of its own result. One that the forward calls with anything but the
copy of the one before raises: between two of them nothing is uploaded or converted.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
import ttnn
from torch import nn

from integration import NormError, TtNorm
from model_comparison.peers import exact_config


class TtnnPath(NamedTuple):
    """Modules of a decoder layer by their names: a linear, the norm of its first columns, and the linear of that."""

    before: str
    norm: str
    after: str | None


PATHS = (
    TtnnPath("self_attn.q_a_proj", "self_attn.q_a_layernorm", "self_attn.q_b_proj"),
    TtnnPath("self_attn.kv_a_proj_with_mqa", "self_attn.kv_a_layernorm", "self_attn.kv_b_proj"),
    TtnnPath("self_attn.indexer.wk", "self_attn.indexer.k_norm", None),  # the keys: a rotation follows
)


def find_paths(layer: nn.Module, norms: Collection[str]) -> list[TtnnPath]:
    """The paths whose norms are among `norms`, module names in `layer`.

    Raises:
        NormError: there is none, or a path has weights that are not bfloat16, or a linear with a bias
    """
    paths = [path for path in PATHS if path.norm in norms]
    if not paths:
        on_paths = ", ".join(path.norm for path in PATHS)
        raise NormError(f"a ttnn graph needs one of {on_paths}, but the norms are {', '.join(norms)}")
    for name in (name for path in paths for name in path if name):
        module = layer.get_submodule(name)
        for kind, weight in module.named_parameters():
            if weight.dtype != torch.bfloat16:
                raise NormError(f"{name}.{kind} must be {torch.bfloat16} in a ttnn graph, but is {weight.dtype}")
        if isinstance(module, nn.Linear) and module.bias is not None:
            raise NormError(f"{name}.bias must be None in a ttnn graph, but has shape {tuple(module.bias.shape)}")
    return paths


@contextmanager
def on_ttnn_paths(
    layer: nn.Module,
    paths: Collection[TtnnPath],
    norms: Mapping[str, TtNorm],
    device: ttnn.Device,
    *,
    isolated: bool = False,
) -> Iterator[None]:
    """Inside the context, the modules of `paths` in `layer` run on `device`.

    Args:
        paths: what `find_paths` found
        norms: by module name, those of `paths` at least
        isolated: the norms alone, each on the tiles of what it is called with
    Raises:
        NormError: from a stand-in that is called with something else than the one before gave
    """
    hidden_states = _Upload(device)
    stand_ins: dict[str, _StandIn] = {}
    for path in paths:
        if isolated:
            stand_ins[path.norm] = _StandIn(path.norm, hidden_states.take, norms[path.norm])
            continue
        before = _StandIn(path.before, hidden_states.take, _linear(layer, path.before, device))
        norm = _StandIn(path.norm, before.take, norms[path.norm])
        stand_ins |= {path.before: before, path.norm: norm}
        if path.after:
            stand_ins[path.after] = _StandIn(path.after, norm.take, _linear(layer, path.after, device))
    modules = {name: layer.get_submodule(name) for name in stand_ins}
    try:
        for name, stand_in in stand_ins.items():
            layer.set_submodule(name, stand_in)
        yield
    finally:
        for name, module in modules.items():
            layer.set_submodule(name, module)


class _Result(NamedTuple):
    """A tensor (..., N) bfloat16, TILE in DRAM, and its copy."""

    on_device: ttnn.Tensor
    copy: torch.Tensor

    def begins_with(self, x: torch.Tensor) -> bool:
        """Whether `x` is, bit by bit, its rows' first columns."""
        rows, given = (t.reshape(-1, t.shape[-1]) for t in (self.copy, x))
        return torch.equal(_bits(rows[:, : x.shape[-1]]), _bits(given))


class _Upload:
    """The paths' input: what several of them are called with is uploaded once."""

    def __init__(self, device: ttnn.Device) -> None:
        self.device = device
        self._last: _Result | None = None

    def take(self, x: torch.Tensor, _: str) -> ttnn.Tensor:
        """`x` (..., N) bfloat16 as TILE in DRAM."""
        if self._last is None or self._last.copy.shape != x.shape or not self._last.begins_with(x):
            self._last = _Result(_as_tiles(x, self.device), x.clone())
        return self._last.on_device


class _StandIn(nn.Module):
    """Runs `op` on what `take` has of the tensor that it is called with, and gives back a copy of the result.

    Args:
        name: of the module in whose place it is
        take: from a tensor that a stand-in is called with, and that one's name, to the tensor on the device
        op: from (..., N) to (..., M), both TILE in DRAM
    """

    def __init__(
        self, name: str, take: Callable[[torch.Tensor, str], ttnn.Tensor], op: Callable[[ttnn.Tensor], ttnn.Tensor]
    ) -> None:
        super().__init__()
        self.name = name
        self.op = op
        self._take = take
        self._result: _Result | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., N) to (..., M) bfloat16."""
        on_device = self.op(self._take(x, self.name))
        self._result = _Result(on_device, ttnn.to_torch(on_device))
        return self._result.copy.reshape(*x.shape[:-1], -1).clone()

    def take(self, x: torch.Tensor, by: str) -> ttnn.Tensor:
        """The result on the device, if `x` is its copy; its first columns, if `x` is those.

        Raises:
            NormError: it is neither
        """
        if self._result is None or not self._result.begins_with(x):
            had = "nothing yet" if self._result is None else f"{tuple(self._result.copy.shape)} of other values"
            raise NormError(
                f"{by} must be called with what {self.name} gave, or its first columns, but was with"
                f" {tuple(x.shape)}, and that gave {had}"
            )
        on_device = self._result.on_device
        if x.shape[-1] == on_device.shape[-1]:
            return on_device
        ends = [*list(on_device.shape)[:-1], x.shape[-1]]
        return ttnn.slice(on_device, [0] * len(ends), ends)


def _linear(layer: nn.Module, name: str, device: ttnn.Device) -> Callable[[ttnn.Tensor], ttnn.Tensor]:
    """On one core: with several, ttnn's multicasts deadlock on wolfpine, and ttsim's Wormhole ends where float32
    partial sums come back from L1 through SrcA."""
    return partial(
        ttnn.linear,
        input_tensor_b=_as_tiles(layer.get_parameter(f"{name}.weight").T, device),
        memory_config=ttnn.DRAM_MEMORY_CONFIG,
        core_grid=ttnn.CoreGrid(x=1, y=1),
        compute_kernel_config=exact_config(device),
    )


def _as_tiles(x: torch.Tensor, device: ttnn.Device) -> ttnn.Tensor:
    return ttnn.from_torch(
        x.contiguous(), layout=ttnn.TILE_LAYOUT, device=device, memory_config=ttnn.DRAM_MEMORY_CONFIG
    )


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int16)  # a NaN is not equal to itself
