"""The claim ledger points to records that are there, and types no number that records decide."""

import re

import pytest

from selora.files import REPOSITORY, RESULTS

TEXT = (REPOSITORY / "docs" / "reading-group.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in TEXT.partition("## The claim ledger")[2].splitlines()
    if re.match(r"\| \d+ \|", line)
]


def test_the_rows_are_numbered_and_whole():
    assert [row[0] for row in ROWS] == [str(i + 1) for i in range(len(ROWS))] and len(ROWS) > 20
    assert {len(row) for row in ROWS} == {5}  # number, claim, test, where, verdict
    assert all(all(row) for row in ROWS)


@pytest.mark.parametrize("pattern", sorted({p for row in ROWS for p in re.findall(r"`(mini/[^`]+)`", row[4])}))
def test_the_records_of_a_verdict_are_published(pattern):
    for name in expanded(pattern):
        assert any((RESULTS / "published").glob(name)), f"{name} is in the ledger and not in results/published"


def test_columns_that_a_verdict_names_are_in_the_table():
    header = (RESULTS / "published" / "mini" / "table1.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    named = [re.findall(r"`(\w+)`", row[4]) for row in ROWS if "`mini/table1.csv`" in row[4]]
    assert named and all(set(columns) <= set(header) for columns in named)


def test_what_records_decide_is_not_typed():
    for row in ROWS:
        if "by the records" in row[4] or "by the same records" in row[4]:
            words = re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)", "", row[4])
            assert not re.search(r"\d", words.replace("claim 10", "")), f"claim {row[0]}: {words}"


def expanded(pattern: str) -> list[str]:
    """The patterns that one with braces stands for: a/{b,c} is a/b and a/c."""
    found = re.search(r"\{([^}]*)\}", pattern)
    return [pattern.replace(found[0], choice) for choice in found[1].split(",")] if found else [pattern]
