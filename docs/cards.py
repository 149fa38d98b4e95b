"""Ship a trained generator: its weights and its card into src/upsweep/release/, from a run's folder.

    UPSWEEP_DATA=PATH python docs/cards.py fsrcnn=outputs/release_fsrcnn_x2 fsrcnn=outputs/release_fsrcnn_x3

The run's best checkpoint (chosen on its validation images) is judged on Set5, Set14 and BSD100 under the papers'
protocol, and everything that the card says is read from the run or measured here. All pages and the table of
docs/zoo.md are written again from the cards that lie there; without arguments nothing else is done.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from upsweep import release
from upsweep.common.files import write_whole
from upsweep.data.known import SETS, TRAINING, data_root
from upsweep.evaluation import evaluate, mean
from upsweep.evaluation.benchmarks import benchmark_images
from upsweep.evaluation.published import published
from upsweep.metrics.protocol import Protocol
from upsweep.networks import checkpoints
from upsweep.networks.network import cost
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.runs.about import About
from upsweep.runs.layout import ABOUT, LAST
from upsweep.runs.result import Result

BENCHMARKS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100"}
PAPER = "FSRCNN(as re-run by later papers)"  # the rows that cover all three, within 0.05 dB of the paper's own
# What stands beside ours: method in published.csv -> title, weights, multiply-adds for a pixel of the output.
OTHERS: dict[str, tuple[str, int, Callable[[int], float]]] = {
    PAPER: ("FSRCNN, as published", 12_464, lambda scale: 12_464 / scale**2),
    "VDSR": ("VDSR, as published", 664_704, lambda _: 664_704),
}
OPENCV = {2: 34.82, 3: 30.57, 4: 28.39}  # its FSRCNN on Set5, measured elsewhere under the same protocol
BEGIN, END = "<!-- weights: written by docs/cards.py -->", "<!-- end of weights -->"
BEGIN_LICENCE, END_LICENCE = "<!-- licence: written by docs/cards.py -->", "<!-- end of licence -->"
SOURCES = {  # a word of what weights were trained on -> what that is, and on what terms it is offered
    "T91": "T91 (Yang et al. 2010)",
    "BSD": "images of the Berkeley segmentation data sets, which their authors offer for non-commercial research and "
    "education",
    "Free": "65 photographs under the Unsplash licence, CC BY-SA, the GPL or the LGPL, which allow commercial use",
}
FREE = {"Free"}  # the SOURCES that are not for research alone


def ship(name: str, run: Path) -> str:
    """Write weights and cards; a sentence about them."""
    result = Result.read(run)
    if result is None or result.state != "finished" or result.checkpoint is None:
        sys.exit(f"{run} is not the folder of a finished run.")
    checkpoint = run / "checkpoints" / "best.ckpt"
    generator, spec = checkpoints.load(checkpoint)
    weights = release.FOLDER / f"{name}_x{generator.scale}.safetensors"
    checkpoints.save_release(generator, spec, weights)
    card = described(name, run, result, weights)
    write(card, weights)
    return f"{weights.name}: " + ", ".join(f"{title} {row['psnr']:.2f}" for title, row in card["benchmarks"].items())


def write(card: dict[str, Any], weights: Path) -> None:
    """The card for programs and for people, beside its weights."""
    write_whole(weights.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    write_whole(weights.with_suffix(".md"), page(card))


def described(name: str, run: Path, result: Result, weights: Path) -> dict[str, Any]:
    """The card as plain values."""
    about = About.read(run)
    if about is None:
        sys.exit(f"{run} does not say how it was made: it has no {ABOUT}.")
    config = about.config
    generator = checkpoints.load_upscaler(weights)
    price, root, data = cost(generator), data_root(None), trained_on(config)
    steps = checkpoints.read(run / LAST)["global_step"]
    rows: dict[str, Any] = {}
    for key, title in BENCHMARKS.items():
        images = benchmark_images(key, root, scale=generator.scale, channels=generator.channels)
        (psnr, ssim), (plain, plain_ssim) = (
            mean(evaluate(one, images, Protocol())) for one in (generator, Bicubic(scale=generator.scale).eval())
        )
        rows[title] = {
            **{"psnr": round(psnr, 4), "ssim": round(ssim, 5)},
            **{"bicubic_psnr": round(plain, 4), "bicubic_ssim": round(plain_ssim, 5)},
        }
    return {
        "name": name,
        "scale": generator.scale,
        "weights": sum(p.numel() for p in generator.parameters() if p.ndim > 1),
        "parameters": price.parameters,
        "macs_per_pixel": price.macs_per_pixel,
        "data": data,
        "command": ["python", "src/train.py", *(a for a in about.command[2:] if not a.startswith("hydra."))],
        "commit": about.commit,
        "versions": about.versions,
        "seed": result.seed,
        "steps": int(steps),
        "seconds": None if result.seconds is None else round(result.seconds),
        "validation_psnr": result.figures["psnr"],  # the checkpoint's, not the last epoch's
        "protocol": Protocol().name,
        "benchmarks": rows,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "licence": licence(data),
    }


def trained_on(config: dict[str, Any]) -> str:
    """The sets that a run was trained and validated on, and its teacher's, in words."""
    data, teacher = config["data"], config["objective"].get("teacher")
    *others, last = (SETS[part].title for part in TRAINING[data["name"]])
    sets = " and ".join([", ".join(others), last] if others else [last])
    if teacher is not None:
        its = {f"{name}_x{scale}": card["data"] for (name, scale), card in release.cards().items()}
        if teacher not in its:
            sys.exit(f"The teacher {teacher} has no card: ship it first, so that its data are known.")
        sets = f"{sets}, taught by {teacher} ({its[teacher].partition(', validated')[0]})"
    return f"{sets}, validated on {data['val_count']} images of {SETS[data['val_set']].title}"


