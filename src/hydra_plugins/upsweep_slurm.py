"""Where Hydra finds `hydra/launcher=slurm`. Scanned at every start: it imports nothing it can put off."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from upsweep.sweeps.launcher import Sweep


class SlurmLauncher(Launcher):
    """Runs every job of a multirun as a job of SLURM; see `upsweep.sweeps.slurm`."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._sweep: Sweep | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows, but for the task function: each job starts the door again.

        Raises:
            UserError: submitit is not installed.
        """
        del task_function
        from upsweep.errors import UserError
        from upsweep.sweeps.launcher import Sweep

        try:
            from upsweep.sweeps import slurm
        except ModuleNotFoundError as error:
            if error.name != "submitit":
                raise
            raise UserError("SLURM needs submitit: pip install -e '.[slurm]'.") from error
        parallel, cluster = self._settings["parallel"], self._settings["cluster"]
        folder = Path(str(config.hydra.sweep.dir)).absolute() / "slurm"
        run = partial(slurm.run, folder=folder, cluster=cluster, parallel=parallel)
        self._sweep = Sweep(config, hydra_context, run, parallel, self._settings["resume"])

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return their objectives in the same order."""
        assert self._sweep is not None, "setup comes first"
        return self._sweep.launch(job_overrides, initial_job_idx)


@dataclass
class SlurmLauncherConf:
    """Up to `parallel` jobs at a time, each of `nodes` with `tasks_per_node` ranks: what the trainer asks for.

    `gpus_per_node` is null for a GPU a rank, and none where the trainer's accelerator is the CPU. `time` is in minutes;
    `grace` seconds before it is up a job is stopped and queued again, up to `requeues` times. `setup` are lines of
    shell before the job, `sbatch` further options of that command. `cluster=local` is submitit's stand-in for SLURM on
    this machine.
    """

    _target_: str = "hydra_plugins.upsweep_slurm.SlurmLauncher"
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


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="upsweep")
