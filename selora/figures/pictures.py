"""Pictures in rows, how panels are titled, and how every figure is saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image


def image_grid(rows: Mapping[str, Sequence[Image.Image | None]], captions: Sequence[str] = ()) -> Figure:
    """Rows of pictures, each row with a title at its left, and a caption above each column; None leaves a gap."""
    columns = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(1.7 * columns, 1.8 * len(rows) + 0.5), squeeze=False, layout="constrained"
    )
    for line, (title, images) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for axis, image in zip(line, images, strict=False):
            if image is not None:
                axis.imshow(image, cmap="gray")
        line[0].set_ylabel(title)
    for axis, caption in zip(axes[0], captions, strict=False):
        axis.set_title(fill(caption if len(caption) < 110 else caption[:107] + "...", 28), fontsize=6, loc="left")
    return figure


def titled(grid: sns.FacetGrid, title: str = "") -> Figure:
    """The figure of seaborn's grid: each panel headed by what it shows, and all of them by a title."""
    grid.set_titles("{col_name}" if not grid.row_names else "{row_name}, {col_name}", size=9)
    grid.figure.suptitle(title)
    grid.tight_layout()
    return grid.figure


def save_figure(figure: Figure, folder: Path, name: str) -> Figure:
    """Write a figure to `folder/figures/name.png` and hand it back, for the notebook to show."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "figures" / f"{name}.png", dpi=130)
    plt.close(figure)  # else a notebook shows it a second time
    return figure
