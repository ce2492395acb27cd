"use strict";
// One picture at a time: a guess, then a confidence, which sends the answer. There is no way back.
const at = (id) => document.getElementById(id);
const degrees = [...document.querySelectorAll(".confidence")];
let picture = null;
let guess = null;

const choose = (what) => {
  guess = what;
  for (const one of ["real", "painted"]) at(one).setAttribute("aria-pressed", String(one === what));
  for (const degree of degrees) degree.disabled = what === null;
};

const show = (told) => {
  choose(null);
  picture = told.picture ?? null;
  at("question").hidden = !picture;
  at("result").textContent = told.result ?? "";
  at("progress").textContent = picture
    ? `picture ${told.done + 1} of ${told.total}` : "all pictures are answered";
  if (picture) at("picture").src = told.uri;
};

const asked = async (path, body) => {
  try {
    const answer = await fetch(path, body && {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const told = await answer.json().catch(() => ({ error: `the server says ${answer.status}` }));
    if (!answer.ok) throw new Error(told.error);
    at("problem").textContent = "";
    show(told);
  } catch (err) { at("problem").textContent = err.message; }
};

const send = (confidence) => {
  if (!picture || !guess) return;
  const answer = { picture, guess, confidence };
  picture = null; // so that a second press sends nothing
  asked("answers", answer).then(() => {
    if (at("problem").textContent) ({ picture } = answer);
  });
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!picture) return;
  if (event.key === "r") choose("real");
  else if (event.key === "p") choose("painted");
  else if (degrees.some((one) => one.value === event.key)) send(Number(event.key));
});
at("real").addEventListener("click", () => choose("real"));
at("painted").addEventListener("click", () => choose("painted"));
for (const degree of degrees) degree.addEventListener("click", () => send(Number(degree.value)));
asked("items/0");
