// The page itself: reads the report and puts its sections together.

const report = JSON.parse(sourceOf("document"));
const tables = report.tables ?? [];
const main = document.getElementById("main");

// Read only when the first number is opened: it is most of a large report.
let provenanceRead = null;
function provenanceOf(id) {
  provenanceRead ??= JSON.parse(sourceOf("provenance"));
  const found = provenanceRead[id];
  // What many cells have in common is in the report once.
  return found && Object.fromEntries(
    Object.entries(found).map(([name, value]) => [name, report.shared?.[value?.shared] ?? value]),
  );
}

/** The τ of a constant policy; NaN for one by role, layer or length. */
const temperature = (policy) => Number(policy);

/** What the cells of all tables are found by, and each with what belongs to it. */
const cells = tables.flatMap((table) =>
  table.models.flatMap((model) => {
    const raws = new Map(
      model.cells.filter((cell) => cell.policy === BASELINE).map((cell) => [cell.task, cell.score]),
    );
    return model.cells.map((cell) => ({ ...cell, table, model, raw: raws.get(cell.task) ?? null }));
  }),
);

const cellKey = (model, policy, task) => JSON.stringify([model.label, policy, task]);
const cellIndex = new Map(
  tables.map((table) => [
    table,
    new Map(
      cells
        .filter((cell) => cell.table === table)
        .map((cell) => [cellKey(cell.model, cell.policy, cell.task), cell]),
    ),
  ]),
);
const findCell = (table, model, policy, task) => cellIndex.get(table).get(cellKey(model, policy, task));

const windowText = (model) => (isNumber(model.window) ? String(model.window) : HOLE);
const tau = (policy) => `τ = ${policy}`;
const columnNames = (table) => [...table.columns.map((column) => column.name), AVERAGE];
const improvementOf = (model, policy, column) => model.improvements?.[policy]?.[column] ?? null;

// Details of a cell and of a mean.

function cellTitle(cell) {
  return `${cell.task}: ${cell.model.label}, ${tau(cell.policy)}`;
}

function cellFacts(cell) {
  const facts = [["Score × 100", exact(cell.score)]];
  if (cell.policy !== BASELINE) facts.push(["Baseline × 100", exact(cell.raw)]);
  return [...facts, ...improvementFacts(cell.improvement)];
}

const aboutCell = (cell) => () => ({ title: cellTitle(cell), facts: cellFacts(cell) });

function openCell(cell) {
  const subsets = Object.entries(cell.subsets ?? {});
  const found = cell.provenance === null ? undefined : provenanceOf(cell.provenance);
  openDetail(cellTitle(cell), [
    factList([
      ["Model", cell.model.model],
      ["Revision", cell.model.revision ?? HOLE],
      ["Window", windowText(cell.model)],
      ["Task", `${cell.task} (${cell.column})`],
      ["Temperature policy", cell.policy],
      ...cellFacts(cell),
    ]),
    subsets.length > 1 ? el("h3", {}, "Subsets, score × 100") : null,
    subsets.length > 1 ? factList(subsets.map(([name, score]) => [name, exact(score)])) : null,
    el("h3", {}, "Provenance"),
    found === undefined
      ? el("p", {}, "Of this cell nothing but its score is known.")
      : el("div", { class: "provenance" }, nested(found)),
    found === undefined
      ? null
      : el(
          "button",
          {
            type: "button",
            class: "quiet",
            onclick: () =>
              save(`${fileName(cellTitle(cell))}.json`, `${JSON.stringify(found, null, 2)}\n`, "application/json"),
          },
          "Provenance (JSON)",
        ),
  ].filter((node) => node !== null));
}

const scoreNumber = (cell, look = "plain") =>
  number([fixed(cell.score)], look, aboutCell(cell), () => openCell(cell));

const cellImprovement = (cell) =>
  improvementNumber(cell.improvement, aboutCell(cell), () => openCell(cell));

function aboutMean(table, model, policy, column) {
  return () => {
    const facts = [["Score × 100", exact(model.scores[policy]?.[column])]];
    if (policy !== BASELINE) {
      facts.push(["Baseline × 100", exact(model.scores[BASELINE]?.[column])]);
      facts.push(...improvementFacts(improvementOf(model, policy, column)));
    }
    return { title: `${column}: ${model.label}, ${tau(policy)}`, facts };
  };
}

