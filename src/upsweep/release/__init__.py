"""The trained weights that the package carries: `<name>_x<scale>.safetensors` in this folder, each with its card.

A card says how the weights were trained and what they reach: `<name>_x<scale>.json` for programs, `.md` for people.
"""

import json
import os
import re
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

from upsweep.common.commands import command
from upsweep.common.errors import UserError
from upsweep.common.table import Table
from upsweep.runs.layout import checkpoint_of

FOLDER = Path(__file__).parent
DEFAULT = "fsrcnn"


def available() -> dict[tuple[str, int], Path]:
    """The weights that are here, by name and scale, sorted."""
    matches = {file: re.fullmatch(r"(.+)_x(\d+)", file.stem) for file in sorted(FOLDER.glob("*.safetensors"))}
    return {(match[1], int(match[2])): file for file, match in matches.items() if match is not None}


def cards() -> dict[tuple[str, int], dict[str, Any]]:
    """The cards of the weights that are here, by name and scale, sorted; none of weights that are not their card's."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for at, file in available().items():
        card = file.with_suffix(".json")
        said = json.loads(card.read_text("utf-8")) if card.is_file() else {}
        if said.get("sha256") == sha256(file.read_bytes()).hexdigest():
            found[at] = said
    return found


def listing() -> Table:
    """The weights that are here, a row each: their size, and what their cards say of cost and PSNR."""
    carried = cards()
    benchmarks = list(dict.fromkeys(title for card in carried.values() for title in card["benchmarks"]))
    rows = []
    for (name, scale), file in available().items():
        card = carried.get((name, scale))
        size = [f"{card['weights']:,}", f"{card['macs_per_pixel']:,.0f}"] if card else ["-", "-"]
        psnr = [f"{card['benchmarks'][title]['psnr']:.2f}" if card else "-" for title in benchmarks]
        said = ["the default"] * (name == DEFAULT) + ["without a card"] * (card is None)
        kilobytes = f"{file.stat().st_size / 1000:,.0f} kB"
        rows.append([name, f"x{scale}", *size, kilobytes, *psnr, ", ".join(said)])
    headers = ["model", "scale", "weights", "multiply-adds a pixel", "file", *benchmarks, ""]
    title = f"Trained weights of upsweep; PSNR in dB. {command('upscale', 'model=NAME', 'scale=N', 'input=PHOTO')}"
    return Table(title, headers, rows, least=headers[3:5])


def choices() -> str:
    """What `checkpoint=` may name, in words: for sentences on a checkpoint that is missing."""
    return f"a run's folder, a file, or one of {', '.join(file.stem for file in available().values())}"


def located(checkpoint: str | os.PathLike[str], key: str = "checkpoint") -> Path:
    """The file that `checkpoint=` names, wherever that is asked for.

    That is the weights which the package carries by that name (`fsrcnn_x2`), the best checkpoint of a run's folder, or
    the path itself. Whether a file is there is left to whoever reads it.

    Args:
        checkpoint: as it was typed.
        key: by which it was asked for, for the sentence.

    Raises:
        UserError: it is no path, or a folder without a checkpoint.
    """
    if not isinstance(checkpoint, str | os.PathLike):
        raise UserError(f"{key}={checkpoint} must be the path, or the name, of one checkpoint.")
    return {file.stem: file for file in available().values()}.get(str(checkpoint)) or checkpoint_of(Path(checkpoint))


def path(name: str | None, scale: int) -> Path:
    """The file of the weights `name` for a scale; None takes FSRCNN's, and where there are none, the first by name.

    Raises:
        UserError: there are none such; the sentence says which there are.
    """
    found = available()
    names = [one for one, s in found if s == scale]
    chosen = name or (DEFAULT if DEFAULT in names or not names else names[0])
    if (chosen, scale) not in found:
        raise UserError(_none_such(name, scale))
    return found[chosen, scale]


def _none_such(name: str | None, scale: int) -> str:
    """The sentence on weights that are not here: of a name that may be mistyped, or of another scale."""
    found, own = available(), f"give a checkpoint of your own with checkpoint=PATH; {command('train')} makes one"
    known = list(dict.fromkeys(one for one, _ in found))
    if name is not None and name not in known and known:
        bare, _, its = name.lower().partition("_x")
        meant = next(iter(get_close_matches(bare, known, n=1)), None)
        scaled = f" scale={its}" if its.isdigit() and (meant, int(its)) in found else ""
        hint = f" Did you mean model={meant}{scaled}?" if meant else ""
        return f"There are no trained weights named {name}: choose from {', '.join(known)}, or {own}.{hint}"
    has = ", ".join(f"x{s}" for s in sorted({s for one, s in found if name in (None, one)})) or "none at all"
    return f"upsweep has no trained weights {f'{name} ' if name else ''}for scale={scale} (it has {has}): {own}."
