"""What jobs read is looked for before the first of them starts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from upsweep.common.errors import UserError
from upsweep.data.sources import Folder
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image
from upsweep.runs.layout import LAST
from upsweep.sweeps import inputs
from upsweep.sweeps.inputs import check_inputs, still_read
from upsweep.tracking.weights import DISTILLED

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ROOT / "src" / "train.py"


def config(source: Any = None, **rest: Any) -> DictConfig:
    node = source and {"_target_": f"upsweep.data.sources.{source['kind']}"} | {
        key: value for key, value in source.items() if key != "kind"
    }
    return OmegaConf.create({"data": {"source": node}, "checkpoint": None, "init_from": None, **rest})


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A folder of one image."""
    write_image(tmp_path / "photos" / "a.png", Picture(np.zeros((8, 8, 3), dtype=np.uint8)), marked=False)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPSWEEP_DATA", raising=False)


KNOWN = {"kind": "Known", "name": "t91", "val_set": "bsds500_test"}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"kind": "Folder", "root": None}, "data=folder needs a folder of images: set data.root=PATH."),
        ({"kind": "Folder", "root": "nowhere"}, "data.root=nowhere is not a folder in "),
        ({"kind": "Folder", "root": "empty"}, "data.root=empty has no images"),
        ({"kind": "Folder", "root": "photos", "val_root": "nowhere"}, "data.val_root=nowhere is not a folder in "),
        ({"kind": "Pairs", "scale": 2, "lr_root": None, "hr_root": "photos"}, "data=pairs needs two folders"),
        ({"kind": "Pairs", "scale": 2, "lr_root": "nowhere", "hr_root": "photos"}, "data.lr_root=nowhere is not a"),
        (KNOWN | {"root": None}, "The folder of the data sets is not set: set data.root=PATH or the variable"),
        (KNOWN | {"root": "nowhere"}, "data.root=nowhere is not a folder."),
        (KNOWN | {"root": "empty"}, "T91 was not found: no images in empty/T91"),
        ({"kind": "Classes", "name": "mnist", "root": "empty"}, "MNIST was not found in empty/MNIST/raw"),
    ],
)
def test_images_that_are_not_there_are_named(photo: Path, source: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as told:
        check_inputs([config({"kind": "Photos"}), config(source)])
    assert str(told.value).startswith(sentence)


@pytest.mark.parametrize("key", ["checkpoint", "init_from", "objective.teacher"])
def test_weights_that_are_not_there_are_named(key: str) -> None:
    asking = OmegaConf.create({"objective": {"_target_": DISTILLED}})
    OmegaConf.update(asking, key, "none.ckpt")
    with pytest.raises(UserError, match=f"^{key}=none.ckpt: there is no such checkpoint"):
        check_inputs([config(), asking])


@pytest.mark.parametrize("key", ["checkpoint", "init_from"])
def test_a_run_with_a_checkpoint_of_its_own_needs_no_weights_to_start_from(tmp_path: Path, key: str) -> None:
    asking = config(**{key: "gone.ckpt"})
    with pytest.raises(UserError, match=f"^{key}=gone.ckpt: there is no such checkpoint"):
        check_inputs([still_read(asking, tmp_path)])
    (tmp_path / LAST).parent.mkdir()
    (tmp_path / LAST).touch()
    check_inputs([still_read(asking, tmp_path)])
    with pytest.raises(UserError, match="folder of images"):
        check_inputs([still_read(config({"kind": "Folder", "root": None}), tmp_path)])


def test_the_config_names_the_objective_whose_teacher_is_looked_for() -> None:
    said = OmegaConf.load(ROOT / "conf" / "objective" / "distilled.yaml")
    assert isinstance(said, DictConfig) and said["_target_"] == DISTILLED


def test_a_teacher_of_an_objective_of_one_s_own_is_its_own_matter() -> None:
    objective = {"_target_": "mine.Perceptual", "teacher": "resnet50"}
    check_inputs([config(objective=objective)])
    terms = {
        "_target_": "upsweep.objectives.weighted.WeightedSum",
        "terms": {"a": {**objective, "_target_": DISTILLED}},
    }
    with pytest.raises(UserError, match=r"^objective\.terms\.a\.teacher=resnet50: there is no such checkpoint"):
        check_inputs([config(objective=terms)])
    check_inputs([config(objective=terms, scale=None)])  # nothing is enlarged: the job says so


@pytest.mark.parametrize("said", ["fsrcnn_x2", "photos/a.png", "run", ["a", "b"]])
def test_weights_by_name_a_file_a_run_s_folder_and_what_the_job_refuses_pass(photo: Path, said: object) -> None:
    (photo.parent / "run" / "checkpoints").mkdir(parents=True)
    (photo.parent / "run" / "checkpoints" / "best.ckpt").touch()
    check_inputs([config(checkpoint=said)])


def test_a_folder_that_is_no_run_s_is_named(photo: Path) -> None:
    with pytest.raises(UserError, match=r"photos has no checkpoints/best\.ckpt: give a run's folder"):
        check_inputs([config(checkpoint="photos")])


@pytest.mark.parametrize(
    "node",
    [
        None,
        {"kind": "Digits"},
        {"kind": "Photos"},
        {"kind": "Folder", "root": "photos"},
        {"kind": "Folder", "rooot": "photos"},
        {"kind": "Folder", "root": "${nothing}"},
        {"kind": "Folder", "root": ["photos"]},
        KNOWN | {"root": "new", "download": True},
    ],
)
def test_what_is_there_what_is_fetched_and_what_the_job_tells_better_pass(photo: Path, node: Any) -> None:
    check_inputs([config(node), OmegaConf.create({"checkpoint": None})])


def test_a_source_of_ones_own_need_not_check() -> None:
    check_inputs([OmegaConf.create({"data": {"source": {"_target_": "builtins.dict"}}})])


def test_jobs_that_read_the_same_look_for_it_once(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Folder] = []
    monkeypatch.setattr(Folder, "check", lambda source: looked.append(source))
    same = [config({"kind": "Folder", "root": "photos"}, seed=seed) for seed in (1, 2, 3)]
    check_inputs([*same, config({"kind": "Folder", "root": "empty"})])
    assert [source.root for source in looked] == ["photos", "empty"]


@pytest.mark.parametrize("among", [False, True], ids=["alone", "among several"])
def test_the_package_of_a_logger_is_missed_before_any_job(monkeypatch: pytest.MonkeyPatch, among: bool) -> None:
    monkeypatch.setattr(inputs, "find_spec", lambda _: None)
    node = {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "name": "${nope}"}
    with pytest.raises(
        UserError, match=r"^logger=tensorboard needs TensorBoard: pip install -e '\.\[tensorboard\]'\.$"
    ):
        check_inputs([config(logger={"csv": {"_target_": "a.B"}, "tensorboard": node} if among else node)])


def test_looking_brings_no_torch(photo: Path) -> None:
    code = (
        "import sys\nfrom omegaconf import OmegaConf\nfrom upsweep.sweeps.inputs import check_inputs\n"
        "node = {'_target_': 'upsweep.data.sources.Folder', 'root': 'photos'}\n"
        "check_inputs([OmegaConf.create({'data': {'source': node}})])\n"
        "assert 'upsweep.data.sources' in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "data=photos,folder", "+data.root=nowhere", "hydra.sweeper.max_batch_size=1"],
        ["data=folder", "data.root=nowhere"],
    ],
    ids=["sweep", "run"],
)
def test_a_missing_folder_ends_a_command_before_any_job(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, str(TRAIN), *arguments, "hydra.sweep.dir=sweep", "hydra.run.dir=run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = f"data.root=nowhere is not a folder in {tmp_path}.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert not [path for path in Path("sweep").glob("*") if path.is_dir()]
    assert not Path("run", "result.json").exists()
