// Many pictures: a table to sort, filter and take away. It shows a page of rows at a time, so that thousands stay quick.
import { answer, columns, counted, drawn, make, remark } from "./answers.js";
import { csv } from "./cells.js";
import { lies, placedSums } from "./found.js";

const LEAF = 50; // rows of a page
const SUMS = 12; // answers that are counted one by one
const KINDS = { answered: "answered", found: "something found", none: "nothing found", sure: "sure answers", several: "several can be meant", unsure: "not sure enough", unlike: "unlike anything I know", odd: "odd", error: "errors" };
const at = (id) => document.getElementById(id);
const order = new Intl.Collator("en", { numeric: true }).compare;

export class Table {
  // chosen(row): a row was opened; model(): the one that is asked
  constructor(chosen, model) {
    Object.assign(this, { chosen, model, rows: [], seen: [], by: "place", down: false, leaf: 0, current: null, addresses: [], head: "" });
    at("find").addEventListener("input", () => this.filter());
    at("which").addEventListener("change", () => this.filter());
    at("before").addEventListener("click", () => this.turn(-1));
    at("after").addEventListener("click", () => this.turn(1));
    at("save").addEventListener("click", () => this.save());
  }

  // rows: [{place, path, file, record or null while it waits}]
  show(rows) {
    this.rows = rows;
    this.choices();
    this.sums();
    this.filter(false);
  }

  columns() {
    const records = this.rows.map((row) => row.record).filter(Boolean);
    return [
      { id: "file", title: "file", key: (r, row) => row.path },
      ...columns(records),
      { id: "remark", title: "remark", of: (r) => remark(r).text, key: (r) => remark(r).text || undefined },
    ];
  }

  choices() {
    const counts = {}, which = at("which"), chosen = which.value;
    for (const { record } of this.rows) if (record) counts[remark(record).kind] = (counts[remark(record).kind] ?? 0) + 1;
    const kinds = Object.entries(KINDS).filter(([kind]) => counts[kind] || kind === chosen);
    which.replaceChildren(new Option("all", ""), ...kinds.map(([kind, name]) => new Option(`${name} (${counts[kind] ?? 0})`, kind)));
    which.value = chosen;
  }

  sums() {
    const placed = this.rows.map(({ record }) => record).filter((record) => record && lies(record));
    at("sums").setAttribute("aria-label", placed[0]?.classes ? "Mean share of each class" : placed.length ? "Boxes of each class, in all pictures" : "How many of each answer");
    if (placed.length) return this.bars(placedSums(placed), (n) => `${n} more`, 1);
    const counts = new Map();
    for (const { record } of this.rows) if (record && answer(record)) counts.set(answer(record), (counts.get(answer(record)) ?? 0) + 1);
    const sorted = [...counts].sort((a, b) => b[1] - a[1]), most = sorted[0]?.[1] ?? 1;
    this.bars(sorted.map(([name, n]) => ({ name, share: n / most, told: n.toLocaleString("en") })), (n) => counted(n, "other answer"), 2);
  }

  bars(all, rest, least) {
    at("sums").replaceChildren();
    at("sums").hidden = all.length < least;
    for (const one of all.slice(0, SUMS)) drawn(at("sums"), { ...one, strong: true });
    if (all.length > SUMS) at("sums").append(make("li", `and ${rest(all.length - SUMS)}`, { class: "soft" }));
  }

  filter(first = true) {
    const words = at("find").value.trim().toLowerCase(), kind = at("which").value;
    this.seen = this.rows.filter(({ path, record }) => {
      if (kind && (!record || remark(record).kind !== kind)) return false;
      return !words || `${path} ${record ? `${answer(record)} ${remark(record).text}` : ""}`.toLowerCase().includes(words);
    });
    if (first) this.leaf = 0;
    this.sort();
  }

  sort() {
    const column = this.columns().find(({ id }) => id === this.by);
    if (column) {
      const keys = new Map(this.seen.map((row) => [row, row.record || column.id === "file" ? column.key(row.record, row) : undefined]));
      this.seen.sort((one, other) => {
        const a = keys.get(one), b = keys.get(other);
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // nothing stands last, up and down
        return (typeof a === "number" ? a - b : order(a, b)) * (this.down ? -1 : 1) || one.place - other.place;
      });
    } else this.seen.sort((one, other) => one.place - other.place);
    this.draw();
  }

