"""The page to try weights on: what it writes is what the command line writes, and nothing leaves this machine."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from tests.small_synthesisers import trained
from tests.test_generation_page import CHROMIUM, needs_browser

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.data.photos import photo_files
from upsweep.demonstrating.drawing import between, draw
from upsweep.demonstrating.enlarging import WIPED, enlarge
from upsweep.demonstrating.local import HOST, PORTS, own_folder, port_of, stay_here
from upsweep.demonstrating.weights import Weights
from upsweep.imaging.files import Picture, read_image
from upsweep.imaging.marks import SOFTWARE
from upsweep.imaging.writing import write_image
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.upscaling.picture import Enlarger

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
Served = tuple[subprocess.Popen[str], str, Path]
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="no Gradio here (pip install -e '.[demo]')")


def weights(*checkpoints: Path) -> Weights:
    return Weights([*map(str, checkpoints)], CPU, None)


def photo(path: Path, height: int = 20, width: int = 30, dtype: type[np.uint8 | np.uint16] = np.uint8) -> Path:
    rng = np.random.default_rng(0)
    write_image(path, Picture(rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype)), marked=False)
    return path


# Weights


def test_the_packages_weights_are_offered_for_each_scale_with_the_default_first() -> None:
    offered = weights().upscalers
    assert {(name, scale) for scale, names in offered.items() for name in names} == set(release.available())
    assert all(names[0] == release.DEFAULT for names in offered.values())
    assert weights().scale == 2


def test_checkpoints_come_first_and_a_synthesiser_is_offered_for_drawing_alone(tmp_path: Path) -> None:
    named = release.path("deconvnet", 3)
    drawing = trained(tmp_path / "run")
    both = weights(named, drawing)
    assert both.upscalers[3][0] == str(named) and both.scale == 3
    assert [*both.synthesisers] == [str(drawing)]
    assert str(drawing) not in {name for names in both.upscalers.values() for name in names}


def test_weights_that_are_not_there_are_refused_as_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no checkpoint at nowhere\.ckpt"):
        weights(Path("nowhere.ckpt"))
    with pytest.raises(UserError, match="There are no trained weights named other: choose from "):
        weights().enlarger("other", 2)


# Photos


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_file_holds_the_pixels_of_upscale_py_and_its_mark(tmp_path: Path, dtype: type) -> None:
    source = photo(tmp_path / "in.png", dtype=dtype)
    made = enlarge(source, weights().enlarger("fsrcnn", 2), tmp_path)
    expected = Enlarger(load_upscaler(release.path("fsrcnn", 2)))(read_image(source))
    found = read_image(made.file)
    assert made.file.name == "in_x2.png" and found.samples.dtype == dtype
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert Image.open(made.file).info["Software"] == SOFTWARE
    assert "30x20 became 60x40" in made.said and "middle" not in made.said


def test_the_wipe_shows_all_of_a_small_photo_beside_bicubic(tmp_path: Path) -> None:
    source = photo(tmp_path / "in.png")
    made = enlarge(source, weights().enlarger("fsrcnn", 3), tmp_path)
    assert made.ours == made.file
    expected = Enlarger(Bicubic(scale=3, channels=3))(read_image(source))
    np.testing.assert_array_equal(read_image(made.bicubic).samples, expected.samples)


def test_the_wipe_shows_the_middle_of_a_large_photo_at_the_same_place(tmp_path: Path) -> None:
    source = photo(tmp_path / "in.png", 9, WIPED // 3 + 101)
    bicubic = Enlarger(Bicubic(scale=3, channels=3))
    made = enlarge(source, bicubic, tmp_path)
    ours, other = (read_image(path).samples for path in (made.ours, made.bicubic))
    assert ours.shape == other.shape == (27, WIPED // 3 * 3, 3)
    np.testing.assert_array_equal(ours[:, 6:-6], other[:, 6:-6])  # of bicubic the borders alone know that they are cut
    assert f"middle, {WIPED // 3 * 3}x27" in made.said


def test_what_upscale_py_refuses_is_refused_by_the_photos_name(tmp_path: Path) -> None:
    text, huge = tmp_path / "text.png", photo(tmp_path / "huge.png")
    text.write_text("hello")
    enlarger = weights().enlarger("fsrcnn", 2)
    with pytest.raises(UserError, match=r"^text\.png: not an image that can be read"):
        enlarge(text, enlarger, tmp_path)
    with pytest.raises(UserError, match=r"^huge\.png: 30x20 pixels are more than the limit of 599"):
        enlarge(huge, enlarger, tmp_path, max_pixels=599)
    assert not [*tmp_path.glob("*_x2.png")]


# Samples


def test_samples_are_those_of_sample_py_and_come_with_a_walk(tmp_path: Path) -> None:
    (generator,) = weights(trained(tmp_path / "run")).synthesisers.values()
    grid, walk = draw(generator, 4, 3, None, tmp_path / "a")
    assert walk is not None and getattr(Image.open(walk), "n_frames", 1) > 8
    assert draw(generator, 1, 3, None, tmp_path / "b")[1] is None
    again, _ = draw(generator, 4, 3, 0.7, tmp_path / "c")
    assert read_image(grid).samples.shape == read_image(again).samples.shape == (58, 58, 3)
    assert (read_image(grid).samples != read_image(again).samples).any(), "truncation changes the samples"


def test_the_way_between_two_seeds_begins_and_ends_with_their_samples(tmp_path: Path) -> None:
    (generator,) = weights(trained(tmp_path / "run")).synthesisers.values()

    def at(share: float, *seeds: int) -> Any:
        return read_image(between(generator, (seeds[0], seeds[1]), share, None, tmp_path)).samples

    np.testing.assert_array_equal(at(0.0, 1, 2), at(1.0, 2, 1))
    assert (at(0.5, 1, 2) != at(0.0, 1, 2)).any()


def test_another_picture_has_another_address_since_a_browser_keeps_what_it_has(tmp_path: Path) -> None:
    one, other = weights(*(trained(tmp_path / f"run{i}", seed=i) for i in range(2))).synthesisers.values()
    made = [(one, None), (one, 0.3), (other, None), (one, None)]
    shown = [between(network, (1, 2), 0.5, truncation, tmp_path) for network, truncation in made]
    assert len(set(shown)) == 3 and shown[3] == shown[0]


def test_a_field_that_was_emptied_or_holds_nonsense_is_told(tmp_path: Path) -> None:
    (generator,) = weights(trained(tmp_path / "run")).synthesisers.values()
    with pytest.raises(UserError, match="Say a whole number for seed"):
        draw(generator, 4, None, None, tmp_path / "a")
    with pytest.raises(UserError, match="truncation=-1 must be a number above 0"):
        between(generator, (1, 2), 0.5, -1, tmp_path)


# This machine


def test_the_folder_is_gone_after_an_interrupt_with_all_in_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), own_folder(str(tmp_path / "cache")) as folder:
        (folder / "upload").mkdir()
        (folder / "upload" / "photo.png").write_bytes(b"x")
        raise KeyboardInterrupt
    assert not [*(tmp_path / "cache").iterdir()]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_dir=.*file cannot be written to"), own_folder(str(tmp_path / "file")):
        pass


def test_a_proxy_is_not_asked_for_this_machine_and_what_was_exempt_stays_so(tmp_path: Path) -> None:
    environ = {"no_proxy": "intranet", "GRADIO_ANALYTICS_ENABLED": "True"}
    stay_here(environ, tmp_path)
    assert environ["no_proxy"] == environ["NO_PROXY"] == f"intranet,{HOST},localhost"
    assert environ["GRADIO_ANALYTICS_ENABLED"] == "False" and environ["GRADIO_TEMP_DIR"] == str(tmp_path)


def test_a_taken_port_is_passed_over_unless_it_was_said() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"^port={taken} cannot be used \(Address already in use\)"):
            port_of(taken)
    first = port_of(None)
    assert first in PORTS
    with socket.socket() as other:
        other.bind((HOST, first))
        other.listen()
        assert first < port_of(None) < PORTS.stop
    assert port_of(0) > 0
    for wrong in (-1, 65536, True, "high"):
        with pytest.raises(UserError, match=f"port={wrong} must be a whole number"):
            port_of(wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_without_gradio_the_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['gradio'] = None; from upsweep.doors.demo import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "The page needs Gradio: pip install -e '.[demo]'.\n")


# The page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The real process, its address and the folder in which it was started; an address of a proxy leads nowhere."""
    folder = tmp_path_factory.mktemp("served")
    trained(folder / "run")
    door = [sys.executable, str(ROOT / "src/demo.py"), "port=0", "checkpoint=run", "max_megabytes=2"]
    process = subprocess.Popen(door, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    first, said = process.stdout.readline(), process.stdout.readline()
    assert first.startswith("Starting the page"), first + said
    address = said.removeprefix("The page is at ").partition(" ")[0]
    assert address.startswith(f"http://{HOST}:"), said + process.stdout.read()
    yield process, address, folder
    process.kill()
    process.wait()


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    """The page in a browser that may ask nobody else, and has not when the test ends."""
    elsewhere: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(served[1])
        yield page
        browser.close()
    assert elsewhere and [url for url in elsewhere if not url.startswith((served[1], "data:", "blob:"))] == []


def drop(page: Page, file: Path) -> None:
    page.get_by_role("tab", name="Enlarge a photo").click()
    page.locator("#photo input[type=file]").set_input_files(file)


def result(page: Page, starting: str) -> str:
    page.wait_for_function(f"document.querySelector('#said textarea')?.value.startsWith('{starting}')", timeout=60_000)
    return page.locator("#said textarea").input_value()


@pytest.mark.slow
@needs_gradio
@needs_browser
def test_a_dropped_photo_is_enlarged_wiped_over_and_saved(page: Page, tmp_path: Path) -> None:
    source = photo_files(("coffee.png",))["coffee.png"]
    drop(page, source)
    assert "became 1200x800" in result(page, "600x400")
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "page.png")
    door = [sys.executable, str(ROOT / "src/upscale.py"), f"input={source}", f"output={tmp_path / 'door.png'}"]
    subprocess.run(door, check=True, capture_output=True)
    assert download.value.suggested_filename == "coffee_x2.png"
    assert (tmp_path / "page.png").read_bytes() == (tmp_path / "door.png").read_bytes()

    shown = page.locator("#wipe img")
    assert shown.count() == 2 and shown.first.get_attribute("src") != shown.last.get_attribute("src")
    page.wait_for_function("[...document.querySelectorAll('#wipe img')].every(image => image.naturalWidth == 1200)")
    handle = page.locator("#wipe .inner")
    before, frame = handle.bounding_box(), page.locator("#wipe").bounding_box()
    assert before is not None and frame is not None
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.4, before["y"], steps=4)
    page.mouse.up()
    after = handle.bounding_box()
    assert after is not None and after["x"] < before["x"] - 20

    page.get_by_label("x3").check()
    assert "became 1800x1200" in result(page, "600x400 became 1800")


