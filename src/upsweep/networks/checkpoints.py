"""Weights and plain values in, a network out; nothing that a file says is ever run.

A checkpoint holds, beside Lightning's own entries, `checkpoint["upsweep"]`: the generator's class by name and its
arguments as plain values (the recipe among them). Names resolve to upsweep's networks and blocks and to the
activations of `torch.nn`, or to classes that the caller names, and to nothing else. Where the weights were averaged
while they were trained, `checkpoint["ema"]` holds the average, which is what validation judged.

A release (`.safetensors`) holds the generator's weights alone, and the same description as JSON in its metadata.
"""

import copy
import importlib
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn

from upsweep import release
from upsweep.common.errors import UserError, first_line
from upsweep.common.files import whole, write_whole
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.synthesiser import Synthesiser
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.runs.about import About
from upsweep.runs.layout import ABOUT, run_of

FORMAT = 2
# How names of format 1 begin, which configs of today may have too, and how they begin now.
RENAMED = {
    "upsweep.generators.": "upsweep.networks.upscalers.",
    "upsweep.blocks.upsampler.Bicubic": "upsweep.blocks.upsampler.FixedBicubic",
}
KEY = "upsweep"
EMA = "ema"
RELEASE = ".safetensors"
LFS = b"version https://git-lfs"
# Sizes are checked against the weights before memory is taken; these bounds keep the check itself short.
LARGEST_NUMBER = 2048
DEEPEST = 16
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
LONGEST = 100_000  # characters of a release's description
DEPTHS = ("depth", "m")  # arguments of upsweep's networks that say how many layers there are, each with a weight
FEW_LAYERS, MOST_LAYERS, MOST_NETWORKS = 64, 500, 4
# What of torch.nn may be named: element-wise, and of no size.
ACTIVATIONS = frozenset(
    f"torch.nn.{name}"
    for name in (
        *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU"),
        *("LogSigmoid", "Mish", "PReLU", "ReLU", "ReLU6", "RReLU", "SELU", "Sigmoid", "SiLU", "Softplus"),
        *("Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold"),
    )
)


def build(spec: Mapping[str, Any]) -> Network:
    """The network that a config node, or a vetted checkpoint, describes.

    Raises UserError where it describes something else, a name in it is unknown, or a constructor refuses its arguments.
    """
    network = _make(spec)
    if not isinstance(network, Network):
        raise UserError(f"generator._target_={spec.get('_target_')} is not an upsweep.networks.Network: derive it.")
    return network


