"""A sweep as it lies on disk: its runs with results, histories, crops, diagnoses, and how they were made."""

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from upsweep.errors import UserError
from upsweep.sweeps.about import About
from upsweep.sweeps.results import TUNED, Result, grouped
from upsweep.sweeps.resuming import MANIFEST, SWEEPS

GAP = 8  # white pixels between the tiles of a crop, see upsweep.training.pictures
MOST_POINTS = 200  # of a curve: more cannot be seen
T = TypeVar("T")


@dataclass(frozen=True)
class Crop:
    """The same place of a validation image as PNGs in base64, fit for a `data:` URI."""

    bicubic: str
    sr: str
    hr: str


@dataclass(frozen=True)
class Diagnosis:
    """What a run says of a problem; `found`: it has it. `group` is that of the choices that would help."""

    problem: str
    text: str
    group: str
    found: bool


@dataclass(frozen=True, kw_only=True)
class Run:
    """A job of a sweep.

    `history` holds columns of equal length (`step`, `seconds`, `loss`, `psnr`), None where a figure is missing.
    `config` is resolved, its folder written `<run>`.
    """

    name: str
    result: Result
    history: Mapping[str, Sequence[float | None]]
    crop: Crop | None
    diagnoses: Sequence[Diagnosis]
    config: Mapping[str, Any]
    about: About | None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All that a report tells of. `notes` are sentences on what is missing or could not be read."""

    folder: Path
    runs: Sequence[Run]
    about: Mapping[str, Any]
    notes: Sequence[str]


def find_sweep(asked: str) -> Path:
    """The folder of a sweep, or of one run; `latest` is the sweep in multirun/ that was started last.

    Raises:
        UserError: there is none.
    """
    if asked == "latest":
        found = [path for path in Path(SWEEPS).glob("*") if (path / MANIFEST).is_file()]
        if not found:
            raise UserError(f"There is no sweep in {Path(SWEEPS).absolute()}: name one with sweep=FOLDER.")
        return max(found, key=lambda path: (path / MANIFEST).stat().st_mtime)
    folder = Path(asked)
    if not (folder / MANIFEST).is_file() and not (folder / Result.FILE).is_file():
        what = f"has neither {MANIFEST} nor {Result.FILE}" if folder.is_dir() else "does not exist"
        raise UserError(f"sweep={asked} {what}: give the folder of a sweep, or of one run.")
    return folder


def read_sweep(folder: Path) -> Sweep:
    """Everything that a report needs. What cannot be read is left out, and said in a note.

    Raises:
        UserError: the manifest cannot be read, or no job has a result.
    """
    notes: list[str] = []
    manifest = _manifest(folder)
    single = [{"name": folder.resolve().name, "overrides": []}]
    jobs: list[dict[str, Any]] = single if manifest is None else manifest["jobs"]
    runs: list[Run] = []
    without: list[dict[str, Any]] = []
    for job in jobs:
        place = folder if manifest is None else folder / job["name"]
        try:
            result = Result.read(place)
        except UserError as error:
            notes.append(str(error))
            result = None
        if result is None:
            without.append(job)
        else:
            runs.append(_run(job["name"], place, result, notes))
    if not runs:
        raise UserError(f"{folder}: none of its {len(jobs)} jobs has a result yet, there is nothing to report.")
    runs += [_without_result(job, runs[0].result) for job in without]
    if without:
        names = ", ".join(str(job["name"]) for job in without[:10]) + (", ..." if len(without) > 10 else "")
        notes.append(f"{len(without)} of {len(jobs)} jobs have no result (yet): {names}.")
    about = manifest or {}
    first = next((run.about for run in runs if run.about is not None), None)
    if "machine" not in about and first is not None:  # a single run
        about = {**first.plain(), **about}
    for what in ("commit", "versions", "machine"):
        told = {json.dumps(getattr(run.about, what), sort_keys=True) for run in runs if run.about is not None}
        if len(told) > 1:
            notes.append(f"The runs were made with {len(told)} different values of {what}; the first one is shown.")
    notes += _uneven_rates([run.result for run in runs])
    return Sweep(folder=folder, runs=runs, about=about, notes=notes)


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for job in manifest["jobs"]:
            Path(job["name"]), list(job["overrides"])
        return manifest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): it is not the manifest of a sweep.") from error


def _run(name: str, folder: Path, result: Result, notes: list[str]) -> Run:
    def read(file: str, reader: Callable[[Path], T]) -> T | None:
        try:
            return reader(folder / file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            notes.append(f"{folder / file} cannot be read and is left out ({error}).")
            return None

    about = read(About.FILE, lambda path: About.read(path.parent))
    return Run(
        name=name,
        result=result,
        history=read("history.csv", _history) or {},
        crop=read("crop.png", _crop),
        diagnoses=read("diagnoses.json", _diagnoses) or [],
        config=_placeless(about.config, str(folder.resolve())) if about else {},
        about=about,
    )


def _without_result(job: Mapping[str, Any], like: Result) -> Run:
    """A job of which nothing is known but its command line; what that does not say is as in another job."""
    set_by_hand = dict(override.lstrip("+~").partition("=")[::2] for override in job["overrides"])

    def number(key: str, otherwise: int | None) -> int | None:
        said = set_by_hand.get(key, "")
        return int(said) if said.lstrip("-").isdigit() else otherwise

    result = Result(
        state="stopped",
        reason="it has no result",
        choices={key: set_by_hand.get(key, value) for key, value in like.choices.items()},
        overrides=list(job["overrides"]),
        seed=number("seed", like.seed),
        scale=number("scale", like.scale),
    )
    return Run(name=job["name"], result=result, history={}, crop=None, diagnoses=[], config={}, about=None)


def _history(path: Path) -> dict[str, list[float | None]]:
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if len(rows) > MOST_POINTS:  # evenly, with the first and the last
        rows = [rows[round(i * (len(rows) - 1) / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
    return {name: [_number(row[name]) for row in rows] for name in ("step", "seconds", "loss", "psnr")}


def _number(text: str) -> float | None:
    number = float(text) if text else math.nan
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _crop(path: Path) -> Crop:
    with Image.open(path) as picture:
        panel = picture.convert("RGB")
    width = (panel.width - 2 * GAP) // 3
    if width < 1:
        raise ValueError(f"its width is {panel.width}")
    tiles = (panel.crop((x, 0, x + width, panel.height)) for x in range(0, panel.width, width + GAP))
    return Crop(*map(_base64, tiles))


def _base64(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _diagnoses(path: Path) -> list[Diagnosis]:
    said = json.loads(path.read_text(encoding="utf-8"))["sentences"]
    return [
        Diagnosis(str(one["problem"]), str(one["text"]), str(one.get("group", "")), bool(one.get("found", True)))
        for one in said
    ]


def _placeless(config: Any, folder: str) -> Any:
    """The config with the run's own folder written `<run>`, so that it does not differ between runs."""
    if isinstance(config, Mapping):
        return {key: _placeless(value, folder) for key, value in config.items()}
    if isinstance(config, list):
        return [_placeless(value, folder) for value in config]
    return config.replace(folder, "<run>") if isinstance(config, str) else config


def _uneven_rates(results: Sequence[Result]) -> list[str]:
    """Whether some choices had more learning rates to be best at than others, as in a search."""
    tried = {
        len({result.settings.get(TUNED) for result in group})
        for group in grouped(results, but={TUNED, "seed"})[1].values()
    }
    if len(tried) < 2:
        return []
    return [
        f"Some choices were tried at {min(tried)} learning rates, others at up to {max(tried)}: "
        "the best of many is better than the best of few, so that differences are to be read with care."
    ]
