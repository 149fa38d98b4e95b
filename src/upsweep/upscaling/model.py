"""The user's choices for enlarging: weights, device, engine, tiles."""

from collections.abc import Collection

import torch

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers import SelfEnsemble
from upsweep.tracking.weights import located
from upsweep.upscaling.engines import Accelerated

SCALE = 2  # where neither a checkpoint nor the person says one
CPU = torch.device("cpu")


def load(
    checkpoint: str | None,
    model: str | None,
    scale: int | None,
    *,
    allow: Collection[str] = (),
    ensemble: bool = False,
    device: torch.device = CPU,
    engine: str = "auto",
) -> tuple[Upscaler, str]:
    """The generator of a checkpoint, or the package's own, in evaluation mode on `device`; and where it is from.

    Args:
        checkpoint: a file, or None for what the package carries.
        model: which of those, by name; None: the default.
        scale: what the generator must make; None: whatever the checkpoint makes.
        allow, ensemble, engine: see `checkpoints.load_upscaler`, `SelfEnsemble` and `Accelerated`.

    Raises:
        UserError: no such weights, or of another scale; or the engine cannot run them.
    """
    if checkpoint is not None and model is not None:
        raise UserError(f"checkpoint={checkpoint} and model={model} both name weights: leave one of them out.")
    path = release.path(model, scale or SCALE) if checkpoint is None else located(checkpoint)
    generator = load_upscaler(path, allow=allow)
    if scale is not None and generator.scale != scale:
        raise UserError(f"{path} enlarges {generator.scale} times, not scale={scale}: leave scale out, or train one.")
    accelerated = Accelerated(generator.to(device), engine)
    return (SelfEnsemble(accelerated) if ensemble else accelerated), str(path)


def tile_of(tile: str | int | None) -> int | None:
    """What `Enlarger` takes for the config's auto, or number.

    Raises:
        UserError: something else.
    """
    if tile == "auto":
        return None
    if not isinstance(tile, int) or isinstance(tile, bool) or tile < 0:
        raise UserError(f"tile={tile} must be auto, or a number of input pixels (0: no tiles).")
    return tile
