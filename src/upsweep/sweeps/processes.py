"""Jobs as processes on this machine: each in a session of its own, with its share of the machine; none is left."""

import math
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from upsweep.common.errors import UserError
from upsweep.common.machine import free_memory, memory_of
from upsweep.common.parents import end_with_parent
from upsweep.common.ranks import PARENT, clean_environment
from upsweep.runs.layout import JOB_LOG, RESULT
from upsweep.runs.progress import Progress
from upsweep.runs.record import found
from upsweep.runs.result import Result
from upsweep.sweeps.forking import Forked, ForkServer
from upsweep.sweeps.jobs import Planned
from upsweep.sweeps.running import Ended
from upsweep.sweeps.shares import AUTO, GUESS, Shares

GRACE_SECONDS = 3.0
LAST_WORDS_SECONDS = 15.0  # for a job to save and exit after its timeout
LOOK_SECONDS = 2.0  # between two looks at the memory of the jobs


@dataclass(eq=False)
class _Running:
    job: Planned
    process: subprocess.Popen[bytes] | Forked  # leads a process group of its own, with the same id
    devices: tuple[str, ...]
    port: int
    started: float = field(default_factory=time.monotonic)
    late: bool = False
    memory: int = 0  # bytes, the last time we looked


class Processes:
    """Runs every job as a process: see `upsweep.sweeps.running.Machine`.

    Args:
        shares: how many at a time, on which devices, with how many threads.
        timeout: minutes after which a job is stopped, by SIGTERM and then by SIGKILL; None: no limit.
        server: forks processes in which torch is already imported; None: every process starts from nothing.

    Raises:
        UserError: the timeout is not above 0.
    """

    poll_seconds = 0.1

    def __init__(self, shares: Shares, timeout: float | None = None, server: ForkServer | None = None) -> None:
        if timeout is not None and not timeout > 0:
            raise UserError(f"hydra.launcher.timeout={timeout} must be above 0 (minutes), or null for no limit.")
        self.parallel = len(shares.devices)
        self._free, self._threads, self._server = list(shares.devices), shares.threads, server
        self._careful, self.decided = shares.parallel == AUTO, shares.sentence
        self._timeout, self._seconds = timeout, math.inf if timeout is None else 60 * timeout
        self._running: list[_Running] = []
        if server is not None:
            server.begin(environment((), shares.threads, 0))
        self._peak, self._looked, self._said, self._stopping = 0, -math.inf, False, False

    def room(self) -> int:
        """As many as there are free shares and, with parallel=auto, memory for what a job has taken so far."""
        if self._server is not None and not self._server.settled():
            return 0
        return min(len(self._free), self._fitting()) if self._careful and self._running else len(self._free)

    def start(self, jobs: Sequence[Planned]) -> None:
        for job in jobs:
            self._running.append(self._started(job, self._free.pop(0)))
            job.started()

    def ended(self) -> Iterator[Ended]:
        self._look()
        self._stop_late()
        for each in [each for each in self._running if each.process.poll() is not None]:
            code = each.process.poll()
            assert code is not None
            clear_group(each.process.pid, GRACE_SECONDS if code == 0 else 0)
            self._running.remove(each)
            if isinstance(each.process, Forked) and each.process.orphaned and not self._stopping:
                left = found(Result.read, each.job.folder)
                if left is None or not left.complete:
                    self._again(each)
                    continue
                code = 0
            self._free.append(each.devices)
            why = f"it took more than hydra.launcher.timeout={self._timeout} minutes" if each.late else None
            yield Ended(each.job, code, why)

    def stop(self, signum: signal.Signals, *, at_once: bool) -> None:
        self._stopping = True
        for each in self._running:
            signal_group(each.process.pid, signal.SIGKILL if at_once else signum)

    def close(self) -> None:
        for each in self._running:
            clear_group(each.process.pid, grace=0)

    def _started(self, job: Planned, devices: tuple[str, ...]) -> _Running:
        port = free_port({each.port for each in self._running})
        job.folder.mkdir(parents=True, exist_ok=True)
        env = environment(devices, self._threads, port)
        server = None if job.config.hydra.job.env_set else self._server  # torch reads some when it is imported
        if server is not None and (forked := server.fork(job.command, env, job.folder / JOB_LOG)) is not None:
            return _Running(job, forked, devices, port)
        with (job.folder / JOB_LOG).open("ab") as log:
            process = popen(job.command, log, env, start_new_session=True, preexec_fn=end_with_parent)
        return _Running(job, process, devices, port)

    def _again(self, each: _Running) -> None:
        """Run a job again, from its checkpoint: it ended since the server did, which the system may have killed."""
        print(f"job {each.job.name} starts again: the process that had forked it was killed.", flush=True)
        (each.job.folder / RESULT).unlink(missing_ok=True)
        each.job.command = each.job.resuming
        self._running.append(self._started(each.job, each.devices))

    def _stop_late(self) -> None:
        """SIGTERM for a job after its timeout; SIGKILL if that does not end it."""
        for each in self._running:
            over = time.monotonic() - each.started - self._seconds
            if over > 0 and not each.late:
                each.late = True
                signal_group(each.process.pid, signal.SIGTERM)
            elif over > LAST_WORDS_SECONDS:
                signal_group(each.process.pid, signal.SIGKILL)

    def _look(self) -> None:
        """Measure, now and then, what the jobs hold; one that has been through an epoch has shown its peak."""
        if not self._careful or time.monotonic() < self._looked + LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for each in self._running:
            each.memory = memory_of(each.process.pid)
            told = Progress.read(each.job.folder)
            if each.memory > self._peak and (each.memory > GUESS or (told is not None and told.epoch > 0)):
                self._peak = each.memory

    def _fitting(self) -> int:
        """For how many more jobs there is memory, once the running ones have grown as far as others have."""
        wanted = self._peak or int(GUESS)
        free = free_memory() - sum(max(0, wanted - each.memory) for each in self._running)
        many = max(0, int(free // wanted))
        if many < len(self._free) and not self._said:
            self._said = True
            held = f"A job takes up to {wanted / 1e9:.1f} GB"
            print(f"{held}: there is no memory for {self.parallel} at a time.", flush=True)
        return many


def popen(command: Sequence[str], log: IO[bytes], env: Mapping[str, str], **how: Any) -> subprocess.Popen[bytes]:
    """Start a process that reads nothing and writes into a log."""
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **how)


def environment(devices: tuple[str, ...], threads: int | None, port: int) -> dict[str, str]:
    """The environment of a job that this process starts."""
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


def free_port(in_use: Collection[int]) -> int:
    """A free TCP port below the ephemeral range, out of which no passing connection can take it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            if port not in in_use:
                return port


def signal_group(group: int, signum: int) -> bool:
    """Send a signal; False when there is no such process group any more."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):  # the latter: macOS, of a group of zombies
        return False
    return True


def clear_group(group: int, grace: float) -> None:
    """Wait `grace` seconds for the other ranks of an ended job to end too, then kill what is left."""
    end = time.monotonic() + grace
    while time.monotonic() < end and signal_group(group, 0):
        time.sleep(Processes.poll_seconds / 2)
    signal_group(group, signal.SIGKILL)
