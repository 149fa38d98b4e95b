"""The jobs of a sweep on a SLURM cluster, through submitit: one SLURM job each, one task a rank.

The submitting process waits beside its table, and learns everything from the jobs' folders, which all machines share.
Of the two that could requeue a job, submitit and Lightning, it is submitit: it asks SLURM for SIGUSR2 before the time
is up, stops the training, and puts the job back into the queue. What SLURM requeues by itself (a preemption, a node
that failed) continues as well, from the checkpoint of every epoch's end. Needs the extra `slurm`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from upsweep.common.errors import UserError
from upsweep.common.parents import end_with_parent
from upsweep.common.ranks import clean_environment
from upsweep.runs.layout import JOB_LOG, RESULT, SUBMITTED
from upsweep.runs.progress import Progress
from upsweep.runs.record import found, write_json
from upsweep.runs.result import REQUEUE, Result
from upsweep.sweeps.jobs import Planned
from upsweep.sweeps.processes import popen
from upsweep.sweeps.running import Ended

LOOK_SECONDS = 0.1  # between two looks at a rank
ASK_SECONDS = 30.0  # between two queries of SLURM's accounting; a job that ends by itself is seen at once
SAVE_SECONDS = 60.0  # what a training that is stopped may take to close its log


@dataclass
class Rank:
    """What every task of a SLURM job does: be one rank of the training, by running the door.

    A door that fails raises, so that `srun --kill-on-bad-exit` ends the other ranks.
    """

    folder: Path
    command: Sequence[str]
    resuming: Sequence[str]
    requeued: bool = False
    process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the door to its end.

        Raises:
            SystemExit: the machine was taken away; SLURM decides whether the job comes back.
            RuntimeError: the door failed.
        """
        here = submitit.JobEnvironment()
        here.paths.result_pickle.unlink(missing_ok=True)  # of the run before a requeue
        if here.global_rank == 0:
            Progress().write(self.folder)  # to the submitting process: it has begun
        requeued = self.requeued or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        with (self.folder / JOB_LOG).open("ab") as log:
            command = self.resuming if requeued else self.command
            self.process = popen(command, log, clean_environment(), preexec_fn=_as_rank)
            while (code := self.process.poll()) is None:  # no wait(): `checkpoint` interrupts this, and waits too
                time.sleep(LOOK_SECONDS)
            if code == REQUEUE:
                raise SystemExit(code)
            if code < 0:
                log.write(f"rank {here.global_rank} was killed ({signal.Signals(-code).name})\n".encode())
        if code != 0:
            raise RuntimeError(f"the door's exit code is {code}")

    def checkpoint(self) -> DelayedSubmission:
        """Stop the training for submitit, which requeues what this returns."""
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(SAVE_SECONDS)
        return DelayedSubmission(replace(self, requeued=True, process=None))


