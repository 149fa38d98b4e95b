"""The wheel: what it holds, and that its commands work from an empty folder where no checkout is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upsweep.runs.result import Result

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def test_every_command_has_a_script_in_the_checkout_and_one_in_the_wheel() -> None:
    doors = {path.stem for path in (ROOT / "src" / "upsweep" / "doors").glob("[a-z]*.py")}
    assert {f"upsweep-{door}": f"upsweep.doors.{door}:main" for door in doors} == SCRIPTS
    assert doors <= {path.stem for path in (ROOT / "src").glob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of a copy of the sources, and the wheel that was built of that."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "sources"
    for name in ("src", "conf", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "conf" / "local").mkdir(exist_ok=True)
    (copy / "conf" / "local" / "default.yaml").write_text("# Of this machine\nseed: 7\n", encoding="utf-8")
    code = "from setuptools import build_meta; build_meta.build_sdist('..')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    subprocess.run([*pip, str(sdist)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def commands(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands in an environment that has the wheel, and this one's libraries but not its upsweep.

    A `.pth` file names the folder of the libraries: the `.pth` files in that, an editable install's, count for nothing.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    libraries = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", f"--python={folder / 'bin' / 'python'}", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return folder / "bin"


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_of_conf_and_nothing_else(built: Path) -> None:
    def below(folder: Path, name: str) -> set[str]:
        files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {f"{name}/{path.relative_to(folder)}" for path in files}

    conf = {path for path in below(ROOT / "conf", "upsweep/conf") if not path.startswith("upsweep/conf/local")}
    wanted = below(ROOT / "src" / "upsweep", "upsweep") | below(ROOT / "src" / "hydra_plugins", "hydra_plugins") | conf
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == wanted
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = [name.partition("/")[2] for name in packed.getnames()]
    assert not [name for name in names if name.startswith(("tests", "conf/local")) or "__pycache__" in name]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_an_empty_folder_its_commands_enlarge_train_sweep_and_report(commands: Path, tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "my project"
    home.mkdir()
    here.mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "TMPDIR")}
    environment = {**kept, "PATH": f"{commands}:/usr/bin:/bin", "HOME": str(home), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(commands.parent) in run("python", "-c", "import upsweep; print(upsweep.__file__)")
    noise = np.random.default_rng(1).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(here / "photo.png")
    run("upsweep-upscale", "input=photo.png", "scale=3")
    assert Image.open(here / "photo_x3.png").size == (36, 27)

    small = ["debug=fast", "data.patch_size=8", "generator.width=4", "generator.depth=1"]
    run("upsweep-train", "-m", *small, "init=xavier,he", "hydra.sweep.dir=multirun/two")
    results = [Result.read(here / "multirun" / "two" / name) for name in "01"]
    assert [r and (r.state, r.choices["init"]) for r in results] == [("finished", "xavier"), ("finished", "he")]
    (here / "multirun" / "two" / "report.html").unlink()
    said = run("upsweep-report", "sweep=multirun/two", "detect=0.1")
    assert "upsweep-train -m " in (here / "multirun" / "two" / "report.html").read_text(encoding="utf-8")
    assert "upsweep-train -m resume=multirun/two seed=" in said

    code = f"import upsweep; run = upsweep.train(*{small!r}, quiet=True); print(run.state, run.generator().scale)"
    assert run("python", "-c", code).endswith("finished 2\n")
    assert {path.name for path in here.iterdir()} == {"photo.png", "photo_x3.png", "outputs", "multirun", ".cache"}
    assert not [*home.iterdir()]
