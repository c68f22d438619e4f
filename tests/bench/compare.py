#!/usr/bin/env python3
"""Halyard and nats-server side by side: `nats bench` against both, in turn, on this machine.

For each work and each round both servers start on a fresh directory, one after the other, the order
swapped every round. The table gives the median of the rounds: rate, p99 of one operation where the
tool reports it, server CPU for each message (user + system time of the process), and the ratio of
the medians, with the lowest and highest ratio of a pair. The load tool shares the machine.

Halyard acknowledges what is on disk; nats-server runs with its default (a sync every two minutes),
and again with `sync_interval: always` where the row says "both durable". Where it names a cipher both
encrypt what they store.

    tests/bench/compare.py [--rounds N] [--only PATTERN] [--write docs/performance.md]

Needs what `.ci/setup` installs and `cargo build --release -p halyard-server`.
"""

import argparse
import datetime
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")


def tool(name, variable):
    if variable in os.environ:
        return os.environ[variable]
    ours = ROOT / ".tools/bin" / name
    found = str(ours) if ours.exists() else shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is missing: run .ci/setup")
    return found


NATS = tool("nats", "NATS")
SERVERS = {
    "halyard": os.environ.get("HALYARD_BIN", str(ROOT / "target/release/halyard")),
    "nats-server": tool("nats-server", "NATS_SERVER"),
}


# What stands in the `jetstream` block of each server's configuration.
SETTINGS = {
    "default": {},
    "both durable": {"nats-server": "sync_interval: always"},
    "ChaCha20-Poly1305": dict.fromkeys(SERVERS, 'key: "a key for the measurement", cipher: chachapoly'),
    "AES-256-GCM": dict.fromkeys(SERVERS, 'key: "a key for the measurement", cipher: aes'),
}


