# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Which package may import which. Imports run in one direction, so that each part can be used and tested alone."""

import ast
import re
from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _table() -> dict[str, tuple[set[str], set[str]]]:
    """What each folder may and must not import, from the table of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", text, flags=re.MULTILINE)
    return {folder: (set(re.findall(r"`(\w+)`", may)), set(re.findall(r"`(\w+)`", not_))) for folder, may, not_ in rows}


TABLE = _table()


def test_the_table_names_all_folders() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/*.py")} | {"micro_ops"}
    assert set(TABLE) == folders - {"tests"}


@pytest.mark.parametrize("package", TABLE)
def test_imports_run_in_one_direction(package: str) -> None:
    may, must_not = TABLE[package]
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no Python files: has it moved?"
    for file in files:
        imported = _imported(file)
        ours = (imported & (set(TABLE) | {"tests"})) - {package}
        assert ours <= may, f"{file.relative_to(ROOT)} imports {ours - may}"
        assert not imported & must_not, f"{file.relative_to(ROOT)} imports {imported & must_not}"


@pytest.mark.parametrize("file", sorted((ROOT / "tests").glob("*.py")), ids=lambda file: file.stem)
def test_no_test_file_is_imported(file: Path) -> None:
    """What two of them share is in a module of its own. Programs that tests run in other processes are seen, too."""
    assert not re.findall(r"\btests(?:\.| import .*\b)(test_\w+)", file.read_text())


def test_no_circle_of_imports() -> None:
    """Between modules of all packages, imports inside functions and for annotations alone included."""
    files = [file for package in TABLE for file in (ROOT / package).rglob("*.py")]
    modules = {_module(file): file for file in files}
    graph = {name: _imported_modules(file, modules) for name, file in modules.items()}
    assert sum(map(len, graph.values())) > len(graph), "these are no imports"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def _imported(file: Path) -> set[str]:
    """Top-level names of all imports in the file, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides where it goes"
            names.add(str(node.module).split(".")[0])
    return names


def _module(file: Path) -> str:
    name = file.relative_to(ROOT).with_suffix("")
    return ".".join(name.parts).removesuffix(".__init__")


def _imported_modules(file: Path, modules: Collection[str]) -> set[str]:
    """Those of `modules` that the file takes something from. A package whose module it takes does not count: Python
    runs its __init__.py, but the file uses nothing of that."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else str(node.module) for name in inner}
    return names & set(modules)
