"""The tables of docs/zoo.md that compare generators, from the sweeps behind them, whose results lie in docs/zoo/.

python docs/zoo.py --collect networks=multirun/zoo relu=multirun/zoo_relu ...   # take sweeps over, and judge them
python docs/zoo.py --write                                                      # write the page's tables again
python docs/zoo.py --check                                                      # whether they are those of the results

Of each generator the learning rate with the best validation is judged, under the papers' protocol, on the sets below
UPSWEEP_DATA: each seed's checkpoint on each set. What is judged already is kept: an interrupted --collect goes on, and
the page stays as it was until all is judged. The classes that the jobs' configs name for their generators are imported:
collect your own sweeps.
"""

import argparse
import csv
import hashlib
import json
import shutil
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from collected import Row, interval_of_mean, keep_about, made, manifest_of, table, write_or_check

from upsweep.common.errors import UserError
from upsweep.common.files import as_csv, write_whole
from upsweep.common.machine import cores
from upsweep.data.known import SETS, data_root, find
from upsweep.evaluation import evaluate, mean
from upsweep.evaluation.benchmarks import Benchmark
from upsweep.evaluation.published import published
from upsweep.evaluation.speed import speed_of
from upsweep.networks import checkpoints
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.runs.history import read as history
from upsweep.runs.layout import ABOUT, BEST, HISTORY, PAGE, TABLE
from upsweep.runs.result import Result

ROOT = Path(__file__).resolve().parent
ZOO, KEPT = ROOT / "zoo.md", ROOT / "zoo"
OWN = "networks"  # the sweep in which every generator has its own choices
OTHERS = {  # the sweeps in which all have the same
    "relu": "init=xavier activation=relu norm=none",
    "prelu": "init=he activation=prelu norm=none",
    "bn": "init=he activation=prelu norm=bn",
}
JUDGED_ON = ("kodak24", "set5", "set14", "bsd100")  # the first orders the tables
PAPERS = {  # the rows of published.csv that are of the paper's own recipe
    "srcnn": "SRCNN(9-5-5)",
    "fsrcnn": "FSRCNN(T91+G100 paper)",
    "lapsrn": "LapSRN",
    "vdsr": "VDSR",
    "edsr": "EDSR-baseline",
}
BICUBIC, SCALE = "bicubic", 2
RATE = "optimizer.lr"
CHOICES = ("generator", "init", "activation", "norm", "optimizer", RATE, "seed")
MEASURED = ("steps", "psnr", "parameters", "macs_per_pixel", "seconds", "state", "reason")


class Cell(NamedTuple):
    """What is judged: a checkpoint (of which `weights` is the digest) on a set."""

    generator: str
    rate: str
    seed: str
    weights: str
    set: str


Size = tuple[str, str, str]  # a generator's name, parameters, and multiply-adds a pixel
SIZE = ("generator", "parameters", "macs_per_pixel")
Judged = dict[Cell, float]  # -> PSNR in dB
Wanted = Mapping[str, Collection[str]]  # generator -> sets

# ------------------------------------------------------------------------------------------------ what is committed


def collect(name: str, sweep: Path, wanted: Wanted, workers: int) -> None:
    """Take a sweep over: its jobs, how it was made, its page as a picture; judge the best rate of each generator.

    Args:
        name: of the sweep, OWN or one of OTHERS.
        wanted: generator, or bicubic -> the sets that it is judged on.
        workers: processes that judge, of one thread each.
    """
    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = jobs_of(sweep)
    runs = {row["job"]: row for chosen in best(rows).values() for row in chosen}
    files = {job: sweep / job / BEST for job in runs}
    if missing := [file for file in files.values() if not file.is_file()]:
        sys.exit(f"{missing[0]} is not there: a sweep is collected with its checkpoints.")
    cells = {cell: files[job] for job, row in runs.items() for cell in cells_of(row, files[job], wanted)}
    without = dict.fromkeys(Cell(BICUBIC, "", "", "", each) for each in wanted[BICUBIC] if name == OWN)
    judge_all(KEPT / f"{name}.csv", cells | without, workers)
    write_whole(folder / TABLE, as_csv([[*rows[0]], *([*row.values()] for row in rows)]))
    keep_about(sweep, folder)
    if name == OWN:
        photograph(sweep / PAGE, folder / "report.png")
        time_all({size_of(row): files[job] for job, row in runs.items()})


