# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A safetensors checkpoint folder, read lazily: a shard is opened when one of its tensors is asked for, and not before.

The layout is HuggingFace's: `config.json`, and either `model.safetensors.index.json` naming the shard of each key, or
one `model.safetensors`.
"""

import difflib
import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from reprlib import repr as short  # what a file holds may be long
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from weights_tools import float8, mxfp4
from weights_tools.errors import CheckpointError
from weights_tools.float8 import E8M0, FLOAT8, SCALE_BLOCK, SCALE_NAME, SCALE_SUFFIX
from weights_tools.mxfp4 import GROUP, PACKED
from weights_tools.parse import check_header, check_name, read_json_object

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MOST_COLUMNS = 2**62  # twice a shape that safetensors takes may be more than torch does
MOST_LAYERS = 10_000  # a config.json may say any number, and a list of so many layers would take all memory

# The types that safetensors writes in its headers. A type that is not here is an error, never a guess.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": E8M0,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Checkpoint:
    """The tensors of one checkpoint folder.

    Args:
        folder: holds `config.json` and the safetensors files. Shards may be symlinks, as in HuggingFace's cache.
        mtp: show the multi-token-prediction layers, too. They draft tokens for speculative decoding, and no block runs
            them. V4's are `mtp.0`, ...; V3's follow the model's own (`model.layers.61` of 61), counted by the config's
            `num_nextn_predict_layers`.

    Attributes:
        folder: as given
        config: config.json's content
        metadata: the index's, empty where it has none
        left_out: the keys of the MTP layers, unless `mtp`

    Raises:
        CheckpointError: the folder, config or index is missing or malformed, the index names a file outside the
            folder, or they are of DeepSeek-V4.1, whose layout is another one. A shard that is missing or broken is an
            error only once a tensor of it is asked for: who needs one layer of a large model downloads only that
            layer's shards.
    """

    def __init__(self, folder: str | Path, *, mtp: bool = False) -> None:
        self.folder = Path(folder)
        if not os.path.isdir(self.folder):  # noqa: PTH112  (Path.is_dir raises where a name is too long)
            raise CheckpointError(f"{self.folder}: no such checkpoint folder: give the folder that holds {CONFIG}")
        self.config = read_json_object(self.folder / CONFIG)
        self.metadata: dict[str, Any] = {}
        self._headers: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}  # file name -> key -> shape, dtype's name
        self._shard_of = self._read_index()  # key -> file name
        self._refuse_v41()
        mtp_keys = self.mtp_keys()
        self.left_out = [] if mtp else mtp_keys
        for key in self.left_out:
            del self._shard_of[key]

    def keys(self, prefix: str = "", *, scales: bool = False) -> list[str]:
        """The keys of all weights below a module's name, or of all in the checkpoint, in the index's order.

        Args:
            prefix: a module's whole name: `model.layers.1` is not the start of `model.layers.10`
            scales: name the scales of quantized weights, too. They are no weights of their own: `weight` uses them.
        """
        start = prefix.removesuffix(".") + "." if prefix else ""
        return [key for key in self._shard_of if key.startswith(start) and (scales or not self._is_scale(key))]

    def select(self, patterns: Iterable[str], *, scales: bool = False) -> list[str]:
        """The keys that one of the globs matches, in the index's order. `*` takes dots, too.

        Raises:
            CheckpointError: a pattern matches no key
        """
        keys = self.keys(scales=scales)
        chosen: set[str] = set()
        for pattern in patterns:
            matched = fnmatch.filter(keys, pattern)
            if not matched:
                hint = self._nearest(pattern) if not set(pattern) & set("*?[") else "`list` shows all keys"
                if fnmatch.filter(self.left_out, pattern):
                    hint = "open the checkpoint with mtp=True (--mtp) for those of MTP layers"
                raise CheckpointError(f"{self.folder}: no key matches {pattern!r}: {hint}")
            chosen.update(matched)
        return [key for key in keys if key in chosen]

    def mtp_keys(self) -> list[str]:
        """The keys of the MTP layers that are not left out.

        Raises:
            CheckpointError: config.json has no sensible count of layers
        """
        layers, more = (self.config.get(name) or 0 for name in ("num_hidden_layers", "num_nextn_predict_layers"))
        if not all(isinstance(number, int) and 0 <= number <= MOST_LAYERS for number in (layers, more)):
            raise CheckpointError(
                f"{self.folder / CONFIG}: num_hidden_layers and num_nextn_predict_layers must be whole numbers"
                f" up to {MOST_LAYERS}, but are {short(layers)} and {short(more)}"
            )
        numbers = {key: re.match(r"model\.layers\.(\d{1,9})\.", key) for key in self._shard_of}
        return [
            key
            for key, number in numbers.items()
            if key.startswith("mtp.") or (number and layers <= int(number[1]) < layers + more)
        ]

    def shards(self) -> list[str]:
        """The names of all files that the index names."""
        return sorted(set(self._shard_of.values()))

    def __contains__(self, key: object) -> bool:
        return key in self._shard_of

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.folder)!r}, {len(self._shard_of)} keys)"

    def shard(self, key: str) -> str:
        """The name of the file that holds the tensor, as the index says. Opens no file."""
        self._check_known(key)
        return self._shard_of[key]

    def shape(self, key: str) -> tuple[int, ...]:
        """The tensor's shape as stored, from its shard's header alone."""
        return self._entry(key)[0]

    def weight_shape(self, key: str) -> tuple[int, ...]:
        """The shape that `weight` has: of packed FP4 (R, C) where (R, C / 2) bytes are stored, else `shape`."""
        shape = self.shape(key)
        return mxfp4.unpacked_shape(shape) if shape and self._is_packed(key) else shape

    def dtype(self, key: str) -> torch.dtype:
        """The tensor's type as stored, from its shard's header alone."""
        name = self._entry(key)[1]
        if name not in DTYPES:
            raise CheckpointError(
                f"{self.folder / self._shard_of[key]}: {key} has dtype {name}, known are {', '.join(DTYPES)}"
            )
        return DTYPES[name]

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor as stored: its shape and dtype, on the CPU, mapped from the file for as long as it lives."""
        self.dtype(key)
        try:
            tensor: torch.Tensor = self._open(self._shard_of[key]).get_tensor(key)
        except SafetensorError as error:
            raise CheckpointError(f"{self.folder / self._shard_of[key]}: can't read {key} ({error})") from error
        return tensor

    def weight(self, key: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """The weight's values, on the CPU, rounded once to `dtype`: float8 and packed FP4 after they are
        multiplied by their scales.

        Needs memory for the stored matrix and the result, and no more.

        Raises:
            CheckpointError: there is no such key, or a quantized weight and its scales don't fit each other or the
                config
        """
        self.check(key)
        scale_key = self.scale_key(key)
        if scale_key is None:
            return self.tensor(key).to(dtype)
        if self.dtype(key) == PACKED:
            return mxfp4.dequantize(self.tensor(key), self.tensor(scale_key), dtype)
        return float8.dequantize(self.tensor(key), self.tensor(scale_key), dtype, self._scale_block())

    def scale_key(self, key: str) -> str | None:
        """The key of the weight's scales; None where it has none."""
        return next((name for name in self._scale_names(key) if name in self), None)

    def check(self, key: str) -> None:
        """Looks in the headers whether `weight` can be had.

        Raises:
            CheckpointError: as `weight` says
        """
        dtype, scale_key = self.dtype(key), self.scale_key(key)
        place = self.folder / self._shard_of[key]
        if dtype == FLOAT8:
            self._check_float8(key)
        elif self._is_packed(key):
            self._check_packed(key)
        elif of := self._weight_of_scales(key):
            raise CheckpointError(f"{place}: {key} is no weight but the scales of {of}: ask for that one")
        elif dtype.is_floating_point and dtype.itemsize == 1:
            raise CheckpointError(f"{place}: {key} is {dtype}, but the only float8 with known scales is {FLOAT8}")
        elif scale_key:
            raise CheckpointError(
                f"{place}: {key} is {dtype}, but {scale_key} is for {FLOAT8} or packed FP4 ({PACKED}):"
                " download both again"
            )

    def weights(self, prefix: str, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
        """`weight` of all keys below a module's name, as the module names them: its `load_state_dict` takes the result.

        Who wants not all of them (256 experts) asks `keys(prefix)` for their names and `weight` for one at a time.
        """
        start = prefix.removesuffix(".") + "."
        keys = self.keys(prefix)
        if not keys:
            self._check_not_left_out(start)
            raise CheckpointError(f"{self.folder}: no key below {prefix!r}: {self._nearest(prefix)}")
        return {key.removeprefix(start): self.weight(key, dtype) for key in keys}

    def norm(self, prefix: str, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
        """`weights` of a norm: vectors, of finite values alone.

        Raises:
            CheckpointError: as `weights`, or there is another shape, a NaN or an Inf, if only after rounding to `dtype`
        """
        weights = self.weights(prefix, dtype)
        for suffix, weight in weights.items():
            key = f"{prefix.removesuffix('.')}.{suffix}"
            place = self.folder / self._shard_of[key]
            if weight.ndim != 1:
                raise CheckpointError(
                    f"{place}: {key} must be a vector, as a norm's weights are, but is {tuple(weight.shape)}"
                )
            spoilt = weight.isfinite().logical_not().nonzero()
            if len(spoilt):
                first = int(spoilt[0])
                raise CheckpointError(
                    f"{place}: {key} holds {len(spoilt)} NaN or Inf of {len(weight)} values in {dtype}, the first"
                    f" {weight[first].item()} at {first}: download it again, or mend what wrote it"
                )
        return weights

    def _is_scale(self, key: str) -> bool:
        """Scales whose weight is missing count as a key of their own, so that nobody who goes through the keys misses
        them."""
        return self._weight_of_scales(key) in self._shard_of

    def _scale_names(self, key: str) -> list[str]:
        """The keys that the weight's scales may have. A `.scale` is that of a quantized checkpoint: in others, some
        modules have a parameter of that name."""
        names = [key + SCALE_SUFFIX]
        if key.endswith(".weight") and self.config.get("quantization_config"):
            names.append(key.removesuffix(".weight") + SCALE_NAME)
        return names

    def _weight_of_scales(self, key: str) -> str | None:
        """The weight whose scales `key` holds by its name, if there is one. `_scale_inv` says so by itself."""
        if key.endswith(SCALE_SUFFIX):
            return key.removesuffix(SCALE_SUFFIX)
        of = key.removesuffix(SCALE_NAME) + ".weight"
        return of if key in self._scale_names(of) and of in self._shard_of else None

    def _is_packed(self, key: str) -> bool:
        """Whether the weight holds FP4. In V4's checkpoints all int8 does; in others int8 without scales is int8."""
        if self.dtype(key) != PACKED:
            return False
        return self.config.get("model_type") == "deepseek_v4" or self.scale_key(key) is not None

    def _check_float8(self, key: str) -> None:
        """Whether a float8 weight has scales that fit it."""
        shape, block = self._matrix_shape(key), self._scale_block()
        must_be = float8.scale_shape(shape, block)
        self._check_scales(key, must_be, f"{shape} in blocks of {block}", (torch.float32, E8M0))

    def _check_packed(self, key: str) -> None:
        """Whether packed FP4 has scales that fit it, and config.json says that it is FP4."""
        place = f"{self.folder / CONFIG}: expert_dtype"
        quantization = self._quantization()
        experts = self.config.get("expert_dtype") or quantization.get("expert_dtype")
        # V4-Pro's config.json does not mention it, and its experts are FP4.
        if experts != "fp4" and not (experts is None and self.config.get("model_type") == "deepseek_v4"):
            raise CheckpointError(f"{place} must be 'fp4' to read {key} of {PACKED}, but is {short(experts)}")
        rows, columns = mxfp4.unpacked_shape(self._matrix_shape(key))
        if columns % GROUP or columns > MOST_COLUMNS:
            raise CheckpointError(
                f"{self.folder / self._shard_of[key]}: {key} is packed FP4 ({rows}, {columns}), but its columns must be"
                f" a multiple of {GROUP}, which share a scale, and at most {MOST_COLUMNS}: download it again"
            )
        must_be = (rows, columns // GROUP)
        self._check_scales(key, must_be, f"{(rows, columns)} in blocks of {(1, GROUP)}", (E8M0,))

    def _matrix_shape(self, key: str) -> tuple[int, ...]:
        shape = self.shape(key)
        if len(shape) != 2:
            place = self.folder / self._shard_of[key]
            raise CheckpointError(f"{place}: {key} is {self.dtype(key)} {shape}, not a matrix")
        return shape

    def _check_scales(self, key: str, must_be: tuple[int, ...], what: str, dtypes: tuple[torch.dtype, ...]) -> None:
        """Args: the weight's key, its scales' shape, a description of the weight, its scales' possible types."""
        names = [name for name in self._scale_names(key) if name in self]
        if not names:
            possible = " or ".join(self._scale_names(key))
            raise CheckpointError(
                f"{self.folder}: {key} is {self.dtype(key)}, but {possible} is missing: download its shard"
            )
        if len(names) > 1:
            raise CheckpointError(f"{self.folder}: {key} has two tensors of scales, {' and '.join(names)}: keep one")
        (scale_key,) = names
        place = self.folder / self._shard_of[scale_key]
        if self.shape(scale_key) != must_be:
            raise CheckpointError(
                f"{place}: {scale_key} must be {must_be} for {key} {what}, but is {self.shape(scale_key)}"
            )
        if self.dtype(scale_key) not in dtypes:
            possible = " or ".join(map(str, dtypes))
            raise CheckpointError(f"{place}: {scale_key} must be {possible}, but is {self.dtype(scale_key)}")

    def _quantization(self) -> dict[str, Any]:
        """config.json's `quantization_config`, empty where it has none."""
        place = f"{self.folder / CONFIG}: quantization_config"
        quantization = self.config.get("quantization_config") or {}
        if not isinstance(quantization, dict):
            raise CheckpointError(f"{place} must be an object, but is {short(quantization)}")
        method = quantization.get("quant_method", "fp8")
        if method != "fp8":
            raise CheckpointError(
                f"{place}: quant_method must be 'fp8' to read {FLOAT8} and packed FP4, but is {short(method)}"
            )
        return quantization

    def _scale_block(self) -> tuple[int, int]:
        """(rows, columns) of a float8 weight that share a scale."""
        block = self._quantization().get("weight_block_size", list(SCALE_BLOCK))
        if not (isinstance(block, list) and len(block) == 2 and all(type(size) is int and size > 0 for size in block)):
            raise CheckpointError(
                f"{self.folder / CONFIG}: quantization_config: weight_block_size must be two positive whole numbers,"
                f" but is {short(block)}"
            )
        return block[0], block[1]

    def _refuse_v41(self) -> None:
        """DeepSeek-V4.1 has tables of float8 (Engram) whose scale blocks are not those that its config.json names."""
        model_type, quantization = (self.config.get(name) for name in ("model_type", "quantization_config"))
        signs = []
        if model_type == "deepseek_v41":
            signs.append(f"model_type {model_type!r}")
        elif model_type == "deepseek_v4":
            if isinstance(quantization, dict) and quantization.get("weight_block_size") == [32, 32]:
                signs.append("weight_block_size [32, 32]")
            signs += [f"key {key!r}" for key in self._shard_of if "engram" in key.split(".")][:1]
        if signs:
            raise CheckpointError(
                f"{self.folder / CONFIG}: is DeepSeek-V4.1's ({', '.join(signs)}), which is not read: it has other"
                " scale blocks than V4, and Engram tables"
            )

    def _read_index(self) -> dict[str, str]:
        index_path = self.folder / INDEX
        if not index_path.exists():
            if not (self.folder / SINGLE).exists():
                raise CheckpointError(f"{self.folder}: holds neither {INDEX} nor {SINGLE}: download one of them")
            return dict.fromkeys(self._header(SINGLE), SINGLE)

        index = read_json_object(index_path)
        metadata = index.get("metadata")
        self.metadata = metadata if isinstance(metadata, dict) else {}
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index_path}: has no weight_map from keys to files: download it again")
        for key in weight_map:
            check_name(index_path, key)
        for shard in dict.fromkeys(map(str, weight_map.values())):
            check_name(index_path, shard)
            # By its name, not by the path that it resolves to: shards in HuggingFace's cache are symlinks that leave
            # the folder. By Windows' rules, under which /, \ and C: are all parts of a path.
            path = PureWindowsPath(shard)
            if path.anchor or ".." in path.parts or path.suffix != ".safetensors":
                raise CheckpointError(
                    f"{index_path}: refused: its shard {shard!r} is no .safetensors file in the folder"
                )
        return {key: str(shard) for key, shard in weight_map.items()}

    def _check_known(self, key: str) -> None:
        if key not in self._shard_of:
            self._check_not_left_out(key)
            raise CheckpointError(f"{self.folder}: no key {key!r}: {self._nearest(key)}")

    def _check_not_left_out(self, start: str) -> None:
        if any(key.startswith(start) for key in self.left_out):
            raise CheckpointError(
                f"{self.folder}: {start!r} is of an MTP layer (num_nextn_predict_layers in {CONFIG}):"
                " open the checkpoint with mtp=True (--mtp)"
            )

    def _entry(self, key: str) -> tuple[tuple[int, ...], str]:
        """The tensor's shape and the name of its dtype."""
        self._check_known(key)
        header = self._header(self._shard_of[key])
        if key not in header:
            raise CheckpointError(
                f"{self.folder / self._shard_of[key]}: lacks {key}, which {INDEX} places there: download both again"
            )
        return header[key]

    def _header(self, name: str) -> dict[str, tuple[tuple[int, ...], str]]:
        if name not in self._headers:
            check_header(self.folder / name)
            shard = self._open(name)
            slices = {key: shard.get_slice(key) for key in shard.keys()}  # noqa: SIM118  (safe_open is no mapping)
            self._headers[name] = {key: (tuple(part.get_shape()), part.get_dtype()) for key, part in slices.items()}
        return self._headers[name]

    def _open(self, name: str) -> Any:
        """The shard (safe_open has no types), mapped into memory and not read. It is opened anew for each tensor: a
        mapping that is kept open would keep all that was read of it in memory."""
        path = self.folder / name
        try:
            return safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            reason = str(error).removeprefix("Error while deserializing header: ")
            raise CheckpointError(f"{path}: is no valid safetensors file ({reason}): download it again") from error
        except (RuntimeError, MemoryError) as error:  # torch's and safetensors', of a refused mmap
            size = path.stat().st_size / 1e9
            raise CheckpointError(f"{path}: its {size:.1f} GB can't be mapped into memory ({error})") from error

    def _nearest(self, name: str) -> str:
        """A hint for a `name` that does not exist: what there is in place of its first part that no key has. A model's
        keys, tens of thousands, are too many to list, or to compare with `name` one by one."""
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
