"""The pictures of a synthesiser: what lies where in a walk, beside which training images a sample is put."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import LambdaCallback
from tests.small_job import RECIPE, TRAINER, small_job
from torch import Tensor, nn

from upsweep.data.sources import Digits
from upsweep.imaging.files import to_uint8
from upsweep.imaging.tiles import GAP, Panel
from upsweep.networks import checkpoints
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.synthesiser import Synthesiser, samples
from upsweep.objectives.adversarial.losses import NonSaturating
from upsweep.runs import crop, history
from upsweep.runs.layout import CROP, HISTORY, LAST, PICTURES
from upsweep.tasks.generation.data import ImageData, Images
from upsweep.tasks.generation.pictures import BETWEEN, NEAREST, SHEET, STEPS, latent_walk, neighbours
from upsweep.tasks.generation.task import Generation
from upsweep.tracking.csv_run import CsvRun
from upsweep.training import callbacks
from upsweep.training.adversarial import Adversarial, Adversary
from upsweep.training.base import Training
from upsweep.training.callbacks import EMA, Checkerboard, Pictures, pattern_of
from upsweep.training.job import train
from upsweep.training.records import History, KeepCrop
from upsweep.training.saving import SaveLast
from upsweep.training.schedules import Constant

SIZE, LATENT = 28, 8
FIGURES = [{"name": "fd", "title": "FD", "better": "lower"}, {"name": "kid", "title": "KID", "better": "lower"}]


class Linear(Synthesiser):
    """The image is a fixed linear map of the latent."""

    def __init__(self, size: int = SIZE, channels: int = 1, latent: int = LATENT) -> None:
        super().__init__(size, channels, latent)
        torch.manual_seed(0)
        self.decoder = nn.ConvTranspose2d(latent, channels, size)


def cells(pixels: np.ndarray, columns: int, times: int, size: int = SIZE) -> np.ndarray:
    """The images (rows, columns, S, S, 3) of an enlarged grid, once what is between them is seen to be white."""
    small = pixels[::times, ::times]
    np.testing.assert_array_equal(small.repeat(times, 0).repeat(times, 1), pixels)
    pitch = size + BETWEEN
    for edge in range(size, small.shape[1], pitch):
        assert (small[:, edge : edge + BETWEEN] == 255).all()
    rows = range(0, small.shape[0], pitch)
    return np.array([[small[y : y + size, pitch * x : pitch * x + size] for x in range(columns)] for y in rows])


def shown(images: Tensor) -> np.ndarray:
    """As pixels (N, S, S, 3)."""
    return np.array([np.broadcast_to(to_uint8(image), (SIZE, SIZE, 3)) for image in images])


def test_a_row_of_the_walk_begins_at_its_latent_and_nears_the_next_one() -> None:
    network, latents = Linear(), torch.randn(3, LATENT, generator=torch.Generator().manual_seed(1))
    panel = latent_walk(network, latents)
    rows = cells(panel.pixels, STEPS, SHEET // (3 * (SIZE + BETWEEN) - BETWEEN)).astype(int)
    ends = shown(samples(network, latents)).astype(int)
    np.testing.assert_array_equal(rows[:, 0], ends)
    for row, start, end in zip(rows, ends, np.roll(ends, -1, 0), strict=True):
        to_start, to_end = (np.abs(row - one).mean(axis=(1, 2, 3)) for one in (start, end))
        assert (np.diff(to_start) > 0).all() and (np.diff(to_end) < 0).all()


def test_a_copied_training_image_stands_beside_its_sample_at_distance_0() -> None:
    real = (torch.rand(40, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 255).to(torch.uint8)
    features = real.flatten(1).float()
    made = real[[7, 3]] / 255
    panel = neighbours(made, made.flatten(1) * 255, real, features, "pixels")
    times = SHEET // (2 * (SIZE + BETWEEN) - BETWEEN)
    left = cells(panel.pixels[:, : SIZE * times], 1, times)
    right = cells(panel.pixels[:, (SIZE + GAP) * times :], NEAREST, times)
    np.testing.assert_array_equal(left[:, 0], shown(made))
    np.testing.assert_array_equal(right[:, 0], left[:, 0])
    # by a slow search
    for row, of in zip(right, (7, 3), strict=True):
        distances = [float((features[i] - features[of]).norm()) for i in range(len(real))]
        nearest = np.argsort(distances)[:NEAREST]
        np.testing.assert_array_equal(row, shown(real[nearest] / 255))
    assert panel.caption.endswith("by features (pixels); distances to the nearest: 0, 0")


def image_data(folder: Path) -> ImageData:
    small: dict[str, Any] = {"batch_size": 8, "patches_per_epoch": 16, "samples": 30, "cache_dir": str(folder)}
    return ImageData(source=Digits(), size=SIZE, channels=1, latent=LATENT, seed=1, **small)


@pytest.mark.parametrize(("made", "real", "titles"), [(9, 4, ["samples", "real images"]), (9, 0, ["samples"])])
def test_a_panel_has_as_many_samples_as_real_images(made: int, real: int, titles: list[str], tmp_path: Path) -> None:
    task = Generation(FIGURES, image_data(tmp_path), "random")
    batch = Images(torch.zeros(made, LATENT), torch.rand(real, 1, SIZE, SIZE))
    panel = task.panel(batch, torch.rand(made, 1, SIZE, SIZE), size=2 * (SIZE + BETWEEN))
    assert panel is not None and list(panel.tiles.values()) == titles and panel.caption == " | ".join(titles)
    side = 2 * SIZE + BETWEEN
    assert panel.pixels.shape == (side, len(titles) * (side + GAP) - GAP, 3)
    assert task.panel(batch, torch.rand(0, 1, SIZE, SIZE)) is None


def test_the_checkerboard_of_a_synthesiser_is_that_of_its_samples() -> None:
    class Stripes(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return (0.5 + 0.1 * (-1.0) ** torch.arange(SIZE)).expand(len(x), 1, SIZE, SIZE)

    found = pattern_of(Stripes())
    assert found is not None and found.shows == f"mean of {callbacks.AVERAGED} samples"
    assert found.energy == pytest.approx(0.1)


SEEN: dict[str, dict[str, Tensor]] = {}  # weights of the generator


def note(when: str, generator: nn.Module) -> None:
    SEEN[when] = {key: value.clone() for key, value in generator.state_dict().items()}


class Noted(Generation):
    def last_panels(self, generator: Network) -> Iterator[Panel]:
        note("pictured", generator)
        return super().last_panels(generator)


def note_after(_: object, module: Training) -> None:
    note("after", module.generator)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of two batches, of both players."""
    folder = tmp_path_factory.mktemp("run")
    generator = {"recipe": RECIPE, "size": SIZE, "channels": 1, "width": 4, "latent": LATENT}
    generator["_target_"] = "upsweep.networks.synthesisers.dcgan.DCGAN"
    discriminator = {"recipe": RECIPE, "size": SIZE, "channels": 1, "width": 4}
    discriminator["_target_"] = "upsweep.networks.discriminators.dcgan.DCGAN"

    def adversarial(**given: Any) -> Adversarial:
        adversary = Adversary(
            discriminator=discriminator,
            loss=NonSaturating(),
            optimizer=lambda groups: torch.optim.Adam(groups, lr=1e-2),
            schedule=Constant(),
        )
        more: dict[str, Any] = {
            "objective": nn.L1Loss(),
            "optimizer": adversary.optimizer,
            "schedule": adversary.schedule,
        }
        return Adversarial(adversary=adversary, **more, **given)

    job = small_job(
        folder,
        folder,
        task=Noted(FIGURES, image_data(folder / "cache"), "random"),
        generator=generator,
        training=adversarial,
        trainer={**TRAINER, "limit_val_batches": None},
        callbacks=[
            EMA(0.9),
            Pictures(folder, 1),
            History(folder),
            KeepCrop(folder, 128),
            Checkerboard(folder),
            SaveLast(folder),
            LambdaCallback(on_fit_end=note_after),
        ],
        logger=CsvRun(folder, config={}, choices={}, overrides=[]),
        scale=None,
    )
    assert train(job).state == "finished"
    return folder


