# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Norms over a mesh of chips: `--mesh 1x2` opens one, by default it is of one chip. Rows over chips have the bits of
one chip; columns over chips come as near to float64."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn

from integration import TtLayerNorm, TtRMSNorm
from integration.mesh import Distribution
from integration.norm import TtNorm
from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm, reference
from model_comparison.block import Block
from model_comparison.block_input import drawn_input
from model_comparison.collect import collect
from model_comparison.judge import judge
from tests.child import PATIENCE, Start, wait_for
from tests.compared import NORMS, run_script
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights, upload
from tt_device import ONE_CHIP, Mesh, Platform, as_mesh

FORMS = {"LayerNorm": TtLayerNorm, "RMSNorm": TtRMSNorm}


@pytest.fixture(scope="session")
def chips(pytestconfig: pytest.Config) -> Mesh:
    chips: Mesh = pytestconfig.getoption("mesh")
    return chips


def make(name: str, width: int, device: Any, dtype: torch.dtype = torch.bfloat16, **more: Any) -> TtNorm:
    gamma, beta = (weight.flatten() for weight in random_weights(width, dtype=dtype))
    if name == "LayerNorm":
        return TtLayerNorm(width, gamma, beta, epsilon=1e-6, device=device, **more)
    return TtRMSNorm(width, gamma, epsilon=1e-6, device=device, round_before_gamma=False, **more)


def golden(name: str, x: torch.Tensor) -> torch.Tensor:
    gamma, beta = random_weights(x.shape[-1], dtype=x.dtype)
    y = LayerNorm.golden(x, gamma, beta) if name == "LayerNorm" else RMSNorm.golden(x, gamma)
    assert isinstance(y, torch.Tensor)
    return y


def of_one_chip(name: str, x: torch.Tensor) -> torch.Tensor:
    """The bits."""
    gamma, beta = (weight.flatten() for weight in random_weights(x.shape[-1]))
    rows = x.reshape(-1, x.shape[-1])
    y = reference.layer_norm(rows, gamma, beta) if name == "LayerNorm" else reference.rms_norm(rows, gamma)
    return y.reshape(x.shape)


# --- Rows over chips ---


@pytest.mark.parametrize("name", FORMS)
def test_torch_rows_are_dealt_out(mesh: Any, name: str) -> None:
    """More than chips, of which no number divides them; and fewer."""
    norm = make(name, 300, mesh)
    for shape in ((1, 9, 300), (1, 300)):
        x = random_input(shape)
        assert torch.equal(norm(x), of_one_chip(name, x))
    assert norm.launches == 2


@pytest.mark.parametrize("layout", [ttnn.ROW_MAJOR_LAYOUT, ttnn.TILE_LAYOUT], ids=["sticks", "tiles"])
@pytest.mark.parametrize("name", FORMS)
def test_ttnn_tensors_stay_as_they_are_distributed(mesh: Any, name: str, layout: ttnn.Layout) -> None:
    norm, x = make(name, 96, mesh, cores=4), random_input((40, 96))
    count = mesh.get_num_devices()
    # Tiles are made on the host: on the device, wolfpine's Wormhole makes wrong ones of these, ttsim's right ones.
    dealt = ttnn.to_device(ttnn.from_torch(x, layout=layout, mesh_mapper=ttnn.ShardTensorToMesh(mesh, dim=0)), mesh)
    y = ttnn.to_torch(norm(dealt), mesh_composer=ttnn.ConcatMeshToTensor(mesh, dim=0))
    assert torch.equal(y, of_one_chip(name, x))
    on_host = ttnn.from_torch(x, layout=layout, mesh_mapper=ttnn.ReplicateTensorToMesh(mesh))
    replicated = ttnn.to_device(on_host, mesh)
    y = ttnn.to_torch(norm(replicated), mesh_composer=ttnn.ConcatMeshToTensor(mesh, dim=0))
    assert torch.equal(y, of_one_chip(name, x).repeat(count, 1))


# --- Columns over chips ---


@pytest.fixture(params=[0, pytest.param(1, marks=pytest.mark.long)])  # on one chip, one as the other
def axis(request: pytest.FixtureRequest) -> int:
    axis: int = request.param
    return axis


