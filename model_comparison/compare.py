"""The main job: a block with HuggingFace's norms and with ours on the device, tap by tap, and the noise that bfloat16
itself makes there.

The block runs three times on the same input: HuggingFace's in bfloat16 (the reference), HuggingFace's in float32 on
the same weights (exact), and in bfloat16 with the chosen norms on the device (result). What the first two differ by is
the noise floor. `collect` runs, `judge` compares: what was collected can be saved and judged by other bounds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
import ttnn

from integration import FoundNorm, Replacement, find_norms, replace_norms
from model_comparison.block import Block, ChoiceTap, NormTap, Run
from model_comparison.metrics import Errors, compare
from model_comparison.recording import RecordedNorm, Recording

# Of n elements the ratio of two norms of errors scatters by 1 / sqrt(n): so many times that is allowed on top.
MAX_SIGMAS = 4.0


@dataclass(frozen=True)
class Bounds:
    """What a tap must keep to. The first three are for a norm against float64 on the same input, the last is for what
    follows from norms.

    Attributes:
        min_pcc: least correlation; of what follows from norms, too
        max_ulp: most scaled ULPs. A correct float32 evaluation falls beside the right bfloat16 value in near-ties
            alone, and by one ULP. In HuggingFace's order a near-tie of the first rounding moves the product by two (1.0
            is rounded to 1.0078, gamma is 1.99), and the third is for the spacing that changes at a power of two.
        min_nearest: least share of elements that no bfloat16 value beats. A value that is off by 2^-20 before it is
            rounded (float32 keeps 2^-24, sums over a row lose some) falls on the other side of a rounding boundary once
            in 2^11 elements; 2% leaves room for two of a single stick of 128. A scale that is off by 0.1% changes a
            quarter of the elements, though none by more than an ULP. A tie may go either way: in HuggingFace's order
            gamma times a rounded value is one in 2% of the elements, and the packer takes the larger.
        max_floors: most noise floors. Where near-ties came out otherwise, other roundings follow. However far that
            spreads, the device is one bfloat16 evaluation and HuggingFace's another; two that share no rounding error
            at all differ by sqrt(2) noise floors.
    """

    min_pcc: float = 0.9999
    max_ulp: float = 3.0
    min_nearest: float = 0.98
    max_floors: float = 2.0**0.5

    def holds_for_norm(self, errors: Errors) -> bool:
        return errors.pcc >= self.min_pcc and errors.scaled <= self.max_ulp and errors.nearest >= self.min_nearest


@dataclass(frozen=True)
class Tap:
    """What differs at one place of the block.

    Attributes:
        name: a norm's module name in the layer, or what else is looked at
        reference: what it is judged against
        shape: of the tensor there
        errors: over the tokens whose choices up to there agree with the reference's; None if there are none
        floor: relative norm of what bfloat16 costs HuggingFace there, over the tokens whose choices agree in float32
        launches: of the device, for this norm or for all up to there
        holds: None for what is shown and not judged
    """

    name: str
    reference: str
    shape: tuple[int, ...]
    errors: Errors | None
    floor: float
    launches: int
    holds: bool | None


@dataclass(frozen=True)
class Flips:
    """At how many tokens a choice came out otherwise than the reference's.

    Attributes:
        name: of what chooses
        tokens: whose choices before agree with the reference's
        flipped: of them, those whose chosen set is another
        floor: likewise, of the reference and float32
        needed: what one of the reference's scores has to move by at least to lead to these choices
        noise: the most that they move by in float32
        launches: of the device up to there
        holds: no more is needed than the noise
    """

    name: str
    tokens: int
    flipped: int
    floor: int
    needed: float
    noise: float
    launches: int
    holds: bool


@dataclass(frozen=True)
class Comparison:
    tokens: int
    launches: dict[str, int]  # of each norm on the device
    taps: list[Tap]
    flips: list[Flips]
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def holds(self) -> bool:
        return all(tap.holds is not False for tap in self.taps) and all(flips.holds for flips in self.flips)


def collect(
    block: Block,
    device: ttnn.Device,
    norms: Sequence[str] = ("*",),
    isolated: bool = False,
    tokens: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Recording:
    """Runs `block`, a bfloat16 one, and the same with norms on `device`.

    Args:
        norms: globs of those norms' module names in the layer; see `replace_norms`
        isolated: feed each norm the reference's input, and look at norms alone; else run the block with all of them,
            so that their errors propagate
        tokens: length of the one sequence; default `default_tokens`
        seed: of the input, N(0, 1) bfloat16
        tell: is called with what is going on, before it
    Raises:
        NormError: a pattern fits no norm, or a norm can't run on the device
    """
    tokens = tokens or default_tokens(block)
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(1, tokens, block.config.hidden_size, generator=generator).to(torch.bfloat16)
    facts = {
        "model": block.config.model_type,
        "layer": block.number,
        "tokens": tokens,
        "seed": seed,
        "isolated": isolated,
        "index_topk": getattr(block.config, "index_topk", None),
    }

    originals = {norm.name: norm for norm in find_norms(block.layer, include=norms)}
    tell("reference on the CPU, bfloat16")
    reference = block.run(hidden_states, originals)
    exact = None
    if not isolated:
        tell("reference on the CPU, float32")
        exact = Block(block.checkpoint, block.number, torch.float32).run(hidden_states.float(), originals)
    with replace_norms(block.layer, device, include=norms) as replacement, _told(replacement, tell):
        if isolated:
            inputs = {name: reference.norm(name).input for name in reference.taps if name in originals}
            result = Run({name: NormTap(x, replacement.norms[name](x)) for name, x in inputs.items()}, torch.empty(0))
        else:
            result = block.run(hidden_states, originals)
        launches = {name: norm.launches for name, norm in replacement.norms.items()}
    recorded = {name: _recorded(originals[name], launches[name]) for name in launches}
    return Recording(recorded, reference, exact, result, facts)


def judge(recording: Recording, bounds: Bounds = Bounds()) -> Comparison:
    """Compares what was collected, tap by tap. Needs no device."""
    launches = {name: norm.launches for name, norm in recording.norms.items()}
    taps, flips = (_isolated if recording.exact is None else _chained)(recording, bounds)
    return Comparison(recording.tokens, launches, taps, flips, bounds)


def short(name: str) -> str:
    """A norm's name without the modules that it is in."""
    return name.rsplit(".", 1)[-1]


