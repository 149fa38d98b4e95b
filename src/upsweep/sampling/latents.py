"""The latents to make samples of."""

import math

import torch
from torch import Tensor


def latents(count: int, length: int, seed: int, truncation: float | None = None) -> Tensor:
    """Latents (count, length) float32 from N(0, 1), a pure function of the arguments.

    With a `truncation` t they are of the normal distribution that is cut off at -t and t, as the truncation trick of
    BigGAN has it (Brock et al. 2019, section 3.1, after Marchesi 2017): numbers beyond are drawn again. Here every
    number is moved inwards instead, to the same quantile of the cut-off distribution, which comes to the same
    distribution, and each sample stays similar to the one without truncation.
    """
    z = torch.randn(count, length, generator=torch.Generator().manual_seed(seed))
    if truncation is None:
        return z
    inside = math.erf(truncation / math.sqrt(2))  # the share of N(0, 1) that is kept
    return (torch.erfinv(torch.erf(z.double() / math.sqrt(2)) * inside) * math.sqrt(2)).float()
