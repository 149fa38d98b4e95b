"""One training, from its choices to its result: what a door, or a sweep's process, runs."""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import nn
from torch.optim import Optimizer

from upsweep import checkpoints
from upsweep.data.modules import SuperResolutionData
from upsweep.errors import UserError
from upsweep.generators.base import Cost, Generator, cost
from upsweep.metrics.protocol import Protocol
from upsweep.sweeps.about import About
from upsweep.sweeps.results import REQUEUE, Result, State
from upsweep.training.module import Diverged, Pruned, SuperResolution
from upsweep.training.saving import Preemption, WholeCheckpoints, killed_rank, newest, no_room
from upsweep.training.scaling import RateRule, channels_last, synchronised
from upsweep.training.schedules import Schedule
from upsweep.training.tracking import CsvRun, WandbRun

log = logging.getLogger("upsweep")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one training needs; the doors make it from the config.

    Attributes:
        folder: where everything that the run writes lies.
        generator: class and arguments as plain values; they also go into the checkpoint.
        data: what is trained and judged on.
        objective: (SR, HR) -> loss.
        optimizer: parameter groups -> optimizer.
        schedule: progress -> factor on the learning rate.
        factors: part of the generator, by name -> factor on its learning rate.
        protocol: for PSNR and SSIM.
        trainer: keyword arguments of Lightning's Trainer.
        callbacks: beside those that every job has.
        logger: W&B, CSV or None.
        seed: of weights, crops and dropout.
        scale: for the result.
        choices: config group -> chosen name.
        overrides: the job's command line.
        config: all that was set, as plain values: for the record alone.
        checkpoint: whose weights the training starts from; all of them must fit.
        init_from: a checkpoint from which those weights are taken that fit (fine-tuning at another scale).
        resume: go on from the newest checkpoint in the folder, if there is one.
        rate_rule: how the learning rate follows the effective batch size.
        compile: train through torch.compile.
        channels_last: weights and batches laid out as NHWC; auto: where that is faster.
    """

    folder: Path
    generator: dict[str, Any]
    data: SuperResolutionData
    objective: nn.Module
    optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer]
    schedule: Schedule
    protocol: Protocol
    trainer: dict[str, Any]
    callbacks: Sequence[Callback]
    logger: WandbRun | CsvRun | None
    seed: int
    scale: int
    choices: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    init_from: Path | None = None
    resume: bool = False
    factors: dict[str, float] = field(default_factory=dict)
    rate_rule: RateRule = field(default_factory=RateRule)
    compile: bool = False
    channels_last: bool | str = "auto"

    def __post_init__(self) -> None:
        for key in ("max_epochs", "accumulate_grad_batches", "check_val_every_n_epoch"):
            number = self.trainer.get(key, None if key == "max_epochs" else 1)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise UserError(f"trainer.{key}={number} must be a whole number of at least 1.")


def run(job: Job) -> Result:
    """Train, judge, and write `result.json` into the job's folder, whatever happens.

    A loss that is not finite ends as `diverged`, a search's trial without hope as `pruned`; every other failure is
    written down as `failed` and raised.

    Raises:
        UserError: what the user gave cannot be used.
    """
    started = time.perf_counter()
    start = newest(job.folder / "checkpoints") if job.resume else None
    begun = False  # until then nothing is changed in a folder that a run is to go on in
    module: SuperResolution | None = None
    price: Cost | None = None

    def result(state: State, reason: str | None = None) -> Result:
        best = module.best if module is not None else {}
        psnr, bicubic = best.get("psnr"), best.get("psnr_bicubic")
        weights = job.folder / "checkpoints" / "best.ckpt"
        made = Result(
            state=state,
            reason=reason,
            choices=job.choices,
            overrides=job.overrides,
            seed=job.seed,
            scale=job.scale,
            epoch=int(best.get("epoch", -1)) + 1,
            epochs=job.trainer["max_epochs"],
            psnr=psnr,
            ssim=best.get("ssim"),
            psnr_bicubic=bicubic,
            ssim_bicubic=best.get("ssim_bicubic"),
            gain=None if psnr is None or bicubic is None else psnr - bicubic,
            parameters=None if price is None else price.parameters,
            macs_per_pixel=None if price is None else price.macs_per_pixel,
            seconds=time.perf_counter() - started + (0.0 if module is None else module.seconds_before),
            objective=psnr if state == "finished" else None,
            checkpoint=str(weights) if weights.is_file() else None,
        )
        if begun:
            rank_zero_only(made.write)(job.folder)
        return made

    def close(state: State, exit_code: int) -> None:
        if job.logger is not None:
            if begun:
                best = {f"best/{name}": value for name, value in (module.best if module else {}).items()}
                job.logger.log_summary({"state": state, **best})
            job.logger.finish(exit_code)

    def begin() -> None:
        nonlocal begun
        if not begun:
            begun = True
            rank_zero_only(About.now(job.config).write)(job.folder)

    def preempt(error: BaseException) -> NoReturn:
        preemption.heard()
        result("stopped", preempted)
        close("stopped", REQUEUE)
        raise SystemExit(REQUEUE) from error

    preempted = f"preempted by SIGTERM; go on with resume={job.folder}"
    preemption = Preemption(lambda: result("stopped", preempted))
    try:
        if start is not None:
            _can_go_on(job, start)
        else:
            begin()
        module = _module(job, start)
        price = cost(module.generator)
        if job.logger is not None:
            job.logger.log_summary({"parameters": price.parameters, "macs_per_pixel": price.macs_per_pixel})
        _train(job, module, [preemption, _Begin(begin)], start)
        begin()  # also where nothing was left to train
    except Diverged as end:
        close("diverged", 0)
        return result("diverged", str(end))
    except Pruned as end:
        close("pruned", 0)
        return result("pruned", str(end))
    except SIGTERMException as error:
        preempt(error)
    except (KeyboardInterrupt, SystemExit) as end:
        terminated = isinstance(end, SystemExit) and end.code == REQUEUE  # outside of the training itself
        result("stopped", preempted if terminated else f"interrupted; go on with resume={job.folder}")
        close("stopped", REQUEUE if terminated else 1)
        raise
    except BaseException as error:
        if preemption.stuck is not None:  # what a worker that SIGTERM has killed too makes of it
            preempt(error)
        full = None if isinstance(error, UserError) else no_room(error, job.folder)
        with suppress(OSError) if full else nullcontext():  # what cannot be written down must not hide why
            result("failed", full or str(error) or type(error).__name__)
            close("failed", 1)
        if full:
            raise UserError(full) from error
        raise
    close("finished", 0)
    return result("finished")


class _Begin(Callback):
    """Tells that the training has begun: devices, data, weights and the optimizer's state have been found to fit."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell it."""
        self._tell()


