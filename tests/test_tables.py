"""Pages from results.csv files alone: what a column is, what is never mixed, JSON, and the seeds to run."""

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.small_results import result

from upsweep.analysis.as_json import as_json
from upsweep.analysis.effects import Effect, findings
from upsweep.analysis.from_tables import Meaning, results_of
from upsweep.analysis.more_seeds import missing_seeds, plan
from upsweep.analysis.ranking import chosen
from upsweep.analysis.sentences import words
from upsweep.analysis.tables import write_table
from upsweep.analysis.together import filled
from upsweep.analysis.yardsticks import moves_yardstick
from upsweep.common.errors import UserError
from upsweep.common.files import FORMULA, as_csv, read_cell
from upsweep.reporting.request import Request, sweep_of
from upsweep.runs.about import About
from upsweep.runs.manifest import Entry, Manifest
from upsweep.runs.result import Result, matters

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "docs" / "claims" / "study" / "results.csv"
Row = dict[str, object]


def grid(seeds: Sequence[int] = (1, 2, 3), shift: float = 0.0, **more: object) -> list[Row]:
    """Two inits by two norms by seeds: xavier is 1 dB ahead of he, none 0.3 dB ahead of bn."""
    return [
        {"init": init, "norm": norm, "seed": seed, "psnr": psnr, "state": "finished", **more}
        for init, norm, seed in product(("he", "xavier"), ("none", "bn"), seeds)
        for psnr in [
            30 + shift + (init == "xavier") + 0.3 * (norm == "none") + 0.01 * math.sin(9.7 * seed + len(init + norm))
        ]
    ]


def table(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(rows[0])
    path.write_text(as_csv([columns, *([row[column] for column in columns] for row in rows)]))
    return path


def effects_of(*paths: Path, **meaning: Any) -> dict[str, Effect]:
    """The effects of tables: `init: xavier over he`, with what they were judged on."""
    found = findings(list(results_of(paths, Meaning(**meaning)).results.values())).effects
    return {f"{one.on} {one.key}: {one.better} over {one.worse}".strip(): one for one in found}


# ------------------------------------------------------------------------------------------- what a table tells


def test_the_committed_study_has_its_four_choices_and_each_has_its_best_rate() -> None:
    read = results_of([STUDY])
    found = findings(list(read.results.values()))
    (study,) = found.studies
    assert study.keys == ("dropout", "norm", "activation", "init")
    assert len(read.results) == 324 and len(study.cells) == 36 and found.comparisons == 8
    assert read.notes == [
        "The choices are dropout, norm, activation, init; tuned is optimizer.lr; no choices, but measurements or "
        "names: reach, dead, saturated, train_gain, gap, seconds_per_megapixel "
        "('choices=[NAME,...]' says it otherwise)."
    ]
    assert {len(runs) for by_seed in study.runs.values() for runs in by_seed.values()} == {1}  # one rate for each seed


def test_a_sweeps_own_table_tells_what_its_results_tell(tmp_path: Path) -> None:
    results = [
        result(30 + (init == "he") + 0.01 * int(seed) * len(norm), init=init, norm=norm, seed=seed, optimizer__lr=rate)
        for init, norm, seed, rate in product(("he", "xavier"), ("none", "bn"), "123", ("0.001", "0.004"))
    ]
    path = write_table(tmp_path / "results.csv", {str(i): one for i, one in enumerate(results)})
    told, tables = findings(results), findings(list(results_of([path]).results.values()))
    assert [(e.key, e.better, e.pairs, e.verdict) for e in told.effects] == [
        (e.key, e.better, e.pairs, e.verdict) for e in tables.effects
    ]
    for one, other in zip(told.effects, tables.effects, strict=True):
        assert (one.difference, one.low, one.high) == pytest.approx((other.difference, other.low, other.high))


def test_a_table_says_its_seed_and_what_it_was_judged_on_also_where_they_do_not_differ(tmp_path: Path) -> None:
    path = write_table(tmp_path / "results.csv", {"0": result(30.0, init="he"), "1": result(31.0, init="xavier")})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["scale"], row["data"]) for row in rows] == [("1", "2", "photos")] * 2


