"""What others published: `published.csv`, facts collected from papers (docs/evaluation.md says how)."""

import csv
from collections.abc import Collection
from importlib.resources import files

from upsweep.evaluation.tables import Cell, Row
from upsweep.metrics.protocol import Protocol


def published(scale: int, datasets: Collection[str]) -> dict[str, dict[str, Cell]]:
    """Method -> data set -> figures under the papers' protocol, for those methods that have any there.

    A cell's mark is the `*` of figures that the collection doubts; its status says how many independent sources
    agree, and whether the figure was computed again.
    """
    text = files("upsweep.evaluation").joinpath("published.csv").read_text(encoding="utf-8")
    found: dict[str, dict[str, Cell]] = {}
    for row in csv.DictReader(text.splitlines()):
        if int(row["scale"]) == scale and row["dataset"] in datasets:
            psnr, ssim = row["psnr_db"], row["ssim"]
            mark = "*" if "*" in psnr + ssim else ""
            values = {"psnr": float(psnr.rstrip("*")), "ssim": float(ssim.rstrip("*"))}
            cell = Cell(values, mark, row["status"])
            found.setdefault(row["method"], {})[row["dataset"]] = cell
    return found


def published_rows(scale: int, datasets: Collection[str], protocol: Protocol) -> list[Row]:
    """What others published on the same data sets at the same scale; nothing under another protocol than theirs."""
    facts = published(scale, datasets) if protocol == Protocol() else {}
    return [Row(method, cells) for method, cells in facts.items()]
