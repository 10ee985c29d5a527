"""`python -m weights_tools`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from weights_tools import Checkpoint, write_synthetic


@pytest.fixture(scope="module")
def full_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("checkpoints") / "default")


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
