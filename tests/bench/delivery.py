#!/usr/bin/env python3
"""How long after its acknowledgement a message reaches a consumer with acks: Halyard and nats-server in one run.

One publisher sends a message, and waits for the acknowledgement and for the message. A pull consumer has a request waiting
(`pull`), or asks only once the message is acknowledged (`fetch`: time from the request to the message); a push consumer
has a listener (`push`). Everything is acked explicitly. With `--load` another process writes and syncs to the same disk all
the while. Publisher and consumer are two connections of this one process, whose clock stamps each answer when it is read.

    tests/bench/delivery.py [--messages N] [--load] [--only pull|push|fetch]

Needs what `.ci/setup` installs and `cargo build --release -p halyard-server`.
"""

import argparse
import json
import os
import pathlib
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WRITER = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.seek(0)
        for _ in range(8):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
"""


def tool(name, variable, built=None):
    found = os.environ.get(variable) or built
    ours = ROOT / ".tools/bin" / name
    found = found or (str(ours) if ours.exists() else shutil.which(name))
    if not found or not os.path.exists(found):
        raise SystemExit(f"{name} is missing: run .ci/setup, or cargo build --release")
    return found


class Server:
    def __init__(self, binary):
        self.dir = tempfile.mkdtemp(prefix="bench-delivery-", dir=os.environ.get("BENCH_DIR"))
        config = f'{self.dir}/server.conf'
        pathlib.Path(config).write_text(f'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "{self.dir}/js" }}\n')
        self.log = f"{self.dir}/log"
        self.process = subprocess.Popen([binary, "-c", config], stdout=open(self.log, "w"), stderr=subprocess.STDOUT)
        for _ in range(200):
            time.sleep(0.05)
            text = pathlib.Path(self.log).read_text()
            found = re.search(r"Listening for client connections on 127\.0\.0\.1:(\d+)", text)
            if found and "Server is ready" in text:
                self.port = int(found.group(1))
                return
        raise SystemExit(f"{binary} did not start: {text}")

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Client:
    """Bare protocol lines over one socket."""

    def __init__(self, port, inbox):
        self.inbox = inbox
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""
        self.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nPING\r\n')
        while self.line() != b"PONG":
            pass
        self.send(b"SUB %s 1\r\n" % inbox)

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise SystemExit("the server closed the connection")
        self.got += data

    def line(self):
        while b"\r\n" not in self.got:
            self.fill()
        line, self.got = self.got.split(b"\r\n", 1)
        return line

    def take(self):
        """A whole message that was read already: subject, reply, payload. None if there is none."""
        while b"\r\n" in self.got:
            line, rest = self.got.split(b"\r\n", 1)
            if not line.startswith((b"MSG", b"HMSG")):
                self.got = rest
                if line == b"PING":
                    self.send(b"PONG\r\n")
                continue
            words = line.split()
            size = int(words[-1])
            if len(rest) < size + 2:
                return None
            self.got = rest[size + 2:]
            numbers = 2 if line.startswith(b"H") else 1
            reply = words[3] if len(words) - numbers == 4 else None
            return words[1], reply, rest[:size]
        return None

    def message(self):
        while True:
            message = self.take()
            if message:
                return message
            self.fill()

    def publish(self, subject, body=b"", reply=b""):
        self.send(b"PUB %s %s %d\r\n%s\r\n" % (subject, reply, len(body), body))

    def request(self, subject, body):
        self.publish(subject.encode(), json.dumps(body).encode(), self.inbox)
        answer = json.loads(self.message()[2])
        if answer.get("error"):
            raise SystemExit(f"{subject}: {answer['error']}")
        return answer


def measure(binary, work, count):
    server = Server(binary)
    try:
        publisher, consumer = Client(server.port, b"of.publisher"), Client(server.port, b"of.consumer")
        publisher.request("$JS.API.STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
        config = {"durable_name": "C", "ack_policy": "explicit"}
        if work == "push":
            config["deliver_subject"] = "to.C"
        consumer.send(b"SUB to.C 2\r\n")
        consumer.request("$JS.API.CONSUMER.CREATE.S.C", {"stream_name": "S", "config": config})
        watch = selectors.DefaultSelector()
        watch.register(publisher.socket, selectors.EVENT_READ, publisher)
        watch.register(consumer.socket, selectors.EVENT_READ, consumer)
        after, before = [], server.cpu()
        for number in range(count + 50):
            if work == "pull":
                consumer.publish(b"$JS.API.CONSUMER.MSG.NEXT.S.C", b'{"batch":1}', b"to.C")
                time.sleep(0.002)
            publisher.publish(b"s", b"x" * 128, publisher.inbox)
            acked = arrived = reply = None
            while acked is None or (arrived is None and work != "fetch"):
                for key, _ in watch.select():
                    now = time.perf_counter()
                    key.data.fill()
                    while message := key.data.take():
                        if key.data is publisher:
                            acked = now
                        else:
                            arrived, reply = now, message[1]
            if work == "fetch":
                acked = time.perf_counter()
                consumer.publish(b"$JS.API.CONSUMER.MSG.NEXT.S.C", b'{"batch":1}', b"to.C")
                reply = consumer.message()[1]
                arrived = time.perf_counter()
            consumer.publish(reply, b"+ACK")
            if number >= 50:
                after.append((arrived - acked) * 1e6)
            time.sleep(0.001)
        after.sort()
        cpu = (server.cpu() - before) / (count + 50) * 1e6
        return after[len(after) // 2], after[len(after) * 99 // 100], cpu
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--only", choices=["pull", "push", "fetch"])
    options = parser.parse_args()
    servers = {
        "halyard": tool("halyard", "HALYARD_BIN", str(ROOT / "target/release/halyard")),
        "nats-server": tool("nats-server", "NATS_SERVER"),
    }
    load = None
    if options.load:
        file = tempfile.mktemp(prefix="bench-delivery-load-", dir=os.environ.get("BENCH_DIR"))
        load = subprocess.Popen([sys.executable, "-c", WRITER, file])
    try:
        print("| from the acknowledgement (fetch: the request) to the message | p50 us | p99 us | server CPU us |")
        print("|---|---|---|---|")
        for work in [options.only] if options.only else ["pull", "push", "fetch"]:
            results = {}
            for name, binary in servers.items():
                results[name] = measure(binary, work, options.messages)
                p50, p99, cpu = results[name]
                print(f"| {work}, {name} | {p50:.0f} | {p99:.0f} | {cpu:.0f} |", flush=True)
    finally:
        if load:
            load.kill()
            load.wait()
            os.unlink(file)


if __name__ == "__main__":
    main()
