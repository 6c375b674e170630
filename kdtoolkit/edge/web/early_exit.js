/** Early-exit classifiers of kdtoolkit in the browser: stops as soon as it is sure. */

import { fit } from "./pixels.js";

const FORMATS = [1, 2, 3]; // of early_exit.json
const LARGEST = 1 << 22; // bytes of an associated file
const END = 0x06054b50; // signatures of a zip's records
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;

/** Runs a packaged classifier stage by stage, up to the first exit that is confident enough. */
export class EarlyExitClassifier {
  /**
   * @param litert The module `@litertjs/core`, after `await litert.loadLiteRt(...)`.
   * @param source Address of a `.tflite` that `kdtoolkit.export.to_early_exit` wrote, or its bytes.
   * @param options For `litert.loadAndCompile`; by default the processor computes.
   * @throws Error with one line: the file cannot be fetched, is damaged, or is no such classifier.
   */
  static async load(litert, source, options = { accelerator: "wasm" }) {
    const bytes = source instanceof Uint8Array ? source : await fetched(source);
    const { labels, values, end } = await readPackage(bytes);
    let model;
    try {
      model = await litert.loadAndCompile(bytes.slice(0, end), options);
    } catch (error) {
      throw new Error(`LiteRT cannot use it: ${oneLine(error)}`);
    }
    const stages = values.exits.map((_, number) => model.signatures[`stage_${number + 1}`]);
    if (stages.includes(undefined)) {
      model.delete();
      throw new Error(`it has not one signature for each of its ${values.exits.length} exits`);
    }
    return new EarlyExitClassifier(litert, model, stages, labels, values);
  }

  constructor(litert, model, stages, labels, values) {
    this.labels = labels;
    this.imageShape = values.image_shape;
    this.exits = values.exits;
    this.costs = values.costs;
    this.temperatures = values.temperatures;
    this.operatingPoints = values.operating_points;
    this.certificate = values.certificate ?? null;
    this.operatingPoint = values.operating_point;
    this._litert = litert;
    this._model = model;
    this._stages = stages;
    this._busy = Promise.resolve();
  }

  /** Index of the operating point in use; null where `thresholds` were set by hand. */
  get operatingPoint() {
    return this._operatingPoint;
  }

  set operatingPoint(index) {
    const last = this.operatingPoints.length - 1;
    require(
      Number.isInteger(index) && index >= 0 && index <= last,
      "operatingPoint",
      `an index from 0 to ${last}`,
    );
    this.thresholds = this.operatingPoints[index].thresholds;
    this._operatingPoint = index;
  }

  /** Confidence at which each exit but the last stops: 0 always, above 1 never. */
  get thresholds() {
    return this._thresholds;
  }

  set thresholds(thresholds) {
    const count = this.exits.length - 1;
    require(
      Array.isArray(thresholds) && thresholds.length === count && thresholds.every(isShare),
      "thresholds",
      `${count} numbers from 0 (always stop) to 1, or above 1 (never stop)`,
    );
    this._thresholds = [...thresholds];
    this._operatingPoint = null;
  }

  /**
   * Classifies an image; calls wait for one another.
   *
   * @param image `ImageData`, or an object of `data` (Uint8Array), `width`, `height` and `channels`
   *   (1, 3 or 4, by default 4).
   * @returns label, index of its class, confidence at the exit's temperature, name of the exit, and
   *   the milliseconds that it took.
   */
  predict(image) {
    return this._afterOthers(async () => {
      const start = performance.now();
      const thresholds = [...this._thresholds, 0];
      for await (const [number, logits] of this._run(image)) {
        const [index, confidence] = surest(logits, this.temperatures[number]);
        if (confidence >= thresholds[number]) {
          const milliseconds = performance.now() - start;
          const [label, exit] = [this.labels[index], this.exits[number]];
          return { label, index, confidence, exit, milliseconds };
        }
      }
      throw new Error("its logits are not finite");
    });
  }

  /** Runs all stages, whatever the thresholds: a Float32Array of logits for each exit. */
  logits(image) {
    return this._afterOthers(async () => {
      const all = [];
      for await (const [, logits] of this._run(image)) all.push(logits);
      return all;
    });
  }

  /** Frees the memory of the graph: LiteRT.js does not by itself. */
  delete() {
    this._model.delete();
  }

  _afterOthers(run) {
    const result = this._busy.then(run);
    this._busy = result.catch(() => {});
    return result;
  }

  async *_run(image) {
    const pixels = fit(image, this.imageShape);
    let inputs = { image: new this._litert.Tensor(pixels, [1, ...this.imageShape]) };
    try {
      for (const [number, stage] of this._stages.entries()) {
        const outputs = await stage.run(inputs);
        release(inputs);
        const { logits, ...features } = outputs;
        inputs = features; // of the next stage
        const values = Float32Array.from(await logits.data());
        logits.delete();
        yield [number, values];
      }
    } finally {
      release(inputs);
    }
  }
}

