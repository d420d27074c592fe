import assert from "node:assert/strict";
import test from "node:test";

import { World, frame, join, settled } from "./fake.mjs";
import { AckStatus, Code, GatewayClient, MsgType, connect } from "./modules.mjs";

const message = (seq, fields = {}) => frame(MsgType.Message, { msgId: `m${seq}`, serverSeq: BigInt(seq), content: `c${seq}`, ...fields });
const stored = (msgId, serverSeq = 1n) => frame(MsgType.MessageAck, { msgId, status: AckStatus.Stored, serverSeq });
const shown = (seen) => seen.messages.map((each) => Number(each.serverSeq));

async function admitted(options, admission) {
  const world = new World();
  const { client, seen } = world.client(options);
  const started = client.start();
  const socket = await world.admit(admission);
  await started;
  return { world, client, seen, socket };
}

test("connect resolves when let in, offers the subprotocol, and sends Auth first", async () => {
  const world = new World();
  const connecting = connect("ws://gateway.test/ws", { token: "secret", deviceId: "dev-1", host: world.host() });
  const socket = await world.admit({ sync: null });
  const client = await connecting;
  assert.deepEqual(socket.protocols, ["im.v1"]);
  assert.equal(socket.binaryType, "arraybuffer");
  const { token, deviceId, platform } = socket.received[0].message;
  assert.deepEqual([token, deviceId, platform], ["secret", "dev-1", "web"]);
  assert.equal(client.userId, 1n);
  assert.equal(socket.of(MsgType.Sync).length, 0, "nobody listens yet");
  client.on("message", () => {});
  assert.equal(socket.last(MsgType.Sync).message.cursor, 0n);
  client.close();
  assert.equal(socket.closedWith, 1000);
  assert.equal(world.timers, 0);
});

test("bad options are refused at once", () => {
  assert.throws(() => new GatewayClient("http://x/", { token: "t", deviceId: "d" }), TypeError);
  assert.throws(() => new GatewayClient("ws://x/", { token: "t", deviceId: "a b" }), RangeError);
  assert.throws(() => new GatewayClient("ws://x/", { deviceId: "d" }), TypeError);
  assert.throws(() => new GatewayClient("ws://x/", { token: "t", deviceId: "d" }).on("mesage", () => {}), TypeError);
});

test("send resolves on Stored, not on Accepted", async () => {
  const { client, socket, seen } = await admitted();
  let fate = null;
  client.send({ to: 2, content: "hi", msgId: "x" }).then((result) => (fate = result));
  assert.equal(socket.last(MsgType.Message).message.to, 2n);
  socket.say(frame(MsgType.MessageAck, { msgId: "x", status: AckStatus.Accepted }));
  await settled();
  assert.equal(fate, null);
  socket.say(stored("x", 41n));
  await settled();
  assert.deepEqual(fate, { msgId: "x", serverSeq: 41n, timestamp: 9 });
  socket.say(frame(MsgType.MessageAck, { msgId: "x", status: AckStatus.Read, serverSeq: 41n }));
  assert.deepEqual(seen.receipts.map((each) => each.status), ["stored", "read"]);
});

test("a message is refused for good or tried again, as the code says", async () => {
  const { client, socket, world } = await admitted();
  const refused = client.send({ to: 2, content: "", msgId: "bad" });
  socket.say(frame(MsgType.MessageAck, { msgId: "bad", status: AckStatus.Rejected, code: Code.INVALID_PAYLOAD }));
  await assert.rejects(refused, { name: "GatewayError", code: 4004, label: "invalid_payload" });
  const patient = client.send({ to: 2, content: "", msgId: "later" });
  socket.say(frame(MsgType.MessageAck, { msgId: "later", status: AckStatus.Rejected, code: Code.UPSTREAM_UNAVAILABLE }));
  const before = socket.of(MsgType.Message).length;
  await world.pass(5_000);
  assert.equal(socket.of(MsgType.Message).length, before + 1);
  const failed = client.send({ to: 2, content: "", msgId: "err" });
  socket.say(frame(MsgType.Error, { code: Code.INVALID_PAYLOAD }, socket.last(MsgType.Message).seq));
  await assert.rejects(failed, { code: 4004 });
  socket.say(stored("later"));
  await patient;
});

test("wrong ids, two targets, and what is larger than the gateway takes reject", async () => {
  const { client } = await admitted();
  await assert.rejects(client.send({ to: 2 ** 60, content: "" }), RangeError);
  await assert.rejects(client.send({ to: 2, group: 3, content: "" }), TypeError);
  await assert.rejects(client.send({ to: 2, content: "", msgId: "no spaces" }), RangeError);
  await assert.rejects(client.send({ to: 2, content: "x".repeat(65_536) }), { code: 4001 });
});

