# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Writes safetensors files."""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from common.files import ExistsError, WriteError, written_whole
from weights_tools.checkpoint import DTYPES
from weights_tools.errors import CheckpointError

_PIECE = 8 * 2**20  # bytes
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@contextmanager
def checkpoint_written(target: Path, *, force: bool) -> Iterator[Path]:
    """`written_whole` for a checkpoint: yields where to write it.

    Raises:
        CheckpointError: it can't be written, or `target` is there and `force` is not given
    """
    try:
        with written_whole(target, force=force) as new:
            yield new
    except ExistsError as error:
        raise exists_already(target) from error
    except WriteError as error:
        raise CheckpointError(str(error)) from error


def exists_already(target: Path) -> CheckpointError:
    return CheckpointError(f"{target}: exists already: choose another name, or replace it with --force")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes the format of `safetensors.torch.save_file`, which does not serve here: it refuses tensors that share
    memory, as repeated experts do, and Ctrl-C waits until it has written all of them. Tensors of wider elements come
    first, those of one width by name.

    Args:
        tensors: contiguous, on the CPU, of the dtypes that `Checkpoint` reads

    Raises:
        OSError: it can't be written
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} | metadata}
    # The widest elements first, so that each tensor begins at a multiple of its element's size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    end = 0
    for key, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[key] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    # Without a buffer, which an interrupt would leave to be written when the file is closed.
    with path.open("wb", buffering=0) as file:
        head = memoryview(struct.pack("<Q", len(text)) + text)
        for piece in chain([head], *(pieces(tensor) for _, tensor in ordered)):
            while piece:
                piece = piece[file.write(piece) :]


def pieces(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The bytes of a contiguous tensor on the CPU, 8 MB at a time: Python heeds Ctrl-C between two pieces."""
    content = tensor.flatten().view(torch.uint8).numpy().data
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]
