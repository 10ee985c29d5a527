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
        ({"m.weight": _WEIGHT}, {}, "m.weight is torch.float8_e4m3fn, but m.weight_scale_inv or m.scale is missing"),
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
            "m.weight_scale_inv must be torch.float32 or torch.float8_e8m0fnu, but is torch.bfloat16",
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
            "quant_method must be 'fp8' to read torch.float8_e4m3fn and packed FP4, but is 'awq'",
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


# ---- V4: scales under .scale, E8M0, packed FP4


def _packed(shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random bytes for a matrix of that shape, of all 256 values where it is large enough, and its random scales: among
    E8M0's 256 bytes those of NaN and of the least and the largest."""
    generator = torch.Generator().manual_seed(shape[0])
    packed = torch.randint(256, (shape[0], shape[1] // 2), generator=generator, dtype=torch.uint8)
    scale = torch.randint(256, (shape[0], shape[1] // 32), generator=generator, dtype=torch.uint8)
    scale.view(-1)[:4] = torch.tensor([0, 127, 254, 255])
    return packed.view(torch.int8), scale.view(torch.float8_e8m0fnu)


def _by_hand(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """float64, element by element: from the bits' meaning (sign, two of exponent with bias 1, one of mantissa)."""
    bytes_, exponents = packed.view(torch.uint8).tolist(), scale.view(torch.uint8).tolist()
    values = []
    for row, row_exponents in zip(bytes_, exponents, strict=True):
        nibbles = [nibble for byte in row for nibble in (byte % 16, byte // 16)]
        for column, nibble in enumerate(nibbles):
            sign, exponent, mantissa = nibble >> 3, nibble >> 1 & 3, nibble & 1
            size = mantissa * 0.5 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
            stored = row_exponents[column // 32]
            values.append((-size if sign else size) * (torch.nan if stored == 255 else 2.0 ** (stored - 127)))
    return torch.tensor(values, dtype=torch.float64).view(len(bytes_), -1)


def _huggingface(stored: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    values: torch.Tensor = Fp8Dequantize(None)._dequantize_one(stored, scale, dtype)
    return values


def _assert_same(values: torch.Tensor, expected: torch.Tensor) -> None:
    """To the bit: the signs of zeros, too; NaN is NaN."""
    assert values.dtype == expected.dtype
    both_nan = values.isnan() & expected.isnan()
    assert (both_nan | ((values == expected) & (values.signbit() == expected.signbit()))).all()


@pytest.mark.parametrize(
    "shape",
    [
        (3, 64),
        (128, 96),  # one strip, three groups
        (129, 32),  # a strip of one row
        (300, 1024),  # of each byte 600
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_fp4_is_multiplied_by_the_scale_of_its_32_columns(
    tmp_path: Path, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """Against transformers and against the bits read by hand. 6 x 2^127 is beyond float32: Inf, as there."""
    packed, scale = _packed(shape)
    checkpoint = _save_v4(tmp_path, {"w1.weight": packed, "w1.scale": scale})
    values = checkpoint.weight("w1.weight", dtype)
    _assert_same(values, _by_hand(packed, scale).float().to(dtype))
    _assert_same(values, _huggingface(packed, scale, dtype))
    assert checkpoint.weight_shape("w1.weight") == shape
    assert checkpoint.shape("w1.weight") == (shape[0], shape[1] // 2)
    assert torch.equal(checkpoint.tensor("w1.weight"), packed)


@pytest.mark.parametrize("names", [("m.weight", "m.scale"), ("m.weight", "m.weight_scale_inv")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float8_with_e8m0_scales(tmp_path: Path, names: tuple[str, str], dtype: torch.dtype) -> None:
    """All values of float8_e4m3 by all of E8M0: 256 blocks of (128, 128)."""
    values = torch.arange(256, dtype=torch.uint8).repeat_interleave(64).view(128, 128)
    weight = values.repeat(16, 16).view(torch.float8_e4m3fn)
    scale = torch.arange(256, dtype=torch.uint8).view(16, 16).view(torch.float8_e8m0fnu)
    checkpoint = _save_v4(tmp_path, {names[0]: weight, names[1]: scale})
    value = checkpoint.weight(names[0], dtype)
    factors = torch.tensor([torch.nan if byte == 255 else 2.0 ** (byte - 127) for byte in range(256)]).double()
    blocks = factors.view(16, 16).repeat_interleave(128, 0).repeat_interleave(128, 1)
    _assert_same(value, (weight.double() * blocks).float().to(dtype))
    _assert_same(value, _huggingface(weight, scale, dtype))
    assert checkpoint.keys() == ["m.weight"]
    assert checkpoint.scale_key("m.weight") == names[1]
    assert checkpoint.weight_shape("m.weight") == checkpoint.shape("m.weight") == (2048, 2048)
    with pytest.raises(CheckpointError, match=r"is no weight but the scales of m\.weight"):
        checkpoint.weight(names[1])


def test_packed_fp4_needs_no_float32_copy(tmp_path: Path) -> None:
    """64 M elements: 32 MB stored, 128 MB as bf16, and 256 MB that a float32 copy would take."""
    scale = torch.full((8192, 256), 127, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    checkpoint = _save_v4(tmp_path, {"w.weight": torch.full((8192, 4096), 0x22, dtype=torch.int8), "w.scale": scale})
    _reset_peak()
    resident = _resident_bytes()
    assert checkpoint.weight("w.weight")[-1, -1] == 1
    assert _peak_bytes() - resident < 240e6


def test_a_scale_of_a_model_that_is_not_quantized_is_a_parameter(tmp_path: Path) -> None:
    save_file({"norm.weight": torch.ones(4), "norm.scale": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.keys() == ["norm.scale", "norm.weight"]
    assert checkpoint.weights("norm").keys() == {"scale", "weight"}


def test_int8_without_scales_is_int8_but_in_v4(tmp_path: Path) -> None:
    save_file({"table": torch.full((2, 3), 5, dtype=torch.int8)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = Checkpoint(tmp_path)
    assert torch.equal(checkpoint.weight("table"), torch.full((2, 3), 5.0, dtype=torch.bfloat16))
    assert checkpoint.weight_shape("table") == (2, 3)


_PACKED, _GROUP_SCALE = _packed((8, 96))


@pytest.mark.parametrize(
    ("tensors", "config", "says"),
    [
        ({"w.weight": _PACKED}, {}, "w.weight is torch.int8, but w.weight_scale_inv or w.scale is missing"),
        (
            {"w.weight": _PACKED, "w.scale": _GROUP_SCALE[:, :2].clone()},
            {},
            "w.scale must be (8, 3) for w.weight (8, 96) in blocks of (1, 32), but is (8, 2)",
        ),
        (
            {"w.weight": _PACKED, "w.scale": _GROUP_SCALE[:4].clone()},
            {},
            "w.scale must be (8, 3) for w.weight (8, 96) in blocks of (1, 32), but is (4, 3)",
        ),
        (
            {"w.weight": _PACKED, "w.scale": torch.ones(8, 3)},
            {},
            "w.scale must be torch.float8_e8m0fnu, but is torch.float32",
        ),
        (
            {"w.weight": _PACKED[:, :40].clone(), "w.scale": _GROUP_SCALE},
            {},
            "w.weight is packed FP4 (8, 80), but its columns must be a multiple of 32",
        ),
        ({"w.weight": _PACKED[0].clone(), "w.scale": _GROUP_SCALE}, {}, "w.weight is torch.int8 (48,), not a matrix"),
        (
            {"w.weight": _PACKED, "w.scale": _GROUP_SCALE},
            {"expert_dtype": "fp8"},
            "config.json: expert_dtype must be 'fp4' to read w.weight of torch.int8, but is 'fp8'",
        ),
        (
            {"w.weight": _PACKED, "w.scale": _GROUP_SCALE},
            {"expert_dtype": None, "model_type": "deepseek_v3"},
            "config.json: expert_dtype must be 'fp4' to read w.weight of torch.int8, but is None",
        ),
        (
            {"w.weight": _PACKED, "w.scale": _GROUP_SCALE, "w.weight_scale_inv": _GROUP_SCALE.clone()},
            {},
            "w.weight has two tensors of scales, w.weight_scale_inv and w.scale: keep one",
        ),
        (
            {"w.weight": torch.ones(8, 96), "w.scale": _GROUP_SCALE},
            {},
            "w.weight is torch.float32, but w.scale is for torch.float8_e4m3fn or packed FP4 (torch.int8)",
        ),
        ({"w.weight": _GROUP_SCALE}, {}, "w.weight is torch.float8_e8m0fnu, but the only float8 with known scales is"),
        (
            {"w.weight": _PACKED, "w.scale": _GROUP_SCALE},
            {"quantization_config": None},
            "w.weight_scale_inv is missing",
        ),
    ],
)
def test_packed_fp4_and_scales_that_do_not_fit_are_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], config: dict[str, object], says: str
) -> None:
    checkpoint = _save_v4(tmp_path, tensors, **config)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.weight("w.weight")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"expert_dtype": None},  # as V4-Pro's config.json
        {"expert_dtype": None, "quantization_config": {"quant_method": "fp8", "expert_dtype": "fp4"}},  # transformers'
    ],
)
def test_expert_dtype_may_stand_elsewhere_or_nowhere(tmp_path: Path, config: dict[str, object]) -> None:
    checkpoint = _save_v4(tmp_path, {"w.weight": _PACKED, "w.scale": _GROUP_SCALE}, **config)
    assert checkpoint.weight("w.weight").shape == (8, 96)


@pytest.mark.parametrize(
    ("config", "key", "sign"),
    [
        ({"model_type": "deepseek_v41"}, "norm.weight", "model_type 'deepseek_v41'"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [32, 32]}},
            "norm.weight",
            "weight_block_size [32, 32]",
        ),
        ({}, "layers.1.engram.embed.weight", "key 'layers.1.engram.embed.weight'"),
    ],
)
def test_v41_is_refused(tmp_path: Path, config: dict[str, object], key: str, sign: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        _save_v4(tmp_path, {key: torch.ones(4)}, **config)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: is DeepSeek-V4.1's ({sign}), which is not read: ")
    assert "\n" not in str(caught.value)


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


def _save_v4(folder: Path, tensors: dict[str, torch.Tensor], **changes: object) -> Checkpoint:
    """With V4-Flash's config, changed; a None takes the entry out."""
    save_file(tensors, folder / "model.safetensors")
    quantization = {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}
    config = {"model_type": "deepseek_v4", "expert_dtype": "fp4", "quantization_config": quantization} | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
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
