# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The model that transformers builds from a config.json, on the meta device: modules and shapes without memory."""

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from weights_tools.errors import CheckpointError

# No part of the model: code to be downloaded, which is never run, and how weights are stored, which `Checkpoint` knows.
LEFT_OUT = ("auto_map", "quantization_config")


def meta_model(config: Mapping[str, Any]) -> PreTrainedModel:
    """The causal language model in bfloat16, with the attention and the experts that transformers calls eager.

    Args:
        config: config.json's content
    Raises:
        CheckpointError: transformers has no such model, or can't build it of this config
    """
    content = {name: _decoded(value) for name, value in config.items() if name not in LEFT_OUT}
    model_type = content.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        known = f"one that transformers {transformers.__version__} knows"
        raise CheckpointError(f"model_type must be {known}, but is {short(model_type)}")
    config_class = CONFIG_MAPPING[model_type]
    if config_class in MODEL_FOR_CAUSAL_LM_MAPPING:
        auto: Any = AutoModelForCausalLM
    elif config_class in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:  # Kimi K2.5: its text model is a part
        auto = AutoModelForImageTextToText
    else:
        raise CheckpointError(f"transformers has no causal language model of model_type {model_type}")
    try:
        parsed = config_class.from_dict(content)
    except Exception as error:  # a config class may raise anything
        raise CheckpointError(_one_line(error)) from error
    try:
        with torch.device("meta"):
            model: PreTrainedModel = auto.from_config(
                parsed, dtype=torch.bfloat16, attn_implementation="eager", experts_implementation="eager"
            )
    except Exception as error:  # so may a model's
        raise CheckpointError(f"transformers can't build the model: {_one_line(error)}") from error
    return model


def _decoded(value: Any) -> Any:
    """Floats that JSON can't hold are `{"__float__": "Infinity"}` in what transformers saves."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__float__"}:
        return float(value["__float__"])
    return {name: _decoded(item) for name, item in value.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
