"""Diagnoses: what is measured is true, the sick are found, the healthy left alone, and the training feels nothing."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from tests.small_job import FIGURES, NET, RECIPE, TRAINER, small_job
from torch import Tensor, nn

from upsweep.data.sources import Folder
from upsweep.metrics.figure import Figure, figures_of
from upsweep.networks import checkpoints
from upsweep.runs.verdicts import Judgement, Layer, Price, Sentence, overall, read_sentences
from upsweep.runs.verdicts import sentences as sentences_of
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tracking.csv_run import CsvRun
from upsweep.training.diagnoses import Diagnoses
from upsweep.training.job import Job, train
from upsweep.training.probe import Probe, silent
from upsweep.training.saving import SaveLast

DOOR = Path(__file__).resolve().parent.parent / "src" / "train.py"
RELU_ALONE: dict[str, Any] = {"dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}}
PRICE = Price(parameters=12_809, macs_per_pixel=6_000.0, seconds_per_megapixel=0.25)


def net(**changes: Any) -> dict[str, Any]:
    recipe = {**RECIPE, **changes.pop("recipe", {})}
    return {**NET, "recipe": recipe, **changes}


def activation(name: str) -> dict[str, Any]:
    return {"activation": {"_target_": f"torch.nn.{name}", "_partial_": True}}


def make_job(folder: Path, cache: Path, *, epochs: int = 2, **changes: Any) -> Job:
    watched = {"callbacks": [SaveLast(folder), Diagnoses(folder)], "generator": net()}
    return small_job(folder, cache, **{**watched, "trainer": {**TRAINER, "max_epochs": epochs}, **changes})


def sentences(*measured: Any) -> list[Sentence]:
    """What is said of layers, judgements, price, of which the headline is PSNR."""
    layers, judgements, price, *diverged = measured
    return sentences_of(layers, judgements, price, figures_of(FIGURES)[0], *diverged)


def said(folder: Path, problem: str) -> Sentence:
    (sentence,) = [s for s in read_sentences(folder) if s.problem == problem]
    return sentence


def found(said: Sequence[Sentence]) -> list[str]:
    return [sentence.problem for sentence in said if sentence.found]


def trained(network: nn.Module, steps: int = 8, lr: float = 1e-3) -> list[Layer]:
    """What probes see of a network (N, 1, h, w) -> the same that learns to copy noise with Adam."""
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr)
    samples = []
    for _ in range(steps):
        x = torch.rand(4, 1, 12, 12, generator=random)
        probe = Probe(network)
        optimizer.zero_grad()
        (network(x) - x).abs().mean().backward()
        samples.append(probe.read())
        probe.remove()
        optimizer.step()
    return overall(samples)


def chain(depth: int, activation: type[nn.Module], width: int = 8) -> nn.Sequential:
    """`depth` convolutions with an activation after each, and a linear last one, initialised as torch does."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(1 if i == 0 else width, width, 3, padding=1), activation()]
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))


def he(network: nn.Sequential) -> nn.Sequential:
    for module in network:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return network


# what is measured


