"""A default is said where a user changes it, in YAML, and the signature that it configures says the same."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

CONF = Path(__file__).resolve().parent.parent / "conf"
MAIN = CONF / "train.yaml"
FILES = sorted(file for file in CONF.rglob("*.yaml") if "_target_" in file.read_text(encoding="utf-8"))
OF_HYDRA = {"defaults"}


def scalars(node: yaml.Node, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], yaml.Node]]:
    """Every key of a YAML document with its node, from the top."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), value
            yield from scalars(value, (*path, str(key.value)))


def read(file: Path) -> tuple[dict[tuple[str, ...], Any], dict[tuple[str, ...], str]]:
    """Value and line of every key in a file."""
    text = file.read_text(encoding="utf-8")
    lines, root = text.splitlines(), yaml.compose(text, yaml.SafeLoader)
    found = dict(scalars(root)) if root is not None else {}
    values = {path: yaml.SafeLoader("").construct_object(node, deep=True) for path, node in found.items()}
    return values, {path: lines[node.start_mark.line] for path, node in found.items()}


def number(value: Any) -> Any:
    """YAML 1.1, which PyYAML reads, takes 1e-3 for a word; Hydra does not."""
    if isinstance(value, str) and re.fullmatch(r"-?[\d.]+e-?\d+", value):
        return float(value)
    return list(value) if isinstance(value, tuple) else value


def differences(file: Path) -> list[str]:
    """Keys whose value is another than the signature's default, without a comment `not <default>: <why>`."""
    values, lines = read(file)
    main, main_lines = read(MAIN)
    found = []
    for path in [path for path in values if path[-1] == "_target_"]:
        module, _, name = str(values[path]).rpartition(".")
        parameters = inspect.signature(getattr(import_module(module), name)).parameters
        for key, value in ((p[-1], v) for p, v in values.items() if p[:-1] == path[:-1]):
            if key.startswith("_") or key in OF_HYDRA or key not in parameters:
                continue
            line, place = lines[(*path[:-1], key)], file
            interpolated = re.fullmatch(r"\$\{(data)\.(\w+)\}", str(value))
            if interpolated and interpolated.groups() in main:
                value, line, place = main[interpolated.groups()], main_lines[interpolated.groups()], MAIN
            default = parameters[key].default
            said = number(value)
            if default is inspect.Parameter.empty or isinstance(said, dict) or "${" in str(said):
                continue
            told = re.search(r"#.*\bnot (\(.*?\)|\S+): \S", line)
            if said != number(default) and not (told and number(told[1]) in (str(default), default)):
                found.append(f"{place.relative_to(CONF)}: {key}: {said!r}, and {name} says {default!r}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_a_value_that_a_file_repeats_is_the_default_of_what_it_configures_or_says_why_not(file: Path) -> None:
    assert differences(file) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_a_file_sets_nothing_that_its_class_does_not_take(file: Path) -> None:
    values, _ = read(file)
    for path in [path for path in values if path[-1] == "_target_"]:
        module, _, name = str(values[path]).rpartition(".")
        parameters = inspect.signature(getattr(import_module(module), name)).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        keys = {p[-1] for p in values if p[:-1] == path[:-1]}
        of_a_group = {key for key in keys if file.parent.name == "data"}  # what a source does not take feeds the task
        unknown = {key for key in keys if not key.startswith("_")} - set(parameters) - OF_HYDRA - of_a_group
        assert not unknown, f"{name} takes no {unknown}"


def test_a_difference_without_a_comment_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_defaults.CONF", tmp_path)
    file = tmp_path / "adam.yaml"
    file.write_text(
        "_target_: torch.optim.Adam\nlr: 2e-3\neps: 1e-8\nbetas: [0.9, 0.99] # faster\n"
        "weight_decay: 0.1 # not 0: it overfits\n",
        encoding="utf-8",
    )
    assert differences(file) == [
        "adam.yaml: lr: 0.002, and Adam says 0.001",
        "adam.yaml: betas: [0.9, 0.99], and Adam says (0.9, 0.999)",
    ]
