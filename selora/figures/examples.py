"""What to look at (the paper's Fig. 2): examples nearest to its prompt or with the clearest findings, and prompts that
differ in one finding."""

import re

from selora.data.example import Example
from selora.data.iu_drr import read_cases
from selora.files import DATA

PAPER_PROMPT = (  # of Fig. 2, to the letter; a report of IU X-Ray
    "Heart size and vascularity normal. These contour normal. Lungs clear. No pleural effusions or pneumothoraces."
)
PAIRS = {  # prompts that differ in one finding
    "nothing": "The heart is normal in size. The lungs are clear.",
    "cardiomegaly": "The heart is severely enlarged. The lungs are clear.",
    "effusion, left": "The heart is normal in size. There is a large left pleural effusion.",
    "effusion, right": "The heart is normal in size. There is a large right pleural effusion.",
    "hyperinflation": "The heart is normal in size. The lungs are hyperinflated with flattened diaphragms.",
    "hypoinflation": "The heart is normal in size. There are low lung volumes.",
}
FEW = 6  # examples of a set without findings
# What can be seen at this size.
TO_SHOW = ("cardiomegaly", "pleural effusion", "nodule", "scoliosis", "cavity", "normal")


def nearest_prompts(prompt: str, examples: list[Example], count: int) -> list[Example]:
    """The examples whose prompts share most words with a prompt: the share of the words of both."""

    def distance(example: Example) -> float:
        words, own = (set(re.findall("[a-z]+", text.lower())) for text in (prompt, example.prompt))
        return -len(words & own) / len(words | own)

    return sorted(examples, key=distance)[:count]


def by_finding(examples: list[Example], count: int = 2) -> dict[str, list[Example]]:
    """For each finding that a set names its examples with the fewest others, at most `count`; of a set that names none
    the first ones, by their ids."""
    findings = sorted({finding for e in examples for finding in e.findings})
    if not findings:
        return {e.id: [e] for e in examples[:FEW]}
    having = {finding: [e for e in examples if finding in e.findings] for finding in findings}
    return {finding: sorted(found, key=lambda e: len(e.findings))[:count] for finding, found in having.items()}


def clearest(dataset: str, examples: list[Example]) -> dict[str, Example]:
    """For each finding to show another example: where it is largest, then with the fewest others; those there are. Of a
    set that has none of these findings the first examples, by their ids.

    How large a finding was rendered stands in the data set's table; a real set has none, and severities count alike.
    """
    table = DATA / dataset
    cases = {next(iter(row.values())): row for row in read_cases(table)} if table.is_dir() else {}

    def order(example: Example, finding: str) -> tuple[int, int]:
        severities = cases.get(example.id, {}).get("severity", "").split(";")
        given = dict(zip(example.findings, severities, strict=False)).get(finding)
        return -int(given or 0), len(example.findings)

    shown = {}
    for finding in TO_SHOW:
        if having := [e for e in examples if finding in e.findings and e not in shown.values()]:
            shown[finding] = min(having, key=lambda e: order(e, finding))
    return shown or {e.id: e for e in examples[:FEW]}
