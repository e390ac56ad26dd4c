// The report's charts: what each shows of which numbers.

/** Where the lines of one place stand: side by side by a hair, or one would hide another. */
const aside = (at, count, hair) => hair * (at - (count - 1) / 2);

/** Relative improvement over τ: a line a model at one column, or a line a column of one model. */
function improvementChart(table) {
  const isOnAxis = (policy) => policy !== BASELINE && Number.isFinite(temperature(policy));
  const models = table.models.filter((model) => model.policies.some(isOnAxis));
  if (!models.length) return null;
  const columns = [AVERAGE, ...table.columns.map((column) => column.name)];
  // By their places: a name may be anything.
  const byColumn = columns.map((name, at) => ({ value: `column ${at}`, text: name }));
  const byModel = models.map((model, at) => ({ value: `model ${at}`, text: model.label }));
  const options = [
    { group: "By column, a line a model", options: byColumn },
    { group: "By model, a line a column", options: byModel },
  ];
  return chart("Relative improvement over τ", [{ label: "Show", options }], ([shown]) => {
    const [kind, at] = shown.split(" ");
    if (kind === "column") {
      const column = columns[Number(at)];
      const lines = models.map((model) => improvementSeries(model.label, model, column));
      return overTau(column, lines);
    }
    const model = models[Number(at)];
    const lines = columnNames(table).map((column) => improvementSeries(column, model, column));
    return overTau(model.label, lines);
  });
}

/** The improvements of a column of a model at its constant policies, 0 at τ = 1. */
function improvementSeries(name, model, column) {
  const policies = model.policies.filter((policy) => Number.isFinite(temperature(policy)));
  const none = { value: 0, low: null, high: null };
  const improvements = policies.map((policy) =>
    policy === BASELINE && isNumber(model.scores[BASELINE]?.[column])
      ? none
      : improvementOf(model, policy, column),
  );
  return { name, model, column, policies, improvements };
}

function overTau(title, lines) {
  const scale = percentScale(lines.flatMap(({ improvements }) => ends(improvements)));
  const all = new Set(lines.flatMap(({ policies }) => policies.map(temperature)));
  const taus = [...all].sort((a, b) => b - a);
  const hair = 0.004 * (taus[0] - taus.at(-1));
  const isOfColumns = new Set(lines.map(({ column }) => column)).size > 1;
  const traces = lines.map(({ name, model, column, policies, improvements }, at) =>
    improvementLine({
      name,
      x: policies.map((policy) => temperature(policy) - aside(at, lines.length, hair)),
      improvements,
      where: policies.map((policy) => `${isOfColumns ? model.label : column}, ${tau(policy)}`),
      at,
      scale,
      isThick: isOfColumns && column === AVERAGE,
    }),
  );
  const texts = lines.map(({ name, policies, improvements }) => {
    const valueAt = (policy, at) => `${signed(improvements[at]?.value)} % at ${policy}`;
    const values = policies.map(valueAt);
    return `${name}: ${values.join(", ")}`;
  });
  const ticks = { tickvals: taus, ticktext: taus.map(String) };
  return {
    traces,
    layout: {
      height: 420,
      xaxis: {
        title: { text: "temperature τ" },
        autorange: "reversed",
        // On a phone the labels of many τ would cover one another.
        ...(taus.length <= (window.innerWidth < 700 ? 5 : 12) ? ticks : {}),
      },
      yaxis: percentAxis(scale),
    },
    description: `${title}: ${texts.join("; ")}`,
    rows: [
      ["model", "column", "tau", "improvement", "low", "high"],
      ...lines.flatMap(({ model, column, policies, improvements }) =>
        policies.map((policy, at) => {
          const { value, low, high } = improvements[at] ?? {};
          return [model.label, column, temperature(policy), value, low, high];
        }),
      ),
    ],
  };
}

/** Intervals at the best τ: of `Avg` of all models, or of the columns or tasks of one. */
function forestChart(table) {
  const models = table.models.filter((model) => model.best !== null);
  if (!models.length) return null;
  const choices = (kind) =>
    models.map((model, at) => ({ value: `${kind} ${at}`, text: model.label }));
  const options = [
    ...(models.length > 1 ? [{ value: "all", text: "Avg of all models" }] : []),
    { group: "Columns", options: choices("columns") },
    { group: "Tasks", options: choices("tasks") },
  ];
  return chart("Intervals at the best τ", [{ label: "Show", options }], ([shown]) => {
    if (shown === "all") return forest(averageRows(table, models));
    const [kind, at] = shown.split(" ");
    const model = models[Number(at)];
    const where = `${model.label}, ${tau(model.best)}`;
    if (kind === "columns") {
      const improvement = (name) => improvementOf(model, model.best, name);
      return forest(
        columnNames(table).map((name) => ({ name, where, improvement: improvement(name) })),
      );
    }
    return forest(
      table.columns.flatMap((column) =>
        column.tasks.map((task) => ({
          name: task,
          where: `${column.name}, ${where}`,
          improvement: findCell(table, model, model.best, task)?.improvement,
        })),
      ),
    );
  });
}

