# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What the compiler stand-in makes of SFPU code, run on the device and held against torch; and what it refuses.

A Dest tile is 32 vectors of 32 lanes (four rows of eight); references work on float32 tensors (32 vectors, 32 lanes).
They are exact, but for a * b + c: there the SFPU keeps no more than three bits of the product beyond a float32's.
"""

import math
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn

from tests.child import PATIENCE, Start
from tests.programs import circular_buffer, kernel, launch
from tests.tensors import upload
from tt_device import Platform, find_platform, runtime_root

TILE = 1024  # elements
RUNTIME_FLOAT = 1.7
RUNTIME_INT = 3
BLACKHOLE_ONLY = ("shifted_lanes", "arithmetic_shift")

Reference = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Terms = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor | float, torch.Tensor | float]]


# ---- Running kernels/sfpu_*.cpp


def run(
    device: Any, operations: Sequence[str], a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """One operation on each pair of tiles of a and b, (len(operations), 1024) or broadcast to it; Dest of `dtype`."""
    pairs = len(operations)
    tiles = torch.stack([a.expand(pairs, TILE), b.expand(pairs, TILE)], dim=1).reshape(2 * pairs, TILE).to(dtype)
    precise = dtype == torch.float32
    source, result = upload(tiles, device), upload(torch.zeros(pairs, TILE, dtype=dtype), device)
    compute_config = ttnn.ComputeConfigDescriptor(fp32_dest_acc_en=precise)
    if precise:  # straight to Dest: SrcA holds TF32 at most
        modes = [ttnn.UnpackToDestMode.UnpackToDestFp32, *[ttnn.UnpackToDestMode.Default] * 63]  # one a CB
        compute_config.unpack_to_dest_mode = ttnn._ttnn.program_descriptor.VectorUnpackToDestMode(modes)
    compute_arguments = [_bits(RUNTIME_FLOAT), RUNTIME_INT, pairs, *(OPERATIONS.index(name) for name in operations)]
    defines = (("OPERATIONS", ", ".join(OPERATIONS)),)
    kernels = [
        kernel("sfpu_reader", ttnn.ReaderConfigDescriptor(), [source.buffer_address(), 2 * pairs], source),
        kernel("sfpu_writer", ttnn.WriterConfigDescriptor(), [result.buffer_address(), pairs], result),
        kernel("sfpu_compute", compute_config, compute_arguments, defines=defines),
    ]
    page_size = TILE * dtype.itemsize
    cbs = [circular_buffer(index, source.dtype, page_size, pages) for index, pages in ((0, 4), (16, 2))]
    written: torch.Tensor = ttnn.to_torch(launch([source, result], kernels, cbs))
    return written


def _bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


@pytest.fixture(scope="module")
def float32_device(device: Any, platform: Platform) -> Any:
    """The device, where float32 tiles can be unpacked straight to Dest."""
    if (platform.backend, platform.arch) == ("ttsim", "wormhole"):
        # After it, LLK unpacks a datum to SrcA, around fault TEN-3868 of the chip (unpack_to_dest_tile_done); ttsim
        # ends the process: "UndefinedBehavior: tensix_unpacr: unpack_to_dst=0 in_data_format=0 out_data_format=0".
        pytest.skip("ttsim refuses LLK's float32 unpack to Dest on Wormhole")
    return device


# ---- Lanes


def _vector_order() -> torch.Tensor:
    vector, lane = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    row, column = vector // 2 * 4 + lane // 8, lane % 8 * 2 + vector % 2  # of the tile's 64 face rows of 16
    return row * 16 + column


VECTOR_ORDER = _vector_order()


def to_vectors(tile: torch.Tensor) -> torch.Tensor:
    """(1024,) in the order of the tile's bytes -> (32 vectors, 32 lanes)"""
    return tile[VECTOR_ORDER]


def bits(x: torch.Tensor) -> torch.Tensor:
    """A float32's bits, as int64."""
    return x.view(torch.int32).long() & 0xFFFFFFFF


def from_bits(x: torch.Tensor) -> torch.Tensor:
    return ((x ^ 0x80000000) - 0x80000000).int().view(torch.float32)


