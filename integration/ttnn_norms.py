# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The norms with ttnn's own signatures, for a graph that is written in ttnn.

>>> from integration.ttnn_norms import rms_norm  # in the place of: from ttnn import rms_norm
>>> with replace_ttnn_norms() as replaced:  # or without a change to the graph  # doctest: +SKIP
...     model(x)
...     print(replaced)
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple, Self

import ttnn
from rich.table import Table

from integration.text import as_text, new_table
from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, Result, RMSNorm

type ProgramConfig = ttnn.LayerNormDefaultProgramConfig | ttnn.LayerNormShardedMultiCoreProgramConfig


def rms_norm(
    input_tensor: ttnn.Tensor,
    *,
    epsilon: float = 1e-12,
    weight: ttnn.Tensor | None = None,
    bias: ttnn.Tensor | None = None,
    residual_input_tensor: ttnn.Tensor | None = None,
    memory_config: ttnn.MemoryConfig | None = None,
    program_config: ProgramConfig | None = None,
    compute_kernel_config: ttnn.WormholeComputeKernelConfig | None = None,  # noqa: ARG001
) -> ttnn.Tensor:
    """`RMSNorm.op` as `ttnn.rms_norm` is called. It rounds once, after gamma, as that does.

    Args:
        input_tensor, weight, epsilon: as `RMSNorm.op`'s input_tensor, gamma_tensor, epsilon
        bias: None
        residual_input_tensor, memory_config, program_config: as `layer_norm`'s
        compute_kernel_config: ignored: all on the way is float32
    Raises:
        LayerNormArgumentError: as `layer_norm`; or a bias
    """
    if bias is not None:
        raise LayerNormArgumentError(
            "bias must be None: the kernels add none to an RMSNorm; use ttnn.add(rms_norm(...), bias)"
        )
    keywords = _place(input_tensor, memory_config, program_config)
    return _normalized(RMSNorm.op(input_tensor, weight, epsilon=epsilon, residual=residual_input_tensor, **keywords))


def layer_norm(
    input_tensor: ttnn.Tensor,
    *,
    epsilon: float = 1e-12,
    weight: ttnn.Tensor | None = None,
    bias: ttnn.Tensor | None = None,
    residual_input_tensor: ttnn.Tensor | None = None,
    memory_config: ttnn.MemoryConfig | None = None,
    program_config: ProgramConfig | None = None,
    compute_kernel_config: ttnn.WormholeComputeKernelConfig | None = None,  # noqa: ARG001
    recip_tensor: ttnn.Tensor | None = None,  # noqa: ARG001
) -> ttnn.Tensor:
    """`LayerNorm.op` as `ttnn.layer_norm` is called.

    Args:
        input_tensor, weight, bias, epsilon: as `LayerNorm.op`'s input_tensor, gamma_tensor, beta_tensor, epsilon
        memory_config: as `LayerNorm.op`'s; a sharded one without a shard spec means the input's shards, as in ttnn
        residual_input_tensor: as `LayerNorm.op`'s residual. As in ttnn the sum itself is not given back; that op does.
        program_config: the norm of an interleaved tensor has no cores but those of `compute_with_storage_grid_size`;
            that of a sharded one runs where its shards are. With `inplace` the result overwrites the input. All else
            that it holds is about ttnn's kernels, and ignored.
        compute_kernel_config, recip_tensor: ignored: all on the way is float32, by the kernels' own way
    Raises:
        LayerNormArgumentError: what `LayerNorm.op` does not take
    """
    keywords = _place(input_tensor, memory_config, program_config)
    return _normalized(
        LayerNorm.op(input_tensor, weight, bias, epsilon=epsilon, residual=residual_input_tensor, **keywords)
    )


def _normalized(result: Result) -> ttnn.Tensor:
    return result[0] if isinstance(result, tuple) else result


def _place(
    input_tensor: ttnn.Tensor, memory_config: ttnn.MemoryConfig | None, program_config: ProgramConfig | None
) -> dict[str, Any]:
    """The ops' `cores`, `memory_config` and `output_tensor`."""
    if not isinstance(input_tensor, ttnn.Tensor):
        return {}  # the op says so
    own = input_tensor.memory_config()
    if memory_config and memory_config.is_sharded() and memory_config.shard_spec is None:
        same = (memory_config.memory_layout, memory_config.buffer_type) == (own.memory_layout, own.buffer_type)
        memory_config = own if same else memory_config
    place = {"memory_config": memory_config}
    if program_config is None or isinstance(program_config, ttnn.LayerNormDefaultProgramConfig):
        return place
    if not isinstance(program_config, ttnn.LayerNormShardedMultiCoreProgramConfig):
        raise LayerNormArgumentError(
            "program_config must be a LayerNormDefaultProgramConfig or a LayerNormShardedMultiCoreProgramConfig,"
            f" but is {type(program_config).__name__}"
        )
    if program_config.inplace:
        place["output_tensor"] = input_tensor
    if not own.is_sharded():
        grid = program_config.compute_with_storage_grid_size
        place["cores"] = ttnn.CoreRange((0, 0), (grid.x - 1, grid.y - 1))
    return place


