// Arithmetic of number formats, exact: integers (BigInt) and fractions of integers.
//
// A format is what mpteach.formats.FloatFormat holds: name, exponent_bits,
// fraction_bits, bias, specials ("ieee", "fn", "fnuz" or "finite"), signed, zero.
// A code is a BigInt. A value is { kind, sign, n, d }: kind "finite", "inf" or "nan",
// sign 0 or 1, and for finite values the size n / d in BigInt.

export class InputError extends Error {}

const power = (exponent) => 1n << BigInt(exponent);
const ones = (width) => power(width) - 1n;
const finite = (sign, n, d) => ({ kind: "finite", sign, n, d });
const special = (kind, sign) => ({ kind, sign });

// n * 2^exponent / d, whichever way the exponent points.
const scaled = (n, d, exponent) =>
  exponent < 0 ? [n, d << BigInt(-exponent)] : [n << BigInt(exponent), d];

// --- What a format is ----------------------------------------------------------

const magnitudeBits = (fmt) => fmt.exponent_bits + fmt.fraction_bits;
export const bitsOf = (fmt) => magnitudeBits(fmt) + (fmt.signed ? 1 : 0);
const signBit = (fmt) => (fmt.signed ? power(magnitudeBits(fmt)) : 0n);
const infinity = (fmt) => ones(fmt.exponent_bits) << BigInt(fmt.fraction_bits);

export function largestCode(fmt) {
  if (fmt.specials === "ieee") return infinity(fmt) - 1n;
  return ones(magnitudeBits(fmt)) - (fmt.specials === "fn" ? 1n : 0n);
}

// The lowest power of two with all significant bits.
const lowestExponent = (fmt) => (fmt.zero ? 1 : 0) - fmt.bias;

// The code of NaN, or null where the format has none. IEEE 754-2019, 6.2.1: quiet.
function nanCode(fmt, sign) {
  const signed = sign ? signBit(fmt) : 0n;
  if (fmt.specials === "fn") return signed | ones(magnitudeBits(fmt));
  if (fmt.specials === "fnuz") return signBit(fmt);
  if (fmt.specials === "finite") return null;
  return signed | infinity(fmt) | power(fmt.fraction_bits - 1);
}

// --- From codes to values ------------------------------------------------------

export function fieldsOf(fmt, code) {
  const fraction = code & ones(fmt.fraction_bits);
  const exponent = (code >> BigInt(fmt.fraction_bits)) & ones(fmt.exponent_bits);
  const sign = Number((code & signBit(fmt)) !== 0n);
  return { sign, exponent, fraction, kind: kindOf(fmt, code, exponent, fraction) };
}

function kindOf(fmt, code, exponent, fraction) {
  const top = exponent === ones(fmt.exponent_bits);
  if (fmt.specials === "ieee" && top) return fraction ? "nan" : "inf";
  const allOnes = top && fraction === ones(fmt.fraction_bits);
  if (fmt.specials === "fn" && allOnes) return "nan";
  if (fmt.specials === "fnuz" && code === signBit(fmt)) return "nan";
  if (exponent || !fmt.zero) return "normal";
  return fraction ? "subnormal" : "zero";
}

export function decode(fmt, code) {
  const { sign, exponent, fraction, kind } = fieldsOf(fmt, code);
  if (kind === "nan" || kind === "inf") return special(kind, sign);
  const hidden = kind === "normal" ? power(fmt.fraction_bits) : 0n;
  const field = kind === "normal" ? Number(exponent) : 1;
  const exponentOfStep = field - fmt.bias - fmt.fraction_bits;
  return finite(sign, ...scaled(hidden + fraction, 1n, exponentOfStep));
}

// The code one step further up or down, or null. From max it is inf, if there is one.
export function neighbour(fmt, code, up) {
  if (fieldsOf(fmt, code).kind === "nan") return null;
  const negative = (code & signBit(fmt)) !== 0n;
  const size = code & ones(magnitudeBits(fmt));
  const highest = fmt.specials === "ieee" ? infinity(fmt) : largestCode(fmt);
  if (up !== negative) return size < highest ? code + 1n : null;
  // From zero to the smallest value of the other sign.
  if (size === 0n) return fmt.signed ? (negative ? 1n : signBit(fmt) + 1n) : null;
  const reachesZero = size === 1n && fmt.zero;
  return reachesZero && fmt.specials === "fnuz" ? 0n : code - 1n;
}

