# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic checkpoints: transformers finds every weight in them; they are whole or not there; no device is needed."""

import hashlib
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.child import INTERRUPTIBLE, REPOSITORY, wait_for
from tests.small import SMALL, SMALL_V3, TINY, TINY_V4
from weights_tools import Checkpoint, CheckpointError, Geometry, GeometryV4, mxfp4, synthetic, write_synthetic
from weights_tools.architecture import Architecture
from weights_tools.files import save_tensors
from weights_tools.float8 import E8M0, FLOAT8, dequantize, quantize
from weights_tools.verify import verify

K_NORM = "model.layers.3.self_attn.indexer.k_norm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "tiny", TINY)


@pytest.fixture(scope="module")
def full_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default geometry: what the main job runs on."""
    return write_synthetic(tmp_path_factory.mktemp("checkpoints") / "default")


def test_default_has_the_real_norm_widths_in_250_mb(full_width: Path) -> None:
    checkpoint = Checkpoint(full_width)
    layer = "model.layers.3"
    widths = {
        f"{layer}.input_layernorm.weight": 7168,
        f"{layer}.self_attn.q_a_layernorm.weight": 1536,
        f"{layer}.self_attn.kv_a_layernorm.weight": 512,
        f"{layer}.post_attention_layernorm.weight": 7168,
        f"{K_NORM}.weight": 128,
        f"{K_NORM}.bias": 128,
        "model.norm.weight": 7168,
    }
    assert {key: checkpoint.shape(key) for key in widths} == {key: (width,) for key, width in widths.items()}
    assert sum(file.stat().st_size for file in full_width.iterdir()) < 250e6


@pytest.mark.parametrize(
    ("suffix", "mean", "std"),
    [
        ("input_layernorm.weight", 1.0, 0.2),
        ("post_attention_layernorm.weight", 1.0, 0.2),
        ("self_attn.q_a_layernorm.weight", 0.44, 0.08),
        ("self_attn.kv_a_layernorm.weight", 0.007, 0.008),
        ("self_attn.indexer.k_norm.weight", 1.0, 0.25),
        ("self_attn.indexer.k_norm.bias", 0.0, 0.5),
    ],
)
def test_norm_weights_spread_as_reported(full_width: Path, suffix: str, mean: float, std: float) -> None:
    checkpoint = Checkpoint(full_width)
    for layer in range(4):
        gamma = checkpoint.tensor(f"model.layers.{layer}.{suffix}").double()
        standard_error = std / gamma.numel() ** 0.5
        assert abs(gamma.mean().item() - mean) < 4 * standard_error + 0.002 * mean  # bf16 rounds to 0.4%
        assert gamma.std().item() == pytest.approx(std, rel=4 / (2 * gamma.numel()) ** 0.5)


def test_matrices_have_the_scale_of_their_fan_in(full_width: Path) -> None:
    checkpoint = Checkpoint(full_width)
    wk = checkpoint.tensor("model.layers.3.self_attn.indexer.wk.weight").float()
    x = torch.randn(8, wk.shape[1], generator=torch.Generator().manual_seed(0))
    assert (x @ wk.T).square().mean().sqrt().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    ("geometry", "model_class"),
    [(TINY, "DeepseekV32ForCausalLM"), (SMALL, "DeepseekV32ForCausalLM"), (SMALL_V3, "DeepseekV3ForCausalLM")],
)
def test_transformers_finds_every_weight_and_misses_none(tmp_path: Path, geometry: Geometry, model_class: str) -> None:
    """Through transformers' own loader, which merges the per-expert matrices: names, shapes and values."""
    from transformers import AutoModelForCausalLM

    folder = write_synthetic(tmp_path / "made", geometry)
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    assert type(model).__name__ == model_class
    assert not any(info.values()), info
    checkpoint = Checkpoint(folder)
    state = model.state_dict()
    experts = "model.layers.3.mlp.experts"
    for number in range(geometry.n_routed_experts):
        halves = [checkpoint.tensor(f"{experts}.{number}.{name}_proj.weight").float() for name in ("gate", "up")]
        assert torch.equal(state[f"{experts}.gate_up_proj"][number], torch.cat(halves))
    plain = [key for key in checkpoint.keys() if f"{experts}." not in key]  # noqa: SIM118
    assert len(plain) == len(state) - 2  # less the merged gate_up_proj and down_proj
    assert all(torch.equal(state[key], checkpoint.tensor(key).float()) for key in plain)


