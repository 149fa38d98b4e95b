"""The pictures of explaining.md: the commands of the page that make them are run, and their PNGs are kept.

    python docs/explaining.py

Writes docs/explaining/<output>/<section>.png, each with a palette of 256 colours, fewer where it would be large. The
commands train four small networks besides, in a temporary folder: a few minutes on two cores.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

HERE = Path(__file__).resolve().parent
LARGEST = 120_000  # bytes of a picture


def main() -> None:
    """Run the blocks ```sh run of the page in their order, each line a command; keep what lies in outputs/."""
    page = (HERE / "explaining.md").read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        for name in ("conf", "src"):
            (Path(folder) / name).symlink_to(HERE.parent / name)
        for block in re.findall(r"```sh run\n(.*?)```", page, re.DOTALL):
            for line in block.replace("\\\n", "").splitlines():
                _, *arguments = shlex.split(line)  # `python` is the one that runs this
                subprocess.run([sys.executable, *arguments], cwd=folder, env=os.environ, check=True)
        for png in sorted(Path(folder).glob("outputs/*/*.png")):
            if (png.parent / "explanation.html").is_file():
                keep(png, HERE / "explaining" / png.parent.name / png.name)


def keep(png: Path, kept: Path) -> None:
    """The picture with the largest palette with which it is small enough, in the folder of the page's pictures."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    for colours in (256, 128, 64, 32):
        Image.open(png).convert("RGB").quantize(colours).save(kept, optimize=True)
        if kept.stat().st_size <= LARGEST:
            break


if __name__ == "__main__":
    main()
