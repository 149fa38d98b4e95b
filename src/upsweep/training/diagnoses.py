"""Why a training went as it did: gradients, dead and saturated units, the gap to validation, the price.

A few steps of a run are looked at closely (`upsweep.training.probe`): all others cost nothing.
"""

import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer

from upsweep.networks.network import cost
from upsweep.runs import duels
from upsweep.runs.duels import Duel
from upsweep.runs.history import VAL
from upsweep.runs.layout import DIAGNOSES
from upsweep.runs.record import write_record
from upsweep.runs.verdicts import VERSION, Diagnosis, Judgement, Layer, Price, overall, sentences
from upsweep.tasks.task import Few
from upsweep.tracking.run_log import RunLog
from upsweep.training.accessory import Accessory
from upsweep.training.base import Diverged, Training
from upsweep.training.callbacks import pattern_of
from upsweep.training.duels import look
from upsweep.training.probe import Probe

log = logging.getLogger("upsweep")


class Diagnoses(Accessory):
    """Samples a training, logs `diagnoses/...`, and in the end says in sentences what ails it: diagnoses.json.

    On rank 0 alone, and nothing there waits for another rank. Changes no weight, draws no random number. Evenly over
    the training `samples` steps are looked at, and `judgements` validations held against `images` training images, or
    `made` samples of latents held against as many real ones.
    """

    def __init__(
        self, folder: str | Path, samples: int = 12, judgements: int = 6, images: int = 4, made: int = 256
    ) -> None:
        self.folder = Path(folder)
        self.samples, self.judgements, self.images, self.made = samples, judgements, images, made
        self._duels: list[Duel] = []
        self._samples: list[list[Layer]] = []
        self._judged: list[Judgement] = []
        self._next_step = self._next_epoch = 0
        self._probe: Probe | None = None
        self._val_leads: list[float] = []
        # Until validation has ended: figure and lead of each training image, and the checkerboard's energy.
        self._train: list[tuple[float, float]] = []
        self._energy = 0.0
        self._seconds: list[float] = []  # for a megapixel

    def state_dict(self) -> dict[str, Any]:
        return {
            "samples": [[asdict(layer) for layer in sample] for sample in self._samples],
            "judged": [asdict(judgement) for judgement in self._judged],
            "duels": [asdict(duel) for duel in self._duels],
            "next": [self._next_step, self._next_epoch],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._samples = [[Layer(**layer) for layer in sample] for sample in state_dict["samples"]]
        self._judged = [Judgement.of(judgement) for judgement in state_dict["judged"]]
        self._duels = [Duel.of(duel) for duel in state_dict.get("duels", [])]
        self._next_step, self._next_epoch = state_dict["next"]

    def forget(self) -> None:
        """Judge from here on as from the start: what was judged so far does not count."""
        self._judged, self._duels, self._next_epoch = [], [], 0

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if module.compiled and trainer.is_global_zero:
            log.info("Compiled: the diagnoses see the weights' gradients, but neither activations nor dead units.")

    def on_train_batch_start(self, trainer: pl.Trainer, module: Training, *_: Any) -> None:  # type: ignore[override]
        if trainer.is_global_zero and module.iterations >= self._next_step:
            self._probe = Probe(module.generator, inside=not module.compiled)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Training, optimizer: Optimizer) -> None:  # type: ignore[override]
        """Take down what was seen, now that the gradients are whole, not scaled and not clipped."""
        if self._probe is None or optimizer is not trainer.optimizers[0]:  # it is another player's turn
            return
        layers = self._probe.read()
        self._samples.append(layers)
        self._next_step = module.iterations + max(1, math.ceil(module.total / self.samples))
        seen = {
            f"{key}/{layer.name}": value
            for layer in layers
            for key, value in layer.row().items()
            if isinstance(value, float) and math.isfinite(value)
        }
        _log(module, seen)

    def on_train_batch_end(self, *_: Any) -> None:
        self.give_up()

    def give_up(self) -> None:
        """Look at no layer any more."""
        if self._probe is not None:
            self._probe.remove()
            self._probe = None

    def _due(self, trainer: pl.Trainer) -> bool:
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = last or trainer.current_epoch >= self._next_epoch
        return trainer.is_global_zero and trainer.state.fn == "fit" and due

    def on_validation_batch_end(self, trainer: pl.Trainer, module: Training, *_: Any) -> None:  # type: ignore[override]
        if self._due(trainer) and (lead := module.task.last_lead()) is not None:
            self._val_leads.append(lead)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if self._due(trainer):
            pattern, self._train = pattern_of(module.generator), self._judge(trainer, module)
            self._energy = 0.0 if pattern is None else pattern.energy
            self._look(trainer, module)

    @torch.inference_mode(False)  # in which a validation runs, and which knows no gradients
    def _look(self, trainer: pl.Trainer, module: Training) -> None:
        if (few := module.task.few(self.made)) is None:
            return
        duel = look(Few(*(x.to(module.device) for x in few)), module.generator, trainer.current_epoch + 1, module.judge)
        if all(map(math.isfinite, duel.numbers().values())):  # or it is diverging, and will say so
            self._duels.append(duel)
            self._wait(trainer)
            _log(module, duel.numbers())

    def _wait(self, trainer: pl.Trainer) -> None:
        """Judge again when a share of the training is over."""
        self._next_epoch = trainer.current_epoch + max(1, math.ceil((trainer.max_epochs or 1) / self.judgements))

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        val_leads, self._val_leads = self._val_leads, []
        judged, self._train = self._train, []
        shown, validated = module.task.shown, trainer.callback_metrics
        if not judged or not shown.baseline:
            return
        values, leads = zip(*judged, strict=True)
        judgement = Judgement(
            epoch=trainer.current_epoch + 1,
            train=statistics.fmean(values),
            train_lead=statistics.fmean(leads),
            val=float(validated[f"{VAL}{shown.name}"]),
            val_lead=float(validated[f"{VAL}{shown.name}_{shown.margin}"]),
            error=_error(leads, val_leads),
            checkerboard=self._energy,
        )
        if not all(math.isfinite(value) for value in asdict(judgement).values() if value is not None):
            return  # it is diverging, and will say so
        self._judged.append(judgement)
        self._wait(trainer)
        train = {f"train_{shown.name}": judgement.train, f"train_{shown.margin}": judgement.train_lead}
        _log(module, {**train, "gap": judgement.gap, "checkerboard": judgement.checkerboard})

    @torch.no_grad()
    def _judge(self, trainer: pl.Trainer, module: Training) -> list[tuple[float, float]]:
        """The figure shown of some training images, and by how much each is better than its baseline."""

        def timed(given: Tensor) -> Tensor:
            with trainer.precision_plugin.forward_context():
                converted = trainer.precision_plugin.convert_input(given.to(module.device))
                started = time.perf_counter()
                made: Tensor = module.generator(converted).float()
                if made.is_cuda:
                    torch.cuda.synchronize(made.device)
                self._seconds.append((time.perf_counter() - started) / (made.shape[-1] * made.shape[-2] / 1e6))
            return made

        judged = module.task.judge_training(timed, self.images)
        return [(value, module.task.shown.lead(value, baseline)) for value, baseline in judged]

    def on_train_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._write(trainer, module)

    def on_exception(self, trainer: pl.Trainer, module: Training, error: BaseException) -> None:  # type: ignore[override]
        self.give_up()
        if isinstance(error, Diverged):
            self._write(trainer, module, diverged=str(error))

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, module: Training, diverged: str | None = None) -> None:
        seconds, device = min(self._seconds, default=None), module.device.type
        price = Price(**asdict(cost(module.generator)), seconds_per_megapixel=seconds, device=device)
        layers = overall(self._samples)
        *others, costs = sentences(layers, self._judged, price, module.task.shown, diverged)
        said = [*others, *duels.sentences(self._duels, covered=module.last.get(module.task.coverage or "")), costs]
        rows = [layer.row() for layer in layers]
        write_record(
            self.folder / DIAGNOSES,
            VERSION,
            Diagnosis(said, rows, self._judged, price, [asdict(duel) for duel in self._duels]),
        )
        for each in trainer.loggers:
            if isinstance(each, RunLog):
                each.log_summary({f"diagnoses/{sentence.problem}": sentence.text for sentence in said})


def _log(module: Training, seen: Mapping[str, float]) -> None:
    for each in module.loggers:
        each.log_metrics({f"diagnoses/{key}": value for key, value in seen.items()}, step=module.iterations)


def _error(*groups: Sequence[float]) -> float | None:
    """The standard error of the difference of two means; None where one group is a single value."""
    if any(len(group) < 2 for group in groups):
        return None
    return math.sqrt(sum(statistics.variance(group) / len(group) for group in groups))
