// Walks through the images that the lists of a model doubt. Every decision is saved by the server before the page goes on.
"use strict";

const at = (id) => document.getElementById(id);
const FEW = 9; // classes that have a digit each
const MATCHES = 40; // labels shown while one types
const KINDS = { suspected: "Suspected labels", conflict: "Copies with two labels", leak: "Copies in two parts", mistake: "Mistakes" };
const DONE = { keep: "Kept as it is", relabel: "Changed to ", drop: "Dropped" };

let all = { doubts: [], classes: [], done: {} }; // as the server said it
let shown = []; // the doubts of the kind that is chosen
let here = 0; // place in `shown`
let busy = false;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function say(text) { at("status").textContent = text; }

function fail(text) {
  at("failed").hidden = !text;
  at("failed").textContent = text;
}

async function ask(path, body) {
  const given = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try { answer = await fetch(path, given); } catch { throw new Error("The server does not answer: it has ended. Start headstart review again, it goes on from here."); }
  const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(said.error ?? `the server answered ${answer.status}`);
  return said;
}

async function change(path, body, then) {
  if (busy) return;
  busy = true;
  try {
    const said = await ask(path, body);
    fail("");
    Object.assign(all, { done: said.done, command: said.command });
    if (said.id !== null && said.id !== undefined) all.doubts[said.id].made = said.made;
    then(said);
  } catch (error) { fail(error.message); } finally { busy = false; }
}

// What is done with an image

function decide(action, label = "") {
  const doubt = shown[here];
  if (!doubt || at("walk").hidden) return;
  change("decide", { id: doubt.id, action, label }, () => {
    if (label && !all.classes.includes(label) && !all.added.includes(label)) all.added.push(label);
    close();
    const told = `${DONE[action]}${label}.`;
    const next = undecided(here + 1);
    if (next === null) finish(told); else show(next, told);
  });
}

function choose(label) { decide(label === shown[here].label ? "keep" : "relabel", label === shown[here].label ? "" : label); }

function undo() {
  change("undo", {}, (said) => {
    if (said.id === null) return say("Nothing to undo.");
    let place = shown.findIndex((doubt) => doubt.id === said.id);
    if (place < 0) { at("kind").value = ""; choices(); place = shown.findIndex((doubt) => doubt.id === said.id); }
    show(place, "Undone.");
  });
}

// The next place in `shown` without a decision, from one on and round; null where there is none.
function undecided(from) {
  for (let k = 0; k < shown.length; k++) {
    const place = (from + k) % shown.length;
    if (!shown[place].made) return place;
  }
  return null;
}

// What is shown

function show(place, told = "") {
  here = Math.max(0, Math.min(shown.length - 1, place));
  const doubt = shown[here];
  at("walk").hidden = !doubt;
  at("finished").hidden = Boolean(doubt);
  progress();
  if (!doubt) return;
  picture(doubt);
  at("path").textContent = doubt.path;
  at("place").textContent = `Image ${here + 1} of ${shown.length}`;
  at("label").textContent = doubt.label || "without a label";
  at("reasons").replaceChildren(...doubt.reasons.map((reason) => make("li", sentence(reason.said))));
  buttons(doubt);
  beside(doubt);
  say(`${told} Image ${here + 1} of ${shown.length}, labelled ${doubt.label}. ${doubt.reasons.map((r) => sentence(r.said)).join(" ")}`);
  const following = undecided(here + 1);
  if (following !== null) new Image().src = address(shown[following].picture, true);
}

const sentence = (text) => text.slice(0, 1).toUpperCase() + text.slice(1) + ".";
const address = (row, large) => `picture/${row}${large ? "?large=1" : ""}`;

function picture(doubt) {
  const image = at("picture");
  zoom(false);
  at("unseen").hidden = true;
  image.hidden = false;
  image.className = "coming";
  image.alt = `${doubt.path}, labelled ${doubt.label}`;
  image.src = address(doubt.picture, true);
}

async function unseen() {
  at("picture").hidden = true;
  at("unseen").hidden = false;
  const doubt = shown[here];
  const why = await ask(address(doubt.picture, true)).then(() => "", (error) => error.message);
  if (doubt === shown[here]) at("unseen").textContent = `The picture cannot be shown: ${why}`;
}