def test_config_builds_the_block_of_layer_3(full_width: Path) -> None:
    """The main job's block, at full width and without allocating it: `load_state_dict` takes what `tensors` gives."""
    from transformers import AutoConfig
    from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32DecoderLayer

    config = AutoConfig.from_pretrained(full_width)
    assert config.rope_parameters["rope_type"] == "yarn"
    assert config.mlp_layer_types == ["dense", "dense", "dense", "sparse"]
    with torch.device("meta"):
        block: Any = DeepseekV32DecoderLayer(config, 3)
    expected = {key: tuple(value.shape) for key, value in block.state_dict().items() if ".experts." not in key}
    checkpoint = Checkpoint(full_width)
    assert expected == {key: checkpoint.shape(f"model.layers.3.{key}") for key in expected}
    gate_up, down = block.mlp.experts.gate_up_proj.shape, block.mlp.experts.down_proj.shape
    assert gate_up == (8, 2 * 64, 7168)
    assert checkpoint.shape("model.layers.3.mlp.experts.7.gate_proj.weight") == (64, 7168)
    assert checkpoint.shape("model.layers.3.mlp.experts.7.down_proj.weight") == down[1:] == (7168, 64)


def test_dtypes_are_the_hubs(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    float32 = {key for key in checkpoint.keys() if checkpoint.dtype(key) == torch.float32}  # noqa: SIM118
    indexers = {f"model.layers.{i}.self_attn.indexer.k_norm.{part}" for i in range(4) for part in ("weight", "bias")}
    assert float32 == indexers | {"model.layers.3.mlp.gate.e_score_correction_bias"}
    assert {checkpoint.dtype(key) for key in set(checkpoint.keys()) - float32} == {torch.bfloat16}


@pytest.mark.parametrize("geometry", [TINY, replace(TINY, float8=True, num_nextn_predict_layers=1)])
def test_index_counts_its_bytes(tmp_path: Path, geometry: Geometry) -> None:
    folder = write_synthetic(tmp_path / "made", geometry)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors = {key: value for shard in folder.glob("*.safetensors") for key, value in load_file(shard).items()}
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize(
    ("geometry", "keys"),
    [(Geometry.full("v3"), 91_991), (GeometryV4.full(), 69_187), (GeometryV4.full(pro=True), 145_116)],
    ids=["v3", "v4-flash", "v4-pro"],
)
def test_full_size_has_the_hubs_keys(geometry: Architecture, keys: int) -> None:
    """Of deepseek-ai/DeepSeek-V3, V4-Flash and V4-Pro, as tools that read their shards' headers report them."""
    assert sum(len(spec.stored()) for spec in geometry.tensors()) == keys


def test_v4_flashs_mtp_layer_fills_its_shard() -> None:
    """The last of the hub's 46, with 1,575 tensors."""
    assert sum(len(spec.stored()) for spec in GeometryV4.full().decoder_layer(43)) == 1_575


def test_full_size_has_the_hubs_bytes() -> None:
    """Likewise; of V4-Pro the elements, scales among them, are reported exactly, its size as 805.32 GiB."""
    v3, pro = (
        [stored for spec in geometry.tensors() for stored in spec.stored().values()]
        for geometry in (Geometry.full("v3"), GeometryV4.full(pro=True))
    )
    assert sum(math.prod(shape) * dtype.itemsize for shape, dtype in v3) == 688_574_839_360
    assert sum(math.prod(shape) for shape, _ in pro) == 861_608_274_846
    assert round(sum(math.prod(shape) * dtype.itemsize for shape, dtype in pro) / 2**30, 2) == 805.32


def test_float8_holds_the_values_of_the_same_seed(folder: Path, tmp_path: Path) -> None:
    """To half a step of e4m3 (3 mantissa bits) and of the bf16 checkpoint's bf16: both round the same draw."""
    plain, quantised = Checkpoint(folder), Checkpoint(write_synthetic(tmp_path / "f8", replace(TINY, float8=True)))
    assert quantised.config["quantization_config"] == {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    }
    kinds = ("_proj", "wq_b", "wk", "kv_a_proj_with_mqa")
    float8 = {key for key in plain.keys() if key.split(".")[-2].endswith(kinds)}  # noqa: SIM118
    float8 -= {key for key in float8 if "weights_proj" in key}
    assert float8 == {key for key in quantised.keys() if quantised.dtype(key) == torch.float8_e4m3fn}  # noqa: SIM118
    assert plain.keys() == quantised.keys()
    for key in plain.keys():  # noqa: SIM118
        value, expected = quantised.weight(key, torch.float32), plain.weight(key, torch.float32)
        if key in float8:
            smallest = 2**-9 * quantised.tensor(f"{key}_scale_inv").max()  # e4m3's subnormal step
            assert ((value - expected).abs() <= expected.abs() * (2**-4 + 2**-8) + smallest / 2).all(), key
        else:
            assert torch.equal(value, expected), key


def test_a_block_of_zeros_stays_zeros() -> None:
    """Its largest value is no scale to divide by. (200, 300): blocks of 128 and 72 rows, of 128 and 44 columns."""
    values = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    values[128:, 256:] = 0
    weight, scale = quantize(values)
    again = dequantize(weight, scale, torch.float32)
    assert (again[128:, 256:] == 0).all()
    assert torch.allclose(again, values, rtol=2**-4, atol=2e-5)  # half a step of e4m3, and its subnormals


def test_mtp_layer_follows_the_models_own(folder: Path, tmp_path: Path) -> None:
    made = write_synthetic(tmp_path / "mtp", replace(TINY, num_nextn_predict_layers=1))
    plain, whole = Checkpoint(folder), Checkpoint(made, mtp=True)
    mtp = [key.removeprefix("model.layers.4.") for key in whole.keys() if key not in plain]  # noqa: SIM118
    decoder = [key.removeprefix("model.layers.3.") for key in plain.keys("model.layers.3")]
    extra = ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head")
    assert mtp == decoder + [f"{name}.weight" for name in extra]
    assert whole.shape("model.layers.4.eh_proj.weight") == (64, 128)
    assert Checkpoint(made).keys() == plain.keys()


def test_single_layers_with_repeated_experts(folder: Path, tmp_path: Path) -> None:
    """As the full size is made: the layer's own tensors as ever, expert 0 in every expert's place, and no others."""
    made = write_synthetic(tmp_path / "one", TINY, layers=[3, 3], repeat_experts=True)
    whole, one = Checkpoint(folder), Checkpoint(made)
    assert one.keys() == whole.keys("model.layers.3")
    assert len(one.shards()) == 1
    assert one.config == whole.config
    for key in one.keys():  # noqa: SIM118
        assert torch.equal(one.tensor(key), whole.tensor(re.sub(r"experts\.\d+", "experts.0", key)))
    metadata = json.loads((made / "model.safetensors.index.json").read_text())["metadata"]
    assert metadata["synthetic_layers"] == [3]
    assert "repeated" in metadata["synthetic_experts"]
    with pytest.raises(CheckpointError, match="layer must be 0 to 3, but is 4"):
        write_synthetic(tmp_path / "none", TINY, layers=[4])


def test_a_layer_larger_than_a_shard_is_split(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_SHARD_BYTES", 20_000)
    split = write_synthetic(tmp_path / "split", TINY)
    sizes = [file.stat().st_size for file in split.glob("*.safetensors")]
    assert len(sizes) > 10
    assert max(sizes) < 30_000  # the header, too
    assert _tensors_equal(Checkpoint(split), Checkpoint(folder))


def test_a_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = write_synthetic(tmp_path / "again", TINY)
    other = write_synthetic(tmp_path / "other", TINY, seed=1)
    assert _contents(again) == _contents(folder)
    for shard in folder.glob("*.safetensors"):
        assert (other / shard.name).read_bytes() != shard.read_bytes()
    # Pinned: a change of numpy or of the generator that changes the default weights must be seen.
    beta = Checkpoint(folder).tensor(f"{K_NORM}.bias").numpy().tobytes()
    assert hashlib.sha256(beta).hexdigest()[:16] == "c744f8a17fabea38"


def test_fewer_layers_leave_the_others_as_they_were(folder: Path, tmp_path: Path) -> None:
    short = Checkpoint(write_synthetic(tmp_path / "short", Geometry(**{**vars(TINY), "num_hidden_layers": 2})))
    assert short.config["num_hidden_layers"] == 2
    assert not any(key.startswith("model.layers.2.") for key in short.keys())  # noqa: SIM118
    whole = Checkpoint(folder)
    assert all(torch.equal(short.tensor(key), whole.tensor(key)) for key in short.keys())  # noqa: SIM118


def test_files_are_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {
        "b.matrix": torch.randn(3, 5),
        "a.matrix": torch.randn(7, 2),
        "vector": torch.randn(33).to(torch.bfloat16),
        "float8": torch.randn(3, 3).to(torch.float8_e4m3fn),
        "integer scalar": torch.tensor(-3),
        "no rows": torch.empty(0, 4),
        'ünd "quoted"\n': torch.ones(1),
    }
    save_tensors(tensors, tmp_path / "ours", {})
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


# ---- V4


V4_FORMS = {
    "bfloat16": TINY_V4,
    "mxfp4": replace(TINY_V4, float8=True, num_nextn_predict_layers=1),
    "float8": replace(TINY_V4, float8=True, experts="fp8"),
}


@pytest.fixture(scope="module")
def full_width_v4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("checkpoints") / "v4", GeometryV4())


@pytest.mark.parametrize("form", V4_FORMS)
def test_transformers_loads_v4_in_each_form(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through its own loader, by its own list of names: no key missing, none left over, and each weight to the bit what
    `Checkpoint.weight` reads."""
    from transformers import AutoModelForCausalLM
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.quantizers import quantizer_finegrained_fp8

    # It asks for accelerate, which it does not need to dequantise on a CPU.
    monkeypatch.setattr(quantizer_finegrained_fp8, "is_accelerate_available", lambda: True)
    folder = write_synthetic(tmp_path / "made", V4_FORMS[form])
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    model, info = loaded
    assert type(model).__name__ == "DeepseekV4ForCausalLM"
    assert not any(info.values()), info

    checkpoint = Checkpoint(folder)
    renamings = [rename for rename in get_model_conversion_mapping(model) if hasattr(rename, "rename_source_key")]
    state = model.state_dict()
    seen = set()
    for key in checkpoint.keys():  # noqa: SIM118
        name = key
        if expert := re.fullmatch(r"layers\.(\d+)\.ffn\.experts\.(\d+)\.w([123])\.weight", key):
            layer, number, part = map(int, expert.groups())
            name = f"model.layers.{layer}.mlp.experts.{'down_proj' if part == 2 else 'gate_up_proj'}"
            rows = {1: slice(0, 32), 2: slice(None), 3: slice(32, 64)}[part]
            value = state[name][number, rows]
        else:
            for rename in renamings:
                name, _ = rename.rename_source_key(name)
            name = name if name.startswith("lm_head.") else f"model.{name}"
            value = state[name]
        seen.add(name)
        stored = checkpoint.weight(key, value.dtype)
        assert torch.equal(value, stored), key
    assert seen == state.keys()


def test_transformers_reads_v4s_config(full_width_v4: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(full_width_v4)
    sliding, hca, csa = "sliding_attention", "heavily_compressed_attention", "compressed_sparse_attention"
    assert config.layer_types == [sliding, hca, csa, csa, hca]
    assert config.mlp_layer_types == ["hash_moe"] * 3 + ["moe"] * 2
    assert config.rope_parameters["main"]["rope_type"] == "default"
    assert config.rope_parameters["compress"]["rope_type"] == "yarn"
    assert config.qk_rope_head_dim == 64


def test_v4s_default_has_flashs_norm_widths_in_250_mb(full_width_v4: Path) -> None:
    checkpoint = Checkpoint(full_width_v4)
    layer = "layers.3"
    widths = {
        f"{layer}.attn_norm.weight": 4096,
        f"{layer}.attn.q_norm.weight": 1024,
        f"{layer}.attn.kv_norm.weight": 512,
        f"{layer}.attn.compressor.norm.weight": 512,
        f"{layer}.attn.indexer.compressor.norm.weight": 128,
        f"{layer}.ffn_norm.weight": 4096,
        "norm.weight": 4096,
    }
    assert {key: checkpoint.shape(key) for key in widths} == {key: (width,) for key, width in widths.items()}
    assert checkpoint.shape(f"{layer}.hc_attn_fn") == (24, 4 * 4096)
    assert sum(file.stat().st_size for file in full_width_v4.iterdir()) < 250e6


@pytest.mark.parametrize(
    ("suffix", "mean", "std"),
    [
        ("attn_norm.weight", 1.0, 0.2),
        ("attn.q_norm.weight", 0.44, 0.08),
        ("attn.kv_norm.weight", 1.0, 0.2),
        ("attn.compressor.norm.weight", 1.0, 0.2),
        ("attn.indexer.compressor.norm.weight", 1.0, 0.2),
        ("attn.compressor.ape", 0.0, 1.0),
        ("hc_ffn_fn", 0.0, 1 / 128),  # 16,384 inputs of RMS 1: outputs of RMS 1
        ("attn.wq_b.weight", 0.0, 1 / (32 * math.hypot(0.44, 0.08))),
        ("ffn.experts.7.w1.weight", 0.0, 1 / (64 * math.hypot(1.0, 0.2))),
    ],
)
def test_v4s_weights_spread_so_that_activations_stay_of_order_one(
    full_width_v4: Path, suffix: str, mean: float, std: float
) -> None:
    values = Checkpoint(full_width_v4).tensor(f"layers.3.{suffix}").double()
    assert abs(values.mean().item() - mean) < 4 * std / values.numel() ** 0.5 + 0.002 * mean  # bf16 rounds to 0.4%
    assert values.std().item() == pytest.approx(std, rel=4 / (2 * values.numel()) ** 0.5)


def test_v4s_small_vectors_are_neither_zeros_nor_alike(full_width_v4: Path) -> None:
    """Of too few values to measure their spread."""
    checkpoint = Checkpoint(full_width_v4)
    drawn = [
        checkpoint.tensor(f"layers.{layer}.{suffix}")
        for layer in (3, 4)
        for suffix in (
            "hc_attn_base",
            "hc_ffn_base",
            "hc_attn_scale",
            "hc_ffn_scale",
            "attn.attn_sink",
            "ffn.gate.bias",
        )
    ]
    drawn += [checkpoint.tensor(key) for key in ("hc_head_base", "hc_head_scale")]
    values = torch.cat(drawn)
    assert len(values.unique()) == len(values) == 2 * (24 + 24 + 3 + 3 + 4 + 8) + 4 + 1
    scales = torch.cat([tensor for tensor in drawn if len(tensor) in (1, 3)])
    assert ((scales > 0.5) & (scales < 1.5)).all()


def test_v4s_hash_routers_name_distinct_experts(full_width_v4: Path) -> None:
    checkpoint = Checkpoint(full_width_v4)
    for layer in range(3):
        table = checkpoint.tensor(f"layers.{layer}.ffn.gate.tid2eid")
        assert (table.shape, table.dtype) == ((256, 2), torch.int64)
        assert set(table.flatten().tolist()) == set(range(8))
        assert (table[:, 0] != table[:, 1]).all()
        assert f"layers.{layer}.ffn.gate.bias" not in checkpoint
    assert "layers.3.ffn.gate.tid2eid" not in checkpoint


@pytest.mark.parametrize("form", V4_FORMS)
def test_v4s_dtypes_are_the_hubs(tmp_path: Path, form: str) -> None:
    checkpoint = Checkpoint(write_synthetic(tmp_path / "made", V4_FORMS[form]), mtp=True)
    matrix = r"\.(w[qk].*|wo_.|[eh]_proj|w[123])\.weight$"
    for key in checkpoint.keys():  # noqa: SIM118
        dtype, scale_key = checkpoint.dtype(key), checkpoint.scale_key(key)
        if re.search(r"hc_|\.attn_sink$|\.ape$|gate\.bias$", key):
            assert dtype == torch.float32, key
        elif key.endswith(".tid2eid"):
            assert dtype == torch.int64
        elif form == "bfloat16" or ".compressor." in key or not re.search(matrix, key):
            assert dtype == torch.bfloat16, key
        else:
            assert dtype == (torch.int8 if form == "mxfp4" and ".experts." in key else FLOAT8), key
            assert scale_key == key.replace(".weight", ".scale")
            assert checkpoint.dtype(scale_key) == (E8M0 if form == "mxfp4" else torch.float32)
        assert (scale_key is None) == (dtype not in (torch.int8, FLOAT8))


def test_v4s_quantized_forms_hold_the_values_of_the_same_seed(tmp_path: Path) -> None:
    """To half a step: of e4m3 a sixteenth of the value, of e2m1 between 4 and 6 one, where a scale is at most twice the
    largest value's sixth. Of w2 there are 160 rows: more than are drawn at once."""
    plain, mixed, float8 = (
        Checkpoint(write_synthetic(tmp_path / form, replace(geometry, hidden_size=160, num_nextn_predict_layers=0)))
        for form, geometry in V4_FORMS.items()
    )
    assert plain.keys() == mixed.keys() == float8.keys()
    for key in plain.keys():  # noqa: SIM118
        expected = plain.weight(key, torch.float32)
        for form in (mixed, float8):
            value, error = form.weight(key, torch.float32), (form.weight(key, torch.float32) - expected).abs()
            bf16 = expected.abs() * 2**-8
            if form.dtype(key) == torch.int8:
                largest = expected.unflatten(1, (-1, 32)).abs().amax(2).repeat_interleave(32, dim=1)
                assert (error <= bf16 + largest / 3 * 1.01).all(), key
                assert torch.corrcoef(torch.stack([value.flatten(), expected.flatten()]))[0, 1] > 0.98, key
            elif form.dtype(key) == FLOAT8:
                assert (error <= bf16 + expected.abs() * 2**-4 + expected.abs().amax() * 2**-16).all(), key
            else:
                assert torch.equal(value, expected), key


def test_what_mxfp4_makes_of_values() -> None:
    """All of E2M1 at scales across E8M0's range come back; others go to the nearest; zeros have the scale 1."""
    e2m1 = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6])
    row = torch.cat([e2m1, -e2m1, e2m1.flip(0), -e2m1])
    values = torch.stack([row * 2.0**exponent for exponent in (-120, -1, 0, 1, 120)])
    packed, scale = mxfp4.quantize(values)
    assert (packed.shape, packed.dtype, scale.shape, scale.dtype) == ((5, 16), torch.int8, (5, 1), E8M0)
    assert torch.equal(mxfp4.dequantize(packed, scale, torch.float32), values)
    assert torch.equal(scale.float().flatten(), torch.tensor([2.0**e for e in (-120, -1, 0, 1, 120)]))

    random = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    random[3, 32:] = 0
    packed, scale = mxfp4.quantize(random)
    again = mxfp4.dequantize(packed, scale, torch.float32)
    assert (again[3, 32:] == 0).all()
    assert scale.float()[3, 1] == 1
    steps = scale.float().repeat_interleave(32, dim=1)
    options = steps[..., None] * torch.cat([e2m1, -e2m1])
    assert torch.equal((again - random).abs(), (options - random[..., None]).abs().amin(-1))
    assert (random.abs() <= 6 * steps).all()  # none is cut off at 6
    assert (random.view(40, 2, 32).abs().amax(2)[scale.float() != 1] > 3 * scale.float()[scale.float() != 1]).all()


