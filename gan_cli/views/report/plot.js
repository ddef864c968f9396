// Charts of curves and of points.

const COLOURS = 8;
const STEP = "step";

/** About `count` round values between low and high; for a logarithmic axis, low and high are exponents of ten. */
function ticks(low, high, log, count) {
  if (log && high - low >= 1) {
    const stride = [1, 2, 5, 10, 20, 50].find((n) => n * count >= high - low) ?? 100;
    const parts = high - low < 2.5 ? [1, 2, 5] : [1];
    const found = [];
    for (let k = Math.floor(low / stride) * stride; k <= high; k += stride)
      for (const m of parts) found.push(m * 10 ** k);
    return found.filter((value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9);
  }
  if (log) [low, high] = [10 ** low, 10 ** high];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough * 0.999) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && found.length < 50; k++) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

let charts = 0;

/**
 * A chart that readers pan and zoom with the mouse, the keyboard and buttons.
 *
 * The limits of the axes are in drawn units: for a logarithmic axis, they are exponents of ten. The vertical axis
 * fits the visible part of the curves until the reader zooms it.
 *
 * options: dots (whether each series is a single point instead of a curve), categories (names of the positions
 * 0, 1, ... of the horizontal axis), across and up (names of the horizontal and the vertical axis), tall (whether the
 * chart is tall), hint (the text of the legend while the pointer is outside the chart).
 */
