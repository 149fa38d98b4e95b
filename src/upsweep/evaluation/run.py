"""One evaluation, from methods and benchmarks to tables and pictures in a folder: what the door runs."""

import logging
import math
import pickle
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn
from torchmetrics import Metric

from upsweep.common.devices import device_of
from upsweep.common.errors import UserError, first_line
from upsweep.common.files import as_csv, write_whole
from upsweep.common.names import file_names, listed, safe_name
from upsweep.common.progress import Bar
from upsweep.evaluation import papers
from upsweep.evaluation.benchmarks import Benchmark
from upsweep.evaluation.images import ImagesMethod
from upsweep.evaluation.methods import Method, bicubic
from upsweep.evaluation.modules import ModuleMethod
from upsweep.evaluation.pictures import overview
from upsweep.evaluation.published import published_rows
from upsweep.evaluation.speed import HEIGHT, WIDTH, measure
from upsweep.evaluation.tables import Cell, Comparison, Judged, Row
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image
from upsweep.metrics.figure import Figure
from upsweep.metrics.functional import SSIM_WINDOW
from upsweep.metrics.metric import MAX_PSNR
from upsweep.metrics.own import OfEach, Own
from upsweep.metrics.protocol import Protocol
from upsweep.networks.network import cost
from upsweep.tasks.super_resolution.data import EvalImage, EvalImages
from upsweep.tasks.super_resolution.judging import Figures, evaluate, mean

log = logging.getLogger("upsweep")

Images = Mapping[int, Mapping[str, EvalImages]]  # channels -> data set -> its images
OwnMetrics = Mapping[Figure, Metric]  # what they mean -> what measures them
Found = dict[str, dict[str, list[Figures]]]  # method -> data set -> figures of its images


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is judged, on what, and how."""

    folder: Path  # where everything is written
    methods: Sequence[Method]  # the rows; bicubic comes first by itself
    benchmarks: Sequence[Benchmark]  # the columns
    protocol: Protocol  # under which PSNR and SSIM are taken
    own: Callable[[int], OwnMetrics] | None = None  # scale -> more metrics; must be picklable
    device: str = "auto"  # or cpu, mps, cuda, cuda:1
    devices: int = 1  # processes, each on a device of its own (on CPU, with its share of the threads)
    speed: bool = True  # whether time and memory are measured
    pictures: bool = True  # whether a picture of every image is drawn
    cache_dir: Path | None = None  # where prepared images are kept; None prepares them anew

    def __post_init__(self) -> None:
        if type(self.devices) is not int or self.devices < 1:
            raise UserError(f"devices={self.devices} must be a whole number of at least 1.")


def evaluate_all(evaluation: Evaluation) -> list[Comparison]:
    """Judge, write everything into the folder, and give a comparison for each scale.

    Raises:
        UserError: what the user gave cannot be used.
    """
    device_of_rank(evaluation.device, 0, evaluation.devices)  # raises before any work
    comparisons: list[Comparison] = []
    scales = sorted({method.scale for method in evaluation.methods})
    own = [figure.name for scale in scales[:1] for figure in _own(evaluation, scale)]
    lines: list[list[object]] = [["method", "scale", "protocol", "benchmark", "image", "psnr", "ssim", *own]]
    for scale in scales:
        ours = [m for m in evaluation.methods if m.scale == scale and m.checkpoint is not None]
        here = replace(evaluation, methods=_told_apart([bicubic(scale), *ours]))
        channels = sorted({method.channels for method in here.methods})
        judged = _judged(here, {n: _images(here, scale, n) for n in channels})
        _warn_of_hr(here.methods, judged)
        comparison = replace(_compared(here, judged), images=[*_image_by_image(here, judged, own)])
        comparison.write(evaluation.folder)
        comparisons.append(comparison)
        lines += [
            [each.method, scale, evaluation.protocol.name, each.benchmark, each.image, *each.values.values()]
            for each in comparison.images
        ]
    write_whole(evaluation.folder / "images.csv", as_csv(lines))
    return comparisons


def _warn_of_hr(methods: Sequence[Method], judged: Found) -> None:
    """A warning on images of another program without any error: they may be the HR images."""
    for method in (method for method in methods if isinstance(method, ImagesMethod)):
        exact = [each.image for found in judged[method.name].values() for each in found if each.psnr >= MAX_PSNR]
        if exact:
            said = f"{len(exact)} of its images ({listed(exact)})"
            log.warning("%s: %s have no error at all. Are they the HR images?", method.name, said)


def _image_by_image(evaluation: Evaluation, judged: Found, own: Sequence[str]) -> Iterator[Judged]:
    """What was found of every image, with the file of its picture."""
    for method in evaluation.methods:
        for title, each in judged[method.name].items():
            files = _pictures(evaluation, method, title, [figures.image for figures in each])
            for image, psnr, ssim, more in each:
                values = {"psnr": psnr, "ssim": ssim, **dict(zip(own, more, strict=True))}
                yield Judged(method.name, title, image, values, files.get(image))


def device_of_rank(device: str, rank: int, world: int) -> torch.device:
    """The device of one of `world` processes.

    Raises:
        UserError: there is no such device here, or not one for each process.
    """
    found = device_of(device)
    if world == 1 or found.type == "cpu":
        return found
    count = torch.cuda.device_count() if found.type == "cuda" else 1
    if ":" in device or count < world:
        raise UserError(f"devices={world} with device={device} needs {world} devices; this machine has {count}.")
    return torch.device(found.type, rank)


def _own(evaluation: Evaluation, scale: int) -> dict[Figure, OfEach]:
    """Metrics of the user's own, at a scale; each sees one image at a time, as in a validation.

    Raises:
        UserError: one compares sets of images.
    """
    asked = {} if evaluation.own is None else evaluation.own(scale)
    found = {figure: Own(figure.name, metric) for figure, metric in asked.items()}
    for figure, metric in found.items():
        if metric.takes == "sets":
            raise UserError(
                f"metrics.{figure.name} compares two sets of images; upscalers are judged image by image here: leave "
                "it out."
            )
    return {figure: OfEach(metric, evaluation.protocol, scale) for figure, metric in found.items()}


def _told_apart(methods: Sequence[Method]) -> list[Method]:
    """The methods, with a number behind a name that an earlier one has."""
    names = [method.name for method in methods]
    before = [names[:i].count(name) for i, name in enumerate(names)]
    return [replace(m, name=f"{m.name} ({n + 1})") if n else m for m, n in zip(methods, before, strict=True)]


# ---- judging, in one process or several ----


def _images(evaluation: Evaluation, scale: int, channels: int) -> dict[str, EvalImages]:
    """Every benchmark's images, by its title; each large enough to be judged."""
    found = {b.title: b.images(scale, channels, evaluation.cache_dir) for b in evaluation.benchmarks}
    shave = scale if evaluation.protocol.shave is None else evaluation.protocol.shave
    least = SSIM_WINDOW + 2 * shave
    for title, images in found.items():
        for image in images.images:
            height, width = image.hr.shape[1:]
            if min(height, width) < least:
                raise UserError(
                    f"{image.name} of {title} has {width}x{height} pixels at x{scale}: PSNR and SSIM need "
                    f"{least}x{least}."
                )
    return found


