"""How much faster a deconvolution runs as its equal sub-pixel convolution.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/deconv_form.py

Both forms take turns, so that whatever else the machine does meets both; a figure is the median over the rounds of
time(deconv) / time(subpixel), above 1 where the sub-pixel form is faster. Writes deconv_form.json and deconv_form.md
beside itself. `Deconv2d.as_subpixel` follows these figures.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from upsweep.blocks import Recipe
from upsweep.blocks.activation import PReLU
from upsweep.blocks.deconv import Deconv2d, Form, run_as
from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import He
from upsweep.blocks.norm import Norm
from upsweep.blocks.upsampler import Deconv
from upsweep.networks.upscalers.fsrcnn import FSRCNN

ROUNDS, SECONDS = 11, 0.012  # of one form in one round, at least

LAYERS: dict[str, tuple[int, int, int, int, int, int]] = {
    # in, out, kernel, stride, padding, output padding
    "FSRCNN x2, 56 to 1, 9x9": (56, 1, 9, 2, 4, 1),
    "FSRCNN x3, 56 to 1, 9x9": (56, 1, 9, 3, 4, 2),
    "FSRCNN x4, 56 to 1, 9x9": (56, 1, 9, 4, 4, 3),
    "DeconvNet x2, 16 to 16, 4x4": (16, 16, 4, 2, 1, 0),
    "DeconvNet x3, 16 to 16, 6x6": (16, 16, 6, 3, 2, 1),
    "LapSRN, 64 to 64, 3x3 stride 2": (64, 64, 3, 2, 1, 1),
    "LapSRN, 64 to 64, 4x4 stride 2": (64, 64, 4, 2, 1, 0),
    "64 to 3, 4x4 stride 2": (64, 3, 4, 2, 1, 0),
    "64 to 4, 4x4 stride 2": (64, 4, 4, 2, 1, 0),
    "64 to 8, 4x4 stride 2": (64, 8, 4, 2, 1, 0),
    "LapSRN image, 1 to 1, 4x4 stride 2": (1, 1, 4, 2, 1, 0),
    "U-Net, 128 to 64, 2x2 stride 2": (128, 64, 2, 2, 0, 0),
    "RED-Net, 64 to 64, 3x3 stride 1": (64, 64, 3, 1, 1, 0),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
INPUTS = {"16 patches of 24x24": (16, 24, 24), "1 image of 128x128": (1, 128, 128)}


@dataclass(frozen=True)
class Figure:
    what: str
    input: str
    layout: str
    pass_: str
    threads: int
    ratio: float
    low: float  # quartiles over the rounds
    high: float
    deconv_ms: float
    subpixel_ms: float


def seconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def compare(
    network: nn.Module, run: Callable[[], object], forms: tuple[Form, Form] = ("deconv", "subpixel")
) -> dict[str, float]:
    calls: dict[Form, int] = {}
    times: dict[Form, list[float]] = {form: [] for form in forms}
    for form in forms:
        run_as(network, form)
        run()
        calls[form] = max(1, round(SECONDS / seconds(run, 1)))
    for round_ in range(ROUNDS):
        for form in forms if round_ % 2 else forms[::-1]:
            run_as(network, form)
            times[form].append(seconds(run, calls[form]))
    ratios = [slow / fast for slow, fast in zip(*times.values(), strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "ratio": median(ratios),
        "low": low,
        "high": high,
        **{f"{form}_ms": 1000 * median(times[form]) for form in forms},
    }


def lay_out(network: nn.Module, layout: str) -> nn.Module:
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[layout])
    return network


def of_layers(threads: int) -> Iterator[Figure]:
    for (what, shape), (size, (batch, height, width)), layout in product(LAYERS.items(), INPUTS.items(), LAYOUTS):
        in_channels, out_channels, kernel, stride, padding, more = shape
        layer = lay_out(Deconv2d(in_channels, out_channels, kernel, stride, padding, more), layout)
        x = torch.rand(batch, in_channels, height, width).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
        gradient = torch.rand_like(layer(x))
        inputs = (x, *layer.parameters())

        # The copy stands for whatever reads the output, which the sub-pixel form may leave as a view.
        def forward(layer: nn.Module = layer, x: Tensor = x) -> None:
            with torch.inference_mode():
                layer(x).clone()

        def both(
            layer: nn.Module = layer,
            x: Tensor = x,
            inputs: tuple[Tensor, ...] = inputs,
            gradient: Tensor = gradient,
        ) -> None:
            torch.autograd.grad(layer(x).clone(), inputs, gradient)

        yield Figure(what, size, layout, "forward", threads, **compare(layer, forward))
        yield Figure(what, size, layout, "forward and backward", threads, **compare(layer, both))


def of_fsrcnn(threads: int) -> Iterator[Figure]:
    recipe = Recipe(He(), PReLU, Norm(), Dropout(), Deconv())
    for scale, layout in product((2, 3, 4), LAYOUTS):
        network = lay_out(FSRCNN(recipe, scale).eval(), layout)
        x = torch.rand(1, 1, 512 // scale, 512 // scale).contiguous(memory_format=LAYOUTS[layout])

        def infer(network: nn.Module = network, x: Tensor = x) -> None:
            with torch.inference_mode():
                network(x)

        what, size = f"FSRCNN x{scale}, the whole network", "1 image, output 512x512"
        yield Figure(what, size, layout, "forward", threads, **compare(network, infer))


def table(figures: list[Figure], machine: Mapping[str, object]) -> str:
    lines = [
        "# Deconvolution against its equal sub-pixel convolution",
        "",
        "time(deconv) / time(subpixel), median (quartiles) of alternating rounds: above 1, sub-pixel is faster.",
        f"Made by `python benchmarks/deconv_form.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.",
        "",
        "| what | input | layout | pass | 1 thread | 2 threads |",
        "|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for f in figures:
        cell = f"{f.ratio:.2f} ({f.low:.2f} to {f.high:.2f})"
        rows.setdefault((f.what, f.input, f.layout, f.pass_), {})[f.threads] = cell
    lines += [f"| {' | '.join(row)} | {cells.get(1, '')} | {cells.get(2, '')} |" for row, cells in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.manual_seed(0)
    figures = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for source in (of_fsrcnn, of_layers):
            for figure in source(threads):
                figures.append(figure)
                print(*asdict(figure).values(), flush=True)
    machine = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "cores": os.cpu_count(),
        "load average at the end": round(os.getloadavg()[0], 1),
    }
    here = Path(__file__).with_suffix("")
    here.with_suffix(".json").write_text(
        json.dumps({"machine": machine, "figures": [asdict(f) for f in figures]}, indent=1) + "\n"
    )
    here.with_suffix(".md").write_text(table(figures, machine))


if __name__ == "__main__":
    main()
