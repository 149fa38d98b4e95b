"""What all doors share: help, silence and colour, file names as they are typed, classes that a user's config names."""

import io
import logging
import os
import pty
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from tests.small_job import small_job

from upsweep.cli import description
from upsweep.common.errors import UserError
from upsweep.common.ranks import settle_ranks
from upsweep.common.table import Table
from upsweep.runs.about import About
from upsweep.runs.result import Result, key_and_value
from upsweep.sweeps.live import Status, display
from upsweep.sweeps.overrides import (
    config_dirs,
    hold_to_one_each,
    in_place,
    of_the_task,
    plain,
    quoted,
    readable,
    together,
)
from upsweep.training import console
from upsweep.training import job as training_job
from upsweep.training.job import Job
from upsweep.training.trainer import trainer_of

ROOT = Path(__file__).resolve().parent.parent
DOOR = [sys.executable, str(ROOT / "src" / "train.py")]
ESCAPE = "\x1b["
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38;[25])[0-9;]*m")


def test_the_headline_is_the_first_comment_that_is_no_directive() -> None:
    assert description("# @package _global_\n# What it is\nx: 1\n") == "What it is"
    assert description("x: 1\n# What it is not\n") is None and description("") is None


def test_help_has_a_line_for_every_choice_those_of_a_users_own_folder_too(tmp_path: Path) -> None:
    own = tmp_path / "activation"
    own.mkdir()
    (own / "mine.yaml").write_text("# My very own\n_target_: torch.nn.ReLU\n_partial_: true\n")
    (own / "bare.yaml").write_text("_target_: torch.nn.ReLU\n_partial_: true\n")
    done = subprocess.run(
        [*DOOR, "--help", "--config-dir", str(tmp_path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "activation=" in lines and "mine My very own" in lines and "bare" in lines
    for file in sorted((ROOT / "conf").glob("*/**/*.yaml")):
        if "local" not in file.parts:
            said = " ".join(f"{file.stem} {description(file.read_text())}".split())
            assert said in lines, file
    assert ESCAPE not in done.stdout


def test_help_that_nobody_reads_to_the_end_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*DOOR, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert "Traceback" not in done.stderr


def test_hydras_shell_completion_knows_groups_and_choices(tmp_path: Path) -> None:
    """What bash runs when Tab is pressed, as `python src/train.py -sc install=bash` sets it up."""
    for line, offered in (("act", "activation="), ("activation=ge", "activation=gelu")):
        command = f"python src/train.py {line}"
        done = subprocess.run(
            [*DOOR, "-sc", "query=bash"],
            env={**os.environ, "COMP_LINE": command, "COMP_POINT": str(len(command))},
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert offered in done.stdout.split()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("terminal", "no_colour"), [(True, False), (True, True), (False, False)])
def test_the_config_is_coloured_on_a_terminal_alone_and_not_where_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_colour: bool
) -> None:
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    console.show_config({"seed": 1, "generator": {"width": 8}}, {"init": "he"})
    assert "seed" in out.getvalue()
    assert bool(COLOUR.search(out.getvalue())) == (terminal and not no_colour)
    assert terminal or ESCAPE not in out.getvalue()


def test_a_run_says_its_choices_and_what_was_set_in_ten_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (3, 300):
        overrides = ["init=xavier", *(f"+a.key_{i}={'x' * 20}" for i in range(more)), "hydra.run.dir=x"]
        job = small_job(tmp_path, tmp_path, overrides=overrides, choices={"init": "xavier", "norm": "bn"})
        console.show_choices(job)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{'choices':<12}init=xavier norm=bn" and lines[1].startswith(f"{'set':<12}a.key_0=")
        assert lines[-1] == f"{'config':<12}{tmp_path / 'about.json'} (verbose=true prints it)"
        assert len(lines) <= 10 and "hydra" not in "".join(lines)


def test_a_quiet_sweep_shows_nothing_while_it_runs(tmp_path: Path) -> None:
    out = io.StringIO()
    with display({"0": Status(tmp_path, {})}, 1, out, quiet=True) as update:
        update()
    assert out.getvalue() == ""


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
def test_a_quiet_run_says_its_result_and_nothing_else(tmp_path: Path, sweep: bool) -> None:
    words = ["-m", "init=he,xavier"] if sweep else []
    tiny = ["debug=fast", "trainer=cpu", "generator.width=4", "data.patch_size=8", "callbacks.pictures=null"]
    subprocess.run([*DOOR, *tiny], cwd=tmp_path, check=True, capture_output=True)  # prepares the images
    leader, follower = pty.openpty()  # on a terminal, where there would be a bar
    done = subprocess.run(
        [*DOOR, *words, *tiny, "quiet=true"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
        check=True,
    )
    os.close(follower)
    os.set_blocking(leader, False)
    try:
        said = os.read(leader, 65536).decode()
    except OSError:  # nothing was written
        said = ""
    os.close(leader)
    assert said == ""
    head, *rows, below = done.stdout.splitlines()[1 if sweep else 0 :]
    assert below.startswith("Better without a network: job")  # as is only to be expected of so little training
    assert head.startswith("job") and len(rows) == (2 if sweep else 1)
    assert all(row.endswith("finished") for row in rows)


PRINT = """
import sys
from pathlib import Path
sys.path.insert(0, {src!r})
from upsweep.cli import door, own_targets
@door("upscale", config_path=Path({conf!r}), paths=("input",))
def main(cfg):
    print(repr(cfg.input), sorted(target for target in own_targets() if not target.startswith(("upsweep", "torch"))))
main()
"""


def parsed(argument: str, *flags: str) -> object:
    (line,) = readable([*flags, argument])[len(flags) :]
    assert readable([*flags, line])[len(flags) :] == [line], "ranks and jobs repeat the command line"
    override = OverridesParser.create().parse_override(line)
    assert flags or not override.is_sweep_override()
    if override.is_sweep_override():
        return [OverridesParser.create().parse_override(f"x={v}").value() for v in override.sweep_string_iterator()]
    return OmegaConf.create({"x": override.value()}).x


NAMES = [
    "my photo (1).jpg",
    "a,b=c.jpg",
    "it's.jpg",
    'say "x".jpg',
    "ü.jpg",
    "фото",
    "C:\\photos\\",
    "a\\'b",
    "*.jpg",
    "a[1]?.jpg",
    "[2024] x",
    "{x",
    "#",
    "2024",
    "1e3",
    "true",
    " x ",
    "photos(1)",
    "cost ${5",
]
KEYS = [
    "input",
    "data.root",
    "data.val_root",
    "hydra.run.dir",
    "checkpoint",
    "+mine.lr_path",
    "data.cache_dir",
    "init_from",
    "objective.teacher",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_is_taken_as_it_is_typed(name: str) -> None:
    assert {str(parsed(f"{key}={name}")) for key in KEYS} == {name}


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
@example(" ")
def test_any_file_name_is(name: str) -> None:
    known = name[0] in "'\"[~" or name.lower() == "null" or "\\" in name or "${" in name  # what has a meaning
    known = known or not name.strip()  # which is refused as empty
    assert known or parsed(f"input={name}") == name


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12))
def test_what_hydra_reads_stays_as_it_is_and_all_else_is_read(value: str) -> None:
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        assert value.startswith("~") or readable([f"key={value}"]) != [f"key={value}"]
        OverridesParser.create().parse_override(*readable([f"key={value}"]))
    else:
        assert readable([f"key={value}"]) == [f"key={value}"]


def test_lists_interpolations_and_what_is_quoted_already_stay() -> None:
    assert parsed("input=[a.jpg,b.jpg]") == ["a.jpg", "b.jpg"]
    assert parsed("input=[a (1).jpg,'b,c.jpg']") == ["a (1).jpg", "b,c.jpg"]
    assert parsed("input=[ü.jpg,'a[1].jpg']") == ["ü.jpg", "a[1].jpg"]
    assert parsed("input='a b.jpg'") == "a b.jpg"
    assert parsed("input=null") is None
    assert parsed("data.root=a\\,b") == "a,b"
    for line in ("tile=a b", "root=${oc.env:HOME}/x", "init=he,xavier", "x=interval(1)", "~x=~/a", "input=[a,b]", "a"):
        assert readable([line]) == [line]
    assert readable(["root=${x}/(1)"]) == ["root='${x}/(1)'"]


@pytest.mark.parametrize("typed", ["input=", "data.root= ", "checkpoint=", "resume="])
def test_an_empty_path_is_not_the_current_folder(typed: str) -> None:
    with pytest.raises(UserError, match=r"is empty: give a path, or leave \S+= out"):
        readable([typed])
    for lawful in ("model=", "data.root=null", "++args.weights_path=", "hydra.output_subdir=", "input=''"):
        assert readable([lawful]) == [lawful]


def test_the_home_folder_is_known_by_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/it's me")
    assert parsed("data.root=~/a (1)") == "/home/it's me/a (1)" and parsed("mine.where=~") == "/home/it's me"
    assert parsed("input=[~/a,b]") == ["/home/it's me/a", "b"] and parsed("data.root=~else/a") == "~else/a"
    assert readable(["--config-dir=~/c", "-cd", "~=x"]) == ["--config-dir=/home/it's me/c", "-cd", "~=x"]


def test_a_comma_parts_the_values_of_a_sweep_and_belongs_to_a_path_elsewhere() -> None:
    assert parsed("data.root=a,b") == "a,b"
    for flag in ("-m", "--multirun", "hydra.mode=MULTIRUN", "hparams_search=optuna"):
        assert parsed("data.root=a,b", flag) == ["a", "b"]
        assert parsed("data.root=~/a (1),'b,c',it's", flag) == [str(Path.home() / "a (1)"), "b,c", "it's"]


def test_what_was_quoted_is_what_it_stands_for() -> None:
    for name in NAMES:
        assert plain(quoted(name)) == name and plain(readable([f"resume={name}"])[0].partition("=")[2]) == name
    for flags in ([], ["-m"]):
        for key in ("resume", "hydra.sweep.dir"):
            *_, line = readable([*flags, f"{key}=/a,b (c),d"])
            assert plain(line.partition("=")[2]) == "/a,b (c),d", "no sweep goes through folders to write to"


@pytest.mark.slow
def test_a_run_in_a_folder_with_any_name_trains_on_one_and_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "it's (me), é"
    photos = home / "my, photos=[1] $x"
    photos.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((64, 64, 3), 40 * i, dtype=np.uint8)).save(photos / f"{i}.png")
    tiny = ["trainer=cpu", "logger=none", "generator.width=4", "generator.depth=1", "data.patch_size=8"]
    line = ["data=folder", f"data.root=~/{photos.name}", "data.patches_per_epoch=32", "trainer.max_epochs=1"]
    for words in ([*tiny, *line, "hydra.run.dir=~/out (1)"], ["resume=~/out (1)", "trainer.max_epochs=2"]):
        done = subprocess.run(
            [*DOOR, *words], cwd=home, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    about = About.read(home / "out (1)")
    assert about is not None and about.config["data"]["root"] == str(photos)
    result = Result.read(home / "out (1)")
    assert result is not None and result.epochs == 2


def test_a_users_config_folder_names_classes_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "conf" / "generator").mkdir(parents=True)
    (tmp_path / "conf" / "generator" / "tiny.yaml").write_text("_target_: tiny.Tiny\n")
    (tmp_path / "conf" / "data").mkdir()
    (tmp_path / "conf" / "data" / "evil.yaml").write_text("_target_: os.system\n")
    root = Path(__file__).parents[1]
    script = tmp_path / "script.py"
    script.write_text(PRINT.format(src=str(root / "src"), conf=str(root / "conf")))
    command = [sys.executable, str(script), "--config-dir", str(tmp_path / "conf"), "input=a (1).jpg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "'a (1).jpg' ['tiny.Tiny']\n", done.stderr


@pytest.mark.parametrize("rows", [1, 3])
def test_a_table_is_readable_in_eighty_columns(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    headers = ["job", "optimizer.lr", "generator.width", "PSNR", "SSIM", "gain dB", "parameters", "seconds", "state"]
    cells = [[str(i), "0.001", "16", "33.00", "0.9121", "+2.61", "12,464", "1234.5", "finished"] for i in range(rows)]
    table = Table("", headers, cells, left=3, least=["SSIM", "gain dB", "parameters", "seconds"])
    table.print(out := Terminal())
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in out.getvalue().splitlines()]
    said = "\n".join(lines)
    assert max(map(len, lines)) <= 80 and all(header in said for header in headers)
    if rows == 1:
        assert [line.split() for line in lines][1] == ["optimizer.lr", "0.001"]
    else:
        assert lines[0] == "not shown: parameters, seconds" and "1234.5" not in said and len(lines) == 2 + rows
    table.print(plain := io.StringIO())
    assert plain.getvalue() == f"{table.plain()}\n" and "1234.5" in plain.getvalue()


def test_a_table_for_which_no_terminal_is_wide_enough_is_a_list() -> None:
    wide = Table("title", ["job", "x" * 90], [["a", "1"], ["b", "2"]], styles=["red"])
    assert [list(row) for row in wide.within(80).rows] == [
        ["job", "a"],
        ["x" * 90, "1"],
        ["", ""],
        ["job", "b"],
        ["x" * 90, "2"],
    ]
    assert wide.within(100) == wide and wide.within(80).title == "title"


# ---- whatever is typed, or set in the environment, ends in a sentence that names it ----

TINY = [
    *("trainer=cpu", "logger=none", "generator.width=4", "generator.depth=1", "data.patch_size=8", "quiet=true"),
    *("data.patches_per_epoch=32", "trainer.max_epochs=1", "trainer.limit_val_batches=1", "callbacks.pictures=null"),
]
LEAVES = [
    *("seed", "scale", "quiet", "compile", "channels_last", "lr_rule", "lr_batch_size", "factors", "checkpoint"),
    *("optimizer.lr", "optimizer.betas", "optimizer.momentum", "scheduler.final", "scheduler.warmup", "init.gain"),
    *("generator.width", "generator.kernel", "generator.skip", "generator.recipe", "upsampler.kernel", "recipe"),
    *("activation.slope", "norm.place", "data.patch_size", "data.copies", "data.augment", "data.source", "data.cache"),
    *("trainer.precision", "trainer.max_epochs", "trainer.devices", "trainer.benchmark", "trainer.gradient_clip_val"),
    *("callbacks.ema.decay", "callbacks.best", "callbacks.diagnoses.samples", "task.figures", "task.data", "report"),
    *("protocol.shave", "degradation.bicubic", "judge_anew", "init_from", "norm._target_", "objective._target_"),
]
GROUPS = ["norm", "init", "optimizer", "degradation", "logger", "data", "callbacks", "trainer", "task", "protocol"]
VALUES = [
    "null",
    "abc",
    "-1",
    "0",
    "1.5",
    "true",
    "[]",
    "[x]",
    "{a: b}",
    "nan",
    "1e30",
    '"1e-3"',
    "${nope}",
    "???",
    "${",
]
OVERRIDES = st.builds("{}={}".format, st.sampled_from([*LEAVES, *GROUPS]), st.sampled_from(VALUES)) | st.builds(
    "~{}".format, st.sampled_from([*LEAVES, *GROUPS])
)


class Said(NamedTuple):
    code: int
    text: str


def say(*words: str, train: Callable[[Job], object] | None = None, **environment: str) -> Said:
    """What the door of trainings, in this process, says to a command line; `train` takes the training's place."""
    script = runpy.run_path(DOOR[1], run_name="train")
    out, before = io.StringIO(), Path.cwd()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(sys, "argv", [DOOR[1], *TINY, f"data.cache_dir={CACHE}", *words]),
        mock.patch.dict(os.environ, {"HYDRA_MAIN_MODULE": "__main__", **environment}),
        mock.patch("upsweep.training.job.train", train or training_job.train),
        mock.patch("upsweep.cli.watch_parent"),
        mock.patch("upsweep.training.console.show_end"),
        redirect_stdout(out),
        redirect_stderr(out),
    ):
        os.chdir(folder)
        try:
            script["main"]()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os.chdir(before)
            GlobalHydra.instance().clear()
            logging.getLogger().handlers.clear()
    return Said(code, out.getvalue())


CACHE = Path(tempfile.gettempdir()) / "upsweep-tests-cache"


def built(job: Job) -> mock.Mock:
    """Everything that a config describes is built; nothing is trained."""
    job.start(job.generator)
    trainer_of(job.trainer, data=job.task.data, callbacks=job.callbacks, logger=job.logger, default_root_dir=job.folder)
    return mock.Mock(objective=None)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["norm=null"], "norm=null"),
        (["logger=3"], "logger=3"),
        (["~logger"], "logger"),
        (["~norm"], "norm"),
        (["degradation=[]"], "degradation"),
        (["seed=-1"], "seed=-1"),
        (["seed=abc"], "seed=abc"),
        (["seed=${nope}"], "seed"),
        (["optimizer.lr=null"], "optimizer.lr=null"),
        (['optimizer.lr="1e-3"'], "optimizer.lr=1e-3"),
        (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9]"),
        (["data.augment=maybe"], "data.augment=maybe"),
        (["data=folder", "data.root=[a]"], "data.root=['a']"),
        (["generator.recipe=null"], "generator.recipe=null"),
        (["trainer.deterministic=x"], "trainer.deterministic=x"),
        (["norm._target_=null"], "norm={'_target_': None"),
        (["callbacks.pictures=3"], "callbacks.pictures=3"),
        (["objective._target_=torch.nn.Foo"], "torch.nn.Foo"),
        (["+objective.reduction=x"], "objective.reduction=x"),
        (["scheduler.final=2"], "scheduler.final=2"),
        (["logger=csv", "logger.flush_logs_every_n_steps=0"], "logger.flush_logs_every_n_steps=0"),
        (["logger=wandb", "logger.tags=[1]"], "logger.tags=[1]"),
        (["trainer.max_steps=4"], "write +trainer.max_steps=4"),
        (["+trainer.foo=4"], "There is no trainer.foo"),
        (["+trainer.callbacks=[]"], "+callbacks.NAME._target_=package.Class"),
        (["+training._target_=torch.nn.Linear"], "must be a subclass of upsweep.training.supervised.Supervised"),
        (
            ["adversary=dcgan", "+training._target_=upsweep.training.supervised.Supervised"],
            "must be a subclass of upsweep.training.adversarial.Adversarial",
        ),
        (["+training._target_=no.such.Class"], "no.such.Class"),
        (["+training._target_=upsweep.training.supervised.Supervised", "+training.foo=1"], "foo"),
        (["logger=none", "+logger._target_=collections.Counter"], "logger=collections.Counter is no logger"),
        (["logger=csv", "logger._target_=torch.nn.Linear"], "logger=torch.nn.Linear cannot be made"),
        (["logger=[csv,wandb]", "logger.mode=online"], "with several, write logger.wandb.mode."),
        (["logger=[csv,wandb]", "+logger.foo=1"], "logger.foo is of no logger"),
        (["logger=[csv,nope]"], "There is no logger=nope; choose from csv, mlflow, none, tensorboard, wandb."),
        (["hydra/launcher=foo"], "There is no hydra/launcher=foo; choose from basic, "),
        (["task=generation", "generator=sesr"], "generator.latent, which generator=sesr does not have: choose another"),
        (["+foo=${generator.nope}"], "needs generator.nope, which"),
        (["degradation=[blur,jpeg]", "norm=null"], "There is no norm=null; choose from bn, "),
        (["-m", "init=glob(x*)", "norm=null"], "There is no norm=null; choose from bn, "),
        (["-m", "init=he,xavier", "norm=null"], "There is no norm=null; choose from bn, "),
        (["-m", "init=he,xavier", "norm=bn,null"], "There is no norm=null; choose from bn, "),
        (["experiment=release/sesr_x5"], "There is no experiment=release/sesr_x5; choose from release/below_14000, "),
    ],
)
def test_what_cannot_be_used_is_told_by_its_key_and_value(words: list[str], names: str) -> None:
    said = say(*words, train=built)
    assert said.code == 1 and "Traceback" not in said.text and names in said.text
    assert len(said.text.strip().splitlines()) == 1, said.text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["init=xavier,he"], "init=xavier,he has several values: add -m to run a job for each, or write 'init=[...]'"),
        (["seed=range(1,3)"], "seed=range(1,3) has several values: add -m"),
        (["docs/photos/cat.jpg"], "docs/photos/cat.jpg is not understood: write KEY=VALUE"),
        (["-m", "--cfg", "job"], "leave -m out"),
        (["debug=fast", "checkpoint=outputs/nothing"], "checkpoint=outputs/nothing: there is no such checkpoint"),
    ],
)
def test_a_slip_of_the_keyboard_is_one_sentence(words: list[str], sentence: str) -> None:
    said = say(*words, train=built)
    assert said.code == 1 and sentence in said.text and len(said.text.strip().splitlines()) == 1, said.text


