"""What a norm module computes, found by trying it: no list of models, no trust in names.

A module is run on the CPU with random weights, and its output is compared with the formulas that the kernels know:

    y = (x - mean) / sqrt(variance + eps) * (gamma + offset) + beta          LayerNorm, offset 0 or 1
    y =          x / sqrt(mean(x^2) + eps) * (gamma + offset) + beta         RMSNorm, offset 0 or 1 (Gemma, Qwen3-Next)

First in float32, which tells the formula and which attribute holds eps; then in bfloat16, which tells whether the
normalized value is rounded before it is multiplied by gamma (Llama and DeepSeek in transformers) or not (torch's own,
DeepSeek's own). What was found must hold for every tensor of `_inputs`, in training mode and out of it, and leave the
module as it was.

What no trial can tell: a forward that depends on something outside the module (a global, the clock), or that changes at
a value or number of rows beyond those that were tried.
"""

import copy
import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import ttnn
from torch import nn

from micro_ops.layernorm import LayerNormSingleCore, RMSNormSingleCore
from micro_ops.layernorm.arguments import FLOAT32_TINY
from micro_ops.layernorm.plan import Dtypes, least_l1_bytes

DTYPES = (torch.bfloat16, torch.float32)
ANY_DTYPES = frozenset(itertools.product(DTYPES, DTYPES))
TTNN_DTYPES = {torch.bfloat16: ttnn.bfloat16, torch.float32: ttnn.float32}
# Attributes that every module has, and what compile() sets: forward computes the same whatever they are.
INTERNAL = vars(nn.Module()).keys() | {"_compiled_call_impl"}
KNOWN = (bool, int, float, str, list, tuple, dict, set, torch.Tensor, type(None))  # types of attributes
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
LARGEST_L1 = 1536 * 1024  # bytes of a Blackhole core's; a Wormhole core has 1464 * 1024
# In float32 a right formula is within 1e-6 of float64 and a wrong one, or an eps that is 1% off, farther than 1e-3.
MAX_RELATIVE_NORM = 1e-4
# In bfloat16 the right order of rounding differs in near-ties alone, the wrong one in a quarter of the elements.
MIN_EXACT = 0.97
PROBE_ELEMENTS = 4096  # at least; enough to tell a quarter from nothing
MANY_ELEMENTS = 2**15  # of the probe with the most rows; torch splits larger ones among threads that wait
# Of rows, beside sqrt(epsilon), where it tells. A row of zeros gives beta; above 1e16 a sum of squares leaves float32.
MAGNITUDES = (0.0, 1.0, 1e4, 1e8, 1e16)


class NotANormError(ValueError):
    """A module that the kernels can't stand in for; the message says why."""


class _ForwardFailsError(NotANormError):
    """It raised, rather than gave something else."""


@dataclass(frozen=True)
class Formula:
    """What a module computes over the last dimension.

    Attributes:
        width: W
        epsilon: added to the variance or mean square
        subtract_mean: LayerNorm, else RMSNorm
        gamma, beta: names of the parameters (W,), or None where there is none
        gamma_offset: added to gamma; 1 where gamma is kept as its distance from 1
        round_before_gamma: the normalized value is rounded to bfloat16 before it is multiplied by gamma
        dtypes: pairs of the input's type and the weights', for which this holds; the output has the input's
    """

    width: int
    epsilon: float
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
            return LayerNormSingleCore.golden(x, gamma, None if beta is None else beta.detach(), self.epsilon)
        return RMSNormSingleCore.golden(x, gamma, self.epsilon, self.round_before_gamma)


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
        for weights in DTYPES:  # bfloat16 first, which settles the order
            try:
                order = _rounds_before_gamma(module, formula, weights)
                _check_everywhere(module, replace(formula, round_before_gamma=order), torch.bfloat16, weights)
            except NotANormError as error:
                reason = reason or str(error)
                continue
            if weights == torch.bfloat16 or order == formula.round_before_gamma:
                formula = replace(
                    formula, round_before_gamma=order, dtypes=formula.dtypes | {(torch.bfloat16, weights)}
                )
    if not dtypes <= {weights for _, weights in formula.dtypes}:
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


