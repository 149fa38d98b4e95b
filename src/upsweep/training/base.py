"""What every training shares, whoever learns against whom: judging, logging, counting, checkpoints."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from upsweep.blocks.layout import as_channels_last, in_channels_last
from upsweep.common.errors import UserError, first_line
from upsweep.networks import checkpoints
from upsweep.networks.discriminators.discriminator import Discriminator
from upsweep.networks.network import Network
from upsweep.objectives.adversarial.losses import AdversarialLoss
from upsweep.runs.history import VAL
from upsweep.runs.identity import Identity
from upsweep.tasks import Task
from upsweep.tasks.feeding import EpochSampler
from upsweep.training.optimizers import parameter_groups, scale_rates
from upsweep.training.scaling import Batch, RateRule, hold_to_shares
from upsweep.training.schedules import Schedule
from upsweep.training.scheduling import Scheduled, scheduled, step

log = logging.getLogger("upsweep")

OptimizerOf = Callable[[Iterable[dict[str, Any]]], Optimizer]  # of parameter groups


class Diverged(Exception):
    """The loss is no longer finite; the training stops and says so, and the sweep goes on."""


class Pruned(Exception):
    """A search has no hope in this training; it stops and says so, and the search goes on."""


# How often all devices ask each other whether the loss is still a number: rare enough to cost nothing.
CHECK_EVERY = 20


@dataclass(frozen=True)
class Player:
    """Who learns: a network, what it is to reach, and how it is optimised. A supervised training has one."""

    network: nn.Module  # whose parameters are optimised
    objective: nn.Module  # a loss, whose own parameters are optimised too
    optimizer: OptimizerOf  # parameter groups -> optimizer
    schedule: Schedule | Callable[..., LRScheduler]  # progress in [0, 1] -> factor on the rate; or torch's scheduler
    factors: Mapping[str, float] = field(default_factory=dict)  # part of the network -> factor on its learning rate
    every: int = 1  # it steps once in so many batches; with accumulated gradients, in so many sums of them


@dataclass(frozen=True)
class Best:
    """The best epoch so far (counted from 0), with its figures (see `Training.score`) and the baseline's, by name."""

    epoch: int
    figures: dict[str, float]
    baseline: dict[str, float]


