"""What the figures of a run hang on (`identity.json`): the images it trains and is judged on, and how it is judged."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from upsweep.common.names import listed
from upsweep.runs.layout import IDENTITY
from upsweep.runs.record import read, values_in, write_record

VERSION = 1
JUDGING = ("scale", "degradation", "protocol", "task")  # nodes of a config
MOST = 4000  # images of a part that the file names one by one
ALL = "*"  # stands for more of them: the names of MNIST would take 2 MB a run


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Two runs with the same one may be compared, and a run goes on with the one it was begun with.

    Attributes:
        training, validation: name of an image -> a digest of its pixels.
        judging: dotted key of the config -> value, of all that decides what a figure means.
    """

    training: dict[str, str]
    validation: dict[str, str]
    judging: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write `identity.json` into `folder`, whole or not at all; one digest stands for many images."""
        return write_record(folder / IDENTITY, VERSION, self._brief())

    @classmethod
    def read(cls, folder: Path) -> "Identity | None":
        """Read `identity.json` in `folder`, for `differences`; None where there is none. Raises UnreadableError."""
        return read(lambda path: cls(**values_in(path, VERSION)), folder / IDENTITY)

    @cached_property
    def digest(self) -> str:
        """Of all of it."""
        return _digest(self.training, self.validation, self.judging)

    @cached_property
    def yardstick(self) -> str:
        """Of what it is judged on alone: the figures of two runs with the same one can be compared."""
        return _digest(self.validation, self.judging)

    def differences(self, now: "Identity") -> list[str]:
        """What is not as it was, in words: the images' parts and contents first, then how they are judged."""
        before, after = self._brief(), now._brief()
        images = [
            *_others("trained on", before.training, after.training),
            *_others("validated on", before.validation, after.validation),
            *_one_by_one(before, after),
        ]
        keys = sorted(self.judging.keys() | now.judging.keys())
        pairs = ((key, self.judging.get(key), now.judging.get(key)) for key in keys)
        return images + [f"{key} was {before} and is {after}" for key, before, after in pairs if before != after]

    def _brief(self) -> "Identity":
        return replace(self, training=_brief(self.training), validation=_brief(self.validation))


def _brief(images: dict[str, str]) -> dict[str, str]:
    """Images by name, or where they are many one digest, that is another one if any image or name is."""
    return images if len(images) <= MOST else {ALL: f"{len(images)} images, {_digest(images)}"}


def _others(use: str, was: dict[str, str], has: dict[str, str]) -> list[str]:
    """What is to be said of a part whose images are too many to be named."""
    if was == has or not (ALL in was or ALL in has):
        return []
    numbers = (said[ALL] if ALL in said else f"{len(said)} images" for said in (was, has))
    return [f"what is {use} was " + " and is ".join(numbers)]


def _one_by_one(before: Identity, after: Identity) -> list[str]:
    """What is not as it was of the parts whose images are named."""
    parts = (before.training, after.training), (before.validation, after.validation)
    (trained, trains), (validated, validates) = (
        ({}, {}) if ALL in was or ALL in has else (was, has) for was, has in parts
    )
    was, has = trained | validated, trains | validates
    told = [
        ("gone", was.keys() - has.keys()),
        ("new", has.keys() - was.keys()),
        ("changed", {name for name in was.keys() & has.keys() if was[name] != has[name]}),
        ("trained on before and validated on now", trained.keys() & validates.keys()),
        ("validated on before and trained on now", validated.keys() & trains.keys()),
    ]
    return [_counted(names, what) for what, names in told if names]


def judging_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """How a config says that results are judged: dotted key -> value, without what a task merely shows or feeds."""
    nodes = {key: config[key] for key in JUDGING if key in config}
    if isinstance(task := nodes.get("task"), dict):
        nodes["task"] = {key: value for key, value in task.items() if key not in ("data", "figures", *JUDGING)}
    plain: dict[str, Any] = json.loads(json.dumps(nodes, default=str))
    chain = plain.get("degradation")
    order = {"degradation": list(chain)} if isinstance(chain, dict) else {}  # of its steps, which is no dictionary's
    return dict(_flat(plain)) | order


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _counted(names: Iterable[str], what: str) -> str:
    first = sorted(names)
    return f"{len(first)} image{'s' if len(first) > 1 else ''} {what} ({listed(first)})"