def test_a_run_leaves_its_samples_a_walk_and_its_neighbours(trained: Path) -> None:
    names = {path.stem for path in (trained / PICTURES).glob("*.png")}
    assert names == {"samples", "latent_walk", "nearest_training_images", "checkerboard_start", "checkerboard_end"}
    found = crop.read(trained / CROP)
    assert [tile.title for tile in found.tiles] == ["samples", "real images"]


def test_a_run_leaves_a_table_of_samples_beside_their_nearest_training_images(trained: Path) -> None:
    file = next(trained.glob("csv/**/images.csv"))
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    assert header == "image,sample,nearest 1,nearest 2,nearest 3,distance"
    assert len(lines) == 8
    for line in lines:
        _, *pictures, distance = line.split(",")
        assert float(distance) > 0 and all((file.parent / picture).is_file() for picture in pictures)


def test_a_run_leaves_the_losses_of_both_players_and_every_figure(trained: Path) -> None:
    for line in history.read(trained / HISTORY):
        assert line.loss is not None and line.losses["discriminator"] is not None
        assert set(line.figures) == {"fd", "kid"} and None not in line.figures.values()


def test_details_of_the_figures_are_logged(trained: Path) -> None:
    header, *lines = next(trained.glob("csv/**/metrics.csv")).read_text(encoding="utf-8").splitlines()
    columns = dict(zip(header.split(","), zip(*(line.split(",") for line in lines), strict=True), strict=True))
    for name in ("val/kid_error", "val/diversity", "train/loss_discriminator"):
        known = [float(value) for value in columns[name] if value]
        assert len(known) == 2 and all(np.isfinite(known)), name


def test_the_last_pictures_are_of_the_averaged_weights_which_then_go_back(trained: Path) -> None:
    kept = checkpoints.read(trained / LAST)
    raw = {key.removeprefix("generator."): value for key, value in kept["state_dict"].items() if "generator." in key}
    average = kept[checkpoints.EMA]
    assert SEEN["pictured"].keys() == average.keys() and SEEN["after"].keys() == raw.keys()
    assert all(torch.equal(SEEN["pictured"][key], average[key]) for key in average)
    assert all(torch.equal(SEEN["after"][key], raw[key]) for key in raw)
    assert any(not torch.equal(raw[key], average[key]) for key in average), "or else this test could not fail"