class Plot {
  constructor(title, series, options = {}) {
    this.options = options;
    this.log = { x: false, y: false };
    this.number = charts++;
    const button = (text, label, act) => {
      const made = el("button", { type: "button", "aria-label": `${label}: ${title}`, title: label }, text);
      made.addEventListener("click", act);
      return made;
    };
    this.tools = el(
      "div",
      { class: "tools" },
      button("\u2212", "zoom out", () => this.zoom("x", 1.5)),
      button("+", "zoom in", () => this.zoom("x", 1 / 1.5)),
      button("reset", "show everything", () => this.reset()),
    );
    if (!options.dots) this.tools.prepend(this.logSwitch("y", "log"));
    this.heading = el("h3", {}, title);
    this.svg = svg(
      "svg",
      {
        tabindex: "0",
        role: "application",
        "aria-roledescription": "chart",
        "aria-label": `${title}. Press Left or Right to read the values, Shift with an arrow key to pan, plus or minus to zoom, and 0 to show everything.`,
      },
      svg(
        "title",
        {},
        "Drag to pan. Click, then scroll to zoom; scroll over the left axis to zoom it. Double-click to show everything.",
      ),
    );
    this.legend = el("ul", { class: "legend", "aria-live": "polite" });
    this.element = el(
      "figure",
      { class: `plot card${options.tall ? " tall" : ""}` },
      el("header", {}, this.heading, this.tools),
      this.svg,
      this.legend,
    );
    this.listen();
    this.show(series);
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  /** series: a list of {name, colour, points: [[x, y or null], ...]}. */
  show(series) {
    this.series = series;
    this.cursor = null;
    this.many = series.length > COLOURS;
    this.byPoint = this.options.dots || this.many;
    this.reset();
  }

  logSwitch(axis, label) {
    const box = el("input", { type: "checkbox" });
    box.addEventListener("change", () => {
      this.log[axis] = box.checked;
      this.reset();
    });
    return el("label", {}, box, ` ${label}`);
  }

  /** A value in drawn units. */
  to(axis, value) {
    return this.log[axis] ? Math.log10(value) : value;
  }

  reset() {
    this.view = { x: this.extent(0), y: null };
    this.draw();
  }

  /**
   * The least and the greatest value of a coordinate (0: horizontal, 1: vertical), in drawn units, with a margin. The
   * horizontal axis of curves has no margin. `within` is an interval of the horizontal axis that limits the points.
   */
  extent(which, within = null) {
    let [low, high] = [Infinity, -Infinity];
    for (const { points } of this.series) {
      for (const point of points) {
        if (point[1] === null) continue;
        const x = this.to("x", point[0]);
        const value = which ? this.to("y", point[1]) : x;
        if (!Number.isFinite(value) || (within && !(x >= within[0] && x <= within[1]))) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (low > high) return [0, 1];
    const spare = high > low ? (high - low) * (which || this.options.dots ? 0.06 : 0) : Math.abs(high) * 0.1 || 1;
    return [low - spare, high + spare];
  }

  /** Scales the limits of an axis by `factor` around the point at the fraction `share` of the axis. */
  zoom(axis, factor, share = 0.5) {
    const [low, high] = this.shown[axis];
    const [from, to] = axis === "x" ? this.extent(0) : [-Infinity, Infinity];
    const centre = low + (high - low) * share;
    const half = [centre - (centre - low) * factor, centre + (high - centre) * factor];
    if (half[1] - half[0] < Math.abs(centre) * 1e-6 + 1e-12) return;
    this.view[axis] = [Math.max(half[0], from), Math.min(half[1], to)];
    this.draw();
  }

  /** Pans by fractions of the visible part. The vertical axis pans only if the reader has zoomed it. */
  pan(across, up) {
    const [low, high] = this.shown.x;
    const [from, to] = this.extent(0);
    const by = Math.min(Math.max(across * (high - low), from - low), to - high);
    this.view.x = [low + by, high + by];
    if (this.view.y) {
      const lift = up * (this.view.y[1] - this.view.y[0]);
      this.view.y = this.view.y.map((value) => value + lift);
    }
    this.draw();
  }

  draw() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (!width) return;
    // The view box has the size on the screen, so that a printer scales the chart down to its narrower page.
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.shown = { x: this.view.x, y: this.view.y ?? this.extent(1, this.view.x) };
    const { x, y } = this.shown;
    const down = ticks(...y, this.log.y, Math.max(2, height / 45)).map((value) => [value, tickText(value)]);
    const left = 16 + 6.5 * Math.max(3, ...down.map(([, text]) => text.length)) + (this.options.up ? 16 : 0);
    const box = (this.box = {
      left,
      right: width - 14,
      top: 8,
      bottom: height - (this.options.across ? 40 : 24),
    });
    this.at = {
      x: (value) => left + ((this.to("x", value) - x[0]) / (x[1] - x[0])) * (box.right - left),
      y: (value) => box.bottom - ((this.to("y", value) - y[0]) / (y[1] - y[0])) * (box.bottom - box.top),
    };
    const name = `clip-${this.number}`;
    this.svg.replaceChildren(
      this.svg.firstChild,
      svg(
        "clipPath",
        { id: name },
        svg("rect", {
          x: left - 4,
          y: box.top - 4,
          width: Math.max(0, box.right - left + 8),
          height: box.bottom - box.top + 8,
        }),
      ),
      ...this.axes(down),
      (this.drawn = svg(
        "g",
        { "clip-path": `url(#${name})`, class: this.many ? "many" : null },
        this.series.map((one) => (this.options.dots ? this.dots(one) : this.curve(one))),
      )),
      (this.marks = svg("g", { "clip-path": `url(#${name})` })),
    );
    this.tell();
  }

  axes(down) {
    const { left, right, top, bottom } = this.box;
    const { categories, across, up } = this.options;
    const count = Math.max(2, (right - left) / 80);
    const named = categories
      ? this.some(
          categories.map((text, i) => [i, text]),
          count,
        )
      : ticks(...this.shown.x, this.log.x, count).map((value) => [value, tickText(value)]);
    const room = categories ? Math.max(6, Math.floor((right - left) / named.length / 7)) : 99;
    const cut = (text) => (text.length > room ? `\u2026${text.slice(1 - room)}` : text);
    return [
      ...down.map(([value]) =>
        svg("line", { class: "rule", x1: left, x2: right, y1: this.at.y(value), y2: this.at.y(value) }),
      ),
      svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      svg(
        "g",
        { class: "ticks-y" },
        down.map(([value, text]) =>
          svg("text", { x: left - 8, y: this.at.y(value) + 4, "text-anchor": "end" }, text),
        ),
      ),
      svg(
        "g",
        { class: "ticks-x" },
        named.map(([value, text]) => {
          const x = this.at.x(value);
          const anchor = x > right - 16 ? "end" : "middle";
          return svg(
            "text",
            { x: anchor === "end" ? right + 8 : x, y: bottom + 16, "text-anchor": anchor },
            cut(text),
          );
        }),
      ),
      across ? svg("text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, across) : null,
      up
        ? svg("text", { transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, up)
        : null,
    ].filter((mark) => mark !== null);
  }

  /** About `count` evenly spaced items. */
  some(items, count) {
    const stride = Math.ceil(items.length / count);
    return items.filter((_, i) => i % stride === 0);
  }

  /**
   * The visible part of a curve, and one more point on each side, so that the curve continues to the edge of the
   * frame. A point between two gaps becomes a path of length 0, which its round line cap draws as a dot.
   */
  curve({ points, colour }) {
    const [low, high] = this.shown.x;
    const from = points.findIndex(([x]) => this.to("x", x) >= low);
    const to = points.findLastIndex(([x]) => this.to("x", x) <= high);
    const few = points.length <= 30 && !this.many;
    const dots = [];
    let path = "";
    let open = false;
    for (const [x, y] of points.slice(Math.max(0, (from < 0 ? points.length : from) - 1), to + 2)) {
      const place = y === null ? NaN : this.at.y(y);
      if (Number.isFinite(place)) {
        const across = Math.round(this.at.x(x) * 10) / 10;
        const up = Math.round(Math.min(Math.max(place, -1e5), 1e5) * 10) / 10;
        path += open ? `L${across} ${up}` : `M${across} ${up}h0`;
        if (few) dots.push(svg("circle", { cx: across, cy: up, r: 2.6 }));
      }
      open = Number.isFinite(place);
    }
    return svg("g", { style: `color: ${colour}` }, svg("path", { d: path }), dots);
  }

  dots({ points, colour }) {
    return svg(
      "g",
      { style: `color: ${colour}` },
      points
        .filter(([x, y]) => Number.isFinite(this.at.x(x)) && Number.isFinite(this.at.y(y)))
        .map(([x, y]) => svg("circle", { cx: this.at.x(x), cy: this.at.y(y), r: 5, "fill-opacity": 0.75 })),
    );
  }

  /** All points with values, from left to right: [x, y, series]. */
  readable() {
    const found = this.series.flatMap((one) =>
      one.points
        .filter(([x, y]) => y !== null && Number.isFinite(this.at.x(x)) && Number.isFinite(this.at.y(y)))
        .map(([x, y]) => [x, y, one]),
    );
    return found.sort((a, b) => a[0] - b[0]);
  }

  /** The point nearest to a position in pixels: [x, y, series], or null without points. */
  nearest(px, py) {
    let [best, least] = [null, Infinity];
    for (const one of this.series) {
      for (const [x, y] of one.points) {
        if (y === null) continue;
        const across = this.at.x(x) - px;
        const distance = this.byPoint ? across ** 2 + (this.at.y(y) - py) ** 2 : Math.abs(across);
        if (distance < least) [best, least] = [[x, y, one], distance];
      }
    }
    return best;
  }

  /** Updates the legend: the value of each curve at the cursor, or the name and the values of the nearest point. */
  tell() {
    this.marks.replaceChildren();
    const cursor = this.cursor;
    this.drawn.classList.toggle("behind", Boolean(cursor) && this.many && !this.options.dots);
    if (this.byPoint) {
      if (!cursor) {
        this.legend.replaceChildren(
          el("li", { class: "muted" }, this.options.hint ?? "Point at a curve to see its values."),
        );
        return;
      }
      const [x, y, one] = cursor;
      const across = this.options.categories ? this.options.categories[x] : short(x);
      this.legend.replaceChildren(
        el("li", {}, el("b", {}, one.name)),
        el("li", {}, `${this.options.across ?? STEP} ${across}`),
        el("li", {}, `${this.options.up ?? "value"} ${short(y)}`),
      );
      this.marks.append(
        this.drawn.children[this.series.indexOf(one)].cloneNode(true),
        svg("circle", { class: "ring", cx: this.at.x(x), cy: this.at.y(y), r: 7 }),
      );
      return;
    }
    const items = this.series.map((one) => {
      const point = cursor && one.points.find(([x]) => x === cursor[0]);
      if (point && Number.isFinite(this.at.y(point[1])) && point[1] !== null) {
        this.marks.append(
          svg("circle", {
            cx: this.at.x(point[0]),
            cy: this.at.y(point[1]),
            r: 4,
            style: `color: ${one.colour}`,
          }),
        );
      }
      const value = cursor ? ` ${point ? short(point[1]) : ""}` : "";
      return el("li", {}, el("i", { style: `color: ${one.colour}` }), one.name, el("b", {}, value));
    });
    if (cursor) {
      const x = this.at.x(cursor[0]);
      this.marks.prepend(svg("line", { class: "cursor", x1: x, x2: x, y1: this.box.top, y2: this.box.bottom }));
      items.unshift(el("li", { class: "muted" }, `${STEP} ${short(cursor[0])}`));
    }
    this.legend.replaceChildren(...items);
  }

  /** Adds the handlers of the pointer, the wheel and the keyboard. */
  listen() {
    const target = this.svg;
    const place = (event) => {
      const frame = target.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    let held = null;
    target.addEventListener("pointerdown", (event) => {
      held = place(event);
      target.setPointerCapture(event.pointerId);
    });
    target.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (held) {
        const { left, right, top, bottom } = this.box;
        this.pan((held[0] - x) / (right - left), (y - held[1]) / (bottom - top));
        held = [x, y];
      } else {
        this.cursor = this.nearest(x, y);
        this.tell();
      }
    });
    for (const end of ["pointerup", "pointercancel"]) target.addEventListener(end, () => (held = null));
    target.addEventListener("pointerleave", () => {
      this.cursor = null;
      this.tell();
    });
    target.addEventListener("dblclick", () => this.reset());
    // The wheel zooms a chart only after a click on it, so that readers can scroll the page past the charts.
    target.addEventListener(
      "wheel",
      (event) => {
        if (document.activeElement !== target && !event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        const [x, y] = place(event);
        const { left, right, top, bottom } = this.box;
        const factor = 1.002 ** event.deltaY;
        if (x < left) this.zoom("y", factor, (bottom - y) / (bottom - top));
        else this.zoom("x", factor, (x - left) / (right - left));
      },
      { passive: false },
    );
    target.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const rise = { ArrowDown: -1, ArrowUp: 1 }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (way && event.shiftKey) this.pan(way * 0.2, 0);
      else if (rise && event.shiftKey) {
        this.view.y ??= this.shown.y;
        this.pan(0, rise * 0.2);
      } else if (way) this.read(way);
      else if (event.key === "+" || event.key === "=") this.zoom("x", 1 / 1.5);
      else if (event.key === "-") this.zoom("x", 1.5);
      else if (event.key === "0") this.reset();
      else return;
      event.preventDefault();
    });
  }

  /** Moves the cursor to the next point on the right (way 1) or on the left (way -1). */
  read(way) {
    const all = this.readable();
    const here = (a) => this.cursor && a[0] === this.cursor[0] && (!this.byPoint || a[2] === this.cursor[2]);
    const beyond = this.byPoint ? all : all.filter((a, i) => i === 0 || a[0] !== all[i - 1][0]);
    const at = beyond.findIndex(here);
    this.cursor =
      beyond[at < 0 ? (way > 0 ? 0 : beyond.length - 1) : Math.min(Math.max(at + way, 0), beyond.length - 1)] ??
      null;
    this.tell();
  }
}
