// Tables sort by their headers and filter by a text field; long ones show their first rows, and all
// when asked; sections open for their links and for print. The page reads well without any of it.
"use strict";
const FIRST = 20;

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rest = box.querySelector("script.rest");
  const note = box.querySelector("p.rest");
  let rows = [...body.rows];
  let ordered = rows;
  let isWhole = rest === null;
  let wanted = () => true;
  const total = rows.length + (isWhole ? 0 : JSON.parse(rest.textContent).length);

  const row = (cells) => {
    const made = document.createElement("tr");
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
    const others = JSON.parse(rest.textContent).map(row);
    const places = new Map(rest.dataset.first.split(" ").map((place, at) => [Number(place), rows[at]]));
    rows = ordered = Array.from({ length: total }, (_, place) => places.get(place) ?? others.shift());
    return rows;
  };
  const show = () => {
    const found = ordered.filter(wanted);
    const shown = isWhole ? found : found.slice(0, FIRST);
    body.replaceChildren(...shown);
    if (note) {
      const count = found.length.toLocaleString("en");
      const text = shown.length < found.length ? `The first ${FIRST} of ${count} rows.` : `${count} rows.`;
      note.firstChild.textContent = text;
    }
    return found.length;
  };
  if (note) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Show all ${total.toLocaleString("en")}`;
    note.append(button);
    button.addEventListener("click", () => {
      all();
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
      wanted = (row) => words.every((word) => text(row).includes(word));
      const shown = show();
      count.textContent = words.length ? `${shown} of ${total}` : "";
    });
  }
}

const openAround = (place) => {
  for (let own = place?.closest("details"); own; own = own.parentElement.closest("details")) own.open = true;
};
const follow = () => openAround(document.getElementById(decodeURIComponent(location.hash.slice(1))));
addEventListener("hashchange", follow);
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", () => openAround(document.getElementById(link.hash.slice(1))));
}
follow();

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("section > details:not([open]), details.why:not([open])")];
  closed.forEach((own) => (own.open = true));
});
addEventListener("afterprint", () => closed.forEach((own) => (own.open = false)));
