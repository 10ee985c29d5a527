# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Cycles that were measured once and kept, because a simulation takes minutes: commands/bench_record.json."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from common.files import written_whole
from tt_device import Arch

PATH = Path(__file__).with_name("bench_record.json")
IN_CHECKOUT = (PATH.parents[1] / "pyproject.toml").is_file()  # and not in an installed package


class Section(StrEnum):
    """What is kept of a case.

    ttnn: cycles, cores, exact, raw and scaled of ttnn's norm
    one_core: cycles of ours on one core
    ours: cycles, cores and floor (cycles) of ours on the whole grid, for docs/scaling.png
    """

    ttnn = "ttnn"
    one_core = "one-core"
    ours = "ours"


class Record:
    """What is kept of one chip. Each entry has its date."""

    def __init__(self, arch: Arch) -> None:
        self._arch = arch
        self._content: dict[str, dict[str, dict[str, dict[str, Any]]]] = json.loads(PATH.read_text())

    def get(self, section: Section, case: str) -> dict[str, Any] | None:
        return self._content.get(self._arch, {}).get(section, {}).get(case)

    def put(self, section: Section, case: str, **figures: float) -> None:
        """Keeps it for this run, and in a checkout for those after.

        Raises:
            WriteError: the file can't be written
        """
        entry = {**figures, "date": datetime.now(UTC).date().isoformat()}
        self._content.setdefault(self._arch, {}).setdefault(section, {})[case] = entry
        if IN_CHECKOUT:
            with written_whole(PATH, force=True) as new:
                new.write_text(json.dumps(self._content, indent=2) + "\n")
