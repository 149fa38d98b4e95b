"""Where Hydra finds our launchers and our sweeper. Scanned at every start: it imports nothing it can put off."""

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from upsweep.common.commands import installing
from upsweep.common.errors import extra

if TYPE_CHECKING:
    from upsweep.sweeps.launcher import Open


class SweepLauncher(Launcher):
    """Starts the door once for every job of a multirun, on what `machine` opens; see `upsweep.sweeps.running`."""

    here = True  # the jobs run on this machine

    def __init__(self, resume: bool, **settings: Any) -> None:
        self._resume, self._settings = resume, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows but the task function. Raises UserError: a library is not installed."""
        from upsweep.sweeps.launcher import LaunchedSweep

        self._sweep = LaunchedSweep(config, hydra_context, self.machine(config), self._resume, self.here)

    @abstractmethod
    def machine(self, config: DictConfig) -> "Open":
        """What opens the machine for jobs of a sweep with this config."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self._sweep.launch(job_overrides, initial_job_idx)

    def launch_as_asked(
        self, ask: Callable[[], Sequence[str] | None], tell: Callable[[JobReturn], None], most: int, first: int = 0
    ) -> None:
        """Run jobs that a sweeper hands over one by one, each as soon as there is room for it.

        See `upsweep.sweeps.launcher.LaunchedSweep.launch_as_asked`.
        """
        self._sweep.launch_as_asked(ask, tell, most, first)


class ProcessLauncher(SweepLauncher):
    """A process on this machine for every job."""

    def machine(self, config: DictConfig) -> "Open":
        from upsweep.sweeps.forking import ForkServer, can_fork
        from upsweep.sweeps.processes import Processes
        from upsweep.sweeps.shares import shares

        said = self._settings
        server = ForkServer(list(said["preload"])) if said["fork"] and can_fork() else None
        return lambda configs, most: Processes(
            shares(configs, most, said["parallel"], said["devices_per_job"]), said["timeout"], server
        )


class SlurmLauncher(SweepLauncher):
    """A job of SLURM for every job."""

    here = False  # its nodes may have other disks

    def machine(self, config: DictConfig) -> "Open":
        with extra("submitit", f"SLURM needs submitit: {installing('slurm')}."):
            from upsweep.sweeps.slurm import Slurm

        folder = Path(config.hydra.sweep.dir).absolute() / "slurm"
        return lambda *_: Slurm(folder, self._settings["cluster"], self._settings["parallel"])


class RayLauncher(SweepLauncher):
    """A job on a Ray cluster for every job."""

    def __init__(self, resume: bool, **settings: Any) -> None:
        super().__init__(resume, **settings)
        self.here = settings["address"] is None  # the nodes of a cluster may have other disks

    def machine(self, config: DictConfig) -> "Open":
        with extra("ray", f"A Ray cluster needs Ray: {installing('ray')}."):
            from upsweep.sweeps.ray import Ray
        from upsweep.sweeps.jobs import door_of

        folder, command = Path(config.hydra.sweep.dir).absolute(), door_of(config)
        return lambda configs, most: Ray(configs, most, folder, command, self._settings)


@dataclass
class ProcessLauncherConf:
    """`parallel` jobs at a time, each with `devices_per_job` CUDA devices (null: as many as its trainer asks for).

    `parallel=auto` takes as many as there are GPUs for or, where none is used, cores and memory. More jobs than that
    share the GPUs, or wait for some of their own where `devices_per_job` is given. A job that takes more than `timeout`
    minutes is stopped (null: none is). With `fork` a job starts in a process that has imported `preload` before (on
    Linux); without, every job imports for itself. `resume` goes on with the sweep in the same folder; the command
    line's `resume=FOLDER` sets it.
    """

    _target_: str = "hydra_plugins.upsweep.ProcessLauncher"
    parallel: Any = "auto"
    devices_per_job: int | None = None
    timeout: float | None = None
    fork: bool = True
    preload: list[str] = field(default_factory=lambda: ["upsweep.training.preload"])
    resume: bool = False


