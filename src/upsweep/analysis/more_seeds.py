"""Which seeds are still to be run for a difference to be found, and how that is typed."""

import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import count, islice

from upsweep.analysis.effects import Findings
from upsweep.analysis.ranking import grouped, telling
from upsweep.analysis.sentences import most_seeds, power_sentence
from upsweep.runs.result import Result

MANY = 20  # seeds
FIRST = 3  # so many, before it can be counted how many it takes


def plan(results: Sequence[Result], found: Findings, command: str | None = None) -> list[str]:
    """Lines for a person: what the runs could have shown, and what to run for `found.detect` to be shown.

    `command` goes on with the sweep, for a `seed=...` at its end; None: there is none to go on with.
    """
    if not found.effects:
        return ["No choice differs between these runs: there is nothing to find."]
    told = power_sentence(found.effects, found.detect)
    if not told:
        told = "No comparison has an interval yet: run at least two seeds."
    needed = most_seeds(found.effects)
    if needed is None and all(effect.seeds < 2 for effect in found.effects):
        needed = FIRST
    if needed is None:
        return [told]
    missing = missing_seeds(results, needed)
    if not missing:
        return [told, "These runs have as many: nothing more is needed."]
    seeds, runs = [*missing], sum(missing.values())
    in_a_row = len(seeds) > MANY and seeds[-1] - seeds[0] == len(seeds) - 1
    size = f"Missing: {_counted(len(seeds), 'seed')}, {_counted(runs, 'run')}"
    if command is None:
        named = f"{seeds[0]} to {seeds[-1]}" if in_a_row else ", ".join(map(str, seeds))
        return [told, f"{size}: {named}."]
    typed = f"range({seeds[0]},{seeds[-1] + 1})" if in_a_row else ",".join(map(str, seeds))
    return [told, f"{size}. This runs what is missing:", f"{command} {shlex.quote(f'seed={typed}')}"]


def missing_seeds(results: Sequence[Result], needed: int) -> dict[int, int]:
    """The seeds that not all settings have, up to `needed` of them in all -> how many runs each lacks.

    Seeds that most settings have come first, then new ones. A run that another command would repeat is not asked for:
    its seed was not said on the command line.
    """
    keys = telling(results, but=["seed"])
    settings = grouped(results, keys)
    done = Counter(seed for runs in settings.values() for seed in {run.seed for run in runs if run.complete})
    seeds = [seed for seed, _ in sorted(done.items(), key=lambda one: (-one[1], one[0] or 0)) if seed is not None]
    new = (seed for seed in count(max([0, *seeds]) + 1))
    wanted = [*seeds[:needed], *islice(new, max(0, needed - len(seeds)))]
    unsaid = {result.seed for result in results if "seed" not in result.by_hand}
    lacking = {seed: len(settings) - done[seed] for seed in sorted(wanted) if seed not in unsaid}
    return {seed: runs for seed, runs in lacking.items() if runs}


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