def test_a_flag_may_stand_between_overrides() -> None:
    assert together(["seed=1,2", "-m", "debug=fast"]) == ["seed=1,2", "debug=fast", "-m"]
    typed = ["a=1", "--config-dir", "x=y", "~b", "--info", "config", "c=1"]
    assert together(typed) == ["a=1", "~b", "c=1", "--config-dir", "x=y", "--info", "config"]
    for typed in (["-m", "a=1", "b=2"], ["a=1", "--info", "config"], []):
        assert together(typed) == typed
    assert say("seed=1", "--config-dir", str(ROOT / "conf"), "debug=fast", train=built).code == 0


@settings(max_examples=10, deadline=None)
@given(st.lists(OVERRIDES, min_size=1, max_size=2))
def test_no_command_line_ends_in_a_traceback(words: list[str]) -> None:
    said = say(*words, train=built)
    assert said.code in (0, 1) and "Traceback" not in said.text, said.text


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(OVERRIDES, min_size=1, max_size=1))
def test_nor_does_what_then_trains(words: list[str]) -> None:
    said = say(*words)
    assert said.code in (0, 1) and "Traceback" not in said.text, said.text


@pytest.mark.parametrize(("name", "value"), [("RANK", "x"), ("WORLD_SIZE", "two"), ("LOCAL_RANK", "-1")])
def test_a_rank_that_is_no_number_is_told(name: str, value: str) -> None:
    said = say(train=built, **{name: value})
    assert said.code == 1 and said.text.startswith(f"{name}={value} in the environment")


