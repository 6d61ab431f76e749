"use strict";
// The table of measurements, what is told under the mouse, and the chooser. Rows are numbers into columns; a view
// (filters, order) stands in the address after #explore?, so that a link brings it back.

const data = JSON.parse(document.getElementById("data").textContent);
const texts = new Set(data.texts);
const STEP = 50; // rows shown at first, and more with each press

function value(row, column) {
  const raw = data.columns[column][row];
  return texts.has(column) ? data.words[raw] : raw;
}

function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "rect", "circle", "polygon"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, text] of Object.entries(attributes)) made.setAttribute(name, text);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// -- numbers for people: in the units of hiddencost.formatting --

function number(value, digits) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function quantity(value, low, high, unit) {
  const sizes = data.units[unit];
  const [name, size] = sizes.find(([, size]) => Math.abs(value) >= size) || sizes[sizes.length - 1];
  const half = low === null || high === null ? 0 : (high - low) / 2 / size;
  const exact = !(half > 1e-9 * Math.abs(value / size));
  const significant = unit === "B" ? 3 : 2;
  let digits = exact ? (value === 0 ? 0 : significant - Math.floor(Math.log10(Math.abs(value / size)))) : -Math.floor(Math.log10(half / 2));
  digits = unit === "count" ? 0 : Math.min(Math.max(digits, unit === "" && Math.abs(value) < 10 ? 2 : 0), 4);
  const told = `${number(value / size, digits)} ${name}`.trim();
  return exact ? told : `${told} [${number(low / size, digits)}, ${number(high / size, digits)}]`;
}

// -- the table --

// Conditions stand beside the way that they qualify; those that are the same in the whole run are left out.
const SHOWN = [
  { name: "strategy", cell: wayCell, always: true },
  { name: "points", always: true },
  { name: "extra", looks: "narrow" },
  { name: "mode" },
  { name: "batch", looks: "number" },
  { name: "length", looks: "number" },
  { name: "metric", always: true },
  { name: "value", looks: "number", cell: valueText, always: true },
  { name: "ratio", looks: "number", cell: ratioText, always: true },
  { name: "interval", cell: ratioBar, plain: true, always: true },
  { name: "verdict", always: true },
  { name: "model" },
  { name: "backend" },
  { name: "device" },
  { name: "dtype" },
  { name: "reason", cell: (row) => element("span", { class: "reason" }, value(row, "reason")) },
].filter((column) => column.always || new Set(data.columns[column.name]).size > 1);
const form = document.getElementById("filters");
const table = document.getElementById("measurements");
const field = (name) => form.querySelector(`[name="${name}"]`); // form.elements.length is a number
const view = { filters: {}, text: "", claims: "", sort: "", down: false, shown: STEP };
const WIDE = 200; // pixels of a bar, as page.css has it
const FAR = [0.4, 1.5]; // ratios beyond stand at the edge, as in the plots, so that 0.5 and 1.05 stay apart from 1
let scale = FAR.map(Math.log);

function wayCell(row) {
  const way = value(row, "strategy");
  return element("span", {}, element("span", { class: "dot", style: `background:${data.colours[way]}` }), way);
}

function valueText(row) {
  const shown = value(row, "value");
  return shown === null ? "–" : quantity(shown, value(row, "low"), value(row, "high"), value(row, "unit"));
}

function ratioText(row) {
  const ratio = value(row, "ratio");
  return ratio === null ? "" : quantity(ratio, value(row, "ratio_low"), value(row, "ratio_high"), "");
}

function ratioBar(row) {
  const ratio = value(row, "ratio");
  if (ratio === null) return "";
  const place = (v) => Math.min(Math.max((WIDE * (Math.log(v) - scale[0])) / (scale[1] - scale[0]), 4), WIDE - 4);
  const shade = data.colours[value(row, "strategy")];
  const drawn = element("svg", { class: "ratio", viewBox: `0 0 ${WIDE} 16`, "aria-hidden": "true", "data-told": `${value(row, "strategy")} ${value(row, "points")}: ${ratioText(row)}` });
  const [from, to] = [value(row, "band_low"), value(row, "band_high")];
  if (from !== null) {
    drawn.append(element("rect", { class: "band", x: place(from), width: Math.max(place(to) - place(from), 1), y: 0, height: 16 }));
  }
  drawn.append(element("line", { class: "one", x1: place(1), x2: place(1), y1: 0, y2: 16 }));
  const [low, high] = [value(row, "ratio_low"), value(row, "ratio_high")];
  if (low !== null) {
    drawn.append(element("line", { class: "interval", x1: place(low), x2: place(high ?? low), y1: 8, y2: 8, stroke: shade }));
  }
  const [x, log] = [place(ratio), Math.log(ratio)];
  const arrow = log < scale[0] ? `${x - 3},8 ${x + 3},4 ${x + 3},12` : log > scale[1] ? `${x + 3},8 ${x - 3},4 ${x - 3},12` : "";
  drawn.append(arrow ? element("polygon", { points: arrow, fill: shade }) : element("circle", { cx: x, cy: 8, r: 3.4, fill: shade }));
  return drawn;
}