def fields(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sign, biased exponent and mantissa of a float32, as int64."""
    return bits(x) >> 31, bits(x) >> 23 & 0xFF, bits(x) & 0x7FFFFF


def joined(sign: torch.Tensor | int, exponent: torch.Tensor | int, mantissa: torch.Tensor | int) -> torch.Tensor:
    sign, exponent, mantissa = (torch.as_tensor(field) for field in (sign, exponent, mantissa))
    return from_bits(sign << 31 | exponent << 23 | mantissa)


def exponent_of(x: torch.Tensor) -> torch.Tensor:
    return fields(x)[1] - 127


def flags(*conditions: torch.Tensor) -> torch.Tensor:
    """1, 2, 4, ... added up where the conditions hold."""
    return sum((c.float() * 2**i for i, c in enumerate(conditions)), torch.zeros(1))


def rotate(x: torch.Tensor, lanes: int = 1) -> torch.Tensor:
    return x.reshape(32, 4, 8).roll(lanes, dims=-1).reshape(32, 32)


def shift_lanes(x: torch.Tensor) -> torch.Tensor:
    rows = x.reshape(32, 4, 8)
    return torch.cat([torch.zeros(32, 4, 1), rows[..., :-1]], dim=-1).reshape(32, 32)


# ---- References. What each does in SFPI stands under its name in kernels/sfpu_compute.cpp.


def integer_arithmetic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    i, j = exponent_of(a), exponent_of(b)
    return ((i + j) + (i - j) + (i + 100) + (j - 7) + (5000 - i) - (j + 100000) - i).float()


def bit_operations(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    m, n = fields(a)[2] | 0x800000, fields(b)[2]
    return (((m & n) | (m ^ (n >> 3))) + ((m << 2) & 0xFFFF) + (~n & 0xFF)).float()


def field_operations(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    (sign_a, exponent_a, mantissa_a), (sign_b, exponent_b, mantissa_b) = fields(a), fields(b)
    total = joined(1, 130, mantissa_a) + joined(sign_b, exponent_a, mantissa_a)
    total = total + joined(sign_a, exponent_b, mantissa_a) + joined(sign_a, exponent_a, mantissa_b)
    return total + a * 8 + joined(sign_b, exponent_a, mantissa_b) + joined(sign_a, exponent_a, 0)


def nearest_bfloat16(a: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """To nearest, ties away from zero; NaN becomes infinity, -0 and subnormals 0 (SFPSTOCHRND)."""
    rounded = from_bits((bits(a) + 0x8000) & 0xFFFF0000)
    rounded = torch.where(a.isnan(), joined(fields(a)[0], 255, 0), rounded)
    return torch.where(a.abs() < 2.0**-126, 0.0, rounded)


def conditional_copies(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    swapped = a < b
    old = torch.where(swapped, b + a, a)
    p, q = torch.where(swapped, b + old, a), torch.where(swapped, a, b)
    return a, b, (p - q) * 4 + old


def conditional_nested(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(a > 0, torch.where(b > 0, 2.0, 3.0) + 10.0 * (a > b), 0.0)


def logic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    negative_a, negative_b = a < 0, b < 0
    last = (a < b) & ((a >= 1) | ~(b < 1))
    return flags(negative_a | negative_b, ~(negative_a & negative_b), last, (a < 2) & (b < 2))


def integer_comparisons(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    i, j = exponent_of(a), exponent_of(b)
    return flags(i < j, i <= j, i > j, i == j, i > 0, i <= 0, i >= RUNTIME_INT, i <= RUNTIME_INT)


def transposed(a: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return a.reshape(8, 4, 4, 8).transpose(1, 2).reshape(32, 32)  # fours, vectors, rows, columns


def total(a: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    rows = a.reshape(32, 4, 1, 8).expand(-1, -1, 4, -1)
    lanes = ((rows[:, 0] + rows[:, 1]) + (rows[:, 2] + rows[:, 3])).reshape(32, 32)
    for distance in (1, 2, 4):
        lanes = lanes + rotate(lanes, distance)
    return lanes


REFERENCES: dict[str, Reference] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "negate": lambda a, _: -a,
    "absolute": lambda a, _: a.abs(),
    "negative_product": lambda a, b: -(a * b),
    "accumulate": lambda a, b: (a + b - 1) * 0.5,
    "constants": lambda a, _: a + 0.1 + 3 - 1,
    "runtime_int": lambda a, _: (exponent_of(a) + RUNTIME_INT).float(),
    "runtime_address": lambda a, _: a.flip(0),
    "tile_id": lambda *_: torch.arange(0.0, 64.0, 2.0).expand(32, -1),
    "conditional": lambda a, b: torch.where(a < 0, b, torch.where(a < b, a * 2, a + 10)),
    "conditional_first": lambda a, b: torch.maximum(a, b),
    "conditional_nested": conditional_nested,
    "logic": logic,
    "comparisons": lambda a, b: flags(a < b, a <= b, a > b, a >= b, a == b, a != b, a > 1.5, a <= 1.5),
    "integer_comparisons": integer_comparisons,
    "integer_arithmetic": integer_arithmetic,
    "bits": bit_operations,
    "shift_by_vector": lambda a, b: (fields(a)[2] >> (exponent_of(b) & 7)).float(),
    "fields": field_operations,
    "to_bfloat16": nearest_bfloat16,
    "to_integer": lambda a, _: a.sign() * (a.abs() + 0.5).floor(),
    "nearest_integer": lambda a, _: a.round() * 2,
    "least": torch.minimum,
    "greatest": lambda a, b: torch.maximum(a, b) + a.clamp(-1, 1),
    "exchanged": lambda a, b: b * 2 + a,
    "classes": lambda a, _: flags(a.isnan(), a.isinf(), a.isfinite(), a == 0),
    "transposed": transposed,
    "rotated": lambda a, _: rotate(a),
    "rotated_sum": lambda a, b: rotate(a + b) + a,
    "total": total,
    "eight_live": lambda a, _: a.reshape(4, 8, 32).flip(1).reshape(32, 32),
    "shifted_lanes": lambda a, _: shift_lanes(a),
    "arithmetic_shift": lambda a, _: (exponent_of(a) >> 1).float(),
}
# The p, q, c of operations that end in p * q + c
CONTRACTED: dict[str, Terms] = {
    "multiply_add": lambda a, b: (a, b, a),
    "multiply_subtract": lambda a, b: (a, b, -a),
    "subtract_product": lambda a, b: (-a, b, a),
    "add_negative_product": lambda a, b: (-a, b, a),
    "sum_of_products": lambda a, b: (b, b, a * b),  # the left product is rounded by itself
    "programmable_constant": lambda a, _: (a, 0.7, 0.7),
    "runtime_float": lambda a, _: (a, RUNTIME_FLOAT, RUNTIME_FLOAT),
    "polynomial_in_a": lambda a, b: (a * -0.25 + 0.5, a, b),
    "conditional_copies": conditional_copies,
}
# Wormhole has no instruction that subtracts a product: SFPI makes an SFPMUL, and an SFPMAD that multiplies by -1.
CONTRACTED_ON_WORMHOLE: dict[str, Terms] = CONTRACTED | {"subtract_product": lambda a, b: (a * b, -1.0, a)}
OPERATIONS = ["rsqrt", *REFERENCES, *CONTRACTED]


# ---- SFPI, operation by operation


def available(operation: str, arch: str) -> bool:
    return arch == "blackhole" or operation not in BLACKHOLE_ONLY


def operands() -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles a and b (1024,): all signs, exponents around 0, equal pairs, and ties between two bfloat16."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, TILE, generator=generator) * 2
    b[::7] = a[::7]
    a[::5] = from_bits((bits(a[::5]) & 0xFFFF0000) | 0x8000)
    return a, b


def specials() -> torch.Tensor:
    """A tile of infinities, NaN, zeros, the smallest normals and ordinary numbers."""
    tile = operands()[0]
    values = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 2.0**-126, -(2.0**-126), 3.3e38])
    tile[: 8 * len(values)] = values.repeat(8)
    return tile


@pytest.fixture(scope="module")
def results(float32_device: Any, platform: Platform) -> dict[str, torch.Tensor]:
    """What each operation made of `operands()`, in one launch; of `specials()` where their names are asked for."""
    names = [name for name in OPERATIONS[1:] if available(name, platform.arch)]
    special = ["classes", "to_bfloat16", "negate", "absolute", "transposed"]
    a, b = operands()
    first = torch.cat([a.expand(len(names), -1), specials().expand(len(special), -1)])
    tiles = run(float32_device, [*names, *special], first, b)
    return dict(zip([*names, *(f"{name} of specials" for name in special)], tiles, strict=True))


def assert_same(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to the bit, but for the sign of zero (Wormhole's SFPMAD makes no -0) and the NaNs' bits."""
    wrong = ~((result == expected) | (result.isnan() & expected.isnan()))
    if wrong.any():
        vector, lane = (int(i) for i in wrong.nonzero()[0])
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.numel()} lanes are wrong; first, vector {vector} lane {lane}: "
            f"{result[vector, lane].item()!r} instead of {expected[vector, lane].item()!r}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`operation`: the names in REFERENCES that the architecture has."""
    if "operation" in metafunc.fixturenames:
        arch = find_platform(metafunc.config.getoption("arch")).arch
        metafunc.parametrize("operation", [name for name in REFERENCES if available(name, arch)])


