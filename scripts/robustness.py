"""docs/robustness.md, its table from the tests:

    python scripts/robustness.py                  # run the tests, and write what came of them
    python scripts/robustness.py --check          # are the tests that the table counts those there are? runs none
    python scripts/robustness.py --former X.json  # run them and write down which pass, for the last column

The last column is of former code: today's tests copied onto a checkout of it, and the script called there with
`--former`; then here with `--before X.json`.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "robustness.md"
HEADER = ("kind", "what may come of an input", "tests", "passed", "skipped", "do not pass on former code")
BEGIN, END = "<!-- made by scripts/robustness.py -->\n", "<!-- until here -->\n"

KINDS = {  # what may come of an input
    "1 staleness": "another identity, or its own cache entry",
    "2 dead numbers": "the run ends with step, batch and last good checkpoint",
    "3 tables": "every text with its picture and split, or an error with the line",
    "4 duplicates and leaks": "kept in one split, said, or refused with both names",
    "5 polarity and range": "the picture that a plain 8-bit PNG shows, or refused",
    "6 partial pictures": "refused; what only looks cut is said",
    "7 readings": "the words as they stand, or an error with the line",
    "8 odd sets": "every notebook runs on",
    "9 the end, tried first": "an error before training",
    "10 bases, profiles, folders of one's own": "works, or one line with what to do",
    "11 adapters wrapped, and of any name": "grown, saved and loaded",
    "12 DICOM": "the picture that a viewer shows, or an error with its cause",
    "13 kills and locks": "the same bytes as of a run let alone, or a clear word",
    "14 a second study, threads": "nothing is made; threads and time left are said",
    "15 fuzz, 200 examples each": "a value that is what it promises, or an error with the file's name",
}
# A kind's number, a file, and how the names of its tests begin ('test_' aside), where not all of the file are meant.
TESTS = """
1 tests/study/test_contents.py
2 tests/diffusion/test_finite.py
2 tests/study/test_records.py
3 tests/data/test_strict_tables.py
4 tests/data/test_leaks.py
5 tests/data/test_picture_kinds.py
5 tests/data/test_pictures.py
6 tests/data/test_picture_kinds.py a_whole_file a_jpeg_with a_cut_jpeg a_png_of a_dicom_with_more several
6 tests/data/test_picture_kinds.py a_compressed_file what_only a_picture_of_one
6 tests/data/test_lost_parts.py
5 tests/data/test_lost_parts.py no_data values_far a_plain a_tiff_that_does
12 tests/data/test_lost_parts.py padding
7 tests/data/test_readings.py
8 tests/study/test_odd_sets.py
9 tests/study/test_rehearsal.py
9 tests/data/test_leaks.py every_id an_id_that
10 tests/study/test_rehearsal.py weights_of files_of results a_full a_profile a_file_that the_cache nothing
10 tests/study/test_rehearsal.py a_damaged_base a_base_that_lacks
10 tests/study/test_profiles.py
10 tests/study/test_preflight.py
10 tests/data/test_fetch.py
11 tests/test_expansion.py a_wrapped a_rank_is_recorded of_several
11 tests/test_round_trip.py
12 tests/data/test_picture_kinds.py the_same_anatomy_in_every_dicom a_sigmoid padding bits a_palette a_compressed_dicom
12 tests/data/test_picture_kinds.py a_jpeg_of rle a_dicom_without a_dicom_that pixels_that narrow
13 tests/study/test_kills.py
14 tests/study/test_notebooks.py nothing_is a_study_that what_a_study the_time threads
15 tests/data/test_fuzzed_data.py
15 tests/study/test_fuzzed_study.py
"""
PLACES = {
    start: next(kind for kind in KINDS if kind.split()[0] == number)
    for number, file, *names in map(str.split, TESTS.split("\n")[1:-1])
    for start in ([f"{file}::test_{name}" for name in names] or [file])
}  # by how a test's id begins; the longest beginning counts
FILES = sorted({start.partition("::")[0] for start in PLACES})


class Outcomes:
    """A plugin of pytest's that notes what comes of each test of the KINDS, by its id."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if kind_of(item.nodeid)]
        self.found = {item.nodeid: "not run" for item in items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.found[report.nodeid] = report.outcome


def kind_of(test: str) -> str | None:
    """The kind that a test is of, by its id."""
    starts = [start for start in PLACES if test.startswith(start)]
    return PLACES[max(starts, key=len)] if starts else None


def outcomes(*options: str) -> dict[str, str]:
    """What comes of the tests of the KINDS, by their ids."""
    seen = Outcomes()
    given = ["--rootdir", str(REPOSITORY), "--continue-on-collection-errors", *options]
    pytest.main([*given, *(str(REPOSITORY / name) for name in FILES)], plugins=[seen])
    return seen.found


def table(found: dict[str, str], former: dict[str, str] | None, old: dict[str, str]) -> str:
    """The table of outcomes by kind. former: outcomes on former code; without it, the last column is as in `old`."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for kind, promise in KINDS.items():
        tests = [test for test in found if kind_of(test) == kind]
        counts = Counter(found[test] for test in tests)
        behind = old.get(kind, "")
        if former is not None:
            behind = str(sum(former.get(test) != "passed" and found[test] != "skipped" for test in tests))
        cells = (kind, promise, len(tests), counts["passed"], counts["skipped"], behind)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the page's table by kind."""
    inside = text.partition(BEGIN)[2].partition(END)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in inside.splitlines()]
    return {row[0]: row for row in cells}


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--former", type=Path, help="where to write the outcomes, and nothing else")
    parser.add_argument("--before", type=Path, help="outcomes on former code")
    args = parser.parse_args()
    if args.check:
        collected = Counter(map(kind_of, outcomes("--collect-only", "-qq")))
        counted = {
            kind: int(row[2]) for kind, row in rows(PAGE.read_text(encoding="utf-8")).items() if row[2].isdigit()
        }
        differing = {k: (counted.get(k), n) for k, n in collected.items() if counted.get(k) != n}
        print(f"{PAGE} counts other tests than there are: {differing}" if differing else "The table is of these tests.")
        return bool(differing)
    found = outcomes("-q")
    if args.former:
        args.former.write_text(json.dumps(found, indent=0), encoding="utf-8")
        return 0
    text = PAGE.read_text(encoding="utf-8")
    former = json.loads(args.before.read_text(encoding="utf-8")) if args.before else None
    old = {kind: row[-1] for kind, row in rows(text).items()}
    made = BEGIN + table(found, former, old) + END
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: made, text, flags=re.DOTALL), encoding="utf-8")
    failed = [test for test, outcome in found.items() if outcome not in ("passed", "skipped")]
    print(*failed, sep="\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