test("unacknowledged messages are sent again with their msgId after a lost link, in order", async () => {
  const { client, world, socket } = await admitted();
  const fates = ["a", "b"].map((msgId) => client.send({ to: 2, content: msgId, msgId }));
  socket.say(stored("a"));
  socket.end(1006);
  assert.equal(client.state.state, "waiting");
  fates.push(client.send({ to: 2, content: "c", msgId: "c" }));
  await world.pass(500);
  const next = await world.admit();
  assert.notEqual(next, socket);
  assert.deepEqual(next.of(MsgType.Message).map((each) => each.message.msgId), ["b", "c"]);
  next.say(stored("b"), stored("c"));
  await Promise.all(fates);
  assert.equal(client.statistics().pending, 0);
});

test("what one sent takes its number: no gap behind it, and no second copy after a lost link", async () => {
  const { client, world, socket, seen } = await admitted();
  const first = client.send({ to: 2, content: "a", msgId: "a" });
  socket.say(stored("a", 1n), message(2));
  await first;
  assert.deepEqual([shown(seen), socket.of(MsgType.Sync).length, client.cursor], [[2], 1, 2n]);
  const second = client.send({ to: 2, content: "b", msgId: "b" });
  socket.end(1006);
  await world.pass(500);
  await world.admit({ sync: { messages: [{ msgId: "b", from: 1n, to: 2n, serverSeq: 3n }], nextCursor: 3n } });
  assert.equal((await second).serverSeq, 3n);
  assert.deepEqual(shown(seen), [2]);
});

test("a message whose Stored does not come is sent again on the same link", async () => {
  const { client, world, socket } = await admitted();
  client.send({ to: 2, content: "", msgId: "a" });
  await world.pass(9_000);
  assert.equal(socket.of(MsgType.Message).length, 1);
  await world.pass(2_000);
  assert.equal(socket.of(MsgType.Message).length, 2);
});

test("deliveries come once, in order, are acknowledged, and gaps are fetched", async () => {
  const { client, socket, world, seen } = await admitted({ cursor: 10n });
  assert.equal(socket.last(MsgType.Sync).message.cursor, 10n);
  socket.say(join(message(11), message(11), message(14)));
  assert.deepEqual(shown(seen), [11]);
  assert.equal(socket.last(MsgType.Sync).message.cursor, 11n);
  await world.answerSync({
    messages: [12, 13, 14].map((seq) => ({ msgId: `m${seq}`, serverSeq: BigInt(seq) })),
    nextCursor: 14n,
  });
  assert.deepEqual(shown(seen), [11, 12, 13, 14]);
  assert.equal(client.cursor, 14n);
  const delivered = socket.of(MsgType.MessageAck).map((each) => [each.message.msgId, each.message.status]);
  assert.deepEqual(delivered, ["m11", "m11", "m12", "m13", "m14"].map((id) => [id, AckStatus.Delivered]));
});

test("one's own messages from another device are shown and not acknowledged", async () => {
  const { socket, seen } = await admitted();
  socket.say(message(1, { from: 1n, to: 2n }));
  assert.deepEqual(shown(seen), [1]);
  assert.equal(socket.of(MsgType.MessageAck).length, 0);
});

test("nothing is taken while nobody listens; the first listener brings it", async () => {
  const { client, socket, world, seen } = await admitted({ listen: false }, { sync: null });
  socket.say(message(1));
  assert.equal(socket.of(MsgType.MessageAck).length, 0);
  client.on("message", (each) => seen.messages.push(each));
  await world.answerSync({ messages: [{ msgId: "m1", serverSeq: 1n }], nextCursor: 1n });
  assert.deepEqual(shown(seen), [1]);
});

test("after a restart the cursor goes on and receipts that may be lost are told again", async () => {
  const { client, socket, world, seen } = await admitted();
  socket.say(message(1), message(2));
  client.markRead(seen.messages[0]);
  socket.end(1001);
  await world.pass(500);
  const next = await world.admit({ sync: { messages: [{ msgId: "m2", serverSeq: 2n }, { msgId: "m3", serverSeq: 3n }], nextCursor: 3n } });
  assert.equal(next.of(MsgType.Sync)[0].message.cursor, 2n);
  assert.deepEqual(shown(seen), [1, 2, 3]);
  assert.deepEqual(next.of(MsgType.MessageAck).map((each) => [each.message.msgId, each.message.status]), [
    ["m1", AckStatus.Delivered],
    ["m2", AckStatus.Delivered],
    ["m1", AckStatus.Read],
    ["m3", AckStatus.Delivered],
  ]);
  await world.pass(31_000);
  next.say(frame(MsgType.Heartbeat, {}, next.last(MsgType.Heartbeat).seq));
  assert.equal(client.statistics().receipts, 0);
});

