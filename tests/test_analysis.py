"""What many runs show: ranking, tables, and what each choice is worth, also where lower values are better."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy import stats
from statsmodels.stats.multitest import multipletests
from tests.small_results import CHOICES, PSNR, SSIM, result

from upsweep.analysis.effects import Effect, effects, findings
from upsweep.analysis.opposites import Opposite
from upsweep.analysis.ranking import at_best_rate, chosen, differing, rank
from upsweep.analysis.sentences import error_sentence, power_sentence, sentence
from upsweep.analysis.study import studies, swept
from upsweep.analysis.tables import job_table, print_results, seed_table, tuned_table, write_table
from upsweep.analysis.yardsticks import FEEDING
from upsweep.metrics.figure import Figure
from upsweep.runs.result import FIGURES_OF_VERSION_1, Result, State

ROOT = Path(__file__).resolve().parent.parent
RMSE = Figure(name="rmse", title="RMSE", better="lower", digits=3, noise=0.01, baseline="noisy", margin="gain")


def job(
    state: State = "finished",
    psnr: float | None = None,
    overrides: Sequence[str] = (),
    seed: int = 1,
    choices: dict[str, str] | None = None,
    gain: float | None = None,
    **rest: Any,
) -> Result:
    """A job of a sweep, by its overrides; PSNR in dB, its gain over bicubic."""
    return Result(
        state=state,
        choices={"init": "he", "norm": "none"} | (choices or {}),
        overrides=list(overrides),
        seed=seed,
        scale=2,
        declared=FIGURES_OF_VERSION_1,
        figures={} if psnr is None else {"psnr": psnr},
        baseline={} if psnr is None or gain is None else {"psnr": psnr - gain},
        **rest,
    )


# ------------------------------------------------------------------------------- ranking and tables


def test_rank_puts_the_best_first_and_what_went_wrong_last() -> None:
    jobs = {
        "diverged": job("diverged", 40.0),
        "blank": job(),
        "worse": job(psnr=29.0),
        "failed": job("failed"),
        "stopped": job("stopped", 35.0),
        "better": job(psnr=30.0),
    }
    assert list(rank(jobs)) == ["better", "worse", "blank", "stopped", "diverged", "failed"]


def test_the_columns_are_what_differs() -> None:
    jobs = {
        "0": job(choices={"init": "he"}, overrides=["init=he", "init.fan=torch", "lr=1"]),
        "1": job(choices={"init": "xavier"}, overrides=["init=xavier", "init.fan=effective", "lr=1"]),
    }
    assert differing([each.settings for each in jobs.values()]) == ["init", "init.fan"]
    assert job_table(jobs).headers[:4] == ["job", "init", "init.fan", "PSNR"]


def test_seeds_are_summed_up_by_mean_and_sample_deviation() -> None:
    psnrs = {"bn": [30.0, 30.3, 30.9], "none": [31.0, 31.1]}
    jobs = {
        f"{norm}{seed}": job(psnr=psnr, seed=seed, choices={"norm": norm}, overrides=[f"seed={seed}"])
        for norm, values in psnrs.items()
        for seed, psnr in enumerate(values)
    }
    jobs["none2"] = job("diverged", 99.0, seed=2, choices={"norm": "none"}, overrides=["seed=2"])
    table = seed_table(jobs)
    assert table is not None
    assert [[*row[:2], row[-1]] for row in table.rows] == [
        ["none", f"31.05 ± {statistics.stdev([31.0, 31.1]):.2f}", "2 of 3"],
        ["bn", "30.40 ± 0.46", "3 of 3"],  # sd of (-.4, -.1, .5) over n - 1 = 2: sqrt(.21)
    ]
    assert seed_table({"0": job(psnr=1.0), "1": job(psnr=2.0)}) is None


def test_every_choice_is_held_to_its_own_best_rate() -> None:
    psnr = {
        ("none", "1e-3"): (31.0, 31.2, 31.1),
        ("none", "1e-2"): (32.0, None, None),  # higher, but two seeds diverged
        ("bn", "1e-3"): (29.0, 31.9, 29.0),
        ("bn", "1e-2"): (30.9, 31.0, 30.8),
    }
    jobs = {
        f"{norm} {rate} {seed}": job(
            "diverged" if value is None else "finished",
            psnr=value,
            gain=None if value is None else value - 30,
            seed=seed,
            choices={"norm": norm},
            overrides=[f"optimizer.lr={rate}"],
        )
        for (norm, rate), values in psnr.items()
        for seed, value in enumerate(values)
    }
    table = tuned_table(jobs)
    assert table is not None
    assert list(table.headers) == ["norm", "optimizer.lr", "PSNR", "SSIM", "gain dB", "seeds"]
    assert table.rows == [
        ["none", "1e-3", "31.10 ± 0.10", "-", "+1.10 ± 0.10", "3 of 3"],
        ["bn", "1e-2", "30.90 ± 0.10", "-", "+0.90 ± 0.10", "3 of 3"],
    ]
    only_rates = {name: job for name, job in jobs.items() if name.startswith("bn")}
    one_rate = {name: job for name, job in jobs.items() if "1e-3" in name}
    assert tuned_table(only_rates) is None and tuned_table(one_rate) is None


def test_a_rate_is_picked_for_each_seed_on_the_other_seeds() -> None:
    """One lucky run makes its rate the best: but not for the seed that had the luck."""
    psnr = {"1e-3": (30.0, 30.1, 30.2), "1e-2": (33.0, 29.0, 29.1)}
    runs = [
        result(value, norm="bn", optimizer__lr=rate, seed=str(seed))
        for rate, values in psnr.items()
        for seed, value in enumerate(values)
    ]
    picked = {run.seed: (run.settings["optimizer.lr"], run.value) for run in at_best_rate(runs)}
    assert picked == {0: ("1e-3", 30.0), 1: ("1e-2", 29.0), 2: ("1e-2", 29.1)}
    (table,) = [tuned_table({str(i): run for i, run in enumerate([*runs, result(28.0, norm="none", seed="0")])})]
    assert table is not None and table.rows[0][:3] == ["bn", "1e-2, 1e-3", f"{88.1 / 3:.2f} ± 0.55"]
    alone = [run for run in runs if run.seed == 0]
    assert [run.value for run in at_best_rate(alone)] == [33.0], "one seed has no others"


@pytest.mark.parametrize("lost", ["failed", "stopped", "not run", "copied"])
def test_a_run_that_is_not_there_or_there_twice_says_nothing_of_its_rate(lost: str) -> None:
    psnr = {("bn", "1e-3"): 30.0, ("bn", "1e-2"): 32.0, ("none", "1e-3"): 31.0, ("none", "1e-2"): 31.0}
    runs = [
        result(value + int(seed) / 100, norm=norm, optimizer__lr=rate, seed=seed)
        for (norm, rate), value in psnr.items()
        for seed in "123"
    ]
    here = runs[5]  # norm=bn at its best rate, the last seed
    rest = [run for run in runs if run is not here]
    ends = {"failed": [replace(here, state="failed", figures={})], "stopped": [replace(here, state="stopped")]}
    given = [*runs, *runs[:3], *runs[:3]] if lost == "copied" else [*rest, *ends.get(lost, [])]
    (effect,) = effects(given)
    assert (effect.better, effect.pairs) == ("bn", 3 if lost == "copied" else 2)
    assert effect.difference == pytest.approx(1.0, abs=0.02)
    best = [run for run in at_best_rate(given) if run.settings["norm"] == "bn"]
    assert {run.settings["optimizer.lr"] for run in best} == {"1e-2"}


def test_rates_are_held_against_each_other_on_the_seeds_that_all_have() -> None:
    """One seed was enough to choose a rate, which then got more of them: a seed that is worse changes nothing."""
    psnr = {("1e-3", 1): 30.0, ("1e-2", 1): 30.1, ("1e-2", 2): 29.0, ("1e-2", 3): 29.2}
    runs = [result(value, optimizer__lr=rate, seed=str(seed)) for (rate, seed), value in psnr.items()]
    assert [run.value for run in at_best_rate(runs)] == [30.1, 29.0, 29.2]
    scanned = {
        ("a", "1"): 30.0,
        ("a", "2"): 31.0,
        ("a", "4"): 30.5,
        ("b", "1"): 29.5,
        ("b", "2"): 30.5,
        ("b", "4"): 30.52,
    }
    runs = [result(value, norm=norm, optimizer__lr=rate, seed="1") for (norm, rate), value in scanned.items()]
    runs += [
        result(value + int(seed) / 100, norm=norm, optimizer__lr="2", seed=seed)
        for norm, value in (("a", 31.0), ("b", 30.5))
        for seed in "2345"
    ]
    (effect,) = effects(runs)
    assert (effect.pairs, effect.planned, effect.missing) == (5, 5, {}), "a rate that was tried once decides nothing"
    apart = [result(value, optimizer__lr=rate, seed=str(i)) for i, (rate, value) in enumerate([("a", 1.0), ("b", 2.0)])]
    assert [run.value for run in at_best_rate(apart)] == [1.0, 2.0], "nothing tells which one is better"


@pytest.mark.parametrize(("seeds", "rates"), [(2, 2), (3, 3), (5, 4)])
def test_picking_among_equal_rates_gains_nothing_on_average(seeds: int, rates: int) -> None:
    """The best of several equal rates is above their mean by luck; a figure that had no say in the choice is not."""
    rng = np.random.default_rng(seeds)
    found = []
    for _ in range(200):
        noise = rng.standard_normal((rates, seeds))
        runs = [
            result(float(noise[rate, seed]), optimizer__lr=str(rate), seed=str(seed))
            for rate in range(rates)
            for seed in range(seeds)
        ]
        found.append(statistics.fmean(run.value or 0.0 for run in at_best_rate(runs)))
    assert abs(statistics.fmean(found)) < 5 * statistics.stdev(found) / np.sqrt(len(found))


def test_whatever_is_marked_as_tuned_is_no_choice() -> None:
    runs = [
        replace(result(value, norm=norm, optimizer__betas=betas, seed=seed), tuned=["optimizer.betas"])
        for (norm, betas), value in {("bn", "a"): 30, ("bn", "b"): 31, ("none", "a"): 33, ("none", "b"): 29}.items()
        for seed in "12"
    ]
    (effect,) = effects(runs)
    assert (effect.key, effect.better, effect.difference) == ("norm", "none", 2.0)


def test_jobs_are_ranked_by_their_last_epoch_and_both_are_columns(tmp_path: Path) -> None:
    lucky = replace(result(33.0, norm="bn"), last={"psnr": 30.0}, baseline={"psnr": 29.0})
    steady = replace(result(31.0, norm="none"), last={"psnr": 31.0}, baseline={"psnr": 29.0})
    jobs = {"lucky": lucky, "steady": steady}
    assert list(rank(jobs)) == ["steady", "lucky"]
    table = job_table(jobs)
    assert list(table.headers)[2:5] == ["PSNR", "PSNR last", "gain dB"]
    assert [row[2:5] for row in table.rows] == [["31.00", "31.00", "+2.00"], ["33.00", "30.00", "+4.00"]]
    with write_table(tmp_path / "results.csv", jobs).open(newline="") as file:
        assert [(row["psnr"], row["psnr_last"]) for row in csv.DictReader(file)] == [("31.0", "31.0"), ("33.0", "30.0")]
    (effect,) = effects([lucky, steady])
    assert (effect.better, effect.difference) == ("none", 1.0)


def test_outside_a_terminal_nothing_is_cut_and_columns_are_aligned() -> None:
    long = "data.root='" + "x" * 300 + "'"
    out = io.StringIO()
    print_results({"0": job(psnr=30.123, overrides=[long]), "1": job("failed", reason="it broke")}, out)
    title, header, first, second, why = out.getvalue().splitlines()
    assert title == "1 of 2 jobs finished"
    assert "x" * 300 in first
    assert header.index("PSNR") + len("PSNR") == first.index("30.12") + len("30.12")
    assert second.endswith("failed")
    assert why == "job 1 failed: it broke"


def test_a_single_run_prints_what_was_set_by_hand() -> None:
    out = io.StringIO()
    job_table({"run": job(psnr=30.0, gain=-0.5, overrides=["init=he", "lr=0.1", "resume='/run'"])}).print(out)
    header, row = out.getvalue().splitlines()
    assert header.split()[:4] == ["job", "init", "lr", "PSNR"]
    assert row.split()[:4] == ["run", "he", "0.1", "30.00"]
    assert "-0.50" in row


def test_jobs_below_their_baseline_are_told_in_one_line() -> None:
    jobs = {"0": job(psnr=30.0, gain=-1.776), "1": job(psnr=32.0, gain=0.2), "2": job(psnr=31.0, gain=-0.001)}
    out = io.StringIO()
    print_results(jobs, out)
    assert out.getvalue().splitlines()[-1] == "Better without a network: job 0 (below bicubic: 1.78 dB)"


def test_the_csv_has_unrounded_numbers(tmp_path: Path) -> None:
    jobs = {"0": job(psnr=1 / 3, choices={"init": "a"}), "1": job(psnr=2 / 3, choices={"init": "b, c"})}
    with write_table(tmp_path / "results.csv", jobs).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["init"], float(row["psnr"])) for row in rows] == [
        ("1", "b, c", 2 / 3),
        ("0", "a", 1 / 3),
    ]


def test_choices_are_those_of_the_project() -> None:
    of_hydra = {"init": "he", "generator@a.b": "fsrcnn", "hydra/launcher": "process", "debug": None}
    assert chosen(of_hydra) == {"init": "he", "generator": "fsrcnn"}
    chain = {"degradation": {"blur": {"sigma": 1}, "bicubic": {}}}  # Hydra does not list what has several names
    assert chosen(of_hydra, chain)["degradation"] == "[blur,bicubic]"
    assert chosen({**of_hydra, "degradation": "mine"}, chain)["degradation"] == "mine"


# ------------------------------------------------------------------------------------------- effects


def test_pairs_differ_in_the_choice_alone_so_that_a_small_effect_is_seen_under_large_ones() -> None:
    rng = np.random.default_rng(4)
    runs, differences = [], []
    for init, seed in product(("he", "xavier", "torch"), "123"):
        level = 30 + 5 * rng.standard_normal()  # of this init and seed: far more than the norm is worth
        gap = 0.3 + 0.05 * rng.standard_normal()
        differences.append(gap)
        runs += [result(level, init=init, norm="bn", seed=seed), result(level + gap, init=init, norm="none", seed=seed)]
    rng.shuffle(runs)
    (effect,) = [e for e in effects(runs) if e.key == "norm"]
    # Three settings of three pairs: what the pairs vary by within settings, 6 degrees of freedom, over sqrt(9).
    within = [values - values.mean() for values in np.array(differences).reshape(3, 3)]
    half = stats.t.ppf(0.975, 6) * np.sqrt(np.square(within).sum() / 6 / 9)
    assert (effect.better, effect.worse, effect.pairs, effect.planned) == ("none", "bn", 9, 9)
    assert (effect.settings, effect.ahead_in, effect.seeds, effect.verdict) == (3, 3, 3, "beats")
    assert effect.difference == pytest.approx(np.mean(differences))
    assert effect.alone is not None and effect.low is not None and effect.low < effect.alone[0]
    assert effect.alone == pytest.approx((np.mean(differences) - half, np.mean(differences) + half))
    assert "For init a seed counts once, whatever the number of settings" in error_sentence(studies(runs)[0])
    assert sentence(effect) == (
        f"norm=none beats norm=bn by {np.mean(differences):.2f} dB ({effect.low:.2f} to {effect.high:.2f}) "
        "over these 3 settings; the article expects the opposite."
    )


def crossed(size: float, seeds: int = 3) -> list[Result]:
    """norm=none is worth 2 dB, but with activation=sigmoid it is behind by `size`."""
    rng = np.random.default_rng(1)
    return [
        result(
            30 + 0.1 * rng.standard_normal() + (0 if norm == "bn" else -size if act == "sigmoid" else 2),
            activation=act, norm=norm, init=init, seed=str(seed),
        )
        for act in ("relu", "tanh", "sigmoid") for norm in ("bn", "none") for init in ("he", "xavier")
        for seed in range(seeds)
    ]  # fmt: skip


def test_a_choice_that_loses_in_a_setting_is_ahead_and_the_sentence_says_where() -> None:
    (effect,) = [e for e in effects(crossed(1.0)) if e.key == "norm"]
    assert (effect.better, effect.verdict, effect.settings, effect.ahead_in) == ("none", "ahead", 6, 4)
    (opposite,) = effect.behind
    assert opposite.where == {"activation": "sigmoid"} and opposite.difference is not None
    assert opposite.difference == pytest.approx(-1.0, abs=0.2)
    said = f"with activation=sigmoid it is behind by {-opposite.difference:.2f} dB"
    assert f"over these 6 settings, in 4 of them; {said}" in sentence(effect)
    (unsure,) = [e for e in effects(crossed(0.3)) if e.key == "norm"]
    assert unsure.verdict == "ahead" and unsure.behind == [] and unsure.may_be is not None
    assert "activation=sigmoid it was behind by" in sentence(unsure) and "which may be chance" in sentence(unsure)


def test_with_one_seed_what_is_behind_is_said_to_be_one_run() -> None:
    (effect,) = [e for e in effects(crossed(-0.5, seeds=1)) if e.key == "norm"]
    assert (effect.verdict, effect.settings, effect.ahead_in) == ("beats", 6, 6)
    psnr = {("bn", str(i)): 30.0 + i / 97 for i in range(9)} | {("none", str(i)): 32.0 + i / 89 for i in range(9)}
    psnr |= {("bn", "lsuv"): 30.3, ("none", "lsuv"): 30.255}
    (effect,) = [e for e in effects([result(p, norm=n, init=i) for (n, i), p in psnr.items()]) if e.key == "norm"]
    assert (effect.verdict, effect.behind, effect.ahead_in) == ("ahead", [], 9)
    assert "with init=lsuv it was behind by 0.05 dB, one run each, which may be chance" in sentence(effect)


def test_what_is_not_shown_in_the_mean_may_depend_and_says_on_what() -> None:
    (effect,) = [e for e in effects(crossed(4.0)) if e.key == "norm"]
    assert (
        effect.verdict == "not shown"
        and "norm=none against norm=bn depends: with activation=sigmoid it is behind by 3." in sentence(effect)
    )


def test_a_choice_that_diverges_where_the_other_one_does_not_is_not_said_to_beat_it() -> None:
    runs = [
        replace(run, state="diverged", figures={}) if {"norm=none", "activation=sigmoid"} <= {*run.overrides} else run
        for run in crossed(-2.0)
    ]
    (effect,) = [e for e in effects(runs) if e.key == "norm"]
    assert effect.behind == [Opposite(where={"activation": "sigmoid"}, difference=None)]
    assert (effect.better, effect.verdict, effect.settings) == ("none", "ahead", 4)
    said = sentence(effect)
    assert "with activation=sigmoid its runs diverged" in said
    assert said.endswith("6 of 18 pairs are missing: norm=none diverged (6).")


def test_with_one_seed_the_error_is_what_interactions_leave() -> None:
    psnr = {("he", "bn"): 30.0, ("he", "none"): 31.0, ("xavier", "bn"): 30.5, ("xavier", "none"): 31.9}
    runs = [result(value, init=init, norm=norm) for (init, norm), value in psnr.items()]
    (effect,) = [e for e in effects(runs) if e.key == "norm"]
    theirs = stats.ttest_1samp([1.0, 1.4], 0)
    assert effect.alone == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert effect.p_alone == pytest.approx(theirs.pvalue)
    assert "unreplicated factorial" in error_sentence(studies(runs)[0])


def test_two_values_that_cross_are_never_the_same() -> None:
    runs = [
        result(
            30 + (2 if (norm == "bn") == (act == "tanh") else 0) + 0.0051 * int(seed),
            norm=norm, activation=act, seed=seed,
        )
        for norm in ("bn", "none") for act in ("relu", "tanh") for seed in "123"
    ]  # fmt: skip
    for effect in effects(runs):
        assert effect.verdict == "not shown" and "depends: with" in sentence(effect)


def test_figures_that_were_rounded_are_no_surer_than_that() -> None:
    """Four runs to 0.1 dB, both settings with the same difference: not a standard error of nothing."""
    runs = [
        result(value, norm=norm, activation=act)
        for (norm, act), value in {
            ("bn", "relu"): 30.1, ("none", "relu"): 30.2, ("bn", "tanh"): 31.3, ("none", "tanh"): 31.4
        }.items()
    ]  # fmt: skip
    (effect,) = [e for e in effects(runs) if e.key == "norm"]
    assert effect.verdict == "not shown" and effect.alone is not None
    # Each figure is rounded by 0.1 / sqrt(12), a mean of two differences of two figures by as much; one df.
    half = stats.t.ppf(0.975, 1) * 0.1 / np.sqrt(12)
    assert effect.alone == pytest.approx((0.1 - half, 0.1 + half))


def test_what_is_within_the_noise_is_the_same() -> None:
    rng = np.random.default_rng(1)
    runs = [
        result(30 + 0.01 * rng.standard_normal(), norm=norm, seed=str(seed)) for norm in ("a", "b") for seed in range(9)
    ]
    (effect,) = effects(runs)
    assert effect.verdict == "same" and "differ by less than the 0.05 dB that matter" in sentence(effect)


def test_holm_and_the_intervals_are_over_all_comparisons_of_the_page() -> None:
    rng = np.random.default_rng(3)
    runs = [
        result(30 + (init == "he") + rng.standard_normal(), init=init, norm=norm, seed=str(seed))
        for init in ("he", "xavier", "torch", "lsuv") for norm in ("bn", "none") for seed in range(4)
    ]  # fmt: skip
    found = findings(runs)
    assert found.comparisons == len(found.effects) == 7
    adjusted = multipletests([e.p_alone for e in found.effects], method="holm")[1]
    assert [e.p for e in found.effects] == pytest.approx(list(adjusted))
    for effect in found.effects:
        assert effect.shown == (effect.p is not None and effect.p <= 0.05)
        assert effect.low is not None and effect.alone is not None and effect.low <= effect.alone[0]


def test_scales_are_compared_apart_and_each_sentence_says_which() -> None:
    runs = [
        result(30 + lead * (norm == "none") + int(seed) / 100, scale=scale, norm=norm, seed=seed)
        for scale, lead in (("2", 1.0), ("3", -1.0))
        for norm in ("bn", "none")
        for seed in "123"
    ]
    two, three = effects(runs)
    assert (two.on, two.better, three.on, three.better) == ("scale=2", "none", "scale=3", "bn")
    assert [two.difference, three.difference] == pytest.approx([1.0, 1.0])
    assert sentence(three).startswith("With scale=3, norm=bn beats norm=none by 1.00 dB")


def test_more_seeds_are_counted_for_the_difference_that_is_asked_for() -> None:
    """Against simulation: with so many seeds the difference is shown in 80 % of sweeps, with fewer in less."""
    rng = np.random.default_rng(0)

    def sweep(seeds: int, lead: float) -> list[Result]:
        return [
            result(float(rng.normal(lead * (norm == "a"))), norm=norm, init=init, seed=str(seed))
            for norm in "ab" for init in "cd" for seed in range(seeds)
        ]  # fmt: skip

    def shown(seeds: int, lead: float) -> float:
        found = [next(e for e in effects(sweep(seeds, lead)) if e.key == "norm") for _ in range(300)]
        return statistics.fmean(effect.shown and effect.better == "a" for effect in found)

    many = [e for _ in range(40) for e in effects(sweep(6, 0.0), detect=1.0) if e.key == "norm"]
    needed = statistics.median(e.seeds_needed or 0 for e in many)
    assert shown(round(needed), 1.0) == pytest.approx(0.8, abs=0.08)
    assert shown(6, statistics.median(e.detectable or 0 for e in many)) == pytest.approx(0.8, abs=0.08)
    said = power_sentence(many[:1], 1.0)
    assert f"to find 1.00 dB in all of them, it takes about {many[0].seeds_needed} seeds." in said


def test_each_choice_stands_at_its_own_best_rate_and_a_rate_is_no_choice() -> None:
    psnr = {("none", "1e-3"): 31.0, ("none", "1e-2"): 25.0, ("bn", "1e-3"): 29.0, ("bn", "1e-2"): 30.9}
    noise = {"1": 0.0, "2": 0.01, "3": -0.01}
    runs = [
        result(psnr[norm, rate] + (noise[seed] if norm == "bn" else 0), norm=norm, optimizer__lr=rate, seed=seed)
        for norm, rate, seed in product(("none", "bn"), ("1e-3", "1e-2"), "123")
    ]
    (effect,) = effects(runs)
    assert (effect.key, effect.better, effect.pairs) == ("norm", "none", 3)
    assert effect.difference == pytest.approx(0.1)


def test_runs_that_did_not_finish_are_missing_pairs_and_said_so() -> None:
    runs = [
        *(result(31.0 + i / 100, norm="none", seed=str(i)) for i in range(4)),
        result(30.5, norm="bn", seed="0"),
        result(30.4, norm="bn", seed="1"),
        result(99.0, "diverged", norm="bn", seed="2"),
    ]
    (effect,) = effects(runs)
    assert (effect.pairs, effect.planned) == (2, 4)
    assert effect.missing == {"norm=bn diverged": 1, "norm=bn was not run": 1}
    assert sentence(effect).endswith("2 of 4 pairs are missing: norm=bn diverged (1), norm=bn was not run (1).")
    gone = [replace(run, state="failed", figures={}) if "norm=bn" in run.overrides else run for run in runs]
    (effect,) = effects(gone)
    assert effect.difference is None and not effect.shown
    assert "cannot be compared: no two finished runs differ in norm alone" in sentence(effect)
    assert "norm=bn failed (3)" in sentence(effect)


def test_one_pair_shows_nothing() -> None:
    (effect,) = effects([result(31.0, dropout="none"), result(30.0, dropout="p20")])
    assert sentence(effect) == (
        "dropout=none and dropout=p20: no difference that these runs can show; dropout=none is 1.00 dB ahead in the "
        "only pair, which has no interval; the article expects dropout=p20 to win."
    )


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (
            ("activation", "relu", "tanh", 0.2, 0.1, 0.3),
            "relu beats activation=tanh by 0.20 dB (0.10 to 0.30) on this data; the article expects so.",
        ),
        (("activation", "relu", "elu", 0.03, 0.02, 0.04), "on this data, less than the 0.05 dB that matter."),
        (("init", "he", "xavier", 0.1, -0.1, 0.3), "no difference that these runs can show; init=he is 0.10 dB ahead"),
    ],
)
def test_a_sentence_says_what_the_interval_does(effect: tuple[str, str, str, float, float, float], said: str) -> None:
    key, better, worse, mean, low, high = effect
    made = Effect(
        key=key,
        better=better,
        worse=worse,
        difference=mean,
        low=low,
        high=high,
        pairs=5,
        planned=5,
        missing={},
        figure=PSNR,
    )
    assert said in sentence(made)


def test_only_what_was_set_is_a_choice_not_what_follows_from_it() -> None:
    fsrcnn, espcn = (
        replace(result(30.0, generator=name), choices=CHOICES | {"generator": name, "activation": act})
        for name, act in (("fsrcnn", "prelu"), ("espcn", "tanh"))
    )
    assert swept([fsrcnn, espcn]) == ["generator"]
    (effect,) = effects([fsrcnn, espcn])
    assert effect.pairs == 1
    scales = [replace(result(psnr, scale=str(scale)), scale=scale) for psnr, scale in ((37.0, 2), (30.0, 4))]
    assert swept(scales) == ["scale"] and effects(scales) == [], "another scale is another yardstick"


def test_a_choice_without_any_effect_is_said_to_have_none() -> None:
    same = [result(30.0 + int(seed), init=init, seed=seed) for init in ("he", "icnr") for seed in ("1", "2")]
    (found,) = effects(same)
    assert sentence(found).startswith("init=he and init=icnr gave the same figures to the last digit")


# ------------------------------------------------------------------------- judged on different images


def judged(psnr: float | None, over: float | None, on: str | None = None, **settings: str) -> Result:
    """A job whose baseline reached `over` dB on the images with the digest `on`."""
    made = result(psnr, "failed" if psnr is None else "finished", PSNR, **settings)
    return replace(
        made, baseline={} if over is None else {"psnr": over}, judged_on=on, scale=int(made.by_hand.get("scale", 2))
    )


def told(jobs: dict[str, Result]) -> str:
    out = io.StringIO()
    print_results(jobs, out)
    return out.getvalue()


def two_yardsticks() -> dict[str, Result]:
    """A folder of images was changed after the jobs 0 and 1; job 4 failed."""
    runs = [judged(30.0, 29.28, init="he", seed="1"), judged(30.2, 29.2801, init="xavier", seed="1")]
    runs += [judged(34.0, 33.08, init="he", seed="2"), judged(34.4, 33.08, init="xavier", seed="2")]
    return dict(zip("01234", [*runs, judged(None, None, init="he", seed="3")], strict=True))


def test_nothing_is_averaged_over_what_was_judged_on_different_images(tmp_path: Path) -> None:
    jobs = two_yardsticks()
    table = seed_table(jobs)
    assert table is not None and list(table.headers)[:3] == ["init", "judged on", "PSNR"]
    assert [[*row[:3], row[-1]] for row in table.rows] == [
        ["xavier", "images 2", "34.40", "1 of 1"],
        ["he", "images 2", "34.00", "1 of 1"],
        ["xavier", "images 1", "30.20", "1 of 1"],
        ["he", "images 1", "30.00", "1 of 2"],  # the job that failed makes no group of its own
    ]
    said = (
        "Jobs 0, 1 and jobs 2, 3 were judged on different images (bicubic 29.28 and 33.08 dB): their figures are not "
    )
    assert f"{said}compared or averaged.\n" in told(jobs)
    with write_table(tmp_path / "results.csv", jobs).open(newline="") as file:
        assert {row["job"]: row["judged on"] for row in csv.DictReader(file)} == {
            **{"0": "images 1", "1": "images 1", "2": "images 2", "3": "images 2"},
            "4": "images 1",
        }


def test_effects_are_paired_within_the_images_and_these_are_no_choice() -> None:
    runs = list(two_yardsticks().values())
    found = effects(runs)
    assert [(e.on, e.key, e.better, e.pairs) for e in found] == [
        ("images 1", "init", "xavier", 1),
        ("images 2", "init", "xavier", 1),
    ]
    assert [e.difference for e in found] == pytest.approx([0.2, 0.4])
    assert swept(runs) == ["init", "seed"]
    (crossed,) = effects([judged(30.0, 29.28, norm="bn"), judged(34.0, 33.08, norm="none")])
    assert crossed.difference is None and "norm=none was judged on other images (1)" in sentence(crossed)


def test_a_rate_is_best_on_its_own_images() -> None:
    rates = {("1e-3", "a"): 30.0, ("1e-2", "a"): 29.0, ("1e-3", "b"): 34.0, ("1e-2", "b"): 35.0}
    runs = [
        judged(psnr, 29.28 if on == "a" else 33.08, on, norm=norm, optimizer__lr=rate)
        for norm in ("bn", "none")
        for (rate, on), psnr in rates.items()
    ]
    assert [(r.settings["norm"], r.settings["optimizer.lr"], r.judged_on) for r in at_best_rate(runs)] == [
        *(("bn", "1e-3", "a"), ("bn", "1e-2", "b"), ("none", "1e-3", "a"), ("none", "1e-2", "b")),
    ]


@pytest.mark.parametrize(
    ("runs", "apart"),
    [
        pytest.param([(29.28, "a", {}), (29.28, "b", {})], True, id="other-images-of-the-same-worth"),
        pytest.param([(29.28, "a", {}), (33.08, "a", {})], True, id="some-of-the-images"),
        pytest.param([(29.28, None, {}), (29.30, None, {})], True, id="no-digest"),
        pytest.param([(29.28, None, {}), (29.2801, "a", {})], False, id="another-device"),
        pytest.param([(29.28, "a", {}), (29.29, "a", {})], False, id="another-precision"),
        pytest.param([(29.28, None, {}), (29.29, None, {"generator": "edsr"})], False, id="luma-and-rgb"),
        pytest.param([(29.28, "a", {}), (None, None, {}), (None, "b", {})], False, id="failed"),
        pytest.param([(29.28, "a", {"data": "a"}), (33.08, "b", {"data": "b"})], False, id="data"),
        pytest.param([(33.08, "a", {"scale": "2"}), (29.28, "b", {"scale": "3"})], False, id="scale"),
        pytest.param([(33.0, "a", {"data__root": "x"}), (29.0, "b", {"data__root": "y"})], False, id="root"),
        pytest.param([(33.0, "a", {"data__copies": "[]"}), (29.0, "b", {"data__copies": "[.9]"})], True, id="feeding"),
    ],
)  # fmt: skip
def test_a_sweep_may_choose_its_yardstick_and_noise_is_none(
    runs: list[tuple[float | None, str | None, dict[str, str]]], apart: bool
) -> None:
    jobs = {
        str(i): judged(None if over is None else over + 1, over, on, **settings)
        for i, (over, on, settings) in enumerate(runs)
    }
    assert ("different images" in told(jobs)) == apart == ("judged on" in job_table(jobs).headers)
    assert effects(list(jobs.values())) == [] or "generator" in runs[-1][-1] or apart


def test_the_same_images_stay_the_same_where_jobs_are_ranked_by_another_figure() -> None:
    baseline = {"psnr": 28.5, "ssim": 0.85}
    runs = [
        replace(
            result(None, norm=norm, seed=seed, rank_by=headline.name),
            judged_on="a",
            baseline=baseline,
            declared=(headline, other),
            figures={
                "psnr": 30.0 + (norm == "bn") + int(seed) / 10,
                "ssim": 0.9 + (norm == "bn") / 50 + int(seed) / 900,
            },
        )
        for headline, other in ((PSNR, SSIM), (SSIM, PSNR))
        for norm in ("bn", "none")
        for seed in "12"
    ]
    assert "different images" not in told({str(i): run for i, run in enumerate(runs)})
    assert [(e.on, e.figure.name, e.better, e.pairs) for e in effects(runs)] == [
        ("rank_by=psnr", "psnr", "bn", 2),
        ("rank_by=ssim", "ssim", "bn", 2),
    ]


def test_jobs_of_two_tasks_are_said_to_be_and_compared_apart() -> None:
    other = replace(result(0.2, figure=RMSE, init="he", seed="2"), baseline={"rmse": 0.5})
    jobs = {"0": judged(30.0, 29.0, init="he"), "1": judged(31.0, 29.0, init="xavier"), "2": other}
    jobs["3"] = replace(other, overrides=["init=xavier", "seed=2"], choices=CHOICES | {"init": "xavier"})
    assert (
        "different figures (PSNR in jobs 0, 1, RMSE in jobs 2, 3): they are ranked by PSNR and compared apart.\n"
        in told(jobs)
    )
    psnr, rmse = effects(list(jobs.values()))
    assert (psnr.figure.title, psnr.pairs, psnr.difference) == ("PSNR", 1, 1.0)
    assert (rmse.figure.title, rmse.pairs, rmse.difference) == ("RMSE", 1, 0.0)
    assert [row[-4] for row in job_table(jobs).rows] == ["+2.00", "+1.00", "-", "-"], "no gain in another unit"


def test_what_feeds_images_is_what_the_config_says_of_it() -> None:
    judged = {"size", "channels", "crop", "samples", "extractor"}  # of generation: what is judged, and how
    assert OmegaConf.load(ROOT / "conf" / "train.yaml").data.keys() == FEEDING | judged


# ---------------------------------------------------------------------------- where lower is better


def errors() -> dict[str, Result]:
    """Two norms at two rates with two seeds; norm=bn at its own best rate has the lowest error of all."""
    values = {("none", "1e-3"): 0.300, ("none", "1e-2"): 0.400, ("bn", "1e-3"): 0.500, ("bn", "1e-2"): 0.200}
    return {
        f"{norm} {rate} {seed}": replace(
            result(value + int(seed) / 500, figure=RMSE, norm=norm, optimizer__lr=rate, seed=seed),
            baseline={"rmse": 0.45},
        )
        for (norm, rate), value in values.items()
        for seed in "12"
    }


def test_the_lowest_comes_first_where_lower_is_better() -> None:
    jobs = errors()
    assert next(iter(rank(jobs))) == "bn 1e-2 1" and list(rank(jobs))[-1] == "bn 1e-3 2"
    kept = {(one.settings["norm"], one.settings["optimizer.lr"]) for one in at_best_rate(list(jobs.values()))}
    assert kept == {("bn", "1e-2"), ("none", "1e-3")}


def test_tables_print_the_lead_over_the_baseline_as_positive_where_it_is_better(tmp_path: Path) -> None:
    table = tuned_table(errors())
    assert table is not None
    assert list(table.headers) == ["norm", "optimizer.lr", "RMSE", "gain", "seeds"]
    assert table.rows == [
        ["bn", "1e-2", "0.203 ± 0.001", "+0.247 ± 0.001", "2 of 2"],
        ["none", "1e-3", "0.303 ± 0.001", "+0.147 ± 0.001", "2 of 2"],
    ]
    assert job_table(errors()).rows[-1][-5:-3] == ["0.504", "-0.054"]
    with write_table(tmp_path / "results.csv", errors()).open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["rmse"], first["rmse_noisy"]) == ("0.202", "0.45") and float(first["gain"]) == pytest.approx(0.248)


def test_an_effect_is_a_lead_in_the_headlines_unit_and_digits() -> None:
    (effect,) = effects(list(errors().values()))
    assert (effect.key, effect.better, effect.worse) == ("norm", "bn", "none")
    assert effect.difference == pytest.approx(0.1)
    said = sentence(effect)
    assert said.startswith("norm=bn beats norm=none by 0.100 (0.100 to 0.100) on this data; the article expects so.")
    small = sentence(replace(effect, difference=0.004, low=0.003, high=0.005))
    assert "by 0.004 (0.003 to 0.005) on this data, less than the 0.01 that matter" in small
