"""Distances and kernels of all pairs of two sets of features, some rows at a time, so that memory is small.

Features are (N, F), distances Euclidean, and squared where nothing asks for the root. All is computed in float64: the
squared distance of equal features is 0 up to 1e-15 of their squared norm.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torchmetrics.image.kid import poly_kernel

ROWS, COLUMNS = 256, 2048  # of one block: 4 MB, which stay in the cache of a processor (twice as fast as 80 MB)
LIMIT = 5000  # features of which all pairs are taken, where some stand for all


def evenly(features: Tensor, count: int = LIMIT) -> Tensor:
    """At most `count` of the features, drawn at even steps."""
    if len(features) <= count:
        return features
    return features[torch.arange(count, device=features.device) * len(features) // count]


def double(features: Tensor) -> Tensor:
    """In float64; on the CPU where the device has none (mps)."""
    return features.detach().to("cpu" if features.device.type == "mps" else features.device).double()


def squares(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """The squared distances (rows, M) of some rows of a (N, F) after others to all of b (M, F)."""
    a, b = double(a), double(b)
    norms = b.square().sum(1)
    for some in torch.split(a, ROWS):
        yield torch.addmm(norms, some, b.T, alpha=-2).add_(some.square().sum(1, keepdim=True))


def nearest(a: Tensor, b: Tensor) -> Tensor:
    """The squared distance of each of a (N, F) to the nearest of b (M, F): (N,)."""
    parts = [torch.cat([block.amin(1) for block in squares(a, some)]) for some in torch.split(b, COLUMNS)]
    return torch.stack(parts).amin(0)


def radii(features: Tensor, k: int) -> Tensor:
    """The squared distance of each feature (N, F) to its k-th nearest other one: (N,)."""
    found = []
    for first, block in zip(range(0, len(features), ROWS), squares(features, features), strict=True):
        block.diagonal(first).fill_(torch.inf)
        found.append(block.topk(k, largest=False).values[:, -1])
    return torch.cat(found)


def within(features: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """The share of features (N, F) that lie in one of the balls around centres (M, F), of squared radii (M,)."""
    return torch.cat([(block <= radius).any(1) for block in squares(features, centres)]).double().mean()


def kernels_between(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel (x y / F + 1)^3 of x (N, F) and y (M, F), both float64, summed over y and over x: (N,) and (M,)."""
    over_y, over_x = [], torch.zeros(len(y), dtype=y.dtype, device=y.device)
    for some in torch.split(x, ROWS):
        kernel = poly_kernel(some, y)
        over_y.append(kernel.sum(1))
        over_x += kernel.sum(0)
    return torch.cat(over_y), over_x


def kernels_within(x: Tensor) -> Tensor:
    """The same kernel of each of x (N, F), float64, summed over all the others: (N,)."""
    return kernels_between(x, x)[0] - (x.square().mean(1) + 1) ** 3


def mean_distance(features: Tensor) -> float:
    """The mean over all pairs of two different features, at most `LIMIT` of them."""
    some = evenly(features)
    return sum(float(block.clamp_(min=0).sqrt_().sum()) for block in squares(some, some)) / (
        len(some) * (len(some) - 1)
    )
