"""Synthesisers judged by their samples: a table that says by what, whoever is judged and on which images."""

import csv
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.small_job import NET
from tests.small_synthesisers import SYNTHESISER, trained

from upsweep.common.errors import UserError
from upsweep.data.sources import Folder
from upsweep.evaluation.methods import Views, files_asked
from upsweep.evaluation.synthesisers import Made, evaluate_synthesisers, synthesisers, trained_on
from upsweep.evaluation.tables import Cell, Column, Comparison, Row
from upsweep.imaging.files import Picture, read_image
from upsweep.imaging.writing import write_image
from upsweep.metrics.figure import Figure
from upsweep.networks.synthesisers.synthesiser import Synthesiser
from upsweep.runs.result import Result
from upsweep.tasks.generation.data import ImageData
from upsweep.tasks.generation.task import Generation

DOOR = Path(__file__).resolve().parent.parent / "src" / "evaluate.py"
FIGURES: list[dict[str, Any]] = [
    {"name": "fd", "title": "FD", "better": "lower", "digits": 1},
    {"name": "kid", "title": "KID", "better": "lower", "digits": 3},
    {"name": "precision", "title": "precision", "digits": 3},
    {"name": "recall", "title": "recall", "digits": 3},
    {"name": "memorised", "title": "memorised", "better": "lower", "digits": 3},
]


class Copier(Synthesiser):
    """Makes one of the images that it was given, whichever the latent points to."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__(int(images.shape[-1]), int(images.shape[1]), latent=2)
        self.images = torch.nn.Parameter(images)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turn = torch.atan2(x[:, 0], x[:, 1]) / (2 * torch.pi) + 0.5
        return self.images[(turn * len(self.images)).long().clamp(max=len(self.images) - 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of smooth spots of light."""
    home, rng = tmp_path_factory.mktemp("spots"), np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]
    for number in range(120):
        y, x, width = rng.uniform(6, 22), rng.uniform(6, 22), rng.uniform(2, 6)
        spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
        write_image(home / f"{number:03}.png", Picture((spot * 255).astype(np.uint8)[..., None]), marked=False)
    return home


def finished(*overrides: str, **choices: str) -> Result:
    return Result(
        state="finished", choices={"generator": "dcgan", **choices}, overrides=[*overrides], seed=1, scale=None
    )


def judging(folder: Path) -> Generation:
    source = Folder(root=str(folder), val_share=0.5)
    data = ImageData(source=source, size=28, channels=1, latent=2, seed=1, cache="none")
    return Generation(FIGURES, data, "random")


