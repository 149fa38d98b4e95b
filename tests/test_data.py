"""The data room: what is cut is what the files hold, whoever cuts it and however often."""

import importlib
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Philox
from PIL import Image
from tests.small_sets import as_batches, as_idx

from upsweep.common.errors import UserError
from upsweep.data import cache, photos, sources, store
from upsweep.data.class_sets import CLASS_SETS
from upsweep.data.degradation import Blur, Noise
from upsweep.data.sources import Classes, Folder, Known, Pairs, Source, held_out, paired
from upsweep.data.store import Settings, StoredImage, open_images
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.files import Picture
from upsweep.imaging.resize import imresize, shrink
from upsweep.imaging.writing import write_image
from upsweep.tasks.feeding import EpochSampler, draw
from upsweep.tasks.super_resolution.data import EvalImage, PatchData
from upsweep.tasks.super_resolution.patches import Patch, TrainPatches, place_of, turned

ROOT = Path(__file__).parents[1]


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **kwargs: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **kwargs)
    return path


def fed(kind: type[Source], **given: Any) -> PatchData:
    """Patches of a source, whose own arguments are among the others."""
    own = {field.name: given[field.name] for field in fields(cast(Any, kind)) if field.name in given}
    rest = {key: value for key, value in given.items() if key not in own or key == "scale"}
    return PatchData(source=kind(**own), **rest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six good images of several sizes, one of them grey and one two folders down."""
    root = tmp_path / "images"
    for number, size in enumerate([(64, 80), (61, 67), (90, 50), (48, 48)]):
        save(root / f"{number}.png", noise(*size, seed=number))
    save(root / "grey.png", noise(70, 60, 1))
    save(root / "deep" / "er" / "x.bmp", noise(55, 77, seed=9))
    return root


@pytest.fixture
def make(tmp_path: Path, folder: Path):
    def make(**kwargs: Any) -> PatchData:
        settings = dict(root=str(folder), scale=2, channels=1, seed=3, patch_size=8, patches_per_epoch=64)
        return fed(Folder, **{**settings, "cache_dir": str(tmp_path / "cache"), **kwargs})

    return make


def epochs(data: PatchData, count: int = 1) -> list[Patch]:
    """All patches of the first epochs, in the order of the loader."""
    loader, batches = data.train_dataloader(), []
    for epoch in range(count):
        cast(EpochSampler, loader.sampler).set_epoch(epoch)
        batches += list(loader)
    return [Patch(*pair) for batch in batches for pair in zip(*batch, strict=True)]


def same(a: list[Patch], b: list[Patch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.lr, y.lr) and torch.equal(x.hr, y.hr) for x, y in zip(a, b, strict=True)
    )


# ---- what a patch is ----


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [2, 3])
def test_lr_and_hr_patches_show_the_same_place(make, channels: int, scale: int) -> None:
    """Away from the border, the LR patch is the shrink of the HR patch, turned or not."""
    data = make(channels=channels, scale=scale, patch_size=14)
    data.setup()
    for patch in epochs(data):
        assert patch.lr.shape == (channels, 14, 14)
        assert patch.hr.shape == (channels, 14 * scale, 14 * scale)
        again = shrink(patch.hr.double(), scale)[:, 2:-2, 2:-2]
        torch.testing.assert_close(patch.lr[:, 2:-2, 2:-2].double(), again, rtol=0, atol=1e-6)


def test_a_patch_is_cut_from_the_file_with_no_false_border(make, folder: Path) -> None:
    """Against Pillow's decode and the LR of the whole image, to the last pixel of the patch."""
    data = make(channels=3, augment=False)
    data.setup()
    whole = {}
    for image in data.train_images:
        pixels = np.asarray(Image.open(folder / image.name).convert("RGB"))
        pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
        hr = torch.from_numpy(pixels.copy()).permute(2, 0, 1).double() / 255
        whole[image.name] = hr, shrink(hr, 2)
    sizes = [(image.lr.shape[1], image.lr.shape[2]) for image in data.train_images]
    ends = list(accumulate(h * w for h, w in sizes))
    for index, patch in enumerate(epochs(data)):
        crop = place_of(3, 0, index, sizes, ends, 8)
        hr, lr = whole[data.train_images[crop.image].name]
        y, x = crop.top, crop.left
        expected = hr[:, 2 * y : 2 * y + 16, 2 * x : 2 * x + 16], lr[:, y : y + 8, x : x + 8]
        torch.testing.assert_close(patch.hr.double(), expected[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(patch.lr.double(), expected[1], rtol=0, atol=1e-7)


def test_luma_is_rounded_before_it_is_shrunk(tmp_path: Path) -> None:
    pixels = noise(40, 44)
    path = save(tmp_path / "a.png", pixels)
    (image,) = open_images({"a": path}, Settings(2, 1, colour=False), None).images
    luma = np.round(16 + pixels.astype(np.float64) @ [65.481, 128.553, 24.966] / 255)
    assert np.array_equal(image.hr[0], luma)
    expected = shrink(torch.from_numpy(luma)[None] / 255, 2)
    np.testing.assert_allclose(image.lr, expected, rtol=0, atol=1e-7)


def test_the_eight_turns_are_the_symmetries_of_the_square() -> None:
    square = np.arange(9).reshape(1, 3, 3)
    expected = {np.rot90(s, k, (1, 2)).tobytes() for s in (square, square[..., ::-1]) for k in range(4)}
    assert {np.ascontiguousarray(turned(square, turn)).tobytes() for turn in range(8)} == expected
    assert np.array_equal(turned(square, 0), square)


# ---- where a patch is ----


@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6), index=st.integers(0, 10**9))
def test_draw_is_one_philox_block(seed: int, epoch: int, index: int) -> None:
    assert draw(seed, epoch, index) == Philox(key=seed | epoch << 64, counter=index).random_raw(4).tolist()


@given(
    st.lists(st.tuples(st.integers(5, 40), st.integers(5, 40)), min_size=1, max_size=5),
    st.integers(0, 99),
    st.integers(0, 5000),
)
def test_every_crop_lies_inside_its_image(sizes: list[tuple[int, int]], seed: int, index: int) -> None:
    crop = place_of(seed, 0, index, sizes, list(accumulate(h * w for h, w in sizes)), 5)
    height, width = sizes[crop.image]
    assert 0 <= crop.top <= height - 5
    assert 0 <= crop.left <= width - 5
    assert 0 <= crop.turn < 8


def test_crops_are_uniform_over_images_by_area_places_and_turns() -> None:
    sizes, count = [(8, 8), (8, 24), (16, 24)], 20_000
    crops = [place_of(0, 1, i, sizes, [64, 256, 640], 8) for i in range(count)]
    for seen, shares in [
        (Counter(c.image for c in crops), [0.1, 0.3, 0.6]),
        (Counter(c.turn for c in crops), [1 / 8] * 8),
        (Counter(c.left for c in crops if c.image == 1), [1 / 17] * 17),
        (Counter(c.top for c in crops if c.image == 2), [1 / 9] * 9),
    ]:
        total = sum(seen.values())
        for value, share in enumerate(shares):
            assert abs(seen[value] - total * share) < 5 * (total * share * (1 - share)) ** 0.5


def test_patches_do_not_hang_on_workers_or_batches(make) -> None:
    reference = make()
    reference.setup()
    expected = epochs(reference, 2)
    assert not same(expected[:64], expected[64:])  # another epoch, other crops
    for kwargs in ({"num_workers": 2}, {"batch_size": 5}, {"cache": "none"}):
        data = make(**kwargs)
        data.setup()
        assert same(epochs(data, 2), expected), kwargs
    other = make(seed=4)
    other.setup()
    assert not same(epochs(other), expected[:64])


def test_devices_share_an_epoch_without_overlap_or_padding() -> None:
    for count, world in [(64, 1), (64, 2), (67, 3), (5, 4)]:
        shares = [list(EpochSampler(count, rank=rank, world=world)) for rank in range(world)]
        assert {len(share) for share in shares} == {count // world}
        together = [index for step in zip(*shares, strict=True) for _, index in step]
        assert together == list(range(count // world * world))


def test_workers_begin_with_the_epoch_that_was_set_after_iter(make) -> None:
    """Lightning asks for the iterator first and sets the epoch then; on a resume that epoch is not 0."""
    data = make(num_workers=1)
    data.setup()
    loader = data.train_dataloader()
    batches = iter(loader)
    loader.sampler.set_epoch(5)
    first = next(batches)
    assert torch.equal(first.lr[0], loader.dataset[5, 0].lr)


class Recorder(pl.LightningModule):
    """Remembers the batches that the trainer hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[tuple[int, Patch]] = []
        self.judged: list[EvalImage] = []

    def training_step(self, batch: Patch) -> torch.Tensor:
        self.trained.append((self.current_epoch, batch))
        return self.weight * batch.lr.mean()

    def validation_step(self, batch: EvalImage) -> None:
        self.judged.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: pl.LightningDataModule, folder: Path, **kwargs: Any) -> Recorder:
    recorder = Recorder()
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    trainer = pl.Trainer(
        default_root_dir=folder,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **{**quiet, **kwargs},
    )
    trainer.fit(recorder, datamodule=data)
    return recorder


@pytest.mark.filterwarnings("ignore")
def test_lightning_walks_the_epochs_and_the_whole_images(make, tmp_path: Path) -> None:
    data = make(patches_per_epoch=32, channels=1)
    recorder = fit(data, tmp_path, max_epochs=3)
    assert [epoch for epoch, _ in recorder.trained] == [0, 0, 1, 1, 2, 2]
    patches = data.train_dataloader().dataset
    for step, (epoch, batch) in enumerate(recorder.trained):
        assert torch.equal(batch.hr[3], patches[epoch, step % 2 * 16 + 3].hr)
    assert [image.name for image in recorder.judged] == 3 * [image.name for image in data.val_images]


@pytest.mark.filterwarnings("ignore")
def test_overfitting_sees_the_same_patches_in_every_epoch(make, tmp_path: Path) -> None:
    recorder = fit(make(), tmp_path, max_epochs=2, overfit_batches=1)
    (_, first), (_, second) = recorder.trained
    assert torch.equal(first.hr, second.hr)


# ---- whole images ----


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_copies_are_the_training_images_shrunk_and_no_others(make, folder: Path, cache: str) -> None:
    plain, data = make(cache=cache), make(cache=cache, copies=[0.75, 0.2])
    plain.setup()
    data.setup()
    assert [image.name for image in data.val_images] == [image.name for image in plain.val_images]
    assert {image.hr.shape[1:] for image in data.val_images} == {image.hr.shape[1:] for image in plain.val_images}
    originals, shrunk = data.train_images[: len(plain.train_images)], data.train_images[len(plain.train_images) :]
    assert [image.name for image in shrunk] == [image.name for image in originals] + [
        image.name for image in originals if min(np.array(image.hr.shape[1:]) // 5) >= 16
    ], "those that become too small for a patch are no training images"
    first = next(image for image in shrunk if image.name != "grey.png")
    pixels = np.asarray(Image.open(folder / first.name)).astype(np.float64) / 255
    small = imresize(torch.from_numpy(pixels).permute(2, 0, 1), 0.75).clamp(0, 1).mul(255).round() / 255
    luma = rgb_to_y(small[:, : small.shape[1] // 2 * 2, : small.shape[2] // 2 * 2]).mul(255).round()
    assert np.array_equal(first.hr, luma.to(torch.uint8).numpy())
    assert np.allclose(first.lr, shrink(luma / 255, 2).numpy(), atol=1e-6)


def test_even_draws_every_image_as_often(make) -> None:
    data = make(even=True, patches_per_epoch=6000)
    data.setup()
    patches = cast(TrainPatches, data.train_dataloader().dataset)
    sizes, ends = patches.sizes, patches.ends
    drawn = Counter(place_of(3, 0, index, sizes, ends, 8).image for index in range(6000))
    assert all(abs(count - 6000 / len(sizes)) < 200 for count in drawn.values()) and len(drawn) == len(sizes)


def test_detail_takes_the_patch_of_most_energy_among_so_many(make) -> None:
    data = make(detail=3, patches_per_epoch=64)
    data.setup()
    patches = cast(TrainPatches, data.train_dataloader().dataset)
    for index in range(64):
        places = [place_of(3, 1, index + 64 * k, patches.sizes, patches.ends, 8) for k in range(3)]
        lrs = [data.train_images[c.image].lr[:, c.top : c.top + 8, c.left : c.left + 8] for c in places]
        steps = [[(lr[..., 1:, :] - lr[..., :-1, :]).ravel(), (lr[..., 1:] - lr[..., :-1]).ravel()] for lr in lrs]
        most = int(np.argmax([np.square(np.concatenate(each)).sum() for each in steps]))
        assert np.array_equal(patches[1, index].lr.numpy(), turned(lrs[most], places[most].turn))


@pytest.mark.parametrize("detail", [0, 1.5, None, 257])
def test_detail_is_a_number_of_patches(make, detail: object) -> None:
    with pytest.raises(UserError, match=r"data\.detail"):
        make(detail=detail)


def test_validation_images_are_whole_and_keep_their_colours(make, tmp_path: Path) -> None:
    val = tmp_path / "val"
    pixels = noise(51, 62)
    save(val / "colour.png", pixels)
    save(val / "grey.png", pixels[..., 0])
    for channels in (1, 3):
        data = make(channels=channels, val_root=str(val))
        data.setup()
        colour, grey = data.val_dataloader()
        assert (colour.name, grey.name) == ("colour.png", "grey.png")
        assert colour.hr.shape == (1, channels, 50, 62)
        assert colour.lr.shape == (1, channels, 25, 31)
        expected = torch.from_numpy(pixels[:50].copy()).permute(2, 0, 1)[None] / 255
        torch.testing.assert_close(colour.rgb_hr, expected, rtol=0, atol=0)
        torch.testing.assert_close(colour.rgb_lr, shrink(expected.double(), 2).float(), rtol=0, atol=1e-6)
        assert grey.rgb_hr is None
        assert grey.rgb_lr is None
        assert torch.equal(grey.hr, expected[:, :1].expand(1, channels, -1, -1))


def test_moving_an_image_to_a_device_keeps_its_name_and_its_gaps() -> None:
    image = EvalImage("a.png", torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), None, None)
    moved = pl.LightningDataModule().transfer_batch_to_device(image, torch.device("meta"), 0)
    assert isinstance(moved, EvalImage)
    assert (moved.name, moved.rgb_lr, moved.rgb_hr) == ("a.png", None, None)
    assert moved.lr.device.type == moved.hr.device.type == "meta"


def on_rank(data: PatchData, rank: int, world: int) -> PatchData:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy)  # type: ignore[assignment]
    return data


def test_devices_share_the_validation_images_each_once(make) -> None:
    seen = []
    for rank in range(2):
        data = on_rank(make(val_share=0.5), rank, 2)
        data.setup()
        assert len(cast(EpochSampler, data.train_dataloader().sampler)) == 32
        seen += [image.name for image in data.val_dataloader()]
    assert sorted(seen) == sorted(image.name for image in data.val_images)
    assert len(seen) == 2
    with pytest.raises(UserError, match="2 validation images are too few for 4 devices"):
        on_rank(data, 0, 4).val_dataloader()


# ---- the files of the world ----


def test_every_kind_of_image_trains(make, tmp_path: Path) -> None:
    root, pixels = tmp_path / "kinds", noise(40, 40)
    save(root / "rgb.jpg", pixels)
    save(root / "rgb.WEBP", pixels)
    save(root / "rgba.png", noise(40, 40, 4))
    save(root / "grey16.png", noise(40, 40, 1).astype(np.uint16) * 257)
    save(root / "grey.tiff", pixels[..., 0])
    Image.fromarray(pixels).quantize(64).save(root / "palette.png")
    for channels in (1, 3):
        data = make(root=str(root), channels=channels, strict=True)
        data.setup()
        assert len(data.train_images) == 5
        assert len(data.val_images) == 1
        assert all(image.hr.shape == (channels, 40, 40) for image in data.train_images)
    (deep,) = (i for i in [*data.train_images, *data.val_images] if i.name == "grey16.png")
    assert np.array_equal(deep.hr[0], noise(40, 40, 1))


@pytest.fixture
def bad(folder: Path) -> list[str]:
    """Four files that cannot be used, beside the good ones."""
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no image")
    whole = save(folder / "cut.png", noise(64, 64)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    save(folder / "tiny.png", noise(15, 40))
    return ["cut.png", "empty.png", "text.jpg", "tiny.png"]


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_bad_files_are_named_once_each_and_left_out(make, bad: list[str], caplog, cache: str) -> None:
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        data = make(cache=cache)
        with caplog.at_level(logging.WARNING, "upsweep"):
            data.setup()
        assert len(data.train_images) == 5
        assert len(data.val_images) == 1
        assert all(sum(name in message for message in caplog.messages) == 1 for name in bad)
        assert len(caplog.messages) == len(bad)
    assert "40x14 usable pixels are too few: data.patch_size=8 at x2 needs 16x16" in caplog.text


def test_strict_stops_at_a_bad_file(make, bad: list[str]) -> None:
    with pytest.raises(UserError, match=r"cut\.png.*data\.strict=true"):
        make(strict=True).setup()


def test_a_repaired_file_is_used(make, folder: Path, bad: list[str]) -> None:
    make().setup()
    shutil.copy(folder / "0.png", folder / "cut.png")
    data = make()
    data.setup()
    assert len(data.train_images) + len(data.val_images) == 7


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"root": None}, r"data\.root=PATH"),
        ({"root": "nowhere"}, r"data\.root=nowhere is not a folder"),
        ({"val_root": "nowhere"}, r"data\.val_root=nowhere is not a folder"),
        ({"patch_size": 200}, r"None of 6 image files can be used for training; .*needs 400x400"),
        ({"val_share": 0.0}, r"val_share=0\.0 must be between"),
        ({"val_share": 0.99}, r"val_share=0\.99 leaves none to train on"),
        ({"channels": 2}, r"data\.channels=2: it must be 1 \(Y\) or 3 \(RGB\)"),
        ({"patch_size": 0}, r"data\.patch_size=0: it must be"),
        ({"copies": [1.5]}, r"data\.copies=1\.5: it must be shares between 0 and 1"),
        ({"num_workers": -1}, r"data\.num_workers=-1"),
        ({"cache": "ram"}, r"data\.cache='ram': it must be disk or none"),
    ],
)
def test_wrong_settings_end_in_one_sentence(make, kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**kwargs).setup()


def test_no_usable_image_on_either_side_is_an_error(make, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"data\.root=.*none has no images"):
        make(root=str(tmp_path / "none")).setup()
    (tmp_path / "none" / "broken.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"can be used for training; .*broken\.png"):
        make(root=str(tmp_path / "none")).setup()
    with pytest.raises(UserError, match=r"can be used for validation; .*broken\.png"):
        make(val_root=str(tmp_path / "none")).setup()


def test_what_is_validated_on_is_never_trained_on(make, folder: Path) -> None:
    shared = make()
    shared.setup()
    inside = make(val_root=str(folder / "deep"))
    inside.setup()
    assert [image.name for image in inside.val_images] == ["er/x.bmp"]
    assert "deep/er/x.bmp" not in {image.name for image in inside.train_images}
    names = [{image.name for image in images} for images in (shared.train_images, shared.val_images)]
    assert not names[0] & names[1]
    with pytest.raises(UserError, match="No image is left to train on"):
        make(val_root=str(folder)).setup()


@given(st.sets(st.integers(), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_held_out_depends_on_the_names_alone(numbers: set[int], share: float) -> None:
    names = {f"{number}.png" for number in numbers}
    chosen = held_out(sorted(names), share)
    assert chosen == held_out(sorted(names, reverse=True), share)
    assert 1 <= len(chosen) <= len(names)
    assert len(chosen) < len(names) or round(share * len(names)) == len(names)
    assert set(chosen) <= names


@given(st.sets(st.integers(), min_size=100, max_size=140), st.sets(st.integers(), max_size=100), st.floats(0.2, 0.8))
def test_known_images_stay_on_their_side_when_others_are_added(known: set[int], more: set[int], share: float) -> None:
    before = held_out([f"{number}.png" for number in known], share)
    after = held_out([f"{number}.png" for number in known | more], share)
    assert set(after) & {f"{number}.png" for number in known} == set(before)


def test_about_the_share_is_held_out() -> None:
    assert len(held_out([f"{number}.png" for number in range(4000)], 0.1)) == pytest.approx(400, abs=60)


def test_a_run_says_how_many_images_it_uses_and_what_it_passed_over(make, folder: Path, caplog) -> None:
    caplog.set_level("INFO", "upsweep")
    before = make()
    before.setup()
    (folder / "notes.txt").touch()
    (folder / "b.mov").touch()
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    data = make()
    data.setup()
    said = data.contents
    assert (said.training, said.validation) == before.contents[:2]
    train, val = len(said.training), len(said.validation)
    assert said.sentence == (
        f"{train} images to train on, {val} to validate on, 3 files skipped: cut.png, b.mov, notes.txt."
    )
    assert said.sentence in caplog.text


# ---- what upsweep made ----


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_enlarged_photos_are_no_data_and_one_line_counts_them(
    make, folder: Path, tmp_path: Path, caplog, suffix: str
) -> None:
    """Training and validation are those of the folder without them, and so is the prepared cache."""
    before = make(val_share=0.4)
    before.setup()
    prepared = caches(tmp_path)
    for photo in sorted(folder.rglob("*.*")):  # at any size: their metadata tell
        write_image(photo.with_name(f"{photo.stem}_large{suffix}"), Picture(noise(66, 70)))
    data = make(val_share=0.4)
    data.setup()
    assert data.contents == before.contents
    assert caches(tmp_path) == prepared
    (line,) = [record.getMessage() for record in caplog.records if "upsweep made" in record.getMessage()]
    assert line.startswith(f"6 images that upsweep made were left out of {folder}: 0_large{suffix}, 1_large{suffix}, ")


def test_enlargements_of_older_versions_are_known_by_name_and_size(make, folder: Path) -> None:
    before = make()
    before.setup()
    save(folder / "0_x2.png", noise(128, 160))  # of 0.png, 64 x 80
    save(folder / "3_png_x3.webp", noise(144, 144))  # of 3.png, told apart from another 3
    save(folder / "deep" / "er" / "x_x4.jpg", noise(220, 308))
    data = make()
    data.setup()
    assert data.contents == before.contents


def test_a_name_alone_makes_no_photo_ours(make, folder: Path) -> None:
    """`0001x2.png` is DIV2K's own way to name an LR image; and whoever calls a photo `a_x2.png` may do so."""
    for name, size in {"0x2": (32, 40), "1_x2": (121, 134), "other_x2": (128, 160), "deep/0_x2": (128, 160)}.items():
        save(folder / f"{name}.png", noise(*size))
    tagged = Image.Exif()
    tagged[0x0131] = "GIMP 2.10"
    save(folder / "edited.jpg", noise(50, 60), exif=tagged)
    data = make()
    data.setup()
    assert len(data.contents.training) + len(data.contents.validation) == 6 + 5


def test_a_photo_that_becomes_ours_is_left_out_of_the_cache_too(make, folder: Path, tmp_path: Path) -> None:
    make().setup()
    before = caches(tmp_path)
    write_image(folder / "0.png", Picture(noise(64, 80)))
    data = make()
    data.setup()
    assert "0.png" not in data.contents.training | data.contents.validation
    assert len(caches(tmp_path)) > len(before)


def test_a_folder_of_our_images_alone_is_one_sentence(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Picture(noise(64, 80)))
    with pytest.raises(UserError, match=r"has only images that upsweep made"):
        fed(Folder, root=str(tmp_path), scale=2, channels=1, seed=0).setup()


# ---- the cache ----


def caches(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def test_images_are_decoded_once_and_mapped_then(make, monkeypatch) -> None:
    first = make()
    first.setup()
    monkeypatch.setattr(store, "read_picture", lambda path: pytest.fail(f"{path} was decoded again"))
    second = make(batch_size=4, patch_size=6, seed=9)  # no setting that the prepared images depend on
    second.setup()
    for a, b in zip(first.train_images, second.train_images, strict=True):
        assert np.array_equal(a.hr, b.hr)
        assert np.array_equal(a.lr, b.lr)
    assert not second.train_images[0].hr.flags.writeable


def test_cache_follows_files_and_settings(make, tmp_path: Path, folder: Path) -> None:
    make().setup()
    before = len(caches(tmp_path))
    make(scale=3).setup()
    make(channels=3).setup()
    assert len(caches(tmp_path)) == 3 * before
    save(folder / "0.png", noise(64, 80, seed=77))
    data = make()
    data.setup()
    fresh = make(cache="none")
    fresh.setup()
    assert same(epochs(data), epochs(fresh))


STEP = """
from dataclasses import dataclass
from upsweep.data.degradation import Step
@dataclass(frozen=True)
class Blur(Step):
    sigma: float = 1.0
    def __call__(self, image, scale, rng): return image * {factor}
"""


def test_the_cache_follows_the_code_of_a_step_of_ones_own(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its name is that of another step, and where nothing but its file has changed."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    brightest = {}
    for factor in (None, 0.5, 0.25):
        (tmp_path / "own_steps.py").write_text(STEP.format(factor=factor), encoding="utf-8")
        monkeypatch.delitem(sys.modules, "own_steps", raising=False)
        importlib.invalidate_caches()
        step = Blur(1.0) if factor is None else importlib.import_module("own_steps").Blur()
        data = make(degradation={"blur": step})
        data.setup()
        brightest[factor] = max(float(image.lr.max()) for image in data.val_images)
    assert brightest[0.25] < 0.3 < brightest[0.5] < 0.6 and brightest[None] != brightest[0.5]


def flip(file: Path, at: int) -> None:
    """Change one bit, and neither size nor time."""
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": lambda folder: os.truncate(folder / "pixels.bin", 100),
    "the first bit": lambda folder: flip(folder / "pixels.bin", 0),
    "the last bit": lambda folder: flip(folder / "pixels.bin", -1),
    "index emptied": lambda folder: os.truncate(folder / "index.json", 0),
    "index cut": lambda folder: os.truncate(folder / "index.json", 40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_once_more_and_says_so(
    make, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = make()
    first.setup()
    expected = epochs(first)
    make().setup()
    assert "damaged" not in caplog.text
    found = list(caches(tmp_path))
    for folder in found:
        DAMAGES[damage](folder)
    second = make()
    second.setup()
    assert same(epochs(second), expected)
    assert caplog.text.count("was damaged: it is made again") == len(found)


def test_a_cache_that_cannot_be_written_is_one_sentence(make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written.*data\.cache_dir=PATH.*data\.cache=none"):
        make(cache_dir=str(tmp_path / "file" / "cache")).setup()


OPEN = """
import os, signal, sys
from pathlib import Path
from upsweep.data import store
root, cache, die = Path(sys.argv[1]), Path(sys.argv[2]), len(sys.argv) > 3
reads = []
read_picture = store.read_picture
def counted(path):
    reads.append(path)
    return read_picture(path)
store.read_picture = counted
if die:
    append = store._append
    def killed(out, image):
        entry = append(out, image)
        out.flush()
        if len(reads) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return entry
    store._append = killed
files = {p.name: p for p in sorted(root.glob("*.png"))}
opened = store.open_images(files, store.Settings(2, 1, colour=False), cache)
print(len(reads), sum(int(i.hr.sum()) for i in opened.images))
"""


def opener(folder: Path, cache: Path, *args: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", OPEN, str(folder), str(cache), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def test_two_processes_at_once_do_the_work_once(folder: Path, tmp_path: Path) -> None:
    processes = [opener(folder, tmp_path / "cache") for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(int(reads) for reads, _ in outputs) == [0, 5]
    assert outputs[0][1] == outputs[1][1]
    assert len(caches(tmp_path)) == 1


def test_a_process_killed_while_writing_leaves_nothing_that_looks_whole(folder: Path, tmp_path: Path) -> None:
    process = opener(folder, tmp_path / "cache", "die")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    (half,) = caches(tmp_path)
    assert half.name.endswith(".part")
    files = {path.name: path for path in sorted(folder.glob("*.png"))}
    settings = Settings(2, 1, colour=False)
    opened = open_images(files, settings, tmp_path / "cache")
    direct = open_images(files, settings, None)
    for a, b in zip(opened.images, direct.images, strict=True):
        assert a.name == b.name
        assert np.array_equal(a.hr, b.hr)
        assert np.array_equal(a.lr, b.lr)
    (whole,) = caches(tmp_path)
    assert not whole.name.endswith(".part")


def test_a_mapped_image_is_pickled_as_its_place(make) -> None:
    """Workers that are spawned must not be sent 10 GB."""
    data = make()
    data.setup()
    patches = data.train_dataloader().dataset
    sent = pickle.dumps(patches)
    assert len(sent) < 500 * len(data.train_images)
    received = pickle.loads(sent)
    assert torch.equal(received[2, 7].hr, patches[2, 7].hr)
    memory = make(cache="none")
    memory.setup()
    image = pickle.loads(pickle.dumps(memory.train_images[0]))
    assert np.array_equal(image.hr, memory.train_images[0].hr)


def test_a_crop_reads_only_the_bytes_of_its_patch(tmp_path: Path) -> None:
    """From an image of 16 GiB, all holes: the kernel maps 64 KiB around each of the 4 * 192 rows, no more."""
    side = 1 << 17
    for name, size in ("hr", side**2), ("lr", side**2 // 16):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)
    hr = np.memmap(tmp_path / "hr", np.uint8, "r", shape=(1, side, side))
    lr = np.memmap(tmp_path / "lr", np.float32, "r", shape=(1, side // 8, side // 8))
    patches = TrainPatches([StoredImage("big", hr, lr)], patch_size=24, count=4, seed=0)
    before = resident()
    for index in range(4):
        assert patches[0, index].hr.shape == (1, 192, 192)
    assert resident() - before < 100e6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cache_of_10_gb_trains_in_little_private_memory(tmp_path: Path) -> None:
    """A process that kept what it mapped would be at 2.8 GB after these patches."""
    pytest.importorskip("psutil")
    script = ROOT / "benchmarks" / "data_memory.py"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, script, "--into", tmp_path], env=env, cwd=tmp_path, check=True)
    found = json.loads((tmp_path / "data_memory.json").read_text())
    assert found["cache_bytes"] >= 10e9
    assert found["patches"] * 3 * 48 * 3 * 4096 > 1.8 * found["bound_bytes"]  # a page for each row, at least
    assert found["largest_private_bytes"] <= 1.5e9


def resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def test_slow_preparation_shows_a_bar_on_a_terminal(make, monkeypatch, capsys) -> None:
    monkeypatch.setattr(cache, "PROGRESS_AFTER", 0.0)
    threads = torch.get_num_threads()
    make(scale=3).setup()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("upsweep.common.progress.redraws", lambda _: True)
    make().setup()
    assert "preparing images" in capsys.readouterr().err
    assert torch.get_num_threads() == threads


# ---- photos and configs ----


def test_photos_are_in_the_wheel_and_no_scene_is_on_both_sides() -> None:
    assert not {name[:5] for name in photos.TRAIN} & {name[:5] for name in photos.VAL}
    for names in (photos.TRAIN, photos.VAL):
        for name, path in photos.photo_files(names).items():
            with Image.open(path) as image:
                assert image.mode == "RGB", name


def below(folder: Path, *names: str, size: tuple[int, int] = (48, 56)) -> None:
    for number, name in enumerate(names):
        save(folder / name, noise(*size, seed=number))


SETS = {
    "t91": {"T91", "BSDS500-test"},
    "bsd200": {"BSD200", "BSDS500-test"},
    "t91_bsd200": {"T91", "BSD200", "BSDS500-test"},
    "mixed": {"T91", "BSD200", "BSDS500-test", "Free", "Kodak24"},
    "free": {"Free", "Kodak24"},
    "div2k": {"DIV2K_train_HR", "DIV2K_valid_HR"},
    "df2k": {"DIV2K_train_HR", "Flickr2K", "DIV2K_valid_HR"},
}


def composed(*overrides: str, mine: Path | None = None) -> PatchData:
    """What the command line gives; `mine` is a --config-dir."""
    more = [f"hydra.searchpath=[file://{mine}]"] if mine else []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [*more, *overrides])
    data = instantiate(cfg.task.data, _convert_="all")
    assert isinstance(data, PatchData)
    return data


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")))
def test_every_data_config_builds_its_data(name: str, folder: Path, tmp_path: Path) -> None:
    assert (ROOT / "conf" / "data" / f"{name}.yaml").read_text().startswith("# ")
    below(tmp_path, *(f"{known}/{n}.png" for known in ("T91", "BSD200") for n in range(3)))
    below(tmp_path, *(f"{known}/{n}.png" for known in ("BSDS500-test", "Free") for n in range(100, 103)))
    below(tmp_path, *(f"Kodak24/kodim0{n}.png" for n in range(3)))
    below(tmp_path, "DIV2K_train_HR/0001.png", "Flickr2K/1.png", "DIV2K_valid_HR/0801.png", "Set5/HR/baby.png")
    below(tmp_path, *(f"lr/{n}x2.png" for n in range(3)), size=(24, 28))
    below(tmp_path, *(f"hr/{n}.png" for n in range(3)))
    as_idx(tmp_path / "MNIST" / "raw")
    as_idx(tmp_path / "FashionMNIST" / "raw", "fashion_mnist")
    as_batches(tmp_path / "cifar-10-batches-py")
    roots = {
        "photos": [],
        "digits": [],
        "folder": [f"data.root={folder}"],
        "pairs": [f"data.lr_root={tmp_path}/lr", f"data.hr_root={tmp_path}/hr"],
    }
    given = [f"data.cache_dir={tmp_path}/cache", "data.patch_size=8", "data.patches_per_epoch=48", "scale=2"]
    data = composed(f"data={name}", *roots.get(name, [f"data.root={tmp_path}"]), *given)
    data.setup("fit")
    assert data.train_images and data.val_images
    assert next(iter(data.train_dataloader())).lr.shape == (16, 1, 8, 8)
    assert len(data.train_dataloader()) == 3
    names = {image.name for image in (*data.train_images, *data.val_images)}
    assert not any("Set5" in name for name in names)  # a benchmark is for evaluate.py
    if name in SETS:
        assert isinstance(data.source, Known)
        assert {name.split("/")[0] for name in names} == SETS[name]
    elif name in CLASS_SETS:
        assert isinstance(data.source, Classes)
        assert len(data.val_images) == (3 if name == "cifar10" else 8)
    else:
        assert type(data.source).__name__.lower() == name


def test_a_data_set_of_the_users_own_is_a_file_of_three_lines(folder: Path, tmp_path: Path) -> None:
    """The command line goes before it, and it before the defaults."""
    mine = tmp_path / "conf" / "data" / "holiday.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(f"# mine\ndefaults: [folder]\nroot: {folder}\npatch_size: 12\nbatch_size: 4\n")
    data = composed("data=holiday", "data.batch_size=2", mine=tmp_path / "conf")
    assert data.source == Folder(root=str(folder))
    assert (data.patch_size, data.batch_size, data.num_workers) == (12, 2, 0)


# ---- sets known by name ----


@pytest.fixture
def known(tmp_path: Path):
    def known(**kwargs: Any) -> PatchData:
        given = dict(name="t91", root=str(tmp_path), val_set="bsds500_test", scale=2, channels=1, seed=3, patch_size=8)
        return fed(Known, **{**given, "cache_dir": str(tmp_path / "cache"), **kwargs})

    return known


def test_a_known_set_is_validated_on_a_fixed_slice_of_another(known, tmp_path: Path, caplog) -> None:
    below(tmp_path, *(f"T91/{n}.png" for n in range(4)), *(f"BSDS500-test/{n}.png" for n in range(10, 16)))
    data = known(val_count=3)
    data.setup()
    assert [image.name for image in data.val_images] == [f"BSDS500-test/{n}.png" for n in range(10, 13)]
    assert len(data.train_images) == 4
    assert "BSDS500-test has 200 images, this copy has 6" in caplog.text
    with pytest.raises(UserError, match=r"val_set=t91 with data\.val_count=9 takes all images of data=t91"):
        known(val_set="t91", val_count=9).setup()
    with pytest.raises(UserError, match=r"data\.val_count=0"):
        known(val_count=0).setup()
    with pytest.raises(UserError, match=r"data\.val_set=set5 must be one of t91"):
        known(val_set="set5").setup()


def test_without_a_validation_set_a_share_is_held_out_and_said(known, tmp_path: Path, caplog) -> None:
    below(tmp_path, *(f"T91/{n}.png" for n in range(5)))
    data = known()
    with caplog.at_level(logging.INFO, "upsweep"):
        data.setup()
    assert (len(data.train_images), len(data.val_images)) == (4, 1)
    assert "bsds500_test is not in" in caplog.text


def test_validation_images_kept_beside_the_training_ones_are_not_trained_on(known, tmp_path: Path) -> None:
    below(tmp_path, *(f"DIV2K_train_HR/{n:04}.png" for n in (1, 2, 801)), "DIV2K_valid_HR/0801.png")
    data = known(name="div2k", val_set="div2k_valid")
    data.setup()
    assert [image.name for image in data.train_images] == ["DIV2K_train_HR/0001.png", "DIV2K_train_HR/0002.png"]


def test_a_missing_set_is_one_sentence_or_fetched(known, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"T91 was not found: .*T91.*data\.root or UPSWEEP_DATA"):
        known().setup()
    monkeypatch.delenv("UPSWEEP_DATA", raising=False)
    with pytest.raises(UserError, match=r"set data\.root=PATH or the variable UPSWEEP_DATA"):
        known(root=None).setup()
    monkeypatch.setattr(sources, "fetch", lambda name, root: below(root, *(f"T91/{n}.png" for n in range(3))))
    data = known(download=True, root=str(tmp_path / "new"))
    data.setup()
    assert len(data.train_images) + len(data.val_images) == 3


# ---- pairs ----


@pytest.fixture
def pairs(tmp_path: Path):
    def pairs(**kwargs: Any) -> PatchData:
        given = dict(lr_root=str(tmp_path / "lr"), hr_root=str(tmp_path / "hr"), scale=2, channels=3, seed=3)
        return fed(Pairs, **{**given, "patch_size": 8, "cache_dir": str(tmp_path / "cache"), **kwargs})

    return pairs


@pytest.mark.parametrize("cache", ["disk", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pairs_are_cut_from_both_files(pairs, tmp_path: Path, channels: int, cache: str) -> None:
    """The LR is that of its file, whatever it shows."""
    below(tmp_path / "lr", *(f"{n}x2.png" for n in range(4)), size=(24, 30))
    below(tmp_path / "hr", *(f"{n}.bmp" for n in range(4)), size=(48, 60))
    data = pairs(channels=channels, cache=cache)
    data.setup()
    assert (len(data.train_images), len(data.val_images)) == (3, 1)
    for image in [*data.train_images, *data.val_images]:
        number = int(image.name.removesuffix(".bmp"))
        lr, hr = noise(24, 30, seed=number) / 255, noise(48, 60, seed=number) / 255
        if channels == 1:
            weights = np.array([65.481, 128.553, 24.966]) / 255
            lr, hr = (lr @ weights + 16 / 255)[..., None], (hr @ weights + 16 / 255)[..., None]
        np.testing.assert_allclose(image.lr, lr.transpose(2, 0, 1), rtol=0, atol=1e-6)
        assert np.array_equal(image.hr, np.round(hr * 255).transpose(2, 0, 1))
    (judged,) = data.val_dataloader()
    assert judged.rgb_lr is not None and judged.rgb_lr.shape == (1, 3, 24, 30)
    patch = next(iter(data.train_dataloader()))
    assert (patch.lr.shape, patch.hr.shape) == ((16, channels, 8, 8), (16, channels, 16, 16))


def test_a_changed_lr_file_is_read_again(pairs, tmp_path: Path) -> None:
    below(tmp_path / "lr", *(f"{n}.png" for n in range(2)), size=(24, 24))
    below(tmp_path / "hr", *(f"{n}.png" for n in range(2)), size=(48, 48))
    pairs().setup()
    save(tmp_path / "lr" / "0.png", np.zeros((24, 24, 3), np.uint8))
    data = pairs()
    data.setup()
    assert sum(not image.lr.any() for image in (*data.train_images, *data.val_images)) == 1


@pytest.mark.parametrize(
    ("lr", "hr"),
    [
        ("0001x2.png", "0001.png"),
        ("0001x4d.png", "0001x4d.png"),
        ("baby_LRBI_x2.png", "baby_HR_x2.png"),
        ("img_001_SRF_2_LR.png", "img_001_SRF_2_HR.png"),
        ("a-lr.jpg", "a-hr.png"),
        ("deep/er/b.png", "b.png"),
        ("x2.png", "x2.png"),
    ],
)
def test_names_match_but_for_the_usual_marks(lr: str, hr: str) -> None:
    assert paired({hr: Path(hr)}, {lr: Path(lr)}, 2) == ({hr: Path(hr)}, {hr: Path(lr)})


@pytest.mark.parametrize(
    ("pairs", "scale"),
    [
        ({"tile_0x1": "tile_0x1", "tile_0x2": "tile_0x2", "tile_0x3": "tile_0x3"}, 2),
        ({"tile_0x1x2": "tile_0x1", "tile_0x2x2": "tile_0x2"}, 2),
        ({"tile_0x1_LR": "tile_0x1_HR", "tile_0x2_LR": "tile_0x2_HR"}, 2),
        ({"tile_0x2": "tile_0", "tile_0x2x2": "tile_0x2"}, 2),  # each exact name here is another image's
        ({"tile_0x1_LR_x4": "tile_0x1", "tile_0x4_LR_x4": "tile_0x4"}, 4),
        ({"tile_0x1": "tile_0x1", "tile_0x2x2": "tile_0x2", "b": "b"}, 2),
    ],
)
def test_a_name_that_ends_like_a_mark_is_a_name(pairs: dict[str, str], scale: int) -> None:
    hr, lr = ({f"{name}.png": Path(f"{name}.png") for name in names} for names in (pairs.values(), pairs))
    found_hr, found_lr = paired(hr, lr, scale)
    assert found_hr == hr
    assert found_lr == {f"{name}.png": Path(f"{small}.png") for small, name in pairs.items()}


def test_marks_of_another_scale_are_no_marks() -> None:
    hr, lr = {"0001.png": Path("0001.png")}, {"0001x4.png": Path("0001x4.png")}
    with pytest.raises(UserError, match=r"0001\.png has no LR image with its name"):
        paired(hr, lr, 2)


@pytest.mark.parametrize(
    ("lr", "hr", "sentence"),
    [
        (["0.png", "1.png"], ["0.png"], r"lr/1\.png has no HR image with its name \(1 such"),
        (["0.png"], ["0.png", "2.png", "3.png"], r"hr/2\.png has no LR image with its name \(2 such"),
        (["0x2.png", "0.png"], ["0.png"], r"have the name of one image"),
        (
            ["t1x1.png", "t1x2.png", "z.png"],
            ["t1x1.png", "t1x2.png"],
            r"lr/z\.png has no HR image with its name \(1 such",
        ),
    ],
)
def test_files_without_a_partner_are_one_sentence(pairs, tmp_path: Path, lr, hr, sentence: str) -> None:
    below(tmp_path / "lr", *lr, size=(24, 24))
    below(tmp_path / "hr", *hr, size=(48, 48))
    with pytest.raises(UserError, match=sentence):
        pairs().setup()


def test_a_pair_of_other_sizes_is_one_sentence(pairs, tmp_path: Path) -> None:
    below(tmp_path / "lr", "0.png", "1.png", size=(24, 24))
    below(tmp_path / "hr", "0.png", size=(48, 48))
    save(tmp_path / "hr" / "1.png", noise(48, 49))
    for _ in range(2):  # the second time from the cache
        with pytest.raises(UserError, match=r"1\.png: HR of 49x48 is not x2 of its LR of 24x24 pixels \(1 such pair"):
            pairs().setup()
    with pytest.raises(UserError, match=r"is not x3 of its LR"):
        pairs(scale=3).setup()
    with pytest.raises(UserError, match=r"set data\.lr_root=PATH and data\.hr_root=PATH"):
        pairs(lr_root=None).setup()
    with pytest.raises(UserError, match="brings its own LR images"):
        pairs(degradation={"noise": Noise(5)}).setup()


def test_pairs_are_validated_on_pairs_of_their_own(pairs, tmp_path: Path) -> None:
    below(tmp_path / "lr", *(f"{n}.png" for n in range(3)), size=(24, 24))
    below(tmp_path / "hr", *(f"{n}.png" for n in range(3)), size=(48, 48))
    below(tmp_path / "val" / "lr", "v.png", size=(24, 24))
    below(tmp_path / "val" / "hr", "v.png", size=(48, 48))
    data = pairs(val_lr_root=str(tmp_path / "val" / "lr"), val_hr_root=str(tmp_path / "val" / "hr"))
    data.setup()
    assert (len(data.train_images), [image.name for image in data.val_images]) == (3, ["v.png"])
    with pytest.raises(UserError, match="need both folders"):
        pairs(val_lr_root=str(tmp_path / "val" / "lr")).setup()


@pytest.mark.slow
def test_a_key_that_nobody_reads_in_a_data_sets_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [folder]\nroot: photos\nval_shar: 0.2\n", encoding="utf-8")
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "0.png", Picture(noise(64, 80)), marked=False)
    door = Path(__file__).resolve().parent.parent / "src" / "train.py"
    command = [
        sys.executable,
        str(door),
        "--config-dir",
        str(tmp_path),
        "data=mine",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "data.val_shar is read by nothing" in done.stderr and "val_share" in done.stderr
    free = ["experiment=release/sesr_free_x2", "data=folder", "data.root=photos", "trainer.max_epochs=1"]
    write_image(tmp_path / "photos" / "1.png", Picture(noise(64, 80)), marked=False)
    short = ["data.patches_per_epoch=32", "trainer.limit_val_batches=1", f"hydra.run.dir={tmp_path / 'own'}"]
    own = subprocess.run([*command[:2], *free, *short], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert own.returncode == 0, own.stderr
    assert "data.val_set=kodak24 of an experiment is left out: data=folder does not read it." in own.stdout + own.stderr
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndata:\n  patchsize: 8\n", encoding="utf-8")
    typo = subprocess.run([*command[:4], "experiment=mine"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert typo.returncode == 1 and "data.patchsize is read by nothing" in typo.stderr
