"""Enlarge photos: python src/upscale.py input=photo.jpg scale=2 (a file, a folder, a glob)."""

from omegaconf import DictConfig

from upsweep import release
from upsweep.cli import door, hold_to_defaults, own_targets
from upsweep.common.telling import tell


@door("upscale")
def main(cfg: DictConfig) -> None:
    """Enlarge what the config names; exit code 1 if any of it was not. `model=` lists the package's weights."""
    hold_to_defaults(cfg)
    if cfg.model == "":
        release.listing().print()
        tell(files=[])
        return
    # torch takes seconds to import: only who really enlarges pays for it.
    from upsweep.common.devices import device_of
    from upsweep.upscaling.files import enlarge_all, plan
    from upsweep.upscaling.model import load, tile_of
    from upsweep.upscaling.picture import Enlarger

    generator, source = load(
        cfg.checkpoint,
        cfg.model,
        cfg.scale,
        allow=own_targets(),
        ensemble=cfg.self_ensemble,
        device=device_of(cfg.device),
        engine=cfg.engine,
    )
    inputs = [cfg.input] if isinstance(cfg.input, str) else list(cfg.input or [])
    photos, notes = plan(inputs, cfg.output, generator.scale, overwrite=cfg.overwrite)
    for note in notes:
        print(note)
    print(f"x{generator.scale} with {source}", flush=True)
    enlarger = Enlarger(generator, tile_of(cfg.tile))
    enlarge_all(photos, enlarger, max_pixels=cfg.max_pixels)
    if enlarger.engine != "torch":
        print(f"The engine was {enlarger.engine}.")
    tell(files=[str(photo.target.absolute()) for photo in photos])


if __name__ == "__main__":
    main()
