// Two pictures in SVG: a course over time, and a histogram. Each has a crosshair that pointer and arrow keys move.

import { extent, linear, ticks, timeTicks } from "./scales.js";
import * as format from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
// LEFT is the least room for the labels of the values, and WIDE about how wide a character of them is.
const LEFT = 64, RIGHT = 12, TOP = 10, BOTTOM = 24, WIDE = 7.4;

function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function path(points) {
  let drawn = "", pen = false;
  for (const point of points) {
    if (point === null) pen = false;
    else {
      drawn += `${pen ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      pen = true;
    }
  }
  return drawn;
}

/** The stretches of steps for which `has` holds, as lists of places. */
function runs(steps, has) {
  const found = [];
  let run = null;
  steps.forEach((step, at) => {
    if (!has(step)) run = null;
    else if (run) run.push(at);
    else found.push((run = [at]));
  });
  return found;
}

/** What both pictures share: a box that follows its width, an axis of values, and a place that can be chosen. */
class Picture {
  constructor(box, { height, label, read, pick = null }) {
    this.box = box;
    this.height = height;
    this.read = read;
    this.pick = pick;
    this.at = null;
    this.left = LEFT;
    this.svg = element("svg", { role: "img", tabindex: "0", "aria-label": label, height });
    box.replaceChildren(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointerup", (event) => this.release(event));
    this.svg.addEventListener("pointerleave", () => { if (!this.dragged) this.choose(null); });
    this.svg.addEventListener("pointercancel", () => { this.dragged = null; this.draw(); });
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.dragged = null;
    new ResizeObserver(() => this.draw()).observe(box);
  }

  get width() {
    return Math.max(240, this.box.clientWidth);
  }

  show(data) {
    this.data = data;
    if (this.at !== null && this.at >= this.length()) this.choose(null);
    this.draw();
    if (this.at !== null) this.read(this.describe(this.at), this.at);
  }

  /** The axis of values, with as many digits as tell its marks apart, and as much room as these need. */
  axis(low, high, from, to, label, least = 0) {
    const marks = ticks(low, high, 4, least);
    const digits = Math.ceil(Math.log10(Math.max(...marks.map(Math.abs)) / (marks[1] - marks[0]))) + 1;
    const texts = marks.map((mark) => label(mark, Math.min(17, Math.max(4, digits || 4))));
    this.left = Math.max(LEFT, 12 + WIDE * Math.max(...texts.map((text) => text.length)));
    const y = linear(marks[0], marks.at(-1), from, to);
    const drawn = element("g", { class: "axis" });
    for (const [n, mark] of marks.entries()) {
      const at = y(mark).toFixed(1);
      drawn.append(
        element("line", { x1: this.left, x2: this.width - RIGHT, y1: at, y2: at }),
        element("text", { x: this.left - 8, y: at, dy: "0.32em", "text-anchor": "end" }, texts[n]),
      );
    }
    return { y, drawn };
  }

  /** A label of the lower axis, around x as far as it fits. */
  below(x, text) {
    const half = (WIDE * text.length) / 2;
    return element("text", { x: Math.max(half, Math.min(x, this.width - half)).toFixed(1), y: this.height - 6, "text-anchor": "middle" }, text);
  }

  choose(at) {
    if (at === this.at) return;
    this.at = at;
    this.mark();
    this.read(at === null ? null : this.describe(at), at);
  }

  place(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const share = (x - this.left) / (this.width - this.left - RIGHT);
    return Math.min(this.length() - 1, Math.max(0, Math.floor(share * this.length())));
  }

  point(event) {
    if (!this.length()) return;
    if (this.dragged) this.dragged.to = this.place(event);
    this.choose(this.place(event));
    this.mark();
  }

  press(event) {
    if (!this.pick || !this.length() || event.button !== 0) return;
    this.svg.setPointerCapture(event.pointerId);
    this.dragged = { from: this.place(event), to: this.place(event) };
  }

  release() {
    const dragged = this.dragged;
    this.dragged = null;
    if (dragged && dragged.from !== dragged.to) this.pick(Math.min(dragged.from, dragged.to), Math.max(dragged.from, dragged.to));
    this.mark();
  }

  key(event) {
    const last = this.length() - 1;
    if (last < 0) return;
    const at = this.at;
    const moves = {
      ArrowLeft: () => (at === null ? last : Math.max(0, at - 1)),
      ArrowRight: () => (at === null ? 0 : Math.min(last, at + 1)),
      PageUp: () => (at === null ? last : Math.max(0, at - 10)),
      PageDown: () => (at === null ? 0 : Math.min(last, at + 10)),
      Home: () => 0,
      End: () => last,
      Escape: () => null,
    };
    if (event.key in moves) {
      event.preventDefault();
      this.choose(moves[event.key]());
    } else if (event.key === "Enter" && this.pick && at !== null) {
      event.preventDefault();
      this.pick(Math.max(0, at - 1), Math.min(last, at + 1));
    }
  }

  draw() {
    if (!this.data) return;
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.cross = element("g", { class: "cross" });
    this.svg.replaceChildren(...this.length() ? this.paint() : [], this.cross);
    this.mark();
  }

  mark() {
    if (!this.cross) return;
    const length = this.length();
    const x = linear(0, length, this.left, this.width - RIGHT);
    const drawn = [];
    if (this.dragged) {
      const [from, to] = [this.dragged.from, this.dragged.to].sort((a, b) => a - b);
      drawn.push(element("rect", { class: "drag", x: x(from), width: x(to + 1) - x(from), y: TOP, height: this.height - TOP - BOTTOM }));
    }
    if (this.at !== null && length) {
      const middle = x(this.at + 0.5).toFixed(1);
      drawn.push(element("line", { x1: middle, x2: middle, y1: TOP, y2: this.height - BOTTOM }), ...this.dots(this.at, middle));
    }
    this.cross.replaceChildren(...drawn);
  }

  dots() {
    return [];
  }
}

/** The mean as a line, a band around it, and how many events each step has as bars below.
 *  data: {steps: [{from, to (ms), count, mean, low, high}], unit, utc, bandName} */
export class Course extends Picture {
  length() {
    return this.data?.steps.length ?? 0;
  }

  paint() {
    const { steps, unit, utc } = this.data;
    const width = this.width, floor = this.height - BOTTOM, bars = Math.round(this.height * 0.2);
    const from = steps[0].from, to = steps.at(-1).to;
    const range = extent(steps.flatMap((step) => [step.mean, step.low, step.high]));
    const values = range && this.axis(...range, floor - bars - 10, TOP + 4, (mark, digits) => format.value(mark, unit, digits));
    const x = linear(from, to, this.left, width - RIGHT);
    const middle = (step) => x((step.from + step.to) / 2);
    const painted = [];

    const most = Math.max(1, ...steps.map((step) => step.count));
    const tall = linear(0, most, 0, bars);
    const counts = element("g", { class: "counts" });
    for (const step of steps) {
      if (!step.count) continue;
      const size = Math.max(1, tall(step.count));
      const wide = x(step.to) - x(step.from);
      counts.append(element("rect", { x: (x(step.from) + wide * 0.1).toFixed(1), width: Math.max(0.8, wide * 0.8).toFixed(1), y: (floor - size).toFixed(1), height: size.toFixed(1) }));
    }

    if (values) {
      const { y, drawn } = values;
      this.y = y;
      painted.push(drawn);
      const band = runs(steps, (step) => step.low !== null && step.high !== null).map((run) => {
        // A single step has no width as an area: it is drawn as wide as its step.
        const at = (place, edge) => (run.length === 1 ? x(steps[place][edge]) : middle(steps[place]));
        const upper = run.map((place) => [at(place, "from"), y(steps[place].high)]);
        const lower = run.toReversed().map((place) => [at(place, run.length === 1 ? "to" : "from"), y(steps[place].low)]);
        if (run.length === 1) upper.push([x(steps[run[0]].to), upper[0][1]]), lower.push([x(steps[run[0]].from), lower[0][1]]);
        return `${path([...upper, ...lower])}Z`;
      });
      painted.push(element("path", { class: "band", d: band.join("") }));
      painted.push(element("path", { class: "mean", d: path(steps.map((step) => (step.mean === null ? null : [middle(step), y(step.mean)]))) }));
      for (const run of runs(steps, (step) => step.mean !== null)) {
        if (run.length === 1) painted.push(element("circle", { class: "lone", cx: middle(steps[run[0]]).toFixed(1), cy: y(steps[run[0]].mean).toFixed(1), r: 2.5 }));
      }
    }
    painted.push(counts);

    const axis = element("g", { class: "axis" });
    axis.append(element("text", { x: this.left - 8, y: floor - bars + 8, "text-anchor": "end" }, format.count(most)));
    const moments = timeTicks(from, to, Math.max(2, Math.floor((width - this.left) / 90)), format.offsetMs(to, utc));
    const gap = moments.length > 1 ? moments[1] - moments[0] : to - from;
    for (const moment of moments) {
      const at = x(moment).toFixed(1);
      axis.append(element("line", { x1: at, x2: at, y1: floor, y2: floor + 4 }), this.below(x(moment), format.tick(moment, gap, utc)));
    }
    painted.push(axis);
    return painted;
  }

  dots(at, middle) {
    const { mean } = this.data.steps[at];
    return mean === null || !this.y ? [] : [element("circle", { cx: middle, cy: this.y(mean).toFixed(1), r: 4 })];
  }

  describe(at) {
    const { steps, unit, utc, bandName } = this.data;
    const step = steps[at];
    const when = `${format.moment(step.from, utc)}, ${format.ago(step.to - step.from)}`;
    if (!step.count) return `${when}: no events`;
    const about = step.bound && bandName.startsWith("p") ? "≈ " : "";
    return `${when}: ${step.count} events, mean ${format.value(step.mean, unit)}, ${bandName} ${about}${format.value(step.low, unit)} to ${about}${format.value(step.high, unit)}`;
  }
}

/** How values are spread. data: {bins: [{low, high, count}], unit} */
export class Histogram extends Picture {
  length() {
    return this.data?.bins.length ?? 0;
  }

  paint() {
    const { bins, unit } = this.data;
    const width = this.width, floor = this.height - BOTTOM;
    const most = Math.max(1, ...bins.map((bin) => bin.count));
    const { y, drawn } = this.axis(0, most, floor, TOP + 4, (mark, digits) => format.count(mark, digits), 1);
    const x = linear(0, bins.length, this.left, width - RIGHT);
    const bars = element("g", { class: "bars" });
    bins.forEach((bin, at) => {
      if (bin.count) bars.append(element("rect", { x: (x(at) + 0.5).toFixed(1), width: Math.max(0.5, x(at + 1) - x(at) - 1).toFixed(1), y: y(bin.count).toFixed(1), height: Math.max(1, floor - y(bin.count)).toFixed(1) }));
    });
    const axis = element("g", { class: "axis" });
    const every = Math.max(1, Math.ceil(bins.length / Math.max(1, Math.floor((width - this.left) / 90))));
    for (let at = 0; at <= bins.length; at += every) {
      const edge = at < bins.length ? bins[at].low : bins.at(-1).high;
      axis.append(this.below(x(at), format.value(edge, unit, 3)));
    }
    return [drawn, bars, axis];
  }

  describe(at) {
    const { bins, unit } = this.data;
    const bin = bins[at];
    return `${format.value(bin.low, unit)} to ${format.value(bin.high, unit)}: ${bin.count} events`;
  }
}