function matching() {
  const wanted = Object.entries(view.filters).map(([column, text]) => {
    const raw = data.columns[column];
    if (!texts.has(column)) return (row) => String(raw[row]) === text;
    const place = data.words.indexOf(text);
    return (row) => raw[row] === place;
  });
  if (view.claims) wanted.push((row) => value(row, "claims").split(" ").includes(view.claims));
  if (view.text) {
    const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    wanted.push((row) => words.every((word) => searchable(row).includes(word)));
  }
  const rows = [];
  for (let row = 0; row < data.count; row++) if (wanted.every((test) => test(row))) rows.push(row);
  return view.sort ? sorted(rows) : rows;
}

const found = [];
function searchable(row) {
  found[row] ??= [...data.texts].map((column) => value(row, column)).join(" ").toLowerCase();
  return found[row];
}

function sorted(rows) {
  const key = data.columns[view.sort] ? (row) => value(row, view.sort) : () => 0;
  const turn = view.down ? -1 : 1;
  return rows
    .map((row) => [key(row), row])
    .sort(([a, first], [b, second]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what has none comes last, either way
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return turn * order || first - second;
    })
    .map(([, row]) => row);
}

let rows = [];
function show() {
  rows = matching();
  const near = rows.map((row) => value(row, "ratio")).filter((ratio) => ratio >= FAR[0] && ratio <= FAR[1]);
  const [least, most] = near.reduce(([a, b], ratio) => [Math.min(a, ratio), Math.max(b, ratio)], [0.9, 1.1]);
  scale = [Math.log(least * 0.94), Math.log(most * 1.06)];
  const body = table.tBodies[0];
  body.replaceChildren(...rows.slice(0, view.shown).map(line));
  document.getElementById("more").hidden = rows.length <= view.shown;
  const some = Math.min(rows.length, view.shown);
  let told = `${some.toLocaleString("en")} of ${rows.length.toLocaleString("en")} measurements shown`;
  if (view.claims) told += `, those behind the answer to “${view.claims}”`;
  document.getElementById("count").textContent = told;
  for (const head of table.tHead.rows[0].cells) {
    head.removeAttribute("aria-sort");
    if (head.dataset.name === view.sort) head.setAttribute("aria-sort", view.down ? "descending" : "ascending");
  }
}

function line(row) {
  const cells = SHOWN.map((column, place) => {
    const content = column.cell ? column.cell(row) : (value(row, column.name) ?? "");
    return element(place ? "td" : "th", { ...(place ? {} : { scope: "row" }), ...(column.looks ? { class: column.looks } : {}) }, content);
  });
  return element("tr", {}, ...cells);
}

function address() {
  const parts = new URLSearchParams(view.filters);
  if (view.text) parts.set("text", view.text);
  if (view.claims) parts.set("claims", view.claims);
  if (view.sort) parts.set("sort", (view.down ? "-" : "") + view.sort);
  return `#explore${parts.size ? "?" : ""}${parts}`;
}

function changed() {
  view.shown = STEP;
  history.replaceState(null, "", address());
  show();
}

function readAddress() {
  const [target, query] = location.hash.split("?");
  if (target !== "#explore" || query === undefined) return;
  const parts = new URLSearchParams(query);
  const sort = parts.get("sort") || "";
  Object.assign(view, { filters: {}, text: parts.get("text") || "", claims: parts.get("claims") || "", sort: sort.replace(/^-/, ""), down: sort.startsWith("-"), shown: STEP });
  for (const name of data.picked) if (parts.get(name)) view.filters[name] = parts.get(name);
  for (const name of data.picked) field(name).value = view.filters[name] || "";
  field("text").value = view.text;
  show();
  document.getElementById("explore").scrollIntoView();
}

