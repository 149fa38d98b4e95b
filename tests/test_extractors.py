"""Feature extractors: fixed judges of images."""

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.metrics.extractors import DIGITS, Digits, Extractor, Inception, Random, extractor_of

MNIST = Path(os.environ.get("UPSWEEP_DATA", "")) / "generation"
mnist = pytest.mark.skipif(
    "UPSWEEP_DATA" not in os.environ or not (MNIST / "t10k-images-idx3-ubyte.gz").is_file(),
    reason="needs MNIST in $UPSWEEP_DATA/generation",
)
BOTH = pytest.mark.parametrize("kind", [Digits, Random])


def idx(name: str, header: int) -> Tensor:
    """The bytes of one of MNIST's files after its header."""
    return torch.from_numpy(np.frombuffer(gzip.decompress((MNIST / name).read_bytes()), np.uint8, offset=header).copy())


def images(count: int, channels: int, size: int) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(count + size))


@BOTH
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 128)])
def test_features_are_as_many_as_said_for_any_size_and_channels(
    kind: type[Extractor], channels: int, size: int
) -> None:
    features = kind()(images(3, channels, size))
    assert features.shape == (3, kind.num_features)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


@BOTH
def test_a_judge_never_changes(kind: type[Extractor]) -> None:
    extractor, seen = kind(), images(8, 1, 28)
    first, digest = extractor(seen), extractor.digest
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert not extractor(seen.requires_grad_()).requires_grad
    assert torch.equal(extractor(seen), first)
    assert extractor.digest == digest == kind().digest


@BOTH
def test_a_judge_draws_nothing_from_the_global_generator(kind: type[Extractor]) -> None:
    state = torch.get_rng_state()
    kind()(images(2, 1, 28))
    assert torch.equal(torch.get_rng_state(), state)


@BOTH
def test_features_do_not_depend_on_the_batch_nor_on_autocast(kind: type[Extractor]) -> None:
    extractor, seen = kind(), images(6, 1, 28)
    features = extractor(seen)
    torch.testing.assert_close(torch.cat([extractor(one[None]) for one in seen]), features, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(seen), features)


@BOTH
def test_a_grey_image_has_the_same_features_with_three_channels(kind: type[Extractor]) -> None:
    extractor, grey = kind(), images(4, 1, 28)
    torch.testing.assert_close(extractor(grey.expand(-1, 3, -1, -1)), extractor(grey), rtol=1e-3, atol=1e-3)


def test_other_extractors_have_other_digests() -> None:
    other = Random()
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-6
    assert len({Digits().digest, Random().digest, other.digest}) == 3


def test_titles_say_whose_features_a_figure_rests_on() -> None:
    assert Digits().titled("FD") == "FD (digits)"
    assert Random().titled("KID") == "KID (random)"


# ---- digits ----


def test_the_shipped_classifier_is_the_one_of_its_card() -> None:
    card = json.loads(DIGITS.with_suffix(".json").read_text(encoding="utf-8"))
    weights = DIGITS.read_bytes()
    assert len(weights) <= 500_000
    assert hashlib.sha256(weights).hexdigest() == card["sha256"]
    assert card["parameters"] == sum(parameter.numel() for parameter in Digits().parameters())
    for said in (card["sha256"], card["command"], card["data"], card["licence"], f"{100 * card['accuracy']:.2f} %"):
        assert said in DIGITS.with_suffix(".md").read_text(encoding="utf-8")


@mnist
@pytest.mark.parametrize("size", [28, 64])
def test_digits_are_recognised_at_any_size(size: int) -> None:
    digits = idx("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28) / 255
    labels, extractor = idx("t10k-labels-idx1-ubyte.gz", 8), Digits()
    step = 1 if size == 28 else 20
    digits, labels = digits[::step], labels[::step]
    if size != 28:
        digits = nn.functional.interpolate(digits, size=(size, size), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        guesses = torch.cat([extractor.logits(some).argmax(1) for some in torch.split(digits, 1000)])
    accuracy = float((guesses == labels).double().mean())
    assert accuracy >= 0.985
    if size == 28:
        card = json.loads(DIGITS.with_suffix(".json").read_text(encoding="utf-8"))
        assert accuracy == pytest.approx(card["accuracy"], abs=2e-4)


@mnist
def test_features_of_digits_have_variance_one_each() -> None:
    digits = idx("train-images-idx3-ubyte.gz", 16)[: 5000 * 784].reshape(-1, 1, 28, 28) / 255
    features = Digits()(digits)
    assert float(features.var(0).mean()) == pytest.approx(1, abs=0.15)


# ---- random ----


def test_the_random_network_is_always_the_same() -> None:
    torch.manual_seed(1)
    first = Random()
    torch.manual_seed(2)
    assert Random().digest == first.digest
    # Written down once: another machine, or another version of torch, must not bring another judge.
    weights = torch.cat([parameter.flatten().double() for parameter in first.parameters()])
    assert weights[:3].tolist() == pytest.approx([-0.0035293, 0.2528819, -0.3879872], abs=1e-6)
    assert float((weights * torch.arange(len(weights)).cos()).sum()) == pytest.approx(4.3551515, abs=1e-3)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_random_features_neither_vanish_nor_explode(size: int) -> None:
    features = Random()(images(16, 3, size))
    assert 0.1 < float(features.square().mean().sqrt()) < 10


def test_images_too_small_for_the_random_network_are_refused() -> None:
    with pytest.raises(UserError, match="7x7"):
        Random()(images(1, 1, 7))


# ---- inception ----


class StandIn(nn.Module):
    """In the place of torch-fidelity's network, which needs a package and weights that are not here."""

    def __init__(self, name: str, features: list[str], weights: str) -> None:
        super().__init__()
        self.load_state_dict(torch.load(weights))
        self.asked = (name, features)

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8 and images.shape[1] == 3
        return images.double().mean((2, 3)).float().repeat(1, 683)[:, :2048]


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", StandIn)


@pytest.mark.usefixtures("fidelity")
def test_inception_sees_256_levels_of_three_channels_and_its_distance_is_the_fid(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "inception.pth")
    extractor = extractor_of("inception", tmp_path / "inception.pth")
    assert isinstance(extractor, Inception)
    assert extractor.titled("FD") == "FID"
    assert extractor.titled("KID") == "KID (inception)"
    levels = torch.tensor([0, 1, 100.6, 255]).reshape(4, 1, 1, 1) / 255
    features = extractor(levels.expand(-1, -1, 8, 8))
    assert features.shape == (4, Inception.num_features)
    assert features[:, 0].tolist() == [0, 1, 101, 255]


class Harmful:
    """A pickle that runs a function when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.usefixtures("fidelity")
def test_inceptions_weights_are_asked_for_and_nothing_in_their_file_is_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set task\.weights=PATH"):
        extractor_of("inception")
    with pytest.raises(UserError, match=r"no Inception weights at .*missing\.pth"):
        extractor_of("inception", tmp_path / "missing.pth")
    for content in (Harmful(tmp_path / "ran"), {"other": torch.ones(1)}):
        torch.save(content, tmp_path / "wrong.pth")
        with pytest.raises(UserError, match=r"wrong\.pth holds no Inception weights"):
            extractor_of("inception", tmp_path / "wrong.pth")
    assert not (tmp_path / "ran").exists()


def test_without_torch_fidelity_inception_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[fid\]'"):
        extractor_of("inception", "weights.pth")


def test_an_unknown_extractor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="extractor=vgg must be one of digits, random, inception"):
        extractor_of("vgg")
