"""Artifacts and tables of runs, offline and against a stand-in for W&B's server; checkpoints that lie there."""

import hashlib
import json
import logging
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.test_tracking import home, records_of, summary_of  # noqa: F401 - a fixture
from tests.wandb_stand_in import KEY, Kept, Loopback, call, loopback

from upsweep.common.errors import UserError
from upsweep.imaging.tiles import GAP, Cell, Panel, apart
from upsweep.runs.about import About
from upsweep.runs.identity import images_of
from upsweep.tracking import artifacts, weights
from upsweep.tracking.csv_run import CsvRun
from upsweep.tracking.registry import promote
from upsweep.tracking.reopened import TARGET
from upsweep.tracking.wandb_run import WandbRun

PIXELS = np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3)
ROWS: list[dict[str, Cell]] = [
    {"image": "coffee", "SR": Panel("SR", PIXELS, "SR 31.00 dB"), "psnr": 31.0},
    {"image": "=chelsea", "SR": Panel("SR", PIXELS, "SR"), "psnr": 30.0, "ssim": 0.5},
]
DIGESTS = {"training/a.png": "1a", "training/sub/b.png": "2b", "validation/c.png": "3c"}
SIZES = {"training/a.png": "64x48", "validation/c.png": "32x32"}
TOLD: dict[str, Any] = {"images/training": 2, "size": SIZES}


def checkpoint(folder: Path, content: bytes = b"weights") -> Path:
    file = folder / "checkpoints" / "best.ckpt"
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name("fresh")
    fresh.write_bytes(content)
    return fresh.replace(file)


def logged(folder: Path, content: bytes = b"weights", **options: Any) -> tuple[WandbRun, dict[str, Any]]:
    """A run that logs all that there is, and its artifacts by their type."""
    run = WandbRun(folder, **options)
    run.log_data("photos", DIGESTS, TOLD)
    run.log_metrics({"val/psnr": 31.0}, step=1)
    run.log_table("images", ROWS)
    run.log_model(checkpoint(folder, content), {"figures": {"psnr": 31.0, "fd": float("inf")}, "seed": 1})
    run.finish()
    assert run.directory is not None
    return run, {record["type"]: record for record in records_of(run.directory, "artifact")}


