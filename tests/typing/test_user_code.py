"""What a type checker says of users' code: the right calls have types, and wrong ones are found before they run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).parents[2]
CODE = Path(__file__).with_name("user_code.py")


@pytest.mark.timeout(600)
def test_each_misuse_is_found_in_its_line_and_nothing_else_is():
    """By mypy, strict: `assert_type` holds in right calls, and each line marked `# error: CODE` has that error."""
    marked = {
        (number, code)
        for number, line in enumerate(CODE.read_text().splitlines(), 1)
        for code in re.findall(r"# error: ([a-z-]+)$", line)
    }
    assert len(marked) >= 6
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(CODE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    errors = re.findall(r"user_code\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    assert {(int(number), code) for number, code in errors} == marked, done.stdout + done.stderr
