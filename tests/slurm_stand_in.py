"""SLURM's commands, as far as a sweep uses them, with real processes on this machine.

`install(folder)` makes a folder of commands for PATH. What they know lies in that folder: a JSON file a job, and the
options of every sbatch. Signals go to every process of a job's tasks, children too, as SLURM's cgroups do.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import psutil

COMMANDS = ("sbatch", "srun", "scancel", "scontrol", "sacct")
KILL_WAIT = 10.0


def install(folder: Path) -> dict[str, str]:
    """Make the commands; gives what the environment of who calls them needs."""
    folder.mkdir()
    for name in COMMANDS:
        path = folder / name
        line = shlex.join([sys.executable, str(Path(__file__).resolve()), str(folder), name])
        path.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def options(script: str) -> dict[str, str]:
    """The #SBATCH lines of a script."""
    flags = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE)
    return {name: "".join(shlex.split(value)) for name, value in flags}


def environment(said: Mapping[str, str], job: str, restarts: int = 0) -> dict[str, str]:
    """What SLURM sets in a job (`7`, or `7_0` of an array) that was submitted with these options."""
    nodes, tasks = int(said.get("nodes", 1)), int(said["ntasks-per-node"])
    first, _, index = job.partition("_")
    array = {"SLURM_ARRAY_JOB_ID": first, "SLURM_ARRAY_TASK_ID": index} if index else {}
    return {
        **array,
        "SLURM_JOB_ID": str(int(first) + 1 + int(index)) if index else first,
        "SLURM_JOB_NAME": said["job-name"],
        "SLURM_NTASKS": str(nodes * tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NODELIST": "localhost",
        "SLURM_JOB_NODELIST": "localhost",
        **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
    }


class Stand:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # what is known of a job

    def read(self, job: str) -> dict[str, object]:
        said: dict[str, object] = json.loads((self.folder / f"{job}.json").read_text())
        return said

    def write(self, job: str, **news: object) -> None:
        path = self.folder / f"{job}.json"
        before = self.read(job) if path.exists() else {}
        beside = path.with_name(f".{job}.{os.getpid()}.{threading.get_ident()}")
        beside.write_text(json.dumps(before | news))
        beside.replace(path)

    def jobs(self, asked: str) -> list[str]:
        names = [path.stem for path in self.folder.glob("*.json")]
        return sorted(name for name in names if asked in (name, name.partition("_")[0]))

    def tell(self, job: str, signum: int) -> None:
        """A signal to the tasks of a job and all their children, not to its batch shell and srun."""
        with contextlib.suppress(psutil.NoSuchProcess, KeyError):
            shell = psutil.Process(int(str(self.read(job)["shell"])))
            for srun in shell.children():
                for process in srun.children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signum)

    # the commands

    def sbatch(self, script: str) -> None:
        said = options(Path(script).read_text())
        job = str(1000 * (1 + len(list(self.folder.glob("*.sh")))))
        (self.folder / f"{job}.sh").write_text(Path(script).read_text())
        last, _, limit = said["array"].removeprefix("0-").partition("%") if "array" in said else ("", "", "1")
        names = [f"{job}_{i}" for i in range(int(last) + 1)] if last else [job]
        for name in names:
            self.write(name, state="PENDING", restarts=0)
        subprocess.Popen(
            [sys.executable, __file__, str(self.folder), "run", job, limit, *names],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        print(f"Submitted batch job {job}")

    def run(self, job: str, limit: str, *names: str) -> None:
        """The controller of a submission: `limit` of its jobs at a time."""
        room = threading.Semaphore(int(limit))

        def one(name: str) -> None:
            with room:
                while self.once(job, name) == "PENDING":
                    time.sleep(0.2)

        threads = [threading.Thread(target=one, args=(name,)) for name in names]
        for thread in threads:
            thread.start()

    def once(self, job: str, name: str) -> str:
        if self.read(name)["state"] == "CANCELLED":
            return "CANCELLED"
        restarts = int(str(self.read(name)["restarts"]))
        script = self.folder / f"{job}.sh"
        env = {**os.environ, **environment(options(script.read_text()), name, restarts)}
        shell = subprocess.Popen(["bash", str(script)], env=env, start_new_session=True, stdin=subprocess.DEVNULL)
        self.write(name, state="RUNNING", shell=shell.pid)
        ended = None
        while shell.poll() is None:
            time.sleep(0.1)
            if ended is None and self.read(name)["state"] in ("CANCELLED", "REQUEUED"):
                time.sleep(0.5)  # scontrol, in the job itself, comes to its end
                self.tell(name, signal.SIGTERM)
                ended = time.monotonic()
            if ended is not None and time.monotonic() > ended + KILL_WAIT:
                self.tell(name, signal.SIGKILL)
        state = str(self.read(name)["state"])
        if state == "REQUEUED":
            self.write(name, state="PENDING", restarts=restarts + 1)
            return "PENDING"
        if state != "CANCELLED":
            state = "FAILED" if shell.returncode else "COMPLETED"
            self.write(name, state=state)
        return state

    def srun(self, *arguments: str) -> None:
        flags = arguments[: arguments.index(sys.executable)]
        command = arguments[len(flags) :]
        output = flags[flags.index("--output") + 1]
        job = "_".join(os.environ[name] for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID") if name in os.environ)
        job = job or os.environ["SLURM_JOB_ID"]
        ranks = int(os.environ["SLURM_NTASKS"])
        here = int(os.environ["SLURM_NTASKS_PER_NODE"])
        output = output.replace("%A_%a", job).replace("%j", job)
        Path(output).parent.mkdir(parents=True, exist_ok=True)  # a real job does not start before sbatch returns
        tasks = []
        for rank in range(ranks):
            where = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % here, "SLURM_NODEID": rank // here}
            with Path(output.replace("%t", str(rank))).open("a") as log:
                env = {**os.environ, **{name: str(value) for name, value in where.items()}}
                tasks.append(subprocess.Popen([a.replace("%j", job) for a in command], env=env, stdout=log, stderr=log))
        bad = 0
        while any(task.poll() is None for task in tasks):
            time.sleep(0.05)
            codes = [task.poll() for task in tasks]
            if not bad and any(codes) and "--kill-on-bad-exit=1" in flags:
                bad = 1
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGTERM)
        sys.exit(max(abs(task.wait()) for task in tasks))

    def scancel(self, *arguments: str) -> None:
        name = arguments[arguments.index("--signal") + 1] if "--signal" in arguments else None
        for job in self.jobs(arguments[0]):
            if name is not None:
                self.tell(job, signal.Signals[f"SIG{name.removeprefix('SIG')}"])
            elif self.read(job)["state"] in ("PENDING", "RUNNING"):
                self.write(job, state="CANCELLED")

    def scontrol(self, verb: str, job: str) -> None:
        assert verb == "requeue"
        self.write(job, state="REQUEUED")

    def sacct(self, *arguments: str) -> None:
        print("JobID|State|NodeList")
        for flag, asked in pairwise(arguments):
            if flag == "-j":
                for job in self.jobs(asked):
                    print(f"{job}|{self.read(job)['state']}|localhost")


if __name__ == "__main__":
    folder, verb, *rest = sys.argv[1:]
    getattr(Stand(Path(folder)), verb)(*rest)
