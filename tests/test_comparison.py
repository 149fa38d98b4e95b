"""Several sweeps on one page: what tells them apart, what repeats, what is refused, and where the page lies."""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.small_results import result

from upsweep.analysis.effects import Effect, findings
from upsweep.analysis.from_tables import results_of
from upsweep.analysis.tables import seed_table, write_table
from upsweep.analysis.together import Member, repeats, told_alike
from upsweep.common.errors import UserError
from upsweep.metrics.figure import Figure
from upsweep.reporting.comparison import find_sweeps, read_sweeps
from upsweep.reporting.plots import cells
from upsweep.reporting.report import title_of
from upsweep.reporting.request import Request
from upsweep.reporting.sweep import Sweep
from upsweep.runs.about import About
from upsweep.runs.layout import short_names
from upsweep.runs.manifest import Entry, Manifest

Config = Mapping[str, Any]
SEEDS = ("1", "2", "3")
PLAIN = {"optimizer": {"lr": 0.002}, "trainer": {"max_epochs": 30}}


def sweep(folder: Path, *, level: float = 31.0, config: Config = PLAIN, commit: str = "a", **fixed: Any) -> Path:
    """A sweep over init and seed, with more keys on its command line (`trainer__max_epochs`)."""
    jobs = []
    for number, (init, seed) in enumerate((init, seed) for init in ("he", "xavier") for seed in SEEDS):
        one = result(level + (init == "he") + 0.01 * float(np.sin(int(seed))), init=init, seed=seed, **fixed)
        (folder / str(number)).mkdir(parents=True)
        one.write(folder / str(number))
        About(commit=commit, config=dict(config)).write(folder / str(number))
        jobs.append(Entry(str(number), number, one.overrides))
    Manifest(about=About(command=["python", "src/train.py", "-m"]), jobs=tuple(jobs)).write(folder)
    return folder


def together(*folders: Path) -> Sweep:
    return read_sweeps(folders, folders[0].parent)


def effects_of(read: Sweep) -> dict[str, Effect]:
    return {f"{one.key}: {one.better} over {one.worse}": one for one in findings([r.result for r in read.runs]).effects}


def test_what_is_fixed_in_each_sweep_is_a_choice_of_both(tmp_path: Path) -> None:
    read = together(sweep(tmp_path / "a", norm="none"), sweep(tmp_path / "b", level=30.6, norm="bn"))
    norm = effects_of(read)["norm: none over bn"]
    assert (norm.pairs, norm.settings) == (6, 2) and norm.difference == pytest.approx(0.4)
    assert [run.name for run in read.runs][:2] == ["a/0", "a/1"] and title_of(
        read
    ) == "init × norm, 12 runs of 2 sweeps"
    assert not read.notes


@pytest.mark.parametrize("typed", ["3", "0030"])
def test_a_value_that_one_sweep_takes_by_default_is_looked_up_in_its_config(tmp_path: Path, typed: str) -> None:
    """The same value typed in another way is the same."""
    ours = PLAIN | {"trainer": {"max_epochs": int(typed)}}
    a = sweep(tmp_path / "a", config=ours, trainer__max_epochs=typed)
    read = together(a, sweep(tmp_path / "b", level=30.0))
    values = {run.result.settings["trainer.max_epochs"] for run in read.runs}
    assert values == ({"3", "30"} if typed == "3" else {"30"})
    assert ("trainer.max_epochs: 3 over 30" in effects_of(read)) == (typed == "3")


def test_a_default_that_somebody_changed_between_two_sweeps_is_a_choice(tmp_path: Path) -> None:
    other = PLAIN | {"trainer": {"max_epochs": 60}, "folder": "/moved/0", "logger": {"project": "b"}}
    read = together(sweep(tmp_path / "a"), sweep(tmp_path / "b", level=31.2, config=other))
    assert {effect.key for effect in effects_of(read).values()} == {"init", "trainer.max_epochs"}


def test_a_default_that_changed_along_with_a_choice_is_named(tmp_path: Path) -> None:
    """Nothing tells whether the norm or the longer training is better."""
    other = {"optimizer": {"lr": 0.002}, "trainer": {"max_epochs": 300}, "norm": {"eps": 1e-5}, "place": "/b"}
    read = together(sweep(tmp_path / "a", norm="none"), sweep(tmp_path / "b", config=other, norm="bn"))
    ours = PLAIN | {"norm": {"eps": 0.0}, "place": "/a"}
    again = together(sweep(tmp_path / "c", config=ours, norm="none"), tmp_path / "b")
    said = "The sweeps differ in values that no command line names: trainer.max_epochs (30 in {}, 300 in b)."
    assert any(said.format("a") in note for note in read.notes)
    assert any(said.format("c") in note for note in again.notes)


