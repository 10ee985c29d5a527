# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The diagram of a block: what joins what in each model's, and that it can be read."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, combinations, count, pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Polygon
from matplotlib.transforms import BboxBase, IdentityTransform, Transform

from model_comparison.block_diagram import COLOURS, SYMBOLS, diagram, draw
from model_comparison.choices import Flips
from model_comparison.drawing import STYLE
from model_comparison.flow_canvas import LINE_SIZE
from model_comparison.judge import Comparison, State, Verdict
from model_comparison.metrics import compare
from model_comparison.names import short_names

ERRORS = compare(torch.tensor([[1.0, 2.0]]).bfloat16(), torch.tensor([[1.0, 2.0]]))
STREAMS = 4
CHOICES = ("indexer", "router")

MLA = ("self_attn.q_a_layernorm", "self_attn.kv_a_layernorm")
END = ("post_attention_layernorm", "router", "block output")
SLIDING = (
    *(f"attn_hc.{part}" for part in ("input_norm", "pre", "post", "comb")),
    *("input_layernorm", "self_attn.q_a_norm", "self_attn.q_b_norm", "self_attn.kv_norm"),
)
EXPERTS = (*(f"ffn_hc.{part}" for part in ("input_norm", "pre", "post", "comb")), *END)
# What is recorded of each model's layer, in order of execution
PLACES = {
    "dense": ("input_layernorm", *MLA, "post_attention_layernorm", "block output"),
    "v2": ("input_layernorm", "self_attn.kv_a_layernorm", *END),
    "v3": ("input_layernorm", *MLA, *END),
    "v32": ("input_layernorm", *MLA, "self_attn.indexer.k_norm", "indexer", *END),
    "llama": ("input_layernorm", "post_attention_layernorm", "block output"),
    "qwen3": ("input_layernorm", "self_attn.q_norm", "self_attn.k_norm", "post_attention_layernorm", "block output"),
    "longcat": (
        *("input_layernorm.0", "self_attn.0.q_a_layernorm", "self_attn.0.kv_a_layernorm"),
        *("post_attention_layernorm.0", "router", "input_layernorm.1", "self_attn.1.q_a_layernorm"),
        *("self_attn.1.kv_a_layernorm", "post_attention_layernorm.1", "block output"),
    ),
    "v4 sliding": (*SLIDING, *EXPERTS),
    "v4 HCA": (*SLIDING, "self_attn.compressor.kv_norm", "compressor", *EXPERTS),
    "v4 CSA": (
        *SLIDING,
        *("self_attn.compressor.kv_norm", "self_attn.compressor.indexer.kv_norm", "indexer", "compressor"),
        *EXPERTS,
    ),
    "gemma2": (
        *("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm"),
        *("post_feedforward_layernorm", "block output"),
    ),
}


def verdicts(place: str) -> list[Verdict]:
    if place in CHOICES:
        return [Verdict(f"{place} scores", "HuggingFace", (1, 16, 8), ERRORS, 1e-3, 1, True)]
    width = STREAMS if "_hc." in place else 128
    against_huggingface = Verdict(place, "HuggingFace", (1, 16, width), ERRORS, 1e-3, 1, True)
    if place.endswith("norm") or place[-2:] in (".0", ".1"):
        return [replace(against_huggingface, reference="float64"), against_huggingface]
    return [against_huggingface]


def compared(places: Sequence[str]) -> Comparison:
    """All holds; each verdict has an error of its own, by which it is found."""
    errors = (replace(ERRORS, relative_norm=number * 1e-3) for number in count(1))
    found = [replace(verdict, errors=next(errors)) for place in places for verdict in verdicts(place)]
    flips = [Flips(place, 16, 0, 0, 0.0, 1e-3, 1, True) for place in places if place in CHOICES]
    return Comparison(16, {}, found, flips)


def changed(comparison: Comparison, name: str, holds: bool | None, reference: str = "HuggingFace") -> Comparison:
    return replace(
        comparison,
        verdicts=[
            replace(verdict, holds=holds) if (verdict.name, verdict.reference) == (name, reference) else verdict
            for verdict in comparison.verdicts
        ],
    )


# --- What has been drawn ---

type Point = tuple[float, float]
type Extent = tuple[float, float, float, float]  # left, bottom, right, top; inches
type Joins = set[tuple[frozenset[str], frozenset[str]]]  # from what, to what

TOUCHING = 1e-6  # inches: what floating-point arithmetic leaves between a line's end and a box


