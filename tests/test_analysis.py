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
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy import stats
from tests.small_results import CHOICES, PSNR, result

from upsweep.analysis.effects import Effect, effects, paired_interval, sentence, swept
from upsweep.analysis.ranking import at_best_rate, chosen, differing, rank
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
        ("none", "1e-3"): (31.0, 31.2),
        ("none", "1e-2"): (32.0, None),  # higher, but one seed diverged
        ("bn", "1e-3"): (29.0, 31.9),
        ("bn", "1e-2"): (30.9, 31.0),
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
        ["none", "1e-3", "31.10 ± 0.14", "-", "+1.10 ± 0.14", "2 of 2"],
        ["bn", "1e-2", "30.95 ± 0.07", "-", "+0.95 ± 0.07", "2 of 2"],
    ]
    only_rates = {name: job for name, job in jobs.items() if name.startswith("bn")}
    one_rate = {name: job for name, job in jobs.items() if "1e-3" in name}
    assert tuned_table(only_rates) is None and tuned_table(one_rate) is None


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


def test_an_interval_is_students_by_hand() -> None:
    # Mean 2, deviation 1, three differences: t(0.975, 2) = 4.302653, over sqrt(3).
    assert paired_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 2.484138, 2 + 2.484138), abs=1e-6)
    with pytest.raises(ValueError, match="1 difference"):
        paired_interval([1.0])


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40), st.sampled_from([0.8, 0.95, 0.99]))
def test_an_interval_is_scipys(differences: list[float], level: float) -> None:
    mean, low, high = paired_interval(differences, level)
    assert low <= mean <= high
    if np.ptp(differences) > 1e-6:
        theirs = stats.ttest_rel(differences, np.zeros(len(differences))).confidence_interval(level)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=1e-6, abs=1e-9)


def test_pairs_differ_in_the_choice_alone_so_that_a_small_effect_is_seen_under_large_ones() -> None:
    rng = np.random.default_rng(0)
    runs, differences = [], []
    for init, seed in product(("he", "xavier", "torch"), "123"):
        level = 30 + 5 * rng.standard_normal()  # of this init and seed: far more than the norm is worth
        gap = 0.3 + 0.05 * rng.standard_normal()
        differences.append(gap)
        runs += [result(level, init=init, norm="bn", seed=seed), result(level + gap, init=init, norm="none", seed=seed)]
    rng.shuffle(runs)
    (effect,) = [e for e in effects(runs) if e.key == "norm"]
    theirs = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (effect.better, effect.worse, effect.pairs, effect.planned) == ("none", "bn", 9, 9)
    assert effect.difference == pytest.approx(np.mean(differences))
    assert (effect.low, effect.high) == pytest.approx((theirs.low, theirs.high))
    assert sentence(effect) == (
        f"norm=none beats norm=bn by {np.mean(differences):.2f} dB ({theirs.low:.2f} to {theirs.high:.2f}) "
        "on this data; the article expects the opposite."
    )


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
            "by 0.20 dB (0.10 to 0.30) on this data; the article expects so.",
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
    (effect,) = effects(runs)
    assert (effect.key, effect.better, effect.pairs) == ("init", "xavier", 2)
    assert effect.difference == pytest.approx(0.3) and swept(runs) == ["init", "seed"]
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


def test_jobs_of_two_tasks_are_said_to_be_and_only_the_first_figure_is_compared() -> None:
    other = replace(result(0.2, figure=RMSE, init="he", seed="2"), baseline={"rmse": 0.5})
    jobs = {"0": judged(30.0, 29.0, init="he"), "1": judged(31.0, 29.0, init="xavier"), "2": other}
    jobs["3"] = replace(other, overrides=["init=xavier", "seed=2"], choices=CHOICES | {"init": "xavier"})
    assert "different figures (PSNR in jobs 0, 1, RMSE in jobs 2, 3): only PSNR is compared.\n" in told(jobs)
    (effect,) = effects(list(jobs.values()))
    assert (effect.pairs, effect.difference) == (1, 1.0) and effect.missing["init=he has no PSNR"] == 1
    assert [row[-4] for row in job_table(jobs).rows] == ["+2.00", "+1.00", "-", "-"], "no gain in another unit"


def test_what_feeds_images_is_what_the_config_says_of_it() -> None:
    assert OmegaConf.load(ROOT / "conf" / "train.yaml").data.keys() == FEEDING


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
