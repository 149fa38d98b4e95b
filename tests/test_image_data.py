"""Images for generation: what is fed is what the files hold, a function of seed, epoch and index, on any devices."""

import logging
import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from scipy import stats
from tests.small_sets import as_batches, as_idx

from upsweep.common.errors import UserError
from upsweep.data.digits import digit_files
from upsweep.data.sources import Digits, Folder
from upsweep.data.stack import ImageStack
from upsweep.tasks.feeding import EpochSampler
from upsweep.tasks.generation.data import ImageData, Images
from upsweep.tasks.super_resolution.data import PatchData

ROOT = Path(__file__).parents[1]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for number, size in enumerate([(40, 48), (33, 30), (24, 24), (50, 31), (24, 90)]):
        save(root / ("cat" if number % 2 else "dog") / f"{number}.png", noise(*size, seed=number))
    return root


@pytest.fixture
def make(tmp_path: Path, folder: Path):
    def make(**given: Any) -> ImageData:
        usual = dict(source=Folder(root=str(folder)), size=24, channels=3, latent=8, seed=3, patches_per_epoch=64)
        return ImageData(**{**usual, "samples": 40, "cache_dir": str(tmp_path / "cache"), **given})

    return make


def ready(data: ImageData, rank: int = 0, world: int = 1) -> ImageData:
    data.setup()
    if world > 1:
        device = SimpleNamespace(type="cpu")
        data.trainer = cast(
            Any, SimpleNamespace(global_rank=rank, world_size=world, strategy=SimpleNamespace(root_device=device))
        )
    return data


def epoch(data: ImageData, number: int = 0) -> Images:
    loader = data.train_dataloader()
    cast(EpochSampler, loader.sampler).set_epoch(number)
    return Images(*(torch.cat(part) for part in zip(*loader, strict=True)))


def validation(data: ImageData) -> Images:
    return Images(*(torch.cat(part) for part in zip(*data.val_dataloader(), strict=True)))


def stack(images: ImageStack | None) -> ImageStack:
    assert images is not None
    return images


# ---- what is fed ----


def test_the_shipped_digits_are_as_many_of_each_class_and_train_as_they_are(tmp_path: Path) -> None:
    data = ready(
        ImageData(source=Digits(), size=28, channels=1, latent=16, seed=1, cache_dir=str(tmp_path), flip=False)
    )
    assert data.training_images().shape == (5000, 1, 28, 28)
    assert data.validation_images().shape == (1000, 1, 28, 28)
    assert set(Counter(stack(data.train_images).labels).values()) == {500}
    assert set(Counter(stack(data.val_images).labels).values()) == {100}
    for row, file in [*enumerate(digit_files("train").values())][::777]:
        np.testing.assert_array_equal(data.training_images()[row, 0], file.read().pixels[..., 0])
    known = {image.numpy().tobytes() for image in data.training_images().float().div(255)}
    assert all(image.numpy().tobytes() in known for image in epoch(data).real)


def test_the_shipped_digits_are_below_1_mb_and_say_their_licence() -> None:
    shipped = ROOT / "src" / "upsweep" / "data" / "digits"
    assert sum(file.stat().st_size for file in shipped.iterdir() if file.is_file()) < 10**6
    assert "Attribution-ShareAlike 3.0" in (shipped / "README.md").read_text()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_a_function_of_the_seed_and_its_number(make, workers: int) -> None:
    first, again = epoch(ready(make())), epoch(ready(make(num_workers=workers, batch_size=7)))
    other_epoch, other_seed = epoch(ready(make()), 1), epoch(ready(make(seed=4)))
    for one, same, another, third in zip(first, again, other_epoch, other_seed, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, same)
        assert not torch.equal(one, another)
        assert not torch.equal(one, third)


