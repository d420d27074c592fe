// Where to and by which transport: the application's address, what GoAway told, what has served well, what has not.

import { favourite, remember } from "./race.js";
import { WebSocketWire } from "./wires.js";
import { WebTransportWire } from "./webtransport.js";

const MOVES = 16; // addresses of a GoAway that are listened to

/** `url` in full; throws TypeError when it is none of a gateway. */
export function gatewayUrl(url) {
  const parsed = new URL(url);
  if (!["ws:", "wss:", "https:"].includes(parsed.protocol)) throw new TypeError("the gateway's address begins with ws://, wss:// or https://");
  return parsed.href;
}

/** The gateway may send its clients elsewhere, but never from an encrypted address to an open one. */
export function isSafeMove(from, to) {
  if (!URL.canParse(to)) return false;
  const { protocol } = new URL(to);
  return protocol === "wss:" || protocol === "https:" || (protocol === "ws:" && new URL(from).protocol === "ws:");
}

export class Dialler {
  #host;
  #url;
  #webTransport;
  #moves = [];
  #distrusted = null; // a transport that opened and then let nobody log in

  /**
   * `url`: ws, wss, or https for WebTransport alone. `webTransport`: a second way to the same gateway,
   * { url, certificateHashes } or an async function that returns it (or null), asked before each attempt.
   */
  constructor(host, url, webTransport) {
    this.#host = host;
    this.#url = gatewayUrl(url);
    this.#webTransport = webTransport;
  }

  /** For a Race: what starts a wire to the next address, the favourite transport's first; empty when none is spoken. */
  async ways() {
    const url = this.#moves.shift() ?? this.#url;
    const ways = {};
    const alone = url.startsWith("https:") ? { url } : null;
    const second = this.#host.WebTransport ? (alone ?? (url === this.#url ? await this.#asked() : null)) : null;
    if (second) ways.webtransport = () => new WebTransportWire(this.#host, second);
    if (!alone) ways.websocket = () => new WebSocketWire(this.#host, url);
    return favourite(this.#host, this.#url, Object.keys(ways), this.#distrusted).map((kind) => ways[kind]);
  }

  async #asked() {
    try {
      return typeof this.#webTransport === "function" ? await this.#webTransport() : this.#webTransport;
    } catch {
      return null; // WebSocket still is a way
    }
  }

  /** A login over `kind` succeeded. */
  served(kind) {
    this.#distrusted = null;
    this.#moves = [];
    remember(this.#host, this.#url, kind);
  }

  /** `kind` opened and then ended without an answer to the login: the other one first, next time. */
  failed(kind) {
    this.#distrusted = kind;
  }

  /** GoAway told where to go. `kind`: what is spoken now, and so can be spoken there. */
  move(endpoints, kind) {
    const spoken = kind === "webtransport" ? ["https:"] : ["ws:", "wss:"];
    const usable = endpoints.filter((to) => isSafeMove(this.#url, to) && spoken.includes(new URL(to).protocol));
    this.#moves = usable.slice(0, MOVES);
  }
}
