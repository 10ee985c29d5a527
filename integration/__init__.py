# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Norms on a Tenstorrent device, as torch modules and as ttnn calls them; their replacement in a model or a graph."""

from integration import ttnn_norms
from integration.find import FoundNorm, NormError, NormPlan, find_norms
from integration.formula import Formula
from integration.layernorm import TtLayerNorm
from integration.norm import NormInputError, TtNorm
from integration.probe import NotANormError
from integration.replace import Replacement, replace_norms
from integration.rmsnorm import TtRMSNorm
from integration.ttnn_norms import TtnnReplacement, replace_ttnn_norms
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
    "TtnnReplacement",
    "find_norms",
    "replace_norms",
    "replace_ttnn_norms",
    "ttnn_norms",
]
