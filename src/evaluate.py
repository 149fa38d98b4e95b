"""Judge generators as papers do: python src/evaluate.py checkpoint=PATH 'benchmark=[set5,set14,bsd100]'."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from upsweep.cli import door, hold_to_defaults, own_targets


@door("evaluate", paths=("benchmark",))
def main(cfg: DictConfig) -> None:
    """Judge what the config names; print the tables, and where everything lies."""
    hold_to_defaults(cfg)
    # torch takes seconds to import: `--help` and `--cfg job` do without.
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from upsweep.evaluation.benchmarks import find_benchmarks
    from upsweep.evaluation.methods import Views, asked
    from upsweep.evaluation.run import Evaluation, evaluate_all

    folder = Path(HydraConfig.get().runtime.output_dir)
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    data, views = plain["data"], Views(cfg.self_ensemble, cfg.tile, cfg.ema)
    evaluation = Evaluation(
        folder=folder,
        methods=asked(plain["checkpoint"], cfg.sweep, cfg.method, plain["scale"], views=views, allow=own_targets()),
        benchmarks=find_benchmarks(plain["benchmark"], data["root"] and Path(data["root"])),
        protocol=instantiate(cfg.protocol),
        device=cfg.device,
        devices=cfg.devices,
        speed=cfg.speed,
        pictures=cfg.pictures,
        cache_dir=Path(data["cache_dir"]) if data["cache"] == "disk" else None,
    )
    for comparison in evaluate_all(evaluation):
        comparison.table().print()
        print()
    print(f"Tables, figures of every image, pictures: {folder}")


if __name__ == "__main__":
    main()
