"""The Trainer of Lightning that a job asks for: its own arguments, beside those that every run here needs."""

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import BatchSizeFinder, Callback, Checkpoint, LearningRateFinder, ProgressBar
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from pytorch_lightning.utilities.model_helpers import is_overridden

from upsweep.common.errors import UserError
from upsweep.tasks.feeding import ImageFeed
from upsweep.tracking.run_log import RunLog
from upsweep.tracking.several import each_of
from upsweep.training.saving import WholeCheckpoints
from upsweep.training.unprofiled import Unprofiled

# What a run sets itself, and what to do instead.
OURS = {
    "logger": "choose logger=wandb, tensorboard, mlflow, csv or none, or add a file of your own to conf/logger",
    "callbacks": "add one by its name: +callbacks.NAME._target_=package.Class",
    "default_root_dir": "name the folder of the run with hydra.run.dir=FOLDER",
    "enable_checkpointing": "leave checkpoints out with callbacks.best=null callbacks.last=null",
    "enable_progress_bar": "leave the bar out with quiet=true, or take another with callbacks.progress=null "
    "+callbacks.bar._target_=pytorch_lightning.callbacks.TQDMProgressBar",
    "num_sanity_val_steps": "it is 0, since all that is validated counts; debug=fast tries everything in seconds",
    "use_distributed_sampler": "it is false for upsweep's data, whose samplers neither pad nor repeat, and true for a "
    "DataModule of your own",
    "sync_batchnorm": "it is on wherever torch has it, which is on several CUDA devices",
    "barebones": "a run needs its logs and checkpoints; logger=none callbacks.pictures=null "
    "callbacks.diagnoses=null leaves out what costs time",
    "model_registry": "checkpoints lie in the folder of the run",
}
# Callbacks of Lightning's that try a training and take it back, and what to do instead.
FINDERS = {
    BatchSizeFinder: "set data.batch_size, or sweep it (-m data.batch_size=16,32)",
    LearningRateFinder: "set optimizer.lr, or sweep it (-m optimizer.lr=1e-3,4e-3)",
}
BY_HAND = ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")  # a training of several players'
IN_STEPS = ("max_steps", "min_steps")  # of the generator's optimizer; Lightning counts those of all players


def known() -> list[str]:
    """The arguments of Lightning's Trainer that a job may give."""
    return [name for name in inspect.signature(pl.Trainer).parameters if name not in OURS]


def refusal(key: str, value: str | None = None) -> str | None:
    """Why `trainer.<key>` cannot be given, and what to write instead; None where it can.

    `value`: as it was given to a key that the config does not have, and that `+` therefore must add.
    """
    if key in OURS:
        return f"trainer.{key} is set by upsweep itself: {OURS[key]}."
    if key in known():
        return value and f"trainer.{key} is an argument of Lightning's Trainer: write +trainer.{key}={value} to add it."
    meant = "".join(f" Did you mean trainer.{match}?" for match in get_close_matches(key, known(), n=1))
    return f"There is no trainer.{key}; Lightning's Trainer takes {', '.join(known())}.{meant}"


def hold_to_trainer(given: Mapping[str, Any]) -> None:
    """Raise UserError for the first argument that Lightning's Trainer does not take, or that a run sets itself."""
    if said := next(filter(None, map(refusal, map(str, given))), None):
        raise UserError(said)


def trainer_of(
    given: Mapping[str, Any],
    *,
    data: pl.LightningDataModule,
    callbacks: Sequence[Callback],
    logger: RunLog | None,
    steps_each: int | None = None,
    **others: Any,
) -> pl.Trainer:
    """Lightning's Trainer.

    Args:
        given: its arguments, as a job gives them.
        data: what feeds the network.
        callbacks: all of them.
        logger: of the run.
        steps_each: steps that all players take in one of the generator's, where a training steps for them; None:
            Lightning does it.
        others: more arguments.

    Raises:
        UserError: there is no such device, Lightning does not know a value, or a callback is one of `FINDERS`.
    """
    if found := next((kind for kind in FINDERS for each in callbacks if isinstance(each, kind)), None):
        raise UserError(f"{found.__name__} would end the run without a result: {FINDERS[found]}.")
    asked = dict(given)
    if steps_each is not None:
        asked = {key: value for key, value in asked.items() if key not in BY_HAND}
        asked |= {key: asked[key] * steps_each for key in IN_STEPS if (asked.get(key) or -1) > 0}
    try:
        trainer = pl.Trainer(
            **{
                "enable_model_summary": False,
                **asked,
                "profiler": asked.get("profiler") or Unprofiled(),
                "plugins": [WholeCheckpoints(), *_plugins(asked.get("plugins"))],
            },
            callbacks=list(callbacks),
            logger=each_of(logger) or False,
            enable_checkpointing=any(isinstance(each, Checkpoint) for each in callbacks),
            enable_progress_bar=any(isinstance(each, ProgressBar) for each in callbacks),
            num_sanity_val_steps=0,
            use_distributed_sampler=not isinstance(data, ImageFeed),
            **others,
        )
    # No such device, more devices than there are, a precision or a number that Lightning does not know.
    except (MisconfigurationException, ImportError, ValueError, TypeError, LookupError, RuntimeError) as error:
        wanted = {key: asked.get(key) for key in ("accelerator", "devices", "strategy", "precision")}
        raise UserError(f"This machine cannot train with {wanted}: {error}") from error
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy={asked['strategy']} forks its processes, and their results do not come back: use ddp."
        )
    return trainer


def _plugins(given: Any) -> list[Any]:
    """Those of the user. Raises UserError: one writes checkpoints, which the run does."""
    plugins = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        raise UserError("trainer.plugins: upsweep writes checkpoints itself, whole or not at all: leave that one out.")
    return plugins


def hold_to_loaders(data: pl.LightningDataModule, given: Mapping[str, Any]) -> None:
    """Raise UserError for a DataModule that does not give what is trained on, or judged."""
    for loader, limit in (("train_dataloader", "limit_train_batches"), ("val_dataloader", "limit_val_batches")):
        if given.get(limit) == 0:
            raise UserError(f"trainer.{limit}=0 leaves a run without a result: it must be above 0, or null for all.")
        if not is_overridden(loader, data, pl.LightningDataModule):
            raise UserError(f"{type(data).__name__} has no {loader}, which every run needs.")
