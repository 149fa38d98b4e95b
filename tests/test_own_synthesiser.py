"""Image generation's own parts are added as docs/generation.md says: its example is run as it stands."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from upsweep.networks.checkpoints import load_synthesiser
from upsweep.runs.layout import BEST, TABLE
from upsweep.sampling.latents import latents

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Adding your own") : PAGE.index("## Other programs")]
FILES = dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", SECTION, re.DOTALL))
(COMMAND,) = re.findall(r"```sh run\n(.*?)```", SECTION, re.DOTALL)
(SAMPLE,) = re.findall(r"^    PYTHONPATH=my python (src/sample\.py .*)$", SECTION, re.MULTILINE)
TINY = ["trainer=cpu", "trainer.max_epochs=1", "data.patches_per_epoch=128", "data.samples=64", "logger=none"]


@pytest.mark.slow
def test_a_synthesiser_a_discriminator_a_loss_and_a_figure_are_added_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    variable, program, script, *arguments = shlex.split(COMMAND)
    assert (variable, program) == ("PYTHONPATH=my", "python")

    def run_door(script: str, *words: str) -> None:
        env = {**os.environ, "PYTHONPATH": "my"}
        subprocess.run([sys.executable, ROOT / script, *words], cwd=tmp_path, env=env, check=True)

    run_door(script, *arguments, *TINY)
    (table,) = tmp_path.glob(f"multirun/*/{TABLE}")
    run_door(*shlex.split(SAMPLE.replace("multirun/...", str(table.parent))), "count=4", "output=samples")
    assert len(list(tmp_path.glob("samples/images/*.png"))) == 4
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["adversary"] for row in rows} == {"margin", "hinge"}
    assert all(row["state"] == "finished" and float(row["shift"]) > 0 for row in rows)
    assert float(rows[0]["shift"]) <= float(rows[1]["shift"]), "lower is better"

    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test may have one of that name
    monkeypatch.syspath_prepend(tmp_path / "my")
    for run in table.parent.glob("[0-9]"):
        generator = load_synthesiser(run / BEST, allow={"mine.Tiny"})
        images = generator(latents(3, generator.latent, seed=1))
        assert images.shape == (3, 1, 28, 28)
        assert torch.all((images >= 0) & (images <= 1))