def test_e8m0_scales_of_float8_cut_nothing_off() -> None:
    values = torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
    values[128:] *= 100
    values[128:] = values[128:].clamp(-448, 448)  # float8's largest: the scale is 1
    values[200, 5] = 448
    weight, scale = quantize(values, E8M0)
    assert scale.dtype == E8M0
    assert scale.float()[1, 0] == 1
    assert torch.allclose(dequantize(weight, scale, torch.float32), values, rtol=2**-4, atol=2e-3)


def test_v4s_mtp_layer_is_one_with_a_window_alone(tmp_path: Path) -> None:
    geometry = replace(TINY_V4, num_nextn_predict_layers=2)
    made = write_synthetic(tmp_path / "mtp", geometry)
    whole, plain = Checkpoint(made, mtp=True), Checkpoint(made)
    assert plain.config["compress_ratios"] == [0, 128, 4, 4, 128, 0, 0]
    assert plain.left_out == [key for key in whole.keys() if key.startswith("mtp.")]  # noqa: SIM118
    assert sorted(plain.keys() + plain.left_out) == sorted(whole.keys())
    names = {key.removeprefix("mtp.1.") for key in whole.keys("mtp.1")}
    extra = {f"{name}.weight" for name in ("enorm", "hnorm", "norm", "e_proj", "h_proj")}
    extra |= {f"hc_head_{part}" for part in ("fn", "base", "scale")}
    window = {key.removeprefix("layers.0.") for key in plain.keys("layers.0")}
    assert names == window - {"ffn.gate.tid2eid"} | {"ffn.gate.bias"} | extra
    with pytest.raises(CheckpointError, match=r"'mtp\.0\.enorm\.weight' is of an MTP layer.*mtp=True"):
        plain.weight("mtp.0.enorm.weight")


