#!/usr/bin/env python3
"""The style test: checks of STYLE.md that a program can make.

  tidy.py --root TREE --targets intro-targets.json

Every finding is one line, "rule path:line: text". The last line is "N passed, N failed", counted
in files. Each rule has a planted defect in tidy_test.py that proves that it can fail.
"""
import argparse
import fnmatch
import json
import os
import re
import sys

import csource

COLUMNS_MAX = 100
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

SKIP_DIRS = {".git", "node_modules", "__pycache__", "weft-data", "corpus"}
SKIP_FILES = {"LICENSE", "package-lock.json"}
TEXT_SUFFIXES = (".c", ".h", ".py", ".mjs", ".js", ".sh", ".build", ".md", ".yaml", ".yml", ".txt",
                 ".service", ".conf", ".json", "run", "check", "Makefile", ".clang-format")
NO_COLUMN_LIMIT = (".md", ".json", ".txt")

# folder -> the folders whose headers it may include; folders not named here may include all.
MAY_INCLUDE = {
    "core": {"core"},
    "proto": {"core", "proto"},
    "store": {"core", "store"},
    "shards": {"core", "proto", "store", "shards"},
}

ALL = ["*"]
SERVER = ["core/*", "proto/*", "store/*", "shards/*"]
SIDE = ["bench/*", "tests/*"]
CONF = ["core/conf*.c"]

# (rule, words, where the words may stand). A word that ends in "*" is a prefix. Only code counts:
# comments and strings do not.
WORDS = [
    ("clock", "clock_gettime clock_gettime_nsec_np gettimeofday time ftime clock timespec_get",
     ["core/clock.c", "tests/unit/core/test_clock.c", "bench/*"]),
    ("entropy", "randombytes* getrandom getentropy rand srand random srandom drand48 arc4random*",
     ["core/rng.c"]),
    ("memory", "malloc calloc realloc reallocarray free strdup strndup asprintf vasprintf "
     "aligned_alloc posix_memalign mmap munmap mremap",
     ["core/mem.c", "core/log.c", "core/metric.c", "core/mail.c", "store/*"] + CONF + SIDE),
    ("ring", "io_uring_*", ["core/ring*", "core/uring*", "bench/*"]),
    ("lock", "pthread_mutex_* pthread_rwlock_* pthread_spin_* pthread_cond_* mtx_* cnd_* sem_wait "
     "sem_post", []),
    ("environment", "getenv secure_getenv setenv putenv unsetenv", CONF + SIDE),
    ("output", "printf fprintf vprintf vfprintf dprintf vdprintf puts fputs putchar putc fputc "
     "fwrite perror stdout stderr",
     ["core/log.c", "core/base.c", "shards/main.c", "tools/ctl/main.c"] + CONF + SIDE),
    ("sleep", "sleep usleep nanosleep clock_nanosleep", ["bench/*", "shards/listen.c"]),
    ("unsafe", "sprintf vsprintf strcpy strcat gets strtok alloca setjmp longjmp sigsetjmp "
     "siglongjmp system popen", ["tests/*"]),
]
# Words that are also common names: they count only where they are called.
CALLED_ONLY = {"time", "clock", "free", "random", "rand", "sleep", "system", "gets"}
# Whole libraries that one folder stands for, and one that no folder may include yet.
HEADERS_ONLY = {"lmdb.h": ["store/*"] + SIDE, "nats.h": []}

# Exported names start with the stem of their file, or with that of the header that the file is part
# of: ring_uring.c may define ring_* where ring.h stands beside it. Some headers own a second word.
MORE_PREFIXES = {
    "core/base": ["slice", "u32", "u64"],
    "core/mem": ["heap"],
    "shards/home": ["publish"],
    "store/lane": ["reader"],
    "store/reader": ["store_read"],
}
# Entry points whose names are given from outside.
FREE_NAMES = {"main", "LLVMFuzzerTestOneInput", "LLVMFuzzerInitialize"}

MARKS = re.compile(r"\b(?:%s)\b" % "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]))


class Finding:
    def __init__(self, rule, path, line, text, name=None):
        self.rule, self.path, self.line, self.text = rule, path, line, text
        self.key = f"{rule} {path}" + (f":{name}" if name else "")

    def __str__(self):
        return f"{self.rule} {self.path}:{self.line}: {self.text}"


def matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, p) for p in patterns)


