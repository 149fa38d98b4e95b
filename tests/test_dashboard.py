"""Dashboards: what is on them, and what the real W&B client sends, to a server on this machine that notes it all."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from tests.wandb_stand_in import KEY, ROOT, RUN, call, loopback

from upsweep.metrics.figure import figures_of
from upsweep.sweeps.launcher import gather_runs

ws = pytest.importorskip("wandb_workspaces.workspaces", reason="the extra `dashboard` is not installed")
dashboard = pytest.importorskip("upsweep.reporting.dashboard")

DOOR = ROOT / "src" / "dashboard.py"
PLACE = dashboard.Project("me", "mine", ("pictures/chelsea", "pictures/coffee"))


# what is on them


def types(panels: Any) -> list[str]:
    return [type(panel).__name__ for panel in panels]


def test_the_workspace_has_every_section_and_the_choices_as_columns() -> None:
    made = dashboard.workspace([PLACE], "my name")
    panels = {section.name: section.panels for section in made.sections}
    assert (made.entity, made.project, made.name) == ("me", "mine", "my name")
    grouped = [(panel.y[0], panel.groupby.name) for panel in panels["What each choice is worth"]]
    assert grouped == [(m, by) for by in ("init", "norm", "activation", "dropout") for m in ("val/psnr", "val/ssim")]
    assert {panel.x for panel in panels["What each choice is worth"]} == {"trainer/global_step"}
    parallel, importance = panels["Which choices matter"]
    axes = [column.metric.name for column in parallel.columns]
    assert axes[0] == "generator" and {"init", "norm", "activation", "dropout", "upsampler"} < set(axes)
    assert axes[-1] == "val/psnr.max" and importance.with_respect_to == "val/psnr.max"
    assert [panel.media_keys for panel in panels["Pictures: LR bicubic | SR | HR"]] == [
        ["pictures/chelsea"],
        ["pictures/coffee"],
    ]
    flow = [panel.metric_regex for panel in panels["Gradient flow"]]
    assert "diagnoses/signal/.*" in flow and "diagnoses/dead/.*" in flow
    runs = made.runset_settings
    assert runs.pinned_columns[:3] == ["run:displayName", "config:generator.value", "config:init.value"]
    assert "summary:val/psnr.max" in runs.pinned_columns
    assert [(o.item.name, o.ascending) for o in runs.order] == [("val/psnr.max", False)]


def test_the_report_has_the_same_panels_each_with_a_run_table_of_the_project() -> None:
    made = dashboard.report([PLACE], "my name")
    grids = [block for block in made.blocks if type(block).__name__ == "PanelGrid"]
    sections = dashboard.workspace([PLACE], "x").sections
    assert [types(grid.panels) for grid in grids] == [types(section.panels) for section in sections]
    for grid in grids:
        (runs,) = grid.runsets
        assert (runs.entity, runs.project) == ("me", "mine") and "config:norm.value" in runs.pinned_columns


def test_a_project_without_pictures_has_no_empty_panel() -> None:
    bare = dashboard.Project("me", "mine")
    assert "MediaBrowser" not in str([types(s.panels) for s in dashboard.workspace([bare], "x").sections])
    grids = [block for block in dashboard.report([bare], "x").blocks if type(block).__name__ == "PanelGrid"]
    assert grids and all(grid.panels for grid in grids)


@pytest.mark.parametrize(
    "panel", [*dashboard.curves(PLACE.figures), *dashboard.gradient_flow(), *dashboard.health(PLACE)]
)
def test_no_panel_lies_upon_another_or_off_the_page(panel: Any) -> None:
    assert panel.layout.x >= 0 and panel.layout.x + panel.layout.w <= 24


def test_every_key_on_them_is_one_that_a_run_has() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train")
    assert set(dashboard.CHOICES) - {"seed"} <= set(config) and "seed" in config
    if "task" in config:
        assert tuple(figure.name for figure in figures_of(config.task.figures)) == ("psnr", "ssim")


def test_another_task_s_figures_are_on_them_as_their_runs_declare_them() -> None:
    figure = {"name": "rmse", "title": "RMSE", "better": "lower", "digits": 3, "noise": 0.01, "baseline": "noisy"}

    class Run:
        summary = {"pictures/a": 1, "val/rmse": 2}  # noqa: RUF012

        def __init__(self, config: dict[str, Any]) -> None:
            self.config = config

    class Api:
        def runs(self, *_: object, **__: object) -> list[Run]:
            return [Run({}), Run({"config": {"scale": None, "task": {"figures": [figure]}}})]

    (place,) = dashboard.seen(Api(), "me", "mine")
    assert (place.pictures, place.headline.title) == (("pictures/a",), "RMSE")
    made = dashboard.workspace([place], "x")
    assert [(o.item.name, o.ascending) for o in made.runset_settings.order] == [("val/rmse.min", True)]
    assert {"summary:val/rmse.min", "summary:val/rmse_gain.max"} < set(made.runset_settings.pinned_columns)
    panels = {section.name: section.panels for section in made.sections}
    assert {panel.y[0] for panel in panels["What each choice is worth"]} == {"val/rmse"}
    assert "Pictures: noisy | made | wanted" in panels
    told = " ".join(str(block.text) for block in dashboard.report([place], "x").blocks if hasattr(block, "text"))
    assert "Less than 0.01 is noise." in told and "PSNR" not in told


def test_a_project_of_generators_has_both_losses_its_details_and_no_word_of_a_baseline() -> None:
    said = {"name": "fd", "title": "FD", "better": "lower", "digits": 1, "noise": 2.0}
    resolved = {"scale": None, "task": {"figures": [said]}}
    keys = ("train/loss", "train/loss_discriminator", "val/fd", "val/kid_error", "pictures/samples", "lr")

    class Run:
        summary = dict.fromkeys(keys, 1)
        config = {"figures": [{**said, "title": "FD (digits)"}], "config": resolved}  # noqa: RUF012

    class Api:
        def runs(self, *_: object, **__: object) -> list[Run]:
            return [Run()]

    (place,) = dashboard.seen(Api(), "me", "mine")
    assert (place.headline.title, place.losses) == ("FD (digits)", ("train/loss", "train/loss_discriminator"))
    made = dashboard.workspace([place], "x")
    assert [(o.item.name, o.ascending) for o in made.runset_settings.order] == [("val/fd.min", True)]
    assert "config:adversary.value" in made.runset_settings.pinned_columns
    panels = {section.name: section.panels for section in made.sections}
    assert [panel.media_keys for panel in panels["Pictures"]] == [["pictures/samples"]]
    drawn = {panel.y[0] for panel in panels["Health and time"]}
    assert {"train/loss", "train/loss_discriminator", "val/kid_error", "checkerboard"} < drawn
    assert "diagnoses/gap" not in drawn, "nobody logs it without a baseline"
    told = " ".join(str(block.text) for block in dashboard.report([place], "x").blocks if hasattr(block, "text"))
    assert "None" not in told and "over" not in told.replace("over all runs", "") and "gap" not in told


class Told:
    """A run as the public API tells it."""

    def __init__(self, task: str, summary: dict[str, Any]) -> None:
        figures = {"super_resolution": ["psnr", "higher"], "generation": ["fd", "lower"]}[task]
        said = {"name": figures[0], "title": figures[0].upper(), "better": figures[1]}
        self.summary = summary
        self.config = {
            "task": task,
            "config": {"task": {"figures": [said]}, "scale": 2 if figures[0] == "psnr" else None},
        }


def told_by(*runs: Told) -> list[Any]:
    class Api:
        def runs(self, *_: object, **__: object) -> list[Told]:
            return [*runs]

    return list(dashboard.seen(Api(), "me", "mine"))


def test_a_project_of_two_tasks_has_a_set_of_panels_for_each_and_each_filters_its_own_runs() -> None:
    tasks = told_by(
        Told("generation", {"val/fd": {"min": 20.0}, "pictures/samples": {}}),
        Told("super_resolution", {"val/psnr": {"max": 31.0}, "pictures/coffee": {}}),
    )
    sections = {section.name: section.panels for section in dashboard.workspace(tasks, "x").sections}
    for task, key, picture in (("Generation", "val/fd", "samples"), ("Super-resolution", "val/psnr", "coffee")):
        assert {panel.y[0] for panel in sections[f"{task}: What each choice is worth"]} == {key}
        (shown,) = [panels for name, panels in sections.items() if name.startswith(f"{task}: Pictures")]
        assert [panel.media_keys for panel in shown] == [[f"pictures/{picture}"]]
    pinned = dashboard.workspace(tasks, "x").runset_settings.pinned_columns
    assert {"summary:val/fd.min", "summary:val/psnr.max"} < set(pinned)
    blocks = dashboard.report(tasks, "x").blocks
    grids = [block.runsets[0].filters for block in blocks if type(block).__name__ == "PanelGrid"]
    assert set(grids) == {"Config('task') = 'generation'", "Config('task') = 'super_resolution'"}


def test_tables_and_the_lineage_of_the_best_run_and_its_data_have_panels() -> None:
    table = {"_type": "table-file", "nrows": 3}
    named = {"artifacts/data": "data-photos", "images": table, "evaluation/table": table, "evaluation/set5_psnr": 1.0}
    (place,) = told_by(
        Told("super_resolution", {"val/psnr": {"max": 30.0}, "artifacts/model": "model-worse", **named}),
        Told("super_resolution", {"val/psnr": {"max": 31.0}, "artifacts/model": "model-better", **named}),
        Told("super_resolution", {"artifacts/model": "model-unjudged"}),
    )
    sections = {section.name: section.panels for section in dashboard.workspace([place], "x").sections}
    assert [panel.table_name for panel in sections["Table of pictures"]] == ["images"]
    assert [panel.table_name for panel in sections["Evaluations"]] == ["evaluation/table"]
    shown = [(panel.artifact, panel.tab) for panel in sections["Lineage"]]
    assert shown == [("model-better", "lineage"), ("data-photos", "lineage")]


def test_of_a_figure_of_which_less_is_better_the_best_model_is_that_with_the_least() -> None:
    (place,) = told_by(
        *(Told("generation", {"val/fd": {"min": fd}, "artifacts/model": f"model-{fd:g}"}) for fd in (20.0, 10.0, 30.0))
    )
    assert place.artifacts == ("model-10",)


# what is sent


@pytest.mark.slow
def test_the_door_saves_a_workspace_and_a_report_of_the_keys_own_entity(tmp_path: Path) -> None:
    table = {"_type": "table-file", "nrows": 3}
    summary = json.loads(RUN["summaryMetrics"]) | {
        "images": table,
        "artifacts/model": "model-r1",
        "artifacts/data": "d",
    }
    with loopback({"summaryMetrics": json.dumps(summary)}) as server:
        done = call(tmp_path, [str(DOOR), "project=mine", "name=seen"], server.url)
        assert done.returncode == 0, done.stderr
    (asked,) = server.sent("Runs")
    assert (asked["entity"], asked["project"]) == ("me", "mine")
    (space,), (page,) = server.sent("UpsertView2"), server.sent("upsertView")
    for sent, kind in ((space, "project-view"), (page, "runs")):
        assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("me", "mine", "seen")
        assert sent["type"] == kind
    for spec in (space["spec"], page["spec"]):
        assert json.loads(spec)
        for part in ("pictures/chelsea", "val/psnr", "init.value", "config:norm.value", "diagnoses/signal/.*"):
            assert part in spec
        for part in ("project-artifact", "model-r1", '"selectedTab":"lineage"', '"images"'):
            assert part in spec.replace('": "', '":"')
        for kind in ("Run History Line Plot", "Parallel Coordinates Plot", "Parameter Importance", "Media Browser"):
            assert kind in spec
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["workspace", "report"]
    assert "/me/mine" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("key", "runs", "sentence"),
    [
        (None, [{}], "No dashboard is saved: there is no API key; run `wandb login` once, or set WANDB_API_KEY."),
        (KEY, [], "The project me/mine has no run: train with logger.mode=online"),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path: Path, key: str | None, runs: list[Any], sentence: str) -> None:
    with loopback(*runs) as server:
        done = call(tmp_path, [str(DOOR), "project=mine"], server.url, key)
    assert done.returncode == 1 and done.stderr.startswith(sentence) and len(done.stderr.splitlines()) == 1
    assert not server.sent("UpsertView2")


@pytest.mark.slow
def test_no_network_and_no_package_are_one_sentence(tmp_path: Path) -> None:
    done = call(tmp_path, [str(DOOR)], "http://127.0.0.1:9")
    assert done.returncode == 1 and "cannot be reached" in done.stderr and len(done.stderr.splitlines()) == 1
    hidden = "import runpy, sys; sys.modules['wandb_workspaces'] = None; sys.argv = [sys.argv[1]]; "
    done = call(tmp_path, ["-c", hidden + "runpy.run_path(sys.argv[0], run_name='__main__')", str(DOOR)], "http://x")
    assert done.returncode == 1 and "need the package wandb-workspaces" in done.stderr


@pytest.mark.slow
def test_wandb_sync_of_a_whole_sweep_uploads_every_run_with_its_choices(tmp_path: Path) -> None:
    sweep = tmp_path / "my-sweep"
    sweep.mkdir()
    (sweep / "sweep.json").write_text("{}")
    job = (
        "import sys\nfrom upsweep.tracking.wandb_run import WandbRun\n"
        "for i, init in enumerate(('he', 'xavier')):\n"
        "    run = WandbRun(f'{sys.argv[1]}/{i}', best={'psnr': 'max'}, choices={'init': init}, flat={'seed': i})\n"
        "    for step in (1, 2): run.log_metrics({'val/psnr': 30.0 + step}, step=step)\n"
        "    run.finish()\n"
    )
    assert call(tmp_path, ["-c", job, str(sweep)], "http://127.0.0.1:9").returncode == 0
    for _ in range(2):  # again, as when a sweep goes on
        gather_runs(sweep, [sweep / "0", sweep / "1", sweep / "not-yet"])
    parts = sorted(map(str, sweep.glob("wandb/offline-run-*")))
    assert len(parts) == 2
    with loopback() as server:
        done = call(tmp_path, ["-m", "wandb", "sync", *parts], server.url)
        assert done.returncode == 0, done.stderr + done.stdout
    buckets = server.sent("UpsertBucket")
    configs = [json.loads(bucket["config"]) for bucket in buckets if bucket.get("config")]
    assert {config["init"]["value"] for config in configs} == {"he", "xavier"}
    assert {bucket["groupName"] for bucket in buckets if bucket.get("groupName")} == {"my-sweep"}
    history = [
        json.loads(line)
        for stream in server.streamed
        for line in stream.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
    ]
    assert sorted(row["val/psnr"] for row in history if "val/psnr" in row) == [31.0, 31.0, 32.0, 32.0]
