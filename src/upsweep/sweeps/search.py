"""A search instead of a grid: Optuna asks for jobs, the launcher runs them, and Optuna gets their objectives.

The study lies in a file beside the jobs, so that a stopped search can be resumed. It asks for a trial as soon as there
is room for one; `upsweep.training.pruning` ends poor ones early. Workers on several machines share a
study that lies elsewhere (`hydra.sweeper.study`), each with its own sweep's folder. Needs Optuna (the extra `search`).
"""

import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna import distributions
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from upsweep.analysis.ranking import UNDECLARED
from upsweep.common.errors import UserError, first_line
from upsweep.common.files import write_whole
from upsweep.runs.record import found
from upsweep.runs.result import Result
from upsweep.sweeps.jobs import JobsFailedError, declared_in

NAME = "upsweep"  # of the study in its file
FIGURE = "figure"  # the attribute that names what it looks for
OVERRIDES = "overrides"  # a trial's attribute: its job finds the trial by it
FOLDER = "folder"  # another: the folder of the trial's sweep, relative to the study
Overrides = tuple[str, ...]  # a job's, by which the study knows it
Outcome = tuple[TrialState, float | None]


class WholeLines(JournalFileSymlinkLock):  # type: ignore[misc]
    """The lock of a study's file, which removes the beginning of a line: a full disk has cut it.

    Optuna reads such a file, but writes its next line behind the cut one, and then reads nothing of the study any more.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._file = file

    def acquire(self) -> bool:
        """Wait for the lock, and hold it. Raises OSError: the file may not be written; then nobody holds it."""
        held: bool = super().acquire()
        try:
            self._remove_cut_line()
        except BaseException:  # or else who comes next waits for half a minute, or for ever
            self.release()
            raise
        return held

    def _remove_cut_line(self) -> None:
        with self._file.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read() not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def storage_in(file: Path) -> JournalStorage:
    """The studies in a file; several processes may read and write at a time."""
    file = file.absolute()  # the lock is a link to it, and Optuna waits for ever for one that leads nowhere
    return JournalStorage(JournalFileBackend(str(file), WholeLines(file)))


def distribution_of(override: Override) -> distributions.BaseDistribution:
    """The distribution that Optuna draws from, for a sweep in Hydra's grammar.

    `a,b` and `choice(a,b)` are categories, `range(1,9,2)` is 1, 3, 5, 7, `interval(0.1,1)` is continuous,
    `int(interval(1,9))` whole, and `tag(log, ...)` makes the last three logarithmic.

    Raises:
        UserError: it cannot be searched.
    """
    sweep = override.value()
    log = "log" in getattr(sweep, "tags", ())
    try:
        if isinstance(sweep, RangeSweep):
            numbers = sorted(sweep.range())
            low, high = numbers[0], numbers[-1]
            if all(isinstance(number, int) for number in numbers):
                return distributions.IntDistribution(low, high, log=log, step=1 if log else abs(int(sweep.step)))
            return distributions.FloatDistribution(low, high, log=log, step=None if log else abs(sweep.step))
        if isinstance(sweep, IntervalSweep):
            low, high = cast(Any, sweep.start), cast(Any, sweep.end)
            if isinstance(low, int) and isinstance(high, int):
                return distributions.IntDistribution(low, high - 1, log=log)  # Hydra's interval is without its end
            return distributions.FloatDistribution(low, high, log=log)
        return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise UserError(f"{override.input_line} cannot be searched: {error}") from error


@dataclass
class Search:
    """A multirun whose jobs Optuna chooses; settings as in `conf/hparams_search/optuna.yaml`."""

    config: DictConfig
    context: HydraContext
    launcher: Any  # one of `hydra_plugins.upsweep`
    trials: int
    study: str
    seed: int
    sampler: DictConfig
    params: Mapping[str, str]

    def __post_init__(self) -> None:
        self.headline = next(iter(declared_in(self.config)), UNDECLARED)
        self.folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        # "." also after both have been moved
        self.place = os.path.relpath(self.folder, Path(self.study).absolute().parent)

    def search(self, arguments: Sequence[str]) -> None:
        """Ask, launch and tell until the study has its trials; no combination is trained twice.

        Raises:
            UserError: nothing to search over, the folder holds a search that this one does not continue, or the
                launcher takes jobs in batches only.
            JobsFailedError: some jobs failed; they are repeated when the search is resumed.
        """
        if not hasattr(self.launcher, "launch_as_asked"):
            raise UserError("A search runs with hydra/launcher=process, slurm or ray: others take no job at a time.")
        self._fixed, self._space = self._split(arguments)
        self._study = study = self._opened()
        self._exhausted = False
        study.stop = self._stop  # Optuna's own works in its own loop alone
        write_whole(self.folder / "multirun.yaml", OmegaConf.to_yaml(self.config))
        self._unfinished = self._begun()
        self._running: dict[Overrides, list[int]] = {}
        self._failed, started = 0, len(study.trials)
        try:
            self.launcher.launch_as_asked(self._next, self._ended, self._left)
        except BaseException:  # stopped: other workers need not wait for these
            for number in chain.from_iterable(self._running.values()):
                study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            raise
        self._report([trial for trial in study.trials[started:] if _folder(trial) == self.place])

    @property
    def _left(self) -> int:
        """How many more trials there are to be; those that failed now are repeated another time."""
        return self.trials - self._failed - sum(trial.state in _TAKEN for trial in self._study.trials)

    def _next(self) -> Overrides | None:
        """The next job. A trial whose job has run, or runs, is told what that gives."""
        while self._left > 0 and (self._unfinished or not self._exhausted):
            number, job = self._ask()
            if (known := self._known(job)) is not None:
                value = known.value if known.state == TrialState.COMPLETE else None
                self._study.tell(number, value, known.state, skip_if_finished=True)
            elif job in self._running:
                self._running[job].append(number)
            else:
                self._running[job] = [number]
                return job
        return None

    def _stop(self) -> None:
        """End the search: a sampler that goes through a finite space has drawn all of it."""
        self._exhausted = True

    def _known(self, job: Overrides) -> FrozenTrial | None:
        judged = (trial for trial in self._study.trials if trial.state in _JUDGED)
        return next((trial for trial in judged if _overrides(trial) == job), None)

    def _ask(self) -> tuple[int, Overrides]:
        """A trial's number, and its job; what is unfinished goes first."""
        if self._unfinished:
            self._study.enqueue_trial(self._unfinished.pop(0))
        trial = self._study.ask(self._space)
        job = (*self._fixed, *_written(trial.params))
        trial.set_user_attr(OVERRIDES, list(job))
        trial.set_user_attr(FOLDER, self.place)
        return trial.number, job

    def _ended(self, done: JobReturn) -> None:
        """Tell the study what a job gave."""
        state, value = _outcome(Path(str(done.working_dir)))
        for number in self._running.pop(tuple(done.overrides or ())):
            self._study.tell(number, value, state, skip_if_finished=True)
            self._failed += state == TrialState.FAIL

    def _split(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, distributions.BaseDistribution]]:
        """The overrides that every job has, and what is drawn; a key on the command line goes before `params`."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = {override.get_key_element(): override for override in parser.parse_overrides(lines)}
        fixed = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
        space = {key: distribution_of(override) for key, override in overrides.items() if override.is_sweep_override()}
        if not space:
            raise UserError("There is nothing to search over: give a choice or an interval, such as init=he,xavier.")
        return fixed, space

    def _opened(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = "maximize" if self.headline.better == "higher" else "minimize"
        try:
            storage = storage_in(Path(self.study))
        except ValueError as error:
            raise UserError(
                f"The study {self.study} cannot be read ({first_line(error)}): choose another hydra.sweeper.study."
            ) from error
        study = optuna.create_study(storage=storage, study_name=NAME, direction=direction, load_if_exists=True)
        if study.direction.name.lower() != direction:
            raise UserError(
                f"The study {self.study} does not look for {self.headline.better} values, which are better for "
                f"{self.headline.title}: choose another hydra.sweeper.study."
            )
        figure = study.user_attrs.get(FIGURE, self.headline.name)
        if figure != self.headline.name:
            raise UserError(
                f"The study {self.study} looks for the best {figure}, not {self.headline.name}: leave rank_by as it "
                "was, or choose another hydra.sweeper.study."
            )
        study.set_user_attr(FIGURE, figure)
        folder, before = self.folder, study.trials
        if any(_folder(trial) == self.place for trial in before) and not self.config.hydra.launcher.get("resume"):
            raise UserError(
                f"{folder} has a search: continue it with -m resume={folder}, or choose another hydra.sweep.dir."
            )
        study.sampler = instantiate(self.sampler, seed=self._stream(len(before)))
        for key, old in chain.from_iterable(trial.distributions.items() for trial in before):
            try:
                distributions.check_distribution_compatibility(old, self._space.get(key, old))
            except ValueError as error:
                raise UserError(
                    f"{folder} has a search over another {key} ({error}): choose another hydra.sweep.dir."
                ) from error
        return study

    def _stream(self, before: int) -> int:
        """The seed of a part's sampler: each part, and each worker, would else repeat the trials of another one."""
        if before == 0 and self.place == ".":
            return self.seed
        return random.Random(f"{self.seed}, {before}, {self.place}").getrandbits(32)

    def _begun(self) -> list[dict[str, Any]]:
        """The choices of this folder's trials that were stopped or failed; their jobs continue from their checkpoints.

        Trials in another folder belong to another worker. No other process uses this folder: it is locked.
        """
        trials, states = self._study.trials, (TrialState.RUNNING, TrialState.FAIL)
        judged = {_overrides(trial) for trial in trials if trial.state in _JUDGED}
        ours = [trial for trial in trials if _folder(trial) == self.place and trial.state in states]
        for trial in ours:
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return list({_overrides(trial): trial.params for trial in ours if _overrides(trial) not in judged}.values())

    def _report(self, new: Sequence[FrozenTrial]) -> None:
        counts = Counter(trial.state for trial in self._study.trials)
        judged = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]
        print(f"{judged} trials, {counts[TrialState.PRUNED]} of them pruned or diverged: {self.study}")
        if counts[TrialState.COMPLETE]:
            best, digits = self._study.best_trial, self.headline.digits + 1
            print(f"Best: {best.value:.{digits}f} with {' '.join(_written(best.params))}", flush=True)
        if failed := sum(trial.state == TrialState.FAIL for trial in new):
            raise JobsFailedError(f"{failed} of {len(new)} trials did not finish: the table says why.")


_JUDGED = (TrialState.COMPLETE, TrialState.PRUNED)
_TAKEN = (*_JUDGED, TrialState.RUNNING)


def _overrides(trial: FrozenTrial) -> Overrides:
    return tuple(trial.user_attrs.get(OVERRIDES, ()))


def _folder(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get(FOLDER, "."))


def _written(params: Mapping[str, object]) -> list[str]:
    """The overrides that set drawn values."""
    return [f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()]


def _outcome(folder: Path) -> Outcome:
    """The state of a trial for a job's result: a diverged or pruned training is a poor trial, not a failed one."""
    result = found(Result.read, folder)
    if result is None or result.state in ("failed", "stopped"):
        return TrialState.FAIL, None
    if result.state == "finished" and result.objective is not None:
        return TrialState.COMPLETE, result.objective
    return TrialState.PRUNED, None
