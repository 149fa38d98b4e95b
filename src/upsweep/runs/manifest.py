"""What a sweep consists of (`sweep.json`): how it was started, and the folder and command line of every job."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from upsweep.common.errors import UserError
from upsweep.runs.about import About
from upsweep.runs.layout import MANIFEST
from upsweep.runs.record import checked, write_json


@dataclass(frozen=True, eq=False)
class Entry:
    """A job: `name` is its folder's below the sweep's."""

    name: str
    number: int
    overrides: list[str]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`broken` has a sentence for each entry that cannot be read; only the job of that entry is lost."""

    about: About
    jobs: tuple[Entry, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def next_number(self) -> int:
        """A number that no job has had."""
        return max([len(self.jobs) + len(self.broken), *(job.number + 1 for job in self.jobs)])

    def write(self, folder: Path) -> Path:
        """Write `sweep.json` into `folder`, whole or not at all."""
        said = {"version": 1, **asdict(self.about), "jobs": [asdict(job) for job in self.jobs]}
        return write_json(folder / MANIFEST, said)

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """What `folder` holds; None where it has no manifest. Raises UserError: it cannot be read."""
        path = folder / MANIFEST
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            jobs, broken = _entries(path, said.get("jobs", ()))
            about = checked(About(**{one.name: said[one.name] for one in fields(About) if one.name in said}))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error!r}): it is not the manifest of a sweep.") from error
        return cls(about=about, jobs=jobs, broken=broken)


def _entries(path: Path, said: Iterable[Any]) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    jobs, broken = list[Entry](), list[str]()
    for place, one in enumerate(said):
        try:
            if not one["name"] or any(not isinstance(word, str) for word in one["overrides"]):
                raise ValueError("its name or its overrides are missing")
            jobs.append(Entry(str(one["name"]), int(one.get("number", place)), list(one["overrides"])))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            broken.append(f"{path} cannot be read at its job {place} ({error!r})")
    return tuple(jobs), tuple(broken)
