/**
 * The playground of a development node.
 *
 * Session speaks the JSON protocol over one WebSocket after another and keeps the page connected;
 * SharedCounter is arithmetic without I/O; the rest wires both to the elements of index.html.
 * Whatever comes from the network reaches the document as textContent only.
 */

const CHAT = "lobby:chat";
const COUNTER = "lobby:counter";
const SILENCE_GRACE_MS = 10_000; // beyond the ping interval; before the first ping, the whole limit
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 20_000;
const NO_PING = 2; // made on this side; the server's own codes start at 100
const MESSAGES_KEPT = 200;
const FRAMES_KEPT = 50;

/** What a reader can do about an error reply or a disconnect, by code. */
const ADVICE = {
  [NO_PING]: "The network or the gateway hangs.",
  100: "Something failed inside the gateway: its log tells more.",
  102: "The namespace of this channel is not configured: add “lobby” to the gateway's namespaces.",
  103: "Allow it in the options of the namespace “lobby”, or connect with a token that may.",
  107: "The gateway understood the command but not its content: look at it under Frames.",
  108: "This is switched off for the channel: see the options of its namespace.",
  109: "Paste a fresh token under “Connect with a token”.",
  111: "Wait a moment, then try again.",
  1006: "The gateway could not be reached, or it refused this page's origin. Is it running?",
  3001: "The node is going down.",
  3005: "The token ran out: paste a fresh one under “Connect with a token”.",
  3500: "Is the token complete, and signed with this gateway's key? Paste another one.",
  3501: "Mostly this means that the gateway wants a token: paste one under “Connect with a token”.",
  3503: "Somebody ended this connection through the server API.",
  3504: "This user has too many connections: close another page first.",
  3507: "The gateway does not let this user in: connect with another token.",
};

const isTerminal = (code) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) || code === 1009;

class ReplyError extends Error {
  constructor({ code, message, temporary = false }) {
    super(message);
    this.code = code;
    this.isTemporary = temporary || code < 100;
  }
}

class NotConnectedError extends Error {}

/**
 * One logical client: it dials, introduces itself, subscribes, answers pings and dials again.
 *
 * `on` has state(name, detail), subscribed(channel), publication(channel, publication),
 * failed(action, error) and frame(direction, text). States: connecting → connected → waiting →
 * connecting …, and stopped after a disconnect that forbids to reconnect.
 */
class Session {
  client = "";
  #socket = null;
  #token = "";
  #lastId = 0;
  #unsent = [];
  #pending = new Map();
  #failures = 0;
  #answersPings = false;
  #silenceLimitMs = 0;
  #silenceTimer = 0;
  #retryTimer = 0;
  #url;
  #channels;
  #on;

  constructor(url, channels, on) {
    this.#url = url;
    this.#channels = channels;
    this.#on = on;
  }

  /** Connect anew with *token* (empty: anonymous), whatever the state is. */
  open(token) {
    this.#token = token;
    this.#failures = 0;
    this.#abandon();
    this.#dial();
  }

  /** Resolve when the gateway has accepted *data*; reject with ReplyError or NotConnectedError. */
  publish(channel, data) {
    return this.#request("publish", { channel, data });
  }

