"use strict";
// Everything of a run is put into the page as text: make() sets textContent, never HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const COLOURS = ["#4c78d0", "#e08a1e", "#2e9e6b", "#d1495b", "#8a63c9", "#14a0b5", "#a87844", "#c85ba4", "#7d8c1f"];
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function draw(tag, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  return node;
}

function told(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(+value.toPrecision(4));
  return typeof value === "string" ? value : JSON.stringify(value);
}

const colour = (i) => COLOURS[i % COLOURS.length];
const section = (title, ...children) => page.append(make("h2", {}, title), ...children);

// ------------------------------------------------------------------------------------------ charts

function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) found.push(+t.toPrecision(12));
  return found;
}

// Lines over x, or points; drag or arrow keys pan, buttons or +/- or Ctrl and the wheel zoom, 0 or a double click resets.
class Chart {
  constructor(title, series, { points = false, xLabel = "step", logX = false } = {}) {
    Object.assign(this, { series, points, xLabel, logX, logY: false, view: null, at: null });
    this.box = make("div", { class: "chart", tabindex: 0, role: "img", "aria-label": title + ". Arrow keys pan, plus and minus zoom." });
    this.log = make("button", { "aria-pressed": "false", title: "logarithmic scale", onclick: () => this.toggle() }, "log");
    const tools = make("div", { class: "tools" }, this.log,
      make("button", { title: "zoom in", class: "in", onclick: () => this.zoom(0.6) }, "+"),
      make("button", { title: "zoom out", class: "out", onclick: () => this.zoom(1 / 0.6) }, "−"),
      make("button", { title: "show all", class: "reset", onclick: () => this.reset() }, "reset"));
    this.legend = make("div", { class: "legend" });
    if (series.length > 1 || !points) series.forEach((one, i) => {
      const dot = make("i"); dot.style.background = colour(i);
      this.legend.append(make("span", {}, dot, one.name));
    });
    this.node = make("div", { class: "card" }, make("h3", {}, title), tools, this.box, this.legend);
    this.tip = make("div", { class: "tip", hidden: "" });
    this.listen();
    new ResizeObserver(() => this.render()).observe(this.box);
  }

  x(value) { return this.logX ? Math.log10(value) : value; }
  y(value) { return this.logY ? Math.log10(value) : value; }
  usable(x, y) { return y !== null && Number.isFinite(this.y(y)) && Number.isFinite(this.x(x)); }

  extent() {
    let low = Infinity, high = -Infinity;
    for (const one of this.series) one.x.forEach((x, i) => {
      if (this.usable(x, one.y[i])) { low = Math.min(low, this.x(x)); high = Math.max(high, this.x(x)); }
    });
    if (low > high) return [0, 1];
    return low === high ? [low - 0.5, high + 0.5] : this.points ? [low - (high - low) * 0.05, high + (high - low) * 0.05] : [low, high];
  }

  toggle() { this.logY = !this.logY; this.log.setAttribute("aria-pressed", this.logY); this.render(); }
  reset() { this.view = null; this.render(); }
  zoom(factor, centre = null) {
    const [low, high] = this.view || this.extent(), middle = centre === null ? (low + high) / 2 : centre;
    this.show(middle - (middle - low) * factor, middle + (high - middle) * factor);
  }
  pan(share) { const [low, high] = this.view || this.extent(), by = (high - low) * share; this.show(low + by, high + by); }
  show(low, high) {
    const [first, last] = this.extent(), most = last - first;
    if (high - low >= most) this.view = null;
    else {
      const shift = Math.max(first - low, 0) - Math.max(high - last, 0);
      this.view = [low + shift, high + shift];
    }
    this.render();
  }

