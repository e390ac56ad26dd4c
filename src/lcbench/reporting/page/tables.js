// The report's tables: Table 1, the choice of τ, tasks by τ, and sheets.

// Table 1.

function tableOne(table) {
  const names = columnNames(table);
  const counts = new Map(table.columns.map((column) => [column.name, column.tasks.length]));
  const headers = names.map((name) => {
    const count = counts.has(name) ? ` (${counts.get(name)})` : "";
    const attributes = { scope: "col", class: placeClass(name) };
    return el("th", attributes, name, el("span", { class: "count" }, count));
  });
  const bodies = [];
  let window = null;
  for (const model of table.models) {
    const text = `Window ${windowText(model)}`;
    if (text !== window) bodies.push(el("tbody", {}, headingRow(text, names.length + 2)));
    window = text;
    bodies.at(-1).append(...modelRows(table, model, names));
  }
  if (table.average_improvement) bodies.push(el("tbody", {}, averageRow(table, names)));
  const first = ["Model", "Row"].map((name) => el("th", { scope: "col" }, name));
  return scrolling(
    el("table", { class: "table-one" }, el("thead", {}, el("tr", {}, first, headers)), bodies),
    `Table 1 of ${headingOf(table)}: arrow keys move between its numbers`,
  );
}

const placeClass = (column) => (column === AVERAGE ? "num average" : "num");

function modelRows(table, model, names) {
  const lines = [["raw", BASELINE]];
  if (model.best !== null) lines.push(["ours", model.best], ["Relative Improv.", model.best]);
  return lines.map(([row, policy], at) => {
    const isRelative = row === "Relative Improv.";
    const label = { scope: "row", rowspan: lines.length, class: "model" };
    return el(
      "tr",
      { class: isRelative ? "relative" : at === 0 ? "first" : null },
      at === 0 ? el("th", label, model.label) : null,
      el("th", { scope: "row", class: "row-name" }, row === "ours" ? `ours ${tau(policy)}` : row),
      names.map((name) => {
        const shown = meanNumber(table, model, policy, name, isRelative);
        return el("td", { class: placeClass(name) }, shown);
      }),
    );
  });
}

function meanNumber(table, model, policy, column, isRelative) {
  const improvement = improvementOf(model, policy, column);
  const value = isRelative ? improvement?.value : model.scores[policy]?.[column];
  if (!isNumber(value)) {
    const partial = model.partial?.[policy]?.[column];
    return partial ? `${partial[0]} of ${partial[1]}` : HOLE;
  }
  const about = aboutMean(model, policy, column);
  const open = () => openMean(table, model, policy, column);
  return isRelative
    ? improvementNumber(improvement, about, open)
    : number([fixed(value)], "plain", about, open);
}

function averageRow(table, names) {
  const places = names.map((name) => {
    const improvement = table.average_improvement[name];
    const about = () => ({
      title: `Avg Improv. of ${name}: the mean over the models, each at its best τ`,
      facts: improvementFacts(improvement),
    });
    const shown = improvement ? improvementNumber(improvement, about) : HOLE;
    return el("td", { class: placeClass(name) }, shown);
  });
  const label = el("th", { scope: "row", colspan: 2 }, "Avg Improv.");
  return el("tr", { class: "total" }, label, places);
}

function tableOneRows(table) {
  const header = ["group", "window", "model", "revision", "policy", "column"];
  const rows = table.models.flatMap((model) =>
    model.policies.flatMap((policy) =>
      columnNames(table).map((column) => {
        const improvement = improvementOf(model, policy, column);
        return [
          ...[table.group, model.window, model.model, model.revision, policy, column],
          model.scores[policy]?.[column],
          ...[improvement?.value, improvement?.low, improvement?.high],
        ];
      }),
    ),
  );
  return [[...header, "score", "improvement", "low", "high"], ...rows];
}

// The choice of τ.

const PAPERS_RULE = `The paper takes the τ that is best over all tasks, on the data that it reports.
  Beside it: what is gained when each task gets the τ that is best over the other tasks.`;

