// Every table of the report, and that of its cells: sorted by its headers, filtered, searched, and
// shown in pages. A table comes with its texts, its styles and where its numbers come from.

// A table of more rows has fields that filter it, one of more than a page of them its pages.
const FEWEST_TO_FILTER = 12;
const ROWS_OF_A_PAGE = 50;
// A column of more names than these is searched and not chosen from.
const MOST_CHOICES = 60;
// Their rows belong together, and are not put into another order.
const IN_LINES = ["table1.csv", "paper.csv"];
const STYLES = ["neutral", "gain", "loss", "inconclusive", "best", "detail"];
const ARROWS = { "▲": "plus ", "▼": "minus ", "△": "plus ", "▽": "minus " };

/** The nodes of a table, without its title. */
function tableNodes(table, name = table.name) {
  const labels = table.labels ?? 1;
  const items = table.sections.flatMap((section, part) =>
    section.rows.map((row) => ({ row, part, section })),
  );
  const isFiltered = items.length > FEWEST_TO_FILTER;
  const isSorted = !IN_LINES.includes(table.data);
  const state = {
    sort: null, // the place of a column
    down: false,
    page: 0,
    size: ROWS_OF_A_PAGE,
    words: [],
    part: null,
    chosen: new Map(), // a text by column
    isSignificant: false,
  };
  const count = (value) => value.toLocaleString("en");
  const textOf = ({ row, section }) =>
    [section.heading, ...row.slice(0, labels).map((entry) => entry.text)].join(" ").toLowerCase();

  const status = el("p", { class: "status", role: "status" });
  const directions = [];
  const headers = table.header.map((label, place) => {
    // A button without a name could not be told from others by a screen reader.
    const text = label || unseen("Row");
    const direction = el("span", { class: "direction", "aria-hidden": "true" });
    directions.push(direction);
    const attributes = { type: "button", class: "sort", onclick: () => sortBy(place) };
    const shown = isSorted ? el("button", attributes, text, direction) : text;
    return el("th", { scope: "col", class: placeClass(place) }, shown);
  });
  const shownTable = el(
    "table",
    { class: isSorted ? "browser" : "table-one" },
    el("thead", {}, el("tr", {}, headers)),
  );
  const looks = table.header.length > 7 ? "" : "fit";
  const region = scrolling(shownTable, `${table.title}: arrow keys move between numbers`, looks);

  function placeClass(place) {
    if (place < labels) return null;
    return table.header[place] === AVERAGE ? "num average" : "num";
  }

  /** Change what is shown, from its first page on. */
  function change(how) {
    how();
    state.page = 0;
    draw();
  }

  function choice(label, values, onchoice) {
    if (values.length < 2 || values.length > MOST_CHOICES) return null;
    // An empty value is all of them, so that a name, which may be empty, can be distinguished from it.
    const options = values.map((value) => ({ value: `=${value}`, text: value }));
    return chooser(label, [{ value: "", text: "all" }, ...options], (value) =>
      change(() => onchoice(value ? value.slice(1) : null)),
    );
  }

  function filters() {
    const parts = table.sections.map((section) => section.heading).filter(Boolean);
    const ofColumn = (place) => [...new Set(items.map(({ row }) => row[place].text))];
    const chosen = (place) => (value) =>
      value === null ? state.chosen.delete(place) : state.chosen.set(place, value);
    return [
      choice("Part", [...new Set(parts)], (value) => (state.part = value)),
      ...table.header
        .slice(0, labels)
        .map((label, place) => choice(label || "Row", ofColumn(place), chosen(place))),
    ];
  }

  function searchField() {
    const id = identifier();
    const words = (event) => event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    const oninput = (event) => change(() => (state.words = words(event)));
    return el(
      "div",
      { class: "field" },
      el("label", { for: id }, "Search"),
      el("input", { id, type: "search", autocomplete: "off", oninput }),
    );
  }

  const isSignificant = ({ row }) => row.some(({ style }) => style === "gain" || style === "loss");

  function significantField() {
    if (!items.some(isSignificant)) return null;
    const id = identifier();
    const onchange = (event) => change(() => (state.isSignificant = event.target.checked));
    return el(
      "div",
      { class: "field check" },
      el("input", { id, type: "checkbox", onchange }),
      el("label", { for: id }, "significant"),
    );
  }

  const keeps = (item) =>
    (state.part === null || item.section.heading === state.part) &&
    [...state.chosen].every(([place, text]) => item.row[place].text === text) &&
    (!state.isSignificant || isSignificant(item)) &&
    state.words.every((word) => textOf(item).includes(word));

  /** The rows that are left, in the order of their sections: missing values last either way. */
  function kept() {
    const found = items.filter(keeps);
    if (state.sort === null) return found;
    const side = state.down ? -1 : 1;
    const keyOf = ({ row }) => row[state.sort].value;
    const isMissing = (key) => key === null || key === undefined || key === "";
    const collate = (a, b) => String(a).localeCompare(String(b), "en", { numeric: true });
    // A column of policies has temperatures, which are numbers, and then others.
    const isName = (key) => !Number.isFinite(Number(key));
    const compare = (a, b) =>
      isName(a) && isName(b) ? collate(a, b) : isName(a) - isName(b) || a - b;
    // Equals stay in their own order, for sort is stable.
    return found.sort((first, second) => {
      const [a, b] = [keyOf(first), keyOf(second)];
      const missing = isMissing(a) - isMissing(b);
      if (first.part !== second.part) return first.part - second.part;
      return isMissing(a) || isMissing(b) ? missing : side * compare(a, b);
    });
  }

  function line(row) {
    const places = row.map((entry, place) => {
      if (place === 0 && labels) {
        return el("th", { scope: "row", class: entry.style === "detail" ? "detail" : null }, entry.text);
      }
      const shown = place < labels ? entry.text : entryNode(table, row, entry, place);
      return el("td", { class: placeClass(place) }, shown);
    });
    return el("tr", { class: row.some(({ text }) => text[0] in ARROWS) ? "relative" : null }, places);
  }

  /** The rows under their headings, each again where a page begins. */
  function bodies(shown) {
    const made = [];
    let last = null;
    for (const item of shown) {
      const { section, row } = item;
      if (last?.part !== item.part) {
        const isOther = (section.group ?? "") !== (last?.section.group ?? "");
        const headings = [isOther ? section.group : "", section.heading].filter(Boolean);
        made.push(
          el("tbody", {}, headings.map((text) => headingRow(text, table.header.length))),
        );
      }
      made.at(-1).append(line(row));
      last = item;
    }
    return made;
  }

  function draw() {
    const found = kept();
    const pages = Math.max(1, Math.ceil(found.length / state.size));
    const start = state.page === 0 ? 0 : state.page * state.size;
    const shown = found.slice(start, start + state.size);
    for (const body of [...shownTable.tBodies]) body.remove();
    shownTable.append(...bodies(shown));
    const first = shownTable.querySelector("tbody .number");
    if (first) first.tabIndex = 0;

    headers.forEach((header, place) => {
      const isBy = state.sort === place;
      if (isBy) header.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
      const hint = isFiltered ? " ↕" : "";
      directions[place].textContent = isBy ? (state.down ? " ↓" : " ↑") : hint;
    });
    const all = `${count(items.length)} rows`;
    status.textContent = found.length === items.length ? all : `${count(found.length)} of ${all}`;
    pageText.textContent = found.length
      ? `${count(start + 1)}–${count(start + shown.length)} of ${count(found.length)}`
      : "nothing found";
    previous.disabled = state.page === 0;
    next.disabled = state.page >= pages - 1;
    // With all rows in sight there is nothing to turn.
    turning.hidden = items.length <= ROWS_OF_A_PAGE;
    // A page of rows is turned and does not scroll within the page as well; a long one does, below
    // a header that stays.
    region.classList.toggle("tall", shown.length > ROWS_OF_A_PAGE);
  }

  function sortBy(place) {
    change(() => {
      // The largest numbers are what one looks for first, and names from A.
      if (state.sort === place) state.down = !state.down;
      else Object.assign(state, { sort: place, down: place >= labels });
    });
  }

  function turn(step) {
    state.page += step;
    draw();
    region.scrollTop = 0;
  }

  const previous = el("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const next = el("button", { type: "button", onclick: () => turn(1) }, "Next");
  const pageText = el("span");
  const sizes = [String(ROWS_OF_A_PAGE), "200", { value: "0", text: "all" }];
  const size = chooser("Rows a page", sizes, (value) =>
    change(() => (state.size = Number(value) || Infinity)),
  );
  const saved = () => [
    ["section", ...table.header],
    ...kept().map(({ section, row }) => [section.heading, ...row.map((entry) => entry.value)]),
  ];
  const turning = el(
    "nav",
    { class: "pages", "aria-label": `Pages of ${table.title}` },
    previous,
    pageText,
    next,
    size,
  );
  const button = csvButton(name, saved, isFiltered ? "These rows (CSV)" : "Data (CSV)", table.title);
  draw();
  return [
    isFiltered ? el("div", { class: "fields" }, filters(), searchField(), significantField()) : null,
    isFiltered ? el("div", { class: "status-line" }, status, button) : null,
    region,
    turning,
    isFiltered ? null : el("div", { class: "figure-tools" }, button),
    notesList(table.notes, table.footnotes),
  ];
}

/** A number with its arrow, which a screen reader is told in words. */
function entryNodes({ text, style }) {
  if (!(text[0] in ARROWS)) return [text];
  return [
    el("span", { class: "arrow", "aria-hidden": "true" }, text[0]),
    unseen(ARROWS[text[0]]),
    text.slice(1).trim(),
    style === "inconclusive" ? unseen(", not significant") : null,
  ];
}

function entryNode(table, row, entry, place) {
  const style = STYLES.includes(entry.style) ? entry.style : "neutral";
  const isMissing = entry.value === null || entry.value === undefined;
  if ((isMissing && !entry.tooltip) || entry.isPlain) return el("span", { class: style }, entry.text);
  const origin = entry.source ? originOf(entry.scores ?? table.scores, entry.source) : null;
  if (origin) return number(entryNodes(entry), style, origin.about, origin.open);
  const about = () => ({
    title: [...row.slice(0, table.labels).map((one) => one.text), table.header[place]].join(", "),
    facts: [
      ["Value", isNumber(entry.value) ? precise(entry.value) : plain(entry.value)],
      ...(isNumber(entry.low) ? [["95 % interval", intervalText(entry, precise)]] : []),
      ...(entry.tooltip ? [["More", entry.tooltip]] : []),
    ],
  });
  return number(entryNodes(entry), style, about);
}

function notesList(notes, footnotes) {
  if (!notes?.length && !footnotes?.length) return null;
  const list = notes?.length ? el("ul", {}, notes.map((note) => el("li", {}, note))) : null;
  return el("div", { class: "notes" }, list, (footnotes ?? []).map((note) => el("p", {}, note)));
}
