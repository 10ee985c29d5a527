# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Spoils small checkpoints at random, reads them, and holds what was read to an independent reading of the same bytes.

`python -m tests.fuzz_files FOLDER FIRST LAST` runs the cases of these numbers in FOLDER; the number is the seed.
`test_bad_files.py` runs them all. Ends with 1 at the first case in which anything else comes out than a CheckpointError
or the right tensors, after saying how the case was made.

What the format can tell: whether all JSON can be read and holds no key twice, whether the index's names stay in the
folder, and whether dtypes, shapes and offsets of a file agree with each other and cover its bytes from end to end. It
has no checksum: a bit that flips in a tensor's bytes, or turns a header into another one that agrees, can't be seen.
"""

import json
import math
import os
import random
import resource
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from weights_tools import Checkpoint, CheckpointError

MEMORY = 64 * 2**20  # bytes more than before the first case: torch's and Python's own pools, for files of 4 kB
SIZES: dict[str, float] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
}
SIZES |= {"I8": 1, "U8": 1, "BOOL": 1, "U16": 2, "U32": 4, "U64": 8, "C64": 8, "F4": 0.5, "F8_E8M0": 1}
CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
SHARDS = ("model-1.safetensors", "model-2.safetensors")

Files = dict[str, bytes]
Stored = tuple[str, tuple[int, ...], bytes]  # of a tensor: its type, shape and bytes


def main(folder: Path, first: int, last: int) -> None:
    torch.set_num_threads(1)
    originals = [_single(folder), _sharded(folder), _v4(folder)]
    for files in originals:
        _write(folder, files)
        assert _read(folder)[1] == [], "a sound checkpoint must be read"
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (addresses + MEMORY, addresses + MEMORY))
    outcomes: Counter[str] = Counter()
    for number in range(first, last):
        recipe, files = spoil(random.Random(number), originals)  # noqa: S311
        (folder / "recipe").write_text(f"case {number}: {recipe}")  # for who finds the process dead
        _write(folder, files)
        try:
            outcomes[_judge(folder)] += 1
        except Exception as error:
            raise SystemExit(f"case {number}: {recipe}: {type(error).__name__}: {error}") from error
    print(json.dumps(outcomes))


# ---- The checkpoints, and how they are spoilt


def _single(folder: Path) -> Files:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "norm.weight": torch.randn(24, generator=generator).to(torch.bfloat16),
        "norm.bias": torch.randn(24, generator=generator),
        "proj.weight": torch.randn(12, 8, generator=generator).to(torch.float16),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "nothing": torch.empty(0, 4),
    }
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    return {CONFIG: b'{"num_hidden_layers": 4, "rms_norm_eps": 1e-6}', SINGLE: (folder / SINGLE).read_bytes()}


def _sharded(folder: Path) -> Files:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(20, 12, generator=generator).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 2, generator=generator)
    shards = (
        {"a.weight": weight, "a.weight_scale_inv": scale},
        {"model.layers.4.norm.weight": torch.randn(16, generator=generator).to(torch.bfloat16)},
    )
    weight_map: dict[str, str] = {}
    for name, tensors in zip(SHARDS, shards, strict=True):
        save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    quantization = {"quant_method": "fp8", "weight_block_size": [16, 8]}
    config = {"num_hidden_layers": 4, "num_nextn_predict_layers": 1, "quantization_config": quantization}
    return {
        CONFIG: json.dumps(config).encode(),
        INDEX: json.dumps({"metadata": {"total_size": 288}, "weight_map": weight_map}).encode(),
        **{name: (folder / name).read_bytes() for name in SHARDS},
    }


def _v4(folder: Path) -> Files:
    """Both quantizations of V4, their scales in another shard."""
    generator = torch.Generator().manual_seed(2)

    def random_bytes(*shape: int) -> torch.Tensor:
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

    shards = (
        {
            "w1.weight": random_bytes(6, 32).view(torch.int8),
            "wkv.weight": random_bytes(20, 12).view(torch.float8_e4m3fn),
        },
        {
            "w1.scale": random_bytes(6, 2).view(torch.float8_e8m0fnu),
            "wkv.scale": random_bytes(2, 2).view(torch.float8_e8m0fnu),
            "mtp.0.enorm.weight": torch.randn(16, generator=generator).to(torch.bfloat16),
        },
    )
    weight_map: dict[str, str] = {}
    for name, tensors in zip(SHARDS, shards, strict=True):
        save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    quantization = {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [16, 8]}
    config = {"model_type": "deepseek_v4", "expert_dtype": "fp4", "quantization_config": quantization}
    return {
        CONFIG: json.dumps(config).encode(),
        INDEX: json.dumps({"metadata": {"total_size": 480}, "weight_map": weight_map}).encode(),
        **{name: (folder / name).read_bytes() for name in SHARDS},
    }


def spoil(rng: random.Random, originals: list[Files]) -> tuple[str, Files]:
    """One of the checkpoints with one to three changes, and what they were."""
    which = rng.randrange(len(originals))
    files = dict(originals[which])
    steps = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(list(files))
        change = rng.choice((_flip, _overwrite, _cut, _drop, _splice, _digit, _length, _entry, _entry))
        files[name], step = change(rng, files[name])
        steps.append(f"{change.__name__[1:]} {name} {step}")
    return f"checkpoint {which}, {'; '.join(steps)}", files


def _at(rng: random.Random, content: bytes) -> int:
    """A place in the file, every other time in its first 16 bytes or in its header."""
    end = rng.choice((16, *(struct.unpack("<Q", content[:8]) if len(content) > 8 else ()), len(content), len(content)))
    return rng.randrange(max(1, min(end + 8, len(content))))


def _flip(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    place, bit = _at(rng, content), rng.randrange(8)
    changed = bytearray(content or b"\0")
    changed[place] ^= 1 << bit
    return bytes(changed), f"bit {bit} of byte {place}"


def _overwrite(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    place, by = _at(rng, content), rng.choice((b"\0", b"\xff", b'"', b"}", b"0", b"-", b"\xff" * 8, rng.randbytes(8)))
    return content[:place] + by + content[place + len(by) :], f"{by!r} at {place}"


def _cut(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    place = rng.choice((_at(rng, content), max(0, len(content) - rng.randrange(1, 9))))
    return content[:place], f"at {place}"


def _drop(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    start, length = _at(rng, content), rng.choice((1, 2, 4, 8, 64))
    return content[:start] + content[start + length :], f"{length} bytes at {start}"


def _splice(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    start, length, place = _at(rng, content), rng.choice((1, 2, 8, 64)), _at(rng, content)
    return content[:place] + content[start : start + length] + content[place:], f"{length} from {start} into {place}"


def _length(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Another length of the header, at the front of a safetensors file."""
    length = rng.choice((0, 1, len(content) - 8, len(content), 90_000_000, 10**8, 2**31, 10**10, 2**63, 2**64 - 1))
    return struct.pack("<Q", max(0, length)) + content[8:], str(length)


