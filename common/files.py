# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Writes files and folders that are whole or not there."""

import errno
import fcntl
import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from common.errors import OneLineError

_NEW, _OLD, _LOCK = "new", "old", "lock"  # in the folder beside the target


class WriteError(OneLineError):
    """A file or folder that can't be written: which, and why."""


class ExistsError(WriteError):
    """Something is there already, and must not be replaced."""


@contextmanager
def written_whole(target: Path, *, force: bool) -> Iterator[Path]:
    """Yields where to write a file or a folder, which takes `target`'s place at the end, and is gone after an error.

    It lies in a folder beside `target`, so that the last step stays within one file system. What writers of the same
    target left there when they were killed is removed first; one that still writes holds a lock.

    Args:
        force: replace what is at `target`. Else it stays, even if it comes while this one is written.

    Raises:
        ExistsError: `target` is there
        WriteError: it can't be written
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
        raise WriteError(f"{target}: can't be written ({error})") from error


def check_writable(folder: Path) -> None:
    """Makes `folder`, with its parents, and a file in it that goes at once: for what takes long before it writes.

    Raises:
        WriteError: it can't be written
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WriteError(f"{folder}: can't be written ({error})") from error


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
            raise ExistsError(f"{target}: exists already") from error
        raise
