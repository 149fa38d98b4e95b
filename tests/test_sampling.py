"""Samples as files: what was asked for, the same every time, and nothing that was there is lost."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy import stats
from tests.small_job import NET
from tests.small_synthesisers import SYNTHESISER, trained

from upsweep.common.errors import UserError
from upsweep.imaging.files import read_image, to_uint8
from upsweep.networks.checkpoints import load_synthesiser
from upsweep.networks.synthesisers.synthesiser import Synthesiser
from upsweep.runs.layout import BEST, checkpoint_of
from upsweep.sampling.files import Sampling, write_samples
from upsweep.sampling.latents import latents
from upsweep.tasks.generation.pictures import slerp

DOORS = Path(__file__).resolve().parent.parent / "src"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "my run=1")


@pytest.fixture(scope="module")
def generator(run: Path) -> Synthesiser:
    return load_synthesiser(run / BEST)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# ---- latents ----


def test_latents_are_standard_normal_and_the_same_for_a_seed_alone() -> None:
    z = latents(500, 40, seed=1)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.01
    assert torch.equal(z, latents(500, 40, seed=1))
    assert not torch.equal(z, latents(500, 40, seed=2))


@pytest.mark.parametrize("truncation", [0.1, 0.7, 3.0])
def test_truncated_latents_are_of_the_normal_distribution_that_is_cut_off(truncation: float) -> None:
    z = latents(500, 40, seed=1, truncation=truncation).double()
    assert z.abs().max() <= truncation
    assert stats.kstest(z.flatten().numpy(), stats.truncnorm(-truncation, truncation).cdf).pvalue > 0.01


def test_truncation_moves_numbers_inwards_and_keeps_their_order() -> None:
    free = latents(20, 8, seed=1).flatten()
    cut = latents(20, 8, seed=1, truncation=0.7).flatten()
    assert torch.equal(free.argsort(), cut.argsort())
    assert (cut.abs() < free.abs()).all() and (cut.sign() == free.sign()).all()
    assert torch.allclose(latents(20, 8, seed=1, truncation=20.0).flatten(), free, atol=1e-6)


# ---- files ----


def test_every_sample_is_a_file_and_a_place_on_the_grid(generator: Synthesiser, tmp_path: Path) -> None:
    write_samples(generator, Sampling(count=5, seed=3, batch=2), tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == ["grid.png", *(f"images/{i:05}.png" for i in range(5))]
    with torch.no_grad():
        made = generator(latents(5, 8, seed=3))
    sheet = read_image(tmp_path / "out" / "grid.png").samples
    assert sheet.shape == (58, 88, 3)  # two rows of three, two pixels between
    for i in range(5):
        pixels = read_image(tmp_path / "out" / "images" / f"{i:05}.png").samples
        assert pixels.shape == (28, 28, 1)
        # Batches of other sizes may differ in the last bit, and so by one level where that is rounded.
        assert np.abs(pixels.astype(int) - to_uint8(made[i])).max() <= 1
        top, left = 30 * (i // 3), 30 * (i % 3)
        assert np.array_equal(sheet[top : top + 28, left : left + 28], pixels.repeat(3, axis=2))


def test_the_same_seed_makes_the_same_files(generator: Synthesiser, tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_samples(generator, Sampling(count=4, seed=seed, walk=True, steps=2), tmp_path / name)
        made.append(content(tmp_path / name))
    assert made[0] == made[1]
    assert all(made[0][name] != made[2][name] for name in made[0])


def test_pngs_hold_pixels_and_who_made_them_and_no_other_metadata(generator: Synthesiser, tmp_path: Path) -> None:
    write_samples(generator, Sampling(count=1), tmp_path / "out")
    for file in (tmp_path / "out").rglob("*.png"):
        with Image.open(file) as image:
            image.load()
            assert image.info == {"Software": "upsweep"}


def test_colours_are_kept(tmp_path: Path) -> None:
    coloured = load_synthesiser(trained(tmp_path / "run", channels=3) / BEST)
    write_samples(coloured, Sampling(count=1), tmp_path / "out")
    assert read_image(tmp_path / "out" / "images" / "00000.png").samples.shape == (28, 28, 3)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_walk_plays_for_ever_and_passes_its_latents(generator: Synthesiser, tmp_path: Path, kind: str) -> None:
    asked = Sampling(count=5, seed=1, walk=kind, stops=3, steps=4)
    write_samples(generator, asked, tmp_path / "out")
    z = latents(5, 8, seed=1)
    steps = torch.stack([z[0], slerp(z[0], z[1], 0.25), z[1], z[2]])
    with torch.no_grad():
        made = [to_uint8(image) for image in generator(steps)]
    with Image.open(tmp_path / "out" / f"walk.{kind}") as film:
        assert film.n_frames == 12 and film.info["loop"] == 0  # type: ignore[attr-defined]
        for frame, wanted in zip((0, 1, 4, 8), made, strict=True):
            film.seek(frame)
            shown = np.asarray(film.convert("RGB")).astype(int)
            assert shown.shape == (252, 252, 3)
            assert np.abs(shown[4::9, 4::9] - wanted).max() <= 1


def test_what_is_there_stays_unless_it_may_be_replaced(generator: Synthesiser, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_samples(generator, Sampling(count=2), folder)
    before = content(folder)
    with pytest.raises(UserError, match="already exists and has files; overwrite=true"):
        write_samples(generator, Sampling(count=2, seed=2), folder)
    assert content(folder) == before
    write_samples(generator, Sampling(count=2, seed=2), folder, overwrite=True)
    assert all(content(folder)[name] != before[name] for name in before)


def test_samples_of_two_commands_do_not_mix(generator: Synthesiser, tmp_path: Path) -> None:
    write_samples(generator, Sampling(count=3), tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(UserError, match=r"already has 00002\.png"):
        write_samples(generator, Sampling(count=2, seed=2), tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"count": 0}, "count=0 must be"),
        ({"batch": 0}, "batch=0 must be"),
        ({"steps": -1}, "steps=-1 must be"),
        ({"truncation": 0}, "truncation=0 must be a number above 0"),
        ({"truncation": "little"}, "truncation=little must be a number above 0"),
        ({"truncation": float("nan")}, "truncation=nan must be a number above 0"),
        ({"seed": 2**64}, "must be a whole number of 64 bits"),
        ({"walk": "mp4"}, "walk=mp4 must be true, webp, gif or null"),
        ({"walk": True, "count": 1}, "A walk needs two latents: count=1"),
        ({"walk": True, "stops": 1}, "A walk needs two latents: count=64 and stops=1"),
        ({"walk": True, "steps": 126}, "has 1008 frames, more than 1000"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_sentence(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        Sampling(**asked)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_an_upscaler_makes_nothing_of_latents(tmp_path: Path) -> None:
    upscaler = {**NET, "recipe": SYNTHESISER["recipe"], "scale": 2, "channels": 1}
    run = trained(tmp_path / "run", spec=upscaler)
    with pytest.raises(UserError, match="names a DeconvNet, which is not a synthesiser"):
        load_synthesiser(run / BEST)


def test_a_path_names_a_file_or_the_best_of_a_run(run: Path, tmp_path: Path) -> None:
    assert checkpoint_of(run) == checkpoint_of(run / "checkpoints") == checkpoint_of(run / BEST) == run / BEST
    with pytest.raises(UserError, match="give a run's folder"):
        checkpoint_of(tmp_path)
    (tmp_path / "sweep.json").touch()
    with pytest.raises(UserError, match="is the folder of a sweep: give one of its jobs"):
        checkpoint_of(tmp_path)


# ---- the door ----


def door(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOORS / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_the_door_writes_what_the_library_does_and_nothing_else(run: Path, tmp_path: Path) -> None:
    words = (f"checkpoint={run}", "count=3", "seed=5", "walk=gif", "steps=2", "output=my samples")
    done = door("sample", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 of 28x28" in done.stdout and "3 latents, 6 frames" in done.stdout
    asked = Sampling(count=3, seed=5, walk="gif", steps=2)
    write_samples(load_synthesiser(run / BEST), asked, tmp_path / "library")
    assert content(tmp_path / "my samples") == content(tmp_path / "library")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "my samples"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("sample", [], "Say whose samples"),
        ("sample", ["checkpoint=none.ckpt"], "There is no checkpoint at none.ckpt"),
        (
            "upscale",
            ["checkpoint=RUN/checkpoints/best.ckpt", "input=photo.png"],
            "RUN/checkpoints/best.ckpt names a DCGAN",
        ),
    ],
)
def test_the_doors_say_what_is_missing(run: Path, tmp_path: Path, name: str, arguments: list[str], said: str) -> None:
    done = door(name, *(argument.replace("RUN", str(run)) for argument in arguments), cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(said.replace("RUN", str(run))) and done.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_what_the_door_exports_makes_the_same_samples(run: Path, generator: Synthesiser, tmp_path: Path) -> None:
    for kind in ("safetensors", "onnx"):
        done = door("export", f"checkpoint={run}", f"format={kind}", f"output=g.{kind}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "DCGAN" in done.stdout
    z = latents(5, 8, seed=1)
    with torch.no_grad():
        wanted = generator(z)
        assert torch.equal(load_synthesiser(tmp_path / "g.safetensors")(z), wanted)
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    (made,) = session.run(["image"], {"latent": z.numpy()})
    np.testing.assert_allclose(made, wanted, atol=1e-5)
