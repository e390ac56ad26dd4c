"""Print the table of `tests/support/exactness.py` as Markdown: `python scripts/exactness_table.py`.

results/bench/exactness.md is its output.
"""

import datetime
import platform
import re
import sys
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from exactness import table


def processor() -> str:
    """Return the CPU's name as Linux knows it, else what Python knows."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return platform.processor()
    found = re.search(r"^model name\s*: (.*)$", information.read_text(encoding="utf-8"), flags=re.M)
    return found.group(1) if found else platform.machine()


def main() -> None:
    """Print the heading, then each line as it is measured."""
    transformers.logging.set_verbosity_error()
    print("# TempScale against the formula")
    print()
    print(
        f"{datetime.date.today():%Y-%m-%d}, {processor()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, Python {platform.python_version()}."
    )
    print("Command: `python scripts/exactness_table.py`.")
    print()
    print(
        "Errors are max |difference| / max |reference| of the last hidden states; the\n"
        "reference is that of `tests/support/exactness.py`. Limits: 1e-5 in float32, 2e-2 in\n"
        "bfloat16, 2e-3 in float16. The effect is that of the policy against the untouched model."
    )
    print()
    for line in table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
