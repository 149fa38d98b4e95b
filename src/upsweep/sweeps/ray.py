"""The jobs of a sweep on a Ray cluster: an actor on a node for each job, or one on each of its nodes.

The launcher asks every job twice a second what is new. Where a node does not see the launcher's folders, that is also
how a job's folder comes back; the code goes there as Ray's working_dir. A job whose node dies begins again on another
one, from the newest checkpoint that has come back. Needs the extra `ray`.
"""

import json
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send figures about the cluster
import ray
from omegaconf import DictConfig, OmegaConf
from ray._private import worker
from ray.exceptions import ActorUnavailableError, ObjectLostError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from upsweep.common.disks import full_disk
from upsweep.common.errors import UserError, first_line
from upsweep.common.files import write_whole
from upsweep.common.machine import cores
from upsweep.runs.about import About
from upsweep.runs.layout import ABOUT, JOB_LOG, LAST, PROGRESS, RESULT
from upsweep.sweeps.jobs import Planned
from upsweep.sweeps.node import News, Node, Site, changed
from upsweep.sweeps.running import Ended
from upsweep.sweeps.shares import AUTO
from upsweep.sweeps.travelling import EXCLUDED, environment, pack, translated

LOOK_SECONDS = 2.0  # between two looks at what the cluster has
WAIT_SECONDS = 20.0  # until the user is told that nothing runs
PATIENCE_SECONDS = 10.0  # for killed jobs to be gone
STORE = 100 << 20  # bytes of shared memory for a Ray of our own, which moves no files
MARKER = ".ray"  # in the sweep's folder: a node that sees it shares the folder


@dataclass(frozen=True)
class Needs:
    """What a job takes of each of its nodes: whole CPUs, GPUs, and other resources of Ray by name."""

    nodes: int
    devices: int
    cpus: int
    gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def of_a_node(self) -> dict[str, float]:
        """As Ray names it, without what is not needed."""
        return {name: many for name, many in {"CPU": self.cpus, "GPU": self.gpus, **self.resources}.items() if many}

    def __str__(self) -> str:
        said = [
            f"{many:g} {name}{'s' * (many != 1 and name in ('CPU', 'GPU'))}" for name, many in self.of_a_node.items()
        ]
        return " and ".join(said) + (f" on each of {self.nodes} nodes" if self.nodes > 1 else "")


def needs(wants: Mapping[str, Any], gpus_there: bool) -> Needs:
    """What a job with these settings takes; see `hydra_plugins.upsweep` for the keys.

    With `accelerator=auto` it uses GPUs where the cluster has any. `devices=auto` is one device.

    Raises:
        UserError: a value is not a number above 0.
    """
    devices = wants["devices"]
    devices = len(devices) if isinstance(devices, list) else 1 if devices in (AUTO, -1, "-1") else devices
    devices = int(devices) if isinstance(devices, str) and devices.isdecimal() else devices
    for name, value in (("nodes", wants["nodes"]), ("devices", devices), ("cpus", wants["cpus"])):
        if type(value) is not int or value < 1:
            raise UserError(f"hydra.launcher.{name}={value} must be a whole number above 0.")
    uses = wants["accelerator"] in ("gpu", "cuda") or (wants["accelerator"] == AUTO and gpus_there)
    each = wants["gpus"] if wants["gpus"] is not None else 1 if uses else 0
    if each < 0 or (each * devices > 1 and each * devices % 1):
        raise UserError(f"hydra.launcher.gpus={each} must be a whole number or, for jobs that share a GPU, below 1.")
    return Needs(wants["nodes"], devices, wants["cpus"] * devices, each * devices, dict(wants["resources"]))


