"""For Python and notebooks: `train`, `sweep`, `upscale` and `evaluate`, which are the commands of these names.

Each takes what the command line takes, starts the command in a process of its own, shows what that prints, and reads
the records that it leaves. So the same words give the same weights as in a shell, an interrupt ends the training and
not the notebook, and no setting, thread or GPU memory stays behind.
"""

import csv
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from upsweep.analysis.ranking import rank
from upsweep.analysis.tables import print_results, results_table
from upsweep.common.commands import SCRIPTS, in_checkout
from upsweep.common.errors import UserError
from upsweep.common.files import read_cell
from upsweep.common.ranks import PARENT, clean_environment
from upsweep.common.telling import VARIABLE, heard
from upsweep.runs import history
from upsweep.runs.layout import BEST, HISTORY, MANIFEST, PAGE, RESULT
from upsweep.runs.manifest import Manifest
from upsweep.runs.record import found
from upsweep.runs.result import Result, State
from upsweep.sweeps.overrides import quoted, readable, sweeps, values_of

if TYPE_CHECKING:
    from upsweep.networks.network import Network

MEANT = set(",'\"[]")  # what means something on a command line, and is part of a name in Python


@dataclass(frozen=True, repr=False)
class Run:
    """A training, and what it came to.

    Attributes:
        folder: where everything of it lies.
        result: all that its `result.json` says; the properties here are what is asked for most.
    """

    folder: Path
    result: Result

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Run":
        """The run that lies in a folder. Raises UserError: there is no result in it, or it cannot be read."""
        place = Path(folder).expanduser()
        if (result := Result.read(place)) is None:
            raise UserError(f"{place} has no {RESULT}: name the folder of a run that has ended.")
        return cls(place, result)

    @property
    def state(self) -> State:
        """How it ended: finished, pruned, stopped, diverged or failed."""
        return self.result.state

    @property
    def reason(self) -> str | None:
        """Why it did not finish, or finished before its last epoch."""
        return self.result.reason

    @property
    def settings(self) -> dict[str, str]:
        """What was chosen and set, as text: `{"init": "he", ..., "seed": "1"}`."""
        return self.result.settings

    @property
    def figures(self) -> dict[str, float]:
        """Name -> value at the best epoch, which is that of the checkpoint: `{"psnr": 34.04, "ssim": 0.93}`."""
        return self.result.figures

    @property
    def baseline(self) -> dict[str, float]:
        """The same of the baseline, bicubic enlargement for super-resolution."""
        return self.result.baseline

    @property
    def history(self) -> list[dict[str, float | None]]:
        """A row an epoch: epoch, step, seconds, loss, and the figures of validation. For `pandas.DataFrame`."""
        return [epoch.columns for epoch in history.read(self.folder / HISTORY)]

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint; None where nothing was saved."""
        return path if (path := self.folder / BEST).is_file() else None

    def generator(self, *, allow: Collection[str] = (), trust_config: bool = False, ema: bool = True) -> "Network":
        """The trained network, on the CPU and in evaluation mode: see `load_generator`."""
        from upsweep.networks.checkpoints import load_generator

        return load_generator(self.folder, allow=allow, trust_config=trust_config, ema=ema)

    def __repr__(self) -> str:
        figures = ", ".join(f"{f.name} {f.format(self.figures.get(f.name))}" for f in self.result.declared)
        return f"Run({self.folder}: {self.state}{', ' if figures else ''}{figures})"


@dataclass(frozen=True, repr=False)
class Sweep:
    """The runs of a sweep, best first.

    Attributes:
        folder: where everything of it lies.
        runs: by state, then by the headline, as in the table. Those that failed are among them, and say why.
    """

    folder: Path
    runs: Sequence[Run]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Sweep":
        """The sweep that lies in a folder; jobs without a result are left out. Raises UserError: it is no sweep's."""
        place = Path(folder).expanduser()
        if (manifest := Manifest.read(place)) is None:
            raise UserError(f"{place} has no {MANIFEST}: name the folder of a sweep.")
        results = {job.name: result for job in manifest.jobs if (result := found(Result.read, place / job.name))}
        return cls(place, [Run(place / name, result) for name, result in rank(results).items()])

    @property
    def best(self) -> Run:
        """The first of the runs. Raises UserError: none has a result."""
        if not self.runs:
            raise UserError(f"{self.folder} has no results.")
        return self.runs[0]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What `results.csv` holds, a row a run: settings as text, figures as numbers. For `pandas.DataFrame`."""
        header, *rows = results_table(self._results)
        return [dict(zip(map(str, header), row, strict=True)) for row in rows]

    @property
    def report(self) -> Path | None:
        """The page that says what each choice is worth; None where none was made."""
        return path if (path := self.folder / PAGE).is_file() else None

    def table(self) -> str:
        """The tables that the command prints, as text."""
        text = io.StringIO()
        print_results(self._results, text)
        return text.getvalue().rstrip()

    @property
    def _results(self) -> dict[str, Result]:
        return {run.folder.name: run.result for run in self.runs}

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __repr__(self) -> str:
        return f"{self.table()}\n{self.folder}" if self.runs else f"Sweep({self.folder}: no results)"


@dataclass(frozen=True)
class Evaluation:
    """Tables of generators on benchmarks.

    Attributes:
        folder: where tables, pictures and the figures of every image lie.
        rows: a method each, as the CSV files have them. For `pandas.DataFrame`.
    """

    folder: Path
    rows: list[dict[str, Any]]


def train(*overrides: str, **settings: Any) -> Run:
    """Train one generator, as `upsweep-train` does.

    >>> train("init=he", "trainer.max_epochs=3", seed=2).figures  # doctest: +SKIP
    {'psnr': 33.1, 'ssim': 0.92}

    Args:
        overrides: words of the command line: `"init=he"`, `"resume=outputs/x"`, `"--config-dir=my/conf"`.
        settings: the same by name, with values of Python: `seed=2`, `checkpoint=Path("a.ckpt")`, `**{"data.root": x}`.

    Returns the run, which may have diverged, or been stopped: see its `state`.
    Raises UserError: the command refuses what it was told, with the sentence that it prints, or fails.
    """
    words = _words(overrides, settings)
    if sweeps(words) or any(len(values_of(word) or ()) > 1 for word in readable(words) if not word.startswith("-")):
        raise UserError("train() makes one run: for several give the same words, without -m, to sweep().")
    return Run.read(_done("train", words, "folder"))


def sweep(*overrides: str, **settings: Any) -> Sweep:
    """Train a generator for every combination of the values that are named, as `upsweep-train -m` does.

    >>> print(sweep("init=xavier,he", norm=["bn", "none"]).table())  # doctest: +SKIP

    Args:
        overrides: words of the command line: `"init=xavier,he"`, `"seed=range(1,4)"`, `"hparams_search=optuna"`.
        settings: the same by name. A list is what is gone through: `norm=["bn", "none"]`.

    Returns all runs, also where some of them failed: see their `state` and `reason`.
    Raises UserError: the command refuses what it was told, or no run has a result.
    """
    code, said = _run("train", ["-m", *_words(overrides, settings, several=True)])
    folder = said.get("folder")
    done = Sweep.read(folder) if folder and (Path(folder) / MANIFEST).is_file() else None
    if done is None or (code and not any(run.result.complete for run in done)):
        raise UserError(said["error"])
    return done


def upscale(*overrides: str, **settings: Any) -> list[Path]:
    """Enlarge photos, as `upsweep-upscale` does; the files that were written.

    >>> upscale(input="photo.jpg", scale=2)  # doctest: +SKIP
    [PosixPath('photo_x2.png')]

    Raises UserError: the command refuses what it was told, or one of the photos could not be enlarged.
    """
    return [Path(file) for file in _done("upscale", _words(overrides, settings), "files")]


def evaluate(*overrides: str, **settings: Any) -> Evaluation:
    """Judge generators as papers do, as `upsweep-evaluate` does.

    >>> evaluate(checkpoint=run.folder, benchmark=["set5", "set14"]).rows  # doctest: +SKIP

    Raises UserError: the command refuses what it was told, or fails.
    """
    folder = Path(_done("evaluate", _words(overrides, settings), "folder"))
    tables = [file.read_text(encoding="utf-8").splitlines() for file in sorted(folder.glob("table*.csv"))]
    rows = [row for lines in tables for row in csv.DictReader(lines)]
    return Evaluation(folder, [{key: _value(cell) for key, cell in row.items()} for row in rows])


def _value(cell: str) -> Any:
    """A cell of a CSV file: a number, text, or None where it is empty."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return read_cell(cell)


