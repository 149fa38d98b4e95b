"""The figures of docs/claims.md, from the sweeps behind them, whose results lie in docs/claims/.

python docs/claims.py --collect study=multirun/...    # take a sweep's results over: study, plain, fsrcnn, depth, ...
python docs/claims.py --few few                       # the images of the sweep `overfit`: few/train, few/val
python docs/claims.py --write                         # write the page's tables again, from what was collected
python docs/claims.py --check                         # whether the page's tables are those of the results
"""

import csv
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from collected import Row, interval_of_mean, keep_about, made, table, write_or_check
from PIL import Image

from upsweep.analysis.correlation import spearman
from upsweep.analysis.effects import findings
from upsweep.analysis.from_tables import DIAGNOSED, EXPLAINED, Meaning, results_of
from upsweep.analysis.ranking import at_best_rate, finished, grouped
from upsweep.analysis.sentences import error_sentence, power_sentence, sentence
from upsweep.analysis.tables import spread
from upsweep.analysis.variance import explained
from upsweep.common.files import as_csv, write_whole
from upsweep.data.photos import TRAIN, VAL, photo_files
from upsweep.metrics.figure import Figure
from upsweep.reporting.report import forest
from upsweep.runs.history import read as history
from upsweep.runs.layout import DIAGNOSES, EFFECTS, HISTORY, TABLE
from upsweep.runs.result import Result
from upsweep.runs.why import Why

ROOT = Path(__file__).resolve().parent
PAGE, KEPT = ROOT / "claims.md", ROOT / "claims"
SWEEPS = (
    "study",
    "plain",
    "fsrcnn",
    "depth",
    "overfit",
    "cost",
    "generation",
    "fields",
    "depths",
    "upsamplers",
    "trained",
)
WHY = ("fields", "depths", "upsamplers", "trained")  # those whose jobs were explained
HOW = ("parameters", "macs_per_pixel", "seconds", "state")
MEASURED = ("psnr", "psnr_last", "ssim", "gain", "psnr_bicubic", "ssim_bicubic", *HOW)
MEASURED_IN = {"generation": ("fd", "fd_last", "kid", "precision", "recall", *HOW)}
UNITS = {"psnr": "dB", "gap": "dB", "restored": "%", "invented": "%"}
LOWER = ("gap", "fd", "invented")  # is better
CHOICES = ("init", "activation", "norm", "dropout")
SEEDS_OF_STUDY = ("1", "2", "3")
PLAIN = {"norm": "none", "dropout": "none"}
FIELDS = ("psnr", "field", "effective_field", "di")
SPECTRA = ("psnr", "restored", "invented", "checkerboard")
WORDS = {
    "psnr": "PSNR, dB",
    "di": "DI",
    "field": "field of the layers, LR px",
    "effective_field": "ERF 95 %, LR px",
    "restored": "restored detail, %",
    "invented": "invented detail, %",
    "checkerboard": "checkerboard, grey levels",
}

# ------------------------------------------------------------------------------------------------ what is committed


def collect(name: str, sweep: Path) -> None:
    """Take `results.csv`, the figures of `diagnoses.json` and how it was made from a sweep's folder."""
    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    with (sweep / TABLE).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    measured = MEASURED_IN.get(name, MEASURED)
    figures = {key.removesuffix("_last") for key in rows[0] if key.endswith("_last")}
    no_setting = {*measured, *figures, *(f"{figure}_last" for figure in figures), "reason", "checkpoint"}
    settings = [key for key in rows[0] if key not in no_setting]
    settings += [key for key in CHOICES if key not in settings]  # a sweep's table says what differs
    explained_by = EXPLAINED if name in WHY else ()
    table: list[list[object]] = [[*settings, *measured, *DIAGNOSED, *explained_by]]
    for row in sorted(rows, key=lambda row: int(row["job"])):
        if name == "plain" and row["seed"] in SEEDS_OF_STUDY:
            continue  # run again to see that seeds of both sweeps belong together; the study has them
        run = sweep / row["job"]
        if "psnr" in row:
            row.setdefault("psnr_last", last_psnr(run))  # not told by sweeps of before upsweep 0.2
        result = Result.read(run)
        said = row | {key: result.settings[key] for key in CHOICES if result is not None}
        seen = diagnosed(run / DIAGNOSES) | explanation(run)
        more = (seen.get(key, "") for key in (*DIAGNOSED, *explained_by))
        table.append([*(said[key] for key in (*settings, *measured)), *more])
    write_whole(folder / TABLE, as_csv(table))
    keep_about(sweep, folder)
    (folder / EFFECTS).write_text(
        forest(findings(results(name, figure=measured[0])).effects, "What each choice is worth"), encoding="utf-8"
    )


