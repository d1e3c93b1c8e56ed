"""The site: python -m selora.study.report.site quick [--course] [--to FOLDER]

A profile's results (one's own where they are finished, else the published ones), its executed notebooks, the course and
the pages of `docs/`, as a folder of static pages that a server or GitHub Pages can hand out. It needs the extra `site`.
"""

import argparse
import html
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from os.path import relpath
from pathlib import Path

import nbformat
import papermill

from selora.files import NOTEBOOKS, PUBLISHED, REPOSITORY, RESULTS, replacing, write_text
from selora.study.report.publish import TABLES
from selora.study.report.site_pages import front_page, run_pages

COURSE = RESULTS / "course"  # its executed chapters
PARTS = REPOSITORY / "docs" / "site"  # Sphinx's configuration, style and script
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")


def build_site(results: Path, target: Path) -> None:
    """Make the site of a folder of results in a target folder, which is replaced.

    Raises:
        ImportError: where Sphinx or one of its parts is missing, with how to get them.
        RuntimeError: where Sphinx fails.
    """
    try:
        import myst_nb  # noqa: F401
        import sphinx_book_theme  # noqa: F401
        from sphinx.cmd.build import build_main
    except ImportError as error:
        raise ImportError(f"the site needs {error.name}: pip install -e '.[site]'") from error
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "html"
        lay_out(results, source)
        if build_main(["-q", "-b", "html", "-d", f"{folder}/doctrees", str(source), str(made)]):
            raise RuntimeError("Sphinx failed: what it said stands above")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)


def lay_out(results: Path, source: Path) -> None:
    """Write all that Sphinx reads: its configuration, the pages, the figures, and the records to download."""
    shutil.copytree(PARTS, source / "_static", ignore=shutil.ignore_patterns("conf.py"))
    shutil.copyfile(PARTS / "conf.py", source / "conf.py")
    shutil.copytree(results / "figures", source / "_static" / "figures")
    for pattern in (*TABLES, "runs/*/*/*/*.json", "runs/*/*/*/*.csv"):
        for path in results.glob(pattern):
            copy = source / "_static" / path.relative_to(results)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    pages = site_pages(results)
    linked = pages | {results / name: "index" for name in ("table1.md", "index.html")}
    for path, page in pages.items():
        if path.suffix == ".ipynb":
            book = shown_book(nbformat.read(executed(path, results), as_version=4), results, page)
            for cell in book.cells:
                if cell.cell_type == "markdown":
                    cell.source = relinked(cell.source, path, page, linked, source)
            write_text(source / f"{page}.ipynb", nbformat.writes(book) + "\n")
        else:
            text = path.read_text(encoding="utf-8")
            write_text(source / f"{page}.md", relinked(text, path, page, linked, source))
    runs = run_pages(results)
    for name, text in runs.items():
        write_text(source / "runs" / f"{name}.md", text)
    write_text(source / "index.md", front_page(results) + contents(pages, list(runs)))


def site_pages(results: Path) -> dict[Path, str]:
    """The repository's files that become pages, by the page's name: notebooks that a profile has executed, the course,
    the README and the pages of docs."""
    numbered = [path for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) if (results / "notebooks" / path.name).exists()]
    course = [*sorted(NOTEBOOKS.glob("course/*.md")), *sorted(NOTEBOOKS.glob("course/*.ipynb"))]
    docs = sorted((REPOSITORY / "docs").glob("*.md"))
    pages = {path: f"laboratory/{path.stem}" for path in numbered} | {path: f"course/{path.stem}" for path in course}
    return pages | {REPOSITORY / "README.md": "about"} | {path: f"pages/{path.stem}" for path in docs}


def executed(path: Path, results: Path) -> Path:
    """A notebook's executed copy: a profile's, of a chapter of the course the one that `execute_course` made. Without
    one, or where a chapter's is stale, the notebook itself."""
    if path.parent.name != "course":
        copy = results / "notebooks" / path.name
        return copy if copy.exists() else path
    if is_fresh(copy := COURSE / path.name, path):
        return copy
    print(f"{path.name} is shown without outputs: its executed copy is missing or stale (COURSE=1 makes it).")
    return path


def is_fresh(copy: Path, chapter: Path) -> bool:
    """Whether a chapter's executed copy is younger than the chapter and the published results, which it may show."""
    sources = [chapter, *PUBLISHED.glob("*/table1.csv")]
    return copy.exists() and copy.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def execute_course() -> None:
    """Execute the chapters of the course whose executed copy is missing or stale: minutes each.

    Raises:
        RuntimeError: at the first that fails, with its name and its error.
    """
    for path in sorted(NOTEBOOKS.glob("course/*.ipynb")):
        copy = COURSE / path.name
        if not is_fresh(copy, path):
            COURSE.mkdir(parents=True, exist_ok=True)
            try:
                with replacing(copy) as partial:
                    papermill.execute_notebook(path, partial, progress_bar=False, cwd=path.parent)
            except papermill.PapermillExecutionError as error:
                raise RuntimeError(f"{path.name} failed with {error.ename}: {error.evalue}") from None


