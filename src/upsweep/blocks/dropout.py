"""Dropout of a block's features."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from upsweep.common.checks import hold_to_literals
from upsweep.common.errors import UserError


@dataclass(frozen=True)
class Dropout:
    """Dropout (Srivastava et al. 2014) after the activation.

    Attributes:
        p: the share that is dropped, 0 (none) to below 1.
        kind: single elements, or whole channels (Tompson et al. 2015), which suits correlated features better.
        place: after every block, or only before the last layer (least harmful in SR: Kong et al. 2022).
    """

    p: float = 0.0
    kind: Literal["element", "channel"] = "element"
    place: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise UserError(f"dropout.p={self.p} must be at least 0 and below 1.")
        hold_to_literals("dropout", self)

    def layer(self, *, before_last: bool) -> nn.Module | None:
        """The layer after a block, or None; `before_last` says that the network's last layer comes next."""
        if self.p == 0 or (self.place == "last" and not before_last):
            return None
        return nn.Dropout2d(self.p) if self.kind == "channel" else nn.Dropout(self.p)
