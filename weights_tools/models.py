# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Which architecture a model's is."""

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, Literal

from weights_tools import architecture_v3, architecture_v4
from weights_tools.architecture import Architecture
from weights_tools.architecture_v3 import Geometry
from weights_tools.architecture_v4 import GeometryV4
from weights_tools.errors import CheckpointError

Model = Literal["v3", "v32", "v4"]
MODEL_TYPES = {**architecture_v3.MODEL_TYPES, "v4": architecture_v4.MODEL_TYPE}  # as config.json names them


def geometry_of(config: Mapping[str, Any]) -> Architecture:
    """The geometry that a config.json describes.

    Raises:
        CheckpointError: it is of another model, lacks a size, or has an option that changes the tensors
    """
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES.values():
        *most, last = MODEL_TYPES.values()
        raise CheckpointError(f"model_type must be {', '.join(most)} or {last}, but is {short(model_type)}")
    return (GeometryV4 if model_type == architecture_v4.MODEL_TYPE else Geometry).from_config(config)


def small_geometry(model: Model) -> Architecture:
    """Of the default synthetic checkpoint."""
    return GeometryV4() if model == "v4" else Geometry(model=model)
