"""A network that upsweep does not know: any nn.Module LR -> SR of the user's own, with weights from any trainer.

The class is code that the user names, and it is imported and called. A file of weights is only read: nothing that it
says is ever run.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError, first_line
from upsweep.common.names import listed
from upsweep.networks import checkpoints
from upsweep.networks.upscalers.upscaler import Upscaler

# Where trainers put a network's weights in a file; the averaged ones first.
EMA_ENTRIES = ("params_ema", "ema", "g_ema", "model_ema", "state_dict_ema", "ema_state_dict", "shadow")
ENTRIES = (
    *("params", "state_dict", "model_state_dict", "model", "generator", "params_g", "netG", "net_g", "net", "network"),
    "weights",
)
# What wrappers put before the names of weights: DataParallel, Lightning, torch.compile.
PREFIXES = ("module.", "model.", "generator.", "netG.", "net_g.", "net.", "network.", "_orig_mod.")
DEEPEST = 3  # entries, or prefixes, within each other
PROBE = 48, 64  # LR pixels, height and width: a multiple of what windows and poolings usually need


class Range(NamedTuple):
    """The values that stand for black and white."""

    low: float = 0.0
    high: float = 1.0

    def __str__(self) -> str:
        return f"[{self.low:g},{self.high:g}]"

    @classmethod
    def of(cls, key: str, said: Any) -> "Range":
        """What a config says: 1, 255, or `[-1, 1]`. Raises UserError: something else."""
        ends = list(said) if isinstance(said, Sequence) and not isinstance(said, str) else [0, said]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        if len(ends) != 2 or not numbers or not ends[0] < ends[1]:
            raise UserError(f"{key}={said} must be 1 for values in [0, 1], 255 for [0, 255], or a list such as [-1,1].")
        return cls(float(ends[0]), float(ends[1]))

    def put(self, x: Tensor) -> Tensor:
        """Values in [0, 1] -> values of this range."""
        return x if self == (0, 1) else x * (self.high - self.low) + self.low

    def taken(self, x: Tensor) -> Tensor:
        """Values of this range -> values in [0, 1]."""
        return x if self == (0, 1) else (x - self.low) / (self.high - self.low)


class Foreign(Upscaler):
    """An nn.Module (N, C, H, W) -> (N, C, s H, s W) as an upscaler: values in [0, 1] in and out, not clipped.

    A module that pools or works in windows says in its own `stride` how many LR pixels a cell is wide (see `Upscaler`).

    Args:
        module: the network itself.
        scale: s.
        channels: C, 1 (the Y plane) or 3 (RGB).
        takes: the range of the values that it takes.
        gives: the range of the values that it gives.
        name: what sentences call it.

    `forward` raises UserError where the module fails, or gives another shape than it must.
    """

    def __init__(self, module: nn.Module, scale: int, channels: int, takes: Range, gives: Range, name: str) -> None:
        self.scales = (scale,)
        super().__init__(scale, channels)
        self.module, self.takes, self.gives, self.name = module, takes, gives, name
        said = getattr(module, "stride", None)  # of a bare nn.Conv2d it is a tuple
        self.stride = said if type(said) is int and said > 0 else 1

    @property
    def called(self) -> str:
        return self.name

    def body(self, x: Tensor) -> Tensor:
        y = _output(self.module, self.takes.put(x), self.name)
        wanted = (*x.shape[:2], *(side * self.scale for side in x.shape[-2:]))
        if y.shape != wanted:
            raise UserError(
                f"{self.name} makes {_size(y)} of an LR image of {_size(x)}, and at x{self.scale} it must make "
                f"{wanted[-1]}x{wanted[-2]} with {wanted[1]} channel(s): pad and crop inside of its forward."
            )
        return self.gives.taken(y)


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The module that a dotted name and the arguments of its constructor stand for, on the CPU, in evaluation mode.

    Raises:
        UserError: it cannot be imported or made, or is no nn.Module.
    """
    try:
        target = checkpoints.by_name(name)
    except (Exception, SystemExit) as error:  # an import runs the user's code
        raise UserError(
            f"module={name} cannot be found or imported ({first_line(error)}): give package.Class, and start in the "
            "folder that holds the package, or name that folder in PYTHONPATH."
        ) from error
    try:
        module = target(**arguments)
    except (Exception, SystemExit) as error:  # so does its constructor
        said = ", ".join(f"{key}={value}" for key, value in arguments.items()) or "no arguments"
        raise UserError(
            f"module={name} cannot be made with {said} ({first_line(error)}): its arguments are given as "
            "args.NAME=VALUE."
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(f"module={name} gives a {type(module).__name__}, and must give a torch.nn.Module.")
    return module.cpu().float().eval()


def shape_of(module: nn.Module, channels: int | None, takes: Range, name: str) -> tuple[int, int]:
    """The scale of a module and its channels (1 or 3), as a small image shows; Y if it takes both.

    Raises:
        UserError: it fails, or what it gives is not that image enlarged by a whole factor.
    """
    faults: dict[int, UserError] = {}
    for count in (1, 3) if channels is None else (channels,):
        try:
            return _scale(module, count, takes, name), count
        except UserError as error:
            faults[count] = error
    # What it gave says more than why it failed; and of two failures, that of the colours that it seems to be made for.
    first = next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), 1)
    likely = faults.get(3 if first % 3 == 0 else 1) or faults[channels or 1]
    raise next((fault for fault in faults.values() if fault.__cause__ is None), likely)


