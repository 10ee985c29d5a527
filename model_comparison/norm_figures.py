# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of one norm: its output against float64, and what its launch did in its cycles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from model_comparison.activations import NormActivation
from model_comparison.diagnosis import applied_weights
from model_comparison.drawing import INK, NEUTRAL, RIGHT, SECOND, STYLE, WRONG, Figures, as_png, as_svg
from model_comparison.judge import Bounds
from model_comparison.metrics import fit, scaled_ulps
from model_comparison.names import short_names
from model_comparison.recording import RecordedNorm

MAX_POINTS = 6000  # of a scatter plot; more hide each other

type _Panel = Callable[[Axes, "_Elements"], None]


@dataclass(frozen=True)
class _Elements:
    """What the panels of a norm show; (T, W) float64 numpy arrays, T rows.

    Attributes:
        y: the output
        golden: what it should be, not rounded
        rounding: a correct result's error: `golden` rounded, less `golden`
        ulps: signed errors against `golden`, in units of bfloat16's spacing at the size of the operands
        fit: scale and offset of the least-squares fit of `y` to `golden`
        applied: gamma and beta (W,) as fitted to the output, or None with too few rows
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


def norm_figures(name: str, norm: RecordedNorm, activation: NormActivation, bounds: Bounds) -> Figures:
    """Panels of what the device's norm gave, against float64.

    Args:
        activation: of the device
        bounds: errors beyond them are shown in another colour
    """
    width = activation.output.shape[-1]
    golden, operands = (tensor.reshape(-1, width) for tensor in norm.golden(activation.input))
    output = activation.output.reshape(-1, width)
    elements = _Elements(
        y=output.double().numpy(),
        golden=golden.numpy(),
        rounding=(golden.to(output.dtype).double() - golden).numpy(),
        ulps=scaled_ulps(output, golden, operands, rounded=False).numpy(),
        norm=norm,
        fit=fit(output.double(), golden),
        applied=applied_weights(norm, activation),
        bounds=bounds,
    )
    panels: dict[str, _Panel] = {
        "scatter": _scatter,
        "errors": _errors,
        "histogram": _histogram,
        "columns": _columns,
        "rows": _rows,
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
            svg[panel] = as_svg(figure, f"{name}.{panel}")
        sheet = Figure(figsize=(5.2 * ((len(panels) + 1) // 2), 8))
        sheet.subplots_adjust(left=0.04, right=0.99, bottom=0.06, top=0.91, hspace=0.28, wspace=0.16)
        sheet.suptitle(f"{name}, device against float64", x=0.01, ha="left", fontweight="bold")
        for place, draw in enumerate(panels.values(), start=1):
            draw(sheet.add_subplot(2, (len(panels) + 1) // 2, place), elements)
        return Figures(svg, as_png(sheet))


def _scatter(axes: Axes, e: _Elements) -> None:
    shown = _points(axes, e, e.y)
    if len(shown):
        ends = [e.golden.ravel()[shown].min(), e.golden.ravel()[shown].max()]
        axes.plot(ends, ends, color=INK, lw=0.8, ls="--", label="equal")
        axes.plot([], [], " ", label=f"fit: {e.fit[0]:.4f} x {e.fit[1]:+.1e}")
    axes.set(title="device against float64", xlabel="float64")
    axes.legend(loc="upper left")


def _errors(axes: Axes, e: _Elements) -> None:
    """A wrong scale shows as a slope, an offset as a shift, and rounding alone as a wedge that grows with the size."""
    _points(axes, e, e.errors)
    axes.axhline(0, color=INK, lw=0.8, ls="--")
    axes.set(title="error (device - float64) by size", xlabel="float64")
    _headroom(axes)


def _points(axes: Axes, e: _Elements, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Plots `values` (T, W) of up to MAX_POINTS elements over the golden ones, in another colour beyond the bound.
    Returns the flat indices of what it plots."""
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


def _rows(axes: Axes, e: _Elements) -> None:
    size = np.linalg.norm(e.golden, axis=1)
    errors, noise = (np.linalg.norm(tensor, axis=1) / size for tensor in (e.errors, e.rounding))
    rows, finite = np.arange(len(errors)), np.isfinite(errors)
    axes.plot(rows[finite], errors[finite], "o", ms=4.5, color=SECOND, label="device")
    if not finite.all():
        axes.plot(rows[~finite], np.full(np.count_nonzero(~finite), noise.max()), "x", color=WRONG, label="not finite")
    axes.plot(rows, noise, "_", ms=9, color=INK, label="rounding alone")
    axes.set(title="relative norm of the error by row", xlabel="row")
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
    """`loaded` (W,) by column, and over it the values that fit the output best."""
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
    """Plain labels: typesetting powers of ten would take half of the time that a figure does."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)(scale, **options)
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _headroom(axes: Axes) -> None:
    """Raises the upper limit, so that the legend hides nothing."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.22 * (high - low))


def timelines(cycles: list[dict[str, Any]]) -> Figures:
    """What each CB held in the course of each norm's launch, with the launch's phases behind.

    Args:
        cycles: `facts["cycles"]` of a recording
    """
    short = short_names(launch["name"] for launch in cycles)
    with mpl.rc_context(STYLE):
        svg = {}
        for launch in cycles:
            figure = Figure(figsize=(4.7, 2.9))
            _timeline(figure, launch, short[launch["name"]], (0.135, 0.845))
            svg[launch["name"]] = as_svg(figure, f"{launch['name']}.timeline")
        sheet = Figure(figsize=(4.9 * len(cycles), 3.1))
        for place, launch in enumerate(cycles):
            _timeline(sheet, launch, short[launch["name"]], ((place + 0.14) / len(cycles), 0.82 / len(cycles)))
        return Figures(svg, as_png(sheet))


def _timeline(figure: Figure, launch: dict[str, Any], title: str, place: tuple[float, float]) -> None:
    """One lane for each CB. Args: place: left and width, as fractions of the figure"""
    held = {cb: changes for cb, changes in launch["cbs"].items() if changes}
    for lane, (cb, changes) in enumerate(held.items()):
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
        at, pages = zip(*changes, strict=True)
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
    figure.text(place[0], 0.945, f"{title}: {launch['cycles']:,} cycles", fontweight="bold", size=9.5)
