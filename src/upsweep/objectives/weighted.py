"""Objectives added up."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError


class WeightedSum(nn.Module):
    """The sum of objectives `terms`, (SR, HR) -> scalar, each times its weight of the same name.

    Raises UserError where a name is in one of the two only, or there is none.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not terms or set(terms) != set(weights):
            raise UserError(
                f"objective.weights names {', '.join(weights) or 'nothing'}, "
                f"objective.terms {', '.join(terms) or 'nothing'}: they must name the same."
            )
        self.terms, self.weights = nn.ModuleDict(terms), dict(weights)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Two batches of one shape -> a scalar."""
        return torch.stack([self.weights[name] * term(sr, hr) for name, term in self.terms.items()]).sum()
