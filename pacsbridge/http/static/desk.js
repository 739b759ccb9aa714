// The desk page: takes accession numbers, starts jobs, shows how far they are. The state is on the server.
"use strict";

const page = JSON.parse(document.getElementById("page").textContent);
const texts = page.texts;
const byId = (id) => document.getElementById(id);
const field = byId("field"); // none where a signed link limits the page to its numbers
const plural = new Intl.PluralRules(page.language);
const number = new Intl.NumberFormat(page.language);
const megabytes = new Intl.NumberFormat(page.language, { style: "unit", unit: "megabyte", maximumFractionDigits: 1 });
const time = new Intl.DateTimeFormat(page.language, { timeStyle: "short" });
const dateTime = new Intl.DateTimeFormat(page.language, { dateStyle: "medium", timeStyle: "short" });

const BUSY_PACE = 1000; // milliseconds between two looks while something is being made
const IDLE_PACE = 5000;
const PATIENCE = 15000;
const SHOWN = 25;
const SAVED = "accession numbers";

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const counted = (forms, count, total = count) =>
  fill(forms[plural.select(total)] ?? forms.other, { count: number.format(count), total: number.format(total) });

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- The service -------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const address = (path) => (page.link ? `${path}?${page.link}` : path);

async function call(method, path, body, signal = AbortSignal.timeout(PATIENCE)) {
  let response;
  try {
    const content = body && { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    response = await fetch(address(path), { method, signal, cache: "no-store", ...content });
  } catch (error) {
    throw new Problem("offline", String(error));
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  // An answer that isn't ours comes from a proxy in front of a service that is away.
  throw new Problem(answer.error?.code ?? "offline", answer.error?.message ?? `HTTP ${response.status}`);
}

function tellProblem(problem) {
  const box = byId("problem");
  const words = page.errors[problem.code] ?? page.errors.unknown;
  put(box.querySelector(".what"), words.what);
  put(box.querySelector(".do"), words.do);
  put(box.querySelector(".message"), problem.message);
  box.querySelector("details").hidden = !problem.message;
  box.hidden = false;
}

// Do what a button is for, once: neither a double click nor a second Enter does it twice.
async function once(button, work) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  byId("problem").hidden = true;
  put(byId("notice"), "");
  try {
    await work();
  } catch (error) {
    tellProblem(error);
  } finally {
    button.ariaDisabled = "false";
  }
}

// --- Accession numbers -------------------------------------------------------------------------------------

let numbers = page.limited ? page.numbers : JSON.parse(sessionStorage.getItem(SAVED) ?? "[]");

function setNumbers(wanted) {
  numbers = [...new Set(wanted)];
  sessionStorage.setItem(SAVED, JSON.stringify(numbers));
  byId("chips").replaceChildren(...numbers.map(chip));
}

function chip(text) {
  const item = document.createElement("li");
  item.className = "chip";
  item.append(text);
  if (field) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "×";
    button.ariaLabel = fill(texts.remove, { number: text });
    button.addEventListener("click", () => remove(text));
    button.addEventListener("keydown", (event) => {
      if (event.key === "Delete" || event.key === "Backspace") remove(text);
    });
    item.append(button);
  }
  return item;
}

function remove(text) {
  const place = numbers.indexOf(text);
  setNumbers(numbers.filter((other) => other !== text));
  (byId("chips").children[place]?.querySelector("button") ?? field).focus();
  say(fill(texts.removed, { number: text }));
}

// Take numbers over as chips; what can't be an accession number stays in the field, and is told.
function add(parts) {
  const given = parts.map((part) => part.trim()).filter(Boolean);
  const wrong = given.filter((part) => [...part].length > 16 || /[*?\\\p{C}]/u.test(part));
  setNumbers([...numbers, ...given.filter((part) => !wrong.includes(part))]);
  field.value = wrong.join(", ");
  field.ariaInvalid = String(wrong.length > 0);
  put(byId("notice"), wrong.map((part) => fill(texts.not_a_number, { number: part })).join(" "));
  return wrong.length === 0;
}

// A scanned number may have a space in it, so only commas part what is typed; a pasted list is parted by spaces too.
const takeField = () => !field || add(field.value.split(/[,;]/));

function pasted(event) {
  const parts = (event.clipboardData?.getData("text") ?? "").split(/[\s,;]+/).filter(Boolean);
  if (parts.length < 2) return;
  event.preventDefault();
  add(parts);
}

