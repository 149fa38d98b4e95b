"""Weights and plain values in, a generator out; nothing that a file says is ever run.

A checkpoint holds, beside Lightning's own entries, `checkpoint["upsweep"]`: the generator's class by name and its
arguments as plain values (the recipe among them). Names resolve to upsweep's generators and blocks and to the
modules of `torch.nn`, or to classes that the caller names, and to nothing else. Where the weights were averaged while
they were trained, `checkpoint["ema"]` holds the average, which is what validation judged.

A release (`.safetensors`) holds the generator's weights alone, and the same description as JSON in its metadata.
"""

import importlib
import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from upsweep.errors import UserError
from upsweep.generators.base import Generator

FORMAT = 1
KEY = "upsweep"
EMA = "ema"
RELEASE = ".safetensors"
# Sizes are checked against the weights before memory is taken; these bounds keep the check itself short.
LARGEST_NUMBER = 2048
DEEPEST = 16
LONGEST = 100_000  # characters of a release's description


def build(spec: Mapping[str, Any]) -> Generator:
    """The generator that a config node, or a vetted checkpoint, describes.

    Raises:
        UserError: the node describes something else, or the generator refuses its arguments.
    """
    try:
        generator = instantiate(spec, _convert_="all")
    except InstantiationException as error:  # Hydra's wrapping of what a constructor raised
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__
        raise
    if not isinstance(generator, Generator):
        raise UserError(
            f"generator._target_={spec.get('_target_')} is no upsweep.generators.Generator; derive from it."
        )
    return generator


