"""A search instead of a grid: Optuna asks for jobs, the launcher runs them, their objectives are told to Optuna.

The study lies in a file beside the jobs, so that a search that was stopped goes on. As many trials are asked for at a
time as the launcher runs side by side; a training of which the pruner despairs ends early, see
`upsweep.training.pruning`. Workers on several machines share a study that lies elsewhere (`hydra.sweeper.study`), each
with its trials in a sweep's folder of its own. Needs Optuna (the extra `search`) and knows no torch.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from upsweep.errors import UserError
from upsweep.sweeps.launcher import JobsFailedError
from upsweep.sweeps.results import Result

NAME = "upsweep"  # of the study in its file
OVERRIDES = "overrides"  # a trial's attribute, by which its job finds it
FOLDER = "folder"  # another: that of the sweep that asked for it, from where the study lies
Outcome = tuple[TrialState, float | None]


def storage_in(file: Path) -> JournalStorage:
    """The studies in a file; several processes may read and write at a time."""
    return JournalStorage(JournalFileBackend(str(file)))


def distribution_of(override: Override) -> BaseDistribution:
    """What Optuna draws from, for a sweep in Hydra's grammar.

    `a,b` and `choice(a,b)` are categories, `range(1,9,2)` is 1, 3, 5, 7, `interval(0.1,1)` is continuous,
    `int(interval(1,9))` whole, and `tag(log, ...)` makes the last three logarithmic.

    Raises:
        UserError: nothing can be drawn from it.
    """
    sweep = override.value()
    log = "log" in getattr(sweep, "tags", ())
    try:
        if isinstance(sweep, RangeSweep):
            numbers = sorted(sweep.range())
            low, high = numbers[0], numbers[-1]
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(low, high, log=log, step=1 if log else abs(int(sweep.step)))
            return FloatDistribution(low, high, log=log, step=None if log else abs(sweep.step))
        if isinstance(sweep, IntervalSweep):
            low, high = cast(Any, sweep.start), cast(Any, sweep.end)
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high - 1, log=log)  # Hydra's interval is without its end
            return FloatDistribution(low, high, log=log)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise UserError(f"Nothing can be drawn from {override.input_line}: {error}") from error


def written(key: str, value: object) -> str:
    """An override that sets a drawn value."""
    return f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}"


def outcome_of(result: Result | None) -> Outcome:
    """What a job's result is to the study: a training that diverged or was pruned is a bad one, not a failed one."""
    if result is None or result.state in ("failed", "stopped"):
        return TrialState.FAIL, None
    if result.state == "finished" and result.objective is not None:
        return TrialState.COMPLETE, result.objective
    return TrialState.PRUNED, None


