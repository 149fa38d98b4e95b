"""The README's commands and the examples of docs/extending.md run as they stand; docs/choices.md is that of conf/."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from upsweep.common.errors import UserError
from upsweep.data.sources import Folder
from upsweep.metrics.metric import PSNR
from upsweep.metrics.protocol import Protocol
from upsweep.networks import checkpoints
from upsweep.runs.result import Result
from upsweep.tasks.super_resolution.data import PatchData

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TWELVE = re.findall(r"\| `(python src/[^`]+)` \|", README)
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
# The section on a task of one's own is tests/test_own_task.py's.
SECTION = EXTENDING[: EXTENDING.index("## Your own task")]
FILES = re.findall(r"```\w+ file=(\S+)\n(.*?)```", SECTION, re.DOTALL)
COMMANDS = re.findall(r"```sh run\n(.*?)```", SECTION, re.DOTALL)


def test_every_example_takes_fewer_than_ten_lines() -> None:
    assert {Path(name).suffix for name, _ in FILES} == {".py", ".yaml"}
    for name, text in FILES:
        assert len(text.splitlines()) < 10, name


def test_the_table_of_groups_is_that_of_the_config_folder() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "groups.py", "--check"], check=True)


def test_the_readme_has_twelve_commands_and_the_quickest_is_the_first() -> None:
    assert len(TWELVE) == 12
    assert TWELVE[0] == "python src/train.py debug=fast"


SMALL = ["trainer.max_epochs=1", "data.patches_per_epoch=32", "data.samples=64", "trainer=cpu", "logger=none"]
LESS = {"train.py": SMALL, "evaluate.py": ["speed=false"], "explain.py": ["parts=upsamplers"]}
FEWER = {"upsampler=deconv,subpixel,resize": "upsampler=deconv,resize", "seed=1,2,3": "seed=1"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readmes_commands_run_one_after_the_other_in_a_fresh_checkout(tmp_path: Path) -> None:
    for name in ("src", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {key: value for key, value in os.environ.items() if key != "UPSWEEP_DATA"}
    for command in TWELVE:
        _, script, *arguments = shlex.split(command)
        as_it_stands = {"debug=fast", "resume=latest", "--help"} & {*arguments}
        arguments = [FEWER.get(one, one) for one in arguments]
        arguments += [] if as_it_stands else LESS.get(Path(script).name, [])
        done = subprocess.run(
            [sys.executable, script, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, command + done.stdout + done.stderr
    assert (tmp_path / "outputs" / "cat_x3.png").is_file()
    assert list(tmp_path.glob("outputs/samples/*/grid.png")) and list(tmp_path.glob("multirun/*/report.html"))


BENT = """
from torch import nn
class Bent(nn.Module):
    def forward(self, x): return (x.square() + 1).sqrt() - 1 + x
"""


@pytest.mark.slow
def test_a_generator_an_activation_and_a_data_set_are_added_as_the_page_says_and_load_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # The page's activation is torch's; this one is the user's own.
    (tmp_path / "my" / "bent.py").write_text(BENT, encoding="utf-8")
    own = tmp_path / "my" / "conf" / "activation" / "bent.yaml"
    own.write_text("# Bent identity\n_target_: bent.Bent\n_partial_: true\n", encoding="utf-8")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (command,) = COMMANDS
    variable, program, script, *arguments = shlex.split(command)
    assert (program, script) == ("python", "src/train.py")
    arguments = [a.replace("softsign,relu", "softsign,bent") for a in arguments]
    budget = ["trainer.max_epochs=1", "data.patches_per_epoch=64", "trainer=cpu"]
    subprocess.run(
        [sys.executable, ROOT / script, *arguments, *budget],
        cwd=tmp_path,
        env={**os.environ, **dict([variable.split("=")])},
        check=True,
    )
    (table,) = tmp_path.glob("multirun/*/results.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["activation"], row["state"]) for row in rows} == {("softsign", "finished"), ("bent", "finished")}

    monkeypatch.syspath_prepend(tmp_path / "my")
    held_out = PatchData(source=Folder(root=str(ROOT / "docs" / "photos")), scale=2, channels=1, seed=1, cache="none")
    held_out.setup()
    for run in tmp_path.glob("multirun/*/[0-9]"):
        result = Result.read(run)
        assert result is not None and result.checkpoint is not None
        with pytest.raises(UserError, match=r"neither upsweep's nor named by your config"):
            checkpoints.load_generator(Path(result.checkpoint))
        generator = checkpoints.load_generator(Path(result.checkpoint), allow={"tiny.Tiny", "bent.Bent"})
        psnr = PSNR(Protocol(), 2)
        with torch.no_grad():
            for image in held_out.val_dataloader():
                psnr.update(generator(image.lr), image.hr)
        assert psnr.compute().item() == pytest.approx(result.value, abs=1e-5), "it is what was judged"
