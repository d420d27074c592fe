// A wire is an open link to the gateway, whatever the transport: WebSocket here, WebTransport in webtransport.js.
//
//   kind        "websocket" or "webtransport"
//   lanes       whether messages have a lane of their own, with an order of its own
//   open        bytes may be sent
//   full(lane)  too much waits on it
//   send(lane, bytes), datagram(bytes): false where it cannot
//   close(code, reason)
//   onopen(), ondata(lane, Uint8Array), ondatagram(Uint8Array), ontext(), onclose({ code, reason }): set by whoever has it
//
// After `close`, or once `abandon` was called, nothing more is told.

export const CONTROL = 1;
export const MESSAGE = 2;
export const BUFFERED = 1 << 20; // bytes that may wait in a lane before the client keeps the rest itself

const SUBPROTOCOL = "im.v1";

/** What all wires have: listeners that can be taken away. */
export class Wire {
  onopen = () => {};
  ondata = () => {};
  ondatagram = () => {};
  ontext = () => {};
  onclose = () => {};

  abandon() {
    this.onopen = this.ondata = this.ondatagram = this.ontext = this.onclose = () => {};
  }
}

/** Frames in binary WebSocket messages; one lane for all. */
export class WebSocketWire extends Wire {
  kind = "websocket";
  lanes = false;
  #ws;

  constructor(host, url) {
    super();
    this.#ws = new host.WebSocket(url, [SUBPROTOCOL]);
    this.#ws.binaryType = "arraybuffer";
    this.#ws.onopen = () => this.onopen();
    this.#ws.onmessage = ({ data }) => (typeof data === "string" ? this.ontext() : this.ondata(CONTROL, new Uint8Array(data)));
    this.#ws.onclose = ({ code, reason }) => this.onclose({ code, reason });
    this.#ws.onerror = () => {}; // tells nothing; onclose follows
  }

  get open() {
    return this.#ws.readyState === 1;
  }

  full() {
    return this.#ws.bufferedAmount > BUFFERED;
  }

  send(_lane, bytes) {
    this.#ws.send(bytes);
    return true;
  }

  datagram() {
    return false;
  }

  close(code, reason = "") {
    if (this.#ws.readyState <= 1) this.#ws.close(code || 1000, reason);
  }
}
