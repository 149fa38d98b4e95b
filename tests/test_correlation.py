"""How two figures go together: ranks against SciPy, the interval by simulation, and what is said of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.small_results import PSNR, result

from upsweep.analysis.correlation import Correlation, correlation_sentence, spearman
from upsweep.analysis.explained import Explained, explained_seed_table, explained_table, relations
from upsweep.metrics.figure import Figure
from upsweep.runs.why import Why, declare

FIELD = Figure(name="field", title="effective field", unit="px", digits=1)
HOLES = Figure(name="holes", title="dead channels", unit="%", better="lower", digits=0)
FEW = st.integers(0, 6).map(float)  # so that many are equal


@given(st.lists(st.tuples(FEW, FEW), min_size=5, max_size=30))
def test_rho_is_scipys_also_where_values_are_equal(pairs: list[tuple[float, float]]) -> None:
    x, y = zip(*pairs, strict=True)
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found is not None and found.n == len(pairs)
        assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_fewer_than_five_settings_say_nothing() -> None:
    assert spearman([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert spearman([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == Correlation(rho=1.0, n=5)


@pytest.mark.parametrize(("rho", "n"), [(0.0, 12), (0.5, 20), (0.8, 36)])
def test_the_interval_holds_the_true_rho_in_nineteen_of_twenty_samples(rho: float, n: int) -> None:
    rng = np.random.default_rng(0)
    pearson = 2 * math.sin(math.pi * rho / 6)  # of a normal pair whose Spearman's rho this is (Pearson 1907)
    inside = 0
    for x, noise in zip(rng.standard_normal((1500, n)), rng.standard_normal((1500, n)), strict=True):
        found = spearman(x, pearson * x + math.sqrt(1 - pearson**2) * noise)
        assert found is not None
        low, high = found.interval()
        inside += low <= rho <= high
    assert 0.93 <= inside / 1500 <= 0.975


@pytest.mark.parametrize("sign", [1, -1])
def test_ranks_in_one_order_have_an_interval_up_to_one_which_few_settings_do_not_keep_off_zero(sign: int) -> None:
    few, many = Correlation(rho=sign, n=5), Correlation(rho=sign, n=20)
    assert sign in few.interval() and sign in many.interval()
    assert not few.shown() and many.shown()
    (low, high), (lower, higher) = many.interval(0.05), many.interval(0.001)
    assert high - low < higher - lower


def test_a_negative_rho_is_said_as_a_lower_headline() -> None:
    down = correlation_sentence(Correlation(rho=-0.9, n=30), FIELD, PSNR)
    assert "a larger effective field goes with a lower PSNR" in down


def explained(name: str, psnr: float, field: float | None, image: str = "coffee", **settings: str) -> Explained:
    figures = {"holes": 3.0} | ({} if field is None else {"field": field})
    why = Why(image=image, window=[0, 0, 16], figures=figures, declared=declare([FIELD, HOLES]))
    return Explained(name=name, result=result(psnr, "finished", PSNR, **settings), why=why)


def six_settings(image: str = "coffee") -> list[Explained]:
    """Each with two seeds. PSNR rises with the mean field, but seed 2 alone says the opposite."""
    runs = []
    for i, norm in enumerate("abcdef"):
        runs.append(explained(f"{norm}1", 30 + i, 10 + 5 * i, image, norm=norm, seed="1"))
        runs.append(explained(f"{norm}2", 30 + i, 10 - i, image, norm=norm, seed="2"))
    return runs[::-1]


def test_seeds_of_a_setting_count_once_by_their_mean() -> None:
    (said,) = relations(six_settings(), ["norm", "seed"])  # all have the same dead channels, which says nothing
    rising = correlation_sentence(Correlation(rho=1.0, n=6), FIELD, PSNR)
    assert said == rising and "Over these 6 settings" in said


def test_runs_before_other_images_are_looked_at_apart_and_share_out_the_level() -> None:
    runs = [*six_settings(), *six_settings("cat")]
    both = relations(runs, ["norm", "seed"])
    one = Correlation(rho=1.0, n=6)
    level = 0.05 / 2
    assert both == [correlation_sentence(one, FIELD, PSNR, level, f"image={image}") for image in ("coffee", "cat")]
    assert explained_table(runs, ["norm", "seed"]).headers[:4] == ["job", "norm", "seed", "image"]


def test_tables_have_what_was_reached_and_found_run_by_run_and_as_means_over_seeds() -> None:
    runs = [explained("0", 31.254, 12.04, norm="bn", seed="1"), explained("1", 31.0, None, norm="bn", seed="2")]
    table = explained_table(runs, ["norm", "seed"])
    assert table.headers == ["job", "norm", "seed", "PSNR, dB", "effective field, px", "dead channels, %"]
    assert table.rows == [["0", "bn", "1", "31.25", "12.0", "3"], ["1", "bn", "2", "31.00", "-", "3"]]
    seeds = explained_seed_table(runs, ["norm", "seed"])
    assert seeds is not None and seeds.rows == [["bn", "31.13 ± 0.18", "12.0", "3 ± 0", "2"]]
    copied = explained_seed_table([*runs, *runs[:1]], ["norm", "seed"])
    assert copied is not None and copied.rows == seeds.rows, "a copy is no repetition"
    assert explained_seed_table(runs[:1], ["norm"]) is None
