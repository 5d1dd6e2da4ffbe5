// Answers that lie in the picture, in words and as cells: boxes around things, and of masks the share of each class.
const NAMED = 3; // classes that a headline names
const COLUMNS = 5; // classes with a column of their own: those of which there is most
const LEAST = 0.005; // share of a picture from which a class is named, as `predict` has it

export const lies = (record) => Boolean(record.boxes || record.classes);

const plain = (n) => Number(n.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
const whole = (share) => `${Math.round(100 * share)} %`;

// Class -> how many boxes are shown, or the share of the pixels; the largest first, and none of what is not there.
export function amounts(record) {
  const found = new Map();
  for (const { label } of record.boxes ?? []) found.set(label, (found.get(label) ?? 0) + 1);
  for (const [name, share] of Object.entries(record.classes ?? {})) if (share > 0) found.set(name, share);
  return [...found].sort((one, other) => other[1] - one[1]);
}

const told = (record, [name, much]) => (record.boxes ? `${much} ${name}` : `${name} ${whole(much)}`);

const seen = (record) => amounts(record).filter(([, much]) => record.boxes || much >= LEAST);

// The first of them in words, each in one piece.
function most(record) {
  const found = seen(record), more = found.length - NAMED;
  const said = found.slice(0, NAMED).map((one) => told(record, one).replaceAll(" ", "\u00a0")).join(", ");
  return `${said}${more > 0 ? ` and ${more} more` : ""}`;
}

// {kicker, said, told: lines, mood}
export function placedWords(record) {
  const kicker = record.classes ? "Of the picture" : record.boxes.length === 1 ? "1 thing" : `${record.boxes.length} things`, said = most(record);
  return { kicker, said: said || "nothing found", told: counts(record), mood: said ? "good" : "unsure" };
}

// What a model counts by its scores, where that is not the number of boxes.
function counts(record) {
  const shown = new Map(record.boxes ? amounts(record) : []);
  const others = Object.entries(record.counts ?? {}).filter(([name, n]) => n !== (shown.get(name) ?? 0));
  return others.length ? [`By its scores the model counts ${others.map(([name, n]) => `${plain(n)} ${name}`).join(", ")}.`] : [];
}

// One line that names all.
export const placedSpoken = (record) => seen(record).map((one) => told(record, one)).join(", ") || "nothing found";

export function placedRemark(record) {
  if (record.classes) return { text: "", mood: "good", kind: "answered" };
  return record.boxes.length ? { text: "", mood: "good", kind: "found" } : { text: "nothing found", mood: "unsure", kind: "none" };
}

// As `columns` of answers.js; those of classes are `aside` where a screen is narrow.
export function placedColumns(records) {
  const first = records[0], what = first.boxes ? "counts" : "classes", total = new Map();
  for (const record of records) for (const [name, n] of Object.entries(record[what])) total.set(name, (total.get(name) ?? 0) + n);
  const names = [...total].sort((one, other) => other[1] - one[1]).slice(0, COLUMNS).map(([name]) => name);
  const cell = (n) => (n === undefined ? "" : first.boxes ? plain(n) : `${(100 * n).toFixed(1)} %`);
  const own = names.map((name) => ({ id: `class ${name}`, title: first.boxes ? `${name} counted` : name, number: true, aside: true, of: (r) => cell(r[what]?.[name]), key: (r) => r[what]?.[name] }));
  return [{ id: "answer", title: first.boxes ? "boxes" : "most of it", of: (r) => (r.error ? "" : most(r)), key: (r) => (r.error ? undefined : most(r)) }, ...own];
}

// Over all pictures: how many of each, or the mean share: [{name, share, told}], the largest first.
export function placedSums(records) {
  const boxes = Boolean(records[0]?.boxes), sums = new Map();
  for (const record of records) for (const [name, much] of amounts(record)) sums.set(name, (sums.get(name) ?? 0) + much);
  const sorted = [...sums].sort((one, other) => other[1] - one[1]), most = sorted[0]?.[1] ?? 1;
  return sorted.map(([name, much]) => ({ name, share: much / most, told: boxes ? much.toLocaleString("en") : `${(100 * much / records.length).toFixed(1)} %` }));
}
