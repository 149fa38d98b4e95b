"""The usual table of papers on super-resolution: a column a data set, PSNR and SSIM at a scale under a protocol."""

from collections.abc import Sequence

from upsweep.common.names import listed
from upsweep.evaluation.tables import MEASURED, Column, Comparison, Row
from upsweep.metrics.figure import Figure
from upsweep.metrics.protocol import Protocol

FIGURES = (
    Figure(name="psnr", title="PSNR", unit="dB", digits=2, baseline="bicubic"),
    Figure(name="ssim", title="SSIM", digits=4, baseline="bicubic"),
)


def comparison(
    scale: int,
    protocol: Protocol,
    datasets: Sequence[str],
    rows: Sequence[Row],
    timed: str = "",
    own: Sequence[Figure] = (),
) -> Comparison:
    """All rows at one scale under one protocol.

    Args:
        datasets: the columns, by their titles.
        rows: their cells hold `psnr` and `ssim`.
        timed: how time and memory were taken; empty where they were not.
        own: figures beside PSNR and SSIM; published rows lack them.
    """
    figures = (*FIGURES, *own)
    columns = [Column(title, figures, prefix=prefix_of(title)) for title in datasets]
    known = {"scale": scale, "protocol": protocol.name}
    return Comparison(f"table_x{scale}", _caption(figures, scale, protocol, rows, timed), columns, rows, known)


def prefix_of(title: str) -> str:
    """What the names of a data set's columns in a CSV begin with: `set5_`."""
    return f"{title.lower().replace(' ', '_')}_"


def _caption(figures: Sequence[Figure], scale: int, protocol: Protocol, rows: Sequence[Row], timed: str) -> str:
    means = " / ".join(f"{f.title} in {f.unit}" if f.unit else f.title for f in figures)
    said = [f"Mean {means} at x{scale}", f"protocol {protocol.name}: {described(protocol)}"]
    if protocol != Protocol():
        said.append("published figures are left out: they need the papers' protocol")
    if any(cell.mark for row in rows for cell in row.cells.values()):
        said.append("*: doubtful according to the collection")
    if below := _below(rows):
        said.append(f"better without a network: {listed(below)}")
    if timed:
        said.append(timed)
    return "; ".join(said) + "."


def _below(rows: Sequence[Row]) -> list[str]:
    """Where a network is worse than the baseline: `mine on Set5 (below bicubic: 1.78 dB)`."""
    figure = FIGURES[0]
    baseline = next((row for row in rows if row.method == figure.baseline and row.source == MEASURED), None)
    leads = [
        (f"{row.method} on {title}", figure.lead(cell.values[figure.name], baseline.cells[title].values[figure.name]))
        for row in rows
        if baseline is not None and row.checkpoint
        for title, cell in row.cells.items()
    ]
    return [f"{what} ({figure.standing(lead)})" for what, lead in leads if figure.behind(lead)]


def described(protocol: Protocol) -> str:
    """A protocol in words."""
    compared = {"y": "luma of BT.601 in studio range", "y_full": "luma of BT.601 in full range", "rgb": "RGB"}
    rounding = "" if protocol.space == "rgb" else ", rounded" if protocol.round_y else ", not rounded"
    border = "the scale's width" if protocol.shave is None else f"{protocol.shave} pixels"
    stored = {"double": "of the luma, not rounded", "uint8": "of RGB, as uint8 images"}[protocol.lr]
    return (
        f"{compared[protocol.space]}{rounding}, {border} shaved from every border, LR by MATLAB-style bicubic {stored}"
    )
