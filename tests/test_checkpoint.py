# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints are read tensor by tensor, with float8 and MTP layers; what is broken says so. No device is needed."""

import json
import os
import resource
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.small import TINY
from weights_tools import Checkpoint, CheckpointError, write_synthetic
from weights_tools.float8 import scale_shape

K_NORM = "model.layers.3.self_attn.indexer.k_norm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "tiny", TINY)


def test_reads_back_what_the_shards_hold(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    stored = {key: value for shard in folder.glob("*.safetensors") for key, value in load_file(shard).items()}
    assert set(checkpoint.keys()) == stored.keys()
    for key, value in stored.items():
        assert key in checkpoint
        assert checkpoint.shape(key) == tuple(value.shape)
        assert checkpoint.dtype(key) == value.dtype == checkpoint.tensor(key).dtype
        assert torch.equal(checkpoint.tensor(key), value)
    assert "model.norm.bias" not in checkpoint


def test_weights_are_named_as_their_module_names_them(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    norm = torch.nn.LayerNorm(TINY.index_head_dim)
    norm.load_state_dict(checkpoint.weights(K_NORM, torch.float32))
    assert torch.equal(norm.bias, checkpoint.tensor(f"{K_NORM}.bias"))
    assert checkpoint.weights(f"{K_NORM}.").keys() == {"weight", "bias"}
    assert checkpoint.weights("model.layers.3.mlp.experts.1").keys() == {
        f"{name}_proj.weight" for name in ("gate", "up", "down")
    }


def test_only_the_shard_asked_for_is_needed(folder: Path) -> None:
    needed = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][f"{K_NORM}.weight"]
    others = [shard for shard in folder.glob("*.safetensors") if shard.name != needed]
    others[0].write_bytes(b"not a shard")
    for shard in others[1:]:
        shard.unlink()
    assert Checkpoint(folder).weights(K_NORM).keys() == {"weight", "bias"}


def test_a_tensor_costs_its_own_bytes_only(tmp_path: Path) -> None:
    """4 GiB beside 8 bytes in one shard (a sparse file): the shape and the neighbour are had without reading it."""
    big, small = 2**31, 4
    header = json.dumps(
        {
            "big": {"dtype": "BF16", "shape": [big], "data_offsets": [0, 2 * big]},
            "small": {"dtype": "BF16", "shape": [small], "data_offsets": [2 * big, 2 * (big + small)]},
        }
    ).encode()
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(shard, 8 + len(header) + 2 * (big + small))
    (tmp_path / "config.json").write_text("{}")

    resident = _resident_bytes()
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.shape("big") == (big,)
    assert torch.equal(checkpoint.tensor("small"), torch.zeros(small, dtype=torch.bfloat16))
    assert _resident_bytes() - resident < 50e6


def test_what_was_read_is_let_go(tmp_path: Path) -> None:
    """Twenty times 16 MB of one shard, one after another."""
    tensors = {str(number): torch.ones(2**23, dtype=torch.bfloat16) for number in range(20)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    del tensors
    checkpoint = Checkpoint(tmp_path)
    _reset_peak()
    resident = _resident_bytes()
    assert all(checkpoint.weight(key, torch.float32).max() == 1 for key in checkpoint.keys())  # noqa: SIM118
    assert _peak_bytes() - resident < 100e6


def test_one_file_needs_no_index(tmp_path: Path) -> None:
    gamma = torch.arange(8, dtype=torch.float16)
    save_file({"norm.weight": gamma}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "any"}')
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.config == {"model_type": "any"}
    assert checkpoint.keys() == ["norm.weight"]
    assert torch.equal(checkpoint.tensor("norm.weight"), gamma)


def test_shards_may_be_symlinks_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    """As in HuggingFace's cache, where a snapshot links to ../../blobs."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in folder.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    assert torch.equal(Checkpoint(snapshot).tensor("model.norm.weight"), Checkpoint(folder).tensor("model.norm.weight"))


def test_keys_below_a_module(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    assert checkpoint.keys(K_NORM) == checkpoint.keys(f"{K_NORM}.") == [f"{K_NORM}.weight", f"{K_NORM}.bias"]
    assert len(checkpoint.keys("model.layers.3.mlp.experts.1")) == 3
    assert checkpoint.keys("model.layers.3.mlp.expert") == []  # a prefix ends at a dot: experts.1 is not experts.10
    assert checkpoint.keys("model.layers.4") == []


# ---- float8


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((576, 512), (128, 128)),  # kv_a_proj_with_mqa's rows: 4.5 blocks
        ((384, 160), (128, 128)),  # columns: 1.25 blocks
        ((192, 576), (128, 128)),  # both
        ((5, 7), (128, 128)),  # less than a block
        ((129, 257), (128, 128)),  # one row and one column in the last block
        ((48, 70), (16, 32)),  # another block, no square: rows and columns must not be swapped
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_float8_is_multiplied_by_the_scale_of_its_block(
    tmp_path: Path, shape: tuple[int, int], block: tuple[int, int], dtype: torch.dtype
) -> None:
    """Against float64, with each element's own scale by its indices; no two blocks have the same.

    float64 holds the products exactly (4 bits by 24), so one rounding to float32 and one to dtype are all there is.
    """
    weight, scale = _float8(shape, block)
    checkpoint = _save(tmp_path, {"m.weight": weight, "m.weight_scale_inv": scale}, weight_block_size=list(block))
    rows, columns = torch.arange(shape[0]) // block[0], torch.arange(shape[1]) // block[1]
    expected = weight.double() * scale.double()[rows[:, None], columns[None, :]]

    value = checkpoint.weight("m.weight", dtype)
    assert value.dtype == dtype
    assert torch.equal(value, expected.float().to(dtype))
    assert torch.equal(checkpoint.weights("m", dtype)["weight"], value)


def test_block_size_is_128_where_no_config_names_it(tmp_path: Path) -> None:
    weight, scale = _float8((200, 300), (128, 128))
    save_file({"m.weight": weight, "m.weight_scale_inv": scale}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    value = Checkpoint(tmp_path).weight("m.weight", torch.float32)
    assert value[199, 299] == weight[199, 299].float() * scale[1, 2]


def test_weights_are_values_and_tensors_are_what_is_stored(tmp_path: Path) -> None:
    weight, scale = _float8((200, 300), (128, 128))
    gamma = torch.randn(300, generator=torch.Generator().manual_seed(1))
    checkpoint = _save(tmp_path, {"m.weight": weight, "m.weight_scale_inv": scale, "m.norm.weight": gamma})
    assert checkpoint.keys("m") == ["m.norm.weight", "m.weight"]
    assert sorted(checkpoint.keys(scales=True)) == ["m.norm.weight", "m.weight", "m.weight_scale_inv"]
    weights = checkpoint.weights("m")
    assert weights.keys() == {"norm.weight", "weight"}
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert torch.equal(weights["norm.weight"], gamma.bfloat16())
    assert torch.equal(checkpoint.weight("m.norm.weight", torch.float32), gamma)
    assert checkpoint.tensor("m.weight").dtype == torch.float8_e4m3fn
    assert torch.equal(checkpoint.tensor("m.weight_scale_inv"), scale)


def test_float8_needs_no_float32_copy(tmp_path: Path) -> None:
    """64 M elements: 64 MB stored, 128 MB as bf16, and 256 MB that a float32 copy would take."""
    weight = torch.ones(8192, 8192, dtype=torch.float8_e4m3fn)
    checkpoint = _save(tmp_path, {"m.weight": weight, "m.weight_scale_inv": torch.ones(64, 64)})
    del weight
    _reset_peak()
    resident = _resident_bytes()
    assert checkpoint.weight("m.weight")[-1, -1] == 1
    assert _peak_bytes() - resident < 240e6


_WEIGHT, _SCALE = torch.ones(200, 300).to(torch.float8_e4m3fn), torch.ones(2, 3)


@pytest.mark.parametrize(
    ("tensors", "quantization", "says"),
    [
        ({"m.weight": _WEIGHT}, {}, "m.weight_scale_inv is missing"),
        (
            {"m.weight": _WEIGHT, "m.weight_scale_inv": torch.ones(3, 2)},
            {},
            "m.weight_scale_inv must be (2, 3) for m.weight (200, 300) in blocks of (128, 128), but is (3, 2)",
        ),
        (
            {"m.weight": _WEIGHT, "m.weight_scale_inv": _SCALE},
            {"weight_block_size": [64, 128]},
            "must be (4, 3) for m.weight (200, 300) in blocks of (64, 128), but is (2, 3)",
        ),
        (
            {"m.weight": _WEIGHT, "m.weight_scale_inv": _SCALE.bfloat16()},
            {},
            "m.weight_scale_inv must be torch.float32, but is torch.bfloat16",
        ),
        ({"m.weight": _WEIGHT[0].clone(), "m.weight_scale_inv": _SCALE}, {}, "(300,), not a matrix"),
        (
            {"m.weight": torch.ones(200, 300), "m.weight_scale_inv": _SCALE},
            {},
            "m.weight is torch.float32, but m.weight_scale_inv is for torch.float8_e4m3fn",
        ),
        (
            {"m.weight": torch.ones(2, 3).to(torch.float8_e5m2)},
            {},
            "known scales is torch.float8_e4m3",
        ),
        (
            {"m.weight": _WEIGHT, "m.weight_scale_inv": _SCALE},
            {"quant_method": "awq"},
            "quant_method must be 'fp8' to read torch.float8_e4m3fn, but is 'awq'",
        ),
        (
            {"m.weight": _WEIGHT, "m.weight_scale_inv": _SCALE},
            {"weight_block_size": None},
            "weight_block_size must be two positive whole numbers, but is None",
        ),
        (
            {"m.weight": _WEIGHT, "m.weight_scale_inv": _SCALE},
            {"weight_block_size": [128, 0]},
            "weight_block_size must be two positive whole numbers, but is [128, 0]",
        ),
    ],
)
def test_float8_and_scales_that_do_not_fit_are_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], quantization: dict[str, object], says: str
) -> None:
    checkpoint = _save(tmp_path, tensors, **quantization)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.weight("m.weight")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scales_are_no_weights(tmp_path: Path) -> None:
    checkpoint = _save(
        tmp_path, {"m.weight": _WEIGHT, "m.weight_scale_inv": _SCALE, "lost.weight_scale_inv": 2 * _SCALE}
    )
    with pytest.raises(CheckpointError, match=r"no weight but the scales of m\.weight"):
        checkpoint.weight("m.weight_scale_inv")
    with pytest.raises(CheckpointError, match=r"no weight but the scales of lost\.weight"):
        checkpoint.weights("lost")  # its weight is missing, and that is not passed over


# ---- MTP layers


@pytest.fixture
def with_mtp(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "mtp", replace(TINY, num_nextn_predict_layers=2))


def test_mtp_layers_are_left_out_unless_asked_for(with_mtp: Path) -> None:
    main, all_layers = Checkpoint(with_mtp), Checkpoint(with_mtp, mtp=True)
    mtp = all_layers.keys("model.layers.4") + all_layers.keys("model.layers.5")
    assert "model.layers.4.eh_proj.weight" in mtp
    assert main.left_out == mtp
    assert all_layers.left_out == []
    assert sorted(main.keys() + mtp) == sorted(all_layers.keys())
    assert not any(key in main for key in mtp)
    assert all_layers.weights("model.layers.5.enorm")["weight"].shape == (64,)


def test_asking_for_an_mtp_layer_says_how_to_get_it(with_mtp: Path) -> None:
    checkpoint = Checkpoint(with_mtp)
    key = "model.layers.4.enorm.weight"
    for read in (checkpoint.tensor, checkpoint.weight, checkpoint.shape, checkpoint.dtype, checkpoint.shard):
        with pytest.raises(CheckpointError, match=r"'model\.layers\.4\.enorm\.weight' is of an MTP layer.*mtp=True"):
            read(key)
    with pytest.raises(CheckpointError, match="is of an MTP layer"):
        checkpoint.weights("model.layers.4")
    with pytest.raises(CheckpointError, match="no key"):  # layer 6 is none at all
        checkpoint.tensor("model.layers.6.enorm.weight")


# ---- Errors (of bad files: test_bad_files.py)


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("model.layers.3.self_attn.indexer.knorm.weight", "did you mean model.layers.3.self_attn.indexer.k_norm?"),
        (f"{K_NORM}.gamma", f"there is {K_NORM}.weight, {K_NORM}.bias"),
        ("model.layers.3.mlp.experts.9.up_proj.weight", ", ".join(f"model.layers.3.mlp.experts.{i}" for i in range(8))),
        ("layers.3.input_layernorm.weight", "there is model, lm_head"),
        (f"{K_NORM}.weight.x", f"did you mean {K_NORM}.weight?"),
    ],
)
def test_an_unknown_key_is_told_what_there_is(folder: Path, asked: str, nearest: str) -> None:
    checkpoint = Checkpoint(folder)
    for read in (checkpoint.tensor, checkpoint.weights, checkpoint.shape, checkpoint.dtype):
        with pytest.raises(CheckpointError) as caught:
            read(asked)
        assert asked in str(caught.value)
        assert str(caught.value).endswith(nearest)


def test_a_file_that_can_not_be_mapped_is_named(tmp_path: Path) -> None:
    """4 GiB (a sparse file) where the process may have 1 GiB more of addresses."""
    size = 2**32
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(shard, 8 + len(header) + size)
    (tmp_path / "config.json").write_text("{}")
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (addresses + 2**30, hard))
    try:
        with pytest.raises(CheckpointError, match=r"model\.safetensors: its 4\.3 GB can't be mapped") as caught:
            Checkpoint(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "\n" not in str(caught.value)


# ---- Helpers


def _save(folder: Path, tensors: dict[str, torch.Tensor], **quantization: object) -> Checkpoint:
    save_file(tensors, folder / "model.safetensors")
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]} | quantization}
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint(folder)


def _float8(shape: tuple[int, int], block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A random matrix and random scales of either size of magnitude, all different."""
    generator = torch.Generator().manual_seed(shape[0])
    scale = torch.exp(torch.randn(scale_shape(shape, block), generator=generator))
    return (100 * torch.randn(shape, generator=generator)).to(torch.float8_e4m3fn), scale


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
