#!/usr/bin/env python3
"""The stores of Halyard and nats-server side by side, through a client: what large streams cost.

The same messages go into both servers, one after the other, over one connection that speaks the
protocol itself (4,000 publishes in flight, each acknowledged). Then both are asked the same things:
next message of a subject, consumers with filters (num_pending), purge of one subject, restart. What
they answer is compared; where the answers differ the run fails. Halyard acknowledges what is on
disk, nats-server runs with its default (a sync every two minutes).

Times of requests are round trips of this client, p50 and the slowest; the row "a message by its
sequence" shows what of it is the way there and back. CPU is the server's, user and system. Memory is
anonymous resident memory (RssAnon). Bytes written are those of the whole device: nothing else may write. "Cold" is after a restart, with the store's files dropped from
the operating system's page cache (posix_fadvise).

    tests/bench/store.py [--messages N] [--subjects N] [--memory N] [--write docs/performance.md]

With the defaults (10 M messages over 1 M subjects) it takes about 15 minutes, 8 GB of disk in the
temporary directory and 2 GB of memory. Needs what `.ci/setup` installs and
`cargo build --release -p halyard-server`.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
WINDOW = 4000
PAYLOAD = b"x" * 128
STEPS = (611_953, 7_368_787, 2_750_159, 9_999_991)


def binary(name, variable, where):
    found = os.environ.get(variable) or str(ROOT / where)
    if not os.path.exists(found):
        found = shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is missing: run .ci/setup, and cargo build --release -p halyard-server")
    return found


SERVERS = {
    "halyard": binary("halyard", "HALYARD_BIN", "target/release/halyard"),
    "nats-server": binary("nats-server", "NATS_SERVER", ".tools/bin/nats-server"),
}


class Server:
    """One server process; its directory outlives restarts."""

    def __init__(self, name):
        self.name = name
        self.dir = tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR"))
        self.store = pathlib.Path(self.dir.name, "store")
        self.start()

    def start(self):
        ports = pathlib.Path(self.dir.name, "ports")
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        args = [SERVERS[self.name], "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(ports),
                "-l", self.dir.name + "/log", "-js", "-sd", str(self.store)]
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not (files := list(ports.glob("*.ports"))) or not files[0].read_text():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"{self.name} did not start: {args}")
            time.sleep(0.002)
        self.port = int(re.search(r"nats://[^:]+:(\d+)", files[0].read_text()).group(1))

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(300)

    def forget_cached(self):
        os.sync()
        for path in self.store.rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)

    def cpu(self):
        """Seconds of processor time used so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", text).group(1)) * 1024

    def written(self):
        """Bytes that the device under the store has been given so far, by whomever, once nothing is left in the page cache.
        The kernel's own count for a process is no use: it takes a page cache folio that is changed in part for written as a
        whole, and what is removed before it is written back, too."""
        os.sync()
        device = self.store.stat().st_dev
        name = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"
        return 512 * int(pathlib.Path(name).read_text().split()[6])

    def disk(self):
        """Files, and the bytes that they take on the disk."""
        sizes = [path.stat().st_blocks * 512 for path in self.store.rglob("*") if path.is_file()]
        return len(sizes), sum(sizes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)
        self.dir.cleanup()


