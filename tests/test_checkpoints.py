"""Checkpoints: plain values and weights in, the same generator out, and nothing that a file says is run."""

import ast
import copy
import io
import json
import pickle
import re
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from omegaconf import DictConfig, OmegaConf
from tests.small_job import NET, RECIPE
from torch import Tensor, nn

from upsweep.blocks import Block, Recipe, conv
from upsweep.common.errors import UserError
from upsweep.networks import Network, checkpoints
from upsweep.networks.checkpoints import load_generator, load_upscaler
from upsweep.networks.network import Cost, cost
from upsweep.networks.upscalers import Upscaler
from upsweep.runs.about import About
from upsweep.runs.layout import ABOUT, BEST
from upsweep.training.start import all_weights, fitting_weights

SPEC: dict[str, Any] = {
    **NET,
    "recipe": {
        **RECIPE,
        "init": {"_target_": "upsweep.blocks.init.Xavier", "gain": 1.0},
        "activation": {"_target_": "torch.nn.LeakyReLU", "_partial_": True, "negative_slope": 0.2},
        "norm": {"_target_": "upsweep.blocks.norm.BatchNorm"},
    },
    "scale": 3,
    "channels": 1,
    "depth": 2,
}


def state_of(spec: dict[str, Any], generator: nn.Module | None = None) -> dict[str, Any]:
    """What Lightning saves of a training of `generator`, as far as it matters here."""
    generator = generator or checkpoints.build(SPEC)
    return {
        "epoch": 3,
        "state_dict": {
            **{f"generator.{name}": value for name, value in generator.state_dict().items()},
            "objective.weight": torch.zeros(5),
        },
        checkpoints.KEY: checkpoints.describe(spec, best={"psnr": 30.0}),
    }


def saved(path: Path, state: dict[str, Any]) -> Path:
    checkpoints.save(state, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best.ckpt"


def refusal(path: Path, **kwargs: Any) -> str:
    """The sentence by which a file is refused."""
    with pytest.raises(UserError) as caught:
        load_generator(path, **kwargs)
    said = str(caught.value)
    assert str(path) in said
    assert said.endswith(".") and "\n" not in said
    return said


def test_round_trip_gives_the_same_numbers(path: Path) -> None:
    generator = checkpoints.build(SPEC)
    lr = torch.rand(2, 1, 7, 9)
    generator.train()(lr)  # moves batch norm's running statistics
    expected = generator.eval()(lr)
    loaded = load_upscaler(saved(path, state_of(SPEC, generator)))
    assert not loaded.training
    assert type(loaded) is type(generator) and loaded.scale == 3
    assert torch.equal(loaded(lr), expected)


def test_a_checkpoint_is_rebuilt_in_a_new_process_without_any_config(path: Path, tmp_path: Path) -> None:
    generator = checkpoints.build(SPEC).eval()
    lr = torch.rand(1, 1, 5, 6)
    saved(path, state_of(SPEC, generator))
    torch.save(lr, tmp_path / "lr.pt")
    code = (
        "import torch; from pathlib import Path; from upsweep.networks.checkpoints import load_generator;"
        "torch.save(load_generator(Path('best.ckpt'))(torch.load('lr.pt')).detach(), 'sr.pt')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "sr.pt"), generator(lr))


def test_a_text_a_path_a_runs_folder_and_a_name_load_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = checkpoints.build(SPEC).eval()
    run = tmp_path / "my run=1"
    (run / BEST).parent.mkdir(parents=True)
    saved(run / BEST, state_of(SPEC, generator))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    lr = torch.rand(1, 1, 5, 6)
    for said in (run / BEST, str(run / BEST), run, "my run=1", "my run=1/", "~/my run=1", run / "checkpoints"):
        assert torch.equal(load_generator(said)(lr), generator(lr)), said
    assert load_upscaler("fsrcnn_x3").scale == 3
    with pytest.raises(UserError, match=r"fsrcnn_x9: give a run's folder, a file, or one of .*fsrcnn_x2"):
        load_generator("fsrcnn_x9")


def test_it_holds_plain_values_and_weights_only(path: Path) -> None:
    state = torch.load(saved(path, state_of(SPEC)), weights_only=True)
    assert state[checkpoints.KEY] == {"format": 2, "generator": SPEC, "best": {"psnr": 30.0}}
    assert set(checkpoints.generator_weights(state)) == set(checkpoints.build(SPEC).state_dict())


def test_saving_leaves_the_old_file_where_writing_fails(path: Path) -> None:
    saved(path, {"epoch": 1})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoints.save({"epoch": lambda: 2}, path)
    assert checkpoints.read(path) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# Files that are no checkpoints of ours


def _bytes_of(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "broken"),
        (b"these are no weights", "broken"),
        (_bytes_of(state_of(SPEC))[:-2000], "broken"),
        (_bytes_of([1, 2]), "list"),
        (_bytes_of({"state_dict": {}}), "which generator"),
        (_bytes_of({checkpoints.KEY: "DeconvNet"}), "which generator"),
        (_bytes_of({checkpoints.KEY: {"format": 3, "generator": SPEC}}), "format 3"),
        (_bytes_of({checkpoints.KEY: {"format": 1, "generator": SPEC}}), "does not fit"),
        (_bytes_of({checkpoints.KEY: {"format": 1, "generator": SPEC}, "state_dict": [1]}), "does not fit"),
        (
            _bytes_of({checkpoints.KEY: {"format": 1, "generator": SPEC}, "state_dict": {1: 2, "generator.x": "y"}}),
            "does not fit",
        ),
    ],
    ids=["empty", "text", "cut", "list", "foreign", "word", "later", "no weights", "a list of them", "odd weights"],
)
def test_what_is_no_checkpoint_of_ours_is_refused(path: Path, content: bytes, word: str) -> None:
    path.write_bytes(content)
    assert word in refusal(path)


