"""The trained weights that the package carries: each is what its card says, and reaches what its card says."""

import hashlib
import os
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.data.known import find
from upsweep.evaluation import evaluate, mean
from upsweep.evaluation.benchmarks import Benchmark, benchmark_images
from upsweep.networks import checkpoints
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.network import cost
from upsweep.runs.layout import BEST, LAST

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
@pytest.mark.parametrize(("name", "scale"), [at for at in SHIPPED if at[0] not in ("fsrcnn", "deconvnet")])
def test_kodak24_gives_the_validation_figure_again(name: str, scale: int) -> None:
    generator, card = load_upscaler(release.path(name, scale)), card_of(name, scale)
    assert card["data"].endswith("validated on 24 images of Kodak24")
    images = Benchmark("Kodak24", tuple(find("kodak24", Path(ROOT)))).images(scale, generator.channels)
    assert mean(evaluate(generator, images))[0] == pytest.approx(card["validation_psnr"], abs=0.002)
