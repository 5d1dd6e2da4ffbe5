// What was found, drawn over its picture: boxes as lines, masks in colours; and beside it a legend and a list.
import { make, percent } from "./answers.js";
import { amounts } from "./found.js";

const ROOM = 12_000; // CSS px of the picture for each box, from which on all have their names beside them
const MOST = 1600; // px, the longer side of a mask that is drawn
const WORDS = 12, PAD = 3; // CSS px
const at = (id) => document.getElementById(id);

const drawing = (tag, attributes = {}) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

export class Overlay {
  constructor() {
    Object.assign(this, { record: null, hidden: new Set(), pinned: -1, near: -1, numbers: null, size: null, round: 0 });
    at("strength").addEventListener("input", () => this.paint());
    new ResizeObserver(() => this.draw()).observe(at("stage"));
  }

  clear() {
    Object.assign(this, { record: null, numbers: null, size: null, pinned: -1, near: -1, round: this.round + 1 });
    for (const id of ["boxes", "mask", "places"]) at(id).toggleAttribute("hidden", true);
    at("answer").classList.remove("wide");
    at("stage").style.removeProperty("--shape");
  }

  // px of the picture; its shape is kept where the browser cannot show it
  sized(width, height) {
    this.size = [width, height];
    at("stage").style.setProperty("--shape", `${width} / ${height}`);
  }

  // record: with boxes, or with classes and mask, the bytes of a PNG, null while it is on its way
  show(record, model, mask) {
    if (record !== this.record) this.begin(record, model);
    if (record.boxes) {
      this.sized(record.width, record.height);
      at("boxes").removeAttribute("hidden");
      this.draw();
    } else if (mask && !this.numbers) this.read(mask);
  }

  begin(record, model) {
    this.clear();
    Object.assign(this, { record, names: model.classes, colours: model.colours, hidden: new Set() });
    at("answer").classList.add("wide");
    at("places").hidden = false;
    at("opacity").hidden = !record.classes;
    this.legend();
    this.list();
  }

  colour(name) { return this.colours[this.names.indexOf(name)]; }

  swatch(name) {
    const key = make("span", "", { class: "key", "aria-hidden": "true" });
    key.style.setProperty("background", this.colour(name));
    return key;
  }

  // A box to tick for each class that is there: those without are not drawn.
  legend() {
    const lines = amounts(this.record).map(([name, much]) => {
      const label = make("label"), tick = make("input", undefined, { type: "checkbox" });
      tick.checked = true;
      tick.addEventListener("change", () => {
        if (tick.checked) this.hidden.delete(name); else this.hidden.add(name);
        this.draw();
        this.paint();
      });
      label.append(tick, this.swatch(name), make("bdi", name), make("span", this.record.boxes ? String(much) : percent(much), { class: "much soft" }));
      return label;
    });
    at("legend").replaceChildren(make("legend", "Shown"), ...lines);
    at("legend").hidden = !lines.length;
  }

  // Each box in words, the surest first; its button points at it.
  list() {
    const boxes = this.record.boxes ?? [];
    at("things").hidden = !boxes.length;
    at("things").replaceChildren(...boxes.map(({ label, score, box }, k) => {
      const [left, top, right, bottom] = box.map(Math.round), where = `x ${left} to ${right}, y ${top} to ${bottom}`, sure = score.toFixed(2);
      const item = make("li"), button = make("button", undefined, { type: "button", class: "thing", "aria-pressed": "false", "aria-label": `${label}, ${where}, score ${sure}` });
      button.append(this.swatch(label), make("bdi", label), make("span", where, { class: "soft small" }), make("span", sure, { class: "much" }));
      for (const event of ["focus", "pointerenter"]) button.addEventListener(event, () => this.point(k));
      for (const event of ["blur", "pointerleave"]) button.addEventListener(event, () => this.point(this.pinned));
      button.addEventListener("click", () => this.pin(k));
      item.append(button);
      return item;
    }));
  }

  buttons() { return at("things").querySelectorAll("button"); }

  pin(k) {
    this.pinned = this.pinned === k ? -1 : k;
    for (const [other, button] of [...this.buttons()].entries()) button.setAttribute("aria-pressed", String(other === this.pinned));
    this.point(this.pinned);
  }

  point(k) {
    this.near = k;
    at("boxes").classList.toggle("pointing", k >= 0);
    for (const one of at("boxes").children) one.classList.toggle("near", Number(one.dataset.k) === k);
  }

  // px of the picture for a px of the screen
  get scale() {
    const { clientWidth, clientHeight } = at("stage");
    return Math.max(this.size[0] / Math.max(1, clientWidth), this.size[1] / Math.max(1, clientHeight));
  }

