"""Promises of `method=images` and `method=module`: anybody's images and networks are judged as our own are."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.evaluation import evaluate, mean
from upsweep.evaluation.benchmarks import Benchmark, benchmark_images
from upsweep.evaluation.images import ImagesMethod, images
from upsweep.evaluation.methods import Views, asked
from upsweep.evaluation.modules import Asked, modules
from upsweep.evaluation.run import Evaluation, evaluate_all
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.files import Picture, Pixels, read_image, to_tensor, to_uint8
from upsweep.imaging.resize import enlarge
from upsweep.imaging.writing import write_image
from upsweep.metrics.protocol import Protocol
from upsweep.networks import checkpoints
from upsweep.networks.foreign import load_weights
from upsweep.tasks.super_resolution.data import batch_of_one
from upsweep.tasks.super_resolution.given import GivenImages
from upsweep.tasks.super_resolution.judging import bicubic

ROOT = Path(__file__).resolve().parent.parent
DOOR = ROOT / "src" / "evaluate.py"
DATA = Path(os.environ.get("UPSWEEP_DATA", ""))
real = pytest.mark.skipif(
    "UPSWEEP_DATA" not in os.environ or not (DATA / "benchmarks").is_dir(), reason="needs $UPSWEEP_DATA/benchmarks"
)
SET5 = Benchmark("Set5", tuple(Path(f"{name}.png") for name in ("baby", "bird", "butterfly", "head", "woman")))
SET14 = Benchmark("Set14", tuple(Path(f"{name}.png") for name in ("barbara", "face", "man")))
MINE = Benchmark("mine", (Path("img_001_SRF_2_HR.png"), Path("img_0010_SRF_2_HR.png")))


SMALL = """
import torch
class Net(torch.nn.Module):
    def __init__(self, factor=2):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))
        self.factor = factor
    def forward(self, x):
        assert x.max() > 2, "levels"
        return torch.nn.functional.interpolate(x * self.gain, scale_factor=self.factor)
"""


class Foreign(nn.Module):
    """A network as others write it: values of any range, of one or three channels."""

    def __init__(self, colours: int = 1, full: float = 1.0, cut: int = 0, scale: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(colours, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, colours, 1))
        self.full, self.cut, self.scale = full, cut, scale

    def forward(self, x: Tensor) -> Tensor:
        y = enlarge(x, self.scale) + 0.01 * enlarge(self.body(x / self.full), self.scale) * self.full
        return y[..., : y.shape[-1] - self.cut if x.shape[-1] % 2 else None]


class Release(nn.Module):
    """The shipped FSRCNN, for values in [0, 255] in and [-1, 1] out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = checkpoints.load_upscaler("fsrcnn_x2")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x / 255)
        return y * 2 - 1


