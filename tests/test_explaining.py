"""What is explained, and where: photos, windows, networks side by side, jobs of a sweep, and the files that stay."""

import base64
import hashlib
import html
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as fields_of
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import initialize_config_dir
from PIL import Image
from tests.small_job import NET
from tests.small_results import result
from tests.small_synthesisers import SYNTHESISER, trained
from tests.test_tracking import home, records_of, summary_of  # noqa: F401 - a fixture
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.common.progress import Bar
from upsweep.explaining import latents, upscalers
from upsweep.explaining.attribution import LAM
from upsweep.explaining.case import Square, case, fullest_window, window_at
from upsweep.explaining.drawing import heat_over
from upsweep.explaining.explainer import parts_of
from upsweep.explaining.failures import Patches
from upsweep.explaining.features import Features
from upsweep.explaining.page import PAGE, figures_table, write_explanation
from upsweep.explaining.photo import DEFAULT, LARGEST, Photo
from upsweep.explaining.request import Request
from upsweep.explaining.section import Section, figures_of, panels
from upsweep.explaining.sweep import TILE, Jobs, explain_jobs, strip
from upsweep.explaining.synthesisers import Looks
from upsweep.explaining.upscalers import BeforePhoto, Spread
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.files import Picture
from upsweep.imaging.resize import enlarge, imresize
from upsweep.imaging.writing import write_image
from upsweep.metrics.figure import Figure
from upsweep.networks import Network, checkpoints
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.runs.about import About
from upsweep.runs.layout import BEST, WHY, WHY_FOLDER, WHY_PICTURE
from upsweep.runs.layout import PAGE as REPORT
from upsweep.runs.manifest import Entry, Manifest
from upsweep.runs.strip import read_strip
from upsweep.runs.why import Why

CONF = Path(__file__).resolve().parent.parent / "conf"
pytestmark = pytest.mark.usefixtures("one_thread")

SPEC: dict[str, Any] = {**NET, "recipe": SYNTHESISER["recipe"], "scale": 2, "channels": 1}
QUICK: dict[str, Any] = {
    "lam": {"fold": 3},
    "patches": {"side": 8, "count": 2},
    "features": {"crop": 12, "channels": 4, "layers": 2},
    "latents": {"latents": 4, "walks": 2, "shown": 3},
    "device": "cpu",
}


def samples(height: int = 64, width: int = 80, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)


