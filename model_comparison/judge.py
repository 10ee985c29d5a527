# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Judges a recording: each norm against float64, and all that follows from norms against HuggingFace's bfloat16 run.

The distance of HuggingFace's bfloat16 run from its float32 run is what bfloat16 itself costs: the noise floor. The
device's distance from HuggingFace's is measured in noise floors.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch

from model_comparison.activations import Choice, NormActivation
from model_comparison.choices import Flips, flipped, needed_move
from model_comparison.metrics import Errors, compare
from model_comparison.names import short_names
from model_comparison.recording import RecordedNorm, Recording

# Relative norm of what float32 arithmetic costs: an element keeps 2^-24, and statistics and sums over a row lose some
# of that. What HuggingFace computes in float32 in both of its runs, of equal input, is equal in both.
FLOAT32_NOISE = 2.0**-22
# The ratio of two error norms over n elements scatters by 1 / sqrt(n). Allowed slack: four standard deviations.
MAX_SIGMAS = 4.0

type State = Literal["holds", "wrong", "off by its input", "shown"]


@dataclass(frozen=True)
class Bounds:
    """What has to hold. All but the last are for a norm against float64 on the same input, the last is for what follows
    from norms.

    Attributes:
        min_pcc: least correlation; of what follows from norms, too, unless the error that `max_floors` allows there
            costs more
        max_float32: of a float32 norm, the largest relative norm of its error, in place of the two that follow: twice
            `FLOAT32_NOISE`. An eps of 1e-5 for 1e-6 moves rows of size 1 by 4.5e-6.
        max_ulp: most scaled ULPs. Where float64 is all but halfway between two bfloat16 values (a near-tie), correct
            float32 arithmetic may give the other one: one ULP. HuggingFace's RMSNorm rounds before gamma, too, and a
            near-tie of that rounding moves the product by up to two (1.0 becomes 1.0078, gamma is 1.99). The third is
            for a product at a power of two, above which the spacing is twice as large.
        min_nearest: least share of elements that no bfloat16 value beats. A value that is off by 2^-20 of its size
            before it is rounded (float32 keeps 2^-24, sums over a row lose some) becomes the other neighbour once in
            2^11 elements; 2% allows two in a single stick of 128. A scale that is off by 0.1% changes a quarter of the
            elements, though none by more than an ULP. Ties count as right either way: in HuggingFace's order, the
            product of gamma and a rounded value is a tie at 2% of the elements; the packer rounds it away from zero.
        max_floors: most noise floors. The device's run and HuggingFace's are two bfloat16 evaluations of one block,
            each a noise floor away from float32. If they share no rounding error at all, they are sqrt(2) noise floors
            from each other; what they share brings them closer.
    """

    min_pcc: float = 0.9999
    max_float32: float = 5e-7
    max_ulp: float = 3.0
    min_nearest: float = 0.98
    max_floors: float = 2.0**0.5

    def holds_for_norm(self, errors: Errors, dtype: torch.dtype) -> bool:
        """Args: dtype: of the norm's output"""
        if dtype == torch.float32:
            return errors.pcc >= self.min_pcc and errors.relative_norm <= self.max_float32
        return errors.pcc >= self.min_pcc and errors.scaled <= self.max_ulp and errors.nearest >= self.min_nearest

    def holds_after_norms(self, errors: Errors, noise_floor: float, elements: int) -> bool:
        """Whether it holds for what follows from norms: their outputs against HuggingFace's, scores, the block.

        Args:
            noise_floor: a relative norm, of as many `elements` as `errors` are
        """
        most = self.max_floors * (1 + MAX_SIGMAS / elements**0.5) * noise_floor
        # An error of relative norm r, not correlated with the reference, leaves a PCC of 1 / sqrt(1 + r^2).
        min_pcc = min(self.min_pcc, 1 / math.hypot(1, most))
        return errors.pcc >= min_pcc and errors.relative_norm <= most


@dataclass(frozen=True)
class Verdict:
    """How one activation of the device's run compares with one reference.

    Attributes:
        name: a norm's module name in the layer, "indexer scores", "router scores", "block output", or what else `Run`
            has by its name there
        reference: "float64" on the norm's own input, or "HuggingFace" in bfloat16
        shape: of the activation
        errors: over the tokens whose choices up to there agree with HuggingFace's; None if there are none
        noise_floor: relative norm of the errors that bfloat16 makes in HuggingFace's run there, over the tokens whose
            choices agree in the float32 run; NaN if there are none
        launches: of the device, for this norm (float64) or for all norms up to there (HuggingFace)
        holds: None for what is shown and not judged
    """

    name: str
    reference: str
    shape: tuple[int, ...]
    errors: Errors | None
    noise_floor: float
    launches: int
    holds: bool | None


