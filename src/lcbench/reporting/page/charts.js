// Charts: figures of plotly that come with the report, drawn when they come into view.

// Names of rows are cut to this on a narrow window, or nothing would be left for the chart.
const NARROW = { pixels: 700, characters: 16 };

const figures = report.figures ?? {};

// Read only when the first chart comes into view, or its data are asked for.
let viewsRead = null;
const viewAt = (place) => (viewsRead ??= JSON.parse(sourceOf("views")))[place];

function loadPlotly() {
  if (window.Plotly) return;
  const holder = document.getElementById("plotly");
  // Allowed by its hash in the page's policy. A stranger's loader would change where it goes.
  document.head.append(el("script", {}, holder.textContent));
  holder.remove();
}

/** A value of plotly with each of its colours as the theme of this moment has it. */
function themed(value) {
  if (typeof value === "string") return isDark() ? (figures.dark[value] ?? value) : value;
  if (Array.isArray(value)) return value.map(themed);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, themed(one)]));
}

const drawn = new Set();

const namesOf = (options) => options.flatMap((one) => one.options ?? [one]);

/** Return a chart that draws itself when it comes into view; a choice leads to another view. */
function chart({ title, pickers, first, notes = [] }, level = "h4") {
  const choice = pickers.map(() => 0);
  const counts = pickers.map(({ options }) => namesOf(options).length);
  const view = () =>
    viewAt(first + choice.reduce((place, chosen, at) => place * counts[at] + chosen, 0));
  const plot = el("div", { class: "plot", role: "img" });
  const holder = el("div", { class: "plot-holder" }, plot);
  const data = el("div", { class: "figure-data" });
  const fields = pickers.map(({ label, options }, at) => {
    let place = 0;
    // By their places: a name may be anything.
    const option = (text) => ({ value: place++, text });
    const named = options.map((one) =>
      one.options ? { ...one, options: one.options.map(option) } : option(one),
    );
    return chooser(label, named, (value) => {
      choice[at] = Number(value);
      describe();
      if (details.open) fillData();
      if (drawn.has(figure)) figure.draw();
    });
  });
  const details = el("details", {}, el("summary", {}, "Data as a table"), data);
  details.addEventListener("toggle", () => details.open && fillData());
  const rows = () => {
    const { of, columns, rows } = view();
    return of === undefined
      ? [columns, ...rows]
      : [["of", ...columns], ...rows.map((row) => [of, ...row])];
  };
  const figure = el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el(level, {}, title), notes.map((one) => el("p", { class: "key" }, one))),
    fields.length ? el("div", { class: "fields" }, fields) : null,
    holder,
    el(
      "div",
      { class: "figure-tools" },
      csvButton(title, rows, "Data (CSV)", title),
      el("button", { type: "button", onclick: saveImage }, "Image (SVG)", unseen(` of ${title}`)),
      details,
    ),
  );

  function describe() {
    const chosen = pickers.map(({ options }, at) => namesOf(options)[choice[at]]);
    const text = [title, ...chosen].join(", ");
    plot.setAttribute("aria-label", `${text}. Its numbers are in the table that follows.`);
  }

  function fillData() {
    const [header, ...lines] = rows();
    const line = (row) => row.map((value) => el("td", { class: "num" }, datum(value)));
    const body = el("tbody", {}, lines.map((row) => el("tr", {}, line(row))));
    const table = el("table", { class: "plain-data" }, headerRow(header, 0), body);
    data.replaceChildren(scrolling(table, `Data of ${title}`));
  }

  function saveImage() {
    figure.draw();
    const size = { width: 960, height: plot.clientHeight };
    window.Plotly.downloadImage(plot, { format: "svg", filename: fileName(title), ...size });
  }

  figure.draw = () => {
    loadPlotly();
    drawn.add(figure);
    const { data: traces, layout } = themed(view());
    plot.style.height = `${layout.height}px`;
    // The size comes from the page, or a narrow window would be filled beyond its edge.
    delete layout.height;
    layout.template = themed(figures.template);
    layout.template.layout.font.family = getComputedStyle(document.body).fontFamily;
    if (window.innerWidth < NARROW.pixels && layout.yaxis.ticktext) {
      layout.yaxis.ticktext = layout.yaxis.ticktext.map(shortened);
    }
    window.Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true });
    plot.firstElementChild?.setAttribute("aria-hidden", "true");
  };
  describe();
  whenSeen.observe(figure);
  return figure;
}

/** A name of plotly's, where an entity counts as one character. */
function shortened(name) {
  const characters = name.match(/&\w+;|[^]/gu) ?? [];
  if (characters.length <= NARROW.characters) return name;
  return `${characters.slice(0, NARROW.characters - 1).join("")}…`;
}

const datum = (value) => (isNumber(value) ? precise(value) : (value ?? MISSING_VALUE));

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
