# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How a launch is laid out: which core does which rows and columns, in what portions, through which circular buffers.

A plan is a value: nothing here asks a device, so plans are made, compared and tested without one. It knows the
operands' shapes, dtypes and layout, not what is computed of them.
"""

import math
from dataclasses import dataclass

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, LayerNormArgumentError

# CB indices: consecutive from 0, because the firmware looks at each index up to the highest before a kernel starts
CB_INPUT = 0
CB_GAMMA = 1
CB_BETA = 2
CB_OUTPUT = 3
CB_NAMES = {CB_INPUT: "CB_INPUT", CB_GAMMA: "CB_GAMMA", CB_BETA: "CB_BETA", CB_OUTPUT: "CB_OUTPUT"}

TILE_ELEMENTS = 1024
HALF_FACE_ELEMENTS = 128  # 8 x 16: what one FPU instruction works on (kernels/dest.h holds it to Dest's 8 rows of 16)
GROUP_ROWS = 4  # rows side by side in Dest; 1 if there is but one row, or if L1 has no room (kernels/dest.h)
GROUPS_IN_FLIGHT = 2  # groups whose reads the reader has issued and not yet pushed
RING_GROUPS = 4  # groups that CB_INPUT holds: compute works on two, and two are on their way
OUTPUT_PAGES = 8  # tiles that CB_OUTPUT holds: four steps of two, or eight of one


class CbContractError(RuntimeError):
    """A plan on which the kernels would hang or go wrong: our fault, not an argument's; raised before the launch."""


@dataclass(frozen=True)
class Dtypes:
    """Of the operands; gamma and beta None where there is none. The output has the input's."""

    input: ttnn.DataType
    gamma: ttnn.DataType | None
    beta: ttnn.DataType | None


@dataclass(frozen=True)
class CircularBuffer:
    """One CB, the same on every core of the plan."""

    index: int
    pages: int
    page_elements: int
    dtype: ttnn.DataType

    @property
    def page_size(self) -> int:
        """Bytes."""
        return self.page_elements * ELEMENT_SIZES[self.dtype]

    @property
    def size(self) -> int:
        """Bytes of L1."""
        return self.pages * self.page_size


@dataclass(frozen=True)
class Share:
    """What one core does: `rows` of the input, and of each of them `columns`."""

    core: tuple[int, int]  # logical x and y
    rows: range
    columns: range


@dataclass(frozen=True)
class Plan:
    """A launch over row-major sticks, interleaved in DRAM.

    Attributes:
        reader, writer: kernels (files of kernels/, without .cpp) that know where the operands lie
        width: W, elements of a row
        rows: product of the input's dimensions but the last
        group_rows: rows in Dest at once, 4 or 1
        piece: elements of a row in Dest at once, a multiple of HALF_FACE_ELEMENTS
        steps: pieces of a row; the last is padded with zeros
        shares: the cores, each with its rows and columns; every element is in one share
        cbs: the circular buffers of SPEC.md's table, of each core
    """

    reader: str
    writer: str
    width: int
    rows: int
    group_rows: int
    piece: int
    steps: int
    shares: tuple[Share, ...]
    cbs: tuple[CircularBuffer, ...]

    @property
    def l1_bytes(self) -> int:
        """What the CBs take of a core's L1."""
        return sum(cb.size for cb in self.cbs)


def make_plan(input_shape: tuple[int, ...], dtypes: Dtypes, l1_bytes: int) -> Plan:
    """The plan with groups of `GROUP_ROWS` rows; of one, if there is but one row or L1 can't hold four side by side.

    Args:
        input_shape: (..., W)
        l1_bytes: what a core has for CBs, `ttnn.get_max_worker_l1_unreserved_size()` of an open device
    Raises:
        LayerNormArgumentError: L1 has no room for single rows either
    """
    needed = 0
    for group_rows in (GROUP_ROWS, 1) if math.prod(input_shape[:-1]) > 1 else (1,):
        plan = _plan_groups(input_shape, dtypes, group_rows)
        needed = plan.l1_bytes
        if needed <= l1_bytes:
            return plan
    raise LayerNormArgumentError(
        f"rows of {input_shape[-1]} elements need {needed} bytes of L1, but a core has {l1_bytes}"
    )


def least_l1_bytes(width: int, dtypes: Dtypes) -> int:
    """What the CBs take where rows of `width` elements go through Dest one by one: wider rows can't be served."""
    return _plan_groups((width,), dtypes, 1).l1_bytes


def _plan_groups(input_shape: tuple[int, ...], dtypes: Dtypes, group_rows: int) -> Plan:
    width, rows = input_shape[-1], math.prod(input_shape[:-1])
    half_faces = math.ceil(width / HALF_FACE_ELEMENTS)
    piece_half_faces = min(half_faces, 4) if group_rows > 1 or half_faces <= 4 else 8
    piece = piece_half_faces * HALF_FACE_ELEMENTS
    steps = math.ceil(width / piece)
    weights = ((CB_GAMMA, dtypes.gamma), (CB_BETA, dtypes.beta))
    return Plan(
        reader="reader",
        writer="writer",
        width=width,
        rows=rows,
        group_rows=group_rows,
        piece=piece,
        steps=steps,
        shares=(Share(core=(0, 0), rows=range(rows), columns=range(width)),),
        cbs=(
            CircularBuffer(CB_INPUT, RING_GROUPS * group_rows * steps, piece, dtypes.input),
            *(CircularBuffer(index, steps, piece, dtype) for index, dtype in weights if dtype is not None),
            CircularBuffer(CB_OUTPUT, OUTPUT_PAGES, TILE_ELEMENTS, dtypes.input),
        ),
    )


def check_contract(plan: Plan) -> None:
    """Whether the plan keeps the contracts on top of the kernels: the CBs hold what is waited for at once, and one core
    does all, since the kernels begin at row 0 and take whole rows.

    Raises:
        CbContractError: a wait that would never end, pages that would lie apart where the kernels count on a row, or
            rows and columns that no core would do
    """
    whole = (range(plan.rows), range(plan.width))
    if [(share.rows, share.columns) for share in plan.shares] != [whole]:
        raise CbContractError(
            f"one share must have all {plan.rows} rows and {plan.width} columns, but the shares have"
            f" {', '.join(f'{len(s.rows)} x {len(s.columns)}' for s in plan.shares)}"
        )
    pages = {cb.index: cb.pages for cb in plan.cbs}
    group = plan.group_rows * plan.steps
    # Compute frees a group only when it has all of the next, and the reader reserves room for two at once.
    if pages[CB_INPUT] % group or pages[CB_INPUT] < (1 + GROUPS_IN_FLIGHT) * group:
        raise CbContractError(
            f"CB_INPUT must hold whole groups of {group} pages, {1 + GROUPS_IN_FLIGHT} at least,"
            f" but holds {pages[CB_INPUT]} pages"
        )
    if pages[CB_INPUT] >= 2**16:  # as wide as the CBs' counters are
        raise CbContractError(f"CB_INPUT must hold fewer than {2**16} pages, but holds {pages[CB_INPUT]}")
    for index in (CB_GAMMA, CB_BETA):
        if pages.get(index, plan.steps) != plan.steps:
            raise CbContractError(f"{CB_NAMES[index]} must hold a row's {plan.steps} pages, but holds {pages[index]}")
    step = math.ceil(plan.group_rows * plan.piece / TILE_ELEMENTS)
    if pages[CB_OUTPUT] % step or not pages[CB_OUTPUT]:
        raise CbContractError(f"CB_OUTPUT must hold whole steps of {step} pages, but holds {pages[CB_OUTPUT]}")
