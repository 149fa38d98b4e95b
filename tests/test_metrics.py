"""Promises of `upsweep.metrics`: equal to scikit-image and to the papers, however images are dealt out."""

import os
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.files import read_image, to_tensor
from upsweep.imaging.listing import find_images
from upsweep.imaging.resize import crop_to_multiple, enlarge, imresize
from upsweep.metrics.functional import psnr, ssim
from upsweep.metrics.metric import PSNR, SSIM
from upsweep.metrics.protocol import Protocol

PAPER = Protocol()
RGB = Protocol("rgb", "rgb", lr="uint8")


def pictures(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image with structure, and a blurred and noisy copy that leaves [0, 1] here and there."""
    generator = torch.Generator().manual_seed(seed)
    hr = imresize(torch.rand(shape, generator=generator), 4).clamp(0, 1)
    sr = imresize(imresize(hr, 0.5), 2) + 0.02 * torch.randn(hr.shape, generator=generator)
    return sr, hr


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 12), st.integers(4, 12), st.sampled_from([1, 3]), st.integers(2, 3), st.integers(0, 99))
def test_equal_to_scikit_image(height: int, width: int, channels: int, scale: int, seed: int) -> None:
    sr, hr = pictures(1, channels, height + 2, width + 2, seed=seed)
    protocol = PAPER if channels == 1 else RGB
    a, b = ((x[0].double() * 255).round().clamp(0, 255)[:, scale:-scale, scale:-scale].numpy() for x in (sr, hr))
    expected = peak_signal_noise_ratio(b, a, data_range=255)
    assert float(updated(PSNR(protocol, scale), sr, hr).compute()) == pytest.approx(expected, abs=1e-4)
    expected = structural_similarity(
        b, a, data_range=255, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert float(updated(SSIM(protocol, scale), sr, hr).compute()) == pytest.approx(expected, abs=1e-4)


def updated(metric: PSNR | SSIM, sr: Tensor, hr: Tensor) -> PSNR | SSIM:
    metric.update(sr, hr)
    return metric


def test_figures_of_equal_and_opposite_images() -> None:
    plane = torch.zeros(1, 16, 16, dtype=torch.float64)
    assert psnr(plane, plane) == inf and ssim(plane, plane) == 1
    assert psnr(plane, plane + 255) == 0
    assert psnr(plane, plane + 1) == pytest.approx(48.1308, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999))
def test_ssim_is_symmetric_and_bounded(seed: int) -> None:
    a, b = (x[0].double() * 255 for x in pictures(1, 1, 5, 6, seed=seed))
    assert ssim(a, b) == pytest.approx(float(ssim(b, a)), abs=1e-12)
    assert -1 <= ssim(a, b) < 1


def test_mean_over_images_is_not_pooled() -> None:
    hr = torch.full((2, 1, 20, 20), 100 / 255)
    sr = hr + torch.tensor([0.0, 10 / 255])[:, None, None, None] + 1 / 255
    metric = updated(PSNR(PAPER, 2), sr, hr)
    assert metric.last.tolist() == pytest.approx([48.1308, 27.3029], abs=1e-4)
    assert float(metric.compute()) == pytest.approx((48.1308 + 27.3029) / 2, abs=1e-4)


def test_an_identical_image_counts_100_db() -> None:
    sr, hr = pictures(1, 1, 8, 8)
    metric = updated(PSNR(PAPER, 2), sr, hr)
    alone = float(metric.compute())
    metric.update(hr, hr)
    assert float(metric.compute()) == pytest.approx((alone + 100) / 2, abs=1e-8)


@pytest.mark.parametrize("kind", [PSNR, SSIM])
def test_the_mean_does_not_depend_on_who_saw_which_image(kind: type[PSNR | SSIM]) -> None:
    pairs = [pictures(1, 1, 6, 7, seed=seed) for seed in range(7)]
    whole = kind(PAPER, 2)
    for pair in pairs:
        whole.update(*pair)
    # What torchmetrics does at the end of a DDP epoch: the states of the ranks are summed.
    ranks = [kind(PAPER, 2) for _ in range(3)]
    for i, pair in enumerate(reversed(pairs)):
        ranks[i % 3].update(*pair)
    dealt = kind(PAPER, 2)
    dealt.total = torch.stack([rank.total for rank in ranks]).sum()
    dealt.count = torch.stack([rank.count for rank in ranks]).sum()
    dealt._update_count = 1
    assert dealt.compute() == whole.compute()
    in_batches = kind(PAPER, 2)
    in_batches.update(torch.cat([sr for sr, _ in pairs]), torch.cat([hr for _, hr in pairs]))
    assert in_batches.compute() == whole.compute()
    assert len(in_batches.last) == 7


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_no_image_is_an_error_not_a_nan() -> None:
    metric = PSNR(PAPER, 2)
    with pytest.raises(UserError, match="empty"):
        metric.compute()
    metric.update(*pictures(1, 1, 6, 6))
    metric.reset()
    with pytest.raises(UserError, match="empty"):
        metric.compute()


def test_images_that_are_too_small_are_refused_by_size() -> None:
    sr, hr = torch.rand(2, 1, 1, 13, 20)
    with pytest.raises(UserError, match="9x16"):
        SSIM(PAPER, 2).update(sr, hr)
    with pytest.raises(UserError, match="13x20"):
        PSNR(Protocol(shave=7), 2).update(sr, hr)
    with pytest.raises(ValueError, match="differ in shape"):
        PSNR(PAPER, 2).update(sr, hr[..., 1:])


# ---- protocols ----


def test_planes_of_the_papers() -> None:
    rgb = torch.rand(3, 12, 14, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    codes = (rgb.double() * 255).round().clamp(0, 255)
    luma = (rgb_to_y(codes / 255) * 255).round()[:, 3:-3, 3:-3]
    assert torch.equal(PAPER.planes(rgb, 3), luma)
    assert PAPER.planes(rgb, 3).dtype == torch.float64
    assert torch.equal(PAPER.planes((luma / 255).float(), 0), luma)  # a luma is compared as it is
    assert torch.equal(RGB.planes(rgb, 3), codes[:, 3:-3, 3:-3])
    assert PAPER.planes(rgb, 4).shape == (1, 4, 6)
    assert Protocol(shave=1).planes(rgb, 4).shape == (1, 10, 12)
    unrounded = Protocol(round_y=False).planes(rgb, 3)
    assert 0 < (unrounded - luma).abs().max() <= 0.5


def test_a_grey_image_is_compared_as_it_is_whatever_the_generator() -> None:
    codes = torch.arange(256).reshape(1, 16, 16)
    grey = (codes / 255).float()
    for protocol in (PAPER, RGB, Protocol("full", "y_full")):
        assert torch.equal(protocol.planes(grey, 0, grey=True), codes.double())
        replicated = protocol.planes(grey.expand(3, -1, -1), 0, grey=True)
        assert torch.equal(replicated.mean(dim=0, keepdim=True), codes.double())


def test_full_range_luma_stretches_the_studio_range() -> None:
    full = Protocol("full", "y_full", round_y=False)
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]).T[..., None]
    expected = [0, 255, 255 * 65.481 / 219]
    assert full.planes(colours, 0)[0, :, 0].tolist() == pytest.approx(expected, abs=1e-3)
    assert full.planes(rgb_to_y(colours), 0)[0, :, 0].tolist() == pytest.approx(expected, abs=1e-3)


def test_rgb_of_a_luma_is_refused() -> None:
    with pytest.raises(UserError, match="protocol=paper"):
        RGB.planes(torch.rand(1, 9, 9), 2)


@pytest.mark.parametrize("wrong", [{"space": "lab"}, {"lr": "int4"}, {"shave": -1}])
def test_unknown_protocols_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"protocol.{next(iter(wrong))}"):
        Protocol(**wrong)


KNOWN = {
    "paper": PAPER,
    "rgb": RGB,
    "rgb_lr_uint8": Protocol("rgb_lr_uint8", round_y=False, lr="uint8"),
    "full_range_y": Protocol("full_range_y", "y_full", round_y=False, lr="uint8"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_config_files_are_the_protocols(name: str) -> None:
    path = Path(__file__).parents[1] / "conf" / "protocol" / f"{name}.yaml"
    values = yaml.safe_load(path.read_text())
    assert values.pop("_target_") == "upsweep.metrics.protocol.Protocol"
    assert Protocol(**values) == KNOWN[name]


# ---- the published figures ----

SET5 = Path(os.environ.get("UPSWEEP_DATA", "")) / "benchmarks" / "Set5"
set5 = pytest.mark.skipif(
    "UPSWEEP_DATA" not in os.environ or not SET5.is_dir(), reason="needs $UPSWEEP_DATA/benchmarks/Set5"
)


def bicubic_on_set5(protocol: Protocol, scale: int, *, luma: bool) -> tuple[float, float]:
    uint8 = protocol.lr == "uint8"
    metrics = PSNR(protocol, scale), SSIM(protocol, scale)
    for path in find_images(SET5):
        hr = crop_to_multiple(to_tensor(read_image(path).pixels).double(), scale)
        if luma:
            hr = (rgb_to_y(hr) * 255).round() / 255
        lr = protocol.low_resolution(hr, scale)
        sr = imresize(lr, scale, uint8=True)[None] if uint8 else enlarge(lr.float()[None], scale)
        for metric in metrics:
            metric.update(sr, hr[None])
    return float(metrics[0].compute()), float(metrics[1].compute())


@set5
@pytest.mark.parametrize(("scale", "published"), [(2, (33.661, 0.9299)), (3, (30.392, 0.8682)), (4, (28.421, 0.8104))])
def test_bicubic_on_set5_is_what_the_papers_print(scale: int, published: tuple[float, float]) -> None:
    db, similarity = bicubic_on_set5(PAPER, scale, luma=True)
    assert db == pytest.approx(published[0], abs=0.005)
    assert similarity == pytest.approx(published[1], abs=0.0002)


@set5
@pytest.mark.parametrize(
    ("protocol", "scale", "published"),
    [
        (Protocol("y of uint8", round_y=False, lr="uint8"), 2, (33.673, 0.9303)),
        (Protocol("rounded y of uint8", lr="uint8"), 3, (30.385, 0.8678)),
        (Protocol("rgb_lr_uint8", "rgb", lr="uint8"), 4, (26.692, 0.7731)),
        (Protocol("full_range_y", "y_full", round_y=False, lr="uint8"), 2, (32.351, None)),
    ],
    ids=lambda value: value.name if isinstance(value, Protocol) else None,
)
def test_other_protocols_give_their_known_figures(
    protocol: Protocol, scale: int, published: tuple[float, float | None]
) -> None:
    """Those who publish them keep the LR, and bicubic's SR, as uint8 images that MATLAB resized."""
    db, similarity = bicubic_on_set5(protocol, scale, luma=False)
    assert db == pytest.approx(published[0], abs=0.001)
    assert published[1] is None or similarity == pytest.approx(published[1], abs=0.0001)