def jobs_of(sweep: Path) -> list[Row]:
    """A row for each job of a sweep that has left a result. Exits where two differ in what the tables do not tell."""
    rows, known = list[Row](), dict[tuple[str, ...], str]()
    for entry in manifest_of(sweep).jobs:
        if (result := Result.read(sweep / entry.name)) is None:
            print(f"Job {entry.name} has left no result.", file=sys.stderr)
            continue
        if result.scale != SCALE:
            sys.exit(f"Job {entry.name} of {sweep} is of scale={result.scale}; the tables are of scale={SCALE}.")
        epochs = list(history(sweep / entry.name / HISTORY))
        how = {key: getattr(result, key) for key in ("parameters", "macs_per_pixel", "seconds", "state", "reason")}
        said = {"steps": epochs[-1].step if epochs else None, "psnr": result.final("psnr"), **how}
        row = {"job": entry.name, **{key: result.settings.get(key, "") for key in CHOICES}}
        one = row["generator"], row[RATE], row["seed"]
        if (other := known.setdefault(one, entry.name)) != entry.name:
            sys.exit(
                f"Jobs {other} and {entry.name} of {sweep} are both of {one[0]} at {RATE}={one[1]} with seed={one[2]}: "
                "the tables tell nothing else apart, so collect a sweep that varies no more."
            )
        rows.append(row | {key: "" if said[key] is None else str(said[key]) for key in MEASURED})
    return rows or sys.exit(f"{sweep} has no results.")


def photograph(page: Path, picture: Path) -> None:
    """The top of a page as a browser shows it; no picture, and a line, where there is no Chromium, or no page."""
    picture.unlink(missing_ok=True)  # of another sweep
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None or not page.is_file():
        print(f"{picture} was not made: it needs Chromium and {page}.", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1200, "height": 1500})
        shown.goto(page.resolve().as_uri(), wait_until="load")
        shown.screenshot(path=picture)
        browser.close()


def best(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Generator -> its finished jobs at the rate with which most seeds finished, then of the best mean validation."""

    def merit(group: Sequence[Row]) -> tuple[int, float]:
        return len(group), statistics.fmean(float(row["psnr"]) for row in group)

    rates: dict[str, dict[str, list[Row]]] = {row["generator"]: {} for row in rows}
    for row in rows:
        if row["state"] == "finished":
            rates[row["generator"]].setdefault(row[RATE], []).append(row)
    return {generator: max(of.values(), key=merit, default=[]) for generator, of in rates.items()}


def cells_of(row: Row, checkpoint: Path, wanted: Wanted) -> list[Cell]:
    """What is to be judged of a job."""
    with checkpoint.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return [Cell(row["generator"], row[RATE], row["seed"], weights, each) for each in wanted[row["generator"]]]


def judge_all(file: Path, cells: Mapping[Cell, Path | None], workers: int) -> None:
    """Judge what `file` does not have yet, cell by cell beside it until all are done; drop other checkpoints' cells."""
    if absent := [each for each in {cell.set for cell in cells} if not find(each, data_root(None))]:
        sys.exit(f"{SETS[absent[0]].title} is not in {data_root(None)}.")
    current, beside = {cell[:4] for cell in cells}, file.with_suffix(".part.csv")
    known = read_judged(file) | read_judged(beside)
    judged = {cell: psnr for cell, psnr in known.items() if cell[:4] in current}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(judge, path, cell.set): cell for cell, path in cells.items() if cell not in judged}
        for i, done in enumerate(as_completed(waiting), start=1):
            judged[waiting[done]] = done.result()
            write_judged(beside, judged)
            print(f"{i} of {len(waiting)}: {' '.join(filter(None, waiting[done]))}", file=sys.stderr, flush=True)
    write_judged(file, judged)
    beside.unlink(missing_ok=True)


def judge(checkpoint: Path | None, name: str) -> float:
    """Mean PSNR in dB of a checkpoint on a set, with one thread; bicubic's where there is none."""
    torch.set_num_threads(1)
    generator = Bicubic(scale=SCALE) if checkpoint is None else loaded(checkpoint)
    files = tuple(find(name, data_root(None)))
    images = Benchmark(SETS[name].title, files).images(generator.scale, generator.channels)
    psnr, _ = mean(evaluate(generator, images))
    return psnr


def loaded(checkpoint: Path) -> Upscaler:
    """A job's generator, which may be of the user's own."""
    return checkpoints.load_upscaler(checkpoint, trust_config=True)


def read_judged(file: Path) -> Judged:
    """What was judged; nothing where there is no such file."""
    return {Cell(*(row[key] for key in Cell._fields)): float(row["psnr"]) for row in lines_of(file)}


