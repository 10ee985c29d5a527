# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What all figures of a report share: colours, and their two forms, SVG that takes the page's text colour and PNG to be
pasted elsewhere."""

import io
import re
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

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


@dataclass(frozen=True)
class Figures:
    """
    Attributes:
        svg: by name of the panel, an <svg> element to stand in a page
        png: all panels, with a white ground
    """

    svg: dict[str, str]
    png: bytes


def as_svg(figure: Figure, name: str) -> str:
    """An <svg> element for a page that holds others: its ids start with `name`, its text has the page's colour, and it
    is as wide as the box that it stands in."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, dpi=160, metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ?', "", text, count=1)


def as_png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, facecolor="white")
    return file.getvalue()
