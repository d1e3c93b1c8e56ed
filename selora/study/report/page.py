"""index.html: what a study found, on one page for readers without Jupyter."""

import html
import re
from pathlib import Path

import mistune
import nbformat

from selora.files import write_text

# Table 1, then the paper's order of its results; then the others
ORDER = ("12", "10", "09", "13", "08", "07", "11", "14")
STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "table{border-collapse:collapse;font-size:12px;display:block;overflow-x:auto;margin:1em 0}"
    "td,th{padding:.25em .6em;border-bottom:1px solid #ccc;text-align:left}details{margin:1em 0}"
)
markdown = mistune.create_markdown(escape=True, plugins=["table"])


def write_index(folder: Path, title: str) -> Path:
    """Write index.html: Table 1, then each executed notebook's figures and tables under its title, with its lead."""
    parts = [f"<h1>{html.escape(title)}</h1>", "<p>Nothing here is for diagnosis.</p>"]
    table = (folder / "table1.md").read_text(encoding="utf-8") if (folder / "table1.md").exists() else ""
    parts += ["<h2>Table 1</h2>", markdown(table)]
    books = sorted((folder / "notebooks").glob("[0-9]*.ipynb"), key=place)
    for path in books:
        parts += section(folder, path, known=table)
    links = [f'<li><a href="notebooks/{path.name}">{path.stem}</a></li>' for path in sorted(books)]
    parts.append("<h2>Executed notebooks</h2><ul>" + "".join(links) + "</ul>")
    page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    write_text(folder / "index.html", page + "\n".join(parts) + "\n")
    return folder / "index.html"


def place(path: Path) -> tuple[int, str]:
    """Where a notebook stands on the page."""
    number = path.stem.partition("_")[0]
    return (ORDER.index(number) if number in ORDER else len(ORDER)), number


def section(folder: Path, path: Path, known: str) -> list[str]:
    """One notebook: its title, its lead to open, its figures, its tables and texts but for a known one."""
    cells = nbformat.read(path, as_version=4).cells
    heading, _, lead = cells[0].source.partition("\n")
    number = int(path.stem.partition("_")[0])
    figures = sorted((folder / "figures").glob(f"{number}_*"), key=lambda file: file.stat().st_mtime)  # as shown
    outputs = [output.get("data", {}) for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    return [
        f"<h2>{html.escape(heading.lstrip('# '))}</h2>",
        f"<details><summary>what this is</summary>{markdown(plain(lead))}</details>",
        *(f'<p><img src="figures/{file.name}" alt="{html.escape(file.stem)}"></p>' for file in figures),
        *(rendered(data) for data in outputs if data.get("text/markdown") != known),
    ]


def rendered(data: dict) -> str:
    """A table or a text as HTML; nothing for figures, which are files."""
    return markdown(data["text/markdown"]) if "text/markdown" in data else data.get("text/html", "")


def plain(text: str) -> str:
    """Markdown without its displayed formulas, which no page shows without a script from elsewhere."""
    return re.sub(r"\$\$.*?\$\$", "*(formula: see the notebook)*", text, flags=re.DOTALL)
