"""What a task is judged by, as data: whoever ranks, plots or writes down a figure reads here what it means.

Imports no torch: records, tables and pages are made without it.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from upsweep.common.errors import UserError

Better = Literal["higher", "lower"]
# Columns of results.csv that are no figures.
TAKEN = ("job", "sweep", "seed", "scale", "parameters", "macs_per_pixel", "seconds", "state", "reason", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number by which results are compared; the first that a task declares is its headline.

    Attributes:
        name: key in records, columns and logs: `psnr`.
        title: what people read: `PSNR`.
        unit: `dB`, or nothing.
        better: whether higher or lower values are better.
        digits: after the point, where it is printed.
        noise: a difference that does not matter in this field, however surely it is there.
        baseline: what the figure is held against (`bicubic`), or None. Its own figure is called `psnr_bicubic`.
        margin: what the lead over the baseline is called: `gain`.
    """

    name: str
    title: str
    unit: str = ""
    better: Better = "higher"
    digits: int = 2
    noise: float = 0.0
    baseline: str | None = None
    margin: str = "gain"

    def __post_init__(self) -> None:
        """Raises UserError: `better` is neither higher nor lower, no such digits, or a name not fit for a column."""
        if self.better not in get_args(Better):
            raise UserError(f"The figure {self.name} has better={self.better}: it must be higher or lower.")
        if type(self.digits) is not int or self.digits < 0 or not isinstance(self.noise, int | float):
            said = f"digits={self.digits!r} and noise={self.noise!r}"
            raise UserError(f"The figure {self.name} has {said}: these are a whole number, 0 or more, and a number.")
        if not self.name.isidentifier():
            raise UserError(f"The figure {self.name!r} needs a name of letters, digits and _, such as psnr.")

    def worth(self, value: float) -> float:
        """A number that is higher for better values."""
        return value if self.better == "higher" else -value

    def lead(self, value: float, over: float) -> float:
        """By how much `value` is better than `over`; negative where it is worse."""
        return self.worth(value) - self.worth(over)

    def sought(self, asked: float | None) -> float:
        """The difference that is to be found: as asked, or twice what is noise; 0 where neither is known."""
        return asked or 2 * self.noise

    def format(self, value: float | None, sign: str = "") -> str:
        """The value to the figure's digits, `-` where there is none, never -0; a `sign` of `+` shows it always."""
        return "-" if value is None else f"{round(value, self.digits) + 0.0:{sign}.{self.digits}f}"

    def text(self, value: float | None, sign: str = "") -> str:
        """The value with its unit: `34.04 dB`."""
        return f"{self.format(value, sign)} {self.unit}".rstrip() if value is not None else "-"

    def told(self, value: float | None, sign: str = "") -> str:
        """The value so that it says what it is: `34.04 dB`, and of a figure without a unit `SSIM 0.9612`."""
        return self.text(value, sign) if self.unit else f"{self.title} {self.text(value, sign)}"

    def behind(self, lead: float | None) -> bool:
        """Whether a lead over the baseline is none, but the opposite, by more than is rounded away."""
        return lead is not None and round(lead, self.digits) < 0

    def standing(self, lead: float) -> str:
        """How a lead, or its opposite, is told.

        >>> psnr = Figure(name="psnr", title="PSNR", unit="dB", baseline="bicubic")
        >>> psnr.standing(1.3), psnr.standing(-1.776)
        ('+1.30 dB against bicubic', 'below bicubic: 1.78 dB')
        """
        if not self.behind(lead):
            return f"{self.text(lead, '+')} against {self.baseline}"
        return f"{'below' if self.better == 'higher' else 'worse than'} {self.baseline}: {self.text(-lead)}"

    @property
    def label(self) -> str:
        """Title and unit, for an axis: `PSNR, dB`."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def baseline_name(self) -> str | None:
        """The name of the baseline's own figure: `psnr_bicubic`."""
        return None if self.baseline is None else f"{self.name}_{self.baseline}"


def figures_of(said: Iterable[Mapping[str, Any] | Figure]) -> tuple[Figure, ...]:
    """Figures from a config or a record.

    Raises:
        UserError: a key is unknown or missing, or a name is there twice.
    """
    try:
        found = tuple(one if isinstance(one, Figure) else Figure(**{str(k): v for k, v in one.items()}) for one in said)
    except (TypeError, AttributeError) as error:
        raise UserError(f"A figure is not declared as it must be ({error}): see upsweep.metrics.figure.") from error
    names = [figure.name for figure in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"The figure {twice} is declared twice.")
    return found


def ranked(figures: Sequence[Figure], by: str | None = None) -> tuple[Figure, ...]:
    """The figures, with that of the name `by` first. Raises UserError: none has that name."""
    first = [figure for figure in figures if by in (None, figure.name)][:1]
    if figures and not first:
        known = ", ".join(figure.name for figure in figures)
        raise UserError(f"rank_by={by} is not a figure of this run; choose from {known}, or add it with metrics={by}.")
    return (*first, *(figure for figure in figures if figure not in first))


def own_figures(metrics: Mapping[str, Any] | None, config: Container[str] = ()) -> tuple[Figure, ...]:
    """What the config's node `metrics` declares; an entry of None is left out.

    Args:
        metrics: name -> `figure`, what it means (see `Figure`), and `metric`, what measures it, or nothing.
        config: the whole of it, whose keys are columns of results.csv, too.

    Raises:
        UserError: an entry has other keys, does not say which values are better, or has a name that is taken.
    """
    said = {str(name): entry for name, entry in (metrics or {}).items() if entry is not None}
    return figures_of(_own(name, entry, name in TAKEN or name in config) for name, entry in said.items())


def _own(name: str, entry: Any, taken: bool) -> Figure:
    said = entry.get("figure") if isinstance(entry, Mapping) else None
    if not isinstance(said, Mapping) or set(entry) - {"figure", "metric"}:
        raise UserError(
            f"metrics.{name} needs figure: {{title: {name}, better: higher}} (or lower), and may have metric: "
            "{_target_: ...}; nothing else."
        )
    known = [field.name for field in fields(Figure) if field.name != "name"]
    if unknown := [str(key) for key in said if key not in known]:
        raise UserError(f"metrics.{name}.figure.{unknown[0]} is unknown; choose from {', '.join(known)}.")
    if said.get("better") not in get_args(Better):
        raise UserError(f"metrics.{name}.figure.better={said.get('better')} must be higher or lower.")
    if taken:
        raise UserError(f"metrics.{name}: results have a column of that name already; log and declare it as another.")
    return Figure(**{"title": name, **{str(key): value for key, value in said.items()}, "name": name})