/** A mean leads to the cells that it is made of. */
function openMean(table, model, policy, column) {
  const { title, facts } = aboutMean(table, model, policy, column)();
  const averaged = table.averaged ?? table.columns.map((one) => one.name);
  const parts = table.columns.filter((one) =>
    column === AVERAGE ? averaged.includes(one.name) : one.name === column,
  );
  const bodies = parts.map((part) =>
    el(
      "tbody",
      {},
      parts.length > 1 ? headingRow(part.name, 4) : null,
      part.tasks.map((task) => {
        const cell = findCell(table, model, policy, task);
        const raw = findCell(table, model, BASELINE, task);
        return el(
          "tr",
          {},
          el("th", { scope: "row" }, task),
          el("td", { class: "num" }, raw ? scoreNumber(raw) : HOLE),
          el("td", { class: "num" }, cell ? scoreNumber(cell) : HOLE),
          el("td", { class: "num" }, cell?.improvement ? cellImprovement(cell) : HOLE),
        );
      }),
    ),
  );
  const header = ["Task", "raw", tau(policy), "Improv., %"];
  openDetail(title, [
    factList(facts),
    el("h3", {}, column === AVERAGE ? "The mean of the means of these columns" : "The mean of these tasks"),
    scrolling(
      el("table", {}, headerRow(header, 1), bodies),
      `Cells of ${title}`,
    ),
  ]);
}

// Sections. Each is named once, here and in the contents.

const contents = el("ul");
document.getElementById("contents").append(el("h2", { class: "unseen" }, "Contents"), contents);
addToContents("findings", "What was found");

function addToContents(id, title) {
  contents.append(el("li", {}, el("a", { href: `#${id}` }, title)));
}

function section(id, title, ...nodes) {
  addToContents(id, title);
  const heading = el("h2", { id: `${id}-title` }, title);
  main.append(el("section", { id, "aria-labelledby": `${id}-title` }, heading, nodes));
}

function notesList(notes, footnotes = []) {
  if (!notes?.length && !footnotes?.length) return null;
  return el(
    "div",
    { class: "notes" },
    notes?.length ? el("ul", {}, notes.map((note) => el("li", {}, note))) : null,
    footnotes?.length ? footnotes.map((note) => el("p", {}, note)) : null,
  );
}

// Table 1.

function tableOne(table) {
  const names = columnNames(table);
  const counts = new Map(table.columns.map((column) => [column.name, column.tasks.length]));
  const header = el(
    "tr",
    {},
    el("th", { scope: "col" }, "Model"),
    el("th", { scope: "col" }, "Row"),
    names.map((name) =>
      el(
        "th",
        { scope: "col", class: name === AVERAGE ? "num average" : "num" },
        name,
        counts.has(name) ? el("span", { class: "count" }, ` (${counts.get(name)})`) : null,
      ),
    ),
  );
  const bodies = [];
  let window = null;
  for (const model of table.models) {
    const text = `Window ${windowText(model)}`;
    if (text !== window) bodies.push(el("tbody", {}, headingRow(text, names.length + 2)));
    window = text;
    bodies.at(-1).append(...modelRows(table, model, names));
  }
  const average = table.average_improvement;
  if (average) {
    const line = el(
      "tr",
      { class: "relative total" },
      el("th", { scope: "row", colspan: 2 }, "Avg Improv."),
      names.map((name) => el("td", { class: tdClass(name) }, averageNumber(table, average[name], name))),
    );
    bodies.push(el("tbody", {}, line));
  }
  return scrolling(
    el("table", { class: "table-one" }, el("thead", {}, header), bodies),
    `Table 1 of ${table.group}: arrow keys move between its numbers`,
  );
}

const tdClass = (name) => (name === AVERAGE ? "num average" : "num");

function averageNumber(table, improvement, name) {
  if (!improvement) return HOLE;
  return improvementNumber(improvement, () => ({
    title: `Avg Improv. of ${name}: the mean over the models of ${table.group}, each at its best τ`,
    facts: improvementFacts(improvement),
  }));
}

function modelRows(table, model, names) {
  const lines = [["raw", BASELINE]];
  if (model.best !== null) lines.push(["ours", model.best], ["Relative Improv.", model.best]);
  return lines.map(([row, policy], place) =>
    el(
      "tr",
      { class: row === "Relative Improv." ? "relative" : place === 0 ? "first" : null },
      place === 0 ? el("th", { scope: "row", rowspan: lines.length, class: "model" }, model.label) : null,
      el("th", { scope: "row", class: "row-name" }, row, row === "ours" ? el("span", { class: "tau" }, ` ${tau(policy)}`) : null),
      names.map((name) =>
        el("td", { class: tdClass(name) }, meanNumber(table, model, policy, name, row === "Relative Improv.")),
      ),
    ),
  );
}

function meanNumber(table, model, policy, column, relative) {
  const value = relative ? improvementOf(model, policy, column)?.value : model.scores[policy]?.[column];
  if (!isNumber(value)) {
    const partial = model.partial?.[policy]?.[column];
    return partial ? `${partial[0]} of ${partial[1]}` : HOLE;
  }
  const about = aboutMean(table, model, policy, column);
  const open = () => openMean(table, model, policy, column);
  return relative
    ? improvementNumber(improvementOf(model, policy, column), about, open)
    : number([fixed(value)], "plain", about, open);
}

