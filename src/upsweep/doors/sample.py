"""Make images of latents: python src/sample.py checkpoint=PATH count=64 seed=1."""

from pathlib import Path

from omegaconf import DictConfig

from upsweep.cli import door, hold_to_defaults, own_targets


@door("sample")
def main(cfg: DictConfig) -> None:
    """Make what the config names, and say what was written."""
    hold_to_defaults(cfg)
    # torch takes seconds to import: only who really makes images pays for it.
    from upsweep.common.devices import device_of
    from upsweep.common.errors import UserError
    from upsweep.networks.checkpoints import load_synthesiser
    from upsweep.sampling.files import Sampling, write_samples
    from upsweep.tracking.weights import located

    if cfg.checkpoint is None:
        raise UserError("Say whose samples to make: checkpoint=PATH, a run's folder in outputs/ or a .ckpt file.")
    numbers = ("count", "seed", "truncation", "batch", "walk", "stops", "steps")
    asked = Sampling(**{name: cfg[name] for name in numbers})
    generator = load_synthesiser(located(cfg.checkpoint), allow=own_targets(), ema=cfg.ema)
    folder = Path(cfg.output).expanduser()
    for line in write_samples(generator.to(device_of(cfg.device)), asked, folder, overwrite=cfg.overwrite):
        print(line)


if __name__ == "__main__":
    main()
