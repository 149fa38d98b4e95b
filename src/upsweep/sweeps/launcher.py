"""How Hydra's multirun becomes processes: every job of a sweep is one fresh run of the same door.

`<door> <the job's overrides> hydra.mode=RUN hydra.run.dir=<its folder>`: nothing of one job (environment, seeds, torch
flags, a rank) can reach the next, and a rank that Lightning starts by repeating the command line repeats that of one
job. The job leaves `result.json`; the launcher hands its objective to the sweeper.
"""

import copy
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from signal import Signals
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from upsweep.analysis.tables import print_results, write_table
from upsweep.analysis.together import filled
from upsweep.common.commands import command
from upsweep.common.disks import full_disk
from upsweep.common.errors import UserError
from upsweep.runs.about import About
from upsweep.runs.folders import holds_run, writable
from upsweep.runs.layout import JOB_LOG, PROGRESS, RESULT, TABLE, WANDB
from upsweep.runs.manifest import Entry, Manifest
from upsweep.runs.record import found
from upsweep.runs.result import REQUEUE, Result, key_and_value, matters
from upsweep.sweeps.inputs import check_inputs, still_read
from upsweep.sweeps.jobs import JobsFailedError, Planned, command_of
from upsweep.sweeps.live import Status, display
from upsweep.sweeps.running import Machine, run_jobs


