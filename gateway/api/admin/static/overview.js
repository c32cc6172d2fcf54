/** The figures of every node, as each has announced them last, with charts of the last minutes. */

import { Chart } from "./charts.js";
import { byId, call, connect, count, dismiss, element, rate, report, size, span } from "./page.js";

const POLL_MS = 1_000;
const CHARTS = [
  { field: "clients", name: "Connections", write: count },
  { field: "messages_in", name: "Messages in", write: rate },
  { field: "messages_out", name: "Deliveries out", write: rate },
  { field: "bytes_out", name: "Bytes out", write: (value) => `${size(value)}/s` },
  { field: "dropped", name: "Dropped", write: rate, alarm: 0 },
  { field: "outbox_bytes", name: "Waiting for readers", write: size },
  { field: "loop_lag_s", name: "Event loop late", write: (value) => `${(value * 1_000).toFixed(1)} ms`, alarm: 0.25 },
  { field: "cpu", name: "Processor", write: (value) => `${(value * 100).toFixed(0)} %`, alarm: 0.9 },
];

const cards = new Map(); // by the node's uid
let newest = 0; // the number of the newest point that is known
let timer = 0;

/** One node: its card, and the points of its charts. */
class NodeCard {
  #points = [];
  #charts = [];

  constructor() {
    this.element = byId("node-template").content.firstElementChild.cloneNode(true);
    for (const chart of CHARTS) {
      const drawn = new Chart(byId("chart-template"), chart);
      this.#charts.push([chart.field, drawn]);
      this.element.querySelector(".charts").append(drawn.figure);
    }
  }

  show({ node, points }, { now_s: nowS, span_s: spanS }) {
    this.#points = [...this.#points, ...points].filter((point) => nowS - point.at_s <= spanS);
    const { figures } = node;
    const isKnown = figures.cpu_s > 0; // a node of an older version announces its counts alone
    const texts = {
      name: node.name || node.uid,
      version: node.version,
      uptime: span(node.uptime_s),
      state: figures.unready || (isKnown ? "ready" : "runs"),
      broker: figures.trouble || (isKnown ? "broker works" : "its version announces no figures"),
      clients: count(node.num_clients),
      users: count(node.num_users),
      channels: count(node.num_channels),
      subscriptions: count(node.num_subs),
    };
    for (const [field, text] of Object.entries(texts)) {
      this.element.querySelector(`[data-field="${field}"]`).textContent = text;
    }
    this.element.querySelector('[data-field="state"]').dataset.state = figures.unready ? "bad" : "good";
    this.element.title = `uid ${node.uid}`;
    for (const [field, chart] of this.#charts) {
      chart.show(this.#points.map((point) => [nowS - point.at_s, point[field]]), spanS);
    }
  }

  /** How much of *field* there is a second, by the last point. */
  last(field) {
    return this.#points.at(-1)?.[field] ?? 0;
  }
}

function show(overview) {
  const { nodes, silent } = overview;
  for (const uid of [...cards.keys()]) {
    if (!nodes.some(({ node }) => node.uid === uid)) cards.delete(uid);
  }
  for (const each of nodes) {
    if (!cards.has(each.node.uid)) cards.set(each.node.uid, new NodeCard());
    cards.get(each.node.uid).show(each, overview);
    newest = Math.max(newest, ...each.points.map(({ number }) => number));
  }
  const order = nodes.map(({ node }) => cards.get(node.uid).element);
  if (order.some((card, index) => byId("nodes").children[index] !== card) || byId("nodes").childElementCount > order.length) {
    byId("nodes").replaceChildren(...order);
  }
  byId("loading").hidden = true;
  showTotals(nodes);
  byId("silent").replaceChildren(
    ...silent.map(({ node, seconds }) => {
      const title = element("strong", {}, `${node.name || node.uid} is silent`);
      const text = ` It had ${count(node.num_clients)} connections and was last heard ${span(seconds)} ago, without a goodbye.`;
      return element("li", { className: "problem" }, element("p", {}, title, text));
    }),
  );
}

function showTotals(nodes) {
  const sum = (field) => nodes.reduce((total, { node }) => total + node[field], 0);
  const rates = (field) => rate([...cards.values()].reduce((total, card) => total + card.last(field), 0));
  const totals = {
    nodes: count(nodes.length),
    clients: count(sum("num_clients")),
    subscriptions: count(sum("num_subs")),
    messages_in: rates("messages_in"),
    messages_out: rates("messages_out"),
    dropped: rates("dropped"),
  };
  for (const [name, text] of Object.entries(totals)) document.querySelector(`[data-total="${name}"]`).textContent = text;
}

async function poll() {
  clearTimeout(timer);
  try {
    show(await call(session, "overview", { after: newest }));
    dismiss("Reading the figures");
  } catch (error) {
    report("Reading the figures", error);
  }
  timer = setTimeout(poll, POLL_MS);
}

/** Whoever answers now may be another node than before, or another process of it, which counts points anew. */
function begin() {
  newest = 0;
  cards.clear();
  poll();
}

const session = connect({ ready: begin, lost: () => clearTimeout(timer) });
