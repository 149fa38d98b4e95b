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
import time
from collections.abc import Callable, Mapping, Sequence
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
from upsweep.sweeps import pool
from upsweep.sweeps.jobs import STOPPED, Planned

POLL_SECONDS = 0.5
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
            self.process = pool.popen(command, log, clean_environment(), preexec_fn=_as_rank)
            while (code := self.process.poll()) is None:  # no wait(): `checkpoint` interrupts this, and waits too
                time.sleep(pool.POLL_SECONDS)
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


def run_on_slurm(
    jobs: Sequence[Planned], tick: Callable[[], None], parallel: int, *, folder: Path, cluster: str
) -> signal.Signals | None:
    """Submit the jobs, at most `parallel` to run at a time, and wait for all of them; else as `pool.run_processes`.

    A job that an earlier submitting process left in SLURM's queue is waited for, not submitted a second time.
    The first SIGINT, SIGTERM or SIGHUP cancels the jobs, which save and exit; after a second one nothing is waited
    for. If this process is killed, the jobs go on. The exit code is 0 or 1.

    Args:
        jobs: each with its own settings, `hydra.launcher` of its config.
        folder: for what submitit writes.
        cluster: `slurm`, or `local` for submitit's stand-in on this machine.

    Raises:
        UserError: no SLURM here, settings that do not fit the trainer, or SLURM refuses them.
    """
    _check(cluster)
    wanted = {job: parameters(job.config.hydra.launcher, cluster, parallel) for job in jobs}
    running = {job: handle for job in jobs if cluster == "slurm" and (handle := _in_queue(job, folder)) is not None}
    waiting = [job for job in jobs if job not in running]
    asked, told = time.monotonic(), 0
    with pool.caught_signals() as caught:
        try:
            while waiting or running:
                if len(caught) > told:
                    told = len(caught)
                    waiting.clear()
                    _cancel(running)
                    if told > 1:
                        break
                if cluster == "slurm" and time.monotonic() > asked + (SAVE_SECONDS / 30 if caught else ASK_SECONDS):
                    asked = time.monotonic()
                    submitit.SlurmJob.watcher.update()
                for job in [job for job, handle in running.items() if handle.done()]:
                    job.ended(_exit_code(job, running.pop(job), bool(caught)), STOPPED if caught else None)
                most = len(jobs) if cluster == "slurm" else parallel  # SLURM keeps to `parallel` by itself
                while waiting and len(running) < most:
                    running |= _submit(waiting[: most - len(running)], wanted, folder, cluster)
                    waiting = [job for job in waiting if job not in running]
                for job in running:
                    if job.status.started_at is None and Progress.read(job.folder) is not None:
                        job.started()
                tick()
                time.sleep(POLL_SECONDS)
        except BaseException:
            _cancel(running)
            raise
        for job in running:
            job.ended(1, STOPPED)
    return caught[0] if caught else None


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


def _check(cluster: str) -> None:
    if cluster not in ("slurm", "local"):
        raise UserError(f"hydra.launcher.cluster={cluster} is unknown; choose one of slurm, local.")
    missing = [name for name in ("sbatch", "srun", "scancel") if shutil.which(name) is None]
    if cluster == "slurm" and missing:
        raise UserError(
            f"The command {missing[0]} is not there: start the sweep where SLURM's commands are (a login node), "
            "or try it on this machine with hydra.launcher.cluster=local."
        )


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


def _cancel(running: Mapping[Planned, submitit.Job[None]]) -> None:
    for handle in running.values():
        handle.cancel(check=False)


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