@pytest.mark.parametrize("last", [True, False])
def test_the_last_epoch_is_compared_where_it_is_known(tmp_path: Path, last: bool) -> None:
    rows = [row | ({"psnr_last": float(str(row["psnr"])) * 2} if last else {}) for row in grid()]
    effect = effects_of(table(tmp_path / "a.csv", rows))["init: xavier over he"]
    assert effect.difference == pytest.approx(2.0 if last else 1.0, abs=0.05)


@pytest.mark.parametrize("costs", [{}, {"seconds": 3.5}, {"seconds": 3.5, "parameters": 1000}])
def test_a_page_shows_what_runs_cost_where_a_table_says_it(tmp_path: Path, costs: dict[str, float]) -> None:
    list(Request(results=str(table(tmp_path / "a.csv", [row | costs for row in grid()]))).answer())
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert {cost for cost in ("seconds", "parameters") if f'id="plot-{cost}"' in page} == set(costs)
    assert ('href="#cost"' in page) is ('id="cost"' in page) is bool(costs)


def test_best_and_last_epochs_of_two_tables_are_not_mixed(tmp_path: Path) -> None:
    a = table(tmp_path / "a.csv", grid(psnr_last=1.0))
    b = table(tmp_path / "b.csv", grid())
    assert effects_of(a, b)["init: xavier over he"].difference == pytest.approx(1.0, abs=0.05)
    assert any("Only " in note and "psnr_last" in note for note in results_of([a, b]).notes)


def test_what_follows_from_a_choice_is_none_in_the_table_of_its_sweep_either(tmp_path: Path) -> None:
    runs = {
        f"{generator} {seed}": replace(
            result(30.0 + (generator == "edsr") + 0.01 * seed, seed=str(seed)),
            choices={"generator": generator, "init": init},
            overrides=[f"generator={generator}", f"seed={seed}"],
        )
        for generator, init in (("edsr", "he"), ("fsrcnn", "he_small_last"))
        for seed in (1, 2)
    }
    path = write_table(tmp_path / "results.csv", runs)
    effect = effects_of(path)["generator: edsr over fsrcnn"]
    assert effect.difference == pytest.approx(1.0) and effect.pairs == 2
    rows = list(csv.DictReader(path.open(newline="")))
    silent = [row | {"init": "xavier", "psnr": "33.0", "job": f"x{row['job']}", "seed": "3"} for row in rows[:2]]
    changed = table(tmp_path / "changed.csv", [*rows, *silent])  # somebody changed a file: it follows no more
    assert "init" in results_of([changed]).notes[0]


def test_a_run_says_of_what_others_set_what_its_config_has() -> None:
    said = [result(30.0, seed="1"), result(31.0, seed="1", generator__width="8")]
    abouts = [About(config={"generator": {"_target_": "upsweep.Some", "width": width}}) for width in (32, 8)]
    told = filled(said, abouts)
    assert [one.settings["generator.width"] for one in told] == ["32", "8"]
    assert [(e.better, e.worse) for e in findings(told).effects] == [("8", "32")]
    assert "generator.width" not in filled(said, [None, None])[0].settings
    typed = filled([said[0], result(31.0, seed="1", generator__width="0032")], [abouts[0], abouts[0]])
    assert [one.settings["generator.width"] for one in typed] == ["32", "32"], "typed in another way, it is the same"


def test_a_page_of_tables_has_the_cautions_of_a_page_of_sweeps(tmp_path: Path) -> None:
    rows = grid(psnr_last=1.0)
    rows[0]["psnr_last"] = ""
    tried = [row | {"optimizer.lr": "1e-3"} for row in rows]
    tried += [row | {"optimizer.lr": "1e-2"} for row in rows if row["init"] == rows[0]["init"]]
    notes = sweep_of([table(tmp_path / "a.csv", tried)], Meaning()).notes
    assert any("stand at their best one" in note for note in notes)
    assert any("tried at 1 values of optimizer.lr, others at up to 2" in note for note in notes)


