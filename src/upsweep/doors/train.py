"""Train one generator, or with -m a sweep of them: python src/train.py -m init=xavier,he norm=bn,none."""

import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from upsweep.cli import door, hold_to_types, importing, own_targets
from upsweep.common.errors import UserError, first_line
from upsweep.sweeps.inputs import check_inputs, still_read

if TYPE_CHECKING:
    from torchmetrics import Metric

    from upsweep.metrics.figure import Figure
    from upsweep.tasks import Task as UpsweepTask
    from upsweep.tracking.run_log import RunLog
    from upsweep.training.adversarial import Adversary
    from upsweep.training.job import Job, MakeTraining

log = logging.getLogger("upsweep")


@door("train", claims=True)
def main(cfg: DictConfig) -> float | None:
    """Train what the config says; the value is the best one of the task's headline, for sweepers."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    check_inputs([cfg if cfg.resume is None else still_read(cfg, folder)])
    # torch and Lightning take seconds to import: only a job that really trains pays for them.
    with importing():
        from upsweep.training import console
        from upsweep.training.job import train

    if cfg.quiet:
        console.hush()
    job = job_of(cfg)
    if cfg.verbose:
        console.show_config(job.config, job.choices)
    elif not cfg.quiet:
        console.show_choices(job)
    with console.interruptible(job):
        result = train(job)
    console.show_end(job, result, quiet=cfg.quiet)
    return result.objective


def job_of(cfg: DictConfig) -> "Job":
    """The training that a config describes, in the folder that Hydra gave it."""
    from pytorch_lightning import Callback, Trainer

    from upsweep.analysis.ranking import chosen
    from upsweep.runs.folders import writable
    from upsweep.tasks import Task
    from upsweep.training.job import Job
    from upsweep.training.start import start_of
    from upsweep.training.trainer import hold_to_trainer

    hydra = HydraConfig.get()
    # the door has claimed it for a run; the jobs of hydra/launcher=basic do not pass through there
    resume = cfg.resume is not None
    folder = writable(Path(hydra.runtime.output_dir), resume=resume)
    hold_to_trainer(cfg.trainer)
    hold_to_data(cfg.data)
    config = hold_to_types(cfg, trainer=Trainer)
    task = made(cfg.task, "task", Task)
    judge_besides(task, cfg)
    choices, overrides = chosen(hydra.runtime.choices, config), list(hydra.overrides.task)
    about: dict[str, Any] = {"config": config, "choices": choices, "overrides": overrides}
    flat = {"seed": cfg.seed, "scale": cfg.scale}
    return Job(
        folder=folder,
        task=task,
        generator=config["generator"],
        training=learning(cfg),
        trainer=instantiate(cfg.trainer, _convert_="all"),  # its profiler or a plugin may be an object
        callbacks=[made(c, f"callbacks.{n}", Callback) for n, c in cfg.callbacks.items() if c is not None],
        logger=logger(cfg.logger, folder, **about, figures=task.figures, flat=flat),
        start=start_of(
            folder,
            config,
            cfg.trainer.max_epochs,
            resume=resume,
            checkpoint=config["checkpoint"],
            init_from=config["init_from"],
        ),
        channels_last=cfg.channels_last,
        judge_anew=cfg.judge_anew,
        tuned=list(cfg.tuned),
        **flat,
        **about,
    )


def made(node: Any, key: str, kind: Any) -> Any:
    """What a node of the config describes. Raises UserError: that is not of the kind which is needed there."""
    if isinstance(node, DictConfig) and "_target_" not in node:
        said = ", ".join(map(str, node)) or "nothing"
        raise UserError(
            f"{key} has {said}, but no _target_, which names a class: choose one, or leave it out (~{key})."
        )
    found = instantiate(node, _convert_="all") if isinstance(node, DictConfig) else node
    if not isinstance(found, kind):
        said = node["_target_"] if isinstance(node, DictConfig) else node
        raise UserError(f"{key}={said} describes no {kind.__name__.lower()}, which a run needs there.")
    return found


def logger(cfg: DictConfig, folder: Path, **about: Any) -> "RunLog | None":
    """Where numbers and pictures go. Raises UserError: what is named is no logger, or cannot be one of several."""
    from upsweep.tracking.nodes import nodes_of
    from upsweep.tracking.several import Logs

    nodes = nodes_of(cfg)
    stray = [key for key in map(str, cfg) if "logger" not in nodes and not isinstance(cfg[key], DictConfig)]
    if nodes and stray:
        raise UserError(f"logger.{stray[0]} is of no logger: with several, write {next(iter(nodes))}.{stray[0]}=...")
    logs = [one_logger(node, key, folder, **about) for key, node in nodes.items()]
    return Logs(logs) if len(logs) > 1 else next(iter(logs), None)


def one_logger(node: Mapping[str, Any], key: str, folder: Path, **about: Any) -> "RunLog":
    """The logger that a node describes. Its constructor gets what it names of the folder and of what a run says."""
    from pytorch_lightning.loggers import Logger

    from upsweep.tracking.lightning_run import LightningRun
    from upsweep.tracking.run_log import RunLog
    from upsweep.tracking.wandb_run import WandbRun

    make = instantiate(node, _partial_=True, _convert_="all")
    takes = signature(make.func).parameters
    offered = {"folder": folder, "save_dir": str(folder), **about}
    passes_on = any(each.kind is each.VAR_KEYWORD for each in takes.values())
    if passes_on and isinstance(make.func, type) and issubclass(make.func, RunLog):  # to a class of upsweep's
        del offered["save_dir"]
    else:
        offered = {name: value for name, value in offered.items() if name in takes}
    given = {name: value for name, value in offered.items() if name not in make.keywords}
    try:
        found = make(**given)
    except UserError:
        raise
    except Exception as error:  # it takes other arguments, or does not like their values
        raise UserError(f"{key}={node['_target_']} cannot be made: {first_line(error)}.") from error
    if not isinstance(found, Logger):
        raise UserError(f"{key}={node['_target_']} is no logger: name a class derived from pytorch_lightning's Logger.")
    return found if isinstance(found, WandbRun) else LightningRun(found, folder, **about)


def judge_besides(task: "UpsweepTask", cfg: DictConfig) -> None:
    """Have a task judge by the figures of `metrics`, too, and rank by what `rank_by` says."""
    task.judge_by(*own_metrics(cfg), cfg.rank_by)


def own_metrics(cfg: DictConfig) -> "tuple[tuple[Figure, ...], dict[str, Metric]]":
    """The figures that the config's `metrics` declare, and by name what measures those that have a metric."""
    from torchmetrics import Metric

    from upsweep.metrics.figure import own_figures

    # torchmetrics: of those that hold all images, which ours do one by one
    warnings.filterwarnings("ignore", message=r"Metric `\w+` will save all ")
    figures = own_figures(cfg.metrics, cfg)
    said = {figure.name: cfg.metrics[figure.name].get("metric") for figure in figures}
    metrics = {name: made(node, f"metrics.{name}.metric", Metric) for name, node in said.items() if node is not None}
    return figures, metrics


