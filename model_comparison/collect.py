# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a block three times on the same input: in bfloat16 with HuggingFace's norms (the reference), in float32 with the
same weights, and in bfloat16 with the chosen norms on the device (the result).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
import ttnn
from torch import nn

from integration import Replacement, find_norms, replace_norms
from micro_ops.layernorm import Cores
from model_comparison.activations import Activation, NormActivation, Run
from model_comparison.block import Block
from model_comparison.block_input import BlockInput, drawn_input
from model_comparison.names import short_names
from model_comparison.recording import RecordedNorm, Recording
from model_comparison.ttnn_paths import find_paths, on_ttnn_paths


def collect(
    block: Block,
    device: ttnn.Device,
    norms: Sequence[str] = ("*",),
    *,
    graph: Literal["torch", "ttnn"] = "torch",
    isolated: bool = False,
    block_input: BlockInput | None = None,
    cores: Cores = None,
    mesh_axis: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Recording:
    """Runs `block`, a bfloat16 one, and the same with norms on `device`.

    Args:
        norms: globs of those norms' module names in the layer; see `replace_norms`
        graph: what the norms are called from: HuggingFace's forward, with sticks that are uploaded, or, as far as they
            are in one of `ttnn_paths.PATHS`, ttnn's ops, with the tiles that those left on the device
        isolated: feed each norm the reference's input, and look at norms alone, without a float32 run; else run the
            block with all of them, so that their errors propagate
        block_input: default: `drawn_input(block)`
        cores, mesh_axis: as `replace_norms`'s
        tell: is called with what is going on, before it
    Raises:
        NormError: a pattern fits no norm, a norm can't run on the device, or no ttnn graph can be made of them
    """
    block_input = block_input or drawn_input(block)
    hidden_states, input_ids = block_input.hidden_states, block_input.input_ids
    facts = {
        "model": block.config.model_type,
        "layer": block.number,
        "tokens": hidden_states.shape[1],
        **block_input.facts,
        "graph": graph,
        "isolated": isolated,
        "mesh": "x".join(map(str, tuple(device.shape))),
        "index_topk": getattr(block.config, "index_topk", None),
    }

    originals = {norm.name: norm for norm in find_norms(block.layer, include=norms)}
    paths = find_paths(block.layer, originals) if graph == "ttnn" else []
    tell("reference on the CPU, bfloat16")
    reference = block.run(hidden_states, originals, input_ids)
    float32 = None
    if not isolated:
        tell("reference on the CPU, float32")
        float32 = Block(block.checkpoint, block.number, torch.float32).run(hidden_states.float(), originals, input_ids)
    with ExitStack() as stack:
        replacement = stack.enter_context(
            replace_norms(block.layer, device, include=norms, cores=cores, mesh_axis=mesh_axis)
        )
        stack.enter_context(_told(replacement, tell))
        stack.enter_context(on_ttnn_paths(block.layer, paths, replacement.norms, device, isolated=isolated))
        result = _run_alone(block.layer, reference) if isolated else block.run(hidden_states, originals, input_ids)
        recorded = {name: RecordedNorm.of(originals[name], norm.launches) for name, norm in replacement.norms.items()}
    return Recording(recorded, reference, float32, result, facts)


def _run_alone(layer: nn.Module, reference: Run) -> Run:
    """Each norm of the reference, as `layer` has it now, on the reference's input, in the reference's order."""
    activations: dict[str, Activation] = {}
    for name, activation in reference.activations.items():
        if isinstance(activation, NormActivation):
            activations[name] = NormActivation(activation.input, layer.get_submodule(name)(activation.input))
    return Run(activations, torch.empty(0))


@contextmanager
def _told(replacement: Replacement, tell: Callable[[str], None]) -> Iterator[None]:
    """Tells of each launch before it, as long as the context lasts."""
    count, short = len(replacement.norms), short_names(replacement.norms)
    started: list[str] = []

    def hook(name: str) -> Callable[..., None]:
        def on_forward(*_: object) -> None:
            started.append(name)
            tell(f"launching {short[name]}, {len(started)} of {count}")

        return on_forward

    handles = [norm.register_forward_pre_hook(hook(name)) for name, norm in replacement.norms.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