function tableOneRows(table) {
  const rows = [["group", "window", "model", "revision", "policy", "column", "score", "improvement", "low", "high"]];
  for (const model of table.models) {
    for (const policy of model.policies) {
      for (const column of columnNames(table)) {
        const improvement = improvementOf(model, policy, column);
        rows.push([
          table.group, model.window, model.model, model.revision, policy, column,
          model.scores[policy]?.[column], improvement?.value, improvement?.low, improvement?.high,
        ]);
      }
    }
  }
  return rows;
}

// The choice of τ.

function choiceTable(table) {
  const { choice } = table;
  if (!choice?.models?.length) return choice?.notes?.length ? notesList(choice.notes) : null;
  const header = ["Model", "τ, paper’s rule", "gain, %", "gain, task held out, %", "95 % interval", "optimism, points", "τ = 0.8 loses, points"];
  const rows = choice.models.map((one) => {
    const honest = { value: one.honest_gain, low: one.honest_low, high: one.honest_high };
    const about = () => ({
      title: `${one.label}: each task at the τ that is best over the others`,
      facts: improvementFacts(honest),
    });
    const plainNumber = (value, name, shown = signed(value)) =>
      isNumber(value)
        ? number([shown], "plain", () => ({ title: `${one.label}: ${name}`, facts: [[name, exact(value)]] }))
        : HOLE;
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, one.label),
      el("td", { class: "num" }, one.tau),
      el("td", { class: "num" }, gainNumber(one)),
      el("td", { class: "num" }, improvementNumber(honest, about, () => openChoice(one, about().facts))),
      el("td", { class: "num" }, intervalText(honest)),
      el("td", { class: "num" }, plainNumber(one.optimism, "Optimism of the paper’s rule, points")),
      el("td", { class: "num" }, plainNumber(one.usual_regret, "What τ = 0.8 loses against the best, points", fixed(one.usual_regret))),
    );
  });
  const one = choice.one_tau === null || choice.one_tau === undefined
    ? "No τ was tried for all models."
    : `One τ for all models: ${choice.one_tau}, with a mean gain of ${signed(choice.one_gain)} %.`;
  return [
    el("p", {}, "The paper takes the τ that is best over all tasks, on the data that it reports. Beside it: what is gained when each task gets the τ that is best over the other tasks."),
    scrolling(
      el("table", {}, headerRow(header, 1), el("tbody", {}, rows)),
      `Choice of τ of ${table.group}`,
      "fit",
    ),
    el("p", {}, one),
    notesList(choice.notes),
  ];
}

function gainNumber(one) {
  const about = () => ({
    title: `${one.label}: gain of Avg at each τ, %`,
    facts: Object.entries(one.gains).map(([policy, gain]) => [tau(policy), exact(gain)]),
  });
  return number([signed(one.gain)], "plain", about);
}

function openChoice(one, facts) {
  openDetail(`${one.label}: τ chosen without the task`, [
    factList(facts),
    el("h3", {}, "The τ of each task"),
    factList(Object.entries(one.held_out ?? {})),
  ]);
}

// Charts of a table.

function improvementChart(table) {
  const models = table.models.filter((model) => model.policies.length > 1);
  if (!models.length) return null;
  const byColumn = [AVERAGE, ...table.columns.map((column) => column.name)];
  const options = [
    { group: "By column, a line a model", options: byColumn.map((name) => ({ value: `column ${name}`, text: name })) },
    { group: "By model, a line a column", options: models.map((model, place) => ({ value: `model ${place}`, text: model.label })) },
  ];
  const line = (name, model, column) => {
    const policies = model.policies.filter((policy) => Number.isFinite(temperature(policy)));
    return {
      name,
      model,
      column,
      policies,
      improvements: policies.map((policy) =>
        policy === BASELINE && isNumber(model.scores[BASELINE]?.[column]) ? { value: 0, low: null, high: null } : improvementOf(model, policy, column),
      ),
    };
  };
  return chart("Relative improvement over τ", [{ label: "Show", options }], ([shown]) => {
    const [, kind, name] = /^(\w+) (.*)$/s.exec(shown);
    const lines = kind === "column"
      ? models.map((model) => line(model.label, model, name))
      : columnNames(table).map((column) => line(column, models[Number(name)], column));
    const scale = percentScale(lines.flatMap(({ improvements }) => ends(improvements)));
    const temperatures = [...new Set(lines.flatMap(({ policies }) => policies.map(temperature)))].sort((a, b) => b - a);
    const of = kind === "column" ? name : models[Number(name)].label;
    // Side by side by a hair, or the intervals of one τ would hide each other.
    const hair = 0.004 * (temperatures[0] - temperatures.at(-1));
    const aside = (place) => hair * (place - (lines.length - 1) / 2);
    return {
      traces: lines.map((one, place) =>
        improvementLine(
          one.name, one.policies.map((policy) => temperature(policy) - aside(place)), one.improvements, place, scale,
          kind === "model" && one.column === AVERAGE,
          one.policies.map((policy) => `${kind === "model" ? models[Number(name)].label : one.column}, ${tau(policy)}`),
        ),
      ),
      layout: {
        height: 420,
        xaxis: {
          title: { text: "temperature τ" },
          autorange: "reversed",
          ...(temperatures.length <= 12 ? { tickvals: temperatures, ticktext: temperatures.map(String) } : {}),
        },
        yaxis: { ...scale.axis, title: { text: `relative improvement${scale.note}` }, zeroline: true, zerolinewidth: 1.5 },
      },
      description: `${of}: ${lines
        .map((one) => `${one.name}: ${one.policies.map((policy, place) => `${signed(one.improvements[place]?.value)} % at ${policy}`).join(", ")}`)
        .join("; ")}`,
      rows: [
        ["model", "column", "tau", "improvement", "low", "high"],
        ...lines.flatMap((one) =>
          one.policies.map((policy, place) => {
            const { value, low, high } = one.improvements[place] ?? {};
            return [one.model.label, one.column, temperature(policy), value, low, high];
          }),
        ),
      ],
    };
  });
}

