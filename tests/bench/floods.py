#!/usr/bin/env python3
"""What others notice of a flood and of long requests: Halyard and nats-server side by side, on this machine.

A flood: N connections publish messages of 1 MB to one stream as fast as the server reads them. Beside
it one client publishes small messages to another stream, each after the acknowledgement of the one
before, and another does core requests. Shown: how many small publishes were refused, p50 and p99 of
both, the server's memory at most and a minute after the flood.

Long requests: core requests while a stream is purged by a filter over 500,000 keys, one of 5,000,000
messages is deleted, one gets 15,000 subjects, 32 clients get 500 MB directly.

    tests/bench/floods.py [--only PATTERN] [--seconds N] [--scale FRACTION] [--servers halyard,nats-server]

Needs what `.ci/setup` installs and `cargo build --release -p halyard-server`.
"""

import argparse
import json
import multiprocessing
import os
import re
import selectors
import socket
import threading
import time

from compare import SERVERS, Server

MEGABYTE = 1 << 20
# Between the requests of a bystander, seconds.
PAUSE = 0.002


class Client:
    """One connection that speaks bare protocol lines."""

    def __init__(self, url):
        host, port = re.match(r"nats://(.*):(\d+)", url).groups()
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(30)
        self.file = self.socket.makefile("rb", 1 << 16)
        self.file.readline()
        self.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nPING\r\n')
        self.line()

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        while (line := self.file.readline()) == b"PING\r\n":
            self.send(b"PONG\r\n")
        return line

    def message(self):
        """The next message: headers and payload."""
        fields = self.line().split()
        if not fields or fields[0] not in (b"MSG", b"HMSG"):
            raise SystemExit(f"not a message: {fields}")
        return self.file.read(int(fields[-1]) + 2)[:-2]

    def request(self, subject, body=b""):
        self.send(b"PUB %s %s %d\r\n%s\r\n" % (subject.encode(), self.own, len(body), body))
        return self.message()

    def api(self, subject, body=None):
        data = b"" if body is None else json.dumps(body).encode()
        answer = json.loads(self.request("$JS.API." + subject, data))
        if "error" in answer:
            raise SystemExit(f"{subject}: {answer['error']}")
        return answer

    def inbox(self):
        self.own = b"_I.%d.%d" % (os.getpid(), id(self))
        self.send(b"SUB %s 1\r\nPING\r\n" % self.own)
        self.line()
        return self


def stream(client, name, subjects, **more):
    client.api("STREAM.CREATE." + name, {"name": name, "subjects": subjects, **{"storage": "file", **more}})


def fill(client, subject, count, size=16, window=20_000):
    """`count` messages to the subjects `subject(number)`, the last of each window acknowledged."""
    body = b"x" * size
    for start in range(0, count, window):
        lines = [b"PUB %s %d\r\n%s\r\n" % (subject(number), size, body) for number in range(start, min(start + window, count) - 1)]
        client.send(b"".join(lines))
        client.request(subject(min(start + window, count) - 1).decode(), body)


def percentile(times, share):
    """In milliseconds. A client that waits does not ask: the requests that it would have sent meanwhile count, too, each with
    the time that was left to wait, or one that hears nothing for seconds would count as one request among thousands."""
    asked = [one - PAUSE * step for one in times for step in range(1 + int(one / PAUSE))]
    asked.sort()
    return asked[min(len(asked) - 1, int(len(asked) * share))] * 1000 if asked else float("nan")


def echo(url, stop):
    client = Client(url)
    client.send(b"SUB echo.me 1\r\n")
    client.socket.settimeout(0.5)
    while not stop.is_set():
        try:
            fields = client.line().split()
            client.file.read(int(fields[-1]) + 2)
            client.send(b"PUB %s 2\r\nok\r\n" % fields[3])
        except (TimeoutError, OSError, IndexError):
            client = None
            if stop.is_set():
                return
            client = Client(url)
            client.send(b"SUB echo.me 1\r\n")
            client.socket.settimeout(0.5)