def default_tokens(block: Block) -> int:
    """A few more than the indexer chooses, if it chooses few: with no more tokens than index_topk every key is chosen,
    and the block's output does not depend on k_norm at all. Else 16, for simulators' sake."""
    index_topk = getattr(block.config, "index_topk", None)
    return index_topk + 4 if index_topk and index_topk <= 32 else 16


@contextmanager
def _told(replacement: Replacement, tell: Callable[[str], None]) -> Iterator[None]:
    """Tells of each launch before it, as long as the block lasts."""
    count = len(replacement.norms)
    started: list[str] = []

    def hook(name: str) -> Callable[..., None]:
        def on_forward(*_: object) -> None:
            started.append(name)
            tell(f"launching {short(name)}, {len(started)} of {count}")

        return on_forward

    handles = [norm.register_forward_pre_hook(hook(name)) for name, norm in replacement.norms.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorded(found: FoundNorm, launches: int) -> RecordedNorm:
    assert found.formula is not None  # replace_norms refuses what it can't serve
    weights = dict(found.module.named_parameters())
    gamma, beta = (weights[name].detach() if name else None for name in (found.formula.gamma, found.formula.beta))
    return RecordedNorm(found.formula, gamma, beta, launches)


def _isolated(recording: Recording, bounds: Bounds) -> tuple[list[Tap], list[Flips]]:
    taps = []
    for name in recording.result.taps:
        norm, tap, expected = recording.norms[name], recording.result.norm(name), recording.reference.norm(name)
        golden, _ = norm.golden(expected.input)
        taps.append(_against_float64(name, tap, expected, norm, bounds))
        taps.append(_against_huggingface(name, tap.output, expected.output, golden, norm.launches, bounds))
    return taps, []


def _chained(recording: Recording, bounds: Bounds) -> tuple[list[Tap], list[Flips]]:
    result, reference, exact = recording.result, recording.reference, recording.exact
    assert exact is not None
    taps: list[Tap] = []
    flips: list[Flips] = []
    launched = 0
    # (B, S): tokens that have chosen as the reference did, so far. The others' numbers are of another computation.
    same = exact_same = torch.ones(result.output.shape[:2], dtype=torch.bool)
    for name, tap in result.taps.items():
        if isinstance(tap, NormTap):
            norm, expected, unrounded = recording.norms[name], reference.norm(name), exact.norm(name)
            launched += norm.launches
            taps.append(_against_float64(name, tap, expected, norm, bounds))
            tensors = (tap.output, expected.output, unrounded.output)
            taps.append(_against_huggingface(name, *tensors, launched, bounds, same, exact_same))
        else:
            choice, precise = reference.choice(name), exact.choice(name)
            may = choice.scores.isfinite()
            masks = (may & same.unsqueeze(-1), may & exact_same.unsqueeze(-1))
            tensors = (tap.scores, choice.scores, precise.scores)
            scores = _against_huggingface(f"{name} scores", *tensors, launched, bounds, *masks)
            decide = not torch.equal(choice.chosen, may)  # else there was nothing to choose from
            taps.append(scores if decide else replace(scores, holds=None))
            flips.append(_flips(name, tap, choice, precise, launched, same, exact_same))
            same, exact_same = same & ~_flipped(tap, choice), exact_same & ~_flipped(precise, choice)
    tensors = (result.output, reference.output, exact.output)
    taps.append(_against_huggingface("block output", *tensors, launched, bounds, same, exact_same))
    if not same.all():
        everywhere = _against_huggingface("block output, flips too", *tensors, launched, bounds)
        taps.append(replace(everywhere, holds=None))
    return taps, flips


def _against_float64(name: str, tap: NormTap, reference: NormTap, norm: RecordedNorm, bounds: Bounds) -> Tap:
    """A norm's output against float64 on its own input; the floor is that of the reference on its own."""
    errors = compare(tap.output, *norm.golden(tap.input))
    floor = compare(reference.output, *norm.golden(reference.input)).relative_norm
    holds = bounds.holds_for_norm(errors) and norm.launches > 0
    return Tap(name, "float64", tuple(tap.output.shape), errors, floor, norm.launches, holds)


def _against_huggingface(
    name: str,
    result: torch.Tensor,
    reference: torch.Tensor,
    exact: torch.Tensor,
    launches: int,
    bounds: Bounds,
    same: torch.Tensor | None = None,
    exact_same: torch.Tensor | None = None,
) -> Tap:
    """`result` against `reference` where `same`, and the floor from `reference` against `exact` where `exact_same`.

    Args:
        result, reference, exact: (B, S, N)
        same, exact_same: (B, S) or (B, S, N) bool; default: everywhere
    """
    shape = tuple(reference.shape)
    errors, noise = (
        compare(a, b) if mask is None else _compare_where(mask, a, b) if mask.any() else None
        for a, b, mask in ((result, reference, same), (reference, exact, exact_same))
    )
    if errors is None or noise is None:
        return Tap(name, "HuggingFace", shape, errors, torch.nan, launches, False)
    elements = reference.numel() if same is None else reference[same].numel()
    bound = bounds.max_floors * (1 + MAX_SIGMAS / elements**0.5) * noise.relative_norm
    holds = launches > 0 and errors.pcc >= bounds.min_pcc and errors.relative_norm <= bound
    return Tap(name, "HuggingFace", shape, errors, noise.relative_norm, launches, holds)


def _compare_where(mask: torch.Tensor, result: torch.Tensor, reference: torch.Tensor) -> Errors:
    """Where `mask` is set; indices are of the whole tensor."""
    errors = compare(result[mask], reference[mask])
    places = mask.nonzero().tolist()  # by the first index of what is compared
    worst = (*places[errors.worst[0]], *errors.worst[1:])
    rows = errors.worst_row or errors.worst  # of single elements there are no rows
    worst_row = (*places[rows[0]], *rows[1:])[: result.ndim - 1]
    return replace(errors, worst=worst, worst_row=worst_row)


def _flips(
    name: str,
    result: ChoiceTap,
    reference: ChoiceTap,
    exact: ChoiceTap,
    launches: int,
    same: torch.Tensor,
    exact_same: torch.Tensor,
) -> Flips:
    """Of the tokens (B, S) that are still the `same`, in the device's run and in float32."""
    flipped, exact_flipped = _flipped(result, reference) & same, _flipped(exact, reference) & exact_same
    needed = _needed_move(result, reference)[flipped].max().item() if flipped.any() else 0.0
    moved = (exact.scores - reference.scores)[exact_same].nan_to_num(0.0)  # -inf less -inf
    noise = moved.abs().max().item() if moved.numel() else 0.0
    return Flips(
        name, int(same.sum()), int(flipped.sum()), int(exact_flipped.sum()), needed, noise, launches, needed <= noise
    )


def _flipped(result: ChoiceTap, reference: ChoiceTap) -> torch.Tensor:
    """(B, S) bool: tokens that chose another set."""
    return (result.chosen != reference.chosen).any(dim=-1)


def _needed_move(result: ChoiceTap, reference: ChoiceTap) -> torch.Tensor:
    """(B, S): by how much one of reference.scores has to move at least, so that `result.chosen` can follow from them.

    Of two scores that change places one moves up and one down; a group's score is the sum of two that move.
    """
    scores, needed = reference.scores, torch.zeros(reference.scores.shape[:-1])
    if reference.groups > 1:
        groups = _group_scores(result).topk(reference.chosen_groups).indices
        chosen_groups = torch.zeros_like(_group_scores(result), dtype=torch.bool).scatter(-1, groups, True)
        needed = _gap(_group_scores(reference), chosen_groups) / 4
        members = chosen_groups.repeat_interleave(scores.shape[-1] // reference.groups, dim=-1)
        scores = scores.masked_fill(~members, -torch.inf)
    needed = torch.maximum(needed, _gap(scores, result.chosen) / 2)
    return needed.masked_fill(result.chosen.sum(-1) != reference.chosen.sum(-1), torch.inf)


def _group_scores(choice: ChoiceTap) -> torch.Tensor:
    """(B, S, groups)."""
    *tokens, options = choice.scores.shape
    return choice.scores.reshape(*tokens, choice.groups, options // choice.groups).topk(2).values.sum(-1)


def _gap(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """(B, S): how far the lowest of the chosen is below the highest of the others; 0 if it is not."""
    highest_left = scores.masked_fill(chosen, -torch.inf).amax(dim=-1)
    return (highest_left - scores.masked_fill(~chosen, torch.inf).amin(dim=-1)).clamp(min=0)
