"""Which files to enlarge, and where to; an error with one file does not stop the others."""

import glob
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from upsweep.common.errors import UserError, first_line
from upsweep.common.progress import Bar
from upsweep.data.foreign import foreign
from upsweep.imaging.files import Picture, read_image
from upsweep.imaging.listing import files_below, is_image, passed_over
from upsweep.imaging.marks import is_marked
from upsweep.imaging.writing import WRITABLE, check_fits, write_image

Enlarge = Callable[[Picture, Callable[[float], None]], Picture]


@dataclass(frozen=True)
class Photo:
    """One file to enlarge."""

    source: Path
    target: Path  # where its enlargement goes
    scale: int
    problem: str | None = None  # why it cannot be done


class Plan(NamedTuple):
    """What is to be done, and a sentence on each thing that is not as one may expect."""

    photos: list[Photo]
    notes: list[str]


def plan(inputs: Sequence[str], output: str | None, scale: int, *, overwrite: bool = False) -> Plan:
    """Which file becomes which: `photo.jpg` becomes `photo_x2.png` beside it, or in the folder `output`.

    Args:
        inputs: files, folders (searched recursively; below `output` they keep their subfolders) and globs (`*`, `?`,
            `**`).
        output: a folder; for a single input it may be a file; None: beside each input.
        scale: for the names.
        overwrite: whether files that are there may be replaced (never an input).

    What upsweep made is not an input, unless it is named itself. What folders and globs hold is left out where its
    enlargement is there, so that a run that was interrupted goes on. Where two inputs would become the same file,
    their suffixes come into the names (`a_jpg_x2.png`), if that tells them apart.

    Raises:
        UserError: an input does not exist, or holds no images; `output` is one file for many, or of no known kind.
    """
    if not inputs:
        raise UserError("Say what to enlarge: input=photo.jpg, a folder, or a glob such as 'input=photos/*.jpg'.")
    notes = list[str]()
    named, found = _inputs(inputs, notes)
    sources = list(dict.fromkeys([*named, *found]))
    longer: dict[Path, Path] = {}
    if output is not None and Path(output).suffix and not Path(output).is_dir():
        targets = {_alone(sources, found, output): Path(output)}
    else:
        folders = {s: s.parent if output is None else Path(output) / found.get(s, Path()) for s in sources}
        targets = {source: folder / f"{source.stem}_x{scale}.png" for source, folder in folders.items()}
        longer = _apart(targets, scale)
        targets |= longer
    photos = _photos(targets, scale, named, overwrite=overwrite)
    notes += [
        f"{photo.source}: becomes {photo.target}, since another input has the same name but for its suffix."
        for photo in photos
        if photo.source in longer and photo.problem is None
    ]
    if there := len(targets) - len(photos):
        said = "have been enlarged before, maybe by other weights; overwrite=true makes them anew."
        notes.append(f"{there} of {len(targets)} {said}")
    return Plan(photos, notes)


def _photos(targets: Mapping[Path, Path], scale: int, wanted: Collection[Path], *, overwrite: bool) -> list[Photo]:
    """What is to be done: those `wanted`, and of the others those that upsweep has not made yet."""
    clashing, originals = _twins(targets), {source.resolve() for source in targets}
    photos = list[Photo]()
    for source, target in targets.items():
        problem = None
        if source in clashing:
            problem = f"another input would also become {target}; choose another folder for one of them."
        elif target.resolve() in originals:
            problem = f"{target} is itself an input, and is not replaced; choose another output."
        elif target.exists() and not overwrite:
            if source not in wanted and _is_ours(target):
                continue
            problem = f"{target} already exists; overwrite=true replaces it, output=... writes elsewhere."
        photos.append(Photo(source, target, scale, problem and f"{source}: {problem}"))
    return photos