def test_norms_ratios_and_moments_are_those_that_autograd_gives() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 1, 1))
    x = torch.rand(2, 1, 6, 6)
    probe = Probe(network)
    network(x).square().sum().backward()
    first, last = probe.read()
    probe.remove()
    hidden = network[0](x).detach().requires_grad_()
    y = network[2](network[1](hidden)).requires_grad_()
    (at_hidden,) = torch.autograd.grad(y.square().sum(), hidden)
    z = network[1](hidden).detach()
    weight = network[0].weight
    assert (first.name, first.activation, last.activation) == ("0", "Tanh", None)
    assert first.gradient_norm == pytest.approx(weight.grad.norm().item())  # type: ignore[union-attr, operator]
    assert first.weight_norm == pytest.approx(weight.norm().item())  # type: ignore[operator]
    assert first.gradient_to_weight == pytest.approx(first.gradient_norm / first.weight_norm)  # type: ignore[operator]
    assert first.signal == pytest.approx((at_hidden.norm() / (2 * y).norm()).item(), rel=1e-5)
    assert (first.mean, first.deviation) == pytest.approx((z.mean().item(), z.std(correction=0).item()), rel=1e-5)
    assert first.saturated == pytest.approx((z.abs() > 0.9).float().mean().item())
    assert first.dead is None and last.signal == 1


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.ReLU(), [True, True, False]),
        (nn.ReLU6(), [True, True, False]),
        (nn.LeakyReLU(0.0), [True, True, False]),
        (nn.LeakyReLU(0.1), [False] * 3),
        (nn.PReLU(3), [False] * 3),
        (nn.PReLU(3, init=0.0), [True, True, False]),
        (nn.PReLU(1), [False] * 3),
    ],
)
def test_a_channel_is_silent_where_a_slope_of_0_holds_it_at_0_everywhere(
    module: nn.Module, expected: list[bool]
) -> None:
    x = torch.full((2, 3, 4, 4), -1.0)
    x[:, 1] = 0  # a PReLU's channel may be 0 without being dead
    x[1, 2, 3, 3] = 1.0  # one pixel is enough to live
    mask = silent(module, module(x))
    assert mask is not None and mask.tolist() == expected
    assert silent(nn.GELU(), x) is None


def test_a_prelu_dies_channel_by_channel() -> None:
    module = nn.PReLU(2)
    with torch.no_grad():
        module.weight[0] = 0
    mask = silent(module, module(torch.full((1, 2, 3, 3), -1.0)))
    assert mask is not None and mask.tolist() == [True, False]


class Shared(nn.Module):
    """One convolution and one ReLU, in place, passed twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.conv(self.act(self.conv(x))))
        return y


def test_modules_that_are_passed_twice_are_two_rows_and_in_place_activations_are_fine() -> None:
    network, x = Shared(), torch.rand(1, 1, 5, 5)
    network(x).sum().backward()
    expected = network.conv.weight.grad
    network.zero_grad()
    probe = Probe(network)
    network(x).sum().backward()
    rows = probe.read()
    assert [(row.name, row.activation, row.channels) for row in rows] == [("conv", "ReLU", 1), ("conv:2", "ReLU", 1)]
    assert torch.equal(network.conv.weight.grad, expected)  # type: ignore[arg-type]
    probe.remove()
    assert not network.conv._forward_hooks and not network.act._forward_hooks


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_a_parametrised_layer_is_one_layer(norm: str) -> None:
    network = nn.Sequential(getattr(nn.utils.parametrizations, norm)(nn.Conv2d(1, 2, 3)), nn.ReLU())
    probe = Probe(network)
    network(torch.rand(1, 1, 5, 5)).sum().backward()
    (row,) = probe.read()
    assert row.name == "0" and row.activation == "ReLU" and row.gradient_norm is not None


def test_a_frozen_layer_and_one_that_is_not_passed_are_no_error() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1).requires_grad_(False), nn.Conv2d(2, 1, 1))
    network.add_module("unused", nn.Conv2d(1, 1, 1))
    probe = Probe(network)
    network[1](network[0](torch.rand(1, 1, 4, 4))).sum().backward()
    frozen, last = probe.read()
    assert frozen.gradient_norm is None and frozen.signal is None and last.signal == 1


def test_the_whole_is_the_median_and_a_channel_must_be_silent_in_all_of_the_second_half() -> None:
    samples = [
        [Layer(name="a", gradient_norm=g, channels=4, silent=mask)]
        for g, mask in ((1.0, (0, 1, 2, 3)), (9.0, ()), (2.0, (0, 1)), (3.0, (1, 2)))
    ]
    (layer,) = overall(samples)
    assert (layer.gradient_norm, layer.silent, layer.dead) == (2.5, (1,), 0.25)
    assert overall([]) == []


# the sick


def test_twenty_sigmoid_layers_lose_the_gradient() -> None:
    layers = trained(chain(20, nn.Sigmoid))
    gradients, *_ = sentences(layers, [], PRICE)
    assert (gradients.problem, gradients.found, gradients.group) == ("vanishing gradients", True, "activation")
    assert layers[0].signal is not None and layers[0].signal < 1e-8
    assert f"{layers[0].signal:.1e}" in gradients.text and "20 layers behind" in gradients.text


def test_a_gradient_that_weights_too_small_lose_asks_for_another_init() -> None:
    network = chain(6, nn.LeakyReLU)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.01)
    gradients, *_ = sentences(trained(network, lr=0.0), [], PRICE)
    assert (gradients.problem, gradients.found, gradients.group) == ("vanishing gradients", True, "init")


def test_weights_too_large_let_it_explode() -> None:
    network = he(chain(8, nn.ReLU))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(10)
    gradients, *_ = sentences(trained(network), [], PRICE)
    assert (gradients.problem, gradients.found, gradients.group) == ("exploding gradients", True, "init")


def test_a_huge_negative_bias_kills_relus() -> None:
    network = he(chain(3, nn.ReLU))
    with torch.no_grad():
        network[2].bias.fill_(-100.0)  # type: ignore[operator]
    gradients, *_ = sentences(trained(network), [], PRICE)
    assert (gradients.problem, gradients.found, gradients.group) == ("vanishing gradients", True, "activation")
    assert "100% of the channels after 2 are 0" in gradients.text


def test_a_tanh_that_is_driven_to_its_ends_is_called_saturated() -> None:
    network = he(chain(2, nn.Tanh))
    with torch.no_grad():
        network[0].weight.mul_(100)  # type: ignore[operator]
    gradients, *_ = sentences(trained(network), [], PRICE)
    assert gradients.found and gradients.group == "activation" and "Saturated units" in gradients.text


def images_in(folder: Path, count: int, seed: int, side: int = 48) -> Path:
    """Noise that can be learned by heart, and teaches nothing."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def memoriser(folder: Path, *, images: int, steps: int, **changes: Any) -> Job:
    source = Folder(
        root=str(images_in(folder / "train", images, seed=0, side=24)),
        val_root=str(images_in(folder / "val", 3, seed=1, side=24)),
    )
    sizes: dict[str, Any] = {"patch_size": 12, "batch_size": 4, "patches_per_epoch": steps, "augment": False}
    data = PatchData(source=source, scale=2, channels=1, seed=1, cache="none", **sizes)
    return make_job(folder / "run", folder, data=data, optimizer=partial(torch.optim.Adam, lr=3e-3), **changes)


