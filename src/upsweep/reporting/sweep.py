"""A sweep as it lies on disk: its runs with results, histories, crops, diagnoses, and how they were made."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from upsweep.analysis.ranking import by_choices, finished, rates
from upsweep.analysis.together import filled
from upsweep.analysis.yardsticks import sentences, told_apart
from upsweep.common.errors import UserError
from upsweep.common.names import listed
from upsweep.runs import crop, history
from upsweep.runs.about import About
from upsweep.runs.crop import Crop
from upsweep.runs.layout import CROP, HISTORY, MANIFEST, RESULT, SWEEPS, WHY_PICTURE, newest
from upsweep.runs.manifest import Entry, Manifest
from upsweep.runs.record import found
from upsweep.runs.result import Result, key_and_value
from upsweep.runs.strip import Strip, read_strip
from upsweep.runs.verdicts import Sentence, read_sentences
from upsweep.runs.why import Why

MOST_POINTS = 200  # of a curve: more cannot be seen


@dataclass(frozen=True, kw_only=True)
class Run:
    """A job of a sweep.

    `history` holds columns of equal length (`step`, `seconds`, `loss`, other players' losses, the figures), None where
    a number is missing. The config that `about` holds is resolved, the run's folder in it written `<run>`. `why` and
    `strip` are what src/explain.py found, where it was run. `sweep` is the name of the sweep that it is of, and `typed`
    its own command line, where several sweeps are compared.
    """

    name: str
    result: Result
    history: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    crop: Crop | None = None
    diagnoses: Sequence[Sentence] = ()
    about: About | None = None
    why: Why | None = None
    strip: Strip | None = None
    sweep: str = ""
    typed: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All that a report tells of. `notes` are sentences on what is missing or could not be read.

    `about` says how it was made, and `parts` how each sweep was, by its name, where there are several.
    """

    folder: Path
    runs: Sequence[Run]
    about: About
    notes: Sequence[str]
    parts: Mapping[str, About] = field(default_factory=dict)


def find_sweep(asked: str) -> Path:
    """The folder of a sweep, or of one run; `latest`: the newest sweep in multirun/. Raises UserError: none there."""
    if asked == "latest":
        if (latest := newest(SWEEPS, MANIFEST)) is None:
            raise UserError(f"There is no sweep in {Path(SWEEPS).absolute()}: name one with sweep=FOLDER.")
        return latest
    folder = Path(asked)
    if not (folder / MANIFEST).is_file() and not (folder / RESULT).is_file():
        inside = sorted({path.parent.name for name in (MANIFEST, RESULT) for path in folder.glob(f"*/{name}")})
        if inside:
            named = listed(inside, 10)
            raise UserError(f"sweep={asked} holds several ({named}): give one of these folders.")
        what = f"has neither {MANIFEST} nor {RESULT}" if folder.is_dir() else "does not exist"
        raise UserError(f"sweep={asked} {what}: give the folder of a sweep, or of one run.")
    return folder


def read_sweep(folder: Path) -> Sweep:
    """Everything that a report needs. What cannot be read is left out, and said in a note.

    Raises UserError: the manifest cannot be read, or no job has a result.
    """
    return compared(as_it_lies(folder))


def as_it_lies(folder: Path) -> Sweep:
    """The same before its runs are held against each other."""
    manifest = Manifest.read(folder)
    broken = [*manifest.broken] if manifest else []
    jobs = manifest.jobs if manifest else (Entry(folder.resolve().name, 0, []),)
    read = [_run(job.name, folder / job.name if manifest else folder, broken.append) for job in jobs]
    runs = [run for run in read if run is not None]
    notes = [f"{what} and is left out." for what in broken]
    if not runs:
        nothing = f"{folder}: none of its {len(jobs)} jobs has a result yet, there is nothing to report."
        raise UserError(notes[0] if notes else nothing)
    if without := [job for job, run in zip(jobs, read, strict=True) if run is None]:
        names = listed([job.name for job in without], 10)
        notes.append(f"{len(without)} of {len(jobs)} jobs have no result (yet): {names}.")
    runs += [_without_result(job, runs[0].result) for job in without]
    results = filled([run.result for run in runs], [run.about for run in runs])
    runs = [replace(run, result=result) for run, result in zip(runs, results, strict=True)]
    about = manifest.about if manifest else runs[0].about or About()
    return Sweep(folder=folder, runs=runs, about=about, notes=notes)


def compared(sweep: Sweep) -> Sweep:
    """With what is to be known before its runs are compared; what was judged on different images is told apart."""
    runs = sweep.runs
    notes = [*sweep.notes, *sentences({run.name: run.result for run in runs}), *_cautions(runs)]
    apart = told_apart([run.result for run in runs])
    runs = [replace(run, result=result) for run, result in zip(runs, apart, strict=True)]
    return replace(sweep, runs=runs, notes=notes)


def _run(name: str, folder: Path, note: Callable[[str], None]) -> Run | None:
    result = found(Result.read, folder, note)
    if result is None:
        return None
    about = found(About.read, folder, note)
    return Run(
        name=name,
        result=result,
        history=_columns(found(history.read, folder / HISTORY, note) or []),
        crop=found(crop.read, folder / CROP, note),
        diagnoses=found(read_sentences, folder, note) or [],
        about=replace(about, config=_placeless(about.config, folder.resolve())) if about else None,
        why=found(Why.read, folder, note),
        strip=found(read_strip, folder / WHY_PICTURE, note),
    )


def _without_result(job: Entry, like: Result) -> Run:
    """A job of which nothing is known but its command line; what that does not say is as in another job."""
    by_hand = dict(map(key_and_value, job.overrides))
    numbers = {key: int(by_hand[key]) for key in ("seed", "scale") if by_hand.get(key, "").lstrip("-").isdigit()}
    result = Result(
        state="stopped",
        reason="it has no result",
        choices={key: by_hand.get(key, value) for key, value in like.choices.items()},
        overrides=job.overrides,
        seed=numbers.get("seed", like.seed),
        scale=numbers.get("scale", like.scale),
        declared=like.declared,
        tuned=like.tuned,
    )
    return Run(name=job.name, result=result)


def _columns(epochs: Sequence[history.Epoch]) -> dict[str, list[float | None]]:
    judged = [i for i, epoch in enumerate(epochs) if any(value is not None for value in epoch.figures.values())]
    shown = sorted({*_evenly(range(len(epochs))), *_evenly(judged)})  # few may be judged: each is a point
    lines = [epochs[i].columns for i in shown]
    names = dict.fromkeys(name for line in lines for name in line if name != "epoch")
    return {name: [_rounded(line.get(name)) for line in lines] for name in names}


def _evenly(places: Sequence[int]) -> Sequence[int]:
    """At most `MOST_POINTS` of them, with the first and the last."""
    if len(places) <= MOST_POINTS:
        return places
    return [places[round(i * (len(places) - 1) / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]


def _rounded(number: float | None) -> float | None:
    return float(f"{number:.6g}") if number is not None and math.isfinite(number) else None


def _placeless(config: Mapping[str, Any], folder: Path) -> Any:
    """The config with the run's own folder written `<run>`, so that it does not differ between runs."""
    return json.loads(json.dumps(config).replace(json.dumps(str(folder))[1:-1], "<run>"))


def _cautions(runs: Sequence[Run]) -> Iterable[str]:
    """Whether runs were made unlike, choices tried at more learning rates than others (as in a search), or epochs lost.

    Runs whose records hold no last epoch (upsweep 0.1) stand at their best one, which is no fair match for a last one.
    """
    abouts = [run.about for run in runs if run.about is not None]
    for what in ("commit", "versions", "machine"):
        told = {json.dumps(getattr(about, what), sort_keys=True) for about in abouts}
        if len(told) > 1:
            yield f"The runs were made with {len(told)} different values of {what}; the first one is shown."
    results = [run.result for run in runs]
    for key in rates(results):
        tried = {len({result.settings.get(key) for result in group}) for group in by_choices(results)}
        if len(tried) > 1:
            yield (
                f"Some choices were tried at {min(tried)} values of {key}, others at up to {max(tried)}: "
                "the best of many is better than the best of few, so that differences are to be read with care."
            )
    done = finished(results)
    old = sum(not result.last for result in done)
    if 0 < old < len(done):
        yield (
            f"{old} of {len(done)} runs have no figures of their last epoch, and stand at their best one. "
            "That is a lucky epoch, so the comparison is not fair. Run them again."
        )
