"""The images to judge on: a benchmark of the field by its name, or any folder of HR images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.common.names import shortest_end
from upsweep.common.words import warn_once
from upsweep.data.foreign import foreign
from upsweep.data.known import BENCHMARKS, SETS, benchmark_files, benchmark_in, data_root, present_benchmarks
from upsweep.data.store import Settings, open_images
from upsweep.evaluation.papers import prefix_of
from upsweep.imaging.listing import files_below, is_image, passed_over
from upsweep.tasks.super_resolution.data import EvalImages


@dataclass(frozen=True)
class Benchmark:
    """Some HR images, as tables call them."""

    title: str
    files: tuple[Path, ...]
    folder: Path = Path()  # where they lie, resolved
    published: bool = False  # whether papers judge these images under this title

    @property
    def named(self) -> dict[str, Path]:
        """The files by their images' names: the file's without its ending, or the path where two have one name."""
        stems = {path.stem: path for path in self.files}
        return stems if len(stems) == len(self.files) else {str(path): path for path in self.files}

    def images(self, scale: int, channels: int, cache_dir: Path | None = None) -> EvalImages:
        """The images with the LR of the papers, prepared once where there is a cache.

        Raises:
            UserError: any file cannot be used; leaving it out would change the mean.
        """
        opened = open_images(self.named, Settings(scale, channels, colour=True), cache_dir)
        for sentence in opened.refused.values():
            raise UserError(f"{self.title} needs all of its images: {sentence}.")
        return EvalImages(opened.images)


def find_benchmarks(asked: str | Sequence[str], root: Path | None) -> list[Benchmark]:
    """The benchmarks of `benchmark=`: `all` that are below the root, names of known ones, folders.

    Raises:
        UserError: something is not there, or is named twice, or folders have no names that differ.
    """
    words = [asked] if isinstance(asked, str) else list(asked)
    if words == ["all"]:
        words = present_benchmarks(root)
        if not words:
            raise UserError(
                f"None of the benchmarks {', '.join(BENCHMARKS)} is in {data_root(root)}: set data.root or "
                "UPSWEEP_DATA to the folder that has them, or give a folder of HR images with benchmark=PATH."
            )
    if not words:
        raise UserError("benchmark=[] is empty: name a benchmark, or a folder of HR images.")
    return list(_told_apart([_benchmark(str(word), root) for word in words]))


def _told_apart(found: Sequence[Benchmark]) -> Iterator[Benchmark]:
    """The benchmarks; where columns would have the same name, their titles become ends of paths: `a/HR`, `b/HR`."""
    prefixes = [prefix_of(benchmark.title) for benchmark in found]
    folders = [benchmark.folder for benchmark in found]
    for benchmark, prefix in zip(found, prefixes, strict=True):
        if folders.count(benchmark.folder) > 1:
            raise UserError(f"benchmark names {benchmark.title} twice.")
        if prefixes.count(prefix) == 1:
            yield benchmark
            continue
        end = shortest_end(benchmark.folder.parts, (folder.parts for folder in folders), least=2, key=prefix_of)
        if end is None:
            raise UserError(
                f"benchmark={benchmark.folder} and another folder differ in capitals or spaces alone, so that columns "
                "would have the same name: rename one of them."
            )
        yield replace(benchmark, title="/".join(end), published=False)


def benchmark_images(
    name: str, root: Path | None = None, *, scale: int, channels: int, cache_dir: Path | None = None
) -> EvalImages:
    """The images of one benchmark, by its name or its folder, as `evaluate` takes them.

    Raises:
        UserError: it is not there, or a file of it cannot be used.
    """
    return _benchmark(name, root).images(scale, channels, cache_dir)


def _benchmark(name: str, root: Path | None) -> Benchmark:
    if (key := name.lower()) in BENCHMARKS:
        return _known(key, benchmark_files(key, root))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"There is no benchmark {name}: choose all, {', '.join(BENCHMARKS)}, or a folder of HR images; "
            "several as 'benchmark=[set5,set14]'."
        )
    if (known := benchmark_in(folder)) is not None:  # its layout says which files beside the HR images are none
        return _known(*known)
    below = files_below(folder)
    others = passed_over(below)
    if not (images := list(filter(is_image, below))):
        raise UserError(" ".join([f"benchmark={name} has no images.", *others]))
    for sentence in others:
        warn_once(f"benchmark={name}: {sentence}")
    if not (files := foreign(images, folder)):
        raise UserError(f"benchmark={name} has only images that upsweep made; they are not used as data.")
    return Benchmark(folder.resolve().name, tuple(files), folder.resolve())


def _known(name: str, files: Sequence[Path]) -> Benchmark:
    """A benchmark of the field; papers judge all of its images."""
    own = SETS[name]
    return Benchmark(own.title, tuple(files), files[0].parent.resolve(), published=len(files) == own.count)
