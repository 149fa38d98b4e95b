"""From Python: the words that a command gets, what is read of its records, how it fails and is interrupted."""

import io
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from tests.small_results import result

import upsweep
from upsweep import api
from upsweep.common import commands, telling
from upsweep.common.commands import command, installing, typed
from upsweep.common.errors import UserError
from upsweep.evaluation.tables import Cell, Column, Comparison, Row
from upsweep.metrics.figure import Figure
from upsweep.runs import history
from upsweep.runs.about import About
from upsweep.runs.history import Epoch
from upsweep.runs.layout import HISTORY
from upsweep.runs.manifest import Entry, Manifest
from upsweep.sweeps.overrides import readable

ROOT = Path(__file__).resolve().parent.parent


def test_importing_upsweep_brings_neither_torch_nor_hydra_and_every_public_name_is_there() -> None:
    code = "import sys, upsweep; assert not {'torch', 'hydra', 'numpy'} & {*sys.modules}; print(dir(upsweep))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(repr(name) in done.stdout for name in upsweep.__all__)
    cheap = [name for name in upsweep.__all__ if name != "load_generator"]  # which imports torch
    assert all(getattr(upsweep, name).__name__ == name for name in cheap)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        upsweep.trian  # noqa: B018


# ---- the words of the command line ----


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have been run."""
    lines: list[list[str]] = []

    def run(door: str, words: list[str]) -> tuple[int, dict[str, Any]]:
        lines.append([door, *words])
        return 1, {"error": "It was not run."}

    monkeypatch.setattr(api, "_run", run)
    return lines


def test_words_go_as_they_are_and_settings_as_the_command_line_has_them(asked: list[list[str]]) -> None:
    settings = {"seed": 2, "norm": None, "quiet": True, "data.root": Path("my photos"), "data.copies": [0.9, 0.8]}
    with pytest.raises(UserError, match=r"It was not run\."):
        upsweep.train("init=he", "--config-dir=my/conf", **settings)
    words = ["seed=2", "norm=null", "quiet=true", "data.root=my photos", "data.copies=[0.9,0.8]"]
    assert asked == [["train", "init=he", "--config-dir=my/conf", *words]]


def test_a_run_stands_for_its_folder(asked: list[list[str]], tmp_path: Path) -> None:
    run = upsweep.Run(tmp_path / "a b", result(31.5))
    with pytest.raises(UserError):
        upsweep.evaluate(checkpoint=[run], sweep=upsweep.Sweep(tmp_path, [run]))
    assert asked == [["evaluate", f"checkpoint=[{tmp_path / 'a b'}]", f"sweep={tmp_path}"]]


def test_a_list_is_what_a_sweep_goes_through(asked: list[list[str]]) -> None:
    with pytest.raises(UserError):
        upsweep.sweep("init=xavier,he", norm=["bn", None], seed=range(1, 4), factors=["a,b", "c"])
    assert asked == [["train", "-m", "init=xavier,he", "norm=bn,null", "seed=1,2,3", "factors='a,b',c"]]


@pytest.mark.parametrize("name", ["a,b", "[1]", "a[1].png", "it's", "日本 (1)"])
def test_a_path_is_one_name_also_in_a_sweep_and_beside_others(asked: list[list[str]], name: str) -> None:
    for call in (upsweep.sweep, upsweep.upscale):
        with pytest.raises(UserError):
            call(input=Path(name))
    with pytest.raises(UserError):
        upsweep.upscale(input=[Path(name), name, Path("é.png"), "a,[1]"])
    alone, swept, several = (OverridesParser.create().parse_override(readable(words)[-1]) for words in asked)
    assert alone.value() == swept.value() == name
    assert several.value() == [name, name, "é.png", "a,[1]"]


@pytest.mark.parametrize("value", [{"a": [1, "x,y"], "c": {"d": None}}, [[1, 2], ["3,4", ""]]])
def test_what_lies_within_lists_and_mappings_stays_what_it_is(asked: list[list[str]], value: Any) -> None:
    with pytest.raises(UserError):
        upsweep.train(own=value)
    ((_, word),) = asked
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.parametrize("word", ["-m", "init=he,xavier", "seed=range(1,4)", "hparams_search=optuna"])
def test_train_makes_one_run_and_says_what_makes_several(asked: list[list[str]], word: str) -> None:
    with pytest.raises(UserError, match=r"to sweep\(\)"):
        upsweep.train(word)
    assert not asked


def test_what_is_no_text_is_no_override() -> None:
    with pytest.raises(UserError, match=r"\{'init': 'he'\} is not a word of a command line"):
        upsweep.train({"init": "he"})  # type: ignore[arg-type]


# ---- what is read of the records ----


def test_a_run_has_its_figures_its_history_and_where_it_lies(tmp_path: Path) -> None:
    result(31.5, init="he").write(tmp_path)
    epochs = [Epoch(1, 10, 0.5, 0.1, {"psnr": 30.0}), Epoch(2, 20, 1.0, 0.05, {"psnr": 31.5})]
    history.write(tmp_path / HISTORY, epochs)
    run = upsweep.Run.read(str(tmp_path))
    assert (run.state, run.reason, run.settings["init"], run.checkpoint) == ("finished", None, "he", None)
    assert run.figures["psnr"] == 31.5 and "psnr 31.50" in repr(run)
    assert [row["psnr"] for row in run.history] == [30.0, 31.5]
    with pytest.raises(UserError, match=r"has no result\.json"):
        upsweep.Run.read(tmp_path / "gone")


def test_a_sweep_is_ranked_and_its_rows_are_those_of_the_table(tmp_path: Path) -> None:
    names = {"0": 30.0, "1": 32.0, "2": 31.0}
    for name, psnr in names.items():
        (tmp_path / name).mkdir()
        result(psnr, init=f"init_{name}").write(tmp_path / name)
    entries = tuple(Entry(name, int(name), []) for name in (*names, "3"))
    Manifest(about=About(), jobs=entries).write(tmp_path)
    sweep = upsweep.Sweep.read(tmp_path)
    assert [run.folder.name for run in sweep] == ["1", "2", "0"] and len(sweep) == 3
    assert sweep.best.figures["psnr"] == 32.0 and sweep.report is None
    assert next((row["job"], row["init"], row["psnr"]) for row in sweep.rows) == ("1", "init_1", 32.0)
    assert sweep.table() in repr(sweep) and "init_2" in sweep.table()
    with pytest.raises(UserError, match=r"has no sweep\.json"):
        upsweep.Sweep.read(tmp_path / "0")


def test_the_rows_of_an_evaluation_are_those_of_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_done", lambda *_: str(tmp_path))
    for name, figure in {"table": "fd", "table_x2": "psnr"}.items():  # of synthesisers, of upscalers
        columns = [Column("a set", [Figure(name=figure, title=figure, better="higher")])]
        Comparison(name, "", columns, [Row("mine", {"a set": Cell({figure: 12.5})})]).write(tmp_path)
    rows = upsweep.evaluate().rows
    assert [(row["method"], row.get("fd"), row.get("psnr")) for row in rows] == [
        ("mine", 12.5, None),
        ("mine", None, 12.5),
    ]


# ---- the commands themselves ----


def test_a_refusal_is_raised_with_the_sentence_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"There is no init=hee; choose from .* Did you mean init=he\?") as refused:
        upsweep.train(init="hee")
    assert capsys.readouterr().out.strip() == str(refused.value)


def test_a_command_that_does_nothing_is_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="ended with exit code 0: see what it printed"):
        upsweep.train("--cfg", "job")
    assert "seed: 1" in capsys.readouterr().out


@pytest.mark.slow
def test_photos_are_enlarged_and_their_files_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 9, 3), dtype=np.uint8)).save("a b.png")
    assert upsweep.upscale(input="a b.png", scale=2) == [tmp_path / "a b_x2.png"]
    assert Image.open("a b_x2.png").size == (18, 16)


class Interrupting(io.StringIO):
    """A screen at which somebody presses Ctrl-C as soon as the process has begun."""

    def write(self, text: str) -> int:
        written = super().write(text)
        if "begun" in text:
            os.kill(os.getpid(), signal.SIGINT)
        return written


def test_an_interrupt_reaches_the_process_and_then_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import time
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("saved", flush=True)
"""
    monkeypatch.setattr(sys, "stdout", said := Interrupting())
    with pytest.raises(KeyboardInterrupt):
        api._shown([sys.executable, "-c", code], os.environ)
    assert said.getvalue() == "begun\nsaved\n"


