// The gateway over WebTransport (docs/protocol.md, section 5): control and messages on a stream each, Signals by datagram.

import { BUFFERED, CONTROL, MESSAGE, Wire } from "./wires.js";

const SUBPROTOCOL = "im.v1";
const LOST = 1006; // as WebSocket calls an end that nobody said anything about
const CLOSED_AFTER_MS = 500; // how much later than its streams a session may say why it ended
const DATAGRAMS_WAITING = 16; // what may be lost is not worth waiting for

/** `certificateHashes`: SHA-256 of self-signed certificates in hex; without them the browser's authorities decide. */
export class WebTransportWire extends Wire {
  kind = "webtransport";
  lanes = true;
  open = false;
  #host;
  #session;
  #lanes = new Map(); // lane -> { writer, waiting }
  #datagrams = null;
  #datagramsWaiting = 0;
  #ended = false;

  constructor(host, { url, certificateHashes = [] }) {
    super();
    this.#host = host;
    const hashes = certificateHashes.map((hex) => ({ algorithm: "sha-256", value: fromHex(hex) }));
    const options = { allowPooling: false, congestionControl: "low-latency", protocols: [SUBPROTOCOL] };
    this.#session = new host.WebTransport(url, hashes.length ? { ...options, serverCertificateHashes: hashes } : options);
    this.#session.closed.then(
      ({ closeCode, reason } = {}) => this.#end(closeCode || LOST, reason),
      (error) => this.#end(LOST, error?.message),
    );
    this.#begin().catch((error) => this.#fail(error));
  }

  async #begin() {
    await this.#session.ready;
    await this.#openLane(CONTROL);
    await this.#openLane(MESSAGE);
    this.#openDatagrams(this.#session.datagrams);
    if (this.#ended) return;
    this.open = true;
    this.onopen();
  }

  async #openLane(lane) {
    const { readable, writable } = await this.#session.createBidirectionalStream();
    this.#lanes.set(lane, { writer: writable.getWriter(), waiting: 0 });
    this.send(lane, Uint8Array.of(lane)); // a stream says first what it is
    this.#read(readable, (bytes) => this.ondata(lane, bytes)).then(
      () => lane === CONTROL && this.#fail(new Error("the gateway ended the control stream")),
      (error) => lane === CONTROL && this.#fail(error),
    );
  }

  #openDatagrams(datagrams) {
    if (!datagrams?.maxDatagramSize) return;
    const writable = datagrams.createWritable?.() ?? datagrams.writable;
    this.#datagrams = { writer: writable.getWriter(), source: datagrams };
    this.#read(datagrams.readable, (bytes) => this.ondatagram(bytes)).catch(() => {}); // `closed` tells
  }

  async #read(readable, hear) {
    const reader = readable.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || this.#ended) return;
      hear(value);
    }
  }

  full(lane) {
    return this.#lanes.get(lane).waiting > BUFFERED;
  }

  send(lane, bytes) {
    const each = this.#lanes.get(lane);
    each.waiting += bytes.length;
    each.writer.write(bytes).then(() => (each.waiting -= bytes.length), () => {}); // its end is told elsewhere
    return true;
  }

  datagram(bytes) {
    if (!this.#datagrams || bytes.length > this.#datagrams.source.maxDatagramSize) return false;
    if (this.#datagramsWaiting >= DATAGRAMS_WAITING) return false;
    this.#datagramsWaiting += 1;
    const written = () => (this.#datagramsWaiting -= 1);
    this.#datagrams.writer.write(bytes).then(written, written);
    return true;
  }

  close(code, reason = "") {
    if (this.#ended) return;
    this.#ended = true;
    this.open = false;
    try {
      this.#session.close({ closeCode: code === 1000 ? 0 : code, reason });
    } catch {
      // it has ended by itself
    }
  }

  /** A stream has failed: `closed` mostly knows why, and comes a little later. */
  #fail(error) {
    if (this.#ended) return;
    this.#host.setTimeout(() => {
      if (this.#ended) return;
      this.close(0);
      this.onclose({ code: LOST, reason: error?.message ?? "" });
    }, CLOSED_AFTER_MS);
  }

  #end(code, reason) {
    if (this.#ended) return;
    this.#ended = true;
    this.open = false;
    this.onclose({ code, reason: reason ?? "" });
  }
}

function fromHex(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