def test_a_missing_file_and_a_folder_are_refused(path: Path) -> None:
    assert "no checkpoint at" in refusal(path)
    assert "has no checkpoints/best.ckpt" in refusal(path.parent)


def _other_shape(weights: dict[str, Tensor]) -> str:
    weights["generator.last.weight"] = torch.zeros(1, 4, 5, 5)
    return "last.weight is [1, 4, 5, 5] in the file and [1, 4, 3, 3] in the network"


def _missing(weights: dict[str, Tensor]) -> str:
    del weights["generator.last.bias"]
    return "last.bias is nothing in the file and [1] in the network"


def _too_many(weights: dict[str, Tensor]) -> str:
    weights["generator.more"] = torch.zeros(2)
    return "more is [2] in the file and nothing in the network"


@pytest.mark.parametrize("change", [_other_shape, _missing, _too_many])
def test_weights_that_do_not_fit_are_named(path: Path, change: Callable[[dict[str, Tensor]], str]) -> None:
    state = state_of(SPEC)
    word = change(state["state_dict"])
    assert word in refusal(saved(path, state))


# Hostile files


class Command:
    """Runs a shell command where a pickle of it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (self.command,)


def test_a_file_that_torch_refuses_is_named_in_our_words(path: Path) -> None:
    torch.save({**state_of(SPEC), "more": Namespace(lr=1)}, path)
    assert "it was not loaded (it holds an object of argparse.Namespace)" in refusal(path)
    for content in (b"epoch: 3\n", b"<!DOCTYPE html>", b"\x08\x07\x12"):
        path.write_bytes(content)
        assert "it was not loaded (torch.save has not written it, or not all of it is there)" in refusal(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "it is a pointer of Git LFS: git lfs pull" in refusal(path)
    torch.jit.save(torch.jit.trace(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)), path)
    assert "it is a TorchScript archive: save the state_dict() of its network" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_a_command_runs_nothing(path: Path, zipped: bool) -> None:
    mark = path.with_name("ran")
    state = {**state_of(SPEC), "more": Command(f"touch {mark}")}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert "was not loaded" in refusal(path)
    path.write_bytes(pickle.dumps(state, protocol=2))
    refusal(path)
    assert not mark.exists()
    with path.open("rb") as file:  # the trap is armed: an ordinary pickle reader falls into it
        pickle.load(file)
    assert mark.exists()


TARGETS = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "pathlib.Path.unlink",
    "hydra.utils.instantiate",
    "torch.load",
    "torch.hub.load",
    "torch.nn.Parameter",
    "torch.nn.Sequential",
    "torch.nn.ModuleList",
    "torch.nn.Linear",
    "torch.nn.Conv2d",
    "torch.nn.TransformerEncoder",
    "torch.nn.Transformer",
    "torch.nn.LSTM",
    "torch.nn.Module",
    "torch.nn.DataParallel",
    "torch.nn.functional",
    "torch.nn.functional.relu",
    "torch.nn.init.zeros_",
    "torch.nn.modules.module.torch.load",
    "upsweep.networks.checkpoints.load_generator",
    "upsweep.networks.checkpoints.os.system",
    "upsweep.imaging.files.read_image",
    "upsweep.blocks.activation.gain",
    "upsweep.blocks.activation.inspect",
    "upsweep.blocks.conv.nn.Conv2d",
    "upsweep.networks.upscalers.upscaler.torch",
    "upsweep.networks.upscalers.nothing.Here",
    "upsweep.networks.upscalers",
    "upsweep.blocks.\0.Recipe",
    "upsweep",
    "",
    ".",
    7,
    None,
    ["os.system"],
    {"_target_": "os.system"},
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_target_that_is_not_ours_is_not_called(path: Path, target: object) -> None:
    mark = path.with_name("ran")
    call = {"_target_": target, "command": f"touch {mark}"}
    for place in ("generator", "recipe", "activation", "deep"):
        spec = copy.deepcopy(SPEC)
        if place == "generator":
            spec.update(call)
        elif place == "recipe":
            spec["recipe"] = call
        elif place == "activation":
            spec["recipe"]["activation"] = {**call, "_partial_": True}
        else:
            spec["recipe"]["norm"]["eps"] = [1, {"x": call}]
        assert "neither upsweep's nor named by your config" in refusal(saved(path, state_of(spec)), allow=set())
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"_args_": ["os.system"]}, "_args_"),
        ({"_recursive_": False}, "_recursive_"),
        ({"_convert_": "none"}, "_convert_"),
        ({"__class__": "x"}, "__class__"),
        ({3: 4}, "key 3"),
        ({"skip": "${oc.env:HOME}"}, "interpolation"),
        ({"skip": ["${oc.env:HOME}"]}, "interpolation"),
        ({"width": 10**9}, "out of range"),
        ({"width": -(10**9)}, "out of range"),
        ({"width": 1e300}, "out of range"),
        ({"width": float("nan")}, "out of range"),
        ({"width": torch.zeros(1)}, "Tensor"),
        ({"width": {1, 2}}, "set"),
        ({"_partial_": True}, "derive it"),
        ({"_target_": "torch.nn.ReLU"}, ""),
        ({"_target_": "upsweep.networks.upscalers.upscaler.Upscaler"}, ""),
        ({"width": "16"}, ""),
        ({"width": "???"}, ""),
        ({"width": None}, ""),
        ({"width": [4]}, ""),
        ({"unknown": 1}, "unknown"),
        ({"recipe": None}, ""),
        ({"recipe": {"_target_": "upsweep.blocks.Recipe"}}, ""),
        ({"recipe": {"_target_": "upsweep.blocks.init.Scaled"}}, ""),
        ({"scale": 5}, "scale=5"),
        ({"scale": 2}, "does not fit"),
        ({"width": 8}, "does not fit"),
        ({"width": 2000, "kernel": 1999}, ""),
    ],
    ids=repr,
)
def test_a_description_that_is_not_one_is_refused(path: Path, change: dict[Any, Any], word: str) -> None:
    generator = checkpoints.build(SPEC)
    spec = {**copy.deepcopy(SPEC), **change}
    assert word in refusal(saved(path, state_of(spec, generator)))


def test_descriptions_without_end_are_refused(path: Path) -> None:
    spec = copy.deepcopy(SPEC)
    spec["recipe"]["self"] = spec
    state = state_of(SPEC)
    state[checkpoints.KEY]["generator"] = spec
    assert "too deep" in refusal(saved(path, state))
    laughs: list[Any] = []
    for _ in range(12):  # 10^12 values in 12 short lists
        laughs = [laughs] * 10
    state[checkpoints.KEY]["generator"] = {**SPEC, "more": laughs}
    assert "too long" in refusal(saved(path, state))
    state[checkpoints.KEY]["generator"] = {**SPEC, "recipe": {**SPEC["recipe"], "norm": _nested(400)}}
    assert "too deep" in refusal(saved(path, state))


@pytest.fixture
def own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run whose generator, and whose norm, are classes of its user's."""
    lines = (
        "from upsweep.blocks.norm import BatchNorm",
        "from upsweep.networks.upscalers.deconvnet import DeconvNet",
        "class Net(DeconvNet): pass",
        "class MyNorm(BatchNorm): pass",
    )
    (tmp_path / "their_nets.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    norm = {"_target_": "their_nets.MyNorm"}
    spec = {**SPEC, "_target_": "their_nets.Net", "recipe": {**SPEC["recipe"], "norm": norm}}
    run = tmp_path / "run"
    (run / BEST).parent.mkdir(parents=True)
    saved(run / BEST, state_of(spec, checkpoints.build(spec)))
    About(config={"generator": spec}).write(run)
    return run


def test_all_classes_that_are_not_ours_are_named_at_once_with_what_admits_them(own_run: Path) -> None:
    said = refusal(own_run)
    admits = re.search(r"allow=({.*})", said)
    assert admits is not None
    load_generator(own_run, allow=ast.literal_eval(admits[1]))
    assert "'their_nets.MyNorm', which is neither" in refusal(own_run, allow={"their_nets.Net"})


def test_the_classes_that_a_runs_own_config_names_are_admitted_on_request(own_run: Path) -> None:
    assert type(load_generator(own_run, trust_config=True)).__name__ == "Net"
    About(config={"generator": SPEC}).write(own_run)  # not what the checkpoint asks for, but what the config names
    assert "'their_nets.Net', 'their_nets.MyNorm', which are neither" in refusal(own_run, trust_config=True)
    (own_run / ABOUT).unlink()
    assert "trust_config=True needs the about.json" in refusal(own_run, trust_config=True)


def test_layers_without_end_are_refused_before_any_is_built(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 2, "nhead": 1}
    for _ in range(6):
        encoder = {"_target_": "torch.nn.TransformerEncoder", "encoder_layer": encoder, "num_layers": 2048}
    nets = [{**SPEC, "_target_": f"upsweep.networks.upscalers.{name}"} for name in ("vdsr.VDSR", "edsr.EDSR")]
    fsrcnn = {"_target_": "upsweep.networks.upscalers.fsrcnn.FSRCNN", "recipe": SPEC["recipe"], "m": 2048}
    hostile = [
        ({**SPEC, "recipe": encoder}, "neither upsweep's"),
        ({**SPEC, "depth": 2048}, "2048 layers (in networks: 1) and has 23 weights"),
        (fsrcnn, "2048 layers"),
        ({**SPEC, "depth": 2, "recipe": {**SPEC["recipe"], "norm": {**nets[0], "depth": 63}}}, "65 layers"),
        ({**SPEC, "more": nets * 3}, "(in networks: 7)"),
        ({**SPEC, "depth": -2000, "more": {**nets[0], "depth": 2000}}, "2000 layers"),
    ]
    files = [
        (saved(path.with_name(f"{n}.ckpt"), state_of(spec, checkpoints.build(SPEC))), word)
        for n, (spec, word) in enumerate(hostile)
    ]
    many = state_of({**SPEC, "depth": 2048})
    many["state_dict"] |= {f"generator.{n}": torch.zeros(1) for n in range(2100)}
    files.append((saved(path, many), "2048 layers"))
    monkeypatch.setattr(checkpoints, "build", lambda _: pytest.fail("it was built"))
    for file, word in files:
        assert word in refusal(file)


def test_every_choice_of_the_config_may_be_named() -> None:
    conf = Path(__file__).parents[1] / "conf"
    groups = ("generator", "init", "activation", "norm", "dropout", "upsampler")
    nodes = [OmegaConf.load(file) for group in groups for file in (conf / group).glob("*.yaml")]
    targets = {node["_target_"] for node in nodes if isinstance(node, DictConfig) and "_target_" in node}
    assert len(targets) > 30
    for name in targets:
        checkpoints._vet(Path("x.ckpt"), {"_target_": name}, ())


# Weights that are no numbers

ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NaN": (lambda w: w.index_fill(0, torch.tensor([0]), torch.nan), "NaN or infinite"),
    "infinite": (lambda w: w - torch.inf, "NaN or infinite"),
    "half infinite": (lambda w: w.half() + torch.inf, "NaN or infinite"),
    "sparse": (lambda w: w.to_sparse(), "not a dense tensor"),
    "complex": (lambda w: w.to(torch.complex64), "complex64, and must be float32"),
    "integer": (lambda w: w.to(torch.int64), "int64, and must be float32"),
    "of 8 bits": (lambda w: w.to(torch.float8_e4m3fn), "float8_e4m3fn, and must be float32"),
    "boolean": (lambda w: w > 0, "bool, and must be float32"),
    "quantised": (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.quint8), "quint8, and must be float32"),
    "nowhere": (lambda w: w.to("meta"), "not a dense tensor"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_weights_that_are_no_numbers_are_refused_by_every_way_to_begin(path: Path, kind: str, ema: bool) -> None:
    change, word = ODD[kind]
    state = state_of(SPEC)
    name = "last.weight"
    if ema:
        state[checkpoints.EMA] = checkpoints.generator_weights(state)
        state[checkpoints.EMA][name] = change(state[checkpoints.EMA][name])
    else:
        state["state_dict"][f"generator.{name}"] = change(state["state_dict"][f"generator.{name}"])
    saved(path, state)
    ways: list[Callable[[], object]] = [
        lambda: load_generator(path),
        lambda: all_weights(path, SPEC),
        lambda: fitting_weights(path, SPEC),
    ]
    for way in ways:
        with pytest.raises(UserError, match=rf"best\.ckpt cannot be used: last\.weight is {word}[^\n]*\.$"):
            way()
    if ema:
        load_generator(path, ema=False)


def test_counts_stay_whole_numbers(path: Path) -> None:
    state = state_of(SPEC)
    (name,) = [name for name in state["state_dict"] if name.endswith("num_batches_tracked")][:1]
    assert state["state_dict"][name].dtype == torch.int64
    for dtype in (torch.float16, torch.bfloat16, torch.float64):  # other floats of theirs become float32
        state["state_dict"]["generator.last.bias"] = state["state_dict"]["generator.last.bias"].to(dtype)
        assert load_generator(saved(path, state)).get_parameter("last.bias").dtype == torch.float32
    state["state_dict"][name] = torch.tensor(3.5)
    assert "float32, and must be int64" in refusal(saved(path, state))


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_weights_larger_than_their_file_take_no_memory(path: Path) -> None:
    spec = {**SPEC, "width": 2048}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in checkpoints.build(spec).state_dict().items()}
    state = state_of(spec)
    # Views of a single number: they claim gigabytes, and the file is a few kilobytes long.
    state["state_dict"] = {f"generator.{name}": torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    assert "more weights than it has bytes" in refusal(saved(path, state))
    assert path.stat().st_size < 100_000


# Files of before


FORMAT_1 = sorted((Path(__file__).parent / "format_1").glob("*.ckpt"))  # of upsweep b3252d2, each with an lr and its sr


@pytest.mark.parametrize("old", FORMAT_1, ids=lambda path: path.stem)
def test_a_checkpoint_of_format_1_makes_what_it_made(old: Path, path: Path) -> None:
    state = checkpoints.read(old)
    said = state[checkpoints.KEY]
    assert said["format"] == 1 and said["generator"]["_target_"].startswith("upsweep.generators.")
    generator, spec = checkpoints.load(old)
    with torch.no_grad():
        torch.testing.assert_close(generator(state["lr"]), state["sr"])
    release = path.with_suffix(".safetensors")
    checkpoints.save_release(generator, spec, release)  # in the words of today
    again, its_spec = checkpoints.load(release)
    assert "upsweep.generators" not in json.dumps(its_spec) and its_spec == spec
    assert torch.equal(again(state["lr"]), generator(state["lr"]))


@pytest.mark.parametrize("norm", ["weight", "spectral"])
def test_weights_under_a_norm_of_other_layers_are_refused_with_the_remedy(norm: str) -> None:
    (old,) = (file for file in FORMAT_1 if file.stem == norm)
    blocks = checkpoints.described(checkpoints.read(old), old)
    everywhere = copy.deepcopy(blocks)
    everywhere["recipe"]["norm"]["covers"] = "all"
    networks = {"blocks": checkpoints.build(blocks), "all": checkpoints.build(everywhere)}
    for asked, had in (("all", "blocks"), ("blocks", "all")):
        with pytest.raises(UserError, match=rf"\(it was trained with norm\.covers={had}: add that\)\.$"):
            checkpoints.fit(networks[asked], networks[had].state_dict(), old)


def test_weights_that_do_not_fit_for_another_reason_get_no_such_remedy() -> None:
    norm = {"_target_": "upsweep.blocks.norm.WeightNorm"}
    spec = {**SPEC, "recipe": {**SPEC["recipe"], "norm": norm}}
    for other in (SPEC, {**spec, "depth": 3}, {**spec, "depth": 1}):
        with pytest.raises(UserError) as refused:
            checkpoints.fit(checkpoints.build(spec), checkpoints.build(other).state_dict(), Path("x.ckpt"))
        assert "covers" not in str(refused.value)


def test_names_of_before_may_stand_in_a_config() -> None:
    old = {**SPEC, "_target_": "upsweep.generators.deconvnet.DeconvNet"}
    old["recipe"] = {**SPEC["recipe"], "upsampler": {"_target_": "upsweep.blocks.upsampler.Bicubic"}}
    assert type(checkpoints.build(old)) is type(checkpoints.build(SPEC))


# Networks of other tasks


class Denoiser(Network):
    """A network that enlarges nothing."""

    def __init__(self, recipe: Recipe, channels: int = 1) -> None:
        super().__init__(channels)
        self.first, self.last = Block(conv(channels, 4, 3), 4, recipe), conv(4, channels, 3)
        self.initialise(recipe, self.last)

    def forward(self, x: Tensor) -> Tensor:
        return x - cast(Tensor, self.last(self.first(x)))


def test_a_network_of_another_task_is_kept_and_is_no_upscaler(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_networks", sys.modules[__name__])
    spec = {"_target_": "own_networks.Denoiser", "recipe": SPEC["recipe"]}
    network = checkpoints.build(spec).eval()
    saved(path, state_of(spec, network))
    x = network.example(6, 7)
    assert x.shape == (1, 1, 6, 7) and torch.equal(x, network.example(6, 7))
    loaded = load_generator(path, allow=[spec["_target_"]])
    assert isinstance(loaded, Denoiser) and torch.equal(loaded(x), network(x))
    assert cost(network) == Cost(9 * 4 + 4 + 2 * 4 + 4 * 9 + 1, 2 * 9 * 4)
    assert cost(network.double()) == cost(network.float()), "whatever the precision"
    with pytest.raises(UserError, match=r"best\.ckpt names a Denoiser, which is not an upscaler"):
        load_upscaler(path, allow=[spec["_target_"]])


def test_a_class_that_is_not_there_is_named() -> None:
    for name in ("own.Net", "upsweep.networks.upscalers.deconvnet.Nothing", "", "x y"):
        with pytest.raises(UserError, match=f"The generator names {name}, "):
            checkpoints.build({**SPEC, "_target_": name})


# Releases: safetensors


def released(path: Path, said: object, weights: dict[str, Tensor] | None = None) -> Path:
    """A .safetensors file that says `said` (JSON text as it is) of the weights of SPEC."""
    path = path.with_suffix(".safetensors")
    text = said if isinstance(said, str) else json.dumps(said)
    weights = checkpoints.build(SPEC).state_dict() if weights is None else weights
    path.write_bytes(safetensors.torch.save(weights, {checkpoints.KEY: text}))
    return path


def test_a_release_gives_the_same_numbers(path: Path) -> None:
    generator = checkpoints.build(SPEC).eval()
    release = path.with_suffix(".safetensors")
    checkpoints.save_release(generator, SPEC, release)
    lr = torch.rand(1, 1, 7, 9)
    loaded, spec = checkpoints.load(release)
    assert torch.equal(loaded(lr), generator(lr)) and not loaded.training
    assert spec == SPEC
    assert [file.name for file in path.parent.iterdir()] == [release.name]


HOSTILE = [
    ({"format": 1, "generator": {**SPEC, "_target_": "os.system", "command": "touch ran"}}, "neither upsweep's"),
    ({"format": 1, "generator": {**SPEC, "recipe": {"_target_": "builtins.eval"}}}, "neither upsweep's"),
    ({"format": 1, "generator": {**SPEC, "_args_": ["x"]}}, "_args_"),
    ({"format": 1, "generator": {**SPEC, "skip": "${oc.env:HOME}"}}, "interpolation"),
    ({"format": 1, "generator": {**SPEC, "width": 10**12}}, "out of range"),
    ({"format": 1, "generator": {**SPEC, "width": 2000}}, "does not fit"),
    ({"format": 3, "generator": SPEC}, "format 3"),
    ({"format": True, "generator": {**SPEC, "_target_": "os.system"}}, "neither upsweep's"),
    ({"format": [1], "generator": SPEC}, "format [1]"),
    ({"generator": 3}, "which generator"),
    ("null", "which generator"),
    ("[]", "which generator"),
    ("no json", "broken"),
    ('{"format": 1, "generator": {"width": NaN}}', ""),
    ('{"format": 1, "generator": {"width": ' + "9" * 5000 + "}}", "broken"),
    ("[" * 90_000, "broken"),
    ('"' + "x" * 200_000 + '"', "characters"),
]


@pytest.mark.parametrize(("said", "word"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_release_that_says_something_else_is_refused(path: Path, said: object, word: str) -> None:
    release = released(path, said)
    with pytest.raises(UserError) as caught:
        load_generator(release)
    sentence = str(caught.value)
    assert word in sentence and str(release) in sentence and "\n" not in sentence and len(sentence) < 500
    assert not path.with_name("ran").exists()


def _header(entries: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no safetensors",
        (2**62).to_bytes(8, "little") + b"{}",
        _header({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, b"0000"),
        _header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4 * 10**12]}}, b"0000"),
        pickle.dumps({"a": 1}),
    ],
    ids=["empty", "text", "endless header", "absurd shape", "beyond the end", "pickle"],
)
def test_what_is_no_safetensors_file_is_refused(path: Path, content: bytes) -> None:
    release = path.with_suffix(".safetensors")
    release.write_bytes(content)
    with pytest.raises(UserError, match="broken, or not a safetensors file"):
        load_generator(release)