function setUp() {
  for (const name of data.picked) {
    const values = [...new Set(data.columns[name])].filter((raw) => raw !== null).map((raw) => (texts.has(name) ? data.words[raw] : raw));
    values.sort((a, b) => (typeof a === "number" ? a - b : a.localeCompare(b)));
    const select = field(name);
    for (const text of values) if (text !== "") select.append(element("option", { value: text }, text));
    select.closest("label").hidden = values.length < 2; // nothing to choose
  }
  const heads = SHOWN.map((column) => {
    const content = column.plain ? column.name : element("button", { type: "button" }, column.name);
    const head = element("th", { scope: "col", "data-name": column.name }, content);
    if (!column.plain) {
      content.addEventListener("click", () => {
        view.down = view.sort === column.name && !view.down;
        view.sort = column.name;
        changed();
      });
    }
    return head;
  });
  table.tHead.append(element("tr", {}, ...heads));
  form.addEventListener("input", () => {
    view.filters = {};
    for (const name of data.picked) if (field(name).value) view.filters[name] = field(name).value;
    view.text = field("text").value.trim();
    changed();
  });
  form.addEventListener("reset", () => {
    Object.assign(view, { filters: {}, text: "", claims: "", sort: "", down: false });
    changed();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("more").addEventListener("click", () => {
    view.shown += STEP;
    show();
  });
  document.getElementById("csv").addEventListener("click", save);
  window.addEventListener("hashchange", readAddress);
  show();
  readAddress();
}

function save() {
  const columns = Object.keys(data.columns);
  // A cell that begins like a formula is text for a spreadsheet, too.
  const cell = (raw) => {
    let text = raw === null ? "" : String(raw);
    if (typeof raw === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...rows.map((row) => columns.map((column) => value(row, column)))];
  const file = new Blob([lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" });
  const link = element("a", { href: URL.createObjectURL(file), download: "hiddencost.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// -- which way should I use? --

const AXES = ["model", "backend", "device", "dtype", "mode", "points", "batch", "length"];
const chooser = document.getElementById("chooser");
const asked = (name) => chooser.querySelector(`[name="${name}"]`);

function setUpChooser() {
  const { places } = data.chooser;
  if (!places.length) {
    chooser.hidden = true;
    document.getElementById("chosen").append(element("p", {}, "This run timed no way to read hidden states. hiddencost run measures them all."));
    return;
  }
  const [first] = places; // the one with the most ways
  for (const name of AXES) {
    const values = [...new Set(places.map((place) => place[name]))];
    if (typeof values[0] === "number") values.sort((a, b) => a - b);
    asked(name).append(...values.map((text) => element("option", { value: text, ...(text === first[name] ? { selected: "" } : {}) }, String(text))));
    asked(name).closest("label").hidden = values.length < 2;
  }
  chooser.addEventListener("input", choose);
  chooser.addEventListener("submit", (event) => event.preventDefault());
  choose();
}

function choose() {
  const wanted = Object.fromEntries(AXES.map((name) => [name, asked(name).value]));
  const place = data.chooser.places.find((one) => AXES.every((name) => String(one[name]) === wanted[name]));
  const limit = Number.parseFloat(asked("limit").value.replace(/,(?=\d{3}\b)/g, "").replace(",", ".")) * 2 ** 20;
  const into = document.getElementById("chosen");
  into.replaceChildren(...(place ? advice(place, limit) : unmeasured(wanted)));
}

function unmeasured(wanted) {
  if (wanted.points.includes(",")) {
    const list = wanted.points.split(",").map((one) => `"${one}"`);
    return [element("p", {}, "This run has no such case. A grid whose ", element("code", {}, `points = [[${list.join(", ")}]]`), " asks for it.")];
  }
  const options = [["model", "model"], ["backend", "backend"], ["device", "device"], ["dtype", "dtype"], ["mode", "mode"], ["points", "points"], ["batch", "batch"], ["seq", "length"]];
  const plain = (text) => (/^[\w.,:/#-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
  const command = `hiddencost run ${options.map(([option, name]) => `--${option} ${plain(wanted[name])}`).join(" ")}`;
  return [element("p", {}, "This run has no such case. What measures it:"), element("pre", {}, element("code", {}, command))];
}

function advice(place, limit) {
  const bound = limit > 0;
  const fits = fitting(place, limit);
  if (!fits.length) {
    const known = place.ways.filter((way) => way.peak_bytes !== null);
    const least = known.reduce((a, b) => (a && a.peak_bytes <= b.peak_bytes ? a : b), null);
    const told = least
      ? `No way that was measured here fits: the leanest, ${least.strategy}, holds ${quantity(least.peak_bytes, null, null, "B")} at its peak.`
      : "This run did not measure the peak memory of these ways at this shape.";
    return [element("p", {}, told)];
  }
  const [best, ...others] = fits;
  const level = others.filter((way) => best.level.includes(way.strategy)).map((way) => way.strategy);
  const read = Object.hasOwn(data.states, place.points) ? data.states[place.points] : place.points;
  const whole = place.examples ? `a plain predict over ${place.examples} examples` : "a plain forward pass";
  const parts = [
    element("p", { class: "said" }, element("strong", {}, best.strategy), ` reads ${read} in ${ratioOf(best)} of ${whole}${costs(best)}.`),
  ];
  const faster = elsewhere(place, best, limit);
  if (faster) parts.push(element("p", {}, `In ${faster.mode} mode the same takes ${quantity(faster.seconds, null, null, "s")}.`));
  const next = others.find((way) => !best.level.includes(way.strategy));
  if (level.length) parts.push(element("p", {}, `No difference in time is resolved to ${level.join(", ")}.`));
  if (next) parts.push(element("p", {}, `Runner-up: ${next.strategy}, ${ratioOf(next)}${costs(next)}.`));
  const unknown = place.ways.filter((way) => way.peak_bytes === null).length;
  if (bound && unknown) parts.push(element("p", {}, `${unknown} of the ways measured here have no peak memory in this run and are left out.`));
  const lines = data.chooser.lines[[best.strategy, place.mode, place.backend, place.points].join("|")];
  if (lines) parts.push(element("p", {}, "Given a KerasHub ", element("code", {}, "backbone"), " and its ", element("code", {}, "inputs"), ":"), element("pre", { tabindex: "0" }, element("code", {}, lines)), copyButton(lines));
  if (lines) parts.push(element("p", {}, "Or let the package take the way that its reference runs recommend: ", element("code", {}, `hiddencost.extractor(backbone, "${place.points}")`)));
  return parts;
}

// The ways of a place, fastest first, whose peak is known to be within the limit, where there is one.
function fitting(place, limit) {
  return place.ways.filter((way) => !(limit > 0) || (way.peak_bytes !== null && way.peak_bytes <= limit));
}

// The mode, and its seconds, that is clearly faster with all else the same, or null: compiling often matters most.
function elsewhere(place, best, limit) {
  if (place.examples || best.seconds === null) return null;
  const same = AXES.filter((name) => name !== "mode");
  const others = data.chooser.places.filter((one) => one !== place && !one.examples && same.every((name) => one[name] === place[name]));
  const found = others
    .map((one) => ({ mode: one.mode, seconds: fitting(one, limit)[0]?.seconds ?? null }))
    .filter((one) => one.seconds !== null && one.seconds * 1.5 < best.seconds);
  return found.reduce((a, b) => (a && a.seconds <= b.seconds ? a : b), null);
}

function ratioOf(way) {
  return quantity(way.ratio, way.low, way.high, "");
}

function costs(way) {
  const told = [];
  if (way.seconds !== null) told.push(quantity(way.seconds, null, null, "s"));
  if (way.peak_bytes !== null) told.push(`${quantity(way.peak_bytes, null, null, "B")} at its peak`);
  return told.length ? ` (${told.join(", ")})` : "";
}

function copyButton(lines) {
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(lines);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling); // a page from disk may not write there
      button.textContent = "Selected: press Ctrl-C";
    }
  });
  return button;
}

// -- what is told under the mouse --

const told = document.getElementById("told");
document.addEventListener("pointermove", (event) => {
  const over = event.target.closest ? event.target.closest("[data-told]") : null;
  told.hidden = !over;
  if (!over) return;
  told.textContent = over.dataset.told;
  const left = Math.min(event.clientX + 14, window.innerWidth - told.offsetWidth - 8);
  const top = event.clientY + 18 + told.offsetHeight > window.innerHeight ? event.clientY - told.offsetHeight - 10 : event.clientY + 18;
  told.style.left = `${Math.max(left, 4)}px`;
  told.style.top = `${top}px`;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") told.hidden = true;
});

// On paper nothing can be opened: what is folded is printed, and folded again.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
window.addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});

setUpChooser();
setUp();
