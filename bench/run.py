#!/usr/bin/env python3
"""Runs the measuring programs and keeps what they say in bench/RESULTS.md.

    bench/run.py [--build DIR] [--quick] [--only fanout,memory] [--soak SECONDS] ...

Every program prints its own figures, each next to its bar; this script runs them one after the
other, shows what they print, and rewrites the sections of RESULTS.md that were measured. --quick is
a smoke of each in a few seconds: it shows that the programs work, its figures mean nothing and are
not written. The soak is left out unless asked for.
"""
import argparse
import datetime
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

BENCH = pathlib.Path(__file__).resolve().parent
RESULTS = BENCH / "RESULTS.md"

# name, heading, one or more of (program, options, options of --quick), what is compared
PLAN = [
    ("fanout", "Fan-out to 1,000 subscribers of one channel, one shard", [
        ("bench_fanout", "--publishers 1 --pairs 7",
         "--publishers 1 --pairs 1 --messages 40 --warm 10 --bar-percent 0"),
        ("bench_fanout", "--publishers 32 --window 64 --pairs 5 --messages 6400 --bar-percent 75",
         "--publishers 16 --pairs 1 --messages 100 --warm 20 --bar-percent 0"),
        ("bench_fanout", "--publishers 1 --pairs 7 --v2 1",
         "--publishers 1 --pairs 1 --messages 40 --warm 10 --bar-percent 0 --v2 1"),
    ], "The server and the bare loop (`limit_fanout`) in turn: same core, same receivers, same "
       "frame length, same frames per send. Wall: frames per second as the receivers saw them. "
       "CPU: frames per CPU second of the sending process. The second run publishes over 32 "
       "connections, so that frames coalesce. Names that end in _v2: the subscribers speak "
       "Protocol V2."),
    ("scale", "From one shard to two", [
        ("bench_scale", "--pairs 7", "--pairs 1 --subs 500 --messages 20 --bar-percent 0"),
    ], "A burst to receivers that do not read while the clock runs: one shard, two shards, one "
       "bare loop, two independent bare loops."),
    ("handshake", "Handshakes", [
        ("bench_handshake", "", "--conns 2000 --bar 0"),
    ], "Upgrades to `pusher:connection_established`, divided by the server's CPU seconds."),
    ("memory", "Memory per connection", [
        ("bench_memory", "", "--conns 2000"),
        ("bench_memory", "--v2 1", "--conns 2000 --v2 1"),
        ("bench_memory", "--v2 1 --history 1", "--conns 2000 --v2 1 --history 1"),
    ], "Growth over 15,000 connections after 20 rounds of 1,000 that came and went, each case on "
       "a server of its own. Names that end in _v2: Protocol V2; in _history: every channel has "
       "history and recovery."),
    ("capacity", "200,000 connections", [
        ("bench_capacity", "--heartbeat-seconds 60",
         "--conns 4000 --idle-seconds 2 --setup-bar 0"),
    ], "Held by one server process under `RLIMIT_NOFILE`; every connection answers; idle CPU "
       "without and with heartbeats due."),
    ("mass_drop", "Dropping half of 200,000 connections", [
        ("bench_mass_drop", "", "--conns 4000 --echo 200 --rate 500 --before-seconds 1"),
    ], "The other half's process is killed; 1,000 survivors echo 1,000 messages per second, open "
       "loop."),
    ("syscalls", "What one publish to 1,000 subscribers costs", [
        ("bench_syscalls", "", "--subs 200 --messages 50"),
    ], "Server counters, `strace -c -f` and a sampled profile of the shard thread."),
    ("latency", "Publish to delivery at half of peak load", [
        ("bench_latency", "", "--conns 1000 --channels 100 --peak-seconds 1 --seconds 2"),
    ], "10,000 sockets in 1,000 channels, open loop, from the due time of the publish. Generator "
       "and server share the machine's cores."),
    ("append", "Signed durable appends, one core", [
        ("bench_append", "", "--conns 64 --warm-seconds 1 --seconds 1 --limit-seconds 1 --bar 0"),
        ("limit_commit", "", "--seconds 1"),
    ], "256 kept-alive connections, each append answered when it is durable; a shard and its "
       "lane's threads on one core, the generator on the other. The bar is the smaller of 60,000 "
       "and 0.8 of the bare group commit with the same records at the same concurrency on the "
       "same disk."),
    ("delivery", "Append to delivery at half of peak load", [
        ("bench_delivery", "", "--conns 64 --peak-seconds 1 --seconds 1"),
    ], "256 channels with one V2 subscriber each, durable, open loop, from the due time of the "
       "append until the subscriber has the frame."),
    ("lane", "The lane alone", [
        ("bench_lane", "", "--warm-seconds 1 --seconds 1 --bar 0"),
    ], "The store without the server: batches of appends to one lane, each answered when it is "
       "durable, while its wal is packed into segments."),
    ("commit", "Commits while everything else goes on", [
        ("bench_commit", "", "--keep-seconds 1 --warm-seconds 3 --seconds 1"),
    ], "Duration of the commit that each batch was in, while segments are written, cold reads run "
       "without pause and retention deletes."),
    ("growth", "An append to a long message", [
        ("bench_growth", "", "--messages 4 --appends 512 --message-kb 128 --ratio-percent 1000"),
    ], "1 MiB messages built of 4,096 appends each, read by delta subscribers: the last eighth of "
       "the appends against the first."),
    ("restart", "Restart with 1 GiB of history", [
        ("bench_restart", "", "--mib 16 --channels 50"),
    ], "Page cache dropped, from the start of the process to the answer of GET history."),
    ("soak", "Long mixed run", [
        ("bench_soak", "--seconds {soak}",
         "--conns 400 --warm-seconds 6 --seconds 14 --changes 300"),
    ], "Connects, disconnects, subscribes, publishes and slow readers; the quiet server before and "
       "after."),
]
TIMEOUT_S = 1200


