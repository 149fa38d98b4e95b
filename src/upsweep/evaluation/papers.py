"""The table that papers on super-resolution have: a column a data set, PSNR and SSIM at a scale under a protocol."""

from collections.abc import Sequence

from upsweep.evaluation.tables import Column, Comparison, Row
from upsweep.metrics.figure import Figure
from upsweep.metrics.protocol import Protocol

FIGURES = (Figure(name="psnr", title="PSNR", unit="dB", digits=2), Figure(name="ssim", title="SSIM", digits=4))


def comparison(
    scale: int, protocol: Protocol, datasets: Sequence[str], rows: Sequence[Row], timed: str = ""
) -> Comparison:
    """All rows at one scale under one protocol.

    Args:
        datasets: the columns, by their titles.
        rows: their cells hold `psnr` and `ssim`.
        timed: how time and memory were taken; empty where they were not.
    """
    columns = [Column(title, FIGURES, prefix=f"{title.lower().replace(' ', '_')}_") for title in datasets]
    known = {"scale": scale, "protocol": protocol.name}
    return Comparison(f"table_x{scale}", _caption(scale, protocol, rows, timed), columns, rows, known)


def _caption(scale: int, protocol: Protocol, rows: Sequence[Row], timed: str) -> str:
    said = [f"Mean PSNR in dB / SSIM at x{scale}", f"protocol {protocol.name}: {described(protocol)}"]
    if protocol != Protocol():
        said.append("published figures are left out, as they hold under the papers' protocol only")
    if any(cell.mark for row in rows for cell in row.cells.values()):
        said.append("*: marked so where the figure was collected")
    if timed:
        said.append(timed)
    return "; ".join(said) + "."


def described(protocol: Protocol) -> str:
    """A protocol in words."""
    compared = {"y": "luma of BT.601 in studio range", "y_full": "luma of BT.601 in full range", "rgb": "RGB"}
    rounding = "" if protocol.space == "rgb" else ", rounded" if protocol.round_y else ", not rounded"
    border = "the scale's width" if protocol.shave is None else f"{protocol.shave} pixels"
    stored = {"double": "of the luma, not rounded", "uint8": "of RGB, as uint8 images"}[protocol.lr]
    return (
        f"{compared[protocol.space]}{rounding}, {border} shaved from every border, LR by MATLAB-style bicubic {stored}"
    )
