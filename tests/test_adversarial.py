"""What two players promise: who steps when, that neither touches the other, that a broken run goes on undisturbed."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.small_duel import DISCRIMINATOR, GENERATOR, NORMED, adversary, small_duel
from tests.small_job import TRAINER, small_job
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.objectives.adversarial.losses import Hinge, NonSaturating, Relativistic, Wasserstein
from upsweep.objectives.adversarial.penalties import Penalties
from upsweep.runs.result import Result
from upsweep.training import schedules
from upsweep.training.adversarial import Adversarial, frozen
from upsweep.training.callbacks import EMA
from upsweep.training.job import Job, train
from upsweep.training.records import History
from upsweep.training.scaling import RateRule
from upsweep.training.supervised import Supervised

QUIET: dict[str, Any] = {**NORMED, "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}}  # draws nothing
PLAIN: dict[str, Any] = {**QUIET, "norm": {"_target_": "upsweep.blocks.norm.Norm"}}
DOOR = [sys.executable, str(Path(__file__).resolve().parent.parent / "src" / "train.py")]
TINY = [
    *("task=generation", "adversary=dcgan", "generator.width=2", "adversary.discriminator.width=2", "data.samples=50"),
    *("data.batch_size=16", "data.patches_per_epoch=128", "logger=none", "trainer.accelerator=cpu"),
]
VAE_NET: dict[str, Any] = {
    "_target_": "upsweep.networks.synthesisers.vae.VAE",
    "recipe": NORMED,
    "latent": 4,
    "size": 28,
    "channels": 1,
    "width": 2,
}


class Record(pl.Callback):
    """Both players' weights before every batch and at the end, their rates, and who stepped."""

    def __init__(self) -> None:
        self.weights: list[dict[str, dict[str, Tensor]]] = []
        self.rates: list[tuple[float, ...]] = []
        self.steps: list[str] = []
        self.losses: list[float] = []
        self.iterations: list[int] = []

    def _look(self, trainer: pl.Trainer, module: Adversarial) -> None:
        self.weights.append({name: copied(p.network) for name, p in module.players.items()})
        self.rates.append(tuple(o.param_groups[0]["lr"] for o in trainer.optimizers))
        self.iterations.append(module.iterations)

    def on_train_batch_start(self, trainer: pl.Trainer, module: Adversarial, *_: Any) -> None:  # type: ignore[override]
        self._look(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Adversarial, outputs: Any, *_: Any) -> None:  # type: ignore[override]
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, trainer: pl.Trainer, module: Adversarial) -> None:  # type: ignore[override]
        self._look(trainer, module)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Adversarial, optimizer: Any) -> None:  # type: ignore[override]
        self.steps.append(list(module.players)[trainer.optimizers.index(optimizer)][0])


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def learned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the running statistics, which looking alone moves."""
    return {name: value for name, value in state.items() if "running" not in name and "num_batches" not in name}


def recorded(job: Job) -> tuple[Record, Result]:
    record = Record()
    return record, train(replace(job, callbacks=[record, *job.callbacks]))


def last_of(folder: Path) -> dict[str, Any]:
    return checkpoints.read(folder / "checkpoints" / "last.ckpt")


def last(job: Job) -> dict[str, Any]:
    return last_of(job.folder)


# turns


def test_the_discriminator_steps_on_every_batch_and_the_generator_on_every_nth(tmp_path: Path, cache: Path) -> None:
    record, result = recorded(small_duel(tmp_path, cache, against=adversary(steps=3)))
    assert "".join(record.steps) == "dddgdddg" * 2
    assert record.iterations == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert result.state == "finished" and last_iterations(tmp_path) == 4
    for batch, (before, after) in enumerate(zip(record.weights, record.weights[1:], strict=False)):
        assert not same(learned(before["discriminator"]), learned(after["discriminator"]))
        assert same(learned(before["generator"]), learned(after["generator"])) == ((batch + 1) % 3 != 0)


def last_iterations(folder: Path) -> int:
    found: int = last_of(folder)[checkpoints.KEY]["iterations"]
    return found


@pytest.mark.parametrize(("steps", "batches"), [(1, 6), (2, 6), (2, 7)])
def test_each_players_schedule_ends_with_the_training(tmp_path: Path, cache: Path, steps: int, batches: int) -> None:
    against = adversary(steps=steps, schedule=schedules.Cosine())
    record, _ = recorded(small_duel(tmp_path, cache, against=against, patches_per_epoch=8 * batches))
    turns = 2 * (batches // steps)
    for place, total in enumerate((turns, 2 * batches)):
        taken = dict.fromkeys(rates[place] for rates in record.rates)
        cosine = [5e-4 * (1 + math.cos(math.pi * i / total)) / 2 for i in range(total + 1)]
        assert list(taken) == pytest.approx(cosine, abs=1e-12)


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()])
def test_in_its_turn_a_player_gives_the_other_no_gradient(
    tmp_path: Path, cache: Path, loss: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counter[str]()
    step = Adversarial._step

    def watched(module: Adversarial, player: str, value: Tensor, *, steps: bool) -> None:
        (other,) = [p.network for name, p in module.players.items() if name != player]
        step(module, player, value, steps=False)
        assert all(p.grad is None or not p.grad.any() for p in other.parameters())
        assert any(p.grad is not None and p.grad.any() for p in module.players[player].network.parameters())
        seen[player] += 1
        module.zero_grad()

    monkeypatch.setattr(Adversarial, "_step", watched)
    penalties = Penalties(r1=1, r2=1, gradient=1)
    train(small_duel(tmp_path, cache, against=adversary(loss=loss, penalties=penalties)))
    assert seen == {"generator": 12, "discriminator": 12}


def test_frozen_weights_pass_gradients_and_are_as_before_afterwards() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    network[0].requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="broken off"), frozen([*network[1].parameters()]):
        network(x).sum().backward()
        raise RuntimeError("broken off")
    assert x.grad is not None and x.grad.any() and network[1].weight.grad is None
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]


def test_one_step_is_that_of_a_bare_loop(tmp_path: Path, cache: Path) -> None:
    spec, judge = {**GENERATOR, "recipe": QUIET}, {**DISCRIMINATOR, "recipe": QUIET}
    job = small_duel(
        tmp_path, cache, generator=spec, against=adversary(discriminator=judge), channels_last=False, clip=0.1
    )
    batches: list[Any] = []

    class Keep(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            batches.append(batch)

    record = Record()
    train(replace(job, callbacks=[record, Keep(), *job.callbacks]))
    g, d = checkpoints.build(spec), checkpoints.build(judge)
    g.load_state_dict(record.weights[0]["generator"])
    d.load_state_dict(record.weights[0]["discriminator"])
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), lr=5e-4, betas=(0.5, 0.999)) for n in (g, d))
    latent, real = batches[0]
    made, loss = g(latent), NonSaturating()
    for optimizer, network, value in (
        (opt_d, d, lambda: loss.discriminator(d(real), d(made.detach()))),
        (opt_g, g, lambda: loss.generator(None, d(made))),
    ):
        optimizer.zero_grad()
        value().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
    for name, network in (("generator", g), ("discriminator", d)):
        for key, value in network.state_dict().items():
            torch.testing.assert_close(record.weights[1][name][key], value, rtol=1e-4, atol=1e-6)


def test_gradients_are_summed_over_batches_and_both_players_step_less_often(tmp_path: Path, cache: Path) -> None:
    job = small_duel(tmp_path, cache, accumulate=2, against=adversary(steps=2), patches_per_epoch=8 * 9)
    record, _ = recorded(job)
    assert "".join(record.steps) == "ddgddg" * 2  # of nine batches the last is too few for a step
    assert last_iterations(tmp_path) == 4 and record.rates[-1] == pytest.approx((0.0, 0.0), abs=1e-12)


def test_a_discriminator_that_sums_two_batches_is_taught_as_by_one_of_both(tmp_path: Path, cache: Path) -> None:
    sgd = partial(torch.optim.SGD, lr=0.1)
    against = adversary(discriminator={**DISCRIMINATOR, "recipe": PLAIN}, optimizer=sgd)
    steps = []
    for name, how in (("two", {"accumulate": 2}), ("one", {"batch_size": 16})):
        job = small_duel(tmp_path / name, cache, generator={**GENERATOR, "recipe": PLAIN}, against=against, **how)
        record, _ = recorded(job)
        steps.append(record.weights[2 if name == "two" else 1]["discriminator"])
    for name, value in steps[0].items():
        torch.testing.assert_close(value, steps[1][name], rtol=1e-4, atol=1e-6)


def test_the_batch_whose_rate_is_scaled_is_that_of_a_step(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "upsweep")
    job = small_duel(tmp_path, cache, accumulate=2, rule=RateRule("linear", 8))
    record, _ = recorded(job)
    assert record.rates[0] == pytest.approx((1e-3, 1e-3))
    assert "16 patches a step" in caplog.text


def test_an_epoch_in_which_the_generator_never_steps_is_one_sentence(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"epoch of 6 batches is too short.*adversary.steps=4 times.*batches=2"):
        train(small_duel(tmp_path, cache, accumulate=2, against=adversary(steps=4)))


def test_one_step_alone_is_no_duel_and_passes(tmp_path: Path, cache: Path) -> None:
    """fast_dev_run=true: Lightning allows one step, of whichever player."""
    result = train(small_duel(tmp_path, cache, trainer={**TRAINER, "fast_dev_run": True}))
    assert result.state == "finished"


@pytest.mark.parametrize("changes", [{"steps": 0}, {"weight": -1.0}])
def test_an_adversary_that_cannot_be_is_one_sentence(changes: dict[str, Any]) -> None:
    (key,) = changes
    with pytest.raises(UserError, match=f"adversary.{key}="):
        adversary(**changes)


def test_an_upscaler_is_no_discriminator(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="judges no images"):
        train(small_duel(tmp_path, cache, against=adversary(discriminator=GENERATOR)))


# what a run has


def broken_off(job: Job, epoch: int, batch: int) -> None:
    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, _: Any, batch_idx: int) -> None:
            if (trainer.current_epoch, batch_idx) == (epoch, batch):
                raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        train(replace(job, callbacks=[*job.callbacks, Stop()]))


def test_a_duel_does_not_go_on_with_another_discriminator(tmp_path: Path, cache: Path) -> None:
    train(small_duel(tmp_path, cache))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    wider = adversary(discriminator={**DISCRIMINATOR, "width": 4})
    longer = {**TRAINER, "max_epochs": 3}
    with pytest.raises(UserError, match=r"does not fit the discriminator: .* is \[2, .* and \[4, .* network\.$"):
        train(small_duel(tmp_path, cache, against=wider, resume=True, trainer=longer))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", [{}, {"against": adversary(steps=2, loss=Wasserstein())}, {"accumulate": 4}])
def test_a_duel_that_was_broken_off_and_resumed_ends_bit_for_bit_alike(
    tmp_path: Path, cache: Path, how: dict[str, Any]
) -> None:
    def duel(name: str, **more: Any) -> Job:
        folder = tmp_path / name
        job = small_duel(folder, cache, trainer={**TRAINER, "max_epochs": 3}, **how, **more)
        return replace(job, callbacks=[EMA(0.9), History(folder), *job.callbacks])

    whole = duel("whole")
    result = train(whole)
    broken_off(duel("broken"), 1, 2)
    again = train(duel("broken", resume=True))
    first, second = last(whole), last(duel("broken"))
    assert same(first["state_dict"], second["state_dict"]) and same(first[checkpoints.EMA], second[checkpoints.EMA])
    assert {name.split(".")[0] for name in first["state_dict"]} >= {"generator", "discriminator"}
    for key in ("optimizer_states", "lr_schedulers"):
        assert len(first[key]) == 2
        torch.testing.assert_close(second[key], first[key], rtol=0, atol=0)
    assert first[checkpoints.KEY]["iterations"] == second[checkpoints.KEY]["iterations"] > 0
    assert again.figures == result.figures
    losses = [column(tmp_path / name, "loss") for name in ("whole", "broken")]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def column(folder: Path, name: str) -> list[str]:
    with (folder / "history.csv").open() as file:
        return [row[name] for row in csv.DictReader(file)]


def test_the_average_is_the_generators_alone_and_follows_its_steps(tmp_path: Path, cache: Path) -> None:
    job = small_duel(tmp_path, cache, against=adversary(steps=3))
    record = Record()
    train(replace(job, callbacks=[EMA(0.9), record, *job.callbacks]))
    average, expected = last(job)[checkpoints.EMA], record.weights[0]["generator"]
    for step in (1, 2, 3, 4):
        decay = min(0.9, (1 + step) / (10 + step))
        after = record.weights[3 * step]["generator"]
        expected = {k: v.lerp(after[k], 1 - decay) if v.is_floating_point() else after[k] for k, v in expected.items()}
    assert set(average) == set(record.weights[0]["generator"])
    for name, value in average.items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_either_player_that_diverges_ends_the_duel(tmp_path: Path, cache: Path, player: str) -> None:
    huge = partial(torch.optim.SGD, lr=1e30)
    own = {"optimizer": huge} if player == "discriminator" else {}
    given: dict[str, Any] = {
        "against": adversary(discriminator={**DISCRIMINATOR, "recipe": PLAIN}, loss=Hinge(), **own)
    }
    given |= {"generator": {**GENERATOR, "recipe": PLAIN}, **({} if own else {"optimizer": huge})}
    result = train(small_duel(tmp_path, cache, trainer={**TRAINER, "max_epochs": 20}, **given))
    assert result.state == "diverged" and "not finite in epoch" in (result.reason or "")


def test_channels_last_reaches_both_players_and_changes_nothing_else(tmp_path: Path, cache: Path) -> None:
    three = {"channels": 3, "recipe": QUIET}
    given: dict[str, Any] = {
        "generator": {**GENERATOR, **three},
        "against": adversary(discriminator={**DISCRIMINATOR, **three}),
        "channels": 3,
    }
    states = []
    for flag in (False, True):
        job = small_duel(tmp_path / str(flag), cache, channels_last=flag, **given)
        record, _ = recorded(job)
        states.append(record.weights[1])
        big = [w for part in record.weights[-1].values() for w in part.values() if w.ndim == 4 and w.shape[1] > 1]
        laid = [w.is_contiguous(memory_format=torch.channels_last) for w in big if min(w.shape[2:]) > 1]
        assert laid and all(laid) == flag
    for player, state in states[0].items():
        for name, value in state.items():
            torch.testing.assert_close(states[1][player][name], value, rtol=1e-3, atol=1e-3)


def test_compiling_keeps_names_and_weights(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = 0

    def backend(module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return module.forward

    plain, _ = recorded(small_duel(tmp_path / "plain", cache))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled, _ = recorded(small_duel(tmp_path / "compiled", cache, compiled=True))
    assert graphs == 1, "a graph break, or another graph for every batch"
    assert all(same(plain.weights[-1][name], compiled.weights[-1][name]) for name in plain.weights[-1])


def test_bfloat16_keeps_float32_weights_and_takes_every_penalty(tmp_path: Path, cache: Path) -> None:
    against = adversary(penalties=Penalties(r1=1, r2=1, gradient=1))
    job = small_duel(tmp_path, cache, trainer={**TRAINER, "precision": "bf16-mixed"}, against=against)
    record, result = recorded(job)
    assert result.state == "finished" and all(math.isfinite(loss) for loss in record.losses)
    assert {v.dtype for v in record.weights[-1]["discriminator"].values() if v.is_floating_point()} == {torch.float32}


def test_a_data_driven_initialisation_of_the_discriminator_sees_real_images(tmp_path: Path, cache: Path) -> None:
    lsuv = {**PLAIN, "init": {"_target_": "upsweep.blocks.init.LSUV"}}
    job = small_duel(tmp_path, cache, against=adversary(discriminator={**DISCRIMINATOR, "recipe": lsuv}))
    record, _ = recorded(job)
    network = checkpoints.build(job.training.keywords["adversary"].discriminator)  # type: ignore[attr-defined]
    network.load_state_dict(record.weights[0]["discriminator"])
    seen = [value for key, value in record.weights[0]["generator"].items() if key.endswith("num_batches_tracked")]
    assert seen and not any(seen), "the generator's statistics have not begun"
    real = next(iter(job.task.data.train_dataloader())).real
    with torch.no_grad():
        first = network.eval().encoder[0][0](2 * real - 1)  # type: ignore[index, operator]
    assert first.var().item() == pytest.approx(1, abs=0.1)


# other tasks and networks


def test_super_resolution_with_an_adversary_is_srgan(tmp_path: Path, cache: Path) -> None:
    judge = {**DISCRIMINATOR, "size": 16}
    against = adversary(discriminator=judge, weight=1e-3)
    job = small_job(tmp_path, cache)
    learning: dict[str, Any] = {
        "objective": nn.L1Loss(),
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
        "schedule": schedules.Cosine(),
    }
    record, result = recorded(replace(job, training=partial(Adversarial, adversary=against, **learning)))
    assert result.state == "finished" and "psnr" in result.figures and "".join(record.steps) == "dg" * 6
    assert not same(record.weights[0]["discriminator"], record.weights[-1]["discriminator"])
    # the objective counts beside the adversary: a loss of about 0.2, and 0.0007 from the adversary
    assert 0.02 < record.losses[0] < 1


def test_a_weight_of_0_leaves_the_objective_alone(tmp_path: Path, cache: Path) -> None:
    against = adversary(weight=0.0, discriminator={**DISCRIMINATOR, "recipe": QUIET})
    plain = small_duel(tmp_path / "alone", cache, generator=VAE_NET)
    duel = small_duel(tmp_path / "duel", cache, generator=VAE_NET, against=against)
    train(plain)
    train(duel)
    alone, both = (
        {k: v for k, v in last(job)["state_dict"].items() if k.startswith("generator.")} for job in (plain, duel)
    )
    assert same(alone, both)


def test_a_vae_learns_without_an_adversary_and_a_gan_does_not(tmp_path: Path, cache: Path) -> None:
    job = small_duel(tmp_path / "vae", cache, generator=VAE_NET, trainer={**TRAINER, "max_epochs": 6})
    losses: list[float] = []

    class Losses(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
            losses.append(float(trainer.callback_metrics["train/loss"]))

    train(replace(job, callbacks=[Losses(), *job.callbacks]))
    assert losses[-1] < losses[0]
    keywords = job.training.keywords  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"adversary=dcgan.*generator=vae"):
        train(replace(small_duel(tmp_path / "gan", cache), training=partial(Supervised, **keywords)))


# real processes


def epochs_done(folder: Path) -> int:
    with suppress(UserError):
        return int(last_of(folder)["epoch"]) + 1
    return 0


@pytest.mark.slow
def test_a_duel_that_is_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    command = [*DOOR, *TINY, "trainer.max_epochs=8", "adversary.steps=2", "callbacks.ema.decay=0.9"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, f"hydra.run.dir={whole}"], cwd=tmp_path, check=True, capture_output=True)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    job = subprocess.Popen([*command, f"hydra.run.dir={killed}"], cwd=tmp_path, **quiet)
    while job.poll() is None and epochs_done(killed) < 3:
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL, "it must be killed while it trains"
    subprocess.run([*DOOR, f"resume={killed}"], cwd=tmp_path, check=True, capture_output=True)
    first, second = last_of(whole), last_of(killed)
    assert same(first["state_dict"], second["state_dict"]) and same(first[checkpoints.EMA], second[checkpoints.EMA])
    torch.testing.assert_close(second["optimizer_states"], first["optimizer_states"], rtol=0, atol=0)
    results = [Result.read(folder) for folder in (whole, killed)]
    assert results[0] is not None and results[1] is not None and results[0].figures == results[1].figures


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan", "wgan_gp", "r3gan"])
def test_two_ranks_hold_the_same_players_and_do_not_wait_for_each_other(tmp_path: Path, name: str) -> None:
    (tmp_path / "watching.py").write_text(
        "import torch, pytorch_lightning as pl\n"
        "class Watch(pl.Callback):\n"
        "    def on_validation_epoch_start(self, trainer, module):\n"
        "        self.judged = {f'judged.{k}': v.clone() for k, v in module.generator.state_dict().items()}\n"
        "    def on_train_end(self, trainer, module):\n"
        "        learned = self.judged | {f'{who}.{k}': v for who, p in module.players.items()\n"
        "                   for k, v in p.network.named_parameters()}\n"
        "        torch.save({**learned, 'iterations': module.iterations}, f'rank{trainer.global_rank}')\n"
    )
    command = [
        *(*TINY, f"adversary={name}", "trainer=ddp", "trainer.devices=2", "trainer.max_epochs=2", "init=lsuv"),
        *("adversary.steps=2", "+callbacks.watch._target_=watching.Watch", f"hydra.run.dir={tmp_path / 'run'}"),
    ]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [*DOOR, *command],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
    )
    first, second = (torch.load(tmp_path / f"rank{rank}") for rank in (0, 1))
    assert first.pop("iterations") == second.pop("iterations") == 4
    assert any(key.startswith("discriminator") for key in first) and same(first, second)


# digits, by name alone


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan", "lsgan", "wgan_gp", "hinge", "r3gan"])
def test_every_adversary_makes_digits_by_its_name_alone(tmp_path: Path, name: str) -> None:
    # uniform noise is at 8,700, other real digits at 2
    most = 200 if name == "wgan_gp" else 60
    command = [*DOOR, "task=generation", f"adversary={name}", "logger=none", "trainer=cpu", "trainer.max_epochs=3"]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, f"hydra.run.dir={tmp_path / 'run'}"], cwd=tmp_path, check=True, capture_output=True, env=one
    )
    result = Result.read(tmp_path / "run")
    assert result is not None and result.figures["fd"] < most
