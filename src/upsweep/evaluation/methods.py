"""The rows of a table: which generators are judged, their names, and the views that are used."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from upsweep import release
from upsweep.analysis.ranking import differing
from upsweep.common.errors import UserError
from upsweep.common.names import shortest_end
from upsweep.networks import checkpoints
from upsweep.networks.network import Network
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers import SelfEnsemble, Tiled
from upsweep.runs.layout import BEST, RESULT
from upsweep.runs.record import found
from upsweep.runs.result import Result
from upsweep.tracking.weights import located

log = logging.getLogger("upsweep")

SCALES = (2, 3, 4)
FOREIGN = {"images": "FOLDER", "module": "package.Class"}  # methods of anybody, each with a key of its name


@dataclass(frozen=True)
class Views:
    """Ways to run the same weights; they compose."""

    self_ensemble: bool = False  # the mean over the eight flips and rotations
    tile: int | None = None  # side of the tiles (LR pixels) that images are made in; None for whole images
    ema: bool | None = None  # the moving average of the weights, or the last ones; None: the average where there is one

    def __post_init__(self) -> None:
        if self.tile is not None and type(self.tile) is not int:
            raise UserError(f"tile={self.tile} must be a whole number of LR pixels, or null for whole images.")

    def __str__(self) -> str:
        said = {
            "self-ensemble": self.self_ensemble,
            f"tile {self.tile}": self.tile is not None,
            "EMA": self.ema is True,
            "without EMA": self.ema is False,
        }
        return "".join(f", {what}" for what, asked in said.items() if asked)


@dataclass(frozen=True)
class Method:
    """A row of a table: a checkpoint's, or bicubic. Plain values, so that another process can build the generator."""

    name: str  # what the table calls it
    scale: int  # of the generator
    channels: int = 1  # of the generator
    checkpoint: Path | None = None  # where its weights, or its images, are; None for bicubic
    views: Views = Views()  # how it is run
    allow: frozenset[str] = frozenset()  # `_target_`s outside upsweep to be built (see `checkpoints.load_upscaler`)

    def plain(self) -> Upscaler:
        """The generator without the views.

        Raises:
            UserError: the checkpoint is not there, or is not to be trusted.
        """
        if self.checkpoint is None:
            return Bicubic(scale=self.scale).eval()
        network = trained(self.checkpoint, self.views.ema, self.allow)
        return checkpoints.as_upscaler(network, self.checkpoint)

    def generator(self) -> Upscaler:
        """The generator, as its views have it, on the CPU and in evaluation mode.

        Raises:
            UserError: as `plain`, or it refuses a view.
        """
        generator = self.plain()
        try:
            if self.views.tile is not None:
                generator = Tiled(generator, self.views.tile)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from error
        return SelfEnsemble(generator) if self.views.self_ensemble else generator


def trained(checkpoint: Path, ema: bool | None = None, allow: Collection[str] = ()) -> Network:
    """The network of a checkpoint, on the CPU and in evaluation mode; `ema` as in `Views`.

    Raises:
        UserError: it is not there, is not to be trusted, or `ema` is true and it has no moving average.
    """
    if ema and checkpoints.EMA not in checkpoints.read(checkpoint):
        raise UserError(
            f"{checkpoint} has no moving average of its weights: leave ema=true out, or train with "
            "callbacks.ema.decay=0.999."
        )
    return checkpoints.load_generator(checkpoint, allow=allow, ema=ema is not False)


def files_asked(checkpoint: str | Sequence[str] | None = None, sweep: str | None = None) -> list[Path]:
    """The checkpoints that a command line asks for: files, the best ones of runs, those of a sweep's finished jobs.

    Raises:
        UserError: a folder holds none.
    """
    files = [located(said) for said in ([checkpoint] if isinstance(checkpoint, str) else checkpoint or ())]
    return files if sweep is None else [*files, *finished_jobs(Path(sweep).expanduser())]


def asked(
    checkpoint: str | Sequence[str] | None = None,
    sweep: str | None = None,
    method: str | None = None,
    scale: int | Sequence[int] | None = None,
    *,
    views: Views = Views(),
    allow: Collection[str] = (),
    foreign: Sequence[Method] = (),
) -> list[Method]:
    """The rows that a command line asks for.

    Args:
        checkpoint: one or several files or folders of runs.
        sweep: the folder of a sweep, whose every finished job is a row.
        method: bicubic or release; images or module, where `foreign` has them.
        scale: for these two; x2, x3 and x4 where none is given. With checkpoints, the scale that they must have.
        views: of every generator.
        allow: see `Method`.
        foreign: rows of somebody else's images and networks.

    Raises:
        UserError: something is not there, does not go together, or cannot be loaded.
    """
    scales = scales_of(scale)
    files = files_asked(checkpoint, sweep)
    methods = [_loaded(name, file, views, allow) for name, file in zip(names(files), files, strict=True)]
    for each in methods:
        if scales and each.scale not in scales:
            raise UserError(
                f"scale={scale}, but {each.checkpoint} enlarges {each.scale} times: leave scale out, a checkpoint "
                "has its own."
            )
    if method == "bicubic":
        methods = [*(bicubic(s) for s in scales or SCALES), *methods]
    elif method == "release":
        methods += released(scales, views)
    elif method not in (None, *FOREIGN):
        raise UserError(
            f"method={method} is unknown: choose bicubic, release, {' or '.join(FOREIGN)}, or name a checkpoint=PATH."
        )
    methods += foreign
    if not methods:
        raise UserError(
            "There is nothing to judge: name a checkpoint=PATH (a file or a run's folder), a sweep=FOLDER, "
            "method=release, method=bicubic, images=FOLDER or module=package.Class."
        )
    return methods


