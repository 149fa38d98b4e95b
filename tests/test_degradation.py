"""How LR is made: the order asked for is the order done, and what is random is a function of where it is."""

import io
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from upsweep.common.errors import UserError
from upsweep.data.degradation import (
    BICUBIC,
    BicubicShrink,
    BicubicShrinkUint8,
    Blur,
    Chain,
    Jpeg,
    Noise,
    Step,
    Window,
    degrade,
    degrade_window,
    stream,
    stream_of,
)
from upsweep.data.sources import Folder
from upsweep.imaging.resize import shrink
from upsweep.tasks.feeding import EpochSampler, draw
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tasks.super_resolution.patches import Patch

CONF = Path(__file__).parents[1] / "conf"
CHAINS = {
    "fixed": {"blur": Blur(1.2), "bicubic": BicubicShrink(), "jpeg": Jpeg(60)},
    "noise_last": {"bicubic_uint8": BicubicShrinkUint8(), "noise": Noise(10)},
    "camera": {"blur": Blur((0.2, 2.0)), "bicubic": BicubicShrink(), "noise": Noise((0, 25)), "jpeg": Jpeg((30, 95))},
    "odd": {"jpeg": Jpeg((30, 60)), "noise": Noise(5), "bicubic": BicubicShrink(), "blur": Blur(1.0)},
}


