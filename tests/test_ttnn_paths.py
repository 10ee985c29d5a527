# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The comparison of a ttnn graph: what runs on the device between an upload and a result, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn
from torch import nn

from integration import NormError, replace_norms
from model_comparison import ttnn_paths
from model_comparison.block import Block
from model_comparison.collect import collect
from model_comparison.judge import judge
from model_comparison.report import read_report
from model_comparison.ttnn_paths import PATHS, find_paths, on_ttnn_paths
from tests.compared import K_NORM, NORMS, V3_NORMS, inject, run_op, run_script
from tests.small import SMALL
from tests.tensors import hidden_states
from tt_device import Platform
from weights_tools import Checkpoint


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ttnn.Layout, ttnn.Layout]]:
    """The layouts of the input and of the output of each norm that was launched."""
    layouts: list[tuple[ttnn.Layout, ttnn.Layout]] = []
    launch = ttnn.generic_op

    def spy(tensors: list[ttnn.Tensor], program: Any) -> ttnn.Tensor:
        layouts.append((tensors[0].layout, tensors[-1].layout))
        return launch(tensors, program)

    monkeypatch.setattr(ttnn, "generic_op", spy)
    return layouts


@contextmanager
def device_operations() -> Iterator[list[str]]:
    """What ttnn ran on the device inside the context, in order, with what its C++ side ran of its own accord."""
    names: list[str] = []
    ttnn.graph.begin_graph_capture(ttnn.graph.RunMode.NORMAL)
    try:
        yield names
    finally:
        nodes = ttnn.graph.end_graph_capture()
        started = [node["params"]["name"] for node in nodes if node["node_type"] == "function_start"]
        names += [name.removesuffix("DeviceOperation") for name in started if name.endswith("DeviceOperation")]


@pytest.mark.long
def test_norms_hold_between_linears_and_nothing_is_converted(
    device: Any,
    cores: int | None,
    block: Block,
    launched: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uploads: list[Any] = []
    modules = dict(block.layer.named_modules())
    as_tiles = ttnn_paths._as_tiles
    monkeypatch.setattr(ttnn_paths, "_as_tiles", lambda x, device: uploads.append(x.shape) or as_tiles(x, device))
    with device_operations() as operations:
        recording = collect(block, device, graph="ttnn", cores=cores)
    q_a, kv_a = ["Matmul", "GenericOp", "Matmul"], ["Matmul", "Slice", "GenericOp", "Matmul"]
    assert operations == ["GenericOp", *q_a, *kv_a, "Matmul", "GenericOp", "GenericOp"]
    on_paths = [path.norm for path in PATHS]
    layouts = [ttnn.TILE_LAYOUT if name in on_paths else ttnn.ROW_MAJOR_LAYOUT for name in NORMS["v32"]]
    assert launched == [(layout, layout) for layout in layouts]
    assert len(uploads) == operations.count("Matmul") + 1, "each matrix, and the hidden states once"
    assert dict(block.layer.named_modules()) == modules, "HuggingFace's own are back"
    result = judge(recording)
    assert result.holds, result
    assert result.launches == dict.fromkeys(NORMS["v32"], 1)


@pytest.mark.parametrize(("isolated", "holds"), [(False, False), (True, True)])
def test_finds_a_dropped_beta(
    device: Any,
    cores: int | None,
    block: Block,
    launched: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    isolated: bool,
    holds: bool,
) -> None:
    inject(monkeypatch, K_NORM, lambda norm, x: run_op(norm, x, **({} if holds else {"beta_tensor": None})))
    result = judge(collect(block, device, [K_NORM], graph="ttnn", isolated=isolated, cores=cores))
    assert launched == [(ttnn.TILE_LAYOUT, ttnn.TILE_LAYOUT)]
    assert result.verdicts[0].reference == "float64"
    assert result.holds == result.verdicts[0].holds == holds, result


# --- What is refused ---


def test_a_norm_takes_what_its_linear_gave_alone(device: Any, block: Block) -> None:
    paths = find_paths(block.layer, [K_NORM])
    with replace_norms(block.layer, device, "k_norm") as replaced:
        with on_ttnn_paths(block.layer, paths, replaced.norms, device):
            norm, wk = (block.layer.get_submodule(name) for name in (K_NORM, paths[0].before))
            with pytest.raises(NormError, match=r"k_norm must be .* what .*\.wk gave, .* that gave nothing yet"):
                norm(torch.zeros(1, 3, 128, dtype=torch.bfloat16))
            wk.register_forward_hook(lambda _module, _args, y: -y)
            with pytest.raises(NormError, match=r"k_norm must be .* with \(1, 3, 128\).* gave \(1, 3, 128\) of other"):
                block.run(hidden_states(3))
        assert replaced.norms[K_NORM].launches == 0


@pytest.mark.parametrize(
    ("dtype", "bias", "norms", "message"),
    [
        (torch.float32, None, [K_NORM], r"wk\.weight must be torch\.bfloat16 .* but is torch\.float32"),
        (torch.bfloat16, 64, [V3_NORMS[1]], r"q_a_proj\.bias must be None .* but has shape \(64,\)"),
        (torch.bfloat16, None, ["input_layernorm"], r"needs one of self_attn\..*k_norm, but the norms are input_layer"),
    ],
)
def test_refuses(
    folders: dict[str, Path], dtype: torch.dtype, bias: int | None, norms: list[str], message: str
) -> None:
    layer = Block(Checkpoint(folders["v32"]), 3, dtype).layer
    if bias:
        layer.self_attn.q_a_proj.bias = nn.Parameter(torch.zeros(bias, dtype=dtype))
    with pytest.raises(NormError, match=message):
        find_paths(layer, norms)


# --- The command line ---


@pytest.mark.long
def test_a_run_says_that_it_was_one(folders: dict[str, Path], tmp_path: Path, platform: Platform) -> None:
    saved, report = tmp_path / "run.safetensors", tmp_path / "report"
    options = ("--graph", "ttnn", "--norms", "k_norm", "--arch", platform.arch, "--save", saved)
    run = run_script("--checkpoint", folders["v32"], *options)
    assert run.returncode == 0, run.stderr
    title = f"deepseek_v32 layer 3, tokens: {SMALL.index_topk + 4}, chained, in a ttnn graph"
    assert title in run.stdout
    again = run_script("--load", saved, "--report", report, TT_METAL_SIMULATOR="/nowhere")
    assert again.stdout.startswith(run.stdout), "to the last digit"
    assert read_report(report / "report.json")["facts"]["graph"] == "ttnn"
    assert "chained, in a ttnn graph, on " in (report / "report.html").read_text()
