// One card an image.

import { fromMean, heat, standing } from "./draw.js";

const PERCENT = "\u00a0%"; // which no line begins with

// A score as it is shown: tenths of a hundred are enough, of a scale from 1 to 5 they are not.
export function digits(value, model) {
  return value.toFixed(Math.abs(model.range[1] - model.range[0]) < 20 ? 2 : 1);
}

export function interval(result, model) {
  if (!result.interval) return "";
  const [low, high] = result.interval.map((end) => digits(end, model));
  return `90${PERCENT} interval ${low} to ${high}`;
}

export function reasons(result) {
  return (result.why ?? []).map((reason) => {
    const level = reason.level ? `, level ${reason.level.toFixed(1)}` : "";
    return `${reason.distortion}${level} (${Math.round(100 * reason.probability)}${PERCENT})`;
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
    this.part(".number").textContent = digits(result.score, model);
    const word = this.part(".word");
    word.textContent = result.word;
    word.classList.add(result.word);
    this.part(".score").hidden = false;
    this.show(".interval", interval(result, model));
    if (model.histogram) {
      this.part(".standing").replaceChildren(...standing(result, model));
      this.part(".standing").hidden = false;
    }
    this.show(".why", likeliest(result));
    this.show(".size", `${result.width} × ${result.height} pixels${result.reduced ? ", scaled down" : ""}`);
    this.part(".pick").hidden = false;
    image.alt = `${this.name}: ${digits(result.score, model)}, ${result.word}`;
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
  const said = reasons(result).map((reason) => reason.replace(/^none /, "no distortion "));
  return said.length ? `Likeliest: ${said.join("; ")}` : "";
}
