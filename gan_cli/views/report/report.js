// The page: the report of a run, or the comparison of several runs.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const report = read("report");

const colour = (i) => `var(--c${i % COLOURS})`;
/** The colour of run i of n. The colours of many runs form a gradient that is readable on light and dark pages. */
const shade = (i, n) => (n <= COLOURS ? colour(i) : `hsl(${Math.round(215 + (175 * i) / (n - 1))} 60% 52%)`);
/** The points [step, value] of a curve. */
const points = (curve) =>
  curve ? curve.y.map((y, i) => [curve.x ? curve.x[i] : curve.from + i * curve.by, y]) : [];

// ---- Parts of a page.

const section = (title, ...parts) => el("section", {}, el("h2", {}, title), ...parts);
const status = (run) =>
  el("span", { class: `status ${/^[a-z]+$/.test(run.status) ? run.status : ""}` }, run.status);

function image(picture, alt) {
  return el("img", {
    src: picture.src,
    width: picture.width,
    height: picture.height,
    alt,
    loading: "lazy",
    decoding: "async",
  });
}

/** A table of names and values; rows of changed values are bold. */
const pairs = (rows) =>
  el(
    "table",
    { class: "pairs" },
    el(
      "tbody",
      {},
      rows.map(([name, value, changed]) =>
        el(
          "tr",
          { class: changed ? "changed" : null },
          el("th", { scope: "row" }, breakable(name)),
          el("td", { class: "mono" }, breakable(asText(value))),
        ),
      ),
    ),
  );

