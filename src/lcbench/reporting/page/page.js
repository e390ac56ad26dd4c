// The page, from top to bottom.

const main = document.getElementById("main");
const contents = el("ul");
document.getElementById("contents").append(contents);
addToContents("findings", "What was found");

function addToContents(id, title) {
  contents.append(el("li", {}, el("a", { href: `#${id}` }, title)));
}

function section(id, title, ...nodes) {
  addToContents(id, title);
  const heading = el("h2", { id: `${id}-title` }, title);
  main.append(el("section", { id, "aria-labelledby": heading.id }, heading, nodes));
}

// The header.

function header() {
  const facts = [
    ["Made", moment(report.made)],
    ["Version", report.version],
    ["Resamples", isNumber(report.resamples) ? report.resamples.toLocaleString("en") : null],
    ["Seed", report.seed],
    ["Cells", cells.length ? cells.length.toLocaleString("en") : null],
  ];
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const entry = ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  document.getElementById("meta").append(...known.map(entry));
  document
    .getElementById("tools")
    .append(
      ...(cells.length ? [csvButton("lcbench-cells", everything, "All cells (CSV)")] : []),
      el("button", { type: "button", onclick: saveReport }, "Report (JSON)"),
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

function saveReport() {
  const whole = { ...report, provenance: JSON.parse(sourceOf("provenance")) };
  save("report.json", JSON.stringify(whole), "application/json");
}

function everything() {
  const ofModel = ["group", "window", "model", "revision"];
  const ofCell = ["column", "task", "policy", "score", "raw"];
  const ofImprovement = ["value", "low", "high", "p", "adjusted", "units", "count"];
  const names = ofImprovement.map((name) => (name === "value" ? "improvement" : name));
  return [
    [...ofModel, ...ofCell, ...names, "provenance"],
    ...cells.map((cell) => [
      ...[cell.table.group, cell.model.window, cell.model.model, cell.model.revision],
      ...ofCell.map((name) => cell[name]),
      ...ofImprovement.map((name) => cell.improvement?.[name]),
      cell.provenance,
    ]),
  ];
}

// The theme: the system's until the button is pressed.

const THEME = "lcbench-theme";
const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches);

function themeButton() {
  const button = el("button", { type: "button", id: "theme" });
  const name = () => {
    button.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  const change = () => {
    name();
    redrawCharts();
  };
  // A browser may refuse storage to a file; the choice then ends with the page.
  try {
    const kept = localStorage.getItem(THEME);
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {}
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(THEME, root.dataset.theme);
    } catch {}
    change();
  });
  systemIsDark.addEventListener("change", change);
  name();
  return button;
}

// Paper is white, and has all charts on it.
let themeOfScreen = null;
window.addEventListener("beforeprint", () => {
  themeOfScreen = root.dataset.theme ?? "";
  root.dataset.theme = "light";
  document.querySelectorAll("figure.chart").forEach((figure) => figure.draw());
});
window.addEventListener("afterprint", () => {
  if (themeOfScreen) root.dataset.theme = themeOfScreen;
  else delete root.dataset.theme;
  redrawCharts();
});

// The sections.

/** The tables of a table of scores: those whose numbers lead to its cells. */
const shownTablesOf = ({ group }) => (report.tables ?? []).filter((one) => one.scores === group);

function tableSection(table, place) {
  const isOnly = tables.length === 1;
  const charts = (figures.tables?.[place] ?? []).map((one) => chart(one));
  const shown = shownTablesOf(table);
  const main = shown.filter((one) => one.data === "table1.csv");
  const choices = shown.filter((one) => one.name.startsWith("choice"));
  const repairs = shown.filter((one) => one.data === "repairs.csv");
  const perTask = shown.filter((one) => one.data === "tasks.csv");
  section(
    `table-${place}`,
    isOnly ? "Table 1" : `Table 1: ${headingOf(table)}`,
    isOnly ? el("p", { class: "group" }, headingOf(table)) : null,
    main.map((one) => [tableNodes(one), markKey()]),
    choices.map((one) => [el("h3", {}, "The choice of τ"), tableNodes(one)]),
    repairs.map((one) => [el("h3", {}, "Repairs compared"), tableNodes(one)]),
    charts.length ? [el("h3", {}, "Improvement and its uncertainty"), charts] : null,
    perTask.map((one) => [el("h3", {}, one.title), tableNodes(one)]),
  );
}

const markKey = () =>
  el(
    "p",
    { class: "key" },
    [el("span", { class: "gain" }, "▲ "), el("span", { class: "loss" }, "▼ ")],
    "significant; △ ▽ not significant. ",
    "Press a number for where it comes from.",
  );

function figureSection() {
  const { charts = [], heat = [], by_length: byLength, note } = figures;
  if (charts.length) section("charts", "Charts", charts.map((one) => chart(one, "h3")));
  if (!heat.length && !byLength) return;
  section(
    "figures",
    byLength && heat.length ? "Length and role" : byLength ? "Length" : "Role",
    byLength ? chart(byLength, "h3") : null,
    heat.length ? el("h3", {}, "τ of queries and of documents") : null,
    heat.length ? el("p", { class: "key" }, note) : null,
    heat.length ? el("div", { class: "grid" }, heat.map((one) => chart(one))) : null,
  );
}

function paperSection() {
  const shown = (report.tables ?? []).filter((one) => one.data === "paper.csv");
  if (!shown.length) return;
  const nodes = shown.map((one) => [el("h3", {}, one.title), tableNodes(one)]);
  section("paper", "Comparison with the paper", nodes);
}

function cellSection() {
  if (!cells.length) return;
  section(
    "cells",
    "All cells",
    el("p", {}, "One row a model, τ and task. Each number leads to where it comes from."),
    tableNodes(cellTable()),
  );
}

const HOW_TO_READ = `Point at a number, or move to it with Tab and the arrow keys, to see it to
  six digits; the CSV and JSON files have all of them. Press it to see the cells it is made of and where they come from: revision, protocol,
  proof, versions, hardware and seconds. Escape closes.`;

function readingSection() {
  const look = (name, text) => el("span", { class: name }, text);
  const entries = [
    [
      [look("gain", "▲ 0.43 "), look("loss", "▼ 0.43")],
      `An improvement (blue) or a loss (orange), in % of the baseline, that is significant: its 95 % interval
       excludes zero, and its permutation test has p ≤ 0.05.
       The colours are the same in all charts.`,
    ],
    [[look("inconclusive", "△ 0.43 ▽ 0.43")], "One that is not significant: it may be noise."],
    [["▲ 0.43"], "One whose interval is not known."],
    [[MISSING_VALUE], "A missing value: not measured, or not averaged because something is missing."],
  ];
  section(
    "reading",
    "How to read this",
    el(
      "dl",
      { class: "legend" },
      entries.map(([marks, text]) => [el("dt", {}, marks), el("dd", {}, text)]),
    ),
    el("p", {}, HOW_TO_READ),
  );
}

header();
tables.forEach(tableSection);
figureSection();
const placed = new Set(tables.flatMap(shownTablesOf));
const further = (report.tables ?? []).filter(
  (one) => !placed.has(one) && one.data !== "paper.csv",
);
if (further.length) {
  const nodes = further.map((one) => [el("h3", {}, one.title), tableNodes(one)]);
  section("further-tables", "Further tables", nodes);
}
paperSection();
cellSection();
// Marks and cells are those of scores.
if (tables.length) readingSection();
const made = `lcbench ${report.version ?? ""}. This page asks nothing of any other place.`;
document.getElementById("foot").append(el("p", {}, made));
