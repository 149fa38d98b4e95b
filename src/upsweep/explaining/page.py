"""An explanation as files: a PNG for each section, and one page that needs nothing but itself."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from upsweep.common.files import write_whole
from upsweep.common.table import Table
from upsweep.explaining.section import Section
from upsweep.imaging.marks import png_texts
from upsweep.metrics.figure import Figure
from upsweep.reporting.templates import asset, hashes, template

PAGE = "explanation.html"
STYLE = """
.sheet { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
th { padding: 0.3rem 0.6rem; vertical-align: bottom; }
"""


def write_explanation(
    folder: Path, title: str, sections: Sequence[Section], table: Table, notes: Sequence[str] = ()
) -> Path:
    """Write `<section>.png` and the page into a folder, which is made; the page's path.

    Args:
        folder: where to; files of the same names are replaced.
        title: of the page.
        sections: in their order.
        table: the figures, see `figures_table`.
        notes: sentences that stand first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pngs = {section.name: _png(section) for section in sections}
    for name, png in pngs.items():
        write_whole(folder / f"{name}.png", png)
    encoded = {name: base64.b64encode(png).decode("ascii") for name, png in pngs.items()}
    page = template("upsweep.explaining", f"{PAGE}.jinja", hashes=hashes, png=lambda section: encoded[section.name])
    style = asset("upsweep.reporting", "page", "page.css") + STYLE
    return write_whole(
        folder / PAGE, page.render(title=title, sections=sections, table=table, notes=notes, style=style)
    )


def figures_table(
    names: Sequence[str], figures: Mapping[str, Mapping[str, float]], declared: Sequence[Figure]
) -> Table:
    """A row a network; `-` where it does not have a figure."""
    shown = [figure for figure in declared if any(figure.name in of_one for of_one in figures.values())]
    rows = [[name, *(figure.format(figures.get(name, {}).get(figure.name)) for figure in shown)] for name in names]
    return Table(title="", headers=["network", *(figure.label for figure in shown)], rows=rows)


def _png(section: Section) -> bytes:
    file = io.BytesIO()
    Image.fromarray(section.picture).save(file, "PNG", optimize=True, pnginfo=png_texts())
    return file.getvalue()
