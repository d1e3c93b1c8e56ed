"""Which examples are shown."""

import pandas as pd

from selora.data import Example, load_examples
from selora.figures.examples import PAPER_PROMPT, TO_SHOW, clearest, nearest_prompts
from selora.files import DATA


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