def test_a_choice_of_every_config_group_is_read_back_from_the_table_of_its_sweep(tmp_path: Path) -> None:
    places = {path.parent.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").glob("*/**/*.yaml")}
    groups = [*chosen(dict.fromkeys(sorted(places), "a"))]
    assert {"init", "objective", "optimizer", "scheduler", "data", "protocol"} <= {*groups}
    for group in groups:
        runs = {
            f"{name} {seed}": replace(
                result(30.0 + (name == "b") + 0.01 * seed, seed=str(seed)),
                choices={"init": "he"} | {group: name},
                overrides=[f"{group}={name}"],
            )
            for name, seed in product("ab", (1, 2))
        }
        read = results_of([write_table(tmp_path / "results.csv", runs)]).results.values()
        studies = findings(list(read)).studies
        told = [study.on for study in studies] if moves_yardstick(group) else [*studies[0].pairs]
        compared = [f"{group}=a", f"{group}=b"] if moves_yardstick(group) else [group] * matters(group)
        assert sorted(told) == compared, group


def test_any_figure_is_compared_with_its_direction_and_unit(tmp_path: Path) -> None:
    rows = [{"val/lpips": 0.001 * float(str(row.pop("psnr"))), **row} for row in grid()]
    path = table(tmp_path / "a.csv", rows)
    effect = effects_of(path, figure="val/lpips", better="lower", unit="%")["init: he over xavier"]
    assert effect.figure.text(effect.difference) == "0.00100 %" and effect.figure.title == "val/lpips"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(("delimiter", "comma"), [(",", "."), (";", "."), (";", ","), ("\t", ".")])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, delimiter: str, comma: str, encoding: str) -> None:
    cells = [[*grid()[0]], *([str(value) for value in row.values()] for row in grid())]
    lines = [delimiter.join(line).replace(".", comma) for line in cells]
    path = tmp_path / "a.csv"
    path.write_text("\r\n".join([*lines, "", ""]), encoding=encoding)
    assert effects_of(path)["init: xavier over he"].difference == pytest.approx(1.0, abs=0.05)


@given(st.text(st.sampled_from([*FORMULA, "'", "1", ".", "a"]), min_size=1).filter(lambda cell: cell[0] != "'"))
def test_what_was_made_harmless_is_read_back(cell: str) -> None:
    (line,) = csv.reader([as_csv([[cell]])])
    assert read_cell(line[0]) == cell


def test_measurements_are_no_choices_and_are_named(tmp_path: Path) -> None:
    rows = [{**row, "loss": 0.1 + i / 7, "run": f"run-{i}", "width": i % 2} for i, row in enumerate(grid(range(1, 6)))]
    read = results_of([table(tmp_path / "a.csv", rows)])
    (note,) = read.notes
    assert "choices are init, norm, width;" in note and "measurements or names: loss, run (" in note
    assert {key for one in read.results.values() for key in one.by_hand} == {"init", "norm", "width", "seed"}


def test_whole_numbers_are_a_choice_also_where_no_two_runs_share_one(tmp_path: Path) -> None:
    rows: list[Row] = [{"width": w, "loss": 1 / w, "seed": 1, "psnr": w, "state": "finished"} for w in (4, 8, 16)]
    path = table(tmp_path / "a.csv", rows)
    assert {key.partition(":")[0] for key in effects_of(path)} == {"width"}
    assert results_of([path]).notes[0].startswith("The choices are width; no choices, but measurements or names: loss ")


def test_what_diverging_runs_lost_makes_no_choice_of_a_measurement(tmp_path: Path) -> None:
    rows = [{**row, "loss": 0.1 + i / 7} for i, row in enumerate(grid())]
    for row, lost in zip(rows, ("nan", "inf", "-inf", "nan"), strict=False):
        row |= {"loss": lost, "state": "diverged"}
    assert "measurements or names: loss (" in results_of([table(tmp_path / "a.csv", rows)]).notes[0]


