"""Which package may import which. Imports run in one direction, so that each part can be used and tested alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("weights_tools", "micro_ops", "tt_device", "integration", "scripts", "tests")
MAY_IMPORT = {
    "weights_tools": set(),  # files, no device
    "micro_ops": set(),  # tensors and kernels, no model
    "tt_device": set(),  # how to get a device, nothing of norms
    "integration": {"weights_tools", "micro_ops"},  # joins them, on a device that it is given
    "scripts": {"integration", "micro_ops", "tt_device", "weights_tools"},  # arguments and output
}
FOREIGN = {  # what would drag a device or a model in
    "weights_tools": {"ttnn", "transformers"},
    "micro_ops": {"transformers", "safetensors"},
    "tt_device": {"torch", "transformers", "safetensors"},
}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_in_one_direction(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no Python files: has it moved?"
    for file in files:
        imported = _imported(file)
        ours = (imported & set(PACKAGES)) - {package}
        assert ours <= MAY_IMPORT[package], f"{file.relative_to(ROOT)} imports {ours - MAY_IMPORT[package]}"
        assert not imported & FOREIGN.get(package, set()), f"{file.relative_to(ROOT)} imports {imported}"


def _imported(file: Path) -> set[str]:
    """Top-level names of all imports in the file, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides where it goes"
            names.add(str(node.module).split(".")[0])
    return names
