"""A job of a sweep: what it is to be, the command line that runs it, and what it came to."""

import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from hydra.core.utils import JobReturn, JobRuntime, JobStatus
from omegaconf import DictConfig, OmegaConf

import __main__
from upsweep.analysis.ranking import chosen
from upsweep.common.errors import UserError
from upsweep.metrics.figure import Figure, figures_of
from upsweep.runs.layout import JOB_LOG, RESULT
from upsweep.runs.record import found
from upsweep.runs.result import Result
from upsweep.sweeps.overrides import quoted
from upsweep.sweeps.pool import STOPPED


class JobsFailedError(UserError):
    """Some jobs of a sweep did not finish; the others are complete."""


def declared_in(config: DictConfig) -> tuple[Figure, ...]:
    """What a config's task is judged by, the headline first; nothing where no task says it."""
    return figures_of(OmegaConf.select(config, "task.figures") or ())


@dataclass(frozen=True)
class Planned:
    """A planned job: `name` is its folder below the sweep's, `config` what it will compose for itself."""

    name: str
    folder: Path
    number: int
    overrides: list[str]
    config: DictConfig

    @property
    def nothing(self) -> Result:
        """The result of a job of which nothing is known but its settings."""
        return Result(
            state="failed",
            choices=chosen(self.config.hydra.runtime.choices, self.config),
            overrides=self.overrides,
            seed=OmegaConf.select(self.config, "seed"),
            scale=OmegaConf.select(self.config, "scale"),
            declared=declared_in(self.config),
        )

    def result(self, exit_code: int, stopped: str | None) -> Result:
        """What the job left as `result.json`, held against how it ended, and why; written if that says otherwise."""
        left = found(Result.read, self.folder)
        told = left is not None and left.state in ("diverged", "stopped") and stopped in (None, STOPPED)
        if left is not None and (exit_code == 0 or told):
            return left
        if stopped is not None and (left is None or stopped != STOPPED):
            result = (left or self.nothing).because("stopped", stopped)
        else:
            said = None if left is None else left.reason
            result = (left or self.nothing).because("failed", self._why(exit_code, said))
        try:
            result.write(self.folder)
        except OSError as error:  # a full disk: the other jobs need not end for that
            print(f"{self.folder / RESULT} could not be written: {error.strerror}.", file=sys.stderr, flush=True)
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


def command_of(job: Planned, sweep: DictConfig, folder: Path, *, resume: bool) -> list[str]:
    """The command line that runs a job of the sweep in `folder`: no shell reads it, so values arrive as they were."""
    hydra = sweep.hydra
    flags = {"--config-name": hydra.job.config_name}
    flag_of = {"main": "--config-path", "command-line": "--config-dir"}
    for source in hydra.runtime.config_sources:
        if source.provider in flag_of:
            path = source.path if source.schema == "file" else f"{source.schema}://{source.path}"
            flags[flag_of[source.provider]] = path
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
    module = __main__.__spec__
    return [
        sys.executable,  # how this very script was started
        *([str(Path(sys.argv[0]).absolute())] if module is None else ["-m", module.name]),
        *(f"{flag}={value}" for flag, value in flags.items() if value is not None),
        *(line for line in hydra.overrides.hydra if not line.startswith("hydra.mode=")),
        *job.overrides,
        *(f"{key}={value}" for key, value in own.items()),
    ]


def telling_lines(log: Path) -> list[str]:
    """What a log says about its end: its last lines and, before them, the error each traceback ends in.

    The rank that failed first is rarely the last to speak: the others complain that it has gone.
    """
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65_536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:  # the job died before it had one
        return []
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line.rstrip()) for line in text.splitlines()]
    lines = [line for line in lines if line.strip("^~ ") and "HYDRA_FULL_ERROR" not in line]
    ends = re.findall(
        r"^Traceback \(most recent call last\):\n(?: .*\n)*(?!Traceback \(most)(\S.*)$", "\n".join(lines), re.MULTILINE
    )
    last = lines[-4:]
    return [*(error for error in dict.fromkeys(ends) if error not in last), *last]
