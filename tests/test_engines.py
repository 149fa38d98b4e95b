"""Other engines than PyTorch: the same image to one level, chosen where they save time, and refused clearly."""

import copy
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.imaging.files import Picture
from upsweep.imaging.resize import enlarge
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers import SelfEnsemble
from upsweep.upscaling import engines
from upsweep.upscaling.engines import OTHERS, Accelerated, hold_to_engine
from upsweep.upscaling.picture import Enlarger, appetite

CPU = torch.device("cpu")
PRESENT = [name for name, engine in OTHERS.items() if all(map(find_spec, engine.packages))]
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO here (pip install -e '.[fast]')")


class Bicubic(Upscaler):
    """Enlarges; what a test stands in for OpenVINO with is a function of the same images."""

    def __init__(self) -> None:
        super().__init__(scale=2, channels=1)

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x, 2)


class Reversing(Bicubic):
    """Reverses the rows of small images, which an engine that was shown a larger one cannot know."""

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x.flip(-2) if x.shape[-2] < 10 else x, 2)


def photo(channels: int, height: int = 45, width: int = 38, dtype: type = np.uint8) -> Picture:
    rng = np.random.default_rng(0)
    return Picture(rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype))


def shipped() -> Upscaler:
    return load_upscaler(release.path("fsrcnn", 2))


@pytest.fixture(scope="module", params=PRESENT)
def accelerated(request: pytest.FixtureRequest) -> Accelerated:
    return Accelerated(shipped(), request.param)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (4, np.uint8), (3, np.uint16)])
def test_every_kind_of_picture_is_as_by_pytorch_to_one_level_in_tiles_too(
    accelerated: Accelerated, channels: int, dtype: type, ensemble: bool
) -> None:
    lr = photo(channels, dtype=dtype)
    ours, other = (SelfEnsemble(one) if ensemble else one for one in (shipped(), accelerated))
    expected = Enlarger(ours)(lr).samples.astype(int)
    for tile in (None, 16):
        enlarger = Enlarger(other, tile)
        assert np.abs(enlarger(lr).samples.astype(int) - expected).max() <= 1
        assert enlarger.engine == accelerated.engine != "torch"


def test_a_picture_of_one_row_is_enlarged_although_engines_take_images_from_two_on(accelerated: Accelerated) -> None:
    lr = photo(1, height=1)
    assert np.array_equal(Enlarger(accelerated)(lr).samples, Enlarger(shipped())(lr).samples)


def test_what_a_copy_shows_of_reach_and_memory_is_the_generators_own(accelerated: Accelerated) -> None:
    assert type(copy.deepcopy(accelerated)) is type(shipped())
    assert appetite(accelerated) == appetite(shipped())


@pytest.mark.parametrize("engine", PRESENT)
def test_a_generator_that_an_engine_runs_otherwise_is_refused(engine: str) -> None:
    with pytest.raises(
        UserError, match=f"engine={engine} makes Reversing differ|exported Reversing|cannot be exported"
    ):
        Accelerated(Reversing(), engine)


@needs_openvino
def test_a_generator_that_openvino_cannot_run_stays_with_pytorch_after_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "AFTER", 0.0)
    enlarger = Enlarger(Accelerated(Reversing()))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = enlarger(photo(1)).samples
    assert np.array_equal(found, Enlarger(Reversing())(photo(1)).samples) and enlarger.engine == "torch"
    assert [r.message for r in caplog.records if "PyTorch goes on" in r.message] == [caplog.records[0].message]


def standing_in(monkeypatch: pytest.MonkeyPatch, pace: float) -> list[Any]:
    """OpenVINO is what is `pace` times as fast as a generator, by a clock that both move; the sizes that it ran."""
    clock, ran = [0.0], list[Any]()

    def body(self: Bicubic, x: Tensor) -> Tensor:
        clock[0] += 1
        return enlarge(x, 2)

    def run(x: Tensor) -> Tensor:
        clock[0] += 1 / pace
        ran.append(tuple(x.shape[-2:]))
        return enlarge(x, 2)

    monkeypatch.setattr(Bicubic, "body", body)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(engines, "find_spec", lambda _: True)
    monkeypatch.setitem(OTHERS, "openvino", engines._Engine((), lambda _: run))
    return ran


@pytest.mark.parametrize(("pace", "winner"), [(1.4, "openvino"), (1.01, "torch"), (0.5, "torch")])
def test_with_auto_the_faster_engine_goes_on(monkeypatch: pytest.MonkeyPatch, pace: float, winner: str) -> None:
    ran = standing_in(monkeypatch, pace)
    enlarger = Enlarger(Accelerated(Bicubic()), tile=8)
    larger = enlarger(photo(1, 200, 160)).samples
    assert enlarger.engine == winner
    assert np.array_equal(larger, Enlarger(Bicubic(), tile=8)(photo(1, 200, 160)).samples)
    assert (len(ran) > 100) is (winner == "openvino")


def test_a_small_photo_is_not_worth_a_trial_but_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = standing_in(monkeypatch, 2)
    enlarger = Enlarger(Accelerated(Bicubic()), tile=0)
    for number in range(12):
        enlarger(photo(1))
        assert bool(ran) is (number > engines.AFTER)


def test_pytorch_alone_is_asked_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = standing_in(monkeypatch, 2)
    Enlarger(Accelerated(Bicubic(), "torch"), tile=8)(photo(1, 200, 160))
    assert not ran


def test_an_engine_that_is_unknown_missing_or_for_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="engine=warp must be one of auto, torch, openvino, onnxruntime"):
        hold_to_engine("warp", CPU)
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"engine=openvino needs openvino: pip install -e '\.\[fast\]'"):
        hold_to_engine("openvino", CPU)
    monkeypatch.setattr(engines, "find_spec", lambda _: True)
    with pytest.raises(UserError, match="works on a CPU, and not on meta"):
        hold_to_engine("openvino", torch.device("meta"))
    hold_to_engine("auto", torch.device("meta"))


@needs_openvino
@pytest.mark.slow
def test_openvino_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    code = (
        "from upsweep.upscaling.model import load; import sys; "
        "load(None, 'fsrcnn', 2, engine='openvino'); "
        "assert sys.modules['openvino_telemetry'] is None"
    )
    src = str(Path(__file__).parents[1] / "src")
    environment = {"HOME": str(tmp_path), "PYTHONPATH": src, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not [path for path in tmp_path.rglob("*intel*")]
