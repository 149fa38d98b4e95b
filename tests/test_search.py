"""Searches: what W&B's agent would run, and Optuna's, with real processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from upsweep.sweeps.results import Result

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    *("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_val_batches=1", "callbacks.pictures=null"),
    *("data.patch_size=8", "data.patches_per_epoch=32", "generator.width=4", "generator.depth=1"),
]


def environment(**extra: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


# W&B's agent


def drawn(parameter: dict[str, Any]) -> Any:
    return parameter["values"][-1] if "values" in parameter else parameter["max"]


def agents_command(sweep: dict[str, Any]) -> list[str]:
    """What `wandb agent` makes of the file for one run, by the client's own code (as `Agent._command_run` does)."""
    from wandb.sdk.launch.sweeps import utils

    arguments = {name: {"value": drawn(parameter)} for name, parameter in sweep["parameters"].items()}
    known: dict[str, list[str]] = utils.create_sweep_command_args({"args": arguments})
    known |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    command: list[str] = []
    for word in utils.create_sweep_command(sweep["command"]):
        command += known[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return command


def test_the_agents_command_is_one_of_ours_and_every_value_exists() -> None:
    sweep = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    command = agents_command(sweep)
    assert command[:3] == ["/usr/bin/env", "python", "src/train.py"]
    assert "optimizer.lr=0.01" in command and "norm=bn" in command
    assert not any(word.startswith("-") for word in command)
    assert sweep["metric"] == {"name": "val/psnr", "goal": "maximize"}
    for group in ("init", "norm", "upsampler"):
        for name in sweep["parameters"][group]["values"]:
            assert (ROOT / "conf" / group / f"{name}.yaml").is_file()


@pytest.mark.slow
def test_the_agents_command_trains(tmp_path: Path) -> None:
    sweep = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    command = agents_command(sweep)
    bin_ = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    subprocess.run(
        [*command, *TINY, "logger.mode=offline"],
        cwd=tmp_path,
        env=environment(PATH=bin_, WANDB_RUN_ID="abc"),
        check=True,
        timeout=120,
    )
    result = Result.read(tmp_path / "outputs" / "wandb" / "abc")
    assert result is not None and result.state == "finished"
    assert result.choices["norm"] == "bn"