function forestChart(table) {
  const models = table.models.filter((model) => model.best !== null);
  if (!models.length) return null;
  const options = [
    ...(models.length > 1 ? [{ value: "all", text: "Avg of all models" }] : []),
    { group: "Columns", options: models.map((model, place) => ({ value: `columns ${place}`, text: model.label })) },
    { group: "Tasks", options: models.map((model, place) => ({ value: `tasks ${place}`, text: model.label })) },
  ];
  return chart("Intervals at the best τ", [{ label: "Show", options }], ([shown]) => {
    if (shown === "all") {
      const rows = models.map((model) => ({
        name: model.label, where: `Avg, ${tau(model.best)}`, improvement: improvementOf(model, model.best, AVERAGE),
      }));
      const average = table.average_improvement?.[AVERAGE];
      return forest(average ? [...rows, { name: "Avg Improv.", where: "mean over the models", improvement: average }] : rows);
    }
    const [kind, place] = shown.split(" ");
    const model = models[Number(place)];
    const where = `${model.label}, ${tau(model.best)}`;
    if (kind === "columns") {
      return forest(
        columnNames(table).map((name) => ({ name, where, improvement: improvementOf(model, model.best, name) })),
      );
    }
    return forest(
      table.columns.flatMap((column) =>
        column.tasks.map((task) => ({
          name: task, where: `${column.name}, ${where}`, improvement: findCell(table, model, model.best, task)?.improvement,
        })),
      ),
    );
  });
}

// Task × τ.

function matrix(table) {
  const holder = el("div");
  let place = 0;
  let shows = "improvement";
  const draw = () => holder.replaceChildren(matrixTable(table, table.models[place], shows));
  const fields = [
    table.models.length > 1
      ? chooser("Model", table.models.map((model, at) => ({ value: at, text: model.label })), (value) => {
          place = Number(value);
          draw();
        })
      : null,
    chooser("Show", [{ value: "improvement", text: "improvement, %" }, { value: "score", text: "score × 100" }], (value) => {
      shows = value;
      draw();
    }),
  ];
  draw();
  return [el("div", { class: "fields" }, fields), holder];
}

function matrixTable(table, model, shows) {
  const relative = shows === "improvement";
  const policies = relative ? model.policies.filter((policy) => policy !== BASELINE) : model.policies;
  const sizes = model.cells.map((cell) => Math.abs(cell.improvement?.value ?? 0));
  const most = Math.max(1e-9, ...sizes);
  const header = ["Task", ...(relative ? ["raw"] : []), ...policies.map(tau)];
  const body = table.columns.map((column) =>
    el(
      "tbody",
      {},
      headingRow(column.name, header.length),
      column.tasks.map((task) => {
        const raw = findCell(table, model, BASELINE, task);
        const those = policies.map((policy) => findCell(table, model, policy, task));
        const best = Math.max(...those.map((cell) => cell?.score ?? -Infinity));
        return el(
          "tr",
          {},
          el("th", { scope: "row" }, task),
          relative ? el("td", { class: "num" }, raw ? scoreNumber(raw) : HOLE) : null,
          those.map((cell) =>
            relative ? tinted(cell, most) : el("td", { class: "num" }, cell ? scoreNumber(cell, cell.score === best ? "strong" : "plain") : HOLE),
          ),
        );
      }),
    ),
  );
  return scrolling(
    el(
      "table",
      { class: "matrix" },
      headerRow(header, 1),
      body,
    ),
    `Tasks and τ of ${model.label}: arrow keys move between its numbers`,
    "tall",
  );
}

/** A place whose ground shows the size of its improvement; the root keeps small ones visible. */
function tinted(cell, most) {
  const value = cell?.improvement?.value;
  const place = el("td", { class: "num" }, cell ? cellImprovement(cell) : HOLE);
  if (isNumber(value) && value !== 0) {
    place.classList.add("tint", value > 0 ? "tint-up" : "tint-down");
    place.style.setProperty("--strength", `${Math.round(34 * Math.sqrt(Math.abs(value) / most))}%`);
  }
  return place;
}

