"""The names of data sets: found in every layout in circulation, and never an LR image for an HR one."""

from pathlib import Path

import numpy as np
import pytest

from upsweep.common.errors import UserError
from upsweep.data.known import (
    BENCHMARKS,
    SETS,
    TRAINING,
    benchmark_files,
    data_root,
    present_benchmarks,
    training_files,
)
from upsweep.evaluation.benchmarks import find_benchmarks
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def below(root: Path, files: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("set5", "Set5/HR/baby.png"),
        ("set5", "Set5/GTmod12/baby.png"),
        ("set5", "Set5/original/baby.png"),
        ("set5", "set5/baby.bmp"),
        ("set5", "benchmarks/Set5/baby.png"),
        ("set14", "benchmark/Set14/HR/baboon.png"),
        ("bsd100", "BSD100/100075.jpg"),
        ("bsd100", "benchmark/B100/HR/100075.png"),
        ("bsd100", "BSDS100/100075.png"),
        ("bsd100", "BSDS500/data/images/val/100075.jpg"),
        ("urban100", "Urban100/HR/img001.png"),
        ("urban100", "Urban100/image_SRF_2/img_001_SRF_2_HR.png"),
        ("manga109", "MANGA109/hr/AisazuNihaIrarenai.PNG"),
    ],
)
def test_benchmarks_are_found_in_every_layout(tmp_path: Path, name: str, file: str) -> None:
    touch(tmp_path, file)
    assert below(tmp_path, benchmark_files(name, tmp_path)) == [file]
    assert present_benchmarks(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("t91", ["train/T91/t1.png"]),
        ("t91", ["T91/t1.bmp"]),
        ("bsd200", ["BSR/BSDS500/data/images/train/100080.jpg"]),
        ("bsds500_test", ["train/BSDS500-test/100007.jpg"]),
        ("t91_bsd200", ["T91/t1.png", "BSD200/100080.png"]),
        ("free", ["train/Free/a.png"]),
        ("kodak24", ["Kodak24/kodim01.png"]),
        ("mixed", ["T91/t1.png", "BSD200/100080.png", "BSDS500-test/100007.jpg", "Free/a.png"]),
        ("div2k", ["DIV2K_train_HR/0001.png"]),
        ("div2k", ["DIV2K/DIV2K_train_HR/0001.png"]),
        ("div2k_valid", ["DIV2K/DIV2K_valid_HR/0801.png"]),
        ("df2k", ["DIV2K/DIV2K_train_HR/0001.png", "Flickr2K/Flickr2K_HR/000001.png"]),
        ("df2k", ["DIV2K_train_HR/0001.png", "flickr2k/000001.png"]),
    ],
)
def test_training_sets_are_found_in_every_layout(tmp_path: Path, name: str, files: list[str]) -> None:
    touch(tmp_path, *files)
    assert below(tmp_path, training_files(name, tmp_path)) == files


def test_lr_images_beside_are_never_taken(tmp_path: Path) -> None:
    lr = [
        *("Set5/LR_bicubic/X2/babyx2.png", "Set5/LRbicx2/baby.png", "Set5/bicubic/baby.png"),
        *("Set14/image_SRF_2/img_001_SRF_2_LR.png", "Set14/image_SRF_2/img_001_SRF_2_bicubic.png"),
        *("DIV2K/DIV2K_train_LR_bicubic/X2/0001x2.png", "DIV2K_valid_LR_unknown/X2/0801x2.png"),
        *("Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png",),
    ]
    touch(tmp_path, *lr)
    assert present_benchmarks(tmp_path) == []
    for name in TRAINING:
        with pytest.raises(UserError, match="was not found"):
            training_files(name, tmp_path)
    hr = ["Set5/HR/b.png", "Set5/HR/a.png", "Set14/image_SRF_2/img_001_SRF_2_HR.png"]
    touch(tmp_path, *hr)
    assert below(tmp_path, benchmark_files("set5", tmp_path)) == ["Set5/HR/a.png", "Set5/HR/b.png"]
    assert below(tmp_path, benchmark_files("set14", tmp_path)) == hr[2:]


def test_a_benchmark_is_found_without_what_upsweep_made_of_it(tmp_path: Path) -> None:
    (tmp_path / "Set5").mkdir()
    for name in ("baby", "baby_x2"):
        picture = Picture(np.zeros((8, 8, 3), np.uint8))
        write_image(tmp_path / "Set5" / f"{name}.png", picture, marked=name != "baby")
    assert below(tmp_path, benchmark_files("set5", tmp_path)) == ["Set5/baby.png"]
    with pytest.raises(UserError, match="has only images that upsweep made"):
        (tmp_path / "mine").mkdir()
        write_image(tmp_path / "mine" / "a.png", picture)
        find_benchmarks(str(tmp_path / "mine"), None)


def test_the_least_cropped_files_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, "Set5/GTmod12/baby.png", "Set5/original/baby.png")
    assert below(tmp_path, benchmark_files("set5", tmp_path)) == ["Set5/original/baby.png"]


def test_the_root_may_be_the_set(tmp_path: Path) -> None:
    touch(tmp_path, "Set5/HR/a.png", "DIV2K/DIV2K_train_HR/0001.png", *(f"mine/{n}.png" for n in range(14)))
    for root in ("Set5", "Set5/HR"):
        assert len(benchmark_files("set5", tmp_path / root)) == 1
        with pytest.raises(UserError, match="Set14 was not found"):
            benchmark_files("set14", tmp_path / root)
    for root in ("DIV2K", "DIV2K/DIV2K_train_HR"):
        assert len(training_files("div2k", tmp_path / root)) == 1
    # a folder of any name: the number of its images decides
    assert len(benchmark_files("set14", tmp_path / "mine")) == 14
    with pytest.raises(UserError, match="Set5 was not found"):
        benchmark_files("set5", tmp_path / "mine")
    assert present_benchmarks(tmp_path / "mine") == []


def test_an_incomplete_set_is_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, *(f"Set5/{n}.png" for n in range(3)))
    benchmark_files("set5", tmp_path)
    assert "Set5 has 5 images, this copy has 3" in caplog.text


def test_the_root_is_an_argument_or_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSWEEP_DATA", raising=False)
    with pytest.raises(UserError, match=r"set data\.root=PATH or the variable UPSWEEP_DATA"):
        data_root(None)
    monkeypatch.setenv("UPSWEEP_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"UPSWEEP_DATA=.*nowhere is not a folder"):
        benchmark_files("set5", None)
    monkeypatch.setenv("UPSWEEP_DATA", str(touch(tmp_path, "Set5/a.png")))
    assert present_benchmarks(None) == ["set5"]
    with pytest.raises(UserError, match=r"data\.root=.*other is not a folder"):
        present_benchmarks(tmp_path / "other")


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no benchmark t91; choose from set5, set14"):
        benchmark_files("t91", tmp_path)
    with pytest.raises(UserError, match="no training set set5; choose from t91"):
        training_files("set5", tmp_path)  # a benchmark is never trained on
    assert not {part for parts in TRAINING.values() for part in parts} & set(BENCHMARKS)
    assert {part for parts in TRAINING.values() for part in parts} | set(BENCHMARKS) == set(SETS)
