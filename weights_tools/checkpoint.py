"""A safetensors checkpoint folder, read lazily: a shard is opened when one of its tensors is asked for, and not before.

The layout is HuggingFace's: `config.json`, and either `model.safetensors.index.json` naming the shard of each key, or
one `model.safetensors`.
"""

import difflib
import json
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# The types that safetensors writes in its headers. A type that is not here is an error, never a guess.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class CheckpointError(ValueError):
    """A checkpoint folder that can't be read or written. One line: which file, what is wrong, what to do."""


class Checkpoint:
    """The tensors of one checkpoint folder.

    Args:
        folder: holds `config.json` and the safetensors files. Shards may be symlinks, as in HuggingFace's cache.

    Raises:
        CheckpointError: the folder, config or index is missing or malformed, or the index names a file outside the
            folder. A shard that is missing or broken is an error only once a tensor of it is asked for: who needs one
            layer of a large model downloads only that layer's shards.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: no such checkpoint folder: give the folder that holds {CONFIG}")
        self.config = _read_json_object(self.folder / CONFIG)
        self._shards: dict[str, Any] = {}  # file name -> safe_open (which has no types): mapped, not read
        self._shard_of = self._read_index()  # key -> file name

    def keys(self) -> list[str]:
        """All keys, in the index's order."""
        return list(self._shard_of)

    def __contains__(self, key: object) -> bool:
        return key in self._shard_of

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.folder)!r}, {len(self._shard_of)} keys)"

    def shape(self, key: str) -> tuple[int, ...]:
        """The tensor's shape, from its shard's header alone."""
        return tuple(self._shard_with(key).get_slice(key).get_shape())

    def dtype(self, key: str) -> torch.dtype:
        """The tensor's type as stored, from its shard's header alone."""
        name = self._shard_with(key).get_slice(key).get_dtype()
        if name not in _DTYPES:
            raise CheckpointError(
                f"{self.folder / self._shard_of[key]}: {key} has dtype {name}, known are {', '.join(_DTYPES)}"
            )
        return _DTYPES[name]

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor as stored: its shape and dtype, on the CPU."""
        shard = self._shard_with(key)
        try:
            tensor: torch.Tensor = shard.get_tensor(key)
        except SafetensorError as error:
            raise CheckpointError(f"{self.folder / self._shard_of[key]}: can't read {key} ({error})") from error
        return tensor

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """All tensors below a module's name, as the module itself names them: its `load_state_dict` takes the result.

        `tensors("model.layers.3.self_attn.indexer.k_norm")` gives `{"weight": ..., "bias": ...}`.
        """
        start = prefix.removesuffix(".") + "."
        suffixes = [key.removeprefix(start) for key in self._shard_of if key.startswith(start)]
        if not suffixes:
            raise CheckpointError(f"{self.folder}: no key below {prefix!r}: {self._nearest(prefix)}")
        return {suffix: self.tensor(start + suffix) for suffix in suffixes}

    def _read_index(self) -> dict[str, str]:
        index_path = self.folder / INDEX
        if not index_path.exists():
            if not (self.folder / SINGLE).exists():
                raise CheckpointError(f"{self.folder}: holds neither {INDEX} nor {SINGLE}: download one of them")
            return dict.fromkeys(self._open(SINGLE).keys(), SINGLE)

        weight_map = _read_json_object(index_path).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index_path}: has no weight_map from keys to files: download it again")
        for shard in set(map(str, weight_map.values())):
            # By name, not by resolved path: the shards in HuggingFace's cache are symlinks that leave the folder.
            path = PurePosixPath(shard)
            if path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
                raise CheckpointError(
                    f"{index_path}: refused: its shard {shard!r} is no .safetensors file in the folder"
                )
        return {key: str(shard) for key, shard in weight_map.items()}

    def _shard_with(self, key: str) -> Any:
        if key not in self._shard_of:
            raise CheckpointError(f"{self.folder}: no key {key!r}: {self._nearest(key)}")
        shard = self._open(self._shard_of[key])
        if key not in shard.keys():  # noqa: SIM118  (safe_open is no mapping)
            raise CheckpointError(
                f"{self.folder / self._shard_of[key]}: lacks {key}, which {INDEX} places there: download both again"
            )
        return shard

    def _open(self, name: str) -> Any:
        if name not in self._shards:
            path = self.folder / name
            if not path.is_file():
                raise CheckpointError(f"{path}: no such file, though the checkpoint needs it: download it")
            try:
                self._shards[name] = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: not a whole safetensors file ({error}): download it again") from error
        return self._shards[name]

    def _nearest(self, name: str) -> str:
        """What there is where `name` leaves the tree of keys: a model has far too many keys to list or to score."""
        parts = name.removesuffix(".").split(".")
        for depth in range(len(parts) - 1, -1, -1):
            start = "".join(f"{part}." for part in parts[:depth])
            children = dict.fromkeys(key[len(start) :].split(".")[0] for key in self._shard_of if key.startswith(start))
            if children:
                close = difflib.get_close_matches(parts[depth], children, n=3, cutoff=0.7)
                if close:
                    return f"did you mean {' or '.join(start + child for child in close)}?"
                more = ", ..." if len(children) > 8 else ""
                return f"there is {', '.join(start + child for child in list(children)[:8])}{more}"
        return "it holds no tensors"


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file: download it with the checkpoint") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable JSON ({error}): download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(content).__name__}, not an object: download it again")
    return content
