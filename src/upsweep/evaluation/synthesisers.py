"""Synthesisers judged by their samples: a table of checkpoints on a set of real images."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.common.names import safe_name
from upsweep.common.progress import Bar
from upsweep.evaluation.methods import Views, names, result_of, trained
from upsweep.evaluation.tables import Cell, Column, Comparison, Judged, Row
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image
from upsweep.metrics.figure import Figure
from upsweep.metrics.pairs import evenly
from upsweep.networks.network import cost
from upsweep.networks.synthesisers.synthesiser import Synthesiser
from upsweep.tasks.generation.data import Images, fixed_latents
from upsweep.tasks.generation.pictures import square
from upsweep.tasks.generation.task import Generation

BATCH = 250  # samples made at once
PICTURE = 480  # pixels: about the side of a grid of samples
ERROR = "kid_error"  # among the task's details
# Keys of `data` that do not say which images there are, or that the generator says itself.
FED = (
    *("size", "channels", "patch_size", "batch_size", "patches_per_epoch", "samples", "num_workers", "augment", "flip"),
    *("copies", "even", "cache", "cache_dir"),
)


@dataclass(frozen=True)
class Made:
    """A row of the table: a synthesiser, and where it is from."""

    name: str  # what the table calls it
    generator: Synthesiser  # on the CPU and in evaluation mode
    checkpoint: Path


def synthesisers(files: Sequence[Path], views: Views, allow: Collection[str] = ()) -> list[Made]:
    """The rows that checkpoints ask for; none where they hold networks of another kind.

    Raises:
        UserError: one cannot be loaded, some are synthesisers and some are not, their images differ in
            shape, or a view is for upscalers only.
    """
    networks = [trained(file, views.ema, allow) for file in files]
    found = [
        Made(name + str(views), network, file)
        for name, network, file in zip(names(files), networks, files, strict=True)
        if isinstance(network, Synthesiser)
    ]
    if not found:
        return []
    if len(found) < len(networks):
        other = next(file for file, n in zip(files, networks, strict=True) if not isinstance(n, Synthesiser))
        raise UserError(
            f"{found[0].checkpoint} makes images from latents and {other} does not: judge them in two commands."
        )
    if views.self_ensemble or views.tile is not None:
        raise UserError("self_ensemble and tile are for upscalers only: leave them out.")
    shapes = {(one.generator.size, one.generator.channels): one.checkpoint for one in found}
    if len(shapes) > 1:
        said = " and ".join(f"{file} makes {s}x{s} of {c} channel(s)" for (s, c), file in shapes.items())
        raise UserError(f"{said}: images of different shapes cannot be compared; judge them in separate commands.")
    return found


def trained_on(files: Sequence[Path]) -> list[str]:
    """The data overrides of the runs that wrote checkpoints: `data=digits`, `data.crop=random`, ...

    Nothing where no run says it.

    Raises:
        UserError: the runs differ.
    """
    results = [result for file in files if (result := result_of(file)) is not None and "data" in result.choices]
    said = {
        (
            f"data={result.choices['data']}",
            *(word for word in result.overrides if word.startswith("data.") and word[5:].partition("=")[0] not in FED),
        )
        for result in results
    }
    if len(said) > 1:
        one, other, *_ = (" ".join(words) for words in sorted(said))
        raise UserError(f"Some were trained with {one}, others with {other}: set the real images, benchmark=NAME.")
    return [word for words in said for word in words]


@torch.inference_mode()
def evaluate_synthesisers(
    methods: Sequence[Made],
    task: Generation,
    title: str,
    folder: Path,
    *,
    samples: int = 5000,
    device: torch.device | str = "cpu",
    pictures: bool = True,
) -> Comparison:
    """Judge synthesisers by samples of the same latents; write table.csv, .md, .tex and a grid of each into the folder.

    The first row, `real`, judges training images as if they were samples: no generator is expected to do better.

    Args:
        methods: all make images of one shape.
        task: what judges; its data make real images of that shape.
        title: what the caption calls the real images.
        samples: of each, and at most so many training images in the first row.
        pictures: whether grids are drawn.

    Raises:
        UserError: the data cannot be used, or there are too few samples.
    """
    task.data.setup()
    task.to(device)
    task.feed(evenly(task.reference.training, samples).to(device))
    real = _cell(task)
    figures = [figure for figure in task.figures if figure.name != "memorised"]  # a training image is one, by itself
    rows = [Row("real", {figure.title: real for figure in figures})]
    drawn = []
    with Bar(len(methods) * samples) as bar:
        for method in methods:
            bar.update(bar.done, doing=method.name)
            made = _judged(method.generator.to(device), task, samples, bar)
            cell = _cell(task)
            if pictures:
                (folder / "pictures").mkdir(exist_ok=True)
                file = folder / "pictures" / f"{safe_name(method.name)}.png"
                write_image(file, Picture(square(made, PICTURE)))
                drawn.append(Judged(method.name, title, "samples", picture=file))
            cells, price = {figure.title: cell for figure in task.figures}, cost(method.generator)
            costs = price.parameters, price.macs_per_pixel
            rows.append(Row(method.name, cells, *costs, checkpoint=str(method.checkpoint)))
    known = {"benchmark": title, "extractor": task.extractor.name, "samples": samples}
    comparison = Comparison("table", _caption(task, title, samples), [*_columns(task.figures)], rows, known, drawn)
    comparison.write(folder)
    return comparison


def _judged(generator: Synthesiser, task: Generation, samples: int, bar: Bar) -> Tensor:
    """Feed the task with samples of a generator; the first of them (n, C, S, S)."""
    latents = fixed_latents(samples, generator.latent).to(next(generator.parameters()).device)
    none = latents.new_empty(0, generator.channels, generator.size, generator.size)
    shown = none
    for some in torch.split(latents, BATCH):
        made = task.judge(generator, Images(some, none))
        shown = made if not len(shown) else shown
        bar.advance(len(some))
    return shown


def _cell(task: Generation) -> Cell:
    """The figures of what the task was fed with, and what explains them: the error of KID."""
    return Cell({**task.compute(), **task.details()})


def _columns(figures: Sequence[Figure]) -> Iterator[Column]:
    """A column a figure; that of KID also holds its error."""
    for figure in figures:
        error = [replace(figure, name=ERROR)] if figure.name == "kid" else []
        yield Column(figure.title, [figure, *error], between=" ± ")


def _caption(task: Generation, title: str, samples: int) -> str:
    training, validation = len(task.reference.training), len(task.reference.validation)
    errors = "; KID with its standard error" if any(figure.name == "kid" for figure in task.figures) else ""
    return (
        f"{samples:,} samples of each against {validation:,} real images of {title}, in the features of the extractor "
        f"{task.extractor.name}{errors}; real: {min(samples, training):,} of {training:,} training images in place of "
        "samples, which no generator is expected to beat."
    )
