"""What the experiments say: the study's grid and its size, the papers' recipes."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig

from upsweep.runs.result import Result

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
NAMES = sorted(str(p.relative_to(CONF / "experiment").with_suffix("")) for p in (CONF / "experiment").rglob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


def grid() -> dict[str, list[str]]:
    params = composed("experiment=article_study").hydra.sweeper.params
    swept = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    return {o.get_key_element(): [str(v).split("=")[-1] for v in o.sweep_string_iterator()] for o in swept}


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_makes_a_generator_and_all_that_trains_it(name: str) -> None:
    cfg = composed(f"experiment={name}")
    generator = instantiate(cfg.generator, _convert_="all")
    for part in ("objective", "optimizer", "scheduler"):
        assert callable(instantiate(cfg[part], _convert_="all"))
    instantiate(cfg.task, _convert_="all")
    names = [parameter for parameter, _ in generator.named_parameters()]
    assert all(any(p.startswith(f"{part}.") for p in names) for part in cfg.factors)


def test_the_study_is_over_the_articles_choices_with_three_seeds_and_rates_to_choose_from() -> None:
    swept = grid()
    assert {"init", "activation", "norm", "dropout", "optimizer.lr", "seed"} == set(swept)
    assert len(swept["seed"]) >= 3 and len(swept["optimizer.lr"]) >= 3
    for group in ("init", "activation", "norm", "dropout"):
        assert len(swept[group]) >= 2
        for name in swept[group]:
            composed(f"{group}={name}")
    rates = sorted(float(rate) for rate in swept["optimizer.lr"])
    assert rates[0] < composed().optimizer.lr < rates[-1], "the default lies among the rates"
    assert math.prod(map(len, swept.values())) == 324, "what the README says"
    assert composed("experiment=article_study").generator.skip == "none", "bicubic must not hide what fails to train"


def test_the_study_of_generation_is_over_the_articles_choices_and_dcgans_init_with_three_seeds() -> None:
    params = composed("experiment=article_study/generation").hydra.sweeper.params
    swept = {key: str(value).split(",") for key, value in params.items()}
    assert {"init", "activation", "norm", "dropout", "seed"} == set(swept)
    assert set(swept["init"]) == {"torch", "xavier", "he", "dcgan"} and len(swept["seed"]) == 3
    assert math.prod(map(len, swept.values())) == 144, "what the README says"


def test_the_zoo_is_every_upscaler_by_its_name_under_one_budget() -> None:
    cfg = composed("experiment=zoo")
    swept = {key: str(value).split(",") for key, value in cfg.hydra.sweeper.params.items()}
    modules = (ROOT / "src" / "upsweep" / "networks" / "upscalers").glob("*.py")
    others = {"__init__", "upscaler", "residual", "article_net", "bicubic"}
    assert set(swept["generator"]) == {path.stem for path in modules} - others
    assert len(swept["optimizer.lr"]) == len(swept["seed"]) == 3
    for name in swept["generator"]:
        own, plain = composed("experiment=zoo", f"generator={name}"), composed(f"generator={name}")
        assert all(own[key] == plain[key] for key in ("generator", "init", "activation", "norm", "optimizer"))
        assert own.objective._target_ == "torch.nn.MSELoss"
        assert {"budget", "best", "ema"} <= {*own.callbacks} and own.callbacks.budget.core_minutes == 1
    assert cfg.data.patches_per_epoch // cfg.data.batch_size > 1_000_000, "the budget ends the epoch"
    same = composed("experiment=zoo", "generator=edsr", "init=xavier", "activation=tanh")
    assert (same.init, same.activation) == (composed("init=xavier").init, composed("activation=tanh").activation)


def test_fsrcnns_recipe_is_the_papers() -> None:
    cfg = composed("experiment=paper/fsrcnn")
    assert cfg.factors == {"upsampler": 0.1} and cfg.optimizer.lr == 1e-3
    assert cfg.init.last.std == 0.001 and cfg.activation._target_ == "upsweep.blocks.activation.PReLU"
    assert cfg.objective._target_ == "torch.nn.MSELoss" and cfg.data.name == "t91"
    assert composed("experiment=paper/fsrcnn", "activation=relu").activation._target_ == "torch.nn.ReLU"


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("paper/")])
def test_a_papers_recipe_trains_that_papers_generator_and_the_command_line_still_wins(name: str) -> None:
    cfg = composed(f"experiment={name}", "optimizer.lr=0.5", "trainer.max_epochs=1")
    assert cfg.generator._target_.rsplit(".", 1)[-1].lower() == Path(name).name
    assert cfg.optimizer.lr == 0.5 and cfg.trainer.max_epochs == 1
    assert composed(f"experiment={name}", "init=xavier").init == composed("init=xavier").init


@pytest.mark.slow
def test_the_study_is_one_command_and_ends_with_the_best_rate_of_each_choice(tmp_path: Path) -> None:
    fewer = ["init=he", "activation=relu", "dropout=none", "optimizer.lr=1e-3,4e-3", "seed=1"]
    small = ["trainer.max_epochs=1", "data.patches_per_epoch=16", "trainer.limit_val_batches=1", "generator.width=2"]
    out = subprocess.run(
        [sys.executable, ROOT / "src" / "train.py", "-m", "experiment=article_study", *fewer, *small],
        cwd=tmp_path,
        check=True,
        text=True,
        capture_output=True,
    ).stdout
    assert "4 of 4 jobs finished" in out
    header, *rows = out.split("at the best optimizer.lr of each choice")[1].splitlines()[1:4]
    assert header.split() == ["norm", "optimizer.lr", "PSNR", "PSNR", "last", "SSIM", "gain", "dB", "seeds"]
    assert {row.split()[0] for row in rows} == {"none", "bn"}
    assert all(re.search(r"0\.00[14] +\d+\.\d\d .*1 of 1$", row) for row in rows)
    folders = list(tmp_path.glob("multirun/*/[0-9]"))
    assert len(folders) == 4 and all((Result.read(folder) or pytest.fail()).state == "finished" for folder in folders)
