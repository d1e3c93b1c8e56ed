"""Pages of the site that are made of records: the front page with Table 1 and every seed, and a page for each method's
runs on a data set."""

import html
import math
from pathlib import Path

import pandas as pd

from selora.figures.pictures import COLOURS
from selora.files import read_json
from selora.study.report.table1 import collect, table1
from selora.study.report.table1_text import HEADER, body, caption
from selora.study.results import finished_runs, folder_of

WIDTH, HEIGHT, EDGE = 520, 340, 48  # of a picture of all seeds, in pixels
LINKED = HEADER.index("FID ↓"), HEADER.index("finding AUROC ↑")  # the first and the last column of scores
SHOWN = ("kid", "kid_error", "fid", "clip", "auroc", "unet_params", "text_encoder_params", "best_step", "train_seconds")


def page_of(dataset: str, method: str) -> str:
    """The name of the page of a method's runs on a data set."""
    return f"{dataset}_{method}".replace("@", "_at_")


def front_page(results: Path) -> str:
    """Table 1, whose scores lead to their runs, and KID against parameters with a point for every seed."""
    runs = collect(results)
    return f"""# The SeLoRA study, profile {results.name}

Self-expanding low-rank adaptation of a latent diffusion model, rebuilt, tested and measured. Images are rendered or
generated; **nothing here is for diagnosis.** New to it? [What this is](about.md).

## Table 1

A click on a heading sorts, words in the field filter, a score leads to the records of its runs.
<a href="_static/table1.csv" download>table1.csv</a> has more digits.

{table_html(table1(runs), runs)}

{caption(runs)}

## KID against parameters, every seed

A point for each run, which leads to its record. The base, which has no trained parameters, stands at the left edge.

{"".join(points(dataset, own) for dataset, own in runs.groupby("dataset", sort=False))}
"""


def table_html(table: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Table 1 as HTML, in one line since Markdown would end it at an empty one."""
    heads = "".join(f"<th>{html.escape(words)}</th>" for words in HEADER)
    lines = []
    for cells in body(table, runs):
        dataset, method, *_ = cells
        shown = [cell_html(words) for words in cells]
        if not method.startswith("*"):
            for column in range(LINKED[0], LINKED[1] + 1):
                shown[column] = f'<a href="runs/{page_of(dataset, method)}.html">{shown[column]}</a>'
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in shown) + "</tr>")
    return f'<table id="table1"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def cell_html(words: str) -> str:
    """A cell of Table 1 in HTML: bold is bold, words in italics are."""
    for sign, tag in (("**", "strong"), ("*", "em")):
        if words.startswith(sign) and words.endswith(sign):
            return f"<{tag}>{html.escape(words.strip('*'))}</{tag}>"
    return html.escape(words)


def points(dataset: str, runs: pd.DataFrame) -> str:
    """KID of every run against its parameters, on a logarithmic axis, as SVG in which a point leads to its record."""
    sizes = runs.unet_params + runs.text_encoder_params
    powers = [math.log10(size) for size in sizes if size]
    left, right = (math.floor(10 * min(powers)) - 2) / 10, (math.ceil(10 * max(powers)) + 1) / 10
    highest = 100 * math.ceil(10 * runs.kid.max())

    def across(size: float) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * ((math.log10(size) if size else left) - left) / (right - left)

    def down(kid: float) -> float:
        return HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * 1000 * kid / highest

    parts = [f'<path class="axis" d="M{EDGE} {EDGE} V{HEIGHT - EDGE} H{WIDTH - EDGE}"/>']
    for kid in range(0, highest + 1, 200):
        parts.append(f'<text x="{EDGE - 6}" y="{down(kid / 1000) + 4:.0f}" text-anchor="end">{kid}</text>')
    for size in (10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6, 3 * 10**6):
        if left <= math.log10(size) <= right:
            parts.append(f'<text x="{across(size):.0f}" y="{HEIGHT - EDGE + 16}" text-anchor="middle">{size:,}</text>')
    middle = f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">trainable parameters</text>'
    parts += [middle, f'<text x="8" y="{EDGE - 16}">{html.escape(dataset)}: KID x 1000, less is better</text>']
    labels = []  # (left edge, height, method), by the last seed's point
    for number, (method, own) in enumerate(runs.groupby("method", sort=False)):
        colour = COLOURS[number % len(COLOURS)]
        for run in own.itertuples():
            x, y = across(run.unet_params + run.text_encoder_params), down(run.kid)
            words = (
                f"{method}, seed {run.seed}: KID {1000 * run.kid:.1f}, {run.unet_params + run.text_encoder_params:,}"
            )
            circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" stroke="currentColor">'
            place = f"runs/{page_of(dataset, method)}.html#seed-{run.seed}"
            parts.append(f'<a href="{place}">{circle}<title>{html.escape(words)}</title></circle></a>')
        labels.append((x + 8, y + 4, method))
    parts += [f'<text x="{x:.0f}" y="{y:.0f}">{html.escape(method)}</text>' for x, y, method in apart(labels)]
    label = html.escape(f"KID of every run on {dataset} against its parameters", quote=True)
    return (
        f'<svg class="points" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>\n\n"
    )


def apart(labels: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Words (left edge, height, text) of some 7 by 12 pixels a letter, each moved down until it covers none before."""
    placed = []
    for x, y, words in sorted(labels, key=lambda label: label[1]):
        for left, height, other in placed:
            if x < left + 7 * len(other) and left < x + 7 * len(words) and abs(y - height) < 12:
                y = height + 12
        placed.append((x, y, words))
        placed.sort(key=lambda label: label[1])
    return placed


def run_pages(results: Path) -> dict[str, str]:
    """A page in Markdown for each data set and method, the ablation's too: its seeds' scores, settings and files."""
    pages = {}
    for (dataset, method), own in finished_runs(results).groupby(["dataset", "method"], sort=False):
        lines = [f"# {method} on {dataset}", ""]
        for run in own.sort_values("seed").itertuples():
            folder = folder_of(results, dataset, method, run.seed)
            files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".csv")]
            place = folder.relative_to(results).as_posix()
            links = [f'<a href="../_static/{place}/{path.name}" download>{path.name}</a>' for path in files]
            numbers = {name: getattr(run, name) for name in SHOWN if getattr(run, name, None) is not None}
            lines += [f"## Seed {run.seed}", "", f"Commit {run.commit}, {run.device}. Files: {', '.join(links)}.", ""]
            lines += [
                "| score | value |",
                "| --- | --- |",
                *(f"| {name} | {value:,.6g} |" for name, value in numbers.items()),
                "",
            ]
            settings = read_json(folder / "settings.json") if (folder / "settings.json").exists() else run.settings
            lines += ["What determined it:", "", "| setting | value |", "| --- | --- |"]
            lines += [f"| {name} | `{value}` |" for name, value in settings.items()]
            lines.append("")
        pages[page_of(dataset, method)] = "\n".join(lines) + "\n"
    return pages
