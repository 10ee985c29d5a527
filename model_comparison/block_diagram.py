# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The diagram of the block: its data flow, with the verdicts at each place.

The data flow is known by the names of what was compared: a block with one residual sum after the attention and one
after the MLP, as DeepSeek-V2 to V3.2, Llama and Qwen have it; two such blocks with experts beside them (LongCat-Flash);
a block of several streams with hyper-connections (DeepSeek-V4). Of a block that has other names, what was compared is
drawn in order of execution.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise, zip_longest
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from model_comparison.drawing import CARRIED, NEUTRAL, RIGHT, STYLE, WRONG, Figures, as_png, as_svg
from model_comparison.flow_canvas import BOX_HEIGHT, LINE_SIZE, TITLE_SIZE, Box, FlowCanvas, Label, Point, bundle_width
from model_comparison.judge import Comparison, State, Verdict
from model_comparison.names import short_names

SYMBOLS: dict[State, str] = {"holds": "✓", "wrong": "✗", "off by its input": "▲", "shown": "·"}
COLOURS: dict[State, str] = {"holds": RIGHT, "wrong": WRONG, "off by its input": CARRIED, "shown": NEUTRAL}
SEVERITY: tuple[State, ...] = ("shown", "holds", "off by its input", "wrong")
OUTPUT, WITH_FLIPS = "block output", "block output, flips too"
NOT_BY_SCORE = {"indexer": "all keys chosen", "router": "by token id"}  # choices whose scores are not judged

GAP = 0.22  # between boxes that follow one another
FORK = 0.34  # where a line forks into lanes, or lanes meet
CLEARANCE = 0.2  # from a box to a line that passes by
LANE = 1.02  # from one lane's middle to the next one's
ROW_WIDTH = 13.0  # of what is drawn in order of execution

type Lanes = Sequence[tuple[str, ...]]

# What the attention makes side by side of what its input norm gave: each lane's norms, and what follows from them
LANES: Lanes = (
    ("self_attn.q_a_layernorm",),
    ("self_attn.q_norm",),
    ("self_attn.indexer.k_norm", "indexer"),
    ("self_attn.k_norm",),
    ("self_attn.kv_a_layernorm",),
)
STREAM_LANES: Lanes = (
    ("self_attn.q_a_norm", "self_attn.q_b_norm"),
    ("self_attn.compressor.indexer.kv_norm", "indexer"),
    ("self_attn.compressor.kv_norm", "compressor"),
    ("self_attn.kv_norm",),
)
QUERY_NORMS = ("self_attn.q_a_layernorm", "self_attn.q_a_norm")  # whose output an indexer reads, too


def diagram(comparison: Comparison) -> Figures:
    """What was compared, at its place in the block."""
    with mpl.rc_context(STYLE):
        figure = draw(comparison)
        return Figures({"block": as_svg(figure, "block")}, as_png(figure))


def draw(comparison: Comparison) -> Figure:
    compared = _Compared(comparison)
    canvas = FlowCanvas()
    for flow in (_StreamsFlow, _ShortcutFlow, _BlockFlow):
        if flow.fits(compared.names):
            flow(compared, canvas).draw()
            return canvas.figure()
    _draw_in_order(compared, canvas)
    return canvas.figure()