  draw() {
    if (!this.record?.boxes || !this.size) return;
    const svg = at("boxes"), { clientWidth, clientHeight } = at("stage");
    const shown = [...this.record.boxes.entries()].filter(([, { label }]) => !this.hidden.has(label)).reverse(); // the surest on top
    svg.setAttribute("viewBox", `0 0 ${this.size[0]} ${this.size[1]}`);
    svg.classList.toggle("named", shown.length * ROOM <= clientWidth * clientHeight);
    svg.replaceChildren(...shown.map(([k, one]) => this.edges(k, one)));
    for (const [k, one] of shown) this.words(svg, k, one);
    this.point(this.near);
  }

  group(k, { label, score }) {
    const group = drawing("g", { "data-k": k }), title = drawing("title");
    title.textContent = `${label} ${score.toFixed(2)}`;
    group.append(title);
    return group;
  }

  edges(k, one) {
    const [x, y, right, bottom] = one.box, place = { x, y, width: right - x, height: bottom - y }, group = this.group(k, one);
    group.append(drawing("rect", { class: "halo", ...place }), drawing("rect", { class: "edge", stroke: this.colour(one.label), ...place }));
    group.addEventListener("click", () => { this.pin(k); this.buttons()[k].scrollIntoView({ block: "nearest" }); });
    return group;
  }

  // White words on the box's colour above its corner, or inside where the picture ends.
  words(svg, k, one) {
    const group = this.group(k, one), text = drawing("text", { class: "words" }), scale = this.scale, pad = PAD * scale;
    text.textContent = `${one.label} ${one.score.toFixed(2)}`;
    text.style.setProperty("font-size", `${WORDS * scale}px`);
    group.append(text);
    svg.append(group);
    const { width, height } = text.getBBox(), x = Math.max(0, Math.min(one.box[0], this.size[0] - width - 2 * pad)), y = Math.max(height, one.box[1]);
    text.setAttribute("x", x + pad);
    text.setAttribute("y", y - 0.25 * height);
    text.before(drawing("rect", { class: "words", fill: this.colour(one.label), x, y: y - height, width: width + 2 * pad, height }));
  }

  // Class numbers of the pixels, from the colours of a mask: those of the model's classes, and nothing else.
  async read(mask) {
    const round = this.round, head = new DataView(mask.buffer, mask.byteOffset), [width, height] = [head.getUint32(16), head.getUint32(20)];
    const by = Math.min(1, MOST / Math.max(width, height)), [w, h] = [width, height].map((side) => Math.max(1, Math.round(side * by)));
    const bitmap = await createImageBitmap(new Blob([mask], { type: "image/png" }), { colorSpaceConversion: "none", resizeWidth: w, resizeHeight: h, resizeQuality: "pixelated" });
    if (round !== this.round) return;
    const canvas = at("mask"), pen = canvas.getContext("2d", { willReadFrequently: true });
    [canvas.width, canvas.height] = [w, h];
    this.sized(width, height);
    pen.drawImage(bitmap, 0, 0);
    const known = new Map(this.colours.map((colour, k) => [parseInt(colour.slice(1), 16), k])), { data } = pen.getImageData(0, 0, w, h);
    this.numbers = Int16Array.from({ length: w * h }, (_, k) => known.get((data[4 * k] << 16) | (data[4 * k + 1] << 8) | data[4 * k + 2]) ?? -1);
    canvas.hidden = false;
    this.paint();
  }

  // The edges of a class in full, its inside as strong as is asked.
  paint() {
    if (!this.numbers) return;
    const canvas = at("mask"), { width, height } = canvas, pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
    const share = Math.round(2.55 * at("strength").value), inside = this.inks(share), edges = this.inks(share && 255);
    const pixels = new Uint32Array(image.data.buffer), numbers = this.numbers;
    for (let k = 0; k < numbers.length; k++) {
      const own = numbers[k];
      if (own < 0) continue;
      const edge = (k % width && numbers[k - 1] !== own) || (k >= width && numbers[k - width] !== own);
      pixels[k] = (edge ? edges : inside)[own];
    }
    pen.putImageData(image, 0, 0);
  }

  // Each class's colour as the canvas holds it, nothing for those that are hidden.
  inks(strength) {
    const bytes = new Uint8Array(4), ink = new Uint32Array(bytes.buffer);
    return this.colours.map((colour, k) => {
      const rgb = parseInt(colour.slice(1), 16);
      bytes.set(this.hidden.has(this.names[k]) ? [0, 0, 0, 0] : [rgb >> 16, (rgb >> 8) & 255, rgb & 255, strength]);
      return ink[0];
    });
  }
}
