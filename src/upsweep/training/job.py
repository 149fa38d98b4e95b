"""One training, from its choices to its result: what a door, or a sweep's process, runs."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from inspect import signature
from pathlib import Path
from textwrap import shorten
from traceback import walk_tb
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, LambdaCallback
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from upsweep.common.errors import UserError, is_memory
from upsweep.networks.network import cost
from upsweep.runs.about import About
from upsweep.runs.identity import images_of, judging_of, ranking_of
from upsweep.runs.layout import BEST, RESULT
from upsweep.runs.record import found
from upsweep.runs.result import INTERRUPTED, REQUEUE, TUNED, Result, State
from upsweep.tasks import Task
from upsweep.tracking.run_log import RunLog
from upsweep.training.base import Best, Diverged, Pruned, Training
from upsweep.training.budget import Budget
from upsweep.training.callbacks import EarlyStopping
from upsweep.training.ranks import Ranks, killed_rank
from upsweep.training.records import KeepIdentity, Score
from upsweep.training.saving import Preemption, no_room
from upsweep.training.scaling import synchronise, wants_channels_last
from upsweep.training.start import Start, Started, fresh
from upsweep.training.trainer import hold_to_loaders, trainer_of
from upsweep.training.workers import workers

log = logging.getLogger("upsweep")

# What Lightning calls to put the state of a checkpoint in place, before it trains.
RESTORING = {"_restore_modules_and_callbacks", "restore_training_state"}

MakeTraining = Callable[..., Training]
"""(task, generator, seed, spec, fresh) as keyword arguments -> who learns against whom."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one training needs; the doors make it from the config."""

    folder: Path  # where everything that the run writes lies
    task: Task  # what goes in, and how it is judged
    generator: dict[str, Any]  # class and arguments as plain values; they also go into the checkpoint
    training: MakeTraining  # how the generator learns
    trainer: dict[str, Any]  # keyword arguments of Lightning's Trainer
    callbacks: Sequence[Callback]  # beside those that every job has
    logger: RunLog | None  # one, several as one, or None
    seed: int  # of weights, crops and dropout
    start: Start = fresh  # where the weights are from
    scale: int | None = None  # for the result, where the task has one
    choices: dict[str, str] = field(default_factory=dict)  # config group -> chosen name
    overrides: list[str] = field(default_factory=list)  # the job's command line
    config: dict[str, Any] = field(default_factory=dict)  # all that was set, as plain values: to be held against later
    channels_last: bool | str = "auto"  # weights and batches laid out as NHWC; auto: where that is faster
    tuned: Sequence[str] = TUNED  # keys whose values are no choices, for the result
    judge_anew: bool = False  # go on although images or judging are others, and forget the best figures

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed} must lie in 0 to {2**32 - 1}.")
        by_batches = self.trainer.get("val_check_interval") is not None  # null then counts batches across epochs
        for key in ("max_epochs", "accumulate_grad_batches", "check_val_every_n_epoch"):
            number = self.trainer.get(key, None if key == "max_epochs" else 1)
            if number is None and key == "check_val_every_n_epoch" and by_batches:
                continue
            if type(number) is not int or number < 1:
                raise UserError(f"trainer.{key}={number} must be a whole number of at least 1.")


def train(job: Job) -> Result:
    """Train, judge, and write `result.json` into the job's folder, whatever happens.

    A loss that is not finite ends as `diverged`, a search's trial without hope as `pruned`; every other failure is
    written down as `failed` and raised: UserError where what the user gave cannot be used.
    """
    run = _Run(job)
    preemption, begin = Preemption(run.preempted), LambdaCallback(on_train_start=lambda *_: run.begin())
    ranks = Ranks(run.left_alone)
    try:
        try:
            _fit(job, *run.open(), [ranks, preemption, begin])
        finally:
            ranks.over()
        run.begin()  # also where nothing was left to train
        return run.close("finished", reason=_stopped_early(job, run.module))
    except BaseException as error:
        return run.end(error, preemption)