def shown_book(book: nbformat.NotebookNode, results: Path, page: str) -> nbformat.NotebookNode:
    """An executed notebook as the site shows it: figures from their files, no warnings, no bars of progress.

    Figures of a profile that its notebook does not name, as in an older publication, stand at the notebook's end.
    """
    title, shown = "", set()
    for cell in book.cells:
        if cell.cell_type == "markdown":
            title = next((line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")), title)
            continue
        cell.outputs = [
            output
            for output in cell.get("outputs", [])
            if output.get("name") != "stderr" and not any("widget" in kind for kind in output.get("data", {}))
        ]
        for output in cell.outputs:
            name = output.get("metadata", {}).get("image/png", {}).get("figure")
            if name and (file := figure_file(results, name)):
                shown.add(name)
                output["data"] = {"text/html": picture(file, title, page)}
    book.metadata.pop("widgets", None)
    part, _, name = page.partition("/")
    number = name.partition("_")[0].lstrip("0")
    others = [file for file in sorted((results / "figures").glob(f"{number}_*")) if file.stem not in shown]
    if others and part == "laboratory":  # the course's chapters have numbers too, and draw figures of their own
        pictures = "\n\n".join(picture(file, file.stem, page) for file in others)
        book.cells.append(nbformat.v4.new_markdown_cell(f"## Its figures\n\n{pictures}"))
    return book


def figure_file(results: Path, name: str) -> Path | None:
    """The file of a figure, if it is kept."""
    return next(iter((results / "figures").glob(f"{name}.*")), None)


def picture(file: Path, words: str, page: str) -> str:
    """A figure as HTML, to be shown on a page."""
    alt = html.escape(f"{words} ({file.stem})", quote=True)
    return f'<img src="{relpath(f"_static/figures/{file.name}", Path(page).parent)}" alt="{alt}">'


def relinked(text: str, path: Path, page: str, pages: Mapping[Path, str], source: Path) -> str:
    """Markdown with its links led to the site's own pages; of a file that it does not have, the words are left."""

    def lead(found: re.Match) -> str:
        image, words, target, anchor = found.groups()
        if "://" in target:
            return found[0]
        file = (path.parent / target).resolve()
        if file in pages:
            return (
                f"[{words}]({relpath(pages[file], Path(page).parent)}.{'ipynb' if file.suffix == '.ipynb' else 'md'})"
            )
        if image and file.is_file():
            copy = source / "_static" / "pictures" / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            return f"![{words}]({relpath(f'_static/pictures/{file.name}', Path(page).parent)})"
        return words

    return LINK.sub(lead, text)


def contents(pages: Mapping[Path, str], runs: list[str]) -> str:
    """The site's table of contents, in its parts."""
    trees = {
        "The course": [page for page in pages.values() if page.startswith("course/")],
        "The laboratory": [page for page in pages.values() if page.startswith("laboratory/")],
        "To look up": [page for page in pages.values() if "/" not in page or page.startswith("pages/")],
        "Runs": [f"runs/{name}" for name in runs],
    }
    blocks = []
    for words, names in trees.items():
        if names:
            blocks.append(
                "\n".join(["```{toctree}", ":hidden:", ":maxdepth: 1", f":caption: {words}", "", *names, "```"])
            )
    return "\n\n" + "\n\n".join(blocks) + "\n"


def main() -> None:
    """Make the site of the profile that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("profile", help="whose results")
    parser.add_argument("--course", action="store_true", help="execute the course's chapters first: minutes each")
    parser.add_argument("--to", type=Path, default=REPOSITORY / "site", help="the folder of the site; default: site")
    given = parser.parse_args()
    own, published = RESULTS / given.profile, PUBLISHED / given.profile
    results = own if (own / "finished.json").exists() else published
    if not (results / "table1.csv").exists():
        sys.exit(f"selora: no results of profile {given.profile}: make run_all first")
    try:
        if given.course:
            execute_course()
        build_site(results, given.to)
    except (ImportError, RuntimeError) as error:
        sys.exit(f"selora: {error}")
    print(f"The site of {results} is in {given.to}; python -m http.server -d {given.to} serves it.")


if __name__ == "__main__":
    main()