def scales_of(scale: int | Sequence[int] | None) -> list[int]:
    """The scales that a command line asks for; none where it names none. Raises UserError: one is no scale."""
    scales = [] if scale is None else list(scale) if isinstance(scale, Sequence) else [scale]
    if not all(type(s) is int and s > 1 for s in scales):
        raise UserError(f"scale={scale} must be a whole number above 1, or a list of them.")
    return scales


def bicubic(scale: int) -> Method:
    """The row that every table begins with."""
    return Method("bicubic", scale)


def released(scales: Sequence[int], views: Views) -> list[Method]:
    """The weights that upsweep carries, at the given scales, or at all scales.

    Raises:
        UserError: there are none, at one of the scales.
    """
    found = release.available()
    wanted = scales or sorted({scale for _, scale in found}) or SCALES
    for scale in wanted:
        release.path(None, scale)  # says which there are, where there is none
    return [_loaded(f"{name} (release)", path, views) for (name, scale), path in found.items() if scale in wanted]


def _loaded(name: str, path: Path, views: Views, allow: Collection[str] = ()) -> Method:
    """The method of a file, which is loaded to learn its scale."""
    method = Method(name + str(views), 0, checkpoint=path, views=views, allow=frozenset(allow))
    generator = method.generator()
    return replace(method, scale=generator.scale, channels=generator.channels)


def finished_jobs(sweep: Path) -> list[Path]:
    """The best checkpoint of every finished job of a sweep; a warning names the jobs that are left out.

    Raises:
        UserError: the folder is not there, or no job in it has finished.
    """
    if not sweep.is_dir():
        raise UserError(f"sweep={sweep} is not a folder; sweeps lie in multirun/.")
    usable, left_out = [], []
    for folder in sorted((path.parent for path in sweep.glob(f"*/{RESULT}")), key=_number):
        result = found(Result.read, folder, log.warning)
        if result is None:
            continue
        if result.state != "finished":
            left_out.append(f"{folder.name} ({result.state})")
        elif not (folder / BEST).is_file():
            left_out.append(f"{folder.name} (no checkpoint)")
        else:
            usable.append(folder / BEST)
    if not usable:
        raise UserError(f"sweep={sweep} has no finished job with a checkpoint: is it the folder that holds sweep.json?")
    if left_out:
        log.warning("Left out of sweep=%s: %s.", sweep, ", ".join(left_out))
    return usable


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else 0, folder.name)


def names(files: Sequence[Path]) -> list[str]:
    """What tells checkpoints apart: the choices that differ between their runs, then their paths."""
    settings = [_settings(file) for file in files]
    runs = [each for each in settings if each]  # a file without its run differs in its path alone
    keys = [key for key in differing(runs) if key not in ("generator", "scale")]
    several = len({each.get("generator") for each in settings}) > 1
    places: list[tuple[str, str | None]] = []
    for each in settings:
        chosen = [f"{key}={each[key]}" for key in keys if key in each]
        name = " ".join([each.get("generator", ""), *chosen] if several or not chosen else chosen)
        places.append((name, each.get("scale")))
    return [
        place[0] if places.count(place) == 1 and place[0] else f"{place[0]} {_shortest(file, files)}".strip()
        for place, file in zip(places, files, strict=True)
    ]


def _settings(file: Path) -> Mapping[str, str]:
    """The settings of the run that wrote a checkpoint; none without its run."""
    result = result_of(file)
    return {} if result is None else result.settings


def result_of(file: Path) -> Result | None:
    """The result of the run that wrote a checkpoint; None without its run."""
    return found(Result.read, file.parent.parent) if file.parent.name == BEST.parent.name else None


def _shortest(file: Path, files: Sequence[Path]) -> str:
    """The shortest end of a path that differs from the others; a run's best checkpoint has the name of its folder."""

    def parts(path: Path) -> tuple[str, ...]:
        path = path.absolute()
        return path.parents[1].parts if path.parts[-2:] == BEST.parts else path.with_suffix("").parts

    mine = parts(file)
    return "/".join(shortest_end(mine, map(parts, files)) or mine[-2:])  # or: the same file twice