class _Run:
    """The record of one training: opened, begun, and closed by how it ended."""

    def __init__(self, job: Job) -> None:
        self.job, self._clock = job, time.perf_counter()
        self._preempted = f"preempted by SIGTERM; go on with resume={job.folder}"
        self._interrupted = f"interrupted; go on with resume={job.folder}"
        workers()
        self._begun = False  # until then nothing is changed in a folder that a run is to go on in
        self._images = ""
        self.module: Training | None = None
        self._price: dict[str, Any] = {}

    def open(self) -> tuple[Training, Started]:
        """Build the network with its weights."""
        job = self.job
        pl.seed_everything(job.seed, workers=True, verbose=False)
        started = job.start(job.generator)
        if started.checkpoint is None:
            self.begin()
        begins = {"generator": started.network, "seed": job.seed, "spec": job.generator, "fresh": started.fresh}
        self.module = job.training(task=job.task, **begins)
        self._price = asdict(cost(started.network))
        if job.logger is not None:
            job.logger.log_summary(self._price)
        return self.module, started

    def begin(self) -> None:
        """Write down how the run was made; from here on its results may be written, too.

        A run that goes on begins when devices, data, weights and the optimizer's state have been found to fit.
        """
        contents, logger = self.job.task.contents, self.job.logger
        images = contents.sentence if contents.validation else ""  # nothing is known of them in a run's first moment
        if self._begun and self._images == images:
            return
        self._begun, self._images = True, images
        rank_zero_only(About.now(self.job.config, images).write)(self.job.folder)
        if (self.job.folder / RESULT).exists():  # a kill would leave it to speak for what goes on from here
            self._result("stopped", f"it was begun again and has not ended; go on with resume={self.job.folder}")
        if images and logger is not None:
            counts = {f"images/{part}": len(said) for part, said in contents._asdict().items()}
            logger.log_summary(counts)
            digests, name = images_of(contents.training, contents.validation), self.job.choices.get("data", "images")
            logger.log_data(name, digests, {**counts, "size": self.job.task.image_sizes})

    def end(self, error: BaseException, preemption: Preemption) -> Result:
        """What becomes of an exception: a result, or the exception again, once it is written down."""
        match error:
            case Diverged():
                return self.close("diverged", reason=str(error))
            case Pruned():
                return self.close("pruned", reason=str(error))
            case SystemExit() if isinstance(error, SIGTERMException) or error.code == REQUEUE:
                return self._requeue(error, preemption)
            case KeyboardInterrupt() | SystemExit():
                self.close("stopped", 1, self._interrupted)
                if interrupted(error):
                    raise SystemExit(INTERRUPTED) from error
                raise error
        if preemption.stuck is not None:  # what a worker that SIGTERM has killed too makes of it
            return self._requeue(error, preemption)
        full = workers().why(error) or (None if isinstance(error, UserError) else no_room(error, self.job.folder))
        with suppress(OSError) if full else nullcontext():  # what cannot be written down must not hide why
            self.close("failed", 1, full or str(error) or type(error).__name__)
        if full:
            raise UserError(full) from error
        raise error

    def _requeue(self, error: BaseException, preemption: Preemption) -> NoReturn:
        preemption.heard()
        self.close("stopped", REQUEUE, self._preempted)
        raise SystemExit(REQUEUE) from error

    def preempted(self) -> Result:
        """The last words of a training that SIGTERM does not reach: its log stays open."""
        return self._result("stopped", self._preempted)

    def left_alone(self, why: str, code: int) -> Result:
        """The last words of a training that waits for a rank which has ended: its log stays open."""
        stopped = {REQUEUE: self._preempted, INTERRUPTED: self._interrupted}.get(code)
        print(stopped or why, file=sys.stderr, flush=True)
        return self._result("stopped" if stopped else "failed", stopped or why)

    def close(self, state: State, exit_code: int = 0, reason: str | None = None) -> Result:
        """Write the result, and close the log."""
        result, logger = self._result(state, reason), self.job.logger
        if logger is not None:
            if self._begun:
                baseline = {f"{f.baseline_name}": result.baseline.get(f.name) for f in result.declared if f.baseline}
                best = {**result.figures, **baseline, "epoch": result.epoch - 1} if result.figures else {}
                logger.log_summary({"state": state, **{f"best/{k}": v for k, v in best.items() if v is not None}})
                if result.checkpoint is not None and exit_code != REQUEUE:  # which leaves no time for it
                    logger.log_model(Path(result.checkpoint), _said_of(result, self.job.folder))
            logger.finish(exit_code)
        return result

    def _result(self, state: State, reason: str | None) -> Result:
        job, module, weights = self.job, self.module, self.job.folder / BEST
        best = (module and module.best) or Best(-1, {}, {})
        result = Result(
            state=state,
            reason=reason,
            choices=job.choices,
            overrides=job.overrides,
            seed=job.seed,
            scale=job.scale,
            epoch=best.epoch + 1,
            epochs=job.trainer["max_epochs"],
            declared=job.task.figures,
            figures=best.figures,
            last=module.last if module else {},
            baseline=best.baseline,
            **self._price,
            seconds=time.perf_counter() - self._clock + (0.0 if module is None else module.seconds_before),
            objective=best.figures.get(job.task.headline.name) if state == "finished" else None,
            checkpoint=str(weights) if best.figures and weights.is_file() else None,
            tuned=[*job.tuned],
            judged_on=module.identity.yardstick if module and module.identity else None,
        )
        if self._begun:
            rank_zero_only(result.write)(job.folder)
        return result