class Drawn:
    """
    Attributes:
        texts: with their extents
        colours: of the boxes' frames
        lines: as they are seen; the points of each, the last being an arrow's tip, and whether it has an arrow
        whole: the extent of the figure
    """

    def __init__(self, comparison: Comparison) -> None:
        with mpl.rc_context(STYLE):
            figure = draw(comparison)
        (axes,) = figure.axes
        renderer = FigureCanvasAgg(figure).get_renderer()
        inches = axes.transData.inverted()
        self.texts = [(text.get_text(), extent(text.get_window_extent(renderer), inches)) for text in axes.texts]
        frames = [patch for patch in axes.patches if not isinstance(patch, Polygon) and patch.get_edgecolor()[3] > 0]
        self.colours = {
            extent(patch.get_path().get_extents(patch.get_patch_transform())): to_hex(patch.get_edgecolor())
            for patch in frames
        }
        heads = [patch.get_xy() for patch in axes.patches if isinstance(patch, Polygon)]
        self.lines = [with_head([tuple(point) for point in line.get_xydata()], heads) for line in axes.lines]
        self.whole = extent(axes.viewLim)

    def within(self, box: Extent) -> list[str]:
        """The texts of a box, top down."""
        return [text for text, (left, bottom, _, top) in self.texts if inside((left, (bottom + top) / 2), box)]

    def box(self, title: str) -> Extent:
        (found,) = (box for box in self.colours if self.within(box)[0] == title)
        return found

    def names(self) -> dict[Extent, str]:
        """Their titles without symbols, and the sums in the order in which a reader comes to them."""
        titles = {box: self.within(box)[0] for box in self.colours}
        names = {box: title if title[0] not in SYMBOLS.values() else title[2:] for box, title in titles.items()}
        sums = sorted((box for box, title in titles.items() if title == "+"), key=lambda box: (-round(box[1]), box[0]))
        return names | {box: f"sum {number}" for number, box in enumerate(sums, 1)}

    def joins(self) -> Joins:
        """By lines that touch one another. Of streams side by side, those that touch fewer are left out."""
        nets: list[list[int]] = []
        for number in range(len(self.lines)):
            touching = [net for net in nets if any(self._touch(number, other) for other in net)]
            nets = [net for net in nets if net not in touching] + [[number, *chain(*touching)]]
        found = {self._ends(net) for net in nets}
        return {
            (sources, targets)
            for sources, targets in found
            if not any(sources <= other[0] and targets <= other[1] for other in found - {(sources, targets)})
        }

    def _touch(self, one: int, other: int) -> bool:
        (a, _), (b, _) = self.lines[one], self.lines[other]
        tips = [line[-1] for line, arrow in self.lines if arrow]  # several may end at one sum
        return any(
            inside(point, segment, TOUCHING)
            for ends, line in ((a, b), (b, a))
            for point in (ends[0], ends[-1])
            if point not in tips
            for segment in segments(line)
        )

    def _ends(self, net: list[int]) -> tuple[frozenset[str], frozenset[str]]:
        lines = [self.lines[number] for number in net]
        names = self.names().items()
        sources = {name for line, _ in lines for box, name in names if inside(line[0], box, TOUCHING)}
        targets = {name for line, arrow in lines if arrow for box, name in names if inside(line[-1], box, TOUCHING)}
        return frozenset(sources), frozenset(targets)


def extent(box: BboxBase, to: Transform = IdentityTransform()) -> Extent:  # noqa: B008  (it has no state)
    left, bottom, right, top = (float(side) for side in box.transformed(to).extents)
    return left, bottom, right, top


def with_head(line: list[Point], heads: Sequence[np.ndarray]) -> tuple[list[Point], bool]:
    for tip, left, right, *_ in heads:
        if inside(line[-1], segments([left, right])[0], TOUCHING):
            x, y = (tip - (left + right) / 2).tolist()
            return [*line, (line[-1][0] + x, line[-1][1] + y)], True
    return line, False


def segments(line: list[Point]) -> list[Extent]:
    return [(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)) for (x0, y0), (x1, y1) in pairwise(line)]


def inside(point: Point, box: Extent, margin: float = 0.0) -> bool:
    (x, y), (left, bottom, right, top) = point, box
    return left - margin <= x <= right + margin and bottom - margin <= y <= top + margin


def overlap(a: Extent, b: Extent) -> bool:
    """More than that their edges touch."""
    return all(min(a[i + 2], b[i + 2]) - max(a[i], b[i]) > TOUCHING for i in (0, 1))


