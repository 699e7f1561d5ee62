// The bit explorer's view: it draws what arithmetic.js computes, and nothing else.
//
// anywidget calls the default export's `render`; a page without a kernel calls
// `startAll`. STYLE, the text of explorer.css, stands before this file in a bundle.

import {
  InputError, binaryOf, bitsOf, brief, codeFor, convert, decode, errorText, exactText,
  fieldsOf, gap, hexOf, inputText, namesOf, neighbour, read, readValue, shortText,
  typeable,
} from "./arithmetic.js";

const BITS_ON_ONE_LINE = 19;
const BITS_OF_A_LINE = 26;
const FIELDS = ["sign", "exponent", "fraction"];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const widthsOf = (fmt) => ({
  sign: Number(fmt.signed),
  exponent: fmt.exponent_bits,
  fraction: fmt.fraction_bits,
});

// --- The formula ---------------------------------------------------------------

const chip = (field, text) => make("span", { class: `chip ${field}` }, String(text));
const superscript = (...parts) => make("sup", {}, ...parts);
const minus = (number) => String(number).replace("-", "−");
const denominator = (fmt) =>
  fmt.fraction_bits <= 10
    ? [String(2 ** fmt.fraction_bits)]
    : ["2", superscript(String(fmt.fraction_bits))];

// One line of the formula, from what stands for sign, exponent and fraction.
function product(fmt, kind, sign, exponent, fraction) {
  const parts = fmt.signed ? ["(−1)", superscript(sign), " × "] : [];
  if (fmt.fraction_bits > 0) {
    const hidden = kind === "normal" ? "1" : "0";
    parts.push(`(${hidden} + `, fraction, "/", ...denominator(fmt), ") × ");
  }
  const biased = fmt.bias < 0 ? ` + ${-fmt.bias}` : ` − ${fmt.bias}`;
  return [...parts, "2", superscript(kind === "normal" ? exponent : "1", biased)];
}

function formulaOf(fmt, code) {
  const { sign, exponent, fraction, kind } = fieldsOf(fmt, code);
  const values = { sign, exponent, fraction };
  const chips = FIELDS.map((field) => chip(field, values[field]));
  if (kind === "nan" || kind === "inf") return [[specialRule(fmt, kind)]];
  if (kind === "zero") {
    const all = fmt.fraction_bits ? "Exponent 0 and fraction 0" : "Exponent 0";
    return [[`${all}: this is zero.`], [...product(fmt, kind, ...chips), " = 0"]];
  }
  const words = FIELDS.map((field) => chip(field, field));
  return [
    product(fmt, kind, ...words),
    [...product(fmt, kind, ...chips), ...result(fmt, code, kind, Number(exponent))],
  ];
}

// What the formula comes to: a power of two, after a factor where there is one.
function result(fmt, code, kind, exponent) {
  const { sign, n, d } = decode(fmt, code);
  const shift = (kind === "normal" ? exponent : 1) - fmt.bias;
  const size = ["2", superscript(minus(shift))];
  if (fmt.fraction_bits === 0) return [" = ", sign ? "−" : "", ...size];
  const [over, under] = shift < 0 ? [n << BigInt(-shift), d] : [n, d << BigInt(shift)];
  const [relation, factor] = equals({ kind: "finite", sign: 0, n: over, d: under }, 12);
  return [relation, sign ? "−" : "", `${factor} × `, ...size];
}

// [" = ", digits] or, where they go on, [" ≈ ", digits].
function equals(value, count) {
  const text = shortText(lowest(value), count);
  return text.startsWith("≈") ? [" ≈ ", text.slice(2)] : [" = ", text];
}

// The same value with the smallest power of two below the line.
function lowest(value) {
  let { n, d } = value;
  while (n !== 0n && n % 2n === 0n && d % 2n === 0n) [n, d] = [n / 2n, d / 2n];
  return { ...value, n, d };
}

function specialRule(fmt, kind) {
  if (kind === "inf") return "Exponent all ones and fraction 0: this is infinity.";
  if (fmt.specials === "fnuz") {
    return "The code that −0 would have: this is not a number.";
  }
  if (fmt.specials === "ieee") {
    return "Exponent all ones and fraction not 0: this is not a number.";
  }
  return `All ones${fmt.signed ? " below the sign" : ""}: this is not a number.`;
}