def shapes(chips: Mesh) -> list[tuple[int, int]]:
    """DeepSeek's; on a single chip, which wolfpine is, a row of q_a's."""
    return [(1, 1536)] if chips == ONE_CHIP else [(1, 1536), (32, 1536), (1, 7168), (32, 7168)]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("offset", "std"), [(0.5, 2.0), (1e4, 64.0)], ids=["offset 0.5", "offset 1e4"])
def test_columns_over_chips(mesh: Any, chips: Mesh, axis: int, name: str, offset: float, std: float) -> None:
    for shape in shapes(chips):
        x = random_input(shape, offset, std)
        y = make(name, shape[-1], mesh, mesh_axis=axis)(x)
        beta = random_weights(shape[-1])[1] if name == "LayerNorm" else None
        assert_equal_but_near_ties(y, golden(name, x), beta, least=0.99)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMS)
def test_float32_columns_over_chips(mesh: Any, chips: Mesh, axis: int, name: str) -> None:
    for shape in shapes(chips)[:3]:
        x = random_input(shape, dtype=torch.float32)
        y = make(name, shape[-1], mesh, torch.float32, mesh_axis=axis)(x)
        expected = golden(name, x)
        assert (y - expected).norm() / expected.norm() <= 1e-6


@pytest.mark.parametrize("name", FORMS)
def test_a_residual_of_columns_over_chips(mesh: Any, axis: int, name: str) -> None:
    x, residual = random_input((6, 512)), random_input((6, 512), offset=0.0, seed=3)
    norm = make(name, 512, mesh, mesh_axis=axis)
    to_chips = norm.distribution
    y, total = norm.op(to_chips.upload(x), residual=to_chips.upload(residual))
    assert torch.equal(to_chips.download(total, 6), x + residual)
    assert torch.equal(to_chips.download(y, 6), norm(x + residual))


def test_weights_from_a_checkpoint(mesh: Any, axis: int, folders: dict[str, Path]) -> None:
    """Each chip has its columns of them alone."""
    norm = TtRMSNorm.from_checkpoint(folders["v32"], "model.layers.3.input_layernorm", device=mesh, mesh_axis=axis)
    own = norm.width // norm.distribution.across
    assert norm.gamma is not None
    assert [tuple(part.shape)[-1] for part in ttnn.get_device_tensors(norm.gamma)] == [own] * mesh.get_num_devices()
    x = random_input((5, norm.width))
    expected = RMSNorm.golden(x, norm.weight.detach(), round_before_gamma=True)
    assert_equal_but_near_ties(norm(x), expected)


@pytest.mark.long
def test_a_blocks_norms_hold(mesh: Any, cores: int | None, block: Block) -> None:
    """As compare_block.py --mesh does them."""
    comparison = judge(collect(block, mesh, block_input=drawn_input(block, 6), mesh_axis=1, cores=cores))
    assert comparison.holds, comparison
    assert comparison.launches == dict.fromkeys(NORMS["v32"], 1)


def test_prepared_it_would_be_one_launch(mesh: Any) -> None:
    norm = make("RMSNorm", 64, mesh, mesh_axis=0)
    with pytest.raises(LayerNormArgumentError, match="more launches than one: `op` runs them"):
        norm.prepare(norm.distribution.upload(random_input((4, 64))))


# --- A chip that fails ---


@pytest.mark.long
@pytest.mark.usefixtures("mesh")
def test_a_chip_that_hangs(start: Start, chips: Mesh) -> None:
    body = "from tests.programs import run_on_last_chip\nrun_on_last_chip(device, 'pages_writer', [0, 1])"
    run = start(body, mesh=chips, TT_DEVICE_TIMEOUT="50")
    run.wait_until_open()
    folder = run.run_folder
    run.go_on()
    assert run.end() == 3, run.stderr
    assert re.search(r"the device has not answered for \d+ s \(limit 50 s\)|on the device are deadlocked", run.stderr)
    wait_for(lambda: not folder.exists())


@pytest.mark.long
@pytest.mark.usefixtures("mesh")
def test_a_chips_simulator_that_dies(start: Start, platform: Platform, chips: Mesh) -> None:
    """ttsim's chips are all in the process, which the first that refuses something ends; wolfpine's has its own."""
    body = "from tests.programs import run_on_last_chip\nrun_on_last_chip(device, 'misaligned_read', [])"
    run = start(body, mesh=chips, TT_DEVICE_TIMEOUT="50")
    run.wait_until_open()
    folder = run.run_folder
    if platform.backend == "wolfpine":
        os.kill(run.simulator, signal.SIGKILL)
        code, reason = 3, "the simulator ended"
    else:
        code, reason = 1, "ERROR: UndefinedBehavior: noc_cmd_ctrl: read"
    run.go_on()
    assert run.end() == code, run.stderr
    assert reason in run.stdout + run.stderr
    wait_for(lambda: not folder.exists())


