"""How a machine is shared out among jobs: how many run at a time, on which devices, with how many threads."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from omegaconf import DictConfig, OmegaConf

from upsweep.common.errors import UserError
from upsweep.common.machine import cores, free_memory

AUTO = "auto"
CUDA = (AUTO, "gpu", "cuda")  # accelerators of Lightning that may be CUDA devices
GUESS = 2e9  # bytes that a job may take, until the first tells; those of the main job take a third of it


@dataclass(frozen=True)
class Shares:
    """The devices of each job that may run at a time, none for no restriction; and the threads of a rank.

    `threads` is None where a job has the machine to itself. `why` is what there is to share; None: nothing to tell.
    """

    devices: tuple[tuple[str, ...], ...]
    threads: int | None
    why: str | None = None
    parallel: int | str = AUTO  # as it was asked for

    @property
    def sentence(self) -> str | None:
        """What was decided."""
        many, each = len(self.devices), self.threads
        said = f"{many} {'job' if many == 1 else 'jobs'} at a time"
        said += f", with {each} {'thread' if each == 1 else 'threads'} each" if each else ""
        return self.why and f"{said}: {self.why} (hydra.launcher.parallel={self.parallel})."


def shares(configs: Sequence[DictConfig], most: int, parallel: int | str, devices_per_job: int | None) -> Shares:
    """Share this machine out.

    With `parallel=auto`, GPUs decide where the jobs can use them: each job gets `devices_per_job`, or as many as
    `trainer.devices` asks for. Else cores decide, one for each thread that the user asks for (OMP_NUM_THREADS, else
    one) of each rank. Memory sets a limit where a job may not find `GUESS`; `Processes` corrects it by what jobs take.
    A number of jobs gets the GPUs in the same groups, and where there are more jobs, they go round them again.

    Args:
        configs: of jobs that will run; those that ask for most decide.
        most: how many jobs there are at most.
        parallel: how many jobs run at a time, or `auto`.
        devices_per_job: CUDA devices that a job sees, and no other running job, so that fewer may run than `parallel`;
            None for what the trainers ask for.

    Raises:
        UserError: a number is below 1 (OMP_NUM_THREADS, too), or a job needs more devices than are visible.
    """
    if parallel != AUTO and (type(parallel) is not int or parallel < 1):
        raise UserError(f"hydra.launcher.parallel={parallel} must be auto, or a whole number above 0.")
    if devices_per_job is not None and devices_per_job < 1:
        raise UserError(
            f"hydra.launcher.devices_per_job={devices_per_job} must be 1 or more, or null for trainer.devices."
        )
    ranks = max([1, *(ranks_of(config) or 1 for config in configs)])
    everything = any(map(spans_all, configs)) and not devices_per_job
    if everything and parallel == AUTO:
        return Shares(((),), None, "each takes all devices")
    used = any(_accelerator(config) in CUDA for config in configs) or (devices_per_job and parallel != AUTO)
    devices = visible_cuda_devices() if used and not everything else []
    size = devices_per_job or ranks
    groups = _groups(devices, size) if devices_per_job or size <= len(devices) else []
    if type(parallel) is int:
        many = min(parallel, most, *([len(groups)] if devices_per_job and groups else []))
    elif groups:
        many = min(most, len(groups))
    else:
        return _by_cores(most, ranks)
    why = f"each has {size} of {len(devices)} CUDA devices" if groups else None
    if why and many > len(groups):
        why += f", which up to {math.ceil(many / len(groups))} jobs share"
    return Shares(tuple(islice(cycle(groups or [()]), many)), _threads(many, ranks), why, parallel)


def _by_cores(most: int, ranks: int) -> Shares:
    """As many jobs as there are cores, one for each thread of each rank."""
    here, memory = cores(), free_memory()
    threads = _asked_threads() or 1
    many = max(1, min(most, here // (threads * ranks), int(memory // (GUESS * ranks))))
    why = f"{here} {'core' if here == 1 else 'cores'}, {memory / 1e9:.0f} GB of free memory"
    return Shares(((),) * many, _threads(many, ranks), why)


def _groups(devices: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Devices in groups, none where there is no device. Raises UserError: there are too few."""
    if devices and size > len(devices):
        raise UserError(
            f"hydra.launcher.devices_per_job={size} is not possible: "
            f"{len(devices)} CUDA devices are visible ({', '.join(devices)})."
        )
    return list(zip(*[iter(devices)] * size, strict=False))


def ranks_of(config: DictConfig) -> int | None:
    """The processes of a job, one for each of its devices; None where only the trainer will know."""
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    return devices if type(devices) is int and devices > 0 else None


def spans_all(config: DictConfig) -> bool:
    """Whether a job takes all devices of its machine (of a Mac or a TPU, too), or several machines."""
    several = OmegaConf.select(config, "trainer.num_nodes", default=1) != 1
    others = _accelerator(config) not in ("cpu", *CUDA) or (_accelerator(config) != "cpu" and sys.platform == "darwin")
    return ranks_of(config) is None or several or others


def _accelerator(config: DictConfig) -> str:
    return str(OmegaConf.select(config, "trainer.accelerator", default="cpu"))


def _threads(jobs: int, ranks: int) -> int | None:
    """The threads of a rank: two busy runtimes on two cores are 7 times slower than one."""
    return _asked_threads() or max(1, cores() // jobs // ranks) if jobs > 1 else None


def _asked_threads() -> int | None:
    """The threads that the user asks for; None for no wish. Raises UserError: OpenMP would not understand it."""
    if not (said := os.environ.get("OMP_NUM_THREADS", "").strip()):
        return None
    outermost = said.split(",")[0].strip()  # "4,2": regions within regions have 2
    if not outermost.isdecimal() or int(outermost) < 1:
        raise UserError(f"OMP_NUM_THREADS={said} is no number of threads: give a number above 0, or unset it.")
    return int(outermost)


def visible_cuda_devices() -> list[str]:
    """The CUDA devices a job may be given, as CUDA_VISIBLE_DEVICES names them; asks no torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in map(str.strip, visible.split(",")) if name not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return list(map(str, range(sum(line.startswith("GPU ") for line in listing.stdout.splitlines()))))