function buttons(doubt) {
  const made = doubt.made ?? {};
  const press = (button, on) => button.setAttribute("aria-pressed", String(Boolean(on)));
  at("keep").querySelector("bdi").textContent = doubt.label || "it as it is";
  at("take").hidden = !doubt.suggested;
  at("take").querySelector("bdi").textContent = doubt.suggested;
  press(at("keep"), made.action === "keep");
  press(at("take"), made.action === "relabel" && made.label === doubt.suggested);
  press(at("drop"), made.action === "drop");
  at("made").hidden = !doubt.made;
  at("made").textContent = doubt.made ? `${DONE[made.action]}${made.label}` : "";
  const few = all.classes.length <= FEW && (all.classes.length > 2 || !doubt.suggested); // of two, K and S say it
  at("classes").hidden = !few;
  if (few) at("classes").querySelector("div").replaceChildren(...all.classes.map((name, k) => chip(name, String(k + 1), (made.label || (made.action === "keep" && doubt.label)) === name)));
  at("back").disabled = here === 0;
  at("next").disabled = here === shown.length - 1;
}

function chip(name, key, pressed) {
  const button = make("button", undefined, { type: "button" });
  if (key) button.append(make("kbd", key), " ");
  button.append(make("bdi", name));
  if (pressed !== undefined) button.setAttribute("aria-pressed", String(Boolean(pressed)));
  button.addEventListener("click", () => choose(name));
  return button;
}

async function beside(doubt) {
  const strip = (title, list, told) => {
    if (!list.length) return [];
    const near = make("ul", undefined, { class: "near" });
    for (const one of list) {
      const item = make("li");
      item.append(make("img", undefined, { class: "photo", src: address(one.picture), alt: `labelled ${one.label}`, loading: "lazy" }));
      const caption = make("p", undefined, { class: "small" });
      caption.append(make("b", undefined), make("span", ` ${told(one)}`, { class: "soft" }), make("span", one.path, { class: "file soft", title: one.path }));
      caption.firstChild.append(make("bdi", one.label || "no label"));
      item.append(caption);
      near.append(item);
    }
    return [make("h3", title), near];
  };
  const decided = (one) => all.doubts.find((other) => other.picture === one.picture)?.made;
  const part = (one) => [one.split === "none" ? "" : one.split, decided(one) ? `${DONE[decided(one).action]}${decided(one).label}`.toLowerCase() : ""].filter(Boolean).join(", ");
  const copies = strip("The same picture again", doubt.copies, part);
  at("beside").replaceChildren(...copies);
  const alike = await ask(`alike/${doubt.id}`).catch(() => []);
  if (doubt === shown[here]) at("beside").replaceChildren(...copies, ...strip("To the model it looks most like these training images", alike, (one) => one.similarity.toFixed(2)));
}

function progress() {
  const done = all.doubts.filter((doubt) => doubt.made).length;
  at("progress").max = Math.max(1, all.doubts.length);
  at("progress").value = done;
  at("count").textContent = `${done} of ${all.doubts.length} decided`;
  at("saved").textContent = done ? `Each decision is saved at once in ${all.file}.` : `Decisions will be saved in ${all.file}.`;
  at("command").textContent = all.command;
  at("undo").disabled = !done;
}

function finish(told = "") {
  progress();
  const n = (action) => all.done[action] ?? 0;
  const left = all.doubts.filter((doubt) => !doubt.made).length;
  at("sum").textContent = all.doubts.length
    ? `${n("keep")} kept, ${n("relabel")} changed, ${n("drop")} dropped${left ? `; ${left} of other kinds are left` : ""}.`
    : "The lists of this model doubt no image.";
  if (shown.length) show(here, told); // the last one stays in sight
  at("finished").hidden = false; // which `show` hides
  at("finished").scrollIntoView({ block: "nearest" });
  at("finished").focus();
  say(`${told} All looked at: ${at("sum").textContent}`);
}

function choices() {
  const kind = at("kind").value;
  shown = all.doubts.filter((doubt) => !kind || doubt.reasons.some((reason) => reason.kind === kind));
}

// Another label