def test_nothing_is_told_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    telling.tell(folder="x")
    monkeypatch.setattr(telling, "FILE", str(tmp_path / "told"))
    telling.tell(folder="x")
    telling.tell(error="y")
    assert telling.heard(tmp_path / "told") == {"folder": "x", "error": "y"}


# ---- how commands are called ----


def test_a_command_is_called_as_it_was_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["src/train.py"])
    assert command("report", "sweep=my sweep") == "python src/report.py 'sweep=my sweep'"
    monkeypatch.chdir(tmp_path)
    assert command("train") == f"python {ROOT / 'src' / 'train.py'}"
    monkeypatch.setattr(sys, "argv", ["/venv/bin/upsweep-train"])
    assert command("report") == "upsweep-report"


def test_an_extra_is_installed_from_the_checkout_or_where_there_is_none_by_the_names_of_its_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert installing("demo") == "pip install -e '.[demo]'"
    monkeypatch.setattr(commands, "in_checkout", lambda: False)
    asked = ["torch~=2.13.0", 'onnx<2,>=1.23; extra == "export"', 'gradio<7; extra == "demo"', 'ruff; extra == "dev"']
    monkeypatch.setattr(commands, "requires", lambda _: asked)
    assert (installing("export"), installing("dev")) == ("pip install 'onnx<2,>=1.23'", "pip install ruff")


