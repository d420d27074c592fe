// A client of the gateway for browsers: `const client = await connect(url, { token, deviceId })`.
// Logs in, beats, reconnects by the code table, resends, fetches what was missed; over WebTransport or WebSocket.
// What it hands out came from other people: show it as text (textContent), never as HTML.

import { Outgoing, Receipts, Timeline } from "./delivery.js";
import { Dialler } from "./dial.js";
import { HOST, deadline, hangUp } from "./host.js";
import { Race } from "./race.js";
import { CONTROL, MESSAGE } from "./wires.js";
import { AckStatus, Code, FrameDecoder, GatewayError, HEADER, MsgType, decode, encode, labelOf, newMessageId, reconnectAfter, target } from "./wire.js";
export { AckStatus, Code, GatewayError, MsgType, labelOf, newMessageId, reconnectAfter };

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const TICK_MS = 1_000; // every deadline below is looked at this often
const ANSWER_MS = 10_000; // for a token, a login, an answer to Sync, a sign of life after waking up
const ON_MESSAGE_LANE = [MsgType.Message, MsgType.MessageAck];
const LONGEST_WAIT_MS = 300_000; // whatever GoAway or Error ask for

const DEFAULTS = {
  platform: "web",
  webTransport: null, // { url: "https://…/im", certificateHashes: [hex] }, or an async function returning that or null
  cursor: 0n, // the last serverSeq that the application has; null: only what comes from now on
  backoffMs: 500, // full jitter: a random part of backoffMs * 2^attempt
  backoffCapMs: 30_000,
  stableMs: 5_000, // a session that lasted this long starts the back-off anew
  syncLimit: 100,
  maxFrame: 1 << 20, // largest body taken from the gateway, in bytes
  maxPending: 1_000, // messages that may wait to be stored
  maxPendingBytes: 4 << 20,
  sendTimeoutMs: 300_000, // then `send` rejects with TimeoutError; 0: never
  rate: 40, // messages a second after a burst: below the gateway's default, so that a resend is never throttled
  burst: 100,
};

/**
 * Connect and log in; resolves when the session is ready, rejects when that is refused for good or takes `timeoutMs`.
 * Options: `token` (text) or `tokenProvider` (async ({ refused }) => text; asked again when the gateway refuses one),
 * `deviceId` ([A-Za-z0-9_-]{1,64}), and what DEFAULTS lists.
 */