@torch.no_grad()
def _scale(module: nn.Module, channels: int, takes: Range, name: str) -> int:
    x = torch.full((1, channels, *PROBE), 0.5)
    y = _output(module, takes.put(x), name)
    scale = y.shape[-1] // PROBE[1]
    if y.shape[1] != channels or scale < 2 or y.shape[-2:] != (scale * PROBE[0], scale * PROBE[1]):
        raise UserError(
            f"{name} makes {_size(y)} with {y.shape[1]} channel(s) of an LR image of {_size(x)} with {channels}: it "
            "must enlarge both sides by one whole factor, and keep the channels."
        )
    return scale


def _output(module: nn.Module, x: Tensor, name: str) -> Tensor:
    try:
        y = module(x.clone())  # which it may change in place
    except (Exception, SystemExit) as error:  # it is the user's code
        raise UserError(
            f"{name} fails on an LR image of {_size(x)} with {x.shape[1]} channel(s) ({first_line(error)}): does it "
            "take colour=y or colour=rgb, any size, and these args?"
        ) from error
    if not isinstance(y, Tensor) or y.ndim != 4:
        given = f"a tensor with {y.ndim} axes" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise UserError(f"{name} gives {given}, and must give the SR images alone, as a tensor (N, C, H, W).")
    return y


def _size(x: Tensor) -> str:
    return f"{x.shape[-1]}x{x.shape[-2]}"


# ---- weights ----


def load_weights(module: nn.Module, path: Path, *, ema: bool | None = None) -> None:
    """Give a module the weights of a state dict: a .pth, .pt, .ckpt or .safetensors file, as any trainer writes it.

    The weights may lie within an entry of the file (`params`, `state_dict`, ...), and their names may begin with what
    a wrapper puts there (`module.`, `model.`, ...).

    Args:
        module: that takes them.
        path: of the file.
        ema: whether the averaged weights are taken; None takes them where there are any.

    Raises:
        UserError: the file cannot be read, holds more than weights and plain values, or does not fit the module.
    """
    if not path.is_file():
        raise UserError(f"weights={path} is not a file: give a .pth, .pt, .ckpt or .safetensors file.")
    try:
        state = checkpoints.read(path)
    except UserError as error:
        raise UserError(f"{error} Save the state_dict() of the network alone.") from error
    if ema and not any(isinstance(state.get(key), Mapping) for key in EMA_ENTRIES):
        raise UserError(f"{path} has no moving average of its weights ({listed(EMA_ENTRIES)}): leave ema=true out.")
    averaged, last = ({k: v for k, v in state.items() if (k in EMA_ENTRIES) is of_ema} for of_ema in (True, False))
    parts = [averaged] if ema else [last, averaged] if ema is False else [averaged, last]
    if not (dicts := [found for part in parts for found in _state_dicts(part)]):
        raise UserError(
            f"{path} holds no weights: neither tensors by name, nor an entry such as {listed(ENTRIES)} has any; it "
            f"has {listed([str(key) for key in state]) or 'nothing'}."
        )
    wanted = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}

    def known(reading: Mapping[str, Tensor]) -> int:
        return len(reading.keys() & wanted.keys())

    # Of each entry the first reading that fits best: names as they are come before stripped ones. Then the first entry
    # that has any of the network's names: others may hold a counter alone.
    readings = [max(_readings(weights), key=known) for weights in dicts]
    found = next(filter(known, readings), readings[0])
    _fit(wanted, found, path)
    checkpoints.refuse_no_numbers(module, found, path)
    module.load_state_dict(found, strict=False)


def _state_dicts(state: Mapping[str, Any], depth: int = 0) -> Iterator[dict[str, Tensor]]:
    """The tensors of each of the entries that has any, in their order, and then those at the top."""
    for key in (*EMA_ENTRIES, *ENTRIES) if depth < DEEPEST else ():
        if isinstance(inner := state.get(key), Mapping):
            yield from _state_dicts(inner, depth + 1)
    if own := {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}:
        yield own


def _readings(weights: dict[str, Tensor], depth: int = 0) -> Iterator[dict[str, Tensor]]:
    """The weights as they are, and those below each prefix, without it."""
    yield weights
    for prefix in PREFIXES if depth < DEEPEST else ():
        below = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if below:
            yield from _readings(below, depth + 1)


def _fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError for names that one of the two lacks, or shapes that differ; the first few are named."""
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    more = [name for name in found if name not in wanted]
    other = [
        f"{name} ({list(found[name].shape)} in the file, {list(wanted[name].shape)} in the network)"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    faults = {"the file lacks": missing, "the network has no": more, "the shapes differ of": other}
    said = [f"{what} {listed(names)} ({len(names)} in all)" for what, names in faults.items() if names]
    if said:
        raise UserError(
            f"{path} does not fit the network: {'; '.join(said)}: are module= and args= those of this file?"
        )
