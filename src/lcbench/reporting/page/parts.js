// What the page is made of: elements, numbers with their details, tables, files to save.
// Names come from models and data sets. They reach the page as text nodes and attributes only.

const MISSING_VALUE = "–";
const AVERAGE = "Avg";
const BASELINE = "1";

const sourceOf = (id) => document.getElementById(id).textContent;

/** Return a new element; `null` and `undefined` among attributes and children are left out. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  const isThere = (child) => child !== null && child !== undefined;
  element.append(...children.flat(Infinity).filter(isThere));
  return element;
}

/** Text that only a screen reader gets. */
const unseen = (text) => el("span", { class: "unseen" }, text);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Two decimals as Python prints them: exact ties (…125, …625) go to the even neighbour. */
function fixed(value, digits = 2) {
  if (!isNumber(value)) return MISSING_VALUE;
  const eighths = Math.abs(value) * 8;
  const tie = digits === 2 && Number.isInteger(eighths) && eighths % 4 === 1;
  const text = (tie ? value - Math.sign(value) * 0.001 : value).toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

function signed(value, digits = 2) {
  const text = fixed(value, digits);
  return isNumber(value) && value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** The shortest text that reads back as the same number. */
const exact = (value) => (isNumber(value) ? String(value).replace("-", "−") : MISSING_VALUE);

/** A number to six digits, for people; files have all digits. */
const precise = (value) => exact(isNumber(value) ? Number(value.toPrecision(6)) : value);

/** A probability: never as zero, which none of them is. */
function chance(value) {
  if (!isNumber(value)) return MISSING_VALUE;
  return value < 0.0001 ? "< 0.0001" : value.toFixed(value < 0.01 ? 4 : 3);
}

function intervalText(improvement, format = signed) {
  if (!improvement || !isNumber(improvement.low) || !isNumber(improvement.high)) return "unknown";
  return `${format(improvement.low)} to ${format(improvement.high)}`;
}

/** What is known of an improvement, as names and values. */
function improvementFacts(improvement) {
  if (!improvement) return [];
  const facts = [
    ["Improvement, %", precise(improvement.value)],
    ["95 % interval", intervalText(improvement, precise)],
  ];
  if (improvement.alone) {
    const [low, high] = improvement.alone;
    facts[1][0] = `95 % band over ${improvement.tried} τ tried`;
    facts.push(["95 % interval of this τ alone", intervalText({ low, high }, precise)]);
  }
  if (isNumber(improvement.low) && typeof improvement.significant === "boolean") {
    const verdict = improvement.too_few ? "too few items changed to say" : "no";
    facts.push(["Significant", improvement.significant ? "yes" : verdict]);
    if (!improvement.significant && isNumber(improvement.bound)) {
      facts.push(["No more than, either way, %", precise(improvement.bound)]);
    }
  }
  if (isNumber(improvement.p)) facts.push(["p (permutation)", precise(improvement.p)]);
  if (isNumber(improvement.adjusted)) facts.push(["p (Holm)", precise(improvement.adjusted)]);
  if (improvement.units && improvement.count) {
    facts.push(["Resampled", `${improvement.count.toLocaleString("en")} ${improvement.units}`]);
  }
  if (isNumber(improvement.up) && isNumber(improvement.down)) {
    facts.push(["Changed", `${improvement.up} up, ${improvement.down} down`]);
  }
  if (improvement.note) facts.push(["Note", improvement.note]);
  return facts;
}

// Numbers. Each is a button: pointing at it or focusing it shows it exactly, pressing it leads to
// where it comes from.

const numbers = new WeakMap();

/**
 * Return a number of a table.
 *
 * `about` gives {title, facts}, made only when it is asked for; `open` shows where it comes from,
 * by default the same facts in a dialog, so that a finger, which cannot hover, reaches them too.
 */
function number(nodes, look, about, open) {
  const button = el("button", { type: "button", class: `number ${look}`, tabindex: "-1" }, nodes);
  numbers.set(button, { about, open });
  return button;
}

function factList(facts) {
  return el(
    "dl",
    { class: "facts" },
    facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

const tip = document.getElementById("tip");
let tipped = null;
let tipTimer = 0;

function showTip(button) {
  clearTimeout(tipTimer);
  if (tipped === button) return;
  hideTip();
  const about = numbers.get(button).about();
  tip.replaceChildren(el("p", {}, about.title), factList(about.facts));
  // An open dialog is in front of everything outside of it.
  button.closest("dialog, main").append(tip);
  tip.hidden = false;
  button.setAttribute("aria-describedby", "tip");
  tipped = button;
  placeTip();
}

/** Put the tip below its number, above it where there is no room, and within the window. */
function placeTip() {
  const place = tipped.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.min(place.left + place.width / 2 - size.width / 2, width - size.width - 8);
  const below = place.bottom + 6 + size.height < window.innerHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below ? place.bottom + 6 : Math.max(8, place.top - size.height - 6)}px`;
}

function hideTip() {
  clearTimeout(tipTimer);
  tip.hidden = true;
  tipped?.removeAttribute("aria-describedby");
  tipped = null;
}

// The pause lets the pointer travel into the tip, to read or to select it.
function hideTipSoon() {
  clearTimeout(tipTimer);
  tipTimer = setTimeout(hideTip, 150);
}

const numberOf = ({ target }) => (target instanceof Element ? target.closest(".number") : null);

document.addEventListener("mouseover", (event) => {
  const button = numberOf(event);
  if (button) showTip(button);
  else if (tip.contains(event.target)) clearTimeout(tipTimer);
  else if (tipped && tipped !== document.activeElement) hideTipSoon();
});
document.addEventListener("focusin", (event) => {
  const button = numberOf(event);
  if (button?.matches(":focus-visible")) showTip(button);
  else hideTip();
});
document.addEventListener("focusout", hideTipSoon);
document.addEventListener("scroll", () => tipped && placeTip(), { capture: true, passive: true });
document.addEventListener(
  "keydown",
  (event) => {
    if (event.key === "Escape" && tipped && !tipped.closest("dialog")) hideTip();
  },
  { capture: true },
);
document.addEventListener("click", (event) => {
  const button = numberOf(event);
  if (!button) return;
  const { about, open } = numbers.get(button);
  hideTip();
  if (open) open();
  else {
    const { title, facts } = about();
    openDetail(title, [factList(facts)]);
  }
});

// The dialog. Details may lead to further details, and back.

const dialog = document.getElementById("detail");
const trail = [];

function openDetail(title, nodes) {
  trail.push({ title, nodes });
  showDetail();
  if (!dialog.open) dialog.showModal();
  document.getElementById("detail-title").focus();
  dialog.scrollTop = 0;
}

function showDetail() {
  const { title, nodes } = trail.at(-1);
  const back = el("button", { type: "button", onclick: goBack }, "Back");
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    el(
      "div",
      { class: "dialog-head" },
      el("h2", { id: "detail-title", tabindex: "-1" }, title),
      trail.length > 1 ? back : null,
      close,
    ),
    el("div", { class: "dialog-body" }, nodes),
  );
}

function goBack() {
  trail.pop();
  showDetail();
  document.getElementById("detail-title").focus();
}

dialog.addEventListener("close", () => {
  hideTip();
  document.body.append(tip);
  trail.length = 0;
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

/** Any value of JSON as nested lists of text. */
function nested(value) {
  if (Array.isArray(value)) {
    if (value.every((one) => one === null || typeof one !== "object")) {
      return value.length ? value.map((one) => plain(one)).join(", ") : "none";
    }
    return el("ol", {}, value.map((one) => el("li", {}, nested(one))));
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (!entries.length) return "none";
    return el(
      "dl",
      { class: "nested" },
      entries.map(([key, one]) => [el("dt", {}, key), el("dd", {}, nested(one))]),
    );
  }
  return plain(value);
}

function plain(value) {
  if (value === null || value === undefined) return MISSING_VALUE;
  if (value === true) return "yes";
  if (value === false) return "no";
  // The file of the provenance has all digits.
  if (isNumber(value) && !Number.isInteger(value)) return String(Number(value.toPrecision(6)));
  return String(value);
}

// Tables.

/**
 * Return a table within a region that scrolls by itself, so that the page never does sideways.
 *
 * One number of it is a tab stop; arrow keys, Home and End move between numbers.
 */
function scrolling(table, label, className = "") {
  table.addEventListener("keydown", moveWithin);
  table.addEventListener("focusin", (event) => {
    const button = numberOf(event);
    if (button) makeStop(table, button);
  });
  const first = table.querySelector(".number");
  if (first) first.tabIndex = 0;
  return el(
    "div",
    { class: `region ${className}`, role: "region", "aria-label": label, tabindex: "0" },
    table,
  );
}

function makeStop(table, button) {
  for (const other of table.querySelectorAll('.number[tabindex="0"]')) other.tabIndex = -1;
  button.tabIndex = 0;
}

function moveWithin(event) {
  const from = numberOf(event);
  if (!from || event.altKey || event.ctrlKey || event.metaKey) return;
  const rows = [...event.currentTarget.rows]
    .map((row) => [...row.querySelectorAll(".number")])
    .filter((row) => row.length);
  const y = rows.findIndex((row) => row.includes(from));
  const x = rows[y].indexOf(from);
  let to = null;
  if (event.key === "ArrowLeft") to = rows[y][x - 1];
  else if (event.key === "ArrowRight") to = rows[y][x + 1];
  else if (event.key === "Home") to = rows[y][0];
  else if (event.key === "End") to = rows[y].at(-1);
  else if (event.key === "ArrowUp") to = nearest(rows[y - 1], from);
  else if (event.key === "ArrowDown") to = nearest(rows[y + 1], from);
  else return;
  event.preventDefault();
  to?.focus();
}

/** The number right above or below, by where they stand: rows with missing values have fewer. */
function nearest(row, from) {
  const right = from.getBoundingClientRect().right;
  const distance = (button) => Math.abs(button.getBoundingClientRect().right - right);
  return row?.reduce((best, one) => (distance(one) < distance(best) ? one : best));
}

/** The head of a table whose first `labels` columns are names and whose others are numbers. */
const headerRow = (names, labels) =>
  el(
    "thead",
    {},
    el(
      "tr",
      {},
      names.map((name, at) => el("th", { scope: "col", class: at < labels ? null : "num" }, name)),
    ),
  );

/** A line within a table that names the rows below it. */
const headingRow = (text, width) =>
  el("tr", { class: "heading" }, el("th", { scope: "rowgroup", colspan: width }, text));

// Files to save.

function csvText(rows) {
  const isFormula = (value) =>
    typeof value === "string" &&
    /^\s*[=+\-@]/.test(value) &&
    !value.split(" to ").every((part) => part.trim() !== "" && Number.isFinite(Number(part)));
  const field = (value) => {
    // A spreadsheet would run a name that begins like a formula; it does not show the apostrophe.
    const mark = isFormula(value) ? "'" : "";
    const text = value === null || value === undefined ? "" : mark + String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(field).join(",")).join("\n") + "\n";
}

/** A file's name without anything that a file system could take amiss. */
const fileName = (text) =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")
    .slice(0, 80) || "data";

function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  // Not at once: the browser reads it after this.
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A button that saves rows as CSV; `rows` makes them when it is pressed. */
function csvButton(name, rows, text = "Data (CSV)", about = "") {
  return el(
    "button",
    {
      type: "button",
      onclick: () => save(`${fileName(name)}.csv`, csvText(rows()), "text/csv;charset=utf-8"),
    },
    text,
    about ? unseen(` of ${about}`) : null,
  );
}

let identifiers = 0;
const identifier = () => `id-${(identifiers += 1)}`;

/** A labelled choice among texts or {value, text}, or groups {group, options} of these. */
function chooser(label, options, onchange) {
  const id = identifier();
  const option = (one) =>
    one.options
      ? el("optgroup", { label: one.group }, one.options.map(option))
      : el("option", { value: one.value ?? one }, one.text ?? one);
  const select = el("select", { id }, options.map(option));
  select.addEventListener("change", () => onchange(select.value));
  return el("div", { class: "field" }, el("label", { for: id }, label), select);
}