def _said_of(result: Result, folder: Path) -> dict[str, Any]:
    """What a log is told of a run's best checkpoint."""
    keys = ("state", "figures", "baseline", "choices", "overrides", "epoch", "epochs", "scale", "seed")
    about = found(About.read, folder) or About()
    costs = {"parameters": result.parameters, "macs_per_pixel": result.macs_per_pixel}
    return {**{key: getattr(result, key) for key in keys}, **costs, "commit": about.commit, "versions": about.versions}


def interrupted(error: BaseException) -> bool:
    """Whether it was Ctrl-C that ended a training; Lightning turns that into an exit."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)


def _stopped_early(job: Job, module: Training | None) -> str | None:
    """Why the training ended before its last epoch, where a callback or its time ended it."""
    if said := next((c.reason for c in job.callbacks if isinstance(c, EarlyStopping | Budget) and c.reason), None):
        return said
    if job.trainer.get("max_time") and module is not None and 0 < module.iterations < module.total:
        return f"ended by trainer.max_time={job.trainer['max_time']} after {module.iterations} of {module.total} steps"
    return None


def _handed_on(data: object) -> list[str]:
    """The arguments that a DataModule has from the one of upsweep's that it is, or derives from."""
    ours = (kind for kind in type(data).__mro__ if kind.__module__.startswith("upsweep."))
    return next((list(signature(kind).parameters) for kind in ours), [])


def _fit(job: Job, module: Training, started: Started, ours: Sequence[Callback]) -> None:
    # Lightning 2.6 asks torch 2.13 an outdated question, at every batch that it moves.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # A run of upsweep 0.1 goes on without Lightning's ModelCheckpoint, whose place SaveBest has taken.
    warnings.filterwarnings("ignore", message=r".*callbacks used to create the checkpoint need to be provided")
    # A network inside a loss, a teacher, is in evaluation mode, and is meant to be.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # Where torch is to be deterministic it fills new memory with NaN besides, which shows mistakes and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    hold_to_loaders(job.task.data, job.trainer)
    judging, ranking = judging_of(job.config, _handed_on(job.task.data)), ranking_of(job.config)
    trainer = trainer_of(
        job.trainer,
        data=job.task.data,
        callbacks=[Score(), KeepIdentity(job.folder, judging, job.judge_anew, ranking), *job.callbacks, *ours],
        logger=job.logger,
        steps_each=module.steps_each,
        default_root_dir=job.folder,
    )
    device = trainer.strategy.root_device.type
    if wants_channels_last(job.channels_last, device, str(trainer.precision)):
        module.lay_out()
    synchronise(module, trainer.world_size, device)
    if not any(parameter.requires_grad for parameter in module.generator.parameters()):
        trainer.validate(module, datamodule=job.task.data, verbose=False)
        return
    log.info(started.source)
    if trainer.precision == "64-true":
        module.double()  # Lightning does so after it has loaded a checkpoint, whose weights float32 would round
    try:
        trainer.fit(module, datamodule=job.task.data, ckpt_path=started.checkpoint)
    except Exception as error:
        if (known := _known(error, trainer)) is not None:
            raise UserError(known) from error
        raise
    if not module.last and module.best is None:
        raise UserError(
            "Nothing was judged, and so there is no result: trainer.max_time, trainer.max_steps or a callback ended "
            "the run before its first validation."
        )


def _known(error: Exception, trainer: pl.Trainer) -> str | None:
    """Why Lightning could not train, as a sentence; None where only a traceback tells."""
    if isinstance(error, MisconfigurationException) or (
        isinstance(error, ValueError) and "val_check_interval" in str(error)
    ):  # what Lightning finds out only now
        return f"Lightning cannot train this: {' '.join(str(error).split())}"
    during = {frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)}
    of_state = isinstance(error, RuntimeError | ValueError | LookupError) and not is_memory(error)
    if of_state and during & RESTORING:
        said = shorten(str(error), 200, placeholder=" ...")
        return f"{trainer.ckpt_path} does not fit this training ({said}): set all as it was, or begin a new run."
    return killed_rank(trainer)
