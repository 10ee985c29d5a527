"""Writes files and folders that are whole or not there."""

import errno
import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, TensorSpec, serialize_file

from weights_tools.errors import CheckpointError

_NEW, _OLD, _LOCK = "new", "old", "lock"  # in the folder beside the target


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
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target}: can't be written ({error})") from error


def exists_already(target: Path) -> CheckpointError:
    return CheckpointError(f"{target}: exists already: choose another name, or replace it with --force")


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
