"""DeepSeek norm layers on a Tenstorrent device: the modules, and the check against HuggingFace's."""

from integration.layernorm import TtLayerNorm
from integration.replace import NormError, find_norms, replace_norms
from integration.rmsnorm import TtRMSNorm

__all__ = ["NormError", "TtLayerNorm", "TtRMSNorm", "find_norms", "replace_norms"]
