// What the surroundings give: transports, time, chance, memory. Replaceable, so that tests need no network and no clock.

import { labelOf } from "./wire.js";

export const HOST = {
  WebSocket: globalThis.WebSocket,
  WebTransport: globalThis.WebTransport, // only where the page's own address is secure
  storage: storage(),
  now: () => performance.now(),
  wall: () => Date.now(),
  random: Math.random,
  setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
  setInterval: (callback, ms) => globalThis.setInterval(callback, ms),
  clearInterval: (timer) => globalThis.clearInterval(timer),
  report: (error) => (globalThis.reportError ?? console.error)(error),
};

/** Say goodbye without waiting for an answer. */
export function hangUp({ race, wire }, code) {
  race?.cancel();
  wire?.close(code, code === 1000 ? "" : labelOf(code));
}

/** A promise that rejects after `ms` unless `settle` was faster. */
export function deadline(host, ms, reason) {
  const settle = {};
  const promise = new Promise((resolve, reject) => Object.assign(settle, { resolve, reject }));
  const timer = host.setTimeout(() => settle.reject(new Error(reason)), ms);
  promise.then(() => host.clearTimeout(timer), () => host.clearTimeout(timer));
  return { promise, settle };
}

function storage() {
  try {
    return globalThis.localStorage ?? null;
  } catch {
    return null; // a page that may not
  }
}