# ---- offline ----


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A run that was logged offline, its artifacts, and what lies in the home folder then."""
    base = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
            patch.delenv(name)
        for name in ("CACHE", "DATA", "CONFIG"):  # set by the run, undone by pytest
            patch.setenv(f"WANDB_{name}_DIR", "")
        patch.setenv("WANDB_ERROR_REPORTING", "")
        patch.setenv("HOME", str(base / "home"))
        (base / "home").mkdir()
        run, found = logged(base / "job")
        import wandb

        wandb.teardown()
    return run, found, base


def test_an_offline_run_has_its_model_with_figures_and_aliases_and_holds_no_second_copy_of_it(offline):
    run, found, base = offline
    model = found["model"]
    assert model["name"] == f"model-{run.version}" and sorted(model["aliases"]) == ["best", "latest"]
    metadata = json.loads(model["metadata"])
    assert metadata == {"figures": {"psnr": 31.0, "fd": "Infinity"}, "seed": 1}
    (entry,) = model["manifest"]["contents"]
    assert (entry["path"], entry["size"]) == ("best.ckpt", "7")
    kept = Path(entry["local_path"])
    assert kept.is_relative_to(base / "job" / "wandb")
    assert kept.samefile(base / "job" / "checkpoints" / "best.ckpt")  # a link: no room is taken
    checkpoint(base / "job", b"of a later epoch")
    assert kept.read_bytes() == b"weights"
    assert list((base / "home").iterdir()) == []


def test_an_offline_run_uses_a_data_set_of_names_sizes_and_digests_without_a_pixel_or_a_path(offline):
    _, found, base = offline
    data = found["dataset"]
    assert data["name"] == "data-photos" and data["use_after_commit"]
    entries = {entry["path"]: entry for entry in data["manifest"]["contents"]}
    assert {name: entry["digest"] for name, entry in entries.items()} == DIGESTS
    assert {name: entry["extra"]["size"] for name, entry in entries.items() if "extra" in entry} == SIZES
    assert all("local_path" not in entry and str(base) not in entry["ref"] for entry in entries.values())
    assert json.loads(data["metadata"]) == {"images/training": 2}


def test_a_table_has_a_row_an_image_and_its_pictures(offline):
    run, found, _ = offline
    assert run.directory is not None
    (file,) = run.directory.glob("files/media/table/*.json")
    table = json.loads(file.read_text())
    assert table["columns"] == ["image", "SR", "psnr", "ssim"]
    assert [(row[0], row[2], row[3]) for row in table["data"]] == [("coffee", 31.0, None), ("=chelsea", 30.0, 0.5)]
    assert summary_of(run.directory)["summary"]["images"]["nrows"] == 2
    parts = [entry["path"] for entry in found["run_table"]["manifest"]["contents"]]
    assert "images.table.json" in parts and len([part for part in parts if part.endswith(".png")]) >= 1


def test_without_artifacts_a_run_has_neither_model_nor_data_set_and_its_table_all_the_same(home, tmp_path):  # noqa: F811
    _, found = logged(tmp_path / "job", artifacts=False)
    assert set(found) == {"run_table"}
    assert not (tmp_path / "job" / "wandb" / "models").exists()


def test_the_same_images_are_the_same_version_and_another_digest_is_another(tmp_path):
    def version(digests: dict[str, str]) -> str:
        return str(artifacts.dataset("data-photos", digests, {}).digest)

    assert version(DIGESTS) == version(dict(reversed(DIGESTS.items())))
    assert version(DIGESTS) != version({**DIGESTS, "training/a.png": "1b"})


def test_a_run_that_goes_on_offline_keeps_its_newest_model_alone(home, tmp_path):  # noqa: F811
    logged(tmp_path / "job")
    _, found = logged(tmp_path / "job", b"better weights")
    (kept,) = (tmp_path / "job" / "wandb" / "models").iterdir()
    assert kept.read_bytes() == b"better weights"
    assert found["model"]["manifest"]["contents"][0]["local_path"] == str(kept)


def test_what_wandb_does_not_take_is_told_and_the_run_goes_on(home, tmp_path, caplog):  # noqa: F811
    run = WandbRun(tmp_path / "job")
    with caplog.at_level(logging.WARNING, "upsweep"):
        run.log_model(tmp_path / "missing.ckpt", {})
    run.log_metrics({"val/psnr": 31.0}, step=1)
    run.finish()
    assert "W&B did not take the model of the run" in caplog.text
    assert run.directory is not None and summary_of(run.directory)["state"] == "finished"


# ---- plain values ----


def test_many_images_are_one_entry_whose_digest_any_of_them_changes():
    many = {f"{i}.png": f"{i:x}" for i in range(4001)}
    said = images_of(many, {"c.png": "3c"})
    assert list(said) == ["training/4001 images", "validation/c.png"]
    assert said["training/4001 images"] != images_of({**many, "7.png": "0"}, {})["training/4001 images"]


def test_a_panel_comes_apart_into_its_tiles():
    left, right = PIXELS, PIXELS[:, ::-1]
    gap = np.full((30, GAP, 3), 255, np.uint8)
    titles, pixels = {"made": "SR", "wanted": "HR"}, np.concatenate([left, gap, right], axis=1)
    tiles = apart(Panel("x", pixels, "x", titles, labels=("SR 31", "HR")))
    assert [(tile.name, tile.caption) for tile in tiles] == [("SR", "SR 31"), ("HR", "HR")]
    np.testing.assert_array_equal(tiles[0].pixels, left)
    np.testing.assert_array_equal(tiles[1].pixels, right)


def test_a_csv_run_writes_the_table_beside_its_pictures(tmp_path):
    run = CsvRun(tmp_path)
    run.log_table("images", ROWS)
    folder = tmp_path / "csv" / "version_0"
    lines = (folder / "images.csv").read_text().splitlines()
    assert lines[:2] == ["image,SR,psnr,ssim", "coffee,images/1-SR.png,31.0,"]
    assert lines[2].startswith("'=chelsea,")  # no formula
    assert (folder / "images" / "1-SR.png").is_file()


# ---- what lies at W&B ----


def at_wandb(server: Loopback, alias: str = "best", files: dict[str, bytes] | None = None) -> None:
    """An artifact `model-1` there, with these files."""
    contents = {}
    for name, content in (files or {"best.ckpt": b"weights"}).items():
        digest = hashlib.md5(content)
        server.files[digest.hexdigest()] = content
        contents[name] = {"digest": b64encode(digest.digest()).decode(), "size": len(content)}
    number = len(server.artifacts)
    manifest = {
        "version": 1,
        "storagePolicy": "wandb-storage-policy-v1",
        "storagePolicyConfig": {"storageLayout": "V2"},
        "contents": contents,
    }
    server.artifacts.append(Kept(f"{number}", "model-1", "model", number, f"{number}", {}, [alias], manifest, True))


@pytest.fixture
def elsewhere(home, tmp_path, monkeypatch):  # noqa: F811
    """A clean process of a user who has a key, in an empty folder."""
    monkeypatch.setattr(weights, "_fetched", {})
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_checkpoint_at_wandb_is_downloaded_once_and_later_needs_no_server(elsewhere, home, monkeypatch, caplog):  # noqa: F811
    before = {key: value for key, value in os.environ.items() if key.startswith("WANDB_")}
    with loopback() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        at_wandb(server, files={"best.ckpt": b"weights", "readme.md": b"words", "last.ckpt": b"more"})
        file = weights.located("wandb:me/mine/model-1:best")
        assert file.read_bytes() == b"weights" and file.is_relative_to(elsewhere / ".cache" / "upsweep" / "wandb")
        assert weights.version_of("wandb:me/mine/model-1:best") == "me/mine/model-1:v0"
        asked = len(server.operations)
        monkeypatch.setattr(weights, "_fetched", {})  # as in another process
        assert weights.located("wandb:me/mine/model-1:v0") == file
        assert len(server.operations) == asked
        loaded = [path for path in server.paths if hashlib.md5(b"weights").hexdigest() in path]
        assert weights.located("wandb:me/mine/model-1:best") == file and len(loaded) == 1
    monkeypatch.setattr(weights, "_fetched", {})
    with caplog.at_level(logging.WARNING, "upsweep"):
        assert weights.located("wandb:me/mine/model-1:best") == file
    assert "as it was fetched before" in caplog.text
    assert list(home.iterdir()) == []
    monkeypatch.delenv("WANDB_BASE_URL")
    assert {key: value for key, value in os.environ.items() if key.startswith("WANDB_")} == before


@pytest.mark.parametrize(
    ("said", "files", "sentence"),
    [
        (
            "wandb:mine",
            None,
            "checkpoint=wandb:mine is no name at W&B: write checkpoint=wandb:ENTITY/PROJECT/NAME:ALIAS",
        ),
        ("wandb:../../x:best", None, "is no name at W&B"),
        ("wandb:me/mine/x:../best", None, "is no name at W&B"),
        ("wandb:me/mine/model-2:best", None, "W&B gives no such artifact"),
        ("wandb:me/mine/model-1:best", {"../a.ckpt": b"a"}, r"has no checkpoint \(.ckpt, .safetensors\)"),
        ("wandb:me/mine/model-1:best", {"a.ckpt": b"a", "b.ckpt": b"b"}, r"several checkpoints \(a.ckpt, b.ckpt\)"),
    ],
)
def test_a_name_that_is_no_checkpoint_at_wandb_is_one_sentence(elsewhere, monkeypatch, said, files, sentence):
    with loopback() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        at_wandb(server, files=files)
        with pytest.raises(UserError, match=sentence):
            weights.located(said)


def test_without_a_key_that_is_said(elsewhere, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="init_from=wandb:me/mine/model-1:best cannot be fetched: there is no API key"):
        weights.located("wandb:me/mine/model-1:best", "init_from")


@pytest.mark.slow
def test_online_a_run_replaces_its_model_and_says_what_it_used(elsewhere, monkeypatch, caplog):
    with loopback() as server, caplog.at_level(logging.WARNING, "upsweep"):
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        at_wandb(server)
        start = {"checkpoint": "wandb:me/mine/model-1:v0"}
        for content in ("first", "second", "third"):  # it goes on twice
            run, _ = logged(elsewhere / "job", content.encode(), mode="online", config=start)
            own = server.of(f"model-{run.version}")
            if content == "first":
                own[0].aliases.append("paper")  # which somebody wants to keep
        assert [each.version for each in server.of("data-photos")] == [0]
    assert caplog.text == ""
    assert [(each.version, {*each.aliases}) for each in own] == [(0, {"paper"}), (2, {"best", "latest"})]
    assert [entry["size"] for entry in own[1].entries.values()] == [len("third")]
    used = [(said.get("input") or said)["artifactID"] for said in server.sent("UseArtifact")]
    assert used.count("0") == 1 and used.count(server.of("data-photos")[0].id) == 3
    assert not (elsewhere / "job" / "wandb" / "models").exists()


def test_a_model_is_promoted_by_its_name_or_by_the_folder_of_its_run(elsewhere, monkeypatch):
    job = elsewhere / "job"
    (job / "wandb").mkdir(parents=True)
    About(config={"logger": {"_target_": TARGET, "entity": "me", "project": "mine"}}).write(job)
    (job / "wandb" / "id").write_text("1")
    with loopback() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        at_wandb(server)
        for said in ("me/mine/model-1:v0", "wandb:mine/model-1", str(job)):
            assert promote(said) == ("me/mine/model-1:v0", "our-lab/wandb-registry-model/mine:v0")
        promote("me/mine/model-1", registry="lab", collection="upscaler")
    places = [
        (said["input"]["projectName"], said["input"]["artifactPortfolioName"]) for said in server.sent("LinkArtifact")
    ]
    assert places == [("wandb-registry-model", "mine")] * 3 + [("wandb-registry-lab", "upscaler")]


def test_what_cannot_be_promoted_is_one_sentence(elsewhere, monkeypatch):
    with pytest.raises(UserError, match="promote=model-1 is no model: give ENTITY/PROJECT/NAME:ALIAS"):
        promote("model-1")
    (elsewhere / "job").mkdir()
    with pytest.raises(UserError, match="this folder has no W&B run"):
        promote("job")
    with loopback() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(UserError, match="W&B did not link me/mine/model-1:best into the registry model"):
            promote("me/mine/model-1")
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="Nothing is promoted: there is no API key"):
        promote("me/mine/model-1")


@pytest.mark.slow
def test_wandb_sync_uploads_the_model_and_says_that_the_run_used_its_data(home, tmp_path):  # noqa: F811
    run, _ = logged(tmp_path / "job")
    with loopback() as server:
        done = call(tmp_path, ["-m", "wandb", "sync", str(run.directory)], server.url)
        assert done.returncode == 0, done.stderr
    (model,), (data,) = server.of(f"model-{run.version}"), server.of("data-photos")
    assert model.committed and model.metadata["figures"]["psnr"] == 31.0 and sorted(model.aliases) == ["best", "latest"]
    assert b"weights" in server.files.values()
    assert data.committed and {name: entry["digest"] for name, entry in data.entries.items()} == DIGESTS
    assert [said["input"]["artifactID"] for said in server.sent("UseArtifact")] == [data.id]
