# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Puts the device's norms in the place of a model's.

>>> with replace_norms(model, device, exclude="k_norm", layers=range(3)) as replaced:  # doctest: +SKIP
...     model.generate(tokens)
...     print(replaced)
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Self

import ttnn
from rich.table import Table
from torch import nn

from integration.device_weight import Copies, check_open
from integration.find import FoundNorm, NormError, NormPlan, Pattern, class_name, find_norms
from integration.formula import too_wide
from integration.layernorm import TtLayerNorm
from integration.mesh import Distribution
from integration.norm import TtNorm
from integration.rmsnorm import TtRMSNorm
from integration.text import abridged, as_text, new_table
from micro_ops.layernorm import Cores


class Replacement:
    """Norms of a model that run on the device until `restore()`, or the end of the `with` block. Prints as a table.

    Attributes:
        norms: by name, what is in the model; what an earlier call put there, too
        left: by name, how often a norm that the device can't serve ran on the CPU (with `fallback` only)
    """

    norms: dict[str, TtNorm]
    left: dict[str, int]

    def __init__(
        self, model: nn.Module, plan: NormPlan, distribution: Distribution, fallback: bool, cores: Cores
    ) -> None:
        self.norms, self.left = {}, {}
        self._undo: list[Callable[[], object]] = []
        copies: Copies = {}
        try:
            for found in plan:
                if isinstance(found.module, TtNorm):
                    self.norms[found.name] = found.module
                elif found.formula is not None:
                    cls: type[TtNorm] = TtLayerNorm if found.formula.subtract_mean else TtRMSNorm
                    norm = cls.standing_for(found.module, found.formula, distribution, cores, copies)
                    norm.fallback = found.module.forward if fallback else None
                    self._put(model, found, norm)
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
        table = new_table("name", "runs as", "launches", "fallbacks")
        for name, norm in self.norms.items():
            table.add_row(name, type(norm).__name__, str(norm.launches), str(norm.fallbacks))
        for name, calls in self.left.items():
            table.add_row(name, "torch, on the CPU", "0", str(calls))
        return table

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def _put(self, model: nn.Module, found: FoundNorm, norm: TtNorm) -> None:
        def put_back() -> None:
            found.module.training = norm.training
            for name in found.names:
                model.set_submodule(name, found.module)

        self._undo.append(put_back)
        for name in found.names:
            model.set_submodule(name, norm)
        self.norms[found.name] = norm

    def _count_calls(self, found: FoundNorm) -> None:
        def count(*_: object) -> None:
            self.left[found.name] += 1

        self.left[found.name] = 0
        self._undo.append(found.module.register_forward_hook(count).remove)


def replace_norms(
    model: nn.Module,
    device: ttnn.Device,
    include: Pattern | Iterable[Pattern] = "*",
    *,
    exclude: Pattern | Iterable[Pattern] = (),
    classes: str | Iterable[str] = (),
    layers: int | Iterable[int] | None = None,
    fallback: bool = False,
    cores: Cores = None,
    mesh_axis: int | None = None,
) -> Replacement:
    """Replaces the norms below `model` that the arguments select, in place, by `TtLayerNorm` and `TtRMSNorm`.

    A replacement shares the original's Parameters, hooks and attributes, so state_dict, `.to()`, tied weights and the
    training flag go on as before; each distinct Parameter is uploaded once, and again only when its values change. What
    is replaced already stays as it is.

    Args:
        device: an open device
        include, exclude, classes, layers: as `find_norms` takes them
        fallback: what the device can't serve, modules and calls, runs in torch and is counted, where else it raises
        cores: at most so many of the device's cores, or none but these; None allows all
        mesh_axis: as `TtLayerNorm`'s
    Raises:
        NormError: nothing is selected, a pattern matches nothing, or (without `fallback`) the kernels can't stand in
            for a selected module. Nothing was replaced.
        ValueError: a weight can't be uploaded, or the columns can't be cut so. Nothing stays replaced.
        RuntimeError: the device is closed
    """
    plan = find_norms(model, include, exclude=exclude, classes=classes, layers=layers)
    elsewhere = [found.name for found in plan if isinstance(found.module, TtNorm) and found.module.device != device]
    if elsewhere:
        raise NormError(f"{abridged(elsewhere)} run on another device: restore them first")
    check_open(device)
    plan = _fitting(plan)
    reasons = [f"{found.name} ({class_name(found.module)}): {found.reason}" for found in plan if found.reason]
    if reasons and not fallback:
        raise NormError(f"can't replace {abridged(reasons)}: exclude them, or ask for a fallback")
    return Replacement(model, plan, Distribution(device, mesh_axis), fallback, cores)


def _fitting(plan: NormPlan) -> NormPlan:
    """`plan` with the reasons that `find_norms` can't tell: a row that this device's L1 can't hold, and a norm that is
    made of others, some of which are not selected."""
    available = ttnn.get_max_worker_l1_unreserved_size()
    selected = {name for found in plan if not found.holds for name in found.names}
    checked = NormPlan()
    for found in plan:
        reason = found.reason
        if found.formula and not isinstance(found.module, TtNorm):
            weights_dtype = next((weight.dtype for weight in found.module.parameters()), None)
            reason = too_wide(found.formula, weights_dtype, available)
        elif left := [name for name in found.holds if name not in selected]:
            reason = f"it holds {abridged(left)}, which are not selected"
        checked.append(replace(found, formula=None if reason else found.formula, reason=reason))
    return checked