# --- In ttnn's place ---


class CallSite(NamedTuple):
    """A line that calls a norm of ttnn's.

    Attributes:
        norm: "rms_norm" or "layer_norm"
    """

    file: str
    line: int
    norm: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass
class Calls:
    """Of one call site.

    Attributes:
        launches: how many the kernels served
        fallbacks: how many ttnn's own op served
        unserved: how many the kernels could not serve, by the reason
    """

    launches: int = 0
    fallbacks: int = 0
    unserved: Counter[str] = field(default_factory=Counter)


class TtnnReplacement:
    """`rms_norm` and `layer_norm` stand in ttnn's place until `restore()`, or the end of the `with` block. Prints as a
    table.

    Attributes:
        sites: the calls of each line that has called a norm
        fallback: whether ttnn's own op serves what the kernels can't
    """

    sites: dict[CallSite, Calls]

    def __init__(self, fallback: bool) -> None:
        self.sites = {}
        self.fallback = fallback
        if not _active:
            for norm in (rms_norm, layer_norm):
                _own[norm.__name__] = own = getattr(ttnn, norm.__name__)
                setattr(ttnn, norm.__name__, _stand_in(norm, own))
        _active.append(self)

    def restore(self) -> None:
        """Puts ttnn's own norms back, unless other replacements are in effect. Does nothing the second time."""
        if self in _active:
            _active.remove(self)
            if not _active:
                for name, own in _own.items():
                    setattr(ttnn, name, own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def __rich__(self) -> Table:
        table = new_table("call site", "norm", "launches", "fallbacks", "not served")
        for site, calls in self.sites.items():
            unserved = [f"{count} x {reason}" for reason, count in calls.unserved.items()]
            table.add_row(str(site), site.norm, str(calls.launches), str(calls.fallbacks), "\n".join(unserved))
        return table

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def call(self, norm: Callable[[], ttnn.Tensor], own: Callable[[], ttnn.Tensor], site: CallSite) -> ttnn.Tensor:
        """Runs `norm`, or `own` where the kernels can't serve the call and that is wanted, and counts it.

        Raises:
            LayerNormArgumentError: the kernels can't serve it, and there is no fallback
        """
        try:
            y = norm()
        except LayerNormArgumentError as error:
            calls = self.sites.setdefault(site, Calls())
            calls.unserved[str(error)] += 1
            if not self.fallback:
                raise
            y = own()
            calls.fallbacks += 1
        else:
            self.sites.setdefault(site, Calls()).launches += 1
        return y


_active: list[TtnnReplacement] = []  # the last one counts the calls
_own: dict[str, Callable[..., ttnn.Tensor]] = {}  # by name, what was in ttnn before the first of them


def replace_ttnn_norms(*, fallback: bool = False) -> TtnnReplacement:
    """Puts `rms_norm` and `layer_norm` in the place of `ttnn.rms_norm` and `ttnn.layer_norm`, for a graph that is not
    to be edited.

    A module that has done `from ttnn import rms_norm` before keeps ttnn's own. Of nested replacements the innermost
    serves and counts a call.

    Args:
        fallback: ttnn's own op serves a call that the kernels can't, and it is counted, where else it raises
    """
    return TtnnReplacement(fallback)


def _stand_in(norm: Callable[..., ttnn.Tensor], own: Callable[..., ttnn.Tensor]) -> Callable[..., ttnn.Tensor]:
    @wraps(norm)
    def stand_in(*args: Any, **kwargs: Any) -> ttnn.Tensor:
        if not _active:  # a module has imported it by name, and kept it
            return own(*args, **kwargs)
        frame = sys._getframe(1)
        site = CallSite(frame.f_code.co_filename, frame.f_lineno, norm.__name__)
        return _active[-1].call(lambda: norm(*args, **kwargs), lambda: own(*args, **kwargs), site)

    return stand_in
