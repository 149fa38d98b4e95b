"""What a job came to (`result.json`), how far it is (`progress.json`), and the table that ranks jobs.

A job writes both files into its own folder, by rename, so that a reader never sees half a file. The launcher,
the table and a later resume read them; nothing else passes between a job and its sweep. Knows no torch.
"""

import csv
import io
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from upsweep.errors import UserError

State = Literal["finished", "pruned", "stopped", "diverged", "failed"]
_RANK: dict[State, int] = {"finished": 0, "pruned": 1, "stopped": 2, "diverged": 3, "failed": 4}
_STYLE: dict[State, str] = {
    "finished": "",
    "pruned": "cyan",
    "stopped": "yellow",
    "diverged": "magenta",
    "failed": "red",
}
_VERSION = 1
CHAINS = ("degradation",)  # groups of which several may be chosen, in an order
TUNED = "optimizer.lr"  # what every choice may have its own best value of
_Record = TypeVar("_Record", "Result", "Progress")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one job came to; `None` stands for what it did not come to know.

    `choices` maps every config group to the name chosen in it and `overrides` is the job's command line.
    `psnr`, `psnr_bicubic` and `gain` are in dB, `seconds` is wall time, `macs_per_pixel` counts
    multiply-adds per output pixel. `objective` is the number that a sweeper maximises or minimises.
    `checkpoint` is the best one's path. `reason` says why a job is not `finished`.
    """

    state: State
    choices: dict[str, str]
    overrides: list[str]
    seed: int | None
    scale: int | None
    reason: str | None = None
    epoch: int = 0
    epochs: int = 0
    psnr: float | None = None
    ssim: float | None = None
    psnr_bicubic: float | None = None
    ssim_bicubic: float | None = None
    gain: float | None = None
    parameters: int | None = None
    macs_per_pixel: float | None = None
    seconds: float | None = None
    objective: float | None = None
    checkpoint: str | None = None

    FILE = "result.json"

    def write(self, folder: Path) -> Path:
        """Write `result.json` into `folder` by rename."""
        return _write(self, folder)

    @classmethod
    def read(cls, folder: Path) -> "Result | None":
        """Read `result.json` in `folder`; None where there is none. Raises UserError if unreadable."""
        return _read(cls, folder)

    @property
    def complete(self) -> bool:
        """Whether running the job again would tell nothing new: it finished, was pruned by a search, or diverged."""
        return self.state in ("finished", "pruned", "diverged")

    @property
    def settings(self) -> dict[str, str]:
        """Everything that was set: the groups' choices, then single values, then scale and seed."""
        by_hand = dict(_key_and_value(override) for override in self.overrides)
        numbers = {"scale": self.scale, "seed": self.seed}
        return {
            **self.choices,
            **{key: value for key, value in by_hand.items() if key not in self.choices},
            **{key: str(value) for key, value in numbers.items() if value is not None},
        }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a running job is: `epoch` of `epochs` done, `step` of `steps` in all; times in seconds."""

    state: str = "starting"
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    psnr: float | None = None
    started_at: float = field(default_factory=time.time)
    seconds_left: float | None = None

    FILE = "progress.json"

    def write(self, folder: Path) -> Path:
        """Write `progress.json` into `folder` by rename. Callers keep to twice a second at most."""
        return _write(self, folder)

    @classmethod
    def read(cls, folder: Path) -> "Progress | None":
        """Read `progress.json` in `folder`; None where there is none. Raises UserError if unreadable."""
        return _read(cls, folder)


def write_by_rename(path: Path, text: str) -> Path:
    """Write `text` so that whoever reads `path` finds the old content or the whole of the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        return beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write(record: "Result | Progress", folder: Path) -> Path:
    # JSON has no nan and no infinity: they are written as null.
    plain = {key: None if _not_finite(value) else value for key, value in asdict(record).items()}
    text = json.dumps({"version": _VERSION, **plain}, indent=2, allow_nan=False)
    return write_by_rename(folder / record.FILE, text + "\n")