const figureList = (figures, label) =>
  el(
    "dl",
    { class: "figures", "aria-label": label },
    figures.map(([name, value, main]) =>
      el(
        "div",
        { class: main ? "main" : null },
        el("dt", {}, breakable(name.replace(/^eval\//, ""))),
        el("dd", {}, short(value)),
      ),
    ),
  );

function grid(head, rows, label) {
  const cell = (value) =>
    el("td", { class: isNumber(value) ? "number" : null }, isNumber(value) ? short(value) : breakable(asText(value)));
  const number = (i) =>
    rows.some((row) => isNumber(row[i])) &&
    rows.every((row) => isNumber(row[i]) || row[i] === null || row[i] === undefined);
  return el(
    "div",
    { class: "wide card", tabindex: "0", role: "region", "aria-label": label },
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((name, i) => el("th", { scope: "col", class: number(i) ? "number" : null }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, row.map(cell))),
      ),
    ),
  );
}

// ---- A run.

function aboutRun(run) {
  const steps = isNumber(run.steps) ? ` of ${short(run.steps)}` : "";
  const facts = [
    `step ${short(run.step)}${steps}`,
    duration(run.seconds),
    run.started ? `started ${moment(run.started)}` : null,
  ];
  const figures = run.figures.map(([name, value]) => [name, value, name.startsWith("eval/")]);
  const best = run.objective;
  if (best) figures.unshift([`best ${asText(best.name)}, at step ${short(best.step)}`, best.value, true]);
  const of =
    run.evaluation && ["samples", "features", "reference"].every((name) => name in run.evaluation)
      ? `Metrics computed from ${short(run.evaluation.samples)} samples in ${asText(run.evaluation.features)}, against ${asText(run.evaluation.reference)}.`
      : null;
  return [
    el("div", { class: "head" }, el("h1", {}, report.name), status(run)),
    el("p", { class: "muted" }, facts.filter((fact) => fact).join(" \u00b7 ")),
    run.notes.map((note) => el("p", { class: "note" }, note)),
    run.error
      ? el(
          "details",
          { open: true, class: "note" },
          el("summary", {}, "Error"),
          el("pre", {}, asText(run.error)),
        )
      : null,
    figures.length ? figureList(figures, "final metrics") : null,
    of ? el("p", { class: "muted" }, of) : null,
  ].flat();
}

/** The model card: a table with sentences about use, data, metrics, copying, privacy and failures. */
const modelCard = (run) =>
  section(
    "Model card",
    el(
      "div",
      { class: "card" },
      el(
        "table",
        { class: "pairs" },
        el(
          "tbody",
          {},
          run.card.map(([title, lines]) =>
            el("tr", {}, el("th", { scope: "row" }, title), el("td", {}, lines.map((line) => el("p", {}, line)))),
          ),
        ),
      ),
    ),
  );

function samples(run) {
  if (!run.pictures.length && !run.real) return null;
  const parts = [];
  // Texts are read, and not looked at.
  const drawn = run.texts.length ? run.texts : run.pictures;
  if (drawn.length) {
    parts.push(filmstrip(drawn, "samples"));
    parts[0].firstChild.id = "samples";
  }
  // Charts of samples also show the real data.
  if (run.real && !(run.charts && run.pictures.length))
    parts.push(el("figure", {}, image(run.real, "real data"), el("figcaption", {}, "real data")));
  for (const one of run.animations)
    parts.push(el("figure", {}, image(one, one.title), el("figcaption", {}, one.title)));
  if (run.neighbours && !run.columns) {
    parts.push(
      el(
        "figure",
        {},
        image(run.neighbours, "samples and their nearest training examples"),
        el("figcaption", {}, "samples, and below each sample its nearest training example"),
      ),
    );
  }
  return section(
    run.real ? "Samples" : "Pictures",
    el(
      "div",
      { class: "card" },
      el("div", { class: run.charts || run.texts.length ? "chart" : "pair" }, parts),
      player(drawn, parts[0], "samples", run.real ? "samples" : ""),
      run.texts.length ? null : few(run),
    ),
  );
}

// ---- Tables.

const SIDES = ["real", "generated"];
const percent = (share) => `${rounded(100 * share, 3)} %`;

/** The distribution of each column of a table, and the associations of all pairs of columns. */
function ofColumns(run) {
  if (!run.columns) return null;
  const { columns, associations, step } = run.columns;
  const legend = el(
    "ul",
    { class: "legend" },
    SIDES.map((side) => el("li", { class: side }, el("i"), side)),
  );
  return section(
    `Columns${isNumber(step) ? ` at step ${short(step)}` : ""}`,
    legend,
    el("div", { class: "distributions" }, columns.map(distribution)),
    el("h3", { style: "margin: 20px 0 8px" }, "Associations of the columns"),
    el(
      "p",
      { class: "muted", style: "margin-bottom: 10px" },
      "Pearson's correlation of two numbers, Cram\u00e9r's V of two categories, and the correlation ratio of a number and a category.",
    ),
    el(
      "div",
      { class: "halves" },
      SIDES.map((side) => matrix(associations[side], columns, side)),
    ),
  );
}

function distribution(column) {
  const drawn = column.range ? histogram(column) : barList(column);
  return el("figure", { class: "card distribution" }, el("h3", {}, column.name), drawn);
}

const highest = (column) => Math.max(...SIDES.flatMap((side) => column[side]), 1e-9);
const tip = (column, label, i) => `${label}: ${SIDES.map((side) => `${side} ${percent(column[side][i])}`).join(", ")}`;

/** Real shares of the intervals as bars, and generated shares as a line of steps. Missing values are on the right. */
function histogram(column) {
  const [width, height] = [300, 120];
  const absent = column.labels.length;
  const bins = column.real.length - absent;
  const side = (width - 50 * absent) / bins;
  const up = (share) => (share / highest(column)) * height;
  const left = (i) => (i < bins ? i * side : width - 32);
  const wide = (i) => (i < bins ? side : 24);
  const steps = (from, to) =>
    column.generated
      .slice(from, to)
      .map((share, i) => `${left(from + i)},${height - up(share)} ${left(from + i) + wide(from + i)},${height - up(share)}`)
      .join(" ");
  const [low, high] = column.range;
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height + 18}`, role: "img", "aria-label": `distribution of ${column.name}` },
    column.real.map((share, i) =>
      svg(
        "rect",
        { class: "real", x: left(i), y: height - up(share), width: Math.max(wide(i) - 0.5, 0.5), height: up(share) },
        svg("title", {}, tip(column, i < bins ? `interval ${i + 1} of ${bins}` : column.labels[0], i)),
      ),
    ),
    svg("polyline", { class: "generated", points: steps(0, bins) }),
    absent ? svg("polyline", { class: "generated", points: steps(bins, bins + 1) }) : null,
    svg("text", { x: 0, y: height + 13 }, low),
    svg("text", { x: width - 50 * absent, y: height + 13, "text-anchor": "end" }, high),
    absent ? svg("text", { x: width, y: height + 13, "text-anchor": "end" }, column.labels[0]) : null,
  );
}

/** Two bars for each category: real above generated. */
function barList(column) {
  const [width, text, step] = [300, 110, 17];
  const bar = (side, i) =>
    svg("rect", {
      class: side,
      x: text,
      y: i * step + (side === "real" ? 2 : 8.5),
      width: (column[side][i] / highest(column)) * (width - text),
      height: 6,
    });
  const cut = (label) => (label.length > 18 ? `${label.slice(0, 17)}\u2026` : label);
  return svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${step * Math.max(column.labels.length, 8)}`,
      role: "img",
      "aria-label": `distribution of ${column.name}`,
    },
    column.labels.map((label, i) =>
      svg(
        "g",
        {},
        svg("title", {}, tip(column, label, i)),
        svg("text", { x: text - 6, y: i * step + 12, "text-anchor": "end" }, cut(label)),
        SIDES.map((side) => bar(side, i)),
      ),
    ),
  );
}