// A table of many rows: sorted by its headers, filtered, shown in pages.

/**
 * `columns`: {name, value(row), cell?(row), numeric?, filter?}. `filter` makes a choice of its
 * values. `search(row)` gives the text that is searched. `extra`: more filters, {label, keeps}.
 */
function browser({ title, columns, rows, search, extra = [], pageSize = 50 }) {
  const state = { sort: null, down: false, page: 0, size: pageSize, text: "", chosen: new Map(), extras: new Set() };
  const texts = new Map(rows.map((row) => [row, search(row).toLowerCase()]));
  const status = el("p", { class: "status", role: "status" });
  const body = el("tbody");
  const headers = columns.map((column, place) => {
    const button = el("button", { type: "button", class: "sort", onclick: () => sortBy(place) }, column.name, el("span", { class: "direction", "aria-hidden": "true" }));
    return el("th", { scope: "col", class: column.numeric ? "num" : null }, button);
  });
  const table = el("table", { class: "browser" }, el("thead", {}, el("tr", {}, headers)), body);
  const region = scrolling(table, title, "tall");
  const previous = el("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const next = el("button", { type: "button", onclick: () => turn(1) }, "Next");
  const pageText = el("span");

  const again = () => {
    state.page = 0;
    draw();
  };
  const filters = columns
    .filter((column) => column.filter)
    .map((column) => {
      const values = [...new Set(rows.map((row) => String(column.value(row) ?? HOLE)))];
      if (values.length < 2) return null;
      if (column.numeric) values.sort((a, b) => Number(b) - Number(a));
      const options = [{ value: "", text: "all" }, ...values.map((value) => ({ value: `=${value}`, text: value }))];
      return chooser(column.name, options, (value) => {
        if (value) state.chosen.set(column, value.slice(1));
        else state.chosen.delete(column);
        again();
      });
    });
  const searchId = identifier();
  const searchField = el("div", { class: "field" }, el("label", { for: searchId }, "Search"), el("input", {
    id: searchId,
    type: "search",
    autocomplete: "off",
    oninput: (event) => {
      state.text = event.target.value.toLowerCase();
      again();
    },
  }));
  const extras = extra.map((one) => {
    const id = identifier();
    const box = el("input", { id, type: "checkbox", onchange: () => {
      if (box.checked) state.extras.add(one);
      else state.extras.delete(one);
      again();
    } });
    return el("div", { class: "field check" }, box, el("label", { for: id }, one.label));
  });
  const size = chooser("Rows a page", [String(pageSize), "200", { value: "0", text: "all" }], (value) => {
    state.size = Number(value) || Infinity;
    again();
  });

  function kept() {
    const words = state.text.split(/\s+/).filter(Boolean);
    const found = rows.filter(
      (row) =>
        [...state.chosen].every(([column, value]) => String(column.value(row) ?? HOLE) === value) &&
        [...state.extras].every((one) => one.keeps(row)) &&
        words.every((word) => texts.get(row).includes(word)),
    );
    if (state.sort === null) return found;
    const { value, numeric } = columns[state.sort];
    const side = state.down ? -1 : 1;
    const isHole = (one) => one === null || one === undefined || Number.isNaN(one);
    // Holes last in either direction; equals in their own order, for sort is stable.
    return found
      .map((row) => ({ row, key: value(row) }))
      .sort((a, b) => {
        if (isHole(a.key) || isHole(b.key)) return isHole(a.key) - isHole(b.key);
        return side * (numeric ? a.key - b.key : String(a.key).localeCompare(String(b.key), "en", { numeric: true }));
      })
      .map(({ row }) => row);
  }

  function draw() {
    const found = kept();
    const pages = Math.max(1, Math.ceil(found.length / state.size));
    state.page = Math.min(state.page, pages - 1);
    const start = state.page * (Number.isFinite(state.size) ? state.size : 0);
    const shown = found.slice(start, start + state.size);
    body.replaceChildren(
      ...shown.map((row) =>
        el("tr", {}, columns.map((column, place) =>
          el(place ? "td" : "th", { scope: place ? null : "row", class: column.numeric ? "num" : null }, column.cell ? column.cell(row) : (column.value(row) ?? HOLE)),
        )),
      ),
    );
    const first = body.querySelector(".number");
    if (first) first.tabIndex = 0;
    headers.forEach((header, place) => {
      const sorted = state.sort === place;
      if (sorted) header.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
      header.querySelector(".direction").textContent = sorted ? (state.down ? " ↓" : " ↑") : " ↕";
    });
    const count = (value) => value.toLocaleString("en");
    status.textContent = found.length === rows.length ? `${count(rows.length)} rows` : `${count(found.length)} of ${count(rows.length)} rows`;
    pageText.textContent = found.length ? `${count(start + 1)}–${count(start + shown.length)} of ${count(found.length)}` : "nothing found";
    previous.disabled = state.page === 0;
    next.disabled = state.page >= pages - 1;
  }

  function sortBy(place) {
    // The largest numbers are what one looks for first, names from A.
    if (state.sort === place) state.down = !state.down;
    else Object.assign(state, { sort: place, down: Boolean(columns[place].numeric) });
    again();
  }

  function turn(step) {
    state.page += step;
    draw();
    region.scrollTop = 0;
  }

  draw();
  return [
    el("div", { class: "fields" }, filters, searchField, extras),
    el("div", { class: "status-line" }, status, csvButton(title, () => [columns.map((column) => column.name), ...kept().map((row) => columns.map((column) => column.value(row)))], "These rows (CSV)")),
    region,
    el("nav", { class: "pages", "aria-label": `Pages of ${title}` }, previous, pageText, next, size),
  ];
}

// Sheets.

function sheetTable(sheet) {
  const width = sheet.header.length;
  const labels = sheet.labels ?? 1;
  const body = sheet.sections.map(({ heading, rows }) =>
    el(
      "tbody",
      {},
      heading ? headingRow(heading, width) : null,
      rows.map((row) => el("tr", {}, row.map((entry, place) => sheetEntry(sheet, row, entry, place, labels)))),
    ),
  );
  const rows = () => [
    ["section", ...sheet.header],
    ...sheet.sections.flatMap(({ heading, rows: those }) => those.map((row) => [heading, ...row.map((entry) => entry.value)])),
  ];
  return [
    el("h3", {}, sheet.title),
    scrolling(el("table", {}, headerRow(sheet.header, labels), body), sheet.title, width > 7 ? "tall" : "tall fit"),
    el("div", { class: "figure-tools" }, csvButton(sheet.name, rows, "Data (CSV)", sheet.title)),
    notesList(sheet.notes),
  ];
}

function sheetEntry(sheet, row, entry, place, labels) {
  if (place === 0 && labels) return el("th", { scope: "row" }, entry.text);
  if (place < labels || entry.value === null || entry.value === undefined) {
    return el("td", { class: place < labels ? null : "num", title: entry.more || null }, entry.text);
  }
  const about = () => ({
    title: [...row.slice(0, labels).map((one) => one.text), sheet.header[place]].filter(Boolean).join(", "),
    facts: [
      ["Value", isNumber(entry.value) ? exact(entry.value) : String(entry.value)],
      ...(entry.more ? [["More", entry.more]] : []),
    ],
  });
  const known = ["plain", "up", "down", "unsure", "strong"];
  return el("td", { class: "num" }, number([entry.text], known.includes(entry.look) ? entry.look : "plain", about));
}

// Now the page, from top to bottom.

function header() {
  const facts = [
    ["Made", moment(report.made)],
    ["Version", report.version],
    ["Resamples", isNumber(report.resamples) ? report.resamples.toLocaleString("en") : null],
    ["Seed", report.seed],
    ["Cells", cells.length.toLocaleString("en")],
    ["Command", report.command ? el("code", {}, report.command) : null],
  ];
  document.getElementById("meta").append(
    ...facts
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
  document.getElementById("tools").append(
    csvButton("lcbench-cells", everything, "All cells (CSV)"),
    el("button", { type: "button", class: "quiet", onclick: () => save("report.json", JSON.stringify({ ...report, provenance: JSON.parse(sourceOf("provenance")) }), "application/json") }, "Report (JSON)"),
    themeButton(),
  );
}

/** A time to the minute, as UTC; what is no time stays as it is. */
function moment(text) {
  const time = new Date(text ?? NaN);
  if (Number.isNaN(time.getTime())) return text;
  const shown = time.toISOString().slice(0, 16).replace("T", " ");
  return el("time", { datetime: time.toISOString() }, `${shown} UTC`);
}

function everything() {
  return [
    ["group", "window", "model", "revision", "column", "task", "policy", "score", "raw", "improvement", "low", "high", "p", "adjusted", "units", "count", "provenance"],
    ...cells.map(({ table, model, column, task, policy, score, raw, improvement, provenance }) => [
      table.group, model.window, model.model, model.revision, column, task, policy, score, raw,
      improvement?.value, improvement?.low, improvement?.high, improvement?.p, improvement?.adjusted,
      improvement?.units, improvement?.count, provenance,
    ]),
  ];
}

function themeButton() {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const button = el("button", { type: "button", id: "theme", class: "quiet" });
  const name = () => {
    button.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  const remembered = () => {
    // A browser may refuse storage to a file.
    try {
      return localStorage.getItem("lcbench-theme");
    } catch {
      return null;
    }
  };
  if (["dark", "light"].includes(remembered())) root.dataset.theme = remembered();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("lcbench-theme", root.dataset.theme);
    } catch {
      // Then it is forgotten with the page.
    }
    name();
    redrawCharts();
  });
  system.addEventListener("change", () => {
    name();
    redrawCharts();
  });
  name();
  return button;
}