def _read(kind: type[_Record], folder: Path) -> _Record | None:
    path = folder / kind.FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields.pop("version")
        if version != _VERSION:
            raise ValueError(f"version {version}, not {_VERSION}")
        return kind(**fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, or run its job again.") from error


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def chosen(choices: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The config groups of the project and the names chosen in them, from Hydra's `runtime.choices`.

    Hydra's own groups and groups with nothing chosen are left out, and so is the package of a key. A chain of several
    names of one group (`degradation=[blur,bicubic]`), which Hydra does not list, is told by the keys of its node.
    """
    said = {
        key.split("@")[0]: value if isinstance(value, str) else json.dumps(list(value))
        for key, value in choices.items()
        if value is not None and not key.startswith(("hydra/", "local"))
    }
    chains = {key: f"[{','.join(config[key])}]" for key in CHAINS if config and key in config and key not in said}
    return {**said, **chains}


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


# ---------------------------------------------------------------------------------------------- the table


def rank(jobs: Mapping[str, Result]) -> dict[str, Result]:
    """The jobs from best to worst: by state, then by falling PSNR, then as they came."""

    def worth(result: Result) -> tuple[int, float]:
        return _RANK[result.state], -math.inf if result.psnr is None else result.psnr

    return dict(sorted(jobs.items(), key=lambda job: (worth(job[1])[0], -worth(job[1])[1])))


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys whose values are not the same in all jobs, in the order in which they are first named."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


@dataclass(frozen=True)
class Table:
    """Cells of text under headers; rows may have a style, for terminals."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """The first `left` columns and the last one are words, aligned left; those between are numbers."""
    styles: Sequence[str] = ()

    def _justify(self, column: int) -> Literal["left", "right"]:
        return "left" if column < self.left or column == len(self.headers) - 1 else "right"

    def plain(self) -> str:
        """Aligned lines, as wide as they need to be: for files and pipes."""
        lines = [self.headers, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pad: dict[str, Callable[[str, int], str]] = {"left": str.ljust, "right": str.rjust}
        aligned = [
            "  ".join(pad[self._justify(i)](cell, widths[i]) for i, cell in enumerate(line)).rstrip() for line in lines
        ]
        return "\n".join([self.title, *aligned] if self.title else aligned)

    def print(self, file: TextIO | None = None) -> None:
        """Print with rich on a terminal, as plain lines elsewhere."""
        file = sys.stdout if file is None else file
        if not file.isatty():
            print(self.plain(), file=file, flush=True)
            return
        from rich.console import Console  # rich takes longer to import than `--help` may take in all

        Console(file=file).print(self.rich())

    def rich(self) -> Any:
        """The same as a `rich.table.Table`."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=self.title or None,
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 2, 0, 0),
        )
        for i, header in enumerate(self.headers):
            words = i < self.left
            justify = self._justify(i)
            table.add_column(Text(header), justify=justify, overflow="fold", no_wrap=not words)
        for i, row in enumerate(self.rows):
            # Text: a value such as `[a,b]` is no markup.
            table.add_row(*map(Text, row), style=self.styles[i] if i < len(self.styles) else None)
        return table


def job_table(jobs: Mapping[str, Result], title: str = "") -> Table:
    """A row a job, best first: what differs (of one job: what was set by hand), then what it came to."""
    ranked = rank(jobs)
    settings = {name: result.settings for name, result in ranked.items()}
    if len(ranked) == 1:
        (only,) = ranked.values()
        columns = list(dict.fromkeys(_key_and_value(override)[0] for override in only.overrides))
    else:
        columns = differing(list(settings.values()))
    return Table(
        title=title,
        headers=["job", *columns, "PSNR", "SSIM", "gain dB", "parameters", "seconds", "state"],
        rows=[
            [
                name,
                *(settings[name].get(column, "") for column in columns),
                _text(result.psnr, ".2f"),
                _text(result.ssim, ".4f"),
                _text(result.gain, "+.2f"),
                _text(result.parameters, ","),
                _text(result.seconds, ".1f"),
                result.state,
            ]
            for name, result in ranked.items()
        ],
        left=1 + len(columns),
        styles=[_STYLE[result.state] for result in ranked.values()],
    )


def seed_table(jobs: Mapping[str, Result], title: str = "") -> Table | None:
    """A row a set of choices: mean ± sample standard deviation over the seeds that finished.

    None where no seeds were swept.
    """
    results = list(jobs.values())
    if len({result.seed for result in results}) < 2:
        return None
    return _spread_table(*_grouped(results, but={"seed"}), title)


