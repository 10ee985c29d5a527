# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Trying a module on the CPU: a twin with weights that tell, and what it is called with."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from integration.formula import Formula

# Attributes that every module has, and what compile() sets: forward computes the same whatever they are.
INTERNAL = vars(nn.Module()).keys() | {"_compiled_call_impl"}
KNOWN = (bool, int, float, str, list, tuple, dict, set, torch.Tensor, type(None))  # types of attributes
FEW_ELEMENTS = 4096  # of `ordinary_input`, at least; enough to tell a quarter of the elements from nothing
MANY_ELEMENTS = 2**15  # of the input with the most rows; torch splits larger ones among threads, which costs time
# Of rows, beside sqrt(epsilon), where it tells. A row of zeros gives beta; above 1e16 a sum of squares leaves float32.
MAGNITUDES = (0.0, 1.0, 1e4, 1e8, 1e16)


class NotANormError(ValueError):
    """A module that the kernels can't stand in for; the message says why."""


class ForwardFailsError(NotANormError):
    """Its forward raised, rather than give something else."""


class Probe:
    """A twin of a module with random weights, since a module's own are often all ones, which tell nothing.

    Its calls leave the module alone: the twin has copies of all tensors and containers.
    """

    def __init__(self, module: nn.Module, weights_dtype: torch.dtype) -> None:
        """
        Raises:
            NotANormError: the module keeps what can't be copied
        """
        generator = torch.Generator().manual_seed(0)
        self._twin = copy.copy(module)
        vars(self._twin).update(_copies(_attributes(module)))
        self._twin._buffers = _copies(module._buffers)
        self._twin._parameters = module._parameters | {
            name: nn.Parameter(_randn(*parameter.shape, generator=generator).to(weights_dtype), requires_grad=False)
            for name, parameter in module.named_parameters()
        }
        self._before = _copies(_attributes(self._twin) | self._twin._buffers)

    @torch.no_grad()
    def run(self, x: torch.Tensor, training: bool = False) -> torch.Tensor:
        """What the module's forward makes of `x`, of the same shape and dtype.

        Raises:
            ForwardFailsError: it raises
            NotANormError: it gives something else than a tensor like x, or changes x
        """
        self._twin.training = training
        given = x.clone()
        try:
            with warnings.catch_warnings(action="ignore"):
                y = type(self._twin).forward(self._twin, given)  # not by call: hooks are for the model's own runs
        except Exception as error:
            raise ForwardFailsError(f"its forward fails on a tensor of shape {tuple(x.shape)}: {error}") from error
        if not isinstance(y, torch.Tensor) or (y.shape, y.dtype, y.device) != (x.shape, x.dtype, x.device):
            got = f"{tuple(y.shape)} {y.dtype} on {y.device}" if isinstance(y, torch.Tensor) else type(y).__name__
            raise NotANormError(f"it gives {got} for a tensor of {tuple(x.shape)} {x.dtype} on {x.device}")
        if not torch.equal(given.view(torch.uint8), x.view(torch.uint8)):
            raise NotANormError("its forward changes its input")
        return y

    def golden(self, formula: Formula, x: torch.Tensor) -> torch.Tensor:
        """What `formula` makes of `x` with the twin's weights, float64."""
        names = (formula.gamma, formula.beta)
        return formula.golden(x, *(None if name is None else self._twin.get_parameter(name) for name in names))

    def changed(self) -> list[str]:
        """Names of the attributes and buffers that are no longer as they were before the first call."""
        now = _attributes(self._twin) | self._twin._buffers
        return [name for name, value in now.items() if name not in self._before or not _same(self._before[name], value)]


def ordinary_input(width: int, epsilon: float) -> torch.Tensor:
    """(2, rows, W) float32: rows about as large as sqrt(epsilon), where it tells, and rows of order one."""
    rows = max(3, FEW_ELEMENTS // width)
    return _rows(width, [epsilon**0.5] * rows + [1.0] * rows).reshape(2, rows, width)


def all_inputs(width: int, epsilon: float, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors (..., W) with what they are: ranks 1 to 5, one row and many, rows of one magnitude and of all."""
    magnitudes = (epsilon**0.5, *MAGNITUDES)
    for magnitude in magnitudes:
        what = f"rows of magnitude {magnitude:g}"
        for shape in ((width,), (2, 2, width)):
            rows = 1 if len(shape) == 1 else 4
            yield what, _rows(width, [magnitude] * rows).reshape(shape).to(dtype)
    many = max(32, MANY_ELEMENTS // width)
    for dimensions in ((1,), (3,), (many,), (1, 1), (3, 1), (2, 1, 2), (1, 2, 1, 2)):
        rows = int(torch.Size(dimensions).numel())
        mixed = [magnitudes[row % len(magnitudes)] for row in range(1, rows + 1)]
        yield "a tensor", _rows(width, mixed).reshape(*dimensions, width).to(dtype)
    bad = _rows(width, [1.0] * 3)
    bad[1, width // 2] = torch.nan
    yield "a row with a NaN, in a tensor", bad.to(dtype)


def _rows(width: int, magnitudes: list[float]) -> torch.Tensor:
    """(rows, W) float32, a row for each magnitude."""
    x = _randn(len(magnitudes), width, generator=torch.Generator().manual_seed(1)) + 0.5
    return x * torch.tensor(magnitudes, dtype=torch.float32, device="cpu").unsqueeze(-1)


def _randn(*shape: int, generator: torch.Generator) -> torch.Tensor:
    # With dtype and device, for a user may have set other defaults.
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def _attributes(module: nn.Module) -> dict[str, Any]:
    """All attributes that forward could keep something in for its next call, but for objects of classes that are not
    known here."""
    own = {name: value for name, value in vars(module).items() if name not in INTERNAL}
    return {name: value for name, value in own.items() if isinstance(value, KNOWN)}


def _copies(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(name, value) for name, value in values.items()}


def _copied(name: str, value: Any) -> Any:
    try:
        return value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
    except Exception as error:
        raise NotANormError(f"its {name} can't be copied, and its forward may change it: {error}") from error


def _same(a: Any, b: Any) -> bool:
    """Whether the two are equal, a NaN to a NaN, too. What can't be compared counts as changed."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
            return False
        return a.is_meta or bool(((a == b) | (a != a) & (b != b)).all())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    try:
        return bool(a == b) or bool(a != a and b != b)
    except Exception:  # an object's own comparison, which may do anything
        return False
