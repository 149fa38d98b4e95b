"""A W&B workspace and a report for a project of ours: what is on them, and how they are saved.

What is on them are plain values of wandb-workspaces (the extra `dashboard`), built without a network.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from upsweep.errors import UserError
from upsweep.training.tracking import STEP, no_way_online

BY = ("init", "norm", "activation", "dropout")
"""The choices by which curves are grouped."""
CHOICES = ("generator", *BY, "upsampler", "objective", "optimizer", "seed")
"""What the run table shows as columns: the flat keys under which `WandbRun` stores the choices."""
BEST = "val/psnr.max"
FIGURES = (BEST, "val/ssim.max", "val/psnr_gain.max", "parameters", "macs_per_pixel", "state")
CURVES = {"val/psnr": "PSNR, dB", "val/ssim": "SSIM"}
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
RUNS_READ = 20  # newest runs whose keys say which pictures there are


@dataclass(frozen=True)
class Project:
    """Where runs lie at W&B, and under which keys they have pictures (`pictures/chelsea`)."""

    entity: str
    name: str
    pictures: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------ what is on them


def curves(by: Sequence[str] = BY) -> list[wr.LinePlot]:
    """PSNR and SSIM over steps, mean and standard error of the runs that share a choice; a panel a choice."""
    return [
        wr.LinePlot(
            title=f"{said} by {choice}",
            x=STEP,
            y=[metric],
            groupby=wr.Config(choice),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
            layout=_place(i * 2 + j, columns=2),
        )
        for i, choice in enumerate(by)
        for j, (metric, said) in enumerate(CURVES.items())
    ]


def choices_to_psnr() -> list[Any]:
    """Parallel coordinates from the choices to the best PSNR, and which of them matter for it."""
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(name)) for name in CHOICES]
    best = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(BEST), display_name="val/psnr")
    return [
        wr.ParallelCoordinatesPlot(
            title="From the choices to PSNR", columns=[*columns, best], layout=wr.Layout(0, 0, 24, 9)
        ),
        wr.ParameterImportancePlot(with_respect_to=BEST, layout=wr.Layout(0, 9, 24, 8)),
    ]


def pictures(keys: Sequence[str]) -> list[wr.MediaBrowser]:
    """LR bicubic | SR | HR of an image, all runs side by side; a panel an image."""
    return [
        wr.MediaBrowser(
            title=key.removeprefix("pictures/"),
            media_keys=[key],
            mode="gallery",
            gallery_axis="run",
            num_columns=2,
            layout=wr.Layout(0, 10 * i, 24, 10),
        )
        for i, key in enumerate(keys)
    ]


def gradient_flow() -> list[wr.LinePlot]:
    """What the diagnoses saw in every layer, whichever layers a generator has."""
    return [
        wr.LinePlot(
            title=said,
            x=STEP,
            metric_regex=f"diagnoses/{key}/.*",
            log_y=key in ("signal", "gradient_norm", "gradient_to_weight") or None,
            layout=_place(i, columns=2),
        )
        for i, (key, said) in enumerate(FLOW.items())
    ]


def health() -> list[wr.LinePlot]:
    """Losses, the gap to the training images, the checkerboard, the rate and the time."""
    keys = ("train/loss", "diagnoses/gap", "diagnoses/checkerboard", "lr", "time/images_per_second")
    return [wr.LinePlot(title=key, x=STEP, y=[key], layout=_place(i, columns=3)) for i, key in enumerate(keys)]


def columns() -> list[str]:
    """The run table's: the choices, then the figures."""
    return [*(f"config:{name}.value" for name in CHOICES), *(f"summary:{name}" for name in FIGURES)]


