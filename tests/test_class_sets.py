"""Sets of small images with classes are found as people have them, and each of two with the same files for itself."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.small_sets import as_batches, as_idx, as_pictures, as_zip

from upsweep.common.errors import UserError
from upsweep.data.class_sets import CLASS_SETS, class_files, find_classes
from upsweep.data.containers import Inside, read_picture

Write = Callable[[Path], object]


def capital(folder: Path, write: Write) -> None:
    """Files whose names are capitals."""
    write(folder)
    for file in folder.iterdir():
        file.rename(file.with_name(file.name.upper()))


LAYOUTS: dict[str, tuple[str, Write, tuple[int, int]]] = {
    "as torchvision has it": ("mnist", lambda root: as_idx(root / "MNIST" / "raw"), (9, 8)),
    "unpacked": ("mnist", lambda root: as_idx(root / "mnist", suffix=""), (9, 8)),
    "with dots": ("mnist", lambda root: as_idx(root / "mnist", suffix="", spelled=".idx"), (9, 8)),
    "files alone": ("mnist", lambda root: as_idx(root / "generation"), (9, 8)),
    "at the root": ("fashion_mnist", lambda root: as_idx(root, "fashion_mnist"), (9, 8)),
    "as it is published": (
        "fashion_mnist",
        lambda r: as_idx(r / "fashion-mnist/data/fashion", "fashion_mnist"),
        (9, 8),
    ),
    "no test": ("fashion_mnist", lambda r: as_idx(r / "FashionMNIST/raw", "fashion_mnist", test=False), (9, 0)),
    "batches": ("cifar10", lambda root: as_batches(root / "cifar-10-batches-py"), (10, 3)),
    "folders": ("cifar10", lambda root: as_pictures(root / "CIFAR10"), (4, 1)),
    "other folders": ("mnist", lambda root: as_pictures(root / "mnist_png", "training", "testing"), (4, 1)),
    "capitals of files": ("mnist", lambda root: capital(root / "MNIST", as_idx), (9, 8)),
    "capitals of batches": ("cifar10", lambda root: capital(root / "CIFAR10", as_batches), (10, 3)),
    "capitals of a folder": ("mnist", lambda root: as_idx(root / "Generation" / "MNIST" / "RAW"), (9, 8)),
    "capitals of a parent": ("cifar10", lambda root: as_pictures(root / "Datasets" / "cifar10"), (4, 1)),
    "capitals of one part": ("cifar10", lambda root: as_pictures(root / "CIFAR10", "train", "Test"), (4, 1)),
    "capitals of both": ("mnist", lambda root: as_pictures(root / "MNIST_PNG", "Training", "TESTING"), (4, 1)),
    "zip": ("cifar10", lambda root: as_zip(root / "generation" / "cifar10_jpeg.zip"), (4, 1)),
    "folder in a zip": ("mnist", lambda root: as_zip(root / "mnist_png.zip", "mnist_png/"), (4, 1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_set_is_found_as_people_have_it(tmp_path: Path, layout: str) -> None:
    name, write, counts = LAYOUTS[layout]
    write(tmp_path)
    training, test = class_files(name, tmp_path)
    assert (len(training), len(test)) == counts
    assert not training.keys() & test.keys()
    for file in (*training.values(), *test.values()):
        assert read_picture(file).pixels.shape[:2] in ((28, 28), (32, 32))
    assert all(find_classes(other, tmp_path) is None for other in CLASS_SETS if other != name)


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "cifar-10-batches-py"])
def test_the_root_may_be_the_set_itself(tmp_path: Path, folder: str) -> None:
    name = "mnist" if "MNIST" in folder else "cifar10"
    (as_idx if name == "mnist" else as_batches)(tmp_path / folder)
    assert class_files(name, tmp_path / folder)[0]
    assert find_classes("fashion_mnist", tmp_path / folder) is None


def test_sets_of_the_same_file_names_are_told_apart_by_folder_and_by_labels(tmp_path: Path) -> None:
    as_idx(tmp_path / "a" / "MNIST" / "raw")
    as_idx(tmp_path / "a" / "FashionMNIST" / "raw", "fashion_mnist", test=False)
    assert len(class_files("mnist", tmp_path / "a")[1]) == 8
    assert len(class_files("fashion_mnist", tmp_path / "a")[1]) == 0
    as_idx(tmp_path / "b" / "generation", "fashion_mnist")  # no folder says which it is
    assert find_classes("mnist", tmp_path / "b") is None
    assert find_classes("fashion_mnist", tmp_path / "b") is not None


@pytest.mark.parametrize("name", ["mnist-c", "MNIST-M", "emnist", "cifar100", "cifar-100-python"])
def test_sets_of_like_names_are_not_taken_for_it(tmp_path: Path, name: str) -> None:
    as_pictures(tmp_path / name)
    assert find_classes("mnist", tmp_path) is None
    assert find_classes("cifar10", tmp_path) is None


def test_files_of_other_kinds_in_a_folder_of_a_set_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    as_pictures(tmp_path / "MNIST")
    (some, *_) = (folder for folder in (tmp_path / "MNIST").rglob("*") if any(folder.glob("*.png")))
    (some / "zebra.gif").touch()
    found = find_classes("mnist", tmp_path)
    assert found is not None and "1 file is passed over (not PNG, JPEG, BMP, TIFF or WebP): zebra.gif." in caplog.text


def test_labels_are_kept(tmp_path: Path) -> None:
    as_batches(tmp_path / "cifar-10-batches-py")
    as_idx(tmp_path / "MNIST" / "raw")
    classes = [file.label for file in class_files("mnist", tmp_path)[0].values() if isinstance(file, Inside)]
    assert classes == ["5", "0", "4", "1", "9", "2", "1", "3", "3"]
    cifar = class_files("cifar10", tmp_path)[0].values()
    assert {file.label for file in cifar if isinstance(file, Inside)} <= {
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    }


def test_a_set_that_is_not_there_or_not_whole_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"^MNIST was not found in .*MNIST.raw or .* data\.download=true\.$"):
        class_files("mnist", tmp_path)
    with pytest.raises(UserError, match=r"choose from mnist, fashion_mnist, cifar10"):
        class_files("svhn", tmp_path)
    as_idx(tmp_path / "MNIST" / "raw")
    with caplog.at_level(logging.WARNING, logger="upsweep"):
        class_files("mnist", tmp_path)
    assert "MNIST has 60000 training images, this copy has 9 (" in caplog.text
