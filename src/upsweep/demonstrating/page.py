"""The page itself, in Gradio: fields in, pictures out; what is done lies in the plain functions beside this file."""

import functools
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from upsweep.common.commands import command
from upsweep.common.errors import UserError
from upsweep.data.photos import photo_files
from upsweep.demonstrating.drawing import between, draw
from upsweep.demonstrating.enlarging import enlarge
from upsweep.demonstrating.local import HOST
from upsweep.demonstrating.weights import Weights
from upsweep.sampling.files import ON_THE_GRID

DOWNLOAD = "Download the PNG"
EXAMPLES = ("astronaut.png", "coffee.png")
SECONDS = 20  # for which the page shows an error
RESULTS = 16  # whose files are kept
DAY = 24 * 3600  # seconds after which Gradio removes uploads
NO_SYNTHESISER = (
    f"No checkpoint of a generator of images was given. `{command('train', 'task=generation')}` trains one; "
    f"`{command('demo', 'checkpoint=outputs/RUN')}` with the folder that it names then draws its samples here."
)
KEPT = ["download", "fullscreen"]  # the third button would send the picture to another machine
CSS = "#samples img, #walk img, #between img { image-rendering: pixelated; }"
ALONE: dict[str, Any] = {"concurrency_id": "networks", "concurrency_limit": 1, "api_visibility": "private"}


