# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a norm module computes, found by trying it: no list of models, no trust in names.

A module is run on the CPU with random weights, and its output is compared with the formulas that the kernels know:

    y = (x - mean) / sqrt(variance + epsilon) * (gamma + offset) + beta      LayerNorm, offset 0 or 1
    y =          x / sqrt(mean(x^2) + epsilon) * (gamma + offset)            RMSNorm, offset 0 or 1 (Gemma, Qwen3-Next)

First in float32, which tells the formula and which attribute holds epsilon; then in bfloat16, which tells what is
rounded on the way: the normalized value, before it is multiplied by gamma (Llama and DeepSeek in transformers); 1 /
rms, before x is multiplied by it (DeepSeek-V4, where a norm has no weight); or nothing (torch's own, DeepSeek's own).
What was found must hold for every tensor of `probe.all_inputs`, in training mode and out of it, and leave the module as
it was.

A module without weights takes its width from its input, unless it is torch's and has a `normalized_shape`. Then all
that must hold at each of `WIDTHS`, and at every rank.

What no trial can tell: a forward that depends on something outside the module (a global, the clock), or that changes at
a value or number of rows beyond those that were tried.
"""

import inspect
import itertools
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from integration.formula import DTYPES, Formula, too_wide
from integration.probe import ForwardFailsError, NotANormError, Probe, all_inputs, ordinary_input
from micro_ops.layernorm.arguments import FLOAT32_TINY

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
LARGEST_L1 = 1536 * 1024  # bytes of a Blackhole core's; a Wormhole core has 1464 * 1024
# Tried where the input tells the width: a module that keeps one of its own agrees with one of them at most.
WIDTHS = (64, 37, 1030)
# In float32 a right formula is within 1e-6 of float64 and a wrong one, or an epsilon that is 1% off, farther than 1e-3.
MAX_RELATIVE_NORM = 1e-4
# Share of elements that must equal the formula, rounded to bfloat16: the right order of rounding misses it in near-ties
# alone, the wrong one in a quarter of the elements.
MIN_EQUAL = 0.97


def recognize(module: nn.Module) -> Formula:
    """What `module` computes, called with one tensor.

    Raises:
        NotANormError: nothing that the kernels compute, or nothing that could be made sure of
    """
    _check_that_forward_runs(module)
    width = _width(module)
    gamma, beta = _weight_names(module)
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES):
        raise NotANormError(f"its weights are {_join(dtypes)}, but all must be bfloat16, or all float32")
    with torch.random.fork_rng(devices=[]):  # a dropout would take the model's random numbers
        formula = _fitting_formula(module, width, gamma, beta)
        _check_everywhere(module, formula, torch.float32, torch.float32)
        reason = ""
        for weights_dtype in DTYPES if gamma else DTYPES[:1]:  # bfloat16 first, which settles the order
            try:
                rounded = _with_rounding(module, formula, weights_dtype)
                _check_everywhere(module, rounded, torch.bfloat16, weights_dtype)
            except NotANormError as error:
                reason = reason or str(error)
                continue
            if weights_dtype == torch.bfloat16 or rounded == formula:
                formula = replace(rounded, dtypes=formula.dtypes | {(torch.bfloat16, weights_dtype)})
    if not dtypes <= {weights_dtype for _, weights_dtype in formula.dtypes}:
        raise NotANormError(reason)
    if formula.epsilon < FLOAT32_TINY:
        raise NotANormError(f"its eps, {formula.epsilon:g}, is below {FLOAT32_TINY:g}, the smallest normal float32")
    if reason := too_wide(formula, dtypes.pop() if dtypes else None, LARGEST_L1):
        raise NotANormError(reason)
    return formula


def optional_arguments(module: nn.Module) -> tuple[str, ...]:
    """Names of what its forward takes beside the tensor."""
    _, *others = inspect.signature(module.forward).parameters.values()
    return tuple(parameter.name for parameter in others if parameter.kind not in VARIADIC)


def _check_that_forward_runs(module: nn.Module) -> None:
    """That a call of `module` runs its class's forward on one tensor, and nothing else.

    Raises:
        NotANormError: it does not
    """
    cls = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise NotANormError("it is compiled by TorchScript, whose code can't be replaced: replace the norms first")
    if "_orig_mod" in module._modules:
        raise NotANormError(
            "torch.compile wraps it, and would go on running what it compiled: compile it in place, by its compile(),"
            " or after the replacement"
        )
    if nn.utils.parametrize.is_parametrized(module):
        raise NotANormError("its weights are parametrized")
    if next(module.children(), None) is not None:
        raise NotANormError("it has submodules")
    patched = vars(module).keys() & {"forward", "_call_impl", "_wrapped_call_impl"}
    if patched:
        raise NotANormError(f"its {patched.pop()} is patched on the instance, and would be lost")
    for name in ("__call__", "_call_impl", "_wrapped_call_impl"):
        if getattr(cls, name) is not getattr(nn.Module, name):
            raise NotANormError(f"its class overrides {name}, which would be lost")
    if cls.forward is nn.Module.forward:
        raise NotANormError("it has no forward")
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError) as error:
        raise NotANormError(f"its forward's arguments can't be told: {error}") from error
    if not parameters:
        raise NotANormError("its forward takes no tensor")
    first, *others = parameters
    if needed := [p.name for p in others if p.default is p.empty and p.kind not in VARIADIC]:
        raise NotANormError(f"its forward needs {', '.join(needed)} beside {first.name}")


def _width(module: nn.Module) -> int | None:
    """None where the input tells it."""
    shapes = {tuple(parameter.shape) for parameter in module.parameters()}
    if not shapes and isinstance(module, nn.LayerNorm | nn.RMSNorm):
        shapes = {tuple(module.normalized_shape)}
    if not shapes:
        return None
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


def _epsilon_candidates(module: nn.Module) -> list[float]:
    """Every number between 0 and 1 that the module keeps, whatever its name."""
    kept = (*vars(module).values(), *module.buffers(recurse=False))
    values = [v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 and not v.is_meta else v for v in kept]
    candidates = list(dict.fromkeys(value for value in values if isinstance(value, float) and 0 < value < 1))
    if getattr(module, "eps", 0) is None:
        candidates.append(torch.finfo(torch.float32).eps)  # what torch's RMSNorm takes None for, in bfloat16 too
    return candidates


def _fitting_formula(module: nn.Module, width: int | None, gamma: str | None, beta: str | None) -> Formula:
    """The formula that is `module`'s in float32."""
    candidates = _epsilon_candidates(module)
    if not candidates:
        raise NotANormError("it keeps no number between 0 and 1 that could be its eps")
    probe = Probe(module, torch.float32)
    for epsilon in candidates:
        x = ordinary_input(width or WIDTHS[0], epsilon)
        y = probe.run(x).double()
        for subtract_mean, offset in itertools.product((True, False), (0.0, 1.0) if gamma else (0.0,)):
            if beta and not subtract_mean:
                continue  # the kernels know no RMSNorm with beta
            formula = Formula(
                width=width,
                epsilon=epsilon,
                subtract_mean=subtract_mean,
                gamma=gamma,
                beta=beta,
                gamma_offset=offset,
                round_before_gamma=False,
                dtypes=frozenset([(torch.float32, torch.float32)]),
            )
            if _worst_row(y, probe.golden(formula, x)) <= MAX_RELATIVE_NORM:
                return formula
    raise NotANormError(f"it is no LayerNorm or RMSNorm over the last dimension with eps {_join(candidates)}")