def _words(overrides: Sequence[str], settings: Mapping[str, Any], *, several: bool = False) -> list[str]:
    """What is asked for, as the words of a command line. Raises UserError: one is no text."""
    for word in overrides:
        if not isinstance(word, str):
            raise UserError(f'{word!r} is not a word of a command line: give text, "key=value", or key=value by name.')
    return [*overrides, *(f"{key}={_typed(value, several)}" for key, value in settings.items())]


def _typed(value: Any, several: bool = False) -> str:
    """A value of Python as the command line has it; a run or a sweep is its folder."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Run | Sweep | os.PathLike):
        name = str(value.folder if isinstance(value, Run | Sweep) else value)
        return quoted(name) if MEANT & set(name) else name
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}: {_item(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple | range):
        items = ",".join(map(_item, value))
        return items if several else f"[{items}]"
    return str(value)


def _item(value: Any) -> str:
    """The same within a list or a mapping, where a text that is empty or has a comma needs quotes."""
    return quoted(value) if isinstance(value, str) and (not value or MEANT & set(value)) else _typed(value)


def _done(door: str, words: Sequence[str], key: str) -> Any:
    """What a command told of `key`. Raises UserError: it failed, or did nothing, say for `--help` among its words."""
    code, said = _run(door, words)
    if code or key not in said:
        raise UserError(said["error"])
    return said[key]


def _run(door: str, words: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run a command, and show what it prints: its exit code, and what it told, which is why it failed if it did."""
    line = [sys.executable, "-m", f"upsweep.doors.{door}", *words]
    with TemporaryDirectory() as place:
        told = Path(place) / "told.json"
        environment = {**clean_environment(), PARENT: str(os.getpid()), VARIABLE: str(told)}
        if in_checkout():  # which may be on the path of this process alone
            paths = [environment.get("PYTHONPATH"), str(SCRIPTS)]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        code = _shown(line, environment)
        said = heard(told)
    return code, {"error": f"{shlex.join(line)} ended with exit code {code}: see what it printed.", **said}


def _shown(line: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a process to its end and print its lines as they come. An interrupt is the process's, then this one's."""
    with subprocess.Popen(
        line,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C in a terminal would reach it twice
    ) as process:
        try:
            _print_all(process)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            try:
                _print_all(process)  # it saves what it has, and says how to go on
            except KeyboardInterrupt:  # once more: at once
                process.kill()
            raise
    return process.returncode


def _print_all(process: subprocess.Popen[str]) -> None:
    for text in process.stdout or ():
        print(text, end="", flush=True)
