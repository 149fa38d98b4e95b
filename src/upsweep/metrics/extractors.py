"""Feature extractors: images in, features out, by which sets of images are compared.

`digits` is a small classifier of digits that the package carries, `random` a fixed network for any images, `inception`
the network of the papers, whose weights the user brings. A distance depends on its extractor: every title says which.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from upsweep.common.commands import installing
from upsweep.common.errors import UserError, extra
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.resize import imresize

DIGITS = Path(__file__).parent / "digits.safetensors"
SEED = 0  # of the random network; another one would be another judge


class Extractor(nn.Module, ABC):
    """Maps images (N, 1 or 3, S, S) in [0, 1] to features (N, num_features) float32.

    It is frozen, always in evaluation mode, and takes no part in autocast: a judge does not change with the training.
    """

    name: ClassVar[str]
    num_features: ClassVar[int]

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Give the features (N, num_features) of float32 images."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return self.features(images.float())

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (torch's signature)
        """Stay in evaluation mode."""
        return super().train(False)

    def titled(self, title: str) -> str:
        """The title of a figure that rests on these features: `FD (digits)`."""
        return f"{title} ({self.name})"

    @property
    def digest(self) -> str:
        """Of its name and weights: 16 hexadecimal digits, other ones for any other extractor."""
        found = hashlib.blake2b(self.name.encode(), digest_size=8)
        for key, value in self.state_dict().items():
            found.update(key.encode())
            found.update(value.cpu().contiguous().numpy().data)
        return found.hexdigest()


class DigitClassifier(nn.Module):
    """Images (N, 1, 28, 28) in [0, 1] to the logits (N, 10) of the ten digits; 115,000 parameters.

    Three convolutions and 64 features, standardised over the digits it was trained on: each feature of real digits has
    variance 1, so that distances have a scale.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(1, 16, 1),
            *_convolution(16, 32, 2),
            *_convolution(32, 32, 2),
            nn.Flatten(),
            nn.Linear(7 * 7 * 32, 64, bias=False),
            nn.BatchNorm1d(64, affine=False),
        )
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.body(images))
        return logits


def _convolution(inputs: int, outputs: int, stride: int) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU()


class Digits(Extractor):
    """64 features of a small classifier of MNIST's digits, whose card lies beside it (digits.md).

    Other sizes than 28x28 are resized (bicubic, antialiased), and colours become full-range luma.
    """

    name = "digits"
    num_features = 64

    @torch.random.fork_rng(devices=[])  # what layers draw at first is replaced, and no training shall miss it
    def __init__(self) -> None:
        super().__init__()
        classifier = DigitClassifier()
        classifier.load_state_dict(safetensors.torch.load_file(DIGITS))
        self.classifier = classifier
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.classifier.body(self._as_digits(images))
        return features

    def logits(self, images: Tensor) -> Tensor:
        """Give the logits (N, 10) of the ten digits."""
        logits: Tensor = self.classifier(self._as_digits(images))
        return logits

    def _as_digits(self, images: Tensor) -> Tensor:
        if images.shape[1] == 3:
            images = (rgb_to_y(images) * 255 - 16) / 219
        return images if images.shape[-2:] == (28, 28) else imresize(images, (28, 28))


class Random(Extractor):
    """64 features of an untrained VGG-like network with fixed weights, for images of any size and kind.

    Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models": random VGG16 features serve
    where those of ImageNet do not fit. This one is thin (three pairs of 3x3 convolutions, 16 to 64 wide), so that
    thousands of images take seconds on a CPU. Weights are He-uniform and drawn from a generator of their own:
    the same on every machine, and of a stable magnitude whatever the depth.
    """

    name = "random"
    num_features = 64

    @torch.random.fork_rng(devices=[])  # what layers draw at first is replaced, and no training shall miss it
    def __init__(self) -> None:
        super().__init__()
        convolutions = (*_pair(3, 16), *_pair(16, 32), *_pair(32, 64))
        last = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 64, 64, bias=False))
        self.layers = nn.Sequential(*convolutions, *last)
        generator = torch.Generator().manual_seed(SEED)
        for weight in self.parameters():
            # Uniform, since normal numbers differ in the last bit between processors.
            nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < 8:
            raise UserError(f"The extractor random needs images of at least 8x8 pixels, not {_size(images)}.")
        features: Tensor = self.layers(2 * _rgb(images) - 1)
        return features


def _pair(inputs: int, outputs: int) -> Iterator[nn.Module]:
    for width in (inputs, outputs):
        yield nn.Conv2d(width, outputs, 3, padding=1, bias=False)
        yield nn.ReLU()
    yield nn.MaxPool2d(2)


class Inception(Extractor):
    """2048 features of the Inception network of the papers, as torchmetrics and torch-fidelity compute them.

    With these, and only these, the Fréchet distance is the FID (Heusel et al. 2017). Images are rounded to 256 levels,
    as files would hold them; grey ones are replicated.

    Args:
        weights: a local file, `pt_inception-2015-12-05-6726825d.pth` of torch-fidelity's releases.

    Raises:
        UserError: there is no such file, it holds other weights, or torch-fidelity is not installed.
    """

    name = "inception"
    num_features = 2048

    @torch.random.fork_rng(devices=[])  # what layers draw at first is replaced, and no training shall miss it
    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        with extra("torch_fidelity", f"The extractor inception needs torch-fidelity: {installing('fid')}."):
            import torch_fidelity  # noqa: F401
        from torchmetrics.image.fid import NoTrainInceptionV3

        if not Path(weights).is_file():
            raise UserError(f"There are no Inception weights at {weights}: name a local file of torch-fidelity's.")
        try:
            torch.load(weights, weights_only=True)  # torch-fidelity would run what is in the file
            self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights))
        except Exception as error:  # torch.load and load_state_dict raise many kinds for one fact
            raise UserError(
                f"{weights} holds no Inception weights of torch-fidelity; nothing in it was run."
            ) from error
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.network((_rgb(images) * 255).round().clamp(0, 255).to(torch.uint8))
        return features

    def titled(self, title: str) -> str:
        """`FID` for the Fréchet distance; else as others: `KID (inception)`."""
        return "FID" if title == "FD" else super().titled(title)


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)


def _size(images: Tensor) -> str:
    return f"{images.shape[-2]}x{images.shape[-1]}"


def extractor_of(name: str, weights: str | Path | None = None) -> Extractor:
    """The extractor of that name.

    Args:
        name: digits, random or inception.
        weights: the file of Inception's weights.

    Raises:
        UserError: there is none of that name, or Inception's weights are missing.
    """
    if name == Inception.name:
        if weights is None:
            raise UserError(
                "extractor=inception needs a local file: set task.weights=PATH (evaluate.py: weights=PATH)."
            )
        return Inception(weights)
    known: dict[str, type[Digits | Random]] = {one.name: one for one in (Digits, Random)}
    if name not in known:
        raise UserError(f"extractor={name} must be one of {', '.join([*known, Inception.name])}.")
    return known[name]()