class Page:
    """The page on which photos are enlarged and samples drawn.

    Args:
        weights: what it offers.
        folder: where it keeps files while it runs; `local.stay_here` names it to Gradio.
        max_pixels: of a photo.
    """

    def __init__(self, weights: Weights, folder: Path, *, max_pixels: int) -> None:
        self.weights, self.folder, self.max_pixels = weights, folder, max_pixels
        self._results: deque[Path] = deque()
        self._working, self._ending = threading.Lock(), threading.Event()
        self.examples = {Path(name).stem: path for name, path in photo_files(EXAMPLES).items()}
        with gr.Blocks(title="upsweep", analytics_enabled=False, delete_cache=(DAY // 24, DAY)) as self.blocks:
            gr.Markdown("# upsweep\nEverything stays on this machine.")
            with gr.Tabs(selected="draw" if weights.synthesisers else "enlarge"):
                with gr.Tab("Enlarge a photo", id="enlarge"):
                    self._enlarging()
                with gr.Tab("Draw samples", id="draw"):
                    if weights.synthesisers:
                        self._drawing()
                    else:
                        gr.Markdown(NO_SYNTHESISER)

    def serve(self, port: int, *, max_bytes: int, open_browser: bool = False) -> None:
        """Show the page, to this machine alone, until Ctrl-C or SIGTERM."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks its own server whether it is up
        # A site that gives its own name this machine's address would be let in as if it were the page.
        own_name_only = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        _, address, _ = self.blocks.queue(max_size=16).launch(
            server_name=HOST,
            server_port=port,
            inbrowser=open_browser,
            max_file_size=max_bytes,
            allowed_paths=[*map(str, self.examples.values())],
            app_kwargs={"middleware": [own_name_only]},
            theme=gr.themes.Base(font="sans-serif", font_mono="monospace"),
            css=CSS,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
            # The rest is said so that no variable of the environment says otherwise.
            root_path="",
            share=False,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
        )
        print(f"The page is at {address} for this machine alone. Ctrl-C ends it.", flush=True)
        try:
            while True:
                time.sleep(1)
        finally:
            self._ending.set()
            self.blocks.close(verbose=False)
            self._working.acquire()  # torch aborts a process that ends while one of its threads works

    def _job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What networks are asked to do, one at a time; the page shows its UserError with the terminal's sentence."""

        @functools.wraps(function)
        def job(*arguments: Any) -> Any:
            try:
                with self._working:
                    return function(*arguments)
            except UserError as error:
                raise gr.Error(str(error), duration=SECONDS, print_exception=False) from error

        return job

    def _enlarging(self) -> None:
        names = self.weights.upscalers
        first = self.weights.scale
        with gr.Row():
            with gr.Column(scale=1):
                photo = gr.File(label="Photo (PNG, JPEG, TIFF, WebP, BMP)", elem_id="photo")
                with gr.Row():
                    for name, path in self.examples.items():
                        example = gr.Button(f"Try {name}", size="sm")
                        example.click(lambda path=str(path): path, outputs=photo, api_visibility="private")
                scale = gr.Radio([(f"x{one}", one) for one in names], value=first, label="Scale")
                weights = gr.Dropdown(names[first], value=names[first][0], label="Weights", elem_id="weights")
                start = gr.Button("Enlarge", variant="primary")
                said = gr.Textbox(label="Result", interactive=False, elem_id="said")
                file = gr.DownloadButton(DOWNLOAD, interactive=False, elem_id="download")
            with gr.Column(scale=3):
                wipe = gr.ImageSlider(
                    label="Left: bicubic. Right: these weights.",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="wipe",
                    max_height=600,
                )
        enlarging = self._job(self._enlarged), [photo, weights, scale], [wipe, said, file]
        gr.on([photo.change, weights.input, start.click], *enlarging, trigger_mode="always_last", **ALONE)
        scale.input(self._names, scale, weights, api_visibility="private").then(*enlarging, **ALONE)

    def _names(self, scale: int) -> Any:
        names = self.weights.upscalers[scale]
        return gr.Dropdown(names, value=names[0])

    def _enlarged(
        self,
        photo: str | None,
        name: str,
        scale: int,
        progress: Any = gr.Progress(),  # noqa: B008 - by this Gradio knows that it is to give one
    ) -> tuple[Any, ...]:
        if photo is None:
            return None, "", gr.DownloadButton(DOWNLOAD, value=None, interactive=False)
        done = 0.0

        def advance(share: float) -> None:
            nonlocal done
            done += share
            if self._ending.is_set():
                raise UserError("The page has ended.")
            progress(min(done, 1.0), desc="enlarging")

        enlarger = self.weights.enlarger(name, scale)
        made = enlarge(Path(photo), enlarger, self._new_folder(), max_pixels=self.max_pixels, advance=advance)
        button = gr.DownloadButton(f"Download {made.file.name}", value=made.file, interactive=True)
        return (made.bicubic, made.ours), made.said, button

    def _drawing(self) -> None:
        names = [*self.weights.synthesisers]
        with gr.Row():
            with gr.Column(scale=1):
                weights = gr.Dropdown(names, value=names[0], label="Weights", visible=len(names) > 1)
                count = gr.Slider(1, ON_THE_GRID, value=64, step=1, label="Samples", elem_id="count")
                seed = gr.Number(1, precision=0, label="Seed: the same one, the same samples", elem_id="seed")
                truncation = gr.Number(0, label="Truncation: 0.7 for better images, less variety; 0: none")
                start = gr.Button("Draw", variant="primary")
            with gr.Column(scale=3), gr.Row():
                grid = gr.Image(label="Samples", buttons=KEPT, interactive=False, elem_id="samples")
                walk = gr.Image(
                    label="A walk between the first of them", buttons=KEPT, interactive=False, elem_id="walk"
                )
        gr.Markdown("### Between two seeds")
        with gr.Row():
            with gr.Column(scale=1):
                first = gr.Number(1, precision=0, label="From seed")
                last = gr.Number(2, precision=0, label="To seed")
                share = gr.Slider(0, 1, value=0.5, step=0.01, label="On the way", elem_id="share")
            with gr.Column(scale=3):
                one = gr.Image(label="Sample", buttons=KEPT, interactive=False, elem_id="between", height=400)
        start.click(self._job(self._drawn), [weights, count, seed, truncation], [grid, walk], **ALONE)
        gr.on(
            [share.change, first.change, last.change, truncation.change, weights.change, self.blocks.load],
            self._job(self._between),
            [weights, first, last, share, truncation],
            one,
            trigger_mode="always_last",
            show_progress="hidden",
            **ALONE,
        )

    def _drawn(self, name: str, count: int, seed: int | None, truncation: float | None) -> tuple[Path, Path | None]:
        return draw(self.weights.synthesisers[name], count, seed, truncation or None, self._new_folder())

    def _between(self, name: str, first: int | None, last: int | None, share: float, truncation: float | None) -> Path:
        return between(self.weights.synthesisers[name], (first, last), share, truncation or None, self.folder)

    def _new_folder(self) -> Path:
        """For the files of one result; those of the last results stay, so that what the page still shows is there."""
        if len(self._results) == RESULTS:
            shutil.rmtree(self._results.popleft(), ignore_errors=True)
        self._results.append(Path(tempfile.mkdtemp(prefix="result-", dir=self.folder)))
        return self._results[-1]
