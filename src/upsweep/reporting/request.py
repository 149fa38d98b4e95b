"""What `src/report.py` does: a page from a sweep's folder or from tables, its figures as JSON, the seeds to run."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from upsweep.analysis.as_json import as_json
from upsweep.analysis.effects import findings
from upsweep.analysis.from_tables import Meaning, results_of
from upsweep.analysis.more_seeds import plan
from upsweep.analysis.tables import write_table
from upsweep.analysis.together import SWEEP
from upsweep.common.commands import command
from upsweep.common.errors import UserError
from upsweep.metrics.figure import Better
from upsweep.reporting.comparison import find_sweeps, is_source, read_sweeps
from upsweep.reporting.report import write_page
from upsweep.reporting.sweep import Run, Sweep, compared, find_sweep, read_sweep
from upsweep.runs.about import About
from upsweep.runs.layout import (
    ABOUT,
    DIAGNOSES,
    EFFECTS,
    IDENTITY,
    MANIFEST,
    PAGE,
    PROGRESS,
    RESULT,
    SUBMITTED,
    TABLE,
    short_names,
)
from upsweep.runs.manifest import Manifest
from upsweep.runs.record import write_json
from upsweep.runs.result import key_and_value

RECORDS = (MANIFEST, RESULT, ABOUT, DIAGNOSES, PROGRESS, IDENTITY, SUBMITTED)
MOST_JOINED = 3  # names of tables, in that of their page


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a page is made of, and where it goes.

    `table` is where the table of several sweeps goes, `folder` the sweep that more seeds go on with; `told` says how
    tables were read.
    """

    sweep: Sweep
    page: Path
    picture: Path
    folder: Path | None
    table: Path | None = None
    told: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Request:
    """A page that is asked for. Attributes: see conf/report.yaml; None: not said."""

    sweep: str | list[str] = "latest"
    output: str | None = None
    results: str | list[str] | None = None
    figure: str | None = None
    choices: str | list[str] | None = None
    tuned: str | list[str] | None = None
    better: Better | None = None
    unit: str | None = None
    json: str | None = None
    detect: float | None = None

    def answer(self) -> Iterator[str]:
        """Write it; say where it lies, how tables were read, and which seeds are missing. Raises UserError."""
        _hold_to_detect(self.detect)
        source = self._of_sweep() if self.results is None else self._of_tables(_list(self.results))
        yield from source.told
        results = [run.result for run in source.sweep.runs]
        found = findings(results, self.detect)
        source.page.parent.mkdir(parents=True, exist_ok=True)
        if source.table is not None:
            named = {run.name: run for run in source.sweep.runs}
            of = {name: run.sweep for name, run in named.items()}
            yield f"Table: {write_table(source.table, {name: run.result for name, run in named.items()}, of).resolve()}"
        yield f"Report: {write_page(source.sweep, found, source.page, source.picture).resolve()}"
        if self.json is not None:
            yield f"Effects: {write_json(Path(self.json), as_json(found)).resolve()}"
        if self.detect is not None:
            yield from plan(results, found, _command(source.folder))

    def _of_sweep(self) -> Source:
        for name in ("figure", "choices", "tuned", "better", "unit"):
            if getattr(self, name) is not None:
                raise UserError(f"{name}= says what the columns of tables mean: give it beside results=TABLE.csv.")
        asked = _list(self.sweep)
        folders = [find_sweep("latest")] if asked == ["latest"] else find_sweeps(asked)
        records = [path for folder in folders for name in RECORDS for path in _files(folder, name)]
        _hold_to_json(self.json, records)
        if len(folders) > 1:
            return self._of_sweeps(asked, folders)
        (folder,) = folders
        page, picture, _ = self._places(folder, PAGE, folders)
        return Source(sweep=read_sweep(folder), page=page, picture=picture, folder=folder)

    def _of_sweeps(self, asked: Sequence[str], folders: Sequence[Path]) -> Source:
        """Several, in the folder that was named for all of them, or else where they lie together, or here."""
        if len(asked) == 1:
            home, name = Path(asked[0]), PAGE
        else:
            homes = {folder.resolve().parent for folder in folders}
            (home, *others) = homes
            home = Path() if others or is_source(home) else home
            name = f"{joined([one.replace('/', '-') for one in short_names(folders)])}.html"
        page, picture, table = self._places(home, name, folders)
        if table.is_file() and not table.read_bytes().startswith(f"job,{SWEEP},".encode()):
            raise UserError(f"{table} is there already, and is none that compares sweeps: say output=FOLDER.")
        return Source(sweep=read_sweeps(folders, home), page=page, picture=picture, folder=None, table=table)

    def _places(self, home: Path, name: str, sources: Sequence[Path] = ()) -> tuple[Path, Path, Path]:
        """Of page, picture and table: in a folder, or as output= says. No page takes the place of another sweep's."""
        page = home / name
        if self.output is not None:
            asked = Path(self.output).expanduser()
            page = asked if asked.suffix == ".html" else asked / PAGE
            if is_source(page.parent) and [page.parent.resolve()] != [folder.resolve() for folder in sources]:
                raise UserError(
                    f"output={self.output} is where a sweep or a run has its own page: name another folder."
                )
            if page.is_dir() or page.parent.is_file():
                raise UserError(f"output={self.output} is in the way: give a folder, or a file that ends in .html.")
        if page.name == PAGE:
            return page, page.with_name(EFFECTS), page.with_name(TABLE)
        return page, page.with_name(f"{page.stem}.svg"), page.with_name(f"{page.stem}.csv")

    def _of_tables(self, names: Sequence[str]) -> Source:
        if self.sweep != "latest":
            raise UserError("sweep= and results= are two sources of one page: give one of them.")
        if not names or "" in names:
            raise UserError("results= names no table: give results=results.csv, or 'results=[a.csv,b.csv]'.")
        tables = [Path(name) for name in names]
        _hold_to_json(self.json, tables)
        sweep = sweep_of(tables, self._meaning())
        page, picture, _ = self._places(sweep.folder.parent, f"{sweep.folder.name}.html")
        return Source(sweep=sweep, page=page, picture=picture, folder=_folder_behind(tables), told=sweep.notes)

    def _meaning(self) -> Meaning:
        said = {
            "figure": self.figure,
            "choices": None if self.choices is None else _list(self.choices),
            "tuned": None if self.tuned is None else _list(self.tuned),
            "better": self.better,
            "unit": self.unit,
        }
        return Meaning(**{key: value for key, value in said.items() if value is not None})  # type: ignore[arg-type]