/** The nodes of the choice, or null where there is none. */
function choiceOfTau({ group, choice, models }) {
  if (!choice?.models?.length) return notesList(choice?.notes);
  const names = [
    "Model",
    "τ, paper’s rule",
    "gain, %",
    "95 % interval",
    "gain, task held out, %",
    "optimism, points",
    "τ = 0.8 loses, points",
  ];
  const rows = choice.models.map((one) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, one.label),
      choicePlaces(one, gainOf(models, one)).map((shown) => el("td", { class: "num" }, shown)),
    ),
  );
  const oneForAll = isNumber(choice.one_gain)
    ? `One τ for all models: ${choice.one_tau}, with a mean gain of ${signed(choice.one_gain)} %.`
    : "No τ was tried for all models.";
  return [
    el("p", {}, PAPERS_RULE),
    scrolling(
      el("table", {}, headerRow(names, 1), el("tbody", {}, rows)),
      `Choice of τ of ${group}`,
      "fit",
    ),
    ...(choice.models.length > 1 ? [el("p", {}, oneForAll)] : []),
    notesList(choice.notes),
  ];
}

/** The improvement of Avg at the τ of the paper's rule; nothing at τ = 1. */
const gainOf = (models, one) =>
  models.find(({ label }) => label === one.label)?.improvements[one.tau]?.Avg;

function choicePlaces(one, gain) {
  const aboutGain = () => ({
    title: `${one.label}: gain of Avg at each τ, %`,
    facts: Object.entries(one.gains).map(([policy, gain]) => [tau(policy), precise(gain)]),
  });
  const aboutHonest = () => ({
    title: `${one.label}: each task at the τ that is best over the others`,
    facts: [["Held-out gain, %", precise(one.honest_gain)]],
  });
  const openHonest = () =>
    openDetail(aboutHonest().title, [
      factList(aboutHonest().facts),
      el("h3", {}, "The τ of each task"),
      factList(Object.entries(one.held_out ?? {})),
    ]);
  const points = (value, name, shown) => {
    if (!isNumber(value)) return HOLE;
    const about = () => ({ title: one.label, facts: [[name, precise(value)]] });
    return number([shown(value)], "plain", about);
  };
  return [
    one.tau,
    number([signed(one.gain)], "plain", aboutGain),
    intervalText(gain),
    number([signed(one.honest_gain)], "plain", aboutHonest, openHonest),
    points(one.optimism, "Optimism of the paper’s rule, points", signed),
    points(one.usual_regret, "What τ = 0.8 loses against the best τ, points", fixed),
  ];
}

// Tasks by τ.

function matrix(table) {
  const holder = el("div");
  let model = table.models[0];
  let isRelative = true;
  const draw = () => holder.replaceChildren(matrixTable(table, model, isRelative));
  const models = table.models.map((one, at) => ({ value: at, text: one.label }));
  const modelField = chooser("Model", models, (at) => {
    model = table.models[Number(at)];
    draw();
  });
  const kindField = chooser("Show", ["improvement, %", "score × 100"], (kind) => {
    isRelative = kind === "improvement, %";
    draw();
  });
  draw();
  const fields = [models.length > 1 ? modelField : null, kindField];
  return [el("div", { class: "fields" }, fields), holder];
}

function matrixTable(table, model, isRelative) {
  const policies = model.policies.filter((policy) => !isRelative || policy !== BASELINE);
  const sizes = model.cells.map((cell) => Math.abs(cell.improvement?.value ?? 0));
  const most = Math.max(1e-9, ...sizes);
  const names = ["Task", ...(isRelative ? ["raw"] : []), ...policies.map(tau)];
  const line = (task) => {
    const those = policies.map((policy) => findCell(table, model, policy, task));
    const raw = findCell(table, model, BASELINE, task);
    const best = Math.max(...those.map((cell) => cell?.score ?? -Infinity));
    const places = isRelative
      ? [scorePlace(raw), ...those.map((cell) => tinted(cell, most))]
      : those.map((cell) => scorePlace(cell, cell?.score === best ? "strong" : "plain"));
    return el("tr", {}, el("th", { scope: "row" }, task), places);
  };
  const bodies = table.columns.map((column) =>
    el("tbody", {}, headingRow(column.name, names.length), column.tasks.map(line)),
  );
  return scrolling(
    el("table", { class: "matrix" }, headerRow(names, 1), bodies),
    `Tasks and τ of ${model.label}: arrow keys move between its numbers`,
    "tall",
  );
}

