#!/usr/bin/env python3
"""Counts test cases for ./check and prints two numbers: passed and failed.

  tally.py meson LOG.json   a log of `meson test`: one JSON object per line and test program
  tally.py text LOG         any output whose last "N passed, N failed" line is the result

A program's own count is believed where it prints one ("N passed, N failed", or cmocka's totals);
otherwise the program is one case. A program that failed has at least one failure. A skipped
program counts as nothing: it ran no test.
"""
import json
import re
import sys

SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed\s*$", re.MULTILINE)
CMOCKA_PASSED = re.compile(r"^\[  PASSED  \] (\d+) test\(s\)", re.MULTILINE)
CMOCKA_FAILED = re.compile(r"^\[  FAILED  \] (?:.*: )?(\d+) test\(s\)", re.MULTILINE)
GOOD = {"OK", "EXPECTEDFAIL"}


def count_text(text):
    """The counts that the output itself states, or None."""
    summaries = SUMMARY.findall(text)
    if summaries:
        return int(summaries[-1][0]), int(summaries[-1][1])
    passed = [int(n) for n in CMOCKA_PASSED.findall(text)]
    if passed:
        return sum(passed), sum(int(n) for n in CMOCKA_FAILED.findall(text))
    return None


def count_program(entry):
    result = entry["result"]
    if result == "SKIP":
        return 0, 0
    if result == "EXPECTEDFAIL":
        return 1, 0
    said = count_text(entry.get("stdout", "") + "\n" + entry.get("stderr", ""))
    if result in GOOD:
        return said if said else (1, 0)
    passed, failed = said if said else (0, 1)
    return passed, max(failed, 1)


def main(kind, path):
    with open(path, encoding="utf-8", errors="replace") as log:
        text = log.read()
    if kind == "meson":
        counts = [count_program(json.loads(line)) for line in text.splitlines() if line.strip()]
    else:
        counts = [count_text(text) or (0, 0)]
    print(sum(c[0] for c in counts), sum(c[1] for c in counts))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("meson", "text"):
        sys.exit("usage: tally.py meson|text LOG")
    main(sys.argv[1], sys.argv[2])
