"""Which files to enlarge, and where to; an error with one file does not stop the others."""

import glob
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.common.progress import Bar
from upsweep.imaging.files import SUFFIXES, Picture, find_images, read_image, write_image
from upsweep.networks.upscalers.upscaler import Upscaler

Enlarge = Callable[[Picture, Callable[[float], None]], Picture]

WRITABLE = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Photo:
    """One file to enlarge."""

    source: Path
    target: Path  # where its enlargement goes
    problem: str | None = None  # why it cannot be done


def plan(inputs: Sequence[str], output: str | None, scale: int, *, overwrite: bool = False) -> list[Photo]:
    """Which file becomes which: `photo.jpg` becomes `photo_x2.png` beside it, or in the folder `output`.

    Args:
        inputs: files, folders (searched recursively; below `output` they keep their subfolders) and globs (`*`, `?`,
            `**`).
        output: a folder; for a single input it may be a file; None: beside each input.
        scale: for the names.
        overwrite: whether files that are there may be replaced (never an input).

    An enlargement from an earlier run is not an input again, unless it is named itself. Where two inputs
    would become the same file, their suffixes come into the names (`a_jpg_x2.png`).

    Raises:
        UserError: an input does not exist, or holds no images; `output` is one file for many, or of no known kind.
    """
    if not inputs:
        raise UserError("Say what to enlarge: input=photo.jpg, a folder, or a glob such as 'input=photos/*.jpg'.")
    named, found = _inputs(inputs)
    sources = list(dict.fromkeys([*named, *found]))
    if output is not None and Path(output).suffix and not Path(output).is_dir():
        if Path(output).suffix.lower() not in WRITABLE:
            raise UserError(
                f"output={output} is neither an existing folder nor an image ({', '.join(sorted(WRITABLE))})."
            )
        if len(sources) > 1 or found:
            raise UserError(f"output={output} is one file, and there are {len(sources)} inputs: give a folder.")
        targets = {sources[0]: Path(output)}
    else:
        folders = {s: s.parent if output is None else Path(output) / found.get(s, Path()) for s in sources}
        made = {
            (folder / f"{stem}_x{any_scale}.png").resolve()
            for source, own in folders.items()
            for folder in (source.parent, own)
            for stem in (source.stem, _full_stem(source))
            for any_scale in (scale, *Upscaler.scales)
        }
        wanted = [source for source in sources if source in named or source.resolve() not in made]
        targets = {source: folders[source] / f"{source.stem}_x{scale}.png" for source in wanted}
        for source in _twins(targets):
            targets[source] = folders[source] / f"{_full_stem(source)}_x{scale}.png"
    clashing = _twins(targets)
    originals = {source.resolve() for source in targets}

    def problem(source: Path, target: Path) -> str | None:
        if source in clashing:
            return f"{source}: another input would also become {target}; choose another folder for one of them."
        if target.resolve() in originals:
            return f"{source}: {target} is itself an input, and is not replaced; choose another output."
        if target.exists() and not overwrite:
            return f"{source}: {target} already exists; overwrite=true replaces it, output=... writes elsewhere."
        return None

    return [Photo(source, target, problem(source, target)) for source, target in targets.items()]


def renamed(photos: Sequence[Photo], scale: int) -> list[Photo]:
    """The files that got longer names to differ."""
    return [photo for photo in photos if photo.target.stem == f"{_full_stem(photo.source)}_x{scale}"]


def _full_stem(source: Path) -> str:
    return f"{source.stem}_{source.suffix.lstrip('.')}"


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
            except UserError as error:
                if len(photos) == 1:
                    raise
                failed += 1
                print(error, file=sys.stderr, flush=True)
    if failed:
        raise UserError(f"{failed} of {len(photos)} images were not enlarged, for the reasons above.")


def _enlarged(photo: Photo, enlarge: Callable[[Picture], Picture], max_pixels: int) -> str:
    """Enlarge one file; what became of it."""
    if photo.problem is not None:
        raise UserError(photo.problem)
    picture = read_image(photo.source, max_pixels=max_pixels)
    if picture.alpha is not None and photo.target.suffix.lower() in (".jpg", ".jpeg"):
        raise UserError(
            f"{photo.source}: is partly transparent, and {photo.target} cannot be; choose .png, .tif or .webp."
        )
    try:
        photo.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{photo.target.parent}: cannot be made: {error.strerror}.") from error
    try:
        larger = enlarge(picture)
    except UserError as error:
        raise UserError(f"{photo.source}: {error}") from error
    write_image(photo.target, larger)
    height, width = larger.pixels.shape[:2]
    return f"{photo.source} -> {photo.target} ({width}x{height})"


def _inputs(inputs: Sequence[str]) -> tuple[list[Path], dict[Path, Path]]:
    """Files that are named, and files that were found, with their folders below the one that was searched."""
    named: list[Path] = []
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            images = {image: image.parent.relative_to(path) for image in find_images(path)}
        elif path.exists():
            named.append(path)
            continue
        else:
            matches = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 - absolute ones too
            images = {match: Path() for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()}
            if not images and not glob.has_magic(text):
                raise UserError(f"input={text}: there is no such file or folder.")
        if not images:
            raise UserError(f"input={text}: there are no images ({', '.join(sorted(SUFFIXES))}).")
        found.update(images)
    return named, found


def _twins(targets: dict[Path, Path]) -> list[Path]:
    """Sources that share their target with another."""
    count = Counter(target.resolve() for target in targets.values())
    return [source for source, target in targets.items() if count[target.resolve()] > 1]