// What a reader should know about the code, the most telling first.
export function namesOf(fmt, code) {
  const { sign, kind } = fieldsOf(fmt, code);
  const size = code & ones(magnitudeBits(fmt));
  const minus = sign ? "minus " : "";
  if (kind === "nan") return [nanName(fmt, code)];
  if (kind === "inf") return [`${minus}infinity`];
  if (kind === "zero") return [`${minus}zero`];
  const firstNormal = fmt.zero ? power(fmt.fraction_bits) : 0n;
  const names = [kind];
  if (size === largestCode(fmt)) names.push(sign ? "lowest value" : "largest value");
  if (sign) return names;
  if (size === firstNormal) names.push("smallest normal");
  if (size === firstNormal - 1n) names.push("largest subnormal");
  if (size === (fmt.zero ? 1n : 0n)) names.push("smallest positive value");
  return names;
}

function nanName(fmt, code) {
  if (fmt.specials !== "ieee") return "NaN, not a number";
  const quiet = (code >> BigInt(fmt.fraction_bits - 1)) & 1n;
  return `NaN, not a number (${quiet ? "quiet" : "signalling"})`;
}

// The distance from |x| to the next larger number, or null where there is none.
export function gap(fmt, code) {
  const { exponent, kind } = fieldsOf(fmt, code);
  const isLast = (code & ones(magnitudeBits(fmt))) === largestCode(fmt);
  if (isLast || kind === "nan" || kind === "inf") return null;
  const field = kind === "normal" ? Number(exponent) : 1;
  return finite(0, ...scaled(1n, 1n, field - fmt.bias - fmt.fraction_bits));
}

// --- From values to codes ------------------------------------------------------

// n / d to the nearest integer, ties to even.
function rounded(n, d) {
  const down = n / d;
  const twice = 2n * (n - down * d);
  return twice > d || (twice === d && down & 1n) ? down + 1n : down;
}

const widthOf = (n) => n.toString(2).length;

function floorLog2(n, d) {
  const guess = widthOf(n) - widthOf(d);
  const [left, right] = scaled(n, d, -guess);
  return left < right ? guess - 1 : guess;
}

// The code of the size n / d on the grid that goes on beyond max.
function codeOnGrid(fmt, n, d) {
  const lowest = lowestExponent(fmt);
  if (n === 0n) return 0n;
  const exponent = Math.max(floorLog2(n, d), lowest);
  const steps = rounded(...scaled(n, d, fmt.fraction_bits - exponent));
  // Each binade above the lowest adds one to the exponent field; the hidden bit of
  // `steps` is the field's own first one, where there is a zero.
  const binades = BigInt(exponent - lowest) << BigInt(fmt.fraction_bits);
  const code = steps + binades - (fmt.zero ? 0n : power(fmt.fraction_bits));
  return code < 0n ? 0n : code;
}

// Round once, to nearest, ties to even. `code` is null where the format has no code
// for the value; `overflow` says whether it lay beyond max after rounding.
export function encode(fmt, value) {
  const { kind, sign } = value;
  const isZero = kind === "finite" && value.n === 0n;
  const negative = sign === 1 && !isZero;
  if (kind === "nan") return { code: nanCode(fmt, sign), overflow: false };
  if (negative && !fmt.signed) return { code: nanCode(fmt, 0), overflow: false };
  if (kind === "inf") return { code: beyond(fmt, sign), overflow: false };
  const code = codeOnGrid(fmt, value.n, value.d);
  if (code > largestCode(fmt)) return { code: beyond(fmt, sign), overflow: true };
  const signless = code === 0n && fmt.specials === "fnuz";
  return { code: sign && !signless ? signBit(fmt) | code : code, overflow: false };
}

// What inf becomes, and what rounds beyond max.
function beyond(fmt, sign) {
  const signed = sign ? signBit(fmt) : 0n;
  if (fmt.specials === "ieee") return signed | infinity(fmt);
  return fmt.specials === "finite" ? signed | largestCode(fmt) : nanCode(fmt, sign);
}

// What a format makes of a value: its code, a word, and the relative error as a
// fraction [n, d], or null where there is none.
export function convert(fmt, value) {
  const { code, overflow } = encode(fmt, value);
  if (code === null) return { code, word: "has no NaN", error: null };
  const found = decode(fmt, code);
  const word = wordFor(value, found, overflow);
  return { code, word, error: relativeError(value, found) };
}

