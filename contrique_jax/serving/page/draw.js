// Heat maps and histograms.

const WORSE = [214, 39, 20];
const BETTER = [30, 96, 200];
const OPACITY = 0.65;
const SPAN = 0.12; // of the range: that far from the mean the colour is full
const LONGEST = 256; // pixels of a heat map's canvas

const mean = (rows) => rows.flat().reduce((sum, value) => sum + value, 0) / rows.flat().length;

// Deviations of windows from their mean, 1 a full colour's worth better, -1 worse.
export function fromMean(map, model) {
  const middle = mean(map);
  return scaled(map.map((row) => row.map((value) => value - middle)), model);
}

// The same of what one map has more than another.
export function difference(map, other, model) {
  return scaled(map.map((row, i) => row.map((value, j) => value - other[i][j])), model);
}

function scaled(rows, model) {
  const span = SPAN * Math.abs(model.range[1] - model.range[0]) * (model.higher_is_better ? 1 : -1);
  return rows.map((row) => row.map((value) => Math.max(-1, Math.min(1, value / span))));
}

// Windows start at i / 16 and span a quarter: between their centres colours go over into each other.
export function heat(canvas, values, width, height) {
  const ratio = LONGEST / Math.max(width, height);
  canvas.width = Math.max(Math.round(width * ratio), 1);
  canvas.height = Math.max(Math.round(height * ratio), 1);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const columns = places(canvas.width, values[0].length);
  const rows = places(canvas.height, values.length);
  let at = 0;
  for (const [i, down] of rows) {
    for (const [j, right] of columns) {
      const upper = values[i][j] * (1 - right) + values[i][j + 1] * right;
      const lower = values[i + 1][j] * (1 - right) + values[i + 1][j + 1] * right;
      const value = upper * (1 - down) + lower * down;
      const colour = value < 0 ? WORSE : BETTER;
      for (const part of colour) picture.data[at++] = part;
      picture.data[at++] = 255 * OPACITY * Math.abs(value);
    }
  }
  context.putImageData(picture, 0, 0);
}

// Of each pixel the window before it, and how far it lies towards the next one.
function places(pixels, windows) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const place = ((pixel + 0.5) / pixels) * (windows + 3) - 2;
    const before = Math.max(0, Math.min(windows - 2, Math.floor(place)));
    return [before, Math.max(0, Math.min(1, place - before))];
  });
}

const SVG = "http://www.w3.org/2000/svg";

function rectangle(x, y, width, height, kind) {
  const made = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ x, y, width, height })) made.setAttribute(name, value);
  if (kind) made.setAttribute("class", kind);
  return made;
}

// Where a score stands among the probe's photographs.
export function standing(result, model) {
  const { edges, shares, photographs } = model.histogram;
  const low = edges[0];
  const across = 100 / (edges[edges.length - 1] - low);
  const most = Math.max(...shares);
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 100 30");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("role", "img");
  const share = Math.round(100 * result.better_than);
  const said = `better than ${share}\u00a0% of ${photographs.toLocaleString("en")} photographs`;
  picture.setAttribute("aria-label", `histogram of their scores: this one is ${said}`);
  shares.forEach((part, i) => {
    const height = (28 * part) / most;
    picture.append(rectangle((edges[i] - low) * across + 0.3, 30 - height, (edges[i + 1] - edges[i]) * across - 0.6, height));
  });
  if (result.interval) {
    const [first, last] = result.interval.map((end) => (end - low) * across);
    picture.append(rectangle(first, 0, Math.max(last - first, 0), 30, "range"));
  }
  const place = Math.max(0, Math.min(100, (result.score - low) * across));
  picture.append(rectangle(Math.min(Math.max(place - 0.6, 0), 98.8), 0, 1.2, 30, "mark"));
  const text = document.createElement("p");
  text.textContent = said;
  return [picture, text];
}
