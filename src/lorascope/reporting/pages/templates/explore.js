// Lines across axes: parts of axes are chosen with the mouse or in fields, and the table shows what
// lies in all of them.
const HEIGHT = 340;
const EDGE = { top: 56, bottom: 20, side: 64 };
const NEAR = 28;
const drawnElement = (name, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};
const made = (name, attributes = {}, ...children) => {
  const own = Object.assign(document.createElement(name), attributes);
  own.append(...children);
  return own;
};

const explore = (view) => {
  const { axes, modes, marked } = JSON.parse(view.querySelector("script.axes").textContent);
  const noun = modes.length === 1 ? view.dataset.noun.slice(0, -1) : view.dataset.noun;
  const table = tables.find(({ box }) => view.contains(box));
  const parallel = view.querySelector(".parallel");
  const form = view.querySelector("form");
  const said = view.querySelector(".chosen");
  const canvas = made("canvas");
  const over = drawnElement("svg", { role: "img", "aria-label": `Lines of ${modes.length} ${noun} across ${axes.map((axis) => axis.header).join(", ")}; the fields below choose among them` });
  parallel.append(canvas, over);
  let chosen = modes.map((_, at) => at);
  let lit = null;
  let width = 0;

  for (const axis of axes) {
    const known = axis.values.filter((value) => value !== null);
    const isWords = axis.choices.length > 0;
    const [low, high] = isWords ? [0, axis.choices.length - 1] : [Math.min(...known), Math.max(...known)];
    // What spans magnitudes is drawn by them. Shares count from the foot of the axis.
    const isLog = !isWords && low > 0 && high > 20 * low;
    axis.share = (value) => {
      if (value === null) return null;
      const at = isWords ? axis.choices.indexOf(value) : value;
      if (high === low) return 0.5;
      return isLog ? Math.log(Math.max(at, low / 2) / low) / Math.log(high / low) : (at - low) / (high - low);
    };
    axis.value = (share) => (isLog ? low * (high / low) ** share : low + share * (high - low));
    axis.shares = axis.values.map(axis.share);
    axis.ticks = isWords ? axis.choices : high === low ? [low] : [0, 0.25, 0.5, 0.75, 1].map(axis.value);
    // Settings and whole numbers are said as they are, others with three digits.
    const isWhole = known.every((value) => Number.isInteger(value));
    axis.say = (value) => {
      if (typeof value === "string") return value;
      const said = isWords ? value : isWhole ? Math.round(value) : Number(value.toPrecision(3));
      return String(said).replace("-", "−");
    };
    axis.low = low;
    axis.high = high;
    axis.kept = null; // A set of choices, or [from, to]; null where nothing is chosen.
    axis.has = (value) =>
      axis.kept === null || (value !== null && (isWords ? axis.kept.has(value) : value >= axis.kept[0] && value <= axis.kept[1]));
  }
  const x = (at) => EDGE.side + (axes.length === 1 ? 0.5 : at / (axes.length - 1)) * (width - 2 * EDGE.side);
  const y = (share) => HEIGHT - EDGE.bottom - share * (HEIGHT - EDGE.top - EDGE.bottom);

  const line = (pen, row) => {
    pen.beginPath();
    let isDown = false;
    axes.forEach((axis, at) => {
      const share = axis.shares[row];
      if (share === null) isDown = false;
      else if (isDown) pen.lineTo(x(at), y(share));
      else {
        pen.moveTo(x(at) - 4, y(share));
        pen.lineTo(x(at), y(share));
        isDown = true;
      }
    });
    pen.stroke();
  };
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    width = parallel.clientWidth;
    const dense = devicePixelRatio || 1;
    canvas.width = width * dense;
    canvas.height = HEIGHT * dense;
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    const kept = new Set(chosen);
    pen.lineWidth = 1;
    pen.strokeStyle = color("rule");
    modes.forEach((_, row) => kept.has(row) || line(pen, row));
    pen.globalAlpha = Math.max(0.25, Math.min(0.9, 40 / chosen.length));
    pen.lineWidth = 1.5;
    // The best validated come first in the table, and last here: on top.
    for (const row of [...chosen].reverse()) {
      pen.strokeStyle = color(`mode${modes[row] % 7}`);
      line(pen, row);
    }
    // What ships, and what it is held against, can be found among all others.
    for (const [row, what] of Object.entries(marked)) {
      Object.assign(pen, { globalAlpha: kept.has(Number(row)) ? 1 : 0.3, lineWidth: 3, strokeStyle: color("ink") });
      pen.setLineDash(what === "ships" ? [] : [8, 5]);
      line(pen, Number(row));
    }
    pen.setLineDash([]);
    if (lit !== null) {
      Object.assign(pen, { globalAlpha: 1, lineWidth: 3, strokeStyle: color("ink") });
      line(pen, lit);
    }
    drawAxes();
  };
  const drawAxes = () => {
    over.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    over.replaceChildren();
    axes.forEach((axis, at) => {
      const place = x(at);
      axis.header.split(" ").reduce((lines, word) => {
        const last = lines.at(-1);
        if (last && `${last} ${word}`.length <= 12) lines[lines.length - 1] = `${last} ${word}`;
        else lines.push(word);
        return lines;
      }, []).forEach((words, row, all) => over.append(
        drawnElement("text", { x: place, y: EDGE.top - 14 - 15 * (all.length - 1 - row), class: "head" }, words)));
      over.append(drawnElement("line", { x1: place, x2: place, y1: y(0), y2: y(1) }));
      const every = Math.ceil(axis.ticks.length / 18);
      axis.ticks.filter((_, tick) => tick % every === 0).forEach((tick) =>
        over.append(drawnElement("text", { x: place + 7, y: y(axis.share(tick)) + 4 }, axis.say(tick))));
      for (const [from, to] of spans(axis)) {
        over.append(drawnElement("rect", { x: place - 6, width: 12, y: y(to), height: Math.max(2, y(from) - y(to)), class: "band" }));
      }
      const grip = drawnElement("rect", { x: place - NEAR, width: 2 * NEAR, y: 0, height: HEIGHT, class: "grip" });
      grip.addEventListener("pointerdown", (event) => brush(event, axis, grip));
      over.append(grip);
    });
  };
  // Chosen parts of an axis, as shares.
  const spans = (axis) => {
    if (axis.kept === null) return [];
    if (axis.choices.length === 0) return [axis.kept.map((value) => Math.min(1, Math.max(0, axis.share(value))))];
    const half = 0.3 / Math.max(1, axis.choices.length - 1);
    return [...axis.kept].map((value) => [Math.max(-0.02, axis.share(value) - half), Math.min(1.02, axis.share(value) + half)]);
  };
  const brush = (down, axis, grip) => {
    const share = (event) => {
      const edge = over.getBoundingClientRect();
      return (HEIGHT - EDGE.bottom - (event.clientY - edge.top)) / (HEIGHT - EDGE.top - EDGE.bottom);
    };
    const from = share(down);
    let isMoved = false;
    const move = (event) => {
      const to = share(event);
      isMoved ||= Math.abs(to - from) > 0.015;
      if (!isMoved) return;
      const [least, most] = [Math.min(from, to), Math.max(from, to)];
      if (axis.choices.length > 0) {
        axis.kept = new Set(axis.choices.filter((value) => axis.share(value) >= least && axis.share(value) <= most));
      } else axis.kept = [least, most].map((part) => axis.value(Math.min(1, Math.max(0, part))));
      choose();
    };
    const end = (event) => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
      if (event.type === "pointerup") move(event);
      if (!isMoved || axis.kept?.size === 0) axis.kept = null;
      choose();
    };
    down.preventDefault();
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  };

  const choose = () => {
    const rows = modes.map((_, row) => row);
    const isAll = axes.every((axis) => axis.kept === null);
    chosen = rows.filter((row) => axes.every((axis) => axis.has(axis.values[row])));
    lit = null;
    table.only(isAll ? null : chosen);
    said.textContent = isAll
      ? `${modes.length.toLocaleString("en")} ${noun}; nothing is chosen yet.`
      : `${chosen.length.toLocaleString("en")} of ${modes.length.toLocaleString("en")} ${noun} chosen${best()}.`;
    clear.hidden = isAll;
    axes.forEach((axis) => axis.show());
    draw();
  };
  // The chosen row that validates best, as the axes name it.
  const best = () => {
    const row = chosen[0];
    const named = row === undefined ? [] : axes.filter((axis) => axis.values[row] !== null);
    return named.length ? `; the best validated: ${named.map((axis) => `${axis.header} ${axis.say(axis.values[row])}`).join(", ")}` : "";
  };

  const clear = made("button", { type: "button", textContent: "Choose all again", hidden: true });
  clear.addEventListener("click", () => {
    axes.forEach((axis) => (axis.kept = null));
    choose();
  });
  for (const axis of axes) {
    const field = made("fieldset", {}, made("legend", { textContent: axis.header }));
    if (axis.choices.length > 0) {
      const boxes = axis.choices.map((value) => {
        const box = made("input", { type: "checkbox", checked: true });
        box.addEventListener("change", () => {
          const kept = new Set(axis.choices.filter((_, at) => boxes[at].checked));
          axis.kept = kept.size === axis.choices.length ? null : kept;
          choose();
        });
        field.append(made("label", {}, box, axis.say(value)));
        return box;
      });
      axis.show = () => boxes.forEach((box, at) => (box.checked = axis.kept === null || axis.kept.has(axis.choices[at])));
    } else {
      const ends = ["from", "to"].map((word, at) => {
        const input = made("input", { type: "number", step: "any", placeholder: String(Number([axis.low, axis.high][at].toPrecision(4))) });
        input.setAttribute("aria-label", `${axis.header} ${word}`);
        input.addEventListener("change", () => {
          const written = ends.map((end) => (end.value === "" ? null : Number(end.value)));
          axis.kept = written[0] === null && written[1] === null ? null : [written[0] ?? -Infinity, written[1] ?? Infinity];
          choose();
        });
        return input;
      });
      field.append(ends[0], " to ", ends[1]);
      axis.show = () => ends.forEach((end, at) => {
        const value = axis.kept?.[at];
        if (end !== document.activeElement) end.value = value === undefined || !Number.isFinite(value) ? "" : Number(value.toPrecision(4));
      });
    }
    form.append(field);
  }
  form.append(clear);
  form.addEventListener("submit", (event) => event.preventDefault());
  parallel.style.minWidth = `${2 * EDGE.side + 78 * (axes.length - 1)}px`;

  const body = view.querySelector("tbody");
  const light = (row) => {
    lit = row === null ? null : table.place(row);
    draw();
  };
  body.addEventListener("pointerover", (event) => light(event.target.closest("tr")));
  body.addEventListener("pointerleave", () => light(null));
  new ResizeObserver(draw).observe(parallel);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  choose();
};

for (const view of document.querySelectorAll(".view")) {
  // Before anything is trained there is no axis to draw.
  if (JSON.parse(view.querySelector("script.axes").textContent).axes.length) explore(view);
}
const shows = [...document.querySelectorAll("button[data-view]")];
const turn = (button) => {
  for (const own of shows) {
    own.setAttribute("aria-pressed", String(own === button));
    document.getElementById(own.dataset.view).hidden = own !== button;
  }
};
for (const button of shows) button.addEventListener("click", () => turn(button));
if (shows.length) turn(shows[0]);