def too_wide(formula: Formula, weights: torch.dtype | None, available: int) -> str:
    """Why `available` bytes of L1 can't hold a row of any type that goes with weights of type `weights`, or "".

    Args:
        weights: None if there are none
    """
    needed = []
    for x, of_weights in formula.dtypes:
        if weights in (None, of_weights):
            gamma = torch.float32 if formula.gamma_offset else of_weights  # an offset is added in float32
            dtypes = Dtypes(
                TTNN_DTYPES[x],
                TTNN_DTYPES[gamma] if formula.gamma else None,
                TTNN_DTYPES[of_weights] if formula.beta else None,
            )
            needed.append(least_l1_bytes(formula.width, dtypes))
    if min(needed) <= available:
        return ""
    return f"rows of {formula.width} elements need {min(needed)} bytes of L1, but a core has {available} at most"


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


def _epsilon_candidates(module: nn.Module) -> list[float]:
    """Every number between 0 and 1 that the module keeps, whatever its name."""
    kept = (*vars(module).values(), *module.buffers(recurse=False))
    values = [v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 and not v.is_meta else v for v in kept]
    candidates = list(dict.fromkeys(value for value in values if isinstance(value, float) and 0 < value < 1))
    if getattr(module, "eps", 0) is None:
        candidates.append(torch.finfo(torch.float32).eps)  # what torch's RMSNorm takes None for, in bfloat16 too
    return candidates


def _fitting_formula(module: nn.Module, width: int, gamma: str | None, beta: str | None) -> Formula:
    candidates = _epsilon_candidates(module)
    if not candidates:
        raise NotANormError("it keeps no number between 0 and 1 that could be its eps")
    probe = _probe(module, torch.float32)
    for epsilon in candidates:
        x = _ordinary_input(width, epsilon)
        y = _run(probe, x).double()
        for subtract_mean, offset in itertools.product((True, False), (0.0, 1.0) if gamma else (0.0,)):
            if beta and not subtract_mean:
                continue  # the kernels know no RMSNorm with beta
            formula = Formula(
                width, epsilon, subtract_mean, gamma, beta, offset, False, frozenset([(torch.float32, torch.float32)])
            )
            expected = formula.golden(x, *_weights(probe, formula))
            if _worst_row(y, expected) <= MAX_RELATIVE_NORM:
                return formula
    raise NotANormError(f"it is no LayerNorm or RMSNorm over the last dimension with eps {_join(candidates)}")


def _rounds_before_gamma(module: nn.Module, formula: Formula, weights: torch.dtype) -> bool:
    """Which order of rounding the module keeps to, with bfloat16 input and weights of type `weights`."""
    probe, x = _probe(module, weights), _ordinary_input(formula.width, formula.epsilon).to(torch.bfloat16)
    y = _run(probe, x)
    shares = {}
    for order in (False,) if formula.subtract_mean or not formula.gamma else (False, True):
        golden = replace(formula, round_before_gamma=order).golden(x, *_weights(probe, formula))
        shares[order] = (y == golden.to(torch.bfloat16)).double().mean().item()
    best = max(shares, key=lambda order: shares[order])
    if shares[best] < MIN_EXACT:
        raise NotANormError(
            f"in bfloat16 it rounds otherwise than the kernels do: {shares[best]:.1%} of its elements are theirs,"
            f" {MIN_EXACT:.0%} should be"
        )
    return best


def _check_everywhere(module: nn.Module, formula: Formula, dtype: torch.dtype, weights: torch.dtype) -> None:
    """That `module` computes `formula` of input of type `dtype`, with weights of type `weights`, whatever the input's
    rank, rows and magnitude, in both modes, and keeps nothing between calls.

    A rank that it takes no tensor of is no fault.

    Raises:
        NotANormError: it does not
    """
    probe = _probe(module, weights)
    before = _state(probe) | {name: _copied(name, buffer) for name, buffer in probe._buffers.items()}
    taken: set[int] = set()  # ranks
    not_taken: dict[int, _ForwardFailsError] = {}
    for what, x in _inputs(formula.width, formula.epsilon, dtype):
        expected = formula.golden(x, *_weights(probe, formula))
        for training in (False, True):
            probe.training = training
            mode = "training" if training else "inference"
            try:
                y = _run(probe, x)
            except _ForwardFailsError as error:
                if x.ndim == 3 or training:  # what it took a moment ago, it must take in training, too
                    raise
                not_taken.setdefault(x.ndim, error)
                break
            taken.add(x.ndim)
            if not _agrees(y, expected):
                raise NotANormError(
                    f"in {mode}, it gives {what} of shape {tuple(x.shape)} {x.dtype} other values than a"
                    f" {'LayerNorm' if formula.subtract_mean else 'RMSNorm'} with eps {formula.epsilon:g}"
                )
    for rank in taken & not_taken.keys():
        raise not_taken[rank]
    after = _state(probe) | probe._buffers
    if changed := [name for name, value in after.items() if name not in before or not _same(before[name], value)]:
        raise NotANormError(f"its forward changes its {', '.join(changed)}, on which its next result may depend")