/** A matrix of associations: blue for -1 and orange for 1. */
function matrix(values, columns, side) {
  const [cell, names] = [16, 130];
  const size = cell * columns.length;
  return el(
    "figure",
    { class: "card matrix" },
    el("h3", {}, side),
    svg(
      "svg",
      {
        viewBox: `0 0 ${names + size} ${size}`,
        style: `max-width: ${1.4 * (names + size)}px`,
        role: "img",
        "aria-label": `associations of ${side} rows`,
      },
      columns.map(({ name }, i) =>
        svg("text", { x: names - 6, y: i * cell + 12, "text-anchor": "end" }, name.length > 20 ? `${name.slice(0, 19)}\u2026` : name),
      ),
      values.flatMap((row, i) =>
        row.map((value, j) =>
          svg(
            "rect",
            {
              class: value < 0 ? "negative" : "positive",
              x: names + j * cell,
              y: i * cell,
              width: cell - 0.5,
              height: cell - 0.5,
              "fill-opacity": Math.min(Math.abs(value), 1),
            },
            svg("title", {}, `${columns[i].name}, ${columns[j].name}: ${rounded(value, 3)}`),
          ),
        ),
      ),
    ),
  );
}

/** The pictures of a task: real examples with the outputs of the task, e.g. images above their reconstructions. */
function ofTask(task, charts) {
  if (!task.pictures.length) return null;
  const figure = filmstrip(task.pictures, task.name);
  const title = task.rows.length ? [...new Set(task.rows)].join(", ") : "real examples, and the outputs below them";
  return section(
    `Task ${task.name}`,
    el(
      "div",
      { class: "card" },
      task.rows.length ? labelled(figure, task.rows) : el("div", { class: charts ? "chart" : "pair" }, figure),
      player(task.pictures, figure, task.name, title),
      few(task),
    ),
  );
}

/** A figure with a label beside each row of its picture. */
function labelled(figure, rows) {
  const labels = el(
    "ol",
    { class: "rows", "aria-label": "rows of the picture" },
    rows.map((label) => el("li", {}, label)),
  );
  return el("div", { class: "labelled" }, labels, figure);
}

const few = ({ pictures, drawn }) =>
  drawn > pictures.length
    ? el("p", { class: "muted" }, `This report contains ${pictures.length} of the ${drawn} pictures.`)
    : null;

function filmstrip(pictures, noun) {
  const last = pictures.at(-1);
  if (last.text !== undefined) return el("figure", {}, el("pre", { class: "texts", tabindex: "0" }), el("figcaption"));
  const shown = image(last, `${noun} at step ${last.step}`);
  shown.decoding = "sync"; // avoids flicker while the pictures play
  return el("figure", {}, shown, el("figcaption"));
}