def hold_to_data(data: DictConfig) -> None:
    """Refuse what is said of a data set and nobody reads; what an experiment says of another data set is left out.

    Raises:
        UserError: a key is neither the source's nor one of those by which train.yaml says how images are fed, and was
            typed, or is of the data set's file, or of no other data set's.
    """
    hydra = HydraConfig.get()
    (main,) = [source for source in hydra.runtime.config_sources if source.provider == "main"]
    fed = OmegaConf.load(Path(main.path) / "train.yaml").data if main.schema == "file" else data
    known = sorted({*map(str, fed), *map(str, data.get("source") or {})} - {"_target_"})
    if not (unread := [key for key in map(str, data) if key not in (*known, "source")]):
        return
    choice = hydra.runtime.choices.get("data")
    folders = [source.path for source in hydra.runtime.config_sources if source.schema == "file"]
    sets = {file: OmegaConf.load(file) for folder in folders for file in sorted(Path(folder, "data").glob("*.yaml"))}
    own = {str(key) for file, node in sets.items() if file.stem == choice for key in node}
    of_any = {str(key) for node in sets.values() for key in node}
    words = cast(list[str], OmegaConf.to_container(hydra.overrides.task))  # as typed: none is resolved
    keys = [word.lstrip("+").partition("=")[0] for word in words]
    for key in unread:
        typed = any(each == f"data.{key}" or each.startswith(f"data.{key}.") for each in keys)
        if typed or key in own or key not in of_any:
            raise UserError(f"data.{key} is read by nothing: a file in conf/data may say {', '.join(known)}.")
        log.info("data.%s=%s of an experiment is left out: data=%s does not read it.", key, data[key], choice)
        with open_dict(data):
            del data[key]


