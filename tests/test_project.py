"""What pyproject.toml and constraints.txt promise: bounds of dependencies, pins of all, and the order of the rooms."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENTS = {r.name.lower(): r for r in map(Requirement, PROJECT["project"]["dependencies"])}
EXTRAS = {name: [*map(Requirement, asked)] for name, asked in PROJECT["project"]["optional-dependencies"].items()}
ALL = [*REQUIREMENTS.values(), *(r for asked in EXTRAS.values() for r in asked if r.name != "upsweep")]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINNED = [Requirement(line) for line in CONSTRAINTS if not line.startswith("#")]
PINS = {canonicalize_name(requirement.name): requirement for requirement in PINNED}


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_malicious_uploads_of_lightning_are_never_installed(version: str) -> None:
    assert not REQUIREMENTS["pytorch-lightning"].specifier.contains(version)
    assert not PINS[canonicalize_name("pytorch-lightning")].specifier.contains(version)


@pytest.mark.parametrize("version", ["2.6.1", "2.6.4", "2.6.6"])
def test_the_other_versions_of_lightning_are_admitted(version: str) -> None:
    assert REQUIREMENTS["pytorch-lightning"].specifier.contains(version)


@pytest.mark.parametrize("requirement", ALL, ids=str)
def test_every_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    for pinned in [pin for pin in PINNED if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]:
        (pin,) = pinned.specifier
        assert requirement.specifier.contains(pin.version)
    assert canonicalize_name(requirement.name) in PINS


def test_what_dependencies_bring_is_pinned_too() -> None:
    waiting, seen = [*ALL], set[str]()
    while waiting:
        requirement = waiting.pop()
        extras = ("", *requirement.extras)
        try:
            brought = [Requirement(said) for said in requires(requirement.name) or []]
        except PackageNotFoundError:  # of an extra that is not installed here
            continue
        named = [r for r in brought if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]
        waiting += (r for r in named if f"{r.name}{sorted(r.extras)}" not in seen)
        seen |= {f"{r.name}{sorted(r.extras)}" for r in named}
    names = {canonicalize_name(name.partition("[")[0]) for name in seen}
    assert len(names) > 100  # of a development environment
    assert names <= PINS.keys(), names - PINS.keys()


@pytest.mark.parametrize("python", ["3.11.7", "3.12.1", "3.13.0", "3.14.0"])
@pytest.mark.parametrize(("platform", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_a_package_has_one_pin_on_every_python_and_system(python: str, platform: str, machine: str) -> None:
    here = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": platform,
        "platform_machine": machine,
    }
    names = [canonicalize_name(pin.name) for pin in PINNED if pin.marker is None or pin.marker.evaluate(here)]
    assert len(names) == len({*names})
    assert {canonicalize_name(requirement.name) for requirement in ALL} <= {*names}


def test_pins_are_versions_and_neither_addresses_nor_options() -> None:
    for pin in PINNED:
        assert pin.url is None and [specifier.operator for specifier in pin.specifier] == ["=="], pin
    assert not [line for line in CONSTRAINTS if "://" in line or line.startswith("-")]


@pytest.mark.parametrize("requirement", [*ALL, *map(Requirement, PROJECT["build-system"]["requires"])], ids=str)
def test_every_requirement_has_a_lower_bound_and_a_ceiling(requirement: Requirement) -> None:
    operators = {specifier.operator for specifier in requirement.specifier}
    assert "~=" in operators or {">=", "<"} <= operators


def test_the_development_environment_has_every_extra_that_tests_need() -> None:
    (own,) = [requirement for requirement in EXTRAS["dev"] if requirement.name == "upsweep"]
    assert own.extras == EXTRAS.keys() - {
        "dev",
        "docs",
        "fid",
        "notebooks",
    }  # for a site, weights and windows of their own


def test_a_renewal_says_what_changed() -> None:
    spec = spec_from_file_location("pins", ROOT / ".ci" / "pins.py")
    assert spec is not None and spec.loader is not None
    pins = module_from_spec(spec)
    spec.loader.exec_module(pins)
    before = "# pins\nrich==15.0.0\nold==1\nPyYAML==6.0\nnumpy==2.4\n"
    after = "rich==15.1.0\npyyaml==6.0\nnumpy==2.4 ; sys_platform == 'win32'\nnumpy==2.5\nnew==2\n"
    said = ["new: new -> 2", "numpy: 2.4 -> 2.4 or 2.5", "old: 1 -> gone", "rich: 15.0.0 -> 15.1.0"]
    assert pins.changes(before, after) == said
    assert pins.changes(after, after) == []


def test_extras_are_installed_from_the_checkout_since_no_index_has_upsweep() -> None:
    below = (file for top in ("src", "docs", "notebooks") for file in (ROOT / top).rglob("*"))
    files = [ROOT / "README.md", *(file for file in below if file.suffix in (".md", ".py", ".ipynb"))]
    from_an_index = re.compile(r"pip install\s+(-\S+\s+)*['\"]?upsweep\b")
    assert not [file for file in files if from_an_index.search(file.read_text(encoding="utf-8"))]


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