function wordFor(value, found, overflow) {
  if (overflow) return "overflow";
  if (found.kind === "nan") return "not a number";
  if (value.kind === "inf") return found.kind === "inf" ? "exact" : "overflow";
  if (found.n === 0n && value.n > 0n) return "becomes zero";
  return found.n * value.d === value.n * found.d ? "exact" : "rounded";
}

function relativeError(value, found) {
  if (value.kind !== "finite" || found.kind !== "finite") return null;
  if (value.n === 0n) return found.n === 0n ? [0n, 1n] : null;
  const difference = found.n * value.d - value.n * found.d;
  return [difference < 0n ? -difference : difference, value.n * found.d];
}

// --- From text to values -------------------------------------------------------

const DECIMAL = /^(\d+\.?\d*|\.\d+)(?:e([+-]?\d+))?$/i;
const POWER = /^(2|10)(?:\^|\*\*)([+-]?\d+)$/;
const LONGEST = 2000;
const HIGHEST_EXPONENT = 5000;
export const brief = (text) => (text.length > 24 ? `${text.slice(0, 23)}…` : text);
const EXAMPLES = "such as 0.1, 1e-7, -3/8, 2^-24, inf, nan, or a code such as 0x3c00";

// The code that `text` stands for, in `fmt`, and the value that was asked for, or
// null where a code was given. Throws InputError with one sentence for a reader.
export function read(fmt, text) {
  const plain = text.trim().replaceAll("−", "-");
  const { length } = plain;
  if (length > LONGEST) {
    throw new InputError(`That has ${length} characters: type at most ${LONGEST}.`);
  }
  const code = readCode(fmt, plain);
  if (code !== null) return { code, asked: null };
  const asked = readValue(plain);
  return { code: codeFor(fmt, asked, text.trim()), asked };
}

// The code of `value`; throws InputError where the format has none.
export function codeFor(fmt, value, shown) {
  const { code } = encode(fmt, value);
  if (code !== null) return code;
  const lack = value.kind === "nan" ? "NaN" : "negative numbers and no NaN";
  throw new InputError(
    `${fmt.name} has no ${lack}, so ${brief(shown)} cannot be shown in it: ` +
      "choose another format or type another number.",
  );
}

function readCode(fmt, text) {
  const match = /^0([xb])(.*)$/i.exec(text);
  if (!match) return null;
  const digits = match[2].replaceAll(/[_ ]/g, "");
  const binary = match[1].toLowerCase() === "b";
  if (!(binary ? /^[01]+$/ : /^[0-9a-f]+$/i).test(digits)) {
    const allowed = binary ? "0b and the digits 0 and 1" : "0x and hexadecimal digits";
    throw new InputError(`${brief(text)} is no code: write ${allowed}.`);
  }
  const code = BigInt(`0${match[1].toLowerCase()}${digits}`);
  if (code > ones(bitsOf(fmt))) {
    throw new InputError(
      `${brief(text)} is too long: ${fmt.name} codes have ${bitsOf(fmt)} bits, so ` +
        `the highest is ${hexOf(fmt, ones(bitsOf(fmt)))}.`,
    );
  }
  return code;
}

export function readValue(text) {
  const [, minus, size] = /^([+-]?)\s*(.*)$/s.exec(text);
  const sign = Number(minus === "-");
  if (/^(inf|infinity|∞)$/i.test(size)) return special("inf", sign);
  if (/^nan$/i.test(size)) return special("nan", sign);
  const parts = size.split("/").map((part) => readSize(part.trim()));
  if (text === "" || parts.length > 2 || parts.includes(null)) {
    const given = brief(text) || "Nothing";
    throw new InputError(`${given} is no number: type one ${EXAMPLES}.`);
  }
  const [[n, d], [over, under]] = [parts[0], parts[1] ?? [1n, 1n]];
  if (over === 0n) {
    throw new InputError(`${brief(text)} divides by zero: type another number.`);
  }
  return finite(sign, n * under, d * over);
}

function readSize(text) {
  const asPower = POWER.exec(text);
  if (asPower) return raised(BigInt(asPower[1]), 1n, 0, Number(asPower[2]));
  const match = DECIMAL.exec(text);
  if (!match) return null;
  const [whole, after = ""] = match[1].split(".");
  return raised(10n, BigInt(whole + after), after.length, Number(match[2] ?? 0));
}

