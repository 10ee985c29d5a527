# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A test's cases by name, of which some are left to `make test-long`."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def cases(named: Mapping[str, Any], long: Collection[str] = ()) -> list[ParameterSet]:
    """
    Args:
        named: the values of each, one or a tuple
        long: names of those that are marked so
    """
    unknown = set(long) - set(named)
    assert not unknown, f"no such cases: {', '.join(sorted(unknown))}"
    return [
        pytest.param(
            *(values if isinstance(values, tuple) else (values,)),
            id=name,
            marks=[pytest.mark.long] if name in long else [],
        )
        for name, values in named.items()
    ]
