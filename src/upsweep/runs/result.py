"""What a job came to (`result.json`): written by the job, read by the launcher, the table, the page, a later resume."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from upsweep.metrics.figure import Figure, figures_of
from upsweep.runs.layout import RESULT
from upsweep.runs.record import checked, read, values_in, write_record

State = Literal["finished", "pruned", "stopped", "diverged", "failed"]
REQUEUE = 75  # a job's exit code, EX_TEMPFAIL of sysexits.h: the machine was taken away, run me again
INTERRUPTED = 130  # 128 + SIGINT, as a shell says it of Ctrl-C
VERSION = 2
TUNED = ("optimizer.lr",)
HOW_IT_WENT_ON = ("resume", "judge_anew")  # keys that are not taken over from the earlier command
SILENT = (*HOW_IT_WENT_ON, "quiet", "verbose", "report", "local", "tuned", "callbacks.progress")  # no setting of a run
COST = ("logger", "data.cache", "data.cache_dir", "data.num_workers")  # what may only change what a run costs


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one job came to; `None`: not known.

    Attributes:
        state: how it ended.
        choices: config group -> the name chosen in it.
        overrides: the job's command line.
        seed, scale: of the config, where it has them.
        reason: why the job is not `finished`, or finished before its last epoch.
        epoch, epochs: the best one, and how many there were to be.
        declared: what the task is judged by, the headline first.
        figures: name -> value at the best epoch, which is the checkpoint's; also of what was logged as `val/<name>` and
            is not declared.
        last: the same at the last epoch, by which results are compared: the best of many is also the luckiest.
        baseline: name of a figure -> the baseline's value.
        parameters, macs_per_pixel: of the network; multiply-adds per output pixel.
        seconds: wall time.
        objective: the number that a sweeper maximises or minimises.
        checkpoint: the best one's path.
        tuned: keys whose values are not choices: every choice may have its own best values.
        judged_on: the digest of the images it was judged on, and of how; see `upsweep.runs.identity`.
    """

    state: State
    choices: dict[str, str]
    overrides: list[str]
    seed: int | None
    scale: int | None
    reason: str | None = None
    epoch: int = 0
    epochs: int = 0
    declared: tuple[Figure, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None
    macs_per_pixel: float | None = None
    seconds: float | None = None
    objective: float | None = None
    checkpoint: str | None = None
    judged_on: str | None = None
    tuned: list[str] = field(default_factory=lambda: [*TUNED])

    def write(self, folder: Path) -> Path:
        """Write `result.json` into `folder`, whole or not at all."""
        return write_record(folder / RESULT, VERSION, self)

    @classmethod
    def read(cls, folder: Path) -> "Result | None":
        """Read `result.json` in `folder`; None where there is none. Raises UnreadableError."""
        return read(cls._read, folder / RESULT)

    @classmethod
    def _read(cls, path: Path) -> "Result":
        said = values_in(path, VERSION, _of_version_1)
        said["declared"] = figures_of(said["declared"])
        for key in ("figures", "last", "baseline"):
            said[key] = {name: value for name, value in said.get(key, {}).items() if value is not None}
        return checked(cls(**said))

    @property
    def complete(self) -> bool:
        """Whether the job need not run again: it finished, was pruned by a search, or diverged."""
        return self.state in ("finished", "pruned", "diverged")

    @property
    def undeclared(self) -> list[str]:
        """The names of figures that were logged, and of which nobody knows whether higher or lower is better."""
        return [name for name in self.figures | self.last if name not in {figure.name for figure in self.declared}]

    @property
    def headline(self) -> Figure | None:
        """What results are ranked by."""
        return self.declared[0] if self.declared else None

    @property
    def value(self) -> float | None:
        """The headline's value at the last epoch."""
        return None if self.headline is None else self.final(self.headline.name)

    def final(self, name: str) -> float | None:
        """A figure's value at the last epoch; at the best one in records of before upsweep 0.2, which have no other."""
        return self.last.get(name) if self.last else self.figures.get(name)

    def lead(self, *, best: bool = False) -> float | None:
        """By how much the headline is better than its baseline, at the last (or best) epoch; None: not known."""
        figure = self.headline
        value = None if figure is None else self.figures.get(figure.name) if best else self.final(figure.name)
        if figure is None or value is None or figure.name not in self.baseline:
            return None
        return figure.lead(value, self.baseline[figure.name])

    @property
    def below(self) -> str | None:
        """That the best epoch is worse than the baseline, in words; None where it is not, or it is not known."""
        lead = self.lead(best=True)
        return self.headline.standing(lead) if self.headline and lead and self.headline.behind(lead) else None

    @cached_property
    def by_hand(self) -> dict[str, str]:
        """What the command line sets of the run itself."""
        said = map(key_and_value, self.overrides)
        return {key: value for key, value in said if not _among(key, SILENT)}

    @cached_property
    def settings(self) -> dict[str, str]:
        """Everything that was set: the groups' choices, then single values, then scale and seed."""
        numbers = {"scale": self.scale, "seed": self.seed}
        others = {key: value for key, value in self.by_hand.items() if key not in self.choices}
        return self.choices | others | {key: str(value) for key, value in numbers.items() if value is not None}

    def because(self, state: State, reason: str) -> "Result":
        """The same, with another end."""
        return replace(self, state=state, reason=reason)


def key_and_value(override: str) -> tuple[str, str]:
    """What a word of the command line sets, and to what: `+trainer.max_epochs=3`."""
    key, _, value = override.partition("=")
    return placed(key.lstrip("+~")), value


def placed(key: str) -> str:
    """The name of a choice: `norm`, and where its group is chosen in another place, that: `adversary.recipe.norm`.

    >>> placed("norm@adversary.recipe.norm"), placed("feed@task.data"), placed("norm"), placed("objective@objective.of")
    ('adversary.recipe.norm', 'feed', 'norm', 'objective.of')
    """
    group, _, place = key.partition("@")
    return place if place.endswith(f".{group}") or place.startswith(f"{group}.") else group


def said_at_first(overrides: Iterable[str]) -> list[str]:
    """A job's command line without what resumes it (`resume=`), which is not one of its choices."""
    return [override for override in overrides if key_and_value(override)[0] not in HOW_IT_WENT_ON]


def matters(key: str) -> bool:
    """Whether a key, or a group, may change a figure."""
    return not _among(key, (*SILENT, *COST))


def _among(key: str, keys: Iterable[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


# ---- what upsweep 0.1 wrote before there were other tasks than super-resolution ----

FIGURES_OF_VERSION_1 = (
    Figure(name="psnr", title="PSNR", unit="dB", digits=2, noise=0.05, baseline="bicubic"),
    Figure(name="ssim", title="SSIM", digits=4, noise=0.001, baseline="bicubic"),
)


def _of_version_1(said: Mapping[str, Any]) -> dict[str, Any]:
    now = {key: value for key, value in said.items() if key != "gain"}
    figures = {figure.name: now.pop(figure.name) for figure in FIGURES_OF_VERSION_1}
    baseline = {figure.name: now.pop(f"{figure.name}_bicubic") for figure in FIGURES_OF_VERSION_1}
    choices = {"task": "super_resolution", "feed": "patches", **now["choices"]}  # what there was before it had a name
    return {**now, "choices": choices, "declared": FIGURES_OF_VERSION_1, "figures": figures, "baseline": baseline}
