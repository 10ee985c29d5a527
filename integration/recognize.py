"""What a norm module computes, found by trying it: no list of models, no trust in names.

A module is run on the CPU with random weights, and its output is compared with the formulas that the kernels know:

    y = (x - mean) / sqrt(variance + eps) * (gamma + offset) + beta          LayerNorm, offset 0 or 1
    y =          x / sqrt(mean(x^2) + eps) * (gamma + offset) + beta         RMSNorm, offset 0 or 1 (Gemma, Qwen3-Next)

First in float32, which tells the formula and which attribute holds eps; then in bfloat16, which tells whether the
normalized value is rounded before it is multiplied by gamma (Llama and DeepSeek in transformers) or not (torch's own,
DeepSeek's own).
"""

import copy
import itertools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from micro_ops.layernorm.op import LayerNormSingleCore, RMSNormSingleCore

DTYPES = (torch.bfloat16, torch.float32)
ANY_DTYPES = frozenset(itertools.product(DTYPES, DTYPES))
# In float32 a right formula is within 1e-6 of float64 and a wrong one, or an eps that is 1% off, farther than 1e-3.
MAX_RELATIVE_NORM = 1e-4
# In bfloat16 the right order of rounding differs in near-ties alone, the wrong one in a quarter of the elements.
MIN_EXACT = 0.97
PROBE_ELEMENTS = 4096  # at least; enough to tell a quarter from nothing


class NotANormError(ValueError):
    """A module that the kernels can't stand in for; the message says why."""


@dataclass(frozen=True)
class Norm:
    """What a module computes over the last dimension.

    Attributes:
        width: W
        eps: added to the variance or mean square
        subtract_mean: LayerNorm, else RMSNorm
        gamma, beta: names of the parameters (W,), or None where there is none
        gamma_offset: added to gamma; 1 where gamma is kept as its distance from 1
        round_before_gamma: the normalized value is rounded to bfloat16 before it is multiplied by gamma
        dtypes: pairs of the input's type and the weights', for which this holds; the output has the input's
    """

    width: int
    eps: float
    subtract_mean: bool
    gamma: str | None
    beta: str | None
    gamma_offset: float
    round_before_gamma: bool
    dtypes: frozenset[tuple[torch.dtype, torch.dtype]]

    def golden(self, x: torch.Tensor, gamma: torch.Tensor | None, beta: torch.Tensor | None) -> torch.Tensor:
        """The norm of `x` (..., W) in float64, rounded to x's dtype before gamma where the module does that.

        Args:
            gamma, beta: (W,), as the module keeps them
        """
        if gamma is not None:
            gamma = gamma.detach().double() + self.gamma_offset
        if self.subtract_mean:
            return LayerNormSingleCore.golden(x, gamma, None if beta is None else beta.detach(), self.eps)
        return RMSNormSingleCore.golden(x, gamma, self.eps, self.round_before_gamma)


def recognize(module: nn.Module) -> Norm:
    """What `module` computes.

    Raises:
        NotANormError: nothing that the kernels compute, or nothing that could be made sure of
    """
    if next(module.children(), None) is not None:
        raise NotANormError("it has submodules")
    if "forward" in vars(module):
        raise NotANormError("its forward is patched on the instance, and would be lost")
    width = _width(module)
    gamma, beta = _weight_names(module)
    norm = _formula(module, width, gamma, beta)
    reason = ""
    for weights in DTYPES:  # bfloat16 first, which settles the order
        try:
            order = _rounds_before_gamma(module, norm, weights)
        except NotANormError as error:
            reason = reason or str(error)
            continue
        if weights == torch.bfloat16 or order == norm.round_before_gamma:
            norm = replace(norm, round_before_gamma=order, dtypes=norm.dtypes | {(torch.bfloat16, weights)})
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES):
        raise NotANormError(f"its weights are {_join(dtypes)}, but all must be bfloat16, or all float32")
    if not dtypes <= {weights for _, weights in norm.dtypes}:
        raise NotANormError(reason)
    return norm


def _width(module: nn.Module) -> int:
    shapes = {tuple(parameter.shape) for parameter in module.parameters()}
    if not shapes and isinstance(module, nn.LayerNorm | nn.RMSNorm):
        shapes = {tuple(module.normalized_shape)}
    if not shapes:
        raise NotANormError("it has neither a weight nor a normalized_shape to tell its width")
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise NotANormError(f"its weights must have one shape (W,), but have {_join(shapes)}")
    return int(shapes.pop()[0])


