"""Writes files and folders that are whole or not there."""

import errno
import fcntl
import glob
import json
import os
import shutil
import struct
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import torch

from weights_tools.checkpoint import DTYPES
from weights_tools.errors import CheckpointError

_NEW, _OLD, _LOCK = "new", "old", "lock"  # in the folder beside the target
_PIECE = 8 * 2**20  # bytes
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@contextmanager
def written_whole(target: Path, *, force: bool) -> Iterator[Path]:
    """Yields where to write a file or a folder, which takes `target`'s place at the end, and is gone after an error.

    It lies in a folder beside `target`, so that the last step stays within one file system. What writers of the same
    target left there when they were killed is removed first; one that still writes holds a lock.

    Args:
        force: replace what is at `target`. Else it stays, even if it comes while this one is written.

    Raises:
        CheckpointError: it can't be written, or `target` is there
    """
    try:
        _remove_left_behind(target)
        folder, lock = _new_folder(target)
        with lock:
            try:
                yield folder / _NEW
                _take_place(folder / _NEW, target, force)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{target}: can't be written ({error})") from error


def check_writable(folder: Path) -> None:
    """Makes `folder`, with its parents, and a file in it that goes at once: for what takes long before it writes.

    Raises:
        CheckpointError: it can't be written
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(f"{folder}: can't be written ({error})") from error


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


def _remove_left_behind(target: Path) -> None:
    for folder in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        with suppress(OSError), _open_lock(folder) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder(target: Path) -> tuple[Path, BinaryIO]:
    """A folder beside `target`, and the lock on it, which is held until it is closed or the process ends."""
    while True:
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        folder.mkdir()
        with suppress(FileNotFoundError):  # before it was locked, another writer took it for left behind
            lock = _open_lock(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / _LOCK).stat()
            return folder, lock


def _open_lock(folder: Path) -> BinaryIO:
    """Writable: NFS gives an exclusive lock on nothing else, so that the folder itself won't do."""
    return (folder / _LOCK).open("ab")


def _take_place(new: Path, target: Path, force: bool) -> None:
    try:
        if new.is_dir():
            if force and target.exists():
                target.rename(new.with_name(_OLD))
            new.rename(target)  # fails where a file has come, or a folder that is not empty
        elif force:
            new.replace(target)
        else:
            os.link(new, target)  # which never replaces, as a rename would
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) and not force:
            raise exists_already(target) from error
        raise
