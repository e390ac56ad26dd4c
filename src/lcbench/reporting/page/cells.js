// The report's cells, and what is shown of one and of a mean of several.

const report = JSON.parse(sourceOf("document"));
const tables = report.score_tables ?? [];

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

/** All cells, each with its table, its model and the score of its baseline. */
const cells = tables.flatMap((table) =>
  table.models.flatMap((model) => {
    const baseline = model.cells.filter((cell) => cell.policy === BASELINE);
    const raws = new Map(baseline.map((cell) => [cell.task, cell.score]));
    return model.cells.map((cell) => ({ ...cell, table, model, raw: raws.get(cell.task) ?? null }));
  }),
);

const keyOf = (model, policy, task) => JSON.stringify([model.label, policy, task]);
const indices = new Map(tables.map((table) => [table, new Map()]));
for (const cell of cells) {
  indices.get(cell.table).set(keyOf(cell.model, cell.policy, cell.task), cell);
}

const findCell = (table, model, policy, task) =>
  indices.get(table).get(keyOf(model, policy, task));

const headingOf = (table) => table.heading ?? table.group;
const tau = (policy) => `τ = ${policy}`;
const windowText = (model) => (isNumber(model.window) ? String(model.window) : MISSING_VALUE);
const improvementOf = (model, policy, column) => model.improvements?.[policy]?.[column] ?? null;

const cellTitle = (cell) => `${cell.task}: ${cell.model.label}, ${tau(cell.policy)}`;

function cellFacts(cell) {
  const facts = [["Score × 100", precise(cell.score)]];
  if (cell.policy !== BASELINE) facts.push(["Baseline × 100", precise(cell.raw)]);
  return [...facts, ...improvementFacts(cell.improvement)];
}

const aboutCell = (cell) => () => ({ title: cellTitle(cell), facts: cellFacts(cell) });

function openCell(cell) {
  const subsets = Object.entries(cell.subsets ?? {});
  const known = cell.provenance === null ? undefined : provenanceOf(cell.provenance);
  const facts = [
    ["Model", cell.model.model],
    ["Revision", cell.model.revision ?? MISSING_VALUE],
    ["Window", windowText(cell.model)],
    ["Task", `${cell.task} (${cell.column})`],
    ["Temperature policy", cell.policy],
    ...cellFacts(cell),
  ];
  const nodes = [factList(facts)];
  if (subsets.length > 1) {
    nodes.push(el("h3", {}, "Subsets, score × 100"));
    nodes.push(factList(subsets.map(([name, score]) => [name, precise(score)])));
  }
  nodes.push(el("h3", {}, "Provenance"));
  if (known === undefined) {
    nodes.push(el("p", {}, "Of this cell nothing but its score is known."));
  } else {
    const file = `${fileName(cellTitle(cell))}.json`;
    const onclick = () => save(file, `${JSON.stringify(known, null, 2)}\n`, "application/json");
    nodes.push(el("div", { class: "provenance" }, nested(known)));
    nodes.push(el("button", { type: "button", onclick }, "Provenance (JSON)"));
  }
  openDetail(cellTitle(cell), nodes);
}

/** What a number of a table comes from: a cell, or a mean over cells; null where it is not known. */
function originOf(group, [label, policy, what]) {
  const table = tables.find((one) => one.group === group);
  const model = table?.models.find((one) => one.label === label);
  if (!model) return null;
  const cell = findCell(table, model, policy, what);
  return cell
    ? { about: aboutCell(cell), open: () => openCell(cell) }
    : {
        about: aboutMean(model, policy, what),
        open: () => openMean(table, model, policy, what),
      };
}

// The improvements of cells as their table has them, with their marks.
const gains = new Map(
  (report.tables ?? [])
    .filter((table) => table.name.startsWith("matrix"))
    .flatMap(({ scores, sections }) =>
      sections.flatMap(({ rows }) => rows.flat()).map((entry) => [scores, entry]),
    )
    .filter(([, entry]) => entry.source)
    .map(([scores, entry]) => [JSON.stringify([scores, ...entry.source]), entry]),
);

const scoreEntry = (cell) => ({
  text: fixed(cell.score),
  value: cell.score,
  source: [cell.model.label, cell.policy, cell.task],
});

const gainEntry = ({ table, model, policy, task }) =>
  gains.get(JSON.stringify([table.group, model.label, policy, task])) ?? { text: MISSING_VALUE, value: null };

/** All cells as a table, one a row. */
function cellTable() {
  const isOne = tables.length === 1;
  const label = (text) => ({ text, value: text });
  const detail = (value, shown) => ({ text: shown(value), value: value ?? null, isPlain: true });
  const header = ["Task", "Column", "Model", ...(isOne ? [] : ["Table"]), "τ"];
  return {
    name: "cells",
    title: "All cells",
    header: [...header, "Score", "Baseline", "Improv., %", "Low", "High", "p", "p (Holm)"],
    labels: header.length,
    scores: tables[0]?.group,
    sections: [
      {
        heading: "",
        rows: cells.map((cell) => [
          ...[cell.task, cell.column, cell.model.label].map(label),
          ...(isOne ? [] : [label(cell.table.group)]),
          label(cell.policy),
          { ...scoreEntry(cell), scores: cell.table.group },
          detail(cell.raw, fixed),
          { ...gainEntry(cell), scores: cell.table.group },
          detail(cell.improvement?.low, (value) => signed(value)),
          detail(cell.improvement?.high, (value) => signed(value)),
          detail(cell.improvement?.p, chance),
          detail(cell.improvement?.adjusted, chance),
        ]),
      },
    ],
  };
}

function aboutMean(model, policy, column) {
  return () => {
    const facts = [["Score × 100", precise(model.scores[policy]?.[column])]];
    if (policy !== BASELINE) {
      facts.push(["Baseline × 100", precise(model.scores[BASELINE]?.[column])]);
      facts.push(...improvementFacts(improvementOf(model, policy, column)));
    }
    return { title: `${column}: ${model.label}, ${tau(policy)}`, facts };
  };
}

/** A mean leads to the cells that it is made of. */
function openMean(table, model, policy, column) {
  const { title, facts } = aboutMean(model, policy, column)();
  const averaged = table.averaged ?? table.columns.map((one) => one.name);
  const parts = table.columns.filter((one) =>
    column === AVERAGE ? averaged.includes(one.name) : one.name === column,
  );
  const ofGroup = { scores: table.group, labels: 0, header: [] };
  const place = (entry) =>
    el("td", { class: "num" }, entry ? entryNode(ofGroup, [], entry, 0) : MISSING_VALUE);
  const line = (task) => {
    const cell = findCell(table, model, policy, task);
    const raw = findCell(table, model, BASELINE, task);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, task),
      place(raw && scoreEntry(raw)),
      policy === BASELINE ? null : place(cell && scoreEntry(cell)),
      policy === BASELINE ? null : place(cell && gainEntry(cell)),
    );
  };
  const names = ["Task", "baseline", ...(policy === BASELINE ? [] : [tau(policy), "Improv., %"])];
  const bodies = parts.map((part) =>
    el(
      "tbody",
      {},
      column === AVERAGE ? headingRow(part.name, names.length) : null,
      part.tasks.map(line),
    ),
  );
  openDetail(title, [
    factList(facts),
    el("h3", {}, column === AVERAGE ? "The mean of the means of these" : "The mean of these"),
    scrolling(el("table", {}, headerRow(names, 1), bodies), `Cells of ${title}`),
  ]);
}
