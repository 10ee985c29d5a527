# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The reference block: transformers' own bits, experts read as they are needed, what is recorded. No device."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from integration import NormError, find_norms
from model_comparison.activations import Choice
from model_comparison.block import Block
from model_comparison.block_input import InputError, default_tokens, drawn_input, read_input
from model_comparison.family import write_relative
from model_comparison.metrics import compare
from tests.family import small_checkpoint
from tests.small import SMALL, SMALL_V3
from tests.tensors import hidden_states
from weights_tools import Checkpoint, CheckpointError, write_synthetic

LAYERS = pytest.mark.parametrize("number", [0, 3], ids=["dense", "experts"])
EXPERTS = "mlp.experts."


@pytest.fixture(scope="module", params=["v3", "v32"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    geometry = {"v3": SMALL_V3, "v32": SMALL}[request.param]
    three = replace(geometry, num_experts_per_tok=3)  # of two, it does not matter which is added first
    return write_synthetic(tmp_path_factory.mktemp("checkpoint") / request.param, three)


@pytest.fixture(scope="module")
def v32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("checkpoint") / "v32", SMALL)


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "v4", "v4")


class Watched(Checkpoint):
    """Knows which weights were asked for, and which of them are still in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: dict[str, weakref.ref[torch.Tensor]] = {}

    def weight(self, key: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        weight = super().weight(key, dtype)
        self.read[key] = weakref.ref(weight)
        return weight


def from_pretrained(folder: Path) -> PreTrainedModel:
    auto: Any = (
        AutoModelForCausalLM if "vision_config" not in Checkpoint(folder).config else AutoModelForImageTextToText
    )
    model: PreTrainedModel
    model, loaded = auto.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    assert not any(loaded.values()), loaded
    return model


def assert_is_of_model(folder: Path, number: int, tokens: int = 20) -> Block:
    """A layer on its own has the weights, and gives the bits, that it has and gives inside the whole model, loaded by
    transformers itself."""
    model = from_pretrained(folder)
    layer = model.get_decoder().layers[number]
    states: list[Any] = []
    layer.register_forward_hook(lambda _, args, output: states.extend((args[0], output)))
    ids = torch.arange(tokens).unsqueeze(0)
    with torch.no_grad():
        model(input_ids=ids)
    hidden, output = states
    block, whole = Block(Checkpoint(folder), number), layer.state_dict()
    own = block.layer.state_dict()
    assert own.keys() == {name for name in whole if not name.endswith((".gate_up_proj", ".experts.down_proj"))}
    for name, weight in own.items():
        assert weight.dtype == whole[name].dtype, name
        torch.testing.assert_close(weight, whole[name], rtol=0, atol=0)
    expected = output[0] if isinstance(output, tuple) else output
    torch.testing.assert_close(block.run(hidden, (), ids).output, expected, rtol=0, atol=0)
    return block


@LAYERS
def test_block_is_huggingfaces(folder: Path, number: int) -> None:
    assert_is_of_model(folder, number)


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("v4", 0),  # sliding attention, hash router
        ("v4", 1),  # heavily compressed, hash router
        ("v4", 3),  # compressed sparse, top-k router
        ("v2", 3),  # greedy router, no q_a norm
        ("kimi", 3),  # a text model inside of another
        ("glm5", 3),
        ("longcat", 3),  # two attentions, and experts without matrices
        ("llama", 3),
        ("qwen3", 3),
    ],
)
def test_block_of_the_family_is_huggingfaces(tmp_path: Path, model: str, number: int) -> None:
    block = assert_is_of_model(small_checkpoint(tmp_path / model, model), number)
    found = find_norms(block.layer)
    assert all(norm.supported == "yes" for norm in found), found


OTHERS = {
    # rope by layer, in a list of its own
    "granite_swa": {"layer_rope_theta": [1e4, 500.0, 0, 700.0], "num_key_value_heads": 2},
    # layers give tuples; a buffer that transformers computes in another module beside weights of its own
    "falcon_h1": {
        "num_key_value_heads": 2,
        "mamba_d_ssm": 128,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "time_step_limit": [0.0, 100.0],
    },
    # masks by layer, in a dict
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8},
}


@pytest.mark.parametrize("model_type", OTHERS)
def test_block_of_another_model_is_huggingfaces(tmp_path: Path, model_type: str) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 16, "vocab_size": 64}
    config = {"model_type": model_type, "intermediate_size": 96, **sizes, **OTHERS[model_type]}
    assert_is_of_model(write_relative(tmp_path / model_type, config), 3)


def test_refuses_a_norm_that_is_called_with_a_gate(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 16,
        "vocab_size": 64,
    }
    config = {"model_type": "mamba2", "n_groups": 1, "time_step_limit": [0.0, 100.0], **sizes}
    block = Block(Checkpoint(write_relative(tmp_path / "mamba2", config)), 1)
    given = drawn_input(block)
    with pytest.raises(NormError, match=r"mixer\.norm is called with 2 arguments"):
        block.run(given.hidden_states, ["mixer.norm"])


def test_refuses_a_norm_that_runs_twice(v32: Path) -> None:
    block = Block(Checkpoint(v32), 0)
    block.layer.post_attention_layernorm = block.layer.input_layernorm
    with pytest.raises(NormError, match="input_layernorm runs more than once"):
        block.run(hidden_states(3), ["input_layernorm"])


def test_v4_quantized_is_huggingfaces(tmp_path: Path) -> None:
    """Against the same layer of dequantised matrices; `test_checkpoint` holds these to transformers' own."""
    folder = small_checkpoint(tmp_path / "v4", "v4", quantized=True)
    checkpoint = Checkpoint(folder)
    assert checkpoint.dtype("layers.3.ffn.experts.0.w1.weight") == torch.int8
    assert checkpoint.dtype("layers.3.attn.wq_a.weight") == torch.float8_e4m3fn
    plain = tmp_path / "plain"
    plain.mkdir()
    config = (folder / "config.json").read_text()
    (plain / "config.json").write_text(config)
    keys = [key for key in checkpoint.keys() if key.startswith("layers.3.")]  # noqa: SIM118  (no mapping)
    save_file({key: dequantized(checkpoint, key) for key in keys}, plain / "model.safetensors")
    block, other = Block(checkpoint, 3), Block(Checkpoint(plain), 3)
    x = drawn_input(block)
    expected = other.run(x.hidden_states, (), x.input_ids).output
    torch.testing.assert_close(block.run(x.hidden_states, (), x.input_ids).output, expected, rtol=0, atol=0)


