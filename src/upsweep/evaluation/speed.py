"""Time and memory of a generator on this machine, for an output of 1280x720."""

import logging
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch

from upsweep.common.errors import UserError, first_line
from upsweep.evaluation.methods import Method
from upsweep.networks.upscalers.upscaler import Upscaler

log = logging.getLogger("upsweep")

WIDTH, HEIGHT = 1280, 720
LEAST, MOST, ENOUGH = 3, 21, 3.0  # timed runs, at least and at most, and the seconds after which no more are begun
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Speed(NamedTuple):
    """Median milliseconds, after a warm-up, and the most memory (MB) that a run takes beside the weights."""

    milliseconds: float
    megabytes: float


def measure(method: Method, device: torch.device) -> Speed | None:
    """Measure the time and memory of a method in a fresh process: memory that is already taken would not show.

    None, after a warning, where that process died, memory is too small, or the generator refuses such a large image.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, method, device, torch.get_num_threads()).result()
        except BrokenProcessPool:
            log.warning("%s died while it was timed, most likely out of memory.", method.name)
            return None
        except (UserError, RuntimeError, MemoryError) as error:  # what was judged before is not lost for it
            log.warning("%s was not timed: %s.", method.name, first_line(error))
            return None


def _measure(method: Method, device: torch.device, threads: int) -> Speed:
    torch.set_num_threads(threads)
    return speed_of(method.generator(), device)


@torch.inference_mode()
def speed_of(generator: Upscaler, device: torch.device) -> Speed:
    """Measure the time and memory of a generator in this process.

    The input has 1280 / s x 720 / s pixels, rounded up, and lies on the device already.
    """
    generator = generator.to(device).eval()
    lr = torch.rand(1, generator.channels, ceil(HEIGHT / generator.scale), ceil(WIDTH / generator.scale), device=device)
    generator(lr[..., :32, :32])  # what is loaded or compiled once is not the run's
    before = _memory(device, reset=True)
    generator(lr)
    peak = _memory(device)
    seconds: list[float] = []
    while len(seconds) < LEAST or (len(seconds) < MOST and sum(seconds) < ENOUGH):
        start = time.perf_counter()
        generator(lr)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return Speed(1e3 * statistics.median(seconds), max(0, peak - before) / 1e6)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _memory(device: torch.device, reset: bool = False) -> int:
    """The peak of memory so far, in bytes; with `reset` it starts again from what is in use now."""
    _wait(device)
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        if reset:
            with suppress(OSError):  # not every container allows it: the mark then also holds what the imports took
                _CLEAR.write_text("5")
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
