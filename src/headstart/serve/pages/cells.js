// Records as CSV: the same file as `headstart predict -o answers.csv` writes. A spreadsheet runs nothing of it.
const FORMULA = ["=", "+", "-", "@", "\t", "\r", "\n"];
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const SHORT = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };
const RANKED = { top: ["label", "probability"], nearest: ["identity", "score"] }; // the best first

// Other people's text, harmless: no formula, no control characters.
function harmless(text) {
  const guarded = FORMULA.some((sign) => text.startsWith(sign)) ? `'${text}` : text;
  return guarded.replace(CONTROL, (sign) => {
    const code = sign.charCodeAt(0);
    return SHORT[sign] ?? (code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`);
  });
}

const digits = (number) => (number === null || number === undefined ? "" : number.toFixed(6));

// One row: column -> text. Of a ranked list the places from the second on, and from the first where the answer may be another.
function rowOf(record, top) {
  const cells = {};
  for (const [what, value] of Object.entries(record)) {
    if (what in RANKED) {
      const [text, number] = RANKED[what], named = what === "nearest" ? what : text;
      for (let k = what === "nearest" ? 1 : 2; k <= top; k++) {
        cells[`${named}_${k}`] = value[k - 1] ? value[k - 1][text] : "";
        cells[`${number}_${k}`] = digits(value[k - 1]?.[number]);
      }
    } else if (Array.isArray(value)) cells[what] = value.join("|");
    else if (value !== null && typeof value === "object") for (const [name, number] of Object.entries(value)) cells[`${what}_${name}`] = digits(number);
    else if (typeof value === "number") cells[what] = digits(value);
    else cells[what] = value === null ? "" : String(value);
  }
  return cells;
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

// As Python writes a number with a point.
function float(number) {
  if (Number.isInteger(number)) return `${number}.0`;
  return Math.abs(number) < 1e-4 ? number.toExponential().replace(/e-(\d)$/, "e-0$1") : String(number);
}

const BOX = ["x1", "y1", "x2", "y2", "label", "score"];

// Of boxes one row each, and one without a box for a picture without any.
function boxRows({ path, boxes, error }) {
  const found = boxes?.length ? boxes.map(({ box, label, score }) => [...box.map(float), label, float(score)]) : [BOX.map(() => "")];
  return found.map((cells) => [path, ...cells, error ?? ""]);
}

const shareRow = ({ path, classes, error }, names) => [path, ...names.map((name) => (classes ? float(classes[name]) : "")), error ?? ""];

const written = (lines) => lines.map((line) => line.map((text) => quoted(harmless(text))).join(",") + "\r\n").join("");

// classes: of the model, in their order, where its answers lie in the picture
export function csv(records, top, { task, classes } = {}) {
  if (task === "detect") return written([["path", ...BOX, "error"], ...records.flatMap(boxRows)]);
  if (task === "segment") return written([["path", ...classes.map((name) => `share_${name}`), "error"], ...records.map((record) => shareRow(record, classes))]);
  const rows = records.map((record) => rowOf(record, top));
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)).filter((name) => name !== "error")), "error"];
  return written([columns, ...rows.map((row) => columns.map((name) => row[name] ?? ""))]);
}
