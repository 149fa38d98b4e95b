"""A W&B workspace and a report for a project of ours, as plain values of wandb-workspaces (the extra `dashboard`)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from upsweep.common.commands import command
from upsweep.common.errors import UserError
from upsweep.metrics.figure import Figure, figures_of
from upsweep.runs.history import VAL
from upsweep.runs.result import FIGURES_OF_VERSION_1
from upsweep.tracking.server import STEP, no_way_online

BY = ("init", "norm", "activation", "dropout")  # the choices by which curves are grouped
CHOICES = ("generator", *BY, "upsampler", "objective", "optimizer", "seed")
"""What the run table shows as columns: the flat keys under which `WandbRun` stores the choices."""
FLOW = {
    "signal": "gradient in each layer's output, over the last layer's",
    "gradient_norm": "gradient norm",
    "gradient_to_weight": "gradient norm over weight norm",
    "dead": "share of dead ReLU channels",
    "saturated": "share of saturated values",
    "mean": "activation mean",
    "deviation": "activation deviation",
}
"""What the diagnoses log for each layer, as `diagnoses/<key>/<layer>`."""
LOSS = "train/loss"
RUNS_READ = 20  # newest runs whose keys say which pictures there are


@dataclass(frozen=True)
class Project:
    """Where runs lie at W&B, what they are judged by, and under which keys they have pictures (`pictures/chelsea`).

    `scaled`: their pictures show LR enlarged | SR | HR, and not just any baseline | what was made | what was wanted.
    `losses`: the keys of the players' losses, the generator's first; `details`: of what else a validation says.
    """

    entity: str
    name: str
    pictures: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = FIGURES_OF_VERSION_1
    scaled: bool = True
    losses: tuple[str, ...] = (LOSS,)
    details: tuple[str, ...] = ()

    @property
    def headline(self) -> Figure:
        """What runs are ranked by."""
        return self.figures[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """By which choices runs are told apart."""
        return (*CHOICES, "adversary") if len(self.losses) > 1 else CHOICES

    @property
    def tiles(self) -> str:
        """What a picture shows from left to right; empty where every picture says it in its caption."""
        if self.scaled:
            return f"LR {self.headline.baseline} | SR | HR"
        return f"{self.headline.baseline} | made | wanted" if self.headline.baseline else ""

    @property
    def place(self) -> dict[str, str]:
        """As W&B's workspaces, reports and tables want it."""
        return {"entity": self.entity, "project": self.name}


def best_key(figure: Figure) -> str:
    """Under which key W&B's summary has a figure's best value."""
    return f"{VAL}{figure.name}.{'max' if figure.better == 'higher' else 'min'}"


def curves(figures: Sequence[Figure]) -> list[wr.LinePlot]:
    """Every figure over steps, mean and standard error of the runs that share a choice; a panel a choice."""
    plot = partial(_plot, columns=2, groupby_aggfunc="mean", groupby_rangefunc="stderr")
    return [
        plot(i, title=f"{figure.label} by {choice}", y=[f"{VAL}{figure.name}"], groupby=wr.Config(choice))
        for i, (choice, figure) in enumerate(product(BY, figures))
    ]


def choices_to_headline(project: Project) -> list[Any]:
    """Parallel coordinates from the choices to the best value of the headline, and which of them matter for it."""
    figure, column = project.headline, wr.ParallelCoordinatesPlotColumn
    best, title = wr.SummaryMetric(best_key(figure)), f"From the choices to {figure.title}"
    columns = [*(column(wr.Config(name)) for name in project.choices), column(best, display_name=f"{VAL}{figure.name}")]
    return [
        wr.ParallelCoordinatesPlot(title=title, columns=columns, layout=wr.Layout(0, 0, 24, 9)),
        wr.ParameterImportancePlot(with_respect_to=best.name, layout=wr.Layout(0, 9, 24, 8)),
    ]


def pictures(keys: Sequence[str]) -> list[wr.MediaBrowser]:
    """A panel a picture, all runs side by side."""
    browser = partial(wr.MediaBrowser, mode="gallery", gallery_axis="run", num_columns=2)
    return [
        browser(title=key.removeprefix("pictures/"), media_keys=[key], layout=wr.Layout(0, 10 * i, 24, 10))
        for i, key in enumerate(keys)
    ]


def gradient_flow() -> list[wr.LinePlot]:
    """What the diagnoses saw in every layer, whichever layers a generator has."""
    logarithmic = ("signal", "gradient_norm", "gradient_to_weight")
    return [
        _plot(i, columns=2, title=said, metric_regex=f"diagnoses/{key}/.*", log_y=key in logarithmic or None)
        for i, (key, said) in enumerate(FLOW.items())
    ]


def health(project: Project) -> list[wr.LinePlot]:
    """Losses, details, the gap to the training images where there is a baseline, checkerboard, rate and time."""
    judged = ("diagnoses/gap", "diagnoses/checkerboard") if project.headline.baseline else ("checkerboard",)
    keys = (*project.losses, *project.details, *judged, "lr", "time/images_per_second")
    return [_plot(i, columns=3, title=key, y=[key]) for i, key in enumerate(keys)]


