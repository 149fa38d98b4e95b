"""How long 5,000 samples take to be judged with `digits`: at most 10 s on two cores, and in proportion to their number.

    python benchmarks/judging.py

Samples and real images are random 28x28 images (what is in them does not change the time): 60,000 of training and
5,000 of validation, whose features are there before the clock starts, as in the validations of a training. Judging is
extraction in batches of 256, then all five figures. Writes judging.json and judging.md beside itself.
"""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from upsweep.metrics.distances import MEASURES
from upsweep.metrics.extractors import Digits
from upsweep.metrics.reference import Reference

TRAINING, VALIDATION, BATCH, BOUND = 60_000, 5000, 256, 10.0
COUNTS = (1250, 2500, 5000)


def judge(extractor: Digits, real: Reference, count: int) -> dict[str, float]:
    """Seconds of each part."""
    images = torch.rand(count, 1, 28, 28)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    features = torch.cat([extractor(some) for some in torch.split(images, BATCH)])
    seconds["extraction"] = time.perf_counter() - start
    for name, kind in MEASURES.items():
        start = time.perf_counter()
        metric = kind(real)
        metric.update(features)
        metric.compute()
        seconds[name] = time.perf_counter() - start
    return {**seconds, "all": sum(seconds.values())}


def measured() -> dict[str, Any]:
    torch.manual_seed(0)
    extractor, real = Digits(), Reference(torch.randn(TRAINING, 64), torch.randn(VALIDATION, 64))
    judge(extractor, real, 100)  # what is asked of the real images once a run
    rows = {count: judge(extractor, real, count) for count in COUNTS}
    machine = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load average at the end": round(os.getloadavg()[0], 1),
    }
    return {"seconds": rows, "bound": BOUND, "within": rows[COUNTS[-1]]["all"] <= BOUND, "machine": machine}


def table(result: dict[str, Any]) -> str:
    parts = ["extraction", *MEASURES, "all"]
    return "\n".join(
        [
            "# Judging samples",
            "",
            f"Made by `python benchmarks/judging.py`: {', '.join(f'{k} {v}' for k, v in result['machine'].items())}.",
            "",
            f"Seconds, with `digits`, beside {TRAINING:,} training and {VALIDATION:,} validation images "
            f"(5,000 samples: at most {result['bound']:.0f} in all).",
            "",
            f"| samples | {' | '.join(parts)} |",
            f"| ---: |{' ---: |' * len(parts)}",
            *(
                f"| {count:,} | {' | '.join(f'{row[part]:.2f}' for part in parts)} |"
                for count, row in result["seconds"].items()
            ),
            "",
        ]
    )


def main() -> None:
    result = measured()
    here = Path(__file__).with_suffix("")
    here.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    here.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
