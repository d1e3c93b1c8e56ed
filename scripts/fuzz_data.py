"""The fuzz of the tests (test_fuzzed_*.py) with many examples of each kind: python scripts/fuzz_data.py [10000]"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = [
    Path(__file__).resolve().parents[1] / "tests" / name
    for name in ("data/test_fuzzed_data.py", "study/test_fuzzed_study.py")
]


def main() -> int:
    examples = sys.argv[1] if len(sys.argv) > 1 else "10000"
    command = [sys.executable, "-m", "pytest", *map(str, TESTS), "-v", "--hypothesis-show-statistics", "--durations=0"]
    return subprocess.run(command, env=os.environ | {"FUZZ_EXAMPLES": examples}).returncode


if __name__ == "__main__":
    sys.exit(main())
