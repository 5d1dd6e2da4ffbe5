// The page of a served model: pictures in, answers out. Nothing leaves for anywhere but this server.
import { bars, counted, drawn, percent, spoken, words } from "./answers.js";
import { lies } from "./found.js";
import { Overlay } from "./overlay.js";
import { Sending, reason } from "./sending.js";
import { Table } from "./table.js";
import { dropped, listed } from "./taken.js";

const at = (id) => document.getElementById(id);
const KEPT = "headstart token"; // in this tab alone
const OFTEN = 400; // ms between two drawings of a growing table
const MEASURES = { accuracy: "accuracy", balanced_accuracy: "balanced accuracy", mean_average_precision: "mean average precision", r2: "R²", identification_rate: "identification rate", auroc: "AUROC", miou: "mean IoU", map50: "average precision at IoU 0.5" };

let rows = []; // {place, path, file, record, mask: bytes of a PNG, of those that were opened}
let models = [];
let current = null;
let address = "";
let drawing = 0;
let heated = false; // whether pictures are shown with what is odd about them
let spokenAt = 0;

const sending = new Sending({ told, waiting, denied });
const table = new Table((row) => answer(row, true), () => ofModel());
const overlay = new Overlay();

const say = (text) => { at("status").textContent = text; };

function fail(text) {
  at("failed").hidden = !text;
  at("failed").textContent = text;
}

// The models

async function begin() {
  let answered;
  try { answered = await fetch("models", { headers: sending.headers }); } catch { return fail("The server does not answer. Is it still running?"); }
  if (answered.status === 401) return denied();
  const said = await answered.json().catch(() => null);
  if (!answered.ok || !Array.isArray(said)) return fail(reason(said) ?? `The server answered ${answered.status}.`);
  models = said;
  at("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  at("chooser").hidden = models.length < 2;
  choose(models[0]);
}

function choose(model) {
  sending.model = model.name;
  document.title = `${model.name}: headstart`;
  at("name").textContent = model.name;
  at("about").textContent = [about(model), scored(model.score)].filter(Boolean).join(" · ");
}

function about({ task, classes }) {
  if (task === "regress") return `Measures ${classes.join(", ")}`;
  const leads = { classify: "Tells apart ", tag: "Labels ", recognise: "Knows ", segment: "Finds areas of ", detect: "Finds " };
  if (!(task in leads)) return task === "anomaly" ? "Says what is odd" : "";
  const shown = classes.slice(0, 8).join(", "), more = classes.length > 8 ? ` and ${classes.length - 8} more` : "";
  return leads[task] + shown + more;
}

function scored(score) {
  if (!score || typeof score.value !== "number") return "";
  const share = !["r2", "auroc"].includes(score.measure) && score.percent !== false, told = (value) => (share ? percent(value).replace(" %", "") : value.toFixed(3));
  const unit = share ? " %" : "";
  const range = typeof score.low === "number" && typeof score.high === "number" ? ` (${told(score.low)} to ${told(score.high)}${unit})` : "";
  return `${MEASURES[score.measure] ?? score.measure?.replaceAll("_", " ") ?? "score"} ${told(score.value)}${unit}${range}${score.n ? ` on ${counted(score.n, "image")}` : ""}`;
}

// The same pictures, asked of another model.
function asked(model) {
  choose(model);
  sending.stop();
  for (const row of rows) row.record = row.mask = null;
  if (rows.length) send(rows);
}

// A token

function denied() {
  at("entry").hidden = false;
  at("denied").textContent = sending.token ? "That is not the token of this server." : "";
  at("token").focus();
  say("This server asks for a token.");
}

async function allowed(event) {
  event.preventDefault();
  sending.token = at("token").value.trim();
  sessionStorage.setItem(KEPT, sending.token);
  const answered = await fetch("models", { headers: sending.headers }).catch(() => null);
  if (answered?.status === 401) return denied();
  at("entry").hidden = true;
  at("token").value = "";
  await begin();
  sending.allow(sending.token);
}

// Pictures

function take({ taken, passed }) {
  fail("");
  if (passed) fail(`${counted(passed, "file")} of the folder ${passed === 1 ? "is no picture and was" : "are no pictures and were"} passed over.`);
  if (!taken.length) {
    if (!passed) fail("There was no picture in that.");
    return;
  }
  const first = rows.length;
  const more = taken.map(({ file, path }, k) => ({ place: first + k, path, file, record: null, mask: null }));
  rows.push(...more);
  current = rows.length === 1 || more.length === 1 ? more[0] : null;
  send(more);
}

function send(some) {
  spokenAt = Date.now();
  say(some.length === 1 ? `${some[0].path} is sent.` : `${counted(some.length, "picture")} are sent.`);
  if (current) answer(current); else at("answer").hidden = true;
  for (const row of some) row.masked = some.length === 1 && ofModel()?.masks; // of many: when they are opened
  sending.add(some);
  draw();
}

function told(row, { mask, ...record }) {
  row.record = record;
  row.mask = bytes(mask);
  if (row === current) answer(row, rows.length === 1);
  if (rows.length === 1) say(`${row.path}: ${spoken(record)}`);
  else progressSaid();
  draw();
}

function waiting(seconds) { at("count").textContent = `The server is full; it goes on in ${Math.ceil(seconds)} s.`; }

function progressSaid() {
  const done = rows.filter((row) => row.record).length, failed = rows.filter((row) => row.record?.error).length;
  if (done === rows.length) say(`All done: ${counted(done - failed, "picture")} answered, ${counted(failed, "error")}.`);
  else if (Date.now() - spokenAt > 5000) {
    spokenAt = Date.now();
    say(`${done} of ${rows.length} done.`);
  }
}

function draw() {
  const done = rows.filter((row) => row.record).length;
  at("going").hidden = !sending.busy && done === rows.length;
  at("progress").max = Math.max(1, rows.length);
  at("progress").value = done;
  if (Date.now() >= sending.freeAt) at("count").textContent = `${done.toLocaleString("en")} of ${counted(rows.length, "picture")}`;
  at("many").hidden = rows.length < 2;
  document.body.classList.toggle("asked", rows.length > 0);
  if (done < rows.length) drawing ||= setTimeout(drawTable, OFTEN); else drawTable();
}

function drawTable() {
  clearTimeout(drawing);
  drawing = 0;
  if (rows.length > 1) table.show(rows);
}

function stop() {
  const left = new Set([...sending.stop(), ...rows.filter((row) => !row.record)]);
  rows = rows.filter((row) => !left.has(row));
  if (current && left.has(current)) { current = null; at("answer").hidden = true; }
  say(`Stopped: ${counted(rows.length, "picture")} answered.`);
  table.show(rows);
  draw();
}

function clear() {
  sending.stop();
  rows = [];
  current = null;
  at("answer").hidden = true;
  fail("");
  table.show(rows);
  draw();
  say("The table is empty.");
  document.querySelector("[data-opens=files]").focus();
}

// One answer

function answer(row, focus = false) {
  current = row;
  at("answer").hidden = false;
  at("answer").setAttribute("aria-busy", String(!row.record));
  if (address) URL.revokeObjectURL(address);
  address = row.file ? URL.createObjectURL(row.file) : "";
  at("unseen").hidden = true;
  at("picture").hidden = !address;
  if (address) at("picture").src = address;
  at("where").hidden = !(row.record?.verdict && row.file && ofModel()?.heat);
  at("picture").alt = `the picture ${row.path}`;
  at("file").textContent = row.path;
  at("unseen").textContent = `The browser cannot show this kind of picture.${row.record && !row.record.error ? " The model can read it." : ""}`;
  const { kicker, said, told: lines, mood } = row.record ? words(row.record) : { kicker: "", said: "…", told: ["The model looks at it."], mood: "" };
  at("kicker").textContent = kicker;
  at("kicker").className = `kicker ${mood}`;
  at("said").textContent = said;
  at("told").textContent = lines.join(" ");
  at("bars").replaceChildren();
  for (const bar of row.record ? bars(row.record) : []) drawn(at("bars"), bar);
  places(row);
  if (heated && !at("where").hidden) heat();
  if (focus && rows.length > 1) at("answer").focus();
  if (focus) at("answer").scrollIntoView({ block: "nearest" });
}

// What was found in a picture, drawn on it

const bytes = (text) => (text ? Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)) : null);