  sortBy(column) {
    this.down = this.by === column.id ? !this.down : Boolean(column.number);
    this.by = column.id;
    this.leaf = 0;
    this.sort();
  }

  turn(by) {
    this.leaf += by;
    this.draw();
    at("caption").scrollIntoView({ block: "nearest" });
  }

  draw() {
    const shown = this.columns(), last = Math.max(0, Math.ceil(this.seen.length / LEAF) - 1);
    this.leaf = Math.min(this.leaf, last);
    this.heads(shown);
    for (const address of this.addresses) URL.revokeObjectURL(address);
    this.addresses = [];
    const rows = this.seen.slice(this.leaf * LEAF, (this.leaf + 1) * LEAF);
    at("many").querySelector("tbody").replaceChildren(...rows.map((row) => this.line(row, shown)));
    const part = this.seen.length === this.rows.length ? counted(this.rows.length, "picture") : `${this.seen.length.toLocaleString("en")} of ${counted(this.rows.length, "picture")}`;
    at("caption").textContent = `${part}. A file’s name opens its answer.`;
    at("save").textContent = `Download ${this.seen.length === this.rows.length ? "" : `these ${this.seen.length.toLocaleString("en")} `}as CSV`;
    at("save").disabled = !this.seen.some((row) => row.record);
    at("pager").hidden = !last;
    at("leaf").textContent = `page ${this.leaf + 1} of ${last + 1}`;
    at("before").disabled = !this.leaf;
    at("after").disabled = this.leaf === last;
  }

  // The headings stay the same elements while their titles do, so that the focus stays where it is.
  heads(shown) {
    const titles = shown.map(({ id, title }) => `${id}|${title}`).join("\n");
    const head = at("many").querySelector("thead");
    if (titles !== this.head) {
      this.head = titles;
      const line = make("tr");
      line.append(this.pictures());
      for (const column of shown) {
        const cell = make("th", undefined, { scope: "col", class: [column.number && "num", column.aside && "aside"].filter(Boolean).join(" ") }), button = make("button", column.title, { type: "button" });
        button.addEventListener("click", () => this.sortBy(column));
        cell.append(button);
        line.append(cell);
      }
      head.replaceChildren(line);
    }
    for (const [k, cell] of [...head.querySelectorAll("th[scope=col]")].entries()) cell.setAttribute("aria-sort", shown[k].id === this.by ? (this.down ? "descending" : "ascending") : "none");
  }

  pictures() {
    const cell = make("td", undefined, { class: "thumb" });
    cell.append(make("span", "picture", { class: "hide" }));
    return cell;
  }

  line(row, shown) {
    const line = make("tr"), cell = make("td", undefined, { class: "thumb" }), name = make("th", undefined, { scope: "row" });
    if (row === this.current) line.setAttribute("aria-current", "true");
    cell.append(this.thumb(row));
    const button = make("button", undefined, { type: "button", class: "link" });
    button.append(make("bdi", row.path));
    button.addEventListener("click", () => this.open(row));
    name.append(button);
    line.append(cell, name);
    for (const column of shown.slice(1)) {
      const text = row.record ? column.of(row.record) : column.id === "remark" ? "waits" : "";
      const mood = row.record && column.id === "remark" ? remark(row.record).mood : "";
      line.append(make("td", text, { class: [column.number && "num", column.aside && "aside", mood && `mood ${mood}`].filter(Boolean).join(" ") }));
    }
    return line;
  }

  thumb(row) {
    if (!row.file) return make("span", "", { class: "no" });
    const address = URL.createObjectURL(row.file);
    this.addresses.push(address);
    const image = make("img", undefined, { alt: "", loading: "lazy", decoding: "async", src: address, width: "44", height: "44" });
    image.addEventListener("error", () => image.replaceWith(make("span", (row.path.match(/\.(\w{1,5})$/)?.[1] ?? "?").toUpperCase(), { class: "no", "aria-hidden": "true" })));
    return image;
  }

  open(row) {
    this.current = row;
    this.draw();
    this.chosen(row);
  }

  save() {
    const records = this.seen.map((row) => row.record).filter(Boolean);
    const top = Math.max(1, ...records.map((record) => (record.top ?? record.nearest ?? []).length));
    const address = URL.createObjectURL(new Blob([csv(records, top, this.model())], { type: "text/csv;charset=utf-8" }));
    const link = make("a", undefined, { href: address, download: "answers.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
}
