import assert from "node:assert/strict";
import test from "node:test";

import { World, frame, join, settled } from "./fake.mjs";
import { FakeWebTransport, Store } from "./fake-webtransport.mjs";
import { AckStatus, Code, MsgType } from "./modules.mjs";

const URL = "https://gateway.test:8443/im";
const message = (seq) => frame(MsgType.Message, { msgId: `m${seq}`, serverSeq: BigInt(seq), content: `c${seq}` });

/** A world in which WebTransport exists; `sessions` are what was opened. */
function world() {
  const made = new World();
  made.sessions = [];
  made.storage = new Store();
  made.wallNow = 1_700_000_000_000;
  const host = made.host.bind(made);
  made.host = () => ({
    ...host(),
    storage: made.storage,
    wall: () => made.wallNow,
    WebTransport: class extends FakeWebTransport {
      constructor(url, options) {
        super(url, options);
        made.sessions.push(this);
      }
    },
  });
  Object.defineProperty(made, "session", { get: () => made.sessions.at(-1) });
  return made;
}

async function started(options = {}) {
  const here = world();
  const { client, seen } = here.client({ webTransport: { url: URL }, ...options });
  const ready = client.start();
  ready.catch(() => {});
  await settled();
  return { world: here, client, seen, ready };
}

async function admit(session) {
  await session.open();
  await session.say("control", frame(MsgType.AuthAck, {}, session.lanes.control.last(MsgType.Auth).seq));
  await session.say("control", frame(MsgType.SyncAck, { messages: [], nextCursor: 0n }, session.lanes.control.last(MsgType.Sync)?.seq));
}

async function admitted(options) {
  const all = await started(options);
  await admit(all.world.session);
  await all.ready;
  return { ...all, session: all.world.session };
}

test("control and messages have a stream each, which says first what it is", async () => {
  const { client, session } = await admitted();
  assert.deepEqual([session.url, session.options.protocols], [URL, ["im.v1"]]);
  assert.deepEqual([session.lanes.control.types(), session.lanes.message.types()], [[MsgType.Auth, MsgType.Sync], []]);
  client.send({ to: 2, content: "hi", msgId: "x" }).catch(() => {});
  await settled();
  assert.deepEqual(session.lanes.message.types(), [MsgType.Message]);
  assert.deepEqual([client.state.state, client.state.transport], ["ready", "webtransport"]);
  client.close();
  await settled();
  assert.deepEqual(session.closedWith, { closeCode: 0, reason: "" });
});

test("each lane is cut into frames by itself", async () => {
  const { session, seen } = await admitted();
  const [first, second] = [message(1), message(2)];
  const beat = frame(MsgType.Signal, { from: 2n, kind: "typing" });
  await session.say("message", first.slice(0, 20));
  await session.say("control", beat.slice(0, 9));
  await session.say("message", join(first.slice(20), second));
  await session.say("control", beat.slice(9));
  assert.deepEqual([seen.messages.map((each) => each.serverSeq), seen.signals.length], [[1n, 2n], 1]);
});

test("signals travel by datagram where they fit, and come by it", async () => {
  const { client, session, seen } = await admitted();
  assert.equal(client.signal({ to: 2, kind: "typing" }), true);
  await settled();
  assert.equal(session.sentDatagrams.length, 1);
  client.signal({ to: 2, kind: "typing", data: new Uint8Array(2_000) });
  await settled();
  assert.deepEqual([session.sentDatagrams.length, session.lanes.control.types().at(-1)], [1, MsgType.Signal]);
  await session.datagram(frame(MsgType.Signal, { from: 2n, kind: "typing" }));
  assert.equal(seen.signals.length, 1);
});

test("receipts are proven by an answer on their own lane alone", async () => {
  const { client, session, world: here } = await admitted();
  await session.say("message", message(1));
  await here.pass(30_000);
  const [control, own] = ["control", "message"].map((lane) => session.lanes[lane].last(MsgType.Heartbeat));
  assert.notEqual(control.seq, own.seq);
  await session.say("control", frame(MsgType.Heartbeat, {}, control.seq));
  assert.equal(client.statistics().receipts, 1);
  await session.say("message", frame(MsgType.Heartbeat, {}, own.seq));
  assert.equal(client.statistics().receipts, 0);
  assert.equal(session.lanes.message.last(MsgType.MessageAck).message.status, AckStatus.Delivered);
});

test("the gateway's close code arrives and decides", async () => {
  const one = await admitted();
  await one.session.end(4303, "slow");
  assert.deepEqual([one.client.state.state, one.client.state.code, one.client.state.reason], ["waiting", 4303, "slow"]);
  const two = await admitted();
  await two.session.end(4200, "replaced");
  assert.deepEqual([two.client.state.state, two.client.state.code], ["stopped", 4200]);
  const three = await admitted();
  await three.session.fail("network");
  assert.deepEqual([three.client.state.state, three.client.state.code], ["waiting", 1006]);
});

test("our close code goes to the gateway", async () => {
  const { session, world: here } = await admitted();
  await here.pass(92_000);
  assert.deepEqual(session.closedWith, { closeCode: Code.HEARTBEAT_TIMEOUT, reason: "heartbeat_timeout" });
});