def licence(data: str) -> str:
    """The licence of weights that were trained on `data`, in the words of their card."""
    words = {word for word in SOURCES if word in data.partition(", validated")[0]}
    *others, last = (said for word, said in SOURCES.items() if word in words)
    sources = ", and on ".join([", on ".join(others), last] if others else [last])
    advice = (
        "none of these licences forbids commercial use."
        if words <= FREE
        else "for commercial use take sesr_free, or train on images of your own, with the command of its card."
    )
    return (
        f"The weights are under the project's MIT licence. They were trained on {sources}. None of these images is "
        "part of the package. Whether weights inherit anything from the images that they were trained on is not "
        f"settled; {advice}"
    )


def page(card: dict[str, Any]) -> str:
    """The card for people."""
    paper = published(card["scale"], list(card["benchmarks"])).get(PAPER, {})
    lines = [
        f"# {card['name']} x{card['scale']}",
        "",
        f"{card['weights']:,} weights ({card['parameters']:,} parameters), {card['macs_per_pixel']:,.0f} multiply-adds "
        "for a pixel of the output.",
        "",
        "| benchmark | PSNR, dB / SSIM | bicubic | FSRCNN as published |",
        "| --- | ---: | ---: | ---: |",
    ]
    for title, row in card["benchmarks"].items():
        said = " / ".join(
            "-" if title not in paper else f"{paper[title].values[key]:.{digits}f}"
            for key, digits in (("psnr", 2), ("ssim", 4))
        )
        lines.append(
            f"| {title} | {row['psnr']:.2f} / {row['ssim']:.4f} | {row['bicubic_psnr']:.2f} / "
            f"{row['bicubic_ssim']:.4f} | {said} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Papers' protocol (`protocol={card['protocol']}`); `python src/evaluate.py method=release "
            f"scale={card['scale']}` measures it again.",
            "",
            f"- **Data**: {card['data']}, on which the checkpoint was chosen (docs/recipe.md).",
            f"- **Command**: `{' '.join(card['command'])}`, seed {card['seed']}, commit {str(card['commit'])[:7]}, "
            f"torch {card['versions']['torch']}.",
            f"- **Training**: {card['steps']:,} steps, {card['seconds']:,} s on CPU; its best checkpoint, "
            f"these weights, has {card['validation_psnr']:.2f} dB on the validation images.",
            f"- **sha256**: `{card['sha256']}`",
            f"- **Licence**: {card['licence']}",
            "",
        ]
    )


