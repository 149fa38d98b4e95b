"""Why a training went as it did: gradients, dead and saturated units, the gap to validation, the price.

A few steps of a run are looked at closely, through hooks that are then taken off again: all others cost nothing.
"""

import json
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules import activation as activations
from torch.optim import Optimizer

from upsweep.data.modules import EvalImage
from upsweep.data.store import StoredImage
from upsweep.generators.base import cost
from upsweep.imaging.resize import enlarge
from upsweep.metrics.checkerboard import checkerboard, response
from upsweep.metrics.metric import PSNR
from upsweep.sweeps.results import write_by_rename
from upsweep.training.module import Diverged, SuperResolution
from upsweep.training.tracking import RunLog
from upsweep.training.verdicts import Judgement, Layer, Price, Sentence, overall, sentences

log = logging.getLogger("upsweep")

FILE = "diagnoses.json"
SIDE = 96  # LR pixels of the middle of a training image that are enlarged
END = 0.05  # of its range: so near to an end of it, a sigmoid and a tanh have a fifth of their largest slope

# ---------------------------------------------------------------------------------------- one step, looked at closely


def kernels(module: nn.Module) -> list[nn.Parameter]:
    """The module's own weights: its parameters of more than one axis, also those that a parametrisation keeps."""
    kept = getattr(module, "parametrizations", None)
    own = [*module.parameters(recurse=False), *(kept.parameters() if isinstance(kept, nn.Module) else ())]
    return [p for p in own if p.ndim > 1]


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that have weights of their own, by name."""
    return {name: m for name, m in network.named_modules() if ".parametrizations" not in name and kernels(m)}


def activations_of(network: nn.Module) -> dict[str, nn.Module]:
    """Torch's activations, those derived from them, and whatever a block calls its activation, by name."""
    known = tuple(kind for name in activations.__all__ if name != "MultiheadAttention" for kind in [getattr(nn, name)])
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, known) or name.rpartition(".")[2] == "activation"
    }


def silent(module: nn.Module, y: Tensor) -> Tensor | None:
    """Which of the channels of `y` (N, C, ...) a ReLU with no slope below 0 holds at 0 everywhere, as a mask (C).

    None for an activation that cannot die. A PReLU's channel is dead only where its slope is 0.
    """
    match module:
        case nn.ReLU() | nn.ReLU6():
            slope: Tensor | float = 0.0
        case nn.LeakyReLU():
            slope = module.negative_slope
        case nn.PReLU():
            slope = module.weight
        case _:
            return None
    zero = (y == 0).transpose(0, 1).flatten(1).all(1)
    return zero & (torch.as_tensor(slope, device=y.device) == 0)


def saturated(module: nn.Module, y: Tensor) -> Tensor | None:
    """Share of the values of `y` near an end of the range of a sigmoid or tanh; None for other activations."""
    match module:
        case nn.Sigmoid() | nn.Hardsigmoid():
            low, high = 0.0, 1.0
        case nn.Tanh():
            low, high = -1.0, 1.0
        case nn.Hardtanh() if not isinstance(module, nn.ReLU6):
            low, high = module.min_val, module.max_val
        case _:
            return None
    margin = END * (high - low)
    return ((y < low + margin) | (y > high - margin)).float().mean()


class Passed(NamedTuple):
    """A layer that an image passed: scalars on the network's device, read when the step is over."""

    name: str
    module: nn.Module
    after: list[nn.Module]  # the activation that followed, if one did
    values: dict[str, Tensor]


