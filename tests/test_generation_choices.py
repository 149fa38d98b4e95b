"""What task=generation chooses, and what its choices mean to searches, early stopping and the terminal."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from tests.small_job import RECIPE
from tests.small_synthesisers import SYNTHESISER

from upsweep.analysis.ranking import chosen
from upsweep.networks import checkpoints
from upsweep.runs.identity import judging_of
from upsweep.sweeps.jobs import declared_in
from upsweep.tasks.generation.data import Images
from upsweep.tasks.generation.task import Generation
from upsweep.training.callbacks import EarlyStopping

ROOT = Path(__file__).resolve().parent.parent


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("task", ["generation", "super_resolution"])
def test_degradation_and_protocol_are_choices_of_super_resolution_alone(task: str) -> None:
    config = composed(f"task={task}")
    there = {"degradation", "protocol"} & chosen(config.hydra.runtime.choices).keys()
    assert there == (set() if task == "generation" else {"degradation", "protocol"})


def test_what_is_cut_out_of_larger_images_is_part_of_how_they_are_judged() -> None:
    told = [
        judging_of({"task": OmegaConf.to_container(composed("task=generation", *more).task, resolve=True)})
        for more in ([], ["data.crop=resize"])
    ]
    assert told[1] == told[0] | {"data.crop": "resize"} and "data.crop" not in told[0]


def test_a_search_and_an_early_end_take_a_lower_distance_for_better() -> None:
    config = composed("task=generation", "callbacks=early_stopping", "callbacks.early_stopping.patience=1")
    assert declared_in(config)[0].name == "fd" and declared_in(config)[0].better == "lower"
    stopping = instantiate(config.callbacks.early_stopping)
    task = SimpleNamespace(figures=declared_in(config), headline=declared_in(config)[0])
    stopping.setup(Trainer(accelerator="cpu", logger=False), SimpleNamespace(task=task), "fit")
    assert isinstance(stopping, EarlyStopping) and (stopping.monitor, stopping.mode) == ("val/fd", "min")


def test_real_images_that_outnumber_the_samples_are_no_batch_for_any_norm() -> None:
    """MNIST validates on 10,000 images and 2,000 samples: the last batches have no latents."""
    recipe = {**RECIPE, "norm": {"_target_": "upsweep.blocks.norm.InstanceNorm"}}
    network = checkpoints.build({**SYNTHESISER, "recipe": recipe}).eval()
    task = Generation([{"name": "fd", "title": "FD", "better": "lower"}], Mock(), "digits")
    made = task.judge(network, Images(torch.empty(0, 8), torch.rand(3, 1, 28, 28)))
    assert made.shape == (0, 1, 28, 28)
