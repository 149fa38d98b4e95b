"""What others published: `published.csv`, facts collected from papers (docs/evaluation.md says how)."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True)
class Published:
    """PSNR and SSIM of a method on a data set, under the papers' protocol.

    psnr, ssim: as printed, digits and all; a `*` behind one is the collection's own mark of doubt.
    status: how many independent sources agree, and whether the figure was computed again.
    """

    method: str
    scale: int
    dataset: str
    psnr: str
    ssim: str
    status: str

    @property
    def mark(self) -> str:
        """The `*`, or nothing."""
        return "*" if "*" in self.psnr + self.ssim else ""


@lru_cache(maxsize=1)
def facts() -> tuple[Published, ...]:
    """The whole collection, in its order."""
    text = files("upsweep.evaluation").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(row["method"], int(row["scale"]), row["dataset"], row["psnr_db"], row["ssim"], row["status"])
        for row in csv.DictReader(text.splitlines())
    )


def published(scale: int, datasets: Collection[str]) -> dict[str, dict[str, Published]]:
    """Method -> data set -> figures, for those methods that have any at the scale on the data sets."""
    found: dict[str, dict[str, Published]] = {}
    for fact in facts():
        if fact.scale == scale and fact.dataset in datasets:
            found.setdefault(fact.method, {})[fact.dataset] = fact
    return found
