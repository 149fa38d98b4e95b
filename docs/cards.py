"""Ship a trained generator: its weights and its card into src/upsweep/release/, from a run's folder.

    UPSWEEP_DATA=PATH python docs/cards.py fsrcnn=outputs/release_fsrcnn_x2 fsrcnn=outputs/release_fsrcnn_x3

The run's best checkpoint (chosen on its validation images) is judged on Set5, Set14 and BSD100 under the papers'
protocol, and everything that the card says is read from the run or measured here. All pages and the tables of
docs/zoo.md are written again from the cards that lie there; without arguments nothing else is done. The classes that a
run's config names for its generator are imported: ship your own runs.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.common.files import write_whole
from upsweep.data.known import SETS, data_root
from upsweep.evaluation import evaluate, mean
from upsweep.evaluation.benchmarks import benchmark_images
from upsweep.evaluation.published import published
from upsweep.metrics.protocol import Protocol
from upsweep.networks import checkpoints
from upsweep.networks.network import cost
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.runs.about import About
from upsweep.runs.history import read as history
from upsweep.runs.identity import Identity
from upsweep.runs.layout import ABOUT, BEST, HISTORY, run_of
from upsweep.runs.result import Result, said_at_first
from upsweep.tracking.weights import START, weights_of

ZOO = Path(__file__).resolve().parent / "zoo.md"
BENCHMARKS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100"}
PAPER = "FSRCNN(as re-run by later papers)"  # the rows that cover all three, within 0.05 dB of the paper's own
# What stands beside ours: method in published.csv -> title, weights, multiply-adds for a pixel of the output.
OTHERS: dict[str, tuple[str, int, Callable[[int], float]]] = {
    PAPER: ("FSRCNN, as published", 12_464, lambda scale: 12_464 / scale**2),
    "VDSR": ("VDSR, as published", 664_704, lambda _: 664_704),
}
OPENCV = {2: 34.82, 3: 30.57, 4: 28.39}  # its FSRCNN on Set5, measured elsewhere under the same protocol
SOURCES = {  # a word of what weights were trained on -> what that is, and on what terms it is offered
    "T91": "T91 (Yang et al. 2010)",
    "BSD": "images of the Berkeley segmentation data sets, which their authors offer for non-commercial research and "
    "education",
    "Free": "65 photographs under the Unsplash licence, CC BY-SA, the GPL or the LGPL, which allow commercial use",
}
FREE = {"Free"}  # the SOURCES that are not for research alone


def ship(name: str, run: Path) -> str:
    """Write weights and cards; a sentence about them. Nothing is replaced before all of it is made."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        sys.exit(f"{name}= is no name for weights: take small letters, digits and _.")
    result = Result.read(run)
    if result is None or result.state != "finished" or result.checkpoint is None:
        sys.exit(f"{run} is not the folder of a finished run.")
    generator, spec = checkpoints.load(run / BEST, allow=checkpoints.named_by_run(run / BEST))
    if not isinstance(generator, Upscaler):
        sys.exit(f"{run} trained a {type(generator).__name__}; cards are for upscalers.")
    card = described(name, run, result, generator)
    weights = release.FOLDER / f"{name}_x{generator.scale}.safetensors"
    with TemporaryDirectory() as folder:
        checkpoints.save_release(generator, spec, Path(folder) / weights.name)
        content = (Path(folder) / weights.name).read_bytes()
    write({**card, "sha256": hashlib.sha256(content).hexdigest(), "licence": licence(card["data"])}, weights)
    write_whole(weights, content)
    return f"{weights.name}: " + ", ".join(f"{title} {row['psnr']:.2f}" for title, row in card["benchmarks"].items())


def write(card: dict[str, Any], weights: Path) -> None:
    """The card for programs and for people, beside its weights."""
    write_whole(weights.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    write_whole(weights.with_suffix(".md"), page(card))


def described(name: str, run: Path, result: Result, generator: Upscaler) -> dict[str, Any]:
    """What the card says of a run and its generator, as plain values."""
    about, data = about_of(run), trained_on(run)
    price, root = cost(generator), data_root(None)
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
        "command": command_of(about),
        "commit": about.commit,
        "versions": about.versions,
        "seed": result.seed,
        "steps": [*history(run / HISTORY)][-1].step,
        "seconds": None if result.seconds is None else round(result.seconds),
        "validation_psnr": result.figures["psnr"],  # the checkpoint's, not the last epoch's
        "protocol": Protocol().name,
        "benchmarks": rows,
    }


def about_of(run: Path) -> About:
    """How a run was made. Exits where it does not say so."""
    return About.read(run) or sys.exit(f"{run} does not say how it was made: it has no {ABOUT}.")


def command_of(about: About) -> list[str]:
    """The command that makes the weights anew, without the run's own folder."""
    words = (word for word in said_at_first(about.command[2:]) if not word.startswith("hydra."))
    return ["python", "src/train.py", *words]