def _weight_names(module: nn.Module) -> tuple[str | None, str | None]:
    names = [name for name, parameter in module.named_parameters()]
    if len(names) > 2:
        raise NotANormError(f"it has {len(names)} weights: {', '.join(names)}; a norm has gamma and beta")
    names.sort(key=lambda name: name.startswith("b"))  # bias, beta
    gamma, beta = (*names, None, None)[:2]
    return gamma, beta


def _eps_candidates(module: nn.Module) -> list[float]:
    """Every number between 0 and 1 that the module keeps, whatever its name."""
    kept = (*vars(module).values(), *module.buffers(recurse=False))
    values = [v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 and not v.is_meta else v for v in kept]
    candidates = list(dict.fromkeys(value for value in values if isinstance(value, float) and 0 < value < 1))
    if getattr(module, "eps", 0) is None:
        candidates.append(torch.finfo(torch.float32).eps)  # what torch's RMSNorm takes None for, in bfloat16 too
    return candidates


def _formula(module: nn.Module, width: int, gamma: str | None, beta: str | None) -> Norm:
    candidates = _eps_candidates(module)
    if not candidates:
        raise NotANormError("it keeps no number between 0 and 1 that could be its eps")
    for eps in candidates:
        probe, x = _probe(module, torch.float32), _probe_input(width, eps)
        y = _run(probe, x).double()
        for subtract_mean, offset in itertools.product((True, False), (0.0, 1.0) if gamma else (0.0,)):
            if beta and not subtract_mean:
                continue  # the kernels know no RMSNorm with beta
            norm = Norm(
                width, eps, subtract_mean, gamma, beta, offset, False, frozenset([(torch.float32, torch.float32)])
            )
            expected = norm.golden(x, *_weights(probe, norm))
            # Row by row: the small ones must not hide behind the others.
            if ((y - expected).norm(dim=-1) <= MAX_RELATIVE_NORM * expected.norm(dim=-1)).all():
                return norm
    raise NotANormError(f"it is no LayerNorm or RMSNorm over the last dimension with eps {_join(candidates)}")


def _rounds_before_gamma(module: nn.Module, norm: Norm, weights: torch.dtype) -> bool:
    """Which order of rounding the module keeps to, with bfloat16 input and weights of type `weights`."""
    probe, x = _probe(module, weights), _probe_input(norm.width, norm.eps).to(torch.bfloat16)
    y = _run(probe, x)
    shares = {}
    for order in (False,) if norm.subtract_mean or not norm.gamma else (False, True):
        golden = replace(norm, round_before_gamma=order).golden(x, *_weights(probe, norm))
        shares[order] = (y == golden.to(torch.bfloat16)).double().mean().item()
    best = max(shares, key=lambda order: shares[order])
    if shares[best] < MIN_EXACT:
        raise NotANormError(
            f"in bfloat16 it rounds otherwise than the kernels do: {shares[best]:.1%} of its elements are theirs,"
            f" {MIN_EXACT:.0%} should be"
        )
    return best


def _weights(probe: nn.Module, norm: Norm) -> list[torch.Tensor | None]:
    return [None if name is None else probe.get_parameter(name) for name in (norm.gamma, norm.beta)]


def _probe(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A twin of `module` for inference, with random weights of its own: its are often all ones, which tell nothing."""
    generator = torch.Generator().manual_seed(0)
    probe = copy.copy(module)
    probe.__dict__["training"] = False
    probe.__dict__["_parameters"] = module._parameters | {
        name: nn.Parameter(torch.randn(parameter.shape, generator=generator).to(dtype), requires_grad=False)
        for name, parameter in module.named_parameters()
    }
    return probe


def _probe_input(width: int, eps: float) -> torch.Tensor:
    """(2, rows, W) float32: rows about as large as sqrt(eps), where eps tells, and rows of order one."""
    rows = max(3, PROBE_ELEMENTS // width)
    x = torch.randn(2, rows, width, generator=torch.Generator().manual_seed(1)) + 0.5
    return x * torch.tensor([eps**0.5, 1.0]).reshape(2, 1, 1)


@torch.no_grad()
def _run(probe: nn.Module, x: torch.Tensor) -> torch.Tensor:
    try:
        with warnings.catch_warnings(action="ignore"):
            y = type(probe).forward(probe, x)  # not by call: hooks are for the model's own runs
    except Exception as error:
        raise NotANormError(f"its forward fails on a tensor of shape {tuple(x.shape)}: {error}") from error
    if not isinstance(y, torch.Tensor) or (y.shape, y.dtype) != (x.shape, x.dtype):
        got = f"{tuple(y.shape)} {y.dtype}" if isinstance(y, torch.Tensor) else type(y).__name__
        raise NotANormError(f"it gives {got} for a tensor of {tuple(x.shape)} {x.dtype}")
    return y


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
