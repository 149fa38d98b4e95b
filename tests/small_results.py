"""Results of runs that never ran, by their settings and their headline: what analysis and the page read."""

from upsweep.metrics.figure import Figure
from upsweep.runs.result import FIGURES_OF_VERSION_1, Result, State

PSNR, SSIM = FIGURES_OF_VERSION_1
CHOICES = {"generator": "deconvnet", "init": "he", "norm": "none", "activation": "prelu", "data": "photos"}


def result(value: float | None, state: State = "finished", figure: Figure = PSNR, **settings: str) -> Result:
    """A run with these settings, and its headline."""
    keys = {key.replace("__", "."): value for key, value in settings.items()}
    return Result(
        state=state,
        choices=CHOICES | {key: value for key, value in keys.items() if key in CHOICES},
        overrides=[f"{key}={value}" for key, value in keys.items()],
        seed=int(keys.get("seed", 1)),
        scale=int(keys.get("scale", 2)),
        declared=(figure,),
        figures={} if value is None else {figure.name: value},
    )