class InPlace(Foreign):
    """Changes the image that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.1))


class Pools(nn.Module):
    """Adds the mean of cells of 8x8 LR pixels, and says so with `stride=8`."""

    def __init__(self, stride: int | None = None) -> None:
        super().__init__()
        if stride is not None:
            self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        cells = nn.functional.avg_pool2d(x, 8, ceil_mode=True, count_include_pad=False)
        means = nn.functional.interpolate(cells, scale_factor=8)[..., : x.shape[-2], : x.shape[-1]]
        return enlarge(0.9 * x + 0.1 * means, 2)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def files_in(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def paired(folder: Path | str, *benchmarks: Benchmark, scale: int | None = 2, every: bool = True) -> list[ImagesMethod]:
    found = images(str(folder), benchmarks or [SET5], [] if scale is None else [scale], every=every)
    return [method for method in found if isinstance(method, ImagesMethod)]


# ---- which file is of which image ----


@pytest.mark.parametrize(
    "form",
    [
        *(
            "{}.png",
            "{}_x2.png",
            "{}x2.png",
            "{}_SR.PNG",
            "{}_x2_SR.bmp",
            "{}_HR_x2_mymodel.png",
            "{}_HR.png",
            "{}-2x.jpg",
            "{}_EDSRx2.png",
        ),
        *(
            "{}_SRF_2_SR.tif",
            "x2_{}.webp",
            "mymodel_{}_scale2.png",
            "Set5/{}.png",
            "set5/X2/{}.png",
            "SET_5/{}_out.png",
        ),
        *("x2/Set5/{}_sr.png", "Set5/SRF_2/{}_multi-head_3.png"),
    ],
)
@pytest.mark.parametrize("case", [str.lower, str.capitalize, str.upper])
def test_any_usual_name_is_paired(tmp_path: Path, form: str, case: Callable[[str], str]) -> None:
    names = [path.stem for path in SET5.files]
    files_in(tmp_path, *(form.format(case(name)) for name in names))
    (method,) = paired(tmp_path)
    assert method.files == {"Set5": {name: tmp_path / form.format(case(name)) for name in names}}


def test_what_belongs_to_another_scale_benchmark_or_kind_is_passed_over(tmp_path: Path) -> None:
    names = [path.stem for path in SET5.files]
    files_in(tmp_path, *(f"{name}_x{scale}.png" for name in names for scale in (2, 3)), "notes.txt", "thumbnail.png")
    files_in(tmp_path, "baby.png")
    assert [method.scale for method in paired(tmp_path, scale=None)] == [2, 3], "names say the scales"
    (tmp_path / "baby.png").unlink()
    (x3,) = paired(tmp_path, SET5, SET14, scale=3, every=False)
    assert list(x3.files) == ["Set5"] and x3.files["Set5"]["woman"].name == "woman_x3.png"
    files_in(tmp_path, *(f"{name}_x2_{kind}.png" for name in names for kind in ("HR", "LR", "bicubic")))
    (x2,) = paired(tmp_path)
    assert x2.files["Set5"]["baby"].name == "baby_x2.png"
    (tmp_path / "baby_x2.png").unlink()
    with pytest.raises(
        UserError, match=r"at x2: baby \(baby_x2_HR\.png, baby_x2_LR\.png, baby_x2_bicubic\.png are named as HR"
    ):
        paired(tmp_path)  # neither its HR nor bicubic stands in for it
    other = files_in(tmp_path / "by_folder", *(f"Set14/{path.name}" for path in SET14.files), "Set14/baby.png")
    (only,) = paired(other, SET5, SET14, every=False)
    assert list(only.files) == ["Set14"], "Set14/baby.png is not Set5's"


def test_benchmarks_that_are_called_by_the_end_of_their_path_have_folders_of_these_names(tmp_path: Path) -> None:
    benchmarks = [Benchmark(title, (Path("cat.png"),)) for title in ("A/photos", "B/photos")]
    (row,) = paired(files_in(tmp_path, "sr/A/photos/cat.png", "sr/B/photos/cat.png"), *benchmarks)
    for title in ("A/photos", "B/photos"):
        assert row.files[title] == {"cat": tmp_path / "sr" / title / "cat.png"}


@pytest.mark.parametrize(
    ("hr", "sr"),
    [
        (["clips/calendar/0001.png", "clips/city/0001.png"], ["calendar/0001.png", "city/0001_x2.png"]),
        (["clips/calendar/0001.png", "clips/city/0001.png"], ["x2/Clips/Calendar/0001.png", "x2/Clips/City/0001.png"]),
        (["clips/calendar/0001.png", "clips/city/0001.png"], ["calendar/x2/0001.png", "city/x2/0001.png"]),
        (["cat2.png", "cat_2.png"], ["cat2.png", "cat_2.png"]),
        (["cat2.png", "cat_2.png"], ["cat2_x2.png", "x2_cat_2.png"]),
    ],
)
def test_a_folder_that_mirrors_the_hr_images_is_paired(tmp_path: Path, hr: list[str], sr: list[str]) -> None:
    benchmark = Benchmark("mine", tuple(tmp_path / "hr" / name for name in hr))
    (row,) = paired(files_in(tmp_path / "sr", *sr), benchmark)
    assert list(row.files["mine"].values()) == [tmp_path / "sr" / name for name in sr]


def test_files_named_as_hr_or_bicubic_are_judged_where_there_are_no_others(tmp_path: Path) -> None:
    files_in(tmp_path / "a", *(f"bicubic/Set5/{path.stem}_HR.png" for path in SET5.files))
    (alone,) = paired(tmp_path / "a")
    assert alone.files["Set5"]["baby"] == tmp_path / "a" / "bicubic" / "Set5" / "baby_HR.png"
    files_in(tmp_path / "a", *(f"SR/Set5/{path.stem}_HR.png" for path in SET5.files))
    (beside,) = paired(tmp_path / "a")  # all names say HR, and so tell none apart
    assert beside.files["Set5"]["baby"] == tmp_path / "a" / "SR" / "Set5" / "baby_HR.png"
    files_in(tmp_path / "a", *(f"HR/Set14/{path.stem}_HR.png" for path in SET14.files))
    (one,) = paired(tmp_path / "a", SET5, SET14, every=False)
    assert list(one.files) == ["Set5"], "where there is SR of one benchmark, HR of another is none"


def test_an_sr_may_be_named_as_an_hr_image_that_is_named_as_hr(tmp_path: Path) -> None:
    sr = ["SR/img_001_SRF_2_HR.png", "SR/img0010.png", *(f"SR/Set5/{path.name}" for path in SET5.files)]
    files_in(tmp_path, *sr, "HR/img_001_SRF_2_HR.png", "HR/img0010.png")
    (method,) = paired(tmp_path, SET5, MINE)
    assert [file.name for file in method.files["mine"].values()] == ["img_001_SRF_2_HR.png", "img0010.png"]


def test_names_of_hr_may_say_that_they_are_hr_and_begin_others(tmp_path: Path) -> None:
    files_in(tmp_path, "img_001_SRF_2_SR.png", "img0010_x2.png")
    (method,) = paired(tmp_path, MINE)
    assert [file.name for file in method.files["mine"].values()] == ["img_001_SRF_2_SR.png", "img0010_x2.png"]


def test_rows_have_the_names_of_folders_or_their_own(tmp_path: Path) -> None:
    a = files_in(tmp_path / "first", *(path.name for path in SET5.files))
    b = files_in(tmp_path / "b_x3", *(path.name for path in SET5.files))
    found = [*paired(a), *paired(f"mine={b}", scale=None)]
    assert [(method.name, method.scale, method.checkpoint) for method in found] == [("first", 2, a), ("mine", 3, b)]


@pytest.mark.parametrize(
    ("names", "scale", "said"),
    [
        (
            ["baby.png", "bird.png"],
            2,
            r"lacks 3 of 5 images of Set5 at x2: butterfly, head, woman\. Add them, as butterf",
        ),
        (["baby_x3.png"], 2, r"no SR of Set5 at x2: its files, such as baby_x3\.png, .* may name no other scale"),
        (["baby.png"], None, "no name says the scale"),
        (["ALL", "baby.jpg"], 2, r"2 images for baby of Set5 at x2: baby\.jpg, baby\.png\. Keep one"),
        (["ALL", "a_head_baby.png"], 2, r"may be the SR of baby, head of Set5"),
        (["notes.txt"], 2, "has no images"),
    ],
)
def test_images_that_are_missing_twice_there_or_ambiguous_are_one_sentence(
    tmp_path: Path, names: list[str], scale: int | None, said: str
) -> None:
    every = [path.name for path in SET5.files]
    files_in(tmp_path, *(name for said_name in names for name in (every if said_name == "ALL" else [said_name])))
    with pytest.raises(UserError, match=said) as caught:
        paired(tmp_path, scale=scale)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_or_has_nothing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images=nowhere is not a folder"):
        paired("nowhere")
    files_in(tmp_path, "cat.png")
    with pytest.raises(UserError, match=r"no SR of Set5, Set14 at x2: its files, such as cat\.png, .* baby_x2\.png"):
        paired(tmp_path, SET5, SET14, every=False)


# ---- what images come to ----


def png(folder: Path, name: str, pixels: Pixels) -> None:
    folder.mkdir(exist_ok=True)
    write_image(folder / name, Picture(pixels), marked=False)


def test_an_image_without_any_error_may_be_the_hr(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    png(tmp_path / "photo", "a.png", np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8))
    hr = Benchmark("mine", (tmp_path / "photo" / "a.png",))
    (method,) = images(str(tmp_path / "photo"), [hr], [2], every=True)
    evaluate_all(Evaluation(folder=tmp_path, methods=[method], benchmarks=[hr], protocol=Protocol(), pictures=False))
    assert "photo: 1 of its images (a) have no error at all. Are they the HR images?" in caplog.text


def test_grey_and_rgb_of_8_and_16_bits_come_to_the_same(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    colour, grey = (noise.integers(0, 256, (30, 41, channels), dtype=np.uint8) for channels in (3, 1))
    png(tmp_path / "hr", "colour.png", colour)
    png(tmp_path / "hr", "grey.png", grey)
    whole = benchmark_images(str(tmp_path / "hr"), scale=2, channels=1)
    colour, grey = colour[:, :40], grey[:, :40]
    luma = to_uint8(rgb_to_y(to_tensor(colour, np.float64)))
    sets: dict[str, tuple[Pixels, Pixels]] = {
        "plain": (colour, grey),
        "deep": (colour.astype(np.uint16) * 257, grey.astype(np.uint16) * 257),
        "grey_as_rgb": (colour, grey.repeat(3, axis=2)),
        "luma_alone": (luma, grey),
    }
    for name, (first, second) in sets.items():
        png(tmp_path / name, "colour_x2.png", first)
        png(tmp_path / name, "grey_x2.png", second)
        given = GivenImages(2, {each: tmp_path / name / f"{each}_x2.png" for each in ("colour", "grey")})
        assert [figures.psnr for figures in evaluate(given, whole)] == [100, 100], name


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((60, 48), r"has 60x48 pixels, and the HR of a has 80x64 at x4: that is x3: is scale=3 meant"),
        ((20, 16), r"as small as the LR"),
        ((72, 60), r"cropped to a multiple of 12: .* benchmark=FOLDER"),
        ((83, 65), r"crop the HR image to a multiple of 4"),
    ],
)
def test_images_of_another_size_say_what_was_expected(tmp_path: Path, size: tuple[int, int], said: str) -> None:
    png(tmp_path / "hr", "a.png", np.zeros((65, 83, 3), np.uint8))
    png(tmp_path / "sr", "a_x4.png", np.zeros((size[1], size[0], 3), np.uint8))
    with pytest.raises(UserError, match=said):
        evaluate(
            GivenImages(4, {"a": tmp_path / "sr" / "a_x4.png"}),
            benchmark_images(str(tmp_path / "hr"), scale=4, channels=1),
        )


@real
@pytest.mark.parametrize(("scale", "published"), [(2, 33.66), (3, 30.39), (4, 28.42)])
def test_bicubic_images_of_a_folder_come_to_the_published_row(tmp_path: Path, scale: int, published: float) -> None:
    whole = benchmark_images("set5", DATA, scale=scale, channels=1)
    for i in range(5):
        image = batch_of_one([whole[i]])
        png(tmp_path, f"{image.name}_SR.png", to_uint8(bicubic(image, Protocol(space="rgb"), scale)[0]))
    (method,) = paired(tmp_path, scale=scale)
    psnr, _ = mean(evaluate(method.images("Set5"), whole))
    assert psnr == pytest.approx(published, abs=0.02)


# ---- networks ----


def rows(*, views: Any = None, **given: Any) -> Any:
    (method,) = modules(Asked(**{"module": f"{__name__}.Foreign", **given}), [], views or Views())
    return method


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    png(tmp_path / "photo", "a.png", coarse.repeat(5, axis=0).repeat(5, axis=1))
    return tmp_path / "photo"


def test_values_of_any_range_come_to_the_same(photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(Foreign().state_dict(), tmp_path / "w.pth")
    whole = benchmark_images(str(photo), scale=2, channels=1)
    args = {"weights": [tmp_path / "w.pth"]}
    unit, levels = rows(**args), rows(**args, takes=255, args={"full": 255})
    (a,), (b,) = (evaluate(method.generator(), whole) for method in (unit, levels))
    assert a.psnr == pytest.approx(b.psnr, abs=0.01) and a.psnr > 10
    assert not caplog.messages
    (wrong,) = evaluate(rows(**args, gives=255).generator(), whole)
    assert wrong.psnr < a.psnr - 3
    assert "with range=[0,1] and range_out=[0,255]: is one of them another?" in caplog.text


def test_scale_and_colours_are_found_out() -> None:
    assert (rows().scale, rows().channels) == (2, 1)
    rgb = rows(args={"colours": 3, "scale": 4})
    assert (rgb.scale, rgb.channels, rgb.name) == (4, 3, "Foreign")


@pytest.mark.parametrize("views", [Views(self_ensemble=True), Views(tile=16)])
def test_a_module_that_changes_its_input_sees_each_view_of_the_image_itself(views: Views) -> None:
    image = torch.rand(1, 1, 24, 40, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    torch.manual_seed(1)
    plain = Views(self_ensemble=views.self_ensemble)
    wanted = rows(module=f"{__name__}.Foreign", views=plain).generator()(image - 0.1)
    torch.manual_seed(1)
    found = rows(module=f"{__name__}.InPlace", views=views).generator()(image)
    assert torch.equal(image, before) and torch.allclose(found, wanted, atol=1e-5)


def test_a_module_that_pools_is_tiled_by_its_own_stride() -> None:
    module = f"{__name__}.Pools"
    image = torch.rand(1, 1, 61, 50, generator=torch.Generator().manual_seed(0))
    whole, tiled = (rows(module=module, args={"stride": 8}, views=Views(tile=tile)).generator() for tile in (None, 16))
    assert torch.allclose(tiled(image), whole(image), atol=1e-5)
    for said, cells in (({}, 1), ({"stride": 3}, 3)):
        with pytest.raises(UserError, match=rf"{module} pools .* not {cells} LR pixel.* its attribute `stride`"):
            rows(module=module, args=said, views=Views(tile=16))


def test_a_module_whose_file_exits_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exits_at_import.py").write_text("import sys\n\nsys.exit(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"cannot be found or imported \(it ends the process, with exit code 2\)"):
        rows(module="exits_at_import.Net")


@real
def test_the_shipped_fsrcnn_as_a_foreign_module_has_its_own_row() -> None:
    whole = benchmark_images("set5", DATA, scale=2, channels=1)
    own = mean(evaluate(checkpoints.load_upscaler("fsrcnn_x2"), whole))
    foreign = rows(module=f"{__name__}.Release", takes=255, gives=[-1, 1])
    assert mean(evaluate(foreign.generator(), whole)) == pytest.approx(own, abs=1e-3)


def named(prefix: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {prefix + name: value for name, value in Foreign().state_dict().items()}


@pytest.mark.parametrize(
    "state",
    [
        named(""),
        {"params": named("module."), "iter": 7},
        {"params_ema": named(""), "params": {name: value + 1 for name, value in named("").items()}},
        {"state_dict": {**named("model."), "loss.vgg": torch.ones(1)}, "epoch": 3, "hyper_parameters": {"lr": 0.1}},
        {"model": {"state_dict": named("generator.module.")}},
        {"generator": named("_orig_mod.")},
        {name: value for name, value in named("").items() if "num_batches" not in name},
        {"ema": {"num_updates": torch.ones(1), "shadow": named("")}, "model": named("module.")},
        {"ema": {"num_updates": torch.ones(1)}, "model": named("")},
    ],
    ids=["plain", "params", "ema", "lightning", "nested", "compiled", "before_torch_0.4", "shadow", "no_average"],
)
def test_weights_are_found_as_trainers_write_them(tmp_path: Path, state: Mapping[str, Any]) -> None:
    torch.save(dict(state), tmp_path / "w.pth")
    module = Foreign()
    load_weights(module, tmp_path / "w.pth")
    assert all(torch.equal(value, named("")[name]) for name, value in module.state_dict().items())


def test_weights_may_be_safetensors_and_the_last_ones(tmp_path: Path) -> None:
    safetensors.torch.save_file(named("module."), tmp_path / "w.safetensors")
    module = Foreign()
    load_weights(module, tmp_path / "w.safetensors")
    assert torch.equal(module.state_dict()["body.0.weight"], named("")["body.0.weight"])
    last = {name: value + 1 for name, value in named("").items()}
    torch.save({"params_ema": named(""), "params": last}, tmp_path / "w.pth")
    load_weights(module, tmp_path / "w.pth", ema=False)
    assert torch.equal(module.state_dict()["body.0.weight"], last["body.0.weight"])
    torch.save(named(""), tmp_path / "w.pth")
    with pytest.raises(UserError, match="no moving average"):
        load_weights(module, tmp_path / "w.pth", ema=True)
    torch.save({**named(""), "ema": last}, tmp_path / "w.pth")
    load_weights(module, tmp_path / "w.pth", ema=False)
    assert torch.equal(module.state_dict()["body.0.weight"], named("")["body.0.weight"])
    torch.save({"ema": {"num_updates": torch.ones(1)}, "model": named("")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="does not fit"):
        load_weights(module, tmp_path / "w.pth", ema=True)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("sprung",))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"params": {"conv.weight": torch.ones(1)}},
            r"lacks body\.0\.weight, body\.0\.bias, body\.1\.weight, \.\.\. \(8 in",
        ),
        ({**named(""), "extra": torch.ones(1)}, r"the network has no extra \(1 in all\)"),
        ({**named(""), "body.0.bias": torch.ones(5)}, r"body\.0\.bias \(\[5\] in the file, \[4\] in the network\)"),
        ({**named(""), "body.0.bias": torch.full((4,), torch.nan)}, r"NaN or infinite"),
        ({"epoch": 3}, r"holds no weights: .* it has epoch"),
        ({"params": Trap()}, r"holds more than weights and plain values; it was not loaded .* state_dict\(\)"),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state, "w.pth")
    with pytest.raises(UserError, match=said) as caught:
        load_weights(Foreign(), Path("w.pth"))
    assert "\n" not in str(caught.value) and not Path("sprung").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"module": "nowhere.Net"}, r"module=nowhere\.Net cannot be found .*PYTHONPATH"),
        ({"module": "Net"}, r"module=Net cannot be found"),
        ({"module": "os.getcwd"}, r"gives a str, and must give a torch\.nn\.Module"),
        ({"args": {"width": 3}}, r"cannot be made with width=3 .*args\.NAME=VALUE"),
        ({"module": f"{__name__}.Pair"}, r"gives a tuple, and must give the SR images alone"),
        ({"module": "torch.nn.Identity"}, r"makes 64x48 with 1 channel.* must enlarge both sides"),
        ({"colour": "rgb"}, r"fails on an LR image of 64x48 with 3 channel"),
        ({"colour": "bgr"}, r"colour=bgr must be y"),
        ({"takes": "wide"}, r"range=wide must be 1"),
        ({"gives": [1, 0]}, r"range_out=\[1, 0\] must be 1"),
        ({"weights": [Path("nowhere.pth")]}, r"weights=nowhere\.pth is not a file"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        rows(**given)
    assert "\n" not in str(caught.value)


def test_a_module_that_crops_and_one_of_another_scale_are_one_sentence(photo: Path) -> None:
    cropping = rows(args={"cut": 2}).generator()
    png(photo, "a.png", np.zeros((42, 42, 3), np.uint8))
    with pytest.raises(UserError, match=r"makes 40x42 of an LR image of 21x21, and at x2 it must make 42x42"):
        evaluate(cropping, benchmark_images(str(photo), scale=2, channels=1))
    with pytest.raises(UserError, match=r"scale=3, but .* enlarges 2 times"):
        modules(Asked(module=f"{__name__}.Foreign"), [3], Views())
    with pytest.raises(UserError, match=r"nothing to judge: .* images=FOLDER or module="):
        asked()


@pytest.mark.slow
def test_the_door_judges_images_and_a_network_of_the_users_own_beside_bicubic(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "small.py").write_text(SMALL, encoding="utf-8")
    torch.save({"params": {"module.gain": torch.ones(1)}}, tmp_path / "w.pth")
    png(tmp_path / "others", "A_x3.png", read_image(photo / "a.png").pixels[:45, :39])
    command = [sys.executable, str(DOOR), "method=module", "module=nets.small.Net", "weights=w.pth", "args.factor=3"]
    command += ["module.range=255", "images=others", f"benchmark={photo}", "device=cpu", "hydra.run.dir=out"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    with (tmp_path / "out" / "table_x3.csv").open() as file:
        found = {row["method"]: row for row in csv.DictReader(file)}
    assert list(found) == ["bicubic", "others", "Net"]
    assert found["others"]["photo_psnr"] == "100.0" and found["others"]["parameters"] == ""
    assert found["Net"]["parameters"] == "1" and float(found["Net"]["milliseconds"]) > 0
    assert {path.parts[-3] for path in (tmp_path / "out" / "pictures").rglob("*.png")} == {"others", "Net"}
