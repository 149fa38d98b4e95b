"""Files that hold many pictures: each comes out as it went in, and whatever is broken or hostile is one sentence."""

import gzip
import lzma
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tests.small_sets import batch, digits, idx, png, saved, zipped

from upsweep.common.errors import UserError
from upsweep.data import containers
from upsweep.data.containers import (
    Inside,
    batch_pictures,
    idx_pictures,
    read_batch,
    read_idx,
    read_picture,
    zip_pictures,
)
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image

PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


# ---- what goes in comes out ----


@given(values=arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=6)), packed=st.sampled_from([*PACK]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_idx_file_gives_back_its_array_however_packed(tmp_path: Path, values: np.ndarray, packed: str) -> None:
    file = saved(tmp_path / f"some-idx-ubyte{packed}", PACK[packed](idx(values)))
    np.testing.assert_array_equal(read_idx(file), values)


def test_pictures_of_idx_files_have_their_labels_and_their_pixels(tmp_path: Path) -> None:
    pixels = digits(3)
    images = saved(tmp_path / "images-idx3-ubyte.gz", gzip.compress(idx(pixels)))
    labels = saved(tmp_path / "labels-idx1-ubyte", idx(np.array([7, 0, 9])))
    found = idx_pictures(images, labels)
    assert [picture.label for picture in found] == ["7", "0", "9"]
    for picture, expected in zip(found, pixels, strict=True):
        np.testing.assert_array_equal(read_picture(picture).pixels[..., 0], expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_python_batch_gives_planes_as_pixels(tmp_path: Path, protocol: int) -> None:
    said = batch(4)
    file = saved(tmp_path / "data_batch_1", pickle.dumps(said, protocol))
    found = batch_pictures(file, [f"class{number}" for number in range(10)])
    assert [picture.label for picture in found] == [f"class{number}" for number in said["labels"]]
    for picture, row in zip(found, said["data"], strict=True):  # 1024 red, 1024 green, 1024 blue, by rows
        np.testing.assert_array_equal(read_picture(picture).pixels, np.stack(np.split(row, 3), -1).reshape(32, 32, 3))


def test_a_batch_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    """CIFAR's own are: protocol 2, `numpy.core.multiarray`, byte strings for texts and for the pixels."""
    rows = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x02M\x00\x0c\x86"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    data = array + dtype + b"T" + rows.nbytes.to_bytes(4, "little") + rows.tobytes() + b"tb"
    content = b"\x80\x02}(U\x04data" + data + b"U\x06labels](K\x03K\x05eu."
    pixels, labels = read_batch(saved(tmp_path / "test_batch", content))
    np.testing.assert_array_equal(pixels, rows.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))
    assert labels == [3, 5]


def test_a_zip_gives_its_image_files_by_name_and_folder(tmp_path: Path) -> None:
    cat, dog = digits(2)
    members = {"train/dog/1.png": png(dog), "train/cat/2.png": png(cat), "readme.txt": b"", "__MACOSX/._1.png": b"x"}
    found = zip_pictures(zipped(tmp_path / "a.zip", **members))
    assert [(picture.place, picture.label) for picture in found] == [
        ("train/cat/2.png", "cat"),
        ("train/dog/1.png", "dog"),
    ]
    np.testing.assert_array_equal(read_picture(found[0]).pixels[..., 0], cat)


def test_a_zip_is_read_without_what_upsweep_made(tmp_path: Path, caplog) -> None:
    cat, dog = digits(2)
    write_image(tmp_path / "made.png", Picture(dog[..., None]))
    made, older = (tmp_path / "made.png").read_bytes(), png(dog.repeat(2, 0).repeat(2, 1))
    file = zipped(tmp_path / "a.zip", **{"train/cat/1.png": png(cat), "train/2.png": made, "train/cat/1_x2.png": older})
    assert [picture.place for picture in zip_pictures(file)] == ["train/cat/1.png"]
    assert f"2 images that upsweep made were left out of {file}: 2.png, 1_x2.png." in caplog.text


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    file = saved(tmp_path / "a-idx3-ubyte", idx(digits(1)))
    (picture,) = idx_pictures(file)
    read_picture(picture)
    saved(file, idx(digits(2, seed=1)))
    np.testing.assert_array_equal(read_picture(picture).pixels[..., 0], digits(2, seed=1)[0])


# ---- what is broken, and what would do harm ----


class Harm:
    """A pickle of it runs a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for harm in (Harm(os.mkdir, str(mark)), Harm(eval, f"__import__('os').mkdir({str(mark)!r})")):
        for said in (harm, {**batch(2), "more": harm}):
            file = saved(tmp_path / "data_batch_1", pickle.dumps(said))
            with pytest.raises(
                UserError, match=r"data_batch_1: not a readable python batch \(it asks for \w+\.\w+, which"
            ):
                read_batch(file)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Harm(os.mkdir, str(mark))))  # what is refused would have run
    assert mark.exists()


@pytest.mark.parametrize(
    "said",
    [
        [1, 2],
        {"labels": [1]},
        {**batch(2), "labels": [1]},
        {**batch(2), "labels": ["a", "b"]},
        {**batch(2), "data": np.zeros((2, 3072))},
        {**batch(2), "data": np.zeros((2, 3071), np.uint8)},
    ],
)
def test_a_pickle_of_something_else_is_one_sentence(tmp_path: Path, said: Any) -> None:
    file = saved(tmp_path / "data_batch_1", pickle.dumps(said))
    with pytest.raises(UserError, match=r"data_batch_1: not a readable python batch \(.+\): get it again\.$"):
        batch_pictures(file)


@given(cut=st.integers(0, 3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_was_cut_off_is_one_sentence(tmp_path: Path, cut: int) -> None:
    contents: dict[str, tuple[bytes, Callable[[Path], object]]] = {
        "a-idx3-ubyte": (idx(digits(4)), idx_pictures),
        "b-idx3-ubyte.gz": (gzip.compress(idx(digits(4))), idx_pictures),
        "c-idx3-ubyte.xz": (lzma.compress(idx(digits(4))), idx_pictures),
        "data_batch_1": (pickle.dumps(batch(1)), batch_pictures),
    }
    for name, (content, read) in contents.items():
        with pytest.raises(UserError, match=rf"{name}: not a readable .+ \(.+\): get it again\.$"):
            read(saved(tmp_path / name, content[: min(cut, len(content) - 1)]))


def test_an_idx_file_that_promises_too_much_takes_no_memory(tmp_path: Path) -> None:
    """1.2 TB, of which nothing is there; and one that goes on after its end."""
    head = bytes([0, 0, 8, 3]) + (100_000_000).to_bytes(4, "big") + (110).to_bytes(4, "big") * 2
    with pytest.raises(UserError, match=r"its shape .* is too large"):
        read_idx(saved(tmp_path / "a-idx3-ubyte.gz", gzip.compress(head)))
    with pytest.raises(UserError, match="has more bytes after its last value"):
        read_idx(saved(tmp_path / "b-idx3-ubyte", idx(digits(1)) + b"x"))


def test_labels_of_another_number_of_images_are_refused(tmp_path: Path) -> None:
    images, labels = saved(tmp_path / "a-idx3", idx(digits(3))), saved(tmp_path / "b-idx1", idx(np.arange(2)))
    with pytest.raises(UserError, match=r"b-idx1 has labels of shape \(2,\) for the 3 images of a-idx3"):
        idx_pictures(images, labels)


def test_a_zip_that_is_none_or_holds_a_bomb_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"a\.zip: not a readable zip"):
        zip_pictures(saved(tmp_path / "a.zip", b"PK no"))
    monkeypatch.setattr(containers, "MAX_MEMBER", 1 << 20)
    (bomb,) = zip_pictures(zipped(tmp_path / "bomb.zip", **{"a.png": bytes(2 << 20)}))
    with pytest.raises(UserError, match=r"bomb\.zip: not a readable zip \(a\.png unpacks to more than 1 MB"):
        read_picture(bomb)
    (broken,) = zip_pictures(zipped(tmp_path / "broken.zip", **{"a.png": b"no image"}))
    with pytest.raises(UserError, match=r"broken\.zip: a\.png: not an image"):
        read_picture(broken)
    with pytest.raises(UserError, match=r"bomb\.zip: not a readable zip"):
        read_picture(Inside(tmp_path / "bomb.zip", "missing.png"))
