"""What pyproject.toml promises: the bounds of dependencies, and the order of the rooms."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENTS = {r.name.lower(): r for r in map(Requirement, PROJECT["project"]["dependencies"])}
PINS = {
    requirement.name.lower(): requirement
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_malicious_uploads_of_lightning_are_never_installed(version: str) -> None:
    assert not REQUIREMENTS["pytorch-lightning"].specifier.contains(version)
    assert not PINS["pytorch-lightning"].specifier.contains(version)


@pytest.mark.parametrize("version", ["2.6.1", "2.6.4", "2.6.6"])
def test_the_other_versions_of_lightning_are_admitted(version: str) -> None:
    assert REQUIREMENTS["pytorch-lightning"].specifier.contains(version)


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    for name, requirement in REQUIREMENTS.items():
        (pin,) = PINS[name].specifier
        assert requirement.specifier.contains(pin.version), name


def test_torch_stays_in_a_range_whose_cpu_file_every_machine_can_have() -> None:
    assert REQUIREMENTS["torch"].specifier.contains("2.13.0")


def test_imports_point_down_through_the_rooms() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_an_import_that_points_up_is_found(tmp_path: Path) -> None:
    rooms = tmp_path / "upsweep"
    for room in ("common", "training"):
        (rooms / room).mkdir(parents=True)
        (rooms / room / "__init__.py").touch()
    (rooms / "__init__.py").touch()
    (rooms / "common" / "files.py").write_text("import upsweep.training\n", encoding="utf-8")
    contract = {"name": "down", "type": "layers", "layers": ["upsweep.training", "upsweep.common"]}
    lines = [f"{key} = {value!r}" for key, value in contract.items()]
    text = "\n".join(["[tool.importlinter]", "root_package = 'upsweep'", "[[tool.importlinter.contracts]]", *lines])
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "upsweep.common.files -> upsweep.training" in done.stdout
