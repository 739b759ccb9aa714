// The desk page: takes accession numbers, starts jobs, shows how far they are. The state is on the server.
"use strict";

const byId = (id) => document.getElementById(id);
const page = JSON.parse(byId("page").textContent);
const texts = page.texts;
const field = byId("field"); // absent where a signed link limits the page to its numbers
const list = byId("jobs");
const plural = new Intl.PluralRules(page.language);
const number = new Intl.NumberFormat(page.language);
const size = new Intl.NumberFormat(page.language, { style: "unit", unit: "megabyte", maximumFractionDigits: 1 });
const time = new Intl.DateTimeFormat(page.language, { timeStyle: "short" });
const dateTime = new Intl.DateTimeFormat(page.language, { dateStyle: "medium", timeStyle: "short" });

const BUSY_PACE = 1000; // milliseconds between two looks while something is being made
const IDLE_PACE = 2000;
const PATIENCE = 15000;
const SAVED = "accession numbers";

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const counted = (forms, count, total = count) =>
  fill(forms[plural.select(total)] ?? forms.other, { count: number.format(count), total: number.format(total) });
const put = (element, text) => element.textContent === text || (element.textContent = text);
const say = (text) => put(byId("said"), text);

// --- The service -------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(code, message = "") {
    super(message);
    this.code = code;
  }
}

const address = (path) => (page.link ? `${path}?${page.link}` : path);

