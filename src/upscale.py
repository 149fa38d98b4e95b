"""Enlarge photos: python src/upscale.py input=photo.jpg scale=2 (a file, a folder, a glob)."""

from omegaconf import DictConfig

from upsweep.cli import door, own_targets


@door("upscale", paths=("input", "output", "checkpoint"))
def main(cfg: DictConfig) -> None:
    """Enlarge what the config names; exit code 1 if any of it was not."""
    # torch takes seconds to import: only who really enlarges pays for it.
    from upsweep.upscaling.files import plan, renamed, run
    from upsweep.upscaling.model import device_of, load, tile_of
    from upsweep.upscaling.picture import Upscaler
    from upsweep.upscaling.progress import Shown

    generator, source = load(cfg.checkpoint, cfg.model, cfg.scale, allow=own_targets(), ensemble=cfg.self_ensemble)
    inputs = [cfg.input] if isinstance(cfg.input, str) else list(cfg.input or [])
    jobs = plan(inputs, cfg.output, generator.scale, overwrite=cfg.overwrite)
    for job in renamed(jobs, generator.scale):
        print(f"{job.source}: becomes {job.target}, since another input has the same name but for its suffix.")
    print(f"x{generator.scale} with {source}", flush=True)
    upscaler = Upscaler(generator.to(device_of(cfg.device)), tile_of(cfg.tile))
    with Shown(len(jobs)) as shown:
        run(jobs, shown.watched(upscaler), max_pixels=cfg.max_pixels, say=shown.say, complain=shown.complain)


if __name__ == "__main__":
    main()