  listen() {
    const place = (event) => {
      const [low, high] = this.view || this.extent(), box = this.box.getBoundingClientRect();
      return low + (high - low) * Math.min(Math.max((event.clientX - box.left - this.left) / this.inner, 0), 1);
    };
    let from = null;
    this.box.addEventListener("pointerdown", (e) => { from = e.clientX; this.box.setPointerCapture(e.pointerId); });
    this.box.addEventListener("pointerup", () => { from = null; });
    this.box.addEventListener("pointermove", (e) => {
      if (from !== null) { this.pan((from - e.clientX) / this.inner); from = e.clientX; }
      this.hover(place(e), e);
    });
    this.box.addEventListener("pointerleave", () => { this.at = null; this.render(); });
    this.box.addEventListener("dblclick", () => this.reset());
    this.box.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && document.activeElement !== this.box) return;  // the page scrolls
      e.preventDefault(); this.zoom(e.deltaY < 0 ? 0.8 : 1.25, place(e));
    }, { passive: false });
    this.box.addEventListener("keydown", (e) => {
      const act = { ArrowLeft: () => this.pan(-0.15), ArrowRight: () => this.pan(0.15), "+": () => this.zoom(0.6), "=": () => this.zoom(0.6),
        "-": () => this.zoom(1 / 0.6), 0: () => this.reset() }[e.key];
      if (act) { e.preventDefault(); act(); }
    });
  }

  hover(x, event) {
    let best = null;
    const box = this.box.getBoundingClientRect();
    this.series.forEach((one) => one.x.forEach((at, i) => {
      if (!this.usable(at, one.y[i])) return;
      const far = this.points ? Math.hypot(this.px(at) - (event.clientX - box.left), this.py(one.y[i]) - (event.clientY - box.top)) : Math.abs(this.x(at) - x);
      if (best === null || far < best.far) best = { far, at, one, i };
    }));
    this.at = best; this.render();
  }

  describe() {
    const { at, one, i } = this.at;
    if (this.points) return [`${one.names[i]}`, `${this.xLabel} ${told(at)}`, `${one.name} ${told(one.y[i])}`];
    const lines = this.series.map((each) => {
      const j = each.x.indexOf(at);
      return j < 0 ? null : `${each.name} ${told(each.y[j])}`;
    }).filter((line) => line !== null);
    return [`${this.xLabel} ${at}`, ...lines.slice(0, 8)];
  }

  render() {
    const width = this.box.clientWidth, height = 210;
    if (!width) return;
    const [low, high] = this.view || this.extent();
    let bottom = Infinity, top = -Infinity;
    for (const one of this.series) one.x.forEach((x, i) => {
      if (this.usable(x, one.y[i]) && this.x(x) >= low && this.x(x) <= high) { bottom = Math.min(bottom, this.y(one.y[i])); top = Math.max(top, this.y(one.y[i])); }
    });
    if (bottom > top) [bottom, top] = [0, 1];
    const margin = (top - bottom) * 0.05 || Math.abs(top) * 0.1 || 0.5;
    bottom -= margin; top += margin;
    this.left = 54; this.inner = width - this.left - 10;
    const tall = height - 32;
    this.px = (x) => this.left + ((this.x(x) - low) / (high - low)) * this.inner;
    this.py = (y) => 6 + (1 - (this.y(y) - bottom) / (top - bottom)) * tall;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height });
    const raw = (value, log) => told(log ? 10 ** value : value);
    for (const t of ticks(bottom, top, 4)) {
      const y = 6 + (1 - (t - bottom) / (top - bottom)) * tall;
      svg.append(draw("line", { class: "grid", x1: this.left, x2: width - 10, y1: y, y2: y }), draw("text", { x: this.left - 6, y: y + 4, "text-anchor": "end" }, raw(t, this.logY)));
    }
    for (const t of ticks(low, high, Math.max(2, Math.floor(this.inner / 90)))) {
      const x = this.left + ((t - low) / (high - low)) * this.inner;
      svg.append(draw("text", { x, y: height - 8, "text-anchor": "middle", class: "x" }, raw(t, this.logX)));
    }
    const id = `clip${Chart.count = (Chart.count || 0) + 1}`, clip = draw("clipPath", { id });
    clip.append(draw("rect", { x: this.left, y: 0, width: Math.max(this.inner, 0), height: height - 20 }));
    const marks = draw("g", { "clip-path": `url(#${id})` });
    this.series.forEach((one, i) => {
      if (this.points) {
        one.x.forEach((x, j) => { if (this.usable(x, one.y[j])) marks.append(draw("circle", { cx: this.px(x), cy: this.py(one.y[j]), r: 5, fill: colour(i), "fill-opacity": 0.75 })); });
        return;
      }
      let path = "", pen = "M", count = 0;
      one.x.forEach((x, j) => {
        if (!this.usable(x, one.y[j])) { pen = "M"; return; }
        path += `${pen}${this.px(x).toFixed(1)} ${this.py(one.y[j]).toFixed(1)}`; pen = "L"; count += 1;
      });
      marks.append(draw("path", { d: path, stroke: colour(i) }));
      if (count === 1) one.x.forEach((x, j) => { if (this.usable(x, one.y[j])) marks.append(draw("circle", { cx: this.px(x), cy: this.py(one.y[j]), r: 4, fill: colour(i) })); });
    });
    if (this.at) {
      const x = this.px(this.at.at);
      marks.append(draw("line", { class: "at", x1: x, x2: x, y1: 0, y2: tall + 6 }));
      this.tip.replaceChildren(...this.describe().map((line) => make("div", {}, line)));
      this.tip.style[x > width / 2 ? "left" : "right"] = "8px"; this.tip.style[x > width / 2 ? "right" : "left"] = "auto";
      if (x > width / 2) this.tip.style.left = `${this.left + 6}px`;
    }
    this.tip.hidden = !this.at;
    svg.append(clip, marks);
    this.box.replaceChildren(svg, this.tip);
  }
}

