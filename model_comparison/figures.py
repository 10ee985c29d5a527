"""The figures of a report: each as SVG that takes the page's text colour, and as PNG to be pasted elsewhere."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch
from matplotlib.ticker import MaxNLocator, NullFormatter

from model_comparison.block import NormTap
from model_comparison.compare import Bounds, Comparison, Flips, Tap, short
from model_comparison.diagnosis import applied_weights
from model_comparison.metrics import fit, scaled_ulps
from model_comparison.recording import RecordedNorm

# Mid-tones of Okabe and Ito's palette, which colour-blind people can tell apart, and which show on white and on black.
RIGHT, WRONG, CARRIED, NEUTRAL, SECOND = "#009e73", "#d55e00", "#b8860b", "#8a8a8a", "#3b8fd0"
INK = "#010203"  # becomes the page's text colour
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tt-deepseek-norms",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": NEUTRAL,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": NEUTRAL,
    "ytick.color": NEUTRAL,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.grid": True,
    "grid.color": NEUTRAL,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.2,
}
MAX_POINTS = 6000  # of a scatter; more only hide one another
SYMBOLS = {"holds": "✓", "wrong": "✗", "off by its input": "▲", "shown": "·"}
SEVERITY = ("shown", "holds", "off by its input", "wrong")
COLOURS = {"holds": RIGHT, "wrong": WRONG, "off by its input": CARRIED, "shown": NEUTRAL}


type _Panel = Callable[[Axes, "_Elements"], None]


@dataclass(frozen=True)
class Figures:
    """
    Attributes:
        svg: by name of the panel, an <svg> element to stand in a page
        png: all panels, with a white ground
    """

    svg: dict[str, str]
    png: bytes


@dataclass(frozen=True)
class _Elements:
    """What the panels of a norm show; (T, W) float64 numpy arrays, T tokens.

    Attributes:
        rounding: of a correct result, `golden` rounded less `golden`
        ulps: signed errors in bfloat16's spacing at the size of the operands, against `golden` unrounded
        fit: scale and offset of the least-squares fit of `y` to `golden`
        applied: gamma and beta (W,) as fitted to the output, or None
    """

    y: np.ndarray[Any, Any]
    golden: np.ndarray[Any, Any]
    rounding: np.ndarray[Any, Any]
    ulps: np.ndarray[Any, Any]
    norm: RecordedNorm
    fit: tuple[float, float]
    applied: tuple[torch.Tensor, torch.Tensor] | None
    bounds: Bounds

    @property
    def errors(self) -> np.ndarray[Any, Any]:
        return np.subtract(self.y, self.golden)


def norm_figures(name: str, norm: RecordedNorm, tap: NormTap, bounds: Bounds) -> Figures:
    """The panels of one norm's output on the device against float64."""
    width = tap.output.shape[-1]
    golden, operands = (tensor.reshape(-1, width) for tensor in norm.golden(tap.input))
    output = tap.output.reshape(-1, width)
    elements = _Elements(
        y=output.double().numpy(),
        golden=golden.numpy(),
        rounding=(golden.to(output.dtype).double() - golden).numpy(),
        ulps=scaled_ulps(output, golden, operands, rounded=False).numpy(),
        norm=norm,
        fit=fit(output.double(), golden),
        applied=applied_weights(norm, tap),
        bounds=bounds,
    )
    panels: dict[str, _Panel] = {
        "scatter": _scatter,
        "errors": _errors,
        "histogram": _histogram,
        "columns": _columns,
        "tokens": _tokens,
        "gamma": _gamma,
    }
    if norm.beta is not None:
        panels["beta"] = _beta
    with mpl.rc_context(STYLE):
        svg = {}
        for panel, draw in panels.items():
            figure = Figure(figsize=(4.7, 2.9))
            axes = figure.add_axes((0.135, 0.15, 0.845, 0.74))
            draw(axes, elements)
            svg[panel] = _svg(figure, f"{name}.{panel}")
        sheet = Figure(figsize=(5.2 * ((len(panels) + 1) // 2), 8))
        sheet.subplots_adjust(left=0.04, right=0.99, bottom=0.06, top=0.91, hspace=0.28, wspace=0.16)
        sheet.suptitle(f"{name}, device against float64", x=0.01, ha="left", fontweight="bold")
        for place, draw in enumerate(panels.values(), start=1):
            draw(sheet.add_subplot(2, (len(panels) + 1) // 2, place), elements)
        return Figures(svg, _png(sheet))


def _scatter(axes: Axes, e: _Elements) -> None:
    shown = _points(axes, e, e.y)
    if len(shown):
        ends = [e.golden.ravel()[shown].min(), e.golden.ravel()[shown].max()]
        axes.plot(ends, ends, color=INK, lw=0.8, ls="--", label="equal")
        axes.plot([], [], " ", label=f"fit: {e.fit[0]:.4f} x {e.fit[1]:+.1e}")
    axes.set(title="device against float64", xlabel="float64")
    axes.legend(loc="upper left")


def _errors(axes: Axes, e: _Elements) -> None:
    """A scale tilts it, an offset lifts it, rounding alone leaves a wedge about zero."""
    _points(axes, e, e.errors)
    axes.axhline(0, color=INK, lw=0.8, ls="--")
    axes.set(title="error (device - float64) by size", xlabel="float64")
    _headroom(axes)


def _points(axes: Axes, e: _Elements, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Some elements' `values` (T, W) over the golden ones, the bad ones apart; returns which, as flat indices."""
    x, y, bad = e.golden.ravel(), values.ravel(), np.abs(e.ulps).ravel() > e.bounds.max_ulp + 0.5
    finite = np.isfinite(x) & np.isfinite(y)
    shown = np.random.default_rng(0).permutation(np.flatnonzero(finite))[:MAX_POINTS]
    for of, colour, label in ((~bad, SECOND, None), (bad, WRONG, f"more than {e.bounds.max_ulp:g} ULP off")):
        chosen = shown[of[shown]]
        if len(chosen):
            axes.scatter(x[chosen], y[chosen], s=5, c=colour, alpha=0.5, linewidths=0, rasterized=True, label=label)
    if not finite.all():
        axes.plot([], [], " ", label=f"{np.count_nonzero(~finite):,} not finite, not shown")
    return shown


def _histogram(axes: Axes, e: _Elements) -> None:
    ulps = e.ulps[np.isfinite(e.ulps)]
    most = float(np.abs(ulps).max(initial=0.0))
    edges = np.linspace(-4, 4, 81)
    if most > 4:
        beyond = np.geomspace(4, most * 1.05, 33)
        edges = np.concatenate([-beyond[:0:-1], edges, beyond[1:]])
        _logarithmic(axes, "x", scale="symlog", linthresh=4, linscale=1.5)
    counts, _ = np.histogram(ulps, edges)
    outside = (edges[1:] > e.bounds.max_ulp + 0.5) | (edges[:-1] < -e.bounds.max_ulp - 0.5)
    for within, colour in ((~outside, SECOND), (outside, WRONG)):
        axes.stairs(np.where(within, counts, 0), edges, fill=True, color=colour)
    axes.axvspan(-0.5, 0.5, color=RIGHT, alpha=0.18, lw=0, label="correct rounding")
    for side in (-1, 1):
        axes.axvline(side * (e.bounds.max_ulp + 0.5), color=NEUTRAL, ls=":", label="bound" if side == 1 else None)
    axes.set(
        title="error in bfloat16 ULP", xlabel="ULP at the size of the operands", ylim=(0.7, 6 * max(counts.max(), 1))
    )
    _logarithmic(axes, "y")
    axes.legend(loc="upper right")


def _columns(axes: Axes, e: _Elements) -> None:
    columns = np.arange(e.y.shape[1])
    finite = np.isfinite(e.errors)
    errors = np.where(finite, e.errors, 0.0)
    axes.plot(columns, np.abs(errors).max(0), color=SECOND, lw=0.7, rasterized=True, label="largest")
    axes.plot(columns, errors.mean(0), color=WRONG, lw=0.9, rasterized=True, label="mean, signed")
    if not finite.all():
        bad = columns[~finite.all(0)]
        axes.plot(bad, np.zeros(len(bad)), "x", ms=4, color=WRONG, rasterized=True, label="not finite")
    axes.axhline(np.sqrt(np.square(e.rounding).mean()), color=INK, ls=":", lw=1, label="rounding alone, RMS")
    axes.set(title="error along the row", xlabel="column")
    axes.legend(loc="upper right", ncols=3)
    _headroom(axes)


def _tokens(axes: Axes, e: _Elements) -> None:
    size = np.linalg.norm(e.golden, axis=1)
    errors, floor = (np.linalg.norm(tensor, axis=1) / size for tensor in (e.errors, e.rounding))
    tokens, finite = np.arange(len(errors)), np.isfinite(errors)
    axes.plot(tokens[finite], errors[finite], "o", ms=4.5, color=SECOND, label="device")
    if not finite.all():
        axes.plot(
            tokens[~finite], np.full(np.count_nonzero(~finite), floor.max()), "x", color=WRONG, label="not finite"
        )
    axes.plot(tokens, floor, "_", ms=9, color=INK, label="rounding alone")
    axes.set(title="relative norm of the error by token", xlabel="token")
    _logarithmic(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right", ncols=2)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, high * 3)


def _gamma(axes: Axes, e: _Elements) -> None:
    _weight(axes, "gamma", e.norm.gamma, None if e.applied is None else e.applied[0] - e.norm.formula.gamma_offset)


def _beta(axes: Axes, e: _Elements) -> None:
    _weight(axes, "beta", e.norm.beta, None if e.applied is None else e.applied[1])


def _weight(axes: Axes, name: str, loaded: torch.Tensor | None, applied: torch.Tensor | None) -> None:
    """`loaded` (W,) along the row and, on top, what the output shows to have been applied."""
    axes.set(title=f"{name} as loaded and as applied" if applied is not None else f"{name} as loaded", xlabel="column")
    if loaded is None:
        axes.text(0.5, 0.5, f"no {name}", transform=axes.transAxes, ha="center")
        return
    columns = np.arange(len(loaded))
    size = float(np.clip(3000 / len(loaded), 2, 14))
    axes.scatter(columns, loaded.double().numpy(), s=2.2 * size, c=NEUTRAL, lw=0, rasterized=True, label="loaded")
    if applied is not None:
        axes.scatter(columns, applied.numpy(), s=size * 0.8, c=SECOND, lw=0, rasterized=True, label="applied (fit)")
    axes.legend(loc="upper right", ncols=2, markerscale=(14 / size) ** 0.5)
    _headroom(axes)


def _logarithmic(axes: Axes, which: Literal["x", "y"], scale: str = "log", **options: float) -> None:
    """With plain labels: those that matplotlib typesets take half of a figure's time."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)(scale, **options)
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _headroom(axes: Axes) -> None:
    """Room for the legend."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.22 * (high - low))


# --- The diagram of the block ---

BOX_HEIGHT = 0.86


def timelines(cycles: list[dict[str, Any]]) -> Figures:
    """What each CB held in the course of each norm's launch, with the launch's phases behind.

    Args:
        cycles: `facts["cycles"]` of a recording
    """
    with mpl.rc_context(STYLE):
        svg = {}
        for launch in cycles:
            figure = Figure(figsize=(4.7, 2.9))
            _timeline(figure, launch, (0.135, 0.845))
            svg[launch["name"]] = _svg(figure, f"{launch['name']}.timeline")
        sheet = Figure(figsize=(4.9 * len(cycles), 3.1))
        for place, launch in enumerate(cycles):
            _timeline(sheet, launch, ((place + 0.14) / len(cycles), 0.82 / len(cycles)))
        return Figures(svg, _png(sheet))


def _timeline(figure: Figure, launch: dict[str, Any], place: tuple[float, float]) -> None:
    """A lane a CB. place: left and width in the figure."""
    held = {cb: steps for cb, steps in launch["cbs"].items() if steps}
    for lane, (cb, steps) in enumerate(held.items()):
        height = 0.7 / len(held)
        axes = figure.add_axes((place[0], 0.15 + (len(held) - 1 - lane) * height, place[1], height * 0.82))
        edge = 0
        for phase in ("start", "statistics", "normalize", "write"):
            start, edge = edge, edge + launch["phases"][phase]
            axes.axvspan(start, edge, color=SECOND, alpha=0.16 if phase in ("statistics", "write") else 0.05, lw=0)
            if lane == 0 and edge - start > 0.08 * launch["cycles"]:
                axes.annotate(
                    phase, ((start + edge) / 2, 1.04), xycoords=("data", "axes fraction"), ha="center", size=7
                )
        at, pages = zip(*steps, strict=True)
        axes.fill_between(
            [0, *at, launch["cycles"]], [0, *pages, pages[-1]], step="post", color=RIGHT, alpha=0.75, lw=0
        )
        axes.set(xlim=(0, launch["cycles"]), ylim=(0, None), ylabel=cb)
        axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.grid(visible=False)
        if lane < len(held) - 1:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("simulated cycles since GO; height: pages in the CB")
    figure.text(place[0], 0.945, f"{short(launch['name'])}: {launch['cycles']:,} cycles", fontweight="bold", size=9.5)


def state(tap: Tap, comparison: Comparison) -> str:
    """Where some norm is wrong for its own input, what else fails may be off by what it was given."""
    if tap.holds is not False:
        return "holds" if tap.holds else "shown"
    wrong = {other.name for other in comparison.taps if other.reference == "float64" and other.holds is False}
    return "wrong" if not wrong or tap.name in wrong else "off by its input"


def diagram(comparison: Comparison) -> Figures:
    """The block's data flow, left to right, of the taps that there are."""
    taps: dict[str, list[Tap]] = {}
    for tap in comparison.taps:
        taps.setdefault(tap.name, []).append(tap)
    flips = {flips.name: flips for flips in comparison.flips}
    with mpl.rc_context(STYLE):
        states: dict[str, str] = {}
        for tap in reversed(comparison.taps):
            states[tap.name] = max(states.get(tap.name, "shown"), state(tap, comparison), key=SEVERITY.index)
        drawing = _Diagram(taps, flips, states)
        return Figures({"block": _svg(drawing.figure, "block")}, _png(drawing.figure))


class _Diagram:
    """Draws on an axis in inches; `right` is where the next box may begin."""

    def __init__(self, taps: dict[str, list[Tap]], flips: dict[str, Flips], states: dict[str, str]) -> None:
        self._taps, self._flips, self._states = taps, flips, states
        lanes = [name for name in taps if short(name) in ("q_a_layernorm", "kv_a_layernorm", "k_norm")]
        places = dict(zip(lanes, np.linspace(len(lanes) - 1, 0, len(lanes)) * 1.12, strict=True))
        self._middle = max(places.values(), default=0.0) / 2
        self._height = max(places.values(), default=0.0) + 1.0
        self.figure = Figure(figsize=(14, self._height + 1.2))
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        right = self._plain("input", 0.0, 0.62)
        start = (0.31, self._middle + 0.24)
        right = self._tap("input_layernorm", right, self._middle)
        begin, ends = right, []
        for name, y in places.items():
            end = self._tap(name, begin, y, since=self._middle)
            if short(name) == "k_norm" and "indexer scores" in taps:
                end = self._choice("indexer", end, y)
            ends.append((end, y))
        right = max([end for end, _ in ends], default=begin)
        for end, y in ends or [(begin, self._middle)]:
            self._arrow((end, y), (right + 0.3, self._middle))
        right = self._plain("attention", right + 0.3, 0.86)
        right = self._add(right, start, self._height - 0.3)
        start = (right - 0.13, self._middle - 0.13)
        right = self._tap("post_attention_layernorm", right, self._middle)
        if "router scores" in taps:
            right = self._choice("router", right, self._middle)
        right = self._plain("experts" if "router scores" in taps else "MLP", right, 0.75)
        right = self._add(right, start, self._middle - 0.62)
        right = self._tap("block output", right, self._middle)
        bottom = min(-0.6, self._middle - 0.75)
        self._axes.set(xlim=(-0.1, right + 0.1), ylim=(bottom, self._height))
        self.figure.set_size_inches(right + 0.2, self._height - bottom)

    def _tap(self, name: str, left: float, y: float, since: float | None = None) -> float:
        """A box for `name`, an arrow to it from `left` at height `since`; returns its right end."""
        taps = self._taps.get(name, [])
        if not taps:
            return self._plain(short(name), left, 1.5)
        lines = []
        for tap in taps:
            against = "" if len(taps) == 1 else "float64 " if tap.reference == "float64" else "HF "
            lines.append(f"{against}{_ratio(tap)}")
        return self._box(name, lines, self._states[name], left, y, 1.95, since)

    def _choice(self, name: str, left: float, y: float) -> float:
        flips = self._flips.get(name)
        lines = [f"scores {_ratio(tap)}" for tap in self._taps[f"{name} scores"]]
        if flips:
            lines.append(f"{flips.flipped} of {flips.tokens} tokens flipped")
        current = self._states[f"{name} scores"]
        if flips and not flips.holds:
            current = "off by its input" if "wrong" in self._states.values() else "wrong"
        return self._box(name, lines, current, left, y, 1.95)

    def _box(
        self, name: str, lines: list[str], current: str, left: float, y: float, width: float, since: float | None = None
    ) -> float:
        colour, left = COLOURS[current], self._to(left, y, since)
        self._patch(left, y, width, BOX_HEIGHT, colour, 2.6 if current == "wrong" else 1.6, 0.13)
        title = f"{SYMBOLS[current]} {short(name).replace('post_attention_layernorm', 'post_attention_norm')}"
        self._axes.text(left + 0.09, y + 0.22, title, fontweight="bold", va="center", fontsize=10)
        for place, line in zip((-0.03, -0.25), lines, strict=False):
            self._axes.text(left + 0.09, y + place, line, va="center", fontsize=9.2)
        return left + width

    def _plain(self, name: str, left: float, width: float) -> float:
        if left:
            left = self._to(left, self._middle)
        self._patch(left, self._middle, width, 0.48, NEUTRAL, 1.0, 0.0)
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
        gap = 0.3 if since is None else 0.42
        self._arrow((left, y if since is None else since), (left + gap, y))
        return left + gap

    def _arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": NEUTRAL, "lw": 1, "shrinkA": 0, "shrinkB": 0}
        )

    def _patch(self, left: float, y: float, width: float, height: float, colour: str, lw: float, fill: float) -> None:
        shape: Any = {"boxstyle": "round,pad=0,rounding_size=0.08", "lw": lw}
        corner = (left, y - height / 2)
        if fill:
            self._axes.add_patch(FancyBboxPatch(corner, width, height, fc=colour, ec="none", alpha=fill, **shape))
        self._axes.add_patch(FancyBboxPatch(corner, width, height, fc="none", ec=colour, **shape))


def _ratio(tap: Tap) -> str:
    return f"{tap.errors.relative_norm:.2e} / {tap.floor:.2e}" if tap.errors else "no token left"


# --- Files ---


def _svg(figure: Figure, name: str) -> str:
    """As an element of a page, beside others: ids of its own, the page's text colour and the box's width."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, dpi=160, metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ?', "", text, count=1)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, facecolor="white")
    return file.getvalue()