def core(url, stop, results):
    """Round trips of core requests, in seconds."""
    client = Client(url).inbox()
    times = []
    while not stop.is_set():
        with timed("core", times) as asked:
            client.request("echo.me", b"hi")
        if asked.failed:
            break
        time.sleep(PAUSE)
    results.put(("core", times, 0))


class timed:
    """Notes how long one request takes, also of one whose connection ends or that hears nothing for long."""

    def __init__(self, name, times):
        self.name, self.times, self.failed = name, times, False

    def __enter__(self):
        self.started = time.perf_counter()
        return self

    def __exit__(self, kind, error, _):
        self.times.append(time.perf_counter() - self.started)
        if kind and issubclass(kind, (SystemExit, OSError)):
            print(f"  {self.name} ended after {self.times[-1]:.1f} s: {error!r}", flush=True)
            self.failed = True
        return self.failed


def small(url, stop, results):
    """Small publishes to another stream: their times, and how many were refused."""
    client = Client(url).inbox()
    times, refused = [], 0
    while not stop.is_set():
        with timed("small", times) as asked:
            answer = client.request("small.one", b"0123456789abcdef")
            refused += b'"error"' in answer
        if asked.failed:
            break
        time.sleep(PAUSE)
    results.put(("small", times, refused))


def flood(url, connections, stop):
    """Publishes without pause on many connections."""
    host, port = re.match(r"nats://(.*):(\d+)", url).groups()
    message = b"PUB flood.x %d\r\n%s\r\n" % (MEGABYTE, b"x" * MEGABYTE)
    view, poller, sockets = memoryview(message), selectors.DefaultSelector(), []
    for _ in range(connections):
        one = socket.create_connection((host, int(port)))
        one.recv(4096)
        one.sendall(b'CONNECT {"verbose":false}\r\n')
        one.setblocking(False)
        poller.register(one, selectors.EVENT_WRITE | selectors.EVENT_READ, [0])
        sockets.append(one)
    while not stop.is_set():
        for key, events in poller.select(0.2):
            try:
                if events & selectors.EVENT_READ and b"PING" in key.fileobj.recv(65536):
                    pass
                if events & selectors.EVENT_WRITE:
                    key.data[0] += key.fileobj.send(view[key.data[0] % len(message):])
            except BlockingIOError:
                pass
            except OSError:
                poller.unregister(key.fileobj)
    for one in sockets:
        one.close()


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


class Watched:
    """Bystanders of a server while something goes on; `small` publishes only if asked for."""

    def __init__(self, server, with_small):
        self.server, self.stop, self.results = server, multiprocessing.Event(), multiprocessing.Queue()
        targets = [(core, (self.results,))] + ([(small, (self.results,))] if with_small else [])
        self.count = len(targets)
        self.tasks = [multiprocessing.Process(target=echo, args=(server.url, self.stop))]
        self.tasks += [multiprocessing.Process(target=target, args=(server.url, self.stop, *more)) for target, more in targets]
        self.most, self.times = 0, {}

    def watch_memory(self):
        while not self.stop.is_set():
            self.most = max(self.most, resident(self.server.process.pid))
            time.sleep(0.1)

    def __enter__(self):
        self.tasks[0].start()
        time.sleep(0.3)
        for task in self.tasks[1:]:
            task.start()
        self.watcher = threading.Thread(target=self.watch_memory)
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for _ in range(self.count):
            kind, times, refused = self.results.get(timeout=60)
            self.times[kind] = (times, refused)
        for task in self.tasks:
            task.join(20)
        self.watcher.join()