# --- Tests ---


@pytest.mark.parametrize("model", PLACES)
def test_each_verdict_is_in_the_box_of_its_place(model: str) -> None:
    comparison = compared(PLACES[model])
    drawn = Drawn(comparison)
    titles = short_names(PLACES[model])
    for verdict in comparison.verdicts:
        assert verdict.errors
        figure = f"{verdict.errors.relative_norm:.2e} / 1.00e-03"
        title = f"{SYMBOLS['holds']} {titles[verdict.name.removesuffix(' scores')]}"
        assert [line for line in drawn.within(drawn.box(title)) if figure in line], (verdict.name, verdict.reference)


FLOWS = {
    "llama": """
        input -> input_layernorm
        input_layernorm -> attention
        attention -> sum 1
        input -> sum 1
        sum 1 -> post_attention_layernorm
        post_attention_layernorm -> MLP
        MLP -> sum 2
        sum 1 -> sum 2
        sum 2 -> block output""",
    "v32": """
        input -> input_layernorm
        input_layernorm -> q_a_layernorm, k_norm, kv_a_layernorm
        k_norm -> indexer
        q_a_layernorm, indexer, kv_a_layernorm -> indexer, attention
        attention -> sum 1
        input -> sum 1
        sum 1 -> post_attention_layernorm
        post_attention_layernorm -> router
        router -> experts
        experts -> sum 2
        sum 1 -> sum 2
        sum 2 -> block output""",
    "longcat": """
        input -> input_layernorm.0
        input_layernorm.0 -> self_attn.0.q_a_layernorm, self_attn.0.kv_a_layernorm
        self_attn.0.q_a_layernorm, self_attn.0.kv_a_layernorm -> attention
        attention -> sum 1
        input -> sum 1
        sum 1 -> post_attention_layernorm.0
        post_attention_layernorm.0 -> MLP, router
        MLP -> sum 2
        sum 1 -> sum 2
        sum 2 -> input_layernorm.1, sum 3
        input_layernorm.1 -> self_attn.1.q_a_layernorm, self_attn.1.kv_a_layernorm
        self_attn.1.q_a_layernorm, self_attn.1.kv_a_layernorm -> attention
        attention -> sum 3
        sum 3 -> post_attention_layernorm.1
        post_attention_layernorm.1 -> MLP
        MLP -> sum 4
        sum 3 -> sum 4
        router -> experts
        experts -> sum 4
        sum 4 -> block output""",
    "v4 CSA": """
        input: 4 streams -> attn_hc.input_norm, attn_hc.pre, attn_hc.comb
        attn_hc.input_norm -> attn_hc.pre
        attn_hc.input_norm -> attn_hc.post, attn_hc.comb
        attn_hc.pre -> input_layernorm
        input_layernorm -> q_a_norm, indexer.kv_norm, compressor.kv_norm, self_attn.kv_norm
        q_a_norm -> q_b_norm, indexer
        indexer.kv_norm -> indexer
        compressor.kv_norm -> compressor
        q_b_norm, indexer, compressor, self_attn.kv_norm -> attention
        attention -> attn_hc.post
        attn_hc.post -> sum 1
        attn_hc.comb -> sum 1
        sum 1 -> ffn_hc.input_norm, ffn_hc.pre, ffn_hc.comb
        ffn_hc.input_norm -> ffn_hc.pre
        ffn_hc.input_norm -> ffn_hc.post, ffn_hc.comb
        ffn_hc.pre -> post_attention_layernorm
        post_attention_layernorm -> router
        router -> experts
        experts -> ffn_hc.post
        ffn_hc.post -> sum 2
        ffn_hc.comb -> sum 2
        sum 2 -> block output""",
    "gemma2": """
        input_layernorm -> post_attention_layernorm
        post_attention_layernorm -> pre_feedforward_layernorm
        pre_feedforward_layernorm -> post_feedforward_layernorm
        post_feedforward_layernorm -> block output""",
}


@pytest.mark.parametrize("model", FLOWS)
def test_lines_join_what_the_model_joins(model: str) -> None:
    expected = {
        tuple(frozenset(part.strip() for part in side.split(",")) for side in line.split("->"))
        for line in FLOWS[model].strip().splitlines()
    }
    assert Drawn(compared(PLACES[model])).joins() == expected