def write_judged(file: Path, judged: Judged) -> None:
    """A line for each cell."""
    ordered = sorted(judged.items(), key=lambda one: (one[0].generator, one[0].seed, JUDGED_ON.index(one[0].set)))
    write_whole(file, as_csv([[*Cell._fields, "psnr"], *([*cell, f"{psnr:.6f}"] for cell, psnr in ordered)]))


def size_of(row: Row) -> Size:
    """What the time of a generator depends on."""
    return row["generator"], row["parameters"], row["macs_per_pixel"]


def times() -> dict[Size, str]:
    """What was timed: milliseconds."""
    return {size_of(row): row["milliseconds"] for row in lines_of(KEPT / "milliseconds.csv")}


def time_all(files: Mapping[Size, Path]) -> None:
    """Milliseconds of each generator for an output of 1280x720, alone and with one thread; those known are kept."""
    torch.set_num_threads(1)
    known = times()
    for size, file in sorted(files.items()):
        if size not in known:
            known[size] = f"{speed_of(loaded(file), torch.device('cpu')).milliseconds:.1f}"
            lines = ([*each, milliseconds] for each, milliseconds in known.items())
            write_whole(KEPT / "milliseconds.csv", as_csv([[*SIZE, "milliseconds"], *lines]))


def lines_of(file: Path) -> list[Row]:
    """The rows of a CSV file; none where there is no such file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


# ------------------------------------------------------------------------------------------------ what the page says


def scores(name: str, on: str) -> dict[str, dict[str, float]]:
    """Generator -> seed -> PSNR in dB on a set, as a sweep was judged."""
    found: dict[str, dict[str, float]] = {}
    for cell, psnr in read_judged(KEPT / f"{name}.csv").items():
        if cell.set == on:
            found.setdefault(cell.generator, {})[cell.seed] = psnr
    return found


def spread(values: Collection[float], sign: str = "") -> str:
    """Mean ± half of the 95 % interval; the value alone where there is one, and - where there is none."""
    known = list(values)
    if len(known) < 2:
        return f"{known[0]:{sign}.2f}" if known else "-"
    middle, half = interval_of_mean(known)
    return f"{middle:{sign}.2f} ± {half:.2f}"


def ordered(generators: Collection[str]) -> list[str]:
    """From the best PSNR on the first set to the worst; those without one come last."""
    known = {generator: statistics.fmean(of.values()) for generator, of in scores(OWN, JUDGED_ON[0]).items()}
    return sorted(generators, key=lambda generator: (-known.get(generator, 0.0), generator))


def networks() -> str:
    """Every generator by its name: its cost, and what it reaches."""
    chosen, found = best(lines_of(KEPT / OWN / TABLE)), {on: scores(OWN, on) for on in JUDGED_ON}
    took = times()
    papers = published(SCALE, ["Set5"])

    def line(generator: str) -> list[str]:
        runs, psnr = chosen.get(generator, []), [spread(found[on].get(generator, {}).values()) for on in JUDGED_ON]
        paper = papers.get(PAPERS.get(generator, ""), {}).get("Set5")
        its = "-" if paper is None else f"{paper.values['psnr']:.2f}"
        if not runs:
            return [generator if generator == BICUBIC else f"{generator} (no job finished)", *["-"] * 5, *psnr, its]
        cost = [f"{int(runs[0]['parameters']):,}", f"{float(runs[0]['macs_per_pixel']):,.0f}"]
        steps = f"{statistics.fmean(float(run['steps']) for run in runs):,.0f}"
        time = f"{float(took[size_of(runs[0])]):,.0f}" if size_of(runs[0]) in took else "-"
        return [f"**{generator}**", *cost, time, steps, runs[0][RATE] or "-", *psnr, its]

    headers = ["", "parameters", "multiply-adds a pixel", "ms", "steps", "rate"]
    titles = [SETS[on].title for on in JUDGED_ON]
    known = {*chosen, *(each for of in found.values() for each in of)}
    return table([*headers, *titles, "Set5, the paper's recipe"], map(line, ordered(known)))


def choices() -> str:
    """Every generator with its own choices, and with each of the others: the difference is paired by seed."""
    own, sweeps = scores(OWN, JUDGED_ON[0]), [name for name in OTHERS if (KEPT / name / TABLE).is_file()]
    others = {name: scores(name, JUDGED_ON[0]) for name in sweeps}
    if unlike := [name for name in sweeps if own and said_besides(name) != said_besides(OWN)]:
        sys.exit(
            f"{KEPT / unlike[0]} was swept with {said_besides(unlike[0])}, and {KEPT / OWN} with {said_besides(OWN)}: "
            "only sweeps of one budget and one data set are compared."
        )
    jobs = {name: best(lines_of(KEPT / name / TABLE)) for name in sweeps}

    def against(name: str, generator: str) -> str:
        its, mine = others[name].get(generator, {}), own.get(generator, {})
        if not its:
            return "no job finished" if jobs[name].get(generator) == [] else "-"
        leads = [psnr - mine[seed] for seed, psnr in sorted(its.items()) if seed in mine]
        return f"{statistics.fmean(its.values()):.2f} ({spread(leads, '+')})"

    known = {*own, *(generator for of in jobs.values() for generator in of)} - {BICUBIC}
    rows = [
        [f"**{each}**", spread(own.get(each, {}).values()), *(against(name, each) for name in sweeps)]
        for each in ordered(known)
    ]
    return table([f"{SETS[JUDGED_ON[0]].title}, dB", "its own", *(OTHERS[name] for name in sweeps)], rows)


def said_besides(name: str) -> list[str]:
    """What the command of a sweep says beside the choices that the sweeps differ in, seeds, and where it ran."""
    words = json.loads((KEPT / name / ABOUT).read_text(encoding="utf-8"))["command"][2:]
    return sorted(w for w in words if not w.startswith(("hydra", "-m", "init=", "activation=", "norm=", "seed=")))


def sources(names: Sequence[str]) -> str:
    """The commands behind a table."""
    return "\n".join(f"- {made(KEPT / name, lines_of(KEPT / name / TABLE))}" for name in names)


def of_networks() -> str:
    """The first table, or that it is not measured yet."""
    if not (KEPT / OWN / TABLE).is_file():
        return "This table is not measured yet: [the commands below](#how-the-tables-are-made) measure it."
    picture = f"![The top of the sweep's page](zoo/{OWN}/report.png)" if (KEPT / OWN / "report.png").is_file() else ""
    return "\n\n".join(filter(None, [networks(), sources([OWN]), picture]))


def of_choices() -> str:
    """The second table, or that it is not measured yet."""
    if not (sweeps := [name for name in (OWN, *OTHERS) if (KEPT / name / TABLE).is_file()]) or sweeps == [OWN]:
        return "This table is not measured yet: [the commands below](#how-the-tables-are-made) measure it."
    return "\n\n".join([choices(), sources([name for name in sweeps if name != OWN])])


BLOCKS = {"networks": of_networks, "choices": of_choices}

# ------------------------------------------------------------------------------------------------ the command


def pair(said: str) -> tuple[str, str]:
    """A word with a = in it. Raises ValueError: it has none."""
    left, equals, right = said.partition("=")
    if not equals:
        raise ValueError(said)
    return left, right


def wanted_of(generators: Collection[str], sets: Collection[str], without: Collection[tuple[str, str]]) -> Wanted:
    """The sets that each generator is judged on. Exits where one is unknown."""
    if unknown := {*sets, *(name for _, name in without)} - {*JUDGED_ON}:
        sys.exit(f"{', '.join(sorted(unknown))}: choose from {', '.join(JUDGED_ON)}.")
    return {each: [on for on in JUDGED_ON if on in sets and (each, on) not in without] for each in generators}


def main(*words: str) -> None:
    """Do what the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--collect", nargs="+", type=pair, metavar="NAME=SWEEP", help=", ".join((OWN, *OTHERS)))
    mode.add_argument("--write", action="store_true")
    mode.add_argument("--check", action="store_true")
    parser.add_argument("--sets", nargs="+", default=JUDGED_ON, metavar="SET", help="judge on these alone")
    without = "leave sets out for some: rednet=bsd100"
    parser.add_argument("--without", nargs="+", type=pair, default=[], metavar="GENERATOR=SET", help=without)
    parser.add_argument("--workers", type=int, default=cores(), help="processes that judge")
    asked = parser.parse_args(words)
    for name, sweep in asked.collect or []:
        if name not in (OWN, *OTHERS):
            sys.exit(f"{name} is none of {', '.join((OWN, *OTHERS))}.")
        generators = {BICUBIC, *(row["generator"] for row in jobs_of(Path(sweep)))}
        collect(name, Path(sweep), wanted_of(generators, asked.sets, asked.without), asked.workers)
    if not asked.collect:
        write_or_check("--write" if asked.write else "--check", ZOO, BLOCKS, "zoo.py")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
