"""What an objective may ask for beside the two images: it names them as parameters of its `forward`.

    class Sharp(nn.Module):
        def forward(self, made, wanted, given): ...

- `given`: what the network took, (N, C, h, w) LR images or (N, L) latents.
- `batch`: the whole training batch, as the DataModule made it.
- `features`: outputs of the parts of the generator that the objective's attribute `taps` names, by their names.
"""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from upsweep.common.errors import UserError

KNOWN = ("given", "batch", "features")


def asked(objective: nn.Module) -> tuple[str, ...]:
    """The names beside made and wanted for which an objective's `forward` asks, or which its `asks` lists.

    Raises UserError: it asks for something that there is not.
    """
    told: tuple[str, ...] | None = getattr(objective, "asks", None)
    if told is not None:
        return told
    others = list(inspect.signature(objective.forward).parameters.values())[2:]
    named = [p for p in others if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if unknown := [p.name for p in named if p.name not in KNOWN and p.default is p.empty]:
        raise UserError(
            f"The objective {type(objective).__name__} asks for {unknown[0]}: forward(made, wanted) may ask for "
            f"{', '.join(KNOWN)} besides."
        )
    return tuple(p.name for p in named if p.name in KNOWN)


class Taps:
    """The outputs of parts of a network in its latest pass of a training, by the names of the parts.

    Raises UserError: the network has no part of that name.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        self._seen: dict[str, Any] = {}
        parts = dict(network.named_modules())
        for name in names:
            if name not in parts:
                raise UserError(f"objective.taps: the generator has no part {name}; it has {', '.join(parts)[2:]}.")
            parts[name].register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, part: nn.Module, taken: Any, made: Any) -> None:  # noqa: ARG002  # torch's signature
        if part.training:
            self._seen[name] = made

    def take(self) -> Mapping[str, Tensor]:
        """What was seen since the last time."""
        seen, self._seen = self._seen, {}
        return seen
