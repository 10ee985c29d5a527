# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Every norm class of the installed transformers: recognized or refused as docs/norm_classes.md says, and right."""

import re
from pathlib import Path
from typing import Any

import pytest

from commands.sweep_norms import (
    MAX_RELATIVE_NORM,
    build,
    check_on_device,
    norm_classes,
    outcome,
    small_model,
    try_family,
)

PAGE = Path(__file__).parents[1] / "docs" / "norm_classes.md"
ROWS = dict(
    re.findall(r"^\| ((?:yes|no:|no norm|it holds).*?) \| \d+ \| (.*) \|$", PAGE.read_text(), flags=re.MULTILINE)
)
HEADINGS = {name: heading for heading, names in ROWS.items() for name in names.split(", ")}


@pytest.fixture(scope="module")
def classes() -> dict[str, Any]:
    return norm_classes()


@pytest.mark.long
def test_every_class_is_recognized_or_refused(classes: dict[str, Any]) -> None:
    assert len(HEADINGS) >= 350, "the page's table can't be read"
    headings = {name: outcome(build(classes[name]))[0] for name in HEADINGS}
    assert headings == HEADINGS, "docs/norm_classes.md is old: scripts/sweep_norms.py writes it"


@pytest.mark.parametrize("heading", [heading for heading in ROWS if heading.startswith("yes")])
def test_one_of_each_kind_is_right_on_the_device(device: Any, classes: dict[str, Any], heading: str) -> None:
    module = build(classes[ROWS[heading].split(", ")[0]])
    assert not list(check_on_device(module, outcome(module)[1].formula, device))


# These call one of their norms with a gate.
@pytest.mark.parametrize("family", ["bamba", "falcon_h1", "granitemoehybrid", "mamba2"])
@pytest.mark.long
def test_gated_norms_fall_back_in_their_own_models(device: Any, family: str) -> None:
    ran = try_family(small_model(family), device)
    assert ran.fallbacks > 0
    assert ran.launches > 0
    assert ran.relative_norm <= MAX_RELATIVE_NORM
