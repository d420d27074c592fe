// Bytes <-> plain objects: frames, the tables of schema/message.fbs, the code table (docs/protocol.md).
// No socket, timer, clock or DOM belongs in here. 64-bit ids and sequence numbers are BigInt; timestamps are Numbers.

import { Builder, ByteBuffer } from "./flatbuffers.js";
import * as fbs from "./message.js";

export const { MsgType, AckStatus } = fbs;
export const HEADER = 6;

/** One number says why: in frames and as WebSocket close code. */
export const Code = Object.freeze({
  OK: 0,
  MALFORMED_FRAME: 4000,
  FRAME_TOO_LARGE: 4001,
  UNKNOWN_TYPE: 4002,
  TYPE_MISMATCH: 4003,
  INVALID_PAYLOAD: 4004,
  OUT_OF_ORDER: 4005,
  EARLY_DATA_REFUSED: 4006,
  VERSION_UNSUPPORTED: 4007,
  TOKEN_INVALID: 4100,
  TOKEN_EXPIRED: 4101,
  USER_BANNED: 4102,
  AUTH_TIMEOUT: 4103,
  AUTH_UNAVAILABLE: 4104,
  REPLACED_BY_SAME_DEVICE: 4200,
  KICKED_BY_POLICY: 4201,
  KICKED_BY_ADMIN: 4202,
  SESSION_EXPIRED: 4203,
  NODE_FULL: 4300,
  TOO_MANY_CONNECTIONS: 4301,
  RATE_LIMITED: 4302,
  SLOW_CONSUMER: 4303,
  TOO_MANY_STREAMS: 4304,
  GOING_AWAY: 4400,
  INTERNAL_ERROR: 4401,
  UPSTREAM_UNAVAILABLE: 4402,
  HEARTBEAT_TIMEOUT: 4403,
});

const LABELS = new Map(Object.entries(Code).map(([name, code]) => [code, name.toLowerCase()]));

/** The table's name of a code, or `code 1006` for one that is not in it. */
export const labelOf = (code) => LABELS.get(code) ?? `code ${code}`;

/** What a client may do after a close with `code`: "never", "new-token" or "backoff". */
export function reconnectAfter(code) {
  const range = Math.floor(code / 100);
  if (range === 40 || range === 42) return "never";
  if (range === 41 && code !== Code.AUTH_UNAVAILABLE) return "new-token";
  return "backoff"; // also a lost link: whatever is not in the table is worth another try
}

/** A refusal by the gateway, by this module, or the reason of a close; `code` is of the table. */
export class GatewayError extends Error {
  constructor(code, message = "") {
    super(message || labelOf(code));
    this.name = "GatewayError";
    this.code = code;
    this.label = labelOf(code);
  }
}

/** Cuts a byte stream into frames. A chunk may hold several frames or any part of one. */
export class FrameDecoder {
  #limit;
  #rest = new Uint8Array(0);
  #used = 0;

  /** `limit`: the largest body in bytes; a larger one is refused on its header, before it is waited for. */
  constructor(limit) {
    this.#limit = limit;
  }

