"use strict";
// The report's data in; a page on which a person answers each image, and a CSV with the answers, out.
// Texts of the report reach the page as text alone: nothing here sets HTML.

const report = JSON.parse(find("report").textContent);
const items = report.items;
const places = new Map(); // page of a file -> the items that show it; copies of a file share their answers
for (const [index, item] of items.entries()) {
  item.key = `${item.sha256}:${item.page}`;
  places.set(item.key, [...(places.get(item.key) ?? []), index]);
}

const given = new Map(); // page of a file -> the answer that was given here
const steps = []; // what undo goes back to
const tiles = []; // one element an item
const lists = []; // one element a group
const ROWS = 6; // of tiles, in one element that the browser lays out only when it comes near
let columns = 0;
const stops = []; // of each group, the item that Tab comes to
let chosen = -1;

const PARTS = {
  review: ["To review", "Digits that the model was not sure of."],
  no_digit: ["No digit found", "Pages that were taken for empty or for something else. Type the digit if there is one."],
  audit: ["Audit sample", "Pages that were read as sure, picked without looking at them. Answer all, and you know how many are wrong."],
};
const REJECTS = { not_a_digit: "Not a digit", blank: "Blank" };

function find(id) {
  return document.getElementById(id);
}

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [property, value] of Object.entries(properties)) {
    if (property in made) made[property] = value;
    else made.setAttribute(property, value);
  }
  made.append(...children);
  return made;
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function percent(share) {
  return `${(100 * share).toFixed(2)}%`;
}

function wholePercent(share) {
  return `${Math.floor(Math.round(10000 * share) / 100)}%`; // 0.9999 is not yet 100%
}

function visible(name) {
  // A name must not turn the text around it.
  return name.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function place(item) {
  return visible(item.path) + (item.page > 1 ? `, page ${item.page}` : "");
}

// ---- answers ----------------------------------------------------------------------------------------------------

function answerOf(item) {
  return given.get(item.key) ?? item.corrected;
}

function acceptable(item) {
  return item.digit === null ? "x" : String(item.digit);
}

function spoken(answer) {
  return answer === "x" ? "not a digit" : answer;
}

function answer(changes, told) {
  steps.push({ index: chosen, before: changes.map(([key]) => [key, given.get(key)]) });
  change(changes);
  tell(told);
}

function change(changes) {
  for (const [key, value] of changes) {
    if (value === undefined) given.delete(key);
    else given.set(key, value);
    remember(key);
    for (const index of places.get(key)) mark(index);
  }
  count();
  describe();
}

function answerChosen(value) {
  if (chosen < 0) return;
  const item = items[chosen];
  answer([[item.key, value]], `${spoken(value)} for ${place(item)}`);
  const next = nextOpen(chosen);
  if (next >= 0) move(next);
}

function acceptGroup(group) {
  const open = groupItems(group).filter((item) => !answerOf(item));
  const changes = new Map(open.map((item) => [item.key, acceptable(item)]));
  answer([...changes], `${plural(open.length, "image")} accepted`);
  const next = nextOpen(Math.max(chosen, 0));
  if (next >= 0) move(next);
}

function takeBack() {
  if (chosen < 0) return;
  if (given.has(items[chosen].key)) answer([[items[chosen].key, undefined]], `Answer taken back for ${place(items[chosen])}`);
  else tell("There is no answer of yours to take back");
}

function undo() {
  const step = steps.pop();
  if (!step) {
    tell("Nothing to undo");
    return;
  }
  change(step.before);
  tell("Undone");
  move(step.index);
}

function nextOpen(from) {
  for (let step = 1; step <= items.length; step++) {
    const index = (from + step) % items.length;
    if (!answerOf(items[index])) return index;
  }
  return -1;
}

function groupItems(group) {
  return items.slice(group.start, group.start + group.size);
}

// ---- memory -----------------------------------------------------------------------------------------------------
// Each answer is kept by the page's own address and by the bytes that it is about: a report that is made anew at the
// same place shows what was answered, and one at another place does not.

let memory = null;
try {
  memory = window.localStorage;
  memory.setItem("batchdigits", "x".repeat(500)); // as much as an answer takes
  memory.removeItem("batchdigits");
} catch {
  memory = null;
}

function memoryKey(key) {
  return `batchdigits:${location.pathname}:${key}`;
}

function remember(key) {
  if (!memory) return;
  try {
    if (given.has(key)) {
      const known = items[places.get(key)[0]].corrected;
      memory.setItem(memoryKey(key), JSON.stringify([given.get(key), known]));
    } else {
      memory.removeItem(memoryKey(key));
    }
  } catch {
    memory.removeItem(memoryKey(key)); // it is full: better none than an older answer
    find("no-memory").hidden = false;
  }
}

function recall() {
  find("no-memory").hidden = Boolean(memory);
  let newer = 0;
  for (const [key, [index]] of memory ? places : []) {
    const text = memory.getItem(memoryKey(key));
    if (!text) continue;
    const [value, known] = parsed(text);
    const corrected = items[index].corrected;
    if (/^[0-9x]$/.test(value) && known === corrected) {
      given.set(key, value);
    } else {
      memory.removeItem(memoryKey(key)); // the report has learnt an answer since
      if (value !== corrected) newer += 1;
    }
  }
  find("new-answers").hidden = newer === 0;
  find("new-answers").textContent = `Of ${plural(newer, "image")} the report holds a newer answer than this browser; that one is shown.`;
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return Array.isArray(value) ? value : [];
  } catch {
    return [];
  }
}