def _digit(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Another digit for a digit: the JSON stays whole."""
    places = [place for place, byte in enumerate(content[:700]) if chr(byte).isdigit() and place >= 8]
    if not places:
        return _flip(rng, content)
    place, by = rng.choice(places), str(rng.randrange(10)).encode()
    return content[:place] + by + content[place + 1 :], f"{by!r} at {place}"


def _entry(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Another value in a header, whose length is right and whose JSON is whole."""
    try:
        length = struct.unpack("<Q", content[:8])[0]
        entries = list(json.loads(content[8 : 8 + length]).items())
        place = rng.randrange(len(entries))
        key, entry = entries[place]
        change = rng.choice(("dtype", "shape", "data_offsets", "key", "again"))
        number = rng.choice((0, 1, 2, 3, 48, 2**31, 2**62, 2**64, 10**12, -1, 1.0, None))
        if change == "dtype":
            entry[change] = rng.choice([*SIZES, "F33", None])
        elif change == "key":
            entries[place] = (rng.choice([other for other, _ in entries] + ["", "\n", "../a", "é", "a.weight"]), entry)
        elif change == "again":
            entries.append((key, rng.choice(entries)[1]))
        elif entry[change] and rng.random() < 0.7:
            entry[change][rng.randrange(len(entry[change]))] = number
        else:
            entry[change] = [*entry[change][: rng.randrange(3)], number, 0][: rng.randrange(4)]
    except (struct.error, ValueError, AttributeError, TypeError, KeyError, IndexError):
        return _flip(rng, content)  # it was spoilt before, or is no safetensors file
    header = ("{" + ",".join(f"{json.dumps(key)}:{json.dumps(entry)}" for key, entry in entries) + "}").encode()
    return struct.pack("<Q", len(header)) + header + content[8 + length :], f"{change} of {key} now {entry}"


def _write(folder: Path, files: Files) -> None:
    for name in (CONFIG, INDEX, SINGLE, *SHARDS):
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


# ---- What is read, and what it must be


def _read(folder: Path) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor | None]], list[CheckpointError]]:
    """Each tensor that can be read, as stored and, if it is a weight, in float32; and the refusals."""
    read: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}
    try:
        checkpoint = Checkpoint(folder, mtp=True)
        assert Checkpoint(folder).left_out == checkpoint.mtp_keys()
    except CheckpointError as error:
        return read, [error]
    refusals = []
    weights = checkpoint.keys()
    for key in checkpoint.keys(scales=True):
        try:
            stored = checkpoint.tensor(key)
            assert (tuple(stored.shape), stored.dtype) == (checkpoint.shape(key), checkpoint.dtype(key))
            read[key] = stored, None
            if key in weights:
                read[key] = stored, checkpoint.weight(key, torch.float32)
        except CheckpointError as error:
            refusals.append(error)
    return read, refusals


