"""Sentences on effects: one for each, one on their error, and one on what more runs would show."""

from collections.abc import Mapping, Sequence

from upsweep.analysis.effects import Effect
from upsweep.analysis.error_terms import LEVEL
from upsweep.analysis.inference import MOST_SEEDS
from upsweep.analysis.ranking import finished, headline, rates
from upsweep.analysis.study import Study
from upsweep.analysis.variance import Interaction
from upsweep.common.names import listed
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result

MOST_NAMED = 3  # settings


def sentence(effect: Effect) -> str:
    """The sentence on an effect.

    >>> from upsweep.metrics.figure import Figure
    >>> dB = Figure(name="psnr", title="PSNR", unit="dB")
    >>> pairs = {"pairs": 8, "planned": 8, "missing": {}, "figure": dB}
    >>> sentence(Effect(key="norm", better="none", worse="bn", difference=0.41, low=0.33, high=0.49, **pairs))
    'norm=none beats norm=bn by 0.41 dB (0.33 to 0.49) on this data; the article expects the opposite.'
    """
    better, worse = f"{effect.key}={effect.better}", f"{effect.key}={effect.worse}"
    ahead, noise = effect.figure.text(effect.difference), f"{effect.figure.noise:g} {effect.figure.unit}".rstrip()
    these = over = f"over these {effect.settings} settings" if effect.settings > 1 else "on this data"
    over += f", in {effect.ahead_in} of them" if effect.ahead_in < effect.settings else ""
    match effect.verdict:
        case "no interval" if effect.difference is None:
            said = f"{better} and {worse} cannot be compared: no two finished runs differ in {effect.key} alone"
        case "no interval":
            only = "in the only pair, which has" if effect.pairs == 1 else f"{over}, which have"
            said = f"{_unclear(effect)} {only} no interval"
        case "beats":
            said = f"{better} beats {worse} by {ahead} {interval(effect)} {over}"
            said += f", less than the {noise} that matter" if (effect.difference or 0) < effect.figure.noise else ""
        case "ahead":
            said = f"{better} is ahead of {worse} by {ahead} {interval(effect)} {over}"
            said += f"; {places}" if (places := behind(effect)) else ""
        case "same" if effect.low == effect.high == 0:
            said = (
                f"{better} and {worse} gave the same figures to the last digit: the choice has no effect on these runs"
            )
        case "same":
            said = f"{better} and {worse} differ by less than the {noise} that matter: {better} is {ahead} ahead "
            said += interval(effect)
        case _ if effect.behind:
            said = (
                f"{better} against {worse} depends: {behind(effect)}; {these} no difference is shown {interval(effect)}"
            )
        case _:
            said = f"{_unclear(effect)} {interval(effect)}{_would_show(effect)}"
    where = f"With {effect.on}, " if effect.on else ""
    return f"{where}{said}{_expectation(effect)}.{_missing(effect)}"


def interval(effect: Effect) -> str:
    """`(0.33 to 0.49)`, in the figure's unit; empty where there is none."""
    known = effect.low is not None
    return f"({effect.figure.format(effect.low)} to {effect.figure.format(effect.high)})" if known else ""


def behind(effect: Effect) -> str:
    """Where the opposite holds, `with activation=sigmoid it is behind by 1.1 dB`, or else where it may hold.

    Empty if it is nowhere behind, for example where both gave the same figures in some settings.
    """
    if not effect.behind and effect.may_be is not None:
        by = effect.figure.text(-(effect.may_be.difference or 0.0))
        one = ", one run each" if effect.seeds < 2 else ""
        return f"with {words(effect.may_be.where)} it was behind by {by}{one}, which may be chance"
    told = [
        f"with {words(one.where)} "
        + ("its runs diverged" if one.difference is None else f"it is behind by {effect.figure.text(-one.difference)}")
        for one in effect.behind[:MOST_NAMED]
    ]
    more = len(effect.behind) - MOST_NAMED
    return "; ".join(told) + (f"; the same in {more} more" if more > 0 else "")


def words(values: Mapping[str, str]) -> str:
    """`activation=relu norm=bn`."""
    return " ".join(f"{key}={value}" for key, value in values.items())


def _unclear(effect: Effect) -> str:
    better, worse = f"{effect.key}={effect.better}", f"{effect.key}={effect.worse}"
    ahead = effect.figure.text(effect.difference)
    return f"{better} and {worse}: no difference that these runs can show; {better} is {ahead} ahead"


def _would_show(effect: Effect) -> str:
    return "" if effect.detectable is None else f"; they could find {effect.figure.text(effect.detectable)}"


def _expectation(effect: Effect) -> str:
    if effect.expected is None:
        return ""
    if not effect.shown:
        return f"; the article expects {effect.key}={effect.expected} to win"
    return f"; the article expects {'so' if effect.expected == effect.better else 'the opposite'}"


def _missing(effect: Effect) -> str:
    gone = effect.planned - effect.pairs
    if not gone:
        return ""
    reasons = ", ".join(f"{what} ({count})" for what, count in effect.missing.items())
    return f" {gone} of {effect.planned} pairs are missing: {reasons}." if effect.pairs else f" Runs: {reasons}."