const scorePlace = (cell, look) =>
  el("td", { class: "num" }, cell ? scoreNumber(cell, look) : HOLE);

/** A place whose ground shows the size of its improvement; the root keeps small ones visible. */
function tinted(cell, most) {
  const value = cell?.improvement?.value;
  const place = el("td", { class: "num" }, cell ? cellImprovement(cell) : HOLE);
  if (isNumber(value) && value !== 0) {
    place.classList.add("tint", value > 0 ? "tint-up" : "tint-down");
    const strength = Math.round(34 * Math.sqrt(Math.abs(value) / most));
    place.style.setProperty("--strength", `${strength}%`);
  }
  return place;
}

// Sheets: further tables, which come with their texts.

const LOOKS = { neutral: "plain", gain: "up", loss: "down", inconclusive: "unsure", best: "strong" };

// A table of more rows is made when it is asked for: a page with thousands would open slowly.
const MOST_ROWS = 100;

function sheetTable(sheet) {
  const labels = sheet.labels ?? 1;
  const width = sheet.header.length;
  const length = sheet.sections.reduce((sum, section) => sum + section.rows.length, 0);
  const bodies = () => sheet.sections.map(({ heading, rows }) =>
    el(
      "tbody",
      {},
      heading ? headingRow(heading, width) : null,
      rows.map((row) =>
        el("tr", {}, row.map((entry, at) => sheetPlace(sheet, row, entry, at, labels))),
      ),
    ),
  );
  // A table of few columns would be hard to read across the whole page.
  const looks = width > 7 ? "tall" : "tall fit";
  const table = () =>
    scrolling(el("table", {}, headerRow(sheet.header, labels), bodies()), sheet.title, looks);
  const rows = () => [
    ["section", ...sheet.header],
    ...sheet.sections.flatMap((section) =>
      section.rows.map((row) => [section.heading, ...row.map((entry) => entry.value)]),
    ),
  ];
  return [
    el("h3", {}, sheet.title),
    length > MOST_ROWS ? opened(`The table of ${length.toLocaleString("en")} rows`, table) : table(),
    el("div", { class: "figure-tools" }, csvButton(sheet.name, rows, "Data (CSV)", sheet.title)),
    notesList(sheet.notes),
  ];
}

/** What is made when its summary is opened, once. */
function opened(summary, make) {
  const details = el("details", {}, el("summary", {}, summary));
  details.addEventListener("toggle", () => details.append(make()), { once: true });
  return details;
}

function sheetPlace(sheet, row, entry, at, labels) {
  if (at < labels) {
    return at === 0 ? el("th", { scope: "row" }, entry.text) : el("td", {}, entry.text);
  }
  const isHole = entry.value === null || entry.value === undefined;
  if (isHole && !entry.tooltip) return el("td", { class: "num" }, entry.text);
  const about = () => ({
    title: [...row.slice(0, labels).map((one) => one.text), sheet.header[at]].join(", "),
    facts: [
      ["Value", isNumber(entry.value) ? precise(entry.value) : plain(entry.value)],
      ...(entry.tooltip ? [["More", entry.tooltip]] : []),
    ],
  });
  const look = LOOKS[entry.style] ?? "plain";
  return el("td", { class: "num" }, number([entry.text], look, about));
}

function notesList(notes, footnotes) {
  if (!notes?.length && !footnotes?.length) return null;
  const list = notes?.length ? el("ul", {}, notes.map((note) => el("li", {}, note))) : null;
  return el("div", { class: "notes" }, list, (footnotes ?? []).map((note) => el("p", {}, note)));
}