function player(all, figure, noun, title) {
  if (!all.length) return null;
  const [shown, caption] = figure.children;
  const slider = el("input", {
    type: "range",
    min: 0,
    max: all.length - 1,
    value: all.length - 1,
    "aria-label": `step of the ${noun}`,
  });
  const label = el("output", {});
  const play = el("button", { type: "button", "aria-pressed": "false" }, "play");
  let timer = null;
  const show = () => {
    const picture = all[slider.value];
    const step = `step ${short(picture.step)}`;
    if (picture.text !== undefined) shown.textContent = picture.text;
    else
      [shown.src, shown.width, shown.height, shown.alt] = [
        picture.src,
        picture.width,
        picture.height,
        `${noun} at ${step}`,
      ];
    label.textContent = step;
    caption.textContent = title ? `${title}, ${step}` : step;
    slider.setAttribute("aria-valuetext", step);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === all.length - 1) slider.value = 0;
    else slider.stepUp();
    show();
    play.textContent = "pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(
      () => {
        if (Number(slider.value) === all.length - 1) return stop();
        slider.stepUp();
        show();
      },
      Math.max(120, Math.min(500, 6000 / all.length)),
    );
  });
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  show();
  return all.length > 1 ? el("div", { class: "slide" }, play, slider, label) : null;
}

function curves() {
  if (!report.curves.length) return null;
  const grouped = new Map();
  report.curves.forEach(({ chart, label }, i) => {
    const drawn = points(read(`curve-${i}`)[0]);
    const group = grouped.get(chart) ?? [];
    group.push({ name: label, colour: colour(group.length), points: drawn });
    grouped.set(chart, group);
  });
  return section(
    "Curves",
    el(
      "div",
      { class: "grid" },
      [...grouped].map(([title, series]) => new Plot(title, series).element),
    ),
  );
}

function configuration(run) {
  const changed = new Set((run.differences ?? []).map(([key]) => key));
  const groups = new Map();
  for (const [key, value] of run.config) {
    const dot = key.indexOf(".");
    const [group, rest] = dot < 0 ? ["run", key] : [key.slice(0, dot), key.slice(dot + 1)];
    groups.set(group, [...(groups.get(group) ?? []), [rest, value, changed.has(key)]]);
  }
  const different =
    run.differences && run.differences.length
      ? grid(
          ["changed option", "default", "this run"],
          run.differences.map(([key, from, to]) => [key, asText(from), asText(to)]),
          "options that differ from the default",
        )
      : el(
          "p",
          { class: "muted" },
          run.differences
            ? "All options have their default values."
            : "This run does not record which options differ from their defaults.",
        );
  return section(
    "Configuration",
    different,
    el(
      "details",
      {},
      el("summary", {}, "All options"),
      el(
        "div",
        { class: "columns" },
        [...groups].map(([name, rows]) => el("div", { class: "card" }, el("h3", {}, name), pairs(rows))),
      ),
    ),
  );
}

/** Groups of evaluations with equal settings: a list for one evaluation, or a table with a row for each step. */
function evaluations(run) {
  if (!run.evaluations.length) return null;
  const groups = new Map();
  for (const one of run.evaluations) {
    const terms = [
      `${short(one.samples)} samples`,
      `seed ${asText(one.seed)}`,
      one.weights ? `${asText(one.weights)} weights` : null,
      `in ${asText(one.features)}`,
      `against ${asText(one.reference)}`,
    ]
      .filter((term) => term)
      .join(", ");
    groups.set(terms, [...(groups.get(terms) ?? []), one]);
  }
  return section(
    "Evaluations by gan-eval",
    [...groups]
      .map(([terms, found]) => {
        const names = [...new Set(found.flatMap((one) => Object.keys(one.metrics)))];
        const rows = found.map((one) => [one.step, ...names.map((name) => one.metrics[name])]);
        return [
          el("p", { class: "muted" }, found.length > 1 ? terms : `step ${short(found[0].step)}: ${terms}`),
          found.length > 1
            ? grid(["step", ...names], rows, "evaluations")
            : figureList(
                names.map((name, i) => [name, rows[0][i + 1]]),
                "evaluation",
              ),
        ];
      })
      .flat(),
  );
}

function environment(run) {
  const head = ["started", "status", "step", "seconds", "command"];
  const row = (start) => [
    moment(start.started),
    start.status,
    start.step,
    start.seconds,
    Array.isArray(start.command) ? start.command.join(" ") : start.command,
  ];
  return section(
    "Environment",
    el(
      "div",
      { class: "card" },
      pairs(run.environment.map(([name, value]) => [name, Number.isInteger(value) ? value : short(value)])),
    ),
    run.history.length
      ? [
          el("h3", { style: "margin: 16px 0 8px" }, "Earlier starts"),
          grid(head, run.history.map(row), "earlier starts"),
        ]
      : null,
  );
}

