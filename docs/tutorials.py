"""The notebooks as pages: their text and code, with what the cells printed and showed when they were last run.

    python docs/tutorials.py                 # run all notebooks and keep their outputs: a few minutes on two cores
    python docs/tutorials.py quickstart why  # only these

An output is kept as docs/tutorials/<notebook>/<cell>.txt, .png or .gif, and the site's pages are written from these and
from the notebooks (hooks.py). So a notebook's text can change without running it again.
"""

import base64
import io
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT, KEPT = HERE.parent, HERE / "tutorials"
NOTEBOOKS = ("quickstart", "reading_a_sweep", "your_own_generator", "why", "latent_walk")  # in the order of reading
LARGEST = 150_000  # bytes of a picture


def cells(name: str) -> list[dict[str, Any]]:
    """A notebook's cells: `cell_type`, `source` as one text, `outputs` as they are."""
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"]]


def title(name: str) -> str:
    """The first line of a notebook, without its mark."""
    return str(cells(name)[0]["source"]).splitlines()[0].removeprefix("# ")


def page(name: str) -> str:
    """Markdown of a notebook, as a page that lies in docs/tutorials/."""
    parts = []
    for number, cell in enumerate(cells(name)):
        if cell["cell_type"] == "markdown":
            heading, line, rest = cell["source"].partition("\n")
            text = f"{heading}\n\n{rest}" if line and heading.startswith("# ") else cell["source"]
            parts.append(text.replace("](../docs/", "](../"))
            continue
        parts.append(f"```python\n{cell['source']}\n```")
        for kept in sorted((KEPT / name).glob(f"{number:02d}_*")):
            shown = f"![What the cell shows]({name}/{kept.name})"
            parts.append(shown if kept.suffix != ".txt" else f"```text\n{kept.read_text(encoding='utf-8')}\n```")
    return "\n\n".join(parts) + "\n"


def run(name: str) -> None:
    """Run a notebook in an empty folder and keep what its cells put out."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    with TemporaryDirectory() as folder:
        for link in ("conf", "src"):
            (Path(folder) / link).symlink_to(ROOT / link)
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    for old in (KEPT / name).iterdir():
        old.unlink()
    for number, cell in enumerate(notebook.cells):
        for place, output in enumerate(cell.get("outputs", [])):
            keep(output, KEPT / name / f"{number:02d}_{place}", folder)


def keep(output: dict[str, Any], path: Path, folder: str) -> None:
    """One output as a file: a picture with a palette, an animation as it is, anything else as text.

    Args:
        folder: where the notebook ran, which the text calls ~/upsweep.
    """
    data = output.get("data", {})
    if "image/gif" in data:
        path.with_suffix(".gif").write_bytes(base64.b64decode(data["image/gif"]))
    elif "image/png" in data:
        save_small(base64.b64decode(data["image/png"]), path.with_suffix(".png"))
    elif output.get("name") != "stderr":
        text = str(output.get("text") or data.get("text/plain", "")).strip("\n")
        path.with_suffix(".txt").write_text(text.replace(folder, "~/upsweep"), encoding="utf-8")


def save_small(png: bytes, path: Path) -> None:
    """A PNG with the largest palette with which it is small enough."""
    from PIL import Image

    for colours in (256, 128, 64, 32):
        Image.open(io.BytesIO(png)).convert("RGB").quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            break


if __name__ == "__main__":
    for asked in sys.argv[1:] or NOTEBOOKS:
        run(asked)
