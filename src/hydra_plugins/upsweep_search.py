"""Where Hydra finds `hydra/sweeper=search`. Scanned at every start: it imports nothing it can put off."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from upsweep.sweeps.search import Search


class SearchSweeper(Sweeper):
    """Lets Optuna choose the jobs of a multirun; see `upsweep.sweeps.search`."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._search: Search | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows, and the launcher that runs the jobs.

        Raises:
            UserError: Optuna is not installed.
        """
        from upsweep.errors import UserError

        try:
            from upsweep.sweeps.search import Search
        except ModuleNotFoundError as error:
            if error.name != "optuna":
                raise
            raise UserError("A search needs Optuna: pip install -e '.[search]'.") from error
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._search = Search(config, hydra_context, launcher, **self._settings)

    def sweep(self, arguments: list[str]) -> None:
        """Search."""
        assert self._search is not None, "setup comes first"
        self._search.run(arguments)


@dataclass
class SearchSweeperConf:
    """A search of `trials` trials over `params` (key -> a sweep in Hydra's grammar), kept in the file `study`.

    `sampler` is Optuna's; `seed` is its seed, so that the same search asks the same questions.
    """

    _target_: str = "hydra_plugins.upsweep_search.SearchSweeper"
    _recursive_: bool = False  # the sampler is Optuna's, which need not be installed
    trials: int = 30
    study: str = "${hydra.sweep.dir}/study.journal"
    seed: int = 1
    sampler: dict[str, Any] = field(default_factory=lambda: {"_target_": "optuna.samplers.TPESampler"})
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="upsweep")
