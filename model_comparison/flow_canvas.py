# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a diagram of data flow is drawn with: boxes, and lines between them. All lengths are in inches, y goes up."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyBboxPatch, Polygon
from matplotlib.textpath import TextPath

from model_comparison.drawing import NEUTRAL

type Point = tuple[float, float]

BOX_HEIGHT, FRAME_HEIGHT, PLUS_SIZE = 0.86, 0.48, 0.26
MINIMUM_BOX_WIDTH = 1.5
TITLE_SIZE, LINE_SIZE = 10.0, 9.2  # points
PADDING = 0.09  # from a box's side to its text
BASELINES = (0.22, -0.03, -0.25)  # of a box's title and lines, from its middle
STREAM_SPACING = 0.05  # between lines of one bundle
HEAD_LENGTH = 0.09  # of an arrow
MINIMUM_WIDTH = 11.0  # of a figure; the page scales it to its own width, and a narrower one's text would be too large
MARGIN = 0.1


@dataclass(frozen=True)
class Label:
    """What a box says.

    Attributes:
        lines: two at most, below the title
        colour: of the frame and, thinned, of the ground; None for a plain frame around the title
        heavy: a thicker frame
    """

    title: str
    lines: Sequence[str] = ()
    colour: str | None = None
    heavy: bool = False

    @property
    def width(self) -> float:
        if self.colour is None:
            return _text_width(self.title, LINE_SIZE) + 2 * PADDING
        title = _text_width(self.title, TITLE_SIZE, "bold")
        lines = [_text_width(line, LINE_SIZE) for line in self.lines]
        return max(MINIMUM_BOX_WIDTH, title + 2 * PADDING, *(line + 2 * PADDING for line in lines))


class Box(NamedTuple):
    """Where something is drawn that lines go to and come from."""

    left: float
    right: float
    bottom: float
    top: float

    @property
    def x(self) -> float:
        return (self.left + self.right) / 2

    @property
    def y(self) -> float:
        return (self.bottom + self.top) / 2

    @property
    def entry(self) -> Point:
        return self.left, self.y

    @property
    def exit(self) -> Point:
        return self.right, self.y


class FlowCanvas:
    """Grows with what is drawn on it. A line passes below all boxes that were drawn."""

    def __init__(self) -> None:
        self._figure = Figure()
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._points: list[Point] = []

    def figure(self) -> Figure:
        xs, ys = zip(*self._points, strict=True)
        left, bottom, top = min(xs) - MARGIN, min(ys) - MARGIN, max(ys) + MARGIN
        right = max(max(xs) + MARGIN, left + MINIMUM_WIDTH)
        self._axes.set(xlim=(left, right), ylim=(bottom, top))
        self._figure.set_size_inches(right - left, top - bottom)
        return self._figure

    def box(self, label: Label, left: float, y: float, width: float | None = None) -> Box:
        """A box whose left side's middle is at (`left`, `y`), by default as wide as its text needs."""
        height = FRAME_HEIGHT if label.colour is None else BOX_HEIGHT
        box = self._covered(Box(left, left + (width or label.width), y - height / 2, y + height / 2))
        if label.colour is None:
            self._patch(box, fc="none", ec=NEUTRAL, lw=1.0)
            self._axes.text(box.x, y, label.title, fontsize=LINE_SIZE, ha="center", va="center")
            return box
        self._patch(box, fc=label.colour, ec="none", alpha=0.13)
        self._patch(box, fc="none", ec=label.colour, lw=2.6 if label.heavy else 1.6)
        title, *lines = BASELINES
        place: Any = {"x": left + PADDING, "va": "center"}
        self._axes.text(y=y + title, s=label.title, fontweight="bold", fontsize=TITLE_SIZE, **place)
        for below, line in zip(lines, label.lines, strict=False):
            self._axes.text(y=y + below, s=line, fontsize=LINE_SIZE, **place)
        return box

    def plus(self, left: float, y: float) -> Box:
        radius = PLUS_SIZE / 2
        self._axes.add_patch(Circle((left + radius, y), radius, fill=False, ec=NEUTRAL, lw=1.2))
        self._axes.text(left + radius, y, "+", fontsize=LINE_SIZE, ha="center", va="center")
        return self._covered(Box(left, left + PLUS_SIZE, y - radius, y + radius))

    def text(self, text: str, left: float, y: float, size: float = LINE_SIZE) -> None:
        """`text` from `left` on, with its middle at height `y`."""
        self._axes.text(left, y, text, fontsize=size, va="center")
        half_height = size / 72 / 2
        self._covered(Box(left, left + _text_width(text, size), y - half_height, y + half_height))

    def route(self, *points: Point, streams: int = 1, arrow: bool = True, dashed: bool = False) -> None:
        """A line through `points`, each of them right of, left of, above or below the one before it.

        Args:
            streams: so many lines side by side, `points` being their middle
            arrow: at the end
        """
        line = [point for point, _ in groupby(points)]
        if arrow:
            line[-1] = self._head(line[-2], line[-1], bundle_width(streams) / 2)
        style: Any = {"color": NEUTRAL, "lw": 1.0, "ls": (0, (3, 2)) if dashed else "-"}
        for stream in range(streams):
            beside = _beside(line, bundle_width(streams) / 2 - stream * STREAM_SPACING)
            self._axes.plot(*zip(*beside, strict=True), solid_joinstyle="miter", **style)
            self._points += beside

    def _head(self, before: Point, tip: Point, half_width: float) -> Point:
        """An arrow's head on a line that comes from `before`. Returns: where the line ends, in the head"""
        dx, dy = _sign(tip[0] - before[0]), _sign(tip[1] - before[1])
        x, y = tip[0] - dx * HEAD_LENGTH, tip[1] - dy * HEAD_LENGTH
        half_width += HEAD_LENGTH / 2
        base = [(x - dy * half_width, y + dx * half_width), (x + dy * half_width, y - dx * half_width)]
        self._axes.add_patch(Polygon([tip, *base], fc=NEUTRAL, ec="none"))
        return x, y

    def _covered(self, box: Box) -> Box:
        self._points += [(box.left, box.bottom), (box.right, box.top)]
        return box

    def _patch(self, box: Box, **style: Any) -> None:
        size = (box.right - box.left, box.top - box.bottom)
        shape = "round,pad=0,rounding_size=0.08"
        self._axes.add_patch(FancyBboxPatch((box.left, box.bottom), *size, boxstyle=shape, **style))


def bundle_width(streams: int) -> float:
    """From the first of the lines side by side to the last."""
    return (streams - 1) * STREAM_SPACING


@cache
def _text_width(text: str, size: float, weight: str = "normal") -> float:
    """In the figure's own font, which is wider than most that a page may have in its place."""
    path = TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight))
    return float(path.get_extents().x1) / 72


def _beside(points: Sequence[Point], offset: float) -> list[Point]:
    """The line through `points`, moved to its left by `offset`, with its corners at right angles."""
    normals = [(-_sign(after[1] - before[1]), _sign(after[0] - before[0])) for before, after in pairwise(points)]
    moved = []
    for (x, y), before, after in zip(points, normals[:1] + normals, normals + normals[-1:], strict=True):
        dx, dy = (max(pair, key=abs) for pair in zip(before, after, strict=True))
        moved.append((x + dx * offset, y + dy * offset))
    return moved


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
