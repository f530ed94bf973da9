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
let anchor = -1; // where a range begins
let pointed = false; // whether the mouse chose by pointing, which moves no anchor
let under = null; // the tile that the mouse moved over last
let picked = []; // the items that the next key answers: the chosen one, or a range that ends in it
let order = []; // the items that pass the filters, by their places
let lettered = new Map(); // letter -> the item that it goes to

const LETTERS = "abdefghjklmnpqrstvwy"; // keys that do nothing else here, and look like no 0 or 1

const PARTS = {
  review: ["To review", "Digits that the model was not sure of."],
  no_digit: ["No digit found", "Pages that were taken for empty or for something else. Type the digit if there is one."],
  likely: ["Most likely wrong", "The least sure of those that were read as sure. Nobody has to look at them; whoever does finds most of what is wrong here."],
  audit: ["Audit sample", "Pages that were read as sure, picked without looking at them. Answer all, and you know how many are wrong."],
};
const SPOKEN = { x: "not a digit", c: "cannot tell" }; // answers that are no digit
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

const WITHDRAW = "withdraw"; // given in the place of an answer: the one in the report is taken back

function answerOf(item) {
  const value = given.get(item.key) ?? item.corrected;
  return value === WITHDRAW ? "" : value;
}

function acceptable(item) {
  return item.digit === null ? "x" : String(item.digit);
}

function runnerUp(item) {
  return item.runner_up === null ? null : String(item.runner_up);
}

function allAnswered(count) {
  return count === 1 ? "The one image is answered" : `All ${count.toLocaleString("en")} answered`;
}

// The items that people are asked for: the doubtful ones or, where there are none, the audit sample.
function needed() {
  const inParts = (...parts) => items.filter((item) => parts.includes(report.groups[item.group].part));
  const doubtful = inParts("review", "no_digit");
  return doubtful.length ? doubtful : inParts("audit");
}

