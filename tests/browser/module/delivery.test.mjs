import assert from "node:assert/strict";
import test from "node:test";

import { Outgoing, Receipts, Timeline } from "./modules.mjs";

const at = (...seqs) => seqs.map((seq) => ({ serverSeq: BigInt(seq), msgId: `m${seq}` }));
const seqs = ({ messages }) => messages.map((message) => Number(message.serverSeq));
const answer = (fetched, nextCursor, hasMore = false) => ({ messages: at(...fetched), nextCursor: BigInt(nextCursor), hasMore });

test("in order passes, twice does not", () => {
  const timeline = new Timeline(0n);
  assert.deepEqual(seqs(timeline.accept(at(1)[0])), [1]);
  const again = timeline.accept(at(1)[0]);
  assert.deepEqual([seqs(again), again.duplicate, again.sync], [[], true, false]);
  assert.equal(timeline.cursor, 1n);
});

test("a gap is held, fetched and passed in order", () => {
  const timeline = new Timeline(1n);
  const gap = timeline.accept(at(4)[0]);
  assert.deepEqual([seqs(gap), gap.sync], [[], true]);
  timeline.asked();
  assert.equal(timeline.accept(at(5)[0]).sync, false, "one Sync at a time");
  const synced = timeline.synced(answer([2, 3, 4], 4));
  assert.deepEqual([seqs(synced), synced.sync], [[2, 3, 4, 5], false]);
});

test("what follows without a gap passes while Sync runs, and is not passed again by its answer", () => {
  const timeline = new Timeline(0n);
  timeline.asked();
  assert.deepEqual(seqs(timeline.accept(at(1)[0])), [1]);
  assert.deepEqual(seqs(timeline.synced(answer([1, 2], 2))), [2]);
});

test("numbers that do not exist do not hold up what is behind them", () => {
  const timeline = new Timeline(0n);
  timeline.accept(at(5)[0]);
  timeline.asked();
  const synced = timeline.synced(answer([2], 2));
  assert.deepEqual([seqs(synced), synced.sync, timeline.cursor], [[2, 5], false, 5n]);
});

test("a gap that opens while Sync runs is asked for again before it counts as genuine", () => {
  const timeline = new Timeline(0n);
  timeline.asked();
  timeline.accept(at(3)[0]);
  const first = timeline.synced(answer([1], 1));
  assert.deepEqual([seqs(first), first.sync], [[1], true]);
  timeline.asked();
  assert.deepEqual(seqs(timeline.synced(answer([2, 3], 3))), [2, 3]);
});

test("pages are fetched until there are no more, and a page that does not advance ends it", () => {
  const timeline = new Timeline(0n);
  timeline.asked();
  assert.deepEqual(timeline.synced(answer([1, 2], 2, true)).sync, true);
  timeline.asked();
  assert.deepEqual(timeline.synced(answer([], 2, true)).sync, false);
});

test("more than can be held is fetched instead", () => {
  const timeline = new Timeline(0n);
  timeline.accept(at(2)[0]);
  timeline.asked();
  for (let seq = 3; seq < 1000; seq += 1) timeline.accept(at(seq)[0]);
  const synced = timeline.synced(answer([1, 2], 2));
  assert.equal(synced.messages.length, 513);
  assert.equal(synced.sync, true);
  timeline.asked();
  const rest = Array.from({ length: 486 }, (_, index) => 514 + index);
  assert.deepEqual(seqs(timeline.synced(answer(rest, 999))), rest);
});

test("one's own messages take their place and are not handed out, nor asked for", () => {
  const timeline = new Timeline(0n);
  assert.equal(timeline.own(1n).sync, false);
  assert.deepEqual(seqs(timeline.accept(at(2)[0])), [2]);
  assert.equal(timeline.own(4n).sync, true, "something is before it");
  timeline.asked();
  const synced = timeline.synced(answer([3, 4], 4));
  assert.deepEqual([seqs(synced), synced.sync, timeline.cursor], [[3], false, 4n]);
});

test("numbers that end before the cursor mean a store that began anew", () => {
  const timeline = new Timeline(50n);
  timeline.asked();
  assert.deepEqual(timeline.synced(answer([], 3)), { messages: [], sync: true });
  timeline.asked();
  assert.deepEqual(seqs(timeline.synced(answer([1, 2, 3], 3))), [1, 2, 3]);
});

test("without a cursor the first delivery sets it; a lost link drops what was held", () => {
  const timeline = new Timeline(null);
  assert.deepEqual(seqs(timeline.accept(at(7)[0])), [7]);
  timeline.accept(at(9)[0]);
  timeline.lost();
  assert.deepEqual(seqs(timeline.accept(at(8)[0])), [8]);
});

const bounds = { maxMessages: 2, maxBytes: 10_000, timeoutMs: 1_000, rate: 1, burst: 2 };
const message = (msgId, content = "") => ({ msgId, content });

test("outgoing is bounded in messages and bytes, and the same msgId waits once", () => {
  const outgoing = new Outgoing(bounds);
  const first = outgoing.add(message("a"), 0);
  assert.equal(outgoing.add(message("a"), 0), first);
  outgoing.add(message("b"), 0);
  assert.throws(() => outgoing.add(message("c"), 0), { code: 4303 });
  outgoing.stored({ msgId: "a", serverSeq: 1n, timestamp: 2 });
  assert.throws(() => outgoing.add(message("c", "x".repeat(10_000)), 0), { code: 4303 });
  outgoing.add(message("c"), 0);
});

test("outgoing keeps to its rate, resends with growing patience, and expires", async () => {
  const outgoing = new Outgoing({ ...bounds, maxMessages: 3, timeoutMs: 100_000 });
  const fates = ["a", "b", "c"].map((id) => outgoing.add(message(id), 0));
  const sent = [];
  const pump = (now) => outgoing.pump(now, (entry) => sent.push(entry.message.msgId));
  pump(0);
  assert.deepEqual(sent, ["a", "b"]);
  pump(1_000);
  assert.deepEqual(sent, ["a", "b", "c"]);
  pump(9_000);
  assert.equal(sent.length, 3);
  pump(10_000);
  assert.deepEqual(sent.slice(3), ["a", "b"]);
  pump(29_999);
  assert.deepEqual(sent.slice(5), ["c"]);
  outgoing.expire(100_000);
  for (const fate of fates) await assert.rejects(fate, { name: "TimeoutError" });
  assert.equal(outgoing.size, 0);
});

test("receipts stay until an answered heartbeat proves them, and are bounded", () => {
  const receipts = new Receipts(2);
  receipts.add("a");
  receipts.add("b");
  receipts.add("c");
  let seq = 0n;
  const sent = [];
  const pump = () => receipts.pump((receipt) => sent.push(receipt) && (seq += 1n));
  pump();
  assert.deepEqual(sent, ["b", "c"]);
  receipts.confirmed(1n);
  receipts.lost();
  pump();
  assert.deepEqual(sent, ["b", "c", "c"]);
  receipts.confirmed(3n);
  assert.equal(receipts.size, 0);
});