def _agrees(y: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether `y` (..., W) is `expected` (float64), NaN where that is, up to y's roundings."""
    if not torch.equal(y.isnan(), expected.isnan()):
        return False
    y, exact, expected = y.nan_to_num(), expected.to(y.dtype).nan_to_num(), expected.nan_to_num()
    if y.dtype == torch.float32:
        return _worst_row(y.double(), expected) <= MAX_RELATIVE_NORM
    # An element more for narrow rows, of which a single near-tie is a large share.
    others = int((y != exact).sum())
    return others <= 1 + (1 - MIN_EXACT) * y.numel() and _worst_row(y.double(), expected) <= 2.0**-7


def _worst_row(y: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest relative norm of a row's error: small rows must not hide behind large ones."""
    error, size = (y - expected).norm(dim=-1), expected.norm(dim=-1)
    return torch.where(error == 0, 0.0, error / size).max().item()  # a row that must be 0 has size 0


def _weights(probe: nn.Module, formula: Formula) -> list[torch.Tensor | None]:
    return [None if name is None else probe.get_parameter(name) for name in (formula.gamma, formula.beta)]


def _probe(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A twin of `module` for inference, with random weights of its own: its are often all ones, which tell nothing.

    What forward might change of the twin is not the module's: tensors and containers are copies.

    Raises:
        NotANormError: it keeps what can't be copied
    """
    generator = torch.Generator().manual_seed(0)
    probe = copy.copy(module)
    vars(probe).update(_state(module))
    probe._buffers = {name: _copied(name, buffer) for name, buffer in module._buffers.items()}
    probe._parameters = module._parameters | {
        name: nn.Parameter(_randn(*parameter.shape, generator=generator).to(dtype), requires_grad=False)
        for name, parameter in module.named_parameters()
    }
    probe.training = False
    return probe


def _state(module: nn.Module) -> dict[str, Any]:
    """Copies of all attributes that forward could keep something in for its next call, but for objects of
    classes that are not known here.
    """
    own = {name: value for name, value in vars(module).items() if name not in INTERNAL}
    return {name: _copied(name, value) for name, value in own.items() if isinstance(value, KNOWN)}


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


def _ordinary_input(width: int, epsilon: float) -> torch.Tensor:
    """(2, rows, W) float32: rows about as large as sqrt(epsilon), where it tells, and rows of order one."""
    rows = max(3, PROBE_ELEMENTS // width)
    return _rows(width, [epsilon**0.5] * rows + [1.0] * rows).reshape(2, rows, width)


def _inputs(width: int, epsilon: float, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
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
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")  # whatever the defaults are


@torch.no_grad()
def _run(probe: nn.Module, x: torch.Tensor) -> torch.Tensor:
    given = x.clone()
    try:
        with warnings.catch_warnings(action="ignore"):
            y = type(probe).forward(probe, given)  # not by call: hooks are for the model's own runs
    except Exception as error:
        raise _ForwardFailsError(f"its forward fails on a tensor of shape {tuple(x.shape)}: {error}") from error
    if not isinstance(y, torch.Tensor) or (y.shape, y.dtype, y.device) != (x.shape, x.dtype, x.device):
        got = f"{tuple(y.shape)} {y.dtype} on {y.device}" if isinstance(y, torch.Tensor) else type(y).__name__
        raise NotANormError(f"it gives {got} for a tensor of {tuple(x.shape)} {x.dtype} on {x.device}")
    if not torch.equal(given.view(torch.uint8), x.view(torch.uint8)):
        raise NotANormError("its forward changes its input")
    return y


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
