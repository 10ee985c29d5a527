"""Writes safetensors files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import TensorSpec, serialize_file


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """As `safetensors.torch.save_file`, which refuses tensors that share memory, as repeated experts do.

    Args:
        tensors: contiguous, on the CPU

    Raises:
        OSError, safetensors.SafetensorError: it can't be written
    """
    path.touch()
    mode = path.stat().st_mode  # what the user's umask gives: safetensors makes files that nobody else can read
    specs = {
        key: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
        for key, tensor in tensors.items()
    }
    serialize_file(specs, path, metadata={"format": "pt"} | metadata)
    path.chmod(mode)