def machine():
    """What a reader needs to judge the figures; no names."""
    model, kib = "unknown", 0
    with open("/proc/cpuinfo", encoding="ascii") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as f:
        kib = int(f.readline().split()[1])
    nofile = os.sysconf("SC_OPEN_MAX")
    kernel = re.match(r"[0-9.]+", platform.release()).group(0)
    return (f"{os.cpu_count()} cores ({model}), {kib / 2**20:.1f} GiB, Linux {kernel}, "
            f"RLIMIT_NOFILE {nofile}, loopback; load and server on the same cores")


def busy_share():
    """How much of the machine other work takes, over one second: figures suffer from it."""
    def ticks():
        with open("/proc/stat", encoding="ascii") as f:
            values = [int(v) for v in f.readline().split()[1:]]
        return values[3] + values[4], sum(values)
    idle, total = ticks()
    time.sleep(1)
    idle_now, total_now = ticks()
    return 1 - (idle_now - idle) / max(1, total_now - total)


def run_one(build, program, options):
    """One program's text and exit code; its output is shown as it comes."""
    command = [str(build / "bench" / program), *options.split()]
    limit = TIMEOUT_S + (7200 if program == "bench_soak" else 0)
    print(f"\n$ {program} {options}", flush=True)
    lines = [f"{100 * busy_share():.0f}% of the machine was busy with other work before the run"]
    print(lines[0], flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as p:
        for line in p.stdout:            # ends by itself: every program sets itself an alarm
            print(line, end="", flush=True)
            lines.append(line.rstrip())
        code = p.wait(timeout=limit)
    return lines, code


def figures_of(lines):
    """The FIGURE lines as rows of (name, value, unit, bar, verdict)."""
    rows = []
    for line in lines:
        if line.startswith("FIGURE "):
            rows.append([part.strip() for part in line[7:].split("|")])
    return rows


def section(heading, text, runs, facts):
    out = [f"## {heading}", "", text, "", f"{facts}", ""]
    for program, options, lines, code in runs:
        out += ["```", f"build/bench/{program} {options}".rstrip(), "```", ""]
        rows = figures_of(lines)
        if rows:
            out += ["| figure | value | unit | bar | |", "|---|---|---|---|---|"]
            out += ["| " + " | ".join(row) + " |" for row in rows]
            out.append("")
        if code not in (0, 1):
            out += [f"The run broke off (exit {code}): {lines[-1] if lines else 'no output'}", ""]
        rest = [line for line in lines if line and not line.startswith("FIGURE ")]
        if rest:
            out += ["<details><summary>output</summary>", "", "```", *rest, "```", "", "</details>",
                    ""]
    return "\n".join(out)


def write_results(sections):
    """Replace the sections that were measured now, keep the others, in the plan's order."""
    known = {}
    if RESULTS.exists():
        for part in re.split(r"(?m)^(?=## )", RESULTS.read_text(encoding="utf-8"))[1:]:
            known[part.split("\n", 1)[0][3:]] = part.rstrip() + "\n"
    known.update(sections)
    head = ("# Results\n\nWritten by `bench/run.py` (`make bench`); each section by the run it "
            "names. A figure stands next to its bar, ratios next to what they are ratios of.\n")
    body = [known[heading].rstrip() + "\n" for _, heading, _, _ in PLAN if heading in known]
    RESULTS.write_text(head + "\n" + "\n".join(body), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=BENCH.parent / "build")
    parser.add_argument("--server", default="", help="default: DIR/weft")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--soak", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()

    names = [name for name, _, _, _ in PLAN]
    only = [name for name in args.only.split(",") if name]
    for name in only:
        if name not in names:
            parser.error(f"unknown figure {name}; known: {', '.join(names)}")
    facts = machine()
    print(facts)

    sections, broken, missed, rows = {}, [], [], []
    for name, heading, programs, text in PLAN:
        soak_asked = args.soak or args.quick or "soak" in only
        if only and name not in only or name == "soak" and not soak_asked:
            continue
        runs = []
        for program, options, quick in programs:
            options = quick if args.quick else options.format(soak=args.soak or 1800)
            more = f" --server {args.server}" if args.server else ""
            lines, code = run_one(args.build, program, options + more)
            runs.append((program, options, lines, code))
            rows += figures_of(lines)
            if code not in (0, 1):
                broken.append(f"{program} {options}")
        day = datetime.date.today().isoformat()
        sections[heading] = section(heading, text, runs, f"{day}. {facts}.")

    print(f"\n{'figure':34} {'value':>12} {'unit':24} {'bar':12}")
    for row in rows:
        print(f"{row[0]:34} {row[1]:>12} {row[2]:24} {row[3]:12} {row[4]}")
        if row[4] == "MISSED":
            missed.append(row[0])
    if not args.quick and not args.no_write:
        write_results(sections)
    for command in broken:
        print(f"broken: {command}")
    print(f"{len(rows)} figures, {len(missed)} missed, {len(broken)} programs broken")
    if broken:
        return 2
    return 1 if missed and not args.quick else 0


if __name__ == "__main__":
    sys.exit(main())
