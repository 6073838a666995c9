// Two images side by side.

import { digits, interval } from "./cards.js";
import { difference, fromMean, heat } from "./draw.js";

const dialog = document.getElementById("pair");
const maps = document.getElementById("pair-heat");
const change = document.getElementById("pair-change");
const figures = [...dialog.querySelectorAll("figure")];
let cards = [];
let model = null;
let addresses = [];

export function open(pair, about) {
  [cards, model] = [pair, about];
  const [left, right] = cards.map((card) => card.result);
  document.getElementById("pair-said").textContent = said(left, right);
  figures.forEach((figure, i) => show(figure, cards[i]));
  const both = Boolean(left.map && right.map);
  maps.hidden = change.hidden = !both;
  change.disabled = !both || Math.abs((left.width * right.height) / (left.height * right.width) - 1) > 0.02;
  change.title = change.disabled ? "only for two images of one shape" : "";
  press(null);
  dialog.showModal();
}

// The file itself, since a thumbnail hides faults; where the browser cannot show it, the thumbnail.
function show(figure, card) {
  const image = figure.querySelector("img");
  const address = URL.createObjectURL(card.file);
  addresses.push(address);
  image.onerror = () => {
    image.onerror = null;
    image.src = card.result.thumbnail;
  };
  image.src = address;
  image.alt = card.name;
  figure.querySelector("figcaption").textContent =
    `${card.name}: ${digits(card.result.score, model)}, ${card.result.word}. ${interval(card.result, model)}`;
}

function said(left, right) {
  const by = digits(Math.abs(right.score - left.score), model);
  if (Number(by) === 0) return "Both have the same score.";
  const rightBetter = right.score > left.score === model.higher_is_better;
  const sentence = `The ${rightBetter ? "second" : "first"} is better by ${by}`;
  if (!left.interval || !right.interval) return `${sentence}.`;
  const apart = left.interval[1] < right.interval[0] || right.interval[1] < left.interval[0];
  return `${sentence}; their 90\u00a0% intervals ${apart ? "do not overlap" : "overlap"}.`;
}

function press(button) {
  for (const one of [maps, change]) one.setAttribute("aria-pressed", String(one === button));
  const results = cards.map((card) => card.result);
  figures.forEach((figure, i) => {
    const canvas = figure.querySelector("canvas");
    canvas.hidden = button === null || (button === change && i === 0);
    if (canvas.hidden) return;
    const values =
      button === maps ? fromMean(results[i].map, model) : difference(results[1].map, results[0].map, model);
    heat(canvas, values, results[i].width, results[i].height);
  });
  const legend = document.getElementById("pair-legend");
  legend.hidden = button === null;
  legend.textContent =
    button === change
      ? "On the second image: red where it is worse than the first, blue where it is better."
      : "Red: worse than the image's own mean; blue: better.";
}

for (const button of [maps, change]) {
  button.addEventListener("click", () => press(button.getAttribute("aria-pressed") === "true" ? null : button));
}
document.getElementById("pair-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  for (const address of addresses) URL.revokeObjectURL(address);
  addresses = [];
});
