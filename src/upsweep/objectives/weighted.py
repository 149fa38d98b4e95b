"""Objectives added up."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.objectives.asking import asked


class WeightedSum(nn.Module):
    """The sum of objectives `terms`, (SR, HR) -> scalar, each times its weight of the same name.

    Raises UserError where a name is in one of the two only, or there is none.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not terms or set(terms) != set(weights):
            raise UserError(
                f"objective.weights names {', '.join(weights) or 'nothing'}, "
                f"objective.terms {', '.join(terms) or 'nothing'}: they must have the same names."
            )
        self.terms, self.weights = nn.ModuleDict(terms), dict(weights)
        self._asks = {name: asked(term) for name, term in terms.items()}
        self.asks = tuple(dict.fromkeys(name for names in self._asks.values() for name in names))
        self.taps = tuple(tap for term in terms.values() for tap in getattr(term, "taps", ()))

    def forward(self, sr: Tensor, hr: Tensor, **more: Any) -> Tensor:
        """Two batches of one shape, and what the terms ask for besides -> a scalar."""
        costs = {
            name: term(sr, hr, **{key: more[key] for key in self._asks[name]}) for name, term in self.terms.items()
        }
        return torch.stack([self.weights[name] * cost for name, cost in costs.items()]).sum()
