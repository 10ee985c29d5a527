# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Bad files end in one line that says which file, what is wrong and what to do. No device is needed."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from tests.small import TINY
from weights_tools import Checkpoint, CheckpointError, write_synthetic
from weights_tools.__main__ import app
from weights_tools.extract import extract
from weights_tools.parse import MOST_JSON_BYTES
from weights_tools.verify import verify

Damage = Callable[[Path], object]

K_NORM = "model.layers.3.self_attn.indexer.k_norm"
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
SHARD = "model-00005-of-000006.safetensors"  # layer 3's
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n"
HTML = "\n<!DOCTYPE html><title>Sign in</title>"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("checkpoint") / "tiny", replace(TINY, float8=True))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "tiny")


# ---- How a file is spoilt


def holds(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str, keep: float) -> Damage:
    return lambda folder: os.truncate(folder / name, int(keep * (folder / name).stat().st_size))


def gone(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def instead(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def is_folder(name: str) -> Damage:
    return instead(name, Path.mkdir)


def is_pipe(name: str) -> Damage:
    return instead(name, os.mkfifo)


def links_to(target: str) -> Damage:
    return instead(SHARD, lambda shard: shard.symlink_to(target))


def is_huge(name: str) -> Damage:
    """1 GB that takes no place on the disk."""
    return lambda folder: os.truncate(folder / name, 10**9)


def config_says(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def index_says(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / INDEX
        index = json.loads(path.read_text())
        index["weight_map"].update(changes)
        path.write_text(json.dumps(index))

    return damage


def twice(name: str, member: str) -> Damage:
    """`member` is there a second time, at the end of the innermost object."""

    def damage(folder: Path) -> None:
        text = (folder / name).read_text()
        end = text.index("}")
        (folder / name).write_text(f"{text[:end]}, {member}{text[end:]}")

    return damage


def raw(header: object, data: int = 0, length: int | None = None) -> Damage:
    """A shard of this header (a string as it is, else its JSON), `data` bytes of zeros, and maybe a lie on its length.

    safetensors wants padding in no place."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return holds(SHARD, struct.pack("<Q", len(text) if length is None else length) + text + bytes(data))


def f32(shape: list[object], start: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


A, B = f"{K_NORM}.weight", f"{K_NORM}.bias"
JSON_FAULTS: list[tuple[str, Callable[[str], Damage], str]] = [
    ("empty", lambda name: holds(name, ""), "is empty: download it again"),
    ("cut", lambda name: cut(name, 0.5), "is broken (not readable as JSON: "),
    ("folder", is_folder, "is a folder and no file: put"),
    ("pipe", is_pipe, "is a pipe or device and no file: put"),
    ("lfs", lambda name: holds(name, LFS), "is a git-LFS pointer, not the file itself: run `git lfs pull`"),
    ("html", lambda name: holds(name, HTML), "is an HTML page, as a login or an error gives: download it again"),
    ("no utf-8", lambda name: holds(name, b'{"a": "\xff"}'), "can't decode byte 0xff"),
    ("utf-16", lambda name: holds(name, "{}".encode("utf-16")), "can't decode byte 0xff"),
    ("nested", lambda name: holds(name, "[" * 100_000), "recursion"),
    ("list", lambda name: holds(name, "[]"), "holds a JSON list, not an object: download it again"),
    ("nan", lambda name: holds(name, '{"a": NaN}'), "NaN is no JSON"),
    (
        "digits",
        lambda name: holds(name, '{"a": ' + "9" * 5000 + "}"),
        "broken (not readable as JSON: Exceeds the limit",
    ),
    ("1 GB", is_huge, f"has 1000000000 bytes, more than the {MOST_JSON_BYTES} that are read"),
]
# Each is found when the folder is opened.
BAD_FOLDERS: list[tuple[str, Damage, str, str]] = [
    *((f"{CONFIG} {what}", make(CONFIG), CONFIG, says) for what, make, says in JSON_FAULTS),
    *((f"{INDEX} {what}", make(INDEX), INDEX, says) for what, make, says in JSON_FAULTS),
    ("no folder", shutil.rmtree, "", "no such checkpoint folder: give"),
    ("no config", gone(CONFIG), CONFIG, "no such file, though the checkpoint needs it: download it"),
    ("no index", gone(INDEX), "", f"holds neither {INDEX} nor model.safetensors: download"),
    ("config: twice", twice(CONFIG, '"beta_fast": 1'), CONFIG, "'beta_fast' is there 2 times"),
    ("config: layers", config_says(num_hidden_layers=10**9), CONFIG, "up to 10000, but are 1000000000 and 0"),
    ("config: mtp", config_says(num_nextn_predict_layers="1"), CONFIG, "whole numbers up to 10000, but are 4 and '1'"),
    ("config: V4.1", config_says(model_type="deepseek_v41"), CONFIG, "is DeepSeek-V4.1's (model_type 'deepseek_v41')"),
    ("config: -1", config_says(num_hidden_layers=-1), CONFIG, "whole numbers up to 10000, but are -1 and 0"),
    ("index: twice", twice(INDEX, '"total_size": 1'), INDEX, "'total_size' is there 2 times"),
    ("index: {}", holds(INDEX, "{}"), INDEX, "has no weight_map from keys to files: download it again"),
    ("index: no map", holds(INDEX, '{"weight_map": []}'), INDEX, "has no weight_map"),
    ("index: empty map", holds(INDEX, '{"weight_map": {}}'), INDEX, "has no weight_map"),
    ("index: absolute", index_says(a="/etc/a.safetensors"), INDEX, "refused: its shard '/etc/a.safetensors'"),
    ("index: passwd", index_says(a="/etc/passwd"), INDEX, "refused: its shard '/etc/passwd'"),
    ("index: ..", index_says(a="../a.safetensors"), INDEX, "refused: its shard '../a.safetensors'"),
    ("index: b/../..", index_says(a="b/../../a.safetensors"), INDEX, "refused: its shard 'b/../../a"),
    ("index: C:", index_says(a="C:\\a.safetensors"), INDEX, "refused: its shard 'C:"),
    ("index: ..\\", index_says(a="..\\a.safetensors"), INDEX, "refused: its shard '..\\"),
    ("index: \\\\server", index_says(a="\\\\server\\share\\a.safetensors"), INDEX, "refused: its shard"),
    ("index: pickle", index_says(a="pytorch_model.bin"), INDEX, "refused: its shard 'pytorch_model.bin'"),
    ("index: number", index_says(a=5), INDEX, "refused: its shard '5'"),
    ("index: long", index_says(a=f"{'a' * 2000}.safetensors"), INDEX, "at most 1000 characters, but has 2012"),
    ("index: \\0", index_says(a="a\0.safetensors"), INDEX, "must be printable"),
    ("index: key", index_says(**{"a\n\x1b[31m": SHARD}), INDEX, "must be printable"),
    ("index: surrogate", index_says(**{"\ud800": SHARD}), INDEX, "must be printable"),
]
# Each is found when a tensor of the shard is asked for, and the other shards still serve.
BAD_SHARDS: list[tuple[str, Damage, str]] = [
    ("gone", gone(SHARD), "no such file, though the checkpoint needs it: download it"),
    ("folder", is_folder(SHARD), "is a folder and no file"),
    ("pipe", is_pipe(SHARD), "is a pipe or device and no file"),
    ("link to itself", links_to(SHARD), "can't be read (Too many levels of symbolic links): check its permissions"),
    ("link to nothing", links_to("blob"), "no such file, though the checkpoint needs it: download it"),
    ("empty", holds(SHARD, ""), "is empty: download it again"),
    ("7 bytes", holds(SHARD, "1234567"), "is broken (7 bytes"),
    ("lfs", holds(SHARD, LFS), "is a git-LFS pointer, not the file itself: run `git lfs pull`"),
    ("html", holds(SHARD, HTML), "is an HTML page"),
    ("cut in the header", cut(SHARD, 0.05), "is cut short: "),
    ("cut in the data", cut(SHARD, 0.5), "is cut short: "),
    ("cut by a byte", cut(SHARD, 0.99999), "is cut short: "),
    ("a byte too many", lambda folder: (folder / SHARD).open("ab").write(b"x"), "file not fully covered"),
    ("10 GB header", raw({}, length=10**10), "is broken (10 bytes whose header would have 10000000000)"),
    ("2^64 - 1 header", raw({}, length=2**64 - 1), "whose header would have 18446744073709551615)"),
    ("long header", raw({}, length=99_999_999), "is cut short: 10 bytes, of which the header alone has 100000007"),
    ("no header", raw(b""), "is broken (its header is no JSON object): download it again"),
    ("text", raw(b"hello"), "its header is no JSON object"),
    ("space first", raw(b" {}"), "its header is no JSON object"),
    ("list", raw([]), "its header is no JSON object"),
    ("no utf-8", raw(b'{"\xff": 1}'), "can't decode byte 0xff"),
    ("nested", raw(b'{"a": ' + b"[" * 100_000), "recursion"),
    ("no tensors", raw({}), f"lacks {A}, which {INDEX} places there: download both again"),
    ("key missing", raw({B: f32([1], 0, 4)}, 4), f"lacks {A}, which {INDEX} places there: download both again"),
    (
        "twice",  # safetensors takes the last of the two
        raw(f'{{"{A}": {json.dumps(f32([1], 0, 4))}, "{A}": {json.dumps(f32([1, 1], 0, 4))}}}'.encode(), 4),
        "is there 2 times",
    ),
    ("overlap", raw({A: f32([2], 0, 8), B: f32([2], 4, 12)}, 12), f"invalid offset for tensor `{B}`"),
    ("same bytes", raw({A: f32([1], 0, 4), B: f32([1], 0, 4)}, 4), "invalid offset for tensor"),
    ("hole", raw({A: f32([1], 0, 4), B: f32([1], 8, 12)}, 12), f"invalid offset for tensor `{B}`"),
    ("backwards", raw({A: f32([1], 4, 0)}, 4), "invalid offset for tensor"),
    ("outside", raw({A: f32([4], 0, 16)}, 4), "is cut short: "),
    ("far outside", raw({A: f32([2**60], 0, 2**62)}, 4), "is cut short: "),
    ("wrong shape", raw({A: f32([3], 0, 8)}, 8), "invalid shape, data type, or offset"),
    ("overflow", raw({A: f32([2**62, 2**62], 0, 4)}, 4), "overflow"),
    ("negative", raw({A: f32([-1], 0, 4)}, 4), "integer `-1`"),
    ("fraction", raw({A: f32([1.5], 0, 4)}, 4), "floating point `1.5`"),
    ("no entry", raw({A: 5}), "is no valid safetensors file (invalid JSON in header"),
    ("unknown dtype", raw({A: f32([1], 0, 4) | {"dtype": "F33\n"}}, 4), "unknown variant `F33\\n`"),
    ("exotic dtype", raw({A: f32([1], 0, 2) | {"dtype": "U16"}}, 2), f"{A} has dtype U16, known are F64, F32"),
    ("unprintable", raw({"a\n": f32([1], 0, 4)}, 4), "must be printable"),
]


def one_line_about(path: Path, error: CheckpointError, says: str) -> str:
    """The error's message, which must be a line that names `path` and holds `says`."""
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert message.isprintable()
    assert len(message) < 600
    return message


@pytest.mark.parametrize(("damage", "name", "says"), [pytest.param(*row, id=what) for what, *row in BAD_FOLDERS])
def test_a_bad_folder_is_not_opened(
    folder: Path, damage: Damage, name: str, says: str, count: Callable[[str, int], None]
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    message = one_line_about(folder / name, caught.value, says)
    for command in (["list", folder], ["verify", folder], ["inspect", folder], ["extract", folder, folder / "out"]):
        assert _run(*command, exit_code=2).stderr == f"error: {message}\n"
    assert not (folder / "out").exists()
    count("files: bad files, each named in one line", 1)


@pytest.mark.parametrize(("damage", "says"), [pytest.param(*row, id=what) for what, *row in BAD_SHARDS])
def test_a_bad_shard_is_named(folder: Path, damage: Damage, says: str, count: Callable[[str, int], None]) -> None:
    damage(folder)
    checkpoint = Checkpoint(folder)
    for read in (checkpoint.tensor, checkpoint.weight, checkpoint.dtype):
        with pytest.raises(CheckpointError) as caught:
            read(A)
        one_line_about(folder / SHARD, caught.value, says)
    for command in (["list", folder], ["inspect", folder], ["extract", folder, folder / "out"]):
        assert _run(*command, exit_code=2).stderr.startswith(f"error: {folder / SHARD}: ")
    assert not (folder / "out").exists()
    problems = {problem.key: problem for problem in verify(checkpoint).problems}
    assert problems[A].kind == "unreadable"
    assert says in problems[A].message
    _run("verify", folder, exit_code=1)
    assert checkpoint.weight("model.norm.weight").shape == (64,)
    count("files: bad files, each named in one line", 1)


def _run(*arguments: object, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    return result


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"], ids=["long", "nul"])
def test_a_folder_whose_name_can_not_be_is_none(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        Checkpoint(name)


def test_a_single_file_is_judged_like_a_shard(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text(LFS)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is a git-LFS pointer"):
        Checkpoint(tmp_path)


def test_of_a_key_in_two_shards_the_index_names_the_one_that_counts(folder: Path) -> None:
    """An index names one file a key: what other files hold under the same key is never read."""
    expected = Checkpoint(folder).tensor(A)
    other = folder / "model-00001-of-000006.safetensors"
    save_file(load_file(other) | {A: torch.zeros(16)}, other)
    assert torch.equal(Checkpoint(folder).tensor(A), expected)


@pytest.mark.parametrize("name", ["n_routed_experts", "vocab_size", "num_nextn_predict_layers"])
def test_absurd_sizes_are_not_enumerated(folder: Path, name: str) -> None:
    """A billion experts, rows of the embedding, and the most MTP layers that a config may count."""
    size = 10_000 if name == "num_nextn_predict_layers" else 10**9
    config_says(**{name: size})(folder)
    if name == "n_routed_experts":
        expected = (
            rf"config\.json: calls for more than 200\d\d\d tensors \(4 layers, {size} experts\), but the checkpoint"
        )
        with pytest.raises(CheckpointError, match=expected):
            verify(Checkpoint(folder, mtp=True))
    else:
        report = verify(Checkpoint(folder, mtp=True))
        assert {problem.key for problem in report.problems} == (
            {"model.embed_tokens.weight", "lm_head.weight"} if name == "vocab_size" else set()
        )


@pytest.mark.parametrize("block", [[10**12, 10**12], [10**30, 1], [1, 10**400]])
def test_absurd_blocks_take_no_memory(tmp_path: Path, block: list[int]) -> None:
    """A block larger than the matrix is the matrix's size: scales are repeated no further than there are columns."""
    rows, columns = (-(-size // step) for size, step in zip((5, 7), block, strict=True))
    scale = torch.arange(1.0, 1 + rows * columns).reshape(rows, columns)
    weight = torch.full((5, 7), 2.0).to(torch.float8_e4m3fn)
    save_file({"m.weight": weight, "m.weight_scale_inv": scale}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"weight_block_size": block}}))
    assert torch.equal(Checkpoint(tmp_path).weight("m.weight"), (2 * scale.expand(5, 7)).bfloat16())


@pytest.mark.parametrize("shape", [[10**12, 0], [0, 2**61]])
def test_packed_fp4_without_elements_is_empty(tmp_path: Path, shape: list[int]) -> None:
    rows, columns = shape[0], 2 * shape[1]
    entries = {
        "m.weight": {"dtype": "I8", "shape": shape, "data_offsets": [0, 0]},
        "m.weight_scale_inv": {"dtype": "F8_E8M0", "shape": [rows, columns // 32], "data_offsets": [0, 0]},
    }
    raw(entries)(tmp_path)
    (tmp_path / SHARD).rename(tmp_path / "model.safetensors")
    (tmp_path / CONFIG).write_text('{"model_type": "deepseek_v4"}')
    assert Checkpoint(tmp_path).weight("m.weight").shape == (rows, columns)


def test_packed_fp4_of_more_columns_than_torch_can_count_is_refused(tmp_path: Path) -> None:
    entries = {
        "m.weight": {"dtype": "I8", "shape": [0, 2**62], "data_offsets": [0, 0]},
        "m.weight_scale_inv": {"dtype": "F8_E8M0", "shape": [0, 2**58], "data_offsets": [0, 0]},
    }
    raw(entries)(tmp_path)
    (tmp_path / SHARD).rename(tmp_path / "model.safetensors")
    (tmp_path / CONFIG).write_text('{"model_type": "deepseek_v4"}')
    with pytest.raises(CheckpointError, match=rf"packed FP4 \(0, {2**63}\), but its columns must be a multiple of 32"):
        Checkpoint(tmp_path).weight("m.weight")


def test_a_float8_matrix_of_a_trillion_empty_rows_is_empty(tmp_path: Path) -> None:
    entries = {
        "m.weight": {"dtype": "F8_E4M3", "shape": [10**12, 0], "data_offsets": [0, 0]},
        "m.weight_scale_inv": {"dtype": "F32", "shape": [-(-(10**12) // 128), 0], "data_offsets": [0, 0]},
    }
    raw(entries)(tmp_path)
    (tmp_path / SHARD).rename(tmp_path / "model.safetensors")
    (tmp_path / CONFIG).write_text("{}")
    assert Checkpoint(tmp_path).weight("m.weight").shape == (10**12, 0)


# ---- Bytes at random

FUZZ_CASES = 4500


@pytest.mark.long
def test_bytes_spoilt_at_random_are_refused_or_read_right(tmp_path: Path, count: Callable[[str, int], None]) -> None:
    """`fuzz_files` says how, and what right is. In a process of its own, which may crash or hang or run out of memory;
    it takes about 20 s."""
    command = [sys.executable, "-m", "tests.fuzz_files", str(tmp_path), "0", str(FUZZ_CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, f"{done.stderr}\nlast begun: {(tmp_path / 'recipe').read_text()}"
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == FUZZ_CASES
    assert min(outcomes.values()) > 300  # each outcome is met, or the cases are not worth their name
    count("files: fuzz cases", FUZZ_CASES)
    for outcome, number in outcomes.items():
        count(f"files: fuzz cases {outcome}", number)


# ---- Norms


@pytest.mark.parametrize(
    ("values", "dtype", "says"),
    [
        (
            [1, torch.nan, 2, torch.inf],
            torch.bfloat16,
            "2 NaN or Inf of 4 values in torch.bfloat16, the first nan at 1:",
        ),
        ([1, 2, 3, -torch.inf], torch.float32, "1 NaN or Inf of 4 values in torch.float32, the first -inf at 3:"),
        ([1, 2, 3.4e38, 4], torch.bfloat16, "the first inf at 2:"),  # finite until it is rounded
        ([[1.0, 2.0]], torch.bfloat16, "norm.weight must be a vector, as a norm's weights are, but is (1, 2)"),
    ],
)
def test_the_weights_of_a_norm_are_finite_vectors(
    tmp_path: Path, values: list[float], dtype: torch.dtype, says: str
) -> None:
    save_file({"norm.weight": torch.tensor(values)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path).norm("norm", dtype)
    assert str(caught.value).startswith(f"{tmp_path / 'model.safetensors'}: norm.weight ")
    assert says in str(caught.value)


def test_a_sound_norm_is_its_weights(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    for dtype in (torch.bfloat16, torch.float32):
        norm = checkpoint.norm(K_NORM, dtype)
        assert norm.keys() == {"weight", "bias"}
        assert all(torch.equal(norm[name], checkpoint.weight(f"{K_NORM}.{name}", dtype)) for name in norm)


# ---- Writing


def test_what_comes_while_extract_writes_stays(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "norms.safetensors"

    def someone_else(done: int, total: int) -> None:
        if done == total:
            out.write_bytes(b"mine")

    with pytest.raises(CheckpointError, match="exists already: choose another name, or replace it with --force"):
        extract(Checkpoint(folder), out, progress=someone_else)
    assert out.read_bytes() == b"mine"
    assert sorted(tmp_path.iterdir()) == [out, folder]


@pytest.mark.parametrize("force", [False, True])
def test_what_comes_while_a_checkpoint_is_made_stays(tmp_path: Path, force: bool) -> None:
    made = tmp_path / "made"

    def someone_else(done: int, total: int) -> None:
        if done == total:
            made.mkdir()
            (made / "precious").touch()

    says = "is no synthetic checkpoint, so not even --force replaces it" if force else "exists already"
    with pytest.raises(CheckpointError, match=says):
        write_synthetic(made, TINY, force=force, progress=someone_else)
    assert sorted(tmp_path.rglob("*")) == [made, made / "precious"]


def test_of_two_writers_at_once_the_first_to_end_wins(tmp_path: Path) -> None:
    """And the second to begin does not take the other's half-written folder for left behind."""
    made = tmp_path / "made"

    def second(done: int, total: int) -> None:
        if done == total:
            write_synthetic(made, TINY, seed=2)

    with pytest.raises(CheckpointError, match="exists already"):
        write_synthetic(made, TINY, seed=1, progress=second)
    assert Checkpoint(made).metadata["synthetic_seed"] == 2
    assert list(tmp_path.iterdir()) == [made]


KILLED = {
    "make": """
def kill(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
synthetic.write_synthetic(target, TINY, progress=kill)
""",
    "make --force": """
synthetic.write_synthetic(target, TINY)
def rename(new, target, rename=Path.rename):
    if target.name == "made":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(new, target)
Path.rename = rename  # the old one is away, and the new one not yet there
synthetic.write_synthetic(target, TINY, force=True)
""",
    "extract": """
def save_tensors(tensors, path, metadata):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
extract.save_tensors = save_tensors
extract.extract(Checkpoint(folder), target)
""",
}


@pytest.mark.parametrize("command", KILLED)
def test_what_a_killed_writer_leaves_goes_with_the_next(
    folder: Path, tmp_path: Path, command: str, count: Callable[[str, int], None]
) -> None:
    target = tmp_path / "made"
    script = f"""
import os, signal, sys
from pathlib import Path
from tests.small import TINY
from weights_tools import Checkpoint, extract, synthetic
folder, target = Path({str(folder)!r}), Path({str(target)!r})
{KILLED[command]}"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not target.exists()
    assert len(list(tmp_path.glob(".made.*.partial"))) == 1
    if command == "extract":
        extract(Checkpoint(folder), target)
        assert f"{K_NORM}.weight" in load_file(target)
    else:
        assert verify(Checkpoint(write_synthetic(target, TINY))).problems == []
    assert sorted(tmp_path.iterdir()) == sorted([folder, target])
    count("files: writers killed, whose traces the next one removed", 1)


def test_full_and_read_only_disks_are_one_line(folder: Path, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    """A real disk of 100 kB, mounted where only this test's child sees it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
import os, subprocess
from pathlib import Path
from tests.small import TINY
from weights_tools import Checkpoint, CheckpointError, write_synthetic
from weights_tools.extract import extract
disk = Path({str(disk)!r})
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", disk], check=True)
for number in range(2):
    for write in (lambda: extract(Checkpoint({str(folder)!r}), disk / "new", ["*"]),
                  lambda: write_synthetic(disk / "new", TINY), lambda: write_synthetic(disk / "a" / "new", TINY)):
        try:
            write()
        except CheckpointError as error:
            print(error, [path.name for path in disk.iterdir()])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
"""
    # The disk that is full says so only while it is written: what is free is asked before, but only of a checkpoint.
    child = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if child.returncode:
        pytest.skip(f"no disk can be mounted here: {child.stderr.strip().splitlines()[-1]}")
    full, no_room, no_room_either, *read_only = child.stdout.splitlines()
    assert full.startswith(f"{disk}/new: can't be written (")
    assert "No space left on device" in full
    assert "needs 0.0 GB, but the disk has 0.0 GB" in no_room
    assert full.endswith(" []")
    assert no_room.endswith(" []")
    assert no_room_either.startswith(f"{disk}/a/new: needs")
    assert len(read_only) == 3
    assert all("can't be written ([Errno 30] Read-only file system" in line for line in read_only)
    count("files: full and read-only disks", 6)