def _can_go_on(job: Job, start: Path) -> None:
    """Refuse a checkpoint of another generator or optimizer, or of a longer training."""
    state = checkpoints.read(start)
    before = About.read(job.folder)
    was = before.config if before else {}
    had, has = ((c.get("optimizer") or {}).get("_target_") for c in (was, job.config))
    if had and has and had != has:
        raise UserError(
            f"{job.folder} was trained by {had}, whose state does not fit {has}: add the optimizer=... it had."
        )
    if changed := [key for key in ("objective", "scheduler") if key in was and was[key] != job.config.get(key)]:
        # asked for, or another version of upsweep with other defaults
        log.warning("%s goes on with another %s than it was trained with so far.", job.folder, " and ".join(changed))
    generator = checkpoints.build(job.generator)
    checkpoints.fit(generator, checkpoints.generator_weights(state, ema=False), start)
    if other := _trained_with(generator, state):
        raise UserError(f"{job.folder} was trained with {' '.join(other)}: add that, or begin a new run.")
    done, asked = int(state["epoch"]) + 1, job.trainer["max_epochs"]
    if done > asked:
        raise UserError(f"{start} has {done} epochs behind it: trainer.max_epochs={asked} must be {done} or more.")


def _trained_with(generator: Generator, state: Mapping[str, Any]) -> list[str]:
    """What of a stored generator differs from this one where no shape of a weight does, as arguments."""
    stored = state.get(checkpoints.KEY, {}).get("generator", {})
    known = signature(type(generator)).parameters if stored else {}
    had = {key: stored.get(key, known[key].default) for key in ("skip", "centre") if key in known}
    return [f"generator.{key}={value}" for key, value in had.items() if value != getattr(generator, key)]


