/** The connections of all nodes, a page at a time, and how to end one. */

import { base, byId, call, channelLink, connect, count, dismiss, element, report, reportSilent, size, span, userLink } from "./page.js";

const ACTION = "Reading the connections";
const CHANNELS_SHOWN = 5;
const PAGE = 50;
const REASONS = { 3503: "force disconnect", 3011: "force reconnect", 4000: "ask again", 4500: "sent away" };

let next = "";
let ending = null; // the connection that the dialog is about

async function search(cursor = "") {
  const user = byId("user").value.trim();
  const channel = byId("channel").value.trim();
  const params = { limit: PAGE, cursor, channel, ...(user ? { user } : {}) };
  try {
    const found = await call(session, "connections", params);
    dismiss(ACTION);
    reportSilent("Asking all nodes", found.silent);
    next = found.cursor;
    const connections = found.connections.map((each) => ({ ...each, node: found.names[each.node] || each.node }));
    show(connections, cursor);
  } catch (error) {
    report(ACTION, error);
  }
}

function show(connections, cursor) {
  byId("connections").tBodies[0].replaceChildren(...connections.map(row));
  byId("connections").hidden = !connections.length;
  byId("empty").hidden = Boolean(connections.length);
  byId("count").textContent = `${count(connections.length)}${next ? " on this page, there are more" : " on this page"}`;
  byId("first").hidden = !cursor;
  byId("next").hidden = !next;
}

function row(connection) {
  const { client, user, node, address, transport, connected_at: since, channels = [] } = connection;
  const end = element("button", { className: "button small", type: "button" }, "Disconnect…");
  end.setAttribute("aria-label", `Disconnect ${user || "anonymous"}, client ${client}`);
  end.addEventListener("click", () => ask(connection));
  const shown = channels.slice(0, CHANNELS_SHOWN).flatMap((channel, index) => [index ? ", " : "", channelLink(channel)]);
  const more = channels.length - CHANNELS_SHOWN;
  const traffic = (messages = 0, bytes = 0) => `${count(messages)} · ${size(bytes)}`;
  const cells = [
    ["User", userLink(user), "wide"],
    ["Client", element("code", {}, client), "wide"],
    ["From", element("span", {}, address || "unknown", element("div", { className: "note" }, `${transport} on ${node}`)), "wide"],
    ["Since", element("span", { title: new Date(since * 1_000).toLocaleString() }, span(Date.now() / 1_000 - since)), "nowrap"],
    ["Channels", element("span", {}, ...shown, more > 0 ? ` and ${count(more)} more` : "", channels.length ? "" : "none"), "wide"],
    ["In", traffic(connection.messages_in, connection.bytes_in), "number"],
    ["Out", traffic(connection.messages_out, connection.bytes_out), "number"],
    ["", end, "number"],
  ];
  return element("tr", {}, ...cells.map(([label, content, className]) => element("td", { className, data: { label } }, content)));
}

function ask(connection) {
  ending = connection;
  byId("ending-whom").textContent = `${connection.user || "An anonymous user"}, client ${connection.client}, on ${connection.node}.`;
  byId("ending").returnValue = "";
  byId("ending").showModal();
}

async function end({ user, client }) {
  const disconnect = { code: Number(byId("ending-code").value), reason: byId("ending-reason").value.trim() };
  try {
    await call(session, "disconnect", { user, client, disconnect });
    dismiss("Disconnecting");
  } catch (error) {
    report("Disconnecting", error);
  }
  search();
}

byId("ending-code").addEventListener("change", ({ target }) => (byId("ending-reason").value = REASONS[target.value]));
byId("ending").addEventListener("close", () => {
  if (byId("ending").returnValue === "end" && ending) end(ending);
  ending = null;
});
byId("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const named = ["user", "channel"].map((id) => [id, byId(id).value.trim()]).filter(([, value]) => value);
  const query = new URLSearchParams(named).toString();
  history.replaceState(null, "", query ? `${base}/connections?${query}` : `${base}/connections`);
  search();
});
byId("next").addEventListener("click", () => search(next));
byId("first").addEventListener("click", () => search());

const session = connect({ ready: () => search() });
