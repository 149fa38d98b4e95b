"""The README's examples are run as they stand, and its table is that of conf/."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from skimage.data import data_dir

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = re.findall(r"```\w+ file=(\S+)\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```sh run\n(.*?)```", README, re.DOTALL)


def test_every_example_takes_fewer_than_ten_lines() -> None:
    assert {Path(name).suffix for name, _ in FILES} == {".py", ".yaml"}
    for name, text in FILES:
        assert len(text.splitlines()) < 10, name


def test_the_table_of_groups_is_that_of_the_config_folder() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "groups.py", "--check"], check=True)


@pytest.mark.slow
def test_a_generator_an_activation_and_a_data_set_are_added_as_the_readme_says(tmp_path: Path) -> None:
    for name, text in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    photos = tmp_path / "my" / "photos"
    photos.mkdir()
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        (photos / name).symlink_to(Path(data_dir) / name)
    (command,) = COMMANDS
    variable, program, script, *arguments = shlex.split(command)
    assert (program, script) == ("python", "src/train.py")
    budget = ["trainer.max_epochs=1", "data.patches_per_epoch=64", "trainer=cpu"]
    subprocess.run(
        [sys.executable, ROOT / script, *arguments, *budget],
        cwd=tmp_path,
        env={**os.environ, **dict([variable.split("=")])},
        check=True,
    )
    (table,) = tmp_path.glob("multirun/*/results.csv")
    header, *rows = table.read_text().splitlines()
    assert "activation" in header and len(rows) == 2
    assert {row.split(",")[-3] for row in rows} == {"finished"}