def _judged(evaluation: Evaluation, images: Images) -> Found:
    if evaluation.devices == 1:
        return _share(evaluation, images, rank=0)
    with tempfile.TemporaryDirectory() as meeting:
        try:
            arguments = (evaluation, images, meeting, torch.get_num_threads())
            spawn(_process, arguments, evaluation.devices)  # type: ignore[no-untyped-call]
        except (ProcessRaisedException, ProcessExitedException) as error:
            if (said := Path(meeting) / "error").is_file():
                raise UserError(said.read_text()) from error
            raise
        found: Found = pickle.loads((Path(meeting) / "figures").read_bytes())
        return found


def _process(rank: int, evaluation: Evaluation, images: Images, meeting: str, threads: int) -> None:
    """One of several processes, with its share of the threads; the first leaves all figures in `meeting`."""
    world = evaluation.devices
    torch.set_num_threads(max(1, threads // world))
    # gloo on GPUs too: only figures are exchanged.
    dist.init_process_group("gloo", init_method=f"file://{meeting}/rendezvous", rank=rank, world_size=world)
    try:
        judged = _share(evaluation, images, rank)
    except UserError as error:
        write_whole(Path(meeting) / "error", str(error))
        raise
    if rank == 0:
        write_whole(Path(meeting) / "figures", pickle.dumps(judged))
    dist.destroy_process_group()


def _share(evaluation: Evaluation, images: Images, rank: int) -> Found:
    """All figures, of which this process judges its share (see `evaluate`), with a picture of each of its images."""
    methods, world = evaluation.methods, evaluation.devices
    device = device_of_rank(evaluation.device, rank, world)
    mine = [len(range(rank, len(each), world)) for m in methods for each in _of(m, images).values()]
    judged: Found = {}
    with Bar(sum(mine), shown=rank == 0) as bar:
        for method in methods:
            own = list(_own(evaluation, method.scale).values())
            generator = None if isinstance(method, ImagesMethod) else method.generator()
            judged[method.name] = figures = {}
            for title, each in _of(method, images).items():
                baseline = {f.image: f for f in judged[methods[0].name].get(title, ())}
                files = _pictures(evaluation, method, title, [image.name for image in each.images])
                done = partial(_done, bar, files, baseline)
                bar.update(bar.done, doing=f"{method.name}, {title}")
                sr = generator or cast(ImagesMethod, method).images(title)
                figures[title] = evaluate(sr, each, evaluation.protocol, device=device, own=own, on_image=done)
    return judged


def _of(method: Method, images: Images) -> dict[str, EvalImages]:
    """The data sets that a method is judged on: all, unless it is images that somebody made of some of them."""
    return {
        title: each
        for title, each in images[method.channels].items()
        if not isinstance(method, ImagesMethod) or title in method.files
    }


def _pictures(evaluation: Evaluation, method: Method, title: str, images: Sequence[str]) -> dict[str, Path]:
    """The files of the pictures of a data set's images, by their names; none where none are drawn."""
    first = evaluation.methods[0]
    if not evaluation.pictures or (method.name == first.name and len(evaluation.methods) > 1):
        return {}
    folder = evaluation.folder / "pictures" / f"x{method.scale}" / safe_name(method.name) / safe_name(title)
    return {image: folder / f"{name}.png" for image, name in file_names(images).items()}


def _done(
    bar: Bar,
    files: Mapping[str, Path],
    baseline: Mapping[str, Figures],
    image: EvalImage,
    sr: Tensor,
    figures: Figures,
) -> None:
    """Draw the picture of an image into its file, if it is to have one, and move on."""
    if (file := files.get(image.name)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_image(file, Picture(overview(image, sr, figures, baseline.get(image.name))))
    bar.advance()


# ---- the table ----


def _compared(evaluation: Evaluation, judged: Found) -> Comparison:
    """The rows: what was published, then bicubic and ours, with what each costs."""
    methods, titles = evaluation.methods, [benchmark.title for benchmark in evaluation.benchmarks]
    known = [benchmark.title for benchmark in evaluation.benchmarks if benchmark.published]
    rows = published_rows(methods[0].scale, known, evaluation.protocol)
    device, own = device_of(evaluation.device), list(_own(evaluation, methods[0].scale))
    with Bar(len(methods), shown=evaluation.speed) as bar:
        for method in methods:
            means = {title: mean(figures) for title, figures in judged[method.name].items()}
            cells = {
                title: Cell({"psnr": psnr, "ssim": ssim} | _own_means(own, judged[method.name][title]))
                for title, (psnr, ssim) in means.items()
            }
            row = Row(method.name, cells, checkpoint=str(method.checkpoint or ""))
            rows.append(row if isinstance(method, ImagesMethod) else _priced(row, method, device, evaluation.speed))
            bar.advance(doing=f"timing {method.name}")
    threads = f" with {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
    timed = (
        f"ms: median time of an output of {WIDTH}x{HEIGHT} in float32 on {device}{threads}; MB: peak memory "
        "beside the weights"
    )
    timed = timed if evaluation.speed else ""
    return papers.comparison(methods[0].scale, evaluation.protocol, titles, rows, timed, own)


def _priced(row: Row, method: Method, device: torch.device, speed: bool) -> Row:
    """The row with what its generator costs, as far as that can be counted."""
    generator = method.generator()
    taken = measure(method, device) if speed else None
    milliseconds, megabytes = taken or (None, None)
    row = replace(row, milliseconds=milliseconds, megabytes=megabytes)
    try:
        price = cost(generator)
    except Exception as error:  # a network of anybody may take no image so small, or refuse to be copied
        if not isinstance(method, ModuleMethod):
            raise
        log.warning("The multiply-adds of %s are not known: %s", method.name, first_line(error))
        return replace(row, parameters=sum(p.numel() for p in generator.parameters()))
    return replace(row, parameters=price.parameters, macs_per_pixel=price.macs_per_pixel)


def _own_means(own: Sequence[Figure], figures: Sequence[Figures]) -> dict[str, float]:
    """The means over images of figures of the user's own; one without a finite value for every image is left out."""
    values = zip(*(each.own for each in figures), strict=True)
    means = {figure.name: statistics.fmean(each) for figure, each in zip(own, values, strict=True)}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}
