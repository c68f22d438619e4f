// A session of the official JavaScript client: prints what a user sees, one line each, the same on every server.

import { connect, headers, nanos } from "@nats-io/transport-node";
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager, StorageType } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";

const say = (...words) => console.log(...words.map((w) => (typeof w === "string" ? w : JSON.stringify(w))));
const text = (data) => new TextDecoder().decode(data);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const refusal = (error) => `${error.code ?? ""} ${error.name}: ${error.message}`;
const attempt = async (what, action) => {
  try {
    say(what, await action());
  } catch (error) {
    say(what, refusal(error));
  }
};

async function core(nc) {
  const subscription = nc.subscribe("a.*.c");
  const h = headers();
  h.set("K", "v");
  nc.publish("a.b.c", "one", { headers: h });
  nc.publish("a.b.d", "not for us");
  nc.publish("a.x.c", "two");
  await nc.flush();
  subscription.drain();
  for await (const m of subscription) say("core", m.subject, m.string(), m.headers?.get("K") ?? null);

  nc.subscribe("upper", { callback: (_, m) => m.respond(m.string().toUpperCase()) });
  say("request", (await nc.request("upper", "abc", { timeout: 5000 })).string());
  await attempt("request", () => nc.request("nobody", "", { timeout: 5000 }));
  const answers = [];
  nc.subscribe("many", { callback: (_, m) => ["1", "2", "3"].forEach((n) => m.respond(n)) });
  for await (const m of await nc.requestMany("many", "", { maxMessages: 3, maxWait: 5000 })) answers.push(m.string());
  say("request many", answers);
  const big = new Uint8Array(nc.info.max_payload).fill(7);
  nc.subscribe("length", { callback: (_, m) => m.respond(String(m.data.length)) });
  say("max payload", (await nc.request("length", big, { timeout: 10000 })).string());
}

async function streams(js, jsm) {
  const config = { name: "S", subjects: ["s.>"], storage: StorageType.Memory, max_msgs: 50, allow_direct: true };
  const info = await jsm.streams.add(config);
  say("stream", info.config.name, info.config.storage, info.config.max_msgs, info.config.duplicate_window, info.state.messages);
  for (let n = 0; n < 60; n++) await js.publish(`s.${n % 5}`, String(n));
  const state = (await jsm.streams.info("S", { subjects_filter: ">" })).state;
  say("state", state.messages, state.first_seq, state.last_seq, state.subjects);
  const message = await jsm.streams.getMessage("S", { last_by_subj: "s.3" });
  say("last", message.seq, message.subject, message.string());
  const direct = await jsm.direct.getMessage("S", { seq: 33 });
  say("direct", direct.seq, direct.subject, direct.string());
  const direct2 = await jsm.direct.getMessage("S", { start_seq: 1, next_by_subj: "s.2" }).catch(refusal);
  say("direct next", typeof direct2 === "string" ? direct2 : [direct2.seq, direct2.subject]);
  await attempt("missing", async () => (await jsm.direct.getMessage("S", { seq: 1 })) === null);
  await attempt("expect", () => js.publish("s.1", "x", { expect: { lastSequence: 3 } }));
  await attempt("duplicate", () => js.publish("s.1", "x", { msgID: "id" }));
  await attempt("duplicate", () => js.publish("s.1", "x", { msgID: "id" }));
  await attempt("no stream", () => js.publish("elsewhere", "x", { timeout: 2000, retries: 0 }));
  await attempt("purge", () => jsm.streams.purge("S", { filter: "s.1" }));
  await attempt("purge", () => jsm.streams.purge("S", { seq: 30 }));
  await attempt("delete", () => jsm.streams.deleteMessage("S", 60));
  await attempt("update", async () => (await jsm.streams.update("S", { max_msgs: 10 })).state.messages);
  await attempt("info", () => jsm.streams.info("NONE"));
  await attempt("bad update", () => jsm.streams.update("S", { storage: StorageType.File }));
  await attempt("delete stream", () => jsm.streams.delete("S"));
}