def picture(height: int = 64, width: int = 88, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Smooth and noisy parts, so that every step shows."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.random((channels, height, width)), (0, 4, 4))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(0.8 * smooth + 0.2 * rng.random(smooth.shape)).mul(255).round().div(255)


# ---- the steps, against outside truth ----


@pytest.mark.parametrize("sigma", [0.4, 1.2, 3.0])
def test_blur_is_that_of_scipy(sigma: float) -> None:
    image = picture()
    reach = int(np.ceil(3 * sigma))
    expected = gaussian_filter(image.numpy(), (0, sigma, sigma), mode="reflect", radius=(0, reach, reach))
    found = degrade([Blur(sigma)], image, 2, stream(0, 0, 0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_a_file_of_pillow(channels: int) -> None:
    image = picture(channels=channels)
    pixels = (image * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels).save(file, "JPEG", quality=40, subsampling=0)
    found = degrade([Jpeg(40)], image, 2, stream(0, 0, 0)).mul(255).permute(1, 2, 0)
    assert np.array_equal(found.numpy().round(), np.asarray(Image.open(file)).reshape(pixels.shape))
    assert not np.array_equal(found.numpy().round(), pixels)


def test_noise_has_the_deviation_asked_for_and_is_not_clipped() -> None:
    image = torch.ones(1, 200, 200)
    noise = degrade([Noise(20)], image, 2, stream(0, 0, 0)) - image
    assert abs(noise.std().item() * 255 - 20) < 0.3
    assert abs(noise.mean().item() * 255) < 0.5


def test_bicubic_uint8_is_rounded_in_each_pass() -> None:
    image = picture()
    lr = Chain((BicubicShrinkUint8(),))(image, 2, stream(0, 0, 0)) * 255
    torch.testing.assert_close(lr, lr.round(), rtol=0, atol=1e-9)
    twice = shrink(image, 2).mul(255).round().clamp(0, 255)
    changed = (lr - twice).abs()
    assert 0 < changed.max() <= 1.001  # facts: 1 or 2 levels, in some of the pixels
    assert torch.equal(BICUBIC(image, 2, stream(0, 0, 0)), shrink(image, 2))


def test_strengths_are_drawn_from_the_whole_range() -> None:
    drawn = [cast(float, Blur((0.5, 1.5)).drawn(stream(0, 0, index)).sigma) for index in range(300)]
    assert 0.5 <= min(drawn) < 0.52
    assert 1.48 < max(drawn) <= 1.5


# ---- the chain ----


@pytest.mark.parametrize("names", list(permutations(["blur", "bicubic", "noise", "jpeg"])), ids=",".join)
def test_the_order_asked_for_is_the_order_done(names: tuple[str, ...]) -> None:
    """From the command line, through Hydra, against the steps done one by one."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"degradation=[{','.join(names)}]", "degradation.blur.sigma=1.2"])
    steps = {"blur": Blur(1.2), "bicubic": BicubicShrink(), "noise": Noise((0, 25)), "jpeg": Jpeg((30, 95))}
    chain = Chain.of(instantiate(cfg.degradation, _convert_="all"))
    assert chain.steps == tuple(steps[name] for name in names)
    image, rng = picture(), stream(1, 2, 3)
    expected = image
    for step in [steps[name].drawn(rng) for name in names]:
        expected = step(expected, 2, rng)
    assert torch.equal(chain(image, 2, stream(1, 2, 3)), expected)


def test_every_order_gives_another_image() -> None:
    image = picture()
    made = [
        Chain(order)(image, 2, stream(0, 0, 0))
        for order in permutations([Blur(1.0), BicubicShrink(), Noise(10), Jpeg(50)])
    ]
    assert all(lr.shape == (3, 32, 44) for lr in made)
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(made) for b in made[:i])


def test_without_a_shrinking_step_bicubic_comes_after_the_last_blur() -> None:
    blur, noise, jpeg = Blur(1), Noise(1), Jpeg(50)
    assert Chain.of({"b": blur}).steps == (blur, BicubicShrink())
    assert Chain.of({"n": noise}).steps == (BicubicShrink(), noise)
    assert Chain.of({"n": noise, "b": blur, "j": jpeg}).steps == (noise, blur, BicubicShrink(), jpeg)
    assert Chain.of(None) == Chain.of({}) == BICUBIC


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Chain.of({"a": BicubicShrink(), "b": BicubicShrinkUint8()}),
            "exactly one step must shrink the image, but 2 do",
        ),
        (lambda: Chain.of({"a": cast(Any, 3)}), r"degradation\.a=3 is not a step"),
        (lambda: Blur(-1), r"degradation\.blur\.sigma=-1: it must be a number from 0 to 50, or a range"),
        (lambda: Noise((5, 2)), r"degradation\.noise\.sigma=\(5, 2\)"),
        (lambda: Jpeg(0), r"degradation\.jpeg\.quality=0: it must be a number from 1 to 100"),
        (lambda: Jpeg(cast(Any, "low")), r"degradation\.jpeg\.quality=low"),
        (lambda: Blur(cast(Any, (1, 2, 3))), r"degradation\.blur\.sigma"),
    ],
)
def test_wrong_settings_end_in_one_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "degradation").glob("*.yaml")))
def test_every_degradation_of_the_config_folder_works_by_its_name(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        steps = instantiate(compose("train", [f"degradation={name}"]).degradation, _convert_="all")
    assert list(steps) == [name]
    lr = Chain.of(steps)(picture(channels=1), 2, stream(0, 0, 0))
    assert lr.shape == (1, 32, 44)
    assert torch.isfinite(lr).all()


def test_an_unknown_step_of_a_chain_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    command = [sys.executable, str(CONF.parent / "src" / "train.py"), "degradation=[blurr,bicubic]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    known = ", ".join(sorted(path.stem for path in (CONF / "degradation").glob("*.yaml")))
    assert done.stderr == (f"There is no degradation=blurr; choose from {known}. Did you mean degradation=blur?\n")


# ---- windows ----


@settings(deadline=None, max_examples=60)
@given(
    st.permutations([Blur(0.8), BicubicShrink(), Jpeg(50)]),
    st.sampled_from([2, 3]),
    st.integers(0, 24),
    st.integers(0, 30),
    st.integers(1, 8),
)
def test_a_window_is_what_the_whole_image_shows_there(
    steps: list[Step], scale: int, top: int, left: int, side: int
) -> None:
    """No false border: at the image's own borders and inside, JPEG blocks included (to one level of rounding)."""
    hr = (picture(33 * scale, 39 * scale) * 255).to(torch.uint8)
    window = Window(top, top + side, left, left + side)
    whole = degrade(steps, hr.float() / 255, scale, stream(0, 0, 0))
    found = degrade_window(steps, hr.numpy(), window, scale, stream(0, 0, 0))
    assert found.shape == (3, side, side)
    torch.testing.assert_close(found, window.of(whole), rtol=0, atol=1e-5)


def test_a_window_touches_little_of_the_image() -> None:
    read: list[Window] = []

    class Spy(np.ndarray):
        def __getitem__(self, key: Any) -> Any:
            read.append(Window(key[1].start, key[1].stop, key[2].start, key[2].stop))
            return np.asarray(super().__getitem__(key))

    hr = np.zeros((1, 4000, 4000), np.uint8).view(Spy)
    degrade_window([Blur(2.0), BicubicShrink(), Jpeg(50)], hr, Window(101, 125, 200, 224), 2, stream(0, 0, 0))
    assert read == [Window(96 * 2 - 4 - 6, 128 * 2 + 4 + 6, 400 - 4 - 6, 224 * 2 + 4 + 6)]


# ---- through the data room ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    for number in range(3):
        pixels = (picture(64 + 6 * number, 88, seed=number) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


@pytest.fixture
def make(tmp_path: Path, folder: Path):
    def make(root: Path = folder, val_share: float = 0.1, **kwargs: Any) -> PatchData:
        given = dict(scale=2, channels=3, seed=3, patch_size=12, patches_per_epoch=24, batch_size=8)
        source = Folder(root=str(root), val_share=val_share)
        data = PatchData(source=source, **{**given, "cache_dir": str(tmp_path / "cache"), **kwargs})
        data.setup()
        return data

    return make


def epoch(data: PatchData, number: int = 0) -> list[Patch]:
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(number)
    return [Patch(*pair) for batch in loader for pair in zip(*batch, strict=True)]


def same(a: list[Patch], b: list[Patch]) -> bool:
    return all(torch.equal(x.lr, y.lr) and torch.equal(x.hr, y.hr) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", CHAINS)
def test_patches_are_a_function_of_seed_epoch_and_index(make: Any, name: str) -> None:
    steps = CHAINS[name]
    first = make(degradation=steps)
    expected = [epoch(first, 0), epoch(first, 1)]
    resumed = make(degradation=steps, num_workers=1, batch_size=5, cache="none")  # begins with epoch 1
    assert same(epoch(resumed, 1), expected[1])
    if any(step.random for step in steps.values()):
        plain, again = make(), make(degradation=steps, seed=4)
        assert not same(epoch(again, 0), expected[0])
        for a, b in zip(expected[0], epoch(plain, 0), strict=True):
            assert torch.equal(a.hr, b.hr)  # the same crops ...
            assert not torch.equal(a.lr, b.lr)  # ... of another LR
        fields = [a.lr - b.lr for a, b in zip(expected[0], epoch(plain, 0), strict=True)]
        assert all(not torch.equal(fields[0], field) for field in fields[1:])


@pytest.mark.parametrize("name", CHAINS)
def test_validation_is_degraded_as_training_is_and_alike_for_every_seed(make: Any, folder: Path, name: str) -> None:
    """LR hangs on the image and its name alone: not on seed and cache, nor on the files that lie beside it."""
    steps = CHAINS[name]
    data, other = make(degradation=steps, val_share=0.5), make(degradation=steps, val_share=0.5, cache="none", seed=4)
    assert len(data.val_images) == 2
    for a, b in zip(data.val_dataloader(), other.val_dataloader(), strict=True):
        assert torch.equal(a.lr, b.lr)
        expected = Chain.of(steps)(a.hr[0].double(), 2, stream_of(a.name))
        torch.testing.assert_close(a.lr[0], expected.float(), rtol=0, atol=1e-6)
    known = {image.name: image for image in data.val_dataloader()}
    for number in range(4):
        (folder / f"{number}a.png").write_bytes((folder / "0.png").read_bytes())
    more = {image.name: image for image in make(degradation=steps, val_share=0.85).val_dataloader()}
    assert known.keys() & more.keys()
    assert all(torch.equal(known[name].lr, more[name].lr) for name in known.keys() & more.keys())
    copies = [image.lr for name, image in more.items() if name[1:] in ("a.png",)]
    assert len(copies) > 1
    random = any(step.random for step in steps.values())
    assert torch.equal(copies[0], copies[1]) != random  # one noise for all would be none of its own


def test_a_fixed_chain_is_done_once_to_whole_images(make: Any) -> None:
    """Its patches are cut from the cached LR, and no two chains share a cache."""
    for steps in (CHAINS["fixed"], {"jpeg": Jpeg(60)}, {"jpeg": Jpeg(61)}, {}):
        data = make(degradation=steps, augment=False)
        assert data.train_dataloader().dataset.steps == ()
        wholes = [Chain.of(steps)(torch.from_numpy(i.hr / 255.0), 2, stream(0, 0, 0)) for i in data.train_images]
        for image, whole in zip(data.train_images, wholes, strict=True):
            np.testing.assert_allclose(image.lr, whole, rtol=0, atol=1e-6)


def test_luma_is_degraded_like_its_colours(make: Any) -> None:
    """One blur for both: the Y of the RGB LR is the LR of the Y, to the rounding of Y."""
    data = make(channels=1, degradation={"blur": Blur((0.5, 3.0))})
    for image in data.val_dataloader():
        weights = torch.tensor([65.481, 128.553, 24.966]) / 255
        luma = torch.einsum("c,nchw->nhw", weights, image.rgb_lr)[:, None] + 16 / 255
        assert (luma - image.lr).abs().max() < 0.5 / 255 + 1e-5


def test_no_word_that_places_a_crop_is_used_again() -> None:
    words = {word for index in range(50) for word in draw(7, 2, index)}
    noise = {int(w) for index in range(50) for w in stream(7, 2, index).bit_generator.random_raw(64)}
    assert not words & noise
    assert len(noise) == 50 * 64
