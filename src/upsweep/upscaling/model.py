"""What a person chose to enlarge with: weights, device, tiles."""

from collections.abc import Collection
from pathlib import Path

import torch

from upsweep import release
from upsweep.checkpoints import load_generator
from upsweep.errors import UserError
from upsweep.generators.base import Generator
from upsweep.wrappers import SelfEnsemble

SCALE = 2  # where neither a checkpoint nor the person says one


def load(
    checkpoint: str | None,
    model: str | None,
    scale: int | None,
    *,
    allow: Collection[str] = (),
    ensemble: bool = False,
) -> tuple[Generator, str]:
    """The generator of a checkpoint, or the package's own, in evaluation mode; and where it is from.

    Args:
        checkpoint: a file, or None for what the package carries.
        model: which of those, by name; None: the default.
        scale: what the generator must make; None: whatever the checkpoint makes.
        allow: see `checkpoints.load_generator`.
        ensemble: whether to wrap it as a `SelfEnsemble`.

    Raises:
        UserError: no such weights, or of another scale.
    """
    if checkpoint is not None and model is not None:
        raise UserError(f"checkpoint={checkpoint} and model={model} both name weights: leave one of them out.")
    path = Path(checkpoint).expanduser() if checkpoint is not None else release.path(model, scale or SCALE)
    generator = load_generator(path, allow=allow)
    if scale is not None and generator.scale != scale:
        raise UserError(f"{path} enlarges {generator.scale} times, not scale={scale}: leave scale out, or train one.")
    return (SelfEnsemble(generator) if ensemble else generator), str(path)


def device_of(name: str) -> torch.device:
    """The device of that name, or with auto the best there is: cuda, mps or cpu.

    Raises:
        UserError: there is none such here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise UserError(f"device={name} cannot be used here; auto takes the best there is.") from error
    return device


def tile_of(tile: str | int | None) -> int | None:
    """What `Upscaler` takes for the config's auto, or number.

    Raises:
        UserError: something else.
    """
    if tile == "auto":
        return None
    if not isinstance(tile, int) or isinstance(tile, bool) or tile < 0:
        raise UserError(f"tile={tile} must be auto, or a number of input pixels (0: no tiles).")
    return tile