async function consumers(js, jsm) {
  await jsm.streams.add({ name: "C", subjects: ["c.*"] });
  for (let n = 0; n < 100; n++) await js.publish(`c.${n % 4}`, String(n));
  const info = await jsm.consumers.add("C", {
    durable_name: "d",
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(1000),
    filter_subjects: ["c.1", "c.2"],
  });
  const { name, num_pending, config } = info;
  say("consumer", name, num_pending, config.filter_subjects, config.max_waiting, config.replay_policy);
  const consumer = await js.consumers.get("C", "d");
  const fetched = [];
  for await (const m of await consumer.fetch({ max_messages: 10, expires: 5000 })) {
    fetched.push([m.seq, m.info.deliverySequence, m.info.pending]);
    m.ack();
  }
  say("fetch", fetched);
  const one = await consumer.next({ expires: 5000 });
  one.nak(200);
  await pause(100);
  const two = await consumer.next({ expires: 5000 });
  say("next", two.seq, await two.ackAck());
  await pause(300);
  const three = await consumer.next({ expires: 5000 });
  say("redelivered", three.seq, three.info.deliveryCount, three.redelivered);
  three.term("enough");
  let count = 0;
  const messages = await consumer.consume({ max_messages: 20 });
  for await (const m of messages) {
    m.ack();
    if (++count === 38) break;
  }
  say("consumed", count);
  await pause(200);
  const after = await consumer.info();
  say("info", after.num_pending, after.num_ack_pending, after.ack_floor.stream_seq, after.delivered.stream_seq);
  say("nothing", await consumer.next({ expires: 1000 }));
  const ordered = await js.consumers.get("C", { filter_subjects: "c.3", deliver_policy: DeliverPolicy.New });
  await js.publish("c.3", "fresh");
  const fresh = await ordered.next({ expires: 5000 });
  say("ordered", fresh?.string() ?? null);
  const all = await js.consumers.get("C", { headers_only: true });
  const sizes = [];
  for await (const m of await all.fetch({ max_messages: 3, expires: 5000 })) sizes.push([m.data.length, m.headers.get("Nats-Msg-Size")]);
  say("headers only", sizes);
  await attempt("bad consumer", () => jsm.consumers.add("C", { durable_name: "a.b", ack_policy: AckPolicy.Explicit }));
  await attempt("changed", () => jsm.consumers.add("C", { durable_name: "d", ack_policy: AckPolicy.None }));
  await attempt("delete", () => jsm.consumers.delete("C", "d"));
  await attempt("gone", () => jsm.consumers.info("C", "d"));
}

async function keyValue(nc) {
  const kv = await new Kvm(nc).create("K", { history: 4 });
  const seen = [];
  const watch = await kv.watch();
  const watching = (async () => {
    for await (const e of watch) {
      seen.push([e.key, e.operation, e.string()]);
      if (seen.length === 5) break;
    }
  })();
  say("kv", await kv.put("x", "1"), await kv.put("x", "2"), await kv.create("y", "a"));
  await attempt("kv create", () => kv.create("y", "b"));
  await attempt("kv update", () => kv.update("x", "3", 2));
  await kv.delete("y");
  await watching;
  say("kv watch", seen);
  say("kv get", (await kv.get("x")).string(), (await kv.get("y"))?.operation ?? null, await kv.get("none"));
  const history = [];
  for await (const e of await kv.history({ key: "x" })) history.push([e.revision, e.string()]);
  say("kv history", history);
  await kv.purge("x");
  await kv.put("z", "end");
  const keys = [];
  for await (const k of await kv.keys()) keys.push(k);
  say("kv keys", keys);
  const status = await kv.status();
  say("kv status", status.values, status.history, status.bucket);
  say("kv destroy", await kv.destroy());
}

async function objects(nc) {
  const store = await new Objm(nc).create("O", { storage: StorageType.File });
  const content = new Uint8Array(12 << 20).map((_, n) => n % 253);
  const info = await store.putBlob({ name: "big", description: "12 MiB" }, content);
  say("object", info.name, info.size, info.chunks, info.digest);
  const read = await store.getBlob("big");
  say("object get", Buffer.compare(Buffer.from(read), Buffer.from(content)));
  await store.putBlob({ name: "small" }, new TextEncoder().encode("tiny"));
  say("object list", (await store.list()).map((o) => [o.name, o.size]).sort());
  say("object delete", await store.delete("big"));
  say("object get", await store.get("big"), text(await store.getBlob("small")));
  const status = await store.seal();
  say("object sealed", status.sealed);
}

const nc = await connect({ servers: process.argv[2] });
const js = jetstream(nc, { timeout: 20000 });
const jsm = await jetstreamManager(nc, { timeout: 20000 });
await core(nc);
await streams(js, jsm);
await consumers(js, jsm);
await keyValue(nc);
await objects(nc);
const account = await jsm.getAccountInfo();
say("account", account.streams, account.memory);
await nc.drain();