  /** Call `handle(type, body)` for each frame that is whole now. Bodies stay valid; nothing overwrites them. */
  feed(chunk, handle) {
    const data = this.#used ? this.#append(chunk) : chunk;
    let at = 0;
    while (data.length - at >= HEADER) {
      const header = new DataView(data.buffer, data.byteOffset + at, HEADER);
      const end = at + HEADER + header.getUint32(0);
      if (end - at - HEADER > this.#limit) throw new GatewayError(Code.FRAME_TOO_LARGE);
      if (end > data.length) break;
      handle(header.getUint16(4), data.subarray(at + HEADER, end));
      at = end;
    }
    if (at > 0 || data === chunk) {
      this.#rest = data.slice(at); // a copy: the frames handed out keep the old buffer
      this.#used = this.#rest.length;
    }
  }

  #append(chunk) {
    const length = this.#used + chunk.length;
    if (length > this.#rest.length) {
      const larger = new Uint8Array(Math.max(length, 2 * this.#rest.length)); // grows with what came, not with what was declared
      larger.set(this.#rest.subarray(0, this.#used));
      this.#rest = larger;
    }
    this.#rest.set(chunk, this.#used);
    this.#used = length;
    return this.#rest.subarray(0, length);
  }
}

const milliseconds = (value) => Number(value);
const text = (value) => value ?? "";
const bytes = (value) => value?.slice() ?? new Uint8Array(0);

/** Reads `count` elements of a vector whose declared length was checked against the bytes there are. */
function elements(count, available, read) {
  if (count < 0 || count * 4 > available) throw new RangeError("a vector longer than its frame");
  return Array.from({ length: count }, (_, index) => read(index));
}

const chat = (table) => ({
  msgId: text(table.msgId()),
  from: table.fromUser(),
  to: table.toUser(),
  group: table.groupId(),
  content: text(table.content()),
  contentType: table.contentType(),
  timestamp: milliseconds(table.timestamp()),
  serverSeq: table.serverSeq(),
});

const READERS = {
  [MsgType.Auth]: (buffer) => {
    const t = fbs.AuthRequest.getRootAsAuthRequest(buffer);
    return {
      token: text(t.token()),
      deviceId: text(t.deviceId()),
      platform: text(t.platform()),
      protocolVersion: t.protocolVersion(),
      client: text(t.client()),
      resumeTicket: text(t.resumeTicket()),
      syncCursor: t.syncCursor(),
    };
  },
  [MsgType.AuthAck]: (buffer) => {
    const t = fbs.AuthResponse.getRootAsAuthResponse(buffer);
    return {
      code: t.code(),
      userId: t.userId(),
      message: text(t.message()),
      sessionId: text(t.sessionId()),
      nodeId: text(t.nodeId()),
      heartbeatIntervalMs: t.heartbeatIntervalMs(),
      heartbeatTimeoutMs: t.heartbeatTimeoutMs(),
      maxFrame: t.maxFrame(),
      serverTime: milliseconds(t.serverTime()),
      resumeTicket: text(t.resumeTicket()),
    };
  },
  [MsgType.Error]: (buffer) => {
    const t = fbs.Error.getRootAsError(buffer);
    return { code: t.code(), message: text(t.message()), retryAfterMs: t.retryAfterMs() };
  },
  [MsgType.Kick]: (buffer) => {
    const t = fbs.Kick.getRootAsKick(buffer);
    return { code: t.code(), message: text(t.message()), deviceId: text(t.deviceId()), platform: text(t.platform()) };
  },
  [MsgType.GoAway]: (buffer, size) => {
    const t = fbs.GoAway.getRootAsGoAway(buffer);
    return {
      code: t.code(),
      message: text(t.message()),
      reconnectAfterMs: t.reconnectAfterMs(),
      jitterMs: t.jitterMs(),
      endpoints: elements(t.endpointsLength(), size, (index) => text(t.endpoints(index))),
    };
  },
  [MsgType.Message]: (buffer) => chat(fbs.ChatMessage.getRootAsChatMessage(buffer)),
  [MsgType.MessageAck]: (buffer) => {
    const t = fbs.MessageAck.getRootAsMessageAck(buffer);
    return {
      msgId: text(t.msgId()),
      status: t.status(),
      code: t.code(),
      serverSeq: t.serverSeq(),
      timestamp: milliseconds(t.timestamp()),
    };
  },
  [MsgType.Signal]: (buffer) => {
    const t = fbs.Signal.getRootAsSignal(buffer);
    return { to: t.toUser(), from: t.fromUser(), group: t.groupId(), kind: text(t.kind()), data: bytes(t.dataArray()) };
  },
  [MsgType.Sync]: (buffer) => {
    const t = fbs.SyncRequest.getRootAsSyncRequest(buffer);
    return { cursor: t.cursor(), limit: t.limit() };
  },
  [MsgType.SyncAck]: (buffer, size) => {
    const t = fbs.SyncResponse.getRootAsSyncResponse(buffer);
    return {
      code: t.code(),
      messages: elements(t.messagesLength(), size, (index) => chat(t.messages(index))),
      nextCursor: t.nextCursor(),
      hasMore: t.hasMore(),
    };
  },
  [MsgType.Event]: (buffer) => {
    const t = fbs.Event.getRootAsEvent(buffer);
    return { kind: text(t.kind()), data: bytes(t.dataArray()) };
  },
};

const WRITERS = {
  [MsgType.Auth]: (b, m) => {
    const strings = [m.token, m.deviceId, m.platform].map((value) => b.createString(value));
    return fbs.AuthRequest.createAuthRequest(b, ...strings, 1, b.createString(m.client ?? ""), 0, 0n);
  },
  [MsgType.Message]: (b, m) => {
    const [id, content] = [m.msgId, m.content].map((value) => b.createString(value));
    const contentType = m.contentType ?? 0;
    return fbs.ChatMessage.createChatMessage(b, id, 0n, m.to ?? 0n, content, contentType, BigInt(m.timestamp ?? 0), m.group ?? 0n, 0n);
  },
  [MsgType.MessageAck]: (b, m) =>
    fbs.MessageAck.createMessageAck(b, b.createString(m.msgId), m.status, 0, m.serverSeq, BigInt(m.timestamp ?? 0)),
  [MsgType.Signal]: (b, m) => {
    const [kind, data] = [b.createString(m.kind), fbs.Signal.createDataVector(b, m.data ?? [])];
    return fbs.Signal.createSignal(b, m.to ?? 0n, 0n, m.group ?? 0n, kind, data);
  },
  [MsgType.Sync]: (b, m) => fbs.SyncRequest.createSyncRequest(b, m.cursor, m.limit),
};

/** The whole frame of `message` (see READERS for its fields). `seq` and `timestamp` go into the Packet. */
export function encode(type, message = {}, seq = 0n, timestamp = 0) {
  const body = new Builder(256);
  let payload = 0;
  if (type in WRITERS) {
    const inner = new Builder(256);
    inner.finish(WRITERS[type](inner, message));
    const written = inner.asUint8Array();
    body.startVector(1, written.length, 8); // eight: the nested buffer's own 64-bit fields stay aligned
    for (let index = written.length - 1; index >= 0; index -= 1) body.addInt8(written[index]);
    payload = body.endVector();
  }
  body.finish(fbs.Packet.createPacket(body, seq, type, BigInt(timestamp), payload));
  const packet = body.asUint8Array();
  const frame = new Uint8Array(HEADER + packet.length);
  const header = new DataView(frame.buffer);
  header.setUint32(0, packet.length);
  header.setUint16(4, type);
  frame.set(packet, HEADER);
  return frame;
}

/**
 * Read a frame's body: `{ type, seq, timestamp, message }`, `message` null for types that this client does not know.
 * The npm reader does not verify; what it reads beyond the buffer is zero, and lengths are checked here.
 */
export function decode(type, body) {
  const beat = type === MsgType.Heartbeat; // the one type without a payload, or even without a packet
  if (beat && body.length === 0) return { type, seq: 0n, timestamp: 0, message: {} };
  try {
    const packet = fbs.Packet.getRootAsPacket(new ByteBuffer(body));
    if (packet.msgType() !== type) throw new GatewayError(Code.TYPE_MISMATCH);
    const payload = packet.payloadArray();
    const inside = !payload || payload.byteOffset + payload.length <= body.byteOffset + body.length;
    if (body.length < 8 || !inside) throw new RangeError("a payload outside its frame");
    const read = READERS[type];
    const message = beat ? {} : read && payload ? read(new ByteBuffer(payload), payload.length) : null;
    return { type, seq: packet.seq(), timestamp: milliseconds(packet.timestamp()), message };
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    throw new GatewayError(Code.MALFORMED_FRAME, `unreadable frame of type ${type}: ${error.message}`);
  }
}

/** A user or group id as BigInt from a safe integer, a BigInt or decimal text; throws RangeError otherwise. */
export function toId(value) {
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new RangeError(`not an exact id: ${value}`);
  const id = typeof value === "string" && !/^[0-9]{1,19}$/.test(value) ? 0n : BigInt(value);
  if (id <= 0n || id >= 2n ** 63n) throw new RangeError("an id is a positive 63-bit integer");
  return id;
}

/** Where a message or signal goes, as fields of its table. */
export function target(to, group) {
  if ((to === undefined) === (group === undefined)) throw new TypeError("exactly one of to and group is needed");
  return to === undefined ? { group: toId(group) } : { to: toId(to) };
}

/** 128 random bits as text: unique per sender. Keep it to send the same message again. */
export function newMessageId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
