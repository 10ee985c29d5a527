# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What is recorded as a decoder layer runs: its norms, and what lies between them."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from integration import NormError


@dataclass(frozen=True)
class NormActivation:
    """What a norm was given and gave: both of one shape (..., W) and dtype."""

    input: torch.Tensor
    output: torch.Tensor


@dataclass(frozen=True)
class Choice:
    """What each of B x S tokens chose among N options, keys or experts: the highest scores of the highest groups.

    Attributes:
        scores: (B, S, N) float32; -inf for an option that the token must not choose
        chosen: (B, S, N) bool
        groups: into how many groups of N / groups options each the options fall, in order
        chosen_groups: how many groups each token chose from
        group_best: a group's score is the sum of so many of its highest
        by_score: the scores decide, else the token's id does (a hash router)
    """

    scores: torch.Tensor
    chosen: torch.Tensor
    groups: int = 1
    chosen_groups: int = 1
    group_best: int = 2
    by_score: bool = True


type Activation = NormActivation | Choice | torch.Tensor


@dataclass(frozen=True)
class Run:
    """What one run of a block computed.

    Attributes:
        activations: in order of execution. By their module names, the norms asked for. Where the layer has them,
            "indexer", which chooses the keys that a query attends to, and "router", which chooses experts: a `Choice`;
            "compressor", the keys that stand for windows of tokens: (B, 1, windows, D); of each hyper-connection, by
            its module name, "<name>.pre" and "<name>.post" (B, S, streams) and "<name>.comb" (B, S, streams, streams).
        output: of the block, of its hidden state's shape: (B, S, D), or (B, S, streams, D)
    """

    activations: dict[str, Activation]
    output: torch.Tensor

    def norm(self, name: str) -> NormActivation:
        activation = self.activations[name]
        assert isinstance(activation, NormActivation)
        return activation

    def choice(self, name: str) -> Choice:
        activation = self.activations[name]
        assert isinstance(activation, Choice)
        return activation

    def tensor(self, name: str) -> torch.Tensor:
        activation = self.activations[name]
        assert isinstance(activation, torch.Tensor)
        return activation


@contextmanager
def recorded(layer: nn.Module, norms: Iterable[str], batch: int) -> Iterator[dict[str, Activation]]:
    """What `layer` computes inside the context, filled in as it runs.

    What is no norm is found by its class's name, which transformers keeps to in all models.

    Args:
        norms: module names in `layer`
        batch: B of what it will run on
    Raises:
        NormError: from the layer's forward, of a norm that runs twice, or on more than a tensor
    """
    activations: dict[str, Activation] = {}
    with ExitStack() as stack:
        calls = stack.enter_context(_Calls())
        for name in norms:
            _record_norm(stack, layer.get_submodule(name), name, activations)
        for kind, place, module in _parts(layer):
            _record_part(stack, module, calls, _READERS[kind](place, module, batch), activations)
        yield activations


def _record_norm(stack: ExitStack, norm: nn.Module, name: str, activations: dict[str, Activation]) -> None:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor) -> None:
        given = (*args, *kwargs.values())
        if len(given) != 1:
            raise NormError(
                f"{name} is called with {len(given)} arguments, the kernels take one: leave it out of --norms"
            )
        if name in activations:
            raise NormError(f"{name} runs more than once in the layer, but is judged once: leave it out of --norms")
        # Copies, for what follows may work in place.
        activations[name] = NormActivation(given[0].clone(), output.clone())

    stack.callback(norm.register_forward_hook(hook, with_kwargs=True).remove)


class _Call(NamedTuple):
    """One call of a torch function: its name, what it was called on, and what it gave."""

    name: str
    on: torch.Tensor
    result: Any


