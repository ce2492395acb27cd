"use strict";
// One sample at a time, by keyboard. Decisions go to the server, or stay here until they are saved.
const at = (id) => document.getElementById(id);
const read = (id) => JSON.parse(at(id).content.textContent);
const start = read("start");
const decided = start.decisions;
const items = new Map();
let number = Math.max(0, decided.indexOf(""));
let shown = null;
let unsaved = false;

const fetched = async (path, body) => {
  const answer = await fetch(path, body && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json().catch(() => ({ error: `the server says ${answer.status}` }));
  if (!answer.ok) throw new Error(told.error);
  return told;
};

const item = async (n) => {
  if (!start.is_served) {
    if (!items.has(n)) items.set(n, read(`item-${n}`));
    return items.get(n);
  }
  return fetched(`items/${n}`);
};

const tell = (problem) => { at("problem").textContent = problem; };

const say = () => {
  const count = (what) => decided.filter((one) => one === what).length;
  at("progress").textContent = decided.length
    ? `sample ${number + 1} of ${decided.length}; ${count("accept")} accepted, `
      + `${count("reject")} rejected, ${count("")} undecided`
    : "no sample was painted";
  for (const what of ["accept", "reject"])
    at(what).setAttribute("aria-pressed", String(decided[number] === what));
};

const look = () => {
  const window_ = document.querySelector("[name=window]:checked").value;
  for (const image of document.querySelectorAll("#pictures img"))
    image.hidden = image.classList.contains("rim")
      ? !at("outline").checked : !image.classList.contains(window_);
};

const picture = (uri, css, one) => {
  const image = new Image(one.width, one.height);
  image.className = css;
  image.alt = css === "rim" ? "" : one.name;
  image.src = uri;
  return image;
};

const figure = (one) => {
  const whole = document.createElement("figure");
  const layers = document.createElement("span");
  const caption = document.createElement("figcaption");
  layers.className = "layers";
  layers.append(...Object.entries(one.images).map(([css, uri]) => picture(uri, css, one)));
  layers.append(picture(one.rim, "rim", one));
  caption.textContent = one.name;
  whole.append(layers, caption);
  return whole;
};

const show = async (n) => {
  if (n < 0 || n >= decided.length) return;
  number = n;
  try {
    const one = await item(n);
    if (number !== n) return; // another one was asked for meanwhile
    shown = one;
    at("name").textContent = one.sample_id;
    at("facts").textContent = one.facts;
    at("comment").value = one.comment;
    document.querySelector(`[name=window][value=${one.window}]`).checked = true;
    at("pictures").replaceChildren(...one.figures.map(figure));
    look();
    tell("");
  } catch (err) { tell(err.message); }
  say();
};

const undecided = () => {
  const after = decided.indexOf("", number + 1);
  return after < 0 ? decided.indexOf("") : after;
};

const decide = async (decision, comment = at("comment").value) => {
  const n = number, one = shown;
  if (!one) return;
  try {
    if (start.is_served) await fetched("answers", { number: n, decision, comment });
    decided[n] = decision;
    Object.assign(one, { decision, comment: decision ? comment : "" });
    unsaved = !start.is_served;
    tell("");
    say();
  } catch (err) { tell(err.message); }
};

const decideAndGoOn = async (decision) => {
  const n = number;
  await decide(decision);
  if (decided[n] === decision && number === n) await show(Math.min(n + 1, decided.length - 1));
};

const save = () => {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const lines = [["sample_id", "decision", "comment", "sample_digest"].join(",")];
  decided.forEach((decision, n) => {
    if (!decision) return;
    const one = items.get(n) ?? read(`item-${n}`);
    const comment = one.comment.split(/\s+/).join(" ").trim();
    lines.push([one.sample_id, decision, comment, one.sample_digest].map(quoted).join(","));
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
  link.download = start.table;
  link.click();
  URL.revokeObjectURL(link.href);
  unsaved = false;
};

const choose = (n) => {
  document.querySelectorAll("[name=window]")[n].checked = true;
  look();
};

const KEYS = {
  a: () => decideAndGoOn("accept"), r: () => decideAndGoOn("reject"), u: () => decide(""),
  c: () => at("comment").focus(), n: () => show(undecided()),
  ArrowLeft: () => show(number - 1), ArrowRight: () => show(number + 1),
  1: () => choose(0), 2: () => choose(1), 3: () => choose(2),
  o: () => { at("outline").checked = !at("outline").checked; look(); },
  s: () => { if (!start.is_served) save(); },
};

document.addEventListener("keydown", (event) => {
  const isTyping = event.target === at("comment");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping && (event.key === "Enter" || event.key === "Escape")) {
    event.preventDefault();
    at("comment").blur();
  } else if (!isTyping && Object.hasOwn(KEYS, event.key)) {
    event.preventDefault();
    KEYS[event.key]();
  }
});
at("comment").addEventListener("change", () => { if (decided[number]) decide(decided[number]); });
at("accept").addEventListener("click", () => decideAndGoOn("accept"));
at("reject").addEventListener("click", () => decideAndGoOn("reject"));
at("back").addEventListener("click", () => show(number - 1));
at("next").addEventListener("click", () => show(number + 1));
at("undecided").addEventListener("click", () => show(undecided()));
at("save")?.addEventListener("click", save);
for (const input of document.querySelectorAll("[name=window], #outline"))
  input.addEventListener("change", look);
window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
if (decided.length) show(number); else say();
