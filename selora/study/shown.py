"""Figures as notebooks show them: each under the name of its file, by which published pages find it."""

from io import BytesIO
from pathlib import Path

from IPython.display import Image as ShownImage
from matplotlib.figure import Figure
from PIL import Image

from selora.figures import pictures
from selora.files import replacing

SCREEN = 96  # pixels of a screen to an inch of a figure


def shown_figure(figure: Figure, name: str, folder: Path | None) -> ShownImage:
    """A figure to be shown, after it was written to `folder/figures/name.png`; nothing is written without a folder."""
    width, data = figure.get_figwidth(), pictures.as_png(figure)
    if folder:
        with replacing(folder / "figures" / f"{name}.png") as path:
            path.write_bytes(data)
    return named(data, width, name)


def shown_file(path: Path) -> ShownImage:
    """A published figure's file, to be shown."""
    image, buffer = Image.open(path), BytesIO()
    image.save(buffer, "PNG")
    return named(buffer.getvalue(), image.width / pictures.DOTS, path.stem)


def named(data: bytes, width: float, name: str) -> ShownImage:
    """The bytes of a PNG, some inches wide, with the name of the figure that they are."""
    return ShownImage(data=data, format="png", width=round(SCREEN * width), metadata={"figure": name})