class Training(pl.LightningModule):
    """Judges a generator by its task, and keeps what a run that goes on needs; a subclass says how it learns.

    Args:
        task: what goes in and how it is judged.
        generator: the network that makes images.
        players: who learns, by name; the generator's first.
        seed: of the run; with epoch and rank it seeds what is random in a step (dropout).
        spec: the generator's class and arguments as plain values, for the checkpoint.
        fresh: whether the weights are as initialised, and not from a checkpoint.
        rule: how the learning rate follows the effective batch size.

    Logs lr, and of every figure val/<name>, val/<name>_<baseline>, val/<name>_<margin>.
    """

    compiled = False  # whether it trains through torch.compile

    def __init__(
        self,
        task: Task,
        generator: Network,
        players: Mapping[str, Player],
        *,
        seed: int,
        spec: dict[str, Any],
        fresh: bool = True,
        rule: RateRule | None = None,
    ) -> None:
        super().__init__()
        self.generator, self.task = generator, task
        self.players = dict(players)
        self.best: Best | None = None
        self.last: dict[str, float] = {}  # the figures of the last epoch that was judged, also those not declared
        self.identity: Identity | None = None  # what the figures hang on, once it is known
        self.epochs_before = 0  # that the checkpoint has behind it from which the training goes on
        self.cut = 0  # batches of an epoch that a limit has cut, until the training has gone on with it
        self.begun_as: str | None = None  # the digest of that in the checkpoint from which the training goes on
        self.iterations = 0  # steps of the generator's optimizer: Lightning's global_step counts those of all players
        self.spent = 0.0  # the share of a budget, in [0, 1]: see upsweep.training.budget
        self.seconds_before = 0.0  # of training, before this process went on with it
        self._seed, self._spec, self._fresh, self._rule = seed, spec, fresh, rule or RateRule()
        self._started = time.perf_counter()
        self._judged = False  # whether there was a validation in this epoch
        self.scheduled: dict[str, Scheduled] = {}  # the schedule of each player, once there are optimizers
        self._told = False  # whether it was looked for figures that nobody logs
        self._finite = torch.tensor(True)  # whether all losses since the last check were

    @property
    def judge(self) -> tuple[Discriminator, AdversarialLoss] | None:
        """Whom the generator learns against, if it does."""
        return None

    def lay_out(self) -> None:
        """From now on weights and inputs of every player lie as NHWC; names, shapes and values stay."""

        def laid_out(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(as_channels_last(x) if isinstance(x, Tensor) and x.ndim == 4 else x for x in inputs)

        for player in self.players.values():
            in_channels_last(player.network).register_forward_pre_hook(laid_out)

    @property
    def total(self) -> int:
        """Steps of the generator's optimizer in the whole training."""
        return self.steps_of(next(iter(self.players.values())))

    @property
    def progress(self) -> float:
        """How far the training is, in [0, 1]: by its steps, or by a budget that ends it before."""
        return min(1.0, max(self.iterations / self.total, self.spent))

    @property
    def expected(self) -> int:
        """Steps of the generator's optimizer in the whole training, as its progress lets expect."""
        return round(self.iterations / self.progress) if self.progress else self.total

    @property
    def accumulated(self) -> int:
        """Batches whose gradients are summed up for one step."""
        return self.trainer.accumulate_grad_batches

    @property
    def steps_each(self) -> int | None:
        """Steps that all optimizers take in one of the generator's; None where Lightning takes the only one's."""
        return None

    def steps_of(self, player: Player) -> int:
        """Steps of a player's optimizer in the whole training. Raises UserError: nothing says when it ends."""
        del player  # there is one, and Lightning steps for it
        return self._batches(self.trainer.estimated_stepping_batches)

    @staticmethod
    def _batches(number: float) -> int:
        """As many batches, of a whole training or of an epoch, or steps."""
        if number < 0 or math.isinf(number):  # as Lightning says it
            raise UserError(
                "The training data do not tell how many batches they have: set trainer.limit_train_batches to the "
                "number in an epoch."
            )
        return max(1, int(number))

    def on_fit_start(self) -> None:
        """At the very start: say what of the initialisation is void, calibrate a data-driven one."""
        if self.trainer.ckpt_path is not None or not self._fresh:
            return
        for sentence in self.generator.unused():
            rank_zero_only(log.warning)(sentence)
        batches = self.task.data.train_dataloader()
        self.generator.calibrate(lambda: self.task.given(next(iter(batches))).to(self.device))
        self.same_everywhere(self.generator)  # each rank has calibrated on a batch of its own

    def same_everywhere(self, network: nn.Module) -> None:
        """Give every rank the first one's weights and running statistics, where each has come to its own."""
        if self.trainer.world_size > 1:
            state = {name: value.cpu() for name, value in network.state_dict().items()}
            network.load_state_dict(self.trainer.strategy.broadcast(state))

    def on_train_start(self) -> None:
        """Go on in the midst of an epoch that was cut: with the batch that is next, and as at the start of one.

        Raises:
            UserError: the epoch has no more batches now than it had when it was cut.
        """
        loop = self.trainer.fit_loop
        if not self.cut:
            loop.epoch_loop.restarting = False  # with max_steps, Lightning would end an epoch twice
            # Or it would keep the iterator that it made before the epoch was seeded, and so another order of a loader
            # that shuffles. Lightning 2.6 has no public way to ask for a new one.
            loop._resuming_from_checkpoint = False
            return
        loader, batches = self.trainer.train_dataloader, self.trainer.num_training_batches
        if self.cut >= batches:
            raise UserError(
                f"The training ended after {self.cut} batches of an epoch, which has {batches} now: set "
                "data.patches_per_epoch and data.batch_size as they were."
            )
        if isinstance(loader, DataLoader) and isinstance(loader.sampler, EpochSampler):
            loader.sampler.go_on(self.current_epoch, self.cut * (loader.batch_size or 1))
            warnings.filterwarnings("ignore", message=r".*your dataloader is not resumable")  # which this one is
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Make what is random in an epoch a function of (seed, epoch, rank), so that a resumed run repeats it."""
        cut, self.cut = (self.cut,) if self.cut else (), 0
        torch.manual_seed(hash((self._seed, self.current_epoch, self.global_rank, *cut)) % 2**63)

    def on_train_batch_end(self, *_: Any) -> None:
        """The last weights are judged, whatever the rhythm of validation, and whatever ends the training."""
        trainer, loop = self.trainer, self.trainer.fit_loop
        last_epoch = self.current_epoch + 1 == trainer.max_epochs
        if (last_epoch and trainer.is_last_batch) or 0 < (loop.max_steps or -1) <= trainer.global_step:
            trainer.should_stop = True  # Lightning then validates at once
        if trainer.should_stop:
            trainer.check_val_every_n_epoch = 1

    def watch(self, loss: Tensor, batch_idx: int) -> None:
        """Take note of whether a loss is finite; all devices ask each other now and then, and raise Diverged."""
        self._finite = self._finite & torch.isfinite(loss.detach())
        if (batch_idx + 1) % CHECK_EVERY == 0:
            self._check_finite()

    def _check_finite(self) -> None:
        finite, self._finite = bool(self._finite), torch.tensor(True)
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise Diverged(f"the loss was not finite in epoch {self.current_epoch} (step {self.iterations})")

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        self.log("lr", float(self.trainer.optimizers[0].param_groups[0]["lr"]))
        judged, self._judged = self._judged, False
        if self.trainer.is_last_batch:  # or a limit has cut the epoch, which ends when a resumed training ends it
            for each in self.scheduled.values():
                each.end_epoch(self.trainer.callback_metrics, judged=judged)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # Lightning's signature
        step(scheduler)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.iterations += 1

    def on_validation_start(self) -> None:
        """Every rank judges the network that is saved. Raises UserError: an image would be judged twice."""
        hold_to_shares(self.trainer)
        # Where a training steps by hand, DDP sends running statistics at its first batch alone.
        self.same_everywhere(self.generator)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self.task.judge(self.generator, batch)

    def on_validation_epoch_end(self) -> None:
        """Log what the task measures; `score` takes it down once everybody else has logged, too."""
        self._judged = True
        self.last, baseline = self.task.compute(), self.task.baseline
        for figure in self.task.figures:
            if (value := self.last.get(figure.name)) is None:
                continue  # somebody else logs it
            self.log(f"{VAL}{figure.name}", value, prog_bar=figure is self.task.headline)
            if figure.baseline:
                self.log(f"{VAL}{figure.baseline_name}", baseline[figure.name])
                self.log(f"{VAL}{figure.name}_{figure.margin}", figure.lead(value, baseline[figure.name]))
        for name, value in self.task.details().items():
            self.log(f"{VAL}{name}", value)

    def score(self, logged: Mapping[str, Any]) -> None:
        """Take down the figures of an epoch, and whether it is the best: at the end of a validation.

        Args:
            logged: all that was logged in it. Whatever is called `val/<name>` is a figure, also where nothing declares
                it; the first rank's counts.

        Raises:
            UserError: nobody has ever logged the headline.
        """
        task, headline = self.task, self.task.headline
        said = {key.removeprefix(VAL): float(value) for key, value in logged.items() if key.startswith(VAL)}
        said = self.trainer.strategy.broadcast(said)
        beside = {name for f in task.figures for name in (f.baseline_name, f"{f.name}_{f.margin}")} | {*task.details()}
        known = {f.name: said[f.name] for f in task.figures if f.name in said}
        self.last = {**known, **self.last, **{k: v for k, v in said.items() if k not in known and k not in beside}}
        baseline = {f.name: said[name] for f in task.figures if (name := f.baseline_name) in said} | task.baseline
        self._require_declared()
        before = -math.inf if self.best is None else headline.worth(self.best.figures[headline.name])
        if headline.worth(self.last.get(headline.name, math.nan)) > before:  # never of what is not a number
            self.best = Best(self.current_epoch, dict(self.last), baseline)

    def _require_declared(self) -> None:
        """Tell once of figures that were declared, and that nobody logs. Raises UserError: the headline is one."""
        if self._told:
            return
        self._told = True
        for figure in self.task.figures:
            if figure.name in self.last:
                continue
            missing = (
                f"metrics.{figure.name} is declared, and nothing has logged it: log {VAL}{figure.name} in every "
                "validation (self.log in the module, module.log in a callback), or give it a `metric` that measures it"
            )
            if figure is self.task.headline:
                raise UserError(f"{missing}. rank_by={figure.name} needs it.")
            rank_zero_only(log.warning)(f"{missing}. Its column stays empty.")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return [self._configured(name, player) for name, player in self.players.items()]

    def _configured(self, name: str, player: Player) -> Any:
        """A player's optimizer, its rate fitted to the batch, and its schedule over the whole training."""
        groups = [*parameter_groups(player.network, player.factors), *parameter_groups(player.objective)]
        try:
            optimizer = player.optimizer(groups)
        except (TypeError, ValueError, LookupError, AssertionError) as error:
            raise UserError(f"The optimizer refuses its arguments, see optimizer.* ({first_line(error)}).") from error
        scale_rates(optimizer)
        trainer, rule, first = self.trainer, self._rule, optimizer.param_groups[0]
        trainer.fit_loop.setup_data()  # or there is no loader yet
        size, nodes = getattr(trainer.train_dataloader, "batch_size", None) or 1, trainer.num_nodes
        batch = Batch(size, trainer.world_size // nodes, nodes, self.accumulated)
        meant = "" if rule.name == "none" else f", from {first['lr']:.3g} at {rule.batch_size}"
        for group in optimizer.param_groups:
            group["lr"] *= rule.factor(batch.effective)
        whose = f" of the {name}" if len(self.players) > 1 else ""
        said = "%s; learning rate%s %.3g (lr_rule=%s%s)."
        rank_zero_only(log.info)(said, batch, whose, first["lr"], rule.name, meant)
        self.scheduled[name] = on = scheduled(
            player.schedule,
            optimizer,
            steps=self.steps_of(player),
            epochs=trainer.max_epochs or 1,
            headline=self.task.headline,
            spent=lambda: self.spent,
        )
        return {"optimizer": optimizer, "lr_scheduler": on.told(by_hand=not self.automatic_optimization)}

    def _frozen(self) -> dict[str, Tensor]:
        """What of the objective nobody trains, such as a network inside a loss: it is no part of a checkpoint."""
        parts = self.named_modules(remove_duplicate=False)  # as a state has them
        idle = tuple(f"{name}." for name, part in parts if f"{name}.".startswith("objective.") and _idle(part))
        return {
            name: value
            for name, value in self.state_dict(keep_vars=True).items()
            if name.startswith(idle) or (name.startswith("objective.") and _idle(value))
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in self._frozen():
            checkpoint["state_dict"].pop(name, None)
        checkpoint[checkpoints.KEY] = checkpoints.describe(
            self._spec,
            best={} if self.best is None else asdict(self.best),
            last=self.last,
            identity=None if self.identity is None else self.identity.digest,
            iterations=self.iterations,
            seconds=self.seconds_before + time.perf_counter() - self._started,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        said = checkpoint[checkpoints.KEY]
        checkpoint["state_dict"] = {**self._frozen(), **checkpoint["state_dict"]}
        self.iterations = said.get("iterations", checkpoint["global_step"])  # format 1 had one optimizer
        self.seconds_before = said["seconds"]
        self.cut = settled(checkpoint["loops"]["fit_loop"]) if "loops" in checkpoint else 0
        self.begun_as, self.epochs_before = said.get("identity"), int(checkpoint["epoch"]) + (self.cut == 0)
        best = said["best"]
        if best and "figures" not in best:  # format 1: all in one
            figures = {f.name: best[f.name] for f in self.task.figures if f.name in best}
            baseline = {f.name: best[f.baseline_name] for f in self.task.figures if f.baseline_name in best}
            best = {"epoch": best["epoch"], "figures": figures, "baseline": baseline}
        known = best and self.task.headline.name in best["figures"]  # not where another figure ranks now
        self.best, self.last = Best(**best) if known else None, dict(said.get("last", {}))


def settled(loop: dict[str, Any]) -> int:
    """The batches of an epoch that a limit has cut: max_steps, max_time, a budget. 0 where a whole epoch has ended.

    The loop's state is made to say so, in place. Lightning 2.6 saves a cut epoch as one that has ended, and would never
    train on its other batches; a best checkpoint, which is saved before the epoch's end, it would end once more.
    Gradients that a cut has kept from becoming a step are lost.
    """
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    had = int(batches["current"]["ready"])
    cut = had > 0 and not batches["is_last_batch"]
    for part in ("total", "current"):
        epochs[part]["processed"] = epochs[part]["completed"] = epochs[part]["started"] - cut
    return had if cut else 0


def _idle(what: nn.Module | Tensor) -> bool:
    """Whether a part has parameters, none of which is trained; or a value is such a parameter."""
    parameters = [*what.parameters()] if isinstance(what, nn.Module) else [what]
    known = [each for each in parameters if isinstance(each, nn.Parameter)]
    return bool(known) and not any(each.requires_grad for each in known)