function places(row) {
  if (!row.record || !lies(row.record) || !ofModel()?.colours) return overlay.clear();
  overlay.show(row.record, ofModel(), row.mask);
  if (row.record.classes && !row.mask) masked(row);
}

async function masked(row) {
  const model = sending.model, elsewhere = () => row !== current || model !== sending.model;
  const record = await sending.answer({ ...row, masked: true }, elsewhere);
  if (elsewhere()) return;
  if (!record?.mask) return fail(record?.error ?? "");
  row.mask = bytes(record.mask);
  places(row);
}

// Where a picture is odd: the server draws it

const ofModel = () => models.find(({ name }) => name === sending.model);

async function heat() {
  const row = current, told = (text) => { at("where").textContent = text; };
  told("The model looks where …");
  const drawn = await sending.heat(row);
  told("Show where");
  if (row !== current || !heated) return;
  if (typeof drawn === "string") return fail(drawn);
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(drawn);
  at("picture").hidden = false;
  at("unseen").hidden = true;
  at("picture").src = address;
  at("picture").alt = `the picture ${row.path}, orange where it is odd`;
  at("told").textContent += " Orange is unlike the good pictures.";
}

function where() {
  heated = !heated;
  at("where").setAttribute("aria-pressed", String(heated));
  answer(current);
}

// Ways in

function entered(event) {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  at("drop").classList.add("over");
}

async function fell(event) {
  at("drop").classList.remove("over");
  if (!event.dataTransfer?.items.length) return;
  event.preventDefault();
  take(await dropped(event.dataTransfer));
}

function pasted(event) {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  take({ taken: files.map((file, k) => ({ file, path: file.name === "image.png" ? `pasted ${rows.length + k + 1}.png` : file.name })), passed: 0 });
}

for (const button of document.querySelectorAll("[data-opens]")) button.addEventListener("click", () => at(button.dataset.opens).click());
for (const id of ["photo", "files", "folder"]) at(id).addEventListener("change", ({ target }) => { take(listed(target.files)); target.value = ""; });
addEventListener("dragover", entered);
addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
addEventListener("drop", fell);
addEventListener("paste", pasted);
at("picture").addEventListener("error", () => { at("picture").hidden = true; at("unseen").hidden = false; });
at("model").addEventListener("change", ({ target }) => asked(models.find(({ name }) => name === target.value)));
at("entry").addEventListener("submit", allowed);
at("where").addEventListener("click", where);
at("stop").addEventListener("click", stop);
at("clear").addEventListener("click", clear);
sending.token = sessionStorage.getItem(KEPT) ?? "";
begin();