class OnceEach:
    """`load_sweep_config` that keeps each config of the sweeper until the launcher asks for it again.

    A config takes a quarter of a second: hundreds of jobs compose it only once, and a line says so.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._compose = loader.load_sweep_config
        self._made: dict[tuple[str, ...], DictConfig] = {}
        self._patient_until: float | None = None

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key in self._made:
            return self._made.pop(key)
        if self._patient_until is None:
            self._patient_until = time.monotonic() + 2.0
        if time.monotonic() > self._patient_until:
            self._patient_until = math.inf
            if not OmegaConf.select(master_config, "quiet"):
                print("Composing the configs of all jobs ...", file=sys.stderr, flush=True)
        made = self._compose(master_config, sweep_overrides)
        self._made[key] = copy.deepcopy(made)  # the first caller may change what it gets
        return made


def gather_runs(sweep: Path, jobs: Sequence[Path]) -> None:
    """Links in `sweep/wandb` to the W&B runs of all jobs: one folder for `wandb leet` and `wandb sync`."""
    for job in jobs:
        for run in sorted((job / WANDB).glob("*run-*-*")):
            link = sweep / WANDB / run.name
            link.parent.mkdir(exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(run, link.parent), target_is_directory=True)


Open = Callable[[Sequence[DictConfig], int], Machine]
"""Gives the machine for jobs with these configs, of which there are at most so many."""


@dataclass
class LaunchedSweep:
    """The jobs of one multirun, launched in one batch or, by a sweeper that learns, in several or one by one.

    With `resume`, a job that differs from one in the folder in nothing that changes a figure is that one: it is kept if
    it is complete, goes on from its checkpoint if it has one, and is run anew otherwise. Jobs that run `here`, on this
    machine, are not begun where what one of them reads is not there.
    """

    config: DictConfig
    context: HydraContext
    open: Open
    resume: bool = False
    here: bool = True
    planned: dict[str, Planned] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)

    def __post_init__(self) -> None:
        loader: Any = self.context.config_loader
        if not isinstance(loader.load_sweep_config, OnceEach):
            loader.load_sweep_config = OnceEach(loader)
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        self.folder = writable(folder, resume=self.resume, asked_by="hydra.sweep.dir")
        self.quiet = bool(OmegaConf.select(self.config, "quiet"))
        self.about = About.now()
        self.before = (Manifest.read(self.folder) if self.resume else None) or Manifest(about=self.about)
        other = None if self.resume else found(Manifest.read, self.folder)
        self.others = [job.name for job in other.jobs] if other else []  # of a sweep that this one would replace
        for what in self.before.broken:
            _warn(f"{what}: that job is run again.")

    def launch(self, batch: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Run a batch of jobs, numbered from `first`; print and write the table of all jobs of the sweep so far.

        Exits with 128 + its number if a signal stopped the batch, with 75 (EX_TEMPFAIL) if that was SIGTERM.
        """
        begins = not self.planned
        asked = [self._plan(list(overrides), first + i) for i, overrides in enumerate(batch)]
        jobs = list({job.name: job for job in asked if job.status.result is None}.values())
        if len(jobs) < len(asked):
            self._say(f"{len(asked) - len(jobs)} of {len(asked)} jobs are the same as others, and are run once.")
        missing = self._missing(jobs)
        if self.here and begins:
            later = self._all()[len(batch) :]  # Hydra's own sweeper launches its jobs in their order
            reads = [still_read(job.config, job.folder) for job in missing]
            check_inputs([*reads, *map(self._composed, later)])
        self._record()
        if self.resume:
            self._say(f"{len(jobs) - len(missing)} of {len(jobs)} jobs are kept, {len(missing)} to run.")
        results = self._close(self._run_all(missing) if missing else None)
        return self._returned(asked, results)

    def _run_all(self, jobs: Sequence[Planned]) -> Signals | None:
        waiting = list(jobs)

        def ask(room: int) -> list[Planned]:
            given, waiting[:] = waiting[:room], waiting[room:]
            return given

        machine = self._opened([job.config for job in jobs], len(jobs))
        _forget(jobs)
        stopped = self._run(machine, ask, lambda _: None)
        for job in jobs:
            job.status.result = job.status.result or job.nothing.because("stopped", "not started")
        return stopped

    def launch_as_asked(
        self, ask: Callable[[], Sequence[str] | None], tell: Callable[[JobReturn], None], most: int, first: int
    ) -> None:
        """Run jobs that are asked for one by one, each as soon as there is room for it.

        No job waits for another one's end: a search asks its sampler for a trial when one has ended. Otherwise as
        `launch`, for all of the jobs.

        Args:
            ask: gives the overrides of the next job; None: there is none, at least while the running ones run.
            tell: gets each job's result, before the next one is asked for.
            most: how many jobs there are at most.
            first: the number of the first job.
        """
        running = Counter[Planned]()  # how often each was asked for

        def ended(job: Planned) -> None:
            result = job.status.result or job.nothing
            for _ in range(running.pop(job, 1)):
                tell(job.returned(result, self._failure({job.name: result})))

        def given(room: int) -> list[Planned]:
            jobs, begins = list[Planned](), not self.planned
            while len(jobs) < room and len(running) < machine.parallel and (overrides := ask()) is not None:
                job = self._plan(list(overrides), first + len(self.planned))
                if job not in running and (job.status.result is not None or not self._missing([job])):
                    ended(job)
                    continue
                if job not in running:
                    jobs.append(job)
                running[job] += 1
            if self.here and begins:
                check_inputs(still_read(job.config, job.folder) for job in jobs)
            if jobs:
                self._record()
                _forget(jobs)
            return jobs

        stopped = None
        if most > 0:  # a search that has all its trials opens nothing
            machine = self._opened([self.config], most)
            stopped = self._run(machine, given, ended, most)
        self._close(stopped)

    def _missing(self, jobs: Sequence[Planned]) -> list[Planned]:
        """The jobs without a result that a resumed sweep keeps. Raises UserError: a new sweep would destroy a run."""
        others = (self.folder / name for name in self.others if name not in self.planned)
        folders = chain((job.folder for job in jobs), others)
        if not self.resume and (done := next(filter(holds_run, folders), None)) is not None:
            raise UserError(
                f"{done} already has a run: -m resume={self.folder} continues that sweep, another "
                "hydra.sweep.dir starts a new one."
            )
        return [job for job in jobs if not self._kept(job)]

    def _record(self) -> None:
        """Write down which jobs the sweep has."""
        planned = (Entry(job.name, job.number, job.overrides) for job in self.planned.values())
        Manifest(about=self.about, jobs=(*self._others(), *planned)).write(self.folder)

    def _others(self) -> list[Entry]:
        """The jobs that the folder had before, and that are not asked for now."""
        return [job for job in self.before.jobs if job.name not in self.planned]

    def _close(self, stopped: Signals | None) -> dict[str, Result]:
        """Tell of all jobs so far; go on to the end of the process if a signal stopped them."""
        results = {name: job.status.result for name, job in self.planned.items() if job.status.result is not None}
        earlier = {job.name: found(Result.read, self.folder / job.name) for job in self._others()}
        self._tell({name: result for name, result in earlier.items() if result is not None} | results)
        if stopped is not None:
            _warn(f"Interrupted. Go on with: {command('train', '-m', f'resume={self.folder}')}")
            sys.exit(REQUEUE if stopped is Signals.SIGTERM else 128 + stopped)
        return results

    def _tell(self, results: Mapping[str, Result]) -> None:
        """Print and write the table of all jobs so far, and make their page."""
        gather_runs(self.folder, [job.folder for job in self.planned.values()])
        abouts = [found(About.read, self.folder / name) for name in results]
        told = dict(zip(results, filled([*results.values()], abouts), strict=True))
        try:
            table = f"Table: {write_table(self.folder / TABLE, told)}"
        except OSError as error:
            table = f"{full_disk(error, self.folder) or error}: the table was not written."
        print_results(told)
        self._say(table)
        if not OmegaConf.select(self.config, "report.enabled", default=False):
            return
        try:
            from upsweep.reporting.report import write_report  # needs half a second to import

            self._say(f"Report: {write_report(self.folder)}")
        except Exception as error:  # a sweep is not lost because its report is
            _warn(
                f"The report could not be made ({type(error).__name__}: {error}); "
                f"make it later with: {command('report', f'sweep={self.folder}')}"
            )

    def _say(self, what: str) -> None:
        if not self.quiet:
            print(what, flush=True)

    def _returned(self, jobs: Sequence[Planned], results: Mapping[str, Result]) -> list[JobReturn]:
        """The results for the sweeper; failures are raised with the last batch.

        Hydra's own, which may launch several, would give up after the first in which a job failed.
        """
        failure = self._failure(results)
        in_all = self._all() if failure else []
        if failure and in_all and len(self.planned) >= len(in_all):
            raise failure
        return [job.returned(results[job.name], None if in_all else failure) for job in jobs]

    def _failure(self, results: Mapping[str, Result]) -> JobsFailedError | None:
        if not (failed := [name for name, result in results.items() if not result.complete]):
            return None
        said = f"{len(failed)} of {len(results)} jobs did not finish ({', '.join(failed)})"
        return JobsFailedError(f"{said}: see {self.folder / '*' / JOB_LOG}.")

    def _all(self) -> list[list[str]]:
        """The overrides of all jobs, where Hydra's own sweeper launches them in batches; else none."""
        sweeper = self.config.hydra.sweeper
        if not str(sweeper._target_).endswith(".BasicSweeper") or sweeper.max_batch_size is None:
            return []
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        given = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        overrides = parser.parse_overrides([*given, *self.config.hydra.overrides.task])
        return [list(job) for jobs in BasicSweeper.split_arguments(overrides, None) for job in jobs]

    def _composed(self, overrides: list[str]) -> DictConfig:
        return self.context.config_loader.load_sweep_config(self.config, overrides)

    def _plan(self, overrides: list[str], number: int) -> Planned:
        config = self._composed(overrides)
        same = (job for job in self.planned.values() if sorted(job.overrides) == sorted(overrides))
        if (twin := next(same, None)) is not None:
            return twin
        before = self.before.jobs
        if (old := self._earlier(overrides)) is not None:
            number = old.number
        elif before or self.before.broken:
            number = max([self.before.next_number, *(job.number + 1 for job in self.planned.values())])
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in the folder's name
        name = str(config.hydra.sweep.subdir if old is None else old.name)
        if name in self.planned or name in {job.name for job in before if job is not old}:
            raise UserError(f"hydra.sweep.subdir gives two jobs the folder {name!r}: add what differs to it.")
        job = self.planned[name] = Planned(name, self.folder / name, number, overrides, config)
        self.statuses[name] = job.status
        begun = self.resume and job.folder.is_dir()
        job.command, job.resuming = (command_of(job, self.config, self.folder, resume=on) for on in (begun, True))
        return job

    def _earlier(self, overrides: Sequence[str]) -> Entry | None:
        """The job of the resumed sweep that these words ask for again; they may say anew what changes no figure."""
        asked = _mattering(overrides)
        same = [job for job in self._others() if _mattering(job.overrides) == asked]
        return max(same, key=lambda job: len({*job.overrides} & {*overrides}), default=None)

    def _kept(self, job: Planned) -> bool:
        """Whether a resumed sweep already has the job's result; a result that cannot be read only affects that job."""
        if self.resume:
            result = found(Result.read, job.folder, lambda what: _warn(f"Job {job.name} is run again: {what}."))
            job.status.result = result if result is not None and result.complete else None
        return job.status.result is not None

    def _opened(self, configs: Sequence[DictConfig], most: int) -> Machine:
        machine = self.open(configs, most)
        if machine.decided is not None:
            self._say(machine.decided)
        return machine

    def _run(
        self,
        machine: Machine,
        ask: Callable[[int], Sequence[Planned]],
        tell: Callable[[Planned], None],
        most: int = 0,
    ) -> Signals | None:
        with display(self.statuses, machine.parallel, most=most, quiet=self.quiet) as tick:
            return run_jobs(machine, ask, tell, tick)


def _mattering(overrides: Iterable[str]) -> set[str]:
    return {override for override in overrides if matters(key_and_value(override)[0])}


def _forget(jobs: Sequence[Planned]) -> None:
    """Remove what an earlier run left, before a job's folder is written into again."""
    for job in jobs:
        for name in (RESULT, PROGRESS):
            (job.folder / name).unlink(missing_ok=True)


def _warn(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