// ------------------------------------------------------------------------------------------ parts of a page

function table(head, rows, attributes = {}) {
  return make("div", { class: "card wide" }, make("table", attributes,
    make("thead", {}, make("tr", {}, ...head.map((cell) => make("th", { scope: "col" }, cell)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, told(cell))))))));
}

function figure(src, caption, lazy = false) {
  return make("figure", {}, make("img", { src, alt: caption, decoding: "async", loading: lazy ? "lazy" : null }), make("figcaption", {}, caption));
}

function header(run) {
  const facts = run.facts;
  const status = make("span", { class: "status" }, told(facts.status));
  if (/^\w+$/.test(facts.status)) status.classList.add(facts.status);
  const line = make("div", { class: "row" }, make("h1", {}, data.title), status,
    make("span", { class: "soft" }, `step ${told(facts.step)}`),
    facts.seconds === undefined ? null : make("span", { class: "soft" }, `${told(Math.round(facts.seconds))} s`),
    facts.started === undefined ? null : make("span", { class: "soft" }, told(facts.started)));
  page.append(line);
  if (facts.diverged_at !== undefined) page.append(make("p", { class: "diverged" }, `Diverged at step ${told(facts.diverged_at)}: the ${told(facts.diverged_player)}'s ${told(facts.diverged_in)} was not finite.`));
  if (facts.collapse_suspected_at !== undefined) page.append(make("p", {}, `Collapse suspected at step ${told(facts.collapse_suspected_at)}.`));
  if (facts.error !== undefined) page.append(make("p", { class: "failed" }, told(facts.error)));
  if (run.objective) page.append(make("p", {}, `Best ${told(run.objective.name)}: ${told(run.objective.value)} at step ${told(run.objective.step)}.`));
}

const GROUPS = [["Losses", /\/loss$/], ["Gradient norms", /\/grad_norm$/], ["Logits", /_logits$/], ["Accuracy", /accuracy$/], ["Size of the moves", /\/update_ratio$/]];

