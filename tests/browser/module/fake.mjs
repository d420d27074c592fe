// A gateway's side for tests: server frames, a WebSocket without a network, and time that stands until told to pass.
import { Builder } from "../../../gateway/console/static/flatbuffers.js";
import * as fbs from "../../../gateway/console/static/message.js";
import { FrameDecoder, GatewayClient, MsgType, decode } from "./modules.mjs";

const chat = (b, m) => {
  const [id, content] = [b.createString(m.msgId), b.createString(m.content ?? "")];
  return fbs.ChatMessage.createChatMessage(b, id, m.from ?? 2n, m.to ?? 1n, content, 0, 5n, m.group ?? 0n, m.serverSeq);
};

const TABLES = {
  [MsgType.AuthAck]: (b, m) =>
    fbs.AuthResponse.createAuthResponse(b, m.code ?? 0, m.userId ?? 1n, b.createString(m.message ?? ""), 0, 0, 30_000, 90_000, 65_536, 7n, 0),
  [MsgType.Error]: (b, m) => fbs.Error.createError(b, m.code, b.createString(m.message ?? ""), m.retryAfterMs ?? 0),
  [MsgType.Kick]: (b, m) => fbs.Kick.createKick(b, m.code, b.createString(m.message ?? ""), 0, 0),
  [MsgType.GoAway]: (b, m) => {
    const endpoints = fbs.GoAway.createEndpointsVector(b, (m.endpoints ?? []).map((each) => b.createString(each)));
    return fbs.GoAway.createGoAway(b, 4400, 0, m.reconnectAfterMs, m.jitterMs, endpoints);
  },
  [MsgType.Message]: chat,
  [MsgType.MessageAck]: (b, m) => fbs.MessageAck.createMessageAck(b, b.createString(m.msgId), m.status, m.code ?? 0, m.serverSeq ?? 0n, 9n),
  [MsgType.Signal]: (b, m) => fbs.Signal.createSignal(b, 1n, m.from, 0n, b.createString(m.kind), 0),
  [MsgType.SyncAck]: (b, m) => {
    const messages = fbs.SyncResponse.createMessagesVector(b, m.messages.map((each) => chat(b, each)));
    return fbs.SyncResponse.createSyncResponse(b, m.code ?? 0, messages, m.nextCursor, m.hasMore ?? false);
  },
};

/** A frame as the gateway would send it. */
export function frame(type, fields = {}, seq = 0n) {
  const body = new Builder(64);
  let payload = 0;
  if (type in TABLES) {
    const inner = new Builder(64);
    inner.finish(TABLES[type](inner, fields));
    payload = fbs.Packet.createPayloadVector(body, inner.asUint8Array());
  }
  body.finish(fbs.Packet.createPacket(body, seq, type, 0n, payload));
  const packet = body.asUint8Array();
  const whole = new Uint8Array(6 + packet.length);
  new DataView(whole.buffer).setUint32(0, packet.length);
  new DataView(whole.buffer).setUint16(4, type);
  whole.set(packet, 6);
  return whole;
}

export const join = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));

/** Lets promises that are settled run their course. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

class FakeSocket {
  readyState = 0;
  bufferedAmount = 0;
  received = []; // decoded frames that the client sent
  closedWith = null;
  #decoder = new FrameDecoder(1 << 20);

  constructor(world, url, protocols) {
    Object.assign(this, { url, protocols });
    world.sockets.push(this);
  }

  send(bytes) {
    this.#decoder.feed(bytes, (type, body) => this.received.push(decode(type, body)));
  }

  close(code) {
    this.readyState = 2;
    this.closedWith = code;
  }

  // the gateway's side
  open() {
    this.readyState = 1;
    this.onopen?.();
  }

  say(...frames) {
    this.onmessage?.({ data: join(...frames).buffer });
  }

  end(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  of(type) {
    return this.received.filter((each) => each.type === type);
  }

  last(type) {
    return this.of(type).at(-1);
  }
}

/** Time, chance and sockets. `random` is 1 unless set: the longest back-off. */
export class World {
  sockets = [];
  now = 1_000;
  random = 1;
  reported = [];
  #timers = new Set();

  host() {
    const world = this;
    const add = (callback, at, every) => {
      const timer = { callback, at, every };
      world.#timers.add(timer);
      return timer;
    };
    return {
      WebSocket: class extends FakeSocket {
        constructor(url, protocols) {
          super(world, url, protocols);
        }
      },
      now: () => world.now,
      random: () => world.random,
      setTimeout: (callback, ms) => add(callback, world.now + ms, 0),
      clearTimeout: (timer) => world.#timers.delete(timer),
      setInterval: (callback, ms) => add(callback, world.now + ms, ms),
      clearInterval: (timer) => world.#timers.delete(timer),
      report: (error) => world.reported.push(error),
    };
  }

  get timers() {
    return this.#timers.size;
  }

  /** Let `ms` pass, running what is due in order. */
  async pass(ms) {
    const end = this.now + ms;
    await settled();
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.now = Math.max(this.now, due.at);
      if (due.every) due.at += due.every;
      else this.#timers.delete(due);
      due.callback();
      await settled();
    }
    this.now = end;
    await settled();
  }

  get socket() {
    return this.sockets.at(-1);
  }

  client(options = {}) {
    const client = new GatewayClient("ws://gateway.test/ws", { token: "t", deviceId: "d", host: this.host(), ...options });
    const seen = { states: [], messages: [], receipts: [], errors: [], signals: [] };
    client.on("state", (state) => seen.states.push(state));
    client.on("receipt", (receipt) => seen.receipts.push(receipt));
    client.on("error", (error) => seen.errors.push(error));
    client.on("signal", (signal) => seen.signals.push(signal));
    if (options.listen !== false) client.on("message", (message) => seen.messages.push(message));
    return { client, seen };
  }

  /** Bring the newest socket up and let the client in; answers its Sync with nothing unless told otherwise. */
  async admit({ sync = {} } = {}) {
    await settled();
    const { socket } = this;
    socket.open();
    socket.say(frame(MsgType.AuthAck, {}, socket.last(MsgType.Auth).seq));
    if (sync) await this.answerSync(sync);
    await settled();
    return socket;
  }

  async answerSync(answer) {
    const { socket } = this;
    const { seq, message } = socket.last(MsgType.Sync);
    socket.say(frame(MsgType.SyncAck, { messages: [], nextCursor: message.cursor, ...answer }, seq));
    await settled();
  }
}
