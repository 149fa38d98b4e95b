"""A run as plain files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.common.checks import at_least
from upsweep.common.files import as_csv, write_whole
from upsweep.common.names import safe_name
from upsweep.imaging import marks
from upsweep.imaging.lettering import labelled
from upsweep.imaging.tiles import Cell, Panel
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
    def log_table(self, key: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Write `<key>.csv`; a picture is a PNG in the folder `<key>`, and its cell the place of that file."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = Path(self.log_dir, key)
        table.mkdir(parents=True, exist_ok=True)
        lines: list[list[object]] = [list(columns)]
        for number, row in enumerate(rows, start=1):
            cells: list[object] = []
            for cell in map(row.get, columns):
                if isinstance(cell, Panel):
                    file = table / f"{number}-{safe_name(cell.name)}.png"
                    Image.fromarray(cell.pixels).save(file, pnginfo=marks.png_texts())
                    cell = file.relative_to(table.parent).as_posix()
                cells.append("" if cell is None else cell)
            lines.append(cells)
        write_whole(table.with_name(f"{table.name}.csv"), as_csv(lines))

    def log_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        """Nothing: the checkpoint lies in the folder of the run already."""

    def log_data(self, name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        """Nothing: `identity.json` in the folder of the run says it."""

    @rank_zero_only
    def finish(self, exit_code: int | None = None) -> None:
        self.log_summary({} if exit_code is None else {"exit_code": exit_code})
