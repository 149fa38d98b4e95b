"""What a page says of its choices, as plain values for a JSON file: every number, rounded nowhere."""

import math
from collections.abc import Sequence
from typing import Any

from upsweep.analysis.effects import Effect, Findings
from upsweep.analysis.sentences import error_sentence, most_seeds, sentence, words
from upsweep.analysis.study import Study
from upsweep.analysis.variance import Variance, explained

INTERVALS = (
    "low and high hold the truth together with those of all comparisons in 95 % of such sweeps; low_alone and "
    "high_alone are the 95 % intervals of one comparison by itself."
)


def as_json(found: Findings) -> dict[str, Any]:
    """The findings as mappings, lists, words and numbers; None for what is not known.

    `variance`, `interactions` and `error` are of the one yardstick, or yardstick -> these, where there are several.
    `detect` is the difference that `seeds_needed` is about. Differences are not negative: `better` leads by them.
    """
    figure = found.studies[0].figure
    tables = [explained(study) for study in found.studies]
    known = [effect.detectable for effect in found.effects if effect.detectable is not None]
    return {
        "figure": figure.name,
        "unit": figure.unit,
        "better": figure.better,
        "comparisons": found.comparisons,
        "intervals": INTERVALS,
        "effects": [_effect(effect) for effect in found.effects],
        "variance": _by_yardstick(found, [_variance(table) for table in tables]),
        "interactions": _by_yardstick(found, [_interactions(table) for table in tables]),
        "error": _by_yardstick(found, [_error(study) for study in found.studies]),
        "detectable": max(known, default=None),
        "detect": figure.sought(found.detect) or None,
        "seeds_needed": most_seeds(found.effects),
    }


def _by_yardstick(found: Findings, told: Sequence[Any]) -> Any:
    """`told` of each study: of one the thing itself."""
    return told[0] if len(told) == 1 else {study.on: one for study, one in zip(found.studies, told, strict=True)}


def _effect(effect: Effect) -> dict[str, Any]:
    low_alone, high_alone = effect.alone or (None, None)
    may_be = [effect.may_be] if effect.verdict == "ahead" and effect.may_be is not None else []
    behind = [*effect.behind] or may_be
    return {
        "choice": effect.key,
        "better": effect.better,
        "worse": effect.worse,
        "on": effect.on,
        "difference": effect.difference,
        "low": effect.low,
        "high": effect.high,
        "low_alone": low_alone,
        "high_alone": high_alone,
        "p": effect.p,
        "p_alone": effect.p_alone,
        "verdict": effect.verdict,
        "settings": effect.settings,
        "ahead_in": effect.ahead_in,
        "seeds": effect.seeds,
        "pairs": effect.pairs,
        "planned": effect.planned,
        "missing": dict(effect.missing),
        "behind_in": [words(one.where) for one in behind],
        "behind_by": [None if one.difference is None else -one.difference for one in behind],
        "behind_shown": bool(effect.behind),
        "detectable": effect.detectable,
        "seeds_needed": effect.seeds_needed,
        "sentence": sentence(effect),
    }


def _variance(table: Variance | None) -> dict[str, float]:
    return {} if table is None else {share.name: share.share for share in table.shares}


def _interactions(table: Variance | None) -> list[dict[str, Any]]:
    return [
        {"of": [*one.of], "share": one.share, "rows": [*one.rows], "columns": [*one.columns], "means": one.means}
        for one in (table.interactions if table else ())
    ]


def _error(study: Study) -> dict[str, Any]:
    term = study.term
    return {
        "sentence": error_sentence(study),
        "kind": term.kind,
        "df": term.df,
        "variance": None if math.isnan(term.variance) else term.variance,  # of interactions
        "equal": term.equal,
        "block_p": term.block_p,
        "along_p": term.along_p,
    }
