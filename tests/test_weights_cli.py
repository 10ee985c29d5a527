# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m weights_tools` and what it calls: list, inspect, extract, verify, make. No device is needed."""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from tests.small import TINY, TINY_V4
from weights_tools import Checkpoint, Geometry, GeometryV4, write_synthetic
from weights_tools.__main__ import app
from weights_tools.architecture import Architecture
from weights_tools.models import geometry_of
from weights_tools.verify import verify

K_NORM = "model.layers.3.self_attn.indexer.k_norm"
FLOAT8 = replace(TINY, float8=True, num_nextn_predict_layers=1)
FLOAT8_V3 = replace(FLOAT8, model="v3")
MXFP4 = replace(TINY_V4, float8=True, num_nextn_predict_layers=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "tiny", FLOAT8)


@pytest.fixture
def v4(tmp_path: Path) -> Path:
    """Experts in MXFP4, an MTP layer."""
    return write_synthetic(tmp_path / "v4", MXFP4)


def _run(*arguments: object, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    if exit_code == 2:
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    return result


def _json(*arguments: object, exit_code: int = 0) -> Any:
    return json.loads(_run(*arguments, "--json", exit_code=exit_code).stdout)


# ---- list and inspect


def test_list_shows_what_the_headers_hold(folder: Path) -> None:
    stored = {file.name: load_file(file) for file in folder.glob("*.safetensors")}
    expected = {
        key: {"key": key, "dtype": str(tensor.dtype).split(".")[1], "shape": list(tensor.shape), "shard": shard}
        for shard, tensors in stored.items()
        for key, tensor in tensors.items()
    }
    rows = _json("list", folder, "--mtp")
    assert {row["key"]: row for row in rows} == expected
    text = _run("list", folder, "--mtp").stdout.splitlines()
    assert text[0].split() == ["key", "dtype", "shape", "shard"]
    assert [line.split()[0] for line in text[1:]] == [row["key"] for row in rows]
    assert f"{K_NORM}.bias float32 16 model-00005-of-000007.safetensors" in [" ".join(line.split()) for line in text]


def test_list_takes_globs_and_leaves_mtp_out(folder: Path) -> None:
    listed = _run("list", folder, "*.k_norm.*", "lm_*")
    keys = [f"model.layers.{i}.self_attn.indexer.k_norm.{part}" for i in range(4) for part in ("weight", "bias")]
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == [*keys, "lm_head.weight"]
    left_out = len(Checkpoint(folder, mtp=True).keys("model.layers.4", scales=True))
    assert listed.stderr == f"{left_out} keys of MTP layers are left out: --mtp shows them\n"
    assert (
        "knorm" in _run("list", folder, "*.k_norm.*", "*.knorm.*", exit_code=2).stderr
    )  # the one that matched nothing
    assert "--mtp" in _run("list", folder, "*.enorm.*", exit_code=2).stderr


def test_list_shows_v4_as_stored(v4: Path) -> None:
    rows = {row["key"]: (row["dtype"], row["shape"]) for row in _json("list", v4, "layers.3.*")}
    assert rows["layers.3.ffn.experts.6.w1.weight"] == ("int8", [32, 32])
    assert rows["layers.3.ffn.experts.6.w1.scale"] == ("float8_e8m0fnu", [32, 2])
    assert rows["layers.3.attn.wq_a.scale"] == ("float8_e8m0fnu", [1, 1])
    norms = [line.split()[0] for line in _run("list", v4, "layers.3.*norm*").stdout.splitlines()[1:]]
    assert norms == [f"layers.3.{name}.weight" for name in V4_NORMS]
    assert "--mtp" in _run("list", v4, "mtp.0.enorm.*", exit_code=2).stderr


def test_inspect_shows_packed_fp4_as_its_values(v4: Path) -> None:
    key = "layers.3.ffn.experts.6.w1.weight"
    (row,) = _json("inspect", v4, key)
    values = Checkpoint(v4).weight(key, torch.float32).double()
    assert (row["dtype"], row["shape"]) == ("int8", [32, 64])
    assert row["std"] == pytest.approx(values.std(correction=0).item(), rel=1e-12)
    assert row["absmax"] == values.abs().max().item()
    assert len(_json("inspect", v4, "layers.0.*")) == len(Checkpoint(v4).keys("layers.0"))  # int64 and float32, too


def test_inspect_gives_the_statistics_of_the_values(tmp_path: Path) -> None:
    """float8 as the values that it stands for; NaN and Inf are counted, and the rest is of the finite values."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 200, generator=generator).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2, generator=generator)
    gamma = torch.tensor([1.0, -3.0, torch.nan, torch.inf, -torch.inf, 5.0], dtype=torch.bfloat16)
    tensors = {"m.weight": weight, "m.weight_scale_inv": scale, "gamma": gamma, "lost": torch.full((2,), torch.nan)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")

    rows = {row.pop("key"): row for row in _json("inspect", tmp_path)}
    assert rows.keys() == {"m.weight", "gamma", "lost"}
    assert rows["gamma"] == {
        "dtype": "bfloat16",
        "shape": [6],
        "mean": 1.0,
        "std": pytest.approx((32 / 3) ** 0.5),
        "min": -3.0,
        "max": 5.0,
        "absmax": 5.0,
        "nan": 1,
        "inf": 2,
    }
    assert rows["lost"] == {"dtype": "float32", "shape": [2], "nan": 2, "inf": 0} | dict.fromkeys(
        ("mean", "std", "min", "max", "absmax")
    )
    values = Checkpoint(tmp_path).weight("m.weight", torch.float32).double()
    found = [rows["m.weight"][name] for name in ("mean", "std", "min", "max", "absmax")]
    expected = [values.mean(), values.std(correction=0), values.min(), values.max(), values.abs().max()]
    assert found == pytest.approx([value.item() for value in expected], rel=1e-12)
    text = [line.split() for line in _run("inspect", tmp_path).stdout.splitlines()]
    assert ["gamma", "bfloat16", "6", "1", "3.266", "-3", "5", "5", "1", "2"] in text
    assert ["lost", "float32", "2", *["-"] * 5, "2", "0"] in text


def test_statistics_of_more_than_a_chunk(tmp_path: Path) -> None:
    """5 M values: the chunks are put together. Values all equal have no spread, not even by rounding."""
    values = torch.randn(5_000_000, generator=torch.Generator().manual_seed(0))
    save_file({"a": values, "constant": torch.full((3,), 0.1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    row, constant = _json("inspect", tmp_path)
    assert row["mean"] == pytest.approx(values.double().mean().item(), abs=1e-12)
    assert row["std"] == pytest.approx(values.double().std(correction=0).item(), rel=1e-9)
    assert row["absmax"] == values.abs().max().item()
    assert constant["std"] == pytest.approx(0.0, abs=1e-9)


# ---- extract


def test_extract_copies_the_norms_and_says_where_they_are_from(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "norms.safetensors"
    result = _json("extract", folder, out)
    checkpoint = Checkpoint(folder)
    per_layer = ["input", "post_attention", "q_a", "kv_a", "k_norm.weight", "k_norm.bias"]
    assert len(result["keys"]) == 4 * len(per_layer) + 1  # and the model's own
    assert result["bytes"] == out.stat().st_size < 20_000
    tensors = load_file(out)
    assert tensors.keys() == set(result["keys"])
    for key, tensor in tensors.items():
        assert "norm" in key
        assert tensor.dtype == checkpoint.dtype(key)
        assert torch.equal(tensor, checkpoint.tensor(key))

    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()
    origins = json.loads(metadata.pop("tensors"))
    version = metadata.pop("tool").removeprefix("tt-deepseek-norms ")
    assert f'version = "{version}"' in (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert metadata == {
        "format": "pt",
        "source": "tiny",
        "model_type": "deepseek_v32",
        "config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest(),
        "index_sha256": hashlib.sha256((folder / "model.safetensors.index.json").read_bytes()).hexdigest(),
    }
    beta = checkpoint.tensor(f"{K_NORM}.bias").numpy().tobytes()
    assert origins[f"{K_NORM}.bias"] == {
        "shard": "model-00005-of-000007.safetensors",
        "sha256": hashlib.sha256(beta).hexdigest(),
    }
    assert origins.keys() == tensors.keys()
    assert out.stat().st_mode == (folder / "config.json").stat().st_mode  # who may read the one may read the other


def test_extract_of_float8_takes_its_scales(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "wk.safetensors"
    _run("extract", folder, out, "--keys", "model.layers.3.*.wk.*", "--keys", "model.norm.*")
    wk = "model.layers.3.self_attn.indexer.wk.weight"
    assert load_file(out).keys() == {wk, f"{wk}_scale_inv", "model.norm.weight"}


def test_extract_of_v3_finds_no_bias_and_does_not_mind(tmp_path: Path) -> None:
    folder = write_synthetic(tmp_path / "v3", FLOAT8_V3)
    assert len(_json("extract", folder, tmp_path / "norms.safetensors")["keys"]) == 4 * 4 + 1
    assert len(_json("extract", folder, tmp_path / "all.safetensors", "--mtp")["keys"]) == 5 * 4 + 1 + 3


V4_NORMS = (  # in the order of the checkpoint
    "attn_norm",
    "attn.q_norm",
    "attn.kv_norm",
    "attn.compressor.norm",
    "attn.indexer.compressor.norm",
    "ffn_norm",
)


def test_extract_of_v4_takes_its_norms_and_nothing_else(v4: Path, tmp_path: Path) -> None:
    everywhere = {"attn_norm", "attn.q_norm", "attn.kv_norm", "ffn_norm"}
    names = [f"layers.{layer}.{name}" for layer in range(5) for name in everywhere]
    names += [f"layers.{layer}.attn.compressor.norm" for layer in range(1, 5)]
    names += [f"layers.{layer}.attn.indexer.compressor.norm" for layer in (2, 3)]
    names += ["norm"]
    keys = _json("extract", v4, tmp_path / "norms.safetensors")["keys"]
    assert sorted(keys) == sorted(f"{name}.weight" for name in names)
    names += [f"mtp.0.{name}" for name in (*everywhere, "enorm", "hnorm", "norm")]
    keys = _json("extract", v4, tmp_path / "all.safetensors", "--mtp")["keys"]
    assert sorted(keys) == sorted(f"{name}.weight" for name in names)


def test_extract_of_packed_fp4_takes_its_scales(v4: Path, tmp_path: Path) -> None:
    out = tmp_path / "w1.safetensors"
    _run("extract", v4, out, "--keys", "layers.3.ffn.experts.6.w1.*", "--keys", "layers.3.attn.wkv.*")
    tensors = load_file(out)
    w1, wkv = "layers.3.ffn.experts.6.w1", "layers.3.attn.wkv"
    assert tensors.keys() == {f"{w1}.weight", f"{w1}.scale", f"{wkv}.weight", f"{wkv}.scale"}
    for key, tensor in tensors.items():
        stored = Checkpoint(v4).tensor(key)
        assert tensor.dtype == stored.dtype
        assert torch.equal(tensor.view(torch.uint8), stored.view(torch.uint8))


def test_extract_overwrites_nothing_unasked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "norms.safetensors"
    out.write_bytes(b"mine")
    assert f"{out}: exists already" in _run("extract", folder, out, exit_code=2).stderr
    assert out.read_bytes() == b"mine"
    _run("extract", folder, out, "--force")
    assert "model.norm.weight" in load_file(out)

    shard = folder / "model-00005-of-000007.safetensors"
    before = shard.read_bytes()
    assert "is a shard of" in _run("extract", folder, shard, "--force", exit_code=2).stderr
    assert shard.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "arguments"),
    [
        ("no/such/folder.safetensors", ()),  # can't be opened
        (".", ("--force",)),  # written beside, but can't take the place of a folder
        ("out.safetensors", ("--keys", "*.knorm.*")),  # nothing to write
    ],
)
def test_a_failed_extract_leaves_nothing(folder: Path, tmp_path: Path, out: str, arguments: tuple[str, ...]) -> None:
    before = sorted(tmp_path.rglob("*"))
    _run("extract", folder, tmp_path / out, *arguments, exit_code=2)
    assert sorted(tmp_path.rglob("*")) == before
    assert list(tmp_path.parent.glob(".*partial")) == []


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """4 GB of experts, which are holes in the file, before and after a norm of 8 bytes."""
    size = 2 * 2**30
    tensors = {
        "experts.0.weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]},
        "k_norm.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [size, size + 8]},
        "experts.1.weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [size + 8, 2 * size + 8]},
    }
    header = json.dumps(tensors).encode()
    shard = tmp_path / "sparse" / "model.safetensors"
    shard.parent.mkdir()
    shard.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(shard, 8 + len(header) + 2 * size + 8)
    (shard.parent / "config.json").write_text("{}")
    return shard.parent


@pytest.mark.parametrize("arguments", [["list"], ["inspect", "*norm*"], ["extract", "OUT"]])
def test_only_the_tensors_asked_for_are_read(sparse: Path, tmp_path: Path, arguments: list[str]) -> None:
    """Of 4 GB neither what is mapped and touched nor what is read comes to 0.1 GB."""
    command, *rest = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = _peak_bytes(), _read_bytes()
    assert "k_norm.weight" in _run(command, sparse, *rest, "--json").stdout
    assert _peak_bytes() - before[0] < 100e6
    assert _read_bytes() - before[1] < 100e6


def _read_bytes() -> int:
    """That this process has asked for by read(), whether or not they came from a disk."""
    return int(Path("/proc/self/io").read_text().split()[1])  # rchar: N


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


# ---- verify


@pytest.mark.parametrize("geometry", [replace(TINY, model="v3"), TINY, TINY_V4], ids=["v3", "v32", "v4"])
@pytest.mark.parametrize("changes", [{}, {"float8": True}, {"num_nextn_predict_layers": 2}])
def test_what_is_made_is_verified(tmp_path: Path, geometry: Architecture, changes: dict[str, Any]) -> None:
    folder = write_synthetic(tmp_path / "made", replace(geometry, **changes))
    report = _json("verify", folder, "--values")
    checked = len(Checkpoint(folder, mtp=True).keys())
    assert report == {"ok": True, "checked": checked, "problems": [], "notes": []}
    assert _run("verify", folder).stdout == f"{folder}: {checked} tensors checked, 0 problems\n"


def test_single_layers_are_held_to_themselves(tmp_path: Path) -> None:
    folder = write_synthetic(tmp_path / "one", FLOAT8, layers=[3], repeat_experts=True)
    assert _json("verify", folder)["notes"] == ["synthetic, with only the layers [3] of 4"]


@pytest.mark.parametrize(("geometry", "layer"), [(FLOAT8, "model.layers.4."), (MXFP4, "mtp.0.")], ids=["v32", "v4"])
def test_a_model_without_its_mtp_layers_is_whole(tmp_path: Path, geometry: Architecture, layer: str) -> None:
    """As transformers saves it: the config still counts them."""
    folder = write_synthetic(tmp_path / "made", geometry)
    _rewrite(folder, lambda tensors: {key: v for key, v in tensors.items() if not key.startswith(layer)})
    report = _json("verify", folder)
    assert report["ok"]
    assert report["notes"] == ["without the MTP layers that config.json counts: models run without them"]


WK = "model.layers.3.self_attn.indexer.wk.weight"
EH_PROJ = "model.layers.4.eh_proj.weight"


def _without(*keys: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {key: value for key, value in tensors.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "kind", "key", "says"),
    [
        (_without(f"{K_NORM}.bias"), "missing", f"{K_NORM}.bias", "must be there, of shape (16,)"),
        (_without(EH_PROJ), "missing", EH_PROJ, "must be there, of shape (64, 128)"),  # MTP layers: all or none
        (
            lambda tensors: tensors | {"model.layers.3.extra": torch.zeros(1)},
            "unexpected",
            "model.layers.3.extra",
            "config.json calls for no such tensor",
        ),
        (
            lambda tensors: tensors | {f"{EH_PROJ}_scale_inv": torch.zeros(1, 1)},  # bf16 on the hub
            "scale",
            EH_PROJ,
            "is torch.bfloat16, but model.layers.4.eh_proj.weight_scale_inv is for torch.float8_e4m3fn",
        ),
        (
            lambda tensors: tensors | {f"{K_NORM}.weight": torch.ones(17)},
            "shape",
            f"{K_NORM}.weight",
            "must be (16,), but is (17,)",
        ),
        (
            lambda tensors: tensors | {"model.norm.weight": torch.ones(64, dtype=torch.int32)},
            "dtype",
            "model.norm.weight",
            "must be one of torch.bfloat16, torch.float16, torch.float32, but is torch.int32",
        ),
        (_without(f"{WK}_scale_inv"), "scale", WK, f"but {WK}_scale_inv or {WK[:-7]}.scale is missing"),
        (
            lambda tensors: tensors | {f"{WK}_scale_inv": torch.ones(2, 1)},
            "scale",
            WK,
            "must be (1, 1) for",
        ),
        (_without(WK), "missing", WK, "must be there, of shape (16, 64)"),
    ],
)
def test_verify_names_each_fault(
    folder: Path,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    kind: str,
    key: str,
    says: str,
) -> None:
    _rewrite(folder, change)
    report = _json("verify", folder, exit_code=1)
    assert not report["ok"]
    found = {(problem["kind"], problem["key"]): problem["message"] for problem in report["problems"]}
    assert says in found.pop((kind, key))
    # Nothing else follows from it, but that the scales of a weight that is gone are left behind.
    left_behind = {("unexpected", f"{WK}_scale_inv")} if (kind, key) == ("missing", WK) else set()
    assert found.keys() == left_behind
    assert f"{kind}: {key}: " in _run("verify", folder, exit_code=1).stdout


W1, WQ_A = "layers.3.ffn.experts.6.w1", "layers.3.attn.wq_a"


@pytest.mark.parametrize(
    ("change", "kind", "key", "says"),
    [
        (_without(f"{W1}.scale"), "scale", f"{W1}.weight", f"but {W1}.weight_scale_inv or {W1}.scale is missing"),
        (
            lambda tensors: tensors | {f"{W1}.scale": tensors[f"{W1}.scale"][:, :1].clone()},
            "scale",
            f"{W1}.weight",
            f"{W1}.scale must be (32, 2) for {W1}.weight (32, 64) in blocks of (1, 32), but is (32, 1)",
        ),
        (
            lambda tensors: tensors | {f"{WQ_A}.scale": tensors[f"{WQ_A}.scale"].view(torch.uint8)},
            "scale",
            f"{WQ_A}.weight",
            f"{WQ_A}.scale must be torch.float32 or torch.float8_e8m0fnu, but is torch.uint8",
        ),
        (
            lambda tensors: tensors | {f"{W1}.weight": tensors[f"{W1}.weight"][:16].clone()},
            "shape",
            f"{W1}.weight",
            "must be (32, 64), but is (16, 64)",
        ),
        (
            lambda tensors: tensors | {f"{WQ_A}.weight": torch.zeros(96, 64, dtype=torch.int8)},
            "dtype",
            f"{WQ_A}.weight",
            "must be one of torch.float8_e4m3fn, torch.bfloat16, torch.float16, torch.float32, but is torch.int8",
        ),
        (
            lambda tensors: tensors | {"layers.0.ffn.gate.tid2eid": torch.zeros(40, 2)},
            "dtype",
            "layers.0.ffn.gate.tid2eid",
            "must be one of torch.int64, torch.int32, but is torch.float32",
        ),
        (_without("layers.0.ffn.gate.tid2eid"), "missing", "layers.0.ffn.gate.tid2eid", "of shape (40, 2)"),
        (_without("layers.1.attn.compressor.ape"), "missing", "layers.1.attn.compressor.ape", "of shape (128, 16)"),
        (
            lambda tensors: tensors | {"layers.1.attn.indexer.wq_b.weight": torch.zeros(1, 1)},
            "unexpected",
            "layers.1.attn.indexer.wq_b.weight",  # HCA has no indexer
            "config.json calls for no such tensor",
        ),
        (_without("mtp.0.hc_head_fn"), "missing", "mtp.0.hc_head_fn", "of shape (3, 192)"),
    ],
)
def test_verify_names_each_fault_of_v4(
    v4: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], kind: str, key: str, says: str
) -> None:
    _rewrite(v4, change)
    report = _json("verify", v4, exit_code=1)
    found = {(problem["kind"], problem["key"]): problem["message"] for problem in report["problems"]}
    assert says in found.pop((kind, key))
    # int8 is packed FP4 in V4, so where float8 must be, its shape and scales are wrong, too.
    follows = {("shape", key), ("scale", key)} if key == f"{WQ_A}.weight" and kind == "dtype" else set()
    follows |= {("scale", key)} if kind == "shape" else set()
    assert found.keys() == follows


@pytest.mark.parametrize("expert_dtype", [None, "fp8", "fp4"])
def test_verify_takes_float8_experts_where_config_does_not_say_or_says_fp4(
    tmp_path: Path, expert_dtype: str | None
) -> None:
    """V4-Flash is also spread with its experts in float8, and a config.json that names no expert_dtype, as V4-Pro's."""
    folder = write_synthetic(tmp_path / "made", replace(TINY_V4, float8=True, experts="fp8"))
    _configure(folder, expert_dtype=expert_dtype)
    assert _json("verify", folder)["ok"]


def test_verify_refuses_packed_experts_where_config_says_fp8(v4: Path) -> None:
    _configure(v4, expert_dtype="fp8")
    problems = _json("verify", v4, exit_code=1)["problems"]
    assert len(problems) == 2 * 6 * 7 * 3  # dtype and scale, in six layers, of seven experts' three matrices
    assert any("expert_dtype must be 'fp4'" in problem["message"] for problem in problems)


def test_verify_sees_a_nan_among_e8m0_scales(v4: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[f"{W1}.scale"].view(torch.uint8)[3, 1] = 255
        return tensors

    _rewrite(v4, spoil)
    assert verify(Checkpoint(v4, mtp=True)).problems == []
    problems = verify(Checkpoint(v4, mtp=True), values=True).problems
    assert problems == [("not finite", f"{W1}.scale", "holds 1 NaN and 0 Inf")]
    (row,) = _json("inspect", v4, f"{W1}.weight")
    assert row["nan"] == 32


def test_verify_reads_values_only_when_asked(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[f"{K_NORM}.bias"][5] = torch.nan
        tensors[f"{WK}_scale_inv"][0, 0] = -torch.inf
        tensors[WK].view(torch.uint8)[:2, 7] = torch.tensor([0x7F, 0xFF])  # both NaN of float8_e4m3
        return tensors

    _rewrite(folder, spoil)
    assert verify(Checkpoint(folder, mtp=True)).problems == []
    problems = verify(Checkpoint(folder, mtp=True), values=True).problems
    assert sorted(problems) == [
        ("not finite", f"{K_NORM}.bias", "holds 1 NaN and 0 Inf"),
        ("not finite", WK, "holds 2 NaN and 0 Inf"),
        ("not finite", f"{WK}_scale_inv", "holds 0 NaN and 1 Inf"),
    ]


def test_verify_goes_on_past_a_file_that_is_not_there(tmp_path: Path) -> None:
    folder = write_synthetic(tmp_path / "made", TINY)
    gone = folder / "model-00005-of-000006.safetensors"
    gone.unlink()
    report = _json("verify", folder, exit_code=1)
    assert {problem["kind"] for problem in report["problems"]} == {"unreadable"}
    assert [problem["key"] for problem in report["problems"]] == Checkpoint(folder).keys("model.layers.3")
    shown = _run("verify", folder, exit_code=1).stdout.splitlines()
    assert len(shown) == 20 + 1 + 1  # of many faults of a kind, 20, how many more, and the summary
    assert shown[-2] == f"unreadable: ... and {len(report['problems']) - 20} more, which --json lists"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model_type": "llama"},
            "model_type must be deepseek_v3, deepseek_v32 or deepseek_v4, but is 'llama'",
        ),
        ({"q_lora_rank": None}, "q_lora_rank must be a whole number, but is None"),
        ({"vocab_size": -1}, "vocab_size must be a whole number, but is -1"),
        ({"moe_layer_freq": 2}, "moe_layer_freq must be 1 (no other is known), but is 2"),
    ],
)
def test_a_config_that_verify_does_not_know_is_no_verdict(folder: Path, changes: dict[str, Any], says: str) -> None:
    _configure(folder, **changes)
    assert f"{folder / 'config.json'}: {says}" in _run("verify", folder, exit_code=2).stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"compress_ratios": [0, 128, 4, 4]}, "compress_ratios must be a list of 0, 4 or 128 for each of 5 layers"),
        ({"compress_ratios": [0, 128, 4, 4, 2, 0]}, "compress_ratios must be a list of 0, 4 or 128 for each of 5"),
        ({"compress_ratios": None}, "compress_ratios must be a list of 0, 4 or 128 for each of 5 layers, but is None"),
        ({"o_groups": 0}, "o_groups must be a whole number from 1 on, but is 0"),
        ({"num_hash_layers": None}, "num_hash_layers must be a whole number, but is None"),
        ({"n_shared_experts": 2}, "n_shared_experts must be 1 (no other is known), but is 2"),
        ({"expert_dtype": "int4"}, "expert_dtype must be 'fp4' or 'fp8', but is 'int4'"),
        ({"quantization_config": "fp8"}, "quantization_config must be an object, but is 'fp8'"),
    ],
)
def test_a_config_of_v4_that_verify_does_not_know_is_no_verdict(v4: Path, changes: dict[str, Any], says: str) -> None:
    _configure(v4, **changes)
    assert f"{v4 / 'config.json'}: {says}" in _run("verify", v4, exit_code=2).stderr


