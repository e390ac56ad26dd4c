// Charts: drawn by plotly.js, which is read only when the first of them comes into view.

const REDUCED_MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");

// Beyond this an axis is linear within ± 1 % only: at τ = 0.1 a score may fall by half, against
// which gains of one per cent would be invisible.
const MOST_LINEAR_PERCENT = 10;

// Seven colours, six shapes and four dashes: neighbours differ in grey as well.
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "hexagon"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const COLOURS = 7;

/** Plotly reads markup and entities in all its texts; after this it shows what was written. */
const plotlyText = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function shortened(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function loadPlotly() {
  if (window.Plotly) return;
  const holder = document.getElementById("plotly");
  // Allowed by its hash in the page's policy. A stranger's loader would change where it goes.
  document.head.append(el("script", {}, holder.textContent));
  holder.remove();
}

const probe = el("span", { hidden: true });
document.body.append(probe);

/** A colour of the style sheet as the theme of this moment has it. */
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

const seriesColour = (place) => colour(`series-${(place % COLOURS) + 1}`);

function baseLayout() {
  const axis = {
    gridcolor: colour("grid"),
    linecolor: colour("rule"),
    zerolinecolor: colour("quiet-ink"),
    zeroline: false,
    tickcolor: colour("rule"),
    automargin: true,
    // A finger that scrolls the page must not be caught by a chart.
    fixedrange: true,
  };
  return {
    paper_bgcolor: colour("surface"),
    plot_bgcolor: colour("surface"),
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
    margin: { l: 48, r: 16, t: 12, b: 40 },
    hoverlabel: {
      bgcolor: colour("raised"),
      bordercolor: colour("rule"),
      font: { color: colour("ink") },
      align: "left",
    },
    legend: { orientation: "h", x: 0, y: -0.2, yref: "paper", yanchor: "top" },
    dragmode: false,
    hovermode: "closest",
    xaxis: axis,
    yaxis: { ...axis },
  };
}

const drawn = new Set();

/**
 * Return a figure that draws itself when it comes into view.
 *
 * `view(choice)` gives what to show at one choice of the pickers: {traces, layout, description,
 * rows}, `rows` being its data with a header. Colours are read at each call, so that a change of
 * theme draws anew.
 */
function chart(title, pickers, view, level = "h4") {
  const choice = pickers.map(({ options }) => {
    const first = options[0].options ? options[0].options[0] : options[0];
    return first.value ?? first;
  });
  const plot = el("div", { class: "plot", role: "img" });
  const holder = el("div", { class: "plot-holder" }, plot);
  const data = el("div", { class: "figure-data" });
  const fields = pickers.map(({ label, options }, place) =>
    chooser(label, options, (value) => {
      choice[place] = value;
      describe();
      if (drawn.has(figure)) figure.draw();
    }),
  );
  const details = el("details", {}, el("summary", {}, "Data as a table"), data);
  details.addEventListener("toggle", () => details.open && fillData());
  const figure = el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el(level, {}, title)),
    fields.length ? el("div", { class: "fields" }, fields) : null,
    holder,
    el(
      "div",
      { class: "figure-tools" },
      csvButton(title, () => view(choice).rows, "Data (CSV)", title),
      el("button", { type: "button", class: "quiet", onclick: saveImage }, "Image (SVG)", unseen(` of ${title}`)),
      details,
    ),
  );

  function describe() {
    const { description } = view(choice);
    plot.setAttribute("aria-label", `${title}. ${description}`);
    if (details.open) fillData();
  }

  function fillData() {
    const [header, ...rows] = view(choice).rows;
    const table = el(
      "table",
      { class: "plain-data" },
      headerRow(header, header.length),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, row.map((value) => el("td", { class: "num" }, datum(value))))),
      ),
    );
    data.replaceChildren(scrolling(table, `Data of ${title}`));
  }

  function saveImage() {
    figure.draw();
    window.Plotly.downloadImage(plot, { format: "svg", filename: fileName(title), width: 960, height: 480 });
  }

  figure.draw = () => {
    loadPlotly();
    drawn.add(figure);
    const { traces, layout } = view(choice);
    const whole = merged(baseLayout(), layout);
    plot.style.height = `${whole.height ?? 380}px`;
    // The size comes from the page, or a narrow window would be filled beyond its edge.
    delete whole.height;
    window.Plotly.react(plot, traces, whole, { displayModeBar: false, responsive: true });
    plot.firstElementChild?.setAttribute("aria-hidden", "true");
  };
  describe();
  whenSeen.observe(figure);
  return figure;
}

