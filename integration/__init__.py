"""Norm layers on a Tenstorrent device as torch modules, and their replacement in a HuggingFace model."""

from integration.layernorm import TtLayerNorm
from integration.replace import NormError, find_norms, replace_norms
from integration.rmsnorm import TtRMSNorm

__all__ = ["NormError", "TtLayerNorm", "TtRMSNorm", "find_norms", "replace_norms"]
