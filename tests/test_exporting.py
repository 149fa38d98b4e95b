"""Generators for other programs: the file gives what PyTorch gives, or it is not written."""

import builtins
import json
import sys
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from upsweep import release
from upsweep.blocks import conv
from upsweep.common.errors import UserError
from upsweep.networks import Network, checkpoints
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.exporting import export, export_onnx
from upsweep.networks.upscalers import Upscaler

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

# Shallow: what a layer becomes in ONNX does not depend on how many there are.
SHALLOW = {"edsr": {"depth": 1}, "srresnet": {"depth": 1}, "rednet": {"depth": 4}, "vdsr": {"depth": 3}}
SHALLOW |= {"unet": {"depth": 2}, "lapsrn": {"depth": 1}}

CONF = Path(__file__).parents[1] / "conf"
UPSCALERS = sorted(path.stem for path in (CONF / "generator").glob("*.yaml") if "upscalers" in path.read_text())


def described(name: str, *overrides: str, **arguments: Any) -> dict[str, Any]:
    """A generator's node with few channels and layers."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("train", overrides=[f"generator={name}", *overrides])
    spec = cast(dict[str, Any], OmegaConf.to_container(config.generator, resolve=True))
    return {**spec, **({"width": 4} if "width" in spec else {}), **SHALLOW.get(name, {}), **arguments}


SPEC = described("deconvnet", depth=1)


def state_of(spec: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    weights = checkpoints.build(spec).state_dict()
    return {
        "state_dict": {f"generator.{name}": value for name, value in weights.items()},
        checkpoints.KEY: checkpoints.describe(spec),
    }


class Command:
    """Runs a shell command where a pickle of it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (self.command,)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.ckpt"
    checkpoints.save(state_of(SPEC), path)
    return path


def exported(tmp_path: Path, spec: dict[str, Any]) -> Path:
    """The ONNX file of a generator with random weights; it is compared with PyTorch here too, on other sizes."""
    torch.manual_seed(0)
    generator = checkpoints.as_upscaler(checkpoints.build(spec), "generator").eval()
    path = tmp_path / "x.onnx"
    assert export_onnx(generator, spec, path) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for height, width in [(2, 2), (19, 32), (33, 7)]:
        lr = torch.rand(1, generator.channels, height, width)
        with torch.no_grad():
            expected = generator(lr).numpy()
        (sr,) = session.run(["sr"], {"lr": lr.numpy()})
        assert sr.shape == expected.shape
        assert np.abs(sr - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    return path


def test_a_deconvolution_exports_with_free_sizes_and_its_opset_stated(tmp_path: Path) -> None:
    spec = described("fsrcnn", d=6, s=3, m=1)
    path = exported(tmp_path, spec)
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 1, "height", "width"]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["upsweep"])["generator"] == spec
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in UPSCALERS if name != "fsrcnn"])
def test_every_upscaler_exports(tmp_path: Path, name: str) -> None:
    exported(tmp_path, described(name))


def test_weights_that_orientations_share_are_kept_and_exported(tmp_path: Path) -> None:
    spec = described("sesr", "generator.symmetry=p4", "generator.depth=1", width=8)
    checkpoints.save(state_of(spec), tmp_path / "x.ckpt")
    torch.manual_seed(0)
    made, kept, lr = checkpoints.build(spec), load_upscaler(tmp_path / "x.ckpt"), torch.rand(1, 1, 5, 6)
    torch.testing.assert_close(kept(lr), made(lr))
    exported(tmp_path, spec)


