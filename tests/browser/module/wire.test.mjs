import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { frame, join } from "./fake.mjs";
import { AckStatus, Code, FrameDecoder, GatewayError, HEADER, MsgType, decode, encode, labelOf, reconnectAfter, toId } from "./modules.mjs";

const BIG = 2n ** 63n - 1n;

function fed(decoder, chunks) {
  const seen = [];
  for (const chunk of chunks) decoder.feed(chunk, (type, body) => seen.push(decode(type, body)));
  return seen;
}

const stream = join(
  frame(MsgType.Heartbeat, {}, 3n),
  new Uint8Array([0, 0, 0, 0, 0, 0]), // a heartbeat without a body
  frame(MsgType.Message, { msgId: "m", content: "héllo 🐢", from: BIG, serverSeq: 2n ** 64n - 1n }),
  frame(MsgType.MessageAck, { msgId: "m", status: AckStatus.Stored, serverSeq: 9n }, 1n),
);

test("frames cut at every byte, in pairs, one by one and merged give the same", () => {
  const whole = fed(new FrameDecoder(1024), [stream]);
  assert.equal(whole.length, 4);
  assert.equal(whole[2].message.content, "héllo 🐢");
  assert.equal(whole[2].message.from, BIG);
  assert.equal(whole[2].message.serverSeq, 2n ** 64n - 1n);
  for (let cut = 0; cut <= stream.length; cut += 1) {
    assert.deepEqual(fed(new FrameDecoder(1024), [stream.subarray(0, cut), stream.subarray(cut)]), whole);
  }
  for (const size of [1, 2, 7]) {
    const chunks = [];
    for (let at = 0; at < stream.length; at += size) chunks.push(stream.slice(at, at + size));
    assert.deepEqual(fed(new FrameDecoder(1024), chunks), whole);
  }
});

test("bodies handed out are not overwritten by later chunks", () => {
  const decoder = new FrameDecoder(1024);
  const bodies = [];
  for (const byte of join(stream, stream)) decoder.feed(Uint8Array.of(byte), (type, body) => bodies.push([body, body.slice()]));
  for (const [body, copy] of bodies) assert.deepEqual(body, copy);
});

test("a frame over the limit is refused on its header, one at the limit is not", () => {
  const header = (length) => Uint8Array.of(length >>> 24, length >>> 16, length >>> 8, length, 0, 10);
  for (const length of [65, 2 ** 31, 2 ** 32 - 1]) {
    assert.throws(() => fed(new FrameDecoder(64), [header(length)]), { code: Code.FRAME_TOO_LARGE });
  }
  assert.deepEqual(fed(new FrameDecoder(64), [header(64)]), []);
});

test("what the client writes reads back", () => {
  const cases = [
    [MsgType.Auth, { token: "t", deviceId: "d", platform: "web", client: "c" }],
    [MsgType.Message, { msgId: "m", to: BIG, content: "text", contentType: 3, timestamp: 1_700_000_000_000 }],
    [MsgType.Message, { msgId: "m", group: 4n, content: "" }],
    [MsgType.MessageAck, { msgId: "m", status: AckStatus.Read, serverSeq: 2n ** 64n - 1n }],
    [MsgType.Signal, { to: 5n, kind: "typing", data: Uint8Array.of(1, 2, 255) }],
    [MsgType.Sync, { cursor: 2n ** 63n, limit: 50 }],
  ];
  for (const [type, fields] of cases) {
    const [read] = fed(new FrameDecoder(1024), [encode(type, fields, 77n, 88)]);
    assert.equal(read.seq, 77n);
    assert.equal(read.timestamp, 88);
    for (const [name, value] of Object.entries(fields)) assert.deepEqual(read.message[name], value, name);
  }
});

test("a type that differs from the packet's, and every truncation, is an error or harmless, never a hang", () => {
  const ack = frame(MsgType.MessageAck, { msgId: "m", status: 1 });
  assert.throws(() => decode(MsgType.Message, ack.subarray(HEADER)), { code: Code.TYPE_MISMATCH });
  const sync = frame(MsgType.SyncAck, { messages: [{ msgId: "a", serverSeq: 1n }], nextCursor: 1n }).subarray(HEADER);
  for (let length = 0; length < sync.length; length += 1) {
    try {
      decode(MsgType.SyncAck, sync.slice(0, length));
    } catch (error) {
      assert.ok(error instanceof GatewayError);
    }
  }
  for (let at = 0; at < sync.length; at += 1) {
    for (const value of [0, 0x7f, 0xff]) {
      const mutant = sync.slice();
      mutant[at] = value;
      try {
        assert.ok((decode(MsgType.SyncAck, mutant).message?.messages.length ?? 0) <= sync.length);
      } catch (error) {
        assert.ok(error instanceof GatewayError);
      }
    }
  }
});

test("types that the client does not know are told apart, not refused", () => {
  const [read] = fed(new FrameDecoder(1024), [frame(42)]);
  assert.equal(read.message, null);
});

test("ids are exact positive 63-bit integers", () => {
  assert.equal(toId(1001), 1001n);
  assert.equal(toId("9223372036854775807"), BIG);
  for (const wrong of [0, -1, 2 ** 53, 1.5, "", "1e3", "-1", "0x10", 2n ** 63n, "9223372036854775808"]) {
    assert.throws(() => toId(wrong), RangeError, String(wrong));
  }
});

test("the code table is the gateway's", () => {
  const source = readFileSync(new URL("../../../gateway/protocol/codes.py", import.meta.url), "utf8");
  const table = Object.fromEntries([...source.matchAll(/^ {4}([A-Z_]+) = (\d+)$/gm)].map(([, name, code]) => [name, Number(code)]));
  for (const rule of ["NEVER", "WITH_NEW_TOKEN", "WITH_BACKOFF"]) delete table[rule];
  assert.deepEqual({ ...Code }, table);
});

test("the ranges of the code table say whether to reconnect", () => {
  for (const code of [4000, 4005, 4007, 4200, 4201, 4202, 4203]) assert.equal(reconnectAfter(code), "never");
  for (const code of [4100, 4101, 4102, 4103]) assert.equal(reconnectAfter(code), "new-token");
  for (const code of [4104, 4300, 4303, 4400, 4403, 1000, 1001, 1005, 1006, 1011]) assert.equal(reconnectAfter(code), "backoff");
  assert.equal(labelOf(4200), "replaced_by_same_device");
  assert.equal(labelOf(1006), "code 1006");
});