def _warn_of_another(generator: Generator, state: Mapping[str, Any], path: Path) -> None:
    if other := _trained_with(generator, state):
        log.warning("The weights of %s were trained with %s, and this generator is without.", path, " ".join(other))


def _module(job: Job, start: Path | None) -> SuperResolution:
    pl.seed_everything(job.seed, workers=True, verbose=False)
    generator = checkpoints.build(job.generator)
    if job.checkpoint is not None and start is None:
        state = checkpoints.read(job.checkpoint)
        weights = checkpoints.generator_weights(state)
        checkpoints.fit(generator, weights, job.checkpoint)
        generator.load_state_dict(weights)
        _warn_of_another(generator, state, job.checkpoint)
    if job.init_from is not None and start is None:
        state = checkpoints.read(job.init_from)
        weights = checkpoints.generator_weights(state)
        # A deconvolution for another scale is another layer, also where its kernel has the same size (FSRCNN's 9x9).
        same_scale = state.get(checkpoints.KEY, {}).get("generator", {}).get("scale") == generator.scale
        if new := checkpoints.transfer(generator, weights, job.init_from, without=() if same_scale else ("upsampler",)):
            log.info("Not in %s, and so as initialised: %s.", job.init_from, ", ".join(new))
        _warn_of_another(generator, state, job.init_from)
    return SuperResolution(
        generator,
        job.objective,
        job.optimizer,
        job.schedule,
        job.protocol,
        job.seed,
        job.generator,
        fresh=job.checkpoint is None and job.init_from is None,
        factors=job.factors,
        rule=job.rate_rule,
        compiled=job.compile,
    )


def _train(job: Job, module: SuperResolution, ours: Sequence[Callback], start: Path | None) -> None:
    # Lightning 2.6 asks torch 2.13 an outdated question, at every batch that it moves.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # Where torch is to be deterministic it fills new memory with NaN besides, which shows mistakes and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    trainer = _trainer(job, ours)
    device = trainer.strategy.root_device.type
    if channels_last(job.channels_last, device, str(trainer.precision)):
        module.lay_out()
    synchronised(module, trainer.world_size, device)
    if any(p.requires_grad for p in module.generator.parameters()):
        if start is not None:
            log.info("Going on from %s.", start)
        elif job.resume:
            log.info("%s has no checkpoint yet: the training begins anew.", job.folder)
        try:
            trainer.fit(module, datamodule=job.data, ckpt_path=start)
        except Exception as error:
            if (lost := killed_rank(trainer)) is not None:
                raise UserError(lost) from error
            raise
    else:
        trainer.validate(module, datamodule=job.data, verbose=False)


def _trainer(job: Job, ours: Sequence[Callback]) -> pl.Trainer:
    try:
        return pl.Trainer(
            **job.trainer,
            default_root_dir=job.folder,
            logger=job.logger or False,
            callbacks=[*job.callbacks, *ours],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in job.callbacks),
            num_sanity_val_steps=0,
            plugins=[WholeCheckpoints()],
            use_distributed_sampler=False,  # the data module has samplers that neither pad nor repeat
        )
    # No such device, more devices than there are, a precision or a number that Lightning does not know.
    except (MisconfigurationException, ModuleNotFoundError, ValueError, TypeError) as error:
        given = {key: job.trainer.get(key) for key in ("accelerator", "devices", "strategy", "precision")}
        raise UserError(f"This machine cannot train with {given}: {error}") from error
