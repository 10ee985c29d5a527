"""Finds the norms of a model graph, and puts the device's in their place.

>>> print(find_norms(model))                                                           # doctest: +SKIP
>>> with replace_norms(model, device, exclude="k_norm", layers=range(3)) as replaced:  # doctest: +SKIP
...     model.generate(tokens)
...     print(replaced)
"""

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from io import StringIO
from typing import Self

import torch
import ttnn
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from integration.layernorm import TtLayerNorm
from integration.norm import Copies, TtNorm, check_open
from integration.recognize import INTERNAL, Formula, NotANormError, optional_arguments, recognize, too_wide
from integration.rmsnorm import TtRMSNorm

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
            return (
                f"it holds {_abridged(list(self.holds), 2)}" if self.holds else "no norm: it is made of other modules"
            )
        return f"yes, without {', '.join(self.optional)}" if self.optional else "yes"


class NormPlan(list[FoundNorm]):
    """The norms that were found, in the model's order. Prints as a table."""

    def __rich__(self) -> Table:
        table = _table("name", "class", "width", "eps", "dtype", "bias", "layer", "shared with", "supported")
        for found in self:
            formula = found.formula
            weights = found.module.parameters(recurse=formula is not None or bool(found.reason))
            dtypes = {str(weight.dtype).removeprefix("torch.") for weight in weights}
            table.add_row(
                found.name,
                class_name(found.module),
                str(formula.width) if formula else "",
                f"{formula.epsilon:g}" if formula else "",
                ", ".join(sorted(dtypes)),
                ("yes" if formula.beta else "no") if formula else "",
                "" if found.layer is None else str(found.layer),
                ", ".join((*found.names[1:], *found.tied_to)),
                found.supported,
            )
        return table

    def __str__(self) -> str:
        return _text(self.__rich__())