// --- The explorer --------------------------------------------------------------

// An explorer drawn into `host`, which offers `formats`. What is shown is { format,
// code, asked }: a name, hexadecimal digits, and the text last typed or "". `changed`
// is called with it after each act of the reader.
export class Explorer {
  constructor(host, formats, changed) {
    // JupyterLab's own shortcuts would take the keys typed here.
    host.setAttribute("data-lm-suppress-shortcuts", "true");
    this.ui = skeleton(formats);
    this.byName = new Map(formats.map((fmt) => [fmt.name, fmt]));
    this.changed = changed;
    const exported = !document.getElementById("jupyter-config-data");
    this.ui.root.classList.toggle("exported", exported);
    const shadow = host.attachShadow({ mode: "open" });
    shadow.append(make("style", {}, STYLE), this.ui.root);
    this.listen();
  }

  show({ format, code, asked }) {
    const before = this.fmt;
    this.fmt = this.byName.get(format);
    this.code = BigInt(`0x${code}`);
    this.asked = asked;
    if (this.fmt !== before) drawBits(this.ui, this.fmt, (bit) => this.flip(bit));
    update(this.ui, this.fmt, this.code, asked);
  }

  set(code, asked = "", fmt = this.fmt) {
    const shown = { format: fmt.name, code: code.toString(16), asked };
    this.show(shown);
    this.changed(shown);
  }

  flip(bit) {
    this.set(this.code ^ (1n << BigInt(bit)));
  }

  step(up) {
    const next = neighbour(this.fmt, this.code, up);
    if (next !== null) this.set(next);
    else say(this.ui, `There is no value ${up ? "above" : "below"} this one.`);
  }

  type(text) {
    const { code, asked } = read(this.fmt, text);
    this.set(code, asked ? text.trim() : "");
  }

  // Another format for the number that was asked for, or else for the one shown.
  choose(fmt) {
    const number = this.asked ? readValue(this.asked) : decode(this.fmt, this.code);
    const asked = this.asked || keptText(fmt, number);
    this.set(codeFor(fmt, number, exactText(number)), asked, fmt);
  }

  // Run `action`; bad input becomes a sentence, and nothing else changes.
  attempt(action) {
    try {
      action();
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      say(this.ui, error.message);
    }
  }

  listen() {
    const { select, input, facts } = this.ui;
    // Enter and leaving the field both end typing, and what is shown was not typed.
    const type = () => {
      if (input.value !== this.ui.written) this.attempt(() => this.type(input.value));
    };
    select.addEventListener("change", () => {
      this.attempt(() => this.choose(this.byName.get(select.value)));
      select.value = this.fmt.name;
    });
    input.addEventListener("change", type);
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") type();
      if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
      event.preventDefault();
      this.step(event.key === "ArrowUp");
    });
    facts.up.addEventListener("click", () => this.step(true));
    facts.down.addEventListener("click", () => this.step(false));
  }
}

// Text for a number that came from bits and loses digits in the format `other`.
function keptText(other, number) {
  if (number.kind !== "finite" || convert(other, number).word === "exact") return "";
  return typeable(exactText(number));
}

function skeleton(formats) {
  const select = make("select", { "aria-label": "Format" });
  for (const { name } of formats) select.append(make("option", { value: name }, name));
  const input = make("input", {
    type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off",
    "aria-label": "Number or code", "aria-describedby": "hint message",
  });
  const parts = { formats, select, input, facts: makeFacts() };
  for (const name of ["bits", "formula", "exact", "note", "others"]) {
    parts[name] = make("div", { class: name });
  }
  parts.bits.setAttribute("role", "group");
  const hint = "Type a number (0.1, 1e-7, -3/8, 2^-24, inf) or a code (0x3c00), then " +
    "Enter. Arrow up and down: next and previous value.";
  parts.message = make("p", { id: "message", class: "message", role: "alert" });
  parts.spoken = make("p", { class: "spoken", "aria-live": "polite" });
  const region = { class: "root", role: "region", "aria-label": "Bit explorer" };
  parts.root = make("div", region,
    make("div", { class: "controls" },
      make("label", {}, make("span", {}, "Format"), select),
      make("label", { class: "wide" }, make("span", {}, "Number or code"), input)),
    make("p", { id: "hint", class: "hint" }, hint), parts.message,
    parts.bits, parts.formula,
    make("div", { class: "value" }, make("div", { class: "title" }, "Exact value"),
      parts.exact, parts.note),
    make("div", { class: "details" }, parts.facts.list, parts.others), parts.spoken);
  return parts;
}