class _Compared:
    """What was compared at each place.

    Attributes:
        names: of the places, in order of execution: "indexer" where its scores were compared, else as verdicts have it
    """

    def __init__(self, comparison: Comparison) -> None:
        self._verdicts: dict[str, list[Verdict]] = {}
        self._states: dict[str, State] = {}  # by place, the worst of its verdicts'
        for verdict in comparison.verdicts:
            name = OUTPUT if verdict.name == WITH_FLIPS else verdict.name.removesuffix(" scores")
            self._verdicts.setdefault(name, []).append(verdict)
            states = (self._states.get(name, "shown"), comparison.state(verdict))
            self._states[name] = max(states, key=SEVERITY.index)
        self._flips = {flips.name: flips for flips in comparison.flips}
        self.names = list(self._verdicts)
        self._short = short_names(self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._verdicts[name][0].shape

    def label(self, name: str) -> Label:
        """Plain if nothing was compared there."""
        verdicts = self._verdicts.get(name)
        if not verdicts:
            return Label(name.removeprefix("self_attn."))
        flips, state = self._flips.get(name), self._states[name]
        if flips and not flips.holds:
            state = "off by its input" if "wrong" in self._states.values() else "wrong"
        lines = [f"{_what(verdict, verdicts)}{_ratio(verdict)}" for verdict in verdicts]
        if flips and not flips.flipped and verdicts[0].holds is None and name in NOT_BY_SCORE:
            lines.append(NOT_BY_SCORE[name])
        elif flips:
            lines.append(f"{flips.flipped} of {flips.tokens} tokens flipped")
        return Label(f"{SYMBOLS[state]} {self._short[name]}", lines, COLOURS[state], heavy=state == "wrong")


def _what(verdict: Verdict, verdicts: Sequence[Verdict]) -> str:
    """What tells `verdict` from the others at its place."""
    if verdict.name == WITH_FLIPS:
        return "flips too "
    if verdict.name.endswith(" scores"):
        return "scores "
    if [other.name for other in verdicts].count(verdict.name) == 1:
        return ""
    return "float64 " if verdict.reference == "float64" else "HF "


def _ratio(verdict: Verdict) -> str:
    errors = verdict.errors
    return f"{errors.relative_norm:.2e} / {verdict.noise_floor:.2e}" if errors else "no token left"


class _Flow:
    """The parts that blocks have in common. What comes `before` a part is joined to it, and is as high."""

    def __init__(self, compared: _Compared, canvas: FlowCanvas) -> None:
        self._compared = compared
        self._canvas = canvas

    def _input(self, y: float, text: str = "input") -> Box:
        return self._canvas.box(Label(text), 0.0, y)

    def _place(self, name: str, left: float, y: float) -> Box:
        return self._canvas.box(self._compared.label(name), left, y)

    def _next(self, name: str, before: Box) -> Box:
        return self._joined(before, self._place(name, before.right + GAP, before.y))

    def _plain(self, text: str, before: Box) -> Box:
        return self._joined(before, self._canvas.box(Label(text), before.right + GAP, before.y))

    def _joined(self, before: Box, box: Box) -> Box:
        self._canvas.route(before.exit, box.entry)
        return box

    def _present(self, lanes: Lanes) -> Lanes:
        """Those in which something was compared."""
        return [lane for lane in lanes if not set(lane).isdisjoint(self._compared.names)]

    def _attention(self, before: Box, lanes: Lanes) -> Box:
        if not lanes:
            return self._plain("attention", before)
        columns = zip_longest(*lanes)
        widths = [max(self._compared.label(name).width for name in column if name) for column in columns]
        lefts = list(accumulate(widths, lambda left, width: left + width + GAP, initial=before.right + FORK))
        fork, meeting = before.right + FORK / 2, lefts[-1] - GAP + FORK / 2
        heights = [before.y + LANE * ((len(lanes) - 1) / 2 - number) for number in range(len(lanes))]
        for lane, y in zip(lanes, heights, strict=True):
            places = zip(lane, lefts, widths, strict=False)
            boxes = [self._canvas.box(self._compared.label(name), left, y, width) for name, left, width in places]
            self._canvas.route(before.exit, (fork, before.y), (fork, y), boxes[0].entry)
            for pair in pairwise(boxes):
                self._joined(*pair)
            self._canvas.route(boxes[-1].exit, (meeting, y), (meeting, before.y), arrow=False)
        if lanes[0][0] in QUERY_NORMS and len(lanes) > 1 and lanes[1][-1] == "indexer":
            between, y = lefts[1] - GAP / 2, heights[1] + BOX_HEIGHT / 4
            self._canvas.route((between, heights[0]), (between, y), (lefts[1], y))
        attention = self._canvas.box(Label("attention"), meeting + FORK / 2, before.y)
        self._canvas.route((meeting, before.y), attention.entry)
        return attention

    def _mlp(self, before: Box) -> Box:
        if "router" not in self._compared.names:
            return self._plain("MLP", before)
        return self._plain("experts", self._next("router", before))

    def _plus(self, before: Box, residual: Point, level: float) -> Box:
        """The sum of what comes before and of `residual`, which passes by at height `level`."""
        plus = self._joined(before, self._canvas.plus(before.right + GAP, before.y))
        end = plus.top if level > plus.y else plus.bottom
        self._canvas.route(residual, (residual[0], level), (plus.x, level), (plus.x, end))
        return plus

    def _to_next_row(self, end: Box, back: float, entry: Box, y: float, streams: int = 1) -> list[Point]:
        """From `end` to the next row, which is at height `y` and begins below `entry`.

        Args:
            back: height of the way back
        """
        turn = end.right + GAP + bundle_width(streams) / 2
        return [end.exit, (turn, end.y), (turn, back), (entry.x, back), (entry.x, y), (entry.right, y)]


class _BlockFlow(_Flow):
    """Two residual sums: after the attention, and after the MLP."""

    NORMS = ("input_layernorm", "post_attention_layernorm")

    @classmethod
    def fits(cls, names: Sequence[str]) -> bool:
        """Blocks of other forms may have one of the two norms. Names do not tell a block whose attention and MLP work
        side by side on norms that are called so, as GPT-NeoX's do."""
        of_mla = [name for name in names if name.endswith("_a_layernorm") or "indexer" in name]
        places = {*cls.NORMS, *chain(*LANES), "router", OUTPUT}
        return places.issuperset(names) and (bool(of_mla) or set(cls.NORMS).issubset(names))

    def draw(self) -> None:
        lanes, entry = self._present(LANES), self._input(0.0)
        attention = self._attention(self._next("input_layernorm", entry), lanes)
        first = self._plus(attention, (entry.x, entry.top), _reach(lanes) + CLEARANCE)
        mlp = self._mlp(self._next("post_attention_layernorm", first))
        self._next(OUTPUT, self._plus(mlp, (first.x, first.bottom), -_reach() - CLEARANCE))


class _ShortcutFlow(_Flow):
    """Two blocks, one after the other in rows, and experts: of what the first one's MLP gets, added at the end."""

    @classmethod
    def fits(cls, names: Sequence[str]) -> bool:
        numbered = {f"{norm}.{number}" for norm in _BlockFlow.NORMS for number in (0, 1)}
        numbered |= {name for number in (0, 1) for name in chain(*_numbered(number))}
        return numbered.union(("router", OUTPUT)).issuperset(names) and not numbered.isdisjoint(names)

    def draw(self) -> None:
        entry = self._input(0.0)
        norm, end = self._half(0, entry, (entry.x, entry.top))
        fork, height = norm.right + GAP / 2, LANE
        router = self._place("router", norm.right + GAP, height)
        self._canvas.route(norm.exit, (fork, norm.y), (fork, height), router.entry)
        experts = self._plain("experts", router)

        back = -max(_reach(self._present(_numbered(0))), _reach() + CLEARANCE) - CLEARANCE
        past = back - CLEARANCE  # the second attention
        start = _corner(entry.right, past - CLEARANCE - _reach(self._present(_numbered(1))))
        self._canvas.route(*self._to_next_row(end, back, entry, start.y), arrow=False)
        outside = max(end.right + GAP, experts.right) + GAP
        _, end = self._half(1, start, (entry.x, past))
        above = start.y + _reach() + CLEARANCE
        self._canvas.route(experts.exit, (outside, height), (outside, above), (end.x, above), (end.x, end.top))
        self._next(OUTPUT, end)

    def _half(self, number: int, start: Box, residual: Point) -> tuple[Box, Box]:
        """Returns: the norm before the MLP, and the sum after it"""
        lanes = self._present(_numbered(number))
        attention = self._attention(self._next(f"input_layernorm.{number}", start), lanes)
        first = self._plus(attention, residual, start.y + _reach(lanes) + CLEARANCE)
        norm = self._next(f"post_attention_layernorm.{number}", first)
        below = start.y - _reach() - CLEARANCE
        return norm, self._plus(self._plain("MLP", norm), (first.x, first.bottom), below)


class _Heights(NamedTuple):
    """Of a part and of what a hyper-connection adds above it: the weights that it computes, and the streams."""

    part: float
    weights: float
    streams: float


class _StreamsFlow(_Flow):
    """Streams, with a hyper-connection around the attention, and one around the experts, in rows."""

    @classmethod
    def fits(cls, names: Sequence[str]) -> bool:
        connections = {
            f"{name}.{part}" for name in ("attn_hc", "ffn_hc") for part in ("input_norm", "pre", "post", "comb")
        }
        places = {*_BlockFlow.NORMS, *connections, *chain(*STREAM_LANES), "router", OUTPUT}
        return places.issuperset(names) and "attn_hc.pre" in names

    def draw(self) -> None:
        lanes = self._present(STREAM_LANES)
        heights = self._heights(0.0, _reach(lanes))
        entry = self._input(heights.streams, f"input: {self._streams} streams")
        end = self._connected(
            "attn_hc",
            heights,
            [entry.exit],
            lambda pre: self._attention(self._next("input_layernorm", pre), lanes),
        )
        back = -_reach(lanes) - CLEARANCE - self._bundle
        above = self._heights(0.0, _reach()).streams + BOX_HEIGHT / 2
        heights = self._heights(back - self._bundle - CLEARANCE - above, _reach())
        end = self._connected(
            "ffn_hc",
            heights,
            self._to_next_row(end, back, entry, heights.streams, self._streams),
            lambda pre: self._mlp(self._next("post_attention_layernorm", pre)),
        )
        output = self._place(OUTPUT, end.right + GAP, end.y)
        self._canvas.route(end.exit, output.entry, streams=self._streams)

    @property
    def _streams(self) -> int:
        return self._compared.shape("attn_hc.pre")[-1]

    @property
    def _bundle(self) -> float:
        """From the streams' middle to the outer ones."""
        return bundle_width(self._streams) / 2

    def _heights(self, part: float, reach: float) -> _Heights:
        """Args: reach: how far up from its middle the part goes"""
        weights = part + max(reach + CLEARANCE, _reach() + GAP + BOX_HEIGHT / 2)
        return _Heights(part, weights, weights + BOX_HEIGHT / 2 + GAP + self._bundle)

    def _connected(self, name: str, heights: _Heights, way: list[Point], part: Callable[[Box], Box]) -> Box:
        """A hyper-connection `name` around `part`, which is drawn from what it gets on.

        Args:
            way: of the streams to here
        Returns: the sum of the streams
        """
        y, weights, trunk = heights
        fork = way[-1][0] + GAP
        left, branch = fork + self._bundle + GAP, trunk - self._bundle
        norm = self._place(f"{name}.input_norm", left, weights)
        pre = self._canvas.box(self._compared.label(f"{name}.pre"), left, y, norm.right - norm.left)
        last = part(pre)
        post = self._joined(last, self._place(f"{name}.post", last.right + GAP, y))
        comb = self._place(f"{name}.comb", post.left - GAP - self._compared.label(f"{name}.comb").width, trunk)
        plus = self._canvas.plus(post.right + GAP, trunk)
        for route in (
            [*way, comb.entry],
            [(fork, branch), (fork, y), pre.entry],
            [(norm.x, branch), (norm.x, norm.top)],
            [comb.exit, plus.entry],
            [post.exit, (plus.x, y), (plus.x, plus.bottom)],
        ):
            self._canvas.route(*route, streams=self._streams)
        self._canvas.route((norm.x, norm.bottom), (pre.x, pre.top), dashed=True)
        self._canvas.route(norm.exit, (post.x, weights), (post.x, post.top), dashed=True)
        self._canvas.route((comb.x, weights), (comb.x, comb.bottom), dashed=True)
        self._canvas.text("weights", norm.right + GAP, weights + LINE_SIZE / 72)
        return plus


def _draw_in_order(compared: _Compared, canvas: FlowCanvas) -> None:
    """What was compared of a block whose data flow is not known."""
    canvas.text("In order of execution, which is not the data flow:", 0.0, BOX_HEIGHT / 2 + CLEARANCE, TITLE_SIZE)
    left = y = 0.0
    before: Box | None = None
    for name in compared.names:
        label = compared.label(name)
        if before and left + label.width > ROW_WIDTH:
            left, y, before = 0.0, y - LANE, None
        box = canvas.box(label, left, y)
        if before:
            canvas.route(before.exit, box.entry, dashed=True)
        before, left = box, box.right + GAP


def _numbered(number: int) -> Lanes:
    """Of the attention `number` of several."""
    return [tuple(name.replace("self_attn.", f"self_attn.{number}.") for name in lane) for lane in LANES]


def _reach(lanes: Lanes = ()) -> float:
    """From the middle of `lanes`, or of a box, to their end above and below."""
    return LANE * max(len(lanes) - 1, 0) / 2 + BOX_HEIGHT / 2


def _corner(x: float, y: float) -> Box:
    return Box(x, x, y, y)