@pytest.mark.parametrize(
    "name", ["dcgan", pytest.param("resnet", marks=pytest.mark.slow), pytest.param("vae", marks=pytest.mark.slow)]
)
def test_a_synthesiser_exports_for_batches_of_any_size(tmp_path: Path, name: str) -> None:
    spec = described(name, "++data.size=28", "++data.channels=1", latent=5)
    path = tmp_path / "best.ckpt"
    checkpoints.save(state_of(spec), path)
    said = export(path, "onnx")
    assert "opset 18, any batch; off PyTorch by" in said and "at most (3 at once, 1 at once, 8 at once)" in said
    model = onnx.load(path.with_suffix(".onnx"))
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    assert (model.graph.input[0].name, model.graph.output[0].name, dims) == ("latent", "image", [["batch", 5]])
    session = onnxruntime.InferenceSession(str(path.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    generator = checkpoints.load_generator(path)
    for n in (1, 2, 17):
        latents = torch.randn(n, 5)
        with torch.no_grad():
            expected = generator(latents).numpy()
        (images,) = session.run(["image"], {"latent": latents.numpy()})
        assert images.shape == (n, 1, 28, 28) and np.abs(images - expected).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["deconv", "subpixel"])
def test_both_forms_of_a_deconvolution_export(tmp_path: Path, form: str) -> None:
    exported(tmp_path, described("deconvnet", f"upsampler.form={form}", depth=1))


class Denoiser(Network):
    """A network that enlarges nothing."""

    def __init__(self) -> None:
        super().__init__(channels=3)
        self.conv = conv(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x - cast(Tensor, self.conv(x))


class Constant(Network):
    """A network whose input is a latent of one size."""

    free: ClassVar[dict[int, str]] = {}

    def __init__(self) -> None:
        super().__init__(channels=1)
        self.linear = torch.nn.Linear(4, 6)

    def example(self, height: int, width: int) -> Tensor:
        del height, width
        return torch.linspace(-1, 1, 4)[None]

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(x)).reshape(-1, 1, 2, 3)


@pytest.mark.parametrize(("kind", "size"), [(Denoiser, ["height", "width"]), (Constant, [])])
def test_a_network_of_another_task_exports_in_both_formats(
    kind: type[Network], size: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "own_networks", sys.modules[__name__])
    spec = {"_target_": f"own_networks.{kind.__name__}"}
    path = tmp_path / "best.ckpt"
    checkpoints.save(state_of(spec), path)
    said = export(path, "onnx", allow=[spec["_target_"]])
    assert f"best.onnx: {kind.__name__}, opset 18, {'any height and width' if size else 'one size'}; off" in said
    graph = onnx.load(path.with_suffix(".onnx")).graph
    assert (graph.input[0].name, graph.output[0].name) == ("input", "output")
    assert [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim if d.dim_param] == size
    assert f"{kind.__name__}, weights" in export(path, "safetensors", allow=[spec["_target_"]])
    loaded = [
        checkpoints.load_generator(path.with_suffix(s), allow=[spec["_target_"]]) for s in (".ckpt", ".safetensors")
    ]
    assert torch.equal(*(network(network.example(5, 4)) for network in loaded))


class Fickle(Upscaler):
    """Does what no graph can say."""

    def body(self, x: Tensor) -> Tensor:
        y = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return y if bool(x.sum() > 0) else -y


class Forgetful(Upscaler):
    """Its export has the answer for one size only."""

    def body(self, x: Tensor) -> Tensor:
        noise = torch.rand(x.shape[-2] * 2, x.shape[-1] * 2)
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2) + noise


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Fickle, Forgetful])
def test_what_cannot_be_exported_is_refused_in_a_sentence(tmp_path: Path, kind: type[Upscaler]) -> None:
    with pytest.raises(UserError) as caught:
        export_onnx(kind(2, 1), {}, tmp_path / "x.onnx")
    said = str(caught.value)
    assert kind.__name__ in said and "\n" not in said and said.endswith(".")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_opset_that_is_too_old_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"opset 3 \(it needs opset 18\)"):
        export_onnx(checkpoints.build(SPEC), SPEC, tmp_path / "x.onnx", opset=3)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxscript":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    error: ImportError = ModuleNotFoundError(name="onnxscript")
    with pytest.raises(UserError, match=r"needs onnxscript: pip install -e '\.\[export\]'"):
        export_onnx(checkpoints.build(SPEC), SPEC, tmp_path / "x.onnx")
    error = ImportError("libx.so: cannot open shared object file")
    with pytest.raises(UserError, match=r"cannot use what it needs \(libx\.so: cannot open"):
        export_onnx(checkpoints.build(SPEC), SPEC, tmp_path / "x.onnx")


def test_safetensors_is_loaded_again(checkpoint: Path) -> None:
    said = export(checkpoint, "safetensors")
    release = checkpoint.with_suffix(".safetensors")
    assert str(release) in said
    lr = torch.rand(1, 1, 6, 5)
    with torch.no_grad():
        assert torch.equal(checkpoints.load_generator(release)(lr), checkpoints.load_generator(checkpoint)(lr))
    with pytest.raises(UserError, match="overwrite=true"):
        export(checkpoint, "safetensors")
    export(checkpoint, "safetensors", overwrite=True)


def test_the_average_of_the_weights_is_exported_unless_it_is_not_wanted(checkpoint: Path) -> None:
    state = state_of(SPEC)
    state["ema"] = {name: torch.zeros_like(value) for name, value in checkpoints.build(SPEC).state_dict().items()}
    checkpoints.save(state, checkpoint)
    for ema in (True, False):
        export(checkpoint, "safetensors", ema=ema, overwrite=True)
        weights = checkpoints.load_generator(checkpoint.with_suffix(".safetensors")).state_dict()
        assert (weights["last.weight"].abs().max() == 0) == ema


def test_shipped_weights_are_exported_into_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export(release.located("fsrcnn_x2"), "safetensors")
    assert load_upscaler(tmp_path / "fsrcnn_x2.safetensors").scale == 2


def test_bad_wishes_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"checkpoint": None}, "checkpoint=PATH"),
        ({"format": "tflite"}, "format=tflite"),
        ({"output": tmp_path / "x.pt"}, "must end in .onnx"),
        ({"checkpoint": tmp_path / "no.ckpt"}, "no checkpoint"),
        ({"output": Path("/proc/x.onnx")}, "/proc/x.onnx cannot be written"),
    ]
    for wish, word in wishes:
        with pytest.raises(UserError, match=word):
            export(**{"checkpoint": checkpoint, "format": "onnx", **wish})


def test_a_hostile_checkpoint_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save({**state_of(SPEC), "more": Command(f"touch {tmp_path / 'ran'}")}, path)
    with pytest.raises(UserError, match="was not loaded"):
        export(path, "safetensors")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