def a_photo(path: Path, pixels: np.ndarray) -> Path:
    write_image(path, Picture(pixels))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 64 rows and 80 columns."""
    return a_photo(tmp_path_factory.mktemp("photos") / "noise.png", samples())


def network(seed: int = 0, **changes: Any) -> Upscaler:
    torch.manual_seed(seed)
    return checkpoints.as_upscaler(checkpoints.build({**SPEC, **changes}), "the test").eval()


def before(file: Path, **more: Any) -> BeforePhoto:
    """An explainer that is quick."""
    shown, patches, lam = Features(**QUICK["features"]), Patches(**QUICK["patches"]), LAM(**QUICK["lam"])
    return BeforePhoto(**{"photo": Photo.read(file), "lam": lam, "patches": patches, "shown": shown, **more})


def made(explainer: BeforePhoto, **networks: Upscaler) -> list[Section]:
    with Bar(len(explainer.parts), shown=False) as bar:
        return list(explainer.sections(networks, bar))


# Photos


@pytest.mark.parametrize(
    ("at", "corner"),
    [(None, (138, 0)), ([0, 0], (0, 0)), ([700, 39], (188, 0)), ([1299, 5], (276, 0)), ([512, 0], (0, 0))],
)
def test_of_a_large_photo_the_part_around_a_place_or_the_middle_is_looked_at(
    tmp_path: Path, at: list[int] | None, corner: tuple[int, int]
) -> None:
    pixels = samples(40, 1300)
    photo = Photo.read(a_photo(tmp_path / "wide.png", pixels), at)
    assert (photo.corner, photo.size, photo.name) == (corner, (1300, 40), "wide")
    left = corner[0]
    np.testing.assert_array_equal(photo.picture.samples, pixels[:, left : left + LARGEST])
    assert photo.said == f"wide has 1300x40 pixels; only the 1024x40 from [{left},0] on are used."


def test_a_window_is_asked_for_and_told_in_the_files_own_pixels(tmp_path: Path) -> None:
    pixels = samples(40, 1300)
    file = a_photo(tmp_path / "wide.png", pixels)
    explainer = before(file, photo=Photo.read(file, [1280, 4])).at(1280, 4, 16)
    rows, columns = explainer.window.slices
    np.testing.assert_array_equal(explainer.photo.picture.samples[rows, columns], pixels[4:20, 1280:1296])
    assert explainer.square == [1280, 4, 16] and "[1280,4]" in explainer.before
    with pytest.raises(
        UserError, match=r"^at=\[1290,4\] .* is not inside wide, 1024x40 HR pixels from \[276,0\] on\.$"
    ):
        explainer.at(1290, 4, 16)


def test_a_small_photo_is_looked_at_whole_and_nothing_is_said_of_it(file: Path) -> None:
    photo = Photo.read(file, [79, 63])
    assert photo.corner == (0, 0) and photo.said == ""
    np.testing.assert_array_equal(photo.picture.samples, samples())


def test_without_a_file_it_is_the_coffee_of_scikit_image() -> None:
    photo = Photo.read(None)
    assert photo.name == Path(DEFAULT).stem == "coffee" and photo.size == (600, 400)


def test_hr_is_the_photo_cropped_to_whole_lr_pixels_and_lr_its_bicubic_shrink(file: Path) -> None:
    photo = Photo.read(file)
    seen = photo.seen(3, 3)
    hr = torch.from_numpy(samples()).permute(2, 0, 1)[None, :, :63, :78] / 255
    torch.testing.assert_close(seen.hr, hr)
    torch.testing.assert_close(seen.lr, imresize(hr.double(), 1 / 3).float(), atol=1e-6, rtol=0)
    assert photo.seen(3, 3) is seen
    luma = photo.seen(2, 1).hr
    torch.testing.assert_close(
        luma, rgb_to_y(torch.from_numpy(samples()).permute(2, 0, 1)[None] / 255), atol=2e-3, rtol=0
    )


def test_a_grey_photo_is_the_same_three_times_for_a_network_of_colours(tmp_path: Path) -> None:
    photo = Photo.read(a_photo(tmp_path / "grey.png", samples(channels=1)))
    for image in (photo.seen(2, 3).lr, photo.seen(2, 3).hr):
        assert image.shape[1] == 3 and torch.equal(image[:, :1].expand_as(image), image)
    assert torch.equal(photo.seen(2, 3).hr[:, :1], photo.seen(2, 1).hr)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_left_aside(tmp_path: Path, channels: int) -> None:
    pixels = samples(channels=channels)
    clear = Photo.read(a_photo(tmp_path / "clear.png", pixels)).seen(2, 3)
    opaque = Photo.read(a_photo(tmp_path / "opaque.png", np.ascontiguousarray(pixels[..., :-1]))).seen(2, 3)
    assert torch.equal(clear.hr, opaque.hr) and torch.equal(clear.lr, opaque.lr)


def test_16_bits_are_those_8_that_are_nearest(tmp_path: Path) -> None:
    pixels = samples(dtype=np.uint16)
    found = Photo.read(a_photo(tmp_path / "deep.png", pixels)).seen(2, 3).hr * 255
    np.testing.assert_allclose(found[0].permute(1, 2, 0), pixels / 257, atol=0.5 + 1e-4)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ([80, 0], r"at=\[80,0\] is not in noise.png, which has 80x64 pixels"),
        ([0, 64], r"is not in noise.png"),
        ([-1, 0], r"is not in noise.png"),
        ([1], "must be two whole numbers"),
        ([1, 2, 3], "must be two whole numbers"),
        ([1.5, 2], "must be two whole numbers"),
        ([True, 2], "must be two whole numbers"),
        ("12", "must be two whole numbers"),
    ],
)
def test_a_place_that_is_none_is_told_in_a_sentence(file: Path, at: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        Photo.read(file, at)
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")


def test_a_file_that_is_no_photo_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "missing.png", "."):
        with pytest.raises(UserError) as refusal:
            Photo.read(tmp_path / name)
        assert str(tmp_path / name) in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="too few for x4"):
        Photo.read(a_photo(tmp_path / "small.png", samples(3, 30))).seen(4, 1)


# The window


def brute_force(energy: Tensor, size: int) -> tuple[int, int]:
    """Row and column of the fullest square, by trying all of them."""
    height, width = energy.shape
    places = list(product(range(height - size + 1), range(width - size + 1)))
    return max(places, key=lambda place: float(energy[place[0] :, place[1] :][:size, :size].sum()))


@pytest.mark.parametrize("size", [2, 7, 24])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_window_is_the_square_in_which_the_networks_differ_most(tmp_path: Path, count: int, size: int) -> None:
    photo = Photo.read(a_photo(tmp_path / "small.png", samples(26, 32)))
    networks = {str(seed): network(seed) for seed in range(count)}
    found = before(tmp_path / "small.png", photo=photo).where_they_differ(networks.items(), size).window
    image = photo.seen(2, 1)
    with torch.no_grad():
        looks = [one(image.lr) for one in networks.values()]
    looks += [enlarge(image.lr, 2)] if count == 1 else []
    spread = torch.stack(looks).double().mean(2)[:, 0].var(0, correction=0)
    assert (found.top, found.left) == brute_force(spread, size) and found.size == size


def test_the_first_of_equal_windows_is_taken() -> None:
    assert fullest_window(torch.ones(9, 9), 4, "even") == Square(0, 0, 4)
    energy = torch.zeros(9, 9)
    energy[5, 7] = 1
    assert fullest_window(energy, 3, "point") == Square(3, 5, 3)


def test_networks_of_unlike_scales_differ_in_the_part_that_all_have(file: Path) -> None:
    networks = {f"x{scale}": network(scale=scale) for scale in (2, 3)}
    photo = Photo.read(file)
    with torch.no_grad():
        looks = [one(photo.seen(one.scale, 1).lr)[0, 0, :63, :78].double() for one in networks.values()]
    found = before(file).where_they_differ(networks.items(), 8).window
    assert (found.top, found.left) == brute_force(torch.stack(looks).var(0, correction=0), 8)


def test_a_network_that_makes_no_image_has_no_say_in_where_they_differ(file: Path) -> None:
    good, bad = network(), network(1)
    nn.init.constant_(next(bad.parameters()), float("nan"))
    alone = before(file).where_they_differ([("good", good)], 8).window
    assert before(file).where_they_differ([("bad", bad), ("good", good)], 8).window == alone
    with pytest.raises(UserError, match="bad makes NaN or infinity of noise"):
        before(file).where_they_differ([("bad", bad)], 8)
    with pytest.raises(UserError, match="no network"):
        before(file).where_they_differ([], 8)


@pytest.mark.parametrize("size", [1, 0, -4, 65, 2.5, True, "9"])
def test_a_size_that_no_window_has_is_told_in_a_sentence(file: Path, size: Any) -> None:
    for ask in (lambda: before(file).at(0, 0, size), lambda: before(file).where_they_differ([("a", network())], size)):
        with pytest.raises(UserError, match=rf"^size={size} must be 2 to 64: noise has 80x64 HR pixels\.$"):
            ask()


def test_a_window_beyond_the_image_is_refused(file: Path) -> None:
    image = Photo.read(file).seen(2, 1)
    assert window_at(64, 48, 16, image) == Square(48, 64, 16)
    for x, y in ((65, 48), (64, 49), (-1, 0), (0, -1)):
        with pytest.raises(UserError, match=r"^at=\[-?\d+,-?\d+\] with size=16 is not inside noise"):
            window_at(x, y, 16, image)
    # The image is cropped to whole LR pixels: what lies in the photo may not lie in it.
    explainer = before(file, parts=("attribution",)).at(64, 48, 16)
    with pytest.raises(UserError, match=r"is not inside noise, 78x63 HR pixels"):
        made(explainer, x3=network(scale=3))


def test_a_window_covers_lr_pixels_in_whole_or_in_part() -> None:
    assert Square(4, 6, 8).in_lr(2) == (slice(2, 6), slice(3, 7))
    assert Square(4, 6, 8).in_lr(3) == (slice(1, 4), slice(2, 5))


def test_the_spread_is_the_variance_of_torch() -> None:
    images = torch.rand(5, 1, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    spread = Spread()
    for image in images:
        spread.add(image)
    expected = images.double().mean(2)[:, 0].var(0, correction=0)
    torch.testing.assert_close(spread.variance, expected, atol=1e-14, rtol=1e-9)


# Parts and networks


def test_parts_are_made_in_their_order_and_only_those_that_were_asked_for() -> None:
    known = ("a", "b", "c")
    assert parts_of("all", known) == parts_of(["b", "all"], known) == known
    assert parts_of("b", known) == ("b",)
    assert parts_of(["c", "a", "c"], known) == ("a", "c")


@pytest.mark.parametrize("asked", ["fields", ["latent_walks", "fields"], [], None, 3, [3], {"a": 1}])
def test_parts_that_are_none_are_told_with_those_that_are(asked: Any) -> None:
    with pytest.raises(UserError, match="all, or some of latent_walks, layer_effects, nearest_training_images") as no:
        parts_of(asked, latents.PARTS)
    assert "\n" not in str(no.value)


def test_a_case_is_a_network_before_an_image_in_evaluation_mode(file: Path) -> None:
    net, image = network().train(), Photo.read(file).seen(2, 1)
    one = case("net", net, image)
    assert not net.training and (one.name, one.scale) == ("net", 2)
    with torch.no_grad():
        torch.testing.assert_close(one.sr, net(image.lr))
    torch.testing.assert_close(one.bicubic, Bicubic(scale=2)(image.lr))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks as runs leave them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, scale in {"a": 2, "b": 2, "x3": 3}.items():
        trained(folder / name, spec=SPEC, seed=ord(name[0]), scale=scale)
    trained(folder / "latents")
    return folder


def answer(runs: Path, *names: str, **asked: Any) -> list[str]:
    checkpoint = [str(runs / name) for name in names]
    return list(Request(**{**QUICK, "checkpoint": checkpoint, "parts": "frequencies", "size": 8, **asked}).answer())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "x3"], "a enlarges 2 times and x3 enlarges 3 times: networks side by side must have one scale"),
        (["a", "latents"], "latents names a DCGAN, which is not an upscaler"),
    ],
)
def test_networks_that_cannot_be_compared_are_refused(
    runs: Path, file: Path, tmp_path: Path, names: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        answer(runs, *names, input=str(file), output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def door() -> Iterator[None]:
    """The configs, as within a door: they say which images generators from latents were trained on."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.mark.usefixtures("door")
