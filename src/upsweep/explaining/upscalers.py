"""Upscalers explained on one photo: the sections of their page, and the square of the photo that is explained."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.common.progress import Bar
from upsweep.data.cache import digest_of
from upsweep.evaluation.benchmarks import Benchmark
from upsweep.explaining import attribution, failures, features, fields, frequencies, upsamplers
from upsweep.explaining.attribution import LAM
from upsweep.explaining.case import Case, Square, case, fullest_window, window_at
from upsweep.explaining.explainer import Explainer
from upsweep.explaining.failures import Patches
from upsweep.explaining.features import Features
from upsweep.explaining.photo import Photo
from upsweep.explaining.section import Section
from upsweep.metrics.figure import Figure
from upsweep.networks.checkpoints import as_upscaler
from upsweep.networks.network import Network

PARTS = ("attribution", "fields", "upsamplers", "frequencies", "failures", "features")


@dataclass(frozen=True, kw_only=True)
class BeforePhoto(Explainer):
    """Upscalers on one photo.

    Attributes:
        photo: HR.
        window: the square that is explained; `at` and `where_they_differ` set another.
        parts: which sections are made.
        lam, patches, shown: the options of attribution maps, of where networks fail, and of features.
        benchmark: the images in which networks may fail; None: the photo alone.
        cache_dir: where images of the benchmark are kept prepared; None prepares them anew.
        device: where the networks work.
    """

    figures: ClassVar[tuple[Figure, ...]] = (
        *attribution.FIGURES,
        *fields.FIGURES,
        *frequencies.FIGURES,
        *upsamplers.FIGURES,
        *failures.FIGURES,
        *features.FIGURES,
    )
    photo: Photo
    window: Square = field(default_factory=lambda: Square(0, 0, 16))
    parts: Sequence[str] = PARTS
    lam: LAM = field(default_factory=LAM)
    patches: Patches = field(default_factory=Patches)
    shown: Features = field(default_factory=Features)
    benchmark: Benchmark | None = None
    cache_dir: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def image(self) -> str:
        return self.photo.name

    @property
    def square(self) -> list[int]:
        return [self._in_file.left, self._in_file.top, self._in_file.size]

    @property
    def before(self) -> str:
        return f"{self.photo.name}, {self._in_file}"

    @property
    def _in_file(self) -> Square:
        """The window in the pixels of the photo's file, as `at=` has it."""
        left, top = self.photo.corner
        return Square(self.window.top + top, self.window.left + left, self.window.size)

    @property
    def notes(self) -> list[str]:
        return [self.photo.said] if self.photo.said else []

    @property
    def asked(self) -> dict[str, Any]:
        benchmark = self.benchmark and [str(file) for file in self.benchmark.files]
        said = {"photo": digest_of(self.photo.picture), "parts": [*self.parts], "benchmark": benchmark}
        return said | {name: asdict(getattr(self, name)) for name in ("window", "lam", "patches", "shown")}

    def case(self, name: str, network: Network) -> Case:
        """A network on the photo. Raises UserError: it is not an upscaler, or its output is not finite."""
        upscaler = as_upscaler(network, name).to(self.device)
        return case(name, upscaler, self.photo.seen(upscaler.scale, upscaler.channels))

    def sections(self, networks: Mapping[str, Network], bar: Bar) -> Iterator[Section]:
        cases = [self.case(name, network) for name, network in networks.items()]
        scales = {one.scale: one.name for one in cases}
        if len(scales) > 1:
            said = " and ".join(f"{name} enlarges {scale} times" for scale, name in scales.items())
            raise UserError(f"{said}: networks side by side must have one scale; explain them in two commands.")
        for one in cases:  # HR is cropped to whole LR pixels
            window_at(self._in_file.left, self._in_file.top, self.window.size, one.image, self.photo.corner)
        makers: dict[str, Callable[[], Section]] = {
            "attribution": lambda: attribution.attribution(cases, self.window, self.lam),
            "fields": lambda: fields.fields(cases),
            "upsamplers": lambda: upsamplers.upsamplers(cases),
            "frequencies": lambda: frequencies.frequencies(cases),
            "failures": lambda: failures.failures(cases, self._patches(cases), self._judged(cases)),
            "features": lambda: features.features(cases, self.window, self.shown),
        }
        for part in self.parts:
            bar.update(bar.done, doing=part)
            yield makers[part]()
            bar.advance()

    def _patches(self, cases: Sequence[Case]) -> Patches:
        """As set, but not larger than a small photo."""
        if self.benchmark is not None:
            return self.patches
        largest = min(min(one.image.hr.shape[-2:]) - 2 * one.scale for one in cases)
        return replace(self.patches, side=max(4, min(self.patches.side, largest)))

    def _judged(self, cases: Sequence[Case]) -> Sequence[Iterable[failures.Judged]]:
        """What the networks make of the benchmark, or of the photo."""
        if self.benchmark is None:
            return [[failures.own(case, self.photo.corner)] for case in cases]
        channels = {one.network.channels for one in cases}
        sets = {n: self.benchmark.images(cases[0].scale, n, self.cache_dir) for n in channels}
        each = [sets[one.network.channels] for one in cases]
        return [
            failures.judged(one.network, (images[i] for i in range(len(images))))
            for one, images in zip(cases, each, strict=True)
        ]

    def at(self, x: int, y: int, size: int) -> "BeforePhoto":
        """The same with the window at a place of the photo's file. Raises UserError: it leaves the photo."""
        return replace(self, window=window_at(x, y, size, self.photo.seen(1, 1), self.photo.corner))

    def where_they_differ(self, networks: Iterable[tuple[str, Network]], size: int) -> "BeforePhoto":
        """The same with the window where networks, which come one after the other, differ most.

        A single network is compared with bicubic. A network that cannot be explained does not count; `sections`
        refuses it. Raises UserError: there is no other.
        """
        spread, last, why_not = Spread(), None, UserError("There is no network to explain.")
        for name, network in networks:
            try:
                last = self.case(name, network)
            except UserError as error:
                why_not = error
            else:
                spread.add(last.sr)
        if last is None:
            raise why_not
        if spread.count == 1:
            spread.add(last.bicubic)
        return replace(self, window=fullest_window(spread.variance, size, self.photo.name))


class Spread:
    """The running variance of images, pixel by pixel; if sizes differ, of the part that all have (top left)."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._squares = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, image: Tensor) -> None:
        """One more image (1, C, H, W) in [0, 1], of which the mean over C counts."""
        plane = image.detach().double().mean(1)[0].cpu()
        if not self.count:
            self._sum, self._squares = torch.zeros_like(plane), torch.zeros_like(plane)
        height, width = (min(sides) for sides in zip(plane.shape, self._sum.shape, strict=True))
        part = slice(height), slice(width)
        self._sum, self._squares = self._sum[part] + plane[part], self._squares[part] + plane[part].square()
        self.count += 1

    @property
    def variance(self) -> Tensor:
        """(H, W), of what was added."""
        return self._squares / self.count - (self._sum / self.count).square()
