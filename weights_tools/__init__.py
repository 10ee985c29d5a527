# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: reads DeepSeek weights tensor by tensor, and makes synthetic ones. Knows no device.

>>> from weights_tools import Checkpoint, write_synthetic
>>> folder = write_synthetic("/tmp/deepseek-small")                                     # doctest: +SKIP
>>> Checkpoint(folder).weights("model.layers.3.self_attn.indexer.k_norm").keys()        # doctest: +SKIP
dict_keys(['weight', 'bias'])

`python -m weights_tools --help` shows what there is on the command line.
"""

from weights_tools.architecture_v3 import Geometry
from weights_tools.architecture_v4 import GeometryV4
from weights_tools.checkpoint import Checkpoint
from weights_tools.errors import CheckpointError
from weights_tools.synthetic import default_checkpoint, write_synthetic

__all__ = ["Checkpoint", "CheckpointError", "Geometry", "GeometryV4", "default_checkpoint", "write_synthetic"]
