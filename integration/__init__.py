# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Norm layers on a Tenstorrent device as torch modules, and their replacement in a HuggingFace model."""

from integration.find import FoundNorm, NormError, NormPlan, find_norms
from integration.formula import Formula
from integration.layernorm import TtLayerNorm
from integration.norm import NormInputError, TtNorm
from integration.probe import NotANormError
from integration.replace import Replacement, replace_norms
from integration.rmsnorm import TtRMSNorm
from micro_ops.layernorm import LayerNormArgumentError

__all__ = [
    "Formula",
    "FoundNorm",
    "LayerNormArgumentError",
    "NormError",
    "NormInputError",
    "NormPlan",
    "NotANormError",
    "Replacement",
    "TtLayerNorm",
    "TtNorm",
    "TtRMSNorm",
    "find_norms",
    "replace_norms",
]