def test_four_images_and_a_large_network_overfit(tmp_path: Path) -> None:
    job = memoriser(tmp_path, images=4, steps=160, epochs=4, generator=net(width=32, depth=2, recipe=RELU_ALONE))
    train(job)
    sentence = said(job.folder, "overfitting")
    assert sentence.found and sentence.group == "dropout" and "It overfits" in sentence.text


def test_a_training_that_diverges_is_said_to_explode(tmp_path: Path, cache: Path) -> None:
    job = make_job(tmp_path, cache, objective=nn.MSELoss(), optimizer=partial(torch.optim.SGD, lr=1e30))
    assert train(job).state == "diverged"
    sentence = said(tmp_path, "exploding gradients")
    assert sentence.found and sentence.group == "optimizer" and "the loss was not finite" in sentence.text


def test_a_validation_that_falls_while_training_rises_is_overfitting_and_one_that_only_stays_is_not() -> None:
    def judged(*gains: tuple[float, float]) -> list[Judgement]:
        return [
            Judgement(epoch=i + 1, train=30 + t, train_lead=t, val=30 + v, val_lead=v, error=0.2)
            for i, (t, v) in enumerate(gains)
        ]

    falls = sentences([], judged((1.0, 0.9), (1.5, 1.2), (1.9, 1.0)), PRICE)
    assert found(falls) == ["overfitting"] and "lost 0.20 dB since epoch 2" in falls[1].text
    assert found(sentences([], judged((1.0, 0.2), (4.0, 1.0)), PRICE)) == ["overfitting"]
    for healthy in (
        judged((1.0, 0.9), (1.5, 1.2), (1.5, 1.1)),  # both stay
        judged((1.0, 0.9), (1.3, 1.15)),
        judged((3.0, 1.9)),  # half of it and more reaches validation: easier images
        judged((0.5, 1.9)),
    ):
        assert found(sentences([], healthy, PRICE)) == []
    unlike = [replace(j, error=2.0) for j in judged((4.0, 1.0))]  # images differ more than that among themselves
    assert found(sentences([], unlike, PRICE)) == []


