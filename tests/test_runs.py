"""What a run leaves on disk: records that are read back as they were written, and what a broken one costs."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from upsweep.common.errors import UserError
from upsweep.imaging import tiles
from upsweep.metrics.figure import Figure
from upsweep.runs import history, layout
from upsweep.runs.about import About
from upsweep.runs.history import Epoch
from upsweep.runs.identity import Identity, judging_of
from upsweep.runs.manifest import Entry, Manifest
from upsweep.runs.progress import Progress
from upsweep.runs.record import UnreadableError, found
from upsweep.runs.result import FIGURES_OF_VERSION_1, Result
from upsweep.runs.verdicts import read_sentences

ERROR = Figure(name="rmse", title="RMSE", better="lower", digits=3, baseline="noisy", margin="gain")
BROKEN = ['{"version": 2, "state": "fin', "", '{"version": 9}', '{"version": 1, "colour": 3}', "[]", "null"]


def result(**given: float) -> Result:
    choices = {"init": "he"}
    return Result(
        state="finished", choices=choices, overrides=[], seed=1, scale=2, declared=FIGURES_OF_VERSION_1, figures=given
    )


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = result(psnr=31.25, ssim=0.9)
    made = replace(made, overrides=["data.root='a, b'"], baseline={"psnr": 30.0}, reason="ü\n{}", parameters=12809)
    path = made.write(tmp_path)
    assert Result.read(tmp_path) == made
    assert json.loads(path.read_text())["version"] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_figure_that_is_not_finite_is_none_at_all(tmp_path: Path) -> None:
    path = replace(result(psnr=math.nan, ssim=0.9), seconds=math.inf).write(tmp_path)
    assert json.loads(path.read_text())["figures"] == {"psnr": None, "ssim": 0.9}
    read = Result.read(tmp_path)
    assert read is not None
    assert read.figures == {"ssim": 0.9} and read.value is None and read.seconds is None


def test_a_record_without_a_last_epoch_is_compared_at_its_best(tmp_path: Path) -> None:
    path = result(psnr=31.0, ssim=0.9).write(tmp_path)
    said = json.loads(path.read_text())
    for key in ("last", "tuned"):
        del said[key]
    path.write_text(json.dumps(said))
    read = Result.read(tmp_path)
    assert read is not None and read.value == 31.0 and read.tuned == ["optimizer.lr"]
    assert replace(read, last={"psnr": 30.0}).value == 30.0
    assert replace(read, last={"ssim": 0.8}).value is None, "the last psnr was not a number"


@pytest.mark.parametrize("text", BROKEN)
def test_a_missing_record_is_none_and_a_broken_one_is_named(tmp_path: Path, text: str) -> None:
    assert Result.read(tmp_path) is None and Progress.read(tmp_path) is None and About.read(tmp_path) is None
    for name in ("result.json", "progress.json", "about.json"):
        (tmp_path / name).write_text(text)
    for kind in (Result, About):
        with pytest.raises(UserError, match=r"\.json cannot be read"):
            kind.read(tmp_path)
    assert found(Result.read, tmp_path) is None and Progress.read(tmp_path) is None


@pytest.mark.parametrize("text", [*BROKEN, '{"version": 1, "sentences": [{"colour": 3}]}'])
def test_a_broken_diagnosis_is_named_and_a_missing_one_says_nothing(tmp_path: Path, text: str) -> None:
    assert read_sentences(tmp_path) == []
    (tmp_path / layout.DIAGNOSES).write_text(text)
    with pytest.raises(UnreadableError, match=r"diagnoses\.json cannot be read"):
        read_sentences(tmp_path)


def test_whoever_can_do_without_a_record_is_told_what_is_wrong_with_it(tmp_path: Path) -> None:
    told: list[str] = []
    assert found(About.read, tmp_path, told.append) is None and not told, "there is none"
    (tmp_path / "about.json").write_text("")
    assert found(About.read, tmp_path, told.append) is None
    assert len(told) == 1 and told[0].startswith(f"{tmp_path / 'about.json'} cannot be read (")


def test_a_record_of_before_there_were_tasks_is_one_of_super_resolution(tmp_path: Path) -> None:
    said = {"version": 1, "state": "finished", "choices": {}, "overrides": [], "seed": 1, "scale": 2}
    said |= {"psnr": 31.0, "ssim": None, "gain": 1.5, "psnr_bicubic": 29.5, "ssim_bicubic": 0.8}
    (tmp_path / "result.json").write_text(json.dumps(said))
    read = Result.read(tmp_path)
    assert read is not None and read.headline is not None
    assert (read.headline.name, read.value, read.lead(), read.baseline["ssim"]) == ("psnr", 31.0, 1.5, 0.8)


def test_a_lead_is_positive_where_a_result_is_better_also_where_lower_values_are() -> None:
    made = replace(result(), declared=(ERROR,), figures={"rmse": 0.2}, baseline={"rmse": 0.5})
    assert made.value == 0.2 and made.lead() == pytest.approx(0.3)


@pytest.mark.parametrize(
    "odd",
    [
        {"state": "weird"},
        {"figures": {"psnr": "31"}},
        {"figures": [31.0]},
        {"baseline": None},
        {"overrides": [1]},
        {"choices": {"init": None}},
        {"choices": {"init": ["he"]}},
        {"seconds": "3"},
        {"epoch": True},
        {"judged_on": 5},
        {"declared": [{"name": "psnr"}]},
        {"declared": [{"name": "psnr", "title": "PSNR", "digits": -1}]},
        {"declared": [{"name": "psnr", "title": "PSNR", "noise": None}]},
    ],
)
def test_a_result_with_an_odd_value_cannot_be_read(odd: dict[str, object], tmp_path: Path) -> None:
    path = result(psnr=30.0).write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    with pytest.raises(
        UnreadableError, match=r"^\S*result\.json cannot be read \(.*\): delete it, or run its job again\.$"
    ):
        Result.read(tmp_path)


def test_a_number_that_is_none_is_not_known(tmp_path: Path) -> None:
    path = result(psnr=30.0, ssim=0.9).write(tmp_path)
    said = json.loads(path.read_text()) | {"figures": {"psnr": math.nan, "ssim": 0.9}, "seconds": math.inf}
    path.write_text(json.dumps(said))
    read = Result.read(tmp_path)
    assert read is not None and (read.figures, read.seconds) == ({"ssim": 0.9}, None)


def test_that_a_job_went_on_is_none_of_its_choices() -> None:
    made = replace(result(), overrides=["init=he", "resume='/a/run'", "+checkpoint=x.ckpt"])
    assert made.settings == {"init": "he", "checkpoint": "x.ckpt", "scale": "2", "seed": "1"}


def test_a_history_has_a_column_a_figure_and_is_read_back(tmp_path: Path) -> None:
    lines = [Epoch(1, 10, 0.5, 0.25, {"rmse": 1 / 3, "psnr": None}), Epoch(2, 20, 1.0, None, {"rmse": 0.2, "psnr": 9})]
    path = history.write(tmp_path / "history.csv", lines)
    assert path.read_text().splitlines()[0] == "epoch,step,seconds,loss,rmse,psnr"
    assert history.read(path) == lines
    assert history.read(tmp_path / "none.csv") == []


def test_a_history_keeps_the_losses_of_all_players_apart_from_the_figures(tmp_path: Path) -> None:
    lines = [Epoch(1, 10, 0.5, 0.25, {"fd": 90.0}, {"discriminator": 1.4}), Epoch(2, 20, 1.0, 0.3, {"fd": None}, {})]
    path = history.write(tmp_path / "history.csv", lines)
    assert path.read_text().splitlines()[0] == "epoch,step,seconds,loss,loss_discriminator,fd"
    first, second = history.read(path)
    assert first == lines[0]
    assert second.figures == {"fd": None} and second.losses == {"discriminator": None}


@pytest.mark.parametrize("text", ["", "epoch,step\n1,one\n", "epoch,step,seconds,loss,a\n1,2,0.5", "a\0b"])
def test_a_history_that_is_cut_short_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(UnreadableError, match=r"history\.csv cannot be read"):
        history.read(tmp_path / "history.csv")


def test_a_manifest_is_read_back_and_a_broken_entry_costs_its_own_job(tmp_path: Path) -> None:
    jobs = (Entry("0", 0, ["init=he"]), Entry("a 1", 1, ["init=icnr"]))
    path = Manifest(about=About.now(), jobs=jobs).write(tmp_path)
    read = Manifest.read(tmp_path)
    assert read is not None and read.about.command and not read.broken
    assert [(job.name, job.number, job.overrides) for job in read.jobs] == [
        ("0", 0, ["init=he"]),
        ("a 1", 1, ["init=icnr"]),
    ]
    for broken in (None, {}, {"name": "1"}, {"name": "1", "overrides": 3}, {"name": "", "overrides": []}, "x"):
        said = json.loads(path.read_text())
        path.write_text(json.dumps(said | {"jobs": [said["jobs"][0], broken]}))
        read = Manifest.read(tmp_path)
        assert read is not None and [job.name for job in read.jobs] == ["0"]
        assert len(read.broken) == 1 and "cannot be read at its job 1" in read.broken[0]
        assert read.next_number == 2, "the folder of the broken one is nobody else's"


@pytest.mark.parametrize("text", ["", "[]", '{"jobs": 3}', '{"jobs": [], "ver'])
def test_a_manifest_that_cannot_be_read_at_all_is_one_sentence(tmp_path: Path, text: str) -> None:
    assert Manifest.read(tmp_path) is None
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError, match="not the manifest of a sweep"):
        Manifest.read(tmp_path)


def test_a_crop_is_read_with_the_gaps_that_it_is_made_with() -> None:
    assert layout.GAP == tiles.GAP


def test_two_identities_differ_in_words() -> None:
    was = Identity(
        training={"a": "1", "b": "2", "c": "3", "d": "4"}, validation={"v": "5"}, judging={"scale": 2, "x": None}
    )
    now = Identity(
        training={"a": "1", "v": "5", "n": "6"}, validation={"b": "9"}, judging={"scale": 3, "y": [1], "x": None}
    )
    assert was.differences(was) == []
    assert was.differences(now) == [
        "2 images gone (c, d)",
        "1 image new (n)",
        "1 image changed (b)",
        "1 image trained on before and validated on now (b)",
        "1 image validated on before and trained on now (v)",
        "scale was 2 and is now 3",
        "y was None and is now [1]",
    ]
    assert was.digest != replace(was, training={}).digest and was.yardstick == replace(was, training={}).yardstick


def test_of_many_images_the_file_has_one_digest_and_still_tells_that_one_of_them_is_another(tmp_path: Path) -> None:
    many = {f"train/{number:05}": f"{number:016x}" for number in range(60_000)}
    was = Identity(training=many, validation={"v": "5"}, judging={"scale": None})
    assert was.write(tmp_path).stat().st_size < 1000
    kept = Identity.read(tmp_path)
    assert kept is not None and kept.differences(was) == []
    now = replace(was, training=many | {"train/00007": "0"})
    assert now.digest != was.digest and now.yardstick == was.yardstick
    (said,) = kept.differences(now)
    assert said.startswith("the data trained on was 60000 images, ") and " and is now 60000 images, " in said
    assert kept.differences(replace(was, validation={"w": "5"})) == ["1 image gone (v)", "1 image new (w)"]
    (said,) = kept.differences(replace(was, training={"a": "1"}))
    assert said.endswith(" and is now 1 images")


def test_how_a_config_judges_is_told_without_what_feeds_and_shows() -> None:
    figures = [{"name": "psnr", "digits": 2}]
    config = {
        "seed": 1,
        "scale": 2,
        "degradation": {"noise": {"level": 3}, "blur": {}},
        "protocol": {"space": "y"},
        "task": {"sigma": 0.1, "data": {"batch_size": 3}, "figures": figures, "protocol": {"space": "y"}},
    }
    assert judging_of(config) == {
        "scale": 2,
        "degradation": ["noise", "blur"],
        "degradation.noise.level": 3,
        "degradation.blur": {},
        "protocol.space": "y",
        "task.sigma": 0.1,
    }


def test_how_many_images_are_judged_and_what_of_each_is_told_where_it_is_not_the_default() -> None:
    def judging(crop: str = "centre", module: str = "upsweep.Images", **trainer: object) -> dict[str, object]:
        config = {"scale": 2, "trainer": trainer, "task": {"name": "x", "data": {"_target_": module, "crop": crop}}}
        return judging_of(config)

    usual = {"scale": 2, "task.name": "x"}
    assert judging() == judging(limit_val_batches=None) == usual, "records of before say nothing of them"
    assert judging(limit_val_batches=1.0, overfit_batches=0.0) == usual
    assert judging(limit_val_batches=1) == {**usual, "trainer.limit_val_batches": 1}, "one batch, and not all"
    few = judging("resize", limit_val_batches=0.5, overfit_batches=4)
    told = {"trainer.limit_val_batches": 0.5, "trainer.overfit_batches": 4, "data.crop": "resize"}
    assert few == {**usual, **told}
    assert "data.crop" not in judging("resize", "my.Images"), "it is told as part of a DataModule of one's own"
    was, now = (Identity(training={}, validation={}, judging=each) for each in (usual, few))
    assert not was.completed({"trainer": {"limit_val_batches": 0.5, "overfit_batches": 4}}).differences(
        replace(now, judging={key: value for key, value in few.items() if key != "data.crop"})
    ), "a record of before is completed from the config of its run"
    assert was.digest != now.digest and was.differences(now) == [
        "data.crop was centre and is now resize",
        "trainer.limit_val_batches was None and is now 0.5",
        "trainer.overfit_batches was 0 and is now 4",
    ]