class Server:
    """One server process on a fresh directory and a free port."""

    def __init__(self, name, setting):
        self.dir = tempfile.TemporaryDirectory(prefix="bench-")
        store = self.dir.name + "/store"
        args = [SERVERS[name], "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", self.dir.name]
        args += ["-l", self.dir.name + "/log"]
        more = SETTINGS[setting].get(name)
        if more:
            config = pathlib.Path(self.dir.name, "server.conf")
            config.write_text('jetstream { %s, store_dir: "%s" }\n' % (more, store))
            args += ["-c", str(config)]
        else:
            args += ["-js", "-sd", store]
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (ports := list(pathlib.Path(self.dir.name).glob("*.ports"))) or not ports[0].read_text():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"{name} did not start: {args}")
            time.sleep(0.02)
        self.url = re.search(r'nats://[^"]+', ports[0].read_text()).group()

    def cpu(self):
        """Seconds of processor time used so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def bench(self, *args):
        return subprocess.Popen([NATS, "--no-context", "-s", self.url, "bench", *map(str, args), "--no-progress"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, env={**os.environ, "HOME": self.dir.name})

    def stream(self, storage="file"):
        """The stream that the JetStream loads use, made beforehand: the same on both servers."""
        subprocess.run([NATS, "--no-context", "-s", self.url, "stream", "add", "benchstream", "--subjects", "load",
                        "--storage", storage, "--max-bytes", "1GB", "--defaults"], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, "HOME": self.dir.name})

    def run(self, *args):
        process = self.bench(*args)
        output, _ = process.communicate(timeout=180)
        if process.returncode:
            raise SystemExit(f"nats bench {args}: {output}")
        return output

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.dir.cleanup()


def number(text):
    return float(text.replace(",", ""))


def measure(server, messages, run):
    """Runs a load; returns (messages/s, p99 in microseconds or None, CPU microseconds per message)."""
    before = server.cpu()
    output = run()
    spent = server.cpu() - before
    rates = re.findall(r"stats: ([\d,]+) msgs/sec", output)
    if not rates:
        raise SystemExit(output)
    p99 = re.findall(r"P99: ([\d,.]+)us", output)
    return number(rates[-1]), number(p99[-1]) if p99 else None, spent / messages * 1e6


def publish_only(size, messages):
    def work(server):
        return measure(server, messages, lambda: server.run("pub", "load", "--size", size, "--msgs", messages))
    return work


def fan_out(size, messages, subscribers):
    def work(server):
        subs = server.bench("sub", "load", "--clients", subscribers, "--size", size, "--msgs", messages)
        time.sleep(1)

        def run():
            server.run("pub", "load", "--size", size, "--msgs", messages)
            return subs.communicate(timeout=180)[0]
        return measure(server, messages * subscribers, run)
    return work


def many_to_many(size, messages, clients):
    def work(server):
        subs = server.bench("sub", "load", "--clients", clients, "--size", size, "--msgs", messages)
        time.sleep(1)

        def run():
            server.run("pub", "load", "--clients", clients, "--size", size, "--msgs", messages)
            return subs.communicate(timeout=180)[0]
        return measure(server, messages * clients, run)
    return work


def request_reply(clients, messages):
    def work(server):
        service = server.bench("service", "serve", "echo", "--size", "128", "--clients", 1)
        time.sleep(1)
        try:
            return measure(server, messages, lambda: server.run(
                "service", "request", "echo", "--size", "128", "--clients", clients, "--msgs", messages))
        finally:
            service.terminate()
            service.wait()
    return work


def js_sync(clients, messages, size=128):
    def work(server):
        server.stream()
        server.run("js", "pub", "sync", "load", "--msgs", 100)
        return measure(server, messages, lambda: server.run(
            "js", "pub", "sync", "load", "--clients", clients, "--msgs", messages, "--size", size))
    return work


def js_async(clients, messages, size, storage="file"):
    def work(server):
        server.stream(storage)
        server.run("js", "pub", "async", "load", "--msgs", 1000)
        return measure(server, messages, lambda: server.run(
            "js", "pub", "async", "load", "--clients", clients, "--msgs", messages, "--size", size, "--batch", 500))
    return work


def js_consume(kind, messages, size=128):
    def work(server):
        server.stream()
        server.run("js", "pub", "async", "load", "--msgs", messages, "--size", size)
        extra = [] if kind == "ordered" else ["--batch", 500]
        return measure(server, messages, lambda: server.run("js", kind, "--msgs", messages, "--size", size, *extra))
    return work


# name, work, the goal for the rate (ours / theirs); a setting may stand before the name.
WORKS = [
    ("core publish only, 16 B", publish_only("16", 3_000_000), 1.0),
    ("core 1:1, 16 B", fan_out("16", 2_000_000, 1), 1.0),
    ("core 1:1, 128 B", fan_out("128", 2_000_000, 1), 1.0),
    ("core 1:1, 1 KiB", fan_out("1024", 800_000, 1), 1.0),
    ("core 1:4, 128 B (delivered)", fan_out("128", 600_000, 4), 1.0),
    ("core 4:4, 128 B (delivered)", many_to_many("128", 600_000, 4), 1.0),
    ("request/reply, 1 client", request_reply(1, 20_000), 1.0),
    ("request/reply, 8 clients", request_reply(8, 60_000), 1.0),
    ("JetStream publish, 1 client, one at a time", js_sync(1, 8_000), None),
    ("JetStream publish, 16 clients, one at a time", js_sync(16, 40_000), None),
    ("JetStream publish, 500 in flight, 128 B", js_async(1, 300_000, "128"), 1.0),
    ("JetStream publish, 500 in flight, 1 KiB", js_async(1, 200_000, "1024"), 1.0),
    ("JetStream publish, 4 clients, 500 in flight", js_async(4, 400_000, "128"), 1.0),
    ("JetStream publish, memory, 500 in flight", js_async(1, 300_000, "128", "memory"), 1.0),
    ("JetStream consume, explicit acks", js_consume("consume", 300_000), 1.0),
    ("JetStream fetch, explicit acks", js_consume("fetch", 300_000), 1.0),
    ("JetStream ordered consumer", js_consume("ordered", 300_000), 1.0),
    ("both durable: publish, 1 client, one at a time", js_sync(1, 4_000), 1.2),
    ("both durable: publish, 16 clients, one at a time", js_sync(16, 16_000), 5.0),
    ("both durable: publish, 500 in flight, 128 B", js_async(1, 40_000, "128"), 15.0),
    ("ChaCha20-Poly1305: publish, 500 in flight, 128 B", js_async(1, 300_000, "128"), 1.0),
    ("ChaCha20-Poly1305: publish, 500 in flight, 1 KiB", js_async(1, 200_000, "1024"), 1.0),
    ("ChaCha20-Poly1305: consume, explicit acks", js_consume("consume", 300_000), 1.0),
    ("AES-256-GCM: publish, 500 in flight, 128 B", js_async(1, 300_000, "128"), 1.0),
    ("AES-256-GCM: publish, 500 in flight, 1 KiB", js_async(1, 200_000, "1024"), 1.0),
    ("AES-256-GCM: consume, explicit acks", js_consume("consume", 300_000), 1.0),
]


def rounds_of(work, setting, rounds):
    results = {"halyard": [], "nats-server": []}
    for n in range(rounds):
        order = list(results) if n % 2 == 0 else list(results)[::-1]
        for name in order:
            with Server(name, setting) as server:
                results[name].append(work(server))
    return results


def row(name, goal, results):
    ours, theirs = results["halyard"], results["nats-server"]

    def median(runs, column):
        values = [r[column] for r in runs if r[column] is not None]
        return statistics.median(values) if values else None

    def pair(column, text):
        a, b = median(ours, column), median(theirs, column)
        return "" if a is None or b is None else text.format(a, b)

    ratio = median(ours, 0) / median(theirs, 0)
    pairs = [a[0] / b[0] for a, b in zip(ours, theirs)]
    cpu = median(ours, 2) / max(median(theirs, 2), 1e-9)
    met = "" if goal is None else ("yes" if ratio >= goal else "**no**")
    return (f"| {name} | {median(ours, 0):,.0f} | {median(theirs, 0):,.0f} | {ratio:.2f} ({min(pairs):.2f}-{max(pairs):.2f}) "
            f"| {'' if goal is None else f'>= {goal}'} | {met} | {pair(1, '{:,.0f} / {:,.0f}')} "
            f"| {median(ours, 2):.2f} / {median(theirs, 2):.2f} | {cpu:.2f} |")


BEGIN, END = "<!-- compare.py: begin -->", "<!-- compare.py: end -->"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="regular expression over the names of the works")
    parser.add_argument("--write", help="replaces the table in this file")
    options = parser.parse_args()
    lines = [
        f"Measured {datetime.date.today()} on {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        f"{options.rounds} rounds, medians; the load tool runs on the same cores.",
        "",
        "| work | ours, msg/s | theirs, msg/s | ratio (lowest-highest pair) | goal | met | p99 us, ours / theirs "
        "| CPU us per message, ours / theirs | CPU ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, work, goal in WORKS:
        if re.search(options.only, name):
            setting = name.split(":")[0]
            setting = setting if setting in SETTINGS else "default"
            lines.append(row(name, goal, rounds_of(work, setting, options.rounds)))
            print(lines[-1], flush=True)
    if options.write:
        path = ROOT / options.write
        text = path.read_text() if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
        head, rest = text.split(BEGIN, 1)
        _, tail = rest.split(END, 1)
        path.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + tail)


if __name__ == "__main__":
    main()