def test_real_images_and_copies_of_them_are_near_and_noise_is_far(folder: Path, tmp_path: Path) -> None:
    task = judging(folder)
    task.data.setup()
    copier = Copier(task.data.training_images().float() / 255)
    noise = Copier(torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    methods = [Made("copies", copier, Path("a.ckpt")), Made("noise", noise, Path("b.ckpt"))]
    comparison = evaluate_synthesisers(methods, task, "spots", tmp_path, samples=60)
    real, copies, far = (
        {name: value for cell in row.cells.values() for name, value in cell.values.items()} for row in comparison.rows
    )
    assert 0 < real["fd"] < copies["fd"] < far["fd"] / 20
    assert copies["memorised"] == 1 and far["memorised"] == 0
    assert far["precision"] < 0.1 < copies["precision"]
    assert abs(real["kid"]) < 4 * real["kid_error"] < far["kid"]
    assert "memorised (random)" not in comparison.rows[0].cells  # a training image is one, by itself


def test_the_table_says_by_what_and_on_what_it_was_judged(folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    made = synthesisers(files_asked(str(run)), Views())
    comparison = evaluate_synthesisers(made, task := judging(folder), "spots", tmp_path, samples=20)
    training, validation = len(task.reference.training), len(task.reference.validation)
    assert training + validation == 120
    for text in ((tmp_path / "table.md").read_text(), (tmp_path / "table.tex").read_text(), comparison.table().plain()):
        assert f"20 samples of each against {validation} real images of spots, in the features of the" in text
        assert f"extractor random; KID with its standard error; real: 20 of {training} training images" in text
        assert "FD (random)" in text
    with (tmp_path / "table.csv").open() as file:
        real, ours = csv.DictReader(file)
    assert real["method"] == "real" and real["memorised"] == real["parameters"] == ""
    assert (ours["benchmark"], ours["extractor"], ours["samples"]) == ("spots", "random", "20")
    assert int(ours["parameters"]) == sum(p.numel() for p in made[0].generator.parameters())
    assert f"{float(ours['kid']):.3f} ± {float(ours['kid_error']):.3f}" in (tmp_path / "table.md").read_text()
    assert read_image(tmp_path / "pictures" / f"{made[0].name}.png").samples.shape[2] == 3


def test_the_same_checkpoint_twice_gets_the_same_figures(folder: Path, tmp_path: Path) -> None:
    a, b = trained(tmp_path / "a"), trained(tmp_path / "b")
    made = synthesisers(files_asked([str(a), str(b)]), Views())
    _, first, second = evaluate_synthesisers(made, judging(folder), "spots", tmp_path, samples=20).rows
    assert first.method != second.method and first.cells == second.cells


def test_a_column_joins_its_figures_and_a_csv_names_each() -> None:
    kid = Figure(name="kid", title="KID", digits=2)
    column = Column("KID", [kid, Figure(name="kid_error", title="", digits=2)], prefix="a_", between=" ± ")
    cell = Cell({"kid": 0.126, "kid_error": 0.014})
    assert column.text(cell) == "0.13 ± 0.01" and column.text(None) == "-"
    table = Comparison("table", "What it is.", [column], [Row("ours", {"KID": cell})], {"on": "digits"})
    header, line = table.csv().splitlines()
    assert header.startswith("method,on,a_kid,a_kid_error,") and line.startswith("ours,digits,0.126,0.014,")


def test_rows_are_named_by_what_differs_between_their_runs(tmp_path: Path) -> None:
    runs = [trained(tmp_path / norm, result=finished(norm=norm)) for norm in ("bn", "none")]
    assert [one.name for one in synthesisers(files_asked(list(map(str, runs))), Views())] == ["norm=bn", "norm=none"]
    bare = trained(tmp_path / "bare")
    found = [one.name for one in synthesisers(files_asked([str(runs[0]), str(bare)]), Views())]
    assert found == ["dcgan", "bare"]


def test_networks_of_another_kind_are_left_to_the_other_table(tmp_path: Path) -> None:
    upscaler = {**NET, "recipe": SYNTHESISER["recipe"], "scale": 2, "channels": 1}
    ours, other = trained(tmp_path / "ours"), trained(tmp_path / "other", spec=upscaler)
    assert synthesisers(files_asked(str(other)), Views()) == []
    with pytest.raises(UserError, match=r"makes images from latents and .* does not: judge them in two commands"):
        synthesisers(files_asked([str(other), str(ours)]), Views())


@pytest.mark.parametrize(
    ("changes", "views", "said"),
    [
        ({}, Views(self_ensemble=True), "self_ensemble and tile are for upscalers only"),
        ({}, Views(ema=True), "has no moving average"),
        ({"size": 32}, Views(), "makes 28x28 .* makes 32x32 .* judge them in separate commands"),
    ],
)
def test_what_cannot_be_judged_together_is_said_in_a_sentence(
    tmp_path: Path, changes: dict[str, Any], views: Views, said: str
) -> None:
    runs = [trained(tmp_path / "a"), trained(tmp_path / "b", **changes)]
    with pytest.raises(UserError, match=said) as refusal:
        synthesisers(files_asked(list(map(str, runs))), views)
    assert "\n" not in str(refusal.value)


def test_the_images_are_those_that_the_runs_were_trained_on(tmp_path: Path) -> None:
    make = partial(trained, spec=SYNTHESISER)
    bare = make(tmp_path / "bare") / "checkpoints" / "best.ckpt"
    words = ("data=folder", "data.root=my photos", "data.batch_size=8", "norm=bn")
    a, b = (make(tmp_path / n, result=finished(*words, data="folder")) / "checkpoints" / "best.ckpt" for n in "ab")
    digits = make(tmp_path / "c", result=finished(data="digits")) / "checkpoints" / "best.ckpt"
    assert trained_on([bare]) == []
    assert trained_on([a, b, bare]) == ["data=folder", "data.root=my photos"]
    with pytest.raises(
        UserError, match=r"data=digits, others with data=folder data\.root=my photos: .* benchmark=NAME"
    ):
        trained_on([a, digits])


# ---- the door ----


def door(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(DOOR), *arguments], capture_output=True, text=True, cwd=cwd)


def test_the_door_judges_by_a_folder_of_images(folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", result=finished(data="digits"))
    words = (f"benchmark={folder}", "samples=20", "device=cpu", "hydra.run.dir=out")
    done = door(f"checkpoint={run}", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert re.search(rf"20 samples of each against \d+ real images of {folder.name}, .* extractor random", said)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"table.csv", "table.md", "table.tex", "pictures"}


def test_the_door_says_what_it_cannot_judge_by(tmp_path: Path) -> None:
    done = door(f"checkpoint={trained(tmp_path / 'run')}", "benchmark=set5", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("benchmark=set5 is not known: choose one of ")