def test_an_upscaler_beside_a_synthesiser_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a does not make images from latents: explain it in a separate command"):
        answer(runs, "latents", "a", parts="latent_walks", output=str(tmp_path / "out"))
    for key, value in {"input": "photo.png", "at": [0, 0], "benchmark": "set5"}.items():
        with pytest.raises(UserError, match=rf"^{key}=.* is for upscalers only, and .* makes images from latents"):
            answer(runs, "latents", output=str(tmp_path / "out"), **{key: value})
    with pytest.raises(UserError, match="parts=fields does not exist for these networks"):
        answer(runs, "latents", parts="fields", output=str(tmp_path / "out"))
    with pytest.raises(UserError, match="parts=latent_walks does not exist for these networks"):
        answer(runs, "a", parts="latent_walks", output=str(tmp_path / "out"))


def test_a_run_is_named_by_its_folder_its_file_or_as_shipped_weights(runs: Path, file: Path, tmp_path: Path) -> None:
    for number, word in enumerate((str(runs / "a"), str(runs / "a" / BEST), "fsrcnn_x2")):
        said = answer(runs, checkpoint=word, input=str(file), at=[8, 4], output=str(tmp_path / str(number)))
        name = "fsrcnn_x2" if word == "fsrcnn_x2" else "a"
        assert said[0] == f"{name} before noise, the 8x8 HR pixels at [8,4]."
        assert said[1].splitlines()[1].startswith(name) and said[-1].endswith(PAGE)
        assert sorted(p.name for p in (tmp_path / str(number)).iterdir()) == [PAGE, "frequencies.png"]