def test_operation(operation: str, results: dict[str, torch.Tensor]) -> None:
    a, b = map(to_vectors, operands())
    assert_same(to_vectors(results[operation]), REFERENCES[operation](a, b).expand(32, 32))


@pytest.mark.parametrize("name", CONTRACTED)
def test_contracted_operation(name: str, results: dict[str, torch.Tensor], platform: Platform) -> None:
    """One rounding of the sum, and 2^-25 of the greater term for the product's lost bits; seen: 2^-26.09. A product
    rounded by itself would be off by 2^-24 in the worst of these lanes."""
    a, b = map(to_vectors, operands())
    terms = (CONTRACTED if platform.arch == "blackhole" else CONTRACTED_ON_WORMHOLE)[name]
    p, q, c = (torch.as_tensor(term, dtype=torch.float32).double() for term in terms(a, b))
    exact = p * q + c
    half_ulp = torch.exp2(exact.abs().clamp(min=2.0**-126).log2().floor() - 24)
    excess = (to_vectors(results[name]).double() - exact).abs() - half_ulp
    share = excess / torch.maximum((p * q).abs(), c.abs())
    worst = divmod(int(share.argmax()), 32)
    assert share.max() <= 2.0**-25, f"vector, lane {worst}: off by half an ULP and 2^{share.max().log2():.2f}"