def describe(spec: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What a checkpoint says of its generator: `spec` and any further plain values."""
    return {"format": FORMAT, "generator": dict(spec), **more}


def load_generator(path: Path, *, allow: Collection[str] = (), ema: bool = True) -> Generator:
    """The trained generator of a checkpoint, in evaluation mode, on the CPU.

    Args:
        path: a `.ckpt` or `.safetensors` file that upsweep wrote.
        allow: `_target_` names outside upsweep that the user's own config names, and that may be built.
        ema: whether to take the moving average of the weights, where there is one.

    Raises:
        UserError: no such file, no checkpoint of ours, a name that may not be built, weights that do not fit.
    """
    return load(path, allow=allow, ema=ema)[0]


def load(path: Path, *, allow: Collection[str] = (), ema: bool = True) -> tuple[Generator, dict[str, Any]]:
    """As `load_generator`; and the vetted node by which the generator was built, for who writes it elsewhere."""
    state = read(path)
    said = state.get(KEY)
    if not isinstance(said, dict) or not isinstance(said.get("generator"), dict):
        raise UserError(f"{path} is a checkpoint, but not one of upsweep's: it does not say which generator it holds.")
    if said.get("format") != FORMAT:
        raise UserError(f"{path} has format {said.get('format')!r}; this upsweep reads format {FORMAT}.")
    spec = said["generator"]
    _vet(path, spec, allow)
    weights = generator_weights(state, ema=ema)
    if sum(value.numel() * value.element_size() for value in weights.values()) > path.stat().st_size:
        raise UserError(f"{path} claims more weights than it has bytes; it was not loaded.")
    try:
        with torch.device("meta"):  # no memory is taken for sizes that the file only claims
            shape = build(spec)
    except Exception as error:  # whatever a constructor makes of arguments that no config gave it
        reason = _first_line(error.__cause__ or error)
        raise UserError(f"{path} describes no generator that can be built ({reason}).") from error
    fit(shape, weights, path)
    generator = build(spec)
    generator.load_state_dict(weights)
    return generator.eval(), spec


def read(path: Path) -> dict[str, Any]:
    """The plain values and tensors of a checkpoint file.

    Raises:
        UserError: missing, unreadable, or holding more than plain values and tensors.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}; a run's own lie in its checkpoints/ folder.")
    if path.suffix.lower() == RELEASE:
        return _read_release(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        try:
            _refuse_packed(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for one fact: it is no file to be trusted
            reason = _first_line(error)
            raise UserError(
                f"{path} is broken, or holds more than weights and plain values; it was not loaded ({reason})."
            ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint.")
    return state


def generator_weights(state: Mapping[str, Any], *, ema: bool = True) -> dict[str, Tensor]:
    """The generator's weights in a Lightning checkpoint: their moving average, where there is one, unless not `ema`."""
    key, prefix = (EMA, "") if ema and EMA in state else ("state_dict", "generator.")
    weights = state.get(key)
    return {
        name.removeprefix(prefix): value
        for name, value in (weights.items() if isinstance(weights, Mapping) else ())
        if isinstance(name, str) and name.startswith(prefix) and isinstance(value, Tensor)
    }


def fit(generator: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not those of `generator`.

    Raises:
        UserError: a name is missing or too many, or a shape differs; the first such is named.
    """
    wanted = {name: value.shape for name, value in generator.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            has, needs = (list(s[name]) if name in s else "nothing" for s in (found, wanted))
            raise UserError(
                f"{path} does not fit the generator: {name} is {has} in the file and {needs} in the network."
            )


def transfer(
    generator: nn.Module, weights: Mapping[str, Tensor], path: Path, *, without: Collection[str] = ()
) -> list[str]:
    """Load those weights that the generator has by the same name and shape; the names of its others, left as they are.

    Args:
        generator: changed in place.
        weights: by name.
        path: where they are from, for the sentence.
        without: parts of the generator, by name, that keep their own weights whatever fits.

    Raises:
        UserError: none fits.
    """
    own = generator.state_dict()
    fitting = {
        name: w
        for name, w in weights.items()
        if name in own and own[name].shape == w.shape and name.partition(".")[0] not in without
    }
    if not fitting:
        raise UserError(f"Nothing in {path} fits this generator: no weight has the same name and shape.")
    generator.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint so that a half-written one never looks whole: beside, then rename."""
    _write(path, lambda file: torch.save(dict(state), file))


def save_release(generator: Generator, spec: Mapping[str, Any], path: Path) -> None:
    """Write the weights of `generator`, which `spec` describes, as safetensors, whole or not at all."""
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in generator.state_dict().items()}
    metadata = {"format": "pt", KEY: json.dumps(describe(spec))}
    content = safetensors.torch.save(weights, metadata)
    _write(path, lambda file: file.write(content))


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the new name
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _refuse_packed(file: BinaryIO) -> None:
    """Refuse a checkpoint whose parts are compressed: torch packs none, and a small file could unpack to terabytes."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(part.file_size != part.compress_size for part in archive.infolist()):
                raise ValueError("its parts are compressed, which torch never does")
    file.seek(0)


def _read_release(path: Path) -> dict[str, Any]:
    """A release in the form of a Lightning checkpoint."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY, "null")
            if len(text) > LONGEST:
                raise ValueError(f"its description has {len(text)} characters")
            said = json.loads(text)
            weights = {f"generator.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except Exception as error:  # safetensors and json raise many kinds for one fact, as torch does
        raise UserError(
            f"{path} is broken, or no safetensors file; it was not loaded ({_first_line(error)})."
        ) from error
    return {KEY: said, "state_dict": weights}


def _vet(path: Path, spec: object, allow: Collection[str]) -> None:
    for count, (depth, key, value) in enumerate(_walk(spec)):
        if depth > DEEPEST or count > LARGEST_NUMBER:
            fault = "describes its generator at a length, or a depth, that none has"
        elif not isinstance(key, str) or (key.startswith("_") and key not in ("_target_", "_partial_")):
            fault = f"has the key {key!r}, which no upsweep checkpoint has"
        elif not isinstance(value, Mapping | list | tuple | str | int | float | bool | None):
            fault = f"holds a {type(value).__name__} where a plain value belongs"
        elif key == "_target_" and not (isinstance(value, str) and (value in allow or _ours(value))):
            fault = f"asks for {value!r}, which is neither upsweep's nor named by your config"
        elif isinstance(value, str) and "${" in value:
            fault = f"has an interpolation in {key}"
        elif isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
            fault = f"wants {key}={value}, which is absurd"
        else:
            continue
        raise UserError(f"{path} {fault}; it was not loaded.")


def _walk(spec: object, key: object = "", depth: int = 0) -> Iterator[tuple[int, object, object]]:
    """Depth, key and value of everything in `spec`; no deeper than is needed to see that it is too deep."""
    yield depth, key, spec
    if depth > DEEPEST:
        return
    inside = spec.items() if isinstance(spec, Mapping) else []
    inside = [(key, value) for value in spec] if isinstance(spec, list | tuple) else inside
    for name, value in inside:
        yield from _walk(value, name, depth + 1)


def _ours(target: str) -> bool:
    """Whether a name is one of upsweep's generators or blocks, or a module class of torch.nn."""
    module, _, name = target.rpartition(".")
    if module == "torch.nn":
        found = getattr(nn, name, None)
        return isinstance(found, type) and issubclass(found, nn.Module)
    if module.split(".")[:2] not in (["upsweep", "generators"], ["upsweep", "blocks"]):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):  # ValueError: a name with a null byte
        return False
    return isinstance(found, type) and found.__module__.startswith("upsweep.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