@pytest.mark.parametrize("lost", ["inf", "-inf", "Infinity", "nan", ""])
def test_a_run_that_diverged_to_infinity_has_no_figure(tmp_path: Path, lost: str) -> None:
    rows = [row | {"psnr_last": row["psnr"]} for row in grid()]
    rows[0] |= {"psnr": lost, "psnr_last": lost, "state": "diverged"}
    effect = effects_of(table(tmp_path / "a.csv", rows))["init: xavier over he"]
    assert (effect.pairs, effect.missing) == (5, {"init=he diverged": 1})
    rows[0] |= {"state": "finished"}
    if lost.strip("-").startswith(("i", "I")):
        with pytest.raises(UserError, match=f"line 2: psnr_last is '{lost}', which is not a number"):
            effects_of(table(tmp_path / "a.csv", rows))


def test_a_choice_with_too_many_values_to_be_compared_is_named(tmp_path: Path) -> None:
    rows = [row | {"net": f"net{i}"} for i in range(17) for row in grid()]
    path, fewer = table(tmp_path / "a.csv", rows), table(tmp_path / "b.csv", rows[: 16 * len(grid())])
    assert "net has 17 values, more than 16: no two of them are compared." in results_of([path]).notes
    assert not any(key.startswith("net") for key in effects_of(path))
    assert len(results_of([fewer]).notes) == 1 and any(key.startswith("net") for key in effects_of(fewer))


def test_choices_and_what_is_tuned_may_be_named(tmp_path: Path) -> None:
    rows = [{**row, "lr": rate} for row in grid() for rate in (0.1, 0.2)]
    path = table(tmp_path / "a.csv", rows)
    assert {key.partition(":")[0] for key in effects_of(path)} == {"init", "norm", "lr"}
    assert {key.partition(":")[0] for key in effects_of(path, tuned=["lr"])} == {"init", "norm"}
    assert {key.partition(":")[0] for key in effects_of(path, choices=["init"])} == {"init"}
    (_, note) = results_of([path], Meaning(choices=["init"])).notes
    assert note == "18 rows repeat another row's choices and seed: their mean is used."


# ------------------------------------------------------------------------------------------- several tables


def test_a_seed_of_one_table_is_another_repetition_than_that_of_another(tmp_path: Path) -> None:
    a, b = table(tmp_path / "a.csv", grid()), table(tmp_path / "x" / "a.csv", grid(shift=5.0))
    read = results_of([a, b])
    assert {one.seed for one in read.results.values()} == {1, 2, 3, 11, 12, 13} and len(read.results) == 24
    effect = effects_of(a, b)["init: xavier over he"]
    # 5 dB between the tables are in no difference: each run is paired with one of its own table
    assert (effect.seeds, effect.pairs) == (6, 12) and effect.difference == pytest.approx(1.0, abs=0.05)
    assert effect.high is not None and effect.high < 1.1
    assert any("seed 1 is 11 here" in note for note in read.notes)


def test_a_row_of_two_tables_counts_once_and_their_seeds_are_the_same(tmp_path: Path) -> None:
    rows: list[Row] = [{"job": i, **row} for i, row in enumerate(grid())]
    a, b = table(tmp_path / "a.csv", rows[:7]), table(tmp_path / "b.csv", [row | {"job": 99} for row in rows])
    read = results_of([a, b])
    assert len(read.results) == 12 and {one.seed for one in read.results.values()} == {1, 2, 3}
    assert read.notes[-1] == f"7 rows of {b} are in an earlier table, too, and count once."
    both, alone = effects_of(a, b), effects_of(b)
    assert both.keys() == alone.keys() and all(both[key].difference == alone[key].difference for key in both)


def test_a_row_that_two_tables_share_by_chance_makes_them_no_kin(tmp_path: Path) -> None:
    other = grid(shift=0.5)
    other[0] = grid()[0]
    read = results_of([table(tmp_path / "a.csv", grid()), table(tmp_path / "b.csv", other)])
    assert len(read.results) == 24 and {one.seed for one in read.results.values()} == {1, 2, 3, 11, 12, 13}
    assert not any("in an earlier table" in note for note in read.notes)


