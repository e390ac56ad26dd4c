// A table of many rows: sorted by its headers, filtered, searched, and shown in pages.

/**
 * Return the nodes of such a table.
 *
 * `columns`: {name, value(row), cell?(row), numeric?, filter?}: `cell` shows a value as more than
 * its text, `filter` makes a choice of all values. `search(row)` gives the text that is searched.
 * `extra`: further filters, {label, keeps(row)}.
 */
function browser({ title, columns, rows, search, extra = [], pageSize = 50 }) {
  const state = {
    sort: null, // the place of a column
    down: false,
    page: 0,
    size: pageSize,
    words: [],
    chosen: new Map(), // a value by column
    extras: new Set(),
  };
  const texts = new Map(rows.map((row) => [row, search(row).toLowerCase()]));
  const textOf = (column, row) => String(column.value(row) ?? HOLE);
  const count = (value) => value.toLocaleString("en");

  const status = el("p", { class: "status", role: "status" });
  const body = el("tbody");
  const headers = columns.map((column, place) => {
    const direction = el("span", { class: "direction", "aria-hidden": "true" });
    const attributes = { type: "button", class: "sort", onclick: () => sortBy(place) };
    const button = el("button", attributes, column.name, direction);
    return el("th", { scope: "col", class: column.numeric ? "num" : null }, button);
  });
  const table = el(
    "table",
    { class: "browser" },
    el("thead", {}, el("tr", {}, headers)),
    body,
  );
  const region = scrolling(table, `Rows of ${title}`);

  /** Change what is shown, from its first page on. */
  function change(how) {
    how();
    state.page = 0;
    draw();
  }

  function filterOf(column) {
    const values = [...new Set(rows.map((row) => textOf(column, row)))];
    if (values.length < 2) return null;
    // An empty value is all of them, so that a name, which may be empty, is told from it.
    const options = values.map((value) => ({ value: `=${value}`, text: value }));
    return chooser(column.name, [{ value: "", text: "all" }, ...options], (value) =>
      change(() =>
        value ? state.chosen.set(column, value.slice(1)) : state.chosen.delete(column),
      ),
    );
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

  function extraField(one) {
    const id = identifier();
    const onchange = (event) =>
      change(() => (event.target.checked ? state.extras.add(one) : state.extras.delete(one)));
    return el(
      "div",
      { class: "field check" },
      el("input", { id, type: "checkbox", onchange }),
      el("label", { for: id }, one.label),
    );
  }

  function keeps(row) {
    return (
      [...state.chosen].every(([column, value]) => textOf(column, row) === value) &&
      [...state.extras].every((one) => one.keeps(row)) &&
      state.words.every((word) => texts.get(row).includes(word))
    );
  }

  /** The rows that are left, in their order: holes last in either direction. */
  function kept() {
    const found = rows.filter(keeps);
    if (state.sort === null) return found;
    const { value, numeric } = columns[state.sort];
    const side = state.down ? -1 : 1;
    const isHole = (key) => key === null || key === undefined || Number.isNaN(key);
    const collate = (a, b) => String(a).localeCompare(String(b), "en", { numeric: true });
    // A column of policies has temperatures, which are numbers, and then others.
    const isName = (key) => !numeric && !Number.isFinite(Number(key));
    const compare = (a, b) =>
      isName(a) && isName(b) ? collate(a, b) : isName(a) - isName(b) || a - b;
    // Equals stay in their own order, for sort is stable.
    return found
      .map((row) => ({ row, key: value(row) }))
      .sort((a, b) =>
        isHole(a.key) || isHole(b.key)
          ? isHole(a.key) - isHole(b.key)
          : side * compare(a.key, b.key),
      )
      .map(({ row }) => row);
  }

  function line(row) {
    const places = columns.map((column, place) => {
      const attributes = {
        scope: place === 0 ? "row" : null,
        class: column.numeric ? "num" : null,
      };
      const shown = column.cell ? column.cell(row) : (column.value(row) ?? HOLE);
      return el(place === 0 ? "th" : "td", attributes, shown);
    });
    return el("tr", {}, places);
  }

  function draw() {
    const found = kept();
    const pages = Math.max(1, Math.ceil(found.length / state.size));
    const start = state.page === 0 ? 0 : state.page * state.size;
    const shown = found.slice(start, start + state.size);
    body.replaceChildren(...shown.map(line));
    const first = body.querySelector(".number");
    if (first) first.tabIndex = 0;

    headers.forEach((header, place) => {
      const sorted = state.sort === place;
      if (sorted) header.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
      const arrow = sorted ? (state.down ? " ↓" : " ↑") : " ↕";
      header.querySelector(".direction").textContent = arrow;
    });
    const all = `${count(rows.length)} rows`;
    status.textContent = found.length === rows.length ? all : `${count(found.length)} of ${all}`;
    pageText.textContent = found.length
      ? `${count(start + 1)}–${count(start + shown.length)} of ${count(found.length)}`
      : "nothing found";
    previous.disabled = state.page === 0;
    next.disabled = state.page >= pages - 1;
    // With all rows in sight there is nothing to turn.
    turning.hidden = rows.length <= pageSize;
    // A page of rows is turned and does not scroll within the page as well; a long one does, below
    // a header that stays.
    region.classList.toggle("tall", shown.length > pageSize);
  }

  function sortBy(place) {
    change(() => {
      // The largest numbers are what one looks for first, and names from A.
      if (state.sort === place) state.down = !state.down;
      else Object.assign(state, { sort: place, down: Boolean(columns[place].numeric) });
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
  const sizes = [String(pageSize), "200", { value: "0", text: "all" }];
  const size = chooser("Rows a page", sizes, (value) =>
    change(() => (state.size = Number(value) || Infinity)),
  );
  const saved = () => [
    columns.map((column) => column.name),
    ...kept().map((row) => columns.map((column) => column.value(row))),
  ];
  const filters = columns.filter((column) => column.filter).map(filterOf);
  const turning = el(
    "nav",
    { class: "pages", "aria-label": `Pages of ${title}` },
    previous,
    pageText,
    next,
    size,
  );

  draw();
  return [
    el("div", { class: "fields" }, filters, searchField(), extra.map(extraField)),
    el("div", { class: "status-line" }, status, csvButton(title, saved, "These rows (CSV)")),
    region,
    turning,
  ];
}
