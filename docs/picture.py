"""The README's picture: one of scikit-image's photos, shrunk to a third and enlarged by the weights that are shipped.

    python docs/picture.py

Writes picture.png and picture.md beside itself. The photo is in none of the sets on which the weights were trained.
"""

from pathlib import Path

from PIL import Image

from upsweep import release
from upsweep.data.photos import photo_files
from upsweep.data.store import Settings, open_images
from upsweep.evaluation import evaluate, mean
from upsweep.imaging.lettering import labelled
from upsweep.metrics.figure import Figure
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.tasks.super_resolution.data import EvalImages, batch_of_one
from upsweep.tasks.super_resolution.pictures import comparison

HERE = Path(__file__).resolve().parent
PHOTO, SCALE = "chelsea.png", 3
PSNR = Figure(name="psnr", title="PSNR", unit="dB")


def main() -> None:
    """Enlarge, judge, write both files."""
    images = EvalImages(open_images(photo_files((PHOTO,)), Settings(SCALE, 1, colour=True), None).images)
    weights = release.path(None, SCALE)
    generator = load_upscaler(weights)
    (psnr, ssim), (plain, plain_ssim) = (mean(evaluate(g, images)) for g in (generator, Bicubic(scale=SCALE)))
    image = batch_of_one([images[0]])
    panel = comparison(image, generator(image.lr), figure=PSNR, value=psnr, baseline=plain)
    Image.fromarray(labelled(panel.pixels, panel.labels)).save(HERE / "picture.png", optimize=True)
    (HERE / "picture.md").write_text(
        "# The picture of the README\n\n"
        f"`{PHOTO}` of scikit-image, shrunk to a third and enlarged by `{weights.name}`: `python docs/picture.py`.\n"
        f"Bicubic: {plain:.2f} dB, SSIM {plain_ssim:.4f}; the shipped weights: {psnr:.2f} dB, SSIM {ssim:.4f} "
        "(papers' protocol).\nThe generator enlarges the Y plane; the colours are bicubic's.\n"
    )


if __name__ == "__main__":
    main()
