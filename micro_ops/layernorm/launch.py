# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The launch of a norm that is prepared, or of several side by side, each on its own cores."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations, product

import ttnn

from micro_ops.layernorm.arguments import LayerNormArgumentError, Operands
from micro_ops.layernorm.placement import Core, share_memory
from micro_ops.layernorm.program import rectangles

type Result = ttnn.Tensor | tuple[ttnn.Tensor, ttnn.Tensor]  # the output; with a residual, the output and the sum


@dataclass(frozen=True, eq=False)
class Prepared:
    """A norm that is checked and laid out, with its output allocated. It runs as often as it is given to
    `run_together`, on what its tensors hold then.

    Attributes:
        operands: what it reads
        output: what it writes
        residual_output: where input + residual goes, if there is a residual
        program: its kernels, CBs and semaphores; None if there are no rows
        cores: that it runs on
        statistics: that it reads, too, of all chips that have columns of its rows
        l1_bytes: what its CBs take of the L1 of each of them
    """

    operands: Operands
    output: ttnn.Tensor
    residual_output: ttnn.Tensor | None = None
    program: ttnn.ProgramDescriptor | None = None
    cores: frozenset[Core] = frozenset()
    l1_bytes: int = 0
    statistics: ttnn.Tensor | None = None

    @property
    def tensors(self) -> dict[str, ttnn.Tensor]:
        """Those that are given, by name; the output last."""
        named = {
            **vars(self.operands),
            "statistics": self.statistics,
            "residual_output": self.residual_output,
            "output": self.output,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def result(self) -> Result:
        return self.output if self.residual_output is None else (self.output, self.residual_output)


def run_together(*prepared: Prepared) -> list[Result]:
    """Runs norms side by side, in one launch, and returns their results.

    Each has the bits that it has alone. One without rows runs nothing.

    Args:
        prepared: of one device, each on cores of its own, where none writes what another reads or writes
    Raises:
        LayerNormArgumentError: they are not so; a tensor has been freed; or tensors that were allocated since have
            taken L1 that the CBs need
    """
    running = [call for call in prepared if call.program is not None]
    for call in running:
        _check_memory(call)
    for pair in combinations(running, 2):
        _check_apart(*pair)
    if running:
        programs = [call.program for call in running]
        program = programs[0] if len(programs) == 1 else ttnn.merge_program_descriptors(programs)
        ttnn.generic_op([tensor for call in running for tensor in call.tensors.values()], program)
    return [call.result for call in prepared]


def free_l1(device: ttnn.Device) -> int:
    """Bytes of a core's L1 below all tensors that are there, which CBs may take."""
    blocks = ttnn.get_memory_view(device, ttnn.BufferType.L1).block_table
    lowest = next((block for block in blocks if int(block["address"]) == 0), None)
    return int(lowest["size"]) if lowest and lowest["allocated"] == "no" else 0


def _check_memory(call: Prepared) -> None:
    for name, tensor in call.tensors.items():
        if not tensor.is_allocated():
            raise LayerNormArgumentError(f"{name} must be allocated, but its buffer has been freed")
    # The plan was made before the output was allocated, and those of the calls that were prepared later.
    free = free_l1(call.output.device())
    if call.l1_bytes > free:
        raise LayerNormArgumentError(
            f"a norm needs {call.l1_bytes} bytes of L1 for its CBs, but a core has {free} left beside the tensors that"
            " are there now: allocate them all, its output too, before it is prepared"
        )


def _check_apart(one: Prepared, other: Prepared) -> None:
    devices = one.output.device(), other.output.device()
    if devices[0] != devices[1]:
        raise LayerNormArgumentError(f"norms run together on one device, but are on {devices[0]} and {devices[1]}")
    if one.cores & other.cores:
        raise LayerNormArgumentError(
            f"norms run together on cores of their own, but one takes {_as_text(one.cores)} and another"
            f" {_as_text(other.cores)}: give each a ttnn.CoreRange of its own as cores, or shards on other cores"
        )
    for writer, user in ((one, other), (other, one)):
        written = {name: tensor for name, tensor in writer.tensors.items() if name in ("output", "residual_output")}
        for (name, output), (of_other, tensor) in product(written.items(), user.tensors.items()):
            if share_memory(output, tensor):
                raise LayerNormArgumentError(
                    f"norms run together only if none writes what another reads or writes, but the {name} of one, at"
                    f" {output.buffer_address():#x}, shares memory with the {of_other} of another, at"
                    f" {tensor.buffer_address():#x}"
                )


def _as_text(cores: Collection[Core]) -> str:
    return ", ".join(f"{rectangle.first} to {rectangle.last}" for rectangle in rectangles(cores))
