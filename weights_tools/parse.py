# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""JSON files and safetensors headers, checked before their content is used.

safetensors itself refuses offsets that overlap, leave holes or end outside the file, and headers that are no JSON. This
adds what it does not see (a key that is there twice) or can't name (half a download, a git-LFS pointer, a web page).
"""

import json
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO, NoReturn

from weights_tools.errors import CheckpointError

MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit
MOST_JSON_BYTES = 100_000_000  # the index of DeepSeek-V3, with 91,991 keys, has 9 MB
MOST_NAME_LENGTH = 1000


def read_json_object(path: Path) -> dict[str, Any]:
    """
    Raises:
        CheckpointError: the file can't be read, is larger than `MOST_JSON_BYTES`, or holds no JSON object in UTF-8
            whose keys are unique
    """
    with _open(path) as file:
        size = file.seek(0, 2)
        if size > MOST_JSON_BYTES:
            raise CheckpointError(
                f"{path}: has {size} bytes, more than the {MOST_JSON_BYTES} that are read of a JSON file: is it JSON?"
            )
        file.seek(0)
        return _json_object(path, file.read())


def check_header(path: Path) -> None:
    """
    Raises:
        CheckpointError: the file can't be read, is shorter than its header says, is no safetensors file at all, or
            names a tensor twice or unprintably
    """
    with _open(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if len(start) < 8 or length > MOST_HEADER_BYTES:
            _refuse(path, start + file.read(100), f"{size} bytes whose header would have {length}")
        if size < 8 + length:  # checked first: file.read(length) allocates `length` bytes
            raise CheckpointError(
                f"{path}: is cut short: {size} bytes, of which the header alone has {8 + length}: download it again"
            )
        header = file.read(length)
    if not header.startswith(b"{"):  # the format wants it so, while JSON allows spaces before
        _refuse(path, start + header, "its header is no JSON object")
    entries = _json_object(path, header)
    for key in entries:
        check_name(path, key)
    whole = 8 + length + max(map(_end, entries.values()), default=0)
    if size < whole:
        raise CheckpointError(f"{path}: is cut short: {size} of {whole} bytes are there: download it again")


def check_name(path: Path, name: str) -> None:
    """Of a tensor or a shard: it will be printed.

    Raises:
        CheckpointError: it has unprintable characters, or more than `MOST_NAME_LENGTH`
    """
    if not name.isprintable() or len(name) > MOST_NAME_LENGTH:
        raise CheckpointError(
            f"{path}: the name {short(name)} must be printable and of at most {MOST_NAME_LENGTH} characters,"
            f" but has {len(name)}: download it again"
        )


def _open(path: Path) -> BinaryIO:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            kind = "folder" if path.is_dir() else "pipe or device"
            raise CheckpointError(f"{path}: is a {kind} and no file: put the downloaded file in its place")
        return path.open("rb")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file, though the checkpoint needs it: download it") from error
    except OSError as error:
        raise CheckpointError(
            f"{path}: can't be read ({error.strerror}): check its permissions and its disk"
        ) from error


def _json_object(path: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, text, f"not readable as JSON: {error}")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(content).__name__}, not an object: download it again")
    return content


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (key, times), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{short(key)} is there {times} times")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _end(entry: object) -> int:
    """Where a tensor's bytes end, counted from the header's end. What is no tensor is left to safetensors to refuse."""
    match entry:
        case {"data_offsets": [int(), int(end)]}:
            return end
    return 0


def _refuse(path: Path, content: bytes, why: str) -> NoReturn:
    """Says what the file is in truth, where its first bytes tell."""
    if not content:
        raise CheckpointError(f"{path}: is empty: download it again")
    if content.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a git-LFS pointer, not the file itself: run `git lfs pull`")
    if content.lstrip()[:1] == b"<":
        raise CheckpointError(f"{path}: is an HTML page, as a login or an error gives: download it again")
    raise CheckpointError(f"{path}: is broken ({why}): download it again")