def test_v4s_single_layers_with_repeated_experts(tmp_path: Path) -> None:
    geometry = V4_FORMS["mxfp4"]
    whole = Checkpoint(write_synthetic(tmp_path / "whole", geometry), mtp=True)
    one = Checkpoint(write_synthetic(tmp_path / "one", geometry, layers=[3, 5], repeat_experts=True), mtp=True)
    keys = one.keys(scales=True)
    assert sorted(keys) == sorted(whole.keys("layers.3", scales=True) + whole.keys("mtp.0", scales=True))
    for key in keys:
        source = whole.tensor(re.sub(r"experts\.\d+", "experts.0", key))
        assert torch.equal(one.tensor(key).view(torch.uint8), source.view(torch.uint8)), key
    assert verify(one, values=True).problems == []


def test_v4s_layers_beyond_the_known_are_of_both_kinds() -> None:
    more, fewer = GeometryV4().with_layers(8), GeometryV4().with_layers(2)
    assert more.compress_ratios == (0, 128, 4, 4, 128, 4, 128, 4)
    assert fewer.compress_ratios == (0, 128)
    assert more.config()["num_hidden_layers"] == 8


def test_pro_is_wider(tmp_path: Path) -> None:
    checkpoint = Checkpoint(write_synthetic(tmp_path / "pro", GeometryV4.small(pro=True), layers=[3]))
    assert checkpoint.shape("layers.3.attn_norm.weight") == (7168,)
    assert checkpoint.shape("layers.3.attn.q_norm.weight") == (1536,)
    assert checkpoint.config["routed_scaling_factor"] == 2.5


