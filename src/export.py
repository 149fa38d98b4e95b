"""Write a trained generator for other programs: python src/export.py checkpoint=PATH format=onnx."""

from pathlib import Path

from omegaconf import DictConfig

from upsweep.cli import door, own_targets


@door("export", paths=("checkpoint", "output"))
def main(cfg: DictConfig) -> None:
    """Export what the config names, and say what was written."""
    from upsweep.networks.exporting import export

    said = export(
        cfg.checkpoint and Path(cfg.checkpoint).expanduser(),
        cfg.format,
        cfg.output and Path(cfg.output).expanduser(),
        opset=cfg.opset,
        ema=cfg.ema,
        overwrite=cfg.overwrite,
        allow=own_targets(),
    )
    print(said)


if __name__ == "__main__":
    main()