@pytest.mark.parametrize("crop", ["centre", "random"])
def test_devices_share_an_epoch_and_its_latents_do_not_hang_on_their_number(make, crop: str) -> None:
    whole = epoch(ready(make(crop=crop)))
    for world in (2, 3):
        for rank in range(world):
            for mine, every in zip(epoch(ready(make(crop=crop), rank, world)), whole, strict=True):
                assert torch.equal(mine, every[rank : 64 // world * world : world])


def test_latents_are_standard_normal_and_independent_of_the_images(make) -> None:
    """Over more than one block of draws; 60,000 numbers."""
    data = ready(make(patches_per_epoch=1500, latent=40))
    latent = epoch(data).latent.double().numpy()
    assert stats.kstest(latent.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(latent.T) - np.eye(40)).max() < 0.15
    assert not np.array_equal(latent[:400], latent[1024:1424])
    wider = epoch(ready(make(patches_per_epoch=1500, latent=40, crop="resize"))).latent
    assert np.array_equal(wider.double().numpy(), latent)


def test_images_are_drawn_uniformly_or_by_area_where_they_are_cut(make, tmp_path: Path) -> None:
    for level, size in enumerate([(24, 24), (40, 48), (30, 90), (64, 64), (24, 60)]):
        save(tmp_path / "flat" / f"{level}.png", np.full((*size, 3), level, np.uint8))
    for crop in ("centre", "random"):
        data = ready(make(source=Folder(root=str(tmp_path / "flat")), crop=crop, patches_per_epoch=3000))
        images = stack(data.train_images)
        levels = [int(images[row][0, 0, 0]) for row in range(len(images))]
        found = Counter((epoch(data).real[:, 0, 0, 0] * 255).round().int().tolist())
        weights = images.sizes.prod(axis=1)  # of squares all the same
        observed = [found[level] for level in levels]
        assert stats.chisquare(observed, weights / weights.sum() * 3000).pvalue > 1e-3


def test_random_squares_are_cut_anywhere_and_out_of_their_images(make) -> None:
    data = ready(make(crop="random", patches_per_epoch=200, flip=False))
    images = stack(data.train_images)
    every = {part.tobytes(): row for row in range(len(images)) for part in windows(images[row])}
    squares = {part.tobytes() for part in (epoch(data).real * 255).round().to(torch.uint8).numpy()}
    assert squares <= every.keys()
    assert len(squares) > 150


def windows(image: np.ndarray) -> list[np.ndarray]:
    _, height, width = image.shape
    return [image[:, y : y + 24, x : x + 24] for y in range(height - 23) for x in range(width - 23)]


def test_half_of_the_images_are_flipped_and_none_where_that_is_said(make) -> None:
    plain, flipped = epoch(ready(make(flip=False, patches_per_epoch=400))), epoch(ready(make(patches_per_epoch=400)))
    turned = [not torch.equal(a, b) for a, b in zip(plain.real, flipped.real, strict=True)]
    assert torch.equal(plain.real[turned].flip(-1), flipped.real[turned])
    assert 150 < sum(turned) < 250
    assert torch.equal(epoch(ready(make(augment=False, patches_per_epoch=400))).real, plain.real)


# ---- how an image becomes a square ----


def test_centre_is_the_largest_square_and_resize_the_whole_shrunk_as_pillow_shrinks(tmp_path: Path) -> None:
    """Pillow's bicubic with antialiasing has the same kernel (a = -1/2); it rounds between its passes."""
    save(tmp_path / "images" / "a.png", noise(96, 120))
    save(tmp_path / "val" / "b.png", noise(96, 96, seed=1))
    source = Folder(root=str(tmp_path / "images"), val_root=str(tmp_path / "val"))
    whole = Image.fromarray(noise(96, 120))
    for crop, box in (("centre", (12, 0, 108, 96)), ("resize", (0, 0, 120, 96))):
        data = ready(
            ImageData(source=source, size=24, channels=3, latent=2, seed=1, crop=cast(Any, crop), cache="none")
        )
        expected = np.asarray(whole.resize((24, 24), Image.Resampling.BICUBIC, box=box)).transpose(2, 0, 1)
        difference = data.training_images()[0].numpy().astype(int) - expected
        inner = difference[:, 2:-2, 2:-2]  # what lies beyond a border is mirrored here, and left out there
        assert np.abs(inner).max() <= 1


def test_grey_and_colour_become_each_other(make, folder: Path) -> None:
    save(folder / "grey.png", np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8))
    colour, grey = ready(make(cache="none")), ready(make(channels=1, cache="none"))
    row = stack(colour.train_images).names.index("grey.png")
    assert torch.equal(colour.training_images()[row], grey.training_images()[row].expand(3, -1, -1))
    other = stack(colour.train_images).names.index("dog/2.png")
    luma = 16 + noise(24, 24, seed=2) @ np.array([65.481, 128.553, 24.966]) / 255  # BT.601
    np.testing.assert_allclose(grey.training_images()[other, 0], luma, rtol=0, atol=0.5 + 1e-6)


def test_folders_are_classes(make) -> None:
    data = ready(make())
    for images in map(stack, (data.train_images, data.val_images)):
        assert images.labels == [name.split("/")[0] for name in images.names]


class Recorder(pl.LightningModule):
    """Keeps the latents of every batch that Lightning hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[torch.Tensor]] = {}
        self.judged: list[torch.Tensor] = []

    def training_step(self, batch: Images, _: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).append(batch.latent)
        return self.weight * batch.real.mean()

    def validation_step(self, batch: Images, _: int) -> None:
        self.judged.append(batch.latent)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_walks_the_epochs_and_what_is_judged(make, tmp_path: Path) -> None:
    module, data = Recorder(), make()
    pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    ).fit(module, data)
    for number in range(2):
        assert torch.equal(torch.cat(module.seen[number]), epoch(ready(make()), number).latent)
    assert torch.equal(torch.cat(module.judged[:1]), validation(ready(make())).latent)


# ---- what is judged on ----


def test_every_run_is_judged_on_the_same_latents_and_the_same_images(make) -> None:
    for crop in ("centre", "random"):
        first, again = validation(ready(make(crop=crop))), validation(ready(make(crop=crop, seed=9, batch_size=5)))
        assert torch.equal(first.latent, again.latent)
        assert torch.equal(first.real, again.real)
        assert first.latent.shape == (40, 8)
        assert first.real.dtype == torch.float32
    longer = validation(ready(make(samples=1300)))
    assert torch.equal(longer.latent[:40], first.latent)
    assert not torch.equal(longer.latent[1024:1064], first.latent)


def test_devices_share_what_is_judged_without_a_double(make) -> None:
    for crop, count in (("centre", None), ("random", 40)):
        whole = validation(ready(make(crop=crop)))
        assert count in (None, len(whole.real))
        parts = [validation(ready(make(crop=crop), rank, 3)) for rank in range(3)]
        for number, every in enumerate(whole):
            for rank in range(3):
                assert torch.equal(parts[rank][number], every[rank::3])


def test_what_is_held_out_is_never_trained_on(make) -> None:
    data = ready(make())
    said = data.contents
    assert not set(said.training) & set(said.validation)
    assert len(said.training) + len(said.validation) == 5
    assert len(set((said.training | said.validation).values())) == 5


# ---- the cache ----


def test_images_are_prepared_once_and_mapped_then(make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ready(make())
    monkeypatch.setattr("upsweep.data.stack.read_picture", lambda file: pytest.fail(f"{file} was read again"))
    second = ready(make())
    assert torch.equal(first.training_images(), second.training_images())
    assert second.contents == first.contents == ready_without_cache(make, monkeypatch).contents


def ready_without_cache(make: Any, monkeypatch: pytest.MonkeyPatch) -> ImageData:
    monkeypatch.undo()
    return ready(make(cache="none"))


def test_a_damaged_cache_is_made_once_more(make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = ready(make()).training_images().clone()
    for file in (tmp_path / "cache").rglob("pixels.bin"):
        content = bytearray(file.read_bytes())
        content[7] ^= 1
        file.write_bytes(content)
    assert torch.equal(ready(make()).training_images(), expected)
    assert "was damaged: it is made again" in caplog.text


def test_a_mapped_stack_is_pickled_as_its_place(make) -> None:
    images = stack(ready(make()).train_images)
    content = pickle.dumps(images)
    assert len(content) < 1500
    again = pickle.loads(content)
    assert again.names == images.names
    assert all(np.array_equal(again[row], images[row]) for row in range(len(images)))
    kept = pickle.loads(pickle.dumps(stack(ready(make(cache="none")).train_images)))
    np.testing.assert_array_equal(kept.pixels, images.pixels[: len(kept.pixels)])


# ---- what is refused ----


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"size": 0}, r"data\.size=0: it must be a whole number above 0"),
        ({"latent": 0}, r"generator\.latent=0 must be at least 1"),
        ({"channels": 2}, r"data\.channels=2: it must be 1 \(Y\) or 3 \(RGB\)"),
        ({"crop": "top"}, r"data\.crop='top': it must be centre, random or resize"),
        ({"samples": 0}, r"data\.samples=0: it must be"),
        ({"cache": "ram"}, r"data\.cache='ram': it must be disk or none"),
        ({"num_workers": -1}, r"data\.num_workers=-1: it must be"),
        ({"size": 99}, r"None of 5 image files .* are too few for data\.size=99 \(images are not enlarged\)"),
        (
            {"size": 25, "strict": True},
            r"24x24 pixels are too few for data\.size=25 .* \(data\.strict=true stops here\)",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(make, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ready(make(**given))


def test_images_that_are_too_small_are_named_and_left_out(make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="upsweep"):
        data = ready(make(size=30))
    assert len(data.contents.training) + len(data.contents.validation) == 3
    assert set(data.contents.passed_over) == {"dog/2.png", "dog/4.png"}
    assert "Left out: " in caplog.text


def test_too_few_for_the_devices_is_one_sentence(make) -> None:
    with pytest.raises(UserError, match=r"data\.samples=2 is too few for 3 devices"):
        ready(make(samples=2), 0, 3).val_dataloader()
    with pytest.raises(UserError, match=r"data\.patches_per_epoch=2 is too few for 3 devices"):
        ready(make(patches_per_epoch=2), 0, 3).train_dataloader()


# ---- every set through both tasks ----


def configured(name: str, feed: str, *overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"data={name}", f"feed@task.data={feed}", "+generator.latent=16", *overrides])
    return instantiate(cfg.task.data, _convert_="all")


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "cifar10", "photos", "folder", "t91", "pairs"])
def test_every_set_serves_both_tasks(name: str, folder: Path, tmp_path: Path) -> None:
    as_idx(tmp_path / "MNIST" / "raw")
    as_idx(tmp_path / "FashionMNIST" / "raw", "fashion_mnist")
    as_batches(tmp_path / "cifar-10-batches-py")
    for number in range(3):
        save(tmp_path / "T91" / f"{number}.png", noise(64, 48, seed=number))
        save(tmp_path / "lr" / f"{number}.png", noise(32, 24, seed=number))
    roots = {"folder": [f"data.root={folder}"], "digits": [], "photos": []}
    roots["pairs"] = [f"data.lr_root={tmp_path / 'lr'}", f"data.hr_root={tmp_path / 'T91'}"]
    given = [*roots.get(name, [f"data.root={tmp_path}"]), f"data.cache_dir={tmp_path / 'cache'}", "scale=2"]
    small = ["data.size=24"] if name == "folder" else []
    data = configured(name, "images", *given, *small)
    assert isinstance(data, ImageData)
    batch = next(iter(ready(data).train_dataloader()))
    assert batch.latent.shape == (16, 16)
    assert batch.real.shape == (16, data.channels, data.size, data.size)
    assert len(validation(data).latent) == 5000
    own_patch = [] if name in ("digits", "mnist", "fashion_mnist", "cifar10") else ["data.patch_size=8"]
    patches = configured(name, "patches", *given, *own_patch)
    assert isinstance(patches, PatchData)
    patches.setup()
    assert next(iter(patches.train_dataloader())).hr.shape[-1] == 2 * patches.patch_size
    assert next(iter(patches.val_dataloader())).hr.shape[:2] == (1, 1)