class Probe:
    """Hooks on all layers and activations of a network, for one step; changes nothing and draws no random number.

    Args:
        network: whose next forward and backward pass is looked at.
        inside: False looks at the weights' gradients alone: a compiled network does not call hooks.
    """

    def __init__(self, network: nn.Module, *, inside: bool = True) -> None:
        self._layers = layers_of(network)
        self._passed: list[Passed] = []
        self._handles = []
        if inside:
            for name, module in self._layers.items():
                self._handles.append(module.register_forward_hook(partial(self._layer, name)))
            for module in activations_of(network).values():
                self._handles.append(module.register_forward_hook(self._activation))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _layer(self, name: str, module: nn.Module, _: Any, y: Any) -> None:
        if not isinstance(y, Tensor):
            return
        times = 1 + sum(passed.module is module for passed in self._passed)
        values = _spread(y)
        self._passed.append(Passed(name if times == 1 else f"{name}:{times}", module, [], values))
        if y.requires_grad:
            y.register_hook(partial(_keep_norm, values))  # type: ignore[no-untyped-call]

    def _activation(self, module: nn.Module, _: Any, y: Any) -> None:
        if not self._passed or not isinstance(y, Tensor):
            return
        _, _, after, values = self._passed[-1]
        after[:] = [module]
        y = y.detach()
        found = {"silent": silent(module, y), "saturated": saturated(module, y)}
        values.update({**_spread(y), **{key: value for key, value in found.items() if value is not None}})

    @torch.no_grad()
    def read(self) -> list[Layer]:
        """What was seen, once the gradients are there; with one wait for the device."""
        seen = self._passed or [Passed(name, module, [], {}) for name, module in self._layers.items()]
        for _, module, _, values in seen:
            weights = kernels(module)
            values["weight_norm"] = _norm(weights)
            if gradients := [p.grad for p in weights if p.grad is not None]:
                values["gradient_norm"] = _norm(gradients)
        flat = [value.float().flatten() for passed in seen for value in passed.values.values()]
        numbers = iter(torch.cat(flat).tolist() if flat else [])
        read = [
            {key: [next(numbers) for _ in range(value.numel())] for key, value in passed.values.items()}
            for passed in seen
        ]
        last = read[-1].get("signal", [0.0])[0] if read else 0.0
        return [_layer(passed.name, passed.after, values, last) for passed, values in zip(seen, read, strict=True)]


def _layer(name: str, after: Sequence[nn.Module], values: Mapping[str, list[float]], last: float) -> Layer:
    """What was read of a layer, its gradients also as ratios; `last` is the norm in the last layer's output."""
    known = {key: value[0] for key, value in values.items() if key != "silent"}
    gradient, weight, signal = known.get("gradient_norm"), known["weight_norm"], known.pop("signal", None)
    silent = values.get("silent")
    return Layer(
        name=name,
        activation=type(after[0]).__name__ if after else None,
        channels=None if silent is None else len(silent),
        silent=None if silent is None else tuple(i for i, is_silent in enumerate(silent) if is_silent),
        gradient_to_weight=None if gradient is None or weight == 0 else gradient / weight,
        signal=None if signal is None or last == 0 else signal / last,
        **known,
    )


def _spread(y: Tensor) -> dict[str, Tensor]:
    deviation, mean = torch.std_mean(y.detach().float(), correction=0)
    return {"mean": mean, "deviation": deviation}


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(t.detach().float()) for t in tensors]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def _keep_norm(values: dict[str, Tensor], gradient: Tensor) -> None:
    values["signal"] = torch.linalg.vector_norm(gradient.float())


# --------------------------------------------------------------------------------------------------- the whole run


