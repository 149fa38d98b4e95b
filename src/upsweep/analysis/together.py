"""Runs of several sweeps, compared as those of one: which settings tell them apart, and which runs repeat others.

A command line says only what is not the default, and defaults differ from sweep to sweep. So what one sweep sets by
hand is looked up in the configs of all. Where the command lines call two runs alike and their configs do not, what
differs becomes a setting, too: somebody changed a file between them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from upsweep.analysis.ranking import differing, gathered, telling
from upsweep.common.errors import UserError
from upsweep.common.names import listed
from upsweep.runs.about import About, without_repeats
from upsweep.runs.result import Result, key_and_value, matters

SWEEP = "sweep"  # the setting, and the column of results.csv, that says of which sweep a run is
MOST_NAMED = 4  # runs, in a sentence


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run of one of several sweeps. `name` is what the page calls it; `about` is None where that is not known."""

    name: str
    sweep: str
    result: Result
    about: About | None

    @cached_property
    def leaves(self) -> dict[str, str]:
        """The values of its config."""
        return leaves(self.about)

    @property
    def code(self) -> tuple[str | None, bool]:
        """By what the code is known: two runs of the same commit, changed since, may be of two codes."""
        return (self.about.commit, self.about.changed) if self.about else (None, True)


def hold_to_one_task(members: Sequence[Member]) -> None:
    """Raise UserError where sweeps are judged by different figures, or of different tasks: who is what."""
    judged = gathered(
        (member for member in members if member.result.headline is not None),
        lambda member: (member.result.choices.get("task", ""), member.result.declared[0].title),
    )
    if len(judged) < 2:
        return
    sides = [
        f"{listed(list(dict.fromkeys(member.sweep for member in of)), 10)} by {figure}{f' ({task})' if task else ''}"
        for (task, figure), of in judged.items()
    ]
    raise UserError(
        f"These sweeps cannot be compared on one page: {'; '.join(sides)}. Give sweeps of one task that rank by one "
        "figure: 'sweep=[A,B]'."
    )


def leaves(about: About | None) -> dict[str, str]:
    """The values of a run's config as a command line would say them, dotted key -> value, without names of classes."""
    return dict(_leaves(without_repeats(about.config))) if about else {}


def filled(results: Sequence[Result], abouts: Sequence[About | None]) -> list[Result]:
    """The results of one sweep: of what some command lines set and others do not, each says what its config has.

    A sweep that goes on with `generator.width=8` has runs that do not say their width.
    """
    keys = dict.fromkeys(key for result in results for key in result.by_hand)
    partly = [key for key in keys if any(key not in result.settings for result in results)]
    told = []
    for result, about in zip(results, abouts, strict=True):
        values = leaves(about) if partly else {}
        words = {key: f"{key}={values[key]}" for key in partly if key in values}
        kept = [word for word in result.overrides if key_and_value(word)[0] not in words]
        told.append(replace(result, overrides=[*kept, *words.values()]) if words else result)
    return told


def told_alike(members: Sequence[Member]) -> list[Result]:
    """The results in their order, every setting that tells them apart said of each of them.

    `sweep` is a setting where nothing else tells two runs apart whose code, and whose figures, are not the same.
    """
    settings = _settings(members)
    given = {"scale", *(key for member in members for key in member.result.by_hand)}
    for known in ([member.result.choices for member in members], [member.leaves for member in members]):
        for key in _silent(members, settings, known, given):
            given.add(key)
            for said, of in zip(settings, known, strict=True):
                if key in of:
                    said[key] = of[key]
    if any(_of_two_codes(members[i], members[j]) for i, j in _pairs(members, settings)):
        given.add(SWEEP)
        settings = [{**said, SWEEP: member.sweep} for member, said in zip(members, settings, strict=True)]
    return [_told(member.result, said, given) for member, said in zip(members, settings, strict=True)]


def repeats(members: Sequence[Member], results: Sequence[Result]) -> list[str]:
    """A sentence on the runs that repeat the choices and the seed of another sweep's run; none where there are none."""
    settings = [result.settings for result in results]
    pairs = list(_pairs(members, settings))
    if not pairs:
        return []
    count = len({j for _, j in pairs})
    named = [f"{members[i].name} and {members[j].name}" for i, j in pairs]
    return [
        f"{count} {'run repeats' if count == 1 else 'runs repeat'} the choices and the seed of another sweep's run "
        f"({listed(named, MOST_NAMED)}): all are shown, and runs that are the same count once, with their mean."
    ]


