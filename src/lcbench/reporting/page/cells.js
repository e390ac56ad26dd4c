// The report's cells, and what is shown of one and of a mean of several.

const report = JSON.parse(sourceOf("document"));
const tables = report.tables ?? [];

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

/** The τ of a constant policy; NaN for one by role, layer or length. */
const temperature = (policy) => Number(policy);

const headingOf = (table) => table.heading ?? table.group;
const tau = (policy) => `τ = ${policy}`;
const windowText = (model) => (isNumber(model.window) ? String(model.window) : HOLE);
const columnNames = (table) => [...table.columns.map((column) => column.name), AVERAGE];
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
    ["Revision", cell.model.revision ?? HOLE],
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

const scoreNumber = (cell, look = "plain") =>
  number([fixed(cell.score)], look, aboutCell(cell), () => openCell(cell));

const cellImprovement = (cell) =>
  improvementNumber(cell.improvement, aboutCell(cell), () => openCell(cell));

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
  const place = (shown) => el("td", { class: "num" }, shown ?? HOLE);
  const line = (task) => {
    const cell = findCell(table, model, policy, task);
    const raw = findCell(table, model, BASELINE, task);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, task),
      place(raw && scoreNumber(raw)),
      policy === BASELINE ? null : place(cell && scoreNumber(cell)),
      policy === BASELINE ? null : place(cell?.improvement && cellImprovement(cell)),
    );
  };
  const names = ["Task", "raw", ...(policy === BASELINE ? [] : [tau(policy), "Improv., %"])];
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