@pytest.mark.parametrize("of_b", [{"scale": 3}, {}, {"scale": 2, "data": "div2k"}, {"scale": 2, "protocol": "rgb"}])
def test_yardsticks_that_differ_or_are_not_told_are_never_mixed(tmp_path: Path, of_b: Row) -> None:
    a, b = table(tmp_path / "a.csv", grid(scale=2)), table(tmp_path / "b.csv", [row | of_b for row in grid(shift=-4)])
    found = findings(list(results_of([a, b]).results.values()))
    assert len(found.studies) == 2 and all(effect.pairs == 6 and effect.on for effect in found.effects)
    said = as_json(found)
    assert list(said["variance"]) == list(said["error"]) == [study.on for study in found.studies]


def test_tables_judged_on_other_images_are_told_apart_by_their_baseline(tmp_path: Path) -> None:
    a = table(tmp_path / "a.csv", grid(psnr_bicubic=30.0))
    b = table(tmp_path / "b.csv", grid(shift=-4, psnr_bicubic=27.0))
    sweep = sweep_of([a, b], Meaning())
    found = findings([run.result for run in sweep.runs])
    assert [study.on for study in found.studies] == ["images 1", "images 2"]
    assert any("were judged on different images (bicubic 30.00 and 27.00 dB)" in note for note in sweep.notes)