def find_norms(
    model: nn.Module,
    include: Pattern | Iterable[Pattern] = "*",
    exclude: Pattern | Iterable[Pattern] = (),
    classes: str | Iterable[str] = (),
    layers: int | Iterable[int] | None = None,
) -> NormPlan:
    """The norms below `model` that the arguments select: every module that computes a LayerNorm or RMSNorm, whatever
    its class, and every other one that is torch's LayerNorm or RMSNorm or whose class is called a norm, with the reason
    why the kernels can't replace it.

    Whether a row fits L1 is told for the chip that has most of it; `replace_norms` tells it for its device.

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
        raise NormError(f"{what} of {type(model).__name__}, which has {_abridged([found.name for found in norms])}")
    return NormPlan(found for found in norms if found.name in chosen)


class Replacement:
    """Norms of a model that run on the device until `restore()`, or the end of the `with` block. Prints as a table.

    Attributes:
        norms: by name, what is in the model; what an earlier call put there, too
        left: by name, how often a norm ran on the CPU that the device can't serve (with `fallback` only)
    """

    norms: dict[str, TtNorm]
    left: dict[str, int]

    def __init__(self, model: nn.Module, plan: NormPlan, device: ttnn.Device, fallback: bool) -> None:
        self.norms, self.left = {}, {}
        self._undo: list[Callable[[], object]] = []
        copies: Copies = {}
        try:
            for found in plan:
                if isinstance(found.module, TtNorm):
                    self.norms[found.name] = found.module
                elif found.formula is not None:
                    self._replace(model, found, found.formula, device, copies, fallback)
                elif found.reason:
                    self._count_calls(found)
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Puts the originals back. Does nothing the second time."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def __rich__(self) -> Table:
        table = _table("name", "runs as", "launches", "fallbacks")
        for name, norm in self.norms.items():
            table.add_row(name, type(norm).__name__, str(norm.launches), str(norm.fallbacks))
        for name, calls in self.left.items():
            table.add_row(name, "torch, on the CPU", "0", str(calls))
        return table

    def __str__(self) -> str:
        return _text(self.__rich__())

    def _replace(
        self,
        model: nn.Module,
        found: FoundNorm,
        formula: Formula,
        device: ttnn.Device,
        copies: Copies,
        fallback: bool,
    ) -> None:
        original = found.module
        cls: type[TtNorm] = TtLayerNorm if formula.subtract_mean else TtRMSNorm
        replacement = cls.standing_for(original, formula, device, copies)
        replacement.fallback = original.forward if fallback else None

        def put_back() -> None:
            original.training = replacement.training
            for name in found.names:
                model.set_submodule(name, original)

        self._undo.append(put_back)
        for name in found.names:
            model.set_submodule(name, replacement)
        self.norms[found.name] = replacement

    def _count_calls(self, found: FoundNorm) -> None:
        def count(*_: object) -> None:
            self.left[found.name] += 1

        self.left[found.name] = 0
        self._undo.append(found.module.register_forward_hook(count).remove)


def replace_norms(
    model: nn.Module,
    device: ttnn.Device,
    include: Pattern | Iterable[Pattern] = "*",
    exclude: Pattern | Iterable[Pattern] = (),
    classes: str | Iterable[str] = (),
    layers: int | Iterable[int] | None = None,
    fallback: bool = False,
) -> Replacement:
    """Replaces the norms below `model` that the arguments select, in place, by `TtLayerNorm` and `TtRMSNorm`.

    A replacement shares the original's Parameters, hooks and attributes, so state_dict, `.to()`, tied weights and the
    training flag go on as before; each distinct Parameter is uploaded once, and again only when its values change. What
    is replaced already stays as it is.

    Args:
        device: an open device
        include, exclude, classes, layers: as `find_norms` takes them
        fallback: what the device can't serve, modules and calls, runs in torch and is counted, where else it raises
    Raises:
        NormError: nothing is selected, a pattern matches nothing, or (without `fallback`) the kernels can't stand in
            for a selected module. Nothing was replaced.
        ValueError: a weight can't be uploaded. Nothing stays replaced.
        RuntimeError: the device is closed
    """
    plan = find_norms(model, include, exclude, classes, layers)
    elsewhere = [found.name for found in plan if isinstance(found.module, TtNorm) and found.module.device != device]
    if elsewhere:
        raise NormError(f"{_abridged(elsewhere)} run on another device: restore them first")
    check_open(device)
    plan = _fitting(plan)
    reasons = [f"{found.name} ({class_name(found.module)}): {found.reason}" for found in plan if found.reason]
    if reasons and not fallback:
        raise NormError(f"can't replace {_abridged(reasons)}: exclude them, or ask for a fallback")
    return Replacement(model, plan, device, fallback)


def class_name(module: nn.Module) -> str:
    """Of what a user wrote: TorchScript and torch.compile put a class of their own around it."""
    if isinstance(module, torch.jit.ScriptModule):
        return str(module.original_name)
    return type(_unwrapped(module)).__name__


def _unwrapped(module: nn.Module) -> nn.Module:
    """What torch.compile has wrapped, or the module itself."""
    return dict(module.named_children()).get("_orig_mod", module)


def _fitting(plan: NormPlan) -> NormPlan:
    """`plan` with what only an open device tells, and what only the whole selection does."""
    available = ttnn.get_max_worker_l1_unreserved_size()
    selected = {name for found in plan if not found.holds for name in found.names}
    checked = NormPlan()
    for found in plan:
        reason = found.reason
        if found.formula and not isinstance(found.module, TtNorm):
            weights = next((weight.dtype for weight in found.module.parameters()), None)
            reason = too_wide(found.formula, weights, available)
        elif left := [name for name in found.holds if name not in selected]:
            reason = f"it holds {_abridged(left)}, which are not selected"
        checked.append(replace(found, formula=None if reason else found.formula, reason=reason))
    return checked


def _all_norms(model: nn.Module) -> list[FoundNorm]:
    places: dict[nn.Module, list[str]] = {}
    holders: dict[int, list[str]] = {}  # of a Parameter, by its id
    for name, module in model.named_modules(remove_duplicate=False):
        if name and not _is_in_wrapper(model, name):
            places.setdefault(module, []).append(name)
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
            tied = (
                name for parameter in module.parameters() for name in holders.get(id(parameter), ()) if name != names[0]
            )
            optional = optional_arguments(module) if formula and not isinstance(module, TtNorm) else ()
            norms.append(FoundNorm(tuple(names), module, formula, reason, tuple(dict.fromkeys(tied)), optional, ()))
    return [_with_parts(found, norms) if found.module._modules else found for found in norms]


def _with_parts(found: FoundNorm, norms: list[FoundNorm]) -> FoundNorm:
    """`found`, which has submodules: if those of them that are `norms` are all of it that could be one, it is none."""
    below = tuple(f"{name}." for name in found.names)
    holds = tuple(part.name for part in norms if any(name.startswith(below) for name in part.names))
    module = _unwrapped(found.module)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm | torch.jit.ScriptModule) or not module._modules:
        return found
    if not holds and (module._parameters or module._buffers):
        return found
    return replace(found, reason="", tied_to=(), holds=holds)


def _recognized(module: nn.Module) -> tuple[Formula | None, str]:
    if isinstance(module, TtNorm):
        return module.formula, ""
    try:
        formula = recognize(module)
    except NotANormError as error:
        return None, str(error)
    return formula, ""


def _configuration(module: nn.Module) -> Hashable:
    """What decides how a module computes, values of its weights left out: modules for which this is equal are one norm.
    None if it can't be told by comparing: there are buffers or submodules, or an attribute of its is an object.
    """
    own = {name: value for name, value in vars(module).items() if name not in INTERNAL}
    if isinstance(module, TtNorm | torch.jit.ScriptModule) or module._buffers or module._modules:
        return None
    if not all(_is_plain(value) for value in own.values()):
        return None
    weights = tuple((name, None if p is None else (p.shape, p.dtype)) for name, p in module._parameters.items())
    return type(module), repr(sorted(own.items())), weights


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
    """Names of modules with weights that are below a traced graph and that it does not call."""
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


def _abridged(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        right = column in ("width", "eps", "layer", "launches", "fallbacks")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _text(table: Table) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]