function curves(run) {
  const left = new Set(Object.keys(run.curves)), cards = make("div", { class: "cards" });
  const line = (name) => ({ name, x: run.curves[name][0], y: run.curves[name][1] });
  for (const [title, pattern] of GROUPS) {
    const names = [...left].filter((name) => pattern.test(name));
    names.forEach((name) => left.delete(name));
    if (names.length) cards.append(new Chart(title, names.map(line)).node);
  }
  const rank = (name) => (name.startsWith("eval/") ? 0 : name === "steps_per_second" ? 2 : 1);
  for (const name of [...left].sort((a, b) => rank(a) - rank(b))) cards.append(new Chart(name, [line(name)]).node);
  if (cards.children.length) section("Curves", cards);
}

function slider(run) {
  if (!run.pictures.length) return;
  const last = run.pictures.length - 1;
  const image = make("img", { id: "sample", alt: "samples", decoding: "sync" }), label = make("span", { id: "step" });
  const range = make("input", { type: "range", id: "slider", min: 0, max: last, value: last, "aria-label": "step of the samples", oninput: () => show() });
  const show = () => {
    const one = run.pictures[range.value];
    image.src = one.src; image.alt = `samples at step ${one.step}`; label.textContent = `step ${one.step}`;
    range.setAttribute("aria-valuetext", label.textContent);
  };
  let timer = null;
  const play = make("button", { onclick: () => {
    if (timer) { clearInterval(timer); timer = null; play.textContent = "play"; return; }
    play.textContent = "stop";
    timer = setInterval(() => { range.value = (Number(range.value) + 1) % (last + 1); show(); }, 350);
  } }, "play");
  show();
  section("Samples over time", make("div", { class: "pair" },
    make("figure", {}, image, make("figcaption", { class: "row player" }, range, label, last ? play : null)),
    run.real ? figure(run.real, "real data") : null));
}

function settings(run) {
  if (run.differences && run.differences.length) section("What is not the default", table(["option", "default", "here"], run.differences.map((d) => [d.key, d.default, d.value])));
  section("Configuration", make("details", {}, make("summary", {}, "every option"), table(["option", "value"], Object.entries(run.config))));
}

function one(run) {
  header(run);
  slider(run);
  curves(run);
  if (Object.keys(run.final).length) section("Final figures", table(["figure", "value"], Object.entries(run.final)));
  if (run.neighbours) section("Nearest training examples", figure(run.neighbours, "rows in turn: samples, and under each the training example that is nearest to it in the features of the evaluation"));
  if (Array.isArray(run.evaluations) && run.evaluations.length) {
    const kept = run.evaluations.filter((e) => e && e.metrics);
    const names = [...new Set(kept.flatMap((e) => Object.keys(e.metrics)))];
    section("Evaluations", table(["step", "samples", "seed", "features", "reference", ...names], kept.map((e) => [e.step, e.samples, e.seed, e.features, e.reference, ...names.map((n) => e.metrics[n])])));
  }
  settings(run);
  section("Made with", table(["", ""], Object.entries({ ...run.facts, ...run.made_with }).map(([name, value]) => [name, Array.isArray(value) && name === "command" ? value.join(" ") : value])));
  if (run.history && run.history.length) section("Earlier starts", table(["started", "status", "step", "seconds", "command"], run.history.map((h) => [h.started, h.status, h.step, h.seconds, (h.command || []).join(" ")])));
}

// ------------------------------------------------------------------------------------------ several runs

function sortable(head, rows) {
  const body = make("tbody"), heads = head.map((name, i) => {
    const cell = make("th", { scope: "col" }, make("button", { onclick: () => sort(i, cell) }, name));
    return cell;
  });
  const fill = () => body.replaceChildren(...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, told(cell))))));
  const sort = (i, cell) => {
    const down = cell.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const missing = (v) => v === null || v === undefined;
    rows.sort((a, b) => {
      if (missing(a[i]) || missing(b[i])) return missing(a[i]) - missing(b[i]);
      const order = typeof a[i] === "number" && typeof b[i] === "number" ? a[i] - b[i] : told(a[i]).localeCompare(told(b[i]), undefined, { numeric: true });
      return down ? -order : order;
    });
    fill();
  };
  fill();
  return make("div", { class: "card wide tall", tabindex: 0, role: "region", "aria-label": "runs" }, make("table", { class: "sortable" }, make("thead", {}, make("tr", {}, ...heads)), body));
}

