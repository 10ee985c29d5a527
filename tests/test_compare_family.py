# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The comparison of DeepSeek-V4's blocks and of DeepSeek's relatives: what holds, and what it finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn

from integration import TtNorm, TtRMSNorm
from micro_ops.layernorm import RMSNormSingleCore
from model_comparison.block import Block
from model_comparison.collect import collect
from model_comparison.judge import judge
from model_comparison.names import short_names
from model_comparison.recording import Recording
from model_comparison.report import report
from tests.cases import cases
from tests.compared import inject, run_op
from tests.family import SMALL_V4, small_checkpoint
from tests.tensors import assert_equal_but_near_ties, random_input, upload
from weights_tools import Checkpoint

V4_NORMS = {
    0: [
        "attn_hc.input_norm",
        "input_layernorm",
        "self_attn.q_a_norm",
        "self_attn.q_b_norm",
        "self_attn.kv_norm",
        "ffn_hc.input_norm",
        "post_attention_layernorm",
    ]
}
V4_NORMS[4] = [*V4_NORMS[0][:5], "self_attn.compressor.kv_norm", *V4_NORMS[0][5:]]
V4_NORMS[3] = [*V4_NORMS[4][:6], "self_attn.compressor.indexer.kv_norm", *V4_NORMS[0][5:]]


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "v4", "v4")


@pytest.mark.parametrize(
    "layer",
    cases(
        {"sliding": 0, "heavily compressed": 4, "compressed sparse": 3},
        long=["sliding", "heavily compressed"],  # the latter takes 132 tokens
    ),
)
def test_all_norms_of_v4_hold_on_the_device(
    device: Any, cores: int | None, v4: Path, tmp_path: Path, layer: int
) -> None:
    recording = collect(Block(Checkpoint(v4), layer), device, cores=cores)
    result = judge(recording)
    assert result.holds, result
    of_norms = [verdict for verdict in result.verdicts if verdict.reference == "float64"]
    assert [verdict.name for verdict in of_norms] == V4_NORMS[layer], "in order of execution"
    assert result.launches == dict.fromkeys(V4_NORMS[layer], 1)
    others = {verdict.name for verdict in result.verdicts} - set(V4_NORMS[layer]) - {"block output, flips too"}
    assert others == {
        *(f"{place}.{part}" for place in ("attn_hc", "ffn_hc") for part in ("pre", "post", "comb")),
        *(["compressor"] if layer else []),
        *(["indexer scores"] if layer == 3 else []),
        "router scores",
        "block output",
    }
    router = next(verdict for verdict in result.verdicts if verdict.name == "router scores")
    assert (router.holds is None) == (layer == 0), "a hash router's scores choose nothing"
    recording.save(tmp_path / "run.safetensors")
    loaded = judge(Recording.load(tmp_path / "run.safetensors"))
    assert [(of.name, of.shape, of.holds) for of in loaded.verdicts] == [
        (of.name, of.shape, of.holds) for of in result.verdicts
    ]
    assert loaded.flips == result.flips


def test_short_names_tell_apart() -> None:
    names = ["self_attn.q_a_norm", "self_attn.kv_norm", "self_attn.compressor.kv_norm", "norms.0", "norms.1", "hc.pre"]
    expected = ["q_a_norm", "self_attn.kv_norm", "compressor.kv_norm", "norms.0", "norms.1", "pre"]
    assert list(short_names(names).values()) == expected


@pytest.mark.parametrize(
    ("model", "count"),
    [
        pytest.param("v2", 3, marks=pytest.mark.long),
        pytest.param("kimi", 4, marks=pytest.mark.long),
        pytest.param("glm5", 5, marks=pytest.mark.long),
        ("longcat", 8),
        pytest.param("llama", 2, marks=pytest.mark.long),
        ("qwen3", 4),
    ],
)
def test_all_norms_of_relatives_hold_on_the_device(
    device: Any, cores: int | None, tmp_path: Path, model: str, count: int
) -> None:
    result = judge(collect(Block(Checkpoint(small_checkpoint(tmp_path / model, model)), 3), device, cores=cores))
    assert result.holds, result
    assert len(result.launches) == count
    assert set(result.launches.values()) == {1}


def test_a_norm_of_a_v4_checkpoint_alone(device: Any, v4: Path) -> None:
    """By DeepSeek's own name of it, and in V4's order of rounding, which the file does not tell."""
    order = {"dtype": torch.float32, "round_before_gamma": False}
    norm = TtRMSNorm.from_checkpoint(v4, "layers.3.attn_norm", device=device, **order)
    x, gamma = (
        random_input((3, SMALL_V4.hidden_size)),
        Checkpoint(v4).norm("layers.3.attn_norm", torch.float32)["weight"],
    )
    expected = Block(Checkpoint(v4), 3).layer.input_layernorm(x)
    golden = RMSNormSingleCore.golden(x, gamma, norm.epsilon, round_before_gamma=False)
    assert_equal_but_near_ties(expected, golden)
    assert_equal_but_near_ties(norm(x), golden)


def of_other_norm(norm: TtNorm, x: ttnn.Tensor) -> ttnn.Tensor:
    """With the gamma that `OTHER` has in the checkpoint."""
    return run_op(norm, x, gamma_tensor=upload(OTHER.unsqueeze(0), norm.device))


OTHER = 1 + 0.2 * torch.randn(SMALL_V4.hidden_size, generator=torch.Generator().manual_seed(9))
FAULTS: dict[str, tuple[str, Callable[[TtNorm, ttnn.Tensor], ttnn.Tensor], str]] = {
    "another's gamma": ("post_attention_layernorm", of_other_norm, "wrong gamma"),
    "no gamma": ("self_attn.q_a_norm", lambda n, x: run_op(n, x, gamma_tensor=None), "dropped gamma"),
    "no norm of the streams": ("attn_hc.input_norm", lambda _, x: ttnn.clone(x), "not normalized"),
    "no norm of the queries": ("self_attn.q_b_norm", lambda _, x: ttnn.clone(x), "not normalized"),
    "eps of compressed keys": ("self_attn.compressor.kv_norm", lambda n, x: run_op(n, x, epsilon=1e-2), "wrong eps"),
    "eps of the streams": ("ffn_hc.input_norm", lambda n, x: run_op(n, x, epsilon=1e-5), "wrong eps"),
    "queries' order of rounding": (
        "self_attn.q_b_norm",
        lambda n, x: run_op(n, x, round_inverse_rms=False),
        "rounding of 1 / rms",
    ),
}
LONG = ["no gamma", "no norm of the streams", "eps of compressed keys", "queries' order of rounding"]


@pytest.mark.parametrize("fault", cases({fault: fault for fault in FAULTS}, long=LONG))
def test_finds_and_names_a_wrong_norm_of_v4(
    device: Any, cores: int | None, v4: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    name, op, kind = FAULTS[fault]
    inject(monkeypatch, name, op)
    recording = collect(Block(Checkpoint(v4), 3), device, cores=cores)
    verdict = report(recording, judge(recording))["verdict"]
    assert (verdict["first_wrong"], verdict["kind"]) == (name, kind), verdict
