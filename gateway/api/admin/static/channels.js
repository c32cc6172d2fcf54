/** The channels that somebody is subscribed to, by name. */

import { base, byId, call, channelLink, connect, count, dismiss, element, report, reportSilent } from "./page.js";

const ACTION = "Reading the channels";

async function search() {
  const pattern = byId("pattern").value.trim();
  try {
    const { channels, total, silent } = await call(session, "channels", { pattern });
    dismiss(ACTION);
    reportSilent("Counting channels everywhere", silent);
    show(channels, total);
  } catch (error) {
    report(ACTION, error);
  }
}

function show(channels, total) {
  const rows = channels.map(([name, clients]) =>
    element(
      "tr",
      {},
      element("td", {}, channelLink(name)),
      element("td", { className: "number" }, count(clients)),
    ),
  );
  byId("channels").tBodies[0].replaceChildren(...rows);
  byId("channels").hidden = !rows.length;
  byId("empty").hidden = Boolean(rows.length);
  byId("count").textContent = channels.length < total ? `the first ${count(channels.length)} of ${count(total)}` : count(total);
}

byId("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const pattern = byId("pattern").value.trim();
  history.replaceState(null, "", pattern ? `${base}/channels?pattern=${encodeURIComponent(pattern)}` : `${base}/channels`);
  search();
});

const session = connect({ ready: search });
