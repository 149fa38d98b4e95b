"""Write a trained generator for other programs: python src/export.py checkpoint=PATH format=onnx."""

from pathlib import Path

from omegaconf import DictConfig

from upsweep.cli import door, hold_to_defaults, own_targets


@door("export")
def main(cfg: DictConfig) -> None:
    """Export what the config names, and say what was written."""
    hold_to_defaults(cfg)
    from upsweep.networks.exporting import export
    from upsweep.tracking.weights import located

    checkpoint = None if cfg.checkpoint is None else located(cfg.checkpoint)
    output = cfg.output and Path(cfg.output).expanduser()
    more = {"opset": cfg.opset, "ema": cfg.ema, "overwrite": cfg.overwrite}
    print(export(checkpoint, cfg.format, output, allow=own_targets(), **more))


if __name__ == "__main__":
    main()