// ---- pictures ---------------------------------------------------------------------------------------------------

const blocks = new Map();
const waiting = new Set(); // places for pictures that have not come in yet

function pictureAt(index) {
  const number = Math.floor(index / report.block);
  if (!blocks.has(number)) {
    const data = find(`pictures-${number}`);
    // While the page comes in, only an element with another behind it is whole.
    if (!data || (document.readyState === "loading" && !data.nextElementSibling)) return null;
    blocks.set(number, JSON.parse(data.textContent));
    data.textContent = "";
  }
  return blocks.get(number)[index % report.block];
}

function draw(frame, index) {
  const picture = pictureAt(index);
  if (picture === null) {
    frame.dataset.index = index;
    waiting.add(frame);
    return;
  }
  waiting.delete(frame);
  if (picture) {
    const image = element("img", { alt: "", decoding: "async", draggable: false });
    image.src = `data:image/png;base64,${picture}`;
    frame.replaceChildren(image);
  } else {
    frame.replaceChildren(element("span", { className: "none" }, "no picture"));
  }
}

function drawWaiting() {
  for (const frame of [...waiting]) draw(frame, Number(frame.dataset.index));
  if (document.readyState === "loading") setTimeout(drawWaiting, 50);
}

const sight = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      for (const tile of target.children) if (!tile.firstChild.firstChild) draw(tile.firstChild, Number(tile.dataset.index));
    }
  },
  { rootMargin: "600px" },
);

// ---- what is shown ----------------------------------------------------------------------------------------------

function build() {
  const images = find("images");
  let start = 0;
  let part = null;
  let section = null;
  for (const [number, group] of report.groups.entries()) {
    group.start = start;
    start += group.size;
    if (group.part !== part) {
      part = group.part;
      const [title, meaning] = PARTS[part];
      section = element("section", { className: "part" }, element("h2", {}, title), element("p", { className: "meaning" }, meaning));
      if (part === "audit") section.append(element("p", { id: "audit", className: "note" }));
      images.append(section);
    }
    section.append(groupElement(group, number));
  }
  if (!items.length) images.append(element("p", { className: "note" }, "No image of this report needs a person."));
}

function groupElement(group, number) {
  const name = group.digit === null ? REJECTS[group.status] : `Read as ${group.digit}`;
  const title = element("h3", { id: `group-${number}` }, name, " ", element("span", { className: "size" }, plural(group.size, "image")));
  group.button = element("button", { type: "button", className: "rest" });
  group.button.addEventListener("click", () => acceptGroup(group));
  const list = element("div", { role: "listbox", "aria-labelledby": title.id, "aria-orientation": "horizontal" });
  stops.push(group.start);
  for (let index = group.start; index < group.start + group.size; index++) {
    const tile = element("div", { role: "option", className: "tile", tabIndex: index === group.start ? 0 : -1 });
    tile.setAttribute("aria-selected", "false");
    tile.dataset.index = index;
    tile.append(element("span", { className: "frame" }), element("span", { className: "mark" }));
    tiles.push(tile);
    items[index].group = number;
    mark(index);
  }
  lists.push(list);
  return element("div", { className: "group" }, element("div", { className: "head" }, title, group.button), list);
}

// Put the tiles into bands of whole rows, anew when the width has room for another number of columns.
function arrange() {
  const fitting = getComputedStyle(find("ruler")).gridTemplateColumns.split(" ").length;
  if (fitting === columns) return;
  columns = fitting;
  const focused = document.activeElement;
  sight.disconnect();
  for (const [number, group] of report.groups.entries()) {
    const bands = [];
    for (let first = 0; first < group.size; first += columns * ROWS) {
      const size = Math.min(columns * ROWS, group.size - first);
      const band = element("div", { role: "presentation", className: "band tiles" });
      band.style.setProperty("--rows", Math.ceil(size / columns));
      band.append(...tiles.slice(group.start + first, group.start + first + size));
      bands.push(band);
    }
    lists[number].replaceChildren(...bands);
    for (const band of bands) sight.observe(band);
  }
  if (tiles.includes(focused)) focused.focus();
}

