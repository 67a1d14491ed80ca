#!/usr/bin/env python3
"""Proves that tidy.py finds what it is for: one planted defect per rule in a small tree.

The clean tree must give no finding; each case lays files over it and must give exactly the
findings named, so that a rule that finds too much fails as well.
"""
import os
import sys
import tempfile

import tidy

HEADER = """/* clean.h - a module without a fault.
 *
 * Threads  Any; a strcpy or a lock in a comment is no call.
 */
#pragma once
#include <stdint.h>

struct clean { uint32_t count; void (*free)(void *); };

static inline uint32_t twice(uint32_t n) { return n * 2; }
extern const char *const clean_name;
void clean_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int clean_open(struct clean *c, const char *text) __attribute__((warn_unused_result));
"""
SOURCE = """#include "core/clean.h"

#include <time.h>

const char *const clean_name = "printf(malloc(1)); // TO" "DO";

static int helper(struct clean *c)
{
    c->free(c);
    return c->count == '"' ? 1 : 0;
}

int clean_open(struct clean *c, const char *text)
{
    static const struct clean empty = {0};
    *c = empty;
    return helper(c) + (int)twice((uint32_t)text[0]);
}
"""
CLEAN = {
    "core/clean.h": HEADER,
    "core/clean.c": SOURCE,
    "core/clean_more.c": '#include "core/clean.h"\n\nint clean_more(void)\n{\n    return 1;\n}\n',
    "tests/tidy/exceptions.txt": "# none\n",
    "docs/wide.md": "w" * 300 + "\n",
}


def c_file(*lines):
    return "\n".join(lines) + "\n"


def function(name, lines_count):
    body = ["    (void)0;"] * (lines_count - 3)
    return c_file(f"static int {name}(void)", "{", *body, "}")


def header(name, *lines, words=" * Shape  A thing.\n"):
    return f"/* {name} - a planted header.\n *\n{words} */\n#pragma once\n" + "".join(lines)


def call(text, include=""):
    return c_file(include, "static int x(void)", "{", f"    return {text};", "}")


