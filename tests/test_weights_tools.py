"""Checkpoints: what is written can be read, by us and by transformers; what is broken says so; no device is needed."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from weights_tools import Checkpoint, CheckpointError, Geometry, synthetic, write_synthetic

K_NORM = "model.layers.3.self_attn.indexer.k_norm"
TINY = Geometry(
    hidden_size=64,
    q_lora_rank=32,
    kv_lora_rank=16,
    index_head_dim=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=12,  # not qk_nope_head_dim: kv_b_proj and o_proj must not swap the two
    intermediate_size=48,
    moe_intermediate_size=24,
    vocab_size=40,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "tiny", TINY)


@pytest.fixture(scope="module")
def full_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default geometry: what the main job runs on."""
    return write_synthetic(tmp_path_factory.mktemp("checkpoints") / "default")


# ---- Writing


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


def test_transformers_finds_every_weight_and_misses_none(folder: Path) -> None:
    """Through transformers' own loader, which merges the per-expert matrices: names, shapes and values."""
    from transformers import DeepseekV32ForCausalLM

    model: Any
    info: dict[str, Any]
    model, info = DeepseekV32ForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    checkpoint = Checkpoint(folder)
    state = model.state_dict()
    experts = "model.layers.3.mlp.experts"
    for number in range(TINY.n_routed_experts):
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


def test_index_counts_its_bytes(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors = {key: value for shard in folder.glob("*.safetensors") for key, value in load_file(shard).items()}
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())


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


# ---- Whole or not at all


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupt_after(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "new", TINY)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_keeps_the_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _contents(folder)
    _interrupt_after(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(folder, TINY, seed=1, force=True)
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


def test_command_line_makes_what_the_function_makes(full_width: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "weights_tools", "make", str(tmp_path / "made"), "--layers", "1"]
    subprocess.run(command, check=True, timeout=120)
    made, default = Checkpoint(tmp_path / "made"), Checkpoint(full_width)
    key = "model.layers.0.self_attn.indexer.k_norm.bias"
    assert torch.equal(made.tensor(key), default.tensor(key))
    assert made.config["num_hidden_layers"] == 1

    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 2
    assert again.stderr.startswith(f"error: {tmp_path / 'made'}: exists already")


# ---- Reading


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


def test_tensors_are_named_as_their_module_names_them(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    norm = torch.nn.LayerNorm(TINY.index_head_dim)
    norm.load_state_dict(checkpoint.tensors(K_NORM))
    assert torch.equal(norm.bias, checkpoint.tensor(f"{K_NORM}.bias"))
    assert checkpoint.tensors(f"{K_NORM}.").keys() == {"weight", "bias"}
    # A prefix ends at a dot: layer 1 is not layers 10 to 19.
    assert checkpoint.tensors("model.layers.3.mlp.experts.1").keys() == {
        f"{name}_proj.weight" for name in ("gate", "up", "down")
    }


def test_only_the_shard_asked_for_is_needed(folder: Path) -> None:
    needed = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][f"{K_NORM}.weight"]
    others = [shard for shard in folder.glob("*.safetensors") if shard.name != needed]
    others[0].write_bytes(b"not a shard")
    for shard in others[1:]:
        shard.unlink()
    assert Checkpoint(folder).tensors(K_NORM).keys() == {"weight", "bias"}


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


# ---- Errors: each names the file and what to do, in one line


def _edit_index(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"].update(changes)
        path.write_text(json.dumps(index))

    return edit


def _truncate(folder: Path) -> None:
    shard = folder / "model-00005-of-000006.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])


def _make_directory(folder: Path) -> None:
    shard = folder / "model-00005-of-000006.safetensors"
    shard.unlink()
    shard.mkdir()


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "names", "says"),
    [
        (shutil.rmtree, "", "no such checkpoint folder"),
        (_remove("config.json"), "config.json", "no such file"),
        (_write("config.json", "<!DOCTYPE html>"), "config.json", "not readable JSON"),
        (_write("config.json", "[" * 100_000), "config.json", "not readable JSON"),
        (_write("config.json", "[]"), "config.json", "holds a JSON list, not an object"),
        (_remove("model.safetensors.index.json"), "", "neither model.safetensors.index.json nor model.safetensors"),
        (_write("model.safetensors.index.json", "{}"), "model.safetensors.index.json", "no weight_map"),
        (_edit_index(a="/etc/passwd"), "model.safetensors.index.json", "refused: its shard '/etc/passwd'"),
        (_edit_index(a="/tmp/a.safetensors"), "model.safetensors.index.json", "refused: its shard '/tmp/a"),  # noqa: S108
        (_edit_index(a="../a.safetensors"), "model.safetensors.index.json", "refused: its shard '../a"),
        (_edit_index(a="b/../../a.safetensors"), "model.safetensors.index.json", "refused: its shard 'b/../../a"),
        (_edit_index(a="model.bin"), "model.safetensors.index.json", "refused: its shard 'model.bin'"),
        (_edit_index(a=5), "model.safetensors.index.json", "refused: its shard '5'"),
    ],
)
def test_a_broken_folder_is_not_opened(folder: Path, damage: Callable[[Path], object], names: str, says: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    assert str(caught.value).startswith(f"{folder / names}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_remove("model-00005-of-000006.safetensors"), "no such file"),
        (_make_directory, "no such file"),
        (_truncate, "not a whole safetensors file"),
        (_write("model-00005-of-000006.safetensors", ""), "not a whole safetensors file"),
        (_write("model-00005-of-000006.safetensors", "version https://git-lfs"), "not a whole safetensors file"),
    ],
)
def test_a_broken_shard_is_named(folder: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(folder)
    checkpoint = Checkpoint(folder)
    for read in (checkpoint.tensor, checkpoint.shape, checkpoint.dtype):
        with pytest.raises(CheckpointError) as caught:
            read(f"{K_NORM}.weight")
        assert str(caught.value).startswith(f"{folder / 'model-00005-of-000006.safetensors'}: {says}")
        assert "download it" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert checkpoint.shape("model.norm.weight") == (64,)  # the other shards still serve


def test_a_key_that_its_shard_lacks_is_named(folder: Path) -> None:
    _edit_index(**{"model.layers.9.extra": "model-00005-of-000006.safetensors"})(folder)
    with pytest.raises(CheckpointError, match=r"model-00005-of-000006\.safetensors: lacks model\.layers\.9\.extra"):
        Checkpoint(folder).tensor("model.layers.9.extra")


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
    for read in (checkpoint.tensor, checkpoint.tensors, checkpoint.shape, checkpoint.dtype):
        with pytest.raises(CheckpointError) as caught:
            read(asked)
        assert asked in str(caught.value)
        assert str(caught.value).endswith(nearest)


def test_a_dtype_without_a_name_in_torch_is_an_error(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="F8_E8M0"):
        Checkpoint(tmp_path).dtype("a")


# ---- Helpers


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _interrupt_after(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C once `shards` shards are on disk."""
    saved: list[dict[str, torch.Tensor]] = []

    def interrupted(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
        if len(saved) == shards:
            raise KeyboardInterrupt
        saved.append(tensors)
        return safetensors.torch.save(tensors, metadata)

    monkeypatch.setattr(synthetic, "save", interrupted)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