function mark(index) {
  const item = items[index];
  const tile = tiles[index];
  const value = answerOf(item);
  const accepted = value === acceptable(item);
  tile.dataset.state = value ? (accepted ? "accepted" : "changed") : "open";
  const open = item.confidence === null ? "" : wholePercent(item.confidence);
  tile.lastChild.textContent = value ? `${accepted ? "✓" : "→"} ${value}` : open;
  const read = item.digit === null ? REJECTS[report.groups[item.group].status] : `Read as ${item.digit}, ${percent(item.confidence)} sure`;
  tile.setAttribute("aria-label", `${read}; ${place(item)}; ${value ? `answered: ${spoken(value)}` : "not answered"}`);
}

function count() {
  let answered = 0;
  for (const group of report.groups) {
    const open = groupItems(group).filter((item) => !answerOf(item)).length;
    answered += group.size - open;
    const which = open === 1 ? "the one" : open === group.size ? "all" : "the other";
    const value = group.digit === null ? "not a digit" : group.digit;
    group.button.textContent = open ? `Accept ${which}${open === 1 ? " open" : ` ${open.toLocaleString("en")}`} as ${value}` : "✓ all answered";
    group.button.disabled = !open;
  }
  find("bar").max = Math.max(items.length, 1);
  find("bar").value = answered;
  find("count").textContent = `${answered.toLocaleString("en")} of ${items.length.toLocaleString("en")} answered`;
  find("download").disabled = given.size === 0;
  countErrors();
}

function countErrors() {
  const sample = items.filter((item) => report.groups[item.group].part === "audit");
  if (!sample.length) return;
  const seen = new Set(); // of copies, one counts
  const pages = new Set(sample.map((item) => item.key));
  const checked = sample.filter((item) => answerOf(item) && !seen.has(item.key) && seen.add(item.key));
  const wrong = checked.filter((item) => answerOf(item) !== acceptable(item)).length;
  const [low, high] = wilson(wrong, checked.length);
  const target = report.target_error === null ? "" : `; the target is ${percent(report.target_error)}`;
  find("audit").textContent = checked.length
    ? `${checked.length.toLocaleString("en")} of ${pages.size.toLocaleString("en")} checked, ${wrong.toLocaleString("en")} wrong${checked.length < pages.size ? " so far" : `: ${percent(wrong / checked.length)}, 95% interval ${percent(low)} to ${percent(high)} (Wilson)`}${target}.`
    : `${plural(pages.size, "page")} to check${target}.`;
}

function wilson(wrong, total) {
  if (!total) return [0, 1];
  const z = 1.959963984540054;
  const share = wrong / total;
  const middle = share + (z * z) / (2 * total);
  const half = z * Math.sqrt((share * (1 - share)) / total + (z * z) / (4 * total * total));
  const scale = 1 + (z * z) / total;
  return [Math.max(0, (middle - half) / scale), Math.min(1, (middle + half) / scale)];
}

function summarise() {
  const shares = Object.entries(report.statuses).filter(([, size]) => size);
  const held = report.target_error === null ? "" : `, chosen so that at most ${percent(report.target_error)} of the others are wrong, on scans like the validation data`;
  find("summary").textContent =
    `${plural(report.pages, "page")}: ${shares.map(([status, size]) => `${size.toLocaleString("en")} ${status.replaceAll("_", " ")}`).join(", ") || "none"}. ` +
    `Digits below a confidence of ${percent(report.threshold)} are to review${held}. ${report.trust} Model ${report.model}.`;
}

function describe() {
  find("panel").hidden = chosen < 0;
  if (chosen < 0) return;
  const item = items[chosen];
  const value = answerOf(item);
  const reject = REJECTS[report.groups[item.group].status];
  const second = item.runner_up === null ? "" : ` · ${item.runner_up}: ${percent(item.runner_up_confidence)}`;
  find("said").textContent = item.digit === null ? reject : `Read as ${item.digit}`;
  find("file").textContent = place(item);
  find("detail").textContent = item.digit === null ? visible(item.detail) : `${item.digit}: ${percent(item.confidence)}${second}${item.detail ? ` · ${visible(item.detail)}` : ""}`;
  find("answer").textContent = value ? `${given.has(item.key) ? "Your answer" : "Answer in the report"}: ${spoken(value)}` : "Not answered yet";
  find("answer").dataset.state = tiles[chosen].dataset.state;
  accept.textContent = `✓ ${acceptable(item)}`;
  accept.setAttribute("aria-label", `Accept: ${spoken(acceptable(item))}`);
}

