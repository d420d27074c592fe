// The development chat page: a small use of gateway-client.js. Whatever came from the network is shown by textContent.

import { GatewayClient, labelOf } from "./gateway-client.js";

const SHOWN = 500; // messages kept per conversation
const TYPING_EVERY_MS = 2_000;
const TYPING_SHOWN_MS = 4_000;
const TICKS = { pending: ["…", "waiting"], stored: ["✓", "stored"], delivered: ["✓✓", "delivered"], read: ["✓✓", "read"], failed: ["!", "not sent"] };
const NAMES = { webtransport: "WebTransport", websocket: "WebSocket" };
const RANK = { failed: 0, pending: 1, stored: 2, delivered: 3, read: 4 };
const FILE = 40; // contentType of the message that announces a file (docs/protocol.md, Files)
const STOPPED = {
  4101: "Your token has expired.",
  4200: "This user was opened in another tab or window of this browser, so this one stopped.",
  4201: "This user signed in somewhere else.",
  4202: "An administrator ended this session.",
  4203: "The session has expired.",
};

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const isUser = (value) => /^[1-9][0-9]{0,18}$/.test(value ?? "");
const isPeer = (value) => /^g?[1-9][0-9]{0,18}$/.test(value ?? "");
const address = (peer) => (peer.startsWith("g") ? { group: peer.slice(1) } : { to: peer });
const nameOf = (peer) => (peer.startsWith("g") ? `Group ${peer.slice(1)}` : `User ${peer}`);

