// Figures answer: the point that is nearest to the mouse, or that keys lead to, says what it stands
// for; entries of the legend switch what is theirs on and off; the view zooms; points and rows of
// tables about one configuration show and find each other.
const NEAR_PIXELS = 24;
const DRAG_PIXELS = 6;
const DEEPEST = 1 / 200;
const charts = [];

const drawnElement = (name, attributes = {}) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

// Rows and points of these configurations stand out.
const light = (cells) => {
  for (const row of document.querySelectorAll("tr.lit")) row.classList.remove("lit");
  for (const cell of cells) {
    for (const row of document.querySelectorAll(`tr[data-cells~="${cell}"]`)) row.classList.add("lit");
  }
  charts.forEach((chart) => chart.ring(cells));
};

const chart = (figure) => {
  const { panels, marks: told, along } = JSON.parse(figure.querySelector("script.marks").textContent);
  const plot = figure.querySelector(".plot");
  const svg = plot.querySelector("svg");
  const title = svg.querySelector("title").textContent;
  const marks = told.map(([panel, x, y, series, cell, words, line], at) => ({ panel, x, y, series, cell, words, line, at }));
  // What is drawn as curves is read off their paths once somebody asks, before a view zooms.
  let read = null;
  const curves = () => (read ??= new Map(marks.filter((mark) => mark.line).map((mark) =>
    [mark, stepsOf(mark, panels[mark.panel], svg.getElementById(`${figure.id.replace(/-figure$/, "")}-${mark.line}`).querySelector("path"), along)])));
  const off = new Set();
  const over = drawnElement("svg", { class: "over", viewBox: svg.getAttribute("viewBox"), role: "group" });
  over.setAttribute("aria-label", `Points of: ${title}. Arrow keys lead from point to point, Enter to its row in a table.`);
  const rings = drawnElement("g");
  const band = drawnElement("rect", { class: "band" });
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  over.append(rings, band);
  plot.append(over, tip);
  let shown = null;
  let lit = [];
  let stop = null;

  panels.forEach((panel, at) => {
    const [left, top, width, height] = panel.box;
    panel.view = { x: [0, 1], y: [0, 1] };
    panel.moveX = (x) => left + (width * ((x - left) / width - panel.view.x[0])) / (panel.view.x[1] - panel.view.x[0]);
    panel.moveY = (y) => top + height - (height * (1 - (y - top) / height - panel.view.y[0])) / (panel.view.y[1] - panel.view.y[0]);
    panel.redraw = () => {
      if (!panel.zoom) {
        const clip = `${figure.id}-clip-${at}`;
        const path = drawnElement("clipPath", { id: clip });
        path.append(drawnElement("rect", { x: left, y: top, width, height }));
        svg.append(path);
        panel.zoom = zoomable(svg.querySelectorAll('[id*="-axes_"]')[at], panel.box, clip);
      }
      panel.zoom(panel);
    };
  });
  const isWhole = () => panels.every(({ view: { x, y } }) => x[1] - x[0] === 1 && y[1] - y[0] === 1);

  const where = (mark) => [panels[mark.panel].moveX(mark.x), panels[mark.panel].moveY(mark.y)];
  const isSeen = (mark) => {
    const [left, top, width, height] = panels[mark.panel].box;
    const [x, y] = where(mark);
    return !off.has(mark.series) && x >= left - 1 && x <= left + width + 1 && y >= top - 1 && y <= top + height + 1;
  };
  const perPixel = () => svg.viewBox.baseVal.width / svg.getBoundingClientRect().width;
  const place = (event) => {
    const edge = svg.getBoundingClientRect();
    const { x, y, width } = svg.viewBox.baseVal;
    const each = width / edge.width;
    return [x + (event.clientX - edge.left) * each, y + (event.clientY - edge.top) * each];
  };
  const nearest = ([x, y]) => {
    let best = null;
    let least = NEAR_PIXELS * perPixel();
    const panel = panels.indexOf(inside([x, y]));
    for (const end of marks) {
      if (end.line && end.panel !== panel) continue;
      const [mark, far] = end.line
        ? nearestStep(curves().get(end), where, [x, y])
        : [end, Math.hypot(where(end)[0] - x, where(end)[1] - y)];
      if (far < least && isSeen(mark)) [best, least] = [mark, far];
    }
    return best;
  };

  const ring = (cells) => {
    lit = cells;
    rings.replaceChildren();
    for (const mark of marks) {
      if (!cells.includes(mark.cell) || !isSeen(mark)) continue;
      const [cx, cy] = where(mark);
      rings.append(drawnElement("circle", { cx, cy, r: 7 }));
    }
    if (shown?.curve && isSeen(shown)) {
      const [cx, cy] = where(shown);
      rings.append(drawnElement("circle", { cx, cy, r: 3 }));
    }
  };
  const say = (mark) => {
    shown = mark;
    tip.hidden = mark === null;
    if (mark === null) return light([]);
    const [name, ...facts] = mark.words;
    const head = document.createElement("b");
    head.textContent = name;
    tip.replaceChildren(head, ...facts.map((fact) => {
      const line = document.createElement("span");
      line.textContent = fact;
      return line;
    }));
    light(mark.cell === null ? [] : [mark.cell]);
    const [x, y] = where(mark);
    const box = svg.viewBox.baseVal;
    const each = perPixel();
    const [px, py] = [(x - box.x) / each, (y - box.y) / each];
    const [wide, high] = [tip.offsetWidth, tip.offsetHeight];
    const isRight = px + 14 + wide <= plot.clientWidth;
    tip.style.left = `${Math.max(0, isRight ? px + 14 : px - 14 - wide)}px`;
    tip.style.top = `${Math.max(0, Math.min(py - high / 2, plot.clientHeight - high))}px`;
  };

  // One point takes part in the order of Tab; arrow keys make another take its place.
  const settle = (mark, focus) => {
    const [cx, cy] = where(mark);
    const made = drawnElement("circle", { class: "stop", cx, cy, r: 8, role: "button", tabindex: 0 });
    made.setAttribute("aria-label", mark.words.join(", "));
    made.addEventListener("focus", () => say(mark));
    made.addEventListener("blur", () => say(null));
    made.addEventListener("keydown", (event) => press(event, mark));
    const former = stop;
    stop = { mark, made };
    over.append(made);
    if (focus) made.focus({ preventScroll: true });
    former?.made.remove();
  };
  const toRow = (mark) => {
    if (mark.cell === null) return;
    const section = figure.closest("section");
    const known = tables.filter((table) => table.has(mark.cell));
    const table = known.find(({ box }) => section.contains(box)) ?? known.find(({ box }) => box.id === "cells") ?? known[0];
    if (!table) return;
    openAround(table.box);
    const row = table.reveal(mark.cell);
    const target = row.querySelector("button.point") ?? table.box.querySelector(".scroll");
    target.focus({ preventScroll: true });
    light([mark.cell]);
    row.scrollIntoView({ block: "center" });
  };
  const next = (mark, key) => {
    const every = curves().size ? [...curves().values()].flat() : marks;
    const seen = every.filter(isSeen);
    const fellows = seen.filter((own) => own.series === mark.series && own.panel === mark.panel && own.curve === mark.curve);
    fellows.sort((a, b) => a.x - b.x || b.y - a.y);
    if (key === "Home") return fellows[0];
    if (key === "End") return fellows.at(-1);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      return fellows[fellows.indexOf(mark) + (key === "ArrowRight" ? 1 : -1)];
    }
    const kin = (own) => `${own.panel} ${own.series ?? -1} ${own.curve?.at}`;
    const kinds = [...new Set(seen.map(kin))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const other = kinds[kinds.indexOf(kin(mark)) + (key === "ArrowDown" ? 1 : -1)];
    const far = (own) => Math.abs(own.x - panels[own.panel].box[0] - (mark.x - panels[mark.panel].box[0]));
    return seen.filter((own) => kin(own) === other).sort((a, b) => far(a) - far(b))[0];
  };
  const press = (event, mark) => {
    const { key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(Arrow|Home$|End$)/.test(key)) {
      const found = next(mark, key);
      if (found) settle(found, true);
    } else if (key === "Enter" || key === " ") toRow(mark);
    else if (key === "+" || key === "=") zoomAt(panels[mark.panel], where(mark), 1 / 2);
    else if (key === "-") zoomAt(panels[mark.panel], where(mark), 2);
    else if (key === "0") reset();
    else return;
    event.preventDefault();
  };

  const set = (panel, x, y) => {
    curves();
    const fit = ([from, to]) => {
      const wide = Math.min(1, Math.max(DEEPEST, to - from));
      const start = Math.min(1 - wide, Math.max(0, (from + to - wide) / 2));
      return wide === 1 ? [0, 1] : [start, start + wide];
    };
    const [wide, high] = [fit(x), fit(y)];
    for (const own of panels) {
      if (own.x[3] === panel.x[3]) own.view.x = wide;
      if (own.y[3] === panel.y[3]) own.view.y = high;
      own.redraw();
    }
    tools.lastChild.hidden = isWhole();
    if (stop) {
      const seen = isSeen(stop.mark) ? stop.mark : [...marks, ...[...curves().values()].flat()].find(isSeen);
      if (seen) settle(seen, stop.made === document.activeElement);
    }
    if (shown && isSeen(shown)) say(shown);
    else say(null);
    ring(lit);
  };
  const reset = () => panels.forEach((panel) => set(panel, [0, 1], [0, 1]));
  const zoomAt = (panel, [px, py], times) => {
    const [left, top, width, height] = panel.box;
    const around = ([from, to], share) => {
      const at = from + share * (to - from);
      return [at - (at - from) * times, at + (to - at) * times];
    };
    set(panel, around(panel.view.x, (px - left) / width), around(panel.view.y, 1 - (py - top) / height));
  };
  const zoomTo = (panel, [ax, ay], [bx, by]) => {
    const [left, top, width, height] = panel.box;
    const share = ([from, to], part) => from + Math.min(1, Math.max(0, part)) * (to - from);
    const x = [ax, bx].map((x) => share(panel.view.x, (x - left) / width)).sort((a, b) => a - b);
    const y = [ay, by].map((y) => share(panel.view.y, 1 - (y - top) / height)).sort((a, b) => a - b);
    set(panel, x, y);
  };
  const inside = ([x, y]) => panels.find(({ box: [left, top, width, height] }) =>
    x >= left && x <= left + width && y >= top && y <= top + height);

  let from = null;
  let again = null;
  over.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    const start = place(event);
    from = inside(start) ? { start, panel: inside(start) } : null;
    if (from) over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    const here = place(event);
    const isDragged = from && Math.hypot(here[0] - from.start[0], here[1] - from.start[1]) > DRAG_PIXELS * perPixel();
    if (isDragged) {
      const [[ax, ay], [bx, by]] = [from.start, here];
      const edges = { x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(bx - ax), height: Math.abs(by - ay) };
      for (const [key, value] of Object.entries(edges)) band.setAttribute(key, value);
      from.end = here;
      return;
    }
    const mark = nearest(here);
    if (mark !== shown) say(mark ?? (stop?.made === document.activeElement ? stop.mark : null));
  });
  over.addEventListener("pointerup", (event) => {
    again = null;
    if (event.button !== 0) return;
    const [begun, mark] = [from, nearest(place(event))];
    from = null;
    for (const key of ["width", "height"]) band.setAttribute(key, 0);
    if (begun?.end) zoomTo(begun.panel, begun.start, place(event));
    else if (mark && mark === stop?.mark && stop.made === document.activeElement) again = mark;
    else if (mark) settle(mark, true);
  });
  // The second click of two in a row is no click on a point: it shows all.
  over.addEventListener("click", (event) => {
    if (again && event.detail < 2) toRow(again);
    again = null;
  });
  over.addEventListener("pointercancel", () => (from = null));
  over.addEventListener("pointerleave", () => {
    if (!from) say(stop?.made === document.activeElement ? stop.mark : null);
  });
  // The focus is the point's alone, wherever the mouse goes down.
  over.addEventListener("mousedown", (event) => event.preventDefault());
  over.addEventListener("dblclick", reset);
  over.addEventListener("wheel", (event) => {
    const panel = inside(place(event));
    if (!event.ctrlKey || !panel) return;
    event.preventDefault();
    zoomAt(panel, place(event), event.deltaY < 0 ? 1 / 1.3 : 1.3);
  }, { passive: false });

  const tools = document.createElement("p");
  tools.className = "tools";
  const hint = document.createElement("span");
  hint.textContent = "Drag over points, or Ctrl and wheel, to zoom. Tab and arrow keys lead to points: + and − zoom there, Enter finds the row.";
  const whole = document.createElement("button");
  whole.type = "button";
  whole.textContent = "Show all points";
  whole.hidden = true;
  whole.addEventListener("click", reset);
  tools.append(hint, whole);
  figure.querySelector(".scroll").after(tools);

  for (const entry of figure.querySelectorAll(".legend li[data-series]")) {
    const series = Number(entry.dataset.series);
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(...entry.childNodes);
    entry.append(button);
    button.addEventListener("click", () => {
      const isOn = off.has(series);
      if (isOn) off.delete(series);
      else off.add(series);
      button.setAttribute("aria-pressed", String(isOn));
      for (const own of svg.querySelectorAll(`[data-series="${series}"]`)) own.classList.toggle("off", !isOn);
      const seen = marks.find(isSeen);
      if (seen && !isSeen(stop.mark)) settle(seen, false);
      stop.made.classList.toggle("off", !seen);
      ring(lit);
    });
  }
  settle(marks[0], false);
  return {
    figure,
    ring,
    escape: () => say(null),
    has: (cells) => marks.some((mark) => cells.includes(mark.cell)),
    find: (cells) => {
      const mark = marks.find((own) => cells.includes(own.cell));
      for (const button of figure.querySelectorAll('.legend [aria-pressed="false"]')) button.click();
      if (!isSeen(mark)) reset();
      settle(mark, true);
      over.scrollIntoView({ block: "center" });
    },
  };
};