function tableSections() {
  tables.forEach((table, place) => {
    const chosen = choiceTable(table);
    section(
      `table-${place}`,
      tables.length > 1 ? `Table 1: ${table.group}` : "Table 1",
      tables.length > 1 ? null : el("p", { class: "group" }, table.group),
      tableOne(table),
      el(
        "p",
        { class: "key" },
        el("span", { class: "up" }, "▲"), " ", el("span", { class: "down" }, "▼"),
        " 95 % interval excludes zero; △ ▽ it contains zero. Press a number for where it comes from.",
      ),
      el("div", { class: "figure-tools" }, csvButton(`table1 ${table.group}`, () => tableOneRows(table), "Data (CSV)", "Table 1")),
      notesList(table.notes, table.footnotes),
      chosen ? [el("h3", {}, "The choice of τ"), chosen] : null,
      el("h3", {}, "Improvement and its uncertainty"),
      improvementChart(table),
      forestChart(table),
      table.models.some((model) => model.policies.length > 1) ? [el("h3", {}, "Tasks and τ"), matrix(table)] : null,
    );
  });
}

function figureSection() {
  const heat = report.figures?.heat ?? [];
  const byLength = report.figures?.by_length ?? [];
  if (!heat.length && !byLength.length) return;
  section(
    "figures",
    "Length and role",
    byLength.length ? byLengthChart(byLength) : null,
    heat.length
      ? [
          el("h3", {}, "τ of queries and of documents"),
          el("div", { class: "grid" }, heat.map((one) => chart(`${one.label}: ${one.what}`, [], () => heatMap(one)))),
        ]
      : null,
  );
}