/** What the page says of a file, which it does not fetch. */
function fileText(json) {
  try {
    const { name, size } = JSON.parse(json);
    return `sent a file: ${name} (${size} bytes)`;
  } catch {
    return json;
  }
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** What a message looks like, and what can change about it. */
class Bubble {
  constructor({ mine, from, content, timestamp, status, showFrom }) {
    this.node = element("li", `message ${mine ? "mine" : "theirs"}`);
    if (showFrom) this.node.append(element("div", "from", from));
    const text = element("div", "content", content);
    text.dir = "auto";
    const meta = element("div", "meta");
    const time = element("time", "", new Date(timestamp).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    meta.append(time);
    if (mine) {
      this.tick = element("span", "tick");
      this.tick.role = "img";
      meta.append(this.tick);
    }
    this.meta = meta;
    this.node.append(text, meta);
    this.status = "failed";
    if (mine) this.become(status);
  }

  /** A tick never goes back: receipts may overtake one another. */
  become(status) {
    if (RANK[status] < RANK[this.status] && status !== "failed") return;
    this.status = status;
    [this.tick.textContent, this.tick.ariaLabel] = TICKS[status];
    this.tick.dataset.status = status;
    this.tick.title = TICKS[status][1];
  }
}

class Conversation {
  nodes = [];
  unread = [];
  divided = false;
}

class Chat {
  #user;
  #peer;
  #client;
  #conversations = new Map();
  #bubbles = new Map(); // msgId of what was sent from here -> Bubble
  #away = false; // from the loss of a session, or the page's opening, to the first live message
  #readUpTo;
  #typedAt = -Infinity;
  #typingTimer;
  #countdown;
  #atEnd = true; // the newest message is in view, and stays so when the list's size changes

  constructor(user, peer, { token, url }) {
    this.#user = user;
    this.#readUpTo = BigInt(stored(`read:${user}`, () => "0"));
    this.#away = this.#readUpTo > 0n;
    const tokenProvider = async () => (await fetchToken(user)).token;
    const deviceId = stored(`device:${user}`, () => `web-${crypto.randomUUID()}`);
    const webTransport = async () => (await fetchToken(user)).webTransport; // its certificate changes every 13 days
    // The node is on this machine and restarted often: look for it more often than a client of a busy gateway may.
    this.#client = new GatewayClient(url, { token, tokenProvider, deviceId, webTransport, backoffCapMs: 5_000 });
    this.#client.on("state", (state) => this.#showState(state));
    this.#client.on("message", (message) => this.#received(message));
    this.#client.on("receipt", ({ msgId, status }) => this.#bubbles.get(msgId)?.become(status));
    this.#client.on("signal", (signal) => this.#signalled(signal));
    this.#client.on("error", ({ label, message }) => console.warn("gateway:", label, message));
    $("compose").addEventListener("submit", (event) => this.#submit(event));
    $("text").addEventListener("keydown", (event) => this.#key(event));
    $("text").addEventListener("input", () => this.#typed());
    $("again").addEventListener("click", () => this.#client.start().catch(() => {}));
    document.addEventListener("visibilitychange", () => this.#read());
    new ResizeObserver(() => this.#stick()).observe($("messages"));
    $("messages").addEventListener("scroll", () => (this.#atEnd = isAtEnd()), { passive: true });
    this.#open(peer);
    this.#client.start().catch(() => {}); // the state says it
  }

  // --- conversations ---

  #conversation(peer) {
    if (!this.#conversations.has(peer)) this.#conversations.set(peer, new Conversation());
    return this.#conversations.get(peer);
  }

  #open(peer) {
    this.#peer = peer;
    $("title").textContent = nameOf(peer);
    document.title = `${nameOf(peer)} · ${this.#user}`;
    history.replaceState(null, "", `?${new URLSearchParams({ user: this.#user, peer })}`);
    $("messages").replaceChildren(...this.#conversation(peer).nodes);
    $("typing").textContent = "";
    this.#atEnd = true;
    this.#stick();
    this.#read();
    this.#showConversations();
  }

  #showConversations() {
    const chips = [...this.#conversations].map(([peer, { unread }]) => {
      const chip = element("button", "", nameOf(peer));
      chip.type = "button";
      chip.setAttribute("aria-current", String(peer === this.#peer));
      if (unread.length && peer !== this.#peer) chip.append(element("b", "", String(unread.length)));
      chip.addEventListener("click", () => this.#open(peer));
      return chip;
    });
    $("conversations").hidden = chips.length < 2;
    $("conversations").replaceChildren(...chips);
  }

  #append(peer, node) {
    const { nodes } = this.#conversation(peer);
    nodes.push(node);
    if (nodes.length > SHOWN) nodes.shift().remove();
    if (peer !== this.#peer) return;
    if (node.classList.contains("mine")) this.#atEnd = true;
    $("messages").append(node);
    this.#stick();
  }

  #stick() {
    if (this.#atEnd) toEnd();
  }

  // --- messages ---

  #received(message) {
    const mine = String(message.from) === this.#user;
    const peer = message.group ? `g${message.group}` : String(mine ? message.to : message.from);
    const conversation = this.#conversation(peer);
    if (!message.fetched && message.serverSeq <= this.#readUpTo) this.#readUpTo = message.serverSeq - 1n; // the store began anew
    const isNew = message.serverSeq > this.#readUpTo;
    if (!message.fetched) this.#away = false;
    else if (this.#away && isNew && !mine && !conversation.divided) {
      conversation.divided = true;
      this.#append(peer, element("li", "divider", "While you were away"));
    }
    const { timestamp } = message;
    const content = message.contentType === FILE ? fileText(message.content) : message.content;
    const bubble = new Bubble({ mine, content, timestamp, from: String(message.from), status: "stored", showFrom: !mine && message.group });
    if (mine) this.#bubbles.set(message.msgId, bubble);
    this.#append(peer, bubble.node);
    if (!mine && isNew) conversation.unread.push(message);
    if (peer === this.#peer) {
      if (!mine && !message.fetched) $("typing").textContent = "";
      this.#read();
    }
    this.#showConversations();
  }

  /** What is in view has been read. */
  #read() {
    if (document.hidden) return;
    const conversation = this.#conversation(this.#peer);
    for (const message of conversation.unread) {
      this.#client.markRead(message);
      if (message.serverSeq > this.#readUpTo) this.#readUpTo = message.serverSeq;
    }
    if (conversation.unread.length) keep(`read:${this.#user}`, String(this.#readUpTo));
    conversation.unread = [];
  }

  #submit(event) {
    event.preventDefault();
    const text = $("text");
    const content = text.value.trim();
    if (!content) return;
    text.value = "";
    fit(text);
    this.#typedAt = -Infinity;
    const bubble = new Bubble({ mine: true, content, timestamp: Date.now(), status: "pending" });
    this.#append(this.#peer, bubble.node);
    const msgId = crypto.randomUUID();
    this.#bubbles.set(msgId, bubble);
    this.#send(bubble, { ...address(this.#peer), content, msgId });
    text.focus();
  }

  async #send(bubble, message) {
    try {
      await this.#client.send(message);
      bubble.become("stored");
    } catch (error) {
      bubble.become("failed");
      bubble.tick.title = error.message;
      const retry = element("button", "", "Send again");
      retry.type = "button";
      retry.addEventListener("click", () => {
        retry.remove();
        bubble.become("pending");
        this.#send(bubble, message); // the same msgId: it arrives once, whatever became of the first
      });
      bubble.meta.append(retry);
    }
  }

  // --- typing ---

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("compose").requestSubmit();
  }

  #typed() {
    fit($("text"));
    const now = performance.now();
    if (!$("text").value || now - this.#typedAt < TYPING_EVERY_MS) return;
    if (this.#client.signal({ ...address(this.#peer), kind: "typing" })) this.#typedAt = now;
  }

  #signalled({ kind, from, group }) {
    const peer = group ? `g${group}` : String(from);
    if (kind !== "typing" || peer !== this.#peer || String(from) === this.#user) return;
    $("typing").textContent = `${nameOf(String(from))} is typing…`;
    clearTimeout(this.#typingTimer);
    this.#typingTimer = setTimeout(() => ($("typing").textContent = ""), TYPING_SHOWN_MS);
  }

  // --- state ---

  #showState({ state, code, reason, retryInMs, transport }) {
    clearInterval(this.#countdown);
    const line = $("state");
    line.dataset.state = state;
    line.dataset.code = code;
    line.dataset.transport = transport;
    const why = code >= 4000 ? ` (${labelOf(code)})` : "";
    if (state === "waiting") {
      this.#leave();
      const until = performance.now() + retryInMs;
      const tell = () => {
        const seconds = Math.ceil((until - performance.now()) / 1000);
        line.textContent = `Connection lost${why}. Trying again${seconds > 0 ? ` in ${seconds} s` : ""}…`;
      };
      tell();
      this.#countdown = setInterval(tell, 1_000);
    } else {
      const words = { connecting: "Connecting…", ready: `Connected as ${this.#user} over ${NAMES[transport]}`, stopped: "Disconnected", idle: "" };
      line.textContent = words[state];
    }
    $("banner").hidden = state !== "stopped";
    if (state === "stopped") {
      this.#leave();
      $("banner-text").textContent = STOPPED[code] ?? `The gateway ended this session: ${reason} (${code}).`;
      $("again").textContent = code === 4200 ? "Use here" : "Connect again";
    }
  }

  #leave() {
    this.#away = true;
    for (const conversation of this.#conversations.values()) conversation.divided = false;
  }
}

function toEnd() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

function isAtEnd() {
  const { scrollHeight, scrollTop, clientHeight } = $("messages");
  return scrollHeight - scrollTop - clientHeight < 80;
}

function fit(text) {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

function keep(name, value) {
  try {
    localStorage.setItem(`gateway:${name}`, value);
  } catch {
    // private mode or full: only the comfort of a remembered device is lost
  }
}

function stored(name, make) {
  let value = null;
  try {
    value = localStorage.getItem(`gateway:${name}`);
  } catch {
    // as above
  }
  if (value === null) keep(name, (value = make()));
  return value;
}

async function fetchToken(user) {
  const answer = await fetch(`/dev/token?user=${user}`, { signal: AbortSignal.timeout(10_000) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

/** The node may still be starting: keep asking, in sight of the user. */
async function begin(user, peer) {
  $("login").hidden = true;
  $("chat").hidden = false;
  $("title").textContent = nameOf(peer);
  let granted = null;
  for (let wait = 500; !granted; wait = Math.min(wait * 2, 10_000)) {
    try {
      granted = await fetchToken(user);
    } catch (error) {
      $("state").dataset.state = "waiting";
      $("state").textContent = `The node does not answer (${error.message}). Trying again…`;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
  new Chat(user, peer, granted);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  location.search = new URLSearchParams({ user: $("user").value, peer: $("peer").value });
});

if (isUser(query.get("user")) && isPeer(query.get("peer"))) begin(query.get("user"), query.get("peer"));
else {
  $("user").value = query.get("user") ?? "";
  $("peer").value = query.get("peer") ?? "";
}