# name: (files laid over the clean tree, findings that must result)
CASES = {
    "clean": ({}, []),
    "columns": ({"core/x.c": "/*" + "é" * 97 + "*/\n"}, ["columns core/x.c"]),
    "columns_hundred_pass": ({"core/x.c": "/*" + "é" * 96 + "*/\n"}, []),
    "space": ({"core/x.c": "/* x */ \n"}, ["space core/x.c"]),
    "tab": ({"core/x.c": "\t/* x */\n"}, ["tab core/x.c"]),
    "newline": ({"core/x.c": "/* x */"}, ["newline core/x.c"]),
    "mark": ({"core/x.c": "/* TO" + "DO */\n"}, ["mark core/x.c"]),
    "mark_in_script": ({"tools/x.py": "# FIX" + "ME\n"}, ["mark tools/x.py"]),
    "file_lines": ({"core/x.c": "/**/\n" * 501}, ["file_lines core/x.c"]),
    "file_lines_bound_passes": ({"core/x.c": "/**/\n" * 500}, []),
    "function_lines": ({"core/x.c": function("x", 71)}, ["function_lines core/x.c"]),
    "function_lines_bound_passes": ({"core/x.c": function("x", 70)}, []),
    "include_up": ({"core/x.c": '#include "proto/p.h"\n', "proto/p.h": header("p.h")},
                   ["include core/x.c"]),
    "include_up_two": ({"proto/x.c": '# include "shards/p.h"\n', "shards/p.h": header("p.h")},
                       ["include proto/x.c"]),
    "include_down_passes": ({"shards/x.c": '#include "core/clean.h"\n'}, []),
    "include_bare": ({"core/x.c": '#include "clean.h"\n'}, ["include core/x.c"]),
    "include_library": ({"shards/x.c": "#include <lmdb.h>\n"}, ["include shards/x.c"]),
    "include_bus": ({"bench/x.c": "#include <nats/nats.h>\n"}, ["include bench/x.c"]),
    "header_comment": ({"core/p.h": "#pragma once\n", "core/x.c": '#include "core/p.h"\n'},
                       ["header core/p.h"]),
    "header_name": ({"core/p.h": header("q.h"), "core/x.c": '#include "core/p.h"\n'},
                    ["header core/p.h"]),
    "header_words": ({"core/p.h": header("p.h", words=" * Bounds  None.\n"),
                      "core/x.c": '#include "core/p.h"\n'}, ["header core/p.h"]),
    "pragma": ({"core/p.h": header("p.h").replace("#pragma once\n", ""),
                "core/x.c": '#include "core/p.h"\n'}, ["pragma core/p.h"]),
    "clock": ({"core/x.c": call("clock_gettime(0, 0)")}, ["clock core/x.c"]),
    "clock_in_its_file_passes": ({"core/clock.c": call("clock_gettime(0, 0)")}, []),
    "entropy": ({"shards/x.c": call("randombytes_uniform(7)")}, ["entropy shards/x.c"]),
    "memory": ({"proto/x.c": call("malloc (1) != 0")}, ["memory proto/x.c"]),
    "memory_in_macro": ({"proto/x.c": "#define X(n) \\\n    calloc(1, n)\n"}, ["memory proto/x.c"]),
    "memory_in_bench_passes": ({"bench/x.c": call("malloc(1) != 0")}, []),
    "ring": ({"shards/x.c": call("io_uring_submit(0)")}, ["ring shards/x.c"]),
    "lock": ({"core/x.c": call("pthread_mutex_lock(0)")}, ["lock core/x.c"]),
    "environment": ({"shards/x.c": call('getenv("A") != 0')}, ["environment shards/x.c"]),
    "environment_in_conf_passes": ({"core/conf_env.c": call('getenv("A") != 0')}, []),
    "output": ({"shards/x.c": call('fprintf(stderr, "x")')}, ["output shards/x.c"] * 2),
    "output_in_main_passes": ({"shards/main.c": call('printf("x")')}, []),
    "sleep": ({"tests/unit/core/x.c": call("usleep(5)")}, ["sleep tests/unit/core/x.c"]),
    "unsafe": ({"core/x.c": call("strcpy(0, 0) != 0")}, ["unsafe core/x.c"]),
    "prefix": ({"core/x.c": "int other(void)\n{\n    return 1;\n}\n"}, ["prefix core/x.c"]),
    "prefix_header": ({"core/p.h": header("p.h", "int q_open(void);\n"),
                       "core/x.c": '#include "core/p.h"\n'}, ["prefix core/p.h"]),
    "prefix_variable": ({"core/p.h": header("p.h", "extern int q_count[4];\n"),
                         "core/x.c": '#include "core/p.h"\n'}, ["prefix core/p.h"]),
    "prefix_without_the_header": ({"proto/clean_x.c": "int clean_y(int a)\n{\n    return a;\n}\n"},
                                  ["prefix proto/clean_x.c"]),
    "typedef": ({"core/x.c": "typedef struct { int a; } x_t;\n"}, ["typedef core/x.c"]),
    "unreadable": ({"core/x.c": "static int x(void)\n{\n"}, ["unreadable core/x.c"]),
    "orphan_header": ({"core/p.h": header("p.h")}, ["orphan core/p.h"]),
    "orphan_source": ({"core/unbuilt.c": "/* x */\n"}, ["orphan core/unbuilt.c"]),
    "exception_hides": ({"core/x.c": function("x", 71), "tests/tidy/exceptions.txt":
                         "function_lines core/x.c:x  # a reason\n"}, []),
    "exception_is_exact": ({"core/x.c": function("y", 71), "tests/tidy/exceptions.txt":
                            "function_lines core/x.c:x  # a reason\n"},
                           ["exception tests/tidy/exceptions.txt", "function_lines core/x.c"]),
    "exception_unneeded": ({"tests/tidy/exceptions.txt": "space core/x.c\n"},
                           ["exception tests/tidy/exceptions.txt"]),
    "build_folder_of_any_name_passes": ({"out/x.c": "\t\n", "out/meson-info/intro.json": ""}, []),
    "folder_that_only_sounds_built_is_read": ({"build-x/x.c": "int weft_x;\t\n"},
                                              ["tab build-x/x.c", "space build-x/x.c"]),
}


def run_case(files, expected):
    with tempfile.TemporaryDirectory() as root:
        laid = {**CLEAN, **files}
        for path, text in laid.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
        built = {p for p in laid if p.endswith(".c") and "unbuilt" not in p}
        findings, _ = tidy.check_tree(root, built)
    found = sorted(f"{f.rule} {f.path}" for f in findings)
    return found == sorted(expected), findings


def main():
    failed = 0
    for name, (files, expected) in CASES.items():
        good, findings = run_case(files, expected)
        if not good:
            failed += 1
            print(f"{name}: expected {expected}, found:")
            for finding in findings:
                print(f"    {finding}")
    planted = {f.split()[0] for _, expected in CASES.values() for f in expected}
    rules = {rule for rule, _, _ in tidy.WORDS}
    if rules - planted:
        failed += 1
        print(f"rules without a planted defect: {sorted(rules - planted)}")
    print(f"{len(CASES) + 1 - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