// digits * base^(exponent - places), as [n, d].
function raised(base, digits, places, exponent) {
  if (Math.abs(exponent) > HIGHEST_EXPONENT) {
    throw new InputError(
      `The exponent ${exponent} is out of reach: give one from ` +
        `-${HIGHEST_EXPONENT} to ${HIGHEST_EXPONENT}.`,
    );
  }
  const factor = base ** BigInt(Math.abs(exponent - places));
  return exponent < places ? [digits, factor] : [digits * factor, 1n];
}

// --- From values to text -------------------------------------------------------

export const hexOf = (fmt, code) =>
  "0x" + code.toString(16).padStart(Math.ceil(bitsOf(fmt) / 4), "0");

export const binaryOf = (fmt, code) => code.toString(2).padStart(bitsOf(fmt), "0");

const LONGEST_EXACT = 26;
const signText = (value) => (value.sign ? "−" : "");

export function exactText(value) {
  if (value.kind === "nan") return "NaN";
  if (value.kind === "inf") return `${signText(value)}∞`;
  if (value.n === 0n) return `${signText(value)}0`;
  // d is a power of two, so the digits end: 1/2^k is 5^k/10^k.
  const places = widthOf(value.d) - 1;
  const digits = (value.n * 5n ** BigInt(places)).toString();
  const exponent = digits.length - 1 - places;
  return signText(value) + notation(digits.replace(/0+$/, ""), exponent);
}

// As a keyboard has it.
export const typeable = (text) =>
  text.replace("∞", "inf").replace("NaN", "nan").replaceAll("−", "-");

// To `count` significant digits, rounded to even, with ≈ where digits were lost.
export function shortText(value, count) {
  if (value.kind !== "finite" || value.n === 0n) return exactText(value);
  const { digits, exponent, exact } = significant(value.n, value.d, count);
  if (exact) return signText(value) + notation(digits, exponent);
  return "≈ " + signText(value) + notation(digits, exponent, count);
}

// A fraction [n, d] as d.dde±x, three digits.
export function errorText([n, d]) {
  if (n === 0n) return "0";
  const { digits, exponent } = significant(n, d, 3);
  if (exponent >= -2 && exponent <= 2) return notation(digits, exponent);
  return scientific(digits.padEnd(3, "0"), exponent);
}

// Text to type that gives `code`: exact where that is short, else as short as can be.
export function inputText(fmt, code) {
  const value = decode(fmt, code);
  const exact = typeable(exactText(value));
  if (exact.length <= LONGEST_EXACT) return exact;
  for (let count = 1; ; count += 1) {
    const { digits, exponent } = significant(value.n, value.d, count);
    const text = typeable(signText(value) + notation(digits, exponent));
    if (encode(fmt, readValue(text)).code === code) return text;
  }
}

function significant(n, d, count) {
  let exponent = Math.floor((widthOf(n) - widthOf(d)) * Math.LOG10E * Math.LN2) - 1;
  const ten = (e) => 10n ** BigInt(e);
  const atLeast = (e) => (e < 0 ? n * ten(-e) >= d : n >= d * ten(e));
  while (atLeast(exponent + 1)) exponent += 1;
  const shift = count - 1 - exponent;
  const tens = 10n ** BigInt(Math.abs(shift));
  const [top, bottom] = shift < 0 ? [n, d * tens] : [n * tens, d];
  let digits = rounded(top, bottom).toString();
  if (digits.length > count) exponent += 1;
  digits = digits.replace(/0+$/, "");
  return { digits, exponent, exact: top % bottom === 0n };
}

// Plain where a reader can count the zeros, scientific beyond; `count` keeps zeros.
function notation(digits, exponent, count = 1) {
  const bare = digits.padEnd(count, "0");
  if (exponent < -6 || exponent > 20) return scientific(bare, exponent);
  if (exponent < 0) return `0.${"0".repeat(-exponent - 1)}${bare}`;
  const whole = bare.padEnd(exponent + 1, "0");
  const after = whole.slice(exponent + 1);
  return whole.slice(0, exponent + 1) + (after && `.${after}`);
}

function scientific(digits, exponent) {
  const after = digits.slice(1);
  const sign = exponent < 0 ? "−" : "+";
  return `${digits[0]}${after && `.${after}`}e${sign}${Math.abs(exponent)}`;
}