@cache
def widest(model: str) -> Drawn:
    """Where choices flipped, the block's output has one more line, which is the longest."""
    comparison = compared(PLACES[model])
    with_flips = replace(comparison.verdicts[-1], name="block output, flips too", holds=None)
    return Drawn(replace(comparison, verdicts=[*comparison.verdicts, with_flips]))


@pytest.mark.parametrize("model", PLACES)
def test_nothing_covers_anything(model: str) -> None:
    drawn = widest(model)
    for a, b in combinations(drawn.colours, 2):
        assert not overlap(a, b), (drawn.within(a), drawn.within(b))
    stretches = [stretch for line, _ in drawn.lines for stretch in segments(line)]
    for box in drawn.colours:
        crossing = [stretch for stretch in stretches if overlap(grown(stretch), box)]
        assert not crossing, drawn.within(box)
    for text, place in drawn.texts:
        assert all(inside(corner, drawn.whole) for corner in (place[:2], place[2:])), text
        around = [box for box in drawn.colours if overlap(place, box)]
        assert all(inside(corner, box) for box in around for corner in (place[:2], place[2:])), text
        assert len(around) <= 1, text
        assert not any(overlap(grown(stretch), place) for stretch in stretches), text


def grown(stretch: Extent) -> Extent:
    """A line has no area, and what has none overlaps nothing. It may end at a box."""
    left, bottom, right, top = stretch
    along_x = right - left > top - bottom
    dx, dy = (-1, 2) if along_x else (2, -1)
    return left - dx * TOUCHING, bottom - dy * TOUCHING, right + dx * TOUCHING, top + dy * TOUCHING


@pytest.mark.parametrize("model", PLACES)
def test_text_in_the_page_is_large_enough_to_read(model: str) -> None:
    """In a page of 1,240 px: less its padding and the border around the figure."""
    left, _, right, _ = widest(model).whole
    assert LINE_SIZE / 72 * (1240 - 2 * 20 - 2 * 9) / (right - left) > 8.8


@pytest.mark.parametrize(
    ("state", "holds", "wrong"),
    [("holds", True, False), ("wrong", False, False), ("off by its input", False, True), ("shown", None, False)],
)
def test_a_box_has_the_colour_of_its_state(state: State, holds: bool | None, wrong: bool) -> None:
    """Args: wrong: an earlier norm is, for its own input"""
    comparison = changed(compared(PLACES["v4 CSA"]), "ffn_hc.comb", holds)
    if wrong:
        comparison = changed(comparison, "input_layernorm", holds=False, reference="float64")
    drawn = Drawn(comparison)
    assert drawn.colours[drawn.box(f"{SYMBOLS[state]} ffn_hc.comb")] == COLOURS[state]
    assert f">{SYMBOLS[state]} ffn_hc.comb<" in diagram(comparison).svg["block"]


def test_choices_say_who_flipped_and_what_was_not_by_score() -> None:
    comparison = compared(PLACES["v4 CSA"])
    by_id = changed(comparison, "router scores", holds=None)
    drawn = Drawn(replace(by_id, flips=[replace(by_id.flips[0], flipped=3, holds=False), *by_id.flips[1:]]))
    assert drawn.within(drawn.box(f"{SYMBOLS['wrong']} indexer"))[2] == "3 of 16 tokens flipped"
    assert drawn.within(drawn.box(f"{SYMBOLS['shown']} router"))[2] == "by token id"


def test_what_was_not_compared_is_plain() -> None:
    drawn = Drawn(compared(["self_attn.kv_a_layernorm", "indexer", "router", "block output"]))
    for name in ("input_layernorm", "indexer.k_norm", "post_attention_layernorm"):
        assert drawn.within(drawn.box(name)) == [name]
        assert drawn.colours[drawn.box(name)] == COLOURS["shown"]


@pytest.mark.parametrize(
    "places",
    [
        PLACES["gemma2"],
        ("input_layernorm", "block output"),  # other blocks have it, too
        ("attn_hc.input_norm", "input_layernorm"),  # V4's norms run alone: how many streams is not known
        ("norm_1", "router", "norm_2", "norm_3", "norm_4", "norm_5", "norm_6", "norm_7", "norm_8", "norm_9"),
    ],
)
def test_of_other_names_no_data_flow_is_drawn(places: Sequence[str]) -> None:
    drawn = Drawn(compared(places))
    assert drawn.texts[0][0] == "In order of execution, which is not the data flow:"
    names = drawn.names()
    assert [names[box] for box in sorted(names, key=lambda box: (-box[1], box[0]))] == list(
        short_names(places).values()
    )