// ---- Several runs.

/** The columns of the table, and the axes of the scatter plot: lists of {name, value(run)}. */
function columns() {
  const runs = report.runs;
  const config = report.varied.map((key, i) => ({
    name: key.replace(/\._target_$/, ""),
    value: (run) => brief(run.config[i]?.[1]),
  }));
  const names = [...new Set(runs.flatMap((run) => run.figures.map(([name]) => name)))];
  const by = runs.map((run) => new Map(run.figures));
  const rows = new Map(runs.map((run, i) => [run, by[i]]));
  const figures = names.map((name) => ({ name, value: (run) => rows.get(run).get(name) }));
  const best = runs.find((run) => run.objective);
  if (best) figures.unshift({ name: `best ${asText(best.objective.name)}`, value: (run) => run.objective?.value });
  figures.push({ name: "seconds", value: (run) => run.seconds });
  return { config, figures };
}

/** A value of a configuration in a short form for a table cell. */
function brief(value) {
  if (isNumber(value)) return Number(value.toPrecision(6));
  return typeof value === "string" ? value.replace(/^gan_cli\./, "") : value;
}

function aboutRuns() {
  const counts = new Map();
  for (const run of report.runs) counts.set(run.status, (counts.get(run.status) ?? 0) + 1);
  const parts = [...counts].map(([name, count]) => `${count} ${name}`);
  return [
    el("h1", {}, report.name),
    el("p", { class: "muted" }, `${report.runs.length} runs: ${parts.join(", ")}`),
  ];
}

function runTable({ config, figures }) {
  const all = [
    { name: "run", value: (run) => run.name },
    { name: "status", value: (run) => run.status },
    ...config,
    { name: "step", value: (run) => run.step },
    ...figures,
  ];
  const numeric = all.map(({ value }) => report.runs.some((run) => isNumber(value(run))));
  const body = el("tbody");
  const rows = report.runs.map((run) => [
    run,
    el(
      "tr",
      {},
      all.map(({ value }, i) => {
        if (i === 0) return el("th", { scope: "row" }, run.name);
        if (i === 1) return el("td", {}, status(run));
        const configured = i >= 2 && i < 2 + config.length;
        const text = configured ? asText(value(run)) : short(value(run));
        return el("td", { class: numeric[i] ? "number" : null, title: configured ? text : null }, text);
      }),
    ),
  ]);
  const heads = all.map(({ name, value }, i) => {
    const button = el("button", { type: "button" }, name);
    const head = el("th", { scope: "col", class: numeric[i] ? "number" : null }, button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      rows.sort(([a], [b]) => order(value(a), value(b), sign));
      body.replaceChildren(...rows.map(([, row]) => row));
    });
    return head;
  });
  body.append(...rows.map(([, row]) => row));
  return section(
    "Runs",
    el(
      "div",
      { class: "sortable card", tabindex: "0", role: "region", "aria-label": "table of runs" },
      el("table", {}, el("thead", {}, el("tr", {}, heads)), body),
    ),
  );
}

function choice(label, names, act) {
  const select = el(
    "select",
    {},
    names.map((name, i) => el("option", { value: i }, name)),
  );
  select.addEventListener("change", () => act(Number(select.value)));
  return [el("label", {}, label, select), select];
}

