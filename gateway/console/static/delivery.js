// What must survive a lost link, in both directions: exactly once to the application, at least once to the gateway.
// Pure state: the caller brings frames and the time. No socket, timer or DOM belongs in here.

import { Code, GatewayError, reconnectAfter } from "./wire.js";

const HELD = 512; // deliveries kept while the ones before them are fetched
const FIRST_RESEND_MS = 10_000;
const LAST_RESEND_MS = 60_000;

/**
 * What was received, in order of `serverSeq`: each once, none left out.
 *
 * A delivery that follows its predecessor passes; one that leaves a gap is held while Sync fetches what is before it.
 * Where Sync has nothing for a number, there is no such message, and what was held passes.
 */
export class Timeline {
  #held = new Map(); // serverSeq -> message, null for one's own
  #newest = 0n; // of all that came on this link
  #horizon = 0n; // #newest when the running Sync was asked for: its answer knows everything up to there
  #asked = 0n; // the cursor of the running Sync

  /** `cursor`: the last `serverSeq` that the application has; null starts with whatever comes first. */
  constructor(cursor) {
    this.cursor = cursor;
    this.syncing = false;
  }

  /** A live delivery. Returns what may pass now, and whether Sync must be asked. */
  accept(message) {
    if (message.serverSeq === 0n) return { messages: [message], sync: false };
    return this.#place(message.serverSeq, message);
  }

  /** The place of a message that was sent from here: the application has it already. */
  own(seq) {
    return this.#place(seq, null);
  }