@dataclass(frozen=True)
class Comparison:
    """
    Attributes:
        tokens: S
        launches: of each norm on the device
        verdicts, flips: in order of execution
    """

    tokens: int
    launches: dict[str, int]
    verdicts: list[Verdict]
    flips: list[Flips]
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def holds(self) -> bool:
        return all(verdict.holds is not False for verdict in self.verdicts) and all(flips.holds for flips in self.flips)

    @cached_property
    def short_names(self) -> dict[str, str]:
        """By the verdicts' names."""
        return short_names(verdict.name for verdict in self.verdicts)

    def state(self, verdict: Verdict) -> State:
        """A failing verdict is "off by its input" where some norm is wrong against float64, and this is not of that
        norm: it may be off by what it was given."""
        if verdict.holds is not False:
            return "holds" if verdict.holds else "shown"
        wrong = {other.name for other in self.verdicts if other.reference == "float64" and other.holds is False}
        return "wrong" if not wrong or verdict.name in wrong else "off by its input"


def judge(recording: Recording, bounds: Bounds = Bounds()) -> Comparison:
    """Compares what was collected, in order of execution. Needs no device."""
    launches = {name: norm.launches for name, norm in recording.norms.items()}
    verdicts, flips = (_isolated if recording.float32 is None else _chained)(recording, bounds)
    return Comparison(recording.tokens, launches, verdicts, flips, bounds)


class _Trio[T](NamedTuple):
    """The same place in three runs: the device's, HuggingFace's in bfloat16, and what the latter's noise is measured
    against: the float32 run, or, of a norm that was run alone, float64 on the same input."""

    device: T
    reference: T
    precise: T


@dataclass(frozen=True)
class _Agreeing:
    """Tokens, (B, S) bool, whose choices so far are the reference's. Another choice is another computation: other keys,
    other experts. Those tokens are left out of the figures that follow.

    Attributes:
        device, float32: of which run
    """

    device: torch.Tensor
    float32: torch.Tensor

    def after(self, choices: _Trio[Choice]) -> "_Agreeing":
        device, reference, float32 = choices
        return _Agreeing(self.device & ~flipped(device, reference), self.float32 & ~flipped(float32, reference))

    def options(self, allowed: torch.Tensor) -> "_Agreeing":
        """(B, S, N) bool: of those tokens the options that are `allowed` (B, S, N)."""
        return _Agreeing(self.device.unsqueeze(-1) & allowed, self.float32.unsqueeze(-1) & allowed)


def _isolated(recording: Recording, bounds: Bounds) -> tuple[list[Verdict], list[Flips]]:
    verdicts = []
    for name in recording.result.activations:
        norm, device, reference = recording.norms[name], recording.result.norm(name), recording.reference.norm(name)
        golden, _ = norm.golden(reference.input)
        verdicts.append(_against_float64(name, device, reference, norm, bounds))
        outputs = _Trio(device.output, reference.output, golden)
        verdicts.append(_against_huggingface(name, outputs, None, norm.launches, bounds))
    return verdicts, []


def _chained(recording: Recording, bounds: Bounds) -> tuple[list[Verdict], list[Flips]]:
    result, reference, float32 = recording.result, recording.reference, recording.float32
    assert float32 is not None
    verdicts: list[Verdict] = []
    flips: list[Flips] = []
    launched = 0
    everywhere = torch.ones(result.output.shape[:2], dtype=torch.bool)
    agreeing = _Agreeing(everywhere, everywhere)
    for name, activation in result.activations.items():
        if isinstance(activation, NormActivation):
            norm, expected = recording.norms[name], reference.norm(name)
            launched += norm.launches
            verdicts.append(_against_float64(name, activation, expected, norm, bounds))
            outputs = _Trio(activation.output, expected.output, float32.norm(name).output)
            verdicts.append(_against_huggingface(name, *_by_tokens(outputs, agreeing), launched, bounds))
        elif isinstance(activation, torch.Tensor):
            tensors = _Trio(activation, reference.tensor(name), float32.tensor(name))
            verdicts.append(_against_huggingface(name, *_by_tokens(tensors, agreeing), launched, bounds))
        else:
            choices = _Trio(activation, reference.choice(name), float32.choice(name))
            verdicts.append(_of_scores(name, choices, launched, bounds, agreeing))
            flips.append(_count_flips(name, choices, launched, agreeing))
            agreeing = agreeing.after(choices)
    outputs = _Trio(result.output, reference.output, float32.output)
    verdicts.append(_against_huggingface("block output", outputs, agreeing, launched, bounds))
    if not agreeing.device.all():
        with_flips = _against_huggingface("block output, flips too", outputs, None, launched, bounds)
        verdicts.append(replace(with_flips, holds=None))
    return verdicts, flips


