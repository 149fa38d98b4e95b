"""A page on this machine to try weights: python src/demo.py, or python src/demo.py checkpoint=outputs/RUN."""

import os

from omegaconf import DictConfig, ListConfig

from upsweep.cli import door, hold_to_defaults, own_targets


@door("demo")
def main(cfg: DictConfig) -> None:
    """Show the page until Ctrl-C."""
    hold_to_defaults(cfg)
    from upsweep.common.commands import installing
    from upsweep.common.devices import device_of
    from upsweep.common.errors import UserError, extra
    from upsweep.demonstrating.local import own_folder, port_of, stay_here
    from upsweep.demonstrating.weights import Weights
    from upsweep.upscaling.model import tile_of

    for key in ("max_pixels", "max_megabytes"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]} must be at least 1.")
    named = cfg.checkpoint if isinstance(cfg.checkpoint, ListConfig) else filter(None, [cfg.checkpoint])
    port = port_of(cfg.port)
    with own_folder(cfg.cache_dir) as folder:
        stay_here(os.environ, folder)
        print("Starting the page; this takes 5 to 20 seconds.", flush=True)
        with extra("gradio", f"The page needs Gradio: {installing('demo')}."):
            from upsweep.demonstrating.page import Page
        device, tile = device_of(cfg.device), tile_of(cfg.tile)
        weights = Weights([*map(str, named)], device, tile, engine=cfg.engine, allow=own_targets())
        page = Page(weights, folder, max_pixels=cfg.max_pixels)
        page.serve(port, max_bytes=cfg.max_megabytes * 2**20, open_browser=cfg.open)
