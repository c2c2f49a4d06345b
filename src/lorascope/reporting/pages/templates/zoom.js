// Axes that show a part of themselves: numbers, lines and points move, letters and marks keep their size.
// Where numbers of an axis may be written inside a part of it, and how.
const ticks = ([kind, low, high], [from, to]) => {
  const at = (share) => low + share * (high - low);
  if (kind === "log") {
    const [a, b] = [Math.log10(low), Math.log10(high)];
    const [first, last] = [a + from * (b - a), a + to * (b - a)];
    const found = [];
    for (let power = Math.floor(first); power <= last; power++) {
      for (let digit = 1; digit < 10; digit++) found.push(digit * 10 ** power);
    }
    const inside = found.filter((value) => Math.log10(value) >= first && Math.log10(value) <= last);
    const kept = inside.length > 8 ? inside.filter((value) => /^[125]/.test(value.toExponential())) : inside;
    if (kept.length > 1) {
      return kept.map((value) => [(Math.log10(value) - a) / (b - a), Math.round(value).toLocaleString("en")]);
    }
    const middle = 10 ** ((first + last) / 2);
    return [[(Math.log10(middle) - a) / (b - a), Math.round(middle).toLocaleString("en")]];
  }
  const span = Math.abs(at(to) - at(from));
  const rough = span / 6;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((times) => times * unit >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const [least, most] = [Math.min(at(from), at(to)), Math.max(at(from), at(to))];
  const found = [];
  for (let count = Math.ceil(least / step); count * step <= most; count++) {
    // An axis that goes below zero shows differences, which have their sign.
    const sign = Math.min(low, high) < 0 && count > 0 ? "+" : "";
    const label = count ? sign + (count * step).toFixed(digits) : "0";
    found.push([(count * step - low) / (high - low), label.replace("-", "−")]);
  }
  return found;
};

// Axes whose numbers, lines and points move when a part of them is looked at.
const zoomable = (axes, box, clip) => {
  const [left, top, width, height] = box;
  const moving = [...axes.children].filter((own) => own.dataset.series !== undefined);
  const [lines, words] = [[], []];
  for (const own of moving) (own.querySelector("text") ? words : lines).push(own);
  const inner = drawnElement("g", { "clip-path": `url(#${clip})` });
  lines[0]?.before(inner);
  inner.append(...lines);
  for (const own of inner.querySelectorAll("[clip-path]")) own.removeAttribute("clip-path");
  const paths = [...inner.querySelectorAll("path")].filter((own) => !own.closest("defs"))
    .map((own) => [own, own.getAttribute("d")]);
  const points = [...inner.querySelectorAll("use")].map((own) => [own, Number(own.getAttribute("x")), Number(own.getAttribute("y"))]);
  const texts = words.map((own) => {
    const text = own.querySelector("text");
    const [x, y] = text.hasAttribute("x")
      ? [Number(text.getAttribute("x")), Number(text.getAttribute("y"))]
      : text.getAttribute("transform").match(/-?[\d.]+/g).map(Number);
    return [own, x, y];
  });
  const kept = [1, 2].map((number) =>
    [...(axes.querySelector(`[id$="matplotlib.axis_${number}"]`)?.children ?? [])].filter((own) => /tick_\d+$/.test(own.id)));
  const copies = [];

  const scale = (way, axis, along, place, view) => {
    const [from, to] = view[way];
    const moved = (share) => place + along * (way === "x" ? (share - from) / (to - from) : 1 - (share - from) / (to - from));
    const isWhole = from === 0 && to === 1;
    for (const tick of kept[way === "x" ? 0 : 1]) {
      const was = Number(tick.querySelector("use").getAttribute(way));
      const share = way === "x" ? (was - place) / along : 1 - (was - place) / along;
      const isOut = share < from - 1e-6 || share > to + 1e-6;
      tick.classList.toggle("off", isWhole ? false : axis[0] !== "fixed" || isOut);
      const by = isWhole ? 0 : moved(share) - was;
      tick.setAttribute("transform", way === "x" ? `translate(${by} 0)` : `translate(0 ${by})`);
    }
    const pattern = kept[way === "x" ? 0 : 1][0];
    if (isWhole || axis[0] === "fixed" || !pattern) return;
    const was = Number(pattern.querySelector("use").getAttribute(way));
    for (const [share, label] of ticks(axis, view[way])) {
      const copy = pattern.cloneNode(true);
      const by = moved(share) - was;
      copy.removeAttribute("id");
      copy.classList.remove("off");
      copy.setAttribute("transform", way === "x" ? `translate(${by} 0)` : `translate(0 ${by})`);
      const text = copy.querySelector("text");
      if (text) text.textContent = label;
      pattern.after(copy);
      copies.push(copy);
    }
  };

  return (panel) => {
    const { view } = panel;
    copies.splice(0).forEach((copy) => copy.remove());
    const [x, y] = [panel.moveX, panel.moveY];
    const isWhole = view.x[1] - view.x[0] === 1 && view.y[1] - view.y[0] === 1;
    for (const [own, d] of paths) {
      own.setAttribute("d", d.replace(/(-?[\d.]+) (-?[\d.]+)/g, (_, px, py) => `${x(Number(px))} ${y(Number(py))}`));
    }
    for (const [own, px, py] of points) {
      own.setAttribute("x", x(px));
      own.setAttribute("y", y(py));
    }
    for (const [own, px, py] of texts) {
      own.setAttribute("transform", `translate(${x(px) - px} ${y(py) - py})`);
      const isIn = x(px) >= left && x(px) <= left + width + 8 && y(py) >= top && y(py) <= top + height;
      own.classList.toggle("out", !isIn && !isWhole);
    }
    scale("x", panel.x, width, left, view);
    scale("y", panel.y, height, top, view);
  };
};
