// The page: files in, cards out.

import { Locked, model as askModel, score, setToken } from "./api.js";
import { Card, reasons } from "./cards.js";
import { open as openPair } from "./compare.js";

const AT_ONCE = 4; // requests on their way

const by = (id) => document.getElementById(id);
let model = null;
let cards = [];
let picked = [];
let waiting = [];
let running = 0;
let stopping = new AbortController();

async function start() {
  try {
    model = await askModel();
  } catch (error) {
    by("locked").hidden = !(error instanceof Locked);
    by("open").hidden = error instanceof Locked;
    if (error instanceof Locked) return false;
    notice(`${error.message}; reload this page.`);
    return false;
  }
  by("locked").hidden = true;
  by("open").hidden = false;
  by("model").textContent =
    `${model.name}, fitted on ${model.data_set}; ${model.range[0]} to ${model.range[1]}, ${model.direction}`;
  const { files, file_megabytes: bytes, image_megapixels: pixels } = model.limits;
  by("limits").textContent = `up to ${files} images of ${bytes} MB and ${pixels} megapixels; nothing is kept`;
  by("heat").hidden = !model.maps;
  return true;
}

function notice(text) {
  by("notice").textContent = text;
}

function add(files) {
  if (!model || !files.length) return;
  const room = model.limits.files - cards.length;
  const taken = [...files].slice(0, Math.max(room, 0));
  const left = files.length - taken.length;
  notice(left ? `${left} of ${files.length} images left out: ${model.limits.files} fit on this page; clear it for others.` : "");
  for (const file of taken) {
    const card = new Card(file, pick);
    cards.push(card);
    by("cards").append(card.element);
    if (file.size > 1e6 * model.limits.file_megabytes) {
      card.fail(`${(file.size / 1e6).toFixed(1)} MB, and ${model.limits.file_megabytes} MB are the limit`);
    } else {
      waiting.push(card);
    }
  }
  by("results").hidden = !cards.length;
  tell();
  while (running < AT_ONCE && waiting.length) work();
}

async function work() {
  running++;
  while (waiting.length) {
    const card = waiting.shift();
    const signal = stopping.signal;
    card.state("working");
    try {
      const result = await score(card.file, model.maps, signal);
      if (!cards.includes(card)) continue;
      if (result.error) card.fail(result.error);
      else card.succeed(result, model, pressed("heat"));
    } catch (error) {
      if (error instanceof Locked) {
        by("locked").hidden = false;
        card.fail("the server wants its token");
      } else {
        card.fail(signal.aborted ? "stopped" : error.message);
      }
    }
    arrange();
    tell();
  }
  running--;
  tell();
}

function tell() {
  const done = cards.filter((card) => card.result).length;
  const failed = cards.filter((card) => card.error).length;
  const ended = done + failed;
  const text = `${done} of ${cards.length} scored${failed ? `, ${failed} not` : ""}`;
  const busy = ended < cards.length;
  by("progress").hidden = !busy;
  by("bar").max = cards.length || 1;
  by("bar").value = ended;
  by("count").textContent = text;
  by("heading").textContent = busy || !cards.length ? "Scores" : `Scores: ${text}`;
  by("csv").disabled = !ended;
  // not every image: a screen reader would speak without end
  if (!busy && cards.length) by("said").textContent = text;
}

const ORDERS = {
  added: () => 0,
  name: (a, b) => a.name.localeCompare(b.name),
  best: (a, b) => byScore(a, b, model.higher_is_better ? -1 : 1),
  worst: (a, b) => byScore(a, b, model.higher_is_better ? 1 : -1),
};

function byScore(a, b, sign) {
  if (!a.result || !b.result) return Number(!a.result) - Number(!b.result);
  return sign * (a.result.score - b.result.score);
}

function arrange() {
  const wanted = [...cards].sort(ORDERS[by("order").value]);
  const shown = [...by("cards").children];
  if (wanted.every((card, i) => card.element === shown[i])) return;
  const focused = document.activeElement;
  by("cards").replaceChildren(...wanted.map((card) => card.element));
  focused?.focus({ preventScroll: true });
}

function pick(card) {
  picked = picked.filter((one) => one !== card);
  if (card.box.checked) picked.push(card);
  if (picked.length > 2) picked.shift().pick(false);
  by("side").disabled = picked.length !== 2;
}

const pressed = (id) => by(id).getAttribute("aria-pressed") === "true";

function toggleHeat() {
  const shown = !pressed("heat");
  by("heat").setAttribute("aria-pressed", String(shown));
  by("legend").hidden = !shown;
  for (const card of cards) card.heat(shown, model);
}

// A cell that a spreadsheet takes neither for a formula nor for several.
function cell(value) {
  const text = String(value ?? "");
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function download() {
  const head = ["name", "score", "deviation", "low", "high", "word", "better_than", "why", "error"];
  const rows = [...cards].sort(ORDERS[by("order").value]).map(({ name, result, error }) => [
    name, result?.score, result?.deviation, result?.interval?.[0], result?.interval?.[1], result?.word, result?.better_than,
    result ? reasons(result).join("; ") : "", error,
  ]);
  const text = [head, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "scores.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function stop() {
  for (const card of waiting.splice(0)) card.fail("stopped");
  stopping.abort();
  stopping = new AbortController();
  tell();
}

function clear() {
  cards = [];
  picked = [];
  stop();
  by("cards").replaceChildren();
  by("results").hidden = true;
  by("side").disabled = true;
  by("said").textContent = "cleared";
  notice("");
  by("files").focus();
}

by("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
});
by("order").addEventListener("change", arrange);
by("heat").addEventListener("click", toggleHeat);
by("csv").addEventListener("click", download);
by("side").addEventListener("click", () => openPair(picked, model));
by("stop").addEventListener("click", stop);
by("clear").addEventListener("click", clear);
by("locked").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken(by("token").value);
  const opened = await start();
  by("wrong").textContent = opened ? "" : "That is not it.";
  if (opened) by("files").focus();
});

start();