def tuned_table(jobs: Mapping[str, Result], title: str = "") -> Table | None:
    """A row a set of choices, at the learning rate that is best for it: mean ± sample sd over the seeds that finished.

    One rate for all would decide which choice wins. The best rate is that of the highest mean PSNR over the seeds,
    among those with which the most seeds finished. None where no rates were swept, or nothing but rates and seeds.
    """
    results = list(jobs.values())
    columns, choices = _grouped(results, but={TUNED, "seed"})
    if not columns or len({result.settings.get(TUNED) for result in results}) < 2:
        return None
    best: dict[tuple[str, ...], list[Result]] = {}
    for choice, group in choices.items():
        rates = _grouped(group, but={"seed"}, columns=[TUNED])[1]
        (rate,), seeds = max(rates.items(), key=lambda item: (len(_finished(item[1])), _mean_psnr(item[1])))
        best[*choice, rate] = seeds
    return _spread_table([*columns, TUNED], best, title)


def _grouped(
    results: Sequence[Result], but: Collection[str], columns: Sequence[str] = ()
) -> tuple[list[str], dict[tuple[str, ...], list[Result]]]:
    """What differs between results, beside `but` (or the `columns` given), and the results by the values of that."""
    found = list(columns) or [key for key in differing([r.settings for r in results]) if key not in but]
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(result.settings.get(key, "") for key in found), []).append(result)
    return found, groups


def _spread_table(columns: Sequence[str], groups: Mapping[tuple[str, ...], list[Result]], title: str) -> Table:
    def spread(group: list[Result], key: str, form: str) -> str:
        return _spread([getattr(result, key) for result in _finished(group)], form)

    return Table(
        title=title,
        headers=[*columns, "PSNR", "SSIM", "gain dB", "seeds"],
        rows=[
            [
                *key,
                spread(group, "psnr", ".2f"),
                spread(group, "ssim", ".4f"),
                spread(group, "gain", "+.2f"),
                f"{len(_finished(group))} of {len(group)}",
            ]
            for key, group in sorted(groups.items(), key=lambda item: -_mean_psnr(item[1]))
        ],
        left=len(columns),
    )


def _finished(group: Iterable[Result]) -> list[Result]:
    return [result for result in group if result.state == "finished"]


def _mean_psnr(group: Iterable[Result]) -> float:
    known = [result.psnr for result in _finished(group) if result.psnr is not None]
    return statistics.fmean(known) if known else -math.inf


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(values: Iterable[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return _text(known[0] if known else None, form)
    return f"{statistics.fmean(known):{form}} ± {statistics.stdev(known):{form.lstrip('+')}}"


def print_results(jobs: Mapping[str, Result], file: TextIO | None = None) -> None:
    """Print the ranked table, those over seeds and at best rates where they were swept, and why jobs did not finish."""
    file = sys.stdout if file is None else file
    finished = sum(result.state == "finished" for result in jobs.values())
    job_table(jobs, f"{finished} of {len(jobs)} jobs finished" if len(jobs) > 1 else "").print(file)
    if (seeds := seed_table(jobs, "mean ± sample sd over seeds")) is not None:
        seeds.print(file)
    if (tuned := tuned_table(jobs, f"at the best {TUNED} of each choice: mean ± sample sd over seeds")) is not None:
        tuned.print(file)
    for name, result in jobs.items():
        if result.reason is not None and result.state != "finished":
            print(f"job {name} {result.state}: {result.reason}", file=file, flush=True)


def print_row(name: str, result: Result, file: TextIO | None = None) -> None:
    """Print the row of a single run, as the sweep's table would show it."""
    print_results({name: result}, file)


def write_csv(path: Path, jobs: Mapping[str, Result]) -> Path:
    """Write the ranked table with unrounded numbers to `path` by rename."""
    ranked = rank(jobs)
    columns = differing([result.settings for result in ranked.values()])
    measured = (
        *("psnr", "ssim", "gain", "psnr_bicubic", "ssim_bicubic", "parameters", "macs_per_pixel", "seconds"),
        *("state", "reason", "checkpoint"),
    )
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["job", *columns, *measured])
    for name, result in ranked.items():
        chosen_values = [result.settings.get(column, "") for column in columns]
        rows.writerow([name, *chosen_values, *(getattr(result, key) for key in measured)])
    return write_by_rename(path, text.getvalue())