def _against_float64(
    name: str, device: NormActivation, reference: NormActivation, norm: RecordedNorm, bounds: Bounds
) -> Verdict:
    """The device's and HuggingFace's norm, each against float64 on its own input; the latter is the noise floor."""
    errors = compare(device.output, *norm.golden(device.input))
    noise_floor = compare(reference.output, *norm.golden(reference.input)).relative_norm
    holds = bounds.holds_for_norm(errors, device.output.dtype) and norm.launches > 0
    return Verdict(name, "float64", tuple(device.output.shape), errors, noise_floor, norm.launches, holds)


def _of_scores(name: str, choices: _Trio[Choice], launches: int, bounds: Bounds, agreeing: _Agreeing) -> Verdict:
    reference = choices.reference
    allowed = reference.scores.isfinite()
    scores = _Trio(*(choice.scores for choice in choices))
    verdict = _against_huggingface(f"{name} scores", scores, agreeing.options(allowed), launches, bounds)
    scores_decide = reference.by_score and not torch.equal(reference.chosen, allowed)
    return verdict if scores_decide else replace(verdict, holds=None)


def _by_tokens(values: _Trio[torch.Tensor], agreeing: _Agreeing) -> tuple[_Trio[torch.Tensor], _Agreeing | None]:
    """`values` with tokens second, (B, S, ...), of (B, S, ...) or (B, heads, S, D), and `agreeing`. None in the place
    of that, so that all is compared, if rows are windows' (a compressor's), or heads are as many as tokens."""
    batch, tokens = agreeing.device.shape
    shape = values.reference.shape
    axes = [axis for axis in (1, 2) if axis < len(shape) - 1 and shape[0] == batch and shape[axis] == tokens]
    if axes == [1]:
        return values, agreeing
    if axes == [2]:
        return _Trio(*(tensor.transpose(1, 2) for tensor in values)), agreeing
    return values, None


def _against_huggingface(
    name: str, values: _Trio[torch.Tensor], agreeing: _Agreeing | None, launches: int, bounds: Bounds
) -> Verdict:
    """
    Args:
        values: (B, S, ...) each, or of any shape without `agreeing`
        agreeing: what to compare: (B, S) tokens, or (B, S, N) options; None: all
    """
    of_device, of_float32 = (None, None) if agreeing is None else (agreeing.device, agreeing.float32)
    shape = tuple(values.reference.shape)
    device, reference, precise = values
    errors = _compare_where(of_device, device, reference)
    noise = _compare_where(of_float32, reference, precise)
    if errors is None or noise is None:
        return Verdict(name, "HuggingFace", shape, errors, torch.nan, launches, False)
    elements = reference.numel() if of_device is None else reference[of_device].numel()
    noise_floor = noise.relative_norm
    if reference.dtype == torch.float32:
        noise_floor = max(noise_floor, FLOAT32_NOISE)
    holds = launches > 0 and bounds.holds_after_norms(errors, noise_floor, elements)
    return Verdict(name, "HuggingFace", shape, errors, noise_floor, launches, holds)


def _compare_where(mask: torch.Tensor | None, result: torch.Tensor, reference: torch.Tensor) -> Errors | None:
    """Where `mask` (B, S) or (B, S, N) is set, everywhere without one; None if it is set nowhere. Indices are those of
    the whole tensors."""
    if mask is None:
        return compare(result, reference)
    if not mask.any():
        return None
    errors = compare(result[mask], reference[mask])
    places = mask.nonzero().tolist()  # by the first index of what is compared
    worst = (*places[errors.worst[0]], *errors.worst[1:])
    rows = errors.worst_row or errors.worst  # of single elements there are no rows
    worst_row = (*places[rows[0]], *rows[1:])[: result.ndim - 1]
    return replace(errors, worst=worst, worst_row=worst_row)


def _count_flips(name: str, choices: _Trio[Choice], launches: int, agreeing: _Agreeing) -> Flips:
    device, reference, float32 = choices
    device_flipped = flipped(device, reference) & agreeing.device
    float32_flipped = flipped(float32, reference) & agreeing.float32
    needed = needed_move(device, reference)[device_flipped].max().item() if device_flipped.any() else 0.0
    moved = (float32.scores - reference.scores)[agreeing.float32].nan_to_num(0.0)  # -inf - -inf: must not be chosen
    noise = moved.abs().max().item() if moved.numel() else 0.0
    return Flips(
        name=name,
        tokens=int(agreeing.device.sum()),
        flipped=int(device_flipped.sum()),
        float32_flipped=int(float32_flipped.sum()),
        needed=needed,
        noise=noise,
        launches=launches,
        holds=needed <= noise,
    )
