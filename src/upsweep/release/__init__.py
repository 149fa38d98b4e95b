"""The trained weights that the package carries: `<name>_x<scale>.safetensors` in this folder, each with its card.

A card says how the weights were trained and what they reach: `<name>_x<scale>.json` for programs, `.md` for people.
"""

import re
from pathlib import Path

from upsweep.common.errors import UserError

FOLDER = Path(__file__).parent
DEFAULT = "fsrcnn"


def available() -> dict[tuple[str, int], Path]:
    """The weights that are here, by name and scale, sorted."""
    matches = {file: re.fullmatch(r"(.+)_x(\d+)", file.stem) for file in sorted(FOLDER.glob("*.safetensors"))}
    return {(match[1], int(match[2])): file for file, match in matches.items() if match is not None}


def located(checkpoint: str) -> Path:
    """The file of the weights that the package carries by that name (`fsrcnn_x2`), or else the path itself.

    Raises:
        UserError: it is no text.
    """
    if not isinstance(checkpoint, str):
        raise UserError(f"checkpoint={checkpoint} must be the path, or the name, of one checkpoint.")
    return {file.stem: file for file in available().values()}.get(checkpoint, Path(checkpoint))


def path(name: str | None, scale: int) -> Path:
    """The file of the weights `name` for a scale; None takes FSRCNN's, and where there are none, the first by name.

    Raises:
        UserError: there are none such; the sentence says which there are.
    """
    found = available()
    names = [one for one, s in found if s == scale]
    chosen = name or (DEFAULT if DEFAULT in names or not names else names[0])
    if (chosen, scale) not in found:
        there = ", ".join(f"{one} x{s}" for one, s in found) or "none at all"
        raise UserError(
            f"This upsweep carries no trained weights {f'{name} ' if name else ''}for scale={scale} (it has {there}): "
            "name a checkpoint of your own, checkpoint=PATH; python src/train.py makes one."
        )
    return found[chosen, scale]