/** The surest class, and its probability: the softmax of the largest logit. */
export function surest(logits, temperature) {
  let index = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[index]) index = i;
  let sum = 0;
  for (const logit of logits) {
    sum += Math.exp(Math.fround(Math.fround(logit - logits[index]) / temperature));
  }
  return [index, 1 / Math.fround(sum)]; // as all devices do: what is nearly sure is sure
}

/**
 * What a packaged classifier carries beside its graph, checked.
 *
 * @returns labels, the values of early_exit.json, and where the graph ends.
 */
export async function readPackage(bytes) {
  const members = entries(bytes);
  const labels = decoded(await member(bytes, members, "labels.txt")).replace(/\n$/, "").split("\n");
  let values;
  try {
    values = JSON.parse(decoded(await member(bytes, members, "early_exit.json")));
  } catch (error) {
    throw new Error(`its early_exit.json cannot be read: ${oneLine(error)}`);
  }
  if (!FORMATS.includes(values?.format)) {
    throw new Error(`its early_exit.json is not of format ${FORMATS.join(", ")}`);
  }
  const end = Math.min(...[...members.values()].map((each) => each.start));
  // LiteRT itself notices no damage to weights, and would return other probabilities.
  if (values.crc32 !== crc32(bytes.subarray(0, end))) throw new Error("its bytes are damaged");
  check(labels, values);
  return { labels, values, end };
}

function check(labels, values) {
  const count = Array.isArray(values.exits) ? values.exits.length : 0;
  const numbers = (list, length) =>
    Array.isArray(list) && list.length === length && list.every(Number.isFinite);
  const shape = values.image_shape;
  require(labels.length > 1 && !labels.includes(""), "labels", "at least two names");
  require(
    numbers(shape, 3) && shape.every((size) => size > 0) && [1, 3].includes(shape[2]),
    "image_shape",
    "(height, width, channels) with 1 or 3 channels",
  );
  require(count > 0, "exits", "at least one name");
  require(
    numbers(values.temperatures, count) && values.temperatures.every((t) => t > 0),
    "temperatures",
    `${count} positive numbers`,
  );
  require(numbers(values.costs, count), "costs", `${count} numbers`);
  const points = values.operating_points;
  require(
    Array.isArray(points) &&
      points.length > 0 &&
      points.every((p) => numbers(p?.thresholds, count - 1) && Number.isFinite(p.cost)),
    "operating_points",
    "thresholds and a cost each, at least one",
  );
}

/** Name -> where it starts and ends, of what a zip behind the graph holds. */
function entries(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = bytes.length - 22;
  while (at >= 0 && bytes.length - at < 22 + 65536 && view.getUint32(at, true) !== END) at--;
  const missing = new Error("it carries no readable labels.txt and early_exit.json");
  if (at < 0 || view.getUint32(at, true) !== END) throw missing;
  const members = new Map();
  try {
    let position = view.getUint32(at + 16, true);
    for (let left = view.getUint16(at + 10, true); left > 0; left--) {
      if (view.getUint32(position, true) !== ENTRY) throw missing;
      const [method, crc] = [view.getUint16(position + 10, true), view.getUint32(position + 16, true)];
      const [packed, size] = [view.getUint32(position + 20, true), view.getUint32(position + 24, true)];
      const [name, extra, comment] = [28, 30, 32].map((o) => view.getUint16(position + o, true));
      const start = view.getUint32(position + 42, true);
      const text = decoded(bytes.subarray(position + 46, position + 46 + name));
      members.set(text, { method, crc, packed, size, start });
      position += 46 + name + extra + comment;
    }
  } catch {
    throw missing;
  }
  return members;
}

async function member(bytes, members, name) {
  const found = members.get(name);
  if (!found || found.size > LARGEST || found.packed > LARGEST) {
    throw new Error(`it carries no readable ${name}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { method, crc, packed, size, start } = found;
  try {
    if (view.getUint32(start, true) !== LOCAL) throw new Error("its place is not its own");
    const first = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    const stored = bytes.subarray(first, first + packed);
    const content = method === 0 ? stored : await inflated(stored, size);
    if (content.length !== size || crc32(content) !== crc) throw new Error("its bytes are damaged");
    return content;
  } catch (error) {
    throw new Error(`it carries no readable ${name}: ${oneLine(error)}`);
  }
}

async function inflated(stored, size) {
  const stream = new Blob([stored]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const content = new Uint8Array(size);
  let filled = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return content.subarray(0, filled);
    if (filled + value.length > size) throw new Error("it is larger than it says");
    content.set(value, filled);
    filled += value.length;
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}

async function fetched(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address} cannot be fetched: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

function decoded(bytes) {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}

function release(tensors) {
  for (const tensor of Object.values(tensors)) if (!tensor.deleted) tensor.delete();
}

function isShare(value) {
  return Number.isFinite(value) && value >= 0;
}

function require(condition, name, accepted) {
  if (!condition) throw new Error(`\`${name}\` must be ${accepted}`);
}

function oneLine(error) {
  return String(error?.message ?? error).split("\n")[0];
}