@pytest.mark.parametrize("name", ["classes", "to_bfloat16", "negate", "absolute", "transposed"])
def test_operation_on_specials(name: str, results: dict[str, torch.Tensor]) -> None:
    a = to_vectors(specials())
    assert_same(to_vectors(results[f"{name} of specials"]), REFERENCES[name](a, a).expand(32, 32))


# ---- rsqrt_tile, ttnn's own kernel


@pytest.mark.long
def test_rsqrt_bfloat16_is_correctly_rounded(device: Any) -> None:
    """Every positive normal bfloat16: 254 exponents of 128 mantissas."""
    x = from_bits(torch.arange(0x0080, 0x7F80) << 16)
    tiles = torch.cat([x, torch.ones(-len(x) % TILE)]).reshape(-1, TILE)
    result = run(device, ["rsqrt"] * len(tiles), tiles, tiles, torch.bfloat16).flatten()[: len(x)]
    expected = x.double().rsqrt().float().bfloat16()
    wrong = (result != expected).nonzero().flatten()
    assert len(wrong) == 0, f"{len(wrong)} wrong; first, rsqrt({x[wrong[0]]}): {result[wrong[0]]}"


def test_rsqrt_float32_within_one_ulp(float32_device: Any) -> None:
    """1e-38 to 1e38, log-spaced, and every power of two. The kernel's own bound: an initial guess and two steps of a
    method for 23 bits (Kokosinski et al., in ckernel_sfpu_sqrt.h), without a last correction. Seen: 0.993 ULP, and
    13 % of the values not the nearest, on ttsim (bit-exact) as on wolfpine."""
    powers = torch.exp2(torch.arange(-126.0, 128.0, dtype=torch.float64))
    spaced = torch.logspace(-37.9, 38.5, 3 * TILE - len(powers), dtype=torch.float64)
    x = torch.cat([spaced, powers]).float().reshape(-1, TILE)
    result = run(float32_device, ["rsqrt"] * len(x), x, x).double()
    exact = x.double().rsqrt()
    ulps = (result - exact).abs() / torch.exp2(exact.log2().floor() - 23)
    worst = int(ulps.argmax())
    assert ulps.max() <= 1, f"{ulps.max():.3f} ULP at rsqrt({x.flatten()[worst]}): {result.flatten()[worst]}"