def _make(value: Any) -> Any:
    """What a plain value stands for: itself, or where it has a `_target_` that class of its arguments."""
    if isinstance(value, list | tuple):
        return [_make(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    arguments = {key: _make(one) for key, one in value.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in value:
        return arguments
    name = renamed(str(value["_target_"]))
    try:
        target = by_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        more = ": PYTHONPATH must name the folder of modules of your own" if isinstance(error, ImportError) else ""
        raise UserError(f"The generator names {name}, which cannot be found ({first_line(error)}){more}.") from error
    try:
        return partial(target, **arguments) if value.get("_partial_") else target(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} does not accept its arguments ({first_line(error)}).") from error


def by_name(name: str) -> Any:
    """What a dotted name stands for, also inside of a class; raises what its import, or Python's search, raises."""
    module, _, attribute = name.rpartition(".")
    try:
        holder = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module or "." not in module:  # it is there, and imports something that is not
            raise
        holder = by_name(module)
    return getattr(holder, attribute)


def renamed(target: str) -> str:
    """The name of today for a class of upsweep."""
    for before, now in RENAMED.items():
        if target.startswith(before):
            return now + target.removeprefix(before)
    return target


def describe(spec: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What a checkpoint says of its generator: `spec` and any further plain values."""
    return {"format": FORMAT, "generator": dict(spec), **more}


def load_generator(
    path: str | PathLike[str], *, allow: Collection[str] = (), trust_config: bool = False, ema: bool = True
) -> Network:
    """The trained network of a checkpoint that upsweep wrote, in evaluation mode, on the CPU.

    Args:
        path: a `.ckpt` or `.safetensors` file, a run's folder, whose best checkpoint is taken, or the name of weights
            that the package carries (`fsrcnn_x2`).
        allow: names of classes outside upsweep that may be built, as a config's `_target_` has them: `{"mine.Net"}`.
        trust_config: whether to allow, besides, every class that the config of the checkpoint's own run names for its
            generator (`about.json` in the run's folder). Only for folders that you, or somebody whose code you would
            run, wrote: a name stands for anything that Python can import, and is called.
        ema: whether to take the moving average of the weights, where there is one.

    Raises UserError: no such file, no checkpoint of ours, a name that may not be built, weights that do not fit;
    with `trust_config`, a checkpoint that lies in no run's folder.
    """
    if trust_config:
        allow = {*allow, *named_by_run(release.located(path))}
    return load(path, allow=allow, ema=ema)[0]


def load_upscaler(
    path: str | PathLike[str], *, allow: Collection[str] = (), trust_config: bool = False, ema: bool = True
) -> Upscaler:
    """As `load_generator`, for networks that enlarge images: any other raises UserError too."""
    return as_upscaler(load_generator(path, allow=allow, trust_config=trust_config, ema=ema), path)


def as_upscaler(network: Network, said_by: object) -> Upscaler:
    """The same network, which a file or a config names; UserError if it does not enlarge images."""
    if not isinstance(network, Upscaler):
        raise UserError(f"{said_by} names a {type(network).__name__}, which is not an upscaler: choose one that is.")
    return network


def load_synthesiser(
    path: str | PathLike[str], *, allow: Collection[str] = (), trust_config: bool = False, ema: bool = True
) -> Synthesiser:
    """As `load_generator`, for networks that make images from latents: any other raises UserError too."""
    network = load_generator(path, allow=allow, trust_config=trust_config, ema=ema)
    if not isinstance(network, Synthesiser):
        raise UserError(f"{path} names a {type(network).__name__}, which is not a synthesiser: choose one that is.")
    return network


def named_by_run(checkpoint: Path) -> set[str]:
    """The classes that the config of a checkpoint's run names for its generator. Raises UserError: it has no run."""
    folder = run_of(checkpoint)
    about = None if folder is None else About.read(folder)
    if about is None:
        raise UserError(
            f"trust_config=True needs the {ABOUT} of the run that wrote {checkpoint}, and there is none: give the "
            "run's folder, or name the classes that you trust with allow={...}."
        )
    nodes = [node for _, _, node in _walk(about.config.get("generator")) if isinstance(node, Mapping)]
    return {str(node["_target_"]) for node in nodes if "_target_" in node}


def load(path: str | PathLike[str], *, allow: Collection[str] = (), ema: bool = True) -> tuple[Network, dict[str, Any]]:
    """As `load_generator`; and the vetted node that the network was built from, to write it elsewhere."""
    path = release.located(path)
    state = read(path)
    spec = described(state, path, allow)
    weights = generator_weights(state, ema=ema)
    _bound(spec, len(weights), path)
    if sum(value.numel() * value.element_size() for value in weights.values()) > path.stat().st_size:
        raise UserError(f"{path} claims more weights than it has bytes; it was not loaded.")
    try:
        with torch.device("meta"):  # no memory is taken for sizes that the file only claims
            shape = build(spec)
    except Exception as error:  # whatever a constructor makes of arguments that no config gave it
        raise UserError(f"{path} describes a generator that cannot be built ({first_line(error)}).") from error
    fit(shape, weights, path)
    generator = build(spec)
    generator.load_state_dict(weights)
    return generator.eval(), spec


def described(state: Mapping[str, Any], path: Path, allow: Collection[str] = ()) -> dict[str, Any]:
    """The vetted node of a checkpoint's generator, in the words of today's format.

    Raises UserError if there is none, its format is newer, or it names what may not be built.
    """
    said = state.get(KEY)
    if not isinstance(said, dict) or not isinstance(said.get("generator"), dict):
        raise UserError(f"{path} is a checkpoint, but not one of upsweep's: it does not say which generator it holds.")
    form = said.get("format")
    if not (isinstance(form, int) and 1 <= form <= FORMAT):
        raise UserError(f"{path} has format {form!r}; this upsweep reads formats up to {FORMAT}.")
    _vet(path, said["generator"], allow)
    spec: dict[str, Any] = copy.deepcopy(said["generator"])
    for _, _, node in _walk(spec):
        if isinstance(node, dict) and "_target_" in node:
            node["_target_"] = renamed(node["_target_"])
            if form == 1 and node["_target_"] in ("upsweep.blocks.norm.WeightNorm", "upsweep.blocks.norm.SpectralNorm"):
                node["covers"] = "blocks"
    return spec


def read(path: Path) -> dict[str, Any]:
    """The plain values and tensors of a checkpoint file; UserError where it is missing, unreadable, or holds more."""
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}: give {release.choices()}.")
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
        except Exception as error:  # torch raises many kinds for one fact: the file is not to be trusted
            fault = (
                f"is broken, or holds more than weights and plain values; it was not loaded ({_reason(error, file)})"
            )
            raise UserError(f"{path} {fault}.") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint.")
    return state


def _reason(error: Exception, file: BinaryIO) -> str:
    """Why torch read no checkpoint from a file, without its advice to run whatever the file says."""
    file.seek(0)
    if file.read(len(LFS)) == LFS:
        return "it is a pointer of Git LFS: git lfs pull fetches the file itself"
    if refused := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
        return f"it holds an object of {refused[1]}"
    ours = isinstance(error, ValueError | OSError | MemoryError) and not isinstance(error, UnicodeError)
    return first_line(error) if ours else "torch.save has not written it, or not all of it is there"


def said_of(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node of the generator in a checkpoint, as it stands there; empty where a file of somebody else has none."""
    said = state.get(KEY)
    node = said.get("generator") if isinstance(said, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def generator_weights(state: Mapping[str, Any], *, ema: bool = True) -> dict[str, Tensor]:
    """The generator's weights in a Lightning checkpoint: their moving average, where there is one, unless not `ema`."""
    key, prefix = (EMA, "") if ema and EMA in state else ("state_dict", "generator.")
    weights = state.get(key)
    return {
        name.removeprefix(prefix): value
        for name, value in (weights.items() if isinstance(weights, Mapping) else ())
        if isinstance(name, str) and name.startswith(prefix) and isinstance(value, Tensor)
    }


def fit(network: nn.Module, weights: Mapping[str, Tensor], path: Path, *, whose: str = "generator") -> None:
    """Raise UserError for the first name that one lacks, whose shapes differ, or whose values are not finite."""
    wanted, found = ({name: value.shape for name, value in w.items()} for w in (network.state_dict(), weights))
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            has, needs = (list(s[name]) if name in s else "nothing" for s in (found, wanted))
            raise UserError(
                f"{path} does not fit the {whose}: {name} is {has} in the file and {needs} in the network"
                f"{_remedy(found, wanted)}."
            )
    refuse_no_numbers(network, weights, path)


def _remedy(found: Collection[str], wanted: Collection[str]) -> str:
    """What to add where a norm of weights covers other layers in the file than in the network."""
    marks = (".parametrizations.weight.original0", ".parametrizations.weight.0._u")  # of weight norm, spectral norm
    for covers, fewer, more in (("blocks", found, wanted), ("all", wanted, found)):
        bare = any(name.partition(".parametrizations")[0] + ".weight" in fewer for name in more if name.endswith(marks))
        if bare and any(name.endswith(marks) for name in fewer):
            return f" (it was trained with norm.covers={covers}: add that)"
    return ""


def refuse_no_numbers(generator: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights of another kind than the generator's by the same names, or that are not finite."""
    for name, own in generator.state_dict().items():
        value = weights.get(name)
        if value is None:
            continue
        if value.layout is not torch.strided or value.is_nested or value.is_meta:
            fault = "not a dense tensor"
        elif value.dtype != own.dtype and not {value.dtype, own.dtype} <= FLOATS:
            fault = f"{str(value.dtype).removeprefix('torch.')}, and must be {str(own.dtype).removeprefix('torch.')}"
        elif not value.isfinite().all():
            fault = "NaN or infinite in places: its training diverged"
        else:
            continue
        raise UserError(f"{path} cannot be used: {name} is {fault}.")


def transfer(
    generator: nn.Module, weights: Mapping[str, Tensor], path: Path, *, without: Collection[str] = ()
) -> list[str]:
    """Load those weights that the generator has by the same name and shape; the names of its others, left as they are.

    The parts of the generator that `without` names keep their own weights whatever fits. Raises UserError where none
    fits, or one that does is not finite; `path` says where they are from.
    """
    own = generator.state_dict()
    fitting = {
        name: w
        for name, w in weights.items()
        if name in own and own[name].shape == w.shape and name.partition(".")[0] not in without
    }
    if not fitting:
        raise UserError(f"Nothing in {path} fits this generator: no weight has the same name and shape.")
    refuse_no_numbers(generator, fitting, path)
    generator.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    # To an open file: torch's own writer says less clearly that a disk is full.
    with whole(path) as beside, beside.open("wb") as file:
        torch.save(dict(state), file)


def save_release(generator: nn.Module, spec: Mapping[str, Any], path: Path) -> None:
    """Write the weights of `generator`, which `spec` describes, as safetensors, whole or not at all."""
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in generator.state_dict().items()}
    write_whole(path, safetensors.torch.save(weights, {"format": "pt", KEY: json.dumps(describe(spec))}))


def _refuse_packed(file: BinaryIO) -> None:
    """Refuse a checkpoint whose parts are compressed: torch packs none, and a small file could unpack to terabytes."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(part.filename.endswith("/constants.pkl") for part in archive.infolist()):
                raise ValueError("it is a TorchScript archive: save the state_dict() of its network")
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
            f"{path} is broken, or not a safetensors file; it was not loaded ({first_line(error)})."
        ) from error
    return {KEY: said, "state_dict": weights}


def _vet(path: Path, spec: object, allow: Collection[str]) -> None:
    strange = dict[str, None]()
    for count, (depth, key, value) in enumerate(_walk(spec)):
        if depth > DEEPEST or count > LARGEST_NUMBER:
            fault = "has a description of its generator that is too long or too deep"
        elif not isinstance(key, str) or (key.startswith("_") and key not in ("_target_", "_partial_")):
            fault = f"has the key {key!r}, which no upsweep checkpoint has"
        elif not isinstance(value, Mapping | list | tuple | str | int | float | bool | None):
            fault = f"holds a {type(value).__name__} where a plain value belongs"
        elif key == "_target_" and not isinstance(value, str):
            fault = f"asks for {value!r}, which is neither upsweep's nor named by your config"
        elif isinstance(value, str) and "${" in value:
            fault = f"has an interpolation in {key}"
        elif isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
            fault = f"has {key}={value}, which is out of range"
        else:
            if key == "_target_" and not (value in allow or _ours(str(value))):
                strange[str(value)] = None
            continue
        raise UserError(f"{path} {fault}; it was not loaded.")
    if strange:
        names, is_ = ", ".join(map(repr, strange)), "is" if len(strange) == 1 else "are"
        raise UserError(
            f"{path} asks for {names}, which {is_} neither upsweep's nor named by your config; it was not loaded. If "
            f"you trust that code, add the --config-dir whose files name it. In Python, give allow={{{names}}} or, for "
            "a run of your own, trust_config=True."
        )


def _bound(spec: object, most: int, path: Path) -> None:
    """Refuse a description of more layers than the file has weights, or of many networks: each takes time to build."""
    nodes = [node for _, _, node in _walk(spec) if isinstance(node, Mapping)]
    networks = [node for node in nodes if str(node.get("_target_")).startswith("upsweep.networks.")]
    said = [node[key] for node in networks for key in DEPTHS if isinstance(node.get(key), int | float)]
    layers = sum(max(0, int(number)) for number in said)
    if layers > min(max(most, FEW_LAYERS), MOST_LAYERS) or len(networks) > MOST_NETWORKS:
        raise UserError(
            f"{path} names {layers} layers (in networks: {len(networks)}) and has {most} weights; it was not loaded."
        )


def _walk(spec: object, key: object = "", depth: int = 0) -> Iterator[tuple[int, object, object]]:
    """Depth, key and value of everything in `spec`; no deeper than is needed to see that it is too deep."""
    yield depth, key, spec
    if depth > DEEPEST or not isinstance(spec, Mapping | list | tuple):
        return
    for name, value in spec.items() if isinstance(spec, Mapping) else ((key, value) for value in spec):
        yield from _walk(value, name, depth + 1)


def _ours(target: str) -> bool:
    """Whether a name is one of upsweep's networks or blocks, or an activation of torch.nn."""
    if target in ACTIVATIONS:
        return True
    module, _, name = renamed(target).rpartition(".")
    if not f"{module}.".startswith(("upsweep.networks.", "upsweep.blocks.")):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):  # ValueError: a name with a null byte
        return False
    return isinstance(found, type) and (issubclass(found, nn.Module) or found.__module__.startswith("upsweep."))