function averageRows(table, models) {
  const rows = models.map((model) => ({
    name: model.label,
    where: `${AVERAGE}, ${tau(model.best)}`,
    improvement: improvementOf(model, model.best, AVERAGE),
  }));
  const improvement = table.average_improvement?.[AVERAGE];
  if (improvement) rows.push({ name: "Avg Improv.", where: "mean over the models", improvement });
  return rows;
}

/** Scores, or improvements, over buckets of length: a line a τ. */
function byLengthChart(figures) {
  const options = figures.map((one, at) => ({
    value: at,
    text: [one.label, one.task, `by ${one.by}`].join(" · "),
  }));
  const pickers = [
    { label: "Of", options },
    { label: "Show", options: ["score", "improvement, %"] },
  ];
  const view = ([at, kind]) => overLength(figures[Number(at)], kind === "improvement, %");
  return chart("Scores by length", pickers, view, "h3");
}

function overLength(one, isRelative) {
  const places = one.buckets.map((_, at) => at);
  const where = one.buckets.map((bucket) => `${one.label}, ${one.task}, ${one.by} ${bucket}`);
  const lines = Object.entries((isRelative ? one.improvements : one.scores) ?? {});
  const scale = isRelative ? percentScale(lines.flatMap(([, values]) => ends(values))) : null;
  const countOf = (at) => one.counts?.[at] ?? HOLE;
  // A τ looks the same in both views.
  const policies = [...new Set([...Object.keys(one.scores ?? {}), ...lines.map(([key]) => key)])];
  const traces = lines.map(([policy, values], order) => {
    const at = policies.indexOf(policy);
    const name = policy === BASELINE ? "τ = 1 (baseline)" : tau(policy);
    const isThick = policy === BASELINE;
    if (!isRelative) return plainLine({ name, x: places, values, where, at, isThick });
    const x = places.map((place) => place + aside(order, lines.length, 0.03));
    return improvementLine({ name, x, improvements: values, where, at, scale, isThick });
  });
  const valuesOf = (value) =>
    isRelative ? [value?.value, value?.low, value?.high] : [value];
  const texts = lines.map(([policy, values]) => {
    const shown = values.map((value) => (isRelative ? signed(value?.value) : fixed(value)));
    return `${tau(policy)}: ${shown.map((text, at) => `${one.buckets[at]}: ${text}`).join(", ")}`;
  });
  return {
    traces,
    layout: {
      height: 420,
      xaxis: {
        tickvals: places,
        ticktext: one.buckets.map((name, at) =>
          one.counts ? `${plotlyText(name)}<br>n = ${countOf(at)}` : plotlyText(name),
        ),
        title: { text: `length of the ${plotlyText(one.by)} in tokens` },
      },
      yaxis: isRelative
        ? percentAxis(scale)
        : { title: { text: plotlyText(one.metric), standoff: 8 } },
      legend: { y: -0.28 },
    },
    description: `${one.label}, ${one.task}: ${texts.join("; ")}`,
    rows: [
      ["policy", "bucket", "count", ...(isRelative ? ["improvement", "low", "high"] : ["score"])],
      ...cross(lines, places).map(([[policy, values], at]) => [
        ...[policy, one.buckets[at], one.counts?.[at]],
        ...valuesOf(values[at]),
      ]),
    ],
  };
}

/** The nodes of the improvements at each τ of the queries and of the documents, on one scale. */
function heatCharts(grids) {
  const scale = percentScale(grids.flatMap(({ values }) => values.flat()));
  const places = grids.flatMap(({ values }) => values.flat().map(scale.place)).filter(isNumber);
  // Of zeros alone nothing is a gain or a loss.
  const most = Math.max(0, ...places.map(Math.abs)) || 1;
  const maps = grids.map((one) =>
    chart(`${one.label}: ${one.what}`, [], () => heatMap(one, scale, most)),
  );
  const note = `Relative improvement in %: blue is a gain, orange a loss, ${HOLE} not measured. All on
    the same colour scale${scale.note}.`;
  return [el("p", { class: "key" }, note), el("div", { class: "grid" }, maps)];
}