def test_two_checkpoints_of_one_name_are_told_apart_by_their_paths(runs: Path, file: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.ckpt").write_bytes((runs / name / BEST).read_bytes())
    files = [str(tmp_path / name / "net.ckpt") for name in "ab"]
    said = answer(runs, checkpoint=files, input=str(file), output=str(tmp_path / "out"))
    assert said[0].startswith("a/net, b/net before noise")
    assert [line.split()[0] for line in said[1].splitlines()] == ["network", "a/net", "b/net"]


class Own(Upscaler):
    """A class of one's own, whose output is not float32."""

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__(scale, channels)
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU())
        self.last = nn.ConvTranspose2d(4, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


def test_a_class_of_ones_own_must_be_allowed(tmp_path: Path, file: Path) -> None:
    target = f"{__name__}.Own"
    run = trained(tmp_path / "own", spec={"_target_": target, "scale": 2, "channels": 1})
    with pytest.raises(UserError, match="Own"):
        answer(run, checkpoint=str(run), input=str(file), output=str(tmp_path / "out"))
    said = answer(run, checkpoint=str(run), input=str(file), output=str(tmp_path / "out"), allow=[target])
    assert said[0].startswith("own before noise")


NETWORKS = {
    "own": lambda: Own(2, 3).eval(),
    "pools": lambda: network(_target_="upsweep.networks.upscalers.unet.UNet", depth=2, channels=3),
    "sees everything": lambda: network(
        recipe={**SPEC["recipe"], "norm": {"_target_": "upsweep.blocks.norm.InstanceNorm"}}
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_has_every_section(name: str, file: Path) -> None:
    net = NETWORKS[name]()
    explainer = before(file).where_they_differ([(name, net)], 8)
    sections = made(explainer, **{name: net})
    assert tuple(section.name for section in sections) == upscalers.PARTS
    for section in sections:
        assert section.picture.dtype == np.uint8 and section.picture.ndim == 3 and section.picture.std() > 5
        assert section.title and section.reading and any(name in text for text in section.said)
    figures = figures_of(sections, name)
    assert {*figures} <= {figure.name for figure in explainer.figures} and np.isfinite([*figures.values()]).all()
    assert ("field" in figures) is (name != "sees everything")


# Files


NASTY = '<b>"x"&</b>'


def a_section(name: str = "fields", **more: Any) -> Section:
    given = {"title": f"Fields of {NASTY}", "picture": samples(9, 12), "reading": NASTY, "said": (f"{NASTY}: 3.",)}
    return Section(**{"name": name, **given, **more})


def test_the_page_escapes_every_word_holds_the_pictures_and_needs_nothing_else(tmp_path: Path) -> None:
    sections = [a_section(), a_section("features", picture=samples(5, 4))]
    table = figures_table([NASTY], {NASTY: {"erf": 3}}, [Figure(name="erf", title=f"ERF {NASTY}")])
    file = write_explanation(tmp_path / "new" / "folder", f"Why: {NASTY}", sections, table, notes=[NASTY])
    page = file.read_text(encoding="utf-8")
    assert "<b>" not in page and '"x"' not in page
    assert html.unescape(page).count(NASTY) == 15  # every place that it was given
    assert {path.name for path in file.parent.iterdir()} == {PAGE, "fields.png", "features.png"}
    inside = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    for section, data in zip(sections, inside, strict=True):
        written = (file.parent / f"{section.name}.png").read_bytes()
        assert base64.b64decode(data) == written
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(written))), section.picture)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert "default-src 'none'" in policy and f"style-src 'sha256-{digest}'" in html.unescape(policy)
    assert not re.search(r"https?://|<script|style=", page)


