"""A session of nats-py: prints what a user sees, one line each, the same on every server."""

import asyncio
import io
import sys

import nats
from nats.errors import Error as NatsError, NoRespondersError, TimeoutError
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    KeyValueConfig,
    ObjectMeta,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, KeyNotFoundError


def say(*words):
    print(*words, flush=True)


def refusal(error):
    if hasattr(error, "code"):
        return f"{error.code} {error.err_code} {error.description}"
    return f"{type(error).__name__} {error}"


async def core(nc):
    received = []

    async def on_message(message):
        received.append((message.subject, message.data, message.headers))

    await nc.subscribe("greet.*", cb=on_message)
    await nc.publish("greet.joe", b"hello", headers={"Lang": "en"})
    await nc.publish("greet.joe.more", b"nobody gets this")
    await nc.flush()
    await asyncio.sleep(0.1)
    say("core", received)

    counts = {"a": 0, "b": 0}

    def member(name):
        async def count(_):
            counts[name] += 1

        return count

    for name in counts:
        await nc.subscribe("work", queue="team", cb=member(name))
    for _ in range(200):
        await nc.publish("work", b"x")
    await nc.flush()
    await asyncio.sleep(0.2)
    say("queue", sum(counts.values()), all(counts.values()))

    async def answer(message):
        await message.respond(message.data[::-1])

    await nc.subscribe("reverse", cb=answer)
    say("request", (await nc.request("reverse", b"abc", timeout=5)).data)
    try:
        await nc.request("nobody", b"", timeout=5)
    except NoRespondersError:
        say("request", "no responders")
    big = bytes(range(256)) * (nc.max_payload // 256)
    say("max payload", len(big), (await nc.request("reverse", big, timeout=10)).data == big[::-1])

    limited = await nc.subscribe("limited")
    await limited.unsubscribe(limit=3)
    for n in range(5):
        await nc.publish("limited", str(n).encode())
    await nc.flush()
    got = []
    try:
        while True:
            got.append((await limited.next_msg(timeout=0.3)).data)
    except Exception as ended:
        say("unsubscribe after 3", got, type(ended).__name__)


async def streams(js):
    info = await js.add_stream(StreamConfig(name="S", subjects=["s.>"], max_msgs_per_subject=3))
    say("stream", info.config.name, info.config.subjects, info.config.retention, info.config.storage)
    again = await js.add_stream(StreamConfig(name="S", subjects=["s.>"], max_msgs_per_subject=3))
    say("same again", again.config.name, again.state.messages)
    for n in range(12):
        ack = await js.publish(f"s.{n % 3}", f"m{n}".encode(), headers={"N": str(n)})
    say("ack", ack.stream, ack.seq, ack.duplicate)
    info = await js.stream_info("S", subjects_filter=">")
    say("state", info.state.messages, info.state.first_seq, info.state.last_seq,
        info.state.num_deleted, sorted(info.state.subjects.items()))
    message = await js.get_msg("S", 10)
    say("get", message.subject, message.data, message.headers)
    message = await js.get_last_msg("S", "s.1")
    say("last", message.seq, message.data)
    say("publish twice", (await js.publish("s.9", b"", headers={"Nats-Msg-Id": "x"})).duplicate,
        (await js.publish("s.9", b"", headers={"Nats-Msg-Id": "x"})).duplicate)
    attempts = [
        ("wrong sequence", lambda: js.publish("s.1", b"", headers={"Nats-Expected-Last-Sequence": "1"})),
        ("wrong subject sequence",
         lambda: js.publish("s.1", b"", headers={"Nats-Expected-Last-Subject-Sequence": "1"})),
        ("wrong stream", lambda: js.publish("s.1", b"", headers={"Nats-Expected-Stream": "T"})),
        ("wrong id", lambda: js.publish("s.1", b"", headers={"Nats-Expected-Last-Msg-Id": "no"})),
        ("no stream", lambda: js.stream_info("NONE")),
        ("no message", lambda: js.get_msg("S", 999)),
        ("overlap", lambda: js.add_stream(name="T", subjects=["s.1"])),
        ("bad name", lambda: js.add_stream(name="T", subjects=["t..x"])),
        ("other config", lambda: js.add_stream(name="S", subjects=["other"])),
        ("too many replicas", lambda: js.add_stream(name="T", subjects=["t"], num_replicas=3)),
        ("delete nothing", lambda: js.delete_msg("S", 999)),
        ("no consumer", lambda: js.consumer_info("S", "none")),
    ]
    for what, attempt in attempts:
        try:
            say(what, await attempt())
        except APIError as error:
            say(what, refusal(error))
    say("delete", await js.delete_msg("S", 11))
    say("purge", await js.purge_stream("S", subject="s.0"))
    say("purge keep", await js.purge_stream("S", keep=2))
    state = (await js.stream_info("S")).state
    say("left", state.messages, state.first_seq, state.last_seq)
    updated = await js.update_stream(StreamConfig(name="S", subjects=["s.>", "z"], max_msgs_per_subject=3))
    say("updated", updated.config.subjects)
    say("names", sorted(info.config.name for info in await js.streams_info()))


async def limits(js):
    await js.add_stream(name="NEW", subjects=["new"], max_msgs=3, discard=DiscardPolicy.NEW)
    for n in range(5):
        try:
            say("discard new", (await js.publish("new", b"x")).seq)
        except APIError as error:
            say("discard new", refusal(error))
    await js.add_stream(name="BYTES", subjects=["bytes"], max_bytes=1000)
    for n in range(30):
        await js.publish("bytes", b"x" * 60)
    state = (await js.stream_info("BYTES")).state
    say("bytes", state.messages, state.bytes, state.first_seq)
    await js.add_stream(name="SIZE", subjects=["size"], max_msg_size=10)
    try:
        await js.publish("size", b"x" * 11)
    except APIError as error:
        say("size", refusal(error))


async def consumers(js):
    await js.add_stream(name="C", subjects=["c.*"])
    for n in range(20):
        await js.publish(f"c.{n % 2}", str(n).encode())
    pull = await js.pull_subscribe("c.0", durable="even", stream="C")
    first = await pull.fetch(4)
    say("fetch", [m.data for m in first], [m.metadata.sequence.consumer for m in first],
        [m.metadata.num_pending for m in first])
    for message in first[:3]:
        await message.ack_sync()
    await first[3].nak()
    await asyncio.sleep(0.2)
    rest = await pull.fetch(7)
    say("fetch", sorted((m.metadata.num_delivered, int(m.data)) for m in rest))
    for message in rest:
        await message.ack_sync()
    info = await pull.consumer_info()
    say("info", info.num_pending, info.num_ack_pending, info.num_redelivered,
        info.delivered.consumer_seq, info.delivered.stream_seq,
        info.ack_floor.consumer_seq, info.ack_floor.stream_seq)
    try:
        await pull.fetch(1, timeout=0.3)
    except TimeoutError as error:
        say("fetch", type(error).__name__)

    config = ConsumerConfig(durable_name="pushed", deliver_subject="to.me", ack_policy=AckPolicy.EXPLICIT,
                            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, filter_subject="c.*")
    info = await js.add_consumer("C", config)
    say("consumer", info.name, info.num_pending, info.config.ack_wait, info.config.max_ack_pending)
    subscription = await js.subscribe_bind("C", config, "pushed", manual_ack=True)
    got = []
    for _ in range(2):
        message = await subscription.next_msg(timeout=5)
        got.append(message.data)
        await message.ack_sync()
    say("push", got)
    ordered = await js.subscribe("c.1", ordered_consumer=True)
    say("ordered", [(await ordered.next_msg(timeout=5)).data for _ in range(10)])
    config = ConsumerConfig(durable_name="twice", max_deliver=2, ack_wait=0.3, ack_policy=AckPolicy.EXPLICIT)
    await js.add_consumer("C", config)
    twice = await js.pull_subscribe_bind("twice", "C")
    for _ in range(2):
        message = (await twice.fetch(1, timeout=5))[0]
        say("delivered", message.metadata.num_delivered, message.data)
        await asyncio.sleep(0.5)
    say("next", (await twice.fetch(1, timeout=5))[0].data)
    say("deleted", await js.delete_consumer("C", "twice"))

    await js.add_stream(name="WQ", subjects=["wq"], retention=RetentionPolicy.WORK_QUEUE)
    for n in range(5):
        await js.publish("wq", str(n).encode())
    queue = await js.pull_subscribe("wq", durable="q")
    for message in await queue.fetch(3):
        await message.ack_sync()
    say("work queue", (await js.stream_info("WQ")).state.messages)
    try:
        await js.add_consumer("WQ", ConsumerConfig(durable_name="second", ack_policy=AckPolicy.EXPLICIT))
    except APIError as error:
        say("work queue", refusal(error))


async def key_value(js):
    kv = await js.create_key_value(KeyValueConfig(bucket="K", history=3))
    watcher = await kv.watchall()
    say("kv", await kv.put("a", b"1"), await kv.put("a", b"2"), await kv.create("b", b"x"))
    entry = await kv.get("a")
    say("kv get", entry.value, entry.revision)
    say("kv update", await kv.update("a", b"3", last=2))
    try:
        await kv.update("a", b"never", last=2)
    except NatsError as error:
        say("kv update", refusal(error))
    await kv.delete("b")
    try:
        await kv.get("b")
    except KeyNotFoundError:
        say("kv get", "not found")
    say("kv history", [(e.revision, e.value) for e in await kv.history("a")])
    await kv.purge("a")
    await kv.put("c", b"last")
    say("kv keys", sorted(await kv.keys()))
    seen = []
    while len(seen) < 7:
        entry = await watcher.updates(timeout=5)
        if entry is not None:
            seen.append((entry.key, entry.operation, entry.value))
    say("kv watch", seen)
    status = await kv.status()
    say("kv status", status.values, status.history)


async def objects(js):
    store = await js.create_object_store("O")
    content = bytes(range(256)) * 40_000
    info = await store.put("big", io.BytesIO(content), meta=ObjectMeta(description="ten megabytes"))
    say("object", info.name, info.size, info.chunks, info.digest)
    await store.put("small", b"tiny")
    say("object get", (await store.get("big")).data == content, (await store.get("small")).data)
    say("object list", sorted((o.name, o.size) for o in await store.list()))
    await store.delete("big")
    say("object list", sorted((o.name, o.size) for o in await store.list()))


async def main():
    nc = await nats.connect(sys.argv[1])
    js = nc.jetstream(timeout=20)
    await core(nc)
    await streams(js)
    await limits(js)
    await consumers(js)
    await key_value(js)
    await objects(js)
    account = await js.account_info()
    say("account", account.streams, account.consumers)
    await nc.close()


asyncio.run(main())
