/**
 * A counter without a home: every page keeps, for each page that ever clicked, how often it went
 * up and down (a PN-counter). A page raises its own two totals only, and two maps merge by the
 * larger number, so messages may be lost, doubled or reordered and all pages still end up equal.
 * Arithmetic only: telling the others is up to the page.
 *
 * At most LIMIT pages count, the ones with the smallest ids. That choice merges like the rest, and
 * since ids start with the time, it keeps the old and turns the latecomer away: the number does not
 * jump, and a whole map (less than 45 bytes for each page) stays far below the gateway's 64 KiB.
 */
export class SharedCounter {
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
