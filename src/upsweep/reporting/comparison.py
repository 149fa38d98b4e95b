"""Several sweeps, or single runs, on one page: `sweep=[A,B]`, `sweep=multirun`."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from upsweep.analysis.together import Member, hold_to_one_task, repeats, told_alike, unsaid
from upsweep.common.errors import UserError
from upsweep.common.names import listed
from upsweep.reporting.sweep import Sweep, as_it_lies, compared, find_sweep
from upsweep.runs.about import About
from upsweep.runs.layout import MANIFEST, RESULT, short_names


def find_sweeps(asked: Sequence[str]) -> list[Path]:
    """The folders of sweeps and runs that these stand for: a folder that holds several stands for all of them.

    Raises UserError: one is none, or `asked` is empty.
    """
    if not asked or "" in asked:
        raise UserError("sweep= names no folder: give sweep=FOLDER, or 'sweep=[A,B]' to compare several.")
    found = chain.from_iterable(inside(Path(one)) or [find_sweep(one)] for one in asked)
    return list({folder.resolve(): folder for folder in found}.values())


def inside(folder: Path) -> list[Path]:
    """The sweeps and runs in a folder that is neither, by name; none in one that is."""
    if is_source(folder):
        return []
    return sorted({path.parent for name in (MANIFEST, RESULT) for path in folder.glob(f"*/{name}")})


def is_source(folder: Path) -> bool:
    """Whether it is the folder of a sweep, or of a run."""
    return (folder / MANIFEST).is_file() or (folder / RESULT).is_file()


def read_sweeps(folders: Sequence[Path], home: Path) -> Sweep:
    """All their runs as those of one sweep, named `<sweep>/<job>`; `home` is where the page says that they lie.

    A folder that has no result yet, or cannot be read, is left out, and said in a note. Raises UserError: all are, or
    they are judged by different figures.
    """
    notes, read = list[str](), dict[str, Sweep]()
    for name, folder in zip(short_names(folders), folders, strict=True):
        try:
            read[name] = as_it_lies(folder)
        except UserError as error:
            notes.append(f"{name} is left out: {error}")
    if not read:
        raise UserError(f"None of {listed(list(map(str, folders)))} has a result that can be read. {notes[0]}")
    named = {name: _named(name, sweep) for name, sweep in read.items()}
    notes += [f"{name}: {note}" for name, sweep in read.items() for note in sweep.notes]
    runs = [run for sweep in named.values() for run in sweep.runs]
    members = [Member(name=run.name, sweep=run.sweep, result=run.result, about=run.about) for run in runs]
    hold_to_one_task(members)
    results = told_alike(members)
    whole = Sweep(
        folder=home,
        runs=[replace(run, result=result) for run, result in zip(runs, results, strict=True)],
        about=About(started=min(sweep.about.started for sweep in read.values())),
        notes=[*notes, *unsaid(members, results), *repeats(members, results)],
        parts={name: sweep.about for name, sweep in read.items()},
    )
    return compared(whole)


def _named(name: str, sweep: Sweep) -> Sweep:
    """With runs that say whose they are; a run by itself has the name of its folder."""
    alone = not (sweep.folder / MANIFEST).is_file()
    runs = [
        replace(run, name=name if alone else f"{name}/{run.name}", sweep=name, typed=run.result.overrides)
        for run in sweep.runs
    ]
    return replace(sweep, runs=runs)