  #dial() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#silenceLimitMs = SILENCE_GRACE_MS;
    this.#watchSilence();
    socket.onopen = () => this.#introduce();
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#on.state("connecting", {});
  }

  /** Give the socket up. A dead peer never completes the closing handshake, so nothing waits for it. */
  #abandon() {
    clearTimeout(this.#silenceTimer);
    clearTimeout(this.#retryTimer);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
    this.#unsent = [];
    this.#answersPings = false;
    for (const { reject } of this.#pending.values()) reject(new NotConnectedError("connection lost"));
    this.#pending.clear();
  }

  #lost(code, reason, mayRetry = !isTerminal(code)) {
    this.#abandon();
    if (!mayRetry) return this.#on.state("stopped", { code, reason });
    const delayMs = this.#backoffMs();
    this.#retryTimer = setTimeout(() => this.#dial(), delayMs);
    this.#on.state("waiting", { code, reason, delayMs });
  }

  /** Full jitter: the pages of a restarted node must not all come back in the same instant. */
  #backoffMs() {
    return Math.random() * Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++);
  }

  async #introduce() {
    const identity = this.#token ? { token: this.#token } : {};
    const connecting = this.#request("connect", { ...identity, name: "playground" });
    // Sent without waiting for the connect reply: all of it is one frame and one round trip.
    const joining = Promise.all(this.#channels.map((channel) => this.#subscribe(channel)));
    try {
      const { client, ping = 0, pong = false } = await connecting;
      this.client = client;
      this.#failures = 0;
      this.#answersPings = pong;
      this.#silenceLimitMs = ping && ping * 1_000 + SILENCE_GRACE_MS;
      this.#watchSilence();
      await joining;
      if (this.#socket && this.client === client) this.#on.state("connected", {});
    } catch (error) {
      if (error instanceof ReplyError) this.#lost(error.code, error.message, error.isTemporary);
    }
  }

  async #subscribe(channel) {
    const socket = this.#socket;
    try {
      await this.#request("subscribe", { channel });
      this.#on.subscribed(channel);
    } catch (error) {
      // A lost connection needs nothing here: the next one subscribes again.
      if (!(error instanceof ReplyError)) return;
      this.#on.failed(`Subscribing to ${channel}`, error);
      if (error.isTemporary) setTimeout(() => socket === this.#socket && this.#subscribe(channel), this.#backoffMs());
    }
  }

  #request(method, params) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.reject(new NotConnectedError("not connected"));
    const id = ++this.#lastId;
    this.#send({ id, [method]: params });
    return new Promise((resolve, reject) => this.#pending.set(id, { method, resolve, reject }));
  }

  /** Queue a command; all that one turn of the event loop produces leaves in one frame. */
  #send(command) {
    if (this.#unsent.push(command) === 1) queueMicrotask(() => this.#flush());
  }

  #flush() {
    const commands = this.#unsent.splice(0);
    if (!commands.length) return;
    const encode = (replacer) => commands.map((command) => JSON.stringify(command, replacer)).join("\n");
    this.#socket.send(encode());
    this.#on.frame("out", encode((key, value) => (key === "token" ? "…" : value)));
  }

  #receive(text) {
    this.#watchSilence();
    this.#on.frame("in", text);
    for (const line of text.split("\n")) this.#handle(JSON.parse(line));
  }

  #handle({ id, error, push, ...results }) {
    if (id) {
      const { method, resolve, reject } = this.#pending.get(id);
      this.#pending.delete(id);
      if (error) reject(new ReplyError(error));
      else resolve(results[method]);
    } else if (push?.pub) {
      this.#on.publication(push.channel, push.pub);
    } else if (push?.unsubscribe) {
      const { code, reason } = push.unsubscribe;
      // From 2500 on the channel may be joined again at once; below, the server meant it.
      if (code >= 2500) this.#subscribe(push.channel);
      else this.#on.failed(`Staying in ${push.channel}`, new ReplyError({ code, message: reason }));
    } else if (!push && this.#answersPings) {
      this.#send({});
    }
  }

  #watchSilence() {
    clearTimeout(this.#silenceTimer);
    const limitMs = this.#silenceLimitMs;
    if (limitMs) this.#silenceTimer = setTimeout(() => this.#lost(NO_PING, `silent for ${limitMs / 1_000} s`), limitMs);
  }
}

/**
 * A counter without a home: every page keeps, for each page that ever clicked, how often it went
 * up and down (a PN-counter). A page raises its own two totals only, and two maps merge by the
 * larger number, so messages may be lost, doubled or reordered and all pages still end up equal.
 *
 * At most LIMIT pages count, the ones with the smallest ids. That choice merges like the rest, and
 * since ids start with the time, it keeps the old and turns the latecomer away: the number does not
 * jump, and a whole map (less than 45 bytes for each page) stays far below the gateway's 64 KiB.
 */
class SharedCounter {
  static LIMIT = 512;
  #totals = new Map();
  #id;

  constructor(nowMs, random) {
    this.#id = `${nowMs.toString(36)}-${random.toString(36)}`;
  }