function scatter({ config, figures }) {
  const usable = figures.filter(({ value }) => report.runs.some((run) => isNumber(value(run))));
  if (!config.length || !usable.length) return null;
  let [across, up] = [0, 0];
  /** Whether values vary by large factors, as learning rates do, so that a logarithmic axis suits them. */
  const spread = (values) => Math.min(...values) > 0 && Math.max(...values) >= 50 * Math.min(...values);
  const plot = new Plot("", [], { dots: true, tall: true });
  const update = (moved) => {
    const [key, figure] = [config[across], usable[up]];
    const values = report.runs.map(key.value);
    const number = values.every((value) => isNumber(value));
    const kinds = [...new Set(values.map(asText))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const series = report.runs.map((run, i) => {
      const y = figure.value(run);
      const x = number ? values[i] : kinds.indexOf(asText(values[i]));
      return { name: run.name, colour: "var(--c0)", points: isNumber(y) ? [[x, y]] : [] };
    });
    const without = series.filter((one) => !one.points.length).length;
    plot.options.categories = number ? null : kinds;
    Object.assign(plot.options, { across: key.name, up: figure.name });
    const missing = without ? ` Runs without this metric: ${without}.` : "";
    plot.options.hint = `Point at a run to see its values.${missing}`;
    logs.x.firstChild.disabled = !number;
    if (moved) plot.log.x = logs.x.firstChild.checked = number && spread(values);
    plot.heading.textContent = `${figure.name} by ${key.name}`;
    plot.svg.setAttribute(
      "aria-label",
      `${figure.name} by ${key.name}, one point for each run. Press Left or Right to read the points.`,
    );
    plot.show(series);
  };
  const logs = { x: plot.logSwitch("x", "log across"), y: plot.logSwitch("y", "log up") };
  const [acrossLabel] = choice(
    "across",
    config.map(({ name }) => name),
    (i) => ((across = i), update(true)),
  );
  const [upLabel] = choice(
    "up",
    usable.map(({ name }) => name),
    (i) => ((up = i), update(false)),
  );
  update(true);
  return section(
    "Metric by hyperparameter",
    el("div", { class: "controls" }, acrossLabel, logs.x, upLabel, logs.y),
    plot.element,
  );
}

function overlay() {
  if (!report.curves.length) return null;
  const plot = new Plot("", [], { tall: true, across: STEP });
  const update = (i) => {
    const drawn = read(`curve-${i}`);
    plot.heading.textContent = report.curves[i].name;
    plot.options.up = report.curves[i].name;
    plot.show(
      report.runs.map((run, j) => ({
        name: run.name,
        colour: shade(j, report.runs.length),
        points: points(drawn[j]),
      })),
    );
  };
  const [label] = choice(
    "curve",
    report.curves.map(({ name }) => name),
    update,
  );
  update(0);
  return section("Curves of all runs", el("div", { class: "controls" }, label), plot.element);
}

function gallery({ config }) {
  if (!report.runs.some((run) => run.picture)) return null;
  return section(
    "Last samples",
    el(
      "div",
      { class: "gallery" },
      report.runs.map((run) => {
        const values = config.slice(0, 4).map(({ name, value }) => `${name.split(".").pop()} ${asText(value(run))}`);
        const drawn = isNumber(run.drawn_at) ? [`step ${short(run.drawn_at)}`] : [];
        return el(
          "figure",
          {},
          run.picture
            ? image(run.picture, `last samples of ${run.name}`)
            : el("div", { class: "none muted" }, "no picture"),
          el("figcaption", {}, el("b", {}, run.name), ` \u00b7 ${[...drawn, ...values].join(", ")}`),
        );
      }),
    ),
  );
}

/** Quality against diversity of samples of texts over temperatures: a curve for each run. */
function temperatures() {
  const drawn = report.runs.filter((run) => run.temperatures);
  if (!drawn.length) return null;
  const { quality } = drawn[0].temperatures;
  const series = drawn
    .filter((run) => run.temperatures.quality === quality)
    .map((run, i, all) => ({ name: run.name, colour: shade(i, all.length), points: run.temperatures.points }));
  const across = "share of distinct 2-grams";
  return section("Quality against diversity", new Plot("Temperatures", series, { tall: true, across, up: quality }).element);
}

// ---- The page.

function page() {
  if (report.alone) {
    const [run] = report.runs;
    const drawn = [ofColumns(run), samples(run), ...run.tasks.map((task) => ofTask(task, run.charts))];
    const rest = [temperatures(), curves(), evaluations(run), configuration(run), environment(run)];
    return [...aboutRun(run), modelCard(run), ...drawn, ...rest];
  }
  const chosen = columns();
  const halves = [scatter(chosen), overlay()].filter((part) => part !== null);
  return [...aboutRuns(), runTable(chosen), el("div", { class: "halves" }, halves), temperatures(), gallery(chosen)];
}

document.title = report.name;
document
  .querySelector("main")
  .append(
    ...page().filter((part) => part !== null),
    el("p", { class: "muted", style: "margin-top: 40px" }, `Written by gan-report, ${report.made}.`),
  );
