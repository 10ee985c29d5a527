# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The reference block: HuggingFace's own bits, experts read as they are needed, what is recorded. No device."""

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from integration import find_norms
from model_comparison.block import EXPERTS, Block, Choice
from model_comparison.metrics import compare
from tests.small import SMALL, SMALL_V3
from tests.tensors import hidden_states
from weights_tools import Checkpoint, CheckpointError, write_synthetic

LAYERS = pytest.mark.parametrize("number", [0, 3], ids=["dense", "experts"])


@pytest.fixture(scope="module", params=["v3", "v32"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    geometry = {"v3": SMALL_V3, "v32": SMALL}[request.param]
    three = replace(geometry, num_experts_per_tok=3)  # of two, it does not matter which is added first
    return write_synthetic(tmp_path_factory.mktemp("checkpoint") / request.param, three)


@pytest.fixture(scope="module")
def v32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("checkpoint") / "v32", SMALL)


class Watched(Checkpoint):
    """Knows which weights were asked for, and which of them are still in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: dict[str, weakref.ref[torch.Tensor]] = {}

    def weight(self, key: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        weight = super().weight(key, dtype)
        self.read[key] = weakref.ref(weight)
        return weight


@LAYERS
def test_block_is_huggingfaces(folder: Path, number: int) -> None:
    """A layer on its own gives the bits that it gives inside the whole model, loaded by transformers itself."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager", experts_implementation="eager"
    )
    tokens = torch.arange(20).unsqueeze(0)
    hidden: list[torch.Tensor] = []
    model.model.layers[number].register_forward_hook(lambda _, args, output: hidden.extend((args[0], output)))
    with torch.no_grad():
        model(tokens)
    block, whole = Block(Checkpoint(folder), number), model.model.layers[number].state_dict()
    for name, weight in block.layer.state_dict().items():
        assert weight.dtype == whole[name].dtype, name
        torch.testing.assert_close(weight, whole[name], rtol=0, atol=0)
    torch.testing.assert_close(block.run(hidden[0]).output, hidden[1], rtol=0, atol=0)


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


@pytest.mark.parametrize(
    ("config", "number", "message"),
    [
        ({}, 4, r"0 to 3 .*but is 4"),
        ({"num_hidden_layers": 61}, 7, "holds no tensor of layer 7"),
        ({"n_routed_experts": 16}, 3, r"experts\.8\.gate_proj.*16 experts"),
        ({"index_head_dim": 64}, 3, r"layer 3 does not fit config\.json"),
        ({"model_type": "llama"}, 3, "deepseek_v3 or deepseek_v32, but is 'llama'"),
    ],
)
def test_refuses_what_does_not_fit(v32: Path, config: dict[str, object], number: int, message: str) -> None:
    checkpoint = Checkpoint(v32)
    checkpoint.config |= config
    with pytest.raises(CheckpointError, match=message):
        Block(checkpoint, number)


def test_refuses_experts_of_another_shape(v32: Path) -> None:
    checkpoint = Checkpoint(v32)
    checkpoint.config |= {"moe_intermediate_size": 16, "n_shared_experts": 2}  # of 32: the shared expert still fits
    block = Block(checkpoint, 3)
    with pytest.raises(
        CheckpointError, match=r"experts\.\d\.gate_proj.*\(16, 256\) by config.json, but has \(32, 256\)"
    ):
        block.run(hidden_states(1))