def prepare_teachers(cfg: DictConfig) -> None:
    """Tell the teachers of an objective their files, the classes that they may be of, and what they must fit."""
    from upsweep.tracking.weights import located, teachers_of

    for key, teacher in teachers_of(cfg.objective).items():
        if cfg.scale is None:
            raise UserError(f"{key} makes images larger, which this task does not: choose another objective.")
        fits = {"scale": cfg.scale, "channels": cfg.generator.get("channels")}
        node = OmegaConf.select(cfg, key.removesuffix(".teacher"))
        with open_dict(node):
            node.update({"teacher": str(located(teacher, key)), "allow": sorted(own_targets()), **fits})


def learning(cfg: DictConfig) -> "MakeTraining":
    """How the generator learns."""
    from torch import nn

    from upsweep.training.adversarial import Adversarial
    from upsweep.training.optimizers import by_dotted_name
    from upsweep.training.own import own_training
    from upsweep.training.scaling import RateRule
    from upsweep.training.supervised import Supervised

    prepare_teachers(cfg)
    objective = made(cfg.objective, "objective", nn.Module)
    if (reduction := getattr(objective, "reduction", "mean")) not in ("mean", "sum"):
        raise UserError(f"objective.reduction={reduction} must be mean or sum.")
    shared: dict[str, Any] = {
        "objective": objective,
        "optimizer": made(cfg.optimizer, "optimizer", Callable),
        "schedule": made(cfg.scheduler, "scheduler", Callable),
        "factors": by_dotted_name(cast(dict[str, Any], OmegaConf.to_container(cfg.factors, resolve=True))),
        "rule": RateRule(cfg.lr_rule, cfg.lr_batch_size),
        "compiled": cfg.compile,
    }
    if cfg.adversary:
        trainer = cfg.trainer
        shared |= {
            "adversary": adversary(cfg.adversary),
            "clip": trainer.gradient_clip_val,
            "clip_by": trainer.get("gradient_clip_algorithm"),
            "accumulate": trainer.accumulate_grad_batches,
        }
    if "_target_" in cfg.training:
        return own_training(instantiate(cfg.training, _partial_=True), shared)
    return partial(Adversarial if cfg.adversary else Supervised, **shared)


def adversary(cfg: DictConfig) -> "Adversary":
    """Whom the generator learns against."""
    from upsweep.objectives.adversarial.losses import AdversarialLoss
    from upsweep.objectives.adversarial.penalties import Penalties
    from upsweep.training.adversarial import Adversary

    return Adversary(
        discriminator=cast(dict[str, Any], OmegaConf.to_container(cfg.discriminator, resolve=True)),
        loss=made(cfg.loss, "adversary.loss", AdversarialLoss),
        optimizer=made(cfg.optimizer, "adversary.optimizer", Callable),
        schedule=made(cfg.scheduler, "adversary.scheduler", Callable),
        penalties=Penalties(r1=cfg.r1, r2=cfg.r2, gradient=cfg.gradient_penalty),
        steps=cfg.steps,
        weight=cfg.weight,
    )


if __name__ == "__main__":
    main()