def test_a_record_of_a_command_is_shown_as_it_was_typed() -> None:
    assert typed(["/v/bin/python", "/v/bin/upsweep-train", "-m", "seed=1,2"]) == "upsweep-train -m seed=1,2"
    assert typed(["python", "src/train.py", "a b"]) == "python src/train.py 'a b'"
    started = ["python", "/v/upsweep/doors/train.py", "seed=1"]
    assert typed(started) == "python -m upsweep.doors.train seed=1"
    assert typed([]) == ""


@pytest.mark.slow
def test_the_example_of_the_docs_runs_and_jobs_that_fail_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python run\n")[2].partition("```")[0], names)
    run, sweep = names["run"], names["sweep"]
    assert run.state == "finished" and run.folder.parent == tmp_path / "outputs" and len(run.history) == 1
    assert names["generator"].scale == upsweep.load_generator(run.folder).scale == 2
    assert {(r.settings["init"], r.settings["norm"]) for r in sweep} == {*product(("xavier", "he"), ("bn", "none"))}
    table = "\n".join(sweep.table().splitlines()[:6])  # below it the jobs are named in another order
    assert capsys.readouterr().out.count(table) == 2 and sweep.report == sweep.folder / "report.html"

    failing = upsweep.sweep("debug=fast", "generator.width=4", **{"optimizer.lr": [0.001, -1]})
    assert [each.state for each in failing] == ["finished", "failed"]
    assert "Invalid learning rate: -1" in str(failing.runs[1].reason)
    with pytest.raises(UserError, match="1 of 1 jobs did not finish"):
        upsweep.sweep("debug=fast", **{"optimizer.lr": -1})
    judged = upsweep.evaluate(checkpoint=run.folder, benchmark=own_photos(tmp_path / "photos"), pictures=False)
    assert len(judged.rows) == 2 and judged.rows[0]["method"] == "bicubic" and judged.rows[0]["scale"] == 2


def own_photos(folder: Path) -> Path:
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder
