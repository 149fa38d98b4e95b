"""How Hydra's multirun becomes processes: every job of a sweep is one fresh run of the same door.

The door is started as `<door> <the job's overrides> hydra.mode=RUN hydra.run.dir=<its folder>`, so that
nothing of one job (environment, seeds, torch flags, a distributed rank) can reach the next, and a rank that
Lightning starts by repeating the command line repeats that of one job. The job leaves `result.json`;
the launcher hands its objective to the sweeper.
"""

import copy
import json
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import Signals
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobRuntime, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

import __main__
from upsweep.errors import UserError
from upsweep.sweeps import pool
from upsweep.sweeps.about import About
from upsweep.sweeps.composing import compose_once
from upsweep.sweeps.folders import writable
from upsweep.sweeps.live import Status, display
from upsweep.sweeps.results import REQUEUE, Progress, Result, chosen, print_results, write_by_rename, write_csv
from upsweep.sweeps.resuming import KEY, MANIFEST, quoted

TABLE = "results.csv"
LOG_LINES = 4


class JobsFailedError(UserError):
    """Some jobs of a sweep did not finish; the others are complete."""


@dataclass(frozen=True)
class Planned:
    """A job to be: `name` is its folder's below the sweep's, `config` what it will compose for itself."""

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
        )

    def result(self, exit_code: int, stopping: bool) -> Result:
        """What the job left as `result.json`, held against how it ended; written if that says otherwise."""
        left = Result.read(self.folder)
        if left is not None and (exit_code == 0 or left.state in ("diverged", "stopped")):
            return left
        if left is None and stopping:
            result = replace(self.nothing, state="stopped", reason="stopped before it had a result")
        else:
            said = None if left is None else left.reason
            result = replace(left or self.nothing, state="failed", reason=self._why(exit_code, said))
        try:
            result.write(self.folder)
        except OSError as error:  # a full disk: the other jobs need not end for that
            print(f"{self.folder / Result.FILE} could not be written: {error.strerror}.", file=sys.stderr, flush=True)
        return result

    def _why(self, exit_code: int, said: str | None) -> str:
        lines = telling_lines(self.folder / pool.LOG)
        if said is not None and lines and lines[-1] in said:  # one sentence, no traceback
            return said
        how = (
            f"killed by {Signals(-exit_code).name}"
            if exit_code < 0
            else f"exit code {exit_code}"
            if exit_code > 0
            else f"it ended without writing {Result.FILE}"
        )
        return "\n    ".join([f"{how}; its log ends:", *lines] if lines else [how])

    def returned(self, result: Result, error: JobsFailedError | None) -> JobReturn:
        """The result as Hydra's sweepers want it; a failed job raises `error`, if any, when its value is read."""
        task_config = copy.deepcopy(self.config)
        with open_dict(task_config):
            del task_config["hydra"]
        failed = not result.complete and error is not None
        no_number = result.objective is None and (result.state == "diverged" or not result.complete)
        objective = math.nan if no_number else result.objective
        return JobReturn(
            overrides=self.overrides,
            cfg=task_config,
            hydra_cfg=OmegaConf.masked_copy(self.config, "hydra"),
            working_dir=str(self.folder),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
            _return_value=error if failed else objective,
        )


def gather_runs(sweep: Path, jobs: Sequence[Path]) -> None:
    """Links in `sweep/wandb` to the W&B runs of all jobs: one folder for `wandb leet` and `wandb sync`."""
    for job in jobs:
        for run in sorted((job / "wandb").glob("*run-*-*")):
            link = sweep / "wandb" / run.name
            link.parent.mkdir(exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(run, link.parent), target_is_directory=True)


def _holds_run(folder: Path) -> bool:
    """Whether a job's folder has what a new job there would destroy."""
    if (folder / "checkpoints" / "last.ckpt").exists():
        return True
    result = Result.read(folder)
    return result is not None and result.state == "finished"


@dataclass
class Sweep:
    """The jobs of one multirun, launched in one batch or, by a sweeper that learns, in several.

    With `resume`, a job with the same overrides as one that the folder holds is that one: it is kept if it is
    complete, goes on from its checkpoint if it has one, and is run anew otherwise.
    """

    config: DictConfig
    context: HydraContext
    run: pool.Runner
    parallel: int
    resume: bool = False
    planned: dict[str, Planned] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)

    def __post_init__(self) -> None:
        compose_once(self.context)
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        self.folder = writable(folder, resume=self.resume, asked_by="hydra.sweep.dir")
        self.about = About.now()
        self.before: list[dict[str, Any]] = []
        if self.resume and (self.folder / MANIFEST).is_file():
            self.before = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))["jobs"]

    def launch(self, batch: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Run a batch of jobs, numbered from `first`; print and write the table of all jobs so far.

        Exits with 128 + its number if a signal stopped the batch, with 75 (EX_TEMPFAIL) if that was SIGTERM.
        """
        jobs = [self._plan(list(overrides), first + i) for i, overrides in enumerate(batch)]
        if not self.resume and (done := next((job.folder for job in jobs if _holds_run(job.folder)), None)) is not None:
            raise UserError(
                f"{done} holds a run already: -m resume={self.folder} goes on with that sweep, another "
                "hydra.sweep.dir begins a new one."
            )
        self._write_manifest()
        stopped = self._run([job for job in jobs if not self._kept(job)])
        results = {name: status.result for name, status in self.statuses.items() if status.result is not None}
        gather_runs(self.folder, [job.folder for job in self.planned.values()])
        print_results(results)
        table = write_csv(self.folder / TABLE, results)
        if not OmegaConf.select(self.config, "quiet"):
            print(f"Table: {table}", flush=True)
        if OmegaConf.select(self.config, "report.enabled", default=False):
            self._report()
        if stopped is not None:
            sys.exit(REQUEUE if stopped is Signals.SIGTERM else 128 + stopped)
        failed = [name for name, result in results.items() if not result.complete]
        error = JobsFailedError(
            f"{len(failed)} of {len(results)} jobs did not finish ({', '.join(failed)}): "
            f"see {self.folder / '*' / pool.LOG}."
        )
        if (in_all := self._in_all()) and failed:
            if len(self.planned) >= in_all:
                raise error
            return [job.returned(results[job.name], None) for job in jobs]
        return [job.returned(results[job.name], error) for job in jobs]

    def _in_all(self) -> int:
        """How many jobs there will be where Hydra's own sweeper launches them in batches, else 0.

        It would give up after the first batch in which a job failed: it is told of failures with the last one.
        """
        sweeper = self.config.hydra.sweeper
        if not str(sweeper._target_).endswith(".BasicSweeper") or sweeper.max_batch_size is None:
            return 0
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        given = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        overrides = parser.parse_overrides([*given, *self.config.hydra.overrides.task])
        return sum(map(len, BasicSweeper.split_arguments(overrides, None)))

    def _report(self) -> None:
        """Make the page of all jobs so far; a sweep is not lost because its report is."""
        try:
            from upsweep.reporting.report import write_report  # needs half a second to import

            page = write_report(self.folder)
            if not OmegaConf.select(self.config, "quiet"):
                print(f"Report: {page}", flush=True)
        except Exception as error:
            print(
                f"The report could not be made ({type(error).__name__}: {error}); "
                f"try again with: python src/report.py sweep={self.folder}",
                file=sys.stderr,
                flush=True,
            )

    def _plan(self, overrides: list[str], number: int) -> Planned:
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        old = next((job for job in self.before if sorted(job["overrides"]) == sorted(overrides)), None)
        if old is not None:
            number = old["number"]
        elif self.before:
            taken_numbers = [*(job["number"] for job in self.before), *(job.number for job in self.planned.values())]
            number = max(taken_numbers) + 1
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in the folder's name
        name = str(config.hydra.sweep.subdir if old is None else old["name"])
        taken = {job["name"] for job in self.before if job is not old}
        if name in self.planned or name in taken:
            raise UserError(f"hydra.sweep.subdir gives two jobs the folder {name!r}: put what differs into it.")
        job = Planned(name, self.folder / name, number, overrides, config)
        self.planned[name] = job
        self.statuses[name] = Status(job.folder, job.nothing.settings)
        return job

    def _kept(self, job: Planned) -> bool:
        """Whether a resumed sweep already has the job's result."""
        result = Result.read(job.folder) if self.resume else None
        if result is None or not result.complete:
            return False
        self.statuses[job.name].result = result
        return True

    def _run(self, jobs: Sequence[Planned]) -> Signals | None:
        quiet = bool(OmegaConf.select(self.config, "quiet"))
        if self.resume and not quiet:
            print(
                f"{len(self.planned) - len(jobs)} of {len(self.planned)} jobs are kept, {len(jobs)} to run.", flush=True
            )
        shown = display(self.statuses, self.parallel, quiet=quiet)

        def started(job: pool.Job) -> None:
            self.statuses[job.name].started_at = time.time()

        def ended(job: pool.Job, exit_code: int, stopping: bool) -> None:
            status = self.statuses[job.name]
            result = self.planned[job.name].result(exit_code, stopping)
            took = None if status.started_at is None else time.time() - status.started_at
            status.result = result if result.seconds is not None else replace(result, seconds=took)

        for job in jobs:  # of an earlier sweep in the same folder
            for name in (Result.FILE, Progress.FILE):
                (job.folder / name).unlink(missing_ok=True)
        try:
            stopped = self.run([self._job(job) for job in jobs], on_start=started, on_exit=ended, on_tick=shown.update)
        finally:
            shown.close()
        for job in jobs:
            if self.statuses[job.name].result is None:
                self.statuses[job.name].result = replace(job.nothing, state="stopped", reason="not started")
        return stopped

    def _job(self, job: Planned) -> pool.Job:
        wants = OmegaConf.to_container(job.config.hydra.launcher, resolve=True)
        resume = self.resume and job.folder.is_dir()
        return pool.Job(
            job.name, job.folder, self.command(job, resume), self.command(job, resume=True), cast(dict[str, Any], wants)
        )

    def command(self, job: Planned, resume: bool) -> list[str]:
        """The command line that runs one job: no shell reads it, so that every value arrives as it was."""
        hydra = self.config.hydra
        sources = {source.provider: source for source in hydra.runtime.config_sources}
        flags = {"--config-name": hydra.job.config_name}
        if (main := sources.get("main")) is not None:
            flags["--config-path"] = main.path if main.schema == "file" else f"{main.schema}://{main.path}"
        if (added := sources.get("command-line")) is not None:
            flags["--config-dir"] = added.path
        given = [line for line in hydra.overrides.hydra if not line.startswith("hydra.mode=")]
        own = {
            "hydra.mode": "RUN",
            "hydra.run.dir": quoted(str(job.folder)),
            "hydra.sweep.dir": quoted(str(self.folder)),
            "hydra.sweep.subdir": quoted(job.name),
            "hydra.job.num": str(job.number),
            "hydra.job.id": str(job.number),
        }
        if resume and "resume" in job.config:
            own[KEY.removesuffix("=")] = quoted(str(job.folder))
        return [
            *door_command(),
            *(f"{flag}={value}" for flag, value in flags.items() if value is not None),
            *given,
            *job.overrides,
            *(f"{key}={value}" for key, value in own.items()),
        ]

    def _write_manifest(self) -> None:
        manifest: dict[str, Any] = {
            "version": 1,
            **self.about.plain(),
            "jobs": [
                *(job for job in self.before if job["name"] not in self.planned),
                *({"name": j.name, "number": j.number, "overrides": j.overrides} for j in self.planned.values()),
            ],
        }
        write_by_rename(self.folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def door_command() -> list[str]:
    """How this very script was started, without its arguments."""
    if __main__.__spec__ is None:
        return [sys.executable, str(Path(sys.argv[0]).absolute())]
    return [sys.executable, "-m", __main__.__spec__.name]


def telling_lines(log: Path) -> list[str]:
    """What a log says about its end: its last lines and, before them, the error each traceback ends in.

    The rank that failed first is rarely the last to speak: the others complain that it has gone.
    """
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 65_536))
        text = file.read().decode(errors="replace")
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line.rstrip()) for line in text.splitlines()]
    lines = [line for line in lines if line.strip("^~ ") and "HYDRA_FULL_ERROR" not in line]
    errors, in_traceback = list[str](), False
    for line in lines:
        if line == "Traceback (most recent call last):":
            in_traceback = True
        elif in_traceback and not line.startswith(" "):
            errors.append(line)
            in_traceback = False
    last = lines[-LOG_LINES:]
    return [*(error for error in dict.fromkeys(errors) if error not in last), *last]
