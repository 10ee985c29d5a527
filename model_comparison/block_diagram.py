# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The diagram of the block: its data flow, with the verdicts at each place."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from model_comparison.drawing import CARRIED, NEUTRAL, RIGHT, STYLE, WRONG, Figures, as_png, as_svg
from model_comparison.judge import Comparison, State, Verdict

SYMBOLS: dict[State, str] = {"holds": "✓", "wrong": "✗", "off by its input": "▲", "shown": "·"}
COLOURS: dict[State, str] = {"holds": RIGHT, "wrong": WRONG, "off by its input": CARRIED, "shown": NEUTRAL}
SEVERITY: tuple[State, ...] = ("shown", "holds", "off by its input", "wrong")
PARALLEL = ("q_a_layernorm", "kv_a_layernorm", "k_norm")  # all three work on what input_layernorm gave
LANE_HEIGHT = 1.12
BOX_WIDTH, BOX_HEIGHT = 1.95, 0.86


def diagram(comparison: Comparison) -> Figures:
    """The block's data flow, left to right, of what was compared."""
    with mpl.rc_context(STYLE):
        figure = _Diagram(comparison).figure
        return Figures({"block": as_svg(figure, "block")}, as_png(figure))


def short(name: str) -> str:
    return name.rsplit(".", 1)[-1]


