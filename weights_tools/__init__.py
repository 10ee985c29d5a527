"""Checkpoints on disk: reads DeepSeek weights tensor by tensor, and makes small synthetic ones. Knows no device.

>>> from weights_tools import Checkpoint, write_synthetic
>>> write_synthetic("/tmp/deepseek-small")                                              # doctest: +SKIP
>>> Checkpoint("/tmp/deepseek-small").tensors("model.layers.3.self_attn.indexer.k_norm").keys()  # doctest: +SKIP
dict_keys(['bias', 'weight'])
"""

from weights_tools.architecture import Geometry
from weights_tools.checkpoint import Checkpoint, CheckpointError
from weights_tools.synthetic import default_checkpoint, write_synthetic

__all__ = ["Checkpoint", "CheckpointError", "Geometry", "default_checkpoint", "write_synthetic"]
