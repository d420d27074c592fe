// Which transport: WebTransport and WebSocket are raced, the first that opens wins, and what served well is remembered.

const HEAD_START_MS = 400; // what the favourite has before the other one starts: a handshake and a half over a phone
const REMEMBERED_MS = 3_600_000; // networks change: after an hour WebTransport is the favourite again

/** The favourite among `kinds` (best first): what served this gateway well lately, and is not `distrusted`. */
export function favourite(host, key, kinds, distrusted) {
  const known = recall(host, key);
  const order = kinds.includes(known) ? [known, ...kinds.filter((each) => each !== known)] : [...kinds];
  return order.sort((a, b) => (a === distrusted) - (b === distrusted));
}

/** `kind` let the client log in. */
export function remember(host, key, kind) {
  try {
    host.storage?.setItem(`gateway:transport:${key}`, JSON.stringify({ kind, until: host.wall() + REMEMBERED_MS }));
  } catch {
    // private mode or full: the next race is run without a favourite
  }
}

function recall(host, key) {
  try {
    const { kind, until } = JSON.parse(host.storage?.getItem(`gateway:transport:${key}`) ?? "{}");
    return until > host.wall() && until <= host.wall() + REMEMBERED_MS ? kind : null;
  } catch {
    return null;
  }
}

/** Runs once: `won(wire)` with the first that opens, or `lost({ code, reason })` when none does. */
export class Race {
  #host;
  #makers;
  #running = new Set();
  #timer;
  #told;

  /** `makers`: functions that start a wire each, the favourite's first. */
  constructor(host, makers, told) {
    this.#host = host;
    this.#makers = [...makers];
    this.#told = told;
    if (makers.length) this.#next();
    else told.lost({ code: 1006, reason: "this browser speaks no transport of the gateway" });
  }

  /** Nobody wins any more. */
  cancel() {
    this.#host.clearTimeout(this.#timer);
    this.#makers = [];
    for (const wire of this.#running) {
      wire.abandon();
      wire.close(0);
    }
    this.#running.clear();
  }

  #next() {
    this.#host.clearTimeout(this.#timer);
    const make = this.#makers.shift();
    if (!make) return;
    if (this.#makers.length) this.#timer = this.#host.setTimeout(() => this.#next(), HEAD_START_MS);
    let wire;
    try {
      wire = make();
    } catch (error) {
      this.#failed(null, { code: 1006, reason: error.message }); // a policy of the page, or an address that is none
      return;
    }
    this.#running.add(wire);
    wire.onopen = () => this.#won(wire);
    wire.onclose = (end) => this.#failed(wire, end);
  }

  #won(wire) {
    this.#running.delete(wire);
    this.cancel();
    wire.abandon();
    this.#told.won(wire);
  }

  #failed(wire, end) {
    this.#running.delete(wire);
    wire?.abandon();
    if (this.#makers.length) this.#next();
    else if (!this.#running.size) this.#told.lost(end);
  }
}