class _Diagram:
    """Draws on an axis in inches. A method that draws a part takes where it may begin, and returns its right end."""

    def __init__(self, comparison: Comparison) -> None:
        self._verdicts: dict[str, list[Verdict]] = {}
        self._states: dict[str, State] = {}  # by name, the worst of its verdicts'
        for verdict in comparison.verdicts:
            name = verdict.name
            self._verdicts.setdefault(name, []).append(verdict)
            states = (self._states.get(name, "shown"), comparison.state(verdict))
            self._states[name] = max(states, key=SEVERITY.index)
        self._flips = {flips.name: flips for flips in comparison.flips}
        lanes = [name for name in self._verdicts if short(name) in PARALLEL]
        self._lanes = dict(zip(lanes, np.linspace(len(lanes) - 1, 0, len(lanes)) * LANE_HEIGHT, strict=True))
        self._middle = max(self._lanes.values(), default=0.0) / 2
        self._height = max(self._lanes.values(), default=0.0) + 1.0
        self.figure = Figure(figsize=(14, self._height + 1.2))
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        right = self._mlp_half(self._attention_half())
        bottom = min(-0.6, self._middle - 0.75)
        self._axes.set(xlim=(-0.1, right + 0.1), ylim=(bottom, self._height))
        self.figure.set_size_inches(right + 0.2, self._height - bottom)

    def _attention_half(self) -> float:
        """From the block's input to the first residual sum."""
        right = self._plain("input", 0.0, 0.62)
        residual = (0.31, self._middle + 0.24)
        begin = self._norm("input_layernorm", right, self._middle)
        ends = []
        for name, y in self._lanes.items():
            end = self._norm(name, begin, y, since=self._middle)
            if short(name) == "k_norm" and "indexer scores" in self._verdicts:
                end = self._choice("indexer", end, y)
            ends.append((end, y))
        right = max([end for end, _ in ends], default=begin)
        for end, y in ends or [(begin, self._middle)]:
            self._arrow((end, y), (right + 0.3, self._middle))
        right = self._plain("attention", right + 0.3, 0.86)
        return self._add(right, residual, self._height - 0.3)

    def _mlp_half(self, right: float) -> float:
        """From the first residual sum to the block's output."""
        residual = (right - 0.13, self._middle - 0.13)
        right = self._norm("post_attention_layernorm", right, self._middle)
        has_experts = "router scores" in self._verdicts
        if has_experts:
            right = self._choice("router", right, self._middle)
        right = self._plain("experts" if has_experts else "MLP", right, 0.75)
        right = self._add(right, residual, self._middle - 0.62)
        return self._norm("block output", right, self._middle)

    def _norm(self, name: str, left: float, y: float, since: float | None = None) -> float:
        """A box with the verdicts on `name`, plain if it was not compared. Args: since: height of the arrow's start"""
        verdicts = self._verdicts.get(name, [])
        if not verdicts:
            return self._plain(short(name), left, 1.5)
        lines = []
        for verdict in verdicts:
            against = "" if len(verdicts) == 1 else "float64 " if verdict.reference == "float64" else "HF "
            lines.append(f"{against}{_ratio(verdict)}")
        return self._box(name, lines, self._states[name], (self._to(left, y, since), y))

    def _choice(self, name: str, left: float, y: float) -> float:
        flips = self._flips.get(name)
        lines = [f"scores {_ratio(verdict)}" for verdict in self._verdicts[f"{name} scores"]]
        if flips:
            lines.append(f"{flips.flipped} of {flips.tokens} tokens flipped")
        state = self._states[f"{name} scores"]
        if flips and not flips.holds:
            state = "off by its input" if "wrong" in self._states.values() else "wrong"
        return self._box(name, lines, state, (self._to(left, y), y))

    def _box(self, name: str, lines: list[str], state: State, place: tuple[float, float]) -> float:
        """Args: place: the middle of its left side"""
        left, y = place
        line_width = 2.6 if state == "wrong" else 1.6
        self._patch(place, (BOX_WIDTH, BOX_HEIGHT), ec=COLOURS[state], lw=line_width, ground=0.13)
        title = f"{SYMBOLS[state]} {short(name).replace('post_attention_layernorm', 'post_attention_norm')}"
        self._axes.text(left + 0.09, y + 0.22, title, fontweight="bold", va="center", fontsize=10)
        for below, line in zip((-0.03, -0.25), lines, strict=False):
            self._axes.text(left + 0.09, y + below, line, va="center", fontsize=9.2)
        return left + BOX_WIDTH

    def _plain(self, name: str, left: float, width: float) -> float:
        if left:
            left = self._to(left, self._middle)
        self._patch((left, self._middle), (width, 0.48), ec=NEUTRAL, lw=1.0)
        self._axes.text(left + width / 2, self._middle, name, ha="center", va="center")
        return left + width

    def _add(self, left: float, start: tuple[float, float], level: float) -> float:
        """A plus, and the residual's way to it from `start`, along a line at height `level` that no box crosses."""
        left = self._to(left, self._middle)
        x, radius = left + 0.13, 0.13
        self._axes.add_patch(Circle((x, self._middle), radius, fill=False, ec=NEUTRAL, lw=1.2))
        self._axes.text(x, self._middle, "+", ha="center", va="center")
        self._axes.plot([start[0], start[0], x], [start[1], level, level], color=NEUTRAL, lw=1)
        self._arrow((x, level), (x, self._middle + (radius if level > self._middle else -radius)))
        return left + 2 * radius

    def _to(self, left: float, y: float, since: float | None = None) -> float:
        """An arrow from `left` at height `since` to height `y`, by default straight."""
        gap = 0.3 if since is None else 0.42
        self._arrow((left, y if since is None else since), (left + gap, y))
        return left + gap

    def _arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": NEUTRAL, "lw": 1, "shrinkA": 0, "shrinkB": 0}
        )

    def _patch(
        self, place: tuple[float, float], size: tuple[float, float], *, ec: str, lw: float, ground: float = 0.0
    ) -> None:
        """A rounded frame from `place`, the middle of its left side; `ground` is the opacity of its filling."""
        shape: Any = {"boxstyle": "round,pad=0,rounding_size=0.08", "lw": lw}
        corner = (place[0], place[1] - size[1] / 2)
        if ground:
            self._axes.add_patch(FancyBboxPatch(corner, *size, fc=ec, ec="none", alpha=ground, **shape))
        self._axes.add_patch(FancyBboxPatch(corner, *size, fc="none", ec=ec, **shape))


def _ratio(verdict: Verdict) -> str:
    errors = verdict.errors
    return f"{errors.relative_norm:.2e} / {verdict.noise_floor:.2e}" if errors else "no token left"
