"""README, CONTRIBUTING, the glossary, the documents and the course's contents name what is there."""

import re
import subprocess
import sys

import pytest

from selora.files import REPOSITORY

DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "docs/elsewhere.md", "docs/glossary.md", "docs/robustness.md"),
    *("docs/reading-group.md", "notebooks/course/README.md"),
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_that_are_there(name):
    links = re.findall(r"\]\(([^)#]+?)\)", (REPOSITORY / name).read_text())
    assert links
    missing = [link for link in links if "://" not in link and not (REPOSITORY / name).parent.joinpath(link).exists()]
    assert missing == []


def test_each_function_and_test_of_an_equation_stands_in_the_file_beside_it():
    table, _, _ = (REPOSITORY / "docs" / "glossary.md").read_text().partition("\n\n| in the paper")
    named = re.findall(r"((?:`[\w.]+`(?:, )?)+) \(\[\w+(?:/\w+)?\]\(\.\./([\w/]+\.py)\)\)", table)
    assert len(named) >= 12
    for names, path in named:
        text = (REPOSITORY / path).read_text()
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"def {name}\(", text), f"{name} is not in {path}"


def test_the_equations_of_the_paper_are_all_there():
    text = (REPOSITORY / "docs" / "glossary.md").read_text()
    for words in ("Eq. 1,", "Eq. 2,", "Eq. 3,", "Eq. 4,", "Eq. 5,", "Algorithm 1"):
        assert words in text.partition("| in the paper")[0]


def test_the_table_of_robustness_counts_the_tests_that_there_are():
    command = [sys.executable, "scripts/robustness.py", "--check"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-2000:] + "Run: python scripts/robustness.py"
