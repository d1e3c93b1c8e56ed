"""The fuzz of the tests (test_fuzzed_*.py) with many examples of each kind: python scripts/fuzz_data.py [10000]

What has passed stands in data/raw/fuzz.json, so that a fuzz that was stopped goes on; remove it to begin anew.
"""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from selora.files import RAW, read_json, write_json  # noqa: E402

TESTS = [REPOSITORY / "tests" / name for name in ("data/test_fuzzed_data.py", "study/test_fuzzed_study.py")]


class Once:
    """A plugin of pytest's: what has passed is written down, with its examples and seconds, and not run again."""

    def __init__(self, examples: str, record: Path) -> None:
        self.examples, self.record = examples, record
        self.done = read_json(record) if record.exists() else {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self.done.get(item.nodeid, {}).get("examples") != self.examples]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.done[report.nodeid] = {"examples": self.examples, "seconds": round(report.duration)}
            write_json(self.record, self.done)
            print(f"  {report.nodeid}: {self.examples} examples, {report.duration:.0f} s", flush=True)


def main() -> int:
    examples = sys.argv[1] if len(sys.argv) > 1 else "10000"
    os.environ["FUZZ_EXAMPLES"] = examples
    given = ["--rootdir", str(REPOSITORY), "-s", *map(str, TESTS)]
    return pytest.main(given, plugins=[Once(examples, RAW / "fuzz.json")])


if __name__ == "__main__":
    sys.exit(main())