def last_psnr(run: Path) -> str:
    """Of the last epoch in a run's history; empty where there is none."""
    figures = [line.figures.get("psnr") for line in history(run / HISTORY)]
    return "" if not figures or figures[-1] is None else str(figures[-1])


def few(folder: Path) -> None:
    """Write the middles (64x64 pixels) of four of scikit-image's training photos, and its validation photos whole."""
    train, val = folder / "train", folder / "val"
    for where, names in ((train, TRAIN[:4]), (val, VAL)):
        where.mkdir(parents=True, exist_ok=True)
        for name, path in photo_files(names).items():
            with Image.open(path) as photo:
                left, top = ((side - 64) // 2 for side in photo.size)
                image = photo.crop((left, top, left + 64, top + 64)) if where == train else photo
                image.convert("RGB").save(where / Path(name).with_suffix(".png"))


def diagnosed(file: Path) -> dict[str, float]:
    """Of one run: medians over its training, and the last judgement."""
    if not file.is_file():
        return {}
    said = json.loads(file.read_text(encoding="utf-8"))
    signals = [layer["signal"] for layer in said["layers"] if layer["signal"] is not None]
    found = {"reach": signals[0]} if len(signals) > 1 else {}
    for key in ("dead", "saturated"):
        if known := [layer[key] for layer in said["layers"] if layer[key] is not None]:
            found[key] = max(known)
    if said["judgements"]:
        last = said["judgements"][-1]
        found |= {"train_gain": last["train_lead"], "gap": last["train_lead"] - last["val_lead"]}
    if (seconds := said["cost"]["seconds_per_megapixel"]) is not None:
        found["seconds_per_megapixel"] = seconds
    return {key: float(f"{value:.5g}") for key, value in found.items()}


def explanation(run: Path) -> dict[str, float]:
    """What src/explain.py found of one run."""
    why = Why.read(run)
    return {} if why is None else {key: float(f"{value:.5g}") for key, value in why.figures.items() if key in EXPLAINED}


def read(name: str) -> list[Row]:
    """The rows that were collected of a sweep."""
    with (KEPT / name / TABLE).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def results(*names: str, figure: str = "psnr", **fixed: str) -> list[Result]:
    """The runs that were collected of sweeps, where the `fixed` choices are so."""
    meaning = Meaning(figure=figure, better="lower" if figure in LOWER else None, unit=UNITS.get(figure, ""))
    found = results_of([KEPT / name / TABLE for name in names], meaning).results.values()
    return [run for run in found if all(run.settings[key] == value for key, value in fixed.items())]


# ------------------------------------------------------------------------------------------------ what the page says


def worth(*keys: str, of: Sequence[str] = ("study",), figure: str = "psnr", **fixed: str) -> str:
    """What each of the choices is worth where the `fixed` ones are so, in the report's own sentences."""
    found = findings(results(*of, figure=figure, **fixed))
    return "\n".join(f"- {sentence(effect)}" for effect in found.effects if effect.key in keys)


def error(*of: str, figure: str = "psnr", **fixed: str) -> str:
    """What the intervals are made from, and what they could have shown."""
    found = findings(results(*of, figure=figure, **fixed))
    return f"{error_sentence(found.studies[0])} {found.comparisons} comparisons. {power_sentence(found.effects)}"


def variance(*of: str, figure: str = "psnr") -> str:
    """The shares of the variance, the largest first."""
    found = explained(findings(results(*of, figure=figure)).studies[0])
    assert found is not None
    ordered = sorted(found.shares[:-1], key=lambda one: -one.share)
    rows = [[one.name, f"{one.share:.1%}"] for one in [*ordered, found.shares[-1]]]
    return table([f"what the {figure.upper()} varies by", "share of the variance"], rows)


def cells(of: str, figure: str = "psnr", inits: Sequence[str] = ("torch", "xavier", "he"), digits: int = 2) -> str:
    """Mean figure of a study, each combination at its best rate, by activation and norm."""
    at_best = at_best_rate(results(of, figure=figure))
    columns = ("activation", "norm", "dropout")
    rows = []
    for values, group in sorted(grouped(at_best, columns).items()):
        done = [[one.value for one in finished(group) if one.settings["init"] == init] for init in inits]
        by_init = [_spread(known, digits) for known in done]
        rows.append([", ".join(f"{key}={value}" for key, value in zip(columns, values, strict=True)), *by_init])
    label = ", ".join(filter(None, (figure.upper(), UNITS.get(figure))))
    return table([f"{label} (mean ± sd over seeds)", *(f"init={init}" for init in inits)], rows)


def gradients() -> str:
    """What is left of the gradient at the first of many layers, by norm, activation and init."""
    rows = read("depth")
    inits = ("torch", "xavier", "he")

    def cell(of: Callable[[Row], str], form: str, **chosen: str) -> str:
        known = [of(row) for row in rows if all(row[key] == value for key, value in chosen.items())]
        return format(statistics.median(float(value) for value in known if value), form) if any(known) else "diverged"

    lines = []
    for norm in ("none", "bn"):
        for act in ("sigmoid", "tanh", "relu"):
            chosen = {"norm": norm, "activation": act}
            reach = [cell(lambda row: row["reach"], ".1e", init=init, **chosen) for init in inits]
            psnr = [cell(lambda row: row["psnr"], ".2f", init=init, **chosen) for init in inits]
            lines.append([f"activation={act}, norm={norm}", *reach, *psnr])
    return table(["", *(f"left, {init}" for init in inits), *(f"dB, {init}" for init in inits)], lines)


def overfitting() -> str:
    """Gain on the training images, the gap to validation, and validation's best PSNR, by norm and dropout."""
    rows = read("overfit")
    lines = []
    for norm in ("none", "bn"):
        for dropout in ("none", "p20"):
            group = [row for row in rows if row["norm"] == norm and row["dropout"] == dropout and row["gap"]]
            figures = [_spread(float(row[key]) for row in group) for key in ("train_gain", "gap", "psnr")]
            lines.append([f"norm={norm}, dropout={dropout}", *figures])
    return table(["", "gain on training images, dB", "gap to validation, dB", "best validation PSNR, dB"], lines)


def cost() -> str:
    """Width against parameters, multiply-adds, time and PSNR."""
    rows = read("cost")
    lines = []
    for width in sorted({row["generator.width"] for row in rows}, key=int):
        group = [row for row in rows if row["generator.width"] == width]
        lines.append(
            [
                f"generator.width={width}",
                f"{int(group[0]['parameters']):,}",
                f"{float(group[0]['macs_per_pixel']):,.0f}",
                f"{statistics.median(float(row['seconds_per_megapixel']) for row in group):.2f}",
                f"{statistics.median(float(row['seconds']) for row in group):.0f}",
                _spread(float(row["psnr"]) for row in group),
            ]
        )
    return table(["", "parameters", "multiply-adds a pixel", "s a megapixel", "s of training", "PSNR, dB"], lines)


def _spread(values: Iterable[float | None], digits: int = 2) -> str:
    return spread(Figure(name="any", title="any", digits=digits), values)


def at_best_psnr(name: str) -> list[tuple[Result, Row]]:
    """The finished runs of a sweep, each choice at its best rate, with their rows."""
    every = results(name)
    rows = dict(zip(map(id, every), read(name), strict=True))
    return [(result, rows[id(result)]) for result in finished(at_best_rate(every))]


def relation(name: str, figures: Sequence[str], **fixed: str) -> str:
    """How figures of explanations go with the PSNR over the settings of a sweep: rho of each seed, and their mean."""
    runs = [(r, row) for r, row in at_best_psnr(name) if all(row[key] == value for key, value in fixed.items())]
    seeds = sorted({row["seed"] for _, row in runs})
    lines = []
    for figure in figures:
        found = []
        for seed in seeds:
            pairs = [(float(row[figure]), float(row["psnr"])) for _, row in runs if row["seed"] == seed and row[figure]]
            rho = spearman([x for x, _ in pairs], [y for _, y in pairs])
            assert rho is not None, f"{name}: {figure} is the same everywhere"
            found.append(rho)
        mean, half = interval_of_mean([one.rho for one in found])
        low, high = max(-1.0, mean - half), min(1.0, mean + half)
        each = " / ".join(f"{one.rho:.2f}" for one in found)
        lines.append([WORDS[figure], each, f"{mean:.2f} ({low:.2f} to {high:.2f})"])
    count = found[0].n
    return table(
        [f"with the PSNR, over {count} settings", f"Spearman's rho, seeds {', '.join(seeds)}", "mean, 95 %"], lines
    )


def explained_cells(name: str, keys: Sequence[str], figures: Sequence[str]) -> str:
    """Mean ± sd over seeds of a sweep's explanations, each choice at the rate of its best PSNR."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for _, row in at_best_psnr(name):
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    lines = [
        [
            ", ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True)),
            *(_mean_of(rows, f) for f in figures),
        ]
        for values, rows in sorted(groups.items(), key=lambda one: [(len(v), v) for v in one[0]])
    ]
    return table(["", *(WORDS[figure] for figure in figures)], lines)


def _mean_of(rows: Sequence[Row], figure: str) -> str:
    values = [float(row[figure]) for row in rows if row[figure]]
    return f"{values[0]:g}" if len(set(values)) == 1 else _spread(values)


def worth_at_best_psnr(name: str, key: str, figure: str) -> str:
    """What a choice is worth in a figure of the explanations, each choice at the rate of its best PSNR."""
    kept = {row["job"] for _, row in at_best_psnr(name)}
    rows = read(name)
    chosen = [r for r, row in zip(results(name, figure=figure), rows, strict=True) if row["job"] in kept]
    found = findings(chosen)
    return "\n".join(f"- {sentence(effect)}" for effect in found.effects if effect.key == key)


BLOCKS: dict[str, Callable[[], str]] = {
    "init": lambda: worth("init"),
    "init, plain": lambda: worth("init", of=["study", "plain"], **PLAIN),
    "init, plain, relu": lambda: worth("init", of=["study", "plain"], activation="relu", **PLAIN),
    "activation": lambda: worth("activation"),
    "activation, plain": lambda: worth("activation", of=["study", "plain"], **PLAIN),
    "norm and dropout": lambda: worth("norm", "dropout"),
    "norm, without dropout": lambda: worth("norm", dropout="none"),
    "dropout, without norm": lambda: worth("dropout", norm="none"),
    "error": lambda: error("study"),
    "error, plain": lambda: error("study", "plain", **PLAIN),
    "variance": lambda: variance("study"),
    "cells": lambda: cells("study"),
    "fsrcnn": lambda: worth("init", "activation", "norm", "dropout", of=["fsrcnn"]),
    "fsrcnn, plain": lambda: worth("init", "activation", of=["fsrcnn"], **PLAIN),
    "fsrcnn, error": lambda: error("fsrcnn"),
    "fsrcnn, variance": lambda: variance("fsrcnn"),
    "fsrcnn, cells": lambda: cells("fsrcnn"),
    "generation": lambda: worth(*CHOICES, of=["generation"], figure="fd"),
    "generation, plain": lambda: worth("init", "activation", of=["generation"], figure="fd", **PLAIN),
    "generation, norm without dropout": lambda: worth("norm", of=["generation"], figure="fd", dropout="none"),
    "generation, error": lambda: error("generation", figure="fd"),
    "generation, variance": lambda: variance("generation", figure="fd"),
    "generation, cells": lambda: cells("generation", "fd", ("torch", "xavier", "he", "dcgan"), 1),
    "gradients": gradients,
    "overfitting": overfitting,
    "overfitting, gap": lambda: worth("norm", "dropout", of=["overfit"], figure="gap"),
    "overfitting, psnr": lambda: worth("norm", "dropout", of=["overfit"]),
    "cost": cost,
    "fields": lambda: relation("fields", ("effective_field", "di")),
    "fields, plain": lambda: relation("fields", ("effective_field", "di"), **PLAIN),
    "depths": lambda: explained_cells("depths", ("activation", "generator.depth"), (*FIELDS, "restored")),
    "depths, relation": lambda: relation("depths", ("effective_field", "di", "restored")),
    "upsamplers": lambda: explained_cells("upsamplers", ("activation", "upsampler"), SPECTRA),
    "upsamplers, restored": lambda: worth_at_best_psnr("upsamplers", "upsampler", "restored"),
    "trained": lambda: explained_cells("trained", ("upsampler",), SPECTRA),
    "trained, restored": lambda: worth_at_best_psnr("trained", "upsampler", "restored"),
    "trained, psnr": lambda: worth_at_best_psnr("trained", "upsampler", "psnr"),
    **{f"made {sweep}": (lambda sweep=sweep: made(KEPT / sweep, read(sweep))) for sweep in SWEEPS},  # type: ignore[misc]
}


def main(mode: str, *more: str) -> None:
    """Do what the module's docstring says."""
    if mode == "--few" and more:
        few(Path(more[0]))
        return
    if mode == "--collect" and more:
        for asked in more:
            name, _, sweep = asked.partition("=")
            if name not in SWEEPS:
                sys.exit(f"{name} is none of {', '.join(SWEEPS)}.")
            collect(name, Path(sweep))
        return
    if mode not in ("--write", "--check"):
        sys.exit(__doc__)
    write_or_check(mode, PAGE, BLOCKS, "claims.py")


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
