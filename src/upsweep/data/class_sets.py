"""Sets of many small images with classes, and where they lie below a folder of data sets (the root).

A set is looked for in the root and in the folders of PARENTS, as people have it: idx files, python batches, or folders
and zips of image files, in a folder (or a zip) of the set's name, whatever its capitals and marks (`MNIST/raw`,
`cifar-10-batches-py`, `cifar10_jpeg.zip`). MNIST and Fashion-MNIST have files of the same names: where no folder's name
tells them apart, the first labels do.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from upsweep.common.errors import UserError
from upsweep.common.words import warn_once
from upsweep.data.containers import File, Inside, batch_pictures, idx_pictures, read_idx, zip_pictures
from upsweep.data.foreign import foreign
from upsweep.data.known import ENVIRONMENT, descend
from upsweep.imaging.listing import files_below, is_image, passed_over

PARENTS = ("", "generation", "data", "datasets")
INNER = ("", "raw", "data/fashion")  # of a set's own folder
KINDS = "raw|png|jpe?g|images?|batches|python|py|data|dataset|small"  # what may follow the set's name
TRAINING, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")  # folders of image files
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class ClassSet:
    """A set as it was published.

    Attributes:
        title: as papers write it.
        key: the letters and digits of its folder's name.
        training: how many images there are to train on.
        test: and how many others.
        first: the first labels of both parts, where idx files of other sets have the same names.
        folder: where `data.download=true` puts it.
    """

    title: str
    key: str
    training: int
    test: int
    folder: str
    first: tuple[tuple[int, ...], tuple[int, ...]] | None = None


CLASS_SETS = {
    "mnist": ClassSet(
        *("MNIST", "mnist", 60_000, 10_000, "MNIST/raw"), first=((5, 0, 4, 1, 9, 2, 1, 3), (7, 2, 1, 0, 4, 1, 4, 9))
    ),
    "fashion_mnist": ClassSet(
        *("Fashion-MNIST", "fashionmnist", 60_000, 10_000, "FashionMNIST/raw"),
        first=((9, 0, 0, 3, 0, 2, 7, 2), (9, 2, 1, 1, 6, 1, 4, 6)),
    ),
    "cifar10": ClassSet("CIFAR-10", "cifar10", 50_000, 10_000, "cifar-10-batches-py"),
}

Files = dict[str, File]


def class_files(name: str, root: Path) -> tuple[Files, Files]:
    """The images to train on and the test images of a set, by name; there may be no test images.

    Raises:
        UserError: there is no such set, it is not there, or one of its files is broken.
    """
    if name not in CLASS_SETS:
        raise UserError(f"There is no set {name} of images with classes; choose from {', '.join(CLASS_SETS)}.")
    own = CLASS_SETS[name]
    found = find_classes(name, root)
    if found is None:
        raise UserError(
            f"{own.title} was not found in {root / own.folder} or the like (docs/data.md lists the layouts); set "
            f"data.root or {ENVIRONMENT} to the folder that has it, or fetch it with data.download=true."
        )
    for files, count, what in zip(found, (own.training, own.test), ("training", "test"), strict=True):
        if files and len(files) != count:
            warn_once(f"{own.title} has {count} {what} images, this copy has {len(files)} ({root}).")
    return found


def find_classes(name: str, root: Path) -> tuple[Files, Files] | None:
    """The same, or None where the set is not there."""
    own = CLASS_SETS[name]
    for place, named in _places(own, root):
        kinds = (_zipped(place),) if place.is_file() else _in_folder(place, own, named)
        for found in kinds:
            if found[0]:
                return found
    return None


def _places(own: ClassSet, root: Path) -> Iterator[tuple[Path, bool]]:
    """Folders and zips that may hold the set, and whether their name says that they do."""
    parts = root.resolve().parts[-2:]
    others = [one.key for one in CLASS_SETS.values() if one is not own]
    bears = {key: any(_bears(part, key) for part in parts) for key in (own.key, *others)}
    if bears[own.key]:
        yield from ((folder, True) for folder in _below(root, INNER))
    for parent in _below(root, PARENTS):
        for child in sorted(parent.iterdir()):
            if _bears(child.stem if child.suffix.lower() == ".zip" else child.name, own.key):
                yield from ((place, True) for place in (_below(child, INNER) if child.is_dir() else (child,)))
        if not any(bears[key] for key in others):
            yield from ((folder, False) for folder in _below(parent, INNER[:2]))


def _below(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Those of a folder's subfolders that are there, whatever their capitals."""
    return (below for name in names if (below := descend(folder, Path(name))) is not None)


def _bears(name: str, key: str) -> bool:
    return re.fullmatch(rf"{key}({KINDS})*", re.sub(r"[\W_]", "", name.casefold())) is not None


def _in_folder(folder: Path, own: ClassSet, named: bool) -> Iterator[tuple[Files, Files]]:
    # In small letters, as the sets were published; such a name comes last, and wins.
    files = {file.name.casefold(): file for file in sorted(folder.iterdir()) if file.is_file()}
    if own.first is not None:
        yield _idx(files, own, named)
    else:
        batches = [f"data_batch_{number}" for number in range(1, 6)]
        yield _batches(files, batches, "train"), _batches(files, ["test_batch"], "test")
    if named:
        yield _pictures(folder, TRAINING), _pictures(folder, TEST)


def _idx(there: Mapping[str, Path], own: ClassSet, named: bool) -> tuple[Files, Files]:
    parts: list[Files] = []
    for number, (part, stem) in enumerate((("train", "train"), ("test", "t10k"))):
        images, labels = (_packed(there, f"{stem}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        own_labels = named or (own.first and labels and tuple(read_idx(labels)[:8].tolist()) == own.first[number])
        parts.append(_numbered(part, idx_pictures(images, labels)) if images and own_labels else {})
    return parts[0], parts[1]


def _packed(there: Mapping[str, Path], name: str) -> Path | None:
    """A file by its name with either mark (`-idx3`, `.idx3`), plain or packed."""
    for spelled in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz", ".xz"):
            if (file := there.get(f"{spelled}{suffix}")) is not None:
                return file
    return None


def _batches(there: Mapping[str, Path], names: Sequence[str], part: str) -> Files:
    files = [there[name] for name in names if name in there]
    return _numbered(part, [picture for file in files for picture in batch_pictures(file, CIFAR_CLASSES)])


def _numbered(part: str, pictures: list[Inside]) -> Files:
    return {f"{part}/{number:05}": picture for number, picture in enumerate(pictures)}


def _pictures(folder: Path, names: tuple[str, ...]) -> Files:
    """The image files in the first subfolder that goes by one of the names, but for those that upsweep made."""
    below = next(_below(folder, names), None)
    if below is None:
        return {}
    files = files_below(below)
    for sentence in passed_over(files):
        warn_once(f"{below}: {sentence}")
    return {path.relative_to(folder).as_posix(): path for path in foreign(filter(is_image, files), below)}


def _zipped(file: Path) -> tuple[Files, Files]:
    """The images in a zip, by the folder of each part that they lie in, at the top or one below."""
    parts: tuple[Files, Files] = {}, {}
    for picture in zip_pictures(file):
        folders = [folder.casefold() for folder in PurePosixPath(str(picture.place)).parts[:2]]
        for part, names in zip(parts, (TRAINING, TEST), strict=True):
            if set(folders) & set(names):
                part[str(picture.place)] = picture
    return parts
