"""Judge generators as papers do: python src/evaluate.py checkpoint=PATH 'benchmark=[set5,set14,bsd100]'."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from upsweep.cli import door, hold_to_defaults, own_places, own_targets
from upsweep.common.errors import UserError
from upsweep.common.telling import tell

if TYPE_CHECKING:
    from upsweep.evaluation.benchmarks import Benchmark
    from upsweep.evaluation.methods import Method, Views
    from upsweep.evaluation.run import OwnMetrics
    from upsweep.evaluation.synthesisers import Made
    from upsweep.evaluation.tables import Comparison


# `args` holds any keys; and who knows Hydra expects what belongs to a module behind its name.
MEANT = {"args.": "++args.", "module.args.": "++args.", "+module.args.": "++args.", "module.": "", "+module.": ""}


@door("evaluate", paths=("benchmark", "images", "weights"), meant=MEANT)
def main(cfg: DictConfig) -> None:
    """Judge what the config names; print the tables, and where everything lies."""
    hold_to_defaults(cfg)
    # torch takes seconds to import: `--help` and `--cfg job` do without.
    from hydra.core.hydra_config import HydraConfig

    from upsweep.evaluation.logged import log_evaluation
    from upsweep.evaluation.methods import Views, files_asked
    from upsweep.evaluation.synthesisers import synthesisers
    from upsweep.tracking.reopened import options_of

    folder = Path(HydraConfig.get().runtime.output_dir)
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    logger = options_of(plain.pop("logger", {}))
    views = Views(cfg.self_ensemble, cfg.tile, cfg.ema)
    files = files_asked(plain["checkpoint"], cfg.sweep)
    made = synthesisers(files, views, own_targets())
    comparisons = [by_samples(plain, made, folder)] if made else by_images(cfg, plain, files, views, folder)
    for comparison in comparisons:
        comparison.table().print()
        print()
    if logger is not None:
        for said in log_evaluation(folder, comparisons, logger, plain):
            print(said)
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
    benchmarks = find_benchmarks(plain["benchmark"] or "all", data["root"] and Path(data["root"]))
    foreign = of_anybody(plain, benchmarks, views)
    evaluation = Evaluation(
        folder=folder,
        methods=asked(named, None, cfg.method, plain["scale"], views=views, allow=own_targets(), foreign=foreign),
        benchmarks=benchmarks,
        protocol=instantiate(cfg.protocol),
        own=partial(own_at, cfg),
        device=cfg.device,
        devices=cfg.devices,
        speed=cfg.speed,
        pictures=cfg.pictures,
        cache_dir=Path(data["cache_dir"]) if data["cache"] == "disk" else None,
    )
    return evaluate_all(evaluation)


def of_anybody(plain: dict[str, Any], benchmarks: "list[Benchmark]", views: "Views") -> "list[Method]":
    """The rows of somebody else's images and networks.

    Raises:
        UserError: a key is missing, is one too many, or does not name what it must.
    """
    from upsweep.evaluation.images import images
    from upsweep.evaluation.methods import FOREIGN, scales_of
    from upsweep.evaluation.modules import Asked, modules

    if (method := plain["method"]) in tuple(FOREIGN) and not plain[method]:
        raise UserError(f"method={method} needs {method}={FOREIGN[method]}.")
    of_module = ("weights", "args", "colour", "range_out")
    if not plain["module"] and (said := next((key for key in of_module if plain[key]), None)):
        raise UserError(f"{said}= is of a network of your own: name its class with module=package.Class.")
    scales, rows = scales_of(plain["scale"]), list["Method"]()
    if plain["images"]:
        every = plain["benchmark"] not in (None, "all")
        rows += images(plain["images"], benchmarks, scales, every=every)
    if plain["module"]:
        sys.path[:0] = [place for place in own_places() if place not in sys.path]
        files = [plain["weights"]] if isinstance(plain["weights"], str) else plain["weights"] or []
        module = Asked(
            module=str(plain["module"]),
            weights=[Path(file).expanduser() for file in files],
            colour=plain["colour"],
            takes=plain["range"],
            gives=plain["range_out"],
            args=plain["args"],
        )
        rows += modules(module, scales, views)
    return rows


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
    for key, default in (("method", None), ("scale", None), ("images", None), ("module", None), ("devices", 1)):
        if plain[key] != default:
            raise UserError(f"{key}={plain[key]} is of upscalers, and {made[0].checkpoint} is none: leave it out.")
    data = {**plain["data"], "samples": plain["samples"]}
    asked = {"extractor": plain["extractor"], "weights": plain["weights"]}
    task, title = task_on(made, plain["benchmark"], data, **asked)
    more = {"samples": plain["samples"], "device": device_of(plain["device"]), "pictures": plain["pictures"]}
    return evaluate_synthesisers(made, task, title, folder, **more)


if __name__ == "__main__":
    main()
