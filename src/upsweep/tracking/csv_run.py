"""A run as plain files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.common.checks import at_least
from upsweep.imaging import marks
from upsweep.imaging.lettering import labelled
from upsweep.imaging.tiles import Panel
from upsweep.metrics.figure import Figure
from upsweep.runs.layout import CSV


class CsvRun(CSVLogger):
    """Plain files in `folder/csv/version_*`: metrics.csv, hparams.yaml (config and summary), pictures as PNG.

    Takes from the training code what `WandbRun` takes. A job that is resumed writes the next version.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        choices: Mapping[str, str] | None = None,
        flat: Mapping[str, float | int | str | None] | None = None,
        figures: Sequence[Figure] = (),  # noqa: ARG002 - whoever reads the files knows them
        overrides: Sequence[str] = (),
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        at_least("logger", 1, flush_logs_every_n_steps=flush_logs_every_n_steps)
        super().__init__(Path(folder) / CSV, name=None, flush_logs_every_n_steps=flush_logs_every_n_steps)
        said = {**(choices or {}), **(flat or {}), "overrides": list(overrides), "config": dict(config or {})}
        self.log_hyperparams(said)

    @rank_zero_only
    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int) -> None:
        """Write `<key>/<name>-<step>.png`, the caption as the PNG's own description."""
        folder = Path(self.log_dir, key)
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            about = marks.png_texts()
            about.add_itxt("Description", picture.caption)
            pixels = labelled(picture.pixels, picture.labels or [picture.caption])
            Image.fromarray(pixels).save(folder / f"{picture.name}-{step}.png", pnginfo=about)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        self.log_hyperparams({**values})
        self.save()

    @rank_zero_only
    def finish(self, exit_code: int | None = None) -> None:
        self.log_summary({} if exit_code is None else {"exit_code": exit_code})
