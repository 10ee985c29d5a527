# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the norms of a model graph.

>>> print(find_norms(model, exclude="k_norm", layers=range(3)))  # doctest: +SKIP
"""

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from rich.table import Table
from torch import nn

from integration.formula import Formula
from integration.norm import TtNorm
from integration.probe import INTERNAL, NotANormError
from integration.recognize import optional_arguments, recognize
from integration.text import abridged, as_text, new_table

type Pattern = str | re.Pattern[str]


class NormError(ValueError):
    """A selection that matches nothing, or that the device can't serve. Nothing was replaced."""


@dataclass(frozen=True)
class FoundNorm:
    """One norm of a model.

    Attributes:
        names: its dotted names; more than one if the module is in several places
        module: itself
        formula: what it computes, called with one tensor; None if the kernels can't stand in for it
        reason: why they can't; "" if they can, or if it is only called a norm and made of other modules
        tied_to: names of other modules that hold a Parameter of its
        optional: what its forward takes beside the tensor; the kernels compute nothing with it
        holds: names of the norms that it is made of; they are replaced, it is not
    """

    names: tuple[str, ...]
    module: nn.Module
    formula: Formula | None
    reason: str
    tied_to: tuple[str, ...]
    optional: tuple[str, ...]
    holds: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def layer(self) -> int | None:
        """The first number in its name."""
        return next((int(part) for part in self.name.split(".") if part.isdigit()), None)

    @property
    def supported(self) -> str:
        """The plan's last column."""
        if isinstance(self.module, TtNorm):
            return "replaced"
        if self.reason:
            return f"no: {self.reason}"
        if self.formula is None:
            return f"it holds {abridged(list(self.holds), 2)}" if self.holds else "no norm: it is made of other modules"
        return f"yes, without {', '.join(self.optional)}" if self.optional else "yes"


class NormPlan(list[FoundNorm]):
    """The norms that were found, in the model's order. Prints as a table."""

    def __rich__(self) -> Table:
        table = new_table("name", "class", "width", "eps", "dtype", "bias", "layer", "shared with", "supported")
        for found in self:
            formula = found.formula
            weights = found.module.parameters(recurse=formula is not None or bool(found.reason))
            dtypes = {str(weight.dtype).removeprefix("torch.") for weight in weights}
            table.add_row(
                found.name,
                class_name(found.module),
                formula.width_text if formula else "",
                f"{formula.epsilon:g}" if formula else "",
                ", ".join(sorted(dtypes)),
                ("yes" if formula.beta else "no") if formula else "",
                "" if found.layer is None else str(found.layer),
                ", ".join((*found.names[1:], *found.tied_to)),
                found.supported,
            )
        return table

    def __str__(self) -> str:
        return as_text(self.__rich__())


def find_norms(
    model: nn.Module,
    include: Pattern | Iterable[Pattern] = "*",
    *,
    exclude: Pattern | Iterable[Pattern] = (),
    classes: str | Iterable[str] = (),
    layers: int | Iterable[int] | None = None,
) -> NormPlan:
    """The norms below `model` that the arguments select: every module that computes a LayerNorm or RMSNorm, whatever
    its class, and every other one that is torch's LayerNorm or RMSNorm or whose class is called a norm, with the reason
    why the kernels can't replace it.

    Whether a row fits L1 is told for the chip that has most of it; `replace_norms` tells it for its device, and of a
    norm that has its input's width, each call.

    Args:
        include, exclude: globs, which match a whole name or its tail ("k_norm" is "*.k_norm", too), or compiled regular
            expressions, which match anywhere in it
        classes: globs on class names; all if none is given
        layers: numbers of layers, the first number in a name; all if none is given
    Raises:
        NormError: nothing is selected, or one of the patterns matches no norm of the model
    """
    norms = _all_norms(model)
    if not norms:
        raise NormError(f"{type(model).__name__} has no norm below it")
    unmatched: list[str] = []

    def matching[P: (Pattern, str, int)](
        kind: str, patterns: Iterable[P], match: Callable[[FoundNorm, P], bool]
    ) -> set[str]:
        names = set()
        for pattern in patterns:
            matched = {found.name for found in norms if match(found, pattern)}
            if not matched:
                shown = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
                unmatched.append(f"{kind} {shown!r}")
            names |= matched
        return names

    chosen = matching("include", _as_list(include), _matches_name) - matching(
        "exclude", _as_list(exclude), _matches_name
    )
    if class_globs := _as_list(classes):
        chosen &= matching("class", class_globs, lambda found, glob: fnmatchcase(class_name(found.module), glob))
    if layers is not None:
        numbers = [layers] if isinstance(layers, int) else layers
        chosen &= matching("layer", numbers, lambda found, number: found.layer == number)
    if unmatched or not chosen:
        what = f"{', '.join(unmatched)} matches no norm" if unmatched else "no norm is left by the selection"
        raise NormError(f"{what} of {type(model).__name__}, which has {abridged([found.name for found in norms])}")
    return NormPlan(found for found in norms if found.name in chosen)


def class_name(module: nn.Module) -> str:
    """The name of the class that a user wrote: TorchScript and torch.compile put one of their own around it."""
    if isinstance(module, torch.jit.ScriptModule):
        return str(module.original_name)
    return type(_unwrapped(module)).__name__


