"""The page of results: what it holds, in which order."""

import nbformat
from PIL import Image

from selora.study.report.page import write_index

TABLE = """| data set | KID |
| --- | --- |
| a<b | **1.0** † |

Ours & theirs.

| paper | FID |
| --- | --- |
| c | 2 |
"""


def notebook(folder, name: str, title: str, outputs: list[dict]) -> None:
    cells = [nbformat.v4.new_markdown_cell(f"# {title}\n\nA *lead*.\n\n$$x^2$$"), nbformat.v4.new_code_cell("x")]
    cells[1].outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")


def test_the_page_holds_tables_figures_and_texts_in_order(tmp_path):
    for name in ("notebooks", "figures"):
        (tmp_path / name).mkdir()
    (tmp_path / "table1.md").write_text(TABLE)
    for name in ("1_data_x", "10_map", "9_curve"):
        Image.new("L", (2, 2)).save(tmp_path / "figures" / f"{name}.png")
    notebook(tmp_path, "01_data", "1. The data & its <pictures>", [])
    notebook(tmp_path, "09_lambda", "9. Lambda", [{"text/html": "<table><tr><td>0.5</td></tr></table>"}])
    notebook(tmp_path, "10_rank_maps", "10. Ranks", [{"text/markdown": "- holds *here*"}, {"image/png": "aGk="}])
    notebook(tmp_path, "12_table1", "12. Table 1", [{"text/markdown": TABLE}])
    page = write_index(tmp_path, "Study <one>").read_text()
    wanted = ["Study &lt;one&gt;", "a&lt;b", "<strong>1.0</strong> †", "Ours &amp; theirs", "<td>c</td>"]
    wanted += ["10. Ranks", "figures/10_map.png", "<em>here</em>", "9. Lambda", "figures/9_curve.png", "<td>0.5</td>"]
    wanted += [
        "1. The data &amp; its &lt;pictures&gt;",
        "figures/1_data_x.png",
        "notebooks/01_data.ipynb",
    ]
    places = [page.index(text) for text in wanted]
    assert places == sorted(places)
    assert (
        page.count("<em>lead</em>") == 4
        and page.count("Ours &amp; theirs") == 1
        and "x^2" not in page
        and "<table>" in page
    )


def test_a_page_can_be_written_before_anything_ran(tmp_path):
    assert "Executed notebooks" in write_index(tmp_path, "empty").read_text()