def trained_on(run: Path) -> str:
    """The sets that a run was trained and validated on, and those of its teachers and of the weights it began with."""
    identity = Identity.read(run)
    if identity is None:
        sys.exit(f"{run} does not say which images it has seen.")
    sets = sets_of(identity.training, run, [name for name, known in SETS.items() if words_of(known.title)])
    for key, named in weights_of(about_of(run).config).items():
        if named is not None:
            how = "begun with" if key in START else "taught by"
            sets += ", " + " ".join([how, *data_of(str(named))])
    return f"{sets}, validated on {len(identity.validation)} images of {sets_of(identity.validation, run, SETS)}"


def data_of(named: str) -> tuple[str, str]:
    """What weights are called, and in brackets what they were trained on. Exits where that is not known."""
    for (name, scale), card in release.cards().items():
        if named == f"{name}_x{scale}":
            return named, f"({seen(card['data'])})"
    if (run := run_of(release.located(named))) is None:
        sys.exit(f"{named} has no card, and lies in no run's folder: its data are not known.")
    return "weights of another run", f"({seen(trained_on(run))})"


def seen(data: str) -> str:
    """What weights were trained on, without what they were chosen on."""
    return data.partition(", validated")[0]


def sets_of(images: Iterable[str], run: Path, known: Collection[str]) -> str:
    """The sets that images of a run lie in, in words. Exits where one lies in none of those that are known."""
    found = {image: set_of(image) for image in images}
    if unknown := [image for image, name in found.items() if name not in known]:
        titles = ", ".join(SETS[name].title for name in known)
        sys.exit(f"{run} has seen {unknown[0]}, and docs/cards.py knows the terms of {titles} alone: add them to it.")
    *others, last = (SETS[name].title for name in known if name in found.values())
    return " and ".join([", ".join(others), last] if others else [last])


def set_of(image: str) -> str | None:
    """The set in one of whose folders an image lies, the innermost one."""
    ends = {
        name: max((image.rfind(f"{folder}/") for folder in known.folders if f"/{folder}/" in f"/{image}"), default=-1)
        for name, known in SETS.items()
    }
    last = max(ends, key=lambda name: ends[name])
    return last if ends[last] >= 0 else None


def words_of(data: str) -> list[str]:
    """The words of SOURCES that are in what weights were trained on."""
    return [word for word in SOURCES if word in data]


def licence(data: str) -> str:
    """The licence of weights that were trained on `data`, in the words of their card."""
    words = words_of(seen(data))
    *others, last = (SOURCES[word] for word in words)
    sources = ", and on ".join([", on ".join(others), last] if others else [last])
    advice = (
        "none of these licences forbids commercial use."
        if {*words} <= FREE
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
    largest = {name: max(card["weights"] for at, card in cards.items() if at[0] == name) for name, _ in cards}
    for name in sorted(largest, key=lambda name: (largest[name], name)):
        weights = {card["weights"] for at, card in cards.items() if at[0] == name}
        ends = " to ".join(f"{n:,}" for n in sorted({min(weights), max(weights)}))
        each = " / ".join(f"{cards[name, s]['macs_per_pixel']:,.0f}" if (name, s) in cards else "-" for s in scales)
        lines.append(row(f"**{name}, shipped**", ends, each, shipped(name)))
    return "\n".join(lines)


def files() -> str:
    """Of docs/zoo.md: each card by its name and scale."""
    cards = release.cards()
    scales = sorted({scale for _, scale in cards})
    lines = [f"| | {' | '.join(f'x{scale}' for scale in scales)} |", f"| --- |{' --- |' * len(scales)}"]
    for name in dict.fromkeys(name for name, _ in cards):
        at = [f"[card](../src/upsweep/release/{name}_x{s}.md)" if (name, s) in cards else "-" for s in scales]
        lines.append(f"| `{name}` | {' | '.join(at)} |")
    return "\n".join(lines)


def licences() -> str:
    """Of docs/zoo.md: each licence, with the names of the weights that are under it."""
    names = dict[str, list[str]]()
    for (name, scale), card in release.cards().items():
        names.setdefault(card["licence"], []).append(f"`{name}_x{scale}`")
    return "\n\n".join(f"{', '.join(which)}: {said}" for said, which in names.items())


def rendered(zoo: str) -> str:
    """docs/zoo.md with its table, its licences and its list of cards as the cards have them."""
    for name, block in (("weights", table()), ("licence", licences()), ("cards", files())):
        begin, end = f"<!-- {name}: written by docs/cards.py -->", f"<!-- end of {name} -->"
        before, _, rest = zoo.partition(begin)
        zoo = f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"
    return zoo


def main(*words: str) -> None:
    """Do what the module's docstring says."""
    if not all("=" in asked for asked in words):
        sys.exit(__doc__)
    for asked in words:
        name, _, folder = asked.partition("=")
        print(ship(name, Path(folder)))
    if strangers := [release.path(*at).name for at in release.available().keys() - release.cards().keys()]:
        sys.exit(f"{', '.join(sorted(strangers))}: not the weights of a card; ship them anew, or take them out.")
    for at, card in release.cards().items():
        write({**card, "licence": licence(card["data"])}, release.path(*at))
    write_whole(ZOO, rendered(ZOO.read_text(encoding="utf-8")))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
