"""What the figures of a run depend on (`identity.json`): its images, and how it is judged."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from upsweep.common.names import listed
from upsweep.runs.layout import IDENTITY
from upsweep.runs.record import read, values_in, write_record

VERSION = 1
JUDGING = ("scale", "degradation", "protocol", "task")  # nodes of a config
# What these are where a record does not say them: they came later, and earlier digests must stay valid.
UNSAID: dict[str, Any] = {"trainer.limit_val_batches": None, "trainer.overfit_batches": 0, "data.crop": "centre"}
MOST = 4000  # images of a part that the file names one by one
ALL = "*"  # stands for more of them: the names of MNIST would take 2 MB a run


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Two runs with the same identity may be compared; a run is resumed with the identity that it was begun with.

    Attributes:
        training, validation: name of an image -> a digest of its pixels.
        judging: dotted key of the config -> value, of all that decides what a figure means.
        ranking: which figure says what epoch is the best, if that is not the task's; no figure depends on it.
    """

    training: dict[str, str]
    validation: dict[str, str]
    judging: dict[str, Any]
    ranking: dict[str, Any] = field(default_factory=dict)

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
        return _digest(self.training, self.validation, self.judging, *([self.ranking] if self.ranking else []))

    @cached_property
    def yardstick(self) -> str:
        """The digest of what it is judged on: the figures of two runs with the same yardstick can be compared."""
        return _digest(self.validation, self.judging)

    def differences(self, now: "Identity") -> list[str]:
        """What has changed, in words: first the images, then how they are judged."""
        before, after = self._brief(), now._brief()
        images = [
            *_others("trained on", before.training, after.training),
            *_others("validated on", before.validation, after.validation),
            *_one_by_one(before, after),
        ]
        had, has = self.judging | self.ranking, now.judging | now.ranking
        keys = sorted(had.keys() | has.keys())
        pairs = ((key, *(said.get(key, UNSAID.get(key)) for said in (had, has))) for key in keys)
        return images + [f"{key} was {before} and is now {after}" for key, before, after in pairs if before != after]

    def completed(self, config: Mapping[str, Any]) -> "Identity":
        """With what the run's config says of the keys of `UNSAID`, which earlier records lack."""
        return replace(self, judging=_part(config) | self.judging)

    def _brief(self) -> "Identity":
        return replace(self, training=_brief(self.training), validation=_brief(self.validation))


def images_of(training: dict[str, str], validation: dict[str, str]) -> dict[str, str]:
    """The images of both parts (`training/a.png`), with their digests; one digest stands for many images."""
    found: dict[str, str] = {}
    for part, images in {"training": training, "validation": validation}.items():
        few = images if len(images) <= MOST else {f"{len(images)} images": _digest(images)}
        found |= {f"{part}/{name}": digest for name, digest in few.items()}
    return found


def _brief(images: dict[str, str]) -> dict[str, str]:
    """Images by name; of many images one digest, which changes with any image or name."""
    return images if len(images) <= MOST else {ALL: f"{len(images)} images, {_digest(images)}"}


def _others(use: str, was: dict[str, str], has: dict[str, str]) -> list[str]:
    """What has changed in a part with too many images to name them."""
    if was == has or not (ALL in was or ALL in has):
        return []
    numbers = (said[ALL] if ALL in said else f"{len(said)} images" for said in (was, has))
    return [f"the data {use} was " + " and is now ".join(numbers)]


def _one_by_one(before: Identity, after: Identity) -> list[str]:
    """What has changed in the parts whose images are named."""
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


def judging_of(config: Mapping[str, Any], ours: Collection[str] = ()) -> dict[str, Any]:
    """How a config says that results are judged: dotted key -> value, without what a task merely shows or feeds.

    `ours` are the arguments that a DataModule of the user's own has from the one of upsweep's that it derives from.
    """
    nodes = {key: config[key] for key in JUDGING if key in config}
    if isinstance(task := nodes.get("task"), dict):
        nodes["task"] = {key: value for key, value in task.items() if key not in ("data", "figures", *JUDGING)}
        nodes["task"] |= _own_data(task.get("data"), ours)
    plain: dict[str, Any] = json.loads(json.dumps(nodes, default=str))
    chain = plain.get("degradation")
    order = {"degradation": list(chain)} if isinstance(chain, dict) else {}  # the order of its steps counts
    return dict(_flat(plain)) | order | _part(config, ours)


def _part(config: Mapping[str, Any], ours: Collection[str] = ()) -> dict[str, Any]:
    """Which images are judged, and what part of each; only what differs from `UNSAID`."""
    trainer, task = config.get("trainer") or {}, config.get("task")
    data, limit = task.get("data") if isinstance(task, dict) else None, trainer.get("limit_val_batches")
    said = {
        "trainer.limit_val_batches": None if isinstance(limit, float) and limit == 1 else limit,  # 1 is one batch
        "trainer.overfit_batches": trainer.get("overfit_batches"),
        "data.crop": data.get("crop") if isinstance(data, dict) and ("crop" in ours or not _own_data(data)) else None,
    }
    return {key: value for key, value in said.items() if value is not None and value != UNSAID[key]}


def _own_data(node: Any, ours: Collection[str] = ()) -> dict[str, Any]:
    """A DataModule of the user's own, which may not tell its images: what it is made of stands for them.

    What `ours` is made of does not: that one tells its images, and shows them to every seed alike.
    """
    if not isinstance(node, dict) or str(node.get("_target_", "upsweep.")).startswith("upsweep."):
        return {}
    return {"data": {key: value for key, value in node.items() if key not in ("batch_size", "num_workers", *ours)}}


def ranking_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Which figure a config ranks by, and what measures it: dotted key -> value; nothing where it ranks as the task."""
    if (by := config.get("rank_by")) is None:
        return {}
    metric = ((config.get("metrics") or {}).get(by) or {}).get("metric")
    said: dict[str, Any] = json.loads(json.dumps({"rank_by": by, "metrics": {by: {"metric": metric}}}, default=str))
    return dict(_flat(said if metric else {"rank_by": by}))


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