def workspace(project: Project, name: str) -> ws.Workspace:
    """The workspace: sections of panels beside a run table that is sorted by PSNR."""
    sections: Mapping[str, Sequence[Any]] = {
        "What each choice is worth": curves(),
        "Which choices matter": choices_to_psnr(),
        "Pictures: LR bicubic | SR | HR": pictures(project.pictures),
        "Gradient flow": gradient_flow(),
        "Health and time": health(),
    }
    return ws.Workspace(
        entity=project.entity,
        project=project.name,
        name=name,
        sections=[
            ws.Section(name=title, panels=[*panels], is_open=True) for title, panels in sections.items() if panels
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP),
        runset_settings=ws.RunsetSettings(
            order=[ws.Ordering(ws.Summary(BEST), ascending=False)], pinned_columns=columns()
        ),
    )


def report(project: Project, name: str) -> wr.Report:
    """The report: the same panels, with a sentence above each group, and the run table below the first."""

    def grid(panels: Sequence[Any]) -> wr.PanelGrid:
        runs = wr.Runset(
            entity=project.entity,
            project=project.name,
            order=[wr.OrderBy(wr.SummaryMetric(BEST), ascending=False)],
            pinned_columns=["run:displayName", *columns()],
        )
        return wr.PanelGrid(runsets=[runs], panels=[*panels])

    parts: Sequence[tuple[str, str, Sequence[Any]]] = (
        (
            "What each choice is worth",
            "Mean and standard error over all runs that share a choice. Less than 0.05 dB is noise. The table below "
            "the panels has a row a run, best first, with its choices as columns.",
            curves(),
        ),
        ("Which choices matter", "Each line is a run, from its choices to its best PSNR.", choices_to_psnr()),
        ("Pictures", "LR enlarged bicubically | SR | HR, of every run.", pictures(project.pictures)),
        (
            "Gradient flow",
            "A gradient that falls by orders of magnitude from the last layer to the first vanishes: compare init, "
            "norm and activation. Dead and saturated units pass none.",
            gradient_flow(),
        ),
        ("Health and time", "The gap is the gain over bicubic on training images less that in validation.", health()),
    )
    blocks: list[Any] = [wr.TableOfContents()]
    for title, text, panels in parts:
        if panels:
            blocks += [wr.H1(title), wr.P(text), grid(panels)]
    return wr.Report(
        entity=project.entity,
        project=project.name,
        title=name,
        description="Made by upsweep: python src/dashboard.py",
        blocks=blocks,
        width="fluid",
    )


def _place(index: int, *, columns: int) -> wr.Layout:
    """The place of a panel on a page that is 24 units wide."""
    width = 24 // columns
    return wr.Layout(index % columns * width, index // columns * 7, width, 7)


# ------------------------------------------------------------------------------------------------------- the network


def save(project: str, entity: str | None, name: str) -> tuple[str, str]:
    """Save the workspace and the report of an online project; gives their addresses.

    Raises:
        UserError: there is no key, no server, no such project, or no run in it.
    """
    if (problem := no_way_online()) is not None:
        raise UserError(f"No dashboard is saved: {problem}.")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    with _one_sentence(project):
        api = wandb.Api()
        owner = entity or api.default_entity
        if not owner:
            raise UserError("W&B does not say whose project this is: add entity=NAME.")
        place = Project(owner, project, tuple(picture_keys(api, owner, project)))
        first = workspace(place, name).save()
        second = report(place, name).save()
        return first.url, second.url


def picture_keys(api: Any, entity: str, project: str) -> list[str]:
    """The keys under which the newest runs of a project have pictures, in order.

    Raises:
        UserError: the project is not there, or has no run.
    """
    runs = api.runs(f"{entity}/{project}", per_page=RUNS_READ, order="-created_at")
    newest = [run for run, _ in zip(runs, range(RUNS_READ), strict=False)]
    if not newest:
        raise UserError(
            f"The project {entity}/{project} has no run: train with logger.mode=online logger.project={project}, "
            "or upload with `wandb sync`."
        )
    return sorted({key for run in newest for key in run.summary.keys() if key.startswith("pictures/")})  # noqa: SIM118


@contextmanager
def _one_sentence(project: str) -> Iterator[None]:
    """The many errors of the client, as one sentence."""
    try:
        yield
    except UserError:
        raise
    except (wandb.Error, OSError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"W&B did not take the dashboard of {project} ({said}): check project=, entity= and key."
        ) from error
