"""What ends by itself: age limits, life spans of messages, markers of subjects. Prints what a user sees, one line each,
the same on every server. Times are not shown; what takes time is waited for."""

import asyncio
import base64
import json
import sys

import nats

SECOND = 1_000_000_000


def say(*words):
    print(*words, flush=True)


class Session:
    def __init__(self, nc):
        self.nc = nc

    async def api(self, subject, body=None):
        payload = b"" if body is None else json.dumps(body).encode()
        answer = await self.nc.request("$JS.API." + subject, payload, timeout=5)
        return json.loads(answer.data)

    async def change(self, verb, name, **config):
        """Makes or changes a stream; says what became of the fields that matter here, or the refusal."""
        config = {"name": name, **config}
        answer = await self.api(f"STREAM.{verb}.{name}", config)
        if error := answer.get("error"):
            say(verb, config, "->", error["code"], error["err_code"], error["description"])
            return
        fields = "max_age allow_msg_ttl allow_rollup_hdrs deny_purge subject_delete_marker_ttl duplicate_window discard"
        made = {field: answer["config"].get(field) for field in fields.split()}
        say(verb, name, made, answer["config"]["metadata"]["_nats.req.level"])

    async def publish(self, subject, payload=b"", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.nc.request(subject, payload, headers=headers or None, timeout=5)
        answer = json.loads(answer.data) if answer.data else {}
        if error := answer.get("error"):
            answer = f"{error['code']} {error['err_code']} {error['description']}"
        say("publish", subject, headers, "->", answer)

    async def state(self, name):
        return (await self.api(f"STREAM.INFO.{name}", {"subjects_filter": ">"}))["state"]

    async def show(self, name):
        state = await self.state(name)
        fields = "messages bytes first_seq last_seq subjects num_deleted"
        say(name, {field: state.get(field) for field in fields.split()})
        for seq in range(state["first_seq"], state["last_seq"] + 1):
            message = (await self.api(f"STREAM.MSG.GET.{name}", {"seq": seq})).get("message")
            if message:
                headers = base64.b64decode(message.get("hdrs", ""))
                say(" ", seq, message["subject"], headers, base64.b64decode(message.get("data", "")))

    async def until(self, name, what, is_so):
        """Waits until the stream's state is so, then shows it."""
        for _ in range(160):
            if is_so(await self.state(name)):
                say(name, what)
                return await self.show(name)
            await asyncio.sleep(0.05)
        say(name, "never", what)
        await self.show(name)


async def configurations(s):
    number = 0

    async def made(**config):
        nonlocal number
        number += 1
        await s.change("CREATE", f"C{number}", **config)
        await s.api(f"STREAM.DELETE.C{number}")

    ttl = {"subject_delete_marker_ttl": SECOND}
    for refused in (SECOND - 1, -1, -SECOND):
        await made(subject_delete_marker_ttl=refused)
    await made(**ttl)
    await made(subject_delete_marker_ttl=SECOND + SECOND // 2)
    await made(**ttl, deny_purge=True)
    await made(**ttl, deny_delete=True)
    await made(**ttl, pedantic=True)
    await made(**ttl, pedantic=True, allow_msg_ttl=True)
    await made(**ttl, pedantic=True, allow_rollup_hdrs=True)
    await made(**ttl, pedantic=True, allow_msg_ttl=True, allow_rollup_hdrs=True)
    await made(**ttl, pedantic=True, allow_msg_ttl=True, allow_rollup_hdrs=True, deny_purge=True)
    await made(**ttl, mirror={"name": "X"})
    await made(**ttl, discard="new", max_msgs=3)
    await made(**ttl, retention="workqueue")
    await made(**ttl, retention="interest")
    await made(**ttl, storage="memory")
    await made(subject_delete_marker_ttl=10 * SECOND, max_age=SECOND)
    await made(**ttl, sealed=True)

    await s.change("CREATE", "U", **ttl)
    await s.change("UPDATE", "U", subject_delete_marker_ttl=5 * SECOND)
    await s.change("UPDATE", "U")
    await s.change("UPDATE", "U", allow_msg_ttl=True)
    await s.change("UPDATE", "U", allow_msg_ttl=True, allow_rollup_hdrs=True)
    await s.change("UPDATE", "U", subject_delete_marker_ttl=SECOND // 2, allow_msg_ttl=True)
    await s.change("UPDATE", "U", **ttl, allow_msg_ttl=True, allow_rollup_hdrs=True, pedantic=True)
    await s.change("UPDATE", "U", **ttl, pedantic=True)
    await s.change("UPDATE", "U", **ttl, deny_purge=True)
    await s.change("UPDATE", "U", **ttl, sealed=True)
    await s.change("CREATE", "V")
    await s.change("UPDATE", "V", **ttl)
    await s.change("UPDATE", "V")
    await s.change("CREATE", "W", deny_purge=True)
    await s.change("UPDATE", "W", **ttl, deny_purge=True)
    await s.change("UPDATE", "W", deny_purge=True, allow_rollup_hdrs=True)
    await s.change("UPDATE", "W", deny_purge=True, allow_msg_ttl=True)


async def forms(s):
    await s.change("CREATE", "T", subjects=["t"], allow_msg_ttl=True)
    values = "5 5s 1m never NEVER 0 0s -1 -1s 500ms 999ms 1000ms 1s500ms 1.5s 1.5 +5 +5s 1h 1d 1e3 9223372036 9223372037"
    values += " 9223372036854775807 9223372036854775808 2562047h 2562048h 1x 0.5s .5m 1us 100000000000ns 1s1 s 1.s - 00005"
    for value in [*values.split(), "5 s", "", "1\u00b5s2s"]:
        await s.publish("t", b"x", Nats_TTL=value)
    batch = {"Nats_Batch_Id": "b", "Nats_Batch_Sequence": "1", "Nats_Batch_Commit": "1"}
    await s.change("CREATE", "N", subjects=["n"], max_msg_size=90, allow_atomic=True)
    await s.publish("n", Nats_TTL="5")
    await s.publish("n", Nats_TTL="bad")
    await s.publish("n", Nats_TTL="")
    await s.publish("n", Nats_Msg_Id="a")
    await s.publish("n", Nats_TTL="bad", Nats_Msg_Id="a")
    await s.publish("n", Nats_TTL="5", Nats_Msg_Id="a")
    await s.publish("n", b"x" * 100, Nats_TTL="5")
    await s.publish("n", Nats_TTL="5", Nats_Rollup="sub")
    await s.publish("n", Nats_TTL="5", Nats_Expected_Last_Sequence="7")
    await s.publish("n", Nats_TTL="bad", **batch)
    await s.change("CREATE", "O", subjects=["o"], allow_msg_ttl=True, allow_atomic=True)
    await s.publish("o", Nats_TTL="bad", Nats_Rollup="sub")
    await s.publish("o", Nats_TTL="bad", Nats_Expected_Stream="N")
    await s.publish("o", Nats_TTL="bad", Nats_Expected_Last_Sequence="7")
    await s.publish("o", Nats_TTL="bad", Nats_Rollup="sub", **batch)
    await s.publish("o", Nats_TTL="bad", Nats_Expected_Last_Sequence="7", **batch)


async def lengthened(s):
    await s.change("CREATE", "L", subjects=["l.*"], subject_delete_marker_ttl=90 * SECOND + 1, allow_atomic=True)
    values = ["1m", "90", "91s", "1m30s", "89.9s", "never"]
    for number, value in enumerate(values):
        await s.publish(f"l.{number}", b"x", A="1", Nats_TTL=value, B="2")
    await s.publish("l.0", Nats_TTL="2s", Nats_Rollup="sub", KV_Operation="PURGE")
    batch = {"Nats_Batch_Id": "b"}
    await s.publish("l.b", b"1", Nats_TTL="2s", Nats_Batch_Sequence="1", **batch)
    await s.publish("l.c", b"2", Nats_TTL="200s", Nats_Batch_Sequence="2", Nats_Batch_Commit="1", **batch)
    await s.show("L")
    await s.change("CREATE", "M", subjects=["m.*"], subject_delete_marker_ttl=90 * SECOND, max_msgs_per_subject=1)
    await s.publish("m.0", b"x", Nats_TTL="5")
    await s.show("M")


async def markers(s):
    marker = {"subject_delete_marker_ttl": SECOND}
    await s.change("CREATE", "A", subjects=["a.*"], **marker)
    for subject, headers in [
        ("a.1", {"Nats_TTL": "1"}),
        ("a.2", {"Nats_TTL": "1"}),
        ("a.2", {}),
        ("a.3", {}),
        ("a.3", {"Nats_TTL": "1s"}),
        ("a.4", {"Nats_TTL": "1"}),
        ("a.4", {"Nats_TTL": "1"}),
    ]:
        await s.publish(subject, b"x", **headers)
    await s.until("A", "has its markers", lambda state: state["last_seq"] == 9)
    await s.until("A", "has lost them", lambda state: state["messages"] == 2)

    await s.change("CREATE", "B", subjects=["b.*"], max_age=SECOND, subject_delete_marker_ttl=3 * SECOND)
    for number in (3, 1, 2, 1):
        await s.publish(f"b.{number}", b"x", Foo="bar")
    await s.publish("b.never", b"x", Nats_TTL="never")
    await s.publish("b.long", b"x", Nats_TTL="10s")
    await s.until("B", "has its markers", lambda state: state["last_seq"] == 10)
    await s.until("B", "has lost them", lambda state: state["messages"] == 1)

    await s.change("CREATE", "D", subjects=["d.*"], **marker)
    ends = [
        {"KV_Operation": "PURGE"},
        {"KV_Operation": "DEL"},
        {"KV_Operation": "purge"},
        {"Nats_Marker_Reason": "Purge"},
        {"Nats_Marker_Reason": ""},
        {"Nats_Rollup": "sub"},
    ]
    for number, headers in enumerate(ends):
        await s.publish(f"d.{number}", Nats_TTL="1", **headers)
    await s.until("D", "has its markers", lambda state: state["last_seq"] == 10 and state["messages"] == 4)

    await s.change("CREATE", "E", subjects=["e.*"], **marker)
    for number in range(3):
        await s.publish(f"e.{number}", b"x", Nats_TTL="1", Nats_Msg_Id=f"{number}")
    say(await s.api("STREAM.MSG.DELETE.E", {"seq": 1}))
    say(await s.api("STREAM.PURGE.E", {"filter": "e.1"}))
    await s.change("UPDATE", "E", subjects=["elsewhere.*"], **marker)
    await s.until("E", "has its marker", lambda state: state["last_seq"] == 4)
    await s.publish("elsewhere.1", Nats_Expected_Last_Msg_Id="2")
    await s.publish("elsewhere.1", Nats_Msg_Id="2")

    await s.change("CREATE", "F", subjects=["f.*"], storage="memory", **marker)
    await s.publish("f.1", b"x", Nats_TTL="1")
    await s.until("F", "has its marker", lambda state: state["last_seq"] == 2)


async def limits(s):
    marker = {"subject_delete_marker_ttl": SECOND}
    await s.change("CREATE", "G", subjects=["g.*"], max_bytes=110, **marker)
    for number in (1, 2):
        await s.publish(f"g.{number}", b"x", Nats_TTL="1")
    await s.until("G", "has its marker", lambda state: state["last_seq"] == 3)
    await s.change("CREATE", "H", subjects=["h.*"], max_bytes=70, **marker)
    await s.publish("h.1", b"x", Nats_TTL="1")
    await s.until("H", "has no room for one", lambda state: state["last_seq"] == 2)
    await s.change("CREATE", "I", subjects=["i.*"], max_msgs=3, max_msgs_per_subject=1, **marker)
    for number in (1, 2, 3):
        await s.publish(f"i.{number}", b"x", Nats_TTL="1")
    await s.publish("i.4", b"y")
    await s.until("I", "has its markers", lambda state: state["last_seq"] == 6)
    await s.change(
        "CREATE", "J", subjects=["j.*"], max_msgs_per_subject=1, discard="new", discard_new_per_subject=True, **marker
    )
    for number in (1, 2, 1):
        await s.publish(f"j.{number}", b"x", Nats_TTL="1")
    await s.until("J", "has its markers", lambda state: state["last_seq"] == 4)
    await s.change("CREATE", "K", subjects=["k.*"], **marker)
    await s.publish("k.1", b"x", Nats_TTL="1")
    await s.change("UPDATE", "K", subjects=["k.*"], allow_msg_ttl=True)
    await s.until("K", "keeps no markers any more", lambda state: state["messages"] == 0)
    await s.change("CREATE", "Q", subjects=["q.*"], allow_msg_ttl=True)
    await s.publish("q.1", b"x", Nats_TTL="1")
    await s.change("UPDATE", "Q", subjects=["q.*"], allow_msg_ttl=True, sealed=True)
    await s.until("Q", "is sealed and lets go", lambda state: state["messages"] == 0)


async def consumers(s):
    await s.change("CREATE", "X", subjects=["x.*"], subject_delete_marker_ttl=2 * SECOND)
    for number in (1, 2, 3):
        await s.publish(f"x.{number}", b"x", Nats_TTL="2")
    config = {"durable_name": "c", "ack_policy": "explicit", "ack_wait": 20 * SECOND}
    await s.api("CONSUMER.CREATE.X.c", {"stream_name": "X", "config": config})
    await s.change("CREATE", "Y", subjects=["y.*"], retention="interest", subject_delete_marker_ttl=SECOND)
    config = {"durable_name": "c", "ack_policy": "explicit", "filter_subject": "y.2"}
    await s.api("CONSUMER.CREATE.Y.c", {"stream_name": "Y", "config": config})
    await s.publish("y.1", b"x", Nats_TTL="1")
    await s.publish("y.2", b"x", Nats_TTL="1")

    async def info(what):
        answer = await s.api("CONSUMER.INFO.X.c")
        counts = [answer[place][seq] for place in ("delivered", "ack_floor") for seq in ("consumer_seq", "stream_seq")]
        say(what, counts, answer["num_pending"], answer["num_ack_pending"])

    pull = await s.nc.jetstream().pull_subscribe_bind("c", stream="X")
    first = await pull.fetch(2, timeout=2)
    await info("two are delivered")
    third = await pull.fetch(1, timeout=2)
    # A request that waits is served by the markers.
    waiting = asyncio.create_task(pull.fetch(1, timeout=6))
    await asyncio.sleep(0.1)
    say("waits", waiting.done())
    fresh = await waiting
    while len(fresh) < 3:
        fresh += await pull.fetch(1, timeout=6)
    say([(m.metadata.sequence.stream, m.subject, m.headers, m.data) for m in [*first, *third, *fresh]])
    await info("the markers are delivered")
    for message in fresh:
        await message.ack_sync()
    await info("and acknowledged")
    await s.until("X", "has lost them", lambda state: state["messages"] == 0)
    await s.until("Y", "had its marker", lambda state: state["last_seq"] == 3 and state["messages"] == 0)


async def keys(s):
    js = s.nc.jetstream()
    await s.change(
        "CREATE",
        "KV_b",
        subjects=["$KV.b.>"],
        max_msgs_per_subject=1,
        discard="new",
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True,
        subject_delete_marker_ttl=SECOND,
    )
    bucket = await js.key_value("b")
    watcher = await bucket.watchall()
    say(await watcher.updates(timeout=2))
    await s.publish("$KV.b.k", b"v", Nats_TTL="1", Nats_Expected_Last_Subject_Sequence="0")
    seen = []
    for _ in range(2):
        entry = await watcher.updates(timeout=6)
        seen.append((entry.key, entry.value, entry.revision))
    say(seen)
    await s.publish("$KV.b.k", b"w", Nats_TTL="1", Nats_Expected_Last_Subject_Sequence="0")
    await s.publish("$KV.b.k", b"w", Nats_Expected_Last_Subject_Sequence="2")
    await s.show("KV_b")


async def main():
    nc = await nats.connect(sys.argv[1])
    session = Session(nc)
    for part in (configurations, forms, lengthened, markers, limits, consumers, keys):
        say("==", part.__name__)
        await part(session)
    await nc.close()


asyncio.run(main())
