"""Judge generators as papers do: python src/evaluate.py checkpoint=PATH 'benchmark=[set5,set14,bsd100]'."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from upsweep.cli import door, hold_to_defaults, own_targets
from upsweep.common.errors import UserError
from upsweep.common.telling import tell

if TYPE_CHECKING:
    from upsweep.evaluation.methods import Views
    from upsweep.evaluation.run import OwnMetrics
    from upsweep.evaluation.synthesisers import Made
    from upsweep.evaluation.tables import Comparison


@door("evaluate", paths=("benchmark",))
def main(cfg: DictConfig) -> None:
    """Judge what the config names; print the tables, and where everything lies."""
    hold_to_defaults(cfg)
    # torch takes seconds to import: `--help` and `--cfg job` do without.
    from hydra.core.hydra_config import HydraConfig

    from upsweep.evaluation.methods import Views, files_asked
    from upsweep.evaluation.synthesisers import synthesisers

    folder = Path(HydraConfig.get().runtime.output_dir)
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    views = Views(cfg.self_ensemble, cfg.tile, cfg.ema)
    files = files_asked(plain["checkpoint"], cfg.sweep)
    made = synthesisers(files, views, own_targets())
    for comparison in [by_samples(plain, made, folder)] if made else by_images(cfg, plain, files, views, folder):
        comparison.table().print()
        print()
    print(f"Tables, figures of every image, pictures: {folder}")
    tell(folder=str(folder.absolute()))


def by_images(
    cfg: DictConfig, plain: dict[str, Any], files: list[Path], views: "Views", folder: Path
) -> "list[Comparison]":
    """Judge upscalers image by image."""
    from hydra.utils import instantiate

    from upsweep.evaluation.benchmarks import find_benchmarks
    from upsweep.evaluation.methods import asked
    from upsweep.evaluation.run import Evaluation, evaluate_all

    data, named = plain["data"], [str(file) for file in files]
    evaluation = Evaluation(
        folder=folder,
        methods=asked(named, None, cfg.method, plain["scale"], views=views, allow=own_targets()),
        benchmarks=find_benchmarks(plain["benchmark"] or "all", data["root"] and Path(data["root"])),
        protocol=instantiate(cfg.protocol),
        own=partial(own_at, cfg),
        device=cfg.device,
        devices=cfg.devices,
        speed=cfg.speed,
        pictures=cfg.pictures,
        cache_dir=Path(data["cache_dir"]) if data["cache"] == "disk" else None,
    )
    return evaluate_all(evaluation)


def own_at(cfg: DictConfig, scale: int) -> "OwnMetrics":
    """What the config's `metrics` declare, at a scale.

    Raises:
        UserError: one is not declared as it must be, has a name that is taken, or nothing that measures it.
    """
    from upsweep.doors.train import own_metrics
    from upsweep.evaluation.papers import FIGURES
    from upsweep.metrics.figure import figures_of

    figures, metrics = own_metrics(cast(DictConfig, OmegaConf.merge(cfg, {"scale": scale})))
    figures_of([*FIGURES, *figures])
    if logged := next((figure.name for figure in figures if figure.name not in metrics), None):
        raise UserError(f"metrics.{logged} has no metric: it is logged by a training, and nothing measures it here.")
    return {figure: metrics[figure.name] for figure in figures}


def by_samples(plain: dict[str, Any], made: "list[Made]", folder: Path) -> "Comparison":
    """Judge synthesisers by their samples."""
    from upsweep.common.devices import device_of
    from upsweep.evaluation.real_images import task_on
    from upsweep.evaluation.synthesisers import evaluate_synthesisers

    if plain["metrics"]:
        raise UserError(f"metrics= is of upscalers, and {made[0].checkpoint} is none: leave it out.")
    for key, default in (("method", None), ("scale", None), ("devices", 1)):
        if plain[key] != default:
            raise UserError(f"{key}={plain[key]} is of upscalers, and {made[0].checkpoint} is none: leave it out.")
    data = {**plain["data"], "samples": plain["samples"]}
    asked = {"extractor": plain["extractor"], "weights": plain["weights"]}
    task, title = task_on(made, plain["benchmark"], data, **asked)
    more = {"samples": plain["samples"], "device": device_of(plain["device"]), "pictures": plain["pictures"]}
    return evaluate_synthesisers(made, task, title, folder, **more)


if __name__ == "__main__":
    main()
