"""The base of explainers, one for each kind of network: the figures that it measures, the sections that it makes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from upsweep.common.errors import UserError
from upsweep.common.progress import Bar
from upsweep.explaining.section import Section
from upsweep.metrics.figure import Figure
from upsweep.networks.network import Network


class Explainer(ABC):
    """Derive, and set what is explained (`parts`, `before`, `asked`) and how (`sections`).

    Attributes:
        figures: what the sections measure, in the order of columns.
        parts: the names of the sections that it makes.
        image: the name of the photo, or of the images.
        square: the part of the photo that is explained, [x, y, side] in HR pixels; empty if there is none.
        before: both, for a sentence: `coffee, the 16x16 HR pixels at [0,0]`.
        notes: further remarks on the images, a sentence each.
        asked: the same as plain values, and all options: two explanations with equal values are the same.
    """

    figures: ClassVar[tuple[Figure, ...]]
    parts: Sequence[str]

    @property
    @abstractmethod
    def image(self) -> str: ...

    @property
    def square(self) -> list[int]:
        return []

    @property
    @abstractmethod
    def before(self) -> str: ...

    @property
    def notes(self) -> list[str]:
        return []

    @property
    @abstractmethod
    def asked(self) -> dict[str, Any]: ...

    @abstractmethod
    def sections(self, networks: Mapping[str, Network], bar: Bar) -> Iterator[Section]:
        """The sections of networks by their names, in turn; the bar moves by one a section.

        Raises:
            UserError: a network cannot be explained, or not beside the others.
        """


def parts_of(asked: object, known: Sequence[str]) -> tuple[str, ...]:
    """The requested parts, in their order: `all`, one, or several.

    Raises:
        UserError: there is no such part.
    """
    words = [asked] if isinstance(asked, str) else asked
    choices = f"all, or some of {', '.join(known)}"
    if not isinstance(words, list | tuple) or not words:
        raise UserError(f"parts={asked} must be {choices}.")
    if unknown := [word for word in words if word not in ("all", *known)]:
        raise UserError(f"parts={unknown[0]} does not exist for these networks: choose {choices}.")
    return tuple(part for part in known if "all" in words or part in words)