def fitting(job: Needs, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many such jobs these nodes take at a time, of which each has so much of everything."""
    fit = [min(int(node.get(name, 0) // many) for name, many in job.of_a_node.items()) for node in nodes]
    jobs = sum(fit) // job.nodes
    while jobs and sum(min(jobs, many) for many in fit) < jobs * job.nodes:  # each job takes different nodes
        jobs -= 1
    return jobs


@dataclass(eq=False)
class _Running:
    job: Planned
    seats: Sequence[Any]  # an actor on each node
    group: PlacementGroup | None
    asked: list[Any]  # what they have been asked last
    sites: Sequence[Site] = ()
    losses: int = 0  # of nodes, before
    failed_at: float | None = None  # the first of its processes

    @property
    def begun(self) -> bool:
        return bool(self.sites)


class Ray:
    """Runs every job on a Ray cluster: see `upsweep.sweeps.running.Machine`.

    Args:
        configs: of jobs that will run; those that ask for most decide with `parallel=auto`.
        most: how many jobs there are at most.
        folder: the sweep's.
        command: of any job: says which code travels.
        settings: of `hydra_plugins.upsweep.RayLauncherConf`.

    Raises:
        UserError: there is no such cluster, or none of its nodes has what a job takes.
    """

    poll_seconds = 0.5

    def __init__(
        self,
        configs: Sequence[DictConfig],
        most: int,
        folder: Path,
        command: Sequence[str],
        settings: Mapping[str, Any],
    ) -> None:
        plain: Any = OmegaConf.to_container(OmegaConf.create(dict(settings)))
        self._settings: dict[str, Any] = plain
        self._most = most
        if (said := settings["parallel"]) != AUTO and (type(said) is not int or said < 1):
            raise UserError(f"hydra.launcher.parallel={said} must be auto, or a whole number above 0.")
        self._running: list[_Running] = []
        self._clearing = list[Any]()
        self._about, self._idle_since, self._said = About.now(), time.monotonic(), False
        self._killed_at: float | None = None
        self._stopping = False
        _connect(self._settings, command)
        try:
            self._nodes, self._looked = list[dict[str, float]](), 0.0
            self._look()
            wanted = [self._needs(config) for config in configs]
            self._largest = max(wanted, key=lambda job: (job.nodes, job.gpus, job.cpus))
            self._check(wanted)
            self._marker = write_whole(folder / MARKER, "A node that sees this file shares this folder.\n")
        except BaseException:
            ray.shutdown()
            raise

    @property
    def parallel(self) -> int:
        """How many jobs run at a time: with `parallel=auto`, as the cluster grows and shrinks."""
        if self._settings["parallel"] != AUTO:
            return int(self._settings["parallel"])
        return max(1, min(self._most, fitting(self._largest, self._nodes)))

    @property
    def decided(self) -> str | None:
        many = {name: sum(node.get(name, 0) for node in self._nodes) for name in ("CPU", "GPU")}
        has = f"{len(self._nodes)} {'node' if len(self._nodes) == 1 else 'nodes'}"
        has += "".join(f", {count:g} {name}{'s' * (count != 1)}" for name, count in many.items() if count)
        at_a_time = f"{self.parallel} {'job' if self.parallel == 1 else 'jobs'} at a time"
        return f"{at_a_time}: the Ray cluster has {has}, a job takes {self._largest}."

    def room(self) -> int:
        """As many as the cluster has room for; with a number, so many wait in Ray's own queue."""
        self._look()
        return max(0, self.parallel - len(self._running))

    def start(self, jobs: Sequence[Planned]) -> None:
        for job in jobs:
            self._running.append(self._asked_for(job))

    def ended(self) -> Iterator[Ended]:
        self._say_if_waiting()
        for each in list(self._running):
            try:
                ended = self._advanced(each)
            except (ActorUnavailableError, ObjectLostError):  # for a moment; where it is for good, we are told next
                self._ask(each, anew=True)
                continue
            except RayActorError as error:
                ended = self._lost(each, first_line(error))
            except (RayError, UserError) as error:
                ended = self._failed(each, first_line(error))
            except OSError as error:  # the other jobs need not end for that
                print(f"{full_disk(error, each.job.folder) or error}.", file=sys.stderr, flush=True)
                ended = Ended(each.job, 1)
            if ended is not None:
                self._leave(each)
                yield ended

    def stop(self, signum: signal.Signals, *, at_once: bool) -> None:
        self._stopping = True
        self._killed_at = time.monotonic() if at_once else None
        for each in self._running:
            for seat in each.seats:
                seat.signal.remote(int(signal.SIGKILL if at_once else signum))

    def close(self) -> None:
        for each in list(self._running):
            self._leave(each)
        if self._clearing:
            ray.wait(self._clearing, num_returns=len(self._clearing), timeout=PATIENCE_SECONDS)
        self._marker.unlink(missing_ok=True)
        ray.shutdown()

    def _needs(self, config: DictConfig) -> Needs:
        wants: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        return needs(wants, any(node.get("GPU") for node in self._nodes))

    def _look(self) -> None:
        """See, now and then, which nodes there are."""
        if time.monotonic() > self._looked + LOOK_SECONDS or not self._nodes:
            self._looked = time.monotonic()
            self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def _check(self, wanted: Sequence[Needs]) -> None:
        for job in wanted:
            if not fitting(job, self._nodes) and self._settings["parallel"] == AUTO:
                raise UserError(
                    f"No job can start: each takes {job}, and the Ray cluster does not have that "
                    f"({'; '.join(map(_said, self._nodes))}). Change trainer.devices, hydra.launcher.cpus or "
                    "hydra.launcher.gpus; for a cluster that grows by itself give hydra.launcher.parallel=NUMBER."
                )

    def _say_if_waiting(self) -> None:
        """Say once if no job runs for long, though there are some."""
        if not self._running or any(each.begun for each in self._running):
            self._idle_since, self._said = time.monotonic(), False
        elif not self._said and time.monotonic() > self._idle_since + WAIT_SECONDS:
            self._said = True
            waits = f"No job can start yet: each takes {self._largest}, and waits for a node with that."
            print(waits, file=sys.stderr, flush=True)

    def _asked_for(self, job: Planned, losses: int = 0) -> _Running:
        """Ask Ray for the nodes of a job, which it gives as soon as there are some."""
        job.folder.mkdir(parents=True, exist_ok=True)
        takes = self._needs(job.config)
        group = placement_group([takes.of_a_node] * takes.nodes, "STRICT_SPREAD") if takes.nodes > 1 else None
        options: dict[str, Any] = {"num_cpus": takes.cpus, "num_gpus": takes.gpus, "resources": dict(takes.resources)}
        needed = [Path.cwd(), *([Path(job.command[1])] if job.command[1] != "-m" else [])]
        seats = []
        for number in range(takes.nodes):
            if group is not None:
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, number)
            actor = ray.remote(Node).options(**options)
            seats.append(actor.remote(self._marker, needed, self._settings["shared"]))
        return _Running(job, seats, group, [seat.site.remote() for seat in seats], losses=losses)

    def _advanced(self, each: _Running) -> Ended | None:
        """Take what the job's nodes have answered, and ask on; what there is to say once it has ended."""
        if self._stopping and not each.begun:
            return Ended(each.job, 1)
        if self._killed_at is not None and time.monotonic() > self._killed_at + PATIENCE_SECONDS:
            return Ended(each.job, -signal.SIGKILL)
        asked = list(each.asked)
        if len(ray.wait(asked, num_returns=len(asked), timeout=0, fetch_local=False)[0]) < len(asked):
            return None
        told = ray.get(asked)
        if not each.begun:
            self._begin(each, told)
            return None
        if told[0] is not None and (ended := self._take(each, told)) is not None:
            return ended
        self._ask(each)
        return None

    def _ask(self, each: _Running, *, anew: bool = False) -> None:
        """Ask a job's nodes what is new; `anew`: what they told before may be lost."""
        every = self._settings["every"]
        each.asked = [seat.look.remote(every, anew) if each.begun else seat.site.remote() for seat in each.seats]

    def _begin(self, each: _Running, sites: Sequence[Site]) -> None:
        """Start the job's processes on its nodes."""
        each.sites, each.asked, takes = sites, [], self._needs(each.job.config)
        for number, (seat, site) in enumerate(zip(each.seats, sites, strict=True)):
            command = each.job.resuming if each.losses else each.job.command
            command, carried = translated(command, site)
            files = {there: path.read_bytes() for there, path in carried.items()}
            if site.home:
                for name, *_ in changed(each.job.folder, {}):
                    files[f"{site.scratch}{each.job.folder / name}"] = (each.job.folder / name).read_bytes()
            env = environment(site) | {"OMP_NUM_THREADS": str(takes.cpus // takes.devices)}
            env |= {"OMP_WAIT_POLICY": "PASSIVE", "MASTER_PORT": str(sites[0].port)}
            if len(sites) > 1:
                env |= {"MASTER_ADDR": sites[0].address, "NODE_RANK": str(number)}
            env |= _variables(self._settings)
            folder = f"{site.scratch}{each.job.folder}"
            each.asked.append(seat.begin.remote(command, env, f"{site.home}{Path.cwd()}", folder, files))
        each.job.started()

    def _take(self, each: _Running, told: Sequence[News]) -> Ended | None:
        """Write down what has come back; the first node's is the job's folder."""
        for name, content in told[0].files.items():
            path = each.job.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, self._with_commit(content) if name == ABOUT else content)
        codes = [news.code for news in told]
        if failed := next((code for code in codes if code), None):
            self._end_others(each)
        if None in codes:
            return None
        if each.sites[0].home and (names := told[0].names) is not None:
            for name, *_ in changed(each.job.folder, {}):
                if name not in names:
                    (each.job.folder / name).unlink()
        return Ended(each.job, failed or 0)

    def _end_others(self, each: _Running) -> None:
        """End the processes that wait for one that has failed."""
        late = each.failed_at is not None and time.monotonic() > each.failed_at + PATIENCE_SECONDS
        if each.failed_at is None or late:
            each.failed_at = each.failed_at or time.monotonic()
            for seat in each.seats:
                seat.signal.remote(int(signal.SIGKILL if late else signal.SIGTERM))

    def _with_commit(self, about: bytes) -> bytes:
        """What a job says of itself, with the commit of its code: a node has the code alone."""
        said = json.loads(about)
        return json.dumps(said | {"commit": self._about.commit, "changed": self._about.changed}, indent=2).encode()

    def _lost(self, each: _Running, why: str) -> Ended | None:
        """The job on another node, if it may go on; else its end."""
        where = ", ".join(sorted({site.name for site in each.sites})) or "its node"
        if self._stopping or each.losses >= self._settings["retries"]:
            return self._failed(each, f"Ray has lost {where} ({why}); hydra.launcher.retries={each.losses}")
        for name in (RESULT, PROGRESS):
            (each.job.folder / name).unlink(missing_ok=True)
        how = "goes on from its last checkpoint" if (each.job.folder / LAST).exists() else "begins anew"
        many = f"{each.losses + 1} of {self._settings['retries']} times"
        print(
            f"Job {each.job.name}: Ray has lost {where}; the job {how} elsewhere ({many}).", file=sys.stderr, flush=True
        )
        self._leave(each)
        self._running.append(self._asked_for(each.job, each.losses + 1))
        return None

    def _failed(self, each: _Running, why: str) -> Ended:
        """The end of a job of which Ray, not its own process, says how it ended."""
        with (each.job.folder / JOB_LOG).open("a", encoding="utf-8") as log:
            log.write(f"{why}\n")
        return Ended(each.job, 1)

    def _leave(self, each: _Running) -> None:
        """Give the job's nodes back."""
        self._running.remove(each)
        for seat in each.seats:
            with suppress(RayError):
                if each.begun:
                    self._clearing.append(seat.clear.remote())  # Ray then ends it, since nobody holds it
                else:
                    ray.kill(seat)
        if each.group is not None:
            remove_placement_group(each.group)


def _connect(settings: Mapping[str, Any], command: Sequence[str]) -> None:
    """Join the cluster at an address, to which the code travels; or start a Ray of our own on this machine.

    Raises:
        UserError: there is no such cluster, or it does not take the code.
    """
    address, said = settings["address"], settings["runtime_env"] | {"env_vars": {}}
    if "working_dir" in said:
        raise UserError("hydra.launcher.runtime_env.working_dir cannot be set: upsweep sends its own code there.")
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address is None:
        options |= {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": STORE}
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # Ray would write a token into the home folder
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # of `ray job submit`, which sends this process's code
    worker.print_to_stdstream = lambda *_, **__: None  # long messages of Ray's, among the lines of the table
    with tempfile.TemporaryDirectory(prefix="upsweep-") as stage:
        if address is not None or settings["shared"] is False:
            paths = os.pathsep.join(pack(Path(stage), command))
            said["env_vars"] = {"PYTHONPATH": paths}
            said |= {"working_dir": stage, "excludes": [*EXCLUDED, *said.get("excludes", ())]}
        try:
            _look_for(address)
            ray.init("local" if address is None else address, runtime_env=said, **options)
        except (OSError, TypeError, ValueError, RuntimeError, RayError) as error:
            raise UserError(f"hydra.launcher.address={address or 'null'}: {first_line(error)}") from error


def _variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Those that the user gives the jobs."""
    return {name: str(value) for name, value in settings["runtime_env"].get("env_vars", {}).items()}


def _look_for(address: str | None) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS).close()


def _said(node: Mapping[str, float]) -> str:
    return ", ".join(f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
