// The golden frames of schema/corpus, which every implementation of the protocol reads alike.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { FrameDecoder, GatewayError, decode } from "./modules.mjs";

const corpus = new URL("../../../schema/corpus/", import.meta.url);
const frames = JSON.parse(readFileSync(new URL("index.json", corpus), "utf8")).filter((entry) => "type" in entry);
const bytesOf = (entry) => new Uint8Array(readFileSync(new URL(entry.file, corpus)));
const NAMES = { from_user: "from", to_user: "to", group_id: "group" };
const TIMES = new Set(["timestamp", "server_time"]); // Numbers here, BigInt elsewhere
const HEX = new Set(["data", "sha256"]);
const camel = (name) => NAMES[name] ?? name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

function read(bytes) {
  const seen = [];
  new FrameDecoder(65_536).feed(bytes, (type, body) => seen.push(decode(type, body)));
  return seen;
}

/** A value as the index writes it. */
function written(name, value) {
  if (name === "messages") return value.map((each) => fields(each, Object.keys(frames.find((entry) => entry.table === "ChatMessage").fields)));
  if (TIMES.has(name)) return value;
  if (typeof value === "bigint") return String(value);
  return HEX.has(name) ? Buffer.from(value).toString("hex") : value;
}

function fields(message, names) {
  return Object.fromEntries(names.map((name) => [name, written(name, message[camel(name)])]));
}

function expected(name, value) {
  if (name === "messages") return value.map((each) => Object.fromEntries(Object.entries(each).map(([inner, it]) => [inner, expected(inner, it)])));
  return TIMES.has(name) ? Number(value) : value;
}

const UNREAD = new Set(["FileOffer", "FileAck", "FileChunk"]);
const valid = frames.filter((entry) => entry.verdict === "accept");
assert.ok(valid.length > 30, "the corpus is there");

for (const entry of valid) {
  test(`reads ${entry.name}`, () => {
    const [frame, ...more] = read(bytesOf(entry));
    assert.equal(more.length, 0);
    assert.equal(frame.type, entry.type);
    assert.equal(String(frame.seq), entry.seq);
    assert.equal(frame.timestamp, Number(entry.timestamp));
    if (!entry.table) return;
    if (UNREAD.has(entry.table)) {
      assert.equal(frame.message, null);
      return;
    }
    const names = Object.keys(entry.fields);
    const told = Object.fromEntries(names.map((name) => [name, expected(name, entry.fields[name])]));
    assert.deepEqual(fields(frame.message, names), told);
  });
}

test("what every verifier refuses ends in an error or in nothing, and soon", () => {
  for (const entry of frames.filter((each) => each.verdict !== "accept")) {
    try {
      read(bytesOf(entry));
    } catch (error) {
      assert.ok(error instanceof GatewayError, `${entry.name}: ${error}`);
    }
  }
});