def test_a_figure_that_a_network_does_not_have_is_a_dash_and_one_that_none_has_no_column() -> None:
    declared = [Figure(name=name, title=name.upper(), digits=1) for name in ("a", "b", "c")]
    table = figures_table(["one", "two"], {"one": {"a": 1}, "two": {"c": 2.25}}, declared)
    assert table.headers == ["network", "A", "C"]
    assert table.rows == [["one", "1.0", "-"], ["two", "-", "2.2"]]


def test_figures_and_pictures_are_those_of_all_sections() -> None:
    sections = [a_section(figures={"n": {"a": 1.0}, "m": {"a": 9.0}}), a_section("more", figures={"n": {"b": 2.0}})]
    assert figures_of(sections, "n") == {"a": 1.0, "b": 2.0} and figures_of(sections, "nobody") == {}
    assert [(panel.name, panel.caption) for panel in panels(sections)] == [
        (name, f"Fields of {NASTY}. {NASTY}: 3.") for name in ("fields", "more")
    ]


def test_heat_is_red_above_zero_blue_below_and_leaves_the_image_where_it_is_zero() -> None:
    heat = torch.tensor([[1.0, -1.0, 0.0, 0.25]])
    image = torch.full((1, 1, 4), 0.5)
    shown = heat_over(image, heat)[:, 0]
    torch.testing.assert_close(shown[:, 0], torch.tensor([0.80, 0.09, 0.11]))
    torch.testing.assert_close(shown[:, 1], torch.tensor([0.10, 0.32, 0.75]))
    torch.testing.assert_close(shown[:, 2], torch.full((3,), 0.35 + 0.65 * 0.5))
    torch.testing.assert_close(shown[:, 3], (shown[:, 0] + shown[:, 2]) / 2)  # the root of a quarter
    torch.testing.assert_close(heat_over(image, heat, most=4.0)[:, 0, 0], shown[:, 3])
    assert torch.equal(heat_over(image, torch.zeros(1, 4))[:, 0], shown[:, 2:3].expand(3, 4))


