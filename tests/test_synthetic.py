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
from tests.small import SMALL, SMALL_V3, TINY
from weights_tools import Checkpoint, CheckpointError, Geometry, synthetic, write_synthetic
from weights_tools.files import save_tensors
from weights_tools.float8 import dequantize, quantize, scale_shape

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


def test_full_size_is_the_hubs() -> None:
    """Keys and bytes of deepseek-ai/DeepSeek-V3, as tools that read its shards' headers report them."""
    specs = list(all_tensors(Geometry.full("v3")))
    scales = [scale_shape(spec.shape) for spec in specs if spec.dtype == torch.float8_e4m3fn]
    assert len(specs) + len(scales) == 91_991
    size = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs) + sum(4 * math.prod(s) for s in scales)
    assert size == 688_574_839_360


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
