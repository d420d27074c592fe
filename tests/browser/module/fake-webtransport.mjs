// A WebTransport session without a network, and the gateway's side of it.
import { settled } from "./fake.mjs";
import { FrameDecoder, decode } from "./modules.mjs";

const LANES = { 1: "control", 2: "message" };

/** localStorage. */
export class Store extends Map {
  getItem(name) {
    return this.get(name) ?? null;
  }

  setItem(name, value) {
    this.set(name, value);
  }
}

/** What the client wrote on one stream. */
class Lane {
  received = [];
  #decoder = new FrameDecoder(1 << 20);
  #first = true;

  constructor(session) {
    this.readable = new ReadableStream({ start: (controller) => (this.controller = controller) });
    this.writable = new WritableStream({
      write: (bytes) => {
        if (this.#first) {
          session.lanes[LANES[bytes[0]]] = this;
          bytes = bytes.slice(1);
          this.#first = false;
        }
        this.#decoder.feed(bytes, (type, body) => this.received.push(decode(type, body)));
      },
    });
  }

  types() {
    return this.received.map((each) => each.type);
  }

  last(type) {
    return this.received.filter((each) => each.type === type).at(-1);
  }
}

export class FakeWebTransport {
  lanes = {};
  sentDatagrams = [];
  closedWith = null;

  constructor(url, options) {
    Object.assign(this, { url, options });
    this.ready = new Promise((resolve, reject) => (this.settleReady = { resolve, reject }));
    this.closed = new Promise((resolve, reject) => (this.settleClosed = { resolve, reject }));
    this.ready.catch(() => {});
    this.closed.catch(() => {});
    const readable = new ReadableStream({ start: (controller) => (this.incoming = controller) });
    const writable = new WritableStream({ write: (bytes) => void this.sentDatagrams.push(bytes) });
    this.datagrams = { maxDatagramSize: 1_024, readable, writable };
  }

  async createBidirectionalStream() {
    return new Lane(this);
  }

  close(info) {
    this.closedWith = info;
    this.settleClosed.resolve(info);
  }

  // the gateway's side
  async open() {
    this.settleReady.resolve();
    await settled();
  }

  async say(lane, bytes) {
    this.lanes[lane].controller.enqueue(bytes);
    await settled();
  }

  async datagram(bytes) {
    this.incoming.enqueue(bytes);
    await settled();
  }

  async finish(lane) {
    this.lanes[lane].controller.close();
    await settled();
  }

  async end(closeCode, reason) {
    this.settleClosed.resolve({ closeCode, reason });
    await settled();
  }

  async fail(reason) {
    this.settleReady.reject(new Error(reason));
    this.settleClosed.reject(new Error(reason));
    await settled();
  }
}
