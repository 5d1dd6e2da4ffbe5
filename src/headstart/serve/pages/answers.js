// What a record says, whatever the model answers: in words, as bars, and as cells of the table.
import { lies, placedColumns, placedRemark, placedSpoken, placedWords } from "./found.js";
import { TOP } from "./sending.js";

export function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

// 0.982 -> "98.2 %"; what is not certain is never called 100 %, nor what is possible 0 %.
export function percent(p) {
  const shown = (100 * p).toFixed(1);
  if (p < 1 && shown === "100.0") return "> 99.9 %";
  if (p > 0 && shown === "0.0") return "< 0.1 %";
  return `${shown} %`;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
}

const either = (names) => (names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names[0] ?? "");

// {kicker, said, told: lines, mood}: the answer in words.
export function words(record) {
  if (record.error) return { kicker: "No answer", said: "This picture cannot be read", told: [sentence(record.error)], mood: "bad" };
  if (lies(record)) return placedWords(record);
  if (record.top) return classWords(record);
  if (record.labels) return { kicker: record.labels.length === 1 ? "Label" : "Labels", said: record.labels.join(" + ") || "none of them", told: [], mood: "good" };
  if (record.values) {
    const [name] = Object.keys(record.values), alone = Object.keys(record.values).length === 1;
    return { kicker: alone ? name : "Values", said: Object.values(record.values).map(number).join(", "), told: alone ? [span(record, name)].filter(Boolean) : [], mood: "good" };
  }
  if (record.verdict) return { kicker: `Score ${number(record.score)}`, said: record.verdict, told: ["From a score of 1 on, a picture counts as odd."], mood: isOdd(record) ? "bad" : "good" };
  const closest = record.nearest?.[0];
  const similarity = `similarity ${record.score?.toFixed(3)}`;
  return record.identity
    ? { kicker: "Recognised", said: record.identity, told: [sentence(similarity)], mood: "good" }
    : { kicker: "None that I know", said: "unknown", told: closest ? [`Most like ${closest.identity}, ${similarity}.`] : [], mood: "unsure" };
}

const isOdd = (record) => record.verdict === "odd";

function classWords(record) {
  const sure = percent(record.probability), others = (record.set ?? []).filter((name) => name !== record.label);
  const best = `If it has to be one: ${record.label}, ${sure}.`;
  const meant = others.length ? [`It can also be ${others.length > TOP ? `one of ${others.length} others` : either(others)}.`] : [];
  if (record.known === false) return { kicker: "Unlike anything I know", said: "none of my classes, it seems", told: [`It looks like no picture that taught this model. ${best}`], mood: "bad" };
  if (record.abstain) return { kicker: "Not sure enough", said: "I don’t know", told: [best, ...meant], mood: "unsure" };
  return { kicker: sure, said: record.label, told: meant, mood: others.length ? "unsure" : "good" };
}

function span(record, name) {
  const low = record.low?.[name], high = record.high?.[name];
  return low === null || low === undefined ? "" : `Between ${number(low)} and ${number(high)}.`;
}

const sentence = (text) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

// One line for a screen reader.
export function spoken(record) {
  if (lies(record)) return [placedSpoken(record), ...words(record).told].join(", ");
  const { kicker, said, told } = words(record);
  return [said, kicker, ...told].join(", ");
}

// Bars: [{name, share 0..1, told, strong}]
export function bars(record) {
  if (record.error) return [];
  if (record.top) return record.top.map(({ label, probability }) => ({ name: label, share: probability, told: percent(probability), strong: (record.set ?? [record.label]).includes(label) }));
  if (record.labels) return Object.entries(record.probabilities).sort((a, b) => b[1] - a[1]).map(([name, p]) => ({ name, share: p, told: percent(p), strong: record.labels.includes(name) }));
  if (record.nearest) return record.nearest.map(({ identity, score }) => ({ name: identity, share: Math.max(0, score), told: score.toFixed(3), strong: identity === record.identity }));
  if (record.values && Object.keys(record.values).length > 1) return Object.keys(record.values).map((name) => ({ name, share: null, told: `${number(record.values[name])}${record.low[name] === null ? "" : ` (${number(record.low[name])} to ${number(record.high[name])})`}`, strong: true }));
  return [];
}

export function drawn(list, { name, share, told, strong }) {
  const item = make("li"), bar = make("span", "", { class: strong ? "bar strong" : "bar", "aria-hidden": "true" });
  const label = make("span", undefined, { class: "what" });
  label.append(make("bdi", name));
  item.append(label, make("span", told, { class: "much" }));
  if (share !== null) item.append(bar);
  bar.style.setProperty("--share", `${100 * Math.min(1, Math.max(share > 0 ? 0.004 : 0, share ?? 0))}%`);
  list.append(item);
}

// What is remarked of an answer in the table: {text, mood}; mood is also what "Show" picks by.
export function remark(record) {
  if (record.error) return { text: record.error, mood: "bad", kind: "error" };
  if (lies(record)) return placedRemark(record);
  if (record.known === false) return { text: "unlike anything I know", mood: "bad", kind: "unlike" };
  if (record.abstain) return { text: "not sure enough", mood: "unsure", kind: "unsure" };
  if (record.verdict) return isOdd(record) ? { text: "odd", mood: "bad", kind: "odd" } : { text: "", mood: "good", kind: "sure" };
  if (record.identity === null) return { text: record.nearest?.[0] ? `most like ${record.nearest[0].identity}` : "", mood: "unsure", kind: "unlike" };
  const others = (record.set ?? []).filter((name) => name !== record.label);
  if (others.length) return { text: others.length > 2 ? `or one of ${others.length} others` : `or ${either(others)}`, mood: "unsure", kind: "several" };
  return { text: "", mood: "good", kind: "sure" };
}

// The short answer by which pictures are counted and found; "" for measured values and errors.
export function answer(record) {
  if (record.error || record.values) return "";
  if (lies(record)) return placedSpoken(record);
  if (record.labels) return record.labels.join(" + ") || "none of them";
  if (record.verdict) return record.verdict;
  return record.top ? record.label : record.identity ?? "unknown";
}

// Columns of the table for these records: [{id, title, of(record) -> text, key(record) -> what is sorted by, number}]
export function columns(records) {
  const first = records.find((record) => !record.error) ?? {};
  if (lies(first)) return placedColumns(records.filter(lies));
  const found = [];
  if (first.values) for (const name of Object.keys(first.values)) found.push({ id: `value ${name}`, title: name, number: true, of: (r) => (r.values ? `${number(r.values[name])}${r.low[name] === null ? "" : ` (${number(r.low[name])} to ${number(r.high[name])})`}` : ""), key: (r) => r.values?.[name] });
  else found.push({ id: "answer", title: first.labels ? "labels" : first.nearest ? "who" : "answer", of: answer, key: (r) => answer(r) || undefined });
  if (first.top) found.push({ id: "sure", title: "probability", number: true, of: (r) => (r.error ? "" : percent(r.probability)), key: (r) => r.probability ?? undefined });
  if (first.verdict) found.push({ id: "sure", title: "score", number: true, of: (r) => (r.error ? "" : number(r.score)), key: (r) => r.score ?? undefined });
  if (first.nearest) found.push({ id: "sure", title: "similarity", number: true, of: (r) => (r.error ? "" : r.score.toFixed(3)), key: (r) => r.score ?? undefined });
  return found;
}