@pytest.mark.parametrize(
    ("leads", "advice"),
    [([-3.0, -1.776], "still rising: more steps"), ([-1.776, -1.776], "no longer rises: a smaller optimizer.lr")],
)
def test_a_network_below_its_baseline_is_said_to_be_so_and_what_helps(leads: list[float], advice: str) -> None:
    judged = [
        Judgement(epoch=i + 1, train=30 + lead, train_lead=lead, val=30 + lead, val_lead=lead)
        for i, lead in enumerate(leads)
    ]
    below = next(one for one in sentences([], judged, PRICE) if one.problem == "below the baseline")
    assert below.found and below.text.startswith("Below bicubic: 1.78 dB in validation") and advice in below.text
    assert not any("gains" in one.text for one in sentences([], judged, PRICE))
    judged[-1] = replace(judged[-1], val_lead=0.3)
    assert not any(one.problem == "below the baseline" for one in sentences([], judged, PRICE))


def test_the_words_are_those_of_the_figure() -> None:
    error = Figure(name="error", title="error", unit="%", better="lower", digits=1, baseline="chance", margin="cut")
    judged = [Judgement(epoch=1, train=60, train_lead=-10, val=60, val_lead=-10)]
    found = sentences_of([], judged, PRICE, error)
    assert any(one.found and one.text.startswith("Worse than chance: 10.0 % in validation") for one in found)


def test_a_cost_has_its_numbers_and_only_a_high_one_is_a_problem() -> None:
    (_, low), (_, high) = sentences([], [], PRICE), sentences([], [], replace(PRICE, macs_per_pixel=3.4e5))
    assert not low.found and high.found and high.group == "generator"
    assert "12,809 parameters, 6,000 multiply-adds a pixel, 0.25 s a megapixel on cpu" in low.text
    assert "340,000 multiply-adds" in high.text


# the healthy


@pytest.mark.parametrize("activation", [nn.ReLU, nn.PReLU, nn.LeakyReLU, nn.GELU, nn.Tanh])
def test_a_sound_chain_is_not_accused(activation: type[nn.Module]) -> None:
    assert found(sentences(trained(he(chain(6, activation))), [], PRICE)) == []


def test_twenty_relu_layers_with_he_are_not_accused() -> None:
    assert found(sentences(trained(he(chain(20, nn.ReLU)), lr=1e-4), [], PRICE)) == []


