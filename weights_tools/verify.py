# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Holds a checkpoint to its config.json: every tensor that the architecture calls for, and no other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import torch

from weights_tools.architecture import Architecture, Spec
from weights_tools.checkpoint import CONFIG, Checkpoint
from weights_tools.errors import CheckpointError
from weights_tools.float8 import FLOAT8
from weights_tools.models import geometry_of
from weights_tools.mxfp4 import PACKED
from weights_tools.statistics import count_non_finite

MOST_MISSING = 200_000  # DeepSeek-V3 has 46,183 weights in all
_FLOATS = (torch.bfloat16, torch.float16, torch.float32)
_MAY_BE = {  # by the type on the hub. What is quantized there may have been dequantised, FP4 to float8, too
    FLOAT8: (FLOAT8, *_FLOATS),
    PACKED: (PACKED, FLOAT8, *_FLOATS),
    torch.int64: (torch.int64, torch.int32),
}


class Problem(NamedTuple):
    """kind: missing, unexpected, shape, dtype, scale, unreadable or not finite. message: what is wrong, in one line."""

    kind: str
    key: str
    message: str


@dataclass
class Report:
    """`checked` counts the tensors compared, scales not counted. `notes` are no faults."""

    checked: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    checkpoint: Checkpoint, *, values: bool = False, progress: Callable[[int, int], None] = lambda *_: None
) -> Report:
    """Compare keys, shapes and types with what config.json calls for, from the headers alone.

    MTP layers may be missing as a whole, which is a note. A synthetic checkpoint of single layers is held to those.

    Args:
        checkpoint: opened with `mtp=True`
        values: read all tensors, too, one at a time, and report those with NaN or Inf
        progress: is called with (tensors looked at, tensors in all)

    Raises:
        CheckpointError: config.json does not describe a DeepSeek-V3, V3.2 or V4 model, or one of which more than
            `MOST_MISSING` tensors are missing
    """
    try:
        geometry = geometry_of(checkpoint.config)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.folder / CONFIG}: {error}") from error
    report = Report()
    stored = checkpoint.keys()
    most = len(stored) + MOST_MISSING
    specs = {spec.key: spec for spec in islice(_called_for(checkpoint, geometry, report), most + 1)}
    if len(specs) > most:
        raise CheckpointError(
            f"{checkpoint.folder / CONFIG}: calls for more than {most} tensors ({geometry.num_hidden_layers} layers,"
            f" {geometry.n_routed_experts} experts), but the checkpoint holds {len(stored)}: it is of another model"
        )
    report.problems += [
        Problem("missing", spec.key, f"must be there, of shape {spec.shape}")
        for spec in specs.values()
        if spec.key not in checkpoint
    ]
    for number, key in enumerate(stored, 1):
        if key in specs:
            report.checked += 1
            report.problems += _check(checkpoint, specs[key], values)
        else:
            report.problems.append(Problem("unexpected", key, f"{CONFIG} calls for no such tensor"))
        progress(number, len(stored))
    return report


def _called_for(checkpoint: Checkpoint, geometry: Architecture, report: Report) -> Iterator[Spec]:
    """One after another: a broken config.json may call for any number."""
    layers = checkpoint.metadata.get("synthetic_layers")
    if isinstance(layers, list) and all(number in geometry.layer_numbers for number in layers):
        report.notes.append(f"synthetic, with only the layers {layers} of {geometry.num_hidden_layers}")
        return (spec for number in dict.fromkeys(layers) for spec in geometry.decoder_layer(number))
    if geometry.num_nextn_predict_layers and not checkpoint.mtp_keys():
        report.notes.append(f"without the MTP layers that {CONFIG} counts: models run without them")
        geometry = replace(geometry, num_nextn_predict_layers=0)
    return geometry.tensors()


def _check(checkpoint: Checkpoint, spec: Spec, values: bool) -> list[Problem]:
    """What is wrong with a tensor that is there."""
    try:
        shape, dtype = checkpoint.weight_shape(spec.key), checkpoint.dtype(spec.key)
    except CheckpointError as error:
        return [Problem("unreadable", spec.key, str(error))]
    problems = []
    if shape != spec.shape:
        problems.append(Problem("shape", spec.key, f"must be {spec.shape}, but is {shape}"))
    known = _MAY_BE.get(spec.dtype, _FLOATS)
    if dtype not in known:
        problems.append(Problem("dtype", spec.key, f"must be one of {', '.join(map(str, known))}, but is {dtype}"))
    try:
        checkpoint.check(spec.key)
    except CheckpointError as error:
        problems.append(Problem("scale", spec.key, str(error)))
    if values:
        problems += _check_values(checkpoint, spec.key)
    return problems


def _check_values(checkpoint: Checkpoint, key: str) -> list[Problem]:
    """Of the tensor and of its scales."""
    problems = []
    for stored in filter(None, (key, checkpoint.scale_key(key))):
        nan, inf = count_non_finite(checkpoint.tensor(stored))
        if nan or inf:
            problems.append(Problem("not finite", stored, f"holds {nan} NaN and {inf} Inf"))
    return problems