def unsaid(members: Sequence[Member], results: Sequence[Result]) -> list[str]:
    """A sentence on values in which the sweeps differ, and that no command line names; none where there are none.

    A default may have changed between two sweeps whose runs differ in a choice, too: nothing tells the two apart.
    """
    of_sweeps = gathered((member for member in members if member.about), lambda member: member.sweep)
    common = {sweep: dict(set.intersection(*({*one.leaves.items()} for one in of))) for sweep, of in of_sweeps.items()}
    known = [key for key in differing(list(common.values())) if all(key in values for values in common.values())]
    told = telling(results)
    keys = [key for key in known if matters(key) and not any(f"{key}.".startswith(f"{one}.") for one in told)]
    sides = {key: gathered(common, lambda sweep, key=key: common[sweep][key]) for key in keys}  # type: ignore[misc]
    named = [
        f"{key} ({', '.join(f'{value} in {listed(sweeps, MOST_NAMED)}' for value, sweeps in of.items())})"
        for key, of in sides.items()
        if not any("/" in value for value in of)
    ]
    if not named:
        return []
    return [
        f"The sweeps differ in values that no command line names: {listed(named, MOST_NAMED)}. What is said of choices "
        "that differ between sweeps, too, may come from these."
    ]


def _by_hand(members: Sequence[Member]) -> list[str]:
    """The single values that any command line sets."""
    keys = dict.fromkeys(key for member in members for key in member.result.by_hand)
    groups = {key for member in members for key in member.result.choices}
    return [key for key in keys if key not in groups and key not in ("seed", "scale") and matters(key)]


def _settings(members: Sequence[Member]) -> list[dict[str, str]]:
    """The choices of each run, then what any command line sets: as its config has it, or its own command line.

    A run without a config has what all runs of its sweep have.
    """
    common: dict[str, dict[str, str]] = {}
    for member in members:
        if member.about:
            before = common.get(member.sweep, member.leaves)
            common[member.sweep] = dict(before.items() & member.leaves.items())
    known = [common.get(m.sweep, {}) | m.result.by_hand | m.leaves for m in members]
    keys = [key for key in _by_hand(members) if not _follows(key, members, known)]
    return [
        {key: value for key, value in member.result.choices.items() if matters(key)}
        | {key: values[key] for key in keys if key in values}
        | _numbers(member.result)
        for member, values in zip(members, known, strict=True)
    ]


def _follows(key: str, members: Sequence[Member], known: Sequence[Mapping[str, str]]) -> bool:
    """Whether only some names of its group have this value, and all of them the same one: it tells nothing new."""
    group = key.partition(".")[0]
    there = {member.result.choices.get(group) for member, of in zip(members, known, strict=True) if key in of}
    others = {member.result.choices.get(group) for member, of in zip(members, known, strict=True) if key not in of}
    return bool(others) and not there & others and len({of[key] for of in known if key in of}) == 1


def _numbers(result: Result) -> dict[str, str]:
    return {key: str(value) for key in ("scale", "seed") if (value := getattr(result, key)) is not None}


def _silent(
    members: Sequence[Member],
    settings: Sequence[Mapping[str, str]],
    known: Sequence[Mapping[str, str]],
    given: set[str],
) -> list[str]:
    """Settings in which sweeps differ although their runs agree in all that was given, apart from the seed.

    Those that follow from the seed, name places on a disk, vary within a sweep, or are not known of all are left out.
    """
    shown = [{key: value for key, value in said.items() if key in given and key != "seed"} for said in settings]
    found: dict[str, None] = {}
    for places in gathered(range(len(shown)), lambda i: frozenset(shown[i].items())).values():
        there = [i for i in places if known[i]]
        for key in differing([known[i] for i in there], but=given):
            values = [known[i].get(key, "/") for i in there]
            of_sweeps = {(members[i].sweep, value) for i, value in zip(there, values, strict=True)}
            once = len(of_sweeps) == len({sweep for sweep, _ in of_sweeps})
            is_seed = all(value == str(members[i].result.seed) for i, value in zip(there, values, strict=True))
            if once and not is_seed and not any("/" in value for value in values) and matters(key):
                found[key] = None
    return list(found)


def _pairs(members: Sequence[Member], settings: Sequence[Mapping[str, str]]) -> Iterator[tuple[int, int]]:
    """The places of runs of two sweeps that agree in every setting and the seed: each with the first such run."""
    for places in gathered(range(len(members)), lambda i: frozenset(settings[i].items())).values():
        first, *others = places
        yield from ((first, i) for i in others if members[i].sweep != members[first].sweep)


def _of_two_codes(one: Member, other: Member) -> bool:
    figures = [(member.result.figures, member.result.last) for member in (one, other)]
    same_code = one.code == other.code and not one.code[1]
    return figures[0] != figures[1] and not same_code and one.result.state == other.result.state == "finished"


def _told(result: Result, settings: Mapping[str, str], given: set[str]) -> Result:
    """The result with these settings, and with what was given as its command line."""
    choices = {key: value for key, value in settings.items() if key not in ("scale", "seed")}
    said = [f"{key}={settings[key]}" for key in settings if key in given]
    return replace(result, choices=choices, overrides=said)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif key != "_target_":
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
