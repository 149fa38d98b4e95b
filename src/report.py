"""Make the page of a sweep: python src/report.py sweep=multirun/...; see docs/report.md."""

from omegaconf import DictConfig

from upsweep.cli import door


@door("report")
def main(cfg: DictConfig) -> None:
    """Write report.html, and effects.svg where choices were swept, into the sweep's folder."""
    from upsweep.reporting.report import write_report
    from upsweep.reporting.sweep import find_sweep

    print(f"Report: {write_report(find_sweep(str(cfg.sweep))).resolve()}")


if __name__ == "__main__":
    main()
