"""A job of a sweep: its settings, the command line that runs it, its progress, and its result."""

import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals

from hydra.core.utils import JobReturn, JobRuntime, JobStatus
from omegaconf import DictConfig, OmegaConf

import __main__
from upsweep.analysis.ranking import chosen, headline
from upsweep.common.disks import full_disk
from upsweep.common.errors import UserError
from upsweep.metrics.figure import Figure, figures_of, own_figures, ranked
from upsweep.runs.layout import JOB_LOG, RESULT
from upsweep.runs.record import found
from upsweep.runs.result import TUNED, Result
from upsweep.sweeps.live import Status
from upsweep.sweeps.overrides import quoted

STOPPED = "stopped before it had a result"  # with the whole sweep


class JobsFailedError(UserError):
    """Some jobs of a sweep did not finish; the others are complete."""


def declared_in(config: DictConfig) -> tuple[Figure, ...]:
    """What a config's task is judged by, the headline first; nothing where no task says it.

    Raises UserError: `metrics` or `rank_by` says what cannot be.
    """
    figures = figures_of(OmegaConf.select(config, "task.figures") or ())
    own = own_figures(OmegaConf.select(config, "metrics"), config)
    return ranked(figures_of([*figures, *own]), OmegaConf.select(config, "rank_by"))


@dataclass(eq=False)
class Planned:
    """A planned job: `name` is its folder below the sweep's, `config` what it will compose for itself.

    `command` runs it, `resuming` continues a stopped run (see `command_of`); `nothing` is the result of a job before
    anything but its settings is known, `status` its progress for the display.
    """

    name: str
    folder: Path
    number: int
    overrides: list[str]
    config: DictConfig
    command: Sequence[str] = ()
    resuming: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.nothing = Result(
            state="failed",
            choices=chosen(self.config.hydra.runtime.choices, self.config),
            overrides=self.overrides,
            seed=OmegaConf.select(self.config, "seed"),
            scale=OmegaConf.select(self.config, "scale"),
            declared=declared_in(self.config),
            tuned=list(OmegaConf.select(self.config, "tuned", default=TUNED)),
        )
        self.status = Status(self.folder, self.nothing.settings, headline([self.nothing]))

    def started(self) -> None:
        """Note that it runs from now on."""
        self.status.started_at = time.time()

    def ended(self, exit_code: int, stopped: str | None) -> None:
        """Note that no process of it is left. A negative code is the signal that killed it; `stopped` says why."""
        result, began = self.result(exit_code, stopped), self.status.started_at
        took = None if began is None else time.time() - began
        self.status.result = result if result.seconds is not None else replace(result, seconds=took)

    def result(self, exit_code: int, stopped: str | None) -> Result:
        """What the job left as `result.json`, held against how it ended, and why; written if that says otherwise."""
        left = found(Result.read, self.folder)
        told = left is not None and left.state in ("diverged", "stopped") and stopped in (None, STOPPED)
        if left is not None and (exit_code == 0 or told):
            return left
        if stopped is not None and (left is None or stopped != STOPPED):
            result = (left or self.nothing).because("stopped", stopped)
        else:
            known = left or self.nothing
            result = known.because("failed", self._why(exit_code, known.reason))
        try:
            result.write(self.folder)
        except OSError as error:  # a full disk: the other jobs need not end for that
            what = full_disk(error, self.folder) or f"{self.folder / RESULT} could not be written ({error.strerror})"
            print(f"{what}.", file=sys.stderr, flush=True)
        return result

    def _why(self, exit_code: int, said: str | None) -> str:
        lines = telling_lines(self.folder / JOB_LOG)
        if said is not None and lines and lines[-1] in said:  # one sentence, no traceback
            return said
        how = f"exit code {exit_code}" if exit_code else f"it ended without writing {RESULT}"
        if exit_code < 0:
            how = f"killed by {Signals(-exit_code).name}"
        return "\n    ".join([f"{how}; its log ends:", *lines] if lines else [how])

    def returned(self, result: Result, error: JobsFailedError | None) -> JobReturn:
        """The result as Hydra's sweepers want it; a failed job raises `error`, if any, when its value is read."""
        failed = not result.complete and error is not None
        no_number = result.objective is None and result.state not in ("finished", "pruned")
        return JobReturn(
            overrides=self.overrides,
            cfg=OmegaConf.masked_copy(self.config, [str(key) for key in self.config if key != "hydra"]),
            hydra_cfg=OmegaConf.masked_copy(self.config, "hydra"),
            working_dir=str(self.folder),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
            _return_value=error if failed else math.nan if no_number else result.objective,
        )


def door_of(sweep: DictConfig) -> list[str]:
    """The beginning of the command line of every job: how this very script was started, and where its configs are."""
    hydra = sweep.hydra
    flag_of = {"main": "--config-path", "command-line": "--config-dir"}
    places = [source for source in hydra.runtime.config_sources if source.provider in flag_of]
    module = __main__.__spec__
    return [
        sys.executable,
        *([str(Path(sys.argv[0]).absolute())] if module is None else ["-m", module.name]),
        f"--config-name={hydra.job.config_name}",
        *(f"{flag_of[p.provider]}={p.path if p.schema == 'file' else f'{p.schema}://{p.path}'}" for p in places),
    ]


def command_of(job: Planned, sweep: DictConfig, folder: Path, *, resume: bool) -> list[str]:
    """The command line that runs a job of the sweep in `folder`: no shell reads it, so values arrive as they were."""
    own = {
        "hydra.mode": "RUN",
        "hydra.run.dir": quoted(str(job.folder)),
        "hydra.sweep.dir": quoted(str(folder)),
        "hydra.sweep.subdir": quoted(job.name),
        "hydra.job.num": str(job.number),
        "hydra.job.id": str(job.number),
    }
    if resume and "resume" in job.config:
        own["resume"] = quoted(str(job.folder))
    return [
        *door_of(sweep),
        *(line for line in sweep.hydra.overrides.hydra if not line.startswith("hydra.mode=")),
        *job.overrides,
        *(f"{key}={value}" for key, value in own.items()),
    ]


def telling_lines(log: Path) -> list[str]:
    """The end of a log: the last line of each traceback, then the log's last lines.

    The rank that failed first rarely logs last: the others then report that it has gone.
    """
    if not log.is_file():  # the job died before it had one
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        text = file.read().decode(errors="replace")
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line.rstrip()) for line in text.splitlines()]
    lines = [line for line in lines if line.strip("^~ ") and "HYDRA_FULL_ERROR" not in line]
    ends = re.findall(
        r"^Traceback \(most recent call last\):\n(?: .*\n)*(?!Traceback \(most)(\S.*)$", "\n".join(lines), re.MULTILINE
    )
    last = lines[-4:]
    return [*(error for error in dict.fromkeys(ends) if error not in last), *last]