@pytest.mark.slow
@needs_gradio
@needs_browser
def test_a_text_file_and_one_that_is_too_large_are_refused_in_a_sentence(page: Page, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    drop(page, tmp_path / "text.png")
    page.get_by_text("text.png: not an image that can be read (PNG, JPEG, BMP, TIFF, WebP)").wait_for()
    page.locator("#photo").get_by_label("Clear").click()
    drop(page, photo(tmp_path / "large.png", 1000, 1000))
    page.get_by_text("exceed the maximum allowed size of 2").wait_for()


@pytest.mark.slow
@needs_gradio
@needs_browser
def test_samples_are_drawn_and_walked_between(page: Page) -> None:
    one = page.locator("#between img")
    one.wait_for()
    before = one.get_attribute("src")
    page.locator("#share input[type=number]").fill("0.9")
    page.locator("#share input[type=number]").press("Enter")
    page.wait_for_function("before => document.querySelector('#between img').src != before", arg=before)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator("#samples img").wait_for()
    page.locator("#walk img").wait_for()


@pytest.mark.slow
@needs_gradio
def test_a_site_that_takes_the_address_of_this_machine_is_refused(served: Served) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(served[1], headers={"Host": "elsewhere.example"}))


@pytest.mark.slow
@needs_gradio
@needs_browser
def test_ctrl_c_ends_the_page_amid_its_work_and_leaves_nothing(served: Served, page: Page, tmp_path: Path) -> None:
    write_image(tmp_path / "large.png", Picture(np.zeros((6000, 6000, 3), np.uint8)))
    drop(page, tmp_path / "large.png")
    page.get_by_text("enlarging").first.wait_for()
    process, _, folder = served
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (130, "Interrupted.\n")
    assert not [*(folder / ".cache/upsweep/demo").iterdir()]
