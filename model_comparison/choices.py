# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens whose choice came out otherwise than HuggingFace's: how many, and whether rounding explains it."""

from dataclasses import dataclass

import torch

from model_comparison.activations import Choice


@dataclass(frozen=True)
class Flips:
    """At how many tokens a choice came out otherwise than the reference's.

    Attributes:
        name: of what chooses
        tokens: whose earlier choices agree with the reference's; the others had another input
        flipped: of them, those that chose another set on the device
        float32_flipped: the same, counted in the float32 run
        needed: how far one of the reference's scores has to move at least, for the device's choices to follow from them
        noise: the largest distance of a score in the float32 run from the reference's
        launches: of the device up to there
        holds: `needed` is no more than `noise`
    """

    name: str
    tokens: int
    flipped: int
    float32_flipped: int
    needed: float
    noise: float
    launches: int
    holds: bool


def flipped(choice: Choice, reference: Choice) -> torch.Tensor:
    """(B, S) bool: tokens that chose another set."""
    return (choice.chosen != reference.chosen).any(dim=-1)


def needed_move(choice: Choice, reference: Choice) -> torch.Tensor:
    """(B, S): how far one of reference.scores has to move at least, so that `choice.chosen` can follow from them;
    infinite if it is of another size.

    Two options change places where one's score rises and the other's falls by half of their gap. Two groups whose
    scores are sums of n scores do so by 1 / (2 n) of it: each of these can move.
    """
    scores, needed = reference.scores, torch.zeros(reference.scores.shape[:-1])
    if reference.groups > 1:
        groups = _group_scores(choice).topk(reference.chosen_groups).indices
        chosen_groups = torch.zeros_like(_group_scores(choice), dtype=torch.bool).scatter(-1, groups, True)
        needed = _gap(_group_scores(reference), chosen_groups) / (2 * reference.group_best)
        members = chosen_groups.repeat_interleave(scores.shape[-1] // reference.groups, dim=-1)
        scores = scores.masked_fill(~members, -torch.inf)
    needed = torch.maximum(needed, _gap(scores, choice.chosen) / 2)
    return needed.masked_fill(choice.chosen.sum(-1) != reference.chosen.sum(-1), torch.inf)


def _group_scores(choice: Choice) -> torch.Tensor:
    """(B, S, groups)."""
    *tokens, options = choice.scores.shape
    members = choice.scores.reshape(*tokens, choice.groups, options // choice.groups)
    return members.topk(choice.group_best).values.sum(-1)


def _gap(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """(B, S): how far the lowest of the chosen is below the highest of the others; 0 if it is not below."""
    highest_left = scores.masked_fill(chosen, -torch.inf).amax(dim=-1)
    return (highest_left - scores.masked_fill(~chosen, torch.inf).amin(dim=-1)).clamp(min=0)
