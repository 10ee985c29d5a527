# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a list of a model's tensors is: `synthetic` writes what it lists, `verify` holds a checkpoint to it.

The lists: `architecture_v3` (V3 and V3.2), `architecture_v4`; `models` finds the one of a config.json.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple, Self

import torch

from weights_tools import float8
from weights_tools.errors import CheckpointError
from weights_tools.float8 import FLOAT8
from weights_tools.mxfp4 import GROUP, PACKED


class Scales(NamedTuple):
    """Of a quantized matrix: their type, and what their key has in place of the matrix' `weight`."""

    dtype: torch.dtype
    name: str


class Spec(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
        shape: of its values; packed FP4 is stored in half as many columns
        dtype: as stored: float8_e4m3fn with scales a 128x128 block, int8 with a scale for 32 columns (MXFP4), or plain
        scales: of a quantized matrix
        options: of an integer table: each row holds different numbers below this
    """

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    scales: Scales | None = None
    options: int = 0

    def stored(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of what is stored for it, by key: the tensor, and then its scales, if it has some."""
        if self.scales is None:
            return {self.key: (self.shape, self.dtype)}
        rows, columns = self.shape
        stored, scales = {
            FLOAT8: (self.shape, float8.scale_shape(self.shape)),
            PACKED: ((rows, columns // 2), (rows, columns // GROUP)),
        }[self.dtype]
        scale_key = self.key.removesuffix("weight") + self.scales.name
        return {self.key: (stored, self.dtype), scale_key: (scales, self.scales.dtype)}


@dataclass(frozen=True)
class Architecture(ABC):
    """A model's sizes, named as in config.json, and the tensors that follow from them."""

    num_hidden_layers: int
    num_nextn_predict_layers: int  # MTP layers
    n_routed_experts: int
    float8: bool  # matrices are quantized as on the hub

    @property
    def layer_numbers(self) -> range:
        """Of all decoder layers. The MTP layers are the last."""
        return range(self.num_hidden_layers + self.num_nextn_predict_layers)

    def tensors(self) -> Iterator[Spec]:
        """All tensors of the checkpoint, MTP layers included, scales not."""
        yield from self.embedding()
        for number in self.layer_numbers:
            yield from self.decoder_layer(number)
        yield from self.head()

    @abstractmethod
    def embedding(self) -> Iterator[Spec]:
        """What comes before the first layer."""

    @abstractmethod
    def decoder_layer(self, number: int) -> Iterator[Spec]:
        """Layer `number`, an MTP layer from `num_hidden_layers` on."""

    @abstractmethod
    def head(self) -> Iterator[Spec]:
        """What comes after the last layer."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """config.json as on the hub."""

    @abstractmethod
    def with_layers(self, number: int) -> Self:
        """The same with another number of layers, MTP layers not counted."""


def check_fixed(config: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """
    Raises:
        CheckpointError: config.json says something else than `fixed`, on which a list of tensors rests
    """
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"{name} must be {value} (no other is known), but is {short(config[name])}")


def check_sizes(sizes: Mapping[str, Any], least: int = 0) -> None:
    """
    Raises:
        CheckpointError: one of them is no whole number from `least` on
    """
    for name, size in sizes.items():
        if type(size) is not int or size < least:
            kind = "a whole number" if least == 0 else f"a whole number from {least} on"
            raise CheckpointError(f"{name} must be {kind}, but is {short(size)}")