def _unwrapped(module: nn.Module) -> nn.Module:
    """What torch.compile has wrapped, or the module itself."""
    return dict(module.named_children()).get("_orig_mod", module)


def _all_norms(model: nn.Module) -> list[FoundNorm]:
    places: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name and not _is_in_wrapper(model, name):
            places.setdefault(module, []).append(name)
    holders: dict[int, list[str]] = {}  # by a Parameter's id, the modules that have it
    for module, names in places.items():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(names[0])
    inlined = _inlined(model)
    seen: dict[Hashable, tuple[Formula | None, str]] = {}
    norms: list[FoundNorm] = []
    for module, names in places.items():
        if inlined & set(names):
            formula, reason = None, "a traced graph has taken its code into its own"
            listed = all(parameter.ndim == 1 for parameter in module.parameters())  # its class is lost
        else:
            key = _configuration(module) or id(module)
            formula, reason = seen[key] = seen.get(key) or _recognized(module)
            listed = formula is not None or _is_called_norm(module)
        if listed:
            sharing = (name for parameter in module.parameters() for name in holders.get(id(parameter), ()))
            norms.append(
                FoundNorm(
                    names=tuple(names),
                    module=module,
                    formula=formula,
                    reason=reason,
                    tied_to=tuple(dict.fromkeys(name for name in sharing if name != names[0])),
                    optional=optional_arguments(module) if formula and not isinstance(module, TtNorm) else (),
                    holds=(),
                )
            )
    return [_with_parts(found, norms) if found.module._modules else found for found in norms]


def _with_parts(found: FoundNorm, norms: list[FoundNorm]) -> FoundNorm:
    """`found`, whose module has submodules. If it is only called a norm and has `norms` below it, or no weights of its
    own, there is nothing to replace but them: they are in `holds`, and there is no reason to refuse it.
    """
    below = tuple(f"{name}." for name in found.names)
    holds = tuple(part.name for part in norms if any(name.startswith(below) for name in part.names))
    module = _unwrapped(found.module)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm | torch.jit.ScriptModule) or not module._modules:
        return found
    if not holds and (module._parameters or module._buffers):
        return found
    return replace(found, reason="", tied_to=(), holds=holds)


def _recognized(module: nn.Module) -> tuple[Formula | None, str]:
    """What it computes, or None and the reason why the kernels can't."""
    if isinstance(module, TtNorm):
        return module.formula, ""
    try:
        formula = recognize(module)
    except NotANormError as error:
        return None, str(error)
    return formula, ""


def _configuration(module: nn.Module) -> Hashable:
    """All that decides how a module computes but the values of its weights: of modules that are equal in it, one is
    tried. None where that is more than comparing can tell: with submodules, or an object for an attribute.
    """
    own = {name: value for name, value in vars(module).items() if name not in INTERNAL}
    if isinstance(module, TtNorm | torch.jit.ScriptModule) or module._modules:
        return None
    if not all(_is_plain(value) for value in own.values()) or not all(map(_is_dense, module._buffers.values())):
        return None
    buffers = tuple((name, None if b is None else _digest(b)) for name, b in module._buffers.items())
    weights = tuple((name, None if p is None else (p.shape, p.dtype)) for name, p in module._parameters.items())
    return type(module), repr(sorted(own.items())), weights, buffers


def _is_dense(buffer: torch.Tensor | None) -> bool:
    """Whether its bytes are its values."""
    return buffer is None or (
        type(buffer) is torch.Tensor and buffer.layout == torch.strided and not (buffer.is_quantized or buffer.is_meta)
    )


def _digest(buffer: torch.Tensor) -> Hashable:
    values = buffer.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return buffer.shape, buffer.dtype, buffer.device, hashlib.sha256(values).digest()


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(element) for element in value)
    return value is None or type(value) in (bool, int, float, str, torch.dtype)


def _is_called_norm(module: nn.Module) -> bool:
    return isinstance(_unwrapped(module), nn.LayerNorm | nn.RMSNorm) or "norm" in class_name(module).lower()


def _is_in_wrapper(model: nn.Module, name: str) -> bool:
    """Whether it is a module without submodules that torch.compile has wrapped: the wrapper stands for it."""
    parent, _, last = name.rpartition(".")
    return last == "_orig_mod" and parent != "" and not model.get_submodule(name)._modules


def _inlined(model: nn.Module) -> set[str]:
    """Names of modules with weights below a traced graph (torch.fx) that does not call them: their code is in the
    graph's own, which a replacement would not change."""
    names = set()
    for place, graph in model.named_modules():
        if isinstance(graph, torch.fx.GraphModule):
            called = {f"{node.target}." for node in graph.graph.nodes if node.op == "call_module"}
            for name, module in graph.named_modules():
                is_called = any(f"{name}.".startswith(target) for target in called)
                if module._parameters and not is_called:
                    names.add(f"{place}.{name}" if place else name)
    return names


def _matches_name(found: FoundNorm, pattern: Pattern) -> bool:
    if isinstance(pattern, re.Pattern):
        return any(pattern.search(name) for name in found.names)
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}") for name in found.names)


def _as_list[P: (Pattern, str)](patterns: P | Iterable[P]) -> list[P]:
    return [patterns] if isinstance(patterns, str | re.Pattern) else list(patterns)
