"""The main job: a block with HuggingFace's LayerNorm and with `TtLayerNorm`, tap by tap."""

from dataclasses import dataclass

import torch
import ttnn

from integration.block import Block, Taps
from integration.layernorm import TtLayerNorm
from integration.metrics import Errors, compare
from micro_ops.layernorm.op import LayerNormSingleCore

MIN_PCC = 0.9999
# A correct float32 evaluation is within half a ULP of the exact value before it is rounded, so after it within one of
# the rounded value; the second is for the bfloat16 spacing that changes at a power of two.
MAX_SCALED_ULP = 2.0
# One bfloat16 ULP of each element, 2^-7 of it at most, is all that a norm that holds may shift what follows from it.
MAX_RELATIVE_NORM = 2.0**-7


@dataclass(frozen=True)
class Tap:
    """One row of the comparison: what differs at one place of the block."""

    name: str
    shape: tuple[int, ...]
    errors: Errors | None  # None for a choice, which has no size
    launches: int  # of the device, that served this tap
    holds: bool
    remark: str


@dataclass(frozen=True)
class Comparison:
    layer: int
    tokens: int
    index_topk: int
    taps: list[Tap]

    @property
    def holds(self) -> bool:
        return all(tap.holds for tap in self.taps)


def compare_block(block: Block, device: ttnn.Device, tokens: int | None = None, seed: int = 0) -> Comparison:
    """Runs `block` twice on the same input, the second time with its k_norm on `device`.

    Args:
        tokens: length of the one sequence; default 32 more than the config's index_topk. With no more tokens than
            index_topk every key is chosen, and the block's output does not depend on k_norm at all.
        seed: of the input, N(0, 1) bfloat16
    """
    tokens = tokens or block.config.index_topk + 32
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(1, tokens, block.config.hidden_size, generator=generator).to(torch.bfloat16)

    reference = block.run(hidden_states)
    indexer = block.layer.self_attn.indexer
    original = indexer.k_norm
    norm = TtLayerNorm.from_torch(original, device)
    indexer.register_module("k_norm", norm)
    try:
        result = block.run(hidden_states)
    finally:
        indexer.register_module("k_norm", original)
    return Comparison(
        block.number,
        tokens,
        block.config.index_topk,
        [
            *_norm_taps(result, reference, original, norm.launches),
            _scores(result, reference, norm.launches),
            _choice(result, reference, norm.launches),
            _output(result, reference, norm.launches),
        ],
    )


def _norm_taps(result: Taps, reference: Taps, layer: torch.nn.LayerNorm, launches: int) -> list[Tap]:
    """k_norm's output against float64 and against HuggingFace's. Its input is the same in both runs."""
    beta = layer.bias.detach()
    golden = LayerNormSingleCore.golden(result.norm_input, layer.weight.detach(), beta, layer.eps)
    operands = (golden - beta.double()).abs() + beta.double().abs()
    taps = []
    for name, expected in (("float64", golden), ("HuggingFace", reference.norm_output)):
        errors = compare(result.norm_output, expected, operands)
        holds = launches > 0 and errors.pcc >= MIN_PCC and errors.scaled <= MAX_SCALED_ULP
        remark = f"{errors.exact:.2%} exact" if launches else "the device ran no launch"
        taps.append(Tap(f"k_norm vs {name}", tuple(expected.shape), errors, launches, holds, remark))
    return taps


def _scores(result: Taps, reference: Taps, launches: int) -> Tap:
    """The indexer's scores of keys that are not later than their query."""
    visible = _visible(reference)
    errors = compare(result.scores[visible], reference.scores[visible])
    holds = errors.pcc >= MIN_PCC and errors.relative_norm <= MAX_RELATIVE_NORM
    return Tap("indexer scores", tuple(reference.scores.shape), errors, launches, holds, "")


def _choice(result: Taps, reference: Taps, launches: int) -> Tap:
    """Whether each query chose the same keys. Another choice holds only where the scores leave it open: if no score
    moved by more than e, what is chosen scores at least as much as the reference's last choice, less 2 e."""
    visible = _visible(reference)
    moved = (result.scores - reference.scores)[visible].abs().max()
    # Queries with fewer visible keys than index_topk fill up with masked ones, in no order that means anything.
    allowed = torch.zeros_like(visible).scatter(-1, result.chosen.long(), True) & visible
    expected = torch.zeros_like(visible).scatter(-1, reference.chosen.long(), True) & visible
    flipped = (allowed != expected).any(dim=-1)
    lowest_chosen = reference.scores.masked_fill(~allowed, torch.inf).amin(dim=-1)
    last_expected = reference.scores.masked_fill(~expected, torch.inf).amin(dim=-1)
    holds = bool((lowest_chosen >= last_expected - 2 * moved).all()) and bool(
        (allowed.sum(-1) == expected.sum(-1)).all()
    )
    remark = f"{int(flipped.sum())} of {flipped.numel()} queries chose otherwise"
    return Tap("indexer top-k", tuple(reference.chosen.shape), None, launches, holds, remark)


def _output(result: Taps, reference: Taps, launches: int) -> Tap:
    errors = compare(result.output, reference.output)
    holds = errors.pcc >= MIN_PCC and errors.relative_norm <= MAX_RELATIVE_NORM
    return Tap("block output", tuple(reference.output.shape), errors, launches, holds, f"{errors.exact:.2%} equal")


def _visible(taps: Taps) -> torch.Tensor:
    return torch.ones_like(taps.scores, dtype=torch.bool).tril()