def test_v4s_seed_gives_the_same_bytes(full_width_v4: Path) -> None:
    """Pinned: a change of numpy or of the generator that changes the default weights must be seen."""
    checkpoint = Checkpoint(full_width_v4)
    table = checkpoint.tensor("layers.0.ffn.gate.tid2eid").numpy().tobytes()
    sink = checkpoint.tensor("layers.3.attn.attn_sink").numpy().tobytes()
    assert hashlib.sha256(table + sink).hexdigest()[:16] == "3f1bc27a35ad260a"


# ---- Whole or not at all


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "new", TINY, progress=_interrupt_after(5))
    assert list(tmp_path.iterdir()) == []


def interrupt(program: str, is_reached: Callable[[], bool]) -> str:
    """What `program` prints that gets Ctrl-C once `is_reached`; it has a thread and an exit handler of its own."""
    caller = f"""
import atexit, threading, torch
from dataclasses import replace
from pathlib import Path
from weights_tools import Geometry, write_synthetic
from weights_tools.files import save_tensors
atexit.register(print, "at exit")
threading.Thread(target=threading.Event().wait, name="the caller's", daemon=True).start()
try:
    {program}
except KeyboardInterrupt:
    print("interrupted", sorted(thread.name for thread in threading.enumerate()))
"""
    command = [*INTERRUPTIBLE, sys.executable, "-c", caller]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: is_reached() or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=120)[0]
        finally:
            process.kill()