function makeFacts() {
  const facts = { list: make("dl") };
  const titles = { hex: "Hex code", binary: "Binary code", kind: "Kind",
    up: "Next value up", down: "Next value down", gap: "Gap above |x|" };
  for (const [name, title] of Object.entries(titles)) {
    const place = make("dd", { class: name });
    facts[name] = place;
    if (name === "up" || name === "down") {
      facts[name] = make("button", { type: "button", class: "neighbour" });
      place.append(facts[name]);
    }
    facts.list.append(make("div", {}, make("dt", {}, title), place));
  }
  return facts;
}

function say(ui, sentence) {
  ui.message.textContent = sentence;
  ui.input.setAttribute("aria-invalid", String(sentence !== ""));
}

// --- The bits ------------------------------------------------------------------

function drawBits(ui, fmt, flip) {
  const lines = Math.ceil(fmt.fraction_bits / BITS_OF_A_LINE);
  const onOneLine = bitsOf(fmt) <= BITS_ON_ONE_LINE;
  const widths = widthsOf(fmt);
  const inRow = { ...widths, fraction: Math.ceil(widths.fraction / (lines || 1)) };
  const columns = Math.max(widths.sign + widths.exponent, inRow.fraction);
  ui.bits.style.setProperty("--columns", onOneLine ? bitsOf(fmt) : columns);
  ui.bits.setAttribute("aria-label", `The ${bitsOf(fmt)} bits of ${fmt.name}`);
  ui.buttons = [];
  const fields = FIELDS.filter((field) => widths[field] > 0);
  ui.bits.replaceChildren(...fields.map((field) => {
    const row = make("div", { class: "row", style: `--row: ${inRow[field]}` });
    for (let index = widths[field] - 1; index >= 0; index -= 1) {
      row.append(bitButton(ui, fmt, field, index, flip));
    }
    const caption = make("div", { class: "caption" },
      make("span", { class: "title" }, field), make("output", { class: "integer" }));
    return make("div", { class: "field", "data-field": field }, caption, row);
  }));
  ui.buttons[0].tabIndex = 0;
}

function bitButton(ui, fmt, field, index, flip) {
  const place = ui.buttons.length;
  const bit = bitsOf(fmt) - 1 - place;
  const worth = { sign: "", exponent: `, worth ${2 ** index}`,
    fraction: `, worth 2^${index - fmt.fraction_bits}` }[field];
  const label = field === "sign" ? "sign bit" : `${field} bit ${index}${worth}`;
  const button = make("button", { type: "button", class: `bit ${field}`, tabindex: -1,
    title: label, "aria-label": label });
  button.addEventListener("click", () => flip(bit));
  button.addEventListener("focus", () => {
    for (const other of ui.buttons) other.tabIndex = other === button ? 0 : -1;
  });
  button.addEventListener("keydown", (event) => {
    const last = ui.buttons.length - 1;
    const targets = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last };
    const target = targets[event.key];
    if (target === undefined) return;
    event.preventDefault();
    ui.buttons[Math.min(Math.max(target, 0), last)].focus();
  });
  ui.buttons.push(button);
  return button;
}

// --- What follows from the code ------------------------------------------------

function update(ui, fmt, code, asked) {
  const value = decode(fmt, code);
  const fields = fieldsOf(fmt, code);
  const binary = binaryOf(fmt, code);
  ui.select.value = fmt.name;
  ui.written = asked || inputText(fmt, code);
  ui.input.value = ui.written;
  say(ui, "");
  ui.buttons.forEach((button, place) => {
    button.textContent = binary[place];
    button.setAttribute("aria-pressed", String(binary[place] === "1"));
  });
  for (const output of ui.bits.querySelectorAll(".integer")) {
    output.textContent = fields[output.closest(".field").dataset.field];
  }
  ui.formula.replaceChildren(
    ...formulaOf(fmt, code).map((line) => make("p", {}, ...line)));
  ui.exact.textContent = exactText(value);
  ui.exact.classList.toggle("long", ui.exact.textContent.length > 40);
  ui.exact.classList.toggle("endless", ui.exact.textContent.length > 80);
  ui.note.textContent = asked ? noteOf(fmt, asked) : "";
  updateFacts(ui.facts, fmt, code, binary);
  const number = asked ? readValue(asked) : value;
  ui.others.replaceChildren(tableOf(ui.formats, fmt, number, asked));
  const [hex, kind] = [ui.facts.hex.textContent, ui.facts.kind.textContent];
  ui.spoken.textContent = `${fmt.name} ${hex}: ${inputText(fmt, code)}, ${kind}`;
}