def test_a_run_on_photos_is_not_accused_and_says_what_was_measured(tmp_path: Path, cache: Path) -> None:
    train(make_job(tmp_path, cache, logger=CsvRun(tmp_path), generator=net(width=8)))
    ailing = [sentence.problem for sentence in read_sentences(tmp_path) if sentence.found]
    assert ailing == ["below the baseline"]  # after six steps
    report = json.loads((tmp_path / "diagnoses.json").read_text())
    assert report["version"] == 1
    assert [s["problem"] for s in report["sentences"]] == ["vanishing gradients", "overfitting", *ailing, "cost"]
    assert [layer["name"] for layer in report["layers"]] == ["convs.0.layer", "upsampler.0.layer", "last"]
    last = report["judgements"][-1]
    assert last["epoch"] == 2 and last["val"] - last["val_lead"] == pytest.approx(33.5, abs=3)
    assert report["cost"]["seconds_per_megapixel"] > 0 and last["checkerboard"] > 0
    header = (tmp_path / "csv" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    for name in (
        *("gradient_norm/last", "gradient_to_weight/convs.0.layer", "signal/convs.0.layer", "dead/convs.0.layer"),
        *("mean/upsampler.0.layer", "deviation/last", "gap", "train_psnr", "train_gain", "checkerboard"),
    ):
        assert f"diagnoses/{name}" in header


# the training feels nothing


def weights(folder: Path) -> dict[str, Tensor]:
    return checkpoints.generator_weights(checkpoints.read(folder / "checkpoints" / "last.ckpt"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_weights_are_the_same_without_diagnoses(tmp_path: Path, cache: Path, accumulate: int) -> None:
    seen, unseen = make_job(tmp_path / "a", cache), make_job(tmp_path / "b", cache)
    for job in (seen, unseen):
        job.trainer["accumulate_grad_batches"] = accumulate
    train(seen)
    train(replace(unseen, callbacks=unseen.callbacks[:1]))
    a, b = weights(seen.folder), weights(unseen.folder)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not (unseen.folder / "diagnoses.json").exists()


class KillError(Exception):
    """Stands for a kill."""


class Samples(pl.Callback):
    """Counts, at the end, what the diagnoses saw, and stops at a batch as a kill would."""

    def __init__(self, watched: Diagnoses, stop: int | None = None) -> None:
        self.watched, self.stop, self.steps, self.judged = watched, stop, 0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.stop:
            raise KillError

    def on_train_end(self, *_: Any) -> None:
        state = self.watched.state_dict()
        self.steps, self.judged = len(state["samples"]), len(state["judged"])


def test_a_resumed_run_ends_with_the_same_weights_and_has_seen_as_much(tmp_path: Path, cache: Path) -> None:
    whole = make_job(tmp_path / "a", cache, epochs=3)
    train(whole)
    broken = make_job(tmp_path / "b", cache, epochs=3)
    with pytest.raises(KillError):
        train(replace(broken, callbacks=[*broken.callbacks, Samples(Diagnoses(tmp_path), stop=7)]))
    resumed = make_job(tmp_path / "b", cache, epochs=3, resume=True)
    (watched,) = [c for c in resumed.callbacks if isinstance(c, Diagnoses)]
    count = Samples(watched)
    train(replace(resumed, callbacks=[*resumed.callbacks, count]))
    a, b = weights(whole.folder), weights(broken.folder)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (count.steps, count.judged) == (9, 3)
    for part in ("layers", "judgements"):
        first, second = (json.loads((tmp_path / x / "diagnoses.json").read_text())[part] for x in "ab")
        assert first == second


@pytest.mark.slow
def test_two_devices_are_diagnosed_by_one_and_none_waits(tmp_path: Path) -> None:
    command = [
        *("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none"),
        *("data.patches_per_epoch=128", "generator.width=4", f"hydra.run.dir={tmp_path / 'run'}"),
    ]
    done = subprocess.run(
        [sys.executable, DOOR, *command], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=280
    )
    report = json.loads((tmp_path / "run" / "diagnoses.json").read_text())
    assert [judgement["epoch"] for judgement in report["judgements"]] == [1, 2]
    assert done.stdout.count("Gradients neither vanish nor explode") == 1


def test_hooks_are_there_on_sampled_steps_alone(tmp_path: Path, cache: Path) -> None:
    steps: list[int] = []

    class Hooks(pl.Callback):
        def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
            if any(module._forward_hooks for module in pl_module.generator.modules()):  # type: ignore[union-attr]
                steps.append(trainer.global_step)

    job = make_job(tmp_path, cache, epochs=4)
    train(replace(job, callbacks=[Diagnoses(tmp_path, samples=4), Hooks()]))
    assert steps == [0, 3, 6, 9]


def test_a_compiled_training_says_what_is_not_seen(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    with caplog.at_level("INFO", "upsweep"):
        train(make_job(tmp_path, cache, compiled=True))
    assert "neither activations nor dead units" in caplog.text
    (first, *_) = json.loads((tmp_path / "diagnoses.json").read_text())["layers"]
    assert first["gradient_norm"] > 0 and first["dead"] is None and first["signal"] is None
    assert "at the first layer they are" in said(tmp_path, "vanishing gradients").text