def dequantized(checkpoint: Checkpoint, key: str) -> torch.Tensor:
    stored = checkpoint.dtype(key)
    return checkpoint.weight(key, torch.bfloat16 if stored in (torch.int8, torch.float8_e4m3fn) else stored)


def test_reads_its_layer_and_routed_experts_alone(folder: Path) -> None:
    checkpoint = Watched(folder)
    block = Block(checkpoint, 3)
    assert all(key.startswith("model.layers.3.") and EXPERTS not in key for key in checkpoint.read)
    before = set(checkpoint.read)
    run = block.run(hidden_states(2))
    read = set(checkpoint.read) - before
    experts = run.choice("router").chosen.any(dim=(0, 1)).nonzero().flatten().tolist()
    assert 3 <= len(experts) < SMALL.n_routed_experts, "the input must leave some experts out"
    projections = ("gate_proj", "up_proj", "down_proj")
    assert read == {f"model.layers.3.{EXPERTS}{expert}.{name}.weight" for expert in experts for name in projections}
    assert not any(checkpoint.read[key]() is not None for key in read), "matrices stayed in memory after the run"


def test_float8_is_dequantized(tmp_path: Path) -> None:
    float8 = Checkpoint(write_synthetic(tmp_path / "float8", replace(SMALL, float8=True)))
    assert float8.dtype("model.layers.3.mlp.experts.0.up_proj.weight") == torch.float8_e4m3fn
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text((float8.folder / "config.json").read_text())
    save_file(
        {key: float8.weight(key, torch.float32) for key in float8.keys("model.layers.3")}, plain / "model.safetensors"
    )
    x = hidden_states(12)
    expected = Block(Checkpoint(plain), 3).run(x).output
    torch.testing.assert_close(Block(float8, 3).run(x).output, expected, rtol=0, atol=0)


def test_float32_computes_on_the_same_weights(folder: Path) -> None:
    rough, precise = (Block(Checkpoint(folder), 3, dtype) for dtype in (torch.bfloat16, torch.float32))
    for name, weight in rough.layer.state_dict().items():
        other = precise.layer.state_dict()[name]
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, weight.float(), rtol=0, atol=0)
    x = hidden_states(4)
    a, b = rough.run(x).output, precise.run(x.float()).output
    assert b.dtype == torch.float32
    assert 1e-4 < compare(a, b).relative_norm < 2e-2