function spoken(answer) {
  return SPOKEN[answer] ?? answer;
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

// Answer what is picked; `valueOf` gives each item's answer, or null where it has none to give.
function answerPicked(valueOf) {
  if (chosen < 0) return;
  const changes = new Map(picked.map((index) => [items[index].key, valueOf(items[index])]).filter(([, value]) => value !== null));
  if (!changes.size) return;
  const last = Math.max(...picked);
  const [value] = changes.values();
  answer([...changes], picked.length > 1 ? `${plural(changes.size, "image")} answered` : `${spoken(value)} for ${place(items[chosen])}`);
  goOn(last);
}

function acceptGroup(group) {
  const open = groupItems(group).filter((item) => !answerOf(item));
  if (!open.length) return;
  const changes = new Map(open.map((item) => [item.key, acceptable(item)]));
  answer([...changes], `${plural(open.length, "image")} accepted`);
  goOn(Math.max(chosen, 0));
}

function goOn(from) {
  const next = nextOpen(from);
  if (next >= 0) move(next);
  else if (picked.length > 1) choose(chosen);
}

function takeBack() {
  if (chosen < 0) return;
  const { key, corrected } = items[chosen];
  if (given.has(key)) answer([[key, undefined]], `Answer taken back for ${place(items[chosen])}`);
  else if (corrected) answer([[key, WITHDRAW]], `Answer in the report withdrawn for ${place(items[chosen])}`);
  else tell("There is no answer to take back");
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
  const open = (index) => !answerOf(items[index]);
  return order.find((index) => index > from && open(index)) ?? order.find(open) ?? -1;
}

function groupItems(group) {
  return group.members.map((index) => items[index]);
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
    if ((/^[0-9xc]$/.test(value) || value === WITHDRAW) && known === corrected) {
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
  if (frame.id === "picture") showPlace(picture);
  if (!picture) frame.replaceChildren(element("span", { className: "none" }, "no picture"));
  else if (frame.id === "picture") frame.replaceChildren(large(picture));
  else frame.replaceChildren(element("img", { alt: "", decoding: "async", draggable: false, src: png(picture) }));
}

function png(picture) {
  return `data:image/png;base64,${picture}`;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

// Two bytes of a PNG as a number.
function numberAt(bytes, at) {
  return 256 * bytes.charCodeAt(at) + bytes.charCodeAt(at + 1);
}

// Where on its page people should look, and a picture of the page, as `preprocessing/thumbnails.py` writes them into a
// chunk behind the picture's header; null where the picture says all.
function placeOf(picture) {
  const bytes = atob(picture);
  if (bytes.slice(37, 41) !== "inKp") return null;
  const page = bytes.slice(49, 41 + numberAt(bytes, 35));
  return { part: [41, 43, 45, 47].map((at) => numberAt(bytes, at) / 65535), isApart: page !== "", page: page ? btoa(page) : picture };
}

// A picture, or what is within some shares of its width and height, as large as there is room.
function view(picture, [left, top, right, bottom] = [0, 0, 1, 1]) {
  const [width, height] = [18, 22].map((at) => numberAt(atob(picture), at));
  const box = [left * width, top * height, (right - left) * width, (bottom - top) * height];
  return drawn("svg", { viewBox: box.join(" "), "aria-hidden": "true" }, drawn("image", { href: png(picture), width, height }));
}

function large(picture) {
  const place = placeOf(picture);
  return place && !place.isApart ? view(picture, place.part) : view(picture);
}

function showPlace(picture) {
  const place = picture && placeOf(picture);
  find("place").hidden = !place;
  if (!place) return;
  const [left, top, right, bottom] = place.part.map((share) => 100 * share);
  const page = view(place.page);
  page.append(drawn("rect", { x: `${left}%`, y: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` }));
  find("place").replaceChildren(page);
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
    group.members = Array.from({ length: group.size }, (_, step) => group.start + step);
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
  images.append(element("p", { id: "nothing", className: "note", hidden: true }, "No image passes the filters."));
  if (report.failed.length) images.append(failures());
  const parts = new Set(report.groups.map((group) => group.part));
  for (const [part, [title]] of Object.entries(PARTS)) if (parts.has(part)) find("part").append(element("option", { value: part }, title));
}

// What could not be read, by name: there is nothing to show or to answer.
function failures() {
  const told = report.failed.map((file) => element("li", {}, `${place(file)}: ${visible(file.detail)}`));
  const { unreadable, too_large, unsupported } = report.statuses;
  const more = unreadable + too_large + unsupported - told.length;
  if (more) told.push(element("li", {}, `and ${more.toLocaleString("en")} more, which the other reports name`));
  const meaning = element("p", { className: "meaning" }, "There is nothing to answer here. Mend or copy these files again, and run predict again.");
  return element("section", { id: "failed" }, element("h2", {}, "Could not be read"), meaning, element("ul", {}, ...told));
}

function groupElement(group, number) {
  const name = group.digit === null ? REJECTS[group.status] : `Read as ${group.digit}`;
  const title = element("h3", { id: `group-${number}` }, name, " ", element("span", { className: "size" }, plural(group.size, "image")));
  group.button = element("button", { type: "button", className: "rest" });
  group.button.addEventListener("click", () => acceptGroup(group));
  const list = element("div", { role: "listbox", "aria-multiselectable": "true", "aria-labelledby": title.id, "aria-orientation": "horizontal" });
  stops.push(group.start);
  for (let index = group.start; index < group.start + group.size; index++) {
    const tile = element("div", { role: "option", className: "tile", tabIndex: index === group.start ? 0 : -1 });
    tile.setAttribute("aria-selected", "false");
    tile.dataset.index = index;
    tile.append(element("span", { className: "frame" }), element("span", { className: "mark" }));
    if (runnerUp(items[index]) !== null) tile.dataset.second = runnerUp(items[index]);
    tiles.push(tile);
    items[index].group = number;
    mark(index);
  }
  lists.push(list);
  group.element = element("div", { className: "group" }, element("div", { className: "head" }, title, group.button), list);
  return group.element;
}

// Put the tiles into bands of whole rows, anew when the width has room for another number of columns.
function arrange(anew) {
  const fitting = getComputedStyle(find("ruler")).gridTemplateColumns.split(" ").length;
  if (fitting === columns && anew !== true) return;
  columns = fitting;
  const focused = document.activeElement;
  sight.disconnect();
  for (const [number, group] of report.groups.entries()) {
    const bands = [];
    group.element.hidden = !group.members.length;
    for (let first = 0; first < group.members.length; first += columns * ROWS) {
      const size = Math.min(columns * ROWS, group.members.length - first);
      const band = element("div", { role: "presentation", className: "band tiles" });
      band.style.setProperty("--rows", Math.ceil(size / columns));
      band.append(...group.members.slice(first, first + size).map((index) => tiles[index]));
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
  const asked = needed();
  const answered = asked.filter(answerOf).length;
  for (const group of report.groups) {
    const open = groupItems(group).filter((item) => !answerOf(item)).length;
    const which = open === 1 ? "the one" : open === group.members.length ? "all" : "the other";
    const value = group.digit === null ? "not a digit" : group.digit;
    group.button.textContent = open ? `Accept ${which}${open === 1 ? " open" : ` ${open.toLocaleString("en")}`} as ${value}` : "✓ all answered";
    group.button.disabled = !open;
  }
  find("bar").max = Math.max(asked.length, 1);
  find("bar").value = answered;
  find("count").textContent = `${answered.toLocaleString("en")} of ${asked.length.toLocaleString("en")} answered`;
  find("download").disabled = given.size === 0;
  find("end").hidden = answered < asked.length || given.size === 0;
  find("end-title").textContent = `${allAnswered(asked.length)}.`;
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
  find("summary").textContent =
    `${plural(report.pages, "page")}: ${shares.map(([status, size]) => `${size.toLocaleString("en")} ${status.replaceAll("_", " ")}`).join(", ") || "none"}. ` +
    `Digits below a confidence of ${percent(report.threshold)} are to review. ${report.trust} Model ${report.model}.`;
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
  find("original").hidden = !item.link;
  if (item.link) find("original").href = item.link;
  find("some").textContent = picked.length > 1 ? `${plural(picked.length, "image")} picked: the next key answers all of them.` : "";
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

// Choose an item; with `extend`, pick all from where the range began.
function choose(index, extend = false) {
  for (const before of picked) tiles[before].setAttribute("aria-selected", "false");
  pointed = false;
  if (!extend || anchor < 0) anchor = index;
  chosen = index;
  const [first, last] = [Math.min(anchor, index), Math.max(anchor, index)];
  picked = extend ? order.filter((other) => other >= first && other <= last) : [index];
  for (const now of picked) tiles[now].setAttribute("aria-selected", "true");
  const group = items[index].group;
  tiles[stops[group]].tabIndex = -1;
  stops[group] = index;
  tiles[index].tabIndex = 0;
  draw(find("picture"), index);
  describe();
}

function move(index, extend = false) {
  if (index < 0) return;
  choose(index, extend);
  putLetters();
  // Whoever answers with the buttons stays on them.
  if (!find("pad").contains(document.activeElement)) tiles[index].focus({ preventScroll: true });
  tiles[index].scrollIntoView({ block: "nearest" });
}

// Give a letter to each of the items behind the chosen one. An item keeps its letter while one moves on.
function putLetters() {
  for (const index of lettered.values()) tiles[index].removeAttribute("aria-keyshortcuts");
  const first = order.indexOf(chosen) + 1;
  const ahead = order.slice(first, first + LETTERS.length);
  lettered = new Map(ahead.map((index, step) => [LETTERS[(first + step) % LETTERS.length], index]));
  for (const [letter, index] of lettered) tiles[index].setAttribute("aria-keyshortcuts", letter);
}

// The groups that have an item to show, and where in them one stands.
function shownGroups() {
  return report.groups.filter((group) => group.members.length);
}

function above(index) {
  const group = report.groups[items[index].group];
  const at = group.members.indexOf(index);
  if (at >= columns) return group.members[at - columns];
  const groups = shownGroups();
  const before = groups[groups.indexOf(group) - 1];
  if (!before) return index;
  const size = before.members.length;
  const lastRow = size - ((size - 1) % columns) - 1;
  return before.members[Math.min(lastRow + at, size - 1)];
}

function below(index) {
  const group = report.groups[items[index].group];
  const at = group.members.indexOf(index);
  const size = group.members.length;
  const lastRow = size - ((size - 1) % columns) - 1;
  if (at < lastRow) return group.members[Math.min(at + columns, size - 1)];
  const groups = shownGroups();
  const after = groups[groups.indexOf(group) + 1];
  return after ? after.members[Math.min(at % columns, after.members.length - 1)] : index;
}

const MOVES = {
  ArrowLeft: (index) => order[Math.max(order.indexOf(index) - 1, 0)],
  ArrowRight: (index) => order[Math.min(order.indexOf(index) + 1, order.length - 1)],
  ArrowUp: above,
  ArrowDown: below,
  Home: (index) => report.groups[items[index].group].members[0],
  End: (index) => report.groups[items[index].group].members.at(-1),
};

// The digit of a key: by what it writes, or by its place, since some keyboards write digits with Shift alone, and the
// pad writes none without NumLock.
function digitOf(event) {
  if (/^[0-9]$/.test(event.key)) return event.key;
  return /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1] ?? null;
}

// The key by what it writes or, where that is no Latin letter, by its place.
function keyOf(event) {
  return (/^[\x20-\x7e]+$/.test(event.key) ? event.key : event.code.replace("Key", "")).toLowerCase();
}

const isOpen = () => [...document.querySelectorAll("dialog")].some((dialog) => dialog.open);

function press(event) {
  if (isOpen() || event.altKey || event.isComposing || event.target.closest("input, select")) return;
  const key = keyOf(event);
  const digit = digitOf(event);
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" || event.shiftKey) return;
    undo();
  } else if (key === "?") {
    find("help").showModal();
  } else if (digit !== null) {
    // A key that is held down must not answer image after image.
    if (!event.repeat) answerPicked(() => digit);
  } else if (event.key in MOVES) {
    if (pointed) anchor = chosen;
    if (chosen >= 0) move(MOVES[event.key](chosen), event.shiftKey);
  } else if ((key === "enter" || key === " ") && event.target.closest("button, a")) {
    return;
  } else if (key === "enter" && event.shiftKey && picked.length < 2) {
    if (chosen >= 0 && !event.repeat) acceptGroup(report.groups[items[chosen].group]);
  } else if (key in SPOKEN || key === "enter") {
    if (!event.repeat) answerPicked(key === "enter" ? acceptable : () => key);
  } else if (key === " ") {
    if (!event.repeat) answerPicked(runnerUp);
  } else if (key === "z") {
    zoom();
  } else if (key === "/") {
    find("name").focus();
  } else if (key === "u") {
    undo();
  } else if (lettered.has(key)) {
    if (pointed) anchor = chosen;
    move(lettered.get(key), event.shiftKey);
  } else if ((key === "delete" && event.code !== "NumpadDecimal") || key === "backspace") {
    takeBack(); // the pad's dot is no such key
  } else {
    return;
  }
  event.preventDefault();
}

// ---- filters ----------------------------------------------------------------------------------------------------

function filter() {
  const name = find("name").value.trim().toLowerCase();
  const part = find("part").value;
  const most = find("most").value === "" ? Infinity : Number(find("most").value) / 100;
  const passes = (item) =>
    item.path.toLowerCase().includes(name) &&
    (part === "" || (part === "open" ? !answerOf(item) : report.groups[item.group].part === part)) &&
    (item.confidence ?? 0) <= most;
  for (const group of report.groups) {
    group.members = [];
    for (let index = group.start; index < group.start + group.size; index++) if (passes(items[index])) group.members.push(index);
  }
  order = report.groups.flatMap((group) => group.members);
  for (const section of document.querySelectorAll(".part")) section.hidden = !report.groups.some((group) => group.members.length && section.contains(group.element));
  find("nothing").hidden = Boolean(order.length) || !items.length;
  arrange(true);
  count();
  if (order.length && !order.includes(chosen)) choose(order[0]);
  putLetters();
}

// ---- the original -----------------------------------------------------------------------------------------------

// Show the chosen image as large as the window: the original, where the browser finds and knows it, or the picture here.
function zoom() {
  if (chosen < 0) return;
  const item = items[chosen];
  const small = png(pictureAt(chosen) || "");
  const image = element("img", { alt: place(item) });
  image.addEventListener("error", () => { if (image.src !== small) image.src = small; });
  image.src = item.link && item.page === 1 ? item.link : small;
  find("large").replaceChildren(image);
  find("zoom-file").textContent = place(item);
  find("zoom").showModal();
}

// ---- other tabs -------------------------------------------------------------------------------------------------

function hear(event) {
  const prefix = memoryKey("");
  if (!event.key?.startsWith(prefix)) return;
  const key = event.key.slice(prefix.length);
  if (!places.has(key)) return;
  const [value] = event.newValue ? parsed(event.newValue) : [];
  if (value === undefined) given.delete(key);
  else given.set(key, value);
  for (const index of places.get(key)) mark(index);
  count();
  describe();
}

// ---- the file ---------------------------------------------------------------------------------------------------

function cell(text) {
  const guarded = /^[=+\-@'\t\r]/.test(text) ? `'${text}` : text; // as our CSV reports do
  return /[",;\t\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

function corrections() {
  const rows = items.filter((item) => given.has(item.key)).map((item) => [item.path, String(item.page), item.sha256, given.get(item.key)]);
  return [["path", "page", "sha256", "corrected"], ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

function download() {
  const address = URL.createObjectURL(new Blob([corrections()], { type: "text/csv;charset=utf-8" }));
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const day = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  // A name of its own: of two with one name, the browser would rename the second, and the command name the first.
  const name = `corrections-${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}.csv`;
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  tell(`${name} is downloaded`);
  showNext(name);
}

function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

// The report as a shell names it: this very page, where it was opened from a disk.
function reportPath() {
  if (location.protocol !== "file:") return "report.html";
  try {
    return decodeURIComponent(location.pathname);
  } catch {
    return "report.html"; // bytes that are no UTF-8
  }
}

function showNext(name) {
  const asked = needed();
  const open = asked.filter((item) => !answerOf(item)).length;
  find("next-title").textContent = open ? `${(asked.length - open).toLocaleString("en")} answered, ${open.toLocaleString("en")} left` : allAnswered(asked.length);
  find("next-file").textContent = name;
  find("command").textContent = `batchdigits correct ${quoted(reportPath())} ~/Downloads/${name}`;
  find("copied").textContent = "";
  if (!find("next").open) find("next").showModal();
}

function copyCommand() {
  getSelection().selectAllChildren(find("command"));
  const done = document.execCommand("copy"); // works from disk, as the clipboard's own interface does not everywhere
  find("copied").textContent = done ? "Copied." : "Copy the marked text.";
}

// ---- the beginning ----------------------------------------------------------------------------------------------

function button(text, label, keys, act) {
  const made = element("button", { type: "button", "aria-label": label, "aria-keyshortcuts": keys }, text);
  made.addEventListener("click", act);
  find("pad").append(made);
  return made;
}

for (const digit of "0123456789") button(digit, digit, digit, () => answerPicked(() => digit));
button("x", "Not a digit", "x", () => answerPicked(() => "x"));
const accept = button("✓", "Accept", "Enter", () => answerPicked(acceptable));
accept.className = "main";
button("Cannot tell", "Cannot tell", "c", () => answerPicked(() => "c")).className = "word long";
button("Undo", "Undo", "u Control+Z", undo).className = "word";
button("Clear", "Take your answer back", "Delete", takeBack).className = "word";

recall();
build();
order = items.map((_, index) => index);
arrange();
summarise();
count();
if (items.length) {
  choose(Math.max(nextOpen(-1), 0));
  tiles[chosen].scrollIntoView({ block: "nearest" });
}
putLetters();
drawWaiting();

new ResizeObserver(arrange).observe(find("ruler"));
document.addEventListener("keydown", press);
find("images").addEventListener("focusin", ({ target }) => {
  const tile = target.closest(".tile");
  if (!tile || Number(tile.dataset.index) === chosen) return;
  choose(Number(tile.dataset.index));
  putLetters();
});
find("images").addEventListener("pointermove", (event) => {
  // Whoever points at an image and types answers it. A page that scrolls below the pointer moves nothing.
  const tile = event.pointerType === "mouse" && event.target.closest(".tile");
  if (!tile || !(event.movementX || event.movementY) || picked.length > 1 || event.shiftKey) return;
  if (tile === under) return; // it was chosen as the mouse came, and keys have moved on since
  under = tile;
  if (Number(tile.dataset.index) === chosen) return;
  const begun = anchor;
  choose(Number(tile.dataset.index));
  [anchor, pointed] = [begun, true];
});
find("images").addEventListener("mousedown", (event) => {
  if (event.shiftKey && event.target.closest(".tile")) event.preventDefault(); // it would mark text, and begin a new range
});
find("images").addEventListener("click", ({ target, shiftKey }) => {
  const tile = target.closest(".tile");
  if (tile) move(Number(tile.dataset.index), shiftKey);
});
for (const id of ["name", "part", "most"]) find(id).addEventListener("input", filter);
find("picture").addEventListener("click", zoom);
find("hide-zoom").addEventListener("click", () => find("zoom").close());
find("large").addEventListener("click", () => find("zoom").close());
find("end-download").addEventListener("click", download);
window.addEventListener("storage", hear);
find("download").addEventListener("click", download);
find("copy").addEventListener("click", copyCommand);
find("hide-next").addEventListener("click", () => find("next").close());
find("show-help").addEventListener("click", () => find("help").showModal());
find("hide-help").addEventListener("click", () => find("help").close());