def test_a_sweep_that_was_quiet_is_the_same_sweep(tmp_path: Path) -> None:
    def config(quiet: bool) -> Config:
        return PLAIN | {"quiet": quiet, "callbacks": {"progress": {"quiet": quiet}}}

    read = together(sweep(tmp_path / "a", config=config(False)), sweep(tmp_path / "b", config=config(True)))
    assert {effect.key for effect in effects_of(read).values()} == {"init"}
    (tmp_path / "b" / "sweep.json").write_text("nonsense", encoding="utf-8")
    assert title_of(together(tmp_path / "a", tmp_path / "b")) == "init, 6 runs"


def test_a_value_that_only_one_name_of_its_group_has_is_told_by_that(tmp_path: Path) -> None:
    leaky = PLAIN | {"activation": {"slope": 0.1}}
    a = sweep(tmp_path / "a", config=leaky, activation="leaky_relu", activation__slope="0.1")
    read = together(a, sweep(tmp_path / "b", level=30.0, activation="relu"))
    assert effects_of(read)["activation: leaky_relu over relu"].pairs == 6


def test_a_copy_is_shown_and_is_no_second_repetition(tmp_path: Path) -> None:
    a, c = sweep(tmp_path / "a", norm="none"), sweep(tmp_path / "c", level=30.6, norm="bn")
    shutil.copytree(a, tmp_path / "b")
    alone, copied = together(a, c), together(a, tmp_path / "b", c)
    assert len(copied.runs) == 18
    assert "6 runs repeat the choices and the seed of another sweep's run (a/0 and b/0, " in copied.notes[0]
    for key, effect in effects_of(alone).items():
        other = effects_of(copied)[key]
        assert (other.low, other.high, other.pairs) == (effect.low, effect.high, effect.pairs)
    results = [run.result for run in copied.runs]
    assert {(cell["seeds"], cell["of"]) for cell in cells(results, ["init", "norm"])} == {(3, 3)}
    table = seed_table({run.name: run.result for run in copied.runs})
    assert table is not None and {row[-1] for row in table.rows} == {"3 of 3"}
    once = seed_table({run.name: run.result for run in alone.runs})
    assert once is not None and table.rows == once.rows


def test_further_seeds_of_another_sweep_are_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = sweep(tmp_path / "a")
    monkeypatch.setattr("tests.test_comparison.SEEDS", ("4", "5"))
    read = together(a, sweep(tmp_path / "b"))
    assert not read.notes and effects_of(read)["init: he over xavier"].pairs == 5


def test_the_same_command_with_other_code_makes_the_sweep_a_choice(tmp_path: Path) -> None:
    a, b = sweep(tmp_path / "before"), sweep(tmp_path / "after", level=31.5, commit="b")
    read = together(a, b)
    assert effects_of(read)["sweep: after over before"].difference == pytest.approx(0.5)
    assert not any("repeat" in note for note in read.notes)
    same = together(a, sweep(tmp_path / "again", commit="b"))
    assert "sweep" not in {effect.key for effect in effects_of(same).values()}, "the very figures are no other code"


def test_a_job_without_a_config_has_what_all_of_its_sweep_have() -> None:
    about = About(config={"trainer": {"max_epochs": 3}})
    members = [
        Member(name="a/0", sweep="a", result=result(30.0, init="he", trainer__max_epochs="3"), about=about),
        Member(name="b/0", sweep="b", result=result(30.0, init="he"), about=About(config=PLAIN)),
        Member(name="b/1", sweep="b", result=result(None, "stopped", init="xavier"), about=None),
    ]
    told = told_alike(members)
    assert [one.settings["trainer.max_epochs"] for one in told] == ["3", "30", "30"]
    assert repeats(members, told) == []


def test_sweeps_of_other_figures_are_refused_by_name(tmp_path: Path) -> None:
    kid = Figure(name="kid", title="KID", better="lower")
    a, b = sweep(tmp_path / "a"), tmp_path / "b"
    for job in range(2):
        (b / str(job)).mkdir(parents=True)
        result(0.1, figure=kid, init="he").write(b / str(job))
    Manifest(about=About(), jobs=(Entry("0", 0, []), Entry("1", 1, []))).write(b)
    with pytest.raises(
        UserError, match=r"cannot be compared on one page: a by PSNR; b by KID\. Give sweeps of one task that rank"
    ):
        together(a, b)


def test_a_folder_stands_for_all_in_it_and_what_has_no_result_is_left_out(tmp_path: Path) -> None:
    home = tmp_path / "multirun"
    sweep(home / "b"), sweep(home / "a", level=31.3, norm="bn")
    for name in ("empty", "evaluate"):
        (home / name).mkdir()
    Manifest(about=About(), jobs=(Entry("0", 0, []),)).write(home / "empty")
    found = find_sweeps([str(home), str(home / "a")])
    assert [folder.name for folder in found] == ["a", "b", "empty"], "each once"
    (left_out,) = together(*found).notes
    assert left_out.startswith("empty is left out: ")
    with pytest.raises(UserError, match="'sweep=\\[A,B\\]' to compare several"):
        find_sweeps([])
    with pytest.raises(UserError, match="sweep=nowhere does not exist"):
        find_sweeps([str(home), "nowhere"])