def _with_rounding(module: nn.Module, formula: Formula, weights_dtype: torch.dtype) -> Formula:
    """`formula` with the order of rounding that the module keeps to, with bfloat16 input and weights of
    `weights_dtype`."""
    probe = Probe(module, weights_dtype)
    x = ordinary_input(formula.width or WIDTHS[0], formula.epsilon).to(torch.bfloat16)
    y = probe.run(x)
    shares = {}
    before_gamma = (False, True) if formula.gamma and not formula.subtract_mean else (False,)
    inverse_rms = (False,) if formula.subtract_mean else (False, True)
    for of_value, of_inverse in itertools.product(before_gamma, inverse_rms):
        rounded = replace(formula, round_before_gamma=of_value, round_inverse_rms=of_inverse)
        shares[rounded] = (y == probe.golden(rounded, x).to(torch.bfloat16)).double().mean().item()
    best = max(shares, key=lambda rounded: shares[rounded])
    if shares[best] < MIN_EQUAL:
        raise NotANormError(
            f"in bfloat16 it rounds otherwise than the kernels do: {shares[best]:.1%} of its elements are theirs,"
            f" {MIN_EQUAL:.0%} should be"
        )
    return best


def _check_everywhere(module: nn.Module, formula: Formula, dtype: torch.dtype, weights_dtype: torch.dtype) -> None:
    """That `module` computes `formula` of input of type `dtype`, with weights of `weights_dtype`, whatever the input's
    rank, rows and magnitude, in both modes, and keeps nothing between calls.

    A module need not take every rank, but what it takes at one magnitude or in one mode, it must take in all. Without a
    width of its own it must take every rank: one that does not may count its dimensions from the first one, as
    InstanceNorm1d does.

    Raises:
        NotANormError: it does not
    """
    probe = Probe(module, weights_dtype)
    taken: set[int] = set()  # ranks
    not_taken: dict[int, ForwardFailsError] = {}
    widths = (formula.width,) if formula.width else WIDTHS
    for what, x in itertools.chain.from_iterable(all_inputs(width, formula.epsilon, dtype) for width in widths):
        expected = probe.golden(formula, x)
        for training in (False, True):
            mode = "training" if training else "inference"
            try:
                y = probe.run(x, training)
            except ForwardFailsError as error:
                if x.ndim == 3 or training or not formula.width:  # rank 3 is a model's own: (batch, tokens, W)
                    raise
                not_taken.setdefault(x.ndim, error)
                break
            taken.add(x.ndim)
            if not _agrees(y, expected, formula.round_inverse_rms):
                raise NotANormError(
                    f"in {mode}, it gives {what} of shape {tuple(x.shape)} {x.dtype} other values than a"
                    f" {'LayerNorm' if formula.subtract_mean else 'RMSNorm'} with eps {formula.epsilon:g}"
                )
    for rank in taken & not_taken.keys():
        raise not_taken[rank]
    if changed := probe.changed():
        raise NotANormError(f"its forward changes its {', '.join(changed)}, on which its next result may depend")


def _agrees(y: torch.Tensor, expected: torch.Tensor, round_inverse_rms: bool) -> bool:
    """Whether `y` (..., W) is `expected` (float64), NaN where that is, up to y's roundings."""
    if not torch.equal(y.isnan(), expected.isnan()):
        return False
    y, rounded, expected = y.nan_to_num(), expected.to(y.dtype).nan_to_num(), expected.nan_to_num()
    if y.dtype == torch.float32:
        return _worst_row(y.double(), expected) <= MAX_RELATIVE_NORM
    # One more is allowed for narrow rows, of which a single near-tie is a large share; a whole row where 1 / rms is
    # rounded, of which a near-tie moves all.
    more = y.shape[-1] if round_inverse_rms else 1
    others = int((y != rounded).sum())
    return others <= more + (1 - MIN_EQUAL) * y.numel() and _worst_row(y.double(), expected) <= 2.0**-7


def _worst_row(y: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest relative norm of a row's error: small rows must not hide behind large ones."""
    error, size = (y - expected).norm(dim=-1), expected.norm(dim=-1)
    return torch.where(error == 0, 0.0, error / size).max().item()  # a row that must be 0 has size 0


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
