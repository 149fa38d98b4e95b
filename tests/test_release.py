"""The trained weights that the package carries: each is what its card says, and reaches what its card says."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf
from PIL import Image
from tests.small_job import NET, small_job

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.data.known import find
from upsweep.evaluation import evaluate, mean
from upsweep.evaluation.benchmarks import Benchmark, benchmark_images
from upsweep.networks import checkpoints
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.network import cost
from upsweep.runs.about import About
from upsweep.runs.history import read as history
from upsweep.runs.identity import Identity
from upsweep.runs.layout import BEST, HISTORY, LAST
from upsweep.tracking.weights import DISTILLED
from upsweep.training.job import train
from upsweep.training.records import History

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))  # as for `python docs/cards.py`
cards: Any = import_module("cards")

SHIPPED = sorted(release.available())
ROOT = os.environ.get("UPSWEEP_DATA", "")


def card_of(name: str, scale: int) -> dict[str, Any]:
    return release.cards()[name, scale]


def test_the_default_weights_are_there_at_every_scale_of_the_papers() -> None:
    assert {(release.DEFAULT, scale) for scale in (2, 3, 4)} <= set(SHIPPED)


@pytest.mark.parametrize(("name", "scale"), SHIPPED)
def test_weights_are_those_of_their_card(name: str, scale: int) -> None:
    path, card = release.path(name, scale), card_of(name, scale)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["sha256"]
    generator = load_upscaler(path)
    price = cost(generator)
    assert (generator.scale, price.parameters, price.macs_per_pixel) == (
        scale,
        card["parameters"],
        card["macs_per_pixel"],
    )
    assert (name, scale) == (card["name"], card["scale"])
    assert path.stat().st_size < 100_000 or name != "fsrcnn"
    for row in card["benchmarks"].values():
        assert row["psnr"] > row["bicubic_psnr"] + 0.5
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert card["sha256"] in page and " ".join(card["command"]) in page and card["licence"] in page


def recipe_of(name: str, scale: int) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(Path(__file__).parents[1] / "conf")):
        return compose("train", overrides=[f"experiment=release/{name}_x{scale}"])


@pytest.mark.parametrize(("name", "scale"), SHIPPED)
def test_weights_for_commercial_use_have_seen_nothing_but_free_photographs(name: str, scale: int) -> None:
    config = recipe_of(name, scale)
    from_whom = {config.init_from, config.objective.get("teacher")} - {None}
    is_free = config.data.name == "free" and all(other.startswith("sesr_free_") for other in from_whom)
    licence = card_of(name, scale)["licence"]
    assert ("none of these licences forbids commercial use" in licence) == is_free == (name == "sesr_free")
    assert ("non-commercial research" in licence) != is_free


@pytest.mark.parametrize(("name", "scale"), SHIPPED)
def test_the_recipe_of_its_name_makes_that_generator(name: str, scale: int) -> None:
    config = recipe_of(name, scale)
    asked = cast(dict[str, Any], OmegaConf.to_container(config.generator, resolve=True))
    takes = signature(get_class(asked["_target_"])).parameters
    defaults = {key: each.default for key, each in takes.items() if key not in ("recipe", "scale")}
    assert {**defaults, **checkpoints.load(release.path(name, scale))[1]} == asked


def test_model_without_a_name_lists_the_weights_with_their_figures() -> None:
    door = [sys.executable, str(Path(__file__).parents[1] / "src" / "upscale.py"), "model="]
    said = subprocess.run(door, check=True, capture_output=True, text=True).stdout
    for name, scale in SHIPPED:
        card = card_of(name, scale)
        (row,) = [line for line in said.splitlines() if line.split()[:2] == [name, f"x{scale}"]]
        assert f"{card['weights']:,}" in row and f" {card['macs_per_pixel']:,.0f} " in row
        assert all(f" {figures['psnr']:.2f}" in row for figures in card["benchmarks"].values())


def test_a_name_that_is_mistyped_gets_the_one_that_is_meant() -> None:
    for said, meant in [("SESR", "sesr"), ("sesr-free", "sesr_free"), ("sesr_free_x3", "sesr_free scale=3")]:
        with pytest.raises(UserError, match=rf"no trained weights named {said}: .*Did you mean model={meant}\?$"):
            release.path(said, 2)
    with pytest.raises(UserError, match=r"no trained weights sesr for scale=8 \(it has x2, x3, x4\)"):
        release.path("sesr", 8)


def test_shipped_weights_are_found_by_name_and_others_by_their_path(tmp_path: Path) -> None:
    assert load_upscaler(release.located("fsrcnn_x3")).scale == 3
    run = tmp_path / "my run=1"
    (run / BEST).parent.mkdir(parents=True)
    (run / LAST).touch()
    with pytest.raises(UserError, match=r"nothing was validated yet; give .*last\.ckpt"):
        release.located(run)
    (run / BEST).touch()
    assert release.located(run) == release.located(str(run)) == run / BEST
    with pytest.raises(UserError, match=r"init_from=7 must be the path, or the name"):
        release.located(7, "init_from")  # type: ignore[arg-type]
    assert release.located(str(tmp_path / "fsrcnn_x3")) == tmp_path / "fsrcnn_x3"


def test_the_zoo_has_the_figures_and_the_licence_of_the_cards() -> None:
    zoo = (Path(__file__).parents[1] / "docs" / "zoo.md").read_text(encoding="utf-8")
    table = zoo.partition("<!-- weights:")[2].partition("<!-- end of weights -->")[0]
    for name in {name for name, _ in SHIPPED}:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| **{name}, shipped**")]
        for scale in sorted(scale for one, scale in SHIPPED if one == name):
            for figures in card_of(name, scale)["benchmarks"].values():
                assert f"{figures['psnr']:.2f}" in row
            assert card_of(name, scale)["licence"] in zoo


def test_weights_without_their_own_card_are_listed_without_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = release.path("sesr", 3)
    monkeypatch.setattr(release, "FOLDER", tmp_path)
    monkeypatch.setattr(release, "DEFAULT", "mine")
    for name in ("sesr_x3", "mine_x3", "other_x3"):
        shutil.copy(ours, tmp_path / f"{name}.safetensors")
    for name in ("sesr_x3", "other_x3"):
        shutil.copy(ours.with_suffix(".json"), tmp_path / f"{name}.json")
    with (tmp_path / "other_x3.safetensors").open("ab") as file:
        file.write(b"\0")
    assert [*release.cards()] == [("sesr", 3)]
    rows = {row[0]: row for row in release.listing().rows}
    assert rows["sesr"][-1] == "" and float(rows["sesr"][-2]) > 20
    for name in ("mine", "other"):
        assert rows[name][-1] == ("the default, without a card" if name == "mine" else "without a card")
        assert rows[name][-2] == rows[name][2] == "-"


# cards


def a_run(folder: Path, *sets: str, chosen_on: str = "train/Kodak24", **config: Any) -> Path:
    """What a run leaves that has seen an image of each of some folders."""
    folder.mkdir(exist_ok=True)
    replace(About.now(config), command=["python", "src/train.py", "seed=1"]).write(folder)
    seen = {f"{each}/a.png": "0" for each in sets}
    Identity(training=seen, validation={f"{chosen_on}/b.png": "1"}, judging={}).write(folder)
    return folder


def test_a_card_says_what_weights_and_their_forebears_have_seen(tmp_path: Path) -> None:
    first = a_run(tmp_path / "first", "train/Free")
    assert cards.trained_on(first) == "Free, validated on 1 images of Kodak24"
    assert "none of these licences forbids" in cards.licence(cards.trained_on(first))
    second = a_run(tmp_path / "second", "train/Free", init_from="fsrcnn_x2")
    assert cards.trained_on(second).startswith("Free, begun with fsrcnn_x2 (T91 and BSD200, taught by sesr_x2 (")
    taught: dict[str, Any] = {"_target_": DISTILLED, "teacher": str(second / BEST)}
    third = a_run(tmp_path / "third", "Free", objective={"_target_": "Sum", "terms": {"a": taught}}, checkpoint=None)
    data = cards.trained_on(third)
    assert "taught by weights of another run (Free, begun with fsrcnn_x2 (T91 and BSD200, taught by" in data
    assert "non-commercial research" in cards.licence(data)
    held = a_run(tmp_path / "held", "T91", "BSR/BSDS500/data/images/train", chosen_on="T91")
    assert cards.trained_on(held) == "T91 and BSD200, validated on 1 images of T91"


def test_the_command_of_a_card_names_no_folder_of_the_machine_that_trained() -> None:
    words = ["experiment=release/fsrcnn_x2", "hydra.run.dir=/my/runs/a", "resume='/my/runs/a'", "judge_anew=true"]
    made = cards.command_of(About(command=["python", "/my/src/train.py", *words]))
    assert made == ["python", "src/train.py", "experiment=release/fsrcnn_x2"]


@pytest.mark.parametrize("where", ["photos", "DIV2K/DIV2K_train_HR", "", "train/Kodak24"])
def test_data_whose_terms_are_not_known_get_no_card(tmp_path: Path, where: str) -> None:
    with pytest.raises(
        SystemExit,
        match=r"has seen .*, and docs/cards\.py knows the terms of T91, BSD200, BSDS500-test, Free, BSD100 al",
    ):
        cards.trained_on(a_run(tmp_path, where))


def test_weights_of_unknown_descent_get_no_card(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"x\.ckpt has no card, and lies in no run's folder"):
        cards.trained_on(a_run(tmp_path, "Free", checkpoint=str(tmp_path / "x.ckpt")))


def test_shipping_replaces_nothing_before_the_card_is_made(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "FOLDER", tmp_path / "release")
    (tmp_path / "release").mkdir()
    for name in cards.BENCHMARKS.values():
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (24, 24), (30, 160, 90)).save(tmp_path / "data" / name / "a.png")
    monkeypatch.setenv("UPSWEEP_DATA", str(tmp_path / "data"))
    run = tmp_path / "run"
    job = small_job(run, cache, config={"generator": NET})
    train(replace(job, callbacks=[*job.callbacks, History(run)]))
    with pytest.raises(SystemExit, match="knows the terms of"):
        cards.ship("mine", run)
    with pytest.raises(SystemExit, match="MINE/x= is no name for weights"):
        cards.ship("MINE/x", run)
    assert not list((tmp_path / "release").iterdir())
    a_run(run, "train/Free", generator=NET)
    cards.ship("mine", run)
    card = release.cards()["mine", 2]
    assert card["steps"] == [*history(run / HISTORY)][-1].step and card["data"].startswith("Free, validated")
    assert load_upscaler(release.path("mine", 2)).scale == 2


@pytest.mark.skipif(not (Path(ROOT) / "benchmarks" / "Set5").is_dir() or not ROOT, reason="UPSWEEP_DATA has no Set5")
@pytest.mark.parametrize(("name", "scale"), SHIPPED)
def test_set5_gives_the_cards_figures_again(name: str, scale: int) -> None:
    generator, said = load_upscaler(release.path(name, scale)), card_of(name, scale)["benchmarks"]["Set5"]
    images = benchmark_images("set5", Path(ROOT), scale=scale, channels=generator.channels)
    psnr, ssim = mean(evaluate(generator, images))
    assert psnr == pytest.approx(said["psnr"], abs=0.005)
    assert ssim == pytest.approx(said["ssim"], abs=0.0002)


@pytest.mark.slow
@pytest.mark.skipif(not ROOT or not find("kodak24", Path(ROOT)), reason="UPSWEEP_DATA has no Kodak24")
@pytest.mark.parametrize(("name", "scale"), [at for at in SHIPPED if at[0] != "deconvnet"])
def test_kodak24_gives_the_validation_figure_again(name: str, scale: int) -> None:
    generator, card = load_upscaler(release.path(name, scale)), card_of(name, scale)
    assert card["data"].endswith("validated on 24 images of Kodak24")
    images = Benchmark("Kodak24", tuple(find("kodak24", Path(ROOT)))).images(scale, generator.channels)
    assert mean(evaluate(generator, images))[0] == pytest.approx(card["validation_psnr"], abs=0.002)