export async function connect(url, { timeoutMs = 30_000, ...options }) {
  const client = new GatewayClient(url, options);
  const timer = setTimeout(() => client.close("not connected in time"), timeoutMs);
  try {
    await client.start();
    return client;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * One user's device at the gateway. Events, by `on(type, listener)`:
 * - `message` { msgId, from, to, group, content, contentType, timestamp, serverSeq, fetched }: each once, in order, also
 *   what this user sent from elsewhere; `fetched`: it came by Sync, so it is older than now
 * - `receipt` { msgId, status: "stored" | "delivered" | "read", serverSeq, timestamp } of a message sent from here
 * - `signal` { from, to, group, kind, data }, `event` { kind, data }, `error` { code, label, message }
 * - `state` { state, code, label, reason, retryInMs, transport }; state: idle, connecting, ready, waiting, stopped
 */
export class GatewayClient {
  #dialler;
  #options;
  #host;
  #listeners = { message: new Set(), receipt: new Set(), signal: new Set(), event: new Set(), error: new Set(), state: new Set() };
  #state = { state: "idle", code: 0, label: "", reason: "", retryInMs: 0, transport: "" };
  #link = null; // the wire, or the race for one, and everything that ends with it
  #epoch = 0; // counts attempts, so that a late answer of an older one is known as such
  #attempt = 0;
  #retry;
  #ticker;
  #watching;
  #token = null;
  #refused = 0;
  #seq = 0n;
  #timeline;
  #outgoing;
  #receipts = new Receipts(2_000);
  #started = null; // { promise, resolve, reject }

  userId = 0n;
  session = null; // the last AuthAck

  constructor(url, { host, ...options }) {
    this.#options = { ...DEFAULTS, ...options };
    this.#host = { ...HOST, ...host };
    this.#dialler = new Dialler(this.#host, url, this.#options.webTransport);
    const { deviceId, token, tokenProvider, cursor, maxPending, maxPendingBytes, sendTimeoutMs, rate, burst } = this.#options;
    if (!NAME.test(deviceId)) throw new RangeError("deviceId is 1 to 64 characters of A-Z a-z 0-9 _ -");
    if (!token && !tokenProvider) throw new TypeError("either token or tokenProvider is needed");
    this.#token = token ?? null;
    this.#timeline = new Timeline(cursor === null ? null : BigInt(cursor));
    this.#outgoing = new Outgoing({ maxMessages: maxPending, maxBytes: maxPendingBytes, timeoutMs: sendTimeoutMs, rate, burst });
  }

  /** Begin, or begin again after `stopped`; resolves when first ready, rejects when stopped before. */
  start() {
    if (this.#started && this.#state.state !== "stopped") return this.#started.promise;
    this.#started = {};
    this.#started.promise = new Promise((resolve, reject) => Object.assign(this.#started, { resolve, reject }));
    this.#started.promise.catch(() => {}); // `state` tells those who do not wait for it
    this.#attempt = 0;
    this.#ticker = this.#host.setInterval(() => this.#tick(), TICK_MS);
    this.#watch();
    this.#open();
    return this.#started.promise;
  }

  /** End for good: what waits is rejected. */
  close(reason = "closed by the application") {
    const link = this.#link;
    if (this.#state.state === "stopped") return;
    this.#forget();
    if (link) hangUp(link, 1000);
    this.#stop(1000, reason);
  }

  /** Listen; returns a function that ends it. Messages are only taken from the gateway while somebody listens. */
  on(type, listener) {
    const listeners = this.#listeners[type];
    if (!listeners) throw new TypeError(`no event ${type}`);
    listeners.add(listener);
    if (type === "message") this.#wantSync();
    return () => listeners.delete(listener);
  }

  /**
   * Send text to a user or a group; resolves with { msgId, serverSeq, timestamp } when it is stored.
   * Waits through lost links. Rejects with GatewayError when refused, TimeoutError when its fate is unknown,
   * RangeError for ids that are none.
   */
  async send({ to, group, content, contentType = 0, msgId = newMessageId() }) {
    if (!NAME.test(msgId)) throw new RangeError("msgId is 1 to 64 characters of A-Z a-z 0-9 _ -");
    const message = { msgId, ...target(to, group), content: String(content), contentType, timestamp: Date.now() };
    if (this.#state.state === "stopped") throw new GatewayError(this.#state.code, this.#state.reason);
    const limit = this.session?.maxFrame || 65_536;
    if (encode(MsgType.Message, message).length - HEADER > limit) throw new GatewayError(Code.FRAME_TOO_LARGE);
    const stored = this.#outgoing.add(message, this.#host.now());
    this.#pump();
    return stored;
  }

  /** Send something that may be lost (typing, presence); false when it was not even sent. `data`: Uint8Array. */
  signal({ to, group, kind, data }) {
    if (!this.#ready) return false;
    return this.#transmit(MsgType.Signal, { ...target(to, group), kind, data }) > 0n;
  }

  /** Tell the sender of a delivered message that it was read. Kept over lost links. */
  markRead(message) {
    this.#acknowledge(message, AckStatus.Read);
    this.#pump();
  }

  /** idle, connecting, ready, waiting or stopped, and why. */
  get state() {
    return this.#state;
  }

  /** The last serverSeq handed to the application: keep it, and give it to the next client as `cursor`. */
  get cursor() {
    return this.#timeline.cursor;
  }

  /** Sizes of what is kept. */
  statistics() {
    return { pending: this.#outgoing.size, receipts: this.#receipts.size, attempt: this.#attempt };
  }

  get #ready() {
    return Boolean(this.#link?.readyAt);
  }

  // --- the link's life ---

  async #open() {
    this.#epoch += 1;
    const epoch = this.#epoch;
    this.#become("connecting");
    try {
      const token = this.#token ?? (await this.#newToken());
      if (epoch !== this.#epoch) return;
      this.#token = token;
      await this.#dial(epoch);
    } catch (error) {
      if (epoch === this.#epoch) this.#later(Code.AUTH_UNAVAILABLE, error.message);
    }
  }

  #newToken() {
    const { promise, settle } = deadline(this.#host, ANSWER_MS, "no token in time");
    Promise.resolve(this.#options.tokenProvider({ refused: this.#refused })).then(settle.resolve, settle.reject);
    return promise;
  }

  async #dial(epoch) {
    const now = this.#host.now();
    const link = { race: null, wire: null, openedAt: now, readyAt: 0, receivedAt: now, beatAt: now, probeAt: 0, proofSeq: 0n, syncDue: Infinity, syncSeq: 0n, syncAt: 0, syncFailures: 0, code: 0, says: "", leaveAt: 0 };
    this.#link = link;
    const told = { won: (wire) => this.#opened(link, wire), lost: ({ code, reason }) => this.#lost(link, code, reason) };
    const ways = await this.#dialler.ways();
    if (epoch === this.#epoch) link.race = new Race(this.#host, ways, told);
  }

  #opened(link, wire) {
    [link.race, link.wire] = [null, wire];
    link.decoders = new Map([CONTROL, MESSAGE].map((lane) => [lane, new FrameDecoder(this.#options.maxFrame)]));
    wire.ondata = (lane, bytes) => this.#received(link, link.decoders.get(lane), bytes);
    wire.ondatagram = (bytes) => this.#received(link, new FrameDecoder(this.#options.maxFrame), bytes);
    wire.ontext = () => this.#abandon(link, Code.INTERNAL_ERROR, "a text message from the gateway");
    wire.onclose = ({ code, reason }) => this.#lost(link, code, reason);
    const { deviceId, platform } = this.#options;
    link.authSeq = this.#transmit(MsgType.Auth, { token: this.#token, deviceId, platform, client: "gateway-client.js" });
  }

  #received(link, decoder, bytes) {
    link.receivedAt = this.#host.now();
    try {
      decoder.feed(bytes, (type, body) => {
        if (link === this.#link) this.#handle(link, decode(type, body));
      });
    } catch (error) {
      // The stream cannot be read on from here, but another link may be sound: not the code's own "never".
      this.#abandon(link, Code.INTERNAL_ERROR, `unreadable: ${error.message}`);
    }
  }

  /** Give a link up without waiting for its peer. */
  #abandon(link, code, reason) {
    hangUp(link, code);
    this.#lost(link, code, reason);
  }

  #lost(link, closeCode, closeReason) {
    if (link !== this.#link) return;
    const now = this.#host.now();
    if (link.readyAt && now - link.readyAt >= this.#options.stableMs) this.#attempt = 0;
    if (!link.readyAt && link.wire && (closeCode < 4000 || closeCode === Code.HEARTBEAT_TIMEOUT)) this.#dialler.failed(link.wire.kind);
    this.#forget();
    const code = link.code || closeCode;
    const reason = link.says || closeReason || labelOf(code);
    const next = reconnectAfter(code);
    if (next === "never" || (next === "new-token" && !this.#options.tokenProvider)) {
      this.#stop(code, reason);
      return;
    }
    if (next === "new-token") [this.#token, this.#refused] = [null, code];
    this.#later(code, reason, link.leaveAt ? Math.max(0, link.leaveAt - now) : undefined);
  }

  /** Let go of the link; nothing that it still says is heard. */
  #forget() {
    this.#epoch += 1;
    const link = this.#link;
    this.#link = null;
    this.#host.clearTimeout(this.#retry);
    if (!link) return;
    link.race?.cancel();
    link.wire?.abandon();
    this.#timeline.lost();
    this.#outgoing.lost();
    this.#receipts.lost();
  }

  #later(code, reason, planned) {
    const { backoffMs, backoffCapMs } = this.#options;
    const delay = planned ?? this.#host.random() * Math.min(backoffCapMs, backoffMs * 2 ** this.#attempt);
    this.#attempt += 1;
    this.#retry = this.#host.setTimeout(() => this.#open(), delay);
    this.#become("waiting", code, reason, delay);
  }

  #stop(code, reason) {
    this.#host.clearInterval(this.#ticker);
    this.#host.clearTimeout(this.#retry);
    this.#watching?.abort();
    const error = new GatewayError(code, reason);
    this.#become("stopped", code, reason);
    this.#outgoing.abandon(error);
    this.#started?.reject(error);
  }

  #become(state, code = 0, reason = "", retryInMs = 0) {
    const transport = state === "ready" ? this.#link.wire.kind : "";
    this.#state = { state, code, label: code ? labelOf(code) : "", reason, retryInMs, transport };
    this.#emit("state", this.#state);
  }

  // --- what the gateway says ---

  #handle(link, { type, seq, message }) {
    if (message === null) return; // a type or a payload that this client does not know
    if (!link.readyAt && (type === MsgType.Message || type === MsgType.SyncAck)) return;
    switch (type) {
      case MsgType.AuthAck:
        return this.#loggedIn(link, message);
      case MsgType.Heartbeat:
        return link.wire.lanes && seq !== link.proofSeq ? undefined : this.#receipts.confirmed(seq); // its own lane's proof
      case MsgType.Message:
        return this.#delivered([message], this.#listeners.message.size ? this.#timeline.accept({ ...message, fetched: false }) : null);
      case MsgType.SyncAck:
        return this.#synced(link, seq, message);
      case MsgType.MessageAck:
        return this.#acknowledged(message);
      case MsgType.Signal:
        return this.#emit("signal", message);
      case MsgType.Event:
        return this.#emit("event", message);
      case MsgType.Error:
        return this.#failed(link, seq, message);
      case MsgType.Kick:
        [link.code, link.says] = [message.code, message.message];
        return undefined;
      case MsgType.GoAway:
        return this.#leave(link, message);
      default:
        return undefined;
    }
  }

  #loggedIn(link, session) {
    if (link.readyAt) return;
    if (session.code) {
      [link.code, link.says] = [session.code, session.message];
      this.#abandon(link, session.code, session.message);
      return;
    }
    link.readyAt = this.#host.now() || 1;
    link.intervalMs = session.heartbeatIntervalMs || 30_000;
    link.timeoutMs = session.heartbeatTimeoutMs || 90_000;
    this.session = session;
    this.userId = session.userId;
    this.#refused = 0;
    this.#dialler.served(link.wire.kind);
    this.#become("ready");
    this.#started.resolve(this);
    this.#wantSync();
    this.#pump();
  }

  #delivered(acknowledge, passed) {
    if (!passed) return; // nobody listens: not taken, so Sync brings it when somebody does
    const messages = passed.duplicate ? acknowledge : passed.messages;
    for (const message of messages) {
      const own = message.from === this.userId && this.#outgoing.stored(message); // its Stored was lost with a link
      if (!own && !passed.duplicate) this.#emit("message", message);
      this.#acknowledge(message, AckStatus.Delivered);
    }
    if (passed.sync) this.#wantSync();
    this.#pump();
  }

  #synced(link, seq, answer) {
    if (seq !== link.syncSeq) return;
    if (answer.code) {
      this.#syncFailed(link, 0);
      return;
    }
    link.syncFailures = 0;
    link.syncSeq = 0n;
    this.#delivered([], this.#timeline.synced(answer));
  }

  #syncFailed(link, waitMs) {
    this.#timeline.syncing = false;
    link.syncSeq = 0n;
    link.syncFailures += 1;
    const { backoffMs, backoffCapMs } = this.#options;
    this.#wantSync(Math.max(waitMs, this.#host.random() * Math.min(backoffCapMs, backoffMs * 2 ** link.syncFailures)));
  }

  #acknowledged(ack) {
    const { msgId, status, serverSeq, timestamp } = ack;
    if (status === AckStatus.Rejected) {
      this.#outgoing.refused((entry) => entry.message.msgId === msgId, ack.code, labelOf(ack.code), this.#host.now(), this.#patience(0));
    } else if (status !== AckStatus.Accepted) {
      const sentFromHere = this.#outgoing.stored(ack);
      if (sentFromHere && status === AckStatus.Stored && serverSeq) this.#delivered([], this.#timeline.own(serverSeq));
      this.#emit("receipt", { msgId, status: AckStatus[status]?.toLowerCase() ?? "", serverSeq, timestamp });
    }
  }

  #failed(link, seq, { code, message, retryAfterMs }) {
    const waitMs = this.#patience(retryAfterMs);
    if (seq === link.authSeq && !link.readyAt) [link.code, link.says] = [code, message];
    else if (seq && seq === link.syncSeq) this.#syncFailed(link, waitMs);
    else if (!seq || !this.#outgoing.refused((entry) => entry.seq === seq, code, message, this.#host.now(), waitMs)) {
      this.#emit("error", { code, label: labelOf(code), message });
    }
  }

  #leave(link, { reconnectAfterMs, jitterMs, endpoints }) {
    const delay = Math.min(LONGEST_WAIT_MS, reconnectAfterMs + this.#host.random() * jitterMs);
    link.leaveAt = this.#host.now() + delay;
    this.#dialler.move(endpoints, link.wire.kind);
    this.#host.clearTimeout(this.#retry);
    this.#retry = this.#host.setTimeout(() => this.#abandon(link, Code.GOING_AWAY, ""), delay);
  }

  #patience(askedMs) {
    const { backoffMs, backoffCapMs } = this.#options;
    return Math.min(LONGEST_WAIT_MS, Math.max(askedMs, backoffMs + this.#host.random() * backoffCapMs * 0.1));
  }

  // --- what goes out ---

  /** Send one frame; returns its seq, or 0n when the wire cannot take it now. */
  #transmit(type, message, lane = ON_MESSAGE_LANE.includes(type) ? MESSAGE : CONTROL) {
    const { wire } = this.#link;
    if (!wire?.open || wire.full(lane)) return 0n;
    this.#seq += 1n;
    const frame = encode(type, message, this.#seq, Date.now());
    if (type !== MsgType.Signal || !wire.datagram(frame)) wire.send(lane, frame);
    return this.#seq;
  }

  #acknowledge({ msgId, serverSeq, from }, status) {
    if (serverSeq && from !== this.userId) this.#receipts.add({ msgId, serverSeq, status });
  }

  #wantSync(waitMs = 0) {
    if (!this.#ready || this.#timeline.cursor === null) return;
    this.#link.syncDue = this.#host.now() + waitMs;
    if (!waitMs) this.#pump();
  }

  /** Send whatever is due. */
  #pump() {
    const link = this.#link;
    if (!link?.readyAt) return;
    const now = this.#host.now();
    if (link.syncDue <= now && !this.#timeline.syncing && this.#listeners.message.size) {
      link.syncSeq = this.#transmit(MsgType.Sync, { cursor: this.#timeline.cursor, limit: this.#options.syncLimit });
      if (link.syncSeq) {
        this.#timeline.asked();
        [link.syncDue, link.syncAt] = [Infinity, now];
      }
    }
    this.#receipts.pump((receipt) => this.#transmit(MsgType.MessageAck, { ...receipt, timestamp: Date.now() }));
    this.#outgoing.pump(now, (entry) => {
      entry.seq = this.#transmit(MsgType.Message, entry.message);
      return entry.seq > 0n;
    });
  }

  #beat(link, now) {
    link.beatAt = now;
    this.#transmit(MsgType.Heartbeat);
    if (link.wire.lanes) link.proofSeq = this.#transmit(MsgType.Heartbeat, {}, MESSAGE); // is answered on that lane
  }

  /** Once a second: every deadline. */
  #tick() {
    const now = this.#host.now();
    this.#outgoing.expire(now);
    const link = this.#link;
    if (!link) return;
    if (!link.readyAt) {
      if (now - link.openedAt > ANSWER_MS) this.#abandon(link, Code.HEARTBEAT_TIMEOUT, "no answer to the login");
      return;
    }
    const probeFailed = link.probeAt && link.receivedAt < link.probeAt && now - link.probeAt > ANSWER_MS;
    if (probeFailed || now - link.receivedAt > link.timeoutMs) {
      this.#abandon(link, Code.HEARTBEAT_TIMEOUT, "nothing heard from the gateway");
      return;
    }
    if (now - link.beatAt >= link.intervalMs) this.#beat(link, now);
    if (link.syncSeq && now - link.syncAt > ANSWER_MS) this.#syncFailed(link, 0);
    this.#pump();
  }

  /** Coming online or into view is a reason to look at once whether the link lives. */
  #watch() {
    this.#watching = new AbortController();
    const { signal } = this.#watching;
    const wake = () => this.#wake();
    globalThis.addEventListener?.("online", wake, { signal });
    globalThis.document?.addEventListener("visibilitychange", wake, { signal });
  }

  #wake() {
    if (globalThis.document?.hidden) return;
    if (this.#ready) {
      const now = this.#host.now();
      this.#link.probeAt = now;
      this.#beat(this.#link, now);
    } else if (this.#state.state === "waiting" && this.#state.code < 4000 && this.#state.retryInMs > TICK_MS) {
      this.#host.clearTimeout(this.#retry); // only after a lost link: a gateway that said "later" means it
      this.#open();
    }
  }

  #emit(type, detail) {
    for (const listener of [...this.#listeners[type]]) {
      try {
        listener(detail);
      } catch (error) {
        this.#host.report(error);
      }
    }
  }
}