@dataclass
class Search:
    """A multirun whose jobs Optuna chooses; settings as in `conf/hparams_search/optuna.yaml`."""

    config: DictConfig
    context: HydraContext
    launcher: Launcher
    trials: int
    study: str
    seed: int
    sampler: DictConfig
    params: Mapping[str, str]

    def run(self, arguments: Sequence[str]) -> None:
        """Ask, launch and tell until the study has its trials; a combination that was judged is not trained again.

        Raises:
            UserError: nothing to search over, or the folder holds a search that this one does not go on with.
            JobsFailedError: some jobs failed; they are run again when the search goes on.
        """
        fixed, space = self._space(arguments)
        parallel = int(self.config.hydra.launcher.get("parallel", 1))
        if parallel < 1:
            raise UserError(f"hydra.launcher.parallel={parallel} would never start a job: give 1 or more.")
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        place = os.path.relpath(folder, Path(self.study).absolute().parent)  # "." also after both have been moved
        study = self._opened(folder, place, space)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        again = deque(self._unfinished(study, place))
        known: dict[tuple[str, ...], Outcome] = {}
        started, launched, failed = len(study.trials), 0, 0  # a launcher that goes on numbers the jobs itself
        while (left := self.trials - failed - sum(trial.state in _TAKEN for trial in study.trials)) > 0:
            known |= {_overrides(trial): _outcome(trial) for trial in study.trials if trial.state in _JUDGED}
            asked: dict[int, tuple[str, ...]] = {}
            for _ in range(min(left, parallel)):
                if again:
                    study.enqueue_trial(again.popleft())
                trial = study.ask(space)
                asked[trial.number] = (*fixed, *(written(key, value) for key, value in trial.params.items()))
                trial.set_user_attr(OVERRIDES, list(asked[trial.number]))
                trial.set_user_attr(FOLDER, place)
            new = [job for job in dict.fromkeys(asked.values()) if job not in known]
            if new:
                try:
                    done = self.launcher.launch([list(job) for job in new], initial_job_idx=launched)
                except BaseException:  # stopped: other workers need not wait for these
                    for number in asked:
                        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
                    raise
                known |= {job: outcome_of(_result(each)) for job, each in zip(new, done, strict=True)}
                launched += len(new)
            for number, job in asked.items():
                state, value = known[job]
                study.tell(number, value, state, skip_if_finished=True)
                failed += state == TrialState.FAIL
        self._report(study, [trial for trial in study.trials[started:] if _folder(trial) == place])

    def _space(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
        """The overrides that every job has, and what is drawn; a key on the command line goes before `params`."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = {override.get_key_element(): override for override in parser.parse_overrides(lines)}
        fixed = [override.input_line for override in overrides.values() if not override.is_sweep_override()]
        space = {key: distribution_of(override) for key, override in overrides.items() if override.is_sweep_override()}
        if not space:
            raise UserError("There is nothing to search over: give a choice or an interval, such as init=he,xavier.")
        return [str(line) for line in fixed], space

    def _opened(self, folder: Path, place: str, space: Mapping[str, BaseDistribution]) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=storage_in(Path(self.study)), study_name=NAME, direction="maximize", load_if_exists=True
        )
        before = study.trials
        if any(_folder(trial) == place for trial in before) and not self.config.hydra.launcher.get("resume", False):
            raise UserError(
                f"{folder} holds a search already: go on with -m resume={folder}, or choose another hydra.sweep.dir."
            )
        # A stream of its own for every part of a search, or else the second would ask what the first has asked.
        study.sampler = instantiate(self.sampler, seed=self.seed + len(before))
        for trial in before:
            for key, old in trial.distributions.items():
                try:
                    if key in space:
                        check_distribution_compatibility(old, space[key])
                except ValueError as error:
                    raise UserError(
                        f"{folder} was searched over another {key} ({error}): choose another hydra.sweep.dir."
                    ) from error
        return study

    def _unfinished(self, study: optuna.Study, place: str) -> list[dict[str, Any]]:
        """The choices of this folder's trials that were stopped or failed; their jobs go on from their checkpoints.

        What runs in another folder is another worker's. No other process has this one: it is claimed.
        """
        judged = {_overrides(trial) for trial in study.trials if trial.state in _JUDGED}
        params: dict[tuple[str, ...], dict[str, Any]] = {}
        for trial in study.trials:
            if _folder(trial) != place:
                continue
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
            if trial.state in (TrialState.RUNNING, TrialState.FAIL) and _overrides(trial) not in judged:
                params[_overrides(trial)] = trial.params
        return list(params.values())

    def _report(self, study: optuna.Study, new: Sequence[FrozenTrial]) -> None:
        counts = {state: sum(trial.state == state for trial in study.trials) for state in TrialState}
        judged = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]
        print(f"{judged} trials, {counts[TrialState.PRUNED]} of them pruned or diverged: {self.study}")
        if counts[TrialState.COMPLETE]:
            best = study.best_trial
            print(f"Best: {best.value:.3f} with {' '.join(written(k, v) for k, v in best.params.items())}", flush=True)
        failed = sum(trial.state == TrialState.FAIL for trial in new)
        if failed:
            raise JobsFailedError(f"{failed} of {len(new)} trials did not finish: the table says why.")


_JUDGED = (TrialState.COMPLETE, TrialState.PRUNED)
_TAKEN = (*_JUDGED, TrialState.RUNNING)


def _overrides(trial: FrozenTrial) -> tuple[str, ...]:
    return tuple(trial.user_attrs.get(OVERRIDES, ()))


def _folder(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get(FOLDER, "."))


def _outcome(trial: FrozenTrial) -> Outcome:
    return trial.state, trial.value if trial.state == TrialState.COMPLETE else None


def _result(job: JobReturn) -> Result | None:
    return Result.read(Path(str(job.working_dir)))
