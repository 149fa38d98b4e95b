"""Where Hydra finds `hydra/launcher=process`. Scanned at every start: it imports nothing it can put off."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from upsweep.sweeps.launcher import Sweep


class ProcessLauncher(Launcher):
    """Runs every job of a multirun as a fresh process in its own folder; see `upsweep.sweeps.launcher`."""

    def __init__(self, parallel: int, devices_per_job: int | None, resume: bool) -> None:
        self._parallel = parallel
        self._devices_per_job = devices_per_job
        self._resume = resume
        self._sweep: Sweep | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows, but for the task function: each job starts the door again."""
        del task_function
        from upsweep.sweeps import pool
        from upsweep.sweeps.launcher import Sweep

        run = partial(pool.run, parallel=self._parallel, devices_per_job=self._devices_per_job)
        self._sweep = Sweep(config, hydra_context, run, self._parallel, self._resume)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return their objectives in the same order."""
        assert self._sweep is not None, "setup comes first"
        return self._sweep.launch(job_overrides, initial_job_idx)


@dataclass
class ProcessLauncherConf:
    """`parallel` jobs at a time, each with `devices_per_job` CUDA devices of its own (null: all of them).

    `resume` goes on with the sweep in the same folder; the command line's `resume=FOLDER` sets it.
    """

    _target_: str = "hydra_plugins.upsweep_launcher.ProcessLauncher"
    parallel: int = 1
    devices_per_job: int | None = None
    resume: bool = False


ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="upsweep")
