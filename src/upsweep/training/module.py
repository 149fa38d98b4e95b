"""How a generator is trained and judged, as a LightningModule."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from upsweep import checkpoints
from upsweep.blocks.layout import channels_last, in_channels_last
from upsweep.data.modules import EvalImage
from upsweep.data.patches import Patch
from upsweep.evaluation.judge import bicubic, pair
from upsweep.generators.base import Generator
from upsweep.imaging.resize import shrink
from upsweep.metrics.metric import PSNR, SSIM
from upsweep.metrics.protocol import Protocol
from upsweep.training.optimizers import parameter_groups, scale_rates
from upsweep.training.scaling import Batch, RateRule
from upsweep.training.schedules import Schedule

log = logging.getLogger("upsweep")

# How often all devices ask each other whether the loss is still a number: rare enough to cost nothing.
CHECK_EVERY = 20


class Diverged(Exception):
    """The loss is no longer finite; the training stops and says so, and the sweep goes on."""


class Pruned(Exception):
    """A search has no hope in this training; it stops and says so, and the search goes on."""


def level_of(hr: Tensor, width: int) -> Tensor:
    """HR (N, C, H, W) shrunk bicubically to `width`: what a level of a pyramid is held to (LapSRN, Lai et al. 2017)."""
    return hr if width == hr.shape[-1] else shrink(hr, hr.shape[-1] // width)


class SuperResolution(pl.LightningModule):
    """Trains a generator on patches and judges it on whole images under a protocol.

    Args:
        generator: LR (N, C, H, W) -> SR (N, C, s H, s W).
        objective: (SR, HR) -> scalar loss.
        optimizer: parameter groups -> optimizer.
        schedule: progress of the training in [0, 1] -> factor on the learning rate.
        protocol: under which PSNR and SSIM are taken.
        seed: of the run; with epoch and rank it seeds what is random in a step (dropout).
        spec: the generator's class and arguments as plain values, for the checkpoint.
        fresh: whether the weights are as initialised, and not from a checkpoint.
        factors: part of the generator, by name -> factor on its learning rate.
        rule: how the learning rate follows the effective batch size.
        compiled: train through torch.compile; whole images, whose sizes differ, are judged without it.

    Logs train/loss, lr, val/psnr, val/ssim, val/psnr_bicubic, val/ssim_bicubic, val/psnr_gain, val/ssim_gain.
    """

    def __init__(
        self,
        generator: Generator,
        objective: nn.Module,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        schedule: Schedule,
        protocol: Protocol,
        seed: int,
        spec: dict[str, Any],
        fresh: bool = True,
        factors: Mapping[str, float] | None = None,
        rule: RateRule | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.objective = objective
        self.protocol = protocol
        self._optimizer, self._schedule = optimizer, schedule
        self._seed, self._spec, self._fresh = seed, spec, fresh
        self._factors = factors
        self._rule, self.compiled = rule or RateRule(), compiled
        self._channels_last = False
        # A function, not a module: the state_dict keeps its names.
        self._levels: Callable[[Tensor], list[Tensor]] = self.generator.pyramid
        self.psnr = PSNR(protocol, generator.scale)
        self.ssim = SSIM(protocol, generator.scale)
        # Bicubic is judged once, in the first validation, on the same images.
        self.psnr_bicubic = PSNR(protocol, generator.scale)
        self.ssim_bicubic = SSIM(protocol, generator.scale)
        self._baseline: dict[str, float] = {}
        self._baseline_images: dict[str, float] = {}
        self._finite: Tensor | None = None
        self.best: dict[str, float] = {}
        self.seconds_before = 0.0  # of training, before this process went on with it
        self._started = time.perf_counter()

    def lay_out(self) -> None:
        """From now on weights and batches lie as NHWC; names, shapes and values stay."""
        in_channels_last(self.generator)
        self._channels_last = True

    def forward(self, lr: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (N, C, s H, s W)."""
        sr: Tensor = self.generator(self._laid_out(lr))
        return sr

    def _laid_out(self, lr: Tensor) -> Tensor:
        return channels_last(lr) if self._channels_last else lr

    # training

    def on_fit_start(self) -> None:
        """At the very start: say what of the initialisation is void, calibrate a data-driven one."""
        if self.trainer.ckpt_path is None and self._fresh:
            if self.trainer.is_global_zero:
                for sentence in self.generator.unused():
                    log.warning(sentence)
            patches = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
            self.generator.calibrate(lambda: next(iter(patches)).lr.to(self.device))
            if self.trainer.world_size > 1:  # DDP has sent rank 0's weights already, and each rank saw other patches
                state = {name: value.cpu() for name, value in self.generator.state_dict().items()}
                self.generator.load_state_dict(self.trainer.strategy.broadcast(state))
        if self.compiled:
            self._levels = torch.compile(self.generator.pyramid)

    def on_train_epoch_start(self) -> None:
        """Make what is random in an epoch a function of (seed, epoch, rank), so that a resumed run repeats it."""
        torch.manual_seed(hash((self._seed, self.current_epoch, self.global_rank)) % 2**63)

    def training_step(self, batch: Patch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            Diverged: the loss is not finite, on any device.
        """
        levels = self._levels(self._laid_out(batch.lr))
        targets = (level_of(batch.hr, sr.shape[-1]) for sr in levels)
        loss = torch.stack([self.objective(sr, hr) for sr, hr in zip(levels, targets, strict=True)]).sum()
        finite = torch.isfinite(loss.detach())
        self._finite = finite if self._finite is None else self._finite & finite
        if (batch_idx + 1) % CHECK_EVERY == 0:
            self._check_finite()
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.lr))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the learning rate."""
        self._check_finite()
        self.log("lr", self._rate())

    def _check_finite(self) -> None:
        finite = self._finite is None or bool(self._finite)
        self._finite = None
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise Diverged(f"the loss was not finite in epoch {self.current_epoch} (step {self.global_step})")

    def _rate(self) -> float:
        optimizer = self.optimizers()
        assert isinstance(optimizer, Optimizer | pl.core.optimizer.LightningOptimizer)
        return float(optimizer.param_groups[0]["lr"])

    # validation

    def validation_step(self, batch: EvalImage, batch_idx: int) -> Tensor:
        """Judge one whole image; returns SR (1, C, H, W) as the generator made it."""
        protocol, scale = self.protocol, self.generator.scale
        sr: Tensor = self(batch.lr).float()
        self._judge(self.psnr, self.ssim, batch, sr)
        if not self._baseline:
            self._judge(self.psnr_bicubic, self.ssim_bicubic, batch, bicubic(batch, protocol, scale))
            self._baseline_images[batch.name] = self.psnr_bicubic.last.item()
        return sr

    def _judge(self, psnr: PSNR, ssim: SSIM, image: EvalImage, sr: Tensor) -> None:
        sr, hr = pair(sr, image, self.protocol, self.generator.scale)
        for metric in (psnr, ssim):
            metric.update(sr, hr, grey=image.rgb_hr is None)

    def image_psnr(self, name: str) -> tuple[float, float | None]:
        """PSNR in dB of the image judged last, and bicubic's of the image `name`."""
        return self.psnr.last.item(), self._baseline_images.get(name)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all images, on all devices, and the gain over bicubic."""
        if not self._baseline:
            self._baseline = {
                "psnr": self.psnr_bicubic.compute().item(),
                "ssim": self.ssim_bicubic.compute().item(),
            }
        figures = {"psnr": self.psnr.compute().item(), "ssim": self.ssim.compute().item()}
        self.psnr.reset()
        self.ssim.reset()
        for name, figure in figures.items():
            self.log(f"val/{name}", figure, prog_bar=name == "psnr", rank_zero_only=False)
            self.log(f"val/{name}_bicubic", self._baseline[name])
            self.log(f"val/{name}_gain", figure - self._baseline[name])
        if figures["psnr"] > self.best.get("psnr", -float("inf")):
            self.best = {
                **figures,
                "psnr_bicubic": self._baseline["psnr"],
                "ssim_bicubic": self._baseline["ssim"],
                "epoch": self.current_epoch,
            }

    # optimisation and checkpoints

    def batch(self) -> Batch:
        """What a step of the optimizer sees under the trainer at hand."""
        trainer = self.trainer
        size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        return Batch(size, trainer.world_size // trainer.num_nodes, trainer.num_nodes, trainer.accumulate_grad_batches)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, its rate fitted to the batch, and its schedule over the whole training, step by step."""
        groups = [*parameter_groups(self.generator, self._factors), *parameter_groups(self.objective)]
        optimizer = self._optimizer(groups)
        scale_rates(optimizer)
        batch, rule = self.batch(), self._rule
        before = optimizer.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * rule.factor(batch.effective)
        if self.trainer.is_global_zero:
            meant = "" if rule.name == "none" else f", from {before:.3g} at {rule.batch_size}"
            rate = optimizer.param_groups[0]["lr"]
            log.info("%s; learning rate %.3g (lr_rule=%s%s).", batch, rate, rule.name, meant)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = self._schedule
        scheduler = LambdaLR(optimizer, lambda step: schedule(step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the generator is, as plain values, the best figures and the time so far."""
        checkpoint[checkpoints.KEY] = checkpoints.describe(
            self._spec,
            best=dict(self.best),
            seconds=self.seconds_before + time.perf_counter() - self._started,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the best figures and the time so far."""
        said = checkpoint[checkpoints.KEY]
        self.best, self.seconds_before = dict(said["best"]), said["seconds"]
