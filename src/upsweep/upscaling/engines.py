"""Who runs a generator on a CPU: PyTorch, or another program that makes the same of it in less time."""

import copy
import logging
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from upsweep.blocks.layout import as_channels_last
from upsweep.common.commands import installing
from upsweep.common.devices import device_holding
from upsweep.common.errors import UserError, first_line
from upsweep.networks.exporting import SIZES, export_onnx
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers.wrapper import Wrapper

log = logging.getLogger("upsweep")

Run = Callable[[Tensor], Tensor]  # LR images (1, C, H, W) -> SR images, as a generator makes them

LEVEL = 1 / 65535  # the most that an engine's result may differ: a level of 16 bits
AFTER = 10.0  # seconds of work from which on another engine can save more than it takes to prepare and to try
FASTER = 1.05  # how many times as fast it must be
TRIAL, ENOUGH = 128, 0.3  # side in LR pixels, and seconds, of the trial


class Accelerated(Wrapper):
    """A generator that another program may run: the same image, to one level of 8 or 16 bits.

    With `engine` auto PyTorch begins. Once the work that is done, or known to come (`expect`), takes `AFTER` seconds,
    OpenVINO tries a part of the image in turns with PyTorch, and goes on if it is faster. ONNX Runtime is never tried:
    it was slower wherever it was measured (benchmarks/engines.py). Devices other than a CPU stay with PyTorch.

    A copy of it is a copy of the generator inside: what a generator sees and needs is measured on that.

    Args:
        generator: in evaluation mode, on the device that is to work.
        engine: auto, torch, onnxruntime or openvino.

    Raises:
        UserError: see `hold_to_engine`; or the engine cannot run this generator, or does not agree with PyTorch (with
            auto both leave the work with PyTorch, after a warning).
    """

    def __init__(self, generator: Upscaler, engine: str = "auto") -> None:
        super().__init__(generator)
        device = device_holding(generator)
        hold_to_engine(engine, device)
        self.engine = "torch"  # who works at present
        self._other: Run | None = None
        self._seconds, self._expected = 0.0, 0.0
        self._undecided = engine == "auto" and device.type == "cpu" and find_spec("openvino") is not None
        if engine in OTHERS:
            self._other, self.engine = _prepared(engine, generator), engine

    def __deepcopy__(self, memo: dict[int, Any]) -> Upscaler:
        return copy.deepcopy(self.generator, memo)

    def expect(self, seconds: float) -> None:
        """Say how much longer the image takes that is being enlarged."""
        self._expected = seconds

    def body(self, x: Tensor) -> Tensor:
        if self._undecided and self._seconds + self._expected > AFTER:
            self._undecided = False
            self._decide(as_channels_last(x[..., :TRIAL, :TRIAL]))
        begun = time.perf_counter()
        fits = x.shape[0] == 1 and min(x.shape[-2:]) > 1  # as the other engines were told
        y: Tensor = self._other(x) if self._other is not None and fits else self.generator(x)
        self._seconds += time.perf_counter() - begun
        return y

    def _decide(self, x: Tensor) -> None:
        try:
            other = _prepared("openvino", self.generator)
        except UserError as error:
            log.warning("%s PyTorch goes on.", error)
            return
        if _times_as_fast(other, self.generator, x) > FASTER:
            self._other, self.engine = other, "openvino"


def hold_to_engine(engine: str, device: torch.device) -> None:
    """Raise UserError where there is no such engine, it is not installed, or it does not work on the device."""
    if engine in ("auto", "torch"):
        return
    if engine not in OTHERS:
        raise UserError(f"engine={engine} must be one of auto, torch, {', '.join(OTHERS)}.")
    if missing := [package for package in OTHERS[engine].packages if find_spec(package) is None]:
        raise UserError(f"engine={engine} needs {' and '.join(missing)}: {installing('fast')}.")
    if device.type != "cpu":
        raise UserError(f"engine={engine} works on a CPU, and not on {device}: add device=cpu, or leave engine out.")


def _prepared(engine: str, generator: Upscaler) -> Run:
    """An engine that runs `generator`, once it agrees with PyTorch on three sizes."""
    name = type(generator).__name__
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings(action="ignore"):
        try:
            run = OTHERS[engine].prepare(generator)
            examples = [generator.example(*size) for size in SIZES]
            worst = max(float((run(x) - generator(x)).abs().max()) for x in examples)
        except UserError:
            raise
        except Exception as error:  # each engine raises kinds of its own for one fact: it cannot run this
            raise UserError(f"engine={engine} cannot run {name} ({first_line(error)}).") from error
    if not worst <= LEVEL:
        raise UserError(f"engine={engine} makes {name} differ from PyTorch by {worst:.1e}, more than {LEVEL:.1e}.")
    return run


def _openvino(generator: Upscaler) -> Run:
    # It reports its imports and conversions to its makers, and keeps a number for that in the home folder. Without this
    # package, which comes with it, it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: it cannot be imported
    import openvino

    traced = torch.jit.trace(generator, generator.example(*SIZES[0]), check_trace=False)  # type: ignore[no-untyped-call]
    model = openvino.convert_model(traced, input=[openvino.PartialShape([1, generator.channels, -1, -1])])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # on some processors it takes bfloat16 otherwise
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # two commands side by side would share a core, and leave another idle
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda x: torch.from_numpy(compiled(x.contiguous().numpy(), share_outputs=False)[0])


def _onnxruntime(generator: Upscaler) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        export_onnx(generator, {}, file)
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {generator.input_name: x.contiguous().numpy()})[0])


class _Engine(NamedTuple):
    packages: tuple[str, ...]
    prepare: Callable[[Upscaler], Run]


OTHERS = {
    "openvino": _Engine(("openvino",), _openvino),
    "onnxruntime": _Engine(("onnxruntime", "onnx", "onnxscript"), _onnxruntime),
}


def _times_as_fast(other: Run, own: Run, x: Tensor) -> float:
    """The time of `own` over that of `other`, each at its best; in turns, so that both find the machine as busy."""
    best = {other: math.inf, own: math.inf}
    for run in best:
        run(x)  # what is loaded or compiled once for a size is not the run's
    end = time.perf_counter() + ENOUGH
    while math.inf in best.values() or time.perf_counter() < end:
        for run in best:
            begun = time.perf_counter()
            run(x)
            best[run] = min(best[run], time.perf_counter() - begun)
    return best[own] / best[other]
