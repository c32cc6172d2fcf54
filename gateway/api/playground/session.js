/**
 * The JSON protocol over one WebSocket after another, as a session that stays connected.
 *
 * Nothing here knows the page: whoever makes a Session hears of everything through its callbacks.
 */

const SILENCE_GRACE_MS = 10_000; // beyond the ping interval; before the first ping, the whole limit
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 20_000;
export const NO_PING = 2; // made on this side; the server's own codes start at 100

const isTerminal = (code) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) || code === 1009;

export class ReplyError extends Error {
  constructor({ code, message, temporary = false }) {
    super(message);
    this.code = code;
    this.isTemporary = temporary || code < 100;
  }
}

class NotConnectedError extends Error {}

/**
 * One logical client: it dials, introduces itself as `name`, subscribes, answers pings and dials again.
 *
 * `channelToken` is shown for every channel, if there is one.
 * `on` has state(name, detail), subscribed(channel), publication(channel, publication),
 * failed(action, error) and frame(direction, text). States: connecting → connected → waiting →
 * connecting …, and stopped after a disconnect that forbids to reconnect.
 */
export class Session {
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
  #name;
  #channelToken;

  constructor(url, channels, on, { name = "playground", channelToken = "" } = {}) {
    this.#url = url;
    this.#channels = new Set(channels);
    this.#on = on;
    this.#name = name;
    this.#channelToken = channelToken;
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

  /** Resolve with what the method *method* answers to *data*; reject as publish does. */
  async call(method, data) {
    return (await this.#request("rpc", { method, data })).data;
  }

  /** Be in *channel* from now on, over all connections. */
  join(channel) {
    this.#channels.add(channel);
    if (this.#isOpen) this.#subscribe(channel);
  }

  /** Be in *channel* no longer. */
  leave(channel) {
    this.#channels.delete(channel);
    if (this.#isOpen) this.#request("unsubscribe", { channel }).catch(() => {}); // a lost connection has left, too
  }

  get #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
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
    const connecting = this.#request("connect", { ...identity, name: this.#name });
    // Sent without waiting for the connect reply: all of it is one frame and one round trip.
    const joining = Promise.all([...this.#channels].map((channel) => this.#subscribe(channel)));
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
      const token = this.#channelToken ? { token: this.#channelToken } : {};
      await this.#request("subscribe", { channel, ...token });
      this.#on.subscribed(channel);
    } catch (error) {
      // A lost connection needs nothing here: the next one subscribes again.
      if (!(error instanceof ReplyError)) return;
      this.#on.failed(`Subscribing to ${channel}`, error);
      if (error.isTemporary) setTimeout(() => socket === this.#socket && this.#subscribe(channel), this.#backoffMs());
    }
  }

  #request(method, params) {
    if (!this.#isOpen) return Promise.reject(new NotConnectedError("not connected"));
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
      if (code >= 2500 && this.#channels.has(push.channel)) this.#subscribe(push.channel);
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
