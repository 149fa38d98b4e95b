"""Examples of docs/extending.md that one run can take together are run together, as they stand."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from upsweep.networks import checkpoints
from upsweep.runs.about import About
from upsweep.runs.layout import LAST
from upsweep.runs.result import Result

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (Your own .*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
TOGETHER = ("loss", "schedule", "callback", "training", "logger")
SMALL = ["trainer.max_epochs=2", "data.patches_per_epoch=32", "trainer.limit_val_batches=1", "quiet=true"]


def arguments_of(section: str) -> list[str]:
    """What the command of a section chooses."""
    (command,) = re.findall(r"```sh run\n(.*?)```", SECTIONS[f"Your own {section}"], re.DOTALL)
    variable, program, script, option, folder, *arguments = shlex.split(command)
    assert (variable, program, script) == ("PYTHONPATH=my", "python", "src/train.py")
    assert (option, folder) == ("--config-dir", "my/conf")
    return arguments


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user's with all files of the page."""
    place = tmp_path_factory.mktemp("place")
    for name, text in re.findall(r"```\w+ file=(\S+)\n(.*?)```", TEXT, re.DOTALL):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return place


def run(place: Path, name: str, *arguments: str) -> Path:
    # conf/local is the one of the page, not that of the checkout
    environment = {
        **os.environ,
        "PYTHONPATH": f"my{os.pathsep}{ROOT / 'src'}",
        "UPSWEEP_CONF_FIRST": str(place / "my/conf"),
    }
    command = [sys.executable, str(ROOT / "src" / "train.py"), "--config-dir", "my/conf", f"hydra.run.dir={name}"]
    subprocess.run([*command, *arguments, *SMALL], cwd=place, env=environment, check=True, timeout=300)
    result = Result.read(place / name)
    assert result is not None and result.state == "finished" and result.figures
    return place / name


@pytest.mark.slow
def test_a_loss_a_schedule_a_callback_a_training_a_logger_and_defaults_of_ones_own(place: Path) -> None:
    folder = run(place, "together", *(argument for section in TOGETHER for argument in arguments_of(section)))
    logged = [json.loads(line) for line in next(folder.rglob("log.jsonl")).read_text().splitlines()]
    assert any(line.get("weight_norm", 0) > 0 for line in logged)
    about = About.read(folder)
    assert about is not None
    assert about.config["trainer"]["accelerator"] == "cpu" and about.config["data"]["num_workers"] == 1
    (schedule,) = checkpoints.read(folder / LAST)["lr_schedulers"]
    result = Result.read(folder)
    assert result is not None
    assert (schedule["mode"], schedule["best"]) == ("max", pytest.approx(result.figures["psnr"], rel=1e-5))


@pytest.mark.slow
def test_a_datamodule_of_ones_own(place: Path) -> None:
    run(place, "data", *arguments_of("DataModule"), "logger=none")


@pytest.mark.slow
def test_an_adversary_of_ones_own_with_a_schedule_of_ones_own(place: Path) -> None:
    tiny = ["generator.width=2", "data.samples=50", "data.batch_size=16", "logger=none"]
    folder = run(place, "duel", *arguments_of("adversary"), *tiny)
    about = About.read(folder)
    assert about is not None
    assert about.config["adversary"]["loss"]["_target_"] == "judge.Symmetric"
    assert about.config["adversary"]["scheduler"]["_target_"] == "decay.inverse_root"