function typed(event) {
  if (event.isComposing) return;
  if (event.key === "Enter") {
    event.preventDefault(); // a barcode reader ends with it: it adds, and never starts
    takeField();
  } else if (event.key === "Backspace" && !field.value && numbers.length) {
    remove(numbers.at(-1));
    field.focus();
  }
}

async function start(kind, wanted) {
  const job = await call("POST", "api/jobs", { kind, accession_numbers: wanted });
  const known = items.has(job.id);
  if (!page.limited) setNumbers([]);
  await follow();
  point(job.id);
  if (known) put(byId("notice"), texts.joined);
}

async function startChosen(kind) {
  if (!takeField()) return field.focus();
  field?.focus();
  if (!numbers.length) throw new Problem("missing_parameter", "");
  await start(kind, numbers);
}

// --- The list of jobs --------------------------------------------------------------------------------------

const list = byId("jobs");
const items = new Map(); // job id → its element
const states = new Map(); // job id → the state that was seen last
let listed = [];
let limit = SHOWN;

const running = (job) => job.state === "queued" || job.state === "running";
const work = (job) => JSON.stringify([job.kind, ...[...job.accession_numbers].sort()]);

function show(jobs) {
  listed = jobs;
  const chosen = jobs.filter((job, place) => place < limit || running(job));
  const inTheMaking = new Set(jobs.filter(running).map(work));
  chosen.forEach((job, place) => {
    const item = items.get(job.id) ?? create(job);
    draw(item, job, inTheMaking.has(work(job)));
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  const kept = new Set(chosen.map((job) => job.id));
  for (const [id, item] of items) {
    if (!kept.has(id)) {
      item.remove();
      items.delete(id);
    }
  }
  byId("none").hidden = jobs.length > 0;
  byId("more").hidden = chosen.length === jobs.length;
  tellEnds(jobs);
}

function create(job) {
  const item = byId("job").content.firstElementChild.cloneNode(true);
  const made = new Date(job.created_at);
  const today = made.toDateString() === new Date().toDateString();
  const names = job.accession_numbers.join(", ");
  item.dataset.id = job.id;
  item.querySelector(".numbers").textContent = names;
  item.querySelector(".kind").textContent = texts.kind[job.kind];
  item.querySelector("time").textContent = (today ? time : dateTime).format(made);
  item.querySelector("time").dateTime = job.created_at;
  item.querySelector(".bar").ariaLabel = fill(texts.progress_of, { numbers: names });
  item.querySelector("[data-do=download]").href = address(`api/jobs/${job.id}/iso`);
  items.set(job.id, item);
  return item;
}

function draw(item, job, beingMade) {
  const held = item.contains(document.activeElement) && document.activeElement;
  item.dataset.state = job.state;
  put(item.querySelector(".word"), word(job));
  put(item.querySelector(".counts"), counts(job));
  drawBar(item.querySelector(".bar"), job);
  drawError(item, job);
  const again = job.state !== "done" ? "retry" : job.kind === "print" ? "print_again" : "make_again";
  drawAction(item, job, "download", "download", job.state === "done" && job.links.iso);
  drawAction(item, job, "again", again, !running(job) && !beingMade && !job.links.iso);
  drawAction(item, job, "cancel", item.dataset.cancelling ? "cancelling" : "cancel", running(job));
  if (held && !held.checkVisibility()) item.focus();
}

function drawAction(item, job, name, text, visible) {
  const action = item.querySelector(`[data-do=${name}]`);
  put(action, texts.action[text]);
  action.ariaLabel = `${texts.action[text]}: ${job.accession_numbers.join(", ")}`;
  action.hidden = !visible;
}

function drawBar(bar, job) {
  const percent = Math.floor(job.progress * 100);
  const unknown = job.stage === "receiving" && job.instances.expected === null;
  bar.hidden = !running(job);
  bar.classList.toggle("unknown", unknown);
  bar.ariaValueNow = unknown ? null : String(percent);
  bar.ariaValueText = [word(job), counts(job)].filter(Boolean).join(", ");
  bar.firstElementChild.style.width = `${percent}%`;
}

function drawError(item, job) {
  const told = job.state === "failed" || job.state === "interrupted";
  const words = (told && (page.errors[job.error?.code] ?? page.errors.unknown)) || { what: "", do: "" };
  const message = [told ? `${job.error?.message} (${job.error?.code}, ${job.id})` : "", ...job.notes];
  item.querySelector(".failure").hidden = !told;
  put(item.querySelector(".what"), words.what);
  put(item.querySelector(".do"), words.do);
  put(item.querySelector(".message"), message.filter(Boolean).join(" "));
  item.querySelector("details").hidden = !message.some(Boolean);
}

function word(job) {
  const print = job.kind === "print";
  if (job.state === "done") return texts.state[print ? "printed" : job.links.iso ? "ready" : "gone"];
  if (job.state === "failed" && print) return texts.state.print_failed;
  if (!running(job)) return texts.state[job.state];
  if (job.stage === "waiting" && job.place) return fill(texts.stage[job.place === 1 ? "next" : "place"], job);
  return texts.stage[job.stage === "finding" && job.state === "queued" ? "starting" : job.stage];
}

function counts(job) {
  const { expected, received, sent } = job.instances;
  if (job.stage === "finding" || !(expected || received)) return "";
  if (job.state === "done") return `${counted(texts.images, received)}, ${megabytes.format(job.bytes / 1e6)}`;
  if (job.stage === "sending") return counted(texts.sent_of, sent, expected ?? received);
  if (job.stage === "waiting") return counted(texts.images, expected ?? received);
  return expected ? counted(texts.images_of, received, expected) : counted(texts.images, received);
}

// Say what ended since the last look; progress is not said, only shown.
function tellEnds(jobs) {
  const ended = jobs.filter((job) => states.has(job.id) && states.get(job.id) !== job.state && !running(job));
  jobs.forEach((job) => states.set(job.id, job.state));
  if (ended.length) say(ended.map((job) => `${job.accession_numbers.join(", ")}: ${word(job)}`).join(". "));
}

function say(text) {
  byId("said").textContent = text;
}

function point(id) {
  const item = items.get(id);
  if (!item) return;
  item.classList.remove("new");
  item.scrollIntoView({ block: "nearest" });
  requestAnimationFrame(() => item.classList.add("new"));
}

async function act(button) {
  const item = button.closest(".job");
  const path = `api/jobs/${item.dataset.id}`;
  if (button.dataset.do === "cancel") {
    item.dataset.cancelling = "yes";
    put(button, texts.action.cancelling);
    await call("DELETE", path).finally(() => delete item.dataset.cancelling);
    await follow();
  } else {
    const job = await call("POST", `${path}/again`);
    await follow();
    point(job.id);
  }
}

// --- Following ---------------------------------------------------------------------------------------------

let timer = 0;
let asking = null;

// Ask for all jobs, and again after a while; a call while an answer is awaited asks anew.
async function follow() {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  const late = setTimeout(() => mine.abort(), PATIENCE);
  try {
    show((await call("GET", "api/jobs", undefined, mine.signal)).jobs);
    byId("offline").hidden = true;
  } catch (problem) {
    if (mine !== asking) return;
    if (problem.code === "unauthorized" || problem.code === "forbidden") return tellProblem(problem);
    byId("offline").hidden = false;
  } finally {
    clearTimeout(late);
  }
  if (mine === asking) timer = setTimeout(follow, listed.some(running) ? BUSY_PACE : IDLE_PACE);
}

// The disc that a link of the HIS asks for is started once: from then on the address doesn't ask any more.
async function startFromLink() {
  try {
    await start("iso", page.numbers);
    history.replaceState(null, "", page.here);
  } catch (problem) {
    tellProblem(problem);
    setNumbers(page.numbers);
  }
}

setNumbers(numbers);
field?.addEventListener("keydown", typed);
field?.addEventListener("paste", pasted);
byId("new").addEventListener("submit", (event) => event.preventDefault());
byId("dismiss").addEventListener("click", () => {
  byId("problem").hidden = true;
  field?.focus();
});
byId("more").addEventListener("click", () => {
  limit = Infinity;
  show(listed);
});
for (const button of document.querySelectorAll("[data-start]")) {
  button.addEventListener("click", () => once(button, () => startChosen(button.dataset.start)));
}
list.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (button && event.detail < 2) once(button, () => act(button));
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) follow();
});
follow().then(() => page.start && startFromLink());