def _plot(index: int, *, columns: int, **said: Any) -> wr.LinePlot:
    """A panel over steps, at its place on a page that is 24 units wide."""
    width = 24 // columns
    layout = wr.Layout(index % columns * width, index // columns * 7, width, 7)
    return wr.LinePlot(x=STEP, layout=layout, **said)


def columns(project: Project) -> list[str]:
    """The run table's: the choices, then the figures."""
    leads = [f"{VAL}{f.name}_{f.margin}.max" for f in project.figures[:1] if f.baseline]
    figures = [*map(best_key, project.figures), *leads, "parameters", "macs_per_pixel", "state"]
    return [*(f"config:{name}.value" for name in project.choices), *(f"summary:{name}" for name in figures)]


def workspace(project: Project, name: str) -> ws.Workspace:
    """The workspace: sections of panels beside a run table that is sorted by the headline."""
    best, lower = ws.Summary(best_key(project.headline)), project.headline.better == "lower"
    runs = ws.RunsetSettings(order=[ws.Ordering(best, ascending=lower)], pinned_columns=columns(project))
    sections = [ws.Section(name=heading, panels=[*panels], is_open=True) for heading, _, panels in _parts(project)]
    settings = ws.WorkspaceSettings(x_axis=STEP)
    return ws.Workspace(**project.place, name=name, sections=sections, settings=settings, runset_settings=runs)


def report(project: Project, name: str) -> wr.Report:
    """The report: the same panels, with a sentence above each group, and the run table below the first."""
    best, lower = wr.SummaryMetric(best_key(project.headline)), project.headline.better == "lower"
    pinned = ["run:displayName", *columns(project)]
    runs = wr.Runset(**project.place, order=[wr.OrderBy(best, ascending=lower)], pinned_columns=pinned)
    blocks: list[Any] = [wr.TableOfContents()]
    for heading, text, panels in _parts(project):
        blocks += [wr.H1(heading.partition(":")[0]), wr.P(text), wr.PanelGrid(runsets=[runs], panels=[*panels])]
    made_by = f"Made by upsweep: {command('dashboard', f'project={project.name}')}"
    return wr.Report(**project.place, title=name, description=made_by, blocks=blocks, width="fluid")


def _parts(project: Project) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """Panels under a heading, and what the report says above them; what follows a colon is the workspace's alone."""
    figure = project.headline
    noise = f"Less than {figure.noise:g} {figure.unit}".rstrip() + " is noise. " if figure.noise else ""
    said = f"Mean and standard error over all runs that share a choice. {noise}The table below the panels has a row a "
    said += "run, best first, with its choices as columns."
    yield "What each choice is worth", said, curves(project.figures)
    said = f"Each line is a run, from its choices to its best {figure.title}."
    yield "Which choices matter", said, choices_to_headline(project)
    if project.pictures:
        tiles = "LR enlarged bicubically | SR | HR, of" if project.scaled else f"{project.tiles or 'Pictures'}, of"
        heading = f"Pictures: {project.tiles}" if project.tiles else "Pictures"
        yield heading, f"{tiles} every run.", pictures(project.pictures)
    said = "A gradient that falls by orders of magnitude from the last layer to the first vanishes: compare init, "
    said += "norm and activation. Dead and saturated units pass none."
    yield "Gradient flow", said, gradient_flow()
    said = "Losses, rate and time."
    if figure.baseline:
        said = f"The gap is the {figure.margin} over {figure.baseline} on training images less that in validation."
    yield "Health and time", said, health(project)


def save(project: str, entity: str | None, name: str) -> tuple[str, str]:
    """Save workspace and report of a project; their addresses. Raises UserError: no key, server, project or run."""
    if (problem := no_way_online()) is not None:
        raise UserError(f"No dashboard is saved: {problem}.")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        api = wandb.Api()
        owner = entity or api.default_entity
        if not owner:
            raise UserError("W&B does not say whose project this is: add entity=NAME.")
        place = seen(api, owner, project)
        return workspace(place, name).save().url, report(place, name).save().url
    except (wandb.Error, OSError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        sentence = f"W&B did not take the dashboard of {project} ({said}): check project=, entity= and key."
        raise UserError(sentence) from error


def seen(api: Any, entity: str, name: str) -> Project:
    """What the newest runs of a project say of it: the keys of their pictures, and the figures of their task.

    Raises UserError: the project is not there, or has no run.
    """
    newest = list(islice(api.runs(f"{entity}/{name}", per_page=RUNS_READ, order="-created_at"), RUNS_READ))
    if not newest:
        raise UserError(
            f"The project {entity}/{name} has no run: train with logger.mode=online logger.project={name}, "
            "or upload with `wandb sync`."
        )
    keys = sorted({key for run in newest for key in run.summary.keys()})  # noqa: SIM118
    figures, scaled = _judged_by(newest)
    known = {f"{VAL}{name}" for f in figures for name in (f.name, f.baseline_name, f"{f.name}_{f.margin}")}
    return Project(
        entity,
        name,
        pictures=tuple(key for key in keys if key.startswith("pictures/")),
        figures=figures,
        scaled=scaled,
        losses=(LOSS, *(key for key in keys if key.startswith(f"{LOSS}_"))),
        details=tuple(key for key in keys if key.startswith(VAL) and key not in known),
    )


def _judged_by(runs: Sequence[Any]) -> tuple[tuple[Figure, ...], bool]:
    """The figures that the newest run with a task declares, and whether that task has a scale."""
    for run in runs:
        config = run.config.get("config") or {}
        if config.get("task"):
            # the task may have added to its config's titles
            return figures_of(run.config.get("figures") or config["task"]["figures"]), config.get("scale") is not None
    return FIGURES_OF_VERSION_1, True  # runs of upsweep 0.1
