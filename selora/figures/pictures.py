"""Pictures in rows, the colours of all figures, how panels are titled, and what every figure is saved as."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from textwrap import fill

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's colours, which colour-blind eyes tell apart (grey for their yellow, which white paper swallows), and
# with them a sign for each, for prints in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
sns.set_palette(COLOURS)

WIDEST = 8  # pictures side by side; further columns go below
DOTS = 130  # an inch of a figure
LETTERS = 16  # of a line of a caption, to an inch
LONGEST = 420  # letters of a caption: some more than the 77 tokens that a model reads


def image_grid(
    rows: Mapping[str, Sequence[Image.Image | None]],
    captions: Sequence[str] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Rows of pictures, each row with a title at its left, and a caption above each column; None leaves a gap.

    Of more than `WIDEST` columns the further ones stand below, under rows of the same titles. `notes` has words to go
    below the pictures of a row.
    """
    count = max(len(images) for images in rows.values())
    width = min(count, WIDEST)
    bands = [range(start, min(start + width, count)) for start in range(0, count, width)]
    side = min(1.7, max(1.0, 15 / (len(rows) * len(bands))))  # of a picture, in inches
    whole = [text if len(text) < LONGEST else text[: LONGEST - 3] + "..." for text in captions]
    texts = [fill(text, round(LETTERS * side)) for text in whole]
    room = 0.1 * max((1 + text.count("\n") for text in texts), default=0) * len(bands)  # of the captions, in inches
    height = (side + 0.1 + 0.15 * bool(notes)) * len(rows) * len(bands) + room + 0.5
    figure, axes = plt.subplots(
        len(rows) * len(bands), width, figsize=(side * width + 0.4, height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for number, band in enumerate(bands):
        lines = axes[number * len(rows) :][: len(rows)]
        for line, (title, images) in zip(lines, rows.items(), strict=True):
            line[0].set_ylabel(title)
            for axis, column in zip(line, band, strict=False):
                if column < len(images) and images[column] is not None:
                    axis.imshow(images[column], cmap="gray")
                if notes and column < len(notes.get(title, ())):
                    axis.set_xlabel(notes[title][column], fontsize=8)
        for axis, text in zip(lines[0], texts[band.start : band.stop], strict=False):
            axis.set_title(text, fontsize=6, loc="left")
    return figure


def titled(grid: sns.FacetGrid, title: str = "") -> Figure:
    """The figure of seaborn's grid: each panel headed by what it shows, and all of them by a title."""
    grid.set_titles("{col_name}" if not grid.row_names else "{row_name}, {col_name}", size=9)
    grid.figure.suptitle(title)
    grid.tight_layout()
    return grid.figure


def as_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG; the figure is closed, else a notebook would show it a second time."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS)
    plt.close(figure)
    return buffer.getvalue()
