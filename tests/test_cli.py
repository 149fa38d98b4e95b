"""What all doors share: file names as they are typed, and the classes that a user's own config names."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from upsweep import cli

PRINT = """
import sys
sys.path.insert(0, {src!r})
from upsweep.cli import door, own_targets
@door("upscale", config_path={conf!r}, paths=("input",))
def main(cfg):
    print(repr(cfg.input), sorted(target for target in own_targets() if not target.startswith(("upsweep", "torch"))))
main()
"""


def parsed(argument: str) -> object:
    return OverridesParser.create().parse_override(cli._quoted(argument, ("input",))).value()


@pytest.mark.parametrize(
    "name",
    [
        "my photo (1).jpg",
        "a,b=c.jpg",
        "it's.jpg",
        "~/x.png",
        "ü.jpg",
        "C:\\photos\\",
        "a\\'b",
        "*.jpg",
        "a[1]?.jpg",
        "#",
    ],
)
def test_a_file_name_is_taken_as_it_is_typed(name: str) -> None:
    assert parsed(f"input={name}") == name


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_any_file_name_is(name: str) -> None:
    if name[0] not in "'\"[" and name != "null":
        assert parsed(f"input={name}") == name


def test_lists_and_what_is_quoted_already_stay() -> None:
    assert parsed("input=[a.jpg,b.jpg]") == ["a.jpg", "b.jpg"]
    assert parsed("input='a b.jpg'") == "a b.jpg"
    assert parsed("input=null") is None
    assert cli._quoted("tile=a b", ("input",)) == "tile=a b"


def test_a_users_config_folder_names_classes_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "conf" / "generator").mkdir(parents=True)
    (tmp_path / "conf" / "generator" / "tiny.yaml").write_text("_target_: tiny.Tiny\n")
    (tmp_path / "conf" / "data").mkdir()
    (tmp_path / "conf" / "data" / "evil.yaml").write_text("_target_: os.system\n")
    root = Path(__file__).parents[1]
    script = tmp_path / "script.py"
    script.write_text(PRINT.format(src=str(root / "src"), conf=str(root / "conf")))
    command = [sys.executable, str(script), "--config-dir", str(tmp_path / "conf"), "input=a (1).jpg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "'a (1).jpg' ['tiny.Tiny']\n", done.stderr
