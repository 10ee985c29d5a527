# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How torch tensors lie on the chips of a mesh: rows are dealt out, and columns cut if so wanted."""

import math
from dataclasses import dataclass

import torch
import ttnn

from micro_ops.layernorm.arguments import LayerNormArgumentError, paged_shape
from micro_ops.layernorm.op import CHIPS


@dataclass(frozen=True)
class Distribution:
    """
    Attributes:
        device: an open device, of one chip or of a mesh
        columns_axis: of the mesh, over whose chips columns are cut, as many on each; None where each chip has all
    """

    device: ttnn.Device
    columns_axis: int | None = None

    @property
    def across(self) -> int:
        """Chips that share a row."""
        return 1 if self.columns_axis is None else tuple(self.device.shape)[self.columns_axis]

    def refusal(self, width: int | None) -> str:
        """Why rows of `width` elements can't lie so, or ""; of None, why no rows can."""
        shape, axis = tuple(self.device.shape), self.columns_axis
        if axis is None:
            return ""
        if axis not in range(len(shape)):
            return f"mesh_axis must be one of {', '.join(map(str, range(len(shape))))}, but is {axis}"
        if self.across not in CHIPS:
            counts = ", ".join(map(str, CHIPS))
            return f"columns may be cut over {counts} chips, but axis {axis} of the mesh {shape} has {self.across}"
        if width is not None and width % self.across:
            return f"the width must be a multiple of the chips of axis {axis}, {self.across}, but is {width}"
        if self.across > 1 and ttnn.get_fabric_config() == ttnn.FabricConfig.DISABLED:
            return (
                "columns that are cut over chips need the fabric between them, but it is off:"
                " ttnn.set_fabric_config(ttnn.FabricConfig.FABRIC_1D) before the mesh opens, or Platform.open(mesh=...)"
            )
        return ""

    def check(self, x: ttnn.Tensor, width: int | None) -> None:
        """
        Args:
            x: of rows of `width` elements, of None as many as they have, cut so; of rank 0 it is left to the op
        Raises:
            LayerNormArgumentError: it is distributed otherwise
        """
        rank, axis = len(tuple(x.shape)), self.columns_axis
        if axis is None or self.across == 1 or rank == 0:
            return
        if width is not None and x.shape[-1] != width // self.across:
            raise LayerNormArgumentError(
                f"input must have {width // self.across} of {width} columns on each of {self.across} chips, but has"
                f" shape {tuple(x.shape)} on each"
            )
        topology = x.tensor_topology()
        placements = list(topology.placements())
        placement = placements[axis] if len(placements) > 1 else placements[0]
        if not isinstance(placement, ttnn.PlacementShard) or placement.dim % rank != rank - 1:
            raise LayerNormArgumentError(
                f"input must be cut by columns over axis {axis} of the mesh, but is distributed as {topology}:"
                " ttnn.ShardTensor2dMesh(mesh, mesh.shape, dims) does it"
            )

    @property
    def down(self) -> int:
        """Chips over which rows are dealt out."""
        return int(self.device.get_num_devices()) // self.across

    def rows_of_chip(self, rows: int) -> int:
        """How many of `rows` a chip gets."""
        return math.ceil(rows / self.down)

    def upload(self, tensor: torch.Tensor) -> ttnn.Tensor:
        """`tensor` (rows, W), as many rows on each chip as on another, padded with zeros; row-major in DRAM."""
        padding = self.rows_of_chip(len(tensor)) * self.down - len(tensor)
        padded = torch.nn.functional.pad(tensor, (0, 0, 0, padding)) if padding else tensor
        if self.columns_axis is None:
            mapper = ttnn.ShardTensorToMesh(self.device, dim=0)
        else:
            mapper = ttnn.ShardTensor2dMesh(self.device, tuple(self.device.shape), self._dims(rows=0, columns=1))
        return _to_device(padded, self.device, mapper)

    def download(self, tensor: ttnn.Tensor, rows: int) -> torch.Tensor:
        """The first `rows` of what lies as `upload` puts it."""
        if self.columns_axis is None:
            composer = ttnn.ConcatMeshToTensor(self.device, dim=0)
        else:
            composer = ttnn.ConcatMesh2dToTensor(self.device, tuple(self.device.shape), self._dims(rows=0, columns=1))
        y: torch.Tensor = ttnn.to_torch(tensor, mesh_composer=composer)
        return y[:rows]

    def upload_weight(self, weight: torch.Tensor) -> ttnn.Tensor:
        """`weight` (W,), as `paged_shape` of each chip's columns; the same on chips that have the same."""
        if self.columns_axis is None:
            return _to_device(as_pages(weight), self.device, ttnn.ReplicateTensorToMesh(self.device))
        parts = torch.stack([as_pages(part) for part in weight.chunk(self.across)])
        dims = self._dims(rows=None, columns=0)
        return _to_device(parts, self.device, ttnn.ShardTensor2dMesh(self.device, tuple(self.device.shape), dims))

    def _dims(self, rows: int | None, columns: int) -> tuple[int | None, int | None]:
        """Of a tensor, by the mesh's axes."""
        return (columns, rows) if self.columns_axis == 0 else (rows, columns)


def as_pages(weight: torch.Tensor) -> torch.Tensor:
    """`weight` (W,) as `paged_shape(W)`, which the op reads fastest, with zeros where there are no elements."""
    width = weight.shape[-1]
    pages, page = paged_shape(width)
    if pages == 1:
        return weight.reshape(1, width)
    paged = weight.new_zeros(pages, page)
    paged.view(-1)[page : page + width] = weight
    return paged


def _to_device(tensor: torch.Tensor, device: ttnn.Device, mapper: object) -> ttnn.Tensor:
    return ttnn.from_torch(
        tensor.contiguous(),
        layout=ttnn.ROW_MAJOR_LAYOUT,
        device=device,
        memory_config=ttnn.DRAM_MEMORY_CONFIG,
        mesh_mapper=mapper,
    )