function chooser(label, names, chosen, changed) {
  const select = make("select", { onchange: changed }, ...names.map((name) => make("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
  return { select, node: make("label", {}, label, select) };
}

function many(runs) {
  page.append(make("div", { class: "row" }, make("h1", {}, data.title), make("span", { class: "soft" }, `${runs.length} runs`)));
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))].filter((key) => key !== "name" && new Set(runs.map((run) => JSON.stringify(run.config[key]))).size > 1);
  const finals = [...new Set(runs.flatMap((run) => Object.keys(run.final)))];
  const best = runs.some((run) => run.objective) ? "best " + runs.find((run) => run.objective).objective.name : null;
  const value = (run, name) => (name === best ? (run.objective || {}).value : run.final[name]);
  const figures = best ? [best, ...finals] : finals;
  const setting = (run, key) => { const v = run.config[key]; return typeof v === "object" && v !== null ? JSON.stringify(v) : v; };
  section("Runs", sortable(["run", "status", "step", ...keys, ...figures], runs.map((run) => [run.name, run.facts.status, run.facts.step, ...keys.map((key) => setting(run, key)), ...figures.map((name) => value(run, name))])));

  const numeric = keys.filter((key) => runs.some((run) => typeof run.config[key] === "number"));
  if (numeric.length && figures.length) {
    const host = make("div");
    const update = () => {
      const known = runs.filter((run) => typeof run.config[across.select.value] === "number" && typeof value(run, up.select.value) === "number");
      const xs = known.map((run) => run.config[across.select.value]);
      const chart = new Chart(`${up.select.value} over ${across.select.value}`, [{ name: up.select.value, names: known.map((run) => run.name), x: xs, y: known.map((run) => value(run, up.select.value)) }],
        { points: true, xLabel: across.select.value, logX: logX.getAttribute("aria-pressed") === "true" && xs.every((x) => x > 0) });
      host.replaceChildren(chart.node);
    };
    const across = chooser("across", numeric, numeric[0], update), up = chooser("up", figures, best, update);
    const logX = make("button", { "aria-pressed": String(numeric[0].endsWith("lr")), onclick: () => { logX.setAttribute("aria-pressed", logX.getAttribute("aria-pressed") !== "true"); update(); } }, "log across");
    across.select.id = "across"; up.select.id = "up";
    update();
    section("Options and figures", make("div", { class: "tools" }, across.node, up.node, logX), host);
  }

  const logged = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  if (logged.length) {
    const host = make("div");
    const update = () => host.replaceChildren(new Chart(pick.select.value, runs.filter((run) => run.curves[pick.select.value]).map((run) => ({ name: run.name, x: run.curves[pick.select.value][0], y: run.curves[pick.select.value][1] }))).node);
    const pick = chooser("figure", logged, logged.find((name) => name.startsWith("eval/")) || logged.find((name) => name.endsWith("/loss")), update);
    update();
    section("Curves side by side", make("div", { class: "tools" }, pick.node), host);
  }
  const drawn = runs.filter((run) => run.pictures.length);
  if (drawn.length) section("Last samples", make("div", { class: "gallery" }, ...drawn.map((run) => {
    const apart = keys.slice(0, 3).map((key) => `${key}=${told(run.config[key])}`).join(" ");
    return figure(run.pictures[0].src, `${run.name}: ${apart}`, true);
  })));
}

page.replaceChildren();
if (data.single) one(data.runs[0]); else many(data.runs);