@pytest.mark.parametrize(
    ("dtype", "undefined"),
    [
        (torch.bfloat16, math.inf),  # the kernel rounds with SFPSTOCHRND, which makes NaN infinity
        (torch.float32, math.nan),
    ],
    ids=["bfloat16", "float32"],
)
def test_rsqrt_of_specials(dtype: torch.dtype, undefined: float, request: pytest.FixtureRequest) -> None:
    """A subnormal is not among them: the SFPU multiplies with zero in its place, but takes its bits for the guess."""
    device = request.getfixturevalue("float32_device" if dtype == torch.float32 else "device")
    undefined_at = [math.nan, -math.inf, -1.0, -1e38, -1e-37]
    inputs = torch.tensor([0.0, -0.0, math.inf, *undefined_at])
    outputs = torch.tensor([math.inf, -math.inf, 0.0, *[undefined] * len(undefined_at)])
    x, expected = torch.ones(2, TILE)
    x[: len(inputs)], expected[: len(inputs)] = inputs, outputs
    result = run(device, ["rsqrt"], x, x, dtype)[0].float()
    assert_same(result.reshape(32, 32), expected.reshape(32, 32))


@pytest.mark.long
def test_builds_ttnns_own_kernels(start: Start, tmp_path: Path) -> None:
    """Whose bindings have template parameters of class types, C++20's. In a cache of its own: what is compiled in the
    others is ours alone."""
    run = start(
        """
        import ttnn
        x = torch.randn(32, 64).bfloat16()
        y = ttnn.to_torch(ttnn.layer_norm(ttnn.from_torch(x, layout=ttnn.TILE_LAYOUT, device=device)))
        torch.testing.assert_close(y.double(), torch.layer_norm(x.double(), (64,)), rtol=0.01, atol=0.01)
        """,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        TT_DEVICE_TIMEOUT="50",
    )
    run.go_on()
    assert run.end() == 0, run.stderr


# ---- What the stand-in refuses


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = runtime_root.ensure_runtime_root(tmp_path_factory.mktemp("cache"))
    return root / "runtime" / "sfpi" / "compiler" / "bin" / "riscv-tt-elf-g++"


# What ttnn's JIT says of language and warnings
JIT_FLAGS = ["-std=c++17", "-ftt-nttp", "-ftt-constinit", "-ftt-consteval", "-ftt-no-dyninit", "-Wall", "-Werror"]
JIT_FLAGS += [f"-Wno-error={name}" for name in ("deprecated-declarations", "parentheses", "unused-but-set-variable")]
JIT_FLAGS += ["-Wno-unused-variable", "-Wno-unused-function"]


