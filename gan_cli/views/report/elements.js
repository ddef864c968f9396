// Functions that make elements of a page and format values.

// ---- Elements. Text from a run becomes text nodes and attribute values, never markup.

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const SVG = "http://www.w3.org/2000/svg";
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// ---- Values as text.

/** A name with possible line breaks after "/", "_" and ".". */
const breakable = (name) => name.split(/(?<=[/_.])/).flatMap((part) => [part, el("wbr")]);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
/** A value of a configuration as text; a dash for a missing value. */
function asText(value) {
  if (value === null || value === undefined) return "\u2013";
  return typeof value === "string" ? value : JSON.stringify(value);
}
/** A number with `digits` significant digits, without trailing zeros. */
function rounded(value, digits) {
  const size = Math.abs(value);
  const written =
    size >= 1e15 || (size > 0 && size < 1e-4)
      ? value.toExponential(digits - 1).replace(/\.?0*e\+?/, "e")
      : String(Number(value.toPrecision(digits)));
  return written.replaceAll("-", "\u2212");
}
/** A number with four significant digits; an integer in full; any other value as text. */
function short(value) {
  if (!isNumber(value)) return asText(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  return rounded(value, 4);
}
function tickText(value) {
  const size = Math.abs(value);
  if (size < 1e3 || size >= 1e15) return rounded(value, 6);
  const notation = size < 1e4 ? "standard" : "compact";
  return value.toLocaleString("en", { notation, maximumSignificantDigits: 6 }).replace("-", "\u2212");
}
function duration(seconds) {
  if (!isNumber(seconds)) return null;
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
/** The date and the minutes of a time in ISO 8601. */
const moment = (time) => asText(time).replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*/, "$1 $2");
/** Compares values for sorting. Numbers precede other values, and missing values are last in both directions. */
function order(a, b, sign) {
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if (isNumber(a) && isNumber(b)) return sign * (a - b);
  if (isNumber(a) !== isNumber(b)) return sign * (isNumber(a) ? -1 : 1);
  return sign * asText(a).localeCompare(asText(b), "en", { numeric: true });
}