async function call(method, path, body, signal = AbortSignal.timeout(PATIENCE)) {
  const content = body && { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const response = await fetch(address(path), { method, signal, cache: "no-store", ...content }).catch((error) => {
    throw new Problem("offline", String(error));
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  // An answer that isn't ours comes from a proxy in front of a service that is away.
  throw new Problem(answer.error?.code ?? "offline", answer.error?.message ?? `HTTP ${response.status}`);
}

const wordsFor = (code) => page.errors[code] ?? page.errors.unknown;

function tellProblem(problem) {
  const box = byId("problem");
  put(box.querySelector(".what"), wordsFor(problem.code).what);
  put(box.querySelector(".do"), wordsFor(problem.code).do);
  put(box.querySelector(".message"), problem.message);
  box.querySelector("details").hidden = !problem.message;
  box.hidden = false;
  box.scrollIntoView({ block: "nearest" });
}

// Do what a button is for, and tell what stands in its way.
async function attempt(work) {
  byId("problem").hidden = true;
  put(byId("notice"), "");
  await work().catch(tellProblem);
}

// --- Accession numbers -------------------------------------------------------------------------------------

let numbers = page.limited ? page.numbers : JSON.parse(sessionStorage.getItem(SAVED) ?? "[]");

function setNumbers(wanted) {
  numbers = [...new Set(wanted)];
  if (!page.limited) sessionStorage.setItem(SAVED, JSON.stringify(numbers));
  byId("chips").replaceChildren(...numbers.map(chip));
}

function chip(text) {
  const item = document.createElement("li");
  item.className = "chip";
  item.append(text);
  if (!field) return item;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "×";
  button.ariaLabel = fill(texts.remove, { number: text });
  button.addEventListener("click", () => remove(text));
  button.addEventListener("keydown", (event) => ["Delete", "Backspace"].includes(event.key) && remove(text));
  item.append(button);
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
  }
}

// The field is free at once: the next number may be scanned before the answer is here.
async function start(kind, wanted) {
  if (!page.limited) setNumbers([]);
  try {
    const job = await call("POST", "api/jobs", { kind, accession_numbers: wanted });
    if (items.has(job.id)) put(byId("notice"), texts.joined);
    await follow();
    point(job.id);
  } catch (problem) {
    setNumbers([...wanted, ...numbers]);
    throw problem;
  }
}

async function startChosen(kind) {
  field?.focus();
  if (!takeField()) return;
  if (!numbers.length) throw new Problem("missing_parameter");
  await start(kind, numbers);
}

// --- The list of jobs --------------------------------------------------------------------------------------

const items = new Map(); // job id → its element
let states = new Map(); // job id → the state that was seen last

const running = (job) => job.state === "queued" || job.state === "running";
const names = (job) => job.accession_numbers.join(", ");
const work = (job) => JSON.stringify([job.kind, ...[...job.accession_numbers].sort()]);

function show(jobs) {
  const inTheMaking = new Set(jobs.filter(running).map(work));
  jobs.forEach((job, place) => {
    const item = items.get(job.id) ?? create(job);
    draw(item, job, inTheMaking.has(work(job)));
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  for (const item of [...list.children].slice(jobs.length)) {
    items.delete(item.dataset.id);
    item.remove();
  }
  byId("none").hidden = jobs.length > 0;
  tellEnds(jobs);
}

function create(job) {
  const item = byId("job").content.firstElementChild.cloneNode(true);
  const made = new Date(job.created_at);
  const today = made.toDateString() === new Date().toDateString();
  item.dataset.id = job.id;
  put(item.querySelector(".numbers"), names(job));
  put(item.querySelector(".kind"), texts.kind[job.kind]);
  put(item.querySelector("time"), (today ? time : dateTime).format(made));
  item.querySelector("time").dateTime = job.created_at;
  item.querySelector(".bar").ariaLabel = fill(texts.progress_of, { numbers: names(job) });
  item.querySelector("[data-do=download]").href = address(`api/jobs/${job.id}/iso`);
  items.set(job.id, item);
  return item;
}

function draw(item, job, beingMade) {
  const held = item.contains(document.activeElement) && document.activeElement;
  const again = job.state !== "done" ? "retry" : job.kind === "print" ? "print_again" : "make_again";
  item.dataset.state = job.state;
  put(item.querySelector(".word"), word(job));
  put(item.querySelector(".counts"), counts(job));
  drawBar(item.querySelector(".bar"), job);
  drawError(item, job);
  drawAction(item, job, "download", "download", job.state === "done" && job.links.iso);
  drawAction(item, job, "again", again, !running(job) && !beingMade && !job.links.iso);
  drawAction(item, job, "cancel", "cancel", running(job));
  if (held && !held.checkVisibility()) item.focus();
}

function drawAction(item, job, name, text, visible) {
  const action = item.querySelector(`[data-do=${name}]`);
  if (action.ariaDisabled !== "true") put(action, texts.action[text]);
  action.ariaLabel = `${texts.action[text]}: ${names(job)}`;
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
  const told = job.error !== null && job.state !== "cancelled";
  const message = [told ? `${job.error.message} (${job.error.code}, ${job.id})` : "", ...job.notes].join(" ").trim();
  item.querySelector(".failure").hidden = !told;
  put(item.querySelector(".what"), told ? wordsFor(job.error.code).what : "");
  put(item.querySelector(".do"), told ? wordsFor(job.error.code).do : "");
  put(item.querySelector(".message"), message);
  item.querySelector("details").hidden = !message;
}

function word(job) {
  const print = job.kind === "print";
  if (job.state === "done") return texts.state[print ? "printed" : job.links.iso ? "ready" : "gone"];
  if (job.state === "failed" && print) return texts.state.print_failed;
  if (job.state === "cancelled" && job.instances.sent) return texts.state.print_cancelled;
  if (!running(job)) return texts.state[job.state];
  if (job.stage === "waiting" && job.place) return fill(texts.stage[job.place === 1 ? "next" : "place"], job);
  return texts.stage[job.stage === "finding" && job.state === "queued" ? "starting" : job.stage];
}

function counts(job) {
  const { expected, received, sent } = job.instances;
  const total = expected ?? received;
  if (!total || job.stage === "finding" || !(running(job) || received)) return "";
  if (job.state === "done") return `${counted(texts.images, received)}, ${size.format(job.bytes / 1e6)}`;
  if (job.stage === "sending") return counted(texts.sent_of, sent, total);
  if (job.stage === "waiting" || expected === null) return counted(texts.images, total);
  return counted(texts.images_of, received, expected);
}

// Say what ended since the last look; progress is shown, not said.
function tellEnds(jobs) {
  const ended = jobs.filter((job) => states.has(job.id) && states.get(job.id) !== job.state && !running(job));
  states = new Map(jobs.map((job) => [job.id, job.state]));
  if (ended.length) say(ended.map((job) => `${names(job)}: ${word(job)}`).join(". "));
}

function point(id) {
  const item = items.get(id);
  item?.classList.remove("new");
  item?.scrollIntoView({ block: "nearest" });
  requestAnimationFrame(() => item?.classList.add("new"));
}

// A button of the list, once: a second print is a second disc.
async function act(button) {
  const path = `api/jobs/${button.closest(".job").dataset.id}`;
  const cancel = button.dataset.do === "cancel";
  button.ariaDisabled = "true";
  if (cancel) put(button, texts.action.cancelling);
  try {
    const job = await (cancel ? call("DELETE", path) : call("POST", `${path}/again`));
    await follow();
    if (!cancel) point(job.id);
  } finally {
    button.ariaDisabled = "false";
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
  const answer = await call("GET", "api/jobs", undefined, mine.signal).catch((problem) => problem);
  clearTimeout(late);
  if (mine !== asking) return;
  if (answer.code === "unauthorized" || answer.code === "forbidden") return tellProblem(answer);
  byId("offline").hidden = !(answer instanceof Problem);
  if (answer.jobs) show(answer.jobs);
  const busy = [...states.values()].some((state) => running({ state }));
  timer = setTimeout(follow, busy ? BUSY_PACE : IDLE_PACE);
}

// The disc that a link of the HIS asks for is started once: from then on the address doesn't ask any more.
async function startFromLink() {
  await start("iso", page.numbers);
  history.replaceState(null, "", page.here);
}

setNumbers(numbers);
field?.addEventListener("keydown", typed);
field?.addEventListener("paste", pasted);
byId("new").addEventListener("submit", (event) => event.preventDefault());
byId("dismiss").addEventListener("click", () => {
  byId("problem").hidden = true;
  field?.focus();
});
for (const button of document.querySelectorAll("[data-start]")) {
  button.addEventListener("click", (event) => {
    if (event.detail < 2) attempt(() => startChosen(button.dataset.start)); // a double click is one
  });
}
list.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (button && event.detail < 2 && button.ariaDisabled !== "true") attempt(() => act(button));
});
document.addEventListener("visibilitychange", () => document.hidden || follow());
follow().then(() => page.start && attempt(startFromLink));