  get value() {
    return [...this.#totals.values()].reduce((sum, [up, down]) => sum + up - down, 0);
  }

  /** Whether this page came too late to take part. */
  get isFull() {
    return this.#totals.size >= SharedCounter.LIMIT && !this.#totals.has(this.#id);
  }

  /** Count one click and return what the others have to know about it. */
  click(step) {
    const [up, down] = this.#totals.get(this.#id) ?? [0, 0];
    const own = { [this.#id]: step > 0 ? [up + 1, down] : [up, down + 1] };
    this.merge(own);
    return own;
  }

  all() {
    return Object.fromEntries(this.#totals);
  }

  merge(totals) {
    for (const [id, [up, down]] of SharedCounter.#valid(totals)) {
      const [knownUp, knownDown] = this.#totals.get(id) ?? [0, 0];
      this.#totals.set(id, [Math.max(up, knownUp), Math.max(down, knownDown)]);
    }
    for (const id of [...this.#totals.keys()].sort().slice(SharedCounter.LIMIT)) this.#totals.delete(id);
  }

  /** Whether *totals* holds everything that this page knows. */
  isCoveredBy(totals) {
    const told = new Map(SharedCounter.#valid(totals));
    return [...this.#totals].every(([id, [up, down]]) => told.get(id)?.[0] >= up && told.get(id)?.[1] >= down);
  }

  /** Anybody may publish anything: what does not look like totals is passed over. */
  static #valid(totals) {
    const isCount = (count) => Number.isInteger(count) && count >= 0 && count <= 1e9;
    const isPair = (pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isCount);
    const isId = (id) => /^[0-9a-z]{8,9}-[0-9a-z]{1,7}$/.test(id);
    return Object.entries(totals ?? {}).filter(([id, pair]) => isId(id) && isPair(pair));
  }
}

const byId = (id) => document.getElementById(id);
const [randomNumber] = crypto.getRandomValues(new Uint32Array(1));
const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/connection/websocket`;
const sentAt = new Map(); // own publications without an echo yet
let lastPublication = 0;
let deliveries = 0;
let shareTimer = 0;
const counter = new SharedCounter(Date.now(), randomNumber);
const session = new Session(url, [CHAT, COUNTER], {
  state: showState,
  failed: report,
  frame: showFrame,
  subscribed: (channel) => {
    dismiss(`Subscribing to ${channel}`);
    // A page that joins tells what it knows (clicks made while offline) and asks for the rest.
    if (channel === COUNTER) publish(COUNTER, { ask: true, totals: counter.all() });
  },
  publication: (channel, { data, info }) => {
    const isOwn = info?.client === session.client;
    byId("deliveries").textContent = String(++deliveries);
    if (isOwn) showEcho(data?.n);
    if (channel === CHAT) showMessage(data ?? {}, isOwn);
    if (channel === COUNTER) takeTotals(data ?? {}, isOwn);
  },
});

/** Publish *data* with a number by which its echo is recognised; true when it was accepted. */
async function publish(channel, data) {
  const n = ++lastPublication;
  const action = `Publishing to ${channel}`;
  sentAt.set(n, performance.now());
  try {
    await session.publish(channel, { ...data, n });
    dismiss(action);
    return true;
  } catch (error) {
    sentAt.delete(n);
    // Clicks made offline are told at the next join; only the chat has something to repeat.
    if (error instanceof ReplyError || channel === CHAT) report(action, error);
    if (error.isTemporary && channel === COUNTER) shareSoon(1_000);
    return false;
  }
}

function showEcho(n) {
  if (!sentAt.has(n)) return;
  const tookMs = performance.now() - sentAt.get(n);
  sentAt.delete(n);
  byId("latency").textContent = `${tookMs.toFixed(tookMs < 10 ? 1 : 0)} ms`;
}

function element(name, className, ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content); // strings become text nodes, never markup
  return made;
}

function timeNow(precision) {
  const now = new Date();
  const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...precision };
  const made = element("time", "", now.toLocaleTimeString([], time));
  made.dateTime = now.toISOString();
  return made;
}

function showState(state, { code, reason, delayMs = 0 }) {
  const waiting = `Reconnecting in ${(delayMs / 1_000).toFixed(1)} s`;
  const words = { connecting: "Connecting…", connected: "Connected", waiting, stopped: "Disconnected" };
  byId("status").dataset.state = state;
  byId("status").textContent = words[state];
  byId("client-id").textContent = state === "connected" ? session.client : "–";
  byId("connect-again").hidden = state === "connecting" || state === "connected";
  if (state === "connected") dismiss("The connection");
  if (code === undefined) return;
  sentAt.clear();
  const next = state === "waiting" ? "This page reconnects by itself." : "“Connect again” makes a new attempt.";
  report("The connection", { code, message: reason || "closed without a reason" }, next);
}

/** Tell what went wrong and what to do; a later problem of the same *action* replaces it. */
function report(action, { code, message }, next = "") {
  dismiss(action);
  const advice = code === undefined ? "Send it again when the page is connected." : ADVICE[code] ?? "";
  const title = `${action} failed: ${message}${code === undefined ? "" : ` (code ${code})`}`;
  const text = `${advice} ${next}`.trim() || "The gateway's log tells more.";
  const button = element("button", "button small", "Dismiss");
  button.addEventListener("click", () => dismiss(action));
  const problem = element("div", "problem", element("p", "", element("strong", "", title), text), button);
  problem.dataset.action = action;
  byId("problems").append(problem);
}

function dismiss(action) {
  for (const problem of [...byId("problems").children]) if (problem.dataset.action === action) problem.remove();
}

function showMessage({ name, text }, isOwn) {
  if (typeof text !== "string") return;
  const scroll = byId("chat-scroll");
  const list = byId("chat-list");
  // Somebody who has scrolled up to read must not be pulled down by the next message.
  const isAtEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
  const author = element("b", "", typeof name === "string" && name ? name : "somebody");
  const head = element("div", "message-head", author, isOwn ? element("span", "", "(you)") : "", timeNow());
  list.append(element("li", isOwn ? "message mine" : "message", head, element("p", "", text)));
  while (list.children.length > MESSAGES_KEPT) list.firstElementChild.remove();
  if (isAtEnd || isOwn) scroll.scrollTop = scroll.scrollHeight;
}

/** Tell all that this page knows, unless somebody else does so first (see takeTotals). */
function shareSoon(afterMs) {
  clearTimeout(shareTimer);
  shareTimer = setTimeout(() => publish(COUNTER, { totals: counter.all() }), afterMs);
}

function takeTotals({ ask, totals }, isOwn) {
  counter.merge(totals);
  showCounter();
  if (isOwn) return;
  // Many pages hear an ask: each waits a random moment, and the first answer silences the others.
  if (counter.isCoveredBy(totals)) clearTimeout(shareTimer);
  else if (ask) shareSoon(Math.random() * 250);
}

function showCounter() {
  byId("counter-value").textContent = counter.value.toLocaleString("en").replace("-", "−");
  byId("counter-up").disabled = byId("counter-down").disabled = counter.isFull;
  if (counter.isFull) byId("counter-note").textContent = "Too many pages have counted: close all to start again.";
}

function click(step) {
  const totals = counter.click(step);
  showCounter();
  publish(COUNTER, { totals });
}

function showFrame(direction, text) {
  const list = byId("frame-list");
  const time = timeNow({ second: "2-digit", fractionalSecondDigits: 3 });
  const label = element("b", "", direction === "out" ? "→ out" : "← in");
  list.prepend(element("li", `frame ${direction}`, label, time, element("code", "", text)));
  while (list.children.length > FRAMES_KEPT) list.lastElementChild.remove();
}

function connect() {
  byId("problems").replaceChildren();
  session.open(byId("token").value.trim());
}

/** A link may carry a token behind the #, which browsers keep to themselves. */
function connectFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) byId("token").value = token;
  connect();
}

byId("chat-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = byId("chat-text");
  const text = field.value.trim();
  if (!text) return;
  field.value = "";
  const isAccepted = await publish(CHAT, { name: byId("chat-name").value.trim(), text });
  if (!isAccepted && !field.value) field.value = text;
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  connect();
});
byId("counter-up").addEventListener("click", () => click(1));
byId("counter-down").addEventListener("click", () => click(-1));
byId("connect-again").addEventListener("click", connect);
addEventListener("hashchange", connectFromAddress);

byId("endpoint").textContent = url;
byId("chat-name").value = `guest-${randomNumber.toString(36).slice(-4)}`;
connectFromAddress();