INTERRUPTED = "interrupted ['MainThread', \"the caller's\"]\nat exit\n"


def test_an_interrupt_while_weights_are_drawn_is_the_callers(tmp_path: Path) -> None:
    """The first shard is the embedding of the full size, 0.9 G values: no thread draws on, and nothing is left."""
    program = f"write_synthetic({str(tmp_path / 'new')!r}, replace(Geometry.full('v32'), num_hidden_layers=1))"
    assert interrupt(program, lambda: bool(list(tmp_path.glob(".new.*")))) == INTERRUPTED
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_weights_are_written_is_the_callers(tmp_path: Path) -> None:
    """A pipe that nobody reads is a disk that takes nothing more."""
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    program = f"save_tensors({{'zeros': torch.zeros(2**20)}}, Path({str(tmp_path / 'pipe')!r}), {{}})"
    try:
        assert interrupt(program, lambda: not select.select([], [pipe], [], 0)[1]) == INTERRUPTED
    finally:
        os.close(pipe)


def test_an_interrupted_replacement_keeps_the_old(folder: Path) -> None:
    before = _contents(folder)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(folder, TINY, seed=1, force=True, progress=_interrupt_after(5))
    assert _contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_disk_that_takes_no_more_is_one_line(tmp_path: Path) -> None:
    """A real write error: the kernel's limit on a file's size, 1 MB."""
    command = f"ulimit -f 1024; exec {sys.executable} -m weights_tools make {tmp_path / 'new'}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'new'}: can't be written (")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs 5734\d+\.\d GB, but the disk has \d+\.\d GB"):
        write_synthetic(tmp_path / "new", replace(TINY, vocab_size=22_400_000_000_000))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_force(folder: Path) -> None:
    before = _contents(folder)
    with pytest.raises(CheckpointError, match=r"exists already.*--force"):
        write_synthetic(folder, TINY, seed=1)
    assert _contents(folder) == before
    write_synthetic(folder, TINY, seed=1, force=True)
    assert _contents(folder).keys() == before.keys()
    assert _contents(folder) != before
    assert list(folder.parent.iterdir()) == [folder]


def test_force_replaces_only_what_this_tool_made(tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 1}, "weight_map": {}}')
    with pytest.raises(CheckpointError, match="no synthetic checkpoint"):
        write_synthetic(trained, TINY, force=True)
    assert [file.name for file in trained.iterdir()] == ["model.safetensors.index.json"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert Checkpoint(write_synthetic(tmp_path, TINY)).config["model_type"] == "deepseek_v32"


# ---- Helpers


def _tensors_equal(one: Checkpoint, other: Checkpoint) -> bool:
    keys = one.keys()
    return keys == other.keys() and all(torch.equal(one.tensor(key), other.tensor(key)) for key in keys)


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _interrupt_after(shards: int) -> Callable[[int, int], None]:
    """Ctrl-C once `shards` shards are on disk."""
    written: list[int] = []

    def progress(done: int, _: int) -> None:
        written.append(done)
        if len(written) == shards:
            raise KeyboardInterrupt

    return progress
