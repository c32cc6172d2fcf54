/** One channel: what is published in it, what its history keeps, who is there. */

import { byId, call, connect, count, element, report, reportSilent, size, time, userLink } from "./page.js";
import { servePublishing } from "./publishing.js";

const SHOWN = 100;
const FRAME_MS = 100;
const NOT_AVAILABLE = 108;

const channel = byId("channel-title").dataset.channel;
let isWatching = false;
let seen = 0;
let waiting = []; // publications that came since the list was last drawn
let drawing = 0;

const session = connect({
  ready: () => {
    readHistory();
    readPresence();
  },
  lost: (code) => {
    // A page that can't keep up would be cut off again and again.
    if (isWatching && code === 3008) stopWatching("Stopped: more came than this page could read in time.");
  },
  subscribed: () => (byId("tap-state").textContent = "Watching. Nobody in the channel sees that."),
  publication: (_channel, publication) => {
    if (!isWatching) return; // it was on its way when the tap was left
    seen += 1;
    waiting.push([new Date(), publication]);
    if (waiting.length > SHOWN) waiting.shift();
    drawing ||= setTimeout(draw, FRAME_MS);
  },
  failed: (_action, error) => stopWatching(`Can't watch this channel: ${error.message} (code ${error.code}).`),
});
servePublishing(session);

/** Show what came meanwhile, a few times a second at most: a busy channel must not stop the page. */
function draw() {
  drawing = 0;
  const list = byId("tap-list");
  const made = waiting.map(([at, { data, ...publication }]) => item([time(at)], publication, data));
  waiting = [];
  list.prepend(...made.reverse());
  while (list.childElementCount > SHOWN) list.lastElementChild.remove();
  if (isWatching) byId("tap-state").textContent = `Watching. ${count(seen)} came so far; the last ${SHOWN} are shown.`;
}

function item(head, { offset, info, tags = {}, version }, { text = "", b64, size: bytes }) {
  const shown = b64 === undefined ? text : b64;
  const facts = [
    offset && `offset ${offset}`,
    info && `by ${info.user || "anonymous"}`,
    version && `version ${version}`,
    ...Object.entries(tags).map(([key, value]) => `${key}=${value}`),
    b64 !== undefined && "bytes, as base64",
    bytes > 1_000 && size(bytes),
  ].filter(Boolean);
  const header = element("header", {}, ...head, ...facts.map((fact) => element("span", {}, fact)));
  const code = element("code", {}, shown || "(nothing)");
  return element("li", { className: "publication" }, header, code);
}

function stopWatching(text) {
  isWatching = false;
  session.leave(channel);
  byId("tap").setAttribute("aria-pressed", "false");
  byId("tap").textContent = "Watch";
  byId("tap-state").textContent = text;
}

byId("tap").addEventListener("click", () => {
  if (isWatching) {
    stopWatching(`Stopped after ${count(seen)}.`);
    return;
  }
  isWatching = true;
  seen = 0;
  byId("tap").setAttribute("aria-pressed", "true");
  byId("tap").textContent = "Stop";
  byId("tap-state").textContent = "Joining…";
  session.join(channel);
});

/** Ask *method* about the channel; tell in *note* when its namespace does not have that. */
async function ask(method, params, note, ifOff) {
  try {
    return await call(session, method, { channel, ...params });
  } catch (error) {
    note.textContent = error.code === NOT_AVAILABLE ? ifOff : `Not known: ${error.message}`;
    return null;
  }
}

async function readHistory() {
  const note = byId("history-note");
  const page = await ask("history", { limit: SHOWN, reverse: true }, note, "This channel keeps no history.");
  byId("history-list").replaceChildren(
    ...(page?.publications ?? []).map(({ data, ...publication }) => item([], publication, data)),
  );
  if (!page) return;
  const found = page.publications.length;
  note.textContent = `Epoch ${page.epoch}, top offset ${page.offset}. ${found ? `The newest ${count(found)}:` : "Nothing is kept."}`;
}

/** Who is subscribed the nodes know themselves; that a channel keeps its presence is not needed for it. */
async function readPresence() {
  const note = byId("presence-note");
  const found = await ask("connections", { limit: SHOWN }, note, "");
  byId("presence-list").replaceChildren(
    ...(found?.connections ?? []).map(({ user, client }) => {
      return element("li", {}, element("b", {}, userLink(user)), element("code", {}, client));
    }),
  );
  if (!found) return;
  const kept = await ask("presence_stats", {}, note, "");
  const presence = kept ? `Its presence knows ${count(kept.num_clients)} clients of ${count(kept.num_users)} users.` : "It keeps no presence.";
  note.textContent = `${found.connections.length}${found.cursor ? " and more" : ""} subscribed. ${presence}`;
  reportSilent("Asking all nodes", found.silent);
}

byId("history-again").addEventListener("click", () => readHistory().catch((error) => report("Reading the history", error)));
byId("presence-again").addEventListener("click", () => readPresence().catch((error) => report("Asking who is there", error)));