def test_single_runs_are_compared_by_their_folders_names(tmp_path: Path) -> None:
    for name, norm in (("2026-11-28_14-03-02-123456", "none"), ("2026-11-28_14-05-02-000001", "bn")):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        result(30.0 + len(norm), norm=norm).write(tmp_path / "outputs" / name)
    read = together(*find_sweeps([str(tmp_path / "outputs")]))
    assert [run.name for run in read.runs] == ["2026-11-28_14-03-02", "2026-11-28_14-05-02"]
    assert title_of(read) == "norm, 2 runs"


def test_names_are_short_and_unique(tmp_path: Path) -> None:
    stamp = "2026-11-28_14-03-02"
    folders = [tmp_path / "a" / f"{stamp}-000001", tmp_path / "b" / f"{stamp}-000002", tmp_path / "b" / "x"]
    assert short_names(folders) == [f"{stamp}-000001", f"{stamp}-000002", "x"]
    assert short_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]


def test_the_page_lies_with_its_sweeps_or_where_output_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b, c = sweep(tmp_path / "m" / "a"), sweep(tmp_path / "m" / "b", level=30.0, norm="bn"), sweep(tmp_path / "c")

    def written(**asked: Any) -> list[str]:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        *_, last = Request(**asked).answer()
        new = [p for p in tmp_path.rglob("*") if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
        assert any(last == f"Report: {path}" for path in new)
        return sorted(path.relative_to(tmp_path).as_posix() for path in new)

    assert written(sweep="m") == ["m/effects.svg", "m/report.html", "m/results.csv"]
    assert written(sweep=["m/a", "m/b"]) == ["m/a+b.csv", "m/a+b.html", "m/a+b.svg"]
    assert written(sweep=["m/a", "c"]) == ["a+c.csv", "a+c.html", "a+c.svg"]
    assert written(sweep=["m/a", "c"], output="new/folder") == [
        f"new/folder/{name}" for name in ("effects.svg", "report.html", "results.csv")
    ]
    assert written(sweep=["m/a"], output="x.html") == ["x.html", "x.svg"]
    assert written(results="m/results.csv", output="y.html") == ["y.html", "y.svg"]
    for wrong, said in ((str(a), "has its own page"), (str(c), "has its own page"), ("m/a+b.csv", "is in the way")):
        with pytest.raises(UserError, match=said):
            list(Request(sweep=[str(b), "c"], output=wrong).answer())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.csv").write_text("init,seed\n")
    with pytest.raises(UserError, match=r"results\.csv is there already"):
        list(Request(sweep="m", output="mine").answer())


def test_the_table_has_every_choice_and_makes_the_same_page(tmp_path: Path) -> None:
    read = together(sweep(tmp_path / "a", norm="none"), sweep(tmp_path / "b", level=30.6, norm="bn"))
    named = {run.name: run.result for run in read.runs}
    path = write_table(tmp_path / "results.csv", named, {run.name: run.sweep for run in read.runs})
    rows = list(csv.DictReader(path.open(newline="")))
    assert list(rows[0])[:7] == ["job", "sweep", "generator", "init", "norm", "activation", "data"]
    assert {row["activation"] for row in rows} == {"prelu"} and {row["sweep"] for row in rows} == {"a", "b"}
    told = findings(list(results_of([path]).results.values())).effects
    shown = list(effects_of(read).values())
    assert [(e.key, e.better) for e in told] == [(e.key, e.better) for e in shown]
    assert [e.low for e in told] == pytest.approx([e.low for e in shown])


def test_a_table_that_tells_less_is_compared_all_the_same(tmp_path: Path) -> None:
    """What is the same in all rows that tell it is taken to be so in the others, and said."""
    full = write_table(tmp_path / "full.csv", {str(i): result(30 + i, init="he", seed=str(i)) for i in range(3)})
    brief = tmp_path / "brief.csv"
    brief.write_text(
        "init,seed,scale,data,psnr,state\n" + "".join(f"xavier,{i},2,photos,{29 + i},finished\n" for i in range(3))
    )
    read = results_of([full, brief])
    assert {key for one in read.results.values() for key in one.by_hand} == {"init", "scale", "data", "seed"}
    assert (
        "Taken to be the same in tables that do not tell it: generator=deconvnet, norm=none, activation=prelu."
        in read.notes
    )


def test_a_command_line_stays_what_was_typed(tmp_path: Path) -> None:
    read = together(sweep(tmp_path / "a", trainer__max_epochs="3"), sweep(tmp_path / "b"))
    assert read.runs[0].typed == ["init=he", "seed=1", "trainer.max_epochs=3"]
    assert read.runs[-1].typed == ["init=xavier", "seed=3"]
    assert json.dumps([*read.parts["a"].command]) == '["python", "src/train.py", "-m"]'
