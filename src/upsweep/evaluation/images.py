"""Rows of SR images that another program made: its files are paired with the HR images of benchmarks by their names."""

import logging
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.common.names import listed
from upsweep.data.known import SETS
from upsweep.evaluation.benchmarks import Benchmark
from upsweep.evaluation.methods import Method
from upsweep.imaging.listing import files_below, find_images, passed_over
from upsweep.tasks.super_resolution.given import GivenImages

log = logging.getLogger("upsweep")

# How files and folders name a scale: x2, SRx2, 2x, SRF_2, scale-2.
MARK = re.compile(
    r"(?:(?<!\d)x|(?<![a-z0-9])(?:x|srf|scale)[_-]?)([2-9])(?![a-z0-9])|(?<![a-z0-9])([2-9])x(?![a-z0-9])", re.I
)
# What an HR file may have behind the name of its image: baby_HR, img_001_SRF_2_HR, 0001x2.
OF_HR = re.compile(r"([_-](HR|GT|SRF_?[2-9]|x[2-9]))+$", re.IGNORECASE)
# What says that a file or folder holds something else than SR; it counts where another file says nothing like it.
NO_SR = re.compile(r"(?:^|[_-])(HR|GT|LR|LRBI|bicubic|nearest)(?:[_-]?x[2-9])?$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ImagesMethod(Method):
    """The row of a folder of SR images; benchmarks of which it has none are left out."""

    files: Mapping[str, Mapping[str, Path]]  # title of a benchmark -> name of an image -> its SR

    def images(self, title: str) -> GivenImages:
        """The SR images of a benchmark."""
        return GivenImages(self.scale, self.files[title])


@dataclass(frozen=True)
class Found:
    """A file of an image, and what its name and its folders say of it."""

    path: Path
    scales: frozenset[int]
    no_sr: frozenset[str]  # the words, each with the place where it stands, by which it is no SR


Pairs = Mapping[str, Mapping[str, Sequence[Found]]]  # title of a benchmark -> name of an image -> its files


def images(
    folders: str | Sequence[str], benchmarks: Sequence[Benchmark], scales: Collection[int], *, every: bool
) -> list[Method]:
    """The rows of folders of SR images, one for each folder and scale; `NAME=FOLDER` names a row.

    Args:
        folders: one or several.
        benchmarks: whose images they hold, in a folder for each benchmark, or all in one.
        scales: of the images; none where their names, or those of folders, say them.
        every: whether each benchmark must be there; otherwise one without a single image is left out, with a warning.

    Raises:
        UserError: an image is missing, is there twice, or cannot be told from another.
    """
    return [
        method
        for said in ([folders] if isinstance(folders, str) else folders)
        for method in _of_folder(str(said), benchmarks, scales, every)
    ]


def _of_folder(
    said: str, benchmarks: Sequence[Benchmark], scales: Collection[int], every: bool
) -> Iterator[ImagesMethod]:
    name, equals, place = said.partition("=")
    folder = Path(said if not equals or Path(said).exists() else place).expanduser()
    if not folder.is_dir():
        raise UserError(f"images={said} is not a folder: give the folder of the SR images.")
    if not (files := find_images(folder)):
        raise UserError(" ".join([f"images={said} has no images.", *passed_over(files_below(folder))]))
    pairs, others = _sr_alone(
        {b.title: _paired(b, _of_benchmark(b, files, folder, benchmarks), folder) for b in benchmarks}
    )
    wanted = sorted(scales) or _scales(folder, pairs)
    for scale in wanted:
        chosen = {
            title: {image: _of_scale(found, scale, alone=len(wanted) == 1) for image, found in each.items()}
            for title, each in pairs.items()
        }
        there = {title: each for title, each in chosen.items() if every or any(each.values())}
        if not any(found for each in there.values() for found in each.values()):
            raise UserError(_nothing(folder, files, benchmarks, scale))
        if missing := [title for title in chosen if title not in there]:
            log.warning("images=%s has nothing of %s at x%d: left out of its row.", folder, listed(missing), scale)
        one = {title: _one_each(title, each, folder, scale, others[title]) for title, each in there.items()}
        row = name if equals and folder == Path(place).expanduser() else folder.resolve().name
        yield ImagesMethod(name=row, scale=scale, checkpoint=folder, files=one)


def _nothing(folder: Path, files: Sequence[Path], benchmarks: Sequence[Benchmark], scale: int) -> str:
    """The sentence on a folder without a single image of any benchmark."""
    name, suffix = _names(benchmarks[0])[0], files[0].suffix
    return (
        f"images={folder} has no SR of {listed([one.title for one in benchmarks])} at x{scale}: its files, such as "
        f"{files[0].relative_to(folder)}, must have the names of the HR images, such as {name}{suffix} or "
        f"{name}_x{scale}{suffix}, and may name no other scale."
    )


def _scales(folder: Path, pairs: Pairs) -> list[int]:
    """The scales that paired files say, or else the folder's own name."""
    files = [file for each in pairs.values() for found in each.values() for file in found]
    said = sorted({scale for file in files for scale in file.scales} or _marks(folder.resolve().name))
    if files and not said:
        raise UserError(f"images={folder}: no name says the scale, as in baby_x2.png: add scale=2, or what it is.")
    return said or [2]  # there is nothing, which is said where the images are asked for


def _marks(text: str) -> set[int]:
    """The scales that a name says."""
    return {int(a or b) for a, b in MARK.findall(text)}


# ---- which files are of a benchmark ----


def _of_benchmark(
    benchmark: Benchmark, files: Sequence[Path], folder: Path, benchmarks: Sequence[Benchmark]
) -> list[Path]:
    """The files in folders of the benchmark's name; without such a folder, those that are in no other benchmark's."""
    known = {one.title: _aliases(one.title) for one in benchmarks} | {s.title: _aliases(s.title) for s in SETS.values()}
    owners = {
        file: {title for title, names in known.items() if names & _folders(file.relative_to(folder))} for file in files
    }
    own = [file for file, titles in owners.items() if benchmark.title in titles]
    return own or [file for file, titles in owners.items() if not titles]


def _aliases(title: str) -> set[str]:
    """The names that folders of a set go by."""
    more = next((one.folders for one in SETS.values() if one.title == title), ())
    return {_plain(title), *(_plain(name) for name in more if "/" not in name)}


def _folders(file: Path) -> set[str]:
    """The folders that a file lies in, and several of them in a row: the title of a benchmark may be `A/HR`."""
    parts = [*map(_plain, file.parent.parts)]
    return {"".join(parts[start:end]) for end in range(len(parts) + 1) for start in range(end)}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


# ---- which file is of which image ----


def _names(benchmark: Benchmark) -> list[str]:
    """What the names of SR files have in common with those of the images: without what only says that they are HR."""
    stems = [path.stem for path in benchmark.files]
    cores = [OF_HR.sub("", stem) or stem for stem in stems]
    return cores if len({core.casefold() for core in cores}) == len(stems) else stems


def _paired(benchmark: Benchmark, files: Sequence[Path], folder: Path) -> dict[str, list[Found]]:
    """The files of each image of a benchmark."""
    images = dict(zip(benchmark.named, _names(benchmark), strict=True))
    patterns = {image: _pattern(_composed(name)) for image, name in images.items()}
    pairs: dict[str, list[Found]] = {image: [] for image in images}
    for file in files:
        stem = _composed(file.stem)
        matches = {image: match for image, pattern in patterns.items() if (match := pattern.search(stem))}
        # Folders as those of the HR image say most. Then a name that begins the file's says more than one within it,
        # the longer name more than the shorter, and the very name more than one with other separators.
        ranks = {
            image: (
                _shared(file.relative_to(folder), benchmark.named[image]),
                *(match.start() == 0, len(match[0]), match[0] == _composed(images[image])),
            )
            for image, match in matches.items()
        }
        best = [image for image, rank in ranks.items() if rank == max(ranks.values())]
        if len(best) > 1:
            raise UserError(
                f"{file} may be the SR of {listed(best)} of {benchmark.title}: name it after one of them, or take it "
                "out of the folder."
            )
        for image in best:
            start, end = matches[image].span()
            said = " ".join((*file.relative_to(folder).parts[:-1], stem[:start], stem[end:]))
            hr = _no_sr(Path(benchmark.named[image].name))  # of an image img_001_HR.png, the SR may have that name, too
            pairs[image].append(Found(file, frozenset(_marks(said)), _no_sr(file.relative_to(folder)) - hr))
    return pairs


def _shared(file: Path, hr: Path) -> int:
    """How many folders above a file, but those that say a scale, are those above an HR image."""
    folders = [part for part in reversed(file.parent.parts) if not _marks(part)]
    pairs = zip(folders, reversed(hr.parent.parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0].casefold() == pair[1].casefold(), pairs))


