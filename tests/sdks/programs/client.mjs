// centrifuge-js, told what to do by lines on standard input. Arguments: a JSON object with `endpoint` (an address, or
// the list of transports), `codec`, `token`, `channel`, `options`.
import { createInterface } from "node:readline";
import WebSocket from "ws";

const given = JSON.parse(process.argv[2]);
const say = (event, more = {}) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");
const { Centrifuge } = await import(given.codec === "protobuf" ? "centrifuge/build/protobuf" : "centrifuge");
const read = (data) => (data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data);
const write = (value) => (given.codec === "protobuf" ? new TextEncoder().encode(JSON.stringify(value)) : value);

const client = new Centrifuge(given.endpoint, {
  websocket: WebSocket, token: given.token, minReconnectDelay: 50, maxReconnectDelay: 500, ...given.client,
});
client.on("connected", (it) => say("connected", { client: it.client, transport: it.transport }));
client.on("connecting", (it) => say("connecting", { code: it.code }));
client.on("disconnected", (it) => say("disconnected", { code: it.code, reason: it.reason }));
client.on("error", (it) => say("error", { message: String(it.error && it.error.message) }));
const room = client.newSubscription(given.channel, given.options);
room.on("subscribed", (it) => say("subscribed", { recovered: it.recovered, wasRecovering: it.wasRecovering }));
room.on("publication", (it) => say("publication", { data: read(it.data), offset: it.offset }));
room.on("join", (it) => say("join", { client: it.info.client }));
room.on("error", (it) => say("error", { message: String(it.error && it.error.message) }));
room.subscribe();
client.connect();

const actions = {
  publish: async (it) => await room.publish(write(it.data)),
  presence: async () => Object.keys((await room.presence()).clients),
  stats: async () => await room.presenceStats(),
  history: async () => (await room.history({ limit: 100 })).publications.map((each) => read(each.data)),
  rpc: async () => read((await client.rpc("echo", write({ question: 1 }))).data),
};
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  actions[command.do](command).then((result) => say(command.do, { result: result ?? null }), (error) => say("error", { message: String(error.message) }));
}
