// Tables sort by their headers and filter by a text field; long ones show the rows that matter, and
// all when asked. The page reads well without any of it.
const FIRST = 20;
const tables = [];

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rest = box.querySelector("script.rest");
  const note = box.querySelector("p.more");
  const others = rest === null ? { order: [], rows: [] } : JSON.parse(rest.textContent);
  const total = body.rows.length + others.rows.length;
  let rows = [...body.rows];
  let ordered = rows;
  let isWhole = rest === null;
  let isSorted = false;
  let sought = null;
  let wanted = () => true;
  let chosen = () => true;

  const row = ([numbers, ...cells]) => {
    const made = document.createElement("tr");
    if (numbers) made.dataset.cells = numbers;
    cells.forEach((cell, at) => {
      const [text, order, href] = Array.isArray(cell) ? cell : [cell, null, null];
      const own = made.insertCell();
      if (heads[at].classList.contains("n")) own.className = "n";
      else if (heads[at].dataset.wrap) own.className = heads[at].dataset.wrap;
      if (order !== null) own.dataset.v = order;
      const inner = href !== null ? "a" : heads[at].dataset.wrap === "prose" ? "span" : null;
      const place = inner ? own.appendChild(document.createElement(inner)) : own;
      if (href !== null) place.href = href;
      place.textContent = text;
    });
    return made;
  };
  // Every row, made when it is first asked for.
  const all = () => {
    if (rows.length === total) return rows;
    const first = new Map(others.order.slice(0, FIRST).sort((a, b) => a - b).map((place, at) => [place, rows[at]]));
    const made = others.rows.map(row);
    rows = ordered = Array.from({ length: total }, (_, place) => first.get(place) ?? made.shift());
    return rows;
  };
  // Sorted rows from the top; others by how much they matter.
  const few = (found) => {
    if (isSorted || found.length <= FIRST) return found.slice(0, FIRST);
    const ranks = new Map(others.order.map((place, rank) => [rows[place], rank]));
    const kept = new Set([...found].sort((a, b) => ranks.get(a) - ranks.get(b)).slice(0, FIRST));
    return found.filter((row) => kept.has(row));
  };
  const show = () => {
    const found = ordered.filter((row) => wanted(row) && chosen(row));
    const shown = isWhole ? found : rows.length < total ? rows : few(found);
    const added = sought && !shown.includes(sought) ? [sought] : [];
    body.replaceChildren(...added, ...shown);
    if (note) {
      const count = (rows.length < total ? total : found.length).toLocaleString("en");
      const why = isSorted ? ", the first by the column that sorts" : note.dataset.why;
      const cut = !isWhole && (rows.length < total || found.length > FIRST);
      note.firstChild.textContent = cut ? `${FIRST} of ${count} rows${why}.` : `${count} rows.`;
    }
    box.dispatchEvent(new Event("shown"));
    return found.length;
  };
  if (note) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Show all ${total.toLocaleString("en")}`;
    note.append(button);
    button.addEventListener("click", () => {
      all();
      sought = null;
      isWhole = !isWhole;
      button.textContent = isWhole ? `Show ${FIRST}` : `Show all ${total.toLocaleString("en")}`;
      show();
    });
  }

  const key = (row, at) => {
    const cell = row.cells[at];
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");

  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const turned = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", turned === 1 ? "ascending" : "descending");
      const keyed = all().map((row, place) => [key(row, at), place, row]);
      // The unknown stays last, whichever way the rest is turned.
      keyed.sort(([a, i], [b, j]) =>
        a === null || b === null ? (a === null) - (b === null) || i - j : turned * compare(a, b) || i - j);
      ordered = keyed.map(([, , row]) => row);
      isSorted = true;
      show();
    });
  });

  if (box.dataset.filter === "yes") {
    const label = document.createElement("label");
    const field = document.createElement("input");
    const count = document.createElement("output");
    label.className = "filter";
    field.type = "search";
    label.append("Filter", field, count);
    box.querySelector(".caption").after(label);
    const texts = new Map();
    const text = (row) => {
      if (!texts.has(row)) texts.set(row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
      return texts.get(row);
    };
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      all();
      sought = null;
      wanted = (row) => words.every((word) => text(row).includes(word));
      const shown = show();
      count.textContent = words.length ? `${shown} of ${total}` : "";
    });
  }

  const isAbout = (numbers, cell) => (numbers ?? "").split(" ").includes(String(cell));
  tables.push({
    box,
    // Those rows alone whose places are told; all without them.
    only: (places) => {
      const kept = places && new Set(places.map((place) => all()[place]));
      chosen = kept ? (row) => kept.has(row) : () => true;
      sought = null;
      return show();
    },
    place: (row) => all().indexOf(row),
    // Whether some row is about this configuration, shown or not.
    has: (cell) =>
      rows.some((row) => isAbout(row.dataset.cells, cell)) ||
      (rows.length < total && others.rows.some(([numbers]) => isAbout(numbers, cell))),
    // The row of a configuration; it is brought in above the others where it is not among them.
    reveal: (cell) => {
      sought = all().find((row) => isAbout(row.dataset.cells, cell));
      show();
      return sought;
    },
  });
}