def tree_files(root):
    """Every text file that is ours, as paths relative to root."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(d for d in folders if d not in SKIP_DIRS and
                            not os.path.isdir(os.path.join(folder, d, "meson-info")))
        for name in sorted(names):
            if name not in SKIP_FILES and name.endswith(TEXT_SUFFIXES):
                found.append(os.path.relpath(os.path.join(folder, name), root))
    return found


def check_text(path, text):
    lines = text.split("\n")
    if text and not text.endswith("\n"):
        yield Finding("newline", path, len(lines), "no newline at the end of the file")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX and not path.endswith(NO_COLUMN_LIMIT):
            yield Finding("columns", path, number, f"{len(line)} columns, at most {COLUMNS_MAX}")
        if line != line.rstrip():
            yield Finding("space", path, number, "white space at the end of the line")
        if "\t" in line and path.endswith((".c", ".h", ".py", ".mjs", ".build")):
            yield Finding("tab", path, number, "a tab")
        if MARKS.search(line):
            yield Finding("mark", path, number, "unfinished work: finish it or file an issue")


def check_includes(path, source):
    folder = path.split("/")[0]
    for line, name, quoted in source.includes:
        if not matches(path, HEADERS_ONLY.get(os.path.basename(name), ALL)):
            yield Finding("include", path, line, f"{name} may not be included here", name)
        if not quoted or folder not in MAY_INCLUDE:
            continue
        if name.split("/")[0] not in MAY_INCLUDE[folder] or "/" not in name:
            allowed = ", ".join(sorted(MAY_INCLUDE[folder]))
            yield Finding("include", path, line, f'"{name}": {folder}/ includes only {allowed}/',
                          name)


def check_header(path, source, text):
    stem_h = os.path.basename(path)
    opening = re.match(r"/\*(.*?)\*/", text, re.DOTALL)
    if not opening or not opening.group(1).startswith(f" {stem_h} - "):
        yield Finding("header", path, 1, f"does not open with a comment '{stem_h} - ...'")
    elif path.startswith(("core/", "proto/", "store/", "shards/")):
        if not re.search(r"^ \* (Shape|Threads)  ", opening.group(0), re.MULTILINE):
            yield Finding("header", path, 1, "the opening comment has neither Shape nor Threads")
    if not re.search(r"^#pragma once$", text, re.MULTILINE):
        yield Finding("pragma", path, 1, "no #pragma once")


def check_words(path, source):
    for rule, words, allowed in WORDS:
        if matches(path, allowed):
            continue
        if rule == "sleep" and not matches(path, SERVER + ["tests/unit/*"]):
            continue
        for word in words.split():
            for line in source.find_word(word, word in CALLED_ONLY):
                yield Finding(rule, path, line, f"{word} may not be used here", word)


def check_sizes(path, source):
    if source.lines_count > FILE_LINES_MAX:
        yield Finding("file_lines", path, source.lines_count, f"more than {FILE_LINES_MAX} lines")
    for f in source.functions:
        if f.lines_count > FUNCTION_LINES_MAX:
            yield Finding("function_lines", path, f.line,
                          f"{f.name} has {f.lines_count} lines, at most {FUNCTION_LINES_MAX}",
                          f.name)


def prefixes_of(path, paths):
    """The stems with which this file's exported names may start."""
    base = path.rsplit(".", 1)[0]
    found = [os.path.basename(base)] + MORE_PREFIXES.get(base, [])
    owner = base
    while "_" in os.path.basename(owner):
        owner = owner.rsplit("_", 1)[0]
        if owner + ".h" in paths:
            found += [os.path.basename(owner)] + MORE_PREFIXES.get(owner, [])
    return found


def check_names(path, source, paths):
    prefixes = prefixes_of(path, paths)
    exported = [f for f in source.functions if not f.static]
    if path.endswith(".h"):
        exported += source.declarations
    if path.startswith("tests/"):
        exported = []                       # a test program exports nothing to anyone
    for f in exported:
        lower = f.name.lower()
        if f.name in FREE_NAMES or any(lower == p or lower.startswith(p + "_") for p in prefixes):
            continue
        yield Finding("prefix", path, f.line, f"{f.name} does not start with "
                      + " or ".join(p + "_" for p in prefixes), f.name)
    for line in source.struct_typedefs:
        yield Finding("typedef", path, line, "a typedef that hides a struct, union or enum")


def check_c(path, text, paths):
    try:
        source = csource.Source(text)
    except csource.Unreadable as e:
        return None, [Finding("unreadable", path, e.line, e.text)]
    found = list(check_includes(path, source))
    if path.endswith(".h"):
        found += check_header(path, source, text)
    found += check_words(path, source)
    found += check_sizes(path, source)
    found += check_names(path, source, paths)
    return source, found


def check_orphans(sources, built):
    """Files that nobody includes or builds."""
    included = set()
    for path, source in sources.items():
        for _, name, quoted in source.includes:
            if quoted:
                included.add(name)
                included.add(os.path.normpath(os.path.join(os.path.dirname(path), name)))
    for path in sources:
        if path in included or (path.endswith(".c") and path in built):
            continue
        verb = "builds" if path.endswith(".c") else "includes"
        yield Finding("orphan", path, 1, f"nobody {verb} this file")


def built_sources(targets_path, root):
    with open(targets_path, encoding="utf-8") as f:
        targets = json.load(f)
    built = set()
    for target in targets:
        for group in target.get("target_sources", []):
            for name in group.get("sources", []):
                built.add(os.path.relpath(os.path.realpath(name), os.path.realpath(root)))
    return built


def read_exceptions(root):
    """Lines "rule path[:name]  # reason" as {key: line number}."""
    path = os.path.join(root, "tests/tidy/exceptions.txt")
    entries = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                key = line.split("#")[0].strip()
                if key:
                    entries[key] = number
    return entries


def check_tree(root, built):
    """Every finding of the tree after its exceptions, and the number of files read."""
    findings, sources = [], {}
    paths = tree_files(root)
    for path in paths:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
            text = f.read()
        findings += check_text(path, text)
        if path.endswith((".c", ".h")):
            source, found = check_c(path, text, set(paths))
            findings += found
            if source:
                sources[path] = source
    findings += check_orphans(sources, built)

    exceptions = read_exceptions(root)
    kept = [f for f in findings if f.key not in exceptions]
    needed = {f.key for f in findings}
    for key, line in exceptions.items():
        if key not in needed:
            kept.append(Finding("exception", "tests/tidy/exceptions.txt", line,
                                f"'{key}' hides nothing any more: remove it"))
    return kept, len(paths)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--targets", required=True)
    args = parser.parse_args()
    findings, files_count = check_tree(args.root, built_sources(args.targets, args.root))
    for finding in findings:
        print(finding)
    bad = len({f.path for f in findings})
    print(f"{files_count - bad} passed, {bad} failed")
    sys.exit(1 if findings or files_count == 0 else 0)


if __name__ == "__main__":
    main()
