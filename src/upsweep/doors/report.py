"""Make the page of a sweep, or of tables alone: python src/report.py sweep=multirun/...; see docs/report.md."""

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from upsweep.cli import door


@door("report", paths=("results", "json"))
def main(cfg: DictConfig) -> None:
    """Write the page and what else is asked for; say where it lies."""
    from upsweep.common.checks import hold_to_signature
    from upsweep.reporting.request import Request

    asked = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    hold_to_signature(Request, asked)
    for line in Request(**asked).answer():
        print(line)


if __name__ == "__main__":
    main()