  #place(seq, message) {
    this.cursor ??= seq - 1n;
    if (seq <= this.cursor) return { messages: [], sync: false, duplicate: true };
    if (this.#held.size < HELD) this.#held.set(seq, message);
    if (seq > this.#newest) this.#newest = seq;
    const messages = this.#take();
    return { messages, sync: !this.syncing && seq > this.cursor };
  }

  /** Sync is being asked for what is after `cursor`. */
  asked() {
    this.syncing = true;
    this.#horizon = this.#newest;
    this.#asked = this.cursor;
  }

  /** The answer of Sync. Returns what may pass now, and whether Sync must be asked again. */
  synced({ messages: fetched, nextCursor, hasMore }) {
    this.syncing = false;
    if (nextCursor < this.#asked) return this.#rewind();
    const before = this.cursor;
    for (const message of fetched) {
      const seq = message.serverSeq;
      if (seq > before && this.#held.get(seq) !== null) this.#held.set(seq, { ...message, fetched: true });
    }
    const seqs = [before, nextCursor, ...fetched.map((message) => message.serverSeq)];
    const end = (hasMore ? seqs : [...seqs, this.#horizon]).reduce((most, seq) => (seq > most ? seq : most));
    const messages = this.#take(end);
    if (end > this.cursor) this.cursor = end;
    messages.push(...this.#take());
    return { messages, sync: hasMore ? this.cursor > before : this.#newest > this.cursor };
  }

  /** The link is gone: what was held will be fetched again. */
  lost() {
    this.#held.clear();
    this.#newest = 0n;
    this.syncing = false;
  }

  /** The gateway's numbers end before ours: its store began anew, and so do we. */
  #rewind() {
    this.lost();
    this.cursor = 0n;
    return { messages: [], sync: true };
  }

  /** Release all up to `until` in order, and then what follows the cursor without a gap. */
  #take(until = -1n) {
    const ready = [];
    const pass = (seq) => {
      const message = this.#held.get(seq);
      if (message) ready.push(message);
      this.#held.delete(seq);
      this.cursor = seq;
    };
    const due = [...this.#held.keys()].filter((seq) => seq <= until);
    due.sort((a, b) => (a < b ? -1 : 1)).forEach(pass);
    while (this.#held.has(this.cursor + 1n)) pass(this.cursor + 1n);
    return ready;
  }
}

/** Messages that are not acknowledged as stored yet. Bounded; each resent with its own msgId until it is, or expires. */
export class Outgoing {
  #entries = new Map(); // msgId -> entry, oldest first
  #bytes = 0;
  #bounds;
  #pace;

  constructor({ maxMessages, maxBytes, timeoutMs, rate, burst }) {
    this.#bounds = { maxMessages, maxBytes, timeoutMs };
    this.#pace = { rate, burst, tokens: burst, at: 0 };
  }

  get size() {
    return this.#entries.size;
  }

  /** Keep `message`; the promise settles with its fate. Throws GatewayError when the bounds are reached. */
  add(message, now) {
    const known = this.#entries.get(message.msgId);
    if (known) return known.promise;
    const size = message.content.length * 2 + 128;
    const { maxMessages, maxBytes, timeoutMs } = this.#bounds;
    if (this.#entries.size >= maxMessages || this.#bytes + size > maxBytes) {
      throw new GatewayError(Code.SLOW_CONSUMER, "too many messages wait to be acknowledged");
    }
    const entry = { message, size, seq: 0n, attempts: 0, resendAt: 0, expiresAt: timeoutMs ? now + timeoutMs : Infinity };
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    this.#entries.set(message.msgId, entry);
    this.#bytes += size;
    return entry.promise;
  }

  /** Call `transmit(entry)` for each that is due, as fast as the gateway's rate allows; stop when it says false. */
  pump(now, transmit) {
    const pace = this.#pace;
    pace.tokens = Math.min(pace.burst, pace.tokens + ((now - pace.at) / 1000) * pace.rate);
    pace.at = now;
    for (const entry of this.#entries.values()) {
      if (entry.resendAt > now) continue;
      if (pace.tokens < 1 || !transmit(entry)) return;
      pace.tokens -= 1;
      entry.resendAt = now + Math.min(LAST_RESEND_MS, FIRST_RESEND_MS * 2 ** entry.attempts);
      entry.attempts += 1;
    }
  }

  /** Reject what has waited too long; whether it was stored is not known. */
  expire(now) {
    for (const entry of [...this.#entries.values()]) {
      if (entry.expiresAt <= now) {
        const error = Object.assign(new Error("not acknowledged in time; it may have been stored"), { name: "TimeoutError" });
        this.#settle(entry, () => entry.reject(error));
      }
    }
  }

  /** On a new link everything is due again. */
  lost() {
    for (const entry of this.#entries.values()) Object.assign(entry, { resendAt: 0, attempts: 0, seq: 0n });
  }

  /** Stored, or told to have reached the recipient, which says the same. False if it did not wait for that. */
  stored({ msgId, serverSeq, timestamp }) {
    const entry = this.#entries.get(msgId);
    if (entry) this.#settle(entry, () => entry.resolve({ msgId, serverSeq, timestamp }));
    return Boolean(entry);
  }

  /** Refused. Codes that stand for trouble on the other side are tried again after `waitMs`. */
  refused(match, code, reason, now, waitMs) {
    for (const entry of [...this.#entries.values()]) {
      if (!match(entry)) continue;
      if (reconnectAfter(code) === "backoff" && code !== 0) entry.resendAt = now + waitMs;
      else this.#settle(entry, () => entry.reject(new GatewayError(code, reason)));
      return true;
    }
    return false;
  }

  /** Reject all that waits. */
  abandon(error) {
    for (const entry of [...this.#entries.values()]) this.#settle(entry, () => entry.reject(error));
  }

  #settle(entry, finish) {
    this.#entries.delete(entry.message.msgId);
    this.#bytes -= entry.size;
    finish();
  }
}

/** Delivered and Read on their way up. A heartbeat's answer proves that what was sent before it has arrived. */
export class Receipts {
  #waiting = []; // { receipt, seq } where seq is 0n until sent
  #limit;

  constructor(limit) {
    this.#limit = limit;
  }

  get size() {
    return this.#waiting.length;
  }

  /** Beyond the bound the oldest is forgotten: a tick that stays grey, never a lost message. */
  add(receipt) {
    if (this.#waiting.length >= this.#limit) this.#waiting.shift();
    this.#waiting.push({ receipt, seq: 0n });
  }

  /** `transmit(receipt)` returns the seq it was sent with, or 0n when it could not be. */
  pump(transmit) {
    for (const each of this.#waiting) {
      if (each.seq) continue;
      each.seq = transmit(each.receipt);
      if (!each.seq) return;
    }
  }

  confirmed(seq) {
    this.#waiting = this.#waiting.filter((each) => each.seq === 0n || each.seq > seq);
  }

  lost() {
    for (const each of this.#waiting) each.seq = 0n;
  }
}
