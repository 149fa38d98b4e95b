"""Where Hydra finds our launchers and our sweeper. Scanned at every start: it imports nothing it can put off."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

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


class SweepLauncher(Launcher):
    """Starts the door once for every job of a multirun: as a process here or, with a `cluster`, as a job of SLURM."""

    def __init__(self, parallel: int, resume: bool, **settings: Any) -> None:
        self._parallel, self._resume, self._settings = parallel, resume, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows but the task function. Raises UserError: submitit is not installed."""
        from upsweep.sweeps.launcher import LaunchedSweep
        from upsweep.sweeps.pool import Runner, run_processes

        own: dict[str, Any] = {key: self._settings.get(key) for key in ("devices_per_job", "timeout")}
        runner: Runner = partial(run_processes, **own)
        if "cluster" in self._settings:
            with extra("submitit", f"SLURM needs submitit: {installing('slurm')}."):
                from upsweep.sweeps.slurm import run_on_slurm
            folder = Path(config.hydra.sweep.dir).absolute() / "slurm"
            runner = partial(run_on_slurm, folder=folder, cluster=self._settings["cluster"])
        here = "cluster" not in self._settings  # the nodes of a cluster may have other disks
        self._sweep = LaunchedSweep(config, hydra_context, runner, self._parallel, self._resume, here)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self._sweep.launch(job_overrides, initial_job_idx)


@dataclass
class ProcessLauncherConf:
    """`parallel` jobs at a time, each with `devices_per_job` CUDA devices of its own (null: all of them).

    A job that takes more than `timeout` minutes is stopped (null: none is). `resume` goes on with the sweep in the same
    folder; the command line's `resume=FOLDER` sets it.
    """

    _target_: str = "hydra_plugins.upsweep.SweepLauncher"
    parallel: int = 1
    devices_per_job: int | None = None
    timeout: float | None = None
    resume: bool = False


@dataclass
class SlurmLauncherConf:
    """Up to `parallel` jobs at a time, each of `nodes` with `tasks_per_node` ranks: what the trainer asks for.

    `gpus_per_node` is null for a GPU a rank, and none where the trainer's accelerator is the CPU. `time` is in minutes;
    `grace` seconds before it is up a job is stopped and queued again, up to `requeues` times. `setup` are lines of
    shell before the job, `sbatch` further options of that command. `cluster=local` is submitit's stand-in for SLURM on
    this machine.
    """

    _target_: str = "hydra_plugins.upsweep.SweepLauncher"
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
ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="upsweep")