def test_a_file_that_would_unpack_to_much_more_is_refused(path: Path) -> None:
    state = state_of(SPEC)
    state["state_dict"]["generator.more"] = torch.zeros(4_000_000)
    saved(path, state)
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 100_000
    assert "compressed" in refusal(path)


class Own(Upscaler):
    """A generator outside upsweep."""

    def __init__(self, scale: int) -> None:
        super().__init__(scale, 1)
        self.conv = nn.Conv2d(1, scale**2, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x), self.scale)


def test_a_class_outside_upsweep_is_built_only_where_the_caller_names_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "own_generators", sys.modules[__name__])
    name = "own_generators.Own"
    spec = {"_target_": name, "scale": 2}
    generator = Own(2).eval()
    saved(path, state_of(spec, generator))
    assert "neither" in refusal(path)
    assert "neither" in refusal(path, allow=["own_generators.Other"])
    lr = torch.rand(1, 1, 4, 4)
    assert torch.equal(load_generator(path, allow=[name])(lr), generator(lr))


def test_a_constructor_that_refuses_is_heard() -> None:
    with pytest.raises(UserError, match="scale=5"):
        checkpoints.build({**SPEC, "scale": 5})
    with pytest.raises(UserError, match="place=between"):
        norm = {"_target_": "upsweep.blocks.norm.Norm", "place": "between"}
        checkpoints.build({**SPEC, "recipe": {**SPEC["recipe"], "norm": norm}})
    with pytest.raises(UserError, match=r"not an upsweep\.networks\.Network"):
        checkpoints.build({"_target_": "torch.nn.ReLU"})


