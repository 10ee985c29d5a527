# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""LayerNorm and RMSNorm as `ttnn.generic_op`s with kernels of their own."""

from micro_ops.layernorm.arguments import LayerNormArgumentError
from micro_ops.layernorm.launch import Prepared, Result, run_together
from micro_ops.layernorm.op import Cores, LayerNorm, LayerNormSingleCore, RMSNorm, RMSNormSingleCore
from micro_ops.layernorm.plan import CbContractError
from micro_ops.layernorm.program import Tap

__all__ = [
    "CbContractError",
    "Cores",
    "LayerNorm",
    "LayerNormArgumentError",
    "LayerNormSingleCore",
    "Prepared",
    "RMSNorm",
    "RMSNormSingleCore",
    "Result",
    "Tap",
    "run_together",
]
