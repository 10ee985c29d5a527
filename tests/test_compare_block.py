"""scripts/compare_block.py as a user runs it: its output and its exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.small import SMALL
from weights_tools import write_synthetic

SCRIPT = Path(__file__).parents[1] / "scripts" / "compare_block.py"


def compare_block(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_default_comparison_holds(pytestconfig: pytest.Config) -> None:
    """The main job, at DeepSeek-V3.2's own norm widths."""
    run = compare_block("--layer", "3", "--arch", pytestconfig.getoption("arch") or "blackhole")
    assert run.returncode == 0, run.stderr
    rows = {line[:23].strip(): line.split() for line in run.stdout.splitlines()}
    for tap in ("k_norm vs float64", "k_norm vs HuggingFace", "indexer scores", "indexer top-k", "block output"):
        assert rows[tap][-1] == "holds", run.stdout
        assert rows[tap][-2] == "1", "each tap names the launch that served it"
    assert "1x48x128" in rows["k_norm vs float64"]
    assert float(rows["k_norm vs float64"][-6]) >= 0.9999, "PCC"
    assert float(rows["k_norm vs float64"][-4]) <= 2.0, "scaled ULP"
    assert "48 tokens, top 16" in run.stdout
    assert "device: " in run.stderr


def test_broken_weight_fails(tmp_path: Path) -> None:
    folder = write_synthetic(tmp_path / "checkpoint", SMALL)
    shard = folder / "model-00005-of-000006.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.3.self_attn.indexer.k_norm.weight"][7] = torch.nan
    save_file(tensors, shard, metadata={"format": "pt"})
    run = compare_block("--checkpoint", folder)
    assert run.returncode == 1, run.stderr
    assert "FAILS" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "4"), "layer must be 0 to 3 (num_hidden_layers), but is 4"),
        (("--layer", "three"), "Invalid value for '--layer'"),
        (("--checkpoint", "/no/such/folder"), "/no/such/folder: no such checkpoint folder"),
        (("--arch", "grayskull"), "Invalid value for '--arch'"),
    ],
)
def test_bad_arguments_exit_2(arguments: tuple[str, ...], message: str) -> None:
    run = compare_block(*arguments)
    assert run.returncode == 2, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_no_device_exits_3(tmp_path: Path) -> None:
    run = compare_block(TT_METAL_SIMULATOR=str(tmp_path / "nowhere"))
    assert run.returncode == 3, run.stderr
    assert f"TT_METAL_SIMULATOR={tmp_path}/nowhere" in run.stderr
    assert "Traceback" not in run.stderr
