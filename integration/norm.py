# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What `TtLayerNorm` and `TtRMSNorm` share: how they are made, and a call from its arguments to the op and back."""

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
import ttnn
from torch import nn

from integration.device_weight import Copies, DeviceWeight, check_open
from integration.formula import ANY_DTYPES, DTYPES, TTNN_DTYPES, Formula
from integration.mesh import Distribution
from integration.probe import NotANormError
from integration.recognize import recognize
from micro_ops.layernorm import Cores, LayerNorm, LayerNormArgumentError, Prepared, Result, RMSNorm, run_together
from micro_ops.layernorm.op import chip_of
from micro_ops.layernorm.plan import Dtypes, make_plan
from weights_tools import Checkpoint, CheckpointError


class NormInputError(ValueError):
    """A norm was called with what the kernels don't compute; the message says what."""


class TtNorm(nn.Module):
    """A norm over the last dimension, by kernels on `device`.

    Takes a torch tensor or a ttnn tensor of shape (..., W), bfloat16 or float32, and gives back the same kind, shape
    and dtype. A norm without weights may have no W of its own: then it is each input's. A ttnn tensor stays in its
    layout, of those that the op takes. The weights are ordinary Parameters; when they change, they are uploaded anew.
    There is no backward, and no copy or pickle, for it would need the device, too: both raise.

    On a mesh each chip normalizes the rows that it holds, with weights of its own: a torch tensor's are dealt out, and
    a ttnn tensor stays as it is distributed. With `mesh_axis` the chips of that axis share rows, each with as many of
    their columns.

    Attributes:
        formula: what is computed
        device: an open device, of one chip or of a mesh: the distribution's
        distribution: how rows and columns lie on its chips
        cores: at most so many of its cores, or none but these; None allows all
        launches: how many times the kernels ran for this module, or were prepared to; the two halves over chips are
            one
        fallback: takes a call that the kernels can't, or None, which lets the error through
        fallbacks: how many times it did
    """

    subtracts_mean: bool
    weight_names: tuple[str, ...]  # in a checkpoint, below the norm's own

    def __init__(
        self,
        width: int | None,
        gamma: torch.Tensor | None = None,
        beta: torch.Tensor | None = None,
        *,
        epsilon: float,
        device: ttnn.Device,
        cores: Cores,
        mesh_axis: int | None,
        round_before_gamma: bool,
        round_inverse_rms: bool,
    ) -> None:
        super().__init__()
        for name, weight in (("gamma", gamma), ("beta", beta)):
            if weight is not None and width is None:
                raise ValueError(f"width must be that of {name}, {tuple(weight.shape)}, but is None")
            if weight is not None and (tuple(weight.shape) != (width,) or weight.dtype not in DTYPES):
                raise ValueError(
                    f"{name} must have shape ({width},) and dtype bfloat16 or float32,"
                    f" but has {tuple(weight.shape)} and {weight.dtype}"
                )
        self.register_parameter("weight", None if gamma is None else nn.Parameter(gamma, gamma.requires_grad))
        self.register_parameter("bias", None if beta is None else nn.Parameter(beta, beta.requires_grad))
        formula = Formula(
            width=width,
            epsilon=epsilon,
            subtract_mean=self.subtracts_mean,
            gamma=None if gamma is None else "weight",
            beta=None if beta is None else "bias",
            gamma_offset=0.0,
            round_before_gamma=round_before_gamma,
            dtypes=ANY_DTYPES,
            round_inverse_rms=round_inverse_rms,
        )
        self._set_up(formula, Distribution(device, mesh_axis), cores, {}, inspect.signature(_plain_forward))

    @classmethod
    def from_checkpoint(
        cls,
        folder: str | Path,
        prefix: str,
        *,
        device: ttnn.Device,
        epsilon: float = 1e-6,
        dtype: torch.dtype = torch.bfloat16,
        cores: Cores = None,
        mesh_axis: int | None = None,
        **order: bool,
    ) -> Self:
        """The norm whose weights lie below `prefix` in the checkpoint `folder`: `weight`, and a LayerNorm's `bias`.

        Args:
            epsilon: the default is DeepSeek's `rms_norm_eps`, and what HuggingFace's code holds fixed for q_a, kv_a and
                the indexer's k_norm, of which no config.json tells
            dtype: bfloat16 or float32, to which the weights are rounded, as HuggingFace does when it loads a model
            cores: at most so many of the device's cores, or none but these; None allows all
            mesh_axis: as `TtLayerNorm`'s
            order: of rounding, as `TtRMSNorm` takes it: DeepSeek-V4's norms with weights take
                `round_before_gamma=False`, and float32 weights
        Raises:
            CheckpointError: the checkpoint can't be read, or has no such weights
        """
        weights = Checkpoint(folder).norm(prefix, dtype)
        if weights.keys() != set(cls.weight_names):
            needed, held = " and ".join(cls.weight_names), ", ".join(weights)
            raise CheckpointError(f"{folder}: {prefix} must hold {needed}, but holds {held}")
        gamma, *beta = (weights[name] for name in cls.weight_names)
        keywords: dict[str, Any] = {"device": device, "cores": cores, "mesh_axis": mesh_axis, **order}
        # A subclass knows its own order of rounding.
        return cls(gamma.shape[-1], gamma, *beta, epsilon=epsilon, **keywords)

    @classmethod
    def from_torch(
        cls, layer: nn.Module, *, device: ttnn.Device, cores: Cores = None, mesh_axis: int | None = None
    ) -> Self:
        """The same norm as `layer`, whatever its class: `recognize` finds what it computes.

        It shares all that `layer` is made of, Parameters, hooks and attributes: what is done to one (load_state_dict,
        .to(), a hook) is done to both. Code that `layer.compile()` made is not taken over.

        Args:
            cores: at most so many of the device's cores, or none but these; None allows all
            mesh_axis: as `TtLayerNorm`'s

        Raises:
            NotANormError: the kernels don't compute what `layer` does, or it is the other one of the two norms
        """
        return cls.standing_for(layer, recognize(layer), Distribution(device, mesh_axis), cores, {})

    @classmethod
    def standing_for(
        cls, layer: nn.Module, formula: Formula, distribution: Distribution, cores: Cores, copies: Copies
    ) -> Self:
        """`from_torch` for a `layer` that was recognized as `formula`.

        Args:
            copies: what is on the device already; what is missing is added to it
        """
        if formula.subtract_mean != cls.subtracts_mean:
            kind = "a LayerNorm" if formula.subtract_mean else "an RMSNorm"
            raise NotANormError(f"{type(layer).__name__} is {kind}, which {cls.__name__} does not compute")
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        vars(self).update(vars(layer))
        vars(self).pop("_compiled_call_impl", None)  # else a call would run that, not our forward
        self._set_up(formula, distribution, cores, copies, inspect.signature(layer.forward))
        return self

    @property
    def device(self) -> ttnn.Device:
        return self.distribution.device

    @property
    def width(self) -> int | None:
        """W; None where the input tells it."""
        return self.formula.width

    @property
    def epsilon(self) -> float:
        return self.formula.epsilon

    @property
    def gamma(self) -> ttnn.Tensor | None:
        """`paged_shape(W)` row-major in DRAM, of the values that the Parameter has now."""
        return self._gamma.of(self._weight(self.formula.gamma)) if self._gamma else None

    @property
    def beta(self) -> ttnn.Tensor | None:
        """`paged_shape(W)` row-major in DRAM, of the values that the Parameter has now."""
        return self._beta.of(self._weight(self.formula.beta)) if self._beta else None

    def op(self, x: ttnn.Tensor, **keywords: Any) -> Result:
        """The norm of `x`, in any layout of the op's, as its `op` gives it back; keywords are the op's own: `residual`,
        `memory_config`, `layout`, ..."""
        if self.distribution.columns_axis is None:
            return run_together(self.prepare(x, **keywords))[0]
        return self._over_chips(x, **keywords)

    def prepare(self, x: ttnn.Tensor, **keywords: Any) -> Prepared:
        """The norm of `x`, for `run_together` with those of other modules, on other cores. Counted in `launches` now.

        Args:
            x: (..., W) bfloat16 or float32, as `LayerNorm.prepare` takes it
            keywords: that method's own: `residual`, `memory_config`, `layout`, ...
        Raises:
            LayerNormArgumentError: as `LayerNorm.prepare`
            RuntimeError: the device is closed
        """
        check_open(self.device)
        if self.distribution.columns_axis is not None:
            raise LayerNormArgumentError(
                "a norm whose columns are cut over chips has more launches than one: `op` runs them"
            )
        prepared = self._prepare(x, **keywords)
        self.launches += 1
        return prepared

    def _over_chips(
        self,
        x: ttnn.Tensor,
        *,
        residual: ttnn.Tensor | None = None,
        residual_output: ttnn.Tensor | None = None,
        **keywords: Any,
    ) -> Result:
        """`op` where columns are cut over the chips of an axis of the mesh: each chip's statistics, gathered, and the
        result."""
        check_open(self.device)
        self.distribution.check(x, self.width)
        norm = LayerNorm if self.subtracts_mean else RMSNorm
        made = norm.partial_statistics(x, residual=residual, residual_output=residual_output, cores=self.cores)
        statistics, source = made if isinstance(made, tuple) else (made, x)
        if self.distribution.across > 1 and 0 not in tuple(x.shape):
            statistics = ttnn.all_gather(statistics, dim=0, cluster_axis=self.distribution.columns_axis)
        y = self._normalize_with(source, statistics, **keywords)
        self.launches += 1
        return y if residual is None else (y, source)

    @abstractmethod
    def _normalize_with(self, x: ttnn.Tensor, statistics: ttnn.Tensor, **keywords: Any) -> ttnn.Tensor:
        """The norm of `x`, from the statistics of all chips, with the weights that the Parameters have now."""

    @abstractmethod
    def _prepare(self, x: ttnn.Tensor, **keywords: Any) -> Prepared:
        """The norm of `x`, with the weights that the Parameters have now."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Takes what the original's forward takes: its tensor by position or name, other arguments at their defaults.

        Args:
            x: (..., W) bfloat16 or float32, torch or ttnn
        Raises:
            NormInputError: another width or dtype, a row too wide for L1, or another argument
            TypeError: neither kind of tensor, or arguments that the original does not take
            LayerNormArgumentError: a ttnn tensor of a layout or in a place that the op does not take, or a row too wide
            RuntimeError: the device is closed
        """
        x, others = self._arguments(args, kwargs)
        check_open(self.device)
        if not others and not isinstance(x, torch.Tensor | ttnn.Tensor):
            raise TypeError(f"x must be a torch or ttnn tensor, but is {type(x).__name__}")
        if not others and isinstance(x, ttnn.Tensor):
            return self.op(x)
        if reason := others or self._refusal(x):
            if self.fallback is None or isinstance(x, ttnn.Tensor):
                raise NormInputError(reason)
            self.fallbacks += 1
            return self.fallback(*args, **kwargs)
        weights = [self._parameters[name] for name in (self.formula.gamma, self.formula.beta) if name]
        return _NoBackward.apply(self._run, x, *weights)

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is bound to its device, and can't be copied or pickled:"
            " restore() the model first, or save its state_dict()"
        )

    def extra_repr(self) -> str:
        return f"{self.formula.width_text}, eps={self.epsilon}, launches={self.launches}"

    def _set_up(
        self,
        formula: Formula,
        distribution: Distribution,
        cores: Cores,
        copies: Copies,
        signature: inspect.Signature,
    ) -> None:
        """Sets what is not nn.Module's, and uploads the weights: one that can't be uploaded is an error now, not at the
        first call."""
        self.formula = formula
        self.distribution = distribution
        self.cores = cores
        self.launches = self.fallbacks = 0
        self.fallback: Callable[..., Any] | None = None
        self._signature = signature
        check_open(self.device)
        if reason := distribution.refusal(formula.width):
            raise ValueError(reason)

        def copy(name: str | None, offset: float) -> DeviceWeight | None:
            new = DeviceWeight(distribution, offset)
            return copies.setdefault((id(self._weight(name)), offset), new) if name else None

        self._gamma, self._beta = copy(formula.gamma, formula.gamma_offset), copy(formula.beta, 0.0)
        _ = self.gamma, self.beta  # uploads them

    def _weight(self, name: str | None) -> torch.Tensor:
        weight = self._parameters[name] if name else None
        assert weight is not None
        return weight

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
        """The tensor among a call's arguments, and why the kernels can't serve the others, or "".

        Raises:
            TypeError: the original's forward does not take these arguments
        """
        if len(args) == 1 and not kwargs:
            return args[0], ""
        first, *_ = parameters = self._signature.parameters
        given = self._signature.bind(*args, **kwargs).arguments
        x = given.pop(first, None)
        if parameters[first].kind == inspect.Parameter.VAR_POSITIONAL:
            x, *rest = x or (None,)
            given |= {first: rest} if rest else {}
        others = [name for name, value in given.items() if not _is_default(value, parameters[name])]
        return x, f"the kernels compute {first} alone, but {', '.join(others)} was given, too" if others else ""

    def _refusal(self, x: torch.Tensor) -> str:
        """Why the kernels can't compute the norm of `x`, or ""."""
        weights_dtype = next((weight.dtype for weight in self.parameters()), None)
        allowed = sorted({str(of_x) for of_x, of_weights in self.formula.dtypes if weights_dtype in (None, of_weights)})
        if not allowed:
            taken = sorted({str(of_weights) for _, of_weights in self.formula.dtypes})
            return f"the weights must be {' or '.join(taken)}, but are {weights_dtype}"
        columns = x.shape[-1] if x.ndim else 0
        if columns == 0 or self.width not in (None, columns) or str(x.dtype) not in allowed:
            return (
                f"x must have shape (..., {self.width or 'W'}) and dtype {' or '.join(allowed)},"
                f" but x.shape={tuple(x.shape)} and x.dtype={x.dtype}"
            )
        if reason := self.distribution.refusal(columns):
            return reason
        gamma, beta = (None if weight is None else weight.dtype for weight in (self.gamma, self.beta))
        try:
            make_plan(
                (self.distribution.rows_of_chip(math.prod(x.shape[:-1])), columns // self.distribution.across),
                Dtypes(TTNN_DTYPES[x.dtype], gamma, beta),
                chip_of(self.device, self.cores),
            )
        except LayerNormArgumentError as error:
            return str(error)
        return ""

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        rows = math.prod(x.shape[:-1])
        if rows == 0:
            return torch.empty_like(x)
        y = self.op(self.distribution.upload(x.detach().cpu().reshape(rows, x.shape[-1])))
        return self.distribution.download(y, rows).reshape(x.shape).to(x.device)


class _NoBackward(torch.autograd.Function):
    """Runs `run` on x; a gradient that would have to pass it is an error, not a silent zero."""

    @staticmethod
    def forward(_: Any, run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *_weights: torch.Tensor) -> Any:
        return run(x)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> Any:
        raise NotImplementedError("the norms on the device have no backward: they are for inference")


def _plain_forward(x: object) -> None:
    """What a norm takes that stands for no other."""


def _is_default(value: object, parameter: inspect.Parameter) -> bool:
    if parameter.kind == inspect.Parameter.VAR_KEYWORD:
        return not value
    return value is parameter.default or (isinstance(value, bool | int | float | str) and value == parameter.default)
