"""DeepSeek norm layers on a Tenstorrent device: the modules, and the check against HuggingFace's."""

from integration.layernorm import TtLayerNorm
from integration.rmsnorm import TtRMSNorm

__all__ = ["TtLayerNorm", "TtRMSNorm"]
