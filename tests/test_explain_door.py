"""The door of explanations, as a user meets it: one command, its files, and a sentence where it was asked wrongly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from tests.small_synthesisers import trained
from tests.test_explaining import Own, a_photo, a_sweep, samples

from upsweep.explaining import latents, upscalers
from upsweep.explaining.page import PAGE
from upsweep.runs.layout import PAGE as REPORT
from upsweep.runs.layout import WHY
from upsweep.runs.why import Why

pytestmark = pytest.mark.slow

DOORS = Path(__file__).resolve().parent.parent / "src"
QUICK = ["size=8", "lam.fold=3", "patches.side=8", "features.crop=12", "device=cpu"]
TINY = [
    *("trainer=cpu", "debug=fast", "callbacks.pictures=null", "generator.width=4", "generator.depth=1"),
    *("data.patch_size=8", "data.patches_per_epoch=64", "quiet=true"),
]


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(DOORS / f"{name}.py"), *arguments]


def door(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(DOORS.parent)}  # the tests' own classes
    return subprocess.run(command(name, *arguments), cwd=cwd, capture_output=True, text=True, env=env)


def there(folder: Path) -> list[Path]:
    """All files in a folder but those of caches."""
    return sorted(path for path in folder.rglob("*") if ".cache" not in path.parts)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return a_photo(tmp_path / "my photo.png", samples())


def test_one_command_leaves_a_page_and_six_pictures_and_says_the_table(tmp_path: Path, photo: Path) -> None:
    # An empty list of loggers is none.
    done = door("explain", "checkpoint=fsrcnn_x2", f"input={photo}", "output=out", "logger=[]", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    title, headers, row, page = done.stdout.splitlines()
    assert title.startswith("fsrcnn_x2 before my photo, the 8x8 HR pixels at [")
    assert headers.startswith("network") and "DI" in headers and row.startswith("fsrcnn_x2")
    assert page == f"Page: {tmp_path.resolve() / 'out' / PAGE}"
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == sorted([PAGE, *(f"{part}.png" for part in upscalers.PARTS)])
    for part in upscalers.PARTS:
        with Image.open(tmp_path / "out" / f"{part}.png") as picture:
            picture.load()
    # Matplotlib's list of fonts lies with other caches, and not in the home folder.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache", "my photo.png", "out"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lam.steps=3"], "lam.steps"),
        (["inptu=photo.png"], "inptu"),
        (["lam.fold=many"], "lam.fold=many must be"),
        (["overwrite=maybe"], "overwrite=maybe must be"),
        (["input=missing.png"], "missing.png: cannot be read"),
        (["input=my photo.png", "at=[99,0]"], "at=[99,0] is not in my photo.png, which has 80x64 pixels"),
        (["input=my photo.png", "parts=magic"], "parts=magic does not exist"),
        (["input=my photo.png", "device=warp"], "device=warp"),
        (["checkpoint=missing.ckpt"], "There is no checkpoint at missing.ckpt"),
        (["checkpoint=broken.ckpt"], "broken.ckpt is broken"),
        (["input=my photo.png", "output=full"], "full already exists and has files"),
        (["sweep=missing"], "sweep=missing does not exist"),
    ],
)
def test_what_is_asked_wrongly_costs_a_sentence(tmp_path: Path, photo: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    before = there(tmp_path)
    done = door("explain", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert there(tmp_path) == before


def test_help_is_quick_and_knows_every_key(tmp_path: Path) -> None:
    began = os.times()
    done = door("explain", "--help", cwd=tmp_path)
    ended = os.times()
    assert done.returncode == 0
    assert all(key in done.stdout for key in ("checkpoint:", "fold: 50", "logger=", "wandb"))
    assert ended.children_user - began.children_user < 3  # torch alone takes as long


def test_ctrl_c_ends_it_and_leaves_nothing_half(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("explain", "output=out", "lam.fold=10000", "device=cpu"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline().startswith("fsrcnn_x2 before coffee")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in (-signal.SIGINT, 128 + signal.SIGINT)
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.html"))


def test_a_sweep_that_was_trained_is_explained_once(tmp_path: Path, photo: Path) -> None:
    swept = door("train", "-m", "norm=none,bn", f"hydra.sweep.dir={tmp_path / 'sweep'}", *TINY, cwd=tmp_path)
    assert swept.returncode == 0, swept.stderr
    asked = ["sweep=sweep", f"input={photo}", *QUICK]
    written: list[list[int]] = []
    for expected in ("2 jobs before my photo", "0 jobs were explained now"):
        done = door("explain", *asked, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout and f"Report: {tmp_path.resolve() / 'sweep' / REPORT}" in done.stdout
        written.append([(tmp_path / "sweep" / name / WHY).stat().st_mtime_ns for name in "01"])
    assert written[0] == written[1]
    records = [Why.read(tmp_path / "sweep" / name) for name in "01"]
    assert all(record is not None and {"di", "restored"} <= {*record.figures} for record in records)
    assert 'id="why"' in (tmp_path / "sweep" / REPORT).read_text(encoding="utf-8")


def test_a_sweep_that_was_killed_goes_on(tmp_path: Path, photo: Path) -> None:
    sweep = a_sweep(tmp_path / "sweep", seeds=(1, 2, 3, 4))
    asked = ["sweep=sweep", f"input={photo}", *QUICK]
    process = subprocess.Popen(
        command("explain", *asked), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (sweep / "0" / WHY).is_file():
        assert process.poll() is None and time.monotonic() < deadline, "the first job is not explained"
        time.sleep(0.02)
    process.kill()
    process.wait(60)
    kept = {path: path.stat().st_mtime_ns for path in sweep.glob(f"*/{WHY}")}
    assert 0 < len(kept) < 4
    assert all(Why.read(path.parent) is not None for path in kept)
    done = door("explain", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{4 - len(kept)} jobs were explained now; earlier explanations are kept" in done.stdout
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert len(list(sweep.glob(f"*/{WHY}"))) == 4


def test_a_sweep_of_generators_from_latents_is_explained(tmp_path: Path) -> None:
    swept = door(
        "train",
        *("-m", "task=generation", "generator=vae", "init=he,xavier", f"hydra.sweep.dir={tmp_path / 'sweep'}"),
        *("trainer=cpu", "debug=fast", "callbacks.pictures=null", "generator.width=4", "quiet=true"),
        cwd=tmp_path,
    )
    assert swept.returncode == 0, swept.stderr
    done = door("explain", "sweep=sweep", "latents.latents=4", "latents.walks=2", "latents.shown=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 jobs before latents, beside digits" in done.stdout
    for name in "01":
        found = sorted(path.name for path in (tmp_path / "sweep" / name / "why").iterdir())
        assert found == sorted([PAGE, *(f"{part}.png" for part in latents.PARTS)])
    assert 'id="why"' in (tmp_path / "sweep" / REPORT).read_text(encoding="utf-8")


def test_a_class_of_ones_own_is_explained_where_a_config_names_it(tmp_path: Path, photo: Path) -> None:
    target = f"{Own.__module__}.{Own.__name__}"
    run = trained(tmp_path / "run", spec={"_target_": target, "scale": 2, "channels": 1})
    (tmp_path / "mine" / "generator").mkdir(parents=True)
    (tmp_path / "mine" / "generator" / "own.yaml").write_text(f"# mine\n_target_: {target}\n", encoding="utf-8")
    asked = [f"checkpoint={run}", f"input={photo}", "parts=frequencies", "output=out", *QUICK]
    refused = door("explain", *asked, cwd=tmp_path)
    assert refused.returncode == 1 and target in refused.stderr and refused.stderr.count("\n") == 1
    done = door("explain", *asked, "--config-dir=mine", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("run before my photo"), done.stderr