def compile_for_math_core(
    compiler: Path, folder: Path, code: str, cpu: str = "tt-bh-tensix", path: str | None = None
) -> subprocess.CompletedProcess[str]:
    source = folder / "kernel.cpp"
    source.write_text(f'#include "sfpi.h"\nusing namespace sfpi;\n{code}\n')
    command = [sys.executable, str(compiler), "-O3", f"-mcpu={cpu}", "-DCOMPILE_FOR_TRISC=1", *JIT_FLAGS]
    command += [f"-I{compiler.parents[2] / 'include'}", "-c", str(source), "-o", str(folder / "kernel.o")]
    environment = {**os.environ, "PATH": os.environ["PATH"] if path is None else path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_class_types_are_template_parameters(compiler: Path, tmp_path: Path) -> None:
    """As -ftt-nttp has it, which SFPI's compiler knows in C++17."""
    code = (
        "struct Size { int rows; };\ntemplate <Size size> int rows() { return size.rows; }\nint four = rows<Size{4}>();"
    )
    done = compile_for_math_core(compiler, tmp_path, code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("cpu", ["tt-bh-tensix", "tt-wh-tensix"])
def test_compiles_without_a_word(cpu: str, compiler: Path, tmp_path: Path) -> None:
    code = """
        void kernel(unsigned bits) {
            vFloat scale = as<vFloat>(vUInt(bits));
            vFloat x = dst_reg[0];
            v_if(x < 0.0f) { x = x * scale + 1.0f; }
            v_endif;
            dst_reg[0] = x;
        }
    """
    done = compile_for_math_core(compiler, tmp_path, code, cpu)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def tensix_opcodes(compiler: Path, folder: Path, code: str, cpu: str) -> list[int]:
    """Opcodes of the Tensix instructions that `code` becomes, in order (those that are not, have other last bits)."""
    assert compile_for_math_core(compiler, folder, code, cpu).returncode == 0
    binary = folder / "kernel.bin"
    objcopy = ["riscv64-unknown-elf-objcopy", "-O", "binary", "-j", ".text", str(folder / "kernel.o"), str(binary)]
    subprocess.run(objcopy, check=True, timeout=PATIENCE)
    words = [word for (word,) in struct.iter_unpack("<I", binary.read_bytes())]
    return [(word >> 2 | word << 30) >> 24 & 0xFF for word in words if word & 3 != 3]


NOP, MAD, ADD, MUL, IADD, SHFT, SWAP, SHFT2 = 0x8F, 0x84, 0x85, 0x86, 0x79, 0x7A, 0x92, 0x94
MIXED = """
    void kernel() {
        vFloat a = dst_reg[0], b = dst_reg[1];
        vFloat c = (a * b + a) * (a - b);
        vInt i = as<vInt>(c + a) + as<vInt>(c * b);
        vFloat d = min(as<vFloat>(i >> 1), a + b);
        dst_reg[0] = vFloat(subvec_shflror1(d + c)) * 2.0f;
    }
"""


def test_wormhole_gets_its_delays(compiler: Path, tmp_path: Path) -> None:
    """No interlock: a two-cycle instruction is followed by SFPNOP. No simulator looks."""
    opcodes = tensix_opcodes(compiler, tmp_path, MIXED.replace(">> 1", "<< 1"), "tt-wh-tensix")
    two_cycles = {MAD, ADD, MUL, SWAP, SHFT2}
    assert two_cycles <= set(opcodes)
    assert {after for before, after in pairwise(opcodes) if before in two_cycles} == {NOP}


def test_blackhole_gets_its_delays(compiler: Path, tmp_path: Path) -> None:
    """What reads registers that the interlock does not see is preceded by SFPNOP."""
    opcodes = tensix_opcodes(compiler, tmp_path, MIXED, "tt-bh-tensix")
    unseen = {IADD, SHFT, SWAP, SHFT2}
    assert unseen <= set(opcodes)
    assert {before for before, after in pairwise(opcodes) if after in unseen} == {NOP}


@pytest.mark.parametrize(
    ("expression", "blackhole", "wormhole"),
    [
        ("a * b + c", [MAD], [MAD]),
        ("a * b - c", [MAD], [MAD]),
        ("a + -b * c", [MAD], [MAD]),
        ("1.0f + -(a * b) * b", [MUL, MAD], [MUL, MAD]),
        ("a - b * c", [MAD], [MUL, MAD]),
        ("c + -(a * b)", [MAD], [MUL, ADD]),
        ("a * b - b * c", [MUL, MAD], [MUL, MAD]),
    ],
)
def test_contracts_what_sfpi_does(
    compiler: Path, tmp_path: Path, expression: str, blackhole: list[int], wormhole: list[int]
) -> None:
    code = f"void f() {{ vFloat a = dst_reg[0], b = dst_reg[1], c = dst_reg[2]; dst_reg[3] = {expression}; }}"
    for cpu, expected in (("tt-bh-tensix", blackhole), ("tt-wh-tensix", wormhole)):
        opcodes = tensix_opcodes(compiler, tmp_path, code, cpu)
        assert [opcode for opcode in opcodes if opcode in (MAD, ADD, MUL)] == expected, cpu


@pytest.mark.parametrize(
    "code",
    [
        "void f() { constexpr unsigned n = [] { return 2u; }(); dst_reg[n] = vFloat(dst_reg[0]); }",
        "consteval unsigned two() { return 2; } void f() { dst_reg[two()] = vFloat(dst_reg[0]); }",
        "constinit unsigned global = 2; void f(unsigned n) { global = n; }",
    ],
)
def test_takes_the_jits_language(code: str, compiler: Path, tmp_path: Path) -> None:
    done = compile_for_math_core(compiler, tmp_path, code)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("void f(auto x) { dst_reg[0] = x; }", "use of 'auto' in parameter declaration only available"),
        ("template <class T> concept C = true;", "'concept' does not name a type"),
        ("template <class T> requires true void f(T) {}", "'requires'"),
        (
            "int f(unsigned n) { for (int i = 0; i < n; ++i) { if (i == 7) return i; } return 0; }",
            "-Werror=sign-compare",
        ),
    ],
)
def test_is_as_strict_as_the_jit(code: str, message: str, compiler: Path, tmp_path: Path) -> None:
    """C++17, and warnings are errors: a card's compiler would not take it either."""
    done = compile_for_math_core(compiler, tmp_path, code)
    assert done.returncode != 0
    assert message in done.stderr, done.stderr


