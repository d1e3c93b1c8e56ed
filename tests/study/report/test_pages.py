"""What readers see: the page of results, which examples and layers stand where in the figures."""

import nbformat
import numpy as np
import pandas as pd
from PIL import Image

from selora.data import load_examples
from selora.data.example import Example
from selora.figures.examples import PAPER_PROMPT, TO_SHOW, clearest, nearest_prompts
from selora.figures.ranks import agreement, by_place, group
from selora.files import DATA
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


def test_the_reports_nearest_to_the_papers_prompt():
    examples = [e for split in ("train", "val", "test") for e in load_examples("iu-drr", split)]
    first = nearest_prompts(PAPER_PROMPT, examples, 4)[0]
    assert first.prompt == PAPER_PROMPT.replace("These", "External")


def test_the_clearest_example_is_the_most_severe_then_the_one_with_fewest_findings():
    examples = load_examples("iu-drr", "test")
    cases = pd.read_csv(DATA / "iu-drr" / "cases.csv").set_index("report_id")
    shown = clearest("iu-drr", examples)
    assert list(shown) == [finding for finding in TO_SHOW if finding != "cavity"]
    assert shown["normal"].findings == ("normal",)

    def severity(e: Example) -> int:
        return int(cases.severity[e.id].split(";")[e.findings.index("cardiomegaly")])

    largest = max(severity(e) for e in examples if "cardiomegaly" in e.findings)
    assert severity(shown["cardiomegaly"]) == largest


def test_maps_follow_the_signal_and_part_the_kinds_of_attention():
    """A U-Net lists its middle last; the map must not."""
    places = [f"{where}.attentions.0.transformer_blocks.0" for where in ("down_blocks.0", "up_blocks.0", "mid_block")]
    layers = [f"{place}.{kind}" for place in places for kind in ("attn1.to_q", "ff.net.2", "attn2.to_q")]
    kinds = [layer.partition("transformer_blocks.0.")[2] for layer in layers]
    ranks = pd.DataFrame({"network": "unet", "layer": layers, "kind": kinds, "rank": range(1, 10)})
    both = pd.concat([ranks.assign(seed=0), ranks.assign(seed=1, rank=ranks["rank"] + 1)])
    table = by_place(both)
    assert list(table.index) == ["attn1.to_q", "attn2.to_q", "ff.net.2"]
    assert list(table.loc["attn1.to_q"]) == [1.5, 7.5, 4.5]
    assert [group(kind) for kind in table.index] == ["self-attention", "cross-attention", "other"]


def test_agreement_of_two_thresholds_maps():
    ranks = pd.DataFrame({"network": ["unet"] * 4, "layer": list("abcd"), "rank": [1, 2, 3, 4]})
    maps = {1.1: ranks, 1.2: ranks.assign(rank=[1, 2, 3, 5]), 1.3: ranks.assign(rank=[4, 3, 2, 1])}
    table = agreement(maps).loc["U-Net"]
    assert np.allclose(table.to_numpy(), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