def _judge(folder: Path) -> str:
    """The outcome of a case: all of it read, some refused, or refused as a whole.

    Raises:
        AssertionError: a tensor was read that the files don't hold, or an error is not one line about a file
    """
    read, refusals = _read(folder)
    for error in refusals:
        assert str(error).startswith(str(folder)), error
        assert str(error).isprintable(), error
        assert len(str(error)) < len(str(folder)) + 1500, error
        assert "mapped into memory" not in str(error), error
    if read:
        config = _strict_json((folder / CONFIG).read_bytes())
        indexed = _strict_index(folder)
        scale_keys = {key: _scale_key(key, indexed, config) for key, (_, weight) in read.items() if weight is not None}
        names = {indexed[key] for key in (*read, *filter(None, scale_keys.values()))}
        tensors = {name: _strict_shard((folder / name).read_bytes()) for name in names}
        for key, (stored, weight) in read.items():
            tensor = tensors[indexed[key]][key]
            _, shape, content = tensor
            assert tuple(stored.shape) == shape, (key, stored.shape, shape)
            assert stored.flatten().view(torch.uint8).numpy().tobytes() == content, key
            if weight is not None:
                scale_key = scale_keys[key]
                values = _weight(tensor, tensors[indexed[scale_key]][scale_key] if scale_key else None, config)
                assert np.array_equal(weight.numpy(), values.astype(np.float32), equal_nan=True), key
    if not refusals:
        return "read"
    return "read in part" if read else "refused"