def test_the_tiles_of_a_strip_are_of_one_height_and_keep_their_shape() -> None:
    made_of = strip([np.zeros((16, 32, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)])
    assert made_of.shape == (TILE, 2 * TILE + 8 + TILE, 3)


# A sweep


def a_sweep(folder: Path, *, seeds: tuple[int, ...] = (1, 2, 3)) -> Path:
    """Finished jobs with untrained networks."""
    overrides = [[f"seed={seed}"] for seed in seeds]
    for number, seed in enumerate(seeds):
        trained(folder / str(number), spec=SPEC, seed=seed, result=result(30 + seed, seed=str(seed)))
    entries = tuple(Entry(str(number), number, words) for number, words in enumerate(overrides))
    Manifest(about=About(), jobs=entries).write(folder)
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return a_sweep(tmp_path / "sweep")


@dataclass(frozen=True, kw_only=True)
class Quick(BeforePhoto):
    """Asked as any other, and answers with sections that cost nothing; `fields` has a tile."""

    def sections(self, networks: Mapping[str, Network], bar: Bar) -> Iterator[Section]:
        for name, part in product(networks, self.parts):
            tiles = {name: samples(4, 4)} if part == "fields" else {}
            yield a_section(part, tiles=tiles, figures={name: {"di": 1.0}})
            bar.advance()


def explained(sweep: Path, file: Path, *, overwrite: bool = False, **more: Any) -> list[str]:
    """The jobs that are explained now."""
    explainer = Quick(**{"photo": Photo.read(file), "parts": ("frequencies",), **more})
    return [folder.name for folder, _, _ in explain_jobs(Jobs.of(sweep), explainer, overwrite=overwrite)]


def test_every_job_is_left_its_record_its_strip_and_its_page(sweep: Path, file: Path) -> None:
    explainer = before(file, parts=("attribution", "fields", "frequencies")).at(8, 4, 16)
    found = list(explain_jobs(Jobs.of(sweep), explainer))
    assert [folder.name for folder, _, _ in found] == ["0", "1", "2"]
    for folder, why, sections in found:
        assert Why.read(folder) == why
        assert (why.image, why.window) == ("noise", [8, 4, 16])
        (name,) = sections[0].figures
        assert why.figures == figures_of(sections, name) and {"di", "effective_field"} <= {*why.figures}
        assert [figure.name for figure in why.meanings] == [f.name for f in explainer.figures if f.name in why.figures]
        assert why.spectrum == sections[2].spectrum[name] and "frequency" in why.spectrum
        with Image.open(folder / WHY_PICTURE) as picture:
            tiles = [one.tiles[name] for one in sections if name in one.tiles]
            np.testing.assert_array_equal(np.asarray(picture), strip(tiles))
        assert "effective field" in read_strip(folder / WHY_PICTURE).shows
        pngs = [f"{part}.png" for part in explainer.parts]
        assert sorted(path.name for path in (folder / WHY_FOLDER).iterdir()) == [pngs[0], PAGE, *pngs[1:]]


def test_what_was_explained_is_kept_and_what_changed_is_done_again(sweep: Path, file: Path, tmp_path: Path) -> None:
    everything = ["0", "1", "2"]
    assert explained(sweep, file) == everything
    records = {name: (sweep / name / WHY).stat().st_mtime_ns for name in everything}
    assert explained(sweep, file) == []
    assert records == {name: (sweep / name / WHY).stat().st_mtime_ns for name in everything}
    assert explained(sweep, file, overwrite=True) == everything
    for change in (
        {"window": Square(2, 2, 16)},
        {"lam": LAM(fold=4)},
        {"patches": Patches(side=9)},
        {"shown": Features(crop=13)},
        {"parts": ("frequencies", "upsamplers")},
        {"photo": Photo.read(a_photo(tmp_path / "noise.png", samples()[::-1].copy()))},
    ):
        assert explained(sweep, file, **change) == everything, change
        assert explained(sweep, file, **change) == []
    assert explained(sweep, file) == everything
    checkpoint = sweep / "1" / BEST
    os.utime(checkpoint, (1, 1))  # as a job that was trained anew
    assert explained(sweep, file) == ["1"]


def test_a_strip_of_an_explanation_before_does_not_stay_beside_another_record(sweep: Path, file: Path) -> None:
    explained(sweep, file, parts=("fields",))
    assert (sweep / "0" / WHY_PICTURE).is_file()
    explained(sweep, file, parts=("frequencies",))
    assert not (sweep / "0" / WHY_PICTURE).exists()


def spoiled(sweep: Path) -> None:
    """The first job's checkpoint is broken, the second one's network has diverged."""
    (sweep / "0" / BEST).write_bytes(b"no checkpoint")
    state = torch.load(sweep / "1" / BEST, weights_only=True)
    for weight in state["state_dict"].values():
        if weight.is_floating_point():
            weight.fill_(float("nan"))
    torch.save(state, sweep / "1" / BEST)


@pytest.mark.parametrize("at", [None, [8, 4]])
def test_a_job_that_cannot_be_explained_costs_a_warning_and_no_more(
    sweep: Path, file: Path, caplog: pytest.LogCaptureFixture, at: list[int] | None
) -> None:
    spoiled(sweep)
    asked = {**QUICK, "parts": "frequencies", "size": 8, "at": at, "input": str(file)}
    said = list(Request(**asked, sweep=str(sweep)).answer())
    assert said[0].startswith("3 jobs before noise") and said[-1].endswith(REPORT)
    warnings = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(warnings) == 2 and "Job 0 is left out" in warnings[0] and "diverged" in warnings[1]
    assert [(sweep / name / WHY).is_file() for name in "012"] == [False, False, True]


def test_a_sweep_of_which_nothing_can_be_loaded_is_refused(sweep: Path, file: Path) -> None:
    for name in "012":
        (sweep / name / BEST).write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="is broken"):
        list(Request(**QUICK, sweep=str(sweep), input=str(file)).answer())