function byLengthChart(figures) {
  const options = figures.map((one, place) => ({ value: place, text: [one.label, one.task, `by ${one.by}`].join(" · ") }));
  const kinds = [{ value: "score", text: "score" }, { value: "improvement", text: "improvement, %" }];
  return chart("Scores by length", [{ label: "Of", options }, { label: "Show", options: kinds }], ([place, kind]) => {
    const one = figures[Number(place)];
    const ticks = one.buckets.map((bucket, at) => `${plotlyText(bucket)}<br>n = ${one.counts?.[at] ?? HOLE}`);
    const where = one.buckets.map((bucket) => `${one.label}, ${one.task}, ${one.by} ${bucket}`);
    const relative = kind === "improvement";
    const lines = Object.entries((relative ? one.improvements : one.scores) ?? {});
    const scale = relative ? percentScale(lines.flatMap(([, those]) => ends(those))) : null;
    const places = one.buckets.map((_, at) => at);
    const traces = lines.map(([policy, values], at) => {
      // Side by side by a hair, or the intervals of one bucket would hide each other.
      const x = relative ? places.map((spot) => spot + 0.03 * (at - (lines.length - 1) / 2)) : places;
      const name = policy === BASELINE ? "τ = 1 (baseline)" : tau(policy);
      if (relative) return improvementLine(name, x, values, at, scale, false, where);
      const thick = policy === BASELINE;
      const rgb = thick ? colour("ink") : seriesColour(at);
      return {
        type: "scatter",
        mode: "lines+markers",
        name: plotlyText(shortened(name, 40)),
        x,
        y: values,
        line: { color: rgb, width: thick ? 3 : 1.5, dash: thick ? "solid" : DASHES[at % DASHES.length] },
        marker: { color: rgb, size: 7.5, symbol: thick ? "circle" : SYMBOLS[at % SYMBOLS.length] },
        text: values.map((value, spot) => `<b>${plotlyText(name)}</b><br>${plotlyText(where[spot])}<br>${exact(value)}`),
        hovertemplate: "%{text}<extra></extra>",
      };
    });
    return {
      traces,
      layout: {
        height: 420,
        xaxis: { tickvals: places, ticktext: ticks, title: { text: `length of the ${plotlyText(one.by)} in tokens` } },
        yaxis: relative
          ? { ...scale.axis, title: { text: `relative improvement${scale.note}` }, zeroline: true }
          : { title: { text: plotlyText(one.metric) } },
        legend: { y: -0.28 },
      },
      description: `${one.label}, ${one.task}: ${lines
        .map(([policy, values]) => `${tau(policy)}: ${values.map((value, at) => `${one.buckets[at]}: ${relative ? signed(value?.value) : fixed(value)}`).join(", ")}`)
        .join("; ")}`,
      rows: relative
        ? [["policy", "bucket", "count", "improvement", "low", "high"], ...lines.flatMap(([policy, values]) => values.map((value, at) => [policy, one.buckets[at], one.counts?.[at], value?.value, value?.low, value?.high]))]
        : [["policy", "bucket", "count", "score"], ...lines.flatMap(([policy, values]) => values.map((value, at) => [policy, one.buckets[at], one.counts?.[at], value]))],
    };
  }, "h3");
}

