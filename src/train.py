"""Train one generator, or with -m a sweep of them: python src/train.py -m init=xavier,he norm=bn,none."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from upsweep.cli import door, importing


@door("train", claims=True)
def main(cfg: DictConfig) -> float | None:
    """Train what the config says; the value is the best val/psnr in dB, for sweepers."""
    # torch and Lightning take seconds to import: only a job that really trains pays for them.
    with importing():
        from hydra.core.hydra_config import HydraConfig
        from hydra.utils import instantiate

        from upsweep import release
        from upsweep.sweeps.folders import writable
        from upsweep.sweeps.results import chosen
        from upsweep.training import console
        from upsweep.training.job import Job, run
        from upsweep.training.optimizers import by_dotted_name
        from upsweep.training.scaling import RateRule

    hydra = HydraConfig.get()
    # the door has claimed it for a run; the jobs of hydra/launcher=basic do not pass through there
    folder = writable(Path(hydra.runtime.output_dir), resume=cfg.resume is not None)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    choices, overrides = chosen(hydra.runtime.choices, config), list(hydra.overrides.task)
    if cfg.quiet:
        console.hush()
    else:
        console.show_config(config, choices)
    about = {"config": config, "choices": choices, "overrides": overrides}
    make_logger = instantiate(cfg.logger, _partial_=True) if "_target_" in cfg.logger else None
    job = Job(
        folder=folder,
        generator=config["generator"],
        data=instantiate(cfg.data, _convert_="all"),
        objective=instantiate(cfg.objective, _convert_="all"),
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        schedule=instantiate(cfg.scheduler, _convert_="all"),
        factors=by_dotted_name(config["factors"]),
        protocol=instantiate(cfg.protocol),
        trainer=config["trainer"],
        callbacks=[instantiate(c) for c in cfg.callbacks.values() if c is not None],
        logger=make_logger and make_logger(folder, **about, flat={"seed": cfg.seed, "scale": cfg.scale}),
        seed=cfg.seed,
        scale=cfg.scale,
        choices=choices,
        overrides=overrides,
        config=config,
        checkpoint=cfg.checkpoint and release.located(cfg.checkpoint),
        init_from=cfg.init_from and release.located(cfg.init_from),
        resume=cfg.resume is not None,
        rate_rule=RateRule(cfg.lr_rule, cfg.lr_batch_size),
        compile=cfg.compile,
        channels_last=cfg.channels_last,
    )
    result = run(job)
    console.show_end(job, result, quiet=cfg.quiet)
    return result.objective


if __name__ == "__main__":
    main()
