"""Save a W&B workspace and a report for an online project: python src/dashboard.py project=upsweep."""

from omegaconf import DictConfig

from upsweep.cli import door


@door("dashboard")
def main(cfg: DictConfig) -> None:
    """Save both, and print where they are; or link a model into a registry."""
    if cfg.promote is not None:
        from upsweep.tracking.registry import promote

        version, place = promote(cfg.promote, cfg.registry, cfg.collection)
        print(f"model      {version}\nregistry   {place}")
        return
    from upsweep.common.commands import installing
    from upsweep.common.errors import extra

    sentence = f"The dashboards need the package wandb-workspaces: {installing('dashboard')}."
    with extra("wandb_workspaces", sentence):
        from upsweep.reporting import dashboard

    workspace, report = dashboard.save(cfg.project, cfg.entity, cfg.name)
    print(f"workspace  {workspace}\nreport     {report}")


if __name__ == "__main__":
    main()