def _no_sr(file: Path) -> frozenset[str]:
    """The words of a path that say that it is no SR, each with its place: a folder, or the file's own name."""
    places = {"folder": file.parts[:-1], "name": (file.stem,)}
    found = [(place, NO_SR.search(part)) for place, parts in places.items() for part in parts]
    return frozenset(f"{place} {match[1].casefold()}" for place, match in found if match)


def _sr_alone(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """The files of every image that are SR, and the others.

    A word that all files have tells none apart. And where every file is marked by one, these are what is to be judged.
    """
    files = [file for each in pairs.values() for found in each.values() for file in found]
    common = frozenset.intersection(*(file.no_sr for file in files)) if files else frozenset()
    if not any(file.no_sr <= common for file in files):
        common = frozenset.union(frozenset(), *(file.no_sr for file in files))

    def those(sr: bool) -> Pairs:
        return {
            title: {image: [file for file in found if (file.no_sr <= common) is sr] for image, found in each.items()}
            for title, each in pairs.items()
        }

    return those(sr=True), those(sr=False)


def _composed(name: str) -> str:
    """A name in the one form of Unicode: some file systems take letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def _pattern(name: str) -> re.Pattern[str]:
    """A name as a whole word, in any case, with any separators: `img_001` is in `Img001_x2`, not in `img_0010`."""
    parts = re.findall(r"[^\W\d_]+|\d+", name)
    within = r"[\W_]*".join(map(re.escape, parts)) if parts else re.escape(name)
    return re.compile(rf"(?<![^\W_]){within}(?=$|[\W_]|x[2-9](?![^\W_]))", re.IGNORECASE)


def _of_scale(found: Sequence[Found], scale: int, *, alone: bool) -> list[Path]:
    """The files of an image that can be its SR at a scale; `alone`: names need not say it."""
    return [file.path for file in found if scale in file.scales or (alone and not file.scales)]


def _one_each(
    title: str,
    found: Mapping[str, Sequence[Path]],
    folder: Path,
    scale: int,
    others: Mapping[str, Sequence[Found]],
) -> dict[str, Path]:
    """The one file of each image; `others`: what was passed over, since it is no SR."""
    if missing := [image for image, files in found.items() if not files]:
        passed = [str(file.path.relative_to(folder)) for image in missing for file in others[image]]
        not_sr = f" ({listed(passed)} are named as HR, LR or bicubic: passed over)" if passed else ""
        raise UserError(
            f"images={folder} lacks {len(missing)} of {len(found)} images of {title} at x{scale}: {listed(missing)}"
            f"{not_sr}. Add them, as {missing[0]}.png or {missing[0]}_x{scale}.png, or judge other images with "
            "benchmark=."
        )
    for image, files in found.items():
        if len(files) > 1:
            raise UserError(
                f"images={folder} has {len(files)} images for {image} of {title} at x{scale}: "
                f"{listed([str(file.relative_to(folder)) for file in files])}. Keep one of them, or give a folder that "
                "has only one."
            )
    return {image: file for image, (file,) in found.items()}
