// Rows of tables lead to the points of their configurations.
for (const figure of document.querySelectorAll("figure.chart:has(script.marks)")) charts.push(chart(figure));

// A row whose configuration is drawn leads to its point: one stop of Tab a table, arrows inside.
const numbersOf = (row) => (row.dataset.cells ?? "").split(" ").filter(Boolean).map(Number);
const offer = (box) => {
  const stops = [];
  for (const row of box.querySelectorAll("tbody tr[data-cells]")) {
    let button = row.querySelector("button.point");
    const cell = [...row.cells].find((own) => own.textContent !== "" && !own.querySelector("a"));
    if (!button && cell && charts.some((chart) => chart.has(numbersOf(row)))) {
      button = document.createElement("button");
      button.type = "button";
      button.className = "point";
      button.title = "Show in the figures";
      button.append(...cell.childNodes);
      cell.append(button);
    }
    if (button) stops.push(button);
  }
  stops.forEach((button, at) => (button.tabIndex = at === 0 ? 0 : -1));
};
for (const { box } of tables) {
  const body = box.querySelector("tbody");
  box.addEventListener("shown", () => offer(box));
  offer(box);
  body.addEventListener("pointerover", (event) => light(numbersOf(event.target.closest("tr"))));
  body.addEventListener("pointerleave", () => light([]));
  body.addEventListener("focusin", (event) => light(numbersOf(event.target.closest("tr"))));
  body.addEventListener("focusout", () => light([]));
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.point");
    if (!button) return;
    const numbers = numbersOf(button.closest("tr"));
    const able = charts.filter((chart) => chart.has(numbers));
    const near = able.find(({ figure }) => box.closest("section").contains(figure)) ?? able[0];
    openAround(near.figure);
    near.find(numbers);
  });
  body.addEventListener("keydown", (event) => {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const stops = [...body.querySelectorAll("button.point")];
    const to = stops[stops.indexOf(event.target) + way];
    if (!way || !stops.includes(event.target) || !to) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
}
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  light([]);
  charts.forEach((chart) => chart.escape());
});
