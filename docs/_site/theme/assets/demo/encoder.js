// vi-mini in the browser: BERT with weights in bf16, mean pooling and length 1, and a search by cosine.

import { KERNEL } from "./kernel.js";
import { Tokenizer } from "./tokenizer.js";

const PAGE = 65536; // bytes of WebAssembly memory

export class Encoder {
  /** From the bytes that docs/_site/live_demo.py has written: length of the header, header, upper and lower bytes. */
  static async from(bytes) {
    const start = 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, start)));
    return new Encoder(header, bytes.subarray(start));
  }

  constructor(header, planes) {
    const { width, inner, tensors, sentences, tokenizer } = header;
    this.shape = header;
    this.sentences = sentences;
    this.tokenizer = new Tokenizer(tokenizer);
    const size = planes.length; // of the weights; behind them is the room in which to compute
    const longest = fours(tokenizer.longest);
    const rooms = { inner: longest * inner, weights: longest * longest, cosines: 4 * fours(sentences.length) };
    for (const name of ["x", "query", "key", "value", "out", "asked", "known", "taken"]) rooms[name] = longest * width;
    const floats = Object.values(rooms).reduce((sum, one) => sum + one);
    this.memory = new WebAssembly.Memory({ initial: Math.ceil((size + 16 + 4 * floats) / PAGE) });
    const module = new WebAssembly.Module(KERNEL);
    this.product = new WebAssembly.Instance(module, { site: { memory: this.memory } }).exports;

    const whole = new Uint8Array(this.memory.buffer);
    for (let index = 0, half = size / 2; index < half; index++) {
      whole[2 * index] = planes[half + index];
      whole[2 * index + 1] = planes[index];
    }
    this.room = {};
    let place = Math.ceil(size / 16) * 16;
    for (const [name, count] of Object.entries(rooms)) {
      this.room[name] = new Float32Array(this.memory.buffer, place, count);
      place += 4 * count;
    }
    this.places = Object.fromEntries(Object.entries(tensors).map(([name, [offset]]) => [name, 2 * offset]));
    this.values = {}; // of the short tensors, as f32
    for (const [name, [offset, count]] of Object.entries(tensors)) {
      if (count <= inner) this.values[name] = this.read(2 * offset, count);
    }
  }

  /** Weights as f32. */
  read(place, count) {
    return new Float32Array(Uint32Array.from(new Uint16Array(this.memory.buffer, place, count), half => half << 16).buffer);
  }

  /** y = x Wᵀ + b of the first tokens. */
  linear(x, name, y, tokens, columns, rows) {
    this.product.bf16(x.byteOffset, this.places[`${name}.weight`], y.byteOffset, fours(tokens), columns, rows);
    const bias = this.values[`${name}.bias`];
    for (let start = 0; start < tokens * rows; start += rows) for (let i = 0; i < rows; i++) y[start + i] += bias[i];
  }

  /** Each token of `x + more` with mean 0 and variance 1, times a weight, plus a bias; written to x. */
  normalise(x, more, name, tokens) {
    const { width, epsilon } = this.shape;
    const [weight, bias] = [this.values[`${name}.weight`], this.values[`${name}.bias`]];
    for (let start = 0; start < tokens * width; start += width) {
      let [sum, squares] = [0, 0];
      for (let i = start; i < start + width; i++) sum += x[i] += more ? more[i] : 0;
      const mean = sum / width;
      for (let i = start; i < start + width; i++) squares += (x[i] - mean) ** 2;
      const scale = 1 / Math.sqrt(squares / width + epsilon);
      for (let i = 0; i < width; i++) x[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
    }
  }

  /** Softmax attention; what each token takes from the values is written over its query. */
  attend(tokens) {
    const { width, heads } = this.shape;
    const { query, key, value, asked, known, taken, weights } = this.room;
    const size = width / heads;
    const padded = fours(tokens);
    for (let first = 0; first < width; first += size) {
      taken.fill(0); // the values of a head, transposed
      for (let t = 0; t < tokens; t++) {
        for (let i = 0, at = t * width + first; i < size; i++) {
          asked[t * size + i] = query[at + i] / Math.sqrt(size);
          known[t * size + i] = key[at + i];
          taken[i * padded + t] = value[at + i];
        }
      }
      this.product.f32(asked.byteOffset, known.byteOffset, weights.byteOffset, padded, size, padded);
      for (let t = 0; t < tokens; t++) {
        softmax(weights.subarray(t * padded, t * padded + tokens));
        weights.fill(0, t * padded + tokens, (t + 1) * padded);
      }
      this.product.f32(weights.byteOffset, taken.byteOffset, asked.byteOffset, padded, padded, size);
      for (let t = 0; t < tokens; t++) query.set(asked.subarray(t * size, (t + 1) * size), t * width + first);
    }
  }

  /** The vector of a text, of length 1. */
  encode(text) {
    const { width, inner: wide, layers } = this.shape;
    const { x, query, key, value, out, inner } = this.room;
    const ids = this.tokenizer.encode(text);
    const tokens = ids.length;
    ids.forEach((id, t) => {
      const piece = this.read(this.places.words + 2 * width * id, width);
      const position = this.read(this.places.positions + 2 * width * t, width);
      for (let i = 0; i < width; i++) x[t * width + i] = piece[i] + this.values.type[i] + position[i];
    });
    this.normalise(x, null, "norm", tokens);
    for (let layer = 0; layer < layers; layer++) {
      this.linear(x, `${layer}.query`, query, tokens, width, width);
      this.linear(x, `${layer}.key`, key, tokens, width, width);
      this.linear(x, `${layer}.value`, value, tokens, width, width);
      this.attend(tokens);
      this.linear(query, `${layer}.attended`, out, tokens, width, width);
      this.normalise(x, out, `${layer}.attended.norm`, tokens);
      this.linear(x, `${layer}.wide`, inner, tokens, width, wide);
      for (let index = 0; index < tokens * wide; index++) inner[index] = gelu(inner[index]);
      this.linear(inner, `${layer}.narrow`, out, tokens, wide, width);
      this.normalise(x, out, `${layer}.narrow.norm`, tokens);
    }
    const mean = new Float32Array(width);
    for (let index = 0; index < tokens * width; index++) mean[index % width] += x[index] / tokens;
    const length = Math.hypot(...mean);
    return mean.map(number => number / length);
  }

  /** The sentences nearest to a vector, as [{ text, cosine }], nearest first. */
  nearest(vector, count = 5) {
    const { x, cosines } = this.room;
    x.set(vector);
    const rows = fours(this.sentences.length);
    this.product.bf16(x.byteOffset, this.places.sentences, cosines.byteOffset, 4, this.shape.width, rows);
    const order = this.sentences.map((_, index) => index).sort((a, b) => cosines[b] - cosines[a]);
    return order.slice(0, count).map(index => ({ text: this.sentences[index], cosine: cosines[index] }));
  }
}

/** The next multiple of four: the product takes rows by fours. */
function fours(count) {
  return 4 * Math.ceil(count / 4);
}

function softmax(numbers) {
  let most = -Infinity;
  for (const number of numbers) most = Math.max(most, number);
  let sum = 0;
  for (let i = 0; i < numbers.length; i++) sum += numbers[i] = Math.exp(numbers[i] - most);
  for (let i = 0; i < numbers.length; i++) numbers[i] /= sum;
}

/** x Φ(x), with the error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26). */
function gelu(x) {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = (series * Math.exp(-z * z)) / 2; // Φ(−|x|)
  return x * (x > 0 ? 1 - tail : tail);
}