function matches() {
  const typed = at("typed").value.trim();
  const known = [...all.classes, ...all.added], low = typed.toLowerCase();
  const found = known.filter((name) => name.toLowerCase().includes(low));
  const rank = (name) => (name === typed ? 0 : name.toLowerCase() === low ? 1 : name.toLowerCase().startsWith(low) ? 2 : 3);
  found.sort((a, b) => rank(a) - rank(b));
  const buttons = found.slice(0, MATCHES).map((name) => chip(name));
  if (typed && !known.includes(typed)) {
    const fresh = make("button", `New class ${typed}`, { type: "button", "data-new": "" });
    fresh.addEventListener("click", () => decide("relabel", typed));
    buttons.push(fresh);
  }
  at("matches").replaceChildren(...buttons.map((button) => { const item = make("li"); item.append(button); return item; }));
}

function open() {
  at("picker").hidden = false;
  at("other").setAttribute("aria-expanded", "true");
  at("typed").value = "";
  matches();
  at("typed").focus();
}

function close() {
  if (at("picker").hidden) return;
  const inside = at("picker").contains(document.activeElement);
  at("picker").hidden = true;
  at("other").setAttribute("aria-expanded", "false");
  if (inside) at("other").focus();
}

function inPicker(event) {
  if (event.key === "Escape") { close(); event.preventDefault(); return; }
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const stops = [at("typed"), ...at("matches").querySelectorAll("button")];
  const place = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
  stops[Math.max(0, Math.min(stops.length - 1, place))].focus();
  event.preventDefault();
}

function zoom(on) {
  at("frame").classList.toggle("zoom", on);
  at("zoom").setAttribute("aria-pressed", String(on));
}

// Keys and the start

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || !at("letters").checked) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea, #picker")) return;
  const actions = {
    k: () => decide("keep"), s: () => at("take").hidden || decide("relabel", shown[here].suggested), d: () => decide("drop"), l: open, u: undo,
    z: () => zoom(!at("frame").classList.contains("zoom")),
    ArrowLeft: () => at("back").disabled || show(here - 1), ArrowRight: () => at("next").disabled || show(here + 1),
  };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key.startsWith("Arrow") && at("frame").classList.contains("zoom")) return; // they move the picture
  const digit = /^[1-9]$/.test(key) && !at("classes").hidden ? all.classes[Number(key) - 1] : undefined;
  if (!(key in actions) && digit === undefined) return;
  event.preventDefault();
  if (event.repeat && !key.startsWith("Arrow")) return; // a key that is held down decides once
  if (digit !== undefined) choose(digit); else actions[key]();
}

async function end() {
  await ask("end", {}).catch(() => undefined);
  fail("The review has ended; this page can be closed.");
}

async function begin() {
  try { all = { added: [], ...(await ask("doubts")) }; } catch (error) { return fail(error.message); }
  document.title = `${all.model}: headstart review`;
  at("model").textContent = all.model;
  const counts = Object.entries(KINDS).map(([kind, name]) => [kind, name, all.doubts.filter((d) => d.reasons.some((r) => r.kind === kind)).length]);
  at("kind").append(new Option(`All (${all.doubts.length})`, ""), ...counts.filter(([, , n]) => n).map(([kind, name, n]) => new Option(`${name} (${n})`, kind)));
  choices();
  const first = undecided(0);
  if (first === null) finish(); else show(first);
}

const clicks = { keep: () => decide("keep"), take: () => decide("relabel", shown[here].suggested), drop: () => decide("drop"), undo, other: () => (at("picker").hidden ? open() : close()), end,
  back: () => show(here - 1), next: () => show(here + 1), copy: () => navigator.clipboard.writeText(all.command).then(() => say("Copied."), () => say("Copying is not allowed here.")),
  zoom: () => zoom(!at("frame").classList.contains("zoom")), picture: () => zoom(!at("frame").classList.contains("zoom")) };
for (const [id, work] of Object.entries(clicks)) at(id).addEventListener("click", work);
at("picture").addEventListener("load", () => { at("picture").className = ""; });
at("picture").addEventListener("error", unseen);
at("kind").addEventListener("change", () => { choices(); const first = undecided(0); if (first === null) finish(); else show(first); });
at("typed").addEventListener("input", matches);
at("picker").addEventListener("keydown", inPicker);
at("picker").addEventListener("submit", (event) => {
  event.preventDefault();
  const first = at("matches").querySelector("button");
  if (first && "new" in first.dataset) first.focus(); else first?.click(); // a slip of the finger makes no class
});
document.addEventListener("keydown", pressed);
begin();
