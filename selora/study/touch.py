"""Pictures to touch: with controls where a notebook is open in front of a person, a still picture everywhere else."""

import os
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from selora.figures.pictures import image_grid
from selora.study.shown import shown_figure

# what JupyterLab and Notebook, VS Code and Colab give a kernel, and papermill does not
FRONT_ENDS = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")


def touch(study, name: str, draw: Callable[..., Figure], choices: Mapping[str, tuple[Sequence, object]]) -> None:
    """Show what `draw` makes of some choices: with a control for each, or as the picture of the first values alone.

    Numbers get a slider, words a list. The picture of the first values is saved as the figure `name`.

    Args:
        study: the notebook's.
        draw: takes one value by each name of `choices`.
        choices: by name all values, and the first to be shown.
    """
    still = study.save(draw(**{key: first for key, (_, first) in choices.items()}), name)
    if not any(map(os.environ.get, FRONT_ENDS)):
        return display(still)
    import ipywidgets  # late: most notebooks have nothing to touch

    controls = {}
    for key, (values, first) in choices.items():
        own = {"options": list(values), "value": first, "description": key, "style": {"description_width": "7em"}}
        if isinstance(first, str):
            controls[key] = ipywidgets.Dropdown(**own, layout=ipywidgets.Layout(width="95%"))
        else:
            controls[key] = ipywidgets.SelectionSlider(**own, continuous_update=False)

    def redraw(**values: object) -> None:
        display(shown_figure(draw(**values), name, None))

    picture = ipywidgets.interactive_output(redraw, controls)
    display(ipywidgets.VBox([*controls.values(), picture]))


def same_noise(study, dataset: str, figure: str) -> None:
    """What each method made of one prompt from one noise, beside the prompt's own image, with a choice of prompt and
    seed; of the prompts and seeds whose samples are here."""
    examples = {e.id: e for e in study.scored(dataset)}
    here = {  # paths by method, seed and example
        (run.method, run.seed, name): path
        for run in study.runs(study.profile.methods)
        if run.dataset == dataset
        for name, path in zip(examples, run.samples([*examples]), strict=True)
        if path.is_file()
    }
    known = {name for *_, name in here}
    pictured = {f"{e.id}: {e.prompt}": e for e in examples.values() if e.id in known}
    seeds = sorted({seed for _, seed, _ in here})
    if not pictured:
        return print(f"{dataset}: no samples are here")

    def draw(prompt: str, seed: int) -> Figure:
        example = pictured[prompt]
        images = {m: Image.open(path) for (m, *drawn), path in here.items() if drawn == [seed, example.id]}
        (reference,) = study.images([example])
        row = {f"seed {seed}": [reference, *images.values()]}
        grid = image_grid(row, [study.reference(dataset).replace("\n", " "), *images])
        grid.suptitle(fill(example.prompt, 90), fontsize=9)
        return grid

    touch(study, figure, draw, {"prompt": (pictured, next(iter(pictured))), "seed": (seeds, seeds[0])})


def nobody_in_front() -> None:
    """Let the kernels that this process starts know that no person looks at them, though one may look at this one: they
    show still pictures, and no progress."""
    for name in FRONT_ENDS:
        os.environ.pop(name, None)
    os.environ["TQDM_DISABLE"] = "1"
