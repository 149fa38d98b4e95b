"""How much faster the sub-pixel form of a deconvolution to few channels runs in blocks of 2 x 2 (`blocks.deconv`).

    OMP_WAIT_POLICY=PASSIVE python benchmarks/deconv_blocks.py

Both forms take turns; a figure is the median over the rounds of time(subpixel) / time(blocks), above 1 where blocks are
faster, in inference and in training. Writes deconv_blocks.json and deconv_blocks.md beside itself.
`Deconv2d.in_blocks` follows these figures.
"""

import json
import os
import platform
from itertools import product
from pathlib import Path
from typing import Any

import torch
from deconv_form import LAYOUTS, compare, lay_out

from upsweep.blocks.deconv import Deconv2d
from upsweep.common.memory import keep_freed

LAYERS = {
    # in, out, kernel, stride, padding, output padding
    "FSRCNN x2, 56 to 1, 9x9": (56, 1, 9, 2, 4, 1),
    "64 to 1, 4x4 stride 2": (64, 1, 4, 2, 1, 0),
    "FSRCNN x3, 56 to 1, 9x9": (56, 1, 9, 3, 4, 2),
    "64 to 3, 4x4 stride 2": (64, 3, 4, 2, 1, 0),
}


def main() -> None:
    torch.manual_seed(0)
    keep_freed()
    load = round(os.getloadavg()[0], 1)
    figures: list[dict[str, Any]] = []
    for threads, (what, shape), layout in product((1, 2), LAYERS.items(), LAYOUTS):
        torch.set_num_threads(threads)
        layer = lay_out(Deconv2d(*shape), layout)
        x = torch.rand(1, shape[0], 128, 128).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
        gradient = torch.rand_like(layer(x))

        def infer(layer: torch.nn.Module = layer, x: torch.Tensor = x) -> None:
            with torch.inference_mode():
                layer(x).clone()

        def train(layer: torch.nn.Module = layer, x: torch.Tensor = x, gradient: torch.Tensor = gradient) -> None:
            torch.autograd.grad(layer(x).clone(), (x, *layer.parameters()), gradient)

        for what_for, run in (("inference", infer), ("training", train)):
            found = compare(layer, run, ("subpixel", "blocks"))
            figures.append({"what": what, "layout": layout, "pass": what_for, "threads": threads, **found})
            print(*figures[-1].values(), flush=True)
    machine = {"torch": torch.__version__, "on": platform.machine(), "cores": os.cpu_count(), "load before": load}
    here = Path(__file__).with_suffix("")
    here.with_suffix(".json").write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    lines = [
        "# The sub-pixel form in blocks of 2 x 2",
        "",
        "time(subpixel) / time(blocks), median (quartiles) of alternating rounds: above 1, blocks are faster.",
        "One image of 128x128.",
        f"Made by `python benchmarks/deconv_blocks.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.",
        "",
        "| what | layout | pass | threads | ratio | subpixel, ms | blocks, ms |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {f['what']} | {f['layout']} | {f['pass']} | {f['threads']} "
            f"| {f['ratio']:.2f} ({f['low']:.2f} to {f['high']:.2f}) | {f['subpixel_ms']:.2f} | {f['blocks_ms']:.2f} |"
            for f in figures
        ),
    ]
    here.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