def table() -> str:
    """That of docs/zoo.md: bicubic, what others published, and what is shipped, in dB at x2 / x3 / x4."""
    cards = release.cards()
    scales = sorted({scale for _, scale in cards})

    def row(name: str, weights: str, macs: str, figure: Callable[[str, int], float | None]) -> str:
        cells = [
            " / ".join("-" if (dB := figure(title, scale)) is None else f"{dB:.2f}" for scale in scales)
            for title in BENCHMARKS.values()
        ]
        return f"| {' | '.join([name, weights, macs, *cells])} |"

    def others(method: str, title: str, scale: int) -> float | None:
        found = published(scale, list(BENCHMARKS.values())).get(method, {}).get(title)
        return None if found is None else found.values["psnr"]

    def bicubic(title: str, scale: int) -> float | None:
        return next((c["benchmarks"][title]["bicubic_psnr"] for at, c in cards.items() if at[1] == scale), None)

    def shipped(name: str) -> Callable[[str, int], float | None]:
        return lambda title, scale: cards[name, scale]["benchmarks"][title]["psnr"] if (name, scale) in cards else None

    at_scales = " / ".join(f"x{scale}" for scale in scales)
    lines = [
        f"| PSNR in dB at {at_scales} | weights | multiply-adds a pixel | {' | '.join(BENCHMARKS.values())} |",
        f"| --- | ---: | ---: | {' | '.join('---:' for _ in BENCHMARKS)} |",
        row("bicubic", "-", "-", bicubic),
        row("OpenCV's FSRCNN", "12,464", "-", lambda title, scale: OPENCV.get(scale) if title == "Set5" else None),
    ]
    for method, (title, count, macs) in OTHERS.items():
        each = " / ".join(f"{macs(scale):,.0f}" for scale in scales)
        lines.append(row(title, f"{count:,}", each, partial(others, method)))
    for name in sorted(
        {name for name, _ in cards}, key=lambda name: max(cards[a]["weights"] for a in cards if a[0] == name)
    ):
        weights = {card["weights"] for at, card in cards.items() if at[0] == name}
        ends = " to ".join(f"{n:,}" for n in sorted({min(weights), max(weights)}))
        each = " / ".join(f"{cards[name, s]['macs_per_pixel']:,.0f}" if (name, s) in cards else "-" for s in scales)
        lines.append(row(f"**{name}, shipped**", ends, each, shipped(name)))
    return "\n".join(lines)


def rendered(zoo: str) -> str:
    """docs/zoo.md with its table and its licences as the cards have them."""
    names = dict[str, list[str]]()
    for (name, scale), card in release.cards().items():
        names.setdefault(card["licence"], []).append(f"{name}_x{scale}")
    licences = "\n\n".join(f"{', '.join(f'`{name}`' for name in which)}: {said}" for said, which in names.items())
    for begin, end, block in ((BEGIN, END, table()), (BEGIN_LICENCE, END_LICENCE, licences)):
        before, _, rest = zoo.partition(begin)
        zoo = f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"
    return zoo


if __name__ == "__main__":
    if not all("=" in asked for asked in sys.argv[1:]):
        sys.exit(__doc__)
    for asked in sys.argv[1:]:
        name, _, folder = asked.partition("=")
        print(ship(name, Path(folder)))
    for at, card in release.cards().items():
        write({**card, "licence": licence(card["data"])}, release.path(*at))
    zoo = Path(__file__).resolve().parent / "zoo.md"
    write_whole(zoo, rendered(zoo.read_text(encoding="utf-8")))