def _configure(folder: Path, **changes: Any) -> None:
    """Changes config.json; a None takes an entry out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """The checkpoint's tensors, changed, in one file."""
    tensors: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    save_file(change(tensors), folder / "model.safetensors")


# ---- make


@pytest.mark.parametrize(
    ("arguments", "geometry", "layers"),
    [
        ([], Geometry(), range(4)),
        (
            ["--model", "v3", "--float8", "--mtp"],
            Geometry(model="v3", float8=True, num_nextn_predict_layers=1),
            range(5),
        ),
        (["--layers", "5", "--only", "1", "--only", "4"], Geometry(num_hidden_layers=5), (1, 4)),
        (["--model", "v4"], GeometryV4(), range(5)),
        (["--model", "v4", "--float8"], GeometryV4(float8=True), range(5)),
        (["--model", "v4", "--float8", "--experts", "fp8"], GeometryV4(float8=True, experts="fp8"), range(5)),
        (
            ["--model", "v4", "--pro", "--layers", "6", "--only", "5"],
            GeometryV4.small(pro=True).with_layers(6),
            (5,),
        ),
    ],
)
def test_make_writes_the_geometry(
    tmp_path: Path, arguments: list[str], geometry: Architecture, layers: range | tuple[int, ...]
) -> None:
    folder = tmp_path / "made"
    result = _json("make", folder, *arguments)
    checkpoint = Checkpoint(folder, mtp=True)
    assert geometry_of(checkpoint.config) == geometry
    numbers = (re.match(r"(?:model\.)?layers\.(\d+)\.", key) for key in checkpoint.keys())  # noqa: SIM118
    written = {int(number[1]) for number in numbers if number}
    assert written == set(layers)
    assert result["tensors"] == len(checkpoint.keys(scales=True))
    assert "exists already" in _run("make", folder, *arguments, exit_code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ([], 689.5),  # V3.2
        (["--model", "v4"], 159.6),
        (["--model", "v4", "--pro"], 864.7),
        (["--model", "v4", "--only", "4"], 3.6),
        (["--model", "v4", "--only", "4", "--pro"], 13.9),
        (["--model", "v4", "--experts", "fp8"], 292.6),
    ],
)
def test_make_full_has_the_hubs_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], size: float
) -> None:
    """The disk is asked before anything is written."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    stderr = _run("make", tmp_path / "made", "--full", *arguments, exit_code=2).stderr
    assert f"needs {size} GB, but the disk has 1.0 GB" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pro"], "--experts and --pro are for --model v4, but it is v32"),
        (["--model", "v3", "--float8", "--experts", "fp8"], "--experts and --pro are for --model v4, but it is v3"),
        (["--model", "v4", "--experts", "fp4"], "--experts says how experts are quantized: give --float8 or --full"),
    ],
)
def test_make_takes_no_option_that_says_nothing(tmp_path: Path, arguments: list[str], says: str) -> None:
    assert says in _run("make", tmp_path / "made", *arguments, exit_code=2).stderr
    assert list(tmp_path.iterdir()) == []


# ---- The program


def test_as_a_program_it_keeps_stdout_clean(folder: Path) -> None:
    """Not a terminal: no progress bar, and nothing on stdout but JSON."""
    command = [sys.executable, "-m", "weights_tools", "inspect", str(folder), "*.k_norm.*", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert len(json.loads(done.stdout)) == 8
    assert "left out" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_help_has_an_example() -> None:
    for command in app.registered_commands:
        assert command.callback
        help_text = command.callback.__doc__ or ""
        name = command.name or command.callback.__name__
        assert f"Example: python -m weights_tools {name} " in help_text
