// What the surroundings give: sockets, time, chance, addresses. Replaceable, so that tests need no network and no clock.

import { labelOf } from "./wire.js";

export const HOST = {
  WebSocket: globalThis.WebSocket,
  now: () => performance.now(),
  random: Math.random,
  setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
  setInterval: (callback, ms) => globalThis.setInterval(callback, ms),
  clearInterval: (timer) => globalThis.clearInterval(timer),
  report: (error) => (globalThis.reportError ?? console.error)(error),
};

/** `url` in full; throws TypeError when it is none of a gateway. */
export function gatewayUrl(url) {
  const parsed = new URL(url);
  if (!["ws:", "wss:"].includes(parsed.protocol)) throw new TypeError("the gateway's address begins with ws:// or wss://");
  return parsed.href;
}

/** The gateway may send its clients elsewhere, but never from an encrypted address to an open one. */
export function isSafeMove(from, to) {
  if (!URL.canParse(to)) return false;
  const { protocol } = new URL(to);
  return protocol === "wss:" || (protocol === "ws:" && new URL(from).protocol === "ws:");
}

/** Say goodbye without waiting for an answer. */
export function hangUp(ws, code) {
  if (ws.readyState <= 1) ws.close(code, code === 1000 ? "" : labelOf(code));
}

/** A promise that rejects after `ms` unless `settle` was faster. */
export function deadline(host, ms, reason) {
  const settle = {};
  const promise = new Promise((resolve, reject) => Object.assign(settle, { resolve, reject }));
  const timer = host.setTimeout(() => settle.reject(new Error(reason)), ms);
  promise.then(() => host.clearTimeout(timer), () => host.clearTimeout(timer));
  return { promise, settle };
}