class _Calls(TorchFunctionMode):
    """Keeps the calls of functions that compute what no module's output holds: scores, and `pre`."""

    NAMES = frozenset({"topk", "masked_fill", "sigmoid"})

    def __init__(self) -> None:
        super().__init__()
        self.made: list[_Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (name := getattr(func, "__name__", "")) in self.NAMES and args:
            self.made.append(_Call(name, args[0], result))
        return result


type _Reader = Callable[[list[_Call], Any], dict[str, Activation]]


def _record_part(
    stack: ExitStack, module: nn.Module, calls: _Calls, read: _Reader, activations: dict[str, Activation]
) -> None:
    """Has `read` make activations of the calls inside of `module`'s forward, and of its output."""
    first = 0

    def before(*_: object) -> None:
        nonlocal first
        first = len(calls.made)

    def after(_: nn.Module, __: object, output: Any) -> None:
        activations.update(read(calls.made[first:], output))

    stack.callback(module.register_forward_pre_hook(before).remove)
    stack.callback(module.register_forward_hook(after).remove)


_CLASSES = {
    "indexer": re.compile(r"Indexer$"),
    "router": re.compile(r"Router$"),
    "compressor": re.compile(r"Compressor$"),
    "hyper-connection": re.compile(r"HyperConnection$"),
}


def _parts(layer: nn.Module) -> list[tuple[str, str, nn.Module]]:
    """(kind, name, module) of what is recorded beside norms. The one part of a kind is called by its kind, several and
    hyper-connections by their module names."""
    found = [
        (kind, name, module)
        for name, module in layer.named_modules()
        for kind, pattern in _CLASSES.items()
        if pattern.search(type(module).__name__)
    ]
    kinds = [kind for kind, _, _ in found]
    return [
        (kind, kind if kinds.count(kind) == 1 and kind != "hyper-connection" else name, module)
        for kind, name, module in found
    ]


def _read_indexer(name: str, _: nn.Module, __: int) -> _Reader:
    def read(calls: list[_Call], output: torch.Tensor) -> dict[str, Activation]:
        """Args: output: (B, S, k) indices of keys; -1 where there are fewer keys than k"""
        if not (topk := [call for call in calls if call.name == "topk"]):
            return {}
        scores = topk[-1].on.float()
        # Later keys have a score of -inf, or the lowest number of the mask's type added to theirs. A query that sees
        # fewer keys than k is given some of them, too; the attention masks them: they don't count as chosen.
        allowed = scores > torch.finfo(torch.bfloat16).min / 2
        options = scores.shape[-1]
        indices = torch.where(output < 0, options, output.long())
        chosen = torch.zeros(*scores.shape[:-1], options + 1, dtype=torch.bool).scatter(-1, indices, True)
        return {name: Choice(scores.masked_fill(~allowed, -torch.inf), chosen[..., :options] & allowed)}

    return read


def is_hash_router(module: nn.Module) -> bool:
    """Whether it chooses experts by the tokens' ids."""
    return type(module).__name__.endswith("HashRouter")


def _read_router(name: str, module: nn.Module, batch: int) -> _Reader:
    by_score = not is_hash_router(module)

    def read(calls: list[_Call], output: tuple[torch.Tensor, ...]) -> dict[str, Activation]:
        """Args: output: logits (B * S, N) and indices (B * S, k), among others; of another form nothing is recorded"""
        logits, indices = output[0], next((part for part in output if not part.dtype.is_floating_point), None)
        topk = [call for call in calls if call.name == "topk"]
        masked = [call for call in calls if call.name == "masked_fill"]
        if indices is None or (by_score and not topk) or (len(topk) > 1 and not masked):
            return {}
        scores = topk[-1].on if topk else logits
        groups = chosen_groups = group_best = 1
        if len(topk) > 1:  # of groups before, from which the others' scores are masked
            scores = masked[-1].on
            *of_members, of_groups, _ = topk
            groups, chosen_groups = of_groups.on.shape[-1], of_groups.result.indices.shape[-1]
            group_best = of_members[-1].result.indices.shape[-1] if of_members else 1
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, indices.long(), True)
        options = scores.shape[-1]
        choice = Choice(
            scores=scores.float().reshape(batch, -1, options),
            chosen=chosen.reshape(batch, -1, options),
            groups=groups,
            chosen_groups=chosen_groups,
            group_best=group_best,
            by_score=by_score,
        )
        return {name: choice}

    return read


def _read_compressor(name: str, _: nn.Module, __: int) -> _Reader:
    def read(_: list[_Call], output: tuple[torch.Tensor, ...]) -> dict[str, Activation]:
        return {name: output[0]} if output[0].numel() else {}

    return read


def _read_hyper_connection(name: str, module: nn.Module, _: int) -> _Reader:
    def read(calls: list[_Call], output: tuple[torch.Tensor, ...]) -> dict[str, Activation]:
        """`pre` is the first sigmoid, and not in the output: it has been applied. HY-V4's have no `comb`."""
        pre = next(call.result for call in calls if call.name == "sigmoid") + module.hc_eps
        weights: dict[str, Activation] = {f"{name}.pre": pre, f"{name}.post": output[0]}
        if output[1].shape == (*pre.shape, pre.shape[-1]):
            weights[f"{name}.comb"] = output[1]
        return weights

    return read


_READERS = {
    "indexer": _read_indexer,
    "router": _read_router,
    "compressor": _read_compressor,
    "hyper-connection": _read_hyper_connection,
}
