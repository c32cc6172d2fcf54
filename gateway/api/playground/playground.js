/**
 * The playground of a development node: the chat, the figures, the problems and the frame log.
 *
 * It wires a Session and a SharedCounter to the elements of index.html.
 * Whatever comes from the network reaches the document as textContent only.
 */

import { SharedCounter } from "./counter.js";
import { NO_PING, ReplyError, Session } from "./session.js";

const CHAT = "lobby:chat";
const COUNTER = "lobby:counter";
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