@LAYERS
def test_activations(folder: Path, number: int) -> None:
    """In order of execution; what is recorded is what the modules were given, gave and chose."""
    block, tokens = Block(Checkpoint(folder), number), 12
    names = [norm.name for norm in find_norms(block.layer)]
    run = block.run(hidden_states(tokens), names)
    is_v32 = block.config.model_type == "deepseek_v32"
    assert list(run.activations) == [
        "input_layernorm",
        "self_attn.q_a_layernorm",
        "self_attn.kv_a_layernorm",
        *(["self_attn.indexer.k_norm", "indexer"] if is_v32 else []),
        "post_attention_layernorm",
        *(["router"] if number == 3 else []),
    ]
    for name in names:
        activation = run.norm(name)
        output = block.layer.get_submodule(name)(activation.input)
        torch.testing.assert_close(output, activation.output, rtol=0, atol=0)
    if is_v32:
        keys = run.choice("indexer")
        assert keys.scores.shape == (1, tokens, tokens)
        assert torch.equal(keys.scores.isfinite(), torch.ones(1, tokens, tokens, dtype=torch.bool).tril())
        assert keys.chosen.sum(-1).tolist() == [[min(query + 1, SMALL.index_topk) for query in range(tokens)]]
        assert_chosen_are_highest(keys)
    if number == 3:
        experts = run.choice("router")
        assert experts.scores.shape == (1, tokens, SMALL.n_routed_experts)
        assert (experts.groups, experts.chosen_groups) == (SMALL.n_group, SMALL.topk_group)
        assert (experts.chosen.sum(-1) == 3).all()


def assert_chosen_are_highest(choice: Choice) -> None:
    lowest = choice.scores.masked_fill(~choice.chosen, torch.inf).amin(-1)
    highest_left = choice.scores.masked_fill(choice.chosen, -torch.inf).amax(-1)
    assert (lowest >= highest_left).all()


COMPRESSOR = {0: [], 1: ["self_attn.compressor.kv_norm", "compressor"]}
COMPRESSOR[3] = [COMPRESSOR[1][0], "self_attn.compressor.indexer.kv_norm", "indexer", "compressor"]


