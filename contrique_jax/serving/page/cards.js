// One card an image.

import { fromMean, heat, standing } from "./draw.js";

export const digits = (value) => (Math.abs(value) < 10 ? value.toFixed(2) : value.toFixed(1));

export function interval(result) {
  if (!result.interval) return "";
  return `90 % interval ${digits(result.interval[0])} to ${digits(result.interval[1])}`;
}

export function reasons(result) {
  return (result.why ?? []).map((reason) => {
    const level = reason.level ? ` ${reason.level.toFixed(1)}` : "";
    return `${reason.distortion}${level} (${Math.round(100 * reason.probability)} %)`;
  });
}

export class Card {
  constructor(file, picked) {
    this.file = file;
    this.name = file.name || "pasted image";
    this.result = null;
    this.error = null;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.part(".name").textContent = this.name;
    this.part(".pick .unseen").textContent = ` ${this.name}`;
    this.box = this.part(".pick input");
    this.box.addEventListener("change", () => {
      this.element.classList.toggle("picked", this.box.checked);
      picked(this);
    });
    this.state("waiting");
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  state(name) {
    this.element.classList.remove("waiting", "working", "failed", "done");
    this.element.classList.add(name);
    this.show(".state", { waiting: "waiting", working: "being scored …" }[name]);
  }

  show(selector, text) {
    const element = this.part(selector);
    element.hidden = !text;
    element.textContent = text ?? "";
  }

  fail(sentence) {
    this.error = sentence;
    this.state("failed");
    this.show(".problem", sentence);
  }

  succeed(result, model, withHeat) {
    this.result = result;
    this.state("done");
    const image = this.part("img");
    image.src = result.thumbnail;
    image.hidden = false;
    this.part(".blank").hidden = true;
    this.part(".number").textContent = digits(result.score);
    const word = this.part(".word");
    word.textContent = result.word;
    word.classList.add(result.word);
    this.part(".score").hidden = false;
    this.show(".interval", interval(result));
    if (model.histogram) {
      this.part(".standing").replaceChildren(...standing(result, model));
      this.part(".standing").hidden = false;
    }
    this.show(".why", likeliest(result));
    this.show(".size", `${result.width} × ${result.height} pixels${result.reduced ? ", scaled down" : ""}`);
    this.part(".pick").hidden = false;
    image.alt = `${this.name}: ${digits(result.score)}, ${result.word}`;
    this.heat(withHeat, model);
  }

  // The map is drawn when it is first asked for.
  heat(shown, model) {
    if (!this.result?.map) return;
    const canvas = this.part("canvas");
    if (shown && !this.drawn) {
      heat(canvas, fromMean(this.result.map, model), this.result.width, this.result.height);
      this.drawn = true;
    }
    canvas.hidden = !shown;
  }

  pick(picked) {
    this.box.checked = picked;
    this.element.classList.toggle("picked", picked);
  }
}

function likeliest(result) {
  const [first, ...others] = reasons(result);
  if (!first) return "";
  const named = result.why[0].distortion === "none" ? first.replace("none", "no distortion") : first;
  return `Likeliest: ${[named, ...others].join("; ")}`;
}