def test_what_is_stopped_in_between_leaves_no_record_and_goes_on(
    sweep: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        assert (sweep / "1" / WHY_FOLDER / PAGE).is_file()  # all but the record is there
        raise KeyboardInterrupt

    jobs = explain_jobs(Jobs.of(sweep), Quick(photo=Photo.read(file), parts=("frequencies",)))
    next(jobs)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Why, "write", stopped)
        next(jobs)
    assert [(sweep / name / WHY).is_file() for name in "012"] == [True, False, False]
    assert explained(sweep, file) == ["1", "2"]


def test_a_record_that_cannot_be_read_is_made_anew(sweep: Path, file: Path) -> None:
    explained(sweep, file)
    (sweep / "2" / WHY).write_text("{", encoding="utf-8")
    assert explained(sweep, file) == ["2"]


def test_the_report_has_the_section_afterwards(sweep: Path, file: Path) -> None:
    asked = {**QUICK, "parts": ["attribution"], "size": 8, "input": str(file), "sweep": str(sweep)}
    said = list(Request(**asked).answer())
    assert said[-1] == f"Report: {sweep.resolve() / REPORT}"
    page = (sweep / REPORT).read_text(encoding="utf-8")
    assert 'id="why"' in page and "noise" in page and "DI" in page
    again = list(Request(**asked).answer())
    assert again[1].startswith("0 jobs were explained now")


