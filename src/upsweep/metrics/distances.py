"""What a set of samples is worth beside real images: distances between their features, as torchmetrics Metrics.

Each is made of a `Reference` and updated with the features (N, F) of samples, which are extracted once for all of
them. The real features are no state: every process has them, so that two processes give what one gives.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.utilities.data import dim_zero_cat

from upsweep.common.errors import UserError
from upsweep.metrics.pairs import double, kernels_between, kernels_within, mean_distance, nearest, radii, within
from upsweep.metrics.reference import NEIGHBOURS, Reference


class _Features(nn.Identity):
    """Features are handed to torchmetrics, not images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


class FD(FrechetInceptionDistance):
    """Fréchet distance between the Gaussians of samples and of real validation images (Heusel et al. 2017).

    torchmetrics does the sums. Fewer samples than features give a value too, biased upwards as that of any finite set.
    """

    def __init__(self, reference: Reference, **kwargs: Any) -> None:
        super().__init__(feature=_Features(reference.num_features), **kwargs)
        self.reference = reference

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Go to another device, but for one without float64 (mps); the sums are float64 in any precision."""
        try:
            return super()._apply(lambda state: state.to(fn(state).device), exclude_state)
        except TypeError:  # of torch, before anything was moved: the first state is a float64
            return self

    def update(self, features: Tensor) -> None:  # type: ignore[override]
        """Add the features (N, F) of samples."""
        super().update(double(features), real=False)

    def compute(self) -> Tensor:
        """Give the distance, a float64 scalar; UserError where there are fewer than two samples."""
        _demand(int(self.fake_features_num_samples), 2, self)
        real = double(self.reference.validation).to(self.device)
        # Here and not before: the ranks' sums have met, and real images are not to be counted once a rank.
        self.real_features_sum, self.real_features_cov_sum = real.sum(0), real.T @ real
        self.real_features_num_samples = torch.tensor(len(real), device=self.device)
        return super().compute()


class OfFeatures(Metric):
    """A figure of the features of all samples."""

    is_differentiable = False
    full_state_update = False

    features: list[Tensor]

    def __init__(self, reference: Reference, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reference = reference
        self.add_state("features", [], dist_reduce_fx="cat")

    def update(self, features: Tensor) -> None:
        """Add the features (N, F) of samples."""
        self.features.append(features.detach().float())

    def samples(self, least: int) -> Tensor:
        """Give all features (N, F); UserError where there are fewer than `least`."""
        features = dim_zero_cat(self.features) if len(self.features) else torch.empty(0)
        _demand(len(features), least, self)
        return features


class KID(OfFeatures):
    """Kernel distance: the unbiased estimate of the squared maximum mean discrepancy (Bińkowski et al. 2018).

    The kernel is (x y / F + 1)^3. All pairs are taken, not random subsets: the value is a function of the features
    alone. `error` is its standard error after `compute`, by the jackknife over samples and real images.
    """

    higher_is_better = False

    def __init__(self, reference: Reference, **kwargs: Any) -> None:
        super().__init__(reference, **kwargs)
        self.error = torch.nan

    def compute(self) -> Tensor:
        """Give the distance, a float64 scalar, negative at times; UserError where there are fewer than 3 samples."""
        x = double(self.samples(3))
        y = double(self.reference.some).to(x.device)
        xx, yy, (xy, yx) = kernels_within(x), self.reference.kernels.to(x.device), kernels_between(x, y)
        m, n = len(x), len(y)
        within_x, within_y, between = xx.sum() / m / (m - 1), yy.sum() / n / (n - 1), xy.sum() / m / n
        without_x = (xx.sum() - 2 * xx) / (m - 1) / (m - 2) + within_y - 2 * (xy.sum() - xy) / (m - 1) / n
        without_y = within_x + (yy.sum() - 2 * yy) / (n - 1) / (n - 2) - 2 * (yx.sum() - yx) / (n - 1) / m
        variances = [(len(w) - 1) * w.var(correction=0) for w in (without_x, without_y)]
        self.error = float(sum(variances)) ** 0.5
        return within_x + within_y - 2 * between


class Precision(OfFeatures):
    """The share of samples that lie among real images (Kynkäänniemi et al. 2019, k = 3): quality.

    A sample lies among real images where one of them is no farther from it than from its own third nearest neighbour.
    The figure depends on how many images there are: compare figures of like counts.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Give the share, a float64 scalar; UserError where there are no samples."""
        samples = double(self.samples(1))
        return within(samples, self.reference.some.to(samples.device), self.reference.radii.to(samples.device))


class Recall(OfFeatures):
    """The share of real images that lie among samples (Kynkäänniemi et al. 2019, k = 3): variety."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Give the share, a float64 scalar; UserError where there are fewer than four samples."""
        samples = double(self.samples(NEIGHBOURS + 1))
        return within(self.reference.some.to(samples.device), samples, radii(samples, NEIGHBOURS))


class Memorised(OfFeatures):
    """The share of samples that are nearer to a training image than 99 % of real validation images are.

    A perfect generator has 1 %, one that copies training images 100 %, one that makes nothing like them 0 %.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Give the share, a float64 scalar; UserError where there are no samples."""
        samples = double(self.samples(1))
        near = nearest(samples, self.reference.training.to(samples.device))
        return (near < self.reference.threshold.to(samples.device)).double().mean()


class Diversity(OfFeatures):
    """The mean distance between two samples over that between two real images.

    Near 1 where samples differ as real images do, near 0 where all are alike (mode collapse).
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Give the ratio, a float64 scalar; UserError where there are fewer than two samples."""
        return torch.tensor(mean_distance(self.samples(2)) / self._of_real, dtype=torch.float64)

    @cached_property
    def _of_real(self) -> float:
        return mean_distance(self.reference.validation)


def _demand(count: int, least: int, metric: Metric) -> None:
    if count < least:
        raise UserError(f"{type(metric).__name__} needs at least {least} samples, and there are {count}.")


MEASURES: dict[str, Callable[[Reference], Metric]] = {
    "fd": FD,
    "kid": KID,
    "precision": Precision,
    "recall": Recall,
    "memorised": Memorised,
}