class Client:
    """As much of a client as is needed here, fast."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.line()
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "bench"}
        self.send(b"CONNECT %b\r\nSUB _I.* 1\r\nPING\r\n" % json.dumps(options).encode())
        while self.line() != b"PONG":
            pass

    def send(self, data):
        self.socket.sendall(data)

    def more(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise SystemExit("the server closed the connection")
        self.buffer += data

    def line(self):
        while (end := self.buffer.find(b"\r\n")) < 0:
            self.more()
        line, self.buffer = self.buffer[:end], self.buffer[end + 2:]
        return line

    def reply(self):
        """The next message: reply subject and body."""
        while True:
            line = self.line()
            if line == b"PING":
                self.send(b"PONG\r\n")
            elif line.startswith((b"MSG ", b"HMSG ")):
                break
            elif line.startswith(b"-ERR"):
                raise SystemExit(line.decode())
        fields = line.split(b" ")
        size = int(fields[-1])
        while len(self.buffer) < size + 2:
            self.more()
        body, self.buffer = self.buffer[:size], self.buffer[size + 2:]
        return (fields[3] if len(fields) > (5 if fields[0] == b"HMSG" else 4) else b""), body

    def request(self, subject, payload=b""):
        self.send(b"PUB %b _I.r %d\r\n%b\r\n" % (subject.encode(), len(payload), payload))
        return self.reply()[1]

    def api(self, subject, **request):
        answer = json.loads(self.request("$JS.API." + subject, json.dumps(request).encode() if request else b""))
        if "error" in answer:
            raise SystemExit(f"{subject} {request}: {answer['error']}")
        return answer

    def publish(self, subjects):
        """Publishes one message on each subject and waits until all are acknowledged; bytes stored."""
        size, waiting, tail, stored = len(PAYLOAD), 0, b"", 0
        for chunk in chunks(subjects, 1000):
            self.send(b"".join([b"PUB %b _I.a %d\r\n%b\r\n" % (name, size, PAYLOAD) for name in chunk]))
            stored += sum(map(len, chunk)) + size * len(chunk)
            waiting += len(chunk)
            while waiting > WINDOW:
                waiting, tail = self.acks(waiting, tail)
        while waiting:
            waiting, tail = self.acks(waiting, tail)
        return stored

    def acks(self, waiting, tail):
        data = self.socket.recv(1 << 18)
        if not data or b'"error"' in data or b"-ERR" in data:
            raise SystemExit(f"a publish failed: {data[:300]}")
        if b"PING\r\n" in data:
            self.send(b"PONG\r\n")
        data = tail + data
        return waiting - data.count(b'"seq":'), data[-5:]


def chunks(items, size):
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def name_of(number):
    return b"orders.%d.%d" % (number % 100, number)


def names(count, subjects):
    """Every subject once in a round, in another order each round; `subjects` is a power of ten."""
    for start in range(0, count, subjects):
        step, shift = STEPS[start // subjects % 4], start // subjects * 104_729
        for number in range(min(subjects, count - start)):
            yield name_of((number * step + shift) % subjects)


def scatter(number, limit):
    """A number below the limit that looks random and is the same in every run."""
    return ((number * 0x9E3779B97F4A7C15 + 0x7F4A7C15) % (1 << 61) >> 7) % limit


class Results:
    """Rows of one server: name -> (figure, text)."""

    def __init__(self, server):
        self.server, self.rows, self.answers = server, {}, {}

    def add(self, name, figure, text):
        self.rows[name] = (figure, text)
        print(f"{self.server.name:>12} | {name}: {text}", flush=True)

    def latencies(self, name, requests, after=lambda: None):
        """Times each request; keeps what was answered. `after` comes untimed behind each."""
        seconds, answers, before = [], [], self.server.cpu()
        for request in requests:
            start = time.perf_counter()
            answers.append(request())
            seconds.append(time.perf_counter() - start)
            after()
        cpu = (self.server.cpu() - before) / len(seconds)
        p50 = statistics.median(seconds)
        text = f"{short(p50)}, at most {short(max(seconds))}"
        if len(seconds) * cpu >= 0.05:
            text += f"; CPU {short(cpu)}"
        self.add(name, p50, text)
        self.answers[name] = answers


def short(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.3g} {unit}"


def create(client, subjects="orders.>", **more):
    client.api("STREAM.CREATE.S", name="S", subjects=[subjects, "rare.>"], storage="file", **more)


def settle(server, least=0):
    """Waits until the server has been idle for five seconds, so that merges and collections are done; `least` seconds
    beforehand pass our flush interval of 30 s."""
    time.sleep(least)
    quiet, deadline, before = 0, time.monotonic() + 120, server.cpu()
    while quiet < 5 and time.monotonic() < deadline:
        time.sleep(1)
        now = server.cpu()
        quiet = quiet + 1 if now - before < 0.03 else 0
        before = now


def restart(results, name, how, cold, messages, rounds=3):
    server, seconds = results.server, []
    for _ in range(rounds):
        server.stop(how)
        if cold:
            server.forget_cached()
        start = time.perf_counter()
        server.start()
        while True:
            client = Client(server)
            answer = json.loads(client.request("$JS.API.STREAM.INFO.S") or b"{}")
            if "state" in answer:
                break
            time.sleep(0.005)
        seconds.append(time.perf_counter() - start)
        if answer["state"]["messages"] != messages:
            raise SystemExit(f"{server.name}: {answer['state']} after a restart, not {messages} messages")
    middle = statistics.median(seconds)
    results.add(name, middle, f"{short(middle)} ({short(min(seconds))}-{short(max(seconds))})")
    return client


def subject_memory(name, messages):
    """Memory for each subject: the same messages on one subject and on as many subjects as messages."""
    loaded, restarted = [], []
    for subjects in (1, messages):
        with Server(name) as server:
            client = Client(server)
            create(client)
            client.publish(names(messages, subjects))
            settle(server, least=32)
            loaded.append(server.memory())
            server.stop()
            server.start()
            client = Client(server)
            client.api("STREAM.INFO.S")
            settle(server)
            restarted.append(server.memory())
    return [(many - one) / messages for one, many in (loaded, restarted)]


def next_requests(client, messages, subjects, count, salt=0):
    def get(number):
        body = {"seq": messages // 3, "next_by_subj": name_of(scatter(number + salt, subjects)).decode()}
        return lambda: client.api("STREAM.MSG.GET.S", **body)["message"]["seq"]
    return [get(number) for number in range(count)]


def consumers(results, client, messages, one):
    for filter_, policy in [("orders.7.*", "all"), ("orders.7.*", "middle"), ("*.7.>", "middle"),
                            (one, "all"), ("orders.>", "middle")]:
        config = {"name": "c", "ack_policy": "none", "filter_subject": filter_, "mem_storage": True,
                  "inactive_threshold": 60_000_000_000, "deliver_policy": "all"}
        if policy == "middle":
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": messages // 2}

        def ask():
            return client.api(f"CONSUMER.CREATE.S.c.{filter_}", stream_name="S", config=config)["num_pending"]
        where = "" if policy == "all" else " from the middle"
        results.latencies(f"consumer create, filter `{filter_}`{where}", [ask] * 5,
                          after=lambda: client.api("CONSUMER.DELETE.S.c"))


def consumed(name, messages):
    """Bytes written for each stored byte when every message is consumed and acknowledged at once, once the
    server is under way: its first files are made in the first quarter, which does not count."""
    with Server(name) as server:
        client = Client(server)
        create(client, retention="workqueue")
        config = {"durable_name": "c", "ack_policy": "explicit", "max_ack_pending": 20_000}
        client.api("CONSUMER.DURABLE.CREATE.S.c", stream_name="S", config=config)
        before, stored = 0, 0
        for done in range(0, messages, 5000):
            if done == messages // 4:
                settle(server, least=32)
                before, stored = server.written(), 0
            stored += client.publish(names(5000, 1000))
            client.send(b"PUB $JS.API.CONSUMER.MSG.NEXT.S.c _I.m 14\r\n{\"batch\":5000}\r\n")
            acks = [b"PUB %b 4\r\n+ACK\r\n" % client.reply()[0] for _ in range(5000)]
            client.send(b"".join(acks))
            while client.api("CONSUMER.INFO.S.c")["num_ack_pending"]:
                pass
        settle(server, least=32)
        if left := client.api("STREAM.INFO.S")["state"]["messages"]:
            raise SystemExit(f"{name}: {left} messages are left")
        return (server.written() - before) / stored


def big_stream(results, messages, subjects):
    server = results.server
    client = Client(server)
    create(client)
    client.publish([b"rare.one"])
    cpu, written, start = server.cpu(), server.written(), time.perf_counter()
    stored = client.publish(names(messages - 2, subjects))
    client.publish([b"rare.one"])
    took = time.perf_counter() - start
    results.add("publish, 4,000 in flight", took,
                f"{short(took / messages)} each ({messages / took:,.0f}/s); CPU {short((server.cpu() - cpu) / messages)}")
    settle(server, least=32)
    amplification = (server.written() - written) / stored
    results.add("written for each stored byte, all included", amplification, f"{amplification:.2f}")
    files, disk = server.disk()
    results.add("bytes on disk for each stored byte; files", disk / stored, f"{disk / stored:.2f}; {files}")
    results.add("memory of the server", server.memory(), f"{server.memory() / 1e6:.0f} MB")
    by_seq = [lambda n=n: client.api("STREAM.MSG.GET.S", seq=1 + scatter(n, messages))["message"]["seq"]
              for n in range(1000)]
    results.latencies("a message by its sequence", by_seq)
    results.latencies("next of one subject in a million", next_requests(client, messages, subjects, 1000))
    rare = {"seq": 2, "next_by_subj": "rare.one"}
    results.latencies("next of a subject with only the first and the last message",
                      [lambda: client.api("STREAM.MSG.GET.S", **rare)["message"]["seq"]] * 20)
    one = f"orders.*.{min(12345, subjects - 1)}"
    wild = {"seq": messages // 3, "next_by_subj": one}
    results.latencies("next of `orders.*.N`, one subject",
                      [lambda: client.api("STREAM.MSG.GET.S", **wild)["message"]["seq"]] * 5)
    consumers(results, client, messages, one)
    restart(results, "restart after SIGTERM to serving, cold", signal.SIGTERM, True, messages)
    client = restart(results, "restart after SIGKILL to serving, cold", signal.SIGKILL, True, messages)
    results.latencies("next of one subject in a million, cold",
                      next_requests(client, messages, subjects, 100, salt=5000))
    purges = [lambda n=n: client.api("STREAM.PURGE.S", filter=name_of(scatter(n, subjects)).decode())["purged"]
              for n in range(50)]
    results.latencies("purge of one subject among a million", purges)


GOALS = {
    "next of one subject in a million": "< 1 ms",
    "next of one subject in a million, cold": "< 1 ms",
    "restart after SIGTERM to serving, cold": "< 1 s",
    "memory for each subject, after a restart": "<= 0.5x",
    "memory for each subject, loaded": "<= 0.5x",
}


def table(ours, theirs, messages, subjects, load):
    lines = [
        f"Measured {datetime.date.today()} on {os.cpu_count()} cores, {platform.system()} {platform.release()}, load average "
        f"{load:.1f} before; {messages:,} messages of 128 B over {subjects:,} subjects; the client runs on the same cores.",
        "",
        "| work | ours | theirs | ours / theirs | goal |",
        "|---|---|---|---|---|",
    ]
    for name, (figure, text) in ours.rows.items():
        other, other_text = theirs.rows[name]
        lines.append(f"| {name} | {text} | {other_text} | {figure / max(other, 1e-9):.2g} | {GOALS.get(name, '')} |")
    return lines


BEGIN, END = "<!-- store.py: begin -->", "<!-- store.py: end -->"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--subjects", type=int, default=1_000_000, help="a power of ten")
    parser.add_argument("--memory", type=int, default=1_000_000, help="subjects for the memory of a subject")
    parser.add_argument("--only-memory", action="store_true", help="prints the memory of a subject, and that is all")
    parser.add_argument("--write", help="replaces the table in this file")
    options = parser.parse_args()
    load, both = os.getloadavg()[0], []
    for name in SERVERS:
        with Server(name) as server:
            results = Results(server)
            if not options.only_memory:
                big_stream(results, options.messages, options.subjects)
        loaded, restarted = subject_memory(name, options.memory)
        results.add("memory for each subject, loaded", loaded, f"{loaded:.0f} B")
        results.add("memory for each subject, after a restart", restarted, f"{restarted:.0f} B")
        if options.only_memory:
            continue
        ratio = consumed(name, min(options.messages, 2_000_000) // 20_000 * 20_000)
        results.add("written for each stored byte, consumed at once", ratio, f"{ratio:.2f}")
        both.append(results)
    if options.only_memory:
        return
    ours, theirs = both
    for name, answers in ours.answers.items():
        if answers != theirs.answers[name]:
            raise SystemExit(f"the answers differ: {name}: {answers[:5]} / {theirs.answers[name][:5]}")
    lines = table(ours, theirs, options.messages, options.subjects, load)
    print("\n".join(lines))
    if options.write:
        path = ROOT / options.write
        head, rest = path.read_text().split(BEGIN, 1)
        _, tail = rest.split(END, 1)
        path.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + tail)


if __name__ == "__main__":
    main()
