"""Every argument of Lightning's Trainer works by `+trainer.x`, or is refused in a sentence that says what to do."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from lightning_fabric.plugins import TorchCheckpointIO
from tests.small_duel import adversary, small_duel
from tests.small_job import TRAINER, small_job

from upsweep.common.errors import UserError
from upsweep.runs import history
from upsweep.runs.layout import BEST, HISTORY
from upsweep.runs.result import Result
from upsweep.sentences import of_the_trainer
from upsweep.training.job import train
from upsweep.training.records import History
from upsweep.training.schedules import Schedule
from upsweep.training.trainer import OURS, hold_to_trainer

# Those that change nothing for each other are tried together, to be quick.
TOGETHER: dict[str, Any] = {
    "accelerator": "cpu",
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "precision": "bf16-mixed",
    "max_epochs": 1,
    "min_epochs": 1,
    "min_steps": 1,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "limit_predict_batches": 1,
    "log_every_n_steps": 1,
    "enable_model_summary": True,
    "accumulate_grad_batches": 2,
    "gradient_clip_val": 0.5,
    "gradient_clip_algorithm": "value",
    "deterministic": "warn",
    "benchmark": False,
    "inference_mode": False,
    "profiler": "simple",
    "detect_anomaly": True,
    "reload_dataloaders_every_n_epochs": 1,
    "enable_autolog_hparams": False,
}
ALONE: dict[str, Any] = {
    "fast_dev_run": 2,
    "max_steps": 2,
    "max_time": {"milliseconds": 1},
    "overfit_batches": 1,
    "val_check_interval": 2,
    "check_val_every_n_epoch": 2,
    "plugins": [pl.plugins.MixedPrecision("bf16-mixed", "cpu")],
}


def trained(tmp_path: Path, cache: Path, **trainer: Any) -> Result:
    given = {**TRAINER, "limit_val_batches": 1, **trainer}
    return train(
        small_job(tmp_path, cache, trainer=given, callbacks=[*small_job(tmp_path, cache).callbacks, History(tmp_path)])
    )


def noting() -> tuple[list[float], Schedule]:
    """A schedule that notes where in the training it is asked, and what it noted."""
    seen: list[float] = []

    def constant(progress: float) -> float:
        seen.append(progress)
        return 1.0

    return seen, constant


def lines(tmp_path: Path) -> list[history.Epoch]:
    return history.read(tmp_path / HISTORY)


def test_each_argument_of_the_trainer_is_tried_or_refused() -> None:
    assert sorted(inspect.signature(pl.Trainer).parameters) == sorted([*TOGETHER, *ALONE, *OURS])


@pytest.mark.parametrize(
    "trainer", [TOGETHER, *({name: value} for name, value in ALONE.items())], ids=["together", *ALONE]
)
def test_a_run_with_the_argument_finishes_and_its_last_weights_are_judged(
    tmp_path: Path, cache: Path, trainer: dict[str, Any]
) -> None:
    result = trained(tmp_path, cache, **trainer)
    assert result.state == "finished" and result.figures["psnr"] > 5
    assert lines(tmp_path)[-1].figures["psnr"] == pytest.approx(result.last["psnr"], rel=1e-5)
    assert (tmp_path / BEST).is_file()


def test_a_run_that_its_time_has_ended_says_so(tmp_path: Path, cache: Path) -> None:
    result = trained(tmp_path, cache, max_time={"milliseconds": 1}, max_epochs=50)
    assert result.reason == "ended by trainer.max_time={'milliseconds': 1} after 1 of 150 steps"


def test_a_schedule_ends_with_the_last_of_the_steps_that_are_asked_for(tmp_path: Path, cache: Path) -> None:
    seen, schedule = noting()
    given = {**TRAINER, "limit_val_batches": 1, "max_steps": 4}
    train(small_job(tmp_path, cache, trainer=given, schedule=schedule))
    assert sorted(set(seen)) == [0, 0.25, 0.5, 0.75, 1]


def test_validations_within_an_epoch_and_across_epochs_count_and_the_best_checkpoint_stays_the_best(
    tmp_path: Path, cache: Path
) -> None:
    result = trained(tmp_path, cache, val_check_interval=4, check_val_every_n_epoch=None)
    assert [line.figures["psnr"] is None for line in lines(tmp_path)] == [True, False]
    assert result.state == "finished"


@pytest.mark.parametrize("name", OURS)
def test_what_a_run_sets_itself_is_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(UserError, match=rf"^trainer\.{name} is set by upsweep itself: "):
        hold_to_trainer({"max_epochs": 1, name: None})


def test_an_unknown_key_is_told_to_be_an_argument_of_lightning_or_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "trainer.max_steps=4"])
    assert (of_the_trainer("max_steps") or "").endswith("write +trainer.max_steps=4 to add it.")
    assert (of_the_trainer("max_step") or "").startswith("There is no trainer.max_step; Lightning's Trainer takes acc")
    assert (of_the_trainer("max_step") or "").endswith("Did you mean trainer.max_steps?")
    assert "hydra.run.dir=FOLDER" in (of_the_trainer("default_root_dir") or "")


@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        ({"strategy": "ddp_spawn"}, "use ddp"),
        ({"strategy": "no_such"}, "cannot train with"),
        ({"limit_train_batches": 0}, "must be above 0"),
        ({"limit_val_batches": 0}, "must be above 0"),
        ({"max_steps": 0}, r"Nothing was judged, .*trainer\.max_steps"),
        ({"val_check_interval": 1000}, "val_check_interval"),
        ({"check_val_every_n_epoch": None}, "must be a whole number"),
        ({"plugins": [TorchCheckpointIO()]}, "writes checkpoints itself"),
    ],
    ids=["ddp_spawn", "strategy", "train", "val", "no_step", "val_check", "no_check", "plugins"],
)
def test_what_cannot_be_trained_is_one_sentence(
    tmp_path: Path, cache: Path, trainer: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        trained(tmp_path, cache, **trainer)


@pytest.mark.parametrize(
    ("finder", "instead"),
    [(pl.callbacks.BatchSizeFinder, "data.batch_size"), (pl.callbacks.LearningRateFinder, "optimizer.lr")],
)
def test_a_callback_that_only_tries_a_training_is_refused_with_what_to_do_instead(
    tmp_path: Path, cache: Path, finder: type[pl.Callback], instead: str
) -> None:
    with pytest.raises(UserError, match=f"{finder.__name__} would end the run without a result: set {instead}, or"):
        train(small_job(tmp_path, cache, callbacks=[finder()]))
    result = Result.read(tmp_path)
    assert result is not None and result.state == "failed"


def test_the_steps_of_a_duel_are_those_of_its_generator(tmp_path: Path, cache: Path) -> None:
    (generator, schedule), (discriminator, against_it) = noting(), noting()
    against = adversary(steps=2, schedule=against_it)
    given = {**TRAINER, "max_steps": 4}
    callbacks = [History(tmp_path)]
    job = small_duel(tmp_path, cache, against=against, schedule=schedule, trainer=given, callbacks=callbacks)
    assert train(job).state == "finished"
    assert lines(tmp_path)[-1].step == 4
    assert sorted(set(generator)) == [0, 0.25, 0.5, 0.75, 1]
    assert max(discriminator) == 1 and len(set(discriminator)) == 9
