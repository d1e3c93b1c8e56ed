"""The README's results are those of the published records."""

import re
from pathlib import Path

import pytest

from selora.files import PUBLISHED, RESULTS, read_json
from selora.study.report.readme import BLOCKS, README, fill_readme, parts

TEXT = README.read_text(encoding="utf-8")
_, BLOCK, _ = parts(TEXT, "published/quick")


@pytest.mark.parametrize("kept", BLOCKS)
def test_the_readmes_results_are_what_the_kept_records_give(kept):
    _, inside, _ = parts(TEXT, kept)
    command = f"selora publish {Path(kept).name}{' --begun' * kept.startswith('begun')}"
    assert inside == BLOCKS[kept](RESULTS / kept), f"run {command}, or fill_readme('{kept}')"


def test_each_number_of_a_single_seed_is_the_records():
    """Read by hand from result.json, whatever the code that fills the block does."""
    header = next(line for line in BLOCK.splitlines() if "KID" in line).split(" | ")
    for method, name in (("selora", "SeLoRA"), ("full", "full fine-tune"), ("adalora", "AdaLoRA 6 to 4")):
        (line,) = (line for line in BLOCK.splitlines() if line.startswith(f"| {name} |"))
        cells = dict(zip(header, line.split(" | "), strict=True))
        for dataset in ("iu-drr", "montgomery-drr"):
            run = read_json(PUBLISHED / f"quick/runs/{dataset}/{method}/seed0/result.json")
            assert cells[f"{dataset}: KID x 1000 ↓"] == f"{1000 * run['kid']:.1f}"
            assert cells[f"{dataset}: CLIP score ↑"] == f"{run['clip']:.1f}"
            (size,) = (value for key, value in cells.items() if key.startswith(f"{dataset}: parameters"))
            assert size.strip(" |") == f"{run['unet_params'] + run['text_encoder_params']:,}"


def test_verdicts_name_the_kind_of_their_interval():
    verdicts = [line for kept in BLOCKS for line in parts(TEXT, kept)[1].splitlines() if line.startswith("- ")]
    assert len(verdicts) >= 4
    for line in verdicts:
        assert "interval" in line, line
        if "of SeLoRA" in line:
            assert "over seeds and prompts" in line
            assert "not told from" in line or re.search(r"\[-?\d", line), "a verdict without an interval"


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    readme, mark = tmp_path / "README.md", "<!-- from the records of results/published/quick: -->"
    readme.write_text(f"before {mark} old <!-- end of published/quick's records --> after", encoding="utf-8")
    fill_readme("published/quick", readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before {mark}\n| ") and text.endswith("<!-- end of published/quick's records --> after")
    assert " old " not in text
    readme.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="has not both marks once"):
        fill_readme("published/quick", readme)