class Diagnoses(Callback):
    """Samples a training, logs `diagnoses/...`, and in the end says in sentences what ails it: diagnoses.json.

    On rank 0 alone, and nothing there waits for another rank. Changes no weight, draws no random number.

    Args:
        folder: of the run.
        samples: how many steps are looked at, evenly over the training.
        judgements: how many validations are held against training images, evenly over the training.
        images: how many training images, the middle of each.
    """

    def __init__(self, folder: str | Path, samples: int = 12, judgements: int = 6, images: int = 4) -> None:
        self.folder = Path(folder)
        self.samples, self.judgements, self.images = samples, judgements, images
        self._samples: list[list[Layer]] = []
        self._judged: list[Judgement] = []
        self._next_step = self._next_epoch = 0
        self._probe: Probe | None = None
        self._val_gains: list[float] = []
        # Of the training images PSNR and bicubic's PSNR, and the checkerboard's energy; until validation has ended.
        self._train: tuple[list[float], list[float], float] | None = None
        self._seconds: list[float] = []  # for a megapixel

    # what a checkpoint keeps of it

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "samples": [[asdict(layer) for layer in sample] for sample in self._samples],
            "judged": [asdict(judgement) for judgement in self._judged],
            "next": [self._next_step, self._next_epoch],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was seen before."""
        self._samples = [[Layer(**layer) for layer in sample] for sample in state_dict["samples"]]
        self._judged = [Judgement(**judgement) for judgement in state_dict["judged"]]
        self._next_step, self._next_epoch = state_dict["next"]

    # the steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: SuperResolution) -> None:  # type: ignore[override]
        """Say what will not be seen."""
        if pl_module.compiled and trainer.is_global_zero:
            log.info("Compiled: the diagnoses see the weights' gradients, but neither activations nor dead units.")

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: SuperResolution, batch: Any, batch_idx: int
    ) -> None:
        """Look closely, if it is time."""
        if trainer.is_global_zero and trainer.global_step >= self._next_step:
            self._probe = Probe(pl_module.generator, inside=not pl_module.compiled)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Take down what was seen, now that the gradients are whole, not scaled and not clipped."""
        if self._probe is None:
            return
        layers = self._probe.read()
        self._samples.append(layers)
        steps = int(trainer.estimated_stepping_batches)
        self._next_step = trainer.global_step + max(1, math.ceil(steps / self.samples))
        seen = {
            f"diagnoses/{key}/{layer.name}": value
            for layer in layers
            for key, value in layer.row().items()
            if isinstance(value, float) and math.isfinite(value)
        }
        for each in trainer.loggers:
            each.log_metrics(seen, step=trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Look away."""
        self._look_away()

    def _look_away(self) -> None:
        if self._probe is not None:
            self._probe.remove()
            self._probe = None

    # the validations

    def _due(self, trainer: pl.Trainer) -> bool:
        due = trainer.current_epoch >= self._next_epoch or trainer.current_epoch + 1 == trainer.max_epochs
        return trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit" and due

    def on_validation_batch_end(  # type: ignore[override]  # Lightning's batch is Any
        self,
        trainer: pl.Trainer,
        pl_module: SuperResolution,
        outputs: Tensor,
        batch: EvalImage,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what was gained on an image."""
        if self._due(trainer):
            psnr, bicubic = pl_module.image_psnr(batch.name)
            if bicubic is not None:
                self._val_gains.append(psnr - bicubic)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: SuperResolution) -> None:  # type: ignore[override]
        """Judge training images, while the generator has the weights that validation judges."""
        if self._due(trainer):
            generator = pl_module.generator
            energy = checkerboard(response(generator, generator.channels).cpu(), generator.scale)
            self._train = (*self._judge(trainer, pl_module), energy)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold the two against each other."""
        gains, self._val_gains = self._val_gains, []
        if self._train is None:
            return
        (psnr, bicubic, energy), self._train = self._train, None
        train_gains = [a - b for a, b in zip(psnr, bicubic, strict=True)]
        validated = trainer.callback_metrics
        judgement = Judgement(
            epoch=trainer.current_epoch + 1,
            train_psnr=statistics.fmean(psnr),
            train_gain=statistics.fmean(train_gains),
            val_psnr=float(validated["val/psnr"]),
            val_gain=float(validated["val/psnr_gain"]),
            error=_error(train_gains, gains),
            checkerboard=energy,
        )
        if not all(math.isfinite(value) for value in asdict(judgement).values() if value is not None):
            return  # it is diverging, and will say so
        self._judged.append(judgement)
        self._next_epoch = trainer.current_epoch + max(1, math.ceil((trainer.max_epochs or 1) / self.judgements))
        seen = {
            "diagnoses/train_psnr": judgement.train_psnr,
            "diagnoses/train_gain": judgement.train_gain,
            "diagnoses/gap": judgement.gap,
            "diagnoses/checkerboard": judgement.checkerboard,
        }
        for each in trainer.loggers:
            each.log_metrics(seen, step=trainer.global_step)

    @torch.no_grad()
    def _judge(self, trainer: pl.Trainer, module: SuperResolution) -> tuple[list[float], list[float]]:
        """PSNR in dB of some training images, and bicubic's."""
        protocol, scale = module.protocol, module.generator.scale
        if protocol.space == "rgb" and module.generator.channels == 1:
            protocol = replace(protocol, space="y")  # training images are kept without their colours
        metric = PSNR(protocol, scale)
        made: list[float] = []
        bicubic: list[float] = []
        for lr, hr in crops(trainer.datamodule.train_images, self.images):  # type: ignore[attr-defined]
            lr, hr = lr.to(module.device), hr.to(module.device)
            with trainer.precision_plugin.forward_context():
                given = trainer.precision_plugin.convert_input(lr)
                started = time.perf_counter()
                sr = module(given).float()
                if sr.is_cuda:
                    torch.cuda.synchronize(sr.device)
                self._seconds.append((time.perf_counter() - started) / (hr.shape[-1] * hr.shape[-2] / 1e6))
            for found, image in ((made, sr), (bicubic, enlarge(lr, scale))):
                metric.update(image, hr)
                found.append(metric.last.item())
        return made, bicubic

    # the end

    def on_train_end(self, trainer: pl.Trainer, pl_module: SuperResolution) -> None:  # type: ignore[override]
        """Say what it came to."""
        self._write(trainer, pl_module)

    def on_exception(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: SuperResolution, exception: BaseException
    ) -> None:
        """Say what is known of a training that diverged."""
        self._look_away()
        if isinstance(exception, Diverged):
            self._write(trainer, pl_module, diverged=str(exception))

    def _write(self, trainer: pl.Trainer, module: SuperResolution, diverged: str | None = None) -> None:
        if not trainer.is_global_zero:
            return
        counted = cost(module.generator)
        price = Price(
            parameters=counted.parameters,
            macs_per_pixel=counted.macs_per_pixel,
            seconds_per_megapixel=min(self._seconds, default=None),
            device=module.device.type,
        )
        layers = overall(self._samples)
        said = sentences(layers, self._judged, price, diverged)
        text = json.dumps(
            {
                "version": 1,
                "sentences": [asdict(sentence) for sentence in said],
                "layers": [layer.row() for layer in layers],
                "judgements": [asdict(judgement) for judgement in self._judged],
                "cost": asdict(price),
            },
            indent=1,
            allow_nan=False,
        )
        write_by_rename(self.folder / FILE, text + "\n")
        for each in trainer.loggers:
            if isinstance(each, RunLog):
                each.log_summary({f"diagnoses/{sentence.problem}": sentence.text for sentence in said})


def crops(images: Sequence[StoredImage], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The middle of `count` of the images: LR (1, C, h, w) and HR (1, C, s h, s w), float32 in [0, 1]."""
    count = min(count, len(images))
    for image in (images[i * len(images) // count] for i in range(count)):
        height, width = image.lr.shape[1:]
        scale = image.hr.shape[1] // height
        h, w = min(height, SIDE), min(width, SIDE)
        top, left = (height - h) // 2, (width - w) // 2
        lr = image.lr[:, top : top + h, left : left + w]
        hr = image.hr[:, scale * top : scale * (top + h), scale * left : scale * (left + w)]
        yield torch.from_numpy(lr.copy())[None], torch.from_numpy(hr.copy())[None].float() / 255


def read_sentences(folder: Path) -> list[Sentence]:
    """The sentences of the run in `folder`; none where there is no diagnosis."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [Sentence(**said) for said in json.loads(path.read_text(encoding="utf-8"))["sentences"]]


def _error(*groups: Sequence[float]) -> float | None:
    """The standard error of the difference of two means; None where one group is a single value."""
    if any(len(group) < 2 for group in groups):
        return None
    return math.sqrt(sum(statistics.variance(group) / len(group) for group in groups))