@pytest.mark.parametrize("number", COMPRESSOR, ids=["sliding", "heavily-compressed", "compressed-sparse"])
def test_activations_of_v4(v4: Path, number: int) -> None:
    block = Block(Checkpoint(v4), number)
    given = drawn_input(block)
    assert given.hidden_states.shape == (1, default_tokens(block), 4, block.config.hidden_size)
    run = block.run(given.hidden_states, [norm.name for norm in find_norms(block.layer)], given.input_ids)
    attention, experts = (
        [f"{hc}.{part}" for part in ("input_norm", "pre", "post", "comb")] for hc in ("attn_hc", "ffn_hc")
    )
    norms = ["input_layernorm", "self_attn.q_a_norm", "self_attn.q_b_norm", "self_attn.kv_norm"]
    assert list(run.activations) == [
        *attention,
        *norms,
        *COMPRESSOR[number],
        *experts,
        "post_attention_layernorm",
        "router",
    ]
    streams = given.hidden_states
    pre = run.tensor("attn_hc.pre")
    collapsed = (pre.unsqueeze(-1) * streams).sum(2).to(streams.dtype)
    torch.testing.assert_close(run.norm("input_layernorm").input, collapsed, rtol=0, atol=0)
    assert run.tensor("attn_hc.post").shape == (1, streams.shape[1], 4)
    mixed = run.tensor("attn_hc.comb")  # by Sinkhorn and Knopp, rows and columns sum to 1
    torch.testing.assert_close(mixed.sum(-2), torch.ones(1, streams.shape[1], 4), rtol=0, atol=1e-4)
    router = run.choice("router")
    assert (router.chosen.sum(-1) == block.config.num_experts_per_tok).all()
    assert router.by_score == (number == 3)
    if number == 3:
        assert_chosen_are_highest(router)
        windows = run.choice("indexer")
        assert_chosen_are_highest(windows)
        assert (windows.chosen.sum(-1) < windows.scores.isfinite().sum(-1)).any(), "it must leave windows out"
    else:
        by_id = block.layer.get_buffer("mlp.gate.tid2eid")[given.input_ids]
        assert all(
            set(row.nonzero().flatten().tolist()) == set(ids.tolist())
            for row, ids in zip(router.chosen[0], by_id[0], strict=True)
        )
    if number:
        assert run.tensor("compressor").shape[:3] == (1, 1, streams.shape[1] // {1: 128, 3: 4}[number])


def test_glm_keeps_two_eps(tmp_path: Path) -> None:
    """q_a and kv_a keep the class's default, whatever config.json says."""
    block = Block(Checkpoint(small_checkpoint(tmp_path / "glm5", "glm5")), 3)
    found = {norm.name: norm.formula.epsilon for norm in find_norms(block.layer) if norm.formula}
    assert found == {
        "input_layernorm": 1e-5,
        "self_attn.q_a_layernorm": 1e-6,
        "self_attn.kv_a_layernorm": 1e-6,
        "self_attn.indexer.k_norm": 1e-6,
        "post_attention_layernorm": 1e-5,
    }


@pytest.mark.parametrize(
    ("config", "number", "message"),
    [
        ({}, 4, r"0 to 3, but is 4"),
        ({"num_hidden_layers": 61}, 7, "holds no tensor of layer 7"),
        ({"n_routed_experts": 16}, 3, r"experts\.8\..*16 experts"),
        ({"index_head_dim": 64}, 3, r"model\.layers\.3 does not fit config\.json"),
        ({"model_type": "llama3"}, 3, r"one that transformers [\d.]+ knows, but is 'llama3'"),
        ({"model_type": "resnet"}, 3, "no causal language model of model_type resnet"),
        ({"num_attention_heads": "many"}, 3, r"config\.json: .*num_attention_heads"),
        ({"num_attention_heads": 0}, 3, r"config\.json: "),
    ],
)
def test_refuses_what_does_not_fit(v32: Path, config: dict[str, object], number: int, message: str) -> None:
    checkpoint = Checkpoint(v32)
    checkpoint.config |= config
    with pytest.raises(CheckpointError, match=message) as raised:
        Block(checkpoint, number)
    assert "\n" not in str(raised.value)


def test_refuses_a_layer_that_needs_another(tmp_path: Path) -> None:
    """One that takes the keys that the layer before has chosen."""
    shared = {"indexer_types": ["full", "full", "full", "shared"]}
    block = Block(Checkpoint(small_checkpoint(tmp_path / "glm5", "glm5", **shared)), 3)
    given = drawn_input(block)
    with pytest.raises(CheckpointError, match="layer 3 can't be run on its own: Shared DSA layers"):
        block.run(given.hidden_states)


def test_refuses_experts_of_another_shape(v32: Path) -> None:
    checkpoint = Checkpoint(v32)
    checkpoint.config |= {"moe_intermediate_size": 16, "n_shared_experts": 2}  # of 32: the shared expert still fits
    block = Block(checkpoint, 3)
    with pytest.raises(
        CheckpointError, match=r"a matrix of \(32, 256\) by config.json.*experts\.\d\.gate_proj.*\(32, 256\)"
    ):
        block.run(hidden_states(1))


# --- Its input ---


def test_drawn_input_has_outlier_channels(v4: Path) -> None:
    block = Block(Checkpoint(v4), 3)
    given, plain = drawn_input(block), drawn_input(block, outliers=False)
    assert torch.equal(given.input_ids, plain.input_ids)
    size = (given.hidden_states.float() / plain.hidden_states.float())[0, 0, 0]
    assert size[0] == pytest.approx(40, rel=0.01)
    assert (size[1:512] == 1).all()


def test_recorded_input(v4: Path, tmp_path: Path) -> None:
    block, path = Block(Checkpoint(v4), 0), tmp_path / "input.safetensors"
    drawn = drawn_input(block)
    save_file({"hidden_states": drawn.hidden_states.float(), "input_ids": drawn.input_ids}, path)
    read = read_input(path, block)
    assert torch.equal(read.hidden_states, drawn.hidden_states)
    assert torch.equal(read.input_ids, drawn.input_ids)


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.pop(name)


def _with(**tensors: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda given: given.update(tensors)


IDS = torch.zeros(1, 3, dtype=torch.int64)
STATES = torch.ones(1, 3, 4, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("hidden_states"), "must hold hidden_states, but holds input_ids"),
        (_without("input_ids"), "must hold input_ids, too: layer 0 chooses experts by them"),
        (_with(hidden_states=torch.ones(1, 3, 64)), r"must have shape \(B, S, 4, 64\), but has \(1, 3, 64\)"),
        (_with(hidden_states=torch.ones(1, 0, 4, 64)), r"but has \(1, 0, 4, 64\)"),
        (_with(hidden_states=STATES.int()), "must be bfloat16, float16 or float32, but is torch.int32"),
        (_with(hidden_states=STATES * torch.nan), "holds 768 NaN or Inf"),
        (_with(hidden_states=STATES * 3.4e38), "holds 768 NaN or Inf in bfloat16"),
        (_with(input_ids=IDS[:, :2]), r"of shape \(1, 3\), but is torch.int64 of \(1, 2\)"),
        (_with(input_ids=IDS.float()), "but is torch.float32"),
        (_with(input_ids=IDS + 10**6), r"must be 0 to \d+ \(vocab_size\), but are 1000000 to 1000000"),
    ],
)
def test_refuses_recorded_input(
    v4: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    block, path = Block(Checkpoint(v4), 0), tmp_path / "input.safetensors"
    tensors = {"hidden_states": STATES, "input_ids": IDS}
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(InputError, match=message) as raised:
        read_input(path, block)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_refuses_what_is_no_file(v4: Path, tmp_path: Path) -> None:
    block, broken = Block(Checkpoint(v4), 0), tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors")
    for path in (tmp_path / "nowhere.safetensors", broken):
        with pytest.raises(InputError, match="can't read it as safetensors"):
            read_input(path, block)
