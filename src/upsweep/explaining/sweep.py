"""A sweep explained: every finished job in its own folder, for the section Why of the sweep's page."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upsweep.common.errors import UserError
from upsweep.common.progress import Bar
from upsweep.evaluation.methods import finished_jobs, names, trained
from upsweep.explaining.explainer import Explainer
from upsweep.explaining.page import figures_table, write_explanation
from upsweep.explaining.section import Section, figures_of
from upsweep.imaging.tiles import side_by_side
from upsweep.networks.network import Network
from upsweep.runs.layout import WHY_FOLDER, WHY_PICTURE
from upsweep.runs.record import found
from upsweep.runs.strip import write_strip
from upsweep.runs.why import Why, declare

log = logging.getLogger("upsweep")

STRIP = "From left to right: where the detail in the window comes from, over LR around it; the effective field."
TILE = 128  # pixels in height of the tiles in a job's strip


@dataclass(frozen=True)
class Jobs:
    """The finished jobs of a sweep, whose networks are loaded one at a time."""

    files: Sequence[Path]  # their best checkpoints
    names: Sequence[str]
    allow: Collection[str] = ()
    ema: bool | None = None

    @classmethod
    def of(cls, sweep: Path, allow: Collection[str] = (), ema: bool | None = None) -> "Jobs":
        """Raises UserError: the folder is not there, or no job in it has finished."""
        files = finished_jobs(sweep)
        return cls(files, names(files), allow, ema)

    def network(self, number: int) -> Network:
        """Of one job, on the CPU. Raises UserError: it cannot be loaded."""
        return trained(self.files[number], self.ema, self.allow)

    def first(self) -> Network:
        """The first that can be loaded. Raises UserError: there is none."""
        for number in range(len(self.files) - 1):
            with suppress(UserError):
                return self.network(number)
        return self.network(len(self.files) - 1)

    def networks(self) -> Iterator[tuple[str, Network]]:
        """All that can be loaded, with their names; the bar says how far it is."""
        with Bar(len(self.files), "where they differ", after=1.0) as bar:
            for number, name in enumerate(self.names):
                with suppress(UserError):  # which `explain_jobs` reports
                    yield name, self.network(number)
                bar.advance()


def explain_jobs(
    jobs: Jobs, explainer: Explainer, *, overwrite: bool = False
) -> Iterator[tuple[Path, Why, list[Section]]]:
    """Explain every job, and write what the report shows into its folder: record, strip, and `why/` with the page.

    Gives folder, record and sections of each job that is done. An earlier one with the same options is kept, and not
    given, unless `overwrite`: a stopped explanation continues. A job that cannot be explained gives a warning.
    """
    steps = len(explainer.parts)
    with Bar(len(jobs.files) * steps, said=lambda done, _: f"job {done // steps:.0f} of {len(jobs.files)}") as bar:
        for number, file in enumerate(jobs.files):
            folder, asked = file.parents[1], {**explainer.asked, **_weights(file), "ema": jobs.ema}
            before = None if overwrite else found(Why.read, folder)
            if before is None or before.asked != asked:
                try:
                    sections = list(explainer.sections({jobs.names[number]: jobs.network(number)}, bar))
                    yield folder, leave(folder, jobs.names[number], sections, explainer, asked), sections
                except UserError as error:
                    log.warning("Job %s is left out: %s", folder.name, error)
            bar.update((number + 1) * steps)


def _weights(file: Path) -> dict[str, Any]:
    state = file.stat()
    return {"checkpoint": [state.st_size, state.st_mtime_ns]}


def leave(folder: Path, name: str, sections: Sequence[Section], explainer: Explainer, asked: dict[str, Any]) -> Why:
    """Write the explanation of a job; the record last, since it says that the rest is there."""
    figures = figures_of(sections, name)
    spectrum = {key: values for one in sections for key, values in one.spectrum.get(name, {}).items()}
    table = figures_table([name], {name: figures}, explainer.figures)
    write_explanation(folder / WHY_FOLDER, f"Why: {name} before {explainer.before}", sections, table, explainer.notes)
    if tiles := [section.tiles[name] for section in sections if name in section.tiles]:
        write_strip(folder / WHY_PICTURE, strip(tiles), STRIP)
    else:
        (folder / WHY_PICTURE).unlink(missing_ok=True)  # that of an explanation before
    why = Why(
        image=explainer.image,
        window=explainer.square,
        figures=figures,
        declared=declare([figure for figure in explainer.figures if figure.name in figures]),
        spectrum=spectrum,
        asked=asked,
    )
    why.write(folder)
    return why


def strip(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Small pictures (H, W, 3) side by side, each made `TILE` pixels high."""
    return side_by_side([_high(tile) for tile in tiles])


def _high(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = tile.shape[:2]
    size = (max(1, round(width * TILE / height)), TILE)
    return np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.NEAREST))
