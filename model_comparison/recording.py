# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a comparison looks at, kept so that it can be judged again: the tensors of all runs of a block, in one file.

The file is safetensors. Its tensors are `<run>/<activation>/<what>`, as in `result/input_layernorm/output`, and
`weights/<norm>/gamma` and `beta`; its metadata holds `recording`, a JSON object with "schema": 1, the norms' formulas,
the order of the activations and the facts of the run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from common.files import WriteError, written_whole
from integration import Formula, FoundNorm
from model_comparison.activations import Activation, Choice, NormActivation, Run
from weights_tools.files import save_tensors

SCHEMA = 1


class RecordingError(ValueError):
    """A file that holds no recording, or can't be written. One line."""


@dataclass(frozen=True)
class RecordedNorm:
    """One norm of the block.

    Attributes:
        formula: what HuggingFace's module was found to compute
        gamma, beta: (W,) as loaded, or None where there is none
        launches: of the device for this norm
    """

    formula: Formula
    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    launches: int

    @classmethod
    def of(cls, found: FoundNorm, launches: int) -> "RecordedNorm":
        """Args: found: one that the kernels can stand in for"""
        assert found.formula is not None
        weights = dict(found.module.named_parameters())
        gamma, beta = (weights[name].detach() if name else None for name in (found.formula.gamma, found.formula.beta))
        return cls(found.formula, gamma, beta, launches)

    def golden(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """HuggingFace's norm of `x` in float64, and the sum of the magnitudes of the terms that add up to each element,
        |x_hat * gamma| + |beta|: (..., W) both."""
        golden = self.formula.golden(x, self.gamma, self.beta)
        if self.beta is None:
            return golden, golden.abs()
        return golden, (golden - self.beta.double()).abs() + self.beta.double().abs()


@dataclass(frozen=True)
class Recording:
    """All that the device and the CPU computed for one comparison.

    Attributes:
        norms: those on the device, by their module names in the layer
        reference: HuggingFace's run in bfloat16
        float32: HuggingFace's run in float32 on the same weights; None if each norm was run alone
        result: the run with the device's norms; if each norm was run alone, it has no choices and an empty output
        facts: of the run, for the reader of a report; what JSON can hold
    """

    norms: dict[str, RecordedNorm]
    reference: Run
    float32: Run | None
    result: Run
    facts: dict[str, Any]

    @property
    def tokens(self) -> int:
        return self.reference.output.shape[1]

    def save(self, path: Path) -> None:
        """Writes the file, which is there as a whole or not at all.

        Raises:
            RecordingError: it can't be written
        """
        tensors = {
            f"weights/{name}/{kind}": weight
            for name, norm in self.norms.items()
            for kind, weight in (("gamma", norm.gamma), ("beta", norm.beta))
            if weight is not None
        }
        for kind, run in self._runs().items():
            tensors |= {f"{kind}/{name}": tensor for name, tensor in _tensors(run).items()}
        content = {
            "schema": SCHEMA,
            "norms": {name: _formula(norm) for name, norm in self.norms.items()},
            "runs": {
                kind: {name: _layout(activation) for name, activation in run.activations.items()}
                for kind, run in self._runs().items()
            },
            "facts": self.facts,
        }
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        try:
            with written_whole(path, force=True) as new:
                save_tensors(contiguous, new, {"recording": json.dumps(content)})
        except WriteError as error:
            raise RecordingError(str(error)) from error

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """
        Raises:
            RecordingError: the file can't be read or is no recording of this version
        """
        try:
            with safe_open(path, framework="pt") as file:
                content = json.loads((file.metadata() or {}).get("recording", "{}"))
                if content.get("schema") != SCHEMA:
                    raise RecordingError(
                        f"{path}: schema of the recording must be {SCHEMA}, but is {content.get('schema')}:"
                        " record again with --save"
                    )
                tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            runs = {kind: _run(kind, layouts, tensors) for kind, layouts in content["runs"].items()}
            norms = {name: _norm(name, formula, tensors) for name, formula in content["norms"].items()}
            return cls(norms, runs["reference"], runs.get("exact"), runs["result"], content["facts"])
        except (OSError, SafetensorError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise RecordingError(f"{path}: can't read it as a recording of --save ({error})") from error

    def _runs(self) -> dict[str, Run]:
        """By their keys in the file. Schema 1 calls the float32 run "exact"."""
        runs = {"reference": self.reference, "exact": self.float32, "result": self.result}
        return {kind: run for kind, run in runs.items() if run is not None}


def _tensors(run: Run) -> dict[str, torch.Tensor]:
    tensors = {"output": run.output}
    for name, activation in run.activations.items():
        if isinstance(activation, NormActivation):
            tensors |= {f"{name}/input": activation.input, f"{name}/output": activation.output}
        elif isinstance(activation, Choice):
            tensors |= {f"{name}/scores": activation.scores, f"{name}/chosen": activation.chosen}
        else:
            tensors[f"{name}/tensor"] = activation
    return tensors


def _layout(activation: Activation) -> dict[str, Any]:
    """What a choice's tensors don't tell; of other activations, nothing."""
    if not isinstance(activation, Choice):
        return {}
    names = [field.name for field in fields(Choice) if field.name not in ("scores", "chosen")]
    return {name: getattr(activation, name) for name in names}


def _run(kind: str, layouts: Mapping[str, dict[str, Any]], tensors: Mapping[str, torch.Tensor]) -> Run:
    def activation(name: str, layout: dict[str, Any]) -> Activation:
        start = f"{kind}/{name}/"
        if layout:
            return Choice(tensors[start + "scores"], tensors[start + "chosen"], **layout)
        if start + "tensor" in tensors:
            return tensors[start + "tensor"]
        return NormActivation(tensors[start + "input"], tensors[start + "output"])

    return Run({name: activation(name, layout) for name, layout in layouts.items()}, tensors[f"{kind}/output"])


def _formula(norm: RecordedNorm) -> dict[str, Any]:
    dtypes = sorted([_name(of_x), _name(of_weights)] for of_x, of_weights in norm.formula.dtypes)
    fields = {"eps" if name == "epsilon" else name: value for name, value in asdict(norm.formula).items()}
    return fields | {"dtypes": dtypes, "launches": norm.launches}


def _norm(name: str, recorded: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> RecordedNorm:
    fields = dict(recorded)
    launches = fields.pop("launches")
    dtypes = frozenset((getattr(torch, of_x), getattr(torch, of_weights)) for of_x, of_weights in fields["dtypes"])
    gamma, beta = (tensors.get(f"weights/{name}/{kind}") for kind in ("gamma", "beta"))
    formula = Formula(epsilon=fields.pop("eps"), **fields | {"dtypes": dtypes})
    return RecordedNorm(formula, gamma, beta, launches)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
