"""The site as a reader's browser sees it: every page without an error, a dead link, a lost picture or a need to scroll
sideways. Skipped where Sphinx, Playwright or Chromium is missing."""

import functools
import re
import shutil
import threading
from copy import deepcopy
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from selora.files import NOTEBOOKS, RESULTS
from selora.study.report.site import build_site, relinked, shown_book

RESULTS_SHOWN = RESULTS / "published" / "quick"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def test_links_lead_to_pages_of_the_site_and_where_it_has_none_the_words_are_left(tmp_path):
    source = NOTEBOOKS / "10_rank_maps.ipynb"
    pages = {source: "laboratory/10_rank_maps", NOTEBOOKS.parent / "README.md": "about"}
    text = (
        "[map](../notebooks/10_rank_maps.ipynb), [a](../README.md#x), [code](../selora/fisher.py), [w](https://a.b/c)"
    )
    docs = NOTEBOOKS.parent / "docs" / "glossary.md"
    assert relinked(text, docs, "pages/glossary", pages, tmp_path) == (
        "[map](../laboratory/10_rank_maps.ipynb), [a](../about.md), code, [w](https://a.b/c)"
    )


def test_figures_stand_where_the_notebook_showed_them_and_those_it_does_not_name_at_its_end(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("7_ranks.webp", "7_other.webp", "17_no.webp"):
        (tmp_path / "figures" / name).touch()
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("## Ranks"), nbformat.v4.new_code_cell("x"), nbformat.v4.new_code_cell()]
    )
    book.cells[1].outputs = [
        nbformat.v4.new_output("display_data", {"text/plain": "x"}, metadata={"image/png": {"figure": "7_ranks"}}),
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "train:   0%"}
        ),
    ]
    chapter = shown_book(deepcopy(book), tmp_path, "course/07_can_the_metric_tell")
    assert len(chapter.cells) == 3, "a chapter of the same number has other figures"
    shown = shown_book(book, tmp_path, "laboratory/07_selora")
    (output,) = shown.cells[1].outputs
    assert 'src="../_static/figures/7_ranks.webp"' in output.data["text/html"] and "Ranks" in output.data["text/html"]
    assert "7_other.webp" in shown.cells[-1].source and "17_no" not in shown.cells[-1].source


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site of the published results."""
    pytest.importorskip("sphinx", reason="the extra 'site' is not installed")
    pytest.importorskip("myst_nb", reason="the extra 'site' is not installed")
    target = tmp_path_factory.mktemp("site") / "html"
    build_site(RESULTS_SHOWN, target)
    return target


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def served(site):
    """The site's address, below a folder as on GitHub Pages."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/html"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium")
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=CHROMIUM, headless=True, args=FLAGS
        )
        yield context
        context.close()


def pages_of(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)


def test_no_link_or_picture_is_dead_and_none_leads_out_but_by_an_address(site):
    dead = []
    ids = {page: set(re.findall(r'\bid="([^"]+)"', (site / page).read_text())) for page in pages_of(site)}
    for page in ids:
        for link in re.findall(r'\b(?:href|src)="([^"]*)"', (site / page).read_text()):
            parts = urlsplit(link.replace("&amp;", "&"))
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (site / page).parent.joinpath(unquote(parts.path)).resolve() if parts.path else site / page
            name = target.relative_to(site.resolve()).as_posix() if target != site / page else page
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and name in ids and anchor not in ids[name]):
                dead.append(f"{page}: {link}")
    assert len(ids) > 20 and dead == []


def test_nothing_is_fetched_from_elsewhere(site):
    """Scripts, styles, fonts and pictures all come with the site."""
    for page in pages_of(site):
        text = (site / page).read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="(https?:[^"]*)"', text)
        fetched += re.findall(r'<link(?![^>]*rel="(?:canonical|author|license)")[^>]*\bhref="(https?:[^"]*)"', text)
        assert fetched == [], page


def test_no_markup_is_left_as_it_was_written(site):
    """What cells display as Markdown is rendered, and MathJax is wherever there is LaTeX, if in a neighbour's title."""
    for page in pages_of(site):
        text = (site / page).read_text()
        assert not re.search(r"\|\s*:?-{3,}:?\s*\|", text), page
        assert "mathjax" in text.lower() or "\\(" not in text, page


@pytest.mark.parametrize("width", [1400, 390])
def test_every_page_opens_without_an_error_a_lost_picture_or_an_overflow(site, served, browser, width):
    page, troubles = browser.new_page(), []
    page.set_viewport_size({"width": width, "height": 900})
    page.on("console", lambda said: said.type == "error" and troubles.append(f"{page.url}: {said.text}"))
    page.on("pageerror", lambda error: troubles.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: troubles.append(f"{page.url}: {request.url} failed"))
    page.on("response", lambda answer: answer.status >= 400 and troubles.append(f"{page.url}: {answer.url}"))
    for name in pages_of(site):
        page.goto(f"{served}/{name}", wait_until="load")
        page.evaluate("document.querySelectorAll('img').forEach((image) => (image.loading = 'eager'))")
        page.wait_for_function("[...document.images].every((image) => image.complete)")
        if lost := page.evaluate("[...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)"):
            troubles.append(f"{name}: pictures {lost}")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            troubles.append(f"{name}: {wide} pixels wide")
    page.close()
    assert troubles == []


def test_mathematics_tables_pictures_and_search_work(served, browser):
    page = browser.new_page()
    page.goto(f"{served}/laboratory/07_selora.html")
    page.wait_for_selector("mjx-container")
    page.goto(f"{served}/index.html")
    first = page.locator("#table1 tbody tr td:nth-child(2)")
    assert first.first.inner_text() == "base"
    heading = page.locator("#table1 th", has_text="KID x 1000 ↓").get_by_role("button")
    heading.click()
    assert "real vs real" in first.first.inner_text()  # the least
    heading.click()
    assert first.first.inner_text() == "base"  # the largest
    page.get_by_label("show the rows").first.fill("selora iu-drr")
    assert page.locator("#table1 tbody tr:visible").count() == 1
    with page.expect_download() as download:
        page.locator(".tools button").first.click()
    saved = Path(download.value.path()).read_text(encoding="utf-8")
    assert saved.startswith('"data set","method"') and saved.count("\n") == 1
    page.locator("#table1 tbody tr:visible a").first.click()
    assert "runs/iu-drr_selora.html" in page.url
    page.goto(f"{served}/laboratory/07_selora.html")
    page.locator("article img").first.click()
    page.wait_for_selector("dialog[open] img")
    page.goto(f"{served}/search.html?q=Fisher")
    page.wait_for_selector("#search-results li a")
    page.close()


def test_every_run_has_a_point_that_leads_to_its_record(site):
    text = (site / "index.html").read_text()
    runs = [path.parent for path in RESULTS_SHOWN.glob("runs/*/*/*/result.json") if "@" not in path.as_posix()]
    for folder in runs:
        dataset, method, seed = folder.parts[-3:]
        assert f'href="runs/{dataset}_{method}.html#seed-{seed.removeprefix("seed")}"><circle' in text
        record = (site / f"runs/{dataset}_{method}.html").read_text()
        assert f"_static/runs/{dataset}/{method}/{seed}/result.json" in record