def _as_rank() -> None:
    """Runs before the door. SLURM sends its signals to every process of a job, but SIGUSR2 is not for the door."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    end_with_parent()


class Slurm:
    """Submits every job: see `upsweep.sweeps.running.Machine`.

    SLURM itself keeps to `parallel` jobs of those that are submitted at once, as one array. A job that an earlier
    submitting process left in SLURM's queue is waited for, not submitted a second time. Signals cancel the jobs, which
    save and exit; after a second one nothing is waited for. If this process is killed, the jobs go on. An exit code is
    0 or 1.

    Args:
        folder: for what submitit writes.
        cluster: `slurm`, or `local` for submitit's stand-in on this machine.
        parallel: how many jobs run at a time.

    Raises:
        UserError: no SLURM here.
    """

    poll_seconds = 0.5
    decided: str | None = None

    def __init__(self, folder: Path, cluster: str, parallel: int) -> None:
        if cluster not in ("slurm", "local"):
            raise UserError(f"hydra.launcher.cluster={cluster} is unknown; choose one of slurm, local.")
        missing = [name for name in ("sbatch", "srun", "scancel") if shutil.which(name) is None]
        if cluster == "slurm" and missing:
            raise UserError(
                f"The command {missing[0]} is not there: start the sweep where SLURM's commands are (a login node), "
                "or try it on this machine with hydra.launcher.cluster=local."
            )
        if type(parallel) is not int or parallel < 1:
            raise UserError(f"hydra.launcher.parallel={parallel} must be a whole number above 0.")
        self.parallel, self._folder, self._queued = parallel, folder, cluster == "slurm"
        self._cluster, self._asked = cluster, time.monotonic()
        self._running: dict[Planned, submitit.Job[None]] = {}
        self._stopping = self._gave_up = False

    def room(self) -> int:
        """Any number for SLURM, whose queue they wait in."""
        return sys.maxsize if self._queued else self.parallel - len(self._running)

    def start(self, jobs: Sequence[Planned]) -> None:
        """Submit jobs; those that want the same, as one array.

        Raises:
            UserError: settings that do not fit the trainer, or SLURM refuses them.
        """
        wanted = {job: parameters(job.config.hydra.launcher, self._cluster, self.parallel) for job in jobs}
        left = {job: handle for job in jobs if self._queued and (handle := _in_queue(job, self._folder)) is not None}
        self._running |= left
        waiting = [job for job in jobs if job not in left]
        while waiting:
            self._running |= _submit(waiting, wanted, self._folder, self._cluster)
            waiting = [job for job in waiting if job not in self._running]

    def ended(self) -> Iterator[Ended]:
        patience = SAVE_SECONDS / 30 if self._stopping else ASK_SECONDS
        if self._queued and time.monotonic() > self._asked + patience:
            self._asked = time.monotonic()
            submitit.SlurmJob.watcher.update()
        for job in [job for job, handle in self._running.items() if self._gave_up or handle.done()]:
            handle = self._running.pop(job)
            yield Ended(job, 1 if self._gave_up else _exit_code(job, handle, self._stopping))
        for job in self._running:
            if job.status.started_at is None and Progress.read(job.folder) is not None:
                job.started()

    def stop(self, signum: signal.Signals, *, at_once: bool) -> None:  # noqa: ARG002 - scancel has its own
        self._stopping, self._gave_up = True, at_once
        self.close()

    def close(self) -> None:
        for handle in self._running.values():
            handle.cancel(check=False)


def parameters(wants: Mapping[str, Any], cluster: str, parallel: int) -> dict[str, Any]:
    """Parameters of submitit's executor for a job with these settings; see `hydra_plugins.upsweep` for its keys.

    Raises:
        UserError: a value is not a number, or there are several nodes without SLURM.
    """
    for name, source in (("nodes", "trainer.num_nodes"), ("tasks_per_node", "trainer.devices"), ("time", None)):
        if type(wants[name]) is not int or wants[name] < 1:
            why = f": it is {source}, which SLURM has to know beforehand." if source else " (minutes)."
            raise UserError(f"hydra.launcher.{name}={wants[name]} must be a whole number above 0{why}")
    gpus = wants["gpus_per_node"]
    if gpus is None:
        gpus = 0 if wants["accelerator"] == "cpu" else wants["tasks_per_node"]
    shared = {"gpus_per_node": gpus, "signal_delay_s": wants["grace"], "stderr_to_stdout": True}
    shared["setup"] = list(wants["setup"])
    if cluster == "local":  # where Lightning starts the other ranks, as ever on one machine
        if wants["nodes"] > 1:
            raise UserError("hydra.launcher.cluster=local runs on one node: set trainer.num_nodes=1.")
        return shared | {"timeout_min": wants["time"]}
    optional = ("cpus_per_task", "partition", "account", "qos", "mem", "constraint")
    return {
        **shared,
        **{name: wants[name] for name in optional if wants[name] is not None},
        "job_name": wants["name"],
        "time": wants["time"],
        "nodes": wants["nodes"],
        "ntasks_per_node": wants["tasks_per_node"],
        "array_parallelism": parallel,
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue": True, **wants["sbatch"]},
    }


def _submit(
    jobs: Sequence[Planned], wanted: Mapping[Planned, Mapping[str, Any]], folder: Path, cluster: str
) -> dict[Planned, submitit.Job[None]]:
    """Submit the first of the jobs and those that want the same, as one array."""
    alike = [job for job in jobs if wanted[job] == wanted[jobs[0]]]
    kind, place = (submitit.SlurmExecutor, folder / "%j") if cluster == "slurm" else (submitit.LocalExecutor, folder)
    executor = kind(place, max_num_timeout=jobs[0].config.hydra.launcher.requeues)
    executor.update_parameters(**wanted[jobs[0]])
    for job in alike:
        job.folder.mkdir(parents=True, exist_ok=True)
    try:
        handles = executor.submit_array([Rank(job.folder, job.command, job.resuming) for job in alike])
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"SLURM refuses the jobs: {str(error).strip()}") from error
    submitted = dict(zip(alike, handles, strict=True))
    for job, handle in submitted.items():
        write_json(job.folder / SUBMITTED, {"id": handle.job_id, "tasks": handle.num_tasks})
    return submitted


def _in_queue(job: Planned, folder: Path) -> submitit.Job[None] | None:
    """What an earlier process submitted of this job, if SLURM still has it."""
    try:
        said = json.loads((job.folder / SUBMITTED).read_text(encoding="utf-8"))
        id_, tasks = said["id"], range(said["tasks"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # there is none, or it cannot be read
        return None
    handle = submitit.SlurmJob[None](folder / "%j", id_, tasks)
    handle.watcher.update()
    return None if handle.done() or handle.watcher.get_state(id_, mode="cache") == "UNKNOWN" else handle


def _exit_code(job: Planned, handle: submitit.Job[None], stopping: bool) -> int:
    """0 if all tasks of a job ended well; else SLURM's state goes into the job's log."""
    tasks = [handle.task(i) for i in range(handle.num_tasks)]
    told = [task for task in tasks if task.paths.result_pickle.exists()]
    failed = any(task.exception() is not None for task in told)
    if not failed and len(told) == len(tasks):
        return 0
    left = found(Result.read, job.folder)
    if failed and not stopping and left is not None and left.state == "stopped":
        # Another rank failed, and so srun stopped the one that writes the result.
        (job.folder / RESULT).unlink()
    if not failed and isinstance(handle, submitit.SlurmJob):
        with (job.folder / JOB_LOG).open("a", encoding="utf-8") as log:
            log.write(f"SLURM's state of job {handle.job_id}: {handle.state}\n")
    return 1
