# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A decoder layer that is compared: its norms' names, a fault in one of them, and the script."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ttnn

from integration import Replacement, TtNorm, replace_norms
from micro_ops.layernorm import LayerNormSingleCore, RMSNormSingleCore
from tests.child import PATIENCE

SCRIPT = Path(__file__).parents[1] / "scripts" / "compare_block.py"
V3_NORMS = ["input_layernorm", "self_attn.q_a_layernorm", "self_attn.kv_a_layernorm", "post_attention_layernorm"]
NORMS = {"v3": V3_NORMS, "v32": [*V3_NORMS[:3], "self_attn.indexer.k_norm", V3_NORMS[3]]}
K_NORM = NORMS["v32"][3]


def run_op(norm: TtNorm, x: ttnn.Tensor, **changed: Any) -> ttnn.Tensor:
    """What `norm` does, but for what is `changed`."""
    weights = {"gamma_tensor": norm.gamma, "beta_tensor": norm.beta}
    arguments = {"input_tensor": x, "epsilon": norm.epsilon}
    if norm.formula.subtract_mean:
        return LayerNormSingleCore.op(**(arguments | weights | changed))
    del weights["beta_tensor"]
    order = {name: getattr(norm.formula, name) for name in ("round_before_gamma", "round_inverse_rms")}
    return RMSNormSingleCore.op(**(arguments | weights | order | changed))


def inject(monkeypatch: pytest.MonkeyPatch, name: str, op: Callable[..., ttnn.Tensor]) -> None:
    """From now on, `compare_block` gets norm `name` with `op`."""

    def faulty(*args: Any, **kwargs: Any) -> Replacement:
        replacement = replace_norms(*args, **kwargs)
        norm = replacement.norms[name]

        def run(x: ttnn.Tensor) -> ttnn.Tensor:
            norm.launches += 1
            return op(norm, x)

        monkeypatch.setattr(norm, "op", run)
        return replacement

    monkeypatch.setattr("model_comparison.collect.replace_norms", faulty)


def run_script(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