function paperSection() {
  const { paper } = report;
  if (!paper?.rows?.length) return;
  const words = { yes: "✓ within", no: "✗ outside", unknown: "? unknown" };
  const numeric = (name, key, shown) => ({
    name,
    numeric: true,
    value: (row) => row[key],
    cell: (row) =>
      isNumber(row[key])
        ? number([shown(row[key])], "plain", () => ({
            title: [row.model, row.row, row.column].join(", "),
            facts: [
              ["Paper", exact(row.paper)],
              ["Ours", exact(row.ours)],
              ["Difference", exact(row.difference)],
              ["Noise", exact(row.noise)],
              ...(row.note ? [["Note", row.note]] : []),
            ],
          }))
        : HOLE,
  });
  section(
    "paper",
    "Paper beside ours",
    paper.summary ? el("p", { class: "lead" }, paper.summary) : null,
    browser({
      title: "Paper beside ours",
      rows: paper.rows,
      columns: [
        { name: "Model", value: (row) => row.model, filter: true },
        { name: "Table", value: (row) => row.table, filter: true },
        { name: "Row", value: (row) => row.row, filter: true },
        { name: "τ", value: (row) => row.policy },
        { name: "Column", value: (row) => row.column, filter: true },
        numeric("Paper", "paper", (value) => fixed(value)),
        numeric("Ours", "ours", (value) => fixed(value)),
        numeric("Difference", "difference", (value) => signed(value)),
        numeric("Noise", "noise", (value) => fixed(value)),
        { name: "Within", value: (row) => words[row.within] ?? row.within, filter: true },
        { name: "Note", value: (row) => row.note ?? "" },
      ],
      search: (row) => [row.model, row.table, row.row, row.column, row.note].join(" "),
    }),
  );
}

function cellSection() {
  if (!cells.length) return;
  const part = (name, key, shown) => ({
    name,
    numeric: true,
    value: (cell) => cell.improvement?.[key],
    cell: (cell) => shown(cell.improvement?.[key]),
  });
  section(
    "cells",
    "All cells",
    el("p", {}, "One row a model, τ and task. Each number leads to where it comes from."),
    browser({
      title: "All cells",
      rows: cells,
      columns: [
        { name: "Task", value: (cell) => cell.task, filter: true },
        { name: "Column", value: (cell) => cell.column, filter: true },
        { name: "Model", value: (cell) => cell.model.label, filter: true },
        ...(tables.length > 1 ? [{ name: "Table", value: (cell) => cell.table.group, filter: true }] : []),
        { name: "τ", value: (cell) => cell.policy, filter: true },
        { name: "Score", numeric: true, value: (cell) => cell.score, cell: (cell) => scoreNumber(cell) },
        { name: "Raw", numeric: true, value: (cell) => cell.raw, cell: (cell) => fixed(cell.raw) },
        { name: "Improv., %", numeric: true, value: (cell) => cell.improvement?.value, cell: (cell) => (cell.improvement ? cellImprovement(cell) : HOLE) },
        part("Low", "low", signed),
        part("High", "high", signed),
        part("p", "p", chance),
        part("p (Holm)", "adjusted", chance),
      ],
      search: (cell) => [cell.task, cell.column, cell.model.label, cell.model.model, cell.policy, cell.table.group].join(" "),
      extra: [{ label: "interval excludes zero", keeps: (cell) => excludesZero(cell.improvement) }],
    }),
  );
}

function legendSection() {
  section(
    "reading",
    "How to read this",
    el("dl", { class: "legend" },
      el("dt", {}, el("span", { class: "up" }, "▲ 0.43"), " ", el("span", { class: "down" }, "▼ 0.43")),
      el("dd", {}, "An improvement or a loss whose 95 % interval excludes zero."),
      el("dt", {}, el("span", { class: "unsure" }, "△ 0.43"), " ", el("span", { class: "unsure" }, "▽ 0.43")),
      el("dd", {}, "One whose interval contains zero: it may be noise."),
      el("dt", {}, "▲ 0.43"),
      el("dd", {}, "One whose interval is not known."),
      el("dt", {}, HOLE),
      el("dd", {}, "A hole: not measured, or not averaged because something is missing."),
    ),
    el("p", {}, "Point at a number, or move to it with Tab and the arrow keys, to see it exactly. Press it to see the cells it is made of and where they come from: revision, protocol, proof, versions, hardware and seconds. Escape closes."),
  );
}

header();
tableSections();
figureSection();
if (report.sheets?.length) section("sheets", "Further tables", report.sheets.map(sheetTable));
paperSection();
cellSection();
legendSection();
document.getElementById("foot").append(el("p", {}, `lcbench ${report.version ?? ""}. This page asks nothing of any other place.`));