function tell(what) {
  find("live").textContent = `${what}. ${find("count").textContent}.`;
}

// ---- moving -----------------------------------------------------------------------------------------------------

function choose(index) {
  if (index === chosen) return;
  if (chosen >= 0) tiles[chosen].setAttribute("aria-selected", "false");
  chosen = index;
  const group = items[index].group;
  tiles[stops[group]].tabIndex = -1;
  stops[group] = index;
  tiles[index].tabIndex = 0;
  tiles[index].setAttribute("aria-selected", "true");
  draw(find("picture"), index);
  describe();
}

function move(index) {
  if (index < 0) return;
  choose(index);
  // Whoever answers with the buttons stays on them.
  if (!find("pad").contains(document.activeElement)) tiles[index].focus({ preventScroll: true });
  tiles[index].scrollIntoView({ block: "nearest" });
}

function above(index) {
  const group = report.groups[items[index].group];
  const place = index - group.start;
  if (place >= columns) return index - columns;
  const before = report.groups[items[index].group - 1];
  if (!before) return index;
  const lastRow = before.size - ((before.size - 1) % columns) - 1;
  return before.start + Math.min(lastRow + place, before.size - 1);
}

function below(index) {
  const group = report.groups[items[index].group];
  const place = index - group.start;
  const lastRow = group.size - ((group.size - 1) % columns) - 1;
  if (place < lastRow) return group.start + Math.min(place + columns, group.size - 1);
  const after = report.groups[items[index].group + 1];
  return after ? after.start + Math.min(place % columns, after.size - 1) : index;
}

const MOVES = {
  ArrowLeft: (index) => Math.max(index - 1, 0),
  ArrowRight: (index) => Math.min(index + 1, items.length - 1),
  ArrowUp: above,
  ArrowDown: below,
  Home: (index) => report.groups[items[index].group].start,
  End: (index) => report.groups[items[index].group].start + report.groups[items[index].group].size - 1,
};

function press(event) {
  if (find("help").open || event.altKey || event.isComposing) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" || event.shiftKey) return;
    undo();
  } else if (event.key in MOVES) {
    if (chosen >= 0) move(MOVES[event.key](chosen));
  } else if (key === "enter" && event.target.closest("button")) {
    return;
  } else if (/^[0-9x]$/.test(key) || key === "enter") {
    // A key that is held down must not answer image after image.
    if (!event.repeat && chosen >= 0) answerChosen(key === "enter" ? acceptable(items[chosen]) : key);
  } else if (key === "u") {
    undo();
  } else if (key === "delete" || key === "backspace") {
    takeBack();
  } else if (key === "?") {
    find("help").showModal();
  } else {
    return;
  }
  event.preventDefault();
}

// ---- the file ---------------------------------------------------------------------------------------------------

function cell(text) {
  const guarded = /^[=+\-@'\t\r]/.test(text) ? `'${text}` : text; // as our CSV reports do
  return /[",\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

function corrections() {
  const rows = items.filter((item) => given.has(item.key)).map((item) => [item.path, String(item.page), item.sha256, given.get(item.key)]);
  return [["path", "page", "sha256", "corrected"], ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

function download() {
  const address = URL.createObjectURL(new Blob([corrections()], { type: "text/csv;charset=utf-8" }));
  element("a", { href: address, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  tell("corrections.csv is downloaded");
}

// ---- the beginning ----------------------------------------------------------------------------------------------

function button(text, label, keys, act) {
  const made = element("button", { type: "button", "aria-label": label, "aria-keyshortcuts": keys }, text);
  made.addEventListener("click", act);
  find("pad").append(made);
  return made;
}

for (const digit of "0123456789") button(digit, digit, digit, () => answerChosen(digit));
button("x", "Not a digit", "x", () => answerChosen("x"));
const accept = button("✓", "Accept", "Enter", () => answerChosen(acceptable(items[chosen])));
accept.className = "main";
button("Undo", "Undo", "u Control+Z", undo).className = "word";
button("Clear", "Take your answer back", "Delete", takeBack).className = "word";

recall();
build();
arrange();
summarise();
count();
if (items.length) choose(Math.max(nextOpen(-1), 0));
drawWaiting();

new ResizeObserver(arrange).observe(find("ruler"));
document.addEventListener("keydown", press);
for (const event of ["focusin", "click"]) {
  find("images").addEventListener(event, ({ target }) => {
    const tile = target.closest(".tile");
    if (tile) choose(Number(tile.dataset.index));
  });
}
find("download").addEventListener("click", download);
find("show-help").addEventListener("click", () => find("help").showModal());
find("hide-help").addEventListener("click", () => find("help").close());