function noteOf(fmt, asked) {
  const { word, error } = convert(fmt, readValue(asked));
  const known = error && word !== "exact";
  const ending = known ? `, relative error ${errorText(error)}` : "";
  return `You asked for ${brief(asked)}: ${word}${ending}`;
}

function updateFacts(facts, fmt, code, binary) {
  const { sign, exponent } = widthsOf(fmt);
  const ends = [0, sign, sign + exponent, binary.length];
  const parts = FIELDS.map((_, place) => binary.slice(ends[place], ends[place + 1]));
  const step = gap(fmt, code);
  facts.hex.replaceChildren(hexOf(fmt, code));
  facts.binary.replaceChildren(...parts.filter(Boolean).flatMap(
    (part, place) => [place ? " " : "", ...breakable(part)]));
  facts.kind.replaceChildren(namesOf(fmt, code).join(" · "));
  facts.gap.replaceChildren(...(step ? gapText(step) : ["none"]));
  for (const [name, button] of [["up", facts.up], ["down", facts.down]]) {
    const next = neighbour(fmt, code, name === "up");
    button.disabled = next === null;
    button.textContent = next === null ? "none" : labelOf(fmt, next);
  }
}

// Long lines break between groups of eight bits.
const breakable = (bits) =>
  bits.match(/.{1,8}/g).flatMap((group) => [group, make("wbr")]);

function labelOf(fmt, code) {
  const text = inputText(fmt, code);
  const exact = text === typeable(exactText(decode(fmt, code)));
  return (exact ? "" : "≈ ") + text.replaceAll("-", "−");
}

function gapText({ n, d }) {
  const exponent = n.toString(2).length - d.toString(2).length;
  const value = { kind: "finite", sign: 0, n, d };
  return ["2", superscript(minus(exponent)), equals(value, 10).join("")];
}

// Digits stand below digits, with and without ≈.
const aligned = (text) => (text.startsWith("≈") ? text : `  ${text}`);

function tableOf(formats, fmt, value, asked) {
  const number = brief(asked || shortText(value, 12));
  const others = formats.filter((other) => other !== fmt);
  const rows = others.map((other) => {
    const { code, word, error } = convert(other, value);
    const found = code === null ? null : decode(other, code);
    return make("tr", { "data-result": word },
      make("th", { scope: "row" }, other.name),
      make("td", { class: "number", title: found ? exactText(found) : "" },
        found ? aligned(shortText(found, 9)) : "–"),
      make("td", { class: "number" }, error ? errorText(error) : "–"),
      make("td", { class: "word" }, word));
  });
  const heads = ["Format", "Value", "Relative error", "Result"];
  return make("table", {},
    make("caption", {}, `${number} in the other formats`),
    make("thead", {}, make("tr", {},
      ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows));
}

// --- Where it runs -------------------------------------------------------------

function render({ model, el }) {
  const host = make("div");
  el.append(host);
  const explorer = new Explorer(host, model.get("_formats"), (shown) => {
    model.set("_shown", shown);
    model.save_changes();
  });
  const follow = () => explorer.show(model.get("_shown"));
  follow();
  model.on("change:_shown", follow);
  return () => model.off("change:_shown", follow);
}

// Start each explorer of this page that holds its own definitions.
export function startAll() {
  const waiting = ".mpteach-bit-explorer:not([data-on])";
  for (const host of document.querySelectorAll(waiting)) {
    host.setAttribute("data-on", "");
    const { formats, shown } = JSON.parse(host.querySelector("script").textContent);
    new Explorer(host, formats, () => {}).show(shown);
  }
}

export default { render };