def test_a_bug_keeps_its_traceback_and_so_does_what_is_asked_for_in_full() -> None:
    def broken(job: Job) -> object:
        raise TypeError("a bug")

    assert "Traceback" in (text := say(train=broken).text) and "TypeError: a bug" in text
    with pytest.raises(UserError, match="seed=-1"):
        say("seed=-1", train=built, HYDRA_FULL_ERROR="1")


def test_a_process_that_srun_did_not_start_is_no_rank_of_its_allocation() -> None:
    step = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "train", "RANK": ""}
    shell = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_NAME": "bash -l"}
    for found, name in ((dict(step), "train"), (dict(shell), "interactive"), ({"SLURM_NTASKS": "2"}, "interactive")):
        settle_ranks(found)
        assert found["SLURM_JOB_NAME"] == name and "RANK" not in found
    alone: dict[str, str] = {}
    settle_ranks(alone)
    assert alone == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SLURM_NTASKS": "2"}, None),
        ({"RANK": "", "WANDB_MODE": ""}, None),
        ({"PYTHONWARNINGS": "error"}, None),
        ({"WANDB_DISABLED": "true"}, None),
        ({"TORCH_LOGS": "foo"}, "foo"),
        ({"WANDB_SILENT": "maybe"}, "silent"),
    ],
)
def test_no_environment_ends_a_real_run_but_with_a_sentence(
    tmp_path: Path, environment: dict[str, str], sentence: str | None
) -> None:
    done = subprocess.run(
        [*DOOR, *TINY, "logger=wandb", "hydra.run.dir=out"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and done.returncode == (sentence is not None), done.stderr
    assert sentence is None or sentence in done.stderr
    assert "WANDB_DISABLED" not in environment or not list((tmp_path / "out").glob("wandb/*run-*"))


def test_a_switch_is_no_path_and_lists_of_lists_are_hydras() -> None:
    typed = ["generator.checkpoint=true", "data.root=2024", "data.root=true x", "-m", "k=[a (1),b],[c,d]"]
    assert readable(typed) == [typed[0], "data.root='2024'", "data.root=true x", "-m", typed[-1]]


@pytest.mark.parametrize("several", ["init=[he,xavier]", "norm=[none, bn]", "data=[photos,digits]"])
def test_several_of_a_group_that_takes_one_are_not_merged(several: str) -> None:
    with pytest.raises(UserError, match=r"a run takes one choice of \w+\. For a sweep over them: -m \w+=\w+,\w+$"):
        hold_to_one_each([several], [ROOT / "conf"])


def test_several_degradations_and_metrics_and_lists_that_choose_nothing_are_taken() -> None:
    hold_to_one_each(
        ["degradation=[blur,noise]", "metrics=[mae,vif]", "benchmark=[set5,set14]", "init=he"], [ROOT / "conf"]
    )


def test_a_group_chosen_within_another_is_named_as_hydra_names_it() -> None:
    folders = [ROOT / "conf"]
    said = ["adversary.recipe.norm=spectral,none", "adversary.optimizer=sgd", "adversary.recipe.init=no_such"]
    named = ["norm@adversary.recipe.norm=spectral,none", "optimizer@adversary.optimizer=sgd"]
    assert in_place(said, folders) == [*named, "init@adversary.recipe.init=no_such"]
    assert in_place(named, folders) == named, "ranks and jobs repeat the command line"
    assert in_place(["-m", *said], folders)[1:3] == [named[0], "optimizer@adversary.optimizer=choice(sgd)"]
    others = ["norm=bn", "adversary.r1=1", "adversary.optimizer.lr=1e-3", "callbacks.pictures=null", "-m", "x.norm=bn"]
    assert in_place(others, folders) == others
    assert key_and_value("norm@adversary.recipe.norm=spectral") == ("adversary.recipe.norm", "spectral")


def test_an_experiment_may_have_a_version_for_a_task(tmp_path: Path) -> None:
    folders = [ROOT / "conf", tmp_path]
    said = ["experiment=article_study", "task=generation"]
    assert of_the_task(said, folders) == ["experiment=article_study/generation", "task=generation"]
    for others in (
        said[:1],
        ["experiment=article_study", "task=super_resolution"],
        ["experiment=x", "task=generation"],
    ):
        assert of_the_task(others, folders) == others
    (tmp_path / "experiment" / "x").mkdir(parents=True)
    (tmp_path / "experiment" / "x" / "generation.yaml").write_text("# @package _global_\n", encoding="utf-8")
    assert of_the_task(["experiment=x", "task=generation"], folders)[0] == "experiment=x/generation"


def test_the_folders_of_ones_own_configs_are_found_however_they_are_named() -> None:
    typed = ["--config-dir", "a", "--config-dir=b", "-cd", "c", "seed=1"]
    assert config_dirs(typed) == [Path("a"), Path("c"), Path("b")]


def test_the_discriminators_norm_is_not_the_generators(tmp_path: Path) -> None:
    command = [*DOOR, "task=generation", "norm=none", "adversary.recipe.norm=spectral", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    config = OmegaConf.create(done.stdout)
    assert config.norm._target_.endswith("norm.Norm")
    assert config.adversary.recipe.norm._target_.endswith("SpectralNorm")
    unknown = subprocess.run(
        [*command[:-3], "adversary.recipe.norm=no_such"], capture_output=True, text=True, cwd=tmp_path
    )
    assert unknown.returncode == 1 and unknown.stderr.startswith("There is no norm=no_such; choose from bn, ")


@pytest.mark.slow
def test_a_choice_within_a_swept_adversary_is_swept_with_it(tmp_path: Path) -> None:
    command = [*DOOR, "-m", "task=generation", "generator=vae", "adversary=dcgan,hinge"]
    small = ["trainer=cpu", "trainer.max_epochs=1", "data.patches_per_epoch=64", "data.samples=50", "logger=none"]
    command += ["adversary.recipe.norm=none", *small, "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    settings = [(Result.read(tmp_path / "sweep" / job) or pytest.fail()).settings for job in "01"]
    assert [one["adversary"] for one in settings] == ["dcgan", "hinge"]
    assert {one["adversary.recipe.norm"] for one in settings} == {"none"}
