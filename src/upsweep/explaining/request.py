"""What `src/explain.py` does: networks side by side, or every job of a sweep; upscalers, or generators from latents."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upsweep.common.devices import device_of
from upsweep.common.errors import UserError
from upsweep.common.files import hold_to_new
from upsweep.common.names import safe_name
from upsweep.common.progress import Bar
from upsweep.evaluation.benchmarks import Benchmark, find_benchmarks
from upsweep.evaluation.methods import names, trained
from upsweep.evaluation.real_images import task_on
from upsweep.evaluation.synthesisers import Made
from upsweep.explaining import latents, upscalers
from upsweep.explaining.attribution import LAM
from upsweep.explaining.explainer import parts_of
from upsweep.explaining.failures import Patches
from upsweep.explaining.features import Features
from upsweep.explaining.latents import OfLatents
from upsweep.explaining.page import figures_table, write_explanation
from upsweep.explaining.photo import Photo
from upsweep.explaining.section import figures_of, panels
from upsweep.explaining.sweep import Jobs, explain_jobs
from upsweep.explaining.synthesisers import Looks, TrainedOn
from upsweep.explaining.upscalers import BeforePhoto
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.synthesiser import Synthesiser
from upsweep.reporting.report import write_report
from upsweep.reporting.sweep import find_sweep
from upsweep.tracking.explained import log_explanation
from upsweep.tracking.weights import located

log = logging.getLogger("upsweep")

DEFAULT = "fsrcnn_x2"
LONGEST = 100  # letters of the networks' names in a title
Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for an explanation. Attributes: see conf/explain.yaml; None: not set.

    `allow` are classes of one's own that checkpoints may name, `logger` the options of W&B, None for no log.
    """

    checkpoint: str | list[str] | None = None
    sweep: str | None = None
    input: str | None = None
    at: list[int] | None = None
    size: int = 16
    benchmark: str | None = None
    parts: str | list[str] = "all"
    output: str = "outputs/explain"
    overwrite: bool = False
    lam: Options = field(default_factory=dict)
    patches: Options = field(default_factory=dict)
    features: Options = field(default_factory=dict)
    latents: Options = field(default_factory=dict)
    data: Options = field(default_factory=dict)
    ema: bool | None = None
    device: str = "auto"
    allow: Collection[str] = ()
    logger: Options | None = None

    def answer(self) -> Iterator[str]:
        """Write it; say what is looked at, what was found, and where it lies. Raises UserError."""
        if self.sweep is None:
            return self._of_networks()
        if self.checkpoint is not None:
            raise UserError("checkpoint= and sweep= both name networks to explain: give only one of them.")
        return self._of_sweep(find_sweep(self.sweep))

    def _of_networks(self) -> Iterator[str]:
        """Networks side by side, in a folder of their own."""
        files = self._files()
        networks = dict(zip(names(files), (trained(file, self.ema, self.allow) for file in files), strict=True))
        folder = Path(self.output).expanduser()
        hold_to_new(folder, self.overwrite)
        explainer = self._explainer(files, next(iter(networks.values())), networks.items())
        title = f"{_together([*networks])} before {explainer.before}"
        yield f"{title}."
        with Bar(len(explainer.parts)) as bar:
            sections = list(explainer.sections(networks, bar))
        figures = {name: figures_of(sections, name) for name in networks}
        table = figures_table([*networks], figures, explainer.figures)
        page = write_explanation(folder, f"Why: {title}", sections, table, explainer.notes)
        said: list[str] = []
        if self.logger is not None:
            keys = {name: f"{safe_name(name)}/" if len(networks) > 1 else "" for name in networks}
            flat = {keys[name] + key: value for name, each in figures.items() for key, value in each.items()}
            said = log_explanation(folder, flat, panels(sections), **self.logger)
        yield table.plain()
        yield from said
        yield f"Page: {page.resolve()}"

    def _files(self) -> list[Path]:
        """The checkpoints that were named. Raises UserError: none was, or one twice."""
        said = DEFAULT if self.checkpoint is None else self.checkpoint
        files = [located(word) for word in ([said] if isinstance(said, str) else said)]
        if not files:
            raise UserError("checkpoint=[] is empty: leave it out, or name a checkpoint.")
        if twice := next((file for file in files if files.count(file) > 1), None):
            raise UserError(f"checkpoint names {twice} twice.")
        return files

    def _of_sweep(self, folder: Path) -> Iterator[str]:
        """Every finished job of a sweep, in the jobs' own folders; then the sweep's page."""
        jobs, done = Jobs.of(folder, self.allow, self.ema), 0
        explainer = self._explainer(jobs.files, jobs.first(), jobs.networks())
        yield f"{len(jobs.files)} jobs before {explainer.before}."
        for run, why, sections in explain_jobs(jobs, explainer, overwrite=self.overwrite):
            done += 1
            if self.logger is not None:
                yield from log_explanation(run, why.figures, panels(sections), **self.logger)
        if done < len(jobs.files):
            yield f"{done} jobs were explained now; earlier explanations are kept (overwrite=true makes them again)."
        yield f"Report: {write_report(folder).resolve()}"

    def _explainer(
        self, files: Sequence[Path], first: Network, networks: Iterable[tuple[str, Network]]
    ) -> BeforePhoto | OfLatents:
        """The explainer for networks of the first one's kind; `networks` is only used if all must be seen."""
        if isinstance(first, Synthesiser):
            return self._of_latents(files, first)
        photo = Photo.read(self.input, self.at)
        if photo.said:
            log.warning(photo.said)
        made = BeforePhoto(
            photo=photo,
            parts=parts_of(self.parts, upscalers.PARTS),
            lam=LAM(**self.lam),
            patches=Patches(**self.patches),
            shown=Features(**self.features),
            benchmark=self._benchmark(),
            cache_dir=Path(self.data["cache_dir"]) if self.data.get("cache") == "disk" else None,
            device=device_of(self.device),
        )
        if self.at is None:
            return made.where_they_differ(networks, self.size)
        x, y = self.at  # which the photo has checked
        return made.at(x, y, self.size)

    def _benchmark(self) -> Benchmark | None:
        if self.benchmark is None:
            return None
        root = self.data.get("root")
        found = find_benchmarks(self.benchmark, None if root is None else Path(root))
        if len(found) > 1:
            raise UserError(f"benchmark={self.benchmark} names {len(found)} sets: name one, or a folder of images.")
        return found[0]

    def _of_latents(self, files: Sequence[Path], first: Synthesiser) -> OfLatents:
        for name in ("input", "at", "benchmark"):
            if (value := getattr(self, name)) is not None:
                raise UserError(
                    f"{name}={value} is for upscalers only, and {files[0]} makes images from latents: leave it out."
                )
        training: TrainedOn | None = None
        try:
            task, data = task_on([Made(file.stem, first, file) for file in files], data=self.data)
            training = TrainedOn.of(task)
        except UserError as error:
            data = "images that are not known"
            log.warning("The samples are shown without training images: %s", error)
        parts, device = parts_of(self.parts, latents.PARTS), device_of(self.device)
        return OfLatents(data=data, training=training, parts=parts, looks=Looks(**self.latents), device=device)


def _together(names: Sequence[str]) -> str:
    """Names for a title: all of them, or how many there are where that would be long; the table has each."""
    together = ", ".join(names)
    return together if len(together) <= LONGEST or len(names) == 1 else f"{len(names)} networks"