def test_wrong_arguments_are_a_sentence_that_names_the_class() -> None:
    with pytest.raises(
        UserError, match=r"DeconvNet does not accept its arguments \(.*unexpected keyword argument 'wdith'\)\.$"
    ):
        checkpoints.build({**SPEC, "wdith": 4})
    activation = {"_target_": "torch.nn.LeakyReLU", "_partial_": True, "slope": 0.2}  # found out where it is called
    with pytest.raises(UserError, match=r"LeakyReLU.*slope=0\.2"):
        checkpoints.build({**SPEC, "recipe": {**SPEC["recipe"], "activation": activation}})


def test_a_name_that_cannot_be_imported_is_a_sentence_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "needy.py").write_text("import nothing_by_this_name\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name, why in [
        ("own_package.needy.Net", "No module named 'nothing_by_this_name'"),
        ("own_package.none.Net", "module 'own_package' has no attribute 'none'"),
        ("no_package.Net", "No module named 'no_package'"),
        ("Net", ""),
    ]:
        with pytest.raises(UserError, match=rf"The generator names {name}, which cannot be found \(.*{why}"):
            checkpoints.build({"_target_": name})


def test_a_factory_inside_of_a_class_may_stand_in_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_generators", sys.modules[__name__])
    monkeypatch.setattr(Own, "doubling", staticmethod(lambda: Own(2)), raising=False)
    assert isinstance(checkpoints.build({"_target_": "own_generators.Own.doubling"}), Own)


@pytest.mark.parametrize("said", [None, [], "x", {"generator": 7}])
def test_what_a_strangers_checkpoint_says_of_its_generator_is_nothing(said: object) -> None:
    assert checkpoints.said_of({"upsweep": said}) == {} == checkpoints.said_of({})
