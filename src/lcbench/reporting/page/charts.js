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
  const imageName = unseen(` of ${title}`);
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
      el("button", { type: "button", onclick: saveImage }, "Image (SVG)", imageName),
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
    const line = (row) => row.map((value) => el("td", { class: "num" }, datum(value)));
    const body = el("tbody", {}, rows.map((row) => el("tr", {}, line(row))));
    const table = el("table", { class: "plain-data" }, headerRow(header, 0), body);
    data.replaceChildren(scrolling(table, `Data of ${title}`));
  }

  function saveImage() {
    figure.draw();
    const size = { width: 960, height: 480 };
    window.Plotly.downloadImage(plot, { format: "svg", filename: fileName(title), ...size });
  }

  figure.draw = () => {
    loadPlotly();
    drawn.add(figure);
    const { traces, layout } = view(choice);
    const whole = merged(baseLayout(), layout);
    if (!traces.some(hasValues)) Object.assign(whole, NOTHING_TO_SHOW);
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

const datum = (value) => (isNumber(value) ? precise(value) : (value ?? HOLE));

const hasValues = ({ x, y, z }) =>
  z ? z.flat().some(isNumber) : x.some((value, at) => isNumber(value) && isNumber(y[at]));

// Instead of axes around nothing, whose numbers plotly makes up.
const NOTHING_TO_SHOW = {
  height: 192,
  xaxis: { visible: false, fixedrange: true },
  yaxis: { visible: false, fixedrange: true },
  showlegend: false,
  annotations: [
    { text: "No values to show.", xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false },
  ],
};

/** The second over the first, one level into objects. */
function merged(first, second) {
  const isPlain = (one) => one && typeof one === "object" && !Array.isArray(one);
  const whole = { ...first };
  for (const [key, value] of Object.entries(second)) {
    whole[key] = isPlain(first[key]) && isPlain(value) ? { ...first[key], ...value } : value;
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

/** Where a percentage stands on an axis, and the ticks of the axis. */
function percentScale(values) {
  const known = values.filter(isNumber);
  const most = Math.max(0, ...known.map(Math.abs));
  if (most <= MOST_LINEAR_PERCENT) {
    const place = (value) => (isNumber(value) ? value : null);
    return { place, axis: { ticksuffix: " %" }, note: "" };
  }
  const place = (value) => {
    if (!isNumber(value)) return null;
    const size = Math.abs(value);
    return Math.sign(value) * (size <= 1 ? size : 1 + Math.log10(size));
  };
  const sizes = [0.5, 1, 2, 5, 10, 20, 50, 100].filter((size) => size <= most * 1.5);
  const ticks = [...sizes.map((size) => -size).reverse(), 0, ...sizes];
  const ticktext = ticks.map((tick) => `${String(tick).replace("-", "−")} %`);
  const note = " (logarithmic beyond ± 1 %)";
  return { place, axis: { tickvals: ticks.map(place), ticktext }, note };
}

const percentAxis = (scale) => ({
  ...scale.axis,
  title: { text: `relative improvement${scale.note}`, standoff: 8 },
  // Without zero in sight a small gain would look like a large one.
  rangemode: "tozero",
  zeroline: true,
  zerolinewidth: 1.5,
});

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

/** Filled where it is significant or not known, hollow where it is not significant. */
const symbolOf = (improvement, symbol) =>
  lookOf(improvement) === "unsure" ? `${symbol}-open` : symbol;

function hoverText(name, where, value) {
  return `<b>${plotlyText(name)}</b><br>${plotlyText(where)}<br>${value}`;
}

function improvementHover(name, where, improvement) {
  if (!improvement) return "";
  const isKnown = lookOf(improvement) !== "plain";
  const interval = isKnown ? `95 % interval ${intervalText(improvement)} %` : "interval unknown";
  return hoverText(name, where, `${signed(improvement.value)} %, ${interval}`);
}

const ends = (improvements) =>
  improvements.flatMap((one) => (one ? [one.value, one.low, one.high] : []));

/** What lines share; a thick one is what the others are compared with or make up. */
function lineLook(name, at, isThick) {
  const rgb = isThick ? colour("ink") : seriesColour(at);
  const dash = isThick ? "solid" : DASHES[at % DASHES.length];
  return {
    type: "scatter",
    mode: "lines+markers",
    name: plotlyText(shortened(name, 40)),
    line: { color: rgb, width: isThick ? 3 : 1.5, dash },
    hovertemplate: "%{text}<extra></extra>",
    connectgaps: false,
    // A marker at zero stands on the edge where nothing is below it.
    cliponaxis: false,
  };
}

/** A line of improvements with their intervals; `where` says of each what it belongs to. */
function improvementLine({ name, x, improvements, where, at, scale, isThick }) {
  const look = lineLook(name, at, isThick);
  const rgb = look.line.color;
  const symbol = isThick ? "circle" : SYMBOLS[at % SYMBOLS.length];
  return {
    ...look,
    x,
    y: improvements.map((one) => scale.place(one?.value)),
    error_y: errorBars(improvements, scale, rgb),
    marker: {
      color: rgb,
      size: isThick ? 9 : 7.5,
      symbol: improvements.map((one) => symbolOf(one, symbol)),
      line: { width: 1.5, color: rgb },
    },
    text: improvements.map((one, place) => improvementHover(name, where[place], one)),
  };
}

/** A line of values of which no interval is shown. */
function plainLine({ name, x, values, where, at, isThick }) {
  const look = lineLook(name, at, isThick);
  const symbol = isThick ? "circle" : SYMBOLS[at % SYMBOLS.length];
  return {
    ...look,
    x,
    y: values,
    marker: { color: look.line.color, size: 7.5, symbol },
    text: values.map((value, place) => hoverText(name, where[place], precise(value))),
  };
}

// The name of a group of intervals, its symbol, its colour, and the look that belongs to it.
const FOREST_GROUPS = [
  ["gain, significant", "circle", "up", "up"],
  ["loss, significant", "diamond", "down", "down"],
  ["not significant", "circle-open", "quiet-ink", "unsure"],
  ["interval unknown", "x-thin-open", "quiet-ink", "plain"],
];

/** Improvements as points with their intervals, one a row, from the top. */
function forest(rows) {
  const known = rows.filter((row) => row.improvement);
  const scale = percentScale(ends(known.map((row) => row.improvement)));
  const mostOfName = window.innerWidth < 700 ? 16 : 40;
  const traces = FOREST_GROUPS.map(([name, symbol, ink, look]) => {
    const those = known.filter((row) => lookOf(row.improvement) === look);
    const improvements = those.map((row) => row.improvement);
    const rgb = colour(ink);
    return {
      type: "scatter",
      mode: "markers",
      name,
      x: improvements.map((one) => scale.place(one.value)),
      y: those.map((row) => known.indexOf(row)),
      error_x: errorBars(improvements, scale, rgb),
      marker: { symbol, size: 9, color: rgb, line: { width: 1.8, color: rgb } },
      text: those.map((row) => improvementHover(row.name, row.where, row.improvement)),
      hovertemplate: "%{text}<extra></extra>",
      visible: those.length > 0,
    };
  });
  const texts = known.map(
    ({ name, improvement }) =>
      `${name}: ${signed(improvement.value)} %, ${intervalText(improvement)}`,
  );
  return {
    traces,
    layout: {
      height: Math.max(200, 24 * known.length + 110),
      margin: { l: 24, r: 16, t: 8, b: 40 },
      xaxis: percentAxis(scale),
      yaxis: {
        tickvals: known.map((_, place) => place),
        ticktext: known.map((row) => plotlyText(shortened(row.name, mostOfName))),
        range: [known.length - 0.4, -0.6],
      },
      legend: { y: 1.02, yanchor: "bottom" },
    },
    description: texts.join("; ") || "Nothing is known.",
    rows: [
      ["name", "of", "improvement", "low", "high"],
      ...known.map(({ name, where, improvement }) => [
        ...[name, where],
        ...[improvement.value, improvement.low, improvement.high],
      ]),
    ],
  };
}

/**
 * A heat map of improvements in %, blue above zero and orange below.
 *
 * `scale` and `most`, the largest place on it, are those of all heat maps of the report: a colour
 * means the same in each.
 */
function heatMap(grid, scale, most) {
  const { query_temperatures: queries, document_temperatures: documents, values } = grid;
  const shown = (value) => signed(value);
  const [down, zero, up] = ["down-deep", "surface", "up-deep"].map(colour);
  const places = cross([...queries.keys()], [...documents.keys()]);
  const texts = places.map(
    ([y, x]) => `queries ${queries[y]}, documents ${documents[x]}: ${shown(values[y][x])}`,
  );
  const axis = { type: "category", showgrid: false };
  // The bar is short: powers of ten are all that is legible on a logarithmic one.
  const { tickvals, ticktext } = scale.axis;
  const kept = tickvals?.flatMap((tick, at) => (Number.isInteger(tick) ? [at] : []));
  const ticks = kept
    ? { tickvals: kept.map((at) => tickvals[at]), ticktext: kept.map((at) => ticktext[at]) }
    : scale.axis;
  return {
    traces: [
      {
        type: "heatmap",
        // As names, so that all temperatures get the same room.
        x: documents.map(String),
        y: queries.map(String),
        z: values.map((row) => row.map(scale.place)),
        text: values.map((row) => row.map(shown)),
        texttemplate: "%{text}",
        hovertemplate: "τ of queries %{y}<br>τ of documents %{x}<br>%{text} %<extra></extra>",
        colorscale: [[0, down], [0.5, zero], [1, up]],
        zmin: -most,
        zmax: most,
        xgap: 2,
        ygap: 2,
        colorbar: { thickness: 10, outlinewidth: 0, ...ticks },
      },
    ],
    layout: {
      height: 120 + 34 * queries.length,
      xaxis: { ...axis, title: { text: "τ of documents" } },
      yaxis: { ...axis, title: { text: "τ of queries" }, autorange: "reversed" },
    },
    description: texts.join("; "),
    rows: [
      ["query_temperature", "document_temperature", "value"],
      ...places.map(([y, x]) => [queries[y], documents[x], values[y][x]]),
    ],
  };
}