# --- What can't be ---


def test_an_axis_that_the_mesh_does_not_have(mesh: Any) -> None:
    with pytest.raises(ValueError, match="mesh_axis must be one of 0, 1, but is 2"):
        make("RMSNorm", 64, mesh, mesh_axis=2)


def test_a_width_that_the_axis_does_not_divide(mesh: Any, axis: int, chips: Mesh) -> None:
    width = 63
    if chips[axis] == 1:
        assert Distribution(mesh, axis).refusal(width) == ""
        return
    message = f"the width must be a multiple of the chips of axis {axis}, {chips[axis]}, but is 63"
    with pytest.raises(ValueError, match=message):
        make("RMSNorm", width, mesh, mesh_axis=axis)


def test_columns_that_lie_otherwise(mesh: Any, axis: int, chips: Mesh) -> None:
    if chips[axis] == 1:
        return  # then all columns of a row are where they must be, however it is distributed
    norm, own = make("RMSNorm", 128, mesh, mesh_axis=axis), 128 // chips[axis]
    replicated = ttnn.ReplicateTensorToMesh(mesh)
    whole = ttnn.from_torch(random_input((4, 128)), device=mesh, mesh_mapper=replicated)
    with pytest.raises(LayerNormArgumentError, match=rf"{own} of 128 columns on each of .*, but has shape \(4, 128\)"):
        norm(whole)
    part = ttnn.from_torch(random_input((4, own)), device=mesh, mesh_mapper=replicated)
    with pytest.raises(
        LayerNormArgumentError, match=rf"cut by columns over axis {axis} of the mesh, but is .*Replicate"
    ):
        norm(part)


def test_weights_elsewhere(mesh: Any, chips: Mesh) -> None:
    """On a part of the mesh."""
    if chips == ONE_CHIP:
        return
    one = mesh.create_submesh(ttnn.MeshShape(1, 1))
    with pytest.raises(LayerNormArgumentError, match="gamma must be on the input's device"):
        RMSNorm.op(upload(random_input((4, 64)), one), upload(random_weights(64)[0], mesh))


@pytest.mark.long
@pytest.mark.usefixtures("mesh")
def test_a_fabric_that_is_off(start: Start, chips: Mesh) -> None:
    run = start(
        """
        import ttnn
        from integration.mesh import Distribution

        ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)
        print(Distribution(device, 1).refusal(64))
        """,
        mesh=chips,
    )
    run.go_on()
    assert run.end() == 0, run.stderr
    advice = r"but it is off: ttnn\.set_fabric_config\(ttnn\.FabricConfig\.FABRIC_1D\) before the mesh opens"
    assert bool(re.search(advice, run.stdout)) == (chips[1] > 1)


@pytest.mark.long
@pytest.mark.usefixtures("mesh")
def test_one_mesh_after_another(platform: Platform, chips: Mesh) -> None:
    """In a process, with a fabric each."""
    program = f"""
from integration import TtRMSNorm
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights
from tt_device import find_platform

x, (gamma, _) = random_input((4, 64)), random_weights(64)
for mesh in ({chips}, (1, 1), {chips}):
    with find_platform({str(platform.arch)!r}).open(mesh=mesh) as device:
        norm = TtRMSNorm(64, gamma[0], epsilon=1e-6, device=device, mesh_axis=1, round_before_gamma=False)
        assert_equal_but_near_ties(norm(x), norm.formula.golden(x, gamma, None))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_is_no_mesh() -> None:
    assert as_mesh("2x4") == (2, 4)
    for text in ("2", "0x2", "1x2x2"):
        with pytest.raises(ValueError, match=f"rows x columns of chips, as 1x2, but not as '{text}'"):
            as_mesh(text)


@pytest.mark.long
def test_more_chips_than_there_are(platform: Platform) -> None:
    done = run_script("--mesh", "8x8", "--arch", platform.arch)
    assert done.returncode == 3
    assert re.search(r"error: mesh \(8x8\) must have no more chips than there are \([124]\)\n", done.stderr)