def _weight(tensor: Stored, scales: Stored | None, config: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The numbers that a weight stands for, multiplied by its scales if it is quantized."""
    dtype, shape, content = tensor
    is_packed = dtype == "I8" and (scales is not None or config.get("model_type") == "deepseek_v4")
    if dtype != "F8_E4M3" and not is_packed:
        return _values(dtype, content).reshape(shape)
    assert scales, "it has no scales"
    if is_packed:
        assert config.get("expert_dtype", "fp4") == "fp4", "is it packed FP4?"
        values, block = _e2m1(content).reshape(shape[0], 2 * shape[1]), [1, 32]
    else:
        values = _values(dtype, content).reshape(shape)
        block = (config.get("quantization_config") or {}).get("weight_block_size", [128, 128])
    assert scales[1] == tuple(-(-size // step) for size, step in zip(values.shape, block, strict=True))
    rows, columns = (np.arange(size) // step for size, step in zip(values.shape, block, strict=True))
    factors = _values(scales[0], scales[2]).reshape(scales[1])
    product: np.ndarray[Any, Any] = values * factors[rows[:, None], columns[None, :]]
    return product


def _scale_key(key: str, indexed: dict[str, str], config: dict[str, Any]) -> str | None:
    """Of a weight's scales, if there are some: V4's are named by the module, in quantized checkpoints."""
    names = [f"{key}_scale_inv"]
    if config.get("quantization_config") and key.endswith(".weight"):
        names.append(f"{key.removesuffix('weight')}scale")
    return next((name for name in names if name in indexed), None)


def _strict_json(content: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        assert sorted(names) == sorted(set(names)), "a key is there twice"
        return dict(pairs)

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    content_object = json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    assert type(content_object) is dict
    return content_object


def _strict_index(folder: Path) -> dict[str, str]:
    if not (folder / INDEX).exists():
        return dict.fromkeys(_strict_shard((folder / SINGLE).read_bytes()), SINGLE)
    weight_map: dict[str, str] = _strict_json((folder / INDEX).read_bytes())["weight_map"]
    for name in weight_map.values():
        assert os.path.realpath(folder / name).startswith(f"{os.path.realpath(folder)}/"), f"{name} leads outside"
    return weight_map


def _strict_shard(content: bytes) -> dict[str, Stored]:
    """Key -> dtype, shape, bytes; or an AssertionError where anything in the file contradicts anything else."""
    length = int.from_bytes(content[:8], "little")
    assert 8 + length <= len(content)
    assert content[8:9] == b"{"
    header = _strict_json(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    assert all(type(value) is str for value in metadata.values())
    data = content[8 + length :]
    tensors, end = {}, 0
    for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        assert all(type(number) is int and number >= 0 for number in (*shape, start, stop)), key
        assert start == end, f"{key} begins at {start}, but the one before ends at {end}"
        assert stop - start == SIZES[dtype] * math.prod(shape), f"{key} has no room for its shape"
        end = stop
        tensors[key] = dtype, tuple(shape), data[start:stop]
    assert end == len(data), f"the tensors end at {end} of {len(data)} bytes"
    return tensors


def _values(dtype: str, content: bytes) -> np.ndarray[Any, Any]:
    """The numbers that the bytes stand for, by the definition of the type."""
    if dtype == "BF16":
        return np.left_shift(np.frombuffer(content, "<u2"), 16, dtype=np.uint32).view(np.float32)
    if dtype == "F8_E4M3":
        byte = np.frombuffer(content, np.uint8).astype(np.int32)
        exponent, mantissa = byte >> 3 & 15, byte & 7
        size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10))
        size[byte & 127 == 127] = np.nan
        return np.where(byte & 128, -size, size).astype(np.float32)
    if dtype == "F8_E8M0":
        byte = np.frombuffer(content, np.uint8)
        return np.where(byte == 255, np.nan, 2.0 ** (byte.astype(np.float64) - 127)).astype(np.float32)
    if dtype == "BOOL":
        return np.frombuffer(content, np.uint8).astype(np.bool_)
    return np.frombuffer(content, f"<{dtype[0].lower()}{SIZES[dtype]}")


def _e2m1(content: bytes) -> np.ndarray[Any, Any]:
    """Two numbers a byte, the low nibble first: a sign, two bits of exponent with bias 1, one of mantissa."""
    byte = np.frombuffer(content, np.uint8)
    nibble = np.stack([byte & 15, byte >> 4], axis=1).flatten().astype(np.int32)
    exponent, mantissa = nibble >> 1 & 3, nibble & 1
    size = np.where(exponent == 0, mantissa / 2, (1 + mantissa / 2) * 2.0 ** (exponent - 1))
    return np.where(nibble & 8, -size, size).astype(np.float32)


if __name__ == "__main__":
    np.seterr(all="ignore")  # float64 beyond float32
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