const datum = (value) => (isNumber(value) ? exact(value) : (value ?? HOLE));

/** The second over the first, one level into objects. */
function merged(first, second) {
  const whole = { ...first };
  for (const [key, value] of Object.entries(second)) {
    const both = [first[key], value].every((one) => one && typeof one === "object" && !Array.isArray(one));
    whole[key] = both ? { ...first[key], ...value } : value;
  }
  return whole;
}

const whenSeen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      whenSeen.unobserve(target);
      if (!drawn.has(target)) target.draw();
    }
  },
  { rootMargin: "200px" },
);

const redrawCharts = () => drawn.forEach((figure) => figure.draw());

window.addEventListener("beforeprint", () =>
  document.querySelectorAll("figure.chart").forEach((figure) => figure.draw()),
);

/** Where a percentage stands on an axis, and the ticks of the axis. */
function percentScale(values) {
  const known = values.filter(isNumber);
  const most = Math.max(0, ...known.map(Math.abs));
  if (most <= MOST_LINEAR_PERCENT) {
    return { place: (value) => (isNumber(value) ? value : null), axis: { ticksuffix: " %" }, note: "" };
  }
  const place = (value) => {
    if (!isNumber(value)) return null;
    const size = Math.abs(value);
    return Math.sign(value) * (size <= 1 ? size : 1 + Math.log10(size));
  };
  const sizes = [0.5, 1, 2, 5, 10, 20, 50, 100].filter((size) => size <= most * 1.5);
  const ticks = [...sizes.map((size) => -size).reverse(), 0, ...sizes];
  return {
    place,
    axis: {
      tickvals: ticks.map(place),
      ticktext: ticks.map((tick) => `${String(tick).replace("-", "−")} %`),
      zeroline: true,
    },
    note: " (logarithmic beyond ± 1 %)",
  };
}

/** Error bars of plotly for improvements on a scale; an unknown interval has none. */
function errorBars(improvements, scale, rgb) {
  const length = (one, end) =>
    one && isNumber(one[end]) ? Math.abs(scale.place(one[end]) - scale.place(one.value)) : 0;
  return {
    type: "data",
    symmetric: false,
    array: improvements.map((one) => length(one, "high")),
    arrayminus: improvements.map((one) => length(one, "low")),
    color: rgb,
    thickness: 1.2,
    width: 3,
  };
}

/** Filled where the interval excludes zero or is not known, hollow where it contains it. */
const symbolOf = (improvement, symbol) => (lookOf(improvement) === "unsure" ? `${symbol}-open` : symbol);

function hoverText(name, where, improvement) {
  const interval = lookOf(improvement) === "plain" ? "interval unknown" : `95 % interval ${intervalText(improvement)} %`;
  return `<b>${plotlyText(name)}</b><br>${plotlyText(where)}<br>${signed(improvement.value)} %, ${interval}`;
}

const ends = (improvements) =>
  improvements.flatMap((one) => (one ? [one.value, one.low, one.high] : []));

/** A line of improvements with their intervals; `thick` for the one that the others make up. */
function improvementLine(name, x, improvements, place, scale, thick, where) {
  const rgb = thick ? colour("ink") : seriesColour(place);
  const symbol = thick ? "circle" : SYMBOLS[place % SYMBOLS.length];
  return {
    type: "scatter",
    mode: "lines+markers",
    name: plotlyText(shortened(name, 40)),
    x,
    y: improvements.map((one) => scale.place(one?.value)),
    error_y: errorBars(improvements, scale, rgb),
    line: { color: rgb, width: thick ? 3 : 1.5, dash: thick ? "solid" : DASHES[place % DASHES.length] },
    marker: {
      color: rgb,
      size: thick ? 9 : 7.5,
      symbol: improvements.map((one) => symbolOf(one, symbol)),
      line: { width: 1.5, color: rgb },
    },
    text: improvements.map((one, at) => (one ? hoverText(name, where[at], one) : "")),
    hovertemplate: "%{text}<extra></extra>",
    connectgaps: false,
  };
}

