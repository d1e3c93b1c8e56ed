"""The findings that a classifier is asked for, and which of their scores a mean counts."""

from collections.abc import Sequence

from selora.data.findings import FINDINGS

SIDED = ("opacity", "atelectasis", "pleural effusion", "nodule", "calcified granuloma", "scarring", "scoliosis")
LABELS = (
    *FINDINGS[1:12],  # those that iu-drr renders; the weights know this order
    *(f"{name}, {side}" for name in SIDED for side in ("left", "right")),
)


def counted(findings: Sequence[dict]) -> list[dict]:
    """The records of `metrics.finding_auroc` that a mean counts: a finding's sides are not counted again."""
    return [record for record in findings if ", " not in record["finding"]]


def mean_auroc(scored: dict) -> float:
    """Mean over the findings of a record; no number where no finding is frequent enough.

    >>> mean_auroc({"findings": [{"finding": "opacity", "auroc": 0.75}, {"finding": "opacity, left", "auroc": 0.5}]})
    0.75
    """
    values = [record["auroc"] for record in counted(scored["findings"])]
    return sum(values) / len(values) if values else float("nan")