def _alone(sources: Sequence[Path], found: Collection[Path], output: str) -> Path:
    """The one source that becomes the file `output`. Raises UserError: there are more, or it is of no known kind."""
    if Path(output).suffix.lower() not in WRITABLE:
        raise UserError(f"output={output} is neither an existing folder nor an image ({', '.join(sorted(WRITABLE))}).")
    if len(sources) > 1 or found:
        raise UserError(f"output={output} is one file, and there are {len(sources)} inputs: give a folder.")
    return sources[0]


def _apart(targets: Mapping[Path, Path], scale: int) -> dict[Path, Path]:
    """Longer names for sources that would become the same file, where their suffixes tell them apart."""
    longer = {s: targets[s].with_name(f"{s.stem}_{s.suffix.lstrip('.')}_x{scale}.png") for s in _twins(targets)}
    alike = _twins(longer)
    return {source: target for source, target in longer.items() if source not in alike}


def _is_ours(target: Path) -> bool:
    """Whether upsweep made the file."""
    if not target.is_file():
        return False
    with target.open("rb") as file:
        return is_marked(file)


def enlarge_all(photos: Sequence[Photo], enlarge: Enlarge, *, max_pixels: int) -> None:
    """Read, enlarge and write one file after another; print each that was written, and on stderr why one was not.

    `enlarge` takes a picture and a function that is called with every share that is done, and gives the larger one.

    Raises:
        UserError: at the end, if any was not done; for a single file, what was wrong with it.
    """
    failed = 0
    with Bar(len(photos), said=lambda done, total: f"{done:.1f} of {total:.0f}") as bar:
        for number, photo in enumerate(photos):
            bar.update(number, doing=str(photo.source))
            try:
                print(_enlarged(photo, lambda picture: enlarge(picture, bar.advance), max_pixels), flush=True)
            except (UserError, RuntimeError, MemoryError) as error:
                if len(photos) == 1:
                    raise
                failed += 1
                said = error if isinstance(error, UserError) else f"{photo.source}: {first_line(error)}."
                print(said, file=sys.stderr, flush=True)
    if failed:
        raise UserError(f"{failed} of {len(photos)} images were not enlarged, for the reasons above.")


def _enlarged(photo: Photo, enlarge: Callable[[Picture], Picture], max_pixels: int) -> str:
    """Enlarge one file; what became of it."""
    if photo.problem is not None:
        raise UserError(photo.problem)
    picture = read_image(photo.source, max_pixels=max_pixels)
    height, width = (side * photo.scale for side in picture.samples.shape[:2])
    check_fits(photo.target, height, width, transparent=picture.alpha is not None)
    try:
        photo.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{photo.target.parent}: cannot be made: {error.strerror}.") from error
    try:
        larger = enlarge(picture)
    except UserError as error:
        raise UserError(f"{photo.source}: {error}") from error
    write_image(photo.target, larger)
    return f"{photo.source} -> {photo.target} ({width}x{height})"


def _inputs(inputs: Sequence[str], notes: list[str]) -> tuple[list[Path], dict[Path, Path]]:
    """Files that are named, and images that were found, with their folders below the one that was searched."""
    named: list[Path] = []
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            files = {file: file.parent.relative_to(path) for file in files_below(path)}
        elif path.exists():
            named.append(path)
            continue
        elif not glob.has_magic(text):
            raise UserError(f"input={text}: there is no such file or folder.")
        else:
            matches = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 - absolute ones too
            files = {match: Path() for match in matches if match.is_file()}
        if not any(is_image(file) for file in files):
            raise UserError(" ".join([f"input={text}: there are no images.", *passed_over(files)]))
        found |= files
    notes += passed_over(found)
    images = foreign(filter(is_image, found), Path(", ".join(inputs)))
    if found and not images and not named:
        raise UserError("upsweep made all of these images; to enlarge one again, name it itself.")
    return named, {image: found[image] for image in images}


def _twins(targets: Mapping[Path, Path]) -> list[Path]:
    """Sources that share their target with another."""
    count = Counter(target.resolve() for target in targets.values())
    return [source for source, target in targets.items() if count[target.resolve()] > 1]
