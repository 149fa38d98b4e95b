"""A trained network for other programs: ONNX, or safetensors with its description."""

import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upsweep import release
from upsweep.common.commands import installing
from upsweep.common.errors import UserError, first_line
from upsweep.common.files import whole
from upsweep.networks.checkpoints import KEY, RELEASE, describe, load, save_release
from upsweep.networks.network import Network
from upsweep.networks.upscalers.upscaler import Upscaler

OPSET = 18
SIZES = ((24, 40), (37, 21), (8, 64))  # height, width of the inputs on which the file must agree with PyTorch
BATCHES = (3, 1, 8)  # how many inputs at once, where that is what is free
TOLERANCE = 1e-4  # of the largest value
SUFFIXES = {"onnx": ".onnx", "safetensors": RELEASE}


def export(
    checkpoint: Path | None,
    format: str,
    output: Path | None = None,
    *,
    opset: int = OPSET,
    ema: bool = True,
    overwrite: bool = False,
    allow: Collection[str] = (),
) -> str:
    """Write the generator of a checkpoint in another format; a sentence that says what was written.

    Args:
        checkpoint: a `.ckpt` or `.safetensors` file; `allow` and `ema` as in `checkpoints.load_generator`.
        format: onnx (of that `opset`) or safetensors.
        output: the file to write; None: beside the checkpoint, with the format's suffix; of shipped weights, in the
            current folder.
        overwrite: whether a file that is there may be replaced.

    Raises UserError: nothing to read or nowhere to write, or what cannot be exported.
    """
    if checkpoint is None:
        raise UserError("Say which generator to export: checkpoint=PATH, a run's folder or a .ckpt file.")
    if format not in SUFFIXES:
        raise UserError(f"format={format} must be one of {', '.join(SUFFIXES)}.")
    shipped = checkpoint.parent == release.FOLDER  # nothing is written into the package
    path = output or Path("" if shipped else checkpoint.parent, checkpoint.stem + SUFFIXES[format])
    if path.suffix != SUFFIXES[format]:
        raise UserError(f"output={path} must end in {SUFFIXES[format]}, as format={format} does.")
    if path.exists() and not overwrite:
        raise UserError(f"{path} already exists; overwrite=true replaces it, output=... writes elsewhere.")
    network, spec = load(checkpoint, allow=allow, ema=ema)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if format == "onnx":
            worst = export_onnx(network, spec, path, opset)
            tried = ", ".join(_examples(network))
            free = f"any {' and '.join(network.free.values())}" if network.free else "one size"
            more = f"opset {opset}, {free}; off PyTorch by {worst:.0e} at most ({tried})"
        else:
            save_release(network, spec, path)
            more = "weights and their description"
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    name = type(network).__name__ + (f" x{network.scale}" if isinstance(network, Upscaler) else "")
    return f"{path}: {name}, {more}"


def export_onnx(network: Network, spec: Mapping[str, Any], path: Path, opset: int = OPSET) -> float:
    """Write `network` as ONNX, whole or not at all, once it agrees with PyTorch under onnxruntime.

    The input is as `network.example` gives it, float32; axes that `network.free` names may have any size, images
    from 2 on. An upscaler's is `lr`, (1, C, height, width) in [0, 1], and its output `sr`, (1, C, s height, s width),
    not clipped; a synthesiser's `latent`, (batch, L), and its output `image`, (batch, C, S, S) in [0, 1].
    The metadata holds `spec` under "upsweep".

    Returns the largest difference on inputs of three sizes (or batches), as a share of the largest value.
    Raises UserError: the packages are missing, the exporter cannot express the network, or the file does not agree.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter imports it, and says so less clearly
    except ModuleNotFoundError as error:
        raise UserError(f"format=onnx needs {error.name}: {installing('export')}.") from error
    except ImportError as error:
        raise UserError(f"format=onnx cannot use what it needs ({first_line(error)}): install it again.") from error
    name = type(network).__name__
    with whole(path) as beside:
        try:
            _convert(network.cpu().eval(), spec, beside, opset)
        except OSError:  # of the file, which the caller names
            raise
        except Exception as error:  # the exporter raises many kinds for one fact: it cannot say this in ONNX
            raise UserError(f"{name} cannot be exported to ONNX with opset {opset} ({_reason(error)}).") from error
        session = onnxruntime.InferenceSession(str(beside), providers=["CPUExecutionProvider"])
        worst = max(_difference(network, session, *example) for example in _examples(network).items())
        if not worst <= TOLERANCE:
            raise UserError(
                f"The exported {name} differs from PyTorch by {worst:.1e} of the largest value, "
                f"more than {TOLERANCE:.0e}; it was not written."
            )
    return worst


def _examples(network: Network) -> dict[str, Tensor]:
    """Inputs by their description: the first converts the network, and the file must agree on all of them."""
    if 0 not in network.free:
        return {f"{width}x{height}": network.example(height, width) for height, width in SIZES}
    one = network.example(*SIZES[0])
    return {f"{n} at once": torch.cat([one.roll(i, -1) for i in range(n)]) for n in BATCHES}


def _convert(network: Network, spec: Mapping[str, Any], path: Path, opset: int) -> None:
    with _quiet():
        program = torch.onnx.export(
            network,
            (next(iter(_examples(network).values())),),
            dynamo=True,
            dynamic_shapes=(network.free,),
            input_names=[network.input_name],
            output_names=[network.output_name],
            opset_version=opset,
            verbose=False,
        )
        assert program is not None
        if program.model.opset_imports[""] != opset:  # the converter gives up in silence
            raise ValueError(f"it needs opset {program.model.opset_imports['']}")
        program.model.metadata_props[KEY] = json.dumps(describe(spec))
        program.save(path, external_data=False)


@torch.no_grad()
def _difference(network: Network, session: Any, said: str, x: Tensor) -> float:
    expected = network(x)
    try:
        found = torch.from_numpy(session.run(None, {network.input_name: x.numpy()})[0])
    except Exception as error:  # onnxruntime's own kinds, none of them documented
        raise UserError(
            f"The exported {type(network).__name__} fails on {said} ({_reason(error)}); it was not written."
        ) from error
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def _reason(error: Exception) -> str:
    """The first line of what first went wrong: the exporter wraps it in pages of advice."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return first_line(root)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and its optimiser log and warn of; what fails raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
