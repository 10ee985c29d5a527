# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What the docs tell to type works: each command and snippet of Python is run, each link and path leads somewhere."""

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.family import small_checkpoint
from tests.small import SMALL
from weights_tools import write_synthetic

ROOT = Path(__file__).parents[1]
FOLDERS = [path.parent for path in ROOT.glob("*/py.typed")] + [ROOT / "scripts", ROOT / "tests"]
DOCS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("micro_ops/**/*.md"))]


def commands() -> list[tuple[str, str]]:
    """Each command line of an indented block, with its file's name; what a command prints is no command."""
    found = []
    for path in DOCS:
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        found += [(path.name, line) for line in re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)]
    return found


SOURCES = {".py", ".sh", ".cpp", ".h", ".s", ".jinja"}
SNIPPETS = [
    (path.name, code)
    for path in DOCS
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for DeepSeek's own."""
    return write_synthetic(tmp_path_factory.mktemp("docs") / "checkpoint", SMALL)


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("docs") / "v4", "v4")


def run(arguments: list[str], folder: Path) -> None:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"


def if_long(command: str) -> list[pytest.MarkDecorator]:
    return [] if re.search("make|weights_tools", command) else [pytest.mark.long]


@pytest.mark.parametrize(
    ("file", "command"),
    [pytest.param(*found, marks=if_long(found[1]), id=" ".join(found)[:70]) for found in commands()],
)
def test_command(file: str, command: str, checkpoint: Path, v4: Path, tmp_path: Path) -> None:
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        run([*words, "--dry-run"], ROOT)  # what the targets do is what CI does
        return
    assert words[0] == ".venv/bin/python", f"{file}: how is this to be tested?"
    if words[1:3] == ["-m", "pytest"]:
        run([sys.executable, *words[1:], "--collect-only", "-q"], ROOT)
        return
    made = tmp_path / "made"
    for shown, stand_in in (("~/deepseek-layer3", checkpoint), ("~/v4-pro-layer3", v4)):
        if shown in words and "make" not in words:
            made.symlink_to(stand_in)  # what an earlier line of the same file made
    places = {"~/DeepSeek-V3.2-Exp": str(checkpoint), "~/deepseek-layer3": str(made), "~/v4-pro-layer3": str(made)}
    if words[1].endswith(".py"):
        words[1] = str(ROOT / words[1])
    # The full size takes 12 GB and more.
    run([sys.executable, *(places.get(word, word) for word in words[1:] if word != "--full")], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("file", "code"), [s for s in SNIPPETS if ".open(" in s[1]], ids=lambda value: value[:20])
def test_snippet_that_opens_a_device(
    file: str, code: str, checkpoint: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    arch = pytestconfig.getoption("arch")
    code = code.replace("find_platform()", f"find_platform({arch!r})")
    program = tmp_path / Path(file).with_suffix(".py").name
    program.write_text(f"folder = {str(checkpoint)!r}\n{code}")
    run([sys.executable, str(program)], tmp_path)


@pytest.mark.parametrize(("file", "code"), [s for s in SNIPPETS if ".open(" not in s[1]], ids=lambda value: value[:20])
def test_snippet(file: str, code: str, device: Any, checkpoint: Path) -> None:
    names = {"folder": checkpoint, "device": device, "x": torch.randn(3, 128).to(torch.bfloat16)}
    exec(compile(code, file, "exec"), names)  # noqa: S102  (it is our own)
    assert names["y"].shape == (3, 128)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(path: Path) -> set[str]:
    """Of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_paths_are_there(path: Path) -> None:
    """As given from the root or from the text's own folder; the tail of a path, as in `plan.py`, below any package."""
    named = {name for name in paths(path.read_text()) if not any((top / name).exists() for top in (ROOT, path.parent))}
    lacking = {name for name in named if not any(any(folder.rglob(name)) for folder in FOLDERS)}
    assert not lacking


def paths(text: str) -> set[str]:
    """What looks like a path of ours, in prose, links, commands and drawings: the name of a source or text, or what is
    in backticks and begins with one of our folders. Code names what it includes or imports; a compiler sees to that.
    """
    text = re.sub(r"^```\w+\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    suffixes = "|".join(sorted(suffix[1:] for suffix in SOURCES | {".md"}))
    files = re.findall(rf"(?<![\w./~<>-])[\w.-]+(?:/[\w.+-]+)*\.(?:{suffixes})\b(?![./-]\w)", text)
    tops = "|".join(sorted({folder.relative_to(ROOT).parts[0] for folder in FOLDERS}))
    return {*files, *re.findall(rf"`((?:{tops})/[\w./-]*)`", text)}


def test_an_sdist_holds_what_its_readme_shows(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "generated", "report", "*.egg-info", "tests", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run([sys.executable, "-c", build, str(tmp_path)], source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    links = set(re.findall(r"\]\(([^):#]+)[)#]", (ROOT / "README.md").read_text()))
    assert {"docs/report.png", "docs/architecture.md"} <= links <= held
    assert {"LICENSE", "NOTICE"} <= held


def test_each_source_file_names_its_licence() -> None:
    sources = [path for folder in FOLDERS for path in folder.rglob("*") if path.suffix in SOURCES]
    assert len(sources) > 120
    lacking = [path for path in sources if "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:300]]
    assert lacking == []