test("frames that cannot be read cost the session and not the client", async () => {
  const { client, session } = await admitted();
  await session.say("message", new Uint8Array([255, 255, 255, 255, 0, 0]));
  assert.equal(client.state.state, "waiting");
  assert.equal(session.closedWith.closeCode, Code.INTERNAL_ERROR);
});

test("a control stream that ends takes the session with it", async () => {
  const { client, session, world: here } = await admitted();
  await session.finish("control");
  await here.pass(600);
  assert.equal(client.state.state, "waiting");
});

// --- racing ---

test("WebTransport has a head start; whoever opens first wins and the other is closed", async () => {
  const { world: here, client, ready } = await started();
  assert.deepEqual([here.sessions.length, here.sockets.length], [1, 0]);
  await here.pass(400);
  assert.equal(here.sockets.length, 1);
  here.socket.open();
  here.socket.say(frame(MsgType.AuthAck, {}, here.socket.last(MsgType.Auth).seq));
  await ready;
  assert.equal(client.state.transport, "websocket");
  assert.deepEqual(here.session.closedWith, { closeCode: 0, reason: "" });
  const late = await started();
  await late.world.pass(400);
  await admit(late.world.session);
  await late.ready;
  assert.deepEqual([late.client.state.transport, late.world.socket.closedWith], ["webtransport", 1000]);
});

test("a transport that fails makes room at once, and what served is remembered for an hour", async () => {
  const { world: here, client, ready } = await started();
  await here.session.fail("UDP is closed");
  assert.equal(here.sockets.length, 1);
  here.socket.open();
  here.socket.say(frame(MsgType.AuthAck, {}, here.socket.last(MsgType.Auth).seq));
  await ready;
  here.socket.end(1006);
  await here.pass(500);
  assert.deepEqual([here.sockets.length, here.sessions.length], [2, 1], "the favourite is WebSocket now");
  here.socket.open();
  here.socket.end(1006);
  here.wallNow += 3_600_001;
  client.close();
  const { client: next } = here.client({ webTransport: { url: URL } });
  next.start().catch(() => {});
  await settled();
  assert.deepEqual([here.sockets.length, here.sessions.length], [2, 2], "and is not for ever");
});

test("a transport that opens and lets nobody log in comes second next time", async () => {
  const { world: here } = await started();
  await here.session.open();
  await here.pass(11_700);
  assert.deepEqual([here.sockets.length, here.sessions.length], [1, 1]);
});

test("when both fail it waits and tries both again", async () => {
  const { world: here, client } = await started();
  await here.session.fail("no");
  here.socket.end(1006, "neither");
  assert.deepEqual([client.state.state, client.state.reason], ["waiting", "neither"]);
  await here.pass(1_000);
  assert.equal(here.sessions.length, 2);
});

test("a page that may not is as good as a failure; without WebTransport there is WebSocket alone", async () => {
  const here = world();
  const host = here.host;
  here.host = () => ({ ...host(), WebTransport: class { constructor() { throw new Error("policy"); } } });
  here.client({ webTransport: { url: URL } }).client.start().catch(() => {});
  await settled();
  assert.equal(here.sockets.length, 1);
  here.host = () => ({ ...host(), WebTransport: undefined });
  here.client({ webTransport: { url: URL } }).client.start().catch(() => {});
  await settled();
  assert.equal(here.sockets.length, 2);
});

test("certificate hashes are handed on, and asked for anew before each attempt", async () => {
  const hashes = ["00ff", "0102"];
  const { world: here } = await started({ webTransport: async () => ({ url: URL, certificateHashes: [hashes.shift()] }) });
  const value = () => [...here.session.options.serverCertificateHashes[0].value];
  assert.deepEqual(value(), [0, 255]);
  await here.session.open();
  await here.session.fail("x");
  await here.pass(500);
  here.socket.end(1006);
  await settled();
  assert.deepEqual(value(), [1, 2]);
});

test("an https address is WebTransport alone; where there is none, that is said", async () => {
  const here = world();
  const { GatewayClient } = await import("./modules.mjs");
  const client = new GatewayClient(URL, { token: "t", deviceId: "d", host: here.host() });
  client.start().catch(() => {});
  await here.pass(1_000);
  assert.deepEqual([here.sessions.length, here.sockets.length], [1, 0]);
  client.close();
  const without = new GatewayClient(URL, { token: "t", deviceId: "d", host: { ...here.host(), WebTransport: undefined } });
  without.start().catch(() => {});
  await settled();
  assert.match(without.state.reason, /no transport/);
  without.close();
});

test("GoAway moves to addresses of the transport that is spoken", async () => {
  const { session, world: here } = await admitted();
  const endpoints = ["ws://n2.test/ws", "quic://n2.test:8443", "https://n2.test:8443/im"];
  await session.say("control", frame(MsgType.GoAway, { reconnectAfterMs: 100, jitterMs: 0, endpoints }));
  await here.pass(100);
  await here.pass(500);
  assert.equal(here.session.url, "https://n2.test:8443/im");
  assert.equal(session.closedWith.closeCode, Code.GOING_AWAY);
});
