"""Download a data set, checked and resumed where it broke off: python src/fetch.py data=div2k."""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from upsweep.cli import door
from upsweep.data.known import BENCHMARKS

for name in BENCHMARKS:  # nothing to train on, so that conf/data has none of them
    ConfigStore.instance().store(group="data", name=name, node={"root": None})


@door("fetch")
def main(cfg: DictConfig) -> None:
    """Put the set below the root, where everything else looks for it."""
    from hydra.core.hydra_config import HydraConfig

    from upsweep.data.fetch import fetch
    from upsweep.data.known import data_root

    fetch(HydraConfig.get().runtime.choices["data"], data_root(cfg.root, make=True), mirror=cfg.mirror)


if __name__ == "__main__":
    main()