def _list(said: str | list[str]) -> list[str]:
    return [said] if isinstance(said, str) else said


def _hold_to_detect(detect: float | None) -> None:
    if detect is not None and not (detect > 0 and math.isfinite(detect)):
        raise UserError(f"detect={detect} must be a number above 0: the difference that is to be found.")


def _hold_to_json(asked: str | None, inputs: Sequence[Path]) -> None:
    """Before anything is read or written: it must name a file that can be written, and no input."""
    if asked is None:
        return
    path = Path(asked)
    if path.suffix != ".json":
        raise UserError(f"json={asked} must end in .json: json=effects.json.")
    if path.is_dir():
        raise UserError(f"json={asked} is a folder: give a file, json={path / 'effects.json'}.")
    if not path.parent.is_dir():
        raise UserError(f"json={asked}: there is no folder {path.parent}: make it first, or name another one.")
    if path.resolve() in {one.resolve() for one in inputs}:
        raise UserError(f"json={asked} is a file that the page is made of: name another one, json=effects.json.")


def sweep_of(tables: Sequence[Path], meaning: Meaning) -> Sweep:
    """What tables (one or more) tell, as a page needs it; `folder` is the path of the page without its ending.

    That is beside the first table, `results` or `a+b`; never the name that a sweep's own page has.
    Raises UserError: see `results_of`.
    """
    read = results_of(tables, meaning)
    name = joined([path.stem for path in tables])
    of_a_sweep = name in (Path(PAGE).stem, Path(EFFECTS).stem)
    whole = Sweep(
        folder=tables[0].with_name(f"{name}-table" if of_a_sweep else name),
        runs=[Run(name=name, result=result) for name, result in read.results.items()],
        about=About(),
        notes=read.notes,
    )
    return compared(whole)


def joined(names: Sequence[str]) -> str:
    """The name of a page of several: `a+b`."""
    more = [f"{len(names) - MOST_JOINED} more"] if len(names) > MOST_JOINED else []
    return "+".join([*names[:MOST_JOINED], *more])


def _files(folder: Path, name: str) -> list[Path]:
    """What a sweep's folder and its jobs' have under a name, or would have."""
    return [folder / name, *folder.glob(f"*/{name}")]


def _folder_behind(tables: Sequence[Path]) -> Path | None:
    """The sweep that a table is of."""
    return tables[0].parent if len(tables) == 1 and (tables[0].parent / MANIFEST).is_file() else None


def _command(folder: Path | None) -> str | None:
    """What goes on with a sweep; None for a single run, and for a search, which has no seeds of its own."""
    manifest = None if folder is None else Manifest.read(folder)
    if manifest is None:
        return None
    if dict(map(key_and_value, manifest.about.command)).get("hparams_search", "null") != "null":
        return None
    return command("train", "-m", f"resume={folder}")
