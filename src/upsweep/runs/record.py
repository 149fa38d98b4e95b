"""A record: a small JSON file that a process leaves in its run's folder for others to read."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from upsweep.common.errors import UserError
from upsweep.common.files import write_whole

T = TypeVar("T")
Values = dict[str, Any]


class UnreadableError(UserError):
    """A record is empty, cut short, or none of ours; `what` says so without the advice."""

    def __init__(self, path: Path, why: object) -> None:
        self.what = f"{path} cannot be read ({why})"
        super().__init__(f"{self.what}: delete it, or run its job again.")


def write_record(path: Path, version: int, record: Any) -> Path:
    """Write a dataclass of plain values, whole or not at all; `path`. JSON has no nan and no infinity: null."""
    finite = json.loads(json.dumps(asdict(record)), parse_constant=lambda _: None)
    return write_json(path, {"version": version, **finite})


def write_json(path: Path, said: Mapping[str, Any]) -> Path:
    """Write plain values, whole or not at all; `path`."""
    return write_whole(path, json.dumps(said, indent=2) + "\n")


def values_in(path: Path, version: int, of_version_1: Callable[[Values], Values] | None = None) -> Values:
    """The values of a record: of this version as they are, of version 1 by `of_version_1`. For readers, see `read`."""
    said = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)  # a nan is not known
    if not isinstance(said, dict) or "version" not in said:
        raise ValueError("it has no version")
    was = said.pop("version")
    if was == 1 and of_version_1 is not None:
        return of_version_1(said)
    if was != version:
        raise ValueError(f"version {was}, not {version}")
    return said


def checked(record: T) -> T:
    """The dataclass itself. Raises TypeError: a value is not of its declared type."""
    for name, hint in get_type_hints(type(record)).items():
        if not _fits(value := getattr(record, name), hint):
            raise TypeError(f"its {name} is {value!r}")
    return record


def _fits(value: object, hint: Any) -> bool:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return value in inside
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if kind in (list, tuple):
        return isinstance(value, list | tuple) and all(_fits(one, inside[0]) for one in value)
    if kind is dict:
        return isinstance(value, dict) and all(isinstance(k, str) and _fits(v, inside[1]) for k, v in value.items())
    if kind in (int, float):
        return type(value) in (int, kind) and math.isfinite(cast(float, value))
    return kind is Any or isinstance(value, kind)


def read(reader: Callable[[Path], T], path: Path) -> T | None:
    """What a reader makes of a file; None if there is none. Raises UnreadableError: the file cannot be read."""
    try:
        return reader(path)
    except FileNotFoundError:
        return None
    except UnreadableError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error, UserError) as error:
        raise UnreadableError(path, error) from error


def found(reader: Callable[[Path], T], path: Path, tell: Callable[[str], object] = lambda _: None) -> T | None:
    """What a reader makes of a path; None if there is nothing, or nothing that can be read, which `tell` reports.

    A broken record only affects its own job: for callers that can do without it, or run the job again.
    """
    try:
        return read(reader, path)
    except UnreadableError as error:
        tell(error.what)
        return None