def error_sentence(study: Study) -> str:
    """What the intervals are based on, and what they do not cover."""
    on, kind = f"{study.on}: " if study.on else "", study.term.kind
    if kind == "interactions":
        one = "There is one seed" if study.repeats <= 1 else "Too few settings have a second seed"
        return (
            f"{on}{one}, so chance is measured by how much a difference changes from setting to setting (an "
            "unreplicated factorial). The effect of another seed is not known: run a second one."
        )
    paired = " Runs of the same seed are compared with each other." if "paired" in kind else ""
    said = f"{on}Chance is measured by how much the runs of {study.repeats:.3g} seeds differ within a setting.{paired}"
    if once := [key for key, term in study.terms.items() if term.kind == "seeds"]:
        p = max(term.along_p or 0.0 for term in study.terms.values() if term.kind == "seeds")
        said += (
            f" For {listed(once, 10)} a seed counts once, whatever the number of settings: it has the same effect "
            f"in all of them (F-test, {chance(p)})."
        )
    if study.term.block_p is not None:
        acts = "Some seeds are better than others" if study.term.block_p < LEVEL else "No seed is shown to be better"
        said += f" {acts} (F-test, {chance(study.term.block_p)})."
    return said


def chance(p: float) -> str:
    """A p-value with two digits, but with as many as tell it from 0.05, where verdicts change.

    >>> chance(0.0312), chance(0.0501), chance(0.00002)
    ('p = 0.031', 'p = 0.0501', 'p < 0.001')
    """
    if p < 0.001:
        return "p < 0.001"
    rounded = (f"{p:.{digits}g}" for digits in range(2, 18))
    return "p = " + next(text for text in rounded if float(text) != LEVEL or p == LEVEL)


def power_sentence(found: Sequence[Effect], detect: float | None = None) -> str:
    """What difference these runs could have shown, and how many seeds would show `detect`; empty: nothing is known."""
    known = [effect for effect in found if effect.detectable is not None]
    if not known:
        return ""
    figure, largest = known[0].figure, max(effect.detectable or 0.0 for effect in known)
    said = f"In every comparison these runs would find a difference of {_exact(figure, largest)} in 8 of 10 sweeps"
    size = figure.sought(detect)
    if not size:
        return f"{said}."
    if all(effect.seeds_needed is None and effect.seeds < 2 for effect in known):
        return f"{said}. With a second and a third seed the page can say how many it takes for {_exact(figure, size)}."
    needed = most_seeds(known)
    many = f"more than {MOST_SEEDS:,}" if needed is None else f"about {needed}"
    return f"{said}; to find {_exact(figure, size)} in all of them, it takes {many} seeds."


def _exact(figure: Figure, size: float) -> str:
    """As the figure is printed; a value that would round to 0 keeps two digits."""
    return figure.text(size) if round(size, figure.digits) > 0 else f"{size:.2g} {figure.unit}".rstrip()


def most_seeds(found: Sequence[Effect]) -> int | None:
    """The seeds with which every comparison would show what is to be detected; None: more than 1,000, or not known."""
    counts = [effect.seeds_needed for effect in found if effect.detectable is not None]
    return None if None in counts else max((count for count in counts if count is not None), default=None)


def rate_sentence(results: Sequence[Result]) -> str:
    """How each choice got its learning rate; empty where no rates were swept."""
    if not rates(results):
        return ""
    said = f"Each choice uses its own best {' and '.join(rates(results))}, picked"
    if len({result.seed for result in results}) > 1:
        return f"{said} for each seed on the other seeds, so that a lucky run cannot pick its own rate."
    return (
        f"{said} on the same runs that judge it, since there is one seed: the best of many is also the "
        "luckiest. With a second seed, each rate is picked on the other one."
    )


def epoch_sentence(results: Sequence[Result]) -> str:
    """The epoch of the figures; empty if no run finished."""
    title, done = headline(results).title, finished(results)
    if not done:
        return ""
    if any(result.last for result in done):
        return (
            f"Runs are ranked and compared by the {title} of their last epoch ({title} last): the best of many epochs "
            f"is also the luckiest. {title} is that of the best epoch, whose weights the checkpoint holds."
        )
    return (
        f"Runs are ranked and compared by the {title} of their best epoch, the only one on record. That favours "
        "choices whose curve jumps."
    )


def interaction_sentence(interaction: Interaction, figure: Figure) -> str:
    """Which row has the best mean in which column, and how far ahead of the next.

    >>> dB = Figure(name="psnr", title="PSNR", unit="dB", digits=1)
    >>> means = [[30.0, 31.5], [30.4, 31.0]]
    >>> both = {"of": ("norm", "activation"), "share": 0.2, "rows": ["none", "bn"], "columns": ["relu", "tanh"]}
    >>> interaction_sentence(Interaction(means=means, **both), dB)
    'Which norm is the best depends on activation: norm=bn with relu (by 0.4 dB); norm=none with tanh (by 0.5 dB).'
    """
    key, over = interaction.of
    won: dict[str, list[str]] = {}  # best row -> the columns that it wins, with its lead
    for column, means in zip(interaction.columns, zip(*interaction.means, strict=True), strict=True):
        known = {row: figure.worth(mean) for row, mean in zip(interaction.rows, means, strict=True) if mean is not None}
        if len(known) > 1:
            (best, first), (_, second) = sorted(known.items(), key=lambda one: -one[1])[:2]
            won.setdefault(best, []).append(f"{column} (by {figure.text(first - second)})")
    if not won:
        return ""
    if len(won) == 1:
        (best, leads), *_ = won.items()
        return f"{key}={best} has the best mean with every {over}, but its lead changes: with {', '.join(leads)}."
    told = "; ".join(f"{key}={best} with {', '.join(leads)}" for best, leads in won.items())
    return f"Which {key} is the best depends on {over}: {told}."
