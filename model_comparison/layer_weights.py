# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""One decoder layer's weights, read from a checkpoint into the module that transformers built on the meta device.

Which tensors make which parameter is transformers' own table (`transformers.conversion_mapping`): DeepSeek-V4's are
stored under other names, and every model's experts one matrix at a time, though the module has one tensor of all.
"""

import re
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    build_glob_alternation,
    dot_natural_key,
    rename_source_key,
)

from weights_tools import Checkpoint, CheckpointError

type _Sources = dict[str, list[str]]  # keys in the checkpoint, by the pattern of the converter's that they match


def fill_layer(model: PreTrainedModel, name: str, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """Gives the layer `name` of `model` (as "model.layers.3") its weights, and no other tensor is read. Matrices of
    routed experts become `ExpertMatrices`, which are read when the layer runs.

    Args:
        dtype: bfloat16, with what transformers keeps in float32 when it loads the model in bfloat16, or float32: the
            same values in float32
    Raises:
        CheckpointError: its tensors don't fit the config
    """
    layer = model.get_submodule(name)
    wanted = {f"{name}.{key}": tensor for key, tensor in layer.state_dict().items()}
    sources, converters = _sources(model, name, wanted, checkpoint)
    kept = _kept_in_float32(model)
    state = {}
    for target, of_target in sources.items():
        parameter = wanted.get(target)
        is_kept = kept is not None and kept.search(target) is not None
        loaded = torch.float32 if is_kept else torch.bfloat16 if parameter is None else parameter.dtype
        used = dtype if loaded.is_floating_point and dtype == torch.float32 else loaded
        converter = converters.get(target)
        if converter and parameter is not None and _is_of_experts(converter, parameter):
            module, _, attribute = target.removeprefix(f"{name}.").rpartition(".")
            experts = layer.get_submodule(module)
            matrices = ExpertMatrices(checkpoint, converter, of_target, experts, attribute, (loaded, used))
            delattr(experts, attribute)
            setattr(experts, attribute, matrices)
        else:
            tensors = {pattern: [checkpoint.weight(key, loaded) for key in keys] for pattern, keys in of_target.items()}
            state[target.removeprefix(f"{name}.")] = _converted(tensors, converter, target).to(used)
    try:
        layer.load_state_dict(state, assign=True)
    except RuntimeError as error:
        details = " ".join(str(error).split())
        raise CheckpointError(f"{checkpoint.folder}: {name} does not fit config.json: {details}") from error


class ExpertMatrices:
    """In place of the parameter (experts, R, C) of a module of experts: `matrices[expert]` reads that expert's matrices
    and keeps none, so that the module's own eager forward reads those that tokens are routed to."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        converter: WeightConverter,
        sources: _Sources,
        experts: nn.Module,
        attribute: str,
        dtypes: tuple[torch.dtype, torch.dtype],
    ) -> None:
        """
        Args:
            experts, attribute: the module, and its parameter's name
            dtypes: to which a matrix is rounded, and in which it is used
        Raises:
            CheckpointError: the checkpoint lacks a matrix of an expert
        """
        self._checkpoint = checkpoint
        self._converter = converter
        self._dtypes = dtypes
        parameters = {name: tuple(parameter.shape) for name, parameter in experts.named_parameters()}
        self._shape = parameters[attribute][1:]
        # LongCat-Flash's gate_up_proj has room for its identity experts, too, which have no matrices.
        count = min(shape[0] for shape in parameters.values() if len(shape) == 3)
        self._keys: list[dict[str, str]] = [{} for _ in range(count)]  # of each expert, by pattern
        for pattern, keys in sources.items():
            by_number = {_expert(key): key for key in keys}
            for number in range(count):
                if number not in by_number:
                    missing = _NUMBER.sub(str(number), keys[0])
                    raise CheckpointError(
                        f"{checkpoint.folder}: has no {missing}, though config.json says {count} experts"
                    )
                self._keys[number][pattern] = by_number[number]

    def __getitem__(self, expert: int | torch.Tensor) -> torch.Tensor:
        """(R, C) of the block's dtype.

        Raises:
            CheckpointError: a matrix can't be read, or has not the shape that config.json says
        """
        keys = self._keys[int(expert)]
        loaded, used = self._dtypes
        tensors = {pattern: [self._checkpoint.weight(key, loaded)] for pattern, key in keys.items()}
        stored = ", ".join(f"{keys[pattern]} {tuple(tensor.shape)}" for pattern, [tensor] in tensors.items())
        try:
            matrix = _converted(tensors, self._converter, next(iter(keys.values())))[0]
        except RuntimeError:  # torch's, of matrices that do not fit each other
            matrix = torch.empty(0)
        if matrix.shape != self._shape:
            raise CheckpointError(
                f"{self._checkpoint.folder}: must make a matrix of {self._shape} by config.json, but does not: {stored}"
            )
        return matrix.to(used)


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.(?!.*\.\d+\.))")  # the last number in a key, between dots: an expert's


def _expert(key: str) -> int:
    number = _NUMBER.search(key)
    return int(number[0]) if number else -1


def _sources(
    model: PreTrainedModel, name: str, wanted: dict[str, torch.Tensor], checkpoint: Checkpoint
) -> tuple[dict[str, _Sources], dict[str, WeightConverter]]:
    """What is stored for each of the layer's tensors, and what makes it of that where it is not stored as it is.

    A tensor of the layer's that the module does not have is listed, too: `load_state_dict` names it.

    Args:
        name: of the layer
        wanted: its tensors, by their whole names
    Raises:
        CheckpointError: there is none
    """
    number = name.rpartition(".")[2]
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    sources: dict[str, _Sources] = {}
    used: dict[str, WeightConverter] = {}
    keys = [key for key in checkpoint.keys() if f".{number}." in f".{key}"]  # noqa: SIM118  (no mapping)
    for key in sorted(keys, key=dot_natural_key):
        target, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, wanted)
        if target not in wanted and key in wanted:  # saved by transformers under the module's own names
            target, pattern = key, None
        if not target.startswith(f"{name}."):
            continue
        if pattern is not None:
            used[target] = by_pattern[pattern]
        sources.setdefault(target, {}).setdefault(pattern or key, []).append(key)
    if not sources:
        raise CheckpointError(f"{checkpoint.folder}: holds no tensor of layer {number}: download its shards")
    return sources, used


def _is_of_experts(converter: WeightConverter, parameter: torch.Tensor) -> bool:
    return parameter.ndim == 3 and isinstance(converter.operations[0], MergeModulelist)


def _converted(tensors: dict[str, list[torch.Tensor]], converter: WeightConverter | None, target: str) -> torch.Tensor:
    """The tensor that is made of those stored."""
    made: dict[str, Any] = tensors
    if converter is not None:
        patterns = {"source_patterns": converter.source_patterns, "target_patterns": converter.target_patterns}
        for operation in converter.operations:
            made = operation.convert(made, **patterns, full_layer_name=target)
    [stored] = made.values()
    tensor: torch.Tensor = stored[0] if isinstance(stored, list) else stored
    return tensor


def _kept_in_float32(model: PreTrainedModel) -> re.Pattern[str] | None:
    """Matches names of tensors that transformers keeps in float32 when it loads the model in bfloat16."""
    patterns = list(model._get_dtype_plan(torch.bfloat16))
    return build_glob_alternation(patterns)[0] if patterns else None