@dataclass
class SlurmLauncherConf:
    """Up to `parallel` jobs at a time, each of `nodes` with `tasks_per_node` ranks: what the trainer asks for.

    `gpus_per_node` is null for a GPU a rank, and none where the trainer's accelerator is the CPU. `time` is in minutes;
    `grace` seconds before it is up a job is stopped and queued again, up to `requeues` times. `setup` are lines of
    shell before the job, `sbatch` further options of that command. `cluster=local` is submitit's stand-in for SLURM on
    this machine.
    """

    _target_: str = "hydra_plugins.upsweep.SlurmLauncher"
    parallel: int = 16
    resume: bool = False
    cluster: str = "slurm"
    name: str = "upsweep"
    nodes: Any = "${oc.select:trainer.num_nodes,1}"
    tasks_per_node: Any = "${oc.select:trainer.devices,1}"
    accelerator: Any = "${oc.select:trainer.accelerator,cpu}"
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    time: int = 60
    grace: int = 90
    requeues: int = 10
    mem: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)


@dataclass
class RayLauncherConf:
    """Jobs on the Ray cluster at `address`: `auto`, HOST:PORT, ray://HOST:PORT, or null for a Ray on this machine.

    `parallel` jobs at a time; `auto` takes as many as the cluster has room for. A job has `nodes` with `devices` ranks
    each, as the trainer asks for; a rank takes `cpus` CPUs and `gpus` GPUs (null: one, if the trainer uses GPUs), and
    a job takes other `resources` of Ray by name. `shared` says whether the nodes see the folder of the sweep (null:
    they look); where they do not, large files come back every `every` seconds. A job whose node dies begins again up to
    `retries` times. `runtime_env` is Ray's own.
    """

    _target_: str = "hydra_plugins.upsweep.RayLauncher"
    parallel: Any = "auto"
    resume: bool = False
    address: str | None = None
    nodes: Any = "${oc.select:trainer.num_nodes,1}"
    devices: Any = "${oc.select:trainer.devices,1}"
    accelerator: Any = "${oc.select:trainer.accelerator,cpu}"
    cpus: int = 1
    gpus: float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    shared: bool | None = None
    every: float = 30.0
    retries: int = 3
    runtime_env: dict[str, Any] = field(default_factory=dict)


class SearchSweeper(Sweeper):
    """Lets Optuna choose the jobs of a multirun; see `upsweep.sweeps.search`."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        with extra("optuna", f"A search needs Optuna: {installing('search')}."):
            from upsweep.sweeps.search import Search
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._search = Search(config, hydra_context, launcher, **self._settings)

    def sweep(self, arguments: list[str]) -> None:
        self._search.search(arguments)


@dataclass
class SearchSweeperConf:
    """A search of `trials` trials over `params` (key -> a sweep in Hydra's grammar), kept in the file `study`.

    `sampler` is Optuna's; `seed` is its seed, so that the same search asks the same questions.
    """

    _target_: str = "hydra_plugins.upsweep.SearchSweeper"
    _recursive_: bool = False  # the sampler is Optuna's, which need not be installed
    trials: int = 30
    study: str = "${hydra.sweep.dir}/study.journal"
    seed: int = 1
    sampler: dict[str, Any] = field(default_factory=lambda: {"_target_": "optuna.samplers.TPESampler"})
    params: dict[str, str] = field(default_factory=dict)


class ConfFirst(SearchPathPlugin):
    """A folder whose files go before those of conf/: tests name one, in which conf/local is empty."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if folder := os.environ.get("UPSWEEP_CONF_FIRST"):
            search_path.prepend("upsweep", f"file://{folder}")


ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="upsweep")
ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="upsweep")
ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="upsweep")
ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="upsweep")
