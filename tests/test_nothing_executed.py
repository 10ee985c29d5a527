# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing that comes with a checkpoint is executed: no pickle, no code beside the weights. No device is needed."""

import ast
import ctypes
import json
import os
import pickle
import runpy
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from model_comparison.block import Block
from tests.small import SMALL
from weights_tools import Checkpoint, CheckpointError, write_synthetic
from weights_tools.__main__ import app

ROOT = Path(__file__).parents[1]
SHIPPED = (
    "commands",
    "common",
    "integration",
    "micro_ops",
    "model_comparison",
    "scripts",
    "tt_device",
    "weights_tools",
)

# ---- No code that could

UNPICKLE_OR_RUN = {"cloudpickle", "dill", "imp", "joblib", "marshal", "pickle", "shelve", "yaml"}
BUILTINS = {"__import__", "compile", "eval", "exec"}
METHODS = {  # of whatever object: torch.load, np.load, os.system, AutoModel.from_pretrained
    "exec_module",
    "from_pretrained",
    "get_class_from_dynamic_module",
    "import_module",
    "load_module",
    "popen",
    "run_module",
    "run_path",
    "spec_from_file_location",
    "system",
}
LOADERS = {"torch.load", "torch.hub", "np.load", "numpy.load"}
KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}  # be it False: there is no need to name them
ALLOWED = {  # the simulator itself, which these two start
    "tt_device/probe.py": ["runpy.run_module"],
    "tt_device/mended.py": ["runpy.run_module", "runpy.run_path"],
}


def _dangers(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.split(".")[0] in UNPICKLE_OR_RUN)
                yield from (name.name for name in names if name.name in LOADERS)
            case ast.ImportFrom(module=str(module), names=names):
                imported = {module, *(f"{module}.{name.name}" for name in names)}
                if module.split(".")[0] in UNPICKLE_OR_RUN or imported & LOADERS:
                    yield module
                yield from (name.name for name in names if name.name in METHODS)
            case ast.Name(id=name) if name in BUILTINS:
                yield name
            case ast.Attribute(attr=name) if name in METHODS or ast.unparse(node) in LOADERS:
                yield ast.unparse(node)
            case ast.keyword(arg=str(name)) if name in KEYWORDS:
                yield name
            case ast.Constant(value=str(name)) if name in KEYWORDS:  # {"trust_remote_code": True}
                yield name


def test_no_shipped_code_unpickles_or_runs_what_it_reads(count: Callable[[str, int], None]) -> None:
    files = [file for package in SHIPPED for file in (ROOT / package).rglob("*.py")]
    files.append(ROOT / "tt_device" / "toolchain" / "riscv-tt-elf-g++")
    assert len(files) > 30
    for file in files:
        name = str(file.relative_to(ROOT))
        assert list(_dangers(file.read_text())) == ALLOWED.get(name, []), name
    count("nothing executed: files of ours without pickle, eval and the like", len(files))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "import yaml",
        "import marshal",
        "import shelve",
        "importlib.util.spec_from_file_location(name, path)",
        "from importlib import import_module",
        "from torch import load",
        "import torch; torch.load(path)",
        "import torch; read = torch.load",
        "torch.hub.load('a', 'b')",
        "np.load(path)",
        "np.lib.format.read_array(file, allow_pickle=True)",
        "runpy.run_path(path)",
        "eval(text)",
        "run = exec",
        "__import__(name)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(folder)",
        "load(folder, trust_remote_code=True)",
        "load(folder, **{'trust_remote_code': True})",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert list(_dangers(source))


def test_the_search_passes_what_is_harmless() -> None:
    source = "import re, json; re.compile('a'); layer.eval(); json.load(file); module.load_state_dict(state)"
    assert list(_dangers(source)) == []


# ---- And none that does


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A sound checkpoint, with pickles and code beside it that make the file `executed` when they are run."""
    folder, marker = write_synthetic(tmp_path / "evil", SMALL), tmp_path / "executed"
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "model.safetensors.pkl", "optimizer.pth"):
        (folder / name).write_bytes(pickle.dumps(_Touch(marker)))
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "__init__.py"):
        (folder / name).write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: pass\n")
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
    config = json.loads((folder / "config.json").read_text()) | {
        "auto_map": {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"},
        "trust_remote_code": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    # They do it if they are let.
    with (folder / "pytorch_model.bin").open("rb") as file:
        pickle.load(file)  # noqa: S301
    marker.unlink()
    runpy.run_path(str(folder / "modeling_evil.py"))
    marker.unlink()
    return folder


class Opened:
    """The files in a folder that anyone opens, told by the kernel: Python's audit events miss what Rust and C open."""

    IN_OPEN = 0x20

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK)
        assert self._events >= 0
        assert libc.inotify_add_watch(self._events, os.fsencode(folder), self.IN_OPEN) >= 0

    def names(self) -> set[str]:
        """Those since the last call."""
        names = set()
        try:
            while events := os.read(self._events, 2**16):
                while events:  # struct inotify_event: watch, mask, cookie, length of the name, the name
                    length = struct.unpack_from("iIII", events)[3]
                    names.add(events[16 : 16 + length].rstrip(b"\0").decode())
                    events = events[16 + length :]
        except BlockingIOError:
            return names
        return names


def test_what_lies_beside_the_weights_is_not_even_opened(evil: Path, count: Callable[[str, int], None]) -> None:
    opened = Opened(evil)
    for command in (
        ["list"],
        ["inspect"],
        ["verify", "--values"],
        ["extract", str(evil.parent / "out"), "--keys", "*"],
    ):
        name, *arguments = command
        result = CliRunner().invoke(app, [name, str(evil), *arguments])
        assert result.exit_code == 0, result.output
    block = Block(Checkpoint(evil), 3)
    block.run(torch.ones(1, 4, SMALL.hidden_size, dtype=torch.bfloat16))
    shards = {file.name for file in evil.glob("*.safetensors")}
    # The folder itself comes with an empty name; the rest is what was meant to be read.
    assert opened.names() - {""} == {"config.json", "model.safetensors.index.json", *shards}
    assert not (evil.parent / "executed").exists()
    others = {file.name for file in evil.iterdir()} - shards - {"config.json", "model.safetensors.index.json"}
    assert len(others) == 10
    count("nothing executed: malicious files beside a checkpoint, none opened", len(others))


def test_a_checkpoint_of_pickles_alone_is_refused_unopened(evil: Path) -> None:
    for file in [*evil.glob("*.safetensors"), evil / "model.safetensors.index.json"]:
        file.unlink()
    opened = Opened(evil)
    with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors\.index\.json nor model\.safetensors"):
        Checkpoint(evil)
    assert opened.names() - {""} == {"config.json"}


def test_an_index_that_names_a_pickle_is_refused_unopened(evil: Path) -> None:
    index = evil / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "pytorch_model.bin")
    index.write_text(json.dumps(content))
    opened = Opened(evil)
    with pytest.raises(CheckpointError, match=r"its shard 'pytorch_model\.bin' is no \.safetensors file"):
        Checkpoint(evil)
    assert opened.names() - {""} == {"config.json", "model.safetensors.index.json"}


def test_a_pickle_by_another_name_is_no_shard(evil: Path) -> None:
    shard = evil / "model-00005-of-000006.safetensors"
    shard.write_bytes((evil / "pytorch_model.bin").read_bytes())
    with pytest.raises(CheckpointError, match="is broken"):
        Block(Checkpoint(evil), 3)
    assert not (evil.parent / "executed").exists()
