/** Small charts of the last minutes, drawn as two paths each. */

const WIDTH = 100;
const HEIGHT = 32;

/** Return the path of *points* ([seconds ago, value], oldest first) over *spanS* seconds up to *top*. */
export function outline(points, spanS, top) {
  const place = ([agoS, value]) => {
    const x = WIDTH * (1 - Math.min(agoS / spanS, 1));
    const y = HEIGHT - 1 - (HEIGHT - 2) * (top ? Math.min(value / top, 1) : 0);
    return `${x.toFixed(2)} ${y.toFixed(2)}`;
  };
  return points.map((point, index) => `${index ? "L" : "M"}${place(point)}`).join("");
}

/** A chart in a copy of *template*; *write* turns a value into text. A value above *alarm* shows in red. */
export class Chart {
  #figure;
  #write;
  #alarm;
  #name;

  constructor(template, { name, write, alarm = Infinity }) {
    this.#figure = template.content.firstElementChild.cloneNode(true);
    this.#write = write;
    this.#alarm = alarm;
    this.#name = name;
    this.#find(".chart-name").textContent = name;
  }

  get figure() {
    return this.#figure;
  }

  show(points, spanS) {
    const values = points.map(([, value]) => value);
    const top = Math.max(0, ...values);
    const last = values.at(-1) ?? 0;
    const line = outline(points, spanS, top);
    const [first, end] = [points[0], points.at(-1)].map((point) => point && outline([[point[0], 0]], spanS, 1).slice(1));
    this.#find(".line").setAttribute("d", line);
    this.#find(".area").setAttribute("d", points.length > 1 ? `${line}L${end}L${first}Z` : "");
    this.#find(".chart-value").textContent = points.length ? this.#write(last) : "–";
    this.#find(".chart-scale").textContent = points.length ? `at most ${this.#write(top)}` : "nothing known yet";
    this.#find("svg").setAttribute("aria-label", `${this.#name}: ${this.#write(last)} now, ${this.#write(top)} at most`);
    this.#figure.dataset.state = last > this.#alarm ? "bad" : "good";
  }

  #find(selector) {
    return this.#figure.querySelector(selector);
  }
}
