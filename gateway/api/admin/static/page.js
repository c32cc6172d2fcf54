/**
 * What all pages have in common: the connection to the gateway, the problems, and how things are written.
 *
 * Whatever comes from the network reaches the document as text only.
 */

import { NO_PING, ReplyError, Session } from "./session.js";

export const base = document.body.dataset.base;
const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${base}/connection/websocket`;
const WORDS = { connecting: "Connecting…", connected: "Live", stopped: "Disconnected" };

/** What a reader can do about the end of the connection, by code. */
const ADVICE = {
  [NO_PING]: "The network or the gateway hangs.",
  1006: "The gateway could not be reached. Is this node running?",
  3001: "This node is going down. Others have this page, too.",
  3008: "More came than this page could read in time.",
};

export const byId = (id) => document.getElementById(id);

/** The gateway refused a call; `message` says why. */
export class RefusedError extends Error {
  constructor({ code, message, reason }) {
    super(reason ? `${message} (code ${code}): ${reason}` : `${message} (code ${code})`);
    this.code = code;
  }
}

export function element(name, properties = {}, ...content) {
  const { data = {}, ...plain } = properties;
  const made = Object.assign(document.createElement(name), plain);
  Object.assign(made.dataset, data);
  made.append(...content); // strings become text nodes, never markup
  return made;
}

/**
 * Connect, and stay connected: `ready` is called each time the connection is up, `lost` when it is gone, and
 * `publication` and `subscribed` get what comes of the channels that are joined.
 */
export function connect({ ready = () => {}, lost = () => {}, publication = () => {}, subscribed = () => {}, failed } = {}) {
  const session = new Session(
    url,
    [],
    {
      state: (name, detail) => {
        showState(name, detail);
        if (name === "connected") ready();
        else if (name !== "connecting") lost(detail.code);
      },
      frame: () => {},
      publication,
      subscribed,
      failed: failed ?? ((action, error) => report(action, error)),
    },
    // The session's cookie has said who this is, and it opens every channel: what is shown here is not looked at.
    { name: "admin page", channelToken: "tap" },
  );
  session.open("session");
  return session;
}

/** Have the gateway carry out *method*: resolve with its result, reject with why there is none. */
export async function call(session, method, params) {
  const { result, error } = await session.call(method, params);
  if (error) throw new RefusedError(error);
  return result;
}

function showState(name, { code, reason, delayMs = 0 }) {
  byId("status").dataset.state = name;
  byId("status").textContent = WORDS[name] ?? `Reconnecting in ${(delayMs / 1_000).toFixed(1)} s`;
  if (name === "connected") dismiss("The connection");
  if (code === undefined) return;
  const next = name === "waiting" ? "This page reconnects by itself." : "Reload the page to try again.";
  report("The connection", { message: `${reason || "closed without a reason"} (code ${code})` }, `${ADVICE[code] ?? ""} ${next}`);
  checkSession();
}

/** Whether the login still holds can't be seen from a refused WebSocket; a request tells. */
async function checkSession() {
  try {
    const response = await fetch(`${base}/session`, { redirect: "manual", cache: "no-store" });
    if (response.status === 401) location.assign(`${base}/login`);
  } catch {
    // The node is not there at the moment; the next attempt to connect tells.
  }
}

/** Tell what went wrong and what to do; a later problem of the same *action* replaces it. */
export function report(action, error, advice = "") {
  dismiss(action);
  const code = error instanceof ReplyError ? ` (code ${error.code})` : "";
  const button = element("button", { className: "button small", type: "button" }, "Dismiss");
  button.addEventListener("click", () => dismiss(action));
  const text = element("p", {}, element("strong", {}, `${action} failed: ${error.message}${code}`), advice.trim());
  byId("problems").append(element("div", { className: "problem", data: { action } }, text, button));
}

export function dismiss(action) {
  for (const problem of [...byId("problems").children]) if (problem.dataset.action === action) problem.remove();
}

/** Name nodes that did not answer: what they know is missing from what is shown. */
export function reportSilent(action, silent = []) {
  const names = silent.map(({ name, uid }) => name || uid).join(", ");
  if (names) report(action, { message: `no answer from ${names}` }, "What only they know is missing here.");
  else dismiss(action);
}

/** Write a whole number, short from a million on. */
export function count(value) {
  if (value < 1_000_000) return Math.round(value).toLocaleString("en");
  return value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 2 });
}

export function rate(value) {
  return `${value > 0 && value < 10 ? value.toFixed(1) : count(value)}/s`;
}

export function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 1_000 && unit < units.length - 1; unit++) bytes /= 1_000;
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([length]) => whole >= length);
  if (at < 0) return "0 s";
  return parts
    .slice(at, at + 2)
    .map(([length, name], index) => [Math.floor(index ? (whole % parts[at][0]) / length : whole / length), name])
    .filter(([number], index) => number || !index)
    .map(([number, name]) => `${number} ${name}`)
    .join(" ");
}

export function time(date = new Date()) {
  const made = element("time", {}, date.toLocaleTimeString("en-GB"));
  made.dateTime = date.toISOString();
  made.title = date.toLocaleString();
  return made;
}

export const channelLink = (name) => element("a", { href: `${base}/channel?name=${encodeURIComponent(name)}` }, name);
export const userLink = (user) =>
  user ? element("a", { href: `${base}/connections?user=${encodeURIComponent(user)}` }, user) : "anonymous";