def test_a_choice_that_a_table_does_not_tell_is_compared_with_nothing(tmp_path: Path) -> None:
    a = table(tmp_path / "a.csv", grid())
    b = table(
        tmp_path / "b.csv", [{k: v for k, v in row.items() if k != "norm"} for row in grid() if row["norm"] == "bn"]
    )
    found = effects_of(a, b)
    assert set(found) == {"init: xavier over he", "norm: none over bn"}
    assert found["norm: none over bn"].pairs == 6 and found["init: xavier over he"].settings == 3
    assert f"norm is not known of all runs in {b}: such runs are norm=? here." in results_of([a, b]).notes


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": None}, "a.csv has no column seed: add one"),
        ({"state": None}, "a.csv has no column state: add one, each of whose cells is one of finished, pruned"),
        ({"psnr": None}, "a.csv has no column psnr: name the column that is compared with figure=NAME. It has init, "),
        ({"psnr": "good"}, "a.csv, line 2: psnr is 'good', which is not a number."),
        ({"psnr": "1e999"}, "a.csv, line 2: psnr is '1e999', which is not a number."),
        ({"seed": ""}, "a.csv, line 2: seed is empty"),
        ({"seed": 1.5}, "a.csv, line 2: seed is 1.5, which is not a whole number."),
        ({"state": "done"}, "a.csv, line 2: state is 'done': it must be one of finished"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence_with_its_place(tmp_path: Path, change: Row, said: str) -> None:
    rows = [{k: v for k, v in (row | change).items() if v is not None} for row in grid()]
    with pytest.raises(UserError, match=re.escape(said)):
        results_of([table(tmp_path / "a.csv", rows)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "has no rows"),
        (b"init,seed,psnr,state\n", "has no rows"),
        (b"\xff\xfe\x00", "is not a CSV file in UTF-8"),
        (b"init,seed,psnr,state\nhe,1,3\n", "line 2: it has 3 cells for 4 columns"),
        (b"init,init,seed,psnr,state\nhe,he,1,3,finished\n", "has two columns init"),
        (b'init,seed,psnr,state\n"he,1,3,finished\n', "is not a CSV file"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{re.escape(str(tmp_path / 'a.csv'))}.*{re.escape(said)}"):
        results_of([tmp_path / "a.csv"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"choices": ["init", "norms"]},
            "choices=norms: there is no such column, only init, norm, seed, psnr, state, ",
        ),
        ({"choices": "seed"}, "choices=seed: that column is not a choice"),
        ({"choices": []}, "choices=[] is empty"),
        ({"choices": ["init", "norm", "init"]}, "choices=[init,norm,init] names init twice"),
        ({"choices": "psnr"}, "choices=psnr: that column is not a choice"),
        ({"figure": "seed"}, "figure=seed: that column is not a figure"),
        ({"figure": "state"}, "figure=state: that column is not a figure"),
        ({"figure": "job"}, "figure=job: that column is not a figure"),
        ({"figure": "lr", "tuned": "lr"}, "tuned=lr: that column is not a setting"),
        ({"figure": "optimizer.lr"}, "figure=optimizer.lr: that column is not a figure"),
        ({"tuned": ["rate"]}, "tuned=rate: there is no such column"),
        (
            {"tuned": "seed"},
            "tuned=seed: that column is not a setting with a best value to pick, such as optimizer.lr.",
        ),
        ({"tuned": ["lr", "state"]}, "tuned=state: that column is not a setting with a best value"),
        ({"tuned": "psnr"}, "tuned=psnr: that column is not a setting with a best value"),
        ({"tuned": "scale"}, "tuned=scale: that column is not a setting with a best value"),
        ({"detect": 0.0}, "detect=0.0 must be a number above 0"),
        ({"detect": math.inf}, "detect=inf must be a number above 0"),
        ({"sweep": "multirun/x"}, "give one of them"),
        ({"results": []}, "results= names no table: give results=results.csv"),
        ({"results": ""}, "results= names no table: give results=results.csv"),
        ({"results": ["a.csv", ""]}, "results= names no table: give results=results.csv"),
        ({"results": None, "figure": "psnr"}, "give it beside results="),
    ],
)
def test_a_request_that_makes_no_sense_is_one_sentence(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    more = {"job": 1, "scale": 2, "lr": 0.1, "optimizer.lr": 0.1}
    path = str(table(tmp_path / "a.csv", [row | more for row in grid()]))
    with pytest.raises(UserError, match=re.escape(said)):
        list(Request(**{"results": path} | asked).answer())


def test_a_json_that_cannot_be_written_is_refused_before_anything_is_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    a, b = table(tmp_path / "a.csv", grid()), table(tmp_path / "b.json", grid())
    (tmp_path / "link.json").symlink_to(b)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    refused = {
        "": "json= must end in .json",
        str(a): "a.csv must end in .json: json=effects.json.",
        f"{tmp_path / 'folder.json'}": "folder.json is a folder: give a file, json=",
        f"{tmp_path / 'no' / 'effects.json'}": f"there is no folder {tmp_path / 'no'}: make it first",
        f"{tmp_path / 'x.csv' / '..' / 'b.json'}": "there is no folder ",
        str(b): "b.json is a file that the page is made of: name another one",
        f"{tmp_path / 'folder.json' / '..' / 'b.json'}": "is a file that the page is made of",
        f"{tmp_path / 'link.json'}": "is a file that the page is made of",
    }
    for json_, said in refused.items():
        with pytest.raises(UserError, match=re.escape(said)):
            next(Request(results=[str(a), str(b), str(tmp_path / "nowhere.csv")], json=json_).answer())
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("record", ["sweep.json", "0/result.json", "0/about.json"])
def test_the_json_never_takes_the_place_of_a_sweeps_record(tmp_path: Path, record: str) -> None:
    Manifest(about=About(), jobs=(Entry("0", 0, []),)).write(tmp_path)
    (tmp_path / "0").mkdir()
    result(30.0).write(tmp_path / "0")
    About().write(tmp_path / "0")
    before = (tmp_path / record).read_bytes()
    with pytest.raises(UserError, match="is a file that the page is made of"):
        list(Request(sweep=str(tmp_path), json=str(tmp_path / record)).answer())
    assert (tmp_path / record).read_bytes() == before and not (tmp_path / "report.html").exists()
    for _ in range(2):  # one's own effects are written anew
        *_, said = Request(sweep=str(tmp_path), json=str(tmp_path / "effects.json")).answer()
    assert said == f"Effects: {tmp_path / 'effects.json'}"


# ------------------------------------------------------------------------------------------- JSON


def test_the_json_says_what_the_effects_say_and_holds_no_nan(tmp_path: Path) -> None:
    found = findings(list(results_of([STUDY]).results.values()), 0.5)
    said = as_json(found)
    text = json.dumps(said, allow_nan=False)
    assert json.loads(text) == said
    assert (said["figure"], said["unit"], said["better"], said["comparisons"]) == ("psnr", "dB", "higher", 8)
    assert math.fsum(said["variance"].values()) == pytest.approx(1)  # a full grid
    assert {"norm", "init", "norm x activation", "seed", "rest"} <= said["variance"].keys()
    for one, effect in zip(said["effects"], found.effects, strict=True):
        assert (one["choice"], one["low"], one["p"], one["verdict"]) == (
            *(effect.key, effect.low, effect.p),
            effect.verdict,
        )
        assert one["low"] <= one["low_alone"] <= one["difference"] <= one["high_alone"] <= one["high"]
        assert one["low"] >= 0 or one["p"] > 0.05  # what Holm shows never reaches below zero
        assert one["low"] < 0 or one["p"] <= 0.05
        assert len(one["behind_in"]) == len(one["behind_by"])
        assert one["behind_shown"] == bool(effect.behind)
        if effect.behind:
            assert one["behind_in"] == [words(there.where) for there in effect.behind]
        else:
            assert len(one["behind_in"]) == (one["verdict"] == "ahead")  # the most likely place
    assert said["detectable"] == max(one["detectable"] for one in said["effects"])
    assert said["detect"] == 0.5 and said["seeds_needed"] == max(one["seeds_needed"] for one in said["effects"])


def test_the_variance_is_explained_once_for_each_yardstick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explained: list[object] = []
    monkeypatch.setattr("upsweep.analysis.as_json.explained", explained.append)
    found = findings(list(results_of([table(tmp_path / "a.csv", [*grid(scale=2), *grid(scale=3)])]).results.values()))
    as_json(found)
    assert explained == [*found.studies] and len(explained) == 2


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    rows = [row for row in grid([1]) if row["norm"] == "bn"]
    said = as_json(findings(list(results_of([table(tmp_path / "a.csv", rows)]).results.values())))
    (effect,) = said["effects"]
    assert effect["verdict"] == "no interval" and effect["difference"] == pytest.approx(1, abs=0.05)
    assert [effect[key] for key in ("low", "high", "low_alone", "p", "detectable", "seeds_needed")] == [None] * 6
    assert said["seeds_needed"] is said["detectable"] is said["error"]["variance"] is None


# ------------------------------------------------------------------------------------------- more seeds


def seeded(**seeds: Sequence[int]) -> list[Result]:
    return [result(30.0, init=init, seed=str(seed)) for init, of in seeds.items() for seed in of]


def test_only_seeds_that_a_setting_lacks_are_asked_for() -> None:
    assert missing_seeds(seeded(he=[1, 2, 3], xavier=[1, 2, 3]), 3) == {}
    assert missing_seeds(seeded(he=[1, 2, 3], xavier=[1, 2, 3]), 5) == {4: 2, 5: 2}
    assert missing_seeds(seeded(he=[1, 2, 7, 8], xavier=[1, 2]), 3) == {7: 1}
    failed = [
        *seeded(he=[1, 2]),
        result(30.0, init="xavier", seed="1"),
        result(None, "failed", init="xavier", seed="2"),
    ]
    assert missing_seeds(failed, 2) == {2: 1}
    unsaid = [result(30.0, init="he"), result(None, "failed", init="xavier")]  # another command would not be these jobs
    assert missing_seeds(unsaid, 2) == {2: 2}


def test_the_seeds_to_run_are_a_command_line_or_a_list(tmp_path: Path) -> None:
    read = list(results_of([table(tmp_path / "a.csv", grid())]).results.values())
    assert plan(read, findings(read, 1.0))[1] == "These runs have as many: nothing more is needed."
    told = plan(read, findings(read, 0.01), "python src/train.py -m resume=multirun/x")
    last = 3 + len(missing_seeds(read, int(re.findall(r"takes about (\d+) seeds", told[0])[0])))
    seeds = ",".join(map(str, range(4, last + 1)))
    assert told[1] == f"Missing: {last - 3} seeds, {4 * (last - 3)} runs. This runs what is missing:"
    assert told[2] == f"python src/train.py -m resume=multirun/x seed={seeds}" and last > 4
    assert plan(read, findings(read, 0.01))[1].endswith(f"runs: {seeds.replace(',', ', ')}.")
    many = plan(read, findings(read, 0.003), "python src/train.py -m resume=multirun/x")
    assert re.fullmatch(r"python src/train.py -m resume=multirun/x 'seed=range\(4,\d\d+\)'", many[2])


def test_with_one_seed_a_second_and_a_third_come_before_any_number(tmp_path: Path) -> None:
    rows = [row | {"depth": depth} for depth in (3, 5, 7) for row in grid([1], shift=depth / 10)]
    read = list(results_of([table(tmp_path / "a.csv", rows)]).results.values())
    told, missing = plan(read, findings(read, 0.01))
    assert told.endswith("With a second and a third seed the page can say how many it takes for 0.01 dB.")
    assert missing == "Missing: 2 seeds, 24 runs: 2, 3."
    read = list(results_of([table(tmp_path / "a.csv", [rows[0], rows[2]])]).results.values())
    assert plan(read, findings(read, 0.01)) == [
        "No comparison has an interval yet: run at least two seeds.",
        "Missing: 2 seeds, 4 runs: 2, 3.",
    ]


# ------------------------------------------------------------------------------------------- the page


def test_the_page_lies_beside_the_first_table_and_never_at_a_sweeps_own(tmp_path: Path) -> None:
    def page(*names: str) -> str:
        paths = [table(tmp_path / name, grid(shift=i)) for i, name in enumerate(names)]
        return sweep_of(paths, Meaning()).folder.name

    assert page("results.csv") == "results" and page("a.csv", "x/b.csv") == "a+b"
    assert page("report.csv") == "report-table" and page("effects.csv") == "effects-table"
    assert page(*(f"{name}.csv" for name in "abcde")) == "a+b+c+2 more"


def test_a_table_beside_its_sweep_goes_on_with_that(tmp_path: Path) -> None:
    path = table(tmp_path / "one" / "results.csv", grid())
    Manifest(about=About(command=["python", "src/train.py", "-m", "init=he,xavier"])).write(path.parent)
    *_, last = Request(results=str(path), detect=0.01).answer()
    assert last.startswith(f"python src/train.py -m resume={path.parent} seed=4,")
    Manifest(about=About(command=["python", "src/train.py", "hparams_search=optuna"])).write(path.parent)
    *_, last = Request(results=str(path), detect=0.01).answer()
    assert last.startswith("Missing: ") and "resume=" not in last


def test_the_door_makes_page_picture_and_json_of_two_tables(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", grid())
    table(tmp_path / "b, c.csv", grid(shift=1.0))
    door = [sys.executable, str(ROOT / "src" / "report.py")]
    both = ["results=[a.csv,'b, c.csv']", "json=effects.json", "detect=1"]
    done = subprocess.run([*door, *both], cwd=tmp_path, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.csv", "b, c.csv", "a+b, c.html", "a+b, c.svg", "effects.json")
    }
    lines = done.stdout.splitlines()
    assert f"Report: {tmp_path / 'a+b, c.html'}" in lines and f"Effects: {tmp_path / 'effects.json'}" in lines
    assert lines[-1] == "These runs have as many: nothing more is needed."
    page = (tmp_path / "a+b, c.html").read_text()
    assert "init=xavier" in page and "seed 1 is 11 here" in page
    wrong = {
        ("results=a.csv", "better=up"): "better=up must be higher, lower or null.\n",
        ("results=",): "results= names no table: give results=results.csv, or 'results=[a.csv,b.csv]'.\n",
    }
    for asked, said in wrong.items():
        done = subprocess.run([*door, *asked], cwd=tmp_path, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (1, said)
