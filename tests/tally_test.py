#!/usr/bin/env python3
"""Proves that tally.py neither loses a failure nor invents a success."""
import sys

import tally

CMOCKA = ("[==========] Running 3 test(s).\n[  PASSED  ] {0} test(s).\n"
          "[  FAILED  ] {1} test(s), listed below:\n[  FAILED  ] name_of_case\n")

# name: (test program as meson logs it, passed, failed)
PROGRAMS = {
    "silent": ({"result": "OK", "stdout": ""}, 1, 0),
    "own_count": ({"result": "OK", "stdout": "x\n7 passed, 0 failed\n"}, 7, 0),
    "last_count": ({"result": "OK", "stdout": "1 passed, 0 failed\n4 passed, 0 failed\n"}, 4, 0),
    "quoted_count": ({"result": "OK", "stdout": "it said 7 passed, 0 failed\n"}, 1, 0),
    "cmocka": ({"result": "OK", "stderr": "[  PASSED  ] 3 test(s).\n"}, 3, 0),
    "cmocka_groups": ({"result": "OK", "stderr": "[  PASSED  ] 3 test(s).\n" * 2}, 6, 0),
    "cmocka_named": ({"result": "FAIL", "stderr": "[  PASSED  ] 2 test(s).\n"
                      "[  FAILED  ] tests: 2 test(s), listed below:\n"}, 2, 2),
    "cmocka_failed": ({"result": "FAIL", "stderr": CMOCKA.format(2, 1)}, 2, 1),
    "crash": ({"result": "FAIL", "stdout": ""}, 0, 1),
    "crash_after_count": ({"result": "FAIL", "stdout": "7 passed, 0 failed\n"}, 7, 1),
    "timeout": ({"result": "TIMEOUT", "stdout": "[  PASSED  ] 2 test(s).\n"}, 2, 1),
    "unexpected_pass": ({"result": "UNEXPECTEDPASS", "stdout": ""}, 0, 1),
    "expected_failure": ({"result": "EXPECTEDFAIL", "stdout": "0 passed, 1 failed\n"}, 1, 0),
    "skip": ({"result": "SKIP", "stdout": ""}, 0, 0),
}


def main():
    failed = 0
    for name, (entry, passed, bad) in PROGRAMS.items():
        got = tally.count_program(entry)
        if got != (passed, bad):
            failed += 1
            print(f"{name}: expected {passed} and {bad}, got {got}")
    if tally.count_text("nothing that counts\n") is not None:
        failed += 1
        print("a text without counts must count as none")
    print(f"{len(PROGRAMS) + 1 - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