def flooded(server, connections, seconds, settle):
    client = Client(server.url).inbox()
    stream(client, "FLOOD", ["flood.>"], max_bytes=2 << 30)
    stream(client, "SMALL", ["small.>"])
    before = resident(server.process.pid)
    stop = multiprocessing.Event()
    with Watched(server, True) as watched:
        flooding = multiprocessing.Process(target=flood, args=(server.url, connections, stop))
        flooding.start()
        time.sleep(seconds)
    stop.set()
    flooding.join(30)
    stored = client.api("STREAM.INFO.FLOOD")["state"]["last_seq"]
    ended = time.monotonic()
    after = []
    while time.monotonic() - ended < settle:
        time.sleep(5)
        after.append(resident(server.process.pid))
    times, refused = watched.times["small"]
    print(f"  {server.name:12} flood stored {stored:6}  small {len(times):6} p50 {percentile(times, .5):8.2f} "
          f"p99 {percentile(times, .99):8.2f} ms refused {refused:4}  core {len(watched.times['core'][0]):6} "
          f"p50 {percentile(watched.times['core'][0], .5):8.2f} p99 {percentile(watched.times['core'][0], .99):8.2f} ms  "
          f"memory {before:.0f} -> {watched.most:.0f} -> {after[-1]:.0f} MB ({' '.join(f'{value:.0f}' for value in after)})", flush=True)


def long_request(server, prepare, run):
    client = Client(server.url).inbox()
    prepare(client)
    with Watched(server, False) as watched:
        time.sleep(0.5)
        started = time.perf_counter()
        run(client, server)
        took = time.perf_counter() - started
        time.sleep(0.5)
    times = watched.times["core"][0]
    print(f"  {server.name:12} took {took:7.2f} s  core {len(times):6} p50 {percentile(times, .5):7.2f} p99 {percentile(times, .99):7.2f} "
          f"max {percentile(times, 1):7.2f} ms", flush=True)


def gets(client, server):
    def get(url):
        one = Client(url).inbox()
        one.send(b"PUB $JS.API.DIRECT.GET.BIG %s %d\r\n%s\r\n" % (one.own, len(body), body))
        while not one.message().startswith(b"NATS/1.0 204"):
            pass
        one.socket.close()
    body = json.dumps({"seq": 1, "batch": 10**9, "max_bytes": 10**9}).encode()
    tasks = [multiprocessing.Process(target=get, args=(server.url,)) for _ in range(32)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(60)


def works(scale, seconds, settle):
    keys, messages, subjects, large = int(500_000 * scale), int(5_000_000 * scale), int(15_000 * scale), int(500 * scale)
    yield from ((f"flood of {count}", lambda server, count=count: flooded(server, count, seconds, settle)) for count in (20, 100, 2000))
    yield f"purge over {keys} keys", lambda server: long_request(
        server,
        lambda client: (stream(client, "KEYS", ["k.>"]), fill(client, lambda number: b"k.%d.a" % number, keys)),
        lambda client, _: client.api("STREAM.PURGE.KEYS", {"filter": "k.*.a"}))
    yield f"delete of {messages} messages", lambda server: long_request(
        server,
        lambda client: (stream(client, "MANY", ["m.>"]), fill(client, lambda number: b"m.%d" % (number % 100_000), messages)),
        lambda client, _: client.api("STREAM.DELETE.MANY"))
    many = [f"u.{number}.x" for number in range(subjects)]
    yield f"update to {subjects} subjects", lambda server: long_request(
        server,
        lambda client: stream(client, "WIDE", ["u.0.x"]),
        lambda client, _: client.api("STREAM.UPDATE.WIDE", {"name": "WIDE", "subjects": many, "storage": "file"}))
    yield f"32 direct gets of {large} MB", lambda server: long_request(
        server,
        lambda client: (stream(client, "BIG", ["b.>"], allow_direct=True), fill(client, lambda _: b"b.x", large * 10, 100_000, 100)),
        gets)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--settle", type=float, default=60, help="seconds after a flood")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--servers", default=",".join(SERVERS))
    asked = parser.parse_args()
    print(f"{os.cpu_count()} processors")
    for name, work in works(asked.scale, asked.seconds, asked.settle):
        if not re.search(asked.only, name):
            continue
        print(name, flush=True)
        for which in asked.servers.split(","):
            with Server(which, "default") as server:
                server.name = which
                work(server)


if __name__ == "__main__":
    main()
