"""A pool of processes: each job in a session of its own, with its share of the machine; none stays behind.

Knows neither Hydra nor torch: a job is a name, a folder and a command.
"""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from upsweep.errors import UserError

LOG = "job.log"
POLL_SECONDS = 0.1
GRACE_SECONDS = 3.0
# What an outer distributed run, or a Lightning run before in this process, leaves in the environment.
RANK_VARIABLES = frozenset(
    {
        *("RANK", "LOCAL_RANK", "NODE_RANK", "GLOBAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "STANDALONE_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"),
    }
)


@dataclass(frozen=True, eq=False)
class Job:
    """A command that writes into, and whose output is kept in, a folder of its own.

    `again` goes on where `command` was stopped; `wants` is what the launcher's config says of this very job.
    """

    name: str
    folder: Path
    command: Sequence[str]
    again: Sequence[str] = ()
    wants: Mapping[str, Any] = field(default_factory=dict)


class Runner(Protocol):
    """What runs the jobs of a sweep: `run` on this machine, `upsweep.sweeps.slurm.run` on a cluster."""

    def __call__(
        self,
        jobs: Sequence[Job],
        *,
        on_start: Callable[[Job], None],
        on_exit: Callable[[Job, int, bool], None],
        on_tick: Callable[[], None],
    ) -> signal.Signals | None:
        """Run the jobs in order; return the signal that stopped them, or None."""


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]  # leads a process group of its own, with the same id
    devices: tuple[str, ...]
    port: int


def run(
    jobs: Sequence[Job],
    *,
    parallel: int,
    devices_per_job: int | None,
    on_start: Callable[[Job], None],
    on_exit: Callable[[Job, int, bool], None],
    on_tick: Callable[[], None],
) -> signal.Signals | None:
    """Run the jobs in order, up to `parallel` at a time; return the signal that stopped them, or None.

    With `devices_per_job` every job sees that many CUDA devices, which no other running job sees.
    `on_exit` gets the exit code (negative: the signal that killed it) and whether the jobs are being stopped,
    when no process of the job is left; `on_tick` is called about ten times a second.
    The first SIGINT, SIGTERM or SIGHUP is passed on to the running jobs, which save and exit, and no further
    job starts; a second one kills them at once.
    Raises UserError if `parallel` is below 1 or one job needs more devices than are visible.
    """
    free = _shares(parallel, devices_per_job)
    threads = _threads(len(free), devices_per_job) if len(free) > 1 else None
    waiting, running = list(jobs), list[_Running]()
    with caught_signals() as caught:
        passed_on = 0
        try:
            while waiting or running:
                if len(caught) > passed_on:
                    for each in running:
                        _signal_group(each.process.pid, caught[0] if len(caught) == 1 else signal.SIGKILL)
                    passed_on = len(caught)
                    waiting.clear()
                for each in [each for each in running if each.process.poll() is not None]:
                    _clear_group(each.process.pid, GRACE_SECONDS if each.process.returncode == 0 else 0)
                    running.remove(each)
                    free.append(each.devices)
                    on_exit(each.job, each.process.returncode, bool(caught))
                while waiting and free:
                    job, devices = waiting.pop(0), free.pop(0)
                    running.append(_start(job, devices, threads, {each.port for each in running}))
                    on_start(job)
                on_tick()
                time.sleep(POLL_SECONDS)
        finally:
            for each in running:
                _clear_group(each.process.pid, grace=0)
    return caught[0] if caught else None


def _start(job: Job, devices: tuple[str, ...], threads: int | None, ports_in_use: Collection[int]) -> _Running:
    port = _free_port(ports_in_use)
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            job.command,
            env=_environment(devices, threads, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    return _Running(job, process, devices, port)


def end_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent dies, however that dies; runs before a job's first line.

    The job then saves and exits as if the machine were taken away. Elsewhere nothing is asked, and nothing happens.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def clean_environment() -> dict[str, str]:
    """This process's environment without any trace of a rank."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in RANK_VARIABLES and not name.startswith("TORCHELASTIC_")
    }
    # Unbuffered: the last lines of a job that is killed are in its log.
    return env | {"PYTHONUNBUFFERED": "1"}


def _environment(devices: tuple[str, ...], threads: int | None, port: int) -> dict[str, str]:
    """The clean environment, plus what the job was given."""
    # Within an allocation of SLURM these would have Lightning wait for tasks that nobody starts.
    slurm = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
    clean = {name: value for name, value in clean_environment().items() if not name.startswith(slurm)}
    env = clean | {"MASTER_PORT": str(port)}
    if devices:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if threads is not None:
        # OpenMP threads that spin while they wait slow their neighbours down several times.
        env = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"} | env
    return env


def _shares(parallel: int, devices_per_job: int | None) -> list[tuple[str, ...]]:
    """One entry for each job that may run at a time: the CUDA devices it gets, empty for no restriction."""
    if parallel < 1:
        raise UserError(f"hydra.launcher.parallel={parallel} would never start a job: give 1 or more.")
    if devices_per_job is not None and devices_per_job < 1:
        raise UserError(f"hydra.launcher.devices_per_job={devices_per_job} must be 1 or more, or null for no share.")
    devices = [] if devices_per_job is None else visible_cuda_devices()
    if not devices or devices_per_job is None:
        return [()] * parallel
    if not 1 <= devices_per_job <= len(devices):
        raise UserError(
            f"hydra.launcher.devices_per_job={devices_per_job} is not possible here: "
            f"{len(devices)} CUDA devices are visible ({', '.join(devices)})."
        )
    starts = range(0, len(devices) - devices_per_job + 1, devices_per_job)
    return [tuple(devices[start : start + devices_per_job]) for start in starts][:parallel]


def visible_cuda_devices() -> list[str]:
    """The CUDA devices a job may be given, as CUDA_VISIBLE_DEVICES names them; asks no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name and name != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return [str(i) for i, _ in enumerate(line for line in listing.stdout.splitlines() if line.startswith("GPU "))]


def _threads(jobs: int, devices_per_job: int | None) -> int:
    """The threads of one rank when `jobs` jobs of `devices_per_job` ranks share the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs // (devices_per_job or 1))


def _free_port(in_use: Collection[int]) -> int:
    """A free TCP port below the ephemeral range, out of which no passing connection can take it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            if port not in in_use:
                return port


def _signal_group(group: int, signum: int) -> bool:
    """Send a signal to a process group; False when there is none any more."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):  # the latter: macOS, of a group of zombies
        return False
    return True


def _clear_group(group: int, grace: float) -> None:
    """Wait `grace` seconds for the other ranks of an ended job to end too, then kill what is left."""
    end = time.monotonic() + grace
    while time.monotonic() < end and _signal_group(group, 0):
        time.sleep(POLL_SECONDS / 2)
    _signal_group(group, signal.SIGKILL)


@contextmanager
def caught_signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of acting on them."""
    caught: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():  # where Python cannot catch any
        yield caught
        return
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(signum, lambda number, _frame: caught.append(signal.Signals(number)))
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