test("Sync that fails or is not answered is asked again, later", async () => {
  const { socket, world } = await admitted();
  socket.say(message(5));
  assert.equal(socket.of(MsgType.Sync).length, 2);
  socket.say(frame(MsgType.Error, { code: Code.UPSTREAM_UNAVAILABLE, retryAfterMs: 4_000 }, socket.last(MsgType.Sync).seq));
  await world.pass(3_500);
  assert.equal(socket.of(MsgType.Sync).length, 2);
  await world.pass(1_500);
  assert.equal(socket.of(MsgType.Sync).length, 3);
  await world.pass(15_000);
  assert.equal(socket.of(MsgType.Sync).length, 4);
});

test("back-off doubles up to its cap, is a random part of that, and starts anew after a stable session", async () => {
  const world = new World();
  const { client, seen } = world.client();
  client.start();
  const waits = [];
  for (let attempt = 0; attempt < 9; attempt += 1) {
    await settled();
    world.socket.end(1006);
    waits.push(client.state.retryInMs);
    await world.pass(client.state.retryInMs);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  world.random = 0.25;
  world.socket.end(1006);
  assert.equal(client.state.retryInMs, 7_500);
  await world.pass(7_500);
  let socket = await world.admit();
  socket.end(1006);
  assert.equal(client.state.retryInMs, 7_500, "let in is not yet stable");
  await world.pass(7_500);
  socket = await world.admit();
  await world.pass(5_000);
  socket.end(1006);
  assert.equal(client.state.retryInMs, 125);
  assert.equal(seen.states.filter((each) => each.state === "ready").length, 2);
  client.close();
  assert.equal(world.timers, 0);
});

test("codes that say never stop it, with the reason, and reject what waits", async () => {
  for (const code of [4000, 4200, 4201, 4203]) {
    const { client, world, socket } = await admitted();
    const waiting = client.send({ to: 2, content: "" });
    socket.say(frame(MsgType.Kick, { code, message: "because" }));
    socket.end(code);
    await assert.rejects(waiting, { code });
    assert.deepEqual([client.state.state, client.state.code, client.state.reason], ["stopped", code, "because"]);
    await assert.rejects(client.send({ to: 2, content: "" }), { code });
    await world.pass(120_000);
    assert.equal(world.sockets.length, 1);
    assert.equal(world.timers, 0);
  }
});

test("a stopped client starts again when it is told to, from where it was", async () => {
  const { client, world, socket, seen } = await admitted();
  socket.say(message(1));
  socket.end(4200);
  const started = client.start();
  const next = await world.admit();
  await started;
  assert.equal(next.of(MsgType.Sync)[0].message.cursor, 1n);
  next.say(message(1), message(2));
  assert.deepEqual(shown(seen), [1, 2]);
});

test("a refused token is replaced by a new one; a good one is kept", async () => {
  const world = new World();
  const asked = [];
  const tokenProvider = async ({ refused }) => `token-${asked.push(refused)}`;
  const { client } = world.client({ token: undefined, tokenProvider });
  client.start();
  let socket = await world.admit();
  socket.end(1006);
  await world.pass(500);
  socket = await world.admit();
  assert.equal(socket.last(MsgType.Auth).message.token, "token-1");
  await world.pass(10_000);
  socket.end(4101);
  await world.pass(500);
  socket = world.socket;
  socket.open();
  assert.equal(socket.last(MsgType.Auth).message.token, "token-2");
  socket.say(frame(MsgType.AuthAck, { code: 4100, message: "no" }, socket.last(MsgType.Auth).seq));
  assert.equal(socket.closedWith, 4100);
  assert.deepEqual([client.state.state, client.state.code, client.state.reason], ["waiting", 4100, "no"]);
  await world.pass(1_000);
  await world.admit();
  assert.equal(client.state.state, "ready");
  assert.deepEqual(asked, [0, 4101, 4100]);
});

test("a refused token without a provider ends it; an authenticator that is away does not", async () => {
  const world = new World();
  const { client } = world.client();
  const started = client.start();
  await settled();
  world.socket.open();
  world.socket.say(frame(MsgType.AuthAck, { code: 4104 }));
  assert.equal(client.state.state, "waiting");
  await world.pass(500);
  world.socket.open();
  world.socket.say(frame(MsgType.AuthAck, { code: 4101, message: "expired" }));
  await assert.rejects(started, { code: 4101, message: "expired" });
});

test("a provider that fails, throws or never answers is asked again", async () => {
  const world = new World();
  const answers = [() => Promise.reject(new Error("down")), () => { throw new Error("broken"); }, () => new Promise(() => {}), async () => "good"];
  const { client, seen } = world.client({ token: undefined, tokenProvider: () => answers.shift()() });
  client.start();
  await world.pass(20_000);
  assert.deepEqual(seen.states.filter((each) => each.state === "waiting").map((each) => each.reason), ["down", "broken", "no token in time"]);
  await world.admit();
  assert.equal(client.state.state, "ready");
});

test("GoAway moves it after the told time to the first endpoint that is no step down, then home", async () => {
  const { client, world, socket } = await admitted();
  world.random = 0.5;
  const endpoints = ["javascript:alert(1)", "tcp://n2:9000", "ws://n2.test/ws"];
  socket.say(frame(MsgType.GoAway, { reconnectAfterMs: 1_000, jitterMs: 2_000, endpoints }));
  await world.pass(1_999);
  assert.equal(world.sockets.length, 1);
  await world.pass(1);
  assert.equal(socket.closedWith, Code.GOING_AWAY);
  await world.pass(500);
  assert.equal(world.socket.url, "ws://n2.test/ws");
  world.socket.end(1006);
  await world.pass(client.state.retryInMs);
  assert.equal(world.socket.url, "ws://gateway.test/ws");
});

test("a link that ends before the time GoAway told still waits for it", async () => {
  const { client, world, socket } = await admitted();
  socket.say(frame(MsgType.GoAway, { reconnectAfterMs: 3_000, jitterMs: 0 }));
  await world.pass(1_000);
  socket.end(4400);
  assert.equal(client.state.retryInMs, 2_000);
});

test("heartbeats keep it; silence ends the link and another one is made", async () => {
  const { client, world, socket } = await admitted();
  for (let minute = 0; minute < 4; minute += 1) {
    await world.pass(30_000);
    socket.say(frame(MsgType.Heartbeat, {}, socket.last(MsgType.Heartbeat).seq));
  }
  assert.equal(socket.of(MsgType.Heartbeat).length, 4);
  assert.equal(client.state.state, "ready");
  await world.pass(92_000);
  assert.equal(socket.closedWith, Code.HEARTBEAT_TIMEOUT);
  assert.equal(world.sockets.length, 2);
});

test("a login that is not answered is given up and tried again, also with a fixed token", async () => {
  const world = new World();
  const { client } = world.client();
  client.start();
  await settled();
  world.socket.open();
  await world.pass(12_000);
  assert.equal(world.sockets.length, 2);
  assert.equal(client.state.state, "connecting");
});

test("frames that cannot be read, or text, cost the link and not the client", async () => {
  for (const data of ["text", join(frame(MsgType.Message, { msgId: "a", serverSeq: 1n })).fill(0x7f, 4, 6).buffer, new Uint8Array([255, 255, 255, 255, 0, 0]).buffer]) {
    const { client, world, socket } = await admitted();
    socket.onmessage({ data });
    assert.equal(client.state.state, "waiting");
    await world.pass(1_000);
    await world.admit();
    assert.equal(client.state.state, "ready");
  }
});

test("a late event of an old socket changes nothing", async () => {
  const { client, world, socket } = await admitted();
  const { onclose, onmessage } = socket;
  socket.end(1006);
  await world.pass(500);
  await world.admit();
  onclose({ code: 4200, reason: "" });
  onmessage({ data: message(1).buffer });
  assert.equal(client.state.state, "ready");
  assert.equal(client.cursor, 0n);
});

test("a full socket is not filled further: signals are dropped, messages wait", async () => {
  const { client, world, socket } = await admitted();
  socket.bufferedAmount = 2 << 20;
  assert.equal(client.signal({ to: 2, kind: "typing" }), false);
  client.send({ to: 2, content: "", msgId: "a" });
  assert.equal(socket.of(MsgType.Message).length, 0);
  socket.bufferedAmount = 0;
  await world.pass(1_000);
  assert.equal(socket.of(MsgType.Message).length, 1);
  assert.equal(client.signal({ to: 2, kind: "typing" }), true);
});

test("a listener that throws is reported and disturbs nobody", async () => {
  const { client, world, socket, seen } = await admitted();
  const off = client.on("message", () => {
    throw new Error("mine");
  });
  socket.say(message(1));
  off();
  socket.say(message(2));
  assert.deepEqual(shown(seen), [1, 2]);
  assert.equal(world.reported.length, 1);
});

test("signals are handed on; errors that belong to nothing are told", async () => {
  const { socket, seen } = await admitted();
  socket.say(frame(MsgType.Signal, { from: 2n, kind: "typing" }), frame(MsgType.Error, { code: 4002, message: "what" }));
  assert.deepEqual([seen.signals[0].from, seen.signals[0].kind], [2n, "typing"]);
  assert.deepEqual(seen.errors, [{ code: 4002, label: "unknown_type", message: "what" }]);
});

test("a close while connecting rejects start and leaves no timer", async () => {
  const world = new World();
  const { client } = world.client();
  const started = client.start();
  client.close();
  await assert.rejects(started, { code: 1000 });
  await settled();
  assert.equal(world.timers, 0);
});
