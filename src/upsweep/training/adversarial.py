"""Two players: a generator, and a discriminator that tells what was made from what is real."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from upsweep.common.checks import at_least
from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.networks.discriminators.discriminator import Discriminator
from upsweep.networks.network import Network
from upsweep.objectives.adversarial.losses import AdversarialLoss
from upsweep.objectives.adversarial.penalties import Penalties
from upsweep.tasks.task import Compared
from upsweep.training.base import OptimizerOf, Player, Training
from upsweep.training.schedules import Schedule
from upsweep.training.scheduling import step
from upsweep.training.supervised import Supervision


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Whom a generator learns against.

    Attributes:
        discriminator: the network's class and arguments, as plain values.
        loss: the game that is played.
        optimizer, schedule: the discriminator's own, at a rate of its own (Heusel et al. 2017).
        penalties: on the discriminator's slope.
        steps: of the discriminator for each of the generator, each with a batch of its own.
        weight: of the discriminator's word in the generator's loss, beside the objective of what is paired.
    """

    discriminator: Mapping[str, Any]
    loss: AdversarialLoss
    optimizer: OptimizerOf
    schedule: Schedule
    penalties: Penalties = field(default_factory=Penalties)
    steps: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError: `steps` is no whole number above 0, or the weight is below 0."""
        at_least("adversary", 1, steps=self.steps)
        at_least("adversary", 0, weight=self.weight)

    def build(self) -> Discriminator:
        """The discriminator, as initialised. Raises UserError: what is described is none."""
        network = checkpoints.build(self.discriminator)
        if not isinstance(network, Discriminator):
            raise UserError(f"adversary.discriminator={type(network).__name__} judges no images: choose another.")
        return network


class Adversarial(Training):
    """The discriminator steps on every batch, the generator on every `adversary.steps`-th; `others`: see `Training`.

    A batch's images are made once for both players. What the task pairs is held to the objective besides, so that
    super-resolution with an adversary is SRGAN (Ledig et al. 2017), and a VAE with one is VAE-GAN (Larsen et al. 2016).
    Logs train/loss, the generator's, and train/loss_discriminator.
    """

    def __init__(
        self,
        *,
        generator: Network,
        adversary: Adversary,
        objective: nn.Module,
        optimizer: OptimizerOf,
        schedule: Schedule,
        factors: Mapping[str, float] | None = None,
        clip: float | None = None,
        clip_by: str | None = None,
        accumulate: int = 1,
        compiled: bool = False,
        **others: Any,
    ) -> None:
        discriminator = adversary.build()
        players = {
            "generator": Player(generator, objective, optimizer, schedule, factors or {}, every=adversary.steps),
            "discriminator": Player(discriminator, adversary.loss, adversary.optimizer, adversary.schedule),
        }
        super().__init__(generator=generator, players=players, **others)
        self.automatic_optimization = False
        self.discriminator, self.adversary, self.objective = discriminator, adversary, objective
        self.compiled, self._accumulate = compiled, accumulate
        self._clip = clip, clip_by or "norm"
        self._supervise = Supervision(objective, generator)
        self._learning = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
        self._make = torch.compile(self.task.make) if compiled else self.task.make
        self._loss = torch.tensor(0.0)  # the generator's latest
        self._losses: dict[str, list[Tensor]] = {}  # of this epoch's batches

    def steps_of(self, player: Player) -> int:
        epochs = self.trainer.max_epochs or 1
        batches = self._batches(self.trainer.num_training_batches)
        if not (steps := batches // (player.every * self._accumulate)):
            raise UserError(
                f"An epoch of {batches} batches is too short: the generator steps once in adversary.steps="
                f"{self.adversary.steps} times trainer.accumulate_grad_batches={self._accumulate} of them."
            )
        whole, most = steps * epochs, self.trainer.max_steps
        within = most // self.steps_each * self.adversary.steps // player.every
        return whole if most < 1 else max(1, min(whole, within))

    @property
    def steps_each(self) -> int:
        return 1 + self.adversary.steps

    @property
    def judge(self) -> tuple[Discriminator, AdversarialLoss]:
        return self.discriminator, self.adversary.loss

    @property
    def accumulated(self) -> int:
        return self._accumulate

    def setup(self, stage: str) -> None:  # Lightning's signature
        if isinstance(self.trainer.strategy, DDPStrategy):  # in each player's turn the other's weights get no gradient
            self.trainer.strategy._ddp_kwargs["find_unused_parameters"] = True

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.trainer.ckpt_path is None:
            self.discriminator.calibrate(self._first_real)
            self.same_everywhere(self.discriminator)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every training's. Raises UserError: the discriminator is another."""
        super().on_load_checkpoint(checkpoint)
        own, state = "discriminator.", checkpoint["state_dict"]
        weights = {name.removeprefix(own): value for name, value in state.items() if name.startswith(own)}
        checkpoints.fit(self.discriminator, weights, Path(str(self.trainer.ckpt_path)), whose="discriminator")

    @torch.no_grad()
    def _first_real(self) -> Tensor:
        batch = self.transfer_batch_to_device(next(iter(self.task.data.train_dataloader())), self.device, 0)
        generator = copy.deepcopy(self.generator).eval()  # its statistics are not to begin before the training does
        return self.task.make(generator, batch)[-1].wanted

    def on_train_epoch_start(self) -> None:
        """Begin without the gradients of batches that were too few for a step: a resumed run does not know them."""
        super().on_train_epoch_start()
        self._losses = {}
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """A turn of the discriminator, and where it is due one of the generator. Raises Diverged."""
        of_step, turn = divmod(batch_idx, self._accumulate)
        steps, due = turn + 1 == self._accumulate, (of_step + 1) % self.adversary.steps == 0
        with torch.set_grad_enabled(due):
            pairs: list[Compared] = self._make(self.generator, batch)
        made, wanted = pairs[-1].made, pairs[-1].wanted
        losses = {"train/loss_discriminator": self._discriminate(wanted, made.detach(), steps=steps)}
        if due:
            self._loss = losses["train/loss"] = self._generate(pairs, batch, steps=steps)
        self.watch(torch.stack(list(losses.values())).sum(), batch_idx)
        for name, loss in losses.items():
            self._losses.setdefault(name, []).append(loss)
        return self._loss

    def on_train_batch_end(self, *args: Any) -> None:
        """Log the means of an epoch at its end: Lightning takes a millisecond for every batch that is logged."""
        super().on_train_batch_end(*args)
        if self.trainer.is_last_batch or self.trainer.should_stop:  # by a budget, say
            means = {name: torch.stack(each).mean() for name, each in self._losses.items()}
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _look(self, images: Tensor) -> Tensor:
        """The discriminator's logits: in float32, as losses and penalties want them."""
        logits: Tensor = self.discriminator(images)
        return logits.float()

    def _discriminate(self, real: Tensor, made: Tensor, *, steps: bool) -> Tensor:
        loss = self.adversary.loss.discriminator(self._look(real), self._look(made))
        loss = loss + self.adversary.penalties(self._look, real, made)
        self._step("discriminator", loss, steps=steps)
        return loss.detach()

    def _generate(self, pairs: Sequence[Compared], batch: Any, *, steps: bool) -> Tensor:
        with frozen(self._learning):
            real = self._look(pairs[-1].wanted) if self.adversary.loss.compares else None
            loss = self.adversary.weight * self.adversary.loss.generator(real, self._look(pairs[-1].made))
            if all(pair.paired for pair in pairs):
                loss = loss + self._supervise(pairs, given=self.task.given(batch), batch=batch)
            self._step("generator", loss, steps=steps)
        if steps:
            self.iterations += 1
        return loss.detach()

    def _step(self, player: str, loss: Tensor, *, steps: bool) -> None:
        """Backward, and where that is due a step of the player's optimizer and of its schedule."""
        optimizer, schedule = cast(Any, self.optimizers())[list(self.players).index(player)], self.scheduled[player]
        self.manual_backward(loss / self._accumulate)
        if steps:
            optimizer.step()
            optimizer.zero_grad()
            if schedule.interval == "step":
                step(schedule.scheduler)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        value, by = self._clip
        if value:
            self.clip_gradients(optimizer, value, by)


@contextmanager
def frozen(learning: Sequence[Tensor]) -> Iterator[None]:
    """Let gradients pass through a network, and reach none of its weights, which otherwise get some."""
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