NINE_LIVE = """
    void kernel() {
        vFloat v[9];
        for (int i = 0; i < 9; i++) v[i] = dst_reg[i];
        for (int i = 0; i < 9; i++) dst_reg[i] = v[8 - i];
    }
"""
FIFTH_ACROSS_TRANSPOSE = """
    void kernel() {
        vFloat a = dst_reg[0], b = dst_reg[1], c = dst_reg[2], d = dst_reg[3], e = dst_reg[4];
        subvec_transp(a, b, c, d);
        dst_reg[0] = a; dst_reg[1] = b; dst_reg[2] = c; dst_reg[3] = d; dst_reg[4] = e;
    }
"""
NOT_INLINED = """
    [[gnu::noinline]] vFloat square(vFloat x) { return x * x; }
    void kernel() { dst_reg[0] = square(vFloat(dst_reg[0])); }
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (NINE_LIVE, "fsw .*are more than 8 live"),
        (FIFTH_ACROSS_TRANSPOSE, "fsw .*are more than 8 live"),  # SFPTRANSP moves LREG4-7, too
        (NOT_INLINED, "fmv.x.w .*a function that is not inlined"),
        ("float f(float a, float b) { return a * b; }", "fmul.s .*scalar float arithmetic"),
        ("float f(float a, float b) { return a + b; }", "fadd.s .*scalar float arithmetic"),
        ("float f(float a, float b, float c) { return a * b + c; }", "fmadd.s .*scalar float arithmetic"),
        ("bool f(float a, float b) { return a < b; }", "flt.s .*scalar float arithmetic"),
        ("int f(float a) { return a; }", "fcvt.w.s .*scalar float arithmetic"),
        ("float f(int a) { return a; }", "fcvt.s.w .*scalar float arithmetic"),
        ("float f(float a) { return -a; }", "fneg.s .*scalar float arithmetic"),
        ("void f(float* p, float* q) { *p = *q / *p; }", "fdiv.s .*scalar float arithmetic"),
        ("void f() { dst_reg[0] = lut(vFloat(dst_reg[0]), vUInt(1), vUInt(2), vUInt(3)); }", "sfpi::lut is not"),
        ("void f() { dst_reg[0] = vFloat(l_reg[LRegs::LReg3]); }", r"sfpi::l_reg\[\] .*is not modelled"),
        ("void f(int n) { dst_reg[0] = setexp(vFloat(dst_reg[0]), n); }", "immediate that is known only at run time"),
        ("void f() { dst_reg[0] = addexp(vFloat(dst_reg[0]), 200); }", "immediate .*out of its range"),
        ("void f() { dst_reg += 8; }", "immediate .*out of its range"),
        ("void f() { dst_reg[1] = vInt(dst_reg[0].mode<DataLayout::F16b>()); }", r"dst_reg\[\]: this vector type"),
    ],
)
def test_refuses_by_name(code: str, message: str, compiler: Path, tmp_path: Path) -> None:
    done = compile_for_math_core(compiler, tmp_path, code)
    assert done.returncode != 0
    assert re.search(f"[Ee]rror: .*{message}", done.stderr), done.stderr


def test_refuses_wormholes_faulty_shift(compiler: Path, tmp_path: Path) -> None:
    code = "void f() { dst_reg[0] = vFloat(subvec_shflshr1(vFloat(dst_reg[0]))); }"
    assert compile_for_math_core(compiler, tmp_path, code, "tt-bh-tensix").returncode == 0
    done = compile_for_math_core(compiler, tmp_path, code, "tt-wh-tensix")
    assert done.returncode != 0
    assert "sfpi::subvec_shflshr1" in done.stderr


def test_refuses_unknown_cpu(compiler: Path, tmp_path: Path) -> None:
    done = compile_for_math_core(compiler, tmp_path, "", "tt-qsr32-tensix")
    assert done.returncode != 0
    assert "-mcpu=tt-qsr32-tensix" in done.stderr
    assert "-mcpu=tt-bh-tensix" in done.stderr


def test_says_what_to_install(compiler: Path, tmp_path: Path) -> None:
    done = compile_for_math_core(compiler, tmp_path, "", path="")
    assert done.returncode != 0
    assert "riscv64-unknown-elf-g++ is not on PATH" in done.stderr
    assert f"install it: {runtime_root.APT_LINE}\n" in done.stderr
