// A curve answers at each of its steps: its points stand in the path that is drawn, and the numbers
// of its axes say what they are.
const stepsOf = (mark, panel, path, words) => {
  const [left, top, width, height] = panel.box;
  const number = ([kind, low, high], share) => (kind === "log" ? low * (high / low) ** share : low + share * (high - low));
  const said = (x, y) => words
    .replace("{x}", Math.round(number(panel.x, (x - left) / width)).toLocaleString("en"))
    .replace("{y}", number(panel.y, 1 - (y - top) / height).toFixed(4));
  const places = [...path.getAttribute("d").matchAll(/(-?[\d.]+) (-?[\d.]+)/g)].map((found) => [Number(found[1]), Number(found[2])]);
  const steps = places.map(([x, y]) => ({ ...mark, x, y, curve: mark, get words() { return [mark.words[0], said(x, y)]; } }));
  // The last step is the mark itself, by which rows find the curve.
  steps[steps.length - 1] = Object.assign(mark, { curve: mark });
  return steps;
};

// The step of a curve that is nearest to a place from left to right, and how far the curve is from it.
const nearestStep = (steps, where, [x, y]) => {
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (where(steps[middle])[0] <= x) low = middle;
    else high = middle;
  }
  const [[ax, ay], [bx, by]] = [where(steps[low]), where(steps[high])];
  const share = bx === ax ? 0 : Math.min(1, Math.max(0, (x - ax) / (bx - ax)));
  const far = Math.hypot(ax + share * (bx - ax) - x, ay + share * (by - ay) - y);
  return [steps[share < 0.5 ? low : high], Math.min(far, Math.hypot(ax - x, ay - y), Math.hypot(bx - x, by - y))];
};
