"""The tables of docs/zoo.md: from sweeps that were really trained to judged checkpoints and Markdown."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from tests.small_job import NET, small_job

from upsweep.runs.about import About
from upsweep.runs.layout import ABOUT, BEST
from upsweep.runs.manifest import Entry, Manifest
from upsweep.runs.result import Result
from upsweep.training.budget import Budget
from upsweep.training.job import train
from upsweep.training.records import History

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))  # as for `python docs/zoo.py`
zoo: Any = import_module("zoo")

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTHS = {"fsrcnn": 4, "vdsr": 2}  # two small networks under names that published tables have
JOBS = [(name, rate, seed) for name in WIDTHS for rate in ("1e-3", "1e-2") for seed in (1, 2)]


def swept(folder: Path, cache: Path, jobs: list[tuple[str, str, int]]) -> Path:
    """A sweep of trainings of a fraction of a second."""
    entries = []
    for number, (name, rate, seed) in enumerate(jobs):
        overrides = [f"generator={name}", f"optimizer.lr={rate}", f"seed={seed}"]
        run, spec = folder / str(number), {**NET, "width": WIDTHS[name]}
        said: dict[str, Any] = {"generator": spec, "choices": {"generator": name}, "overrides": overrides, "seed": seed}
        job = small_job(run, cache, patches_per_epoch=4_000, **said)
        train(replace(job, callbacks=[*job.callbacks, Budget(0.1 / 60), History(run)]))
        entries.append(Entry(str(number), number, overrides))
    Manifest(about=About.now(), jobs=tuple(entries)).write(folder)
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    return swept(tmp_path_factory.mktemp("zoo"), cache, JOBS)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is collected goes, with data sets of three small images each, judged within the process."""
    for name in zoo.JUDGED_ON:
        folder = tmp_path / "data" / zoo.SETS[name].folders[0]
        folder.mkdir(parents=True)
        for seed in range(3):
            pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    monkeypatch.setenv("UPSWEEP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(zoo, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(zoo, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(zoo, "as_completed", list)
    monkeypatch.setattr("upsweep.evaluation.speed.WIDTH", 64)
    monkeypatch.setattr("upsweep.evaluation.speed.HEIGHT", 64)
    return tmp_path / "kept"


class Here:
    """A pool that works at once, in this process."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., float], *arguments: Any) -> "Done":
        return Done(function(*arguments))


class Done:
    """What was done."""

    def __init__(self, value: float) -> None:
        self.value = value

    def result(self) -> float:
        return self.value


class Late(Done):
    """What is done when it is asked for."""

    def __init__(self, function: Callable[..., float], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def result(self) -> float:
        return self.function(*self.arguments)


def judged(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def columns(markdown: str, row: str) -> list[str]:
    (line,) = (line for line in markdown.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_generator_is_judged_at_its_best_rate_on_every_set_with_each_seed(sweep: Path, kept: Path) -> None:
    zoo.main("--collect", f"networks={sweep}", "--without", "vdsr=bsd100")
    lines = judged(kept / "networks.csv")
    assert len(lines) == 4 + 2 * 4 + 2 * 3, "bicubic, two seeds on four sets, and on three"
    chosen = zoo.best(zoo.jobs_of(sweep))
    assert {len({line["rate"] for line in lines if line["generator"] == name}) for name in WIDTHS} == {1}
    for name, runs in chosen.items():
        every = [row for row in zoo.jobs_of(sweep) if row["generator"] == name]
        psnr = {rate: sum(float(row["psnr"]) for row in every if row[zoo.RATE] == rate) for rate in ("1e-3", "1e-2")}
        assert [run["seed"] for run in runs] == ["1", "2"] and runs[0][zoo.RATE] == max(psnr, key=psnr.__getitem__)
    first = chosen["fsrcnn"][0]
    (line,) = (x for x in lines if (x["generator"], x["seed"], x["set"]) == ("fsrcnn", first["seed"], "set5"))
    assert float(line["psnr"]) == pytest.approx(zoo.judge(sweep / first["job"] / BEST, "set5"), abs=1e-6)


def test_the_table_has_costs_means_intervals_and_what_the_paper_reached(sweep: Path, kept: Path) -> None:
    zoo.main("--collect", f"networks={sweep}", "--without", "vdsr=bsd100")
    table = zoo.of_networks()
    cells, (run, other) = columns(table, "**vdsr**"), zoo.best(zoo.jobs_of(sweep))["vdsr"]
    assert cells[1] == run["parameters"] and float(cells[3]) >= 0 and cells[5] == run[zoo.RATE]
    assert cells[4] == f"{(int(run['steps']) + int(other['steps'])) / 2:.0f}" and int(run["steps"]) > 0
    a, b = zoo.scores("networks", "set5")["vdsr"].values()
    assert cells[7] == f"{(a + b) / 2:.2f} ± {stats.t.ppf(0.975, 1) * abs(a - b) / 2:.2f}", (
        "Student's t of one degree of freedom"
    )
    assert cells[9:] == ["-", "37.53"] and columns(table, "**fsrcnn**")[-1] == "37.00"
    assert columns(table, "bicubic")[1:6] == ["-"] * 5 and float(columns(table, "bicubic")[9]) > 0
    firsts = [float(line.split("|")[7].split("±")[0]) for line in table.splitlines()[2:5]]
    assert firsts == sorted(firsts, reverse=True)
    assert "8 of 8 jobs finished" in table and "report.png" not in table, "there is no page to show"


def test_what_is_judged_is_kept_unless_the_weights_are_others(
    sweep: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.main("--collect", f"networks={sweep}", "--sets", "set5")
    asked: list[str] = []

    def judge(_: Path | None, name: str) -> float:
        asked.append(name)
        return 1.0

    monkeypatch.setattr(zoo, "judge", judge)
    monkeypatch.setattr(zoo, "speed_of", lambda *_: pytest.fail("it is timed already"))
    zoo.main("--collect", f"networks={sweep}", "--sets", "set5", "set14")
    assert asked == ["set14"] * 5, "bicubic and four checkpoints"
    before = (kept / "networks.csv").read_text(encoding="utf-8")
    (kept / "networks.csv").write_text(before.replace("fsrcnn,", "gone,"), encoding="utf-8")
    zoo.main("--collect", f"networks={sweep}", "--sets", "set5", "set14")
    assert len(asked) == 9 and "gone" not in (kept / "networks.csv").read_text(encoding="utf-8")


def test_the_choices_are_paired_by_seed_with_the_generators_own(sweep: Path, kept: Path) -> None:
    zoo.main("--collect", f"networks={sweep}", "--sets", "kodak24")
    assert "not measured yet" in zoo.of_choices()
    zoo.main("--collect", f"bn={sweep}", "--sets", "kodak24")
    worse = {cell: psnr - 1 for cell, psnr in zoo.read_judged(kept / "bn.csv").items()}
    zoo.write_judged(kept / "bn.csv", worse)
    table = zoo.of_choices()
    assert "init=he activation=prelu norm=bn" in table and "init=xavier" not in table
    assert columns(table, "**vdsr**")[2].endswith("(-1.00 ± 0.00)") and "bicubic" not in table


def test_a_generator_of_which_no_job_finished_says_so(sweep: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row | {"state": "diverged"} if row["generator"] == "vdsr" else row for row in zoo.jobs_of(sweep)]
    monkeypatch.setattr(zoo, "jobs_of", lambda _: rows)
    for name in ("networks", "relu"):
        zoo.main("--collect", f"{name}={sweep}", "--sets", "kodak24")
    assert columns(zoo.of_networks(), "vdsr (no job finished)")[1:] == ["-"] * 9 + ["37.53"]
    assert columns(zoo.of_choices(), "**vdsr**")[1:] == ["-", "no job finished"]


def test_wrong_names_are_refused(sweep: Path, kept: Path) -> None:
    with pytest.raises(SystemExit, match="studies is none of networks, relu, prelu, bn"):
        zoo.main("--collect", f"studies={sweep}")
    with pytest.raises(SystemExit, match="set6: choose from kodak24, set5, set14, bsd100"):
        zoo.main("--collect", f"networks={sweep}", "--without", "vdsr=set6")
    with pytest.raises(SystemExit, match="is not the folder of a sweep"):
        zoo.main("--collect", f"networks={kept}")


def test_jobs_that_differ_in_something_else_are_refused(tmp_path: Path, cache: Path, kept: Path) -> None:
    twice = swept(tmp_path / "twice", cache, [("fsrcnn", "1e-3", 1), ("fsrcnn", "1e-3", 1)])
    with pytest.raises(
        SystemExit, match=r"Jobs 0 and 1 of .* fsrcnn at optimizer.lr=1e-3 with seed=1: .* nothing else"
    ):
        zoo.main("--collect", f"networks={twice}")
    result = Result.read(twice / "1")
    assert result is not None
    replace(result, scale=3).write(twice / "1")
    with pytest.raises(SystemExit, match=r"Job 1 of .* is of scale=3; the tables are of scale=2"):
        zoo.main("--collect", f"networks={twice}")
    assert not list(kept.rglob("*.csv"))


def test_a_collection_that_was_broken_off_changes_nothing_and_goes_on(
    sweep: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.main("--collect", f"networks={sweep}", "--sets", "set5")
    before = {file: file.read_bytes() for file in kept.rglob("*.*")}
    judge, judged_now = zoo.judge, list[str]()

    def breaking(checkpoint: Path | None, name: str) -> float:
        if len(judged_now) == 2:
            raise KeyboardInterrupt
        judged_now.append(name)
        return float(judge(checkpoint, name))

    monkeypatch.setattr(zoo, "judge", breaking)
    monkeypatch.setattr(zoo, "as_completed", iter)
    monkeypatch.setattr(Here, "submit", lambda _, function, *arguments: Late(function, *arguments))
    with pytest.raises(KeyboardInterrupt):
        zoo.main("--collect", f"networks={sweep}", "--sets", "set5", "set14")
    assert {file: file.read_bytes() for file in before} == before
    judged_now.clear()

    def judging(_: Path | None, name: str) -> float:
        judged_now.append(name)
        return 1.0

    monkeypatch.setattr(zoo, "judge", judging)
    zoo.main("--collect", f"networks={sweep}", "--sets", "set5", "set14")
    assert judged_now == ["set14"] * 3 and not list(kept.rglob("*.part.csv"))


def test_what_is_not_there_is_said_before_anything_is_written(sweep: Path, kept: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data" / "BSD100")
    with pytest.raises(SystemExit, match="BSD100 is not in"):
        zoo.main("--collect", f"networks={sweep}")
    moved = tmp_path / "moved"
    shutil.copytree(sweep, moved, ignore=shutil.ignore_patterns("*.ckpt"))
    with pytest.raises(SystemExit, match=r"best\.ckpt is not there"):
        zoo.main("--collect", f"networks={moved}", "--sets", "set5")
    assert not list(kept.rglob("*.csv"))


def test_sweeps_of_another_budget_are_not_compared(sweep: Path, kept: Path) -> None:
    for name in ("networks", "relu"):
        zoo.main("--collect", f"{name}={sweep}", "--sets", "kodak24")
    about = json.loads((kept / "relu" / ABOUT).read_text(encoding="utf-8"))
    about["command"] += ["init=xavier", "seed=1,2", "hydra.sweep.dir=x"]
    (kept / "relu" / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    assert "init=xavier" in zoo.of_choices()
    about["command"] += ["callbacks.budget.core_minutes=3"]
    (kept / "relu" / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"was swept with .*core_minutes=3.* only sweeps of one budget"):
        zoo.of_choices()


def test_a_sweep_that_has_gone_on_is_told_as_the_line_that_would_begin_it(sweep: Path, tmp_path: Path) -> None:
    manifest = zoo.manifest_of(sweep)
    own = f"--config-dir={manifest.about.directory}/my/conf"
    line = [
        "src/train.py",
        "-m",
        own,
        "seed=1,2",
        f"hydra.sweep.dir='{tmp_path / 'zoo'}'",
        "hydra.launcher.resume=true",
    ]
    replace(manifest, about=replace(manifest.about, command=["python", *line])).write(tmp_path)
    zoo.keep_about(tmp_path, tmp_path)
    words = json.loads((tmp_path / ABOUT).read_text(encoding="utf-8"))["command"]
    assert words == ["python", "src/train.py", "-m", "--config-dir=my/conf", "seed=1,2", "hydra.sweep.dir=multirun/zoo"]


def test_the_page_is_that_of_what_was_collected() -> None:
    zoo.main("--check")


def test_a_page_that_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "zoo.md"
    begin = "<!-- figures: networks -->"
    page.write_text(zoo.ZOO.read_text(encoding="utf-8").replace(begin, f"{begin}\n\n| 40.00 |"), encoding="utf-8")
    monkeypatch.setattr(zoo, "ZOO", page)
    with pytest.raises(SystemExit, match=r"run python docs/zoo\.py --write"):
        zoo.main("--check")
    zoo.main("--write")
    zoo.main("--check")