def test_checkpoint_and_sweep_are_one_question() -> None:
    with pytest.raises(UserError, match="checkpoint= and sweep= both"):
        Request(checkpoint="fsrcnn_x2", sweep="x").answer()


def test_a_folder_that_holds_files_is_not_written_to(runs: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    asked: dict[str, Any] = {"input": str(file), "output": str(tmp_path / "out")}
    with pytest.raises(UserError, match="has files; overwrite=true replaces"):
        answer(runs, "a", **asked)
    answer(runs, "a", **asked, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PAGE, "frequencies.png", "mine"]


# Synthesisers


@pytest.mark.usefixtures("door")
def test_a_synthesiser_is_explained_beside_its_training_images(runs: Path, tmp_path: Path) -> None:
    data = {"cache_dir": str(tmp_path / "cache")}
    said = answer(runs, "latents", parts="all", output=str(tmp_path / "out"), data=data)
    assert said[0] == "latents before latents, beside digits."
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {*latents.PARTS}


@pytest.mark.usefixtures("door")
def test_a_synthesiser_whose_images_are_not_there_is_explained_without_them(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise UserError("There are no digits.")

    monkeypatch.setattr("upsweep.explaining.request.task_on", missing)
    said = answer(runs, "latents", parts="latent_walks", output=str(tmp_path / "out"))
    assert said[0] == "latents before latents, beside images that are not known."
    assert "The samples are shown without training images: There are no digits." in caplog.text


# W&B


def test_figures_and_pictures_go_to_wandb(home: Path, runs: Path, file: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out"
    answer(runs, "a", input=str(file), output=str(out), logger={"mode": "offline", "project": "mine", "name": None})
    (part,) = (out / "wandb").glob("offline-run-*")
    said = summary_of(part)["summary"]
    assert {"why/restored", "why/invented"} <= {*said}
    (logged,) = [record["item"] for record in records_of(part, "history")]
    with (
        Image.open(part / "files" / logged["why/frequencies.path"]) as picture,
        Image.open(out / "frequencies.png") as png,
    ):
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(png))


def test_figures_of_several_networks_have_names_of_their_own_at_wandb(
    home: Path,  # noqa: F811
    file: Path,
    tmp_path: Path,
) -> None:
    sweep = a_sweep(tmp_path / "a=1 (sweep)", seeds=(1, 2))
    out = tmp_path / "out"
    answer(
        sweep, "0", "1", input=str(file), output=str(out), logger={"mode": "offline", "project": "mine", "name": None}
    )
    (part,) = (out / "wandb").glob("offline-run-*")
    keys = [key for key in summary_of(part)["summary"] if key.startswith("why/") and key.endswith("/restored")]
    assert len(keys) == 2 and all(re.fullmatch(r"why/[\w-]+/restored", key) for key in keys), keys


@pytest.mark.parametrize(("checkpoint", "said"), [([], r"checkpoint=\[\]"), (["fsrcnn_x2"] * 2, "fsrcnn_x2.* twice")])
def test_no_network_and_one_named_twice_are_refused(checkpoint: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        list(Request(checkpoint=checkpoint, output=str(tmp_path / "out")).answer())


def test_patches_are_no_larger_than_a_small_photo(tmp_path: Path) -> None:
    file = a_photo(tmp_path / "small.png", samples(24, 30))
    explainer = before(file, parts=("failures",)).at(0, 0, 8)
    (section,) = explainer.sections({"net": network()}, Bar(1))
    assert section.name == "failures" and 0 <= section.figures["net"]["worse"] <= 100


def test_the_defaults_of_the_config_are_those_of_the_library() -> None:
    config = yaml.safe_load((CONF / "explain.yaml").read_text(encoding="utf-8"))
    made = {"lam": LAM, "patches": Patches, "features": Features, "latents": Looks}
    for key, options in made.items():
        assert config[key] == asdict(options()), key
    request = {f.name: f.default for f in fields_of(Request) if f.default is not MISSING}
    of_both = set(config) & set(request) - {"output", "logger"}  # a folder with the time in its name; a group
    assert {"size", "parts", "at", "device"} <= of_both
    for key in of_both:
        assert config[key] == request[key], key