/** Improvements as points with their intervals, one a row, from the top. */
function forest(rows) {
  const scale = percentScale(ends(rows.map((row) => row.improvement)));
  const narrow = window.innerWidth < 700;
  const known = rows.filter((row) => row.improvement);
  const groups = [
    ["gain, interval excludes zero", "circle", "series-1", "up"],
    ["loss, interval excludes zero", "diamond", "series-2", "down"],
    ["interval contains zero", "circle-open", "quiet-ink", "unsure"],
    ["interval unknown", "x-thin-open", "quiet-ink", "plain"],
  ];
  const traces = groups.map(([name, symbol, ink, look]) => {
    const those = known.filter((row) => lookOf(row.improvement) === look);
    const rgb = colour(ink);
    return {
      type: "scatter",
      mode: "markers",
      name,
      x: those.map((row) => scale.place(row.improvement.value)),
      y: those.map((row) => known.indexOf(row)),
      error_x: errorBars(those.map((row) => row.improvement), scale, rgb),
      marker: { symbol, size: 9, color: rgb, line: { width: 1.8, color: rgb } },
      text: those.map((row) => hoverText(row.name, row.where, row.improvement)),
      hovertemplate: "%{text}<extra></extra>",
      visible: those.length > 0,
    };
  });
  return {
    traces,
    layout: {
      height: Math.max(200, 24 * known.length + 110),
      margin: { l: 24, r: 16, t: 8, b: 40 },
      xaxis: { ...scale.axis, title: { text: `relative improvement, %${scale.note}` }, zeroline: true, zerolinewidth: 1.5 },
      yaxis: {
        tickvals: known.map((_, place) => place),
        ticktext: known.map((row) => plotlyText(shortened(row.name, narrow ? 16 : 40))),
        range: [known.length - 0.4, -0.6],
      },
      legend: { y: 1.02, yanchor: "bottom" },
    },
    description: known.length
      ? known
          .map((row) => `${row.name}: ${signed(row.improvement.value)} %, ${intervalText(row.improvement)}`)
          .join("; ")
      : "Nothing to show.",
    rows: [
      ["name", "of", "improvement", "low", "high"],
      ...known.map(({ name, where, improvement }) => [name, where, improvement.value, improvement.low, improvement.high]),
    ],
  };
}

/** A heat map; around zero where there are losses and gains, else from light to dark. */
function heatMap(one) {
  const all = one.values.flat().filter(isNumber);
  const diverging = all.some((value) => value < 0);
  const most = Math.max(1e-9, ...all.map(Math.abs));
  const shown = (value) => (diverging ? signed(value) : fixed(value));
  return {
    traces: [
      {
        type: "heatmap",
        // As names, so that all temperatures get the same room.
        x: one.document_temperatures.map(String),
        y: one.query_temperatures.map(String),
        z: one.values,
        text: one.values.map((row) => row.map((value) => (isNumber(value) ? shown(value) : HOLE))),
        texttemplate: "%{text}",
        hovertemplate: "τ of queries %{y}<br>τ of documents %{x}<br>%{z}<extra></extra>",
        colorscale: diverging
          ? [[0, colour("down-deep")], [0.5, colour("surface")], [1, colour("up-deep")]]
          : [[0, colour("surface")], [1, colour("up-deep")]],
        ...(diverging ? { zmin: -most, zmax: most } : {}),
        xgap: 2,
        ygap: 2,
        colorbar: { thickness: 10, outlinewidth: 0 },
      },
    ],
    layout: {
      height: 120 + 34 * one.query_temperatures.length,
      xaxis: { type: "category", title: { text: "τ of documents" }, showgrid: false },
      yaxis: { type: "category", title: { text: "τ of queries" }, showgrid: false, autorange: "reversed" },
    },
    description: one.query_temperatures
      .map((query, y) =>
        one.document_temperatures.map((other, x) => `queries ${query}, documents ${other}: ${shown(one.values[y][x])}`).join("; "),
      )
      .join("; "),
    rows: [
      ["query_temperature", "document_temperature", "value"],
      ...one.query_temperatures.flatMap((query, y) =>
        one.document_temperatures.map((other, x) => [query, other, one.values[y][x]]),
      ),
    ],
  };
}
