"""A pool of processes: each job in a session of its own, with its share of the machine; none is left running."""

import math
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from upsweep.common.errors import UserError
from upsweep.common.parents import end_with_parent
from upsweep.common.ranks import PARENT, clean_environment
from upsweep.runs.layout import JOB_LOG
from upsweep.sweeps.jobs import STOPPED, Planned

POLL_SECONDS = 0.1
GRACE_SECONDS = 3.0
LAST_WORDS_SECONDS = 15.0  # for a job to save and exit after its timeout

Runner = Callable[[Sequence[Planned], Callable[[], None], int], signal.Signals | None]
"""What runs the jobs of a sweep: `run_processes` here, `upsweep.sweeps.slurm.run_on_slurm` on a cluster."""


@dataclass(frozen=True, eq=False)
class _Running:
    job: Planned
    process: subprocess.Popen[bytes]  # leads a process group of its own, with the same id
    devices: tuple[str, ...]
    port: int
    started: float = field(default_factory=time.monotonic)


def run_processes(
    jobs: Sequence[Planned],
    tick: Callable[[], None],
    parallel: int,
    *,
    devices_per_job: int | None,
    timeout: float | None = None,
) -> signal.Signals | None:
    """Run the jobs in order, up to `parallel` at a time; return the signal that stopped them, or None.

    The jobs are told when they start and end; `tick` is called several times a second. With `devices_per_job` every
    job sees that many CUDA devices, which no other running job sees. A job that takes more than `timeout` minutes is
    stopped, by SIGTERM and then by SIGKILL, and the others go on. The first SIGINT, SIGTERM or SIGHUP is passed on to
    the running jobs, which save and exit, and no further job starts; a second one kills them at once.
    Raises UserError if one job needs more devices than are visible, or the timeout is not above 0.
    """
    if timeout is not None and not timeout > 0:
        raise UserError(f"hydra.launcher.timeout={timeout} must be above 0 (minutes), or null for no limit.")
    free = _shares(parallel, devices_per_job)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // len(free) // (devices_per_job or 1)) if len(free) > 1 else None  # of a rank
    waiting, running, passed_on, late = list(jobs), list[_Running](), 0, set[_Running]()
    with caught_signals() as caught:
        try:
            while waiting or running:
                if len(caught) > passed_on:
                    for each in running:
                        _signal_group(each.process.pid, caught[0] if len(caught) == 1 else signal.SIGKILL)
                    passed_on = len(caught)
                    waiting.clear()
                _stop_late(running, late, math.inf if timeout is None else 60 * timeout)
                for each in [each for each in running if each.process.poll() is not None]:
                    _clear_group(each.process.pid, GRACE_SECONDS if each.process.returncode == 0 else 0)
                    running.remove(each)
                    free.append(each.devices)
                    stopped = STOPPED if caught else None
                    if each in late:
                        stopped = f"it took more than hydra.launcher.timeout={timeout} minutes"
                    each.job.ended(each.process.returncode, stopped)
                while waiting and free:
                    running.append(_start(waiting.pop(0), free.pop(0), threads, {each.port for each in running}))
                    running[-1].job.started()
                tick()
                time.sleep(POLL_SECONDS)
        finally:
            for each in running:
                _clear_group(each.process.pid, grace=0)
    return caught[0] if caught else None


def _stop_late(running: Sequence[_Running], late: set[_Running], seconds: float) -> None:
    """SIGTERM for a job after its timeout; SIGKILL if that does not end it."""
    for each in running:
        over = time.monotonic() - each.started - seconds
        if over > 0 and each not in late:
            late.add(each)
            _signal_group(each.process.pid, signal.SIGTERM)
        elif over > LAST_WORDS_SECONDS:
            _signal_group(each.process.pid, signal.SIGKILL)


def _start(job: Planned, devices: tuple[str, ...], threads: int | None, ports_in_use: Collection[int]) -> _Running:
    port = _free_port(ports_in_use)
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / JOB_LOG).open("ab") as log:
        env = _environment(devices, threads, port)
        process = popen(job.command, log, env, start_new_session=True, preexec_fn=end_with_parent)
    return _Running(job, process, devices, port)


def popen(command: Sequence[str], log: IO[bytes], env: Mapping[str, str], **how: Any) -> subprocess.Popen[bytes]:
    """Start a process that reads nothing and writes into a log."""
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **how)


def _environment(devices: tuple[str, ...], threads: int | None, port: int) -> dict[str, str]:
    # Within an allocation of SLURM these would have Lightning wait for tasks that nobody starts.
    slurm = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
    env = {name: value for name, value in clean_environment().items() if not name.startswith(slurm)}
    env |= {"MASTER_PORT": str(port), PARENT: str(os.getpid())}
    if devices:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if threads is not None:
        env.setdefault("OMP_NUM_THREADS", str(threads))
        env.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow their neighbours down several times
    return env


def _shares(parallel: int, devices_per_job: int | None) -> list[tuple[str, ...]]:
    """One entry for each job that may run at a time: the CUDA devices it gets, empty for no restriction."""
    if devices_per_job is not None and devices_per_job < 1:
        raise UserError(f"hydra.launcher.devices_per_job={devices_per_job} must be 1 or more, or null for all devices.")
    devices = visible_cuda_devices() if devices_per_job else []
    if not devices or devices_per_job is None:
        return [()] * parallel
    if devices_per_job > len(devices):
        raise UserError(
            f"hydra.launcher.devices_per_job={devices_per_job} is not possible: "
            f"{len(devices)} CUDA devices are visible ({', '.join(devices)})."
        )
    return list(zip(*[iter(devices)] * devices_per_job, strict=False))[:parallel]


def visible_cuda_devices() -> list[str]:
    """The CUDA devices a job may be given, as CUDA_VISIBLE_DEVICES names them; asks no torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in map(str.strip, visible.split(",")) if name not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return list(map(str, range(sum(line.startswith("GPU ") for line in listing.stdout.splitlines()))))


def _free_port(in_use: Collection[int]) -> int:
    """A free TCP port below the ephemeral range, out of which no passing connection can take it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            if port not in in_use:
                return port


def _signal_group(group: int, signum: int) -> bool:
    """Send a signal; False when there is no such process group any more."""
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
    main = threading.current_thread() is threading.main_thread()  # Python catches none elsewhere
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ()
    before = {signum: signal.getsignal(signum) for signum in signals}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(signum, lambda number, _frame: caught.append(signal.Signals(number)))
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
