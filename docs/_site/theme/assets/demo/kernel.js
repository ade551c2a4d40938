// One matrix product in WebAssembly with SIMD, written out byte by byte: y[t][o] = Σ_i x[t][i] · w[o][i].
//
// x and y are f32, w is f32 or bf16, all row by row in one memory. Tokens come in fours, rows of w in twos, i in fours.
// bf16 is the upper half of f32: four weights are loaded as 16 bits each and shifted into place.

const TOKENS = 4;
const ROWS = 2;

const leb = number => (number < 0x80 ? [number] : [(number & 0x7f) | 0x80, ...leb(number >>> 7)]);
const signed = number => (number < 0x40 ? [number] : [(number & 0x7f) | 0x80, ...signed(number >>> 7)]);
const list = items => [...leb(items.length), ...items.flat()];
const section = (id, bytes) => [id, ...leb(bytes.length), ...bytes];
const text = word => list([...word].map(letter => letter.charCodeAt(0)));

const I32 = 0x7f;
const V128 = 0x7b;
const get = local => [0x20, ...leb(local)];
const set = local => [0x21, ...leb(local)];
const constant = number => [0x41, ...signed(number)];
const ADD = [0x6a];
const MULTIPLY = [0x6c];
const vector = (code, ...rest) => [0xfd, ...leb(code), ...rest];
const LOAD = vector(0x00, 2, 0);
const LOAD_BF16 = [...vector(0x04, 1, 0), ...constant(16), ...vector(0xab)];
const ZERO = vector(0x0c, ...Array(16).fill(0));
const ADD_F32 = vector(0xe4);
const MULTIPLY_F32 = vector(0xe6);
const lane = number => vector(0x1f, number);
const store = offset => [0x38, 2, ...leb(offset)];

const grow = (local, bytes) => [...get(local), ...bytes, ...ADD, ...set(local)];
/** Run the body until the counter, which it raises by itself, is no longer below the end. */
const loop = (body, counter, end) => [0x03, 0x40, ...body, ...get(counter), ...get(end), 0x49, 0x0d, 0, 0x0b];

/** The code of the product; `load` takes an address from the stack and leaves four weights of so many bytes each. */
function matmul(load, bytes) {
  const [x, w, y, tokens, width, rows, t, o, here, stop] = Array(10).keys();
  const ws = Array.from({ length: ROWS }, (_, index) => stop + 1 + index);
  const xs = Array.from({ length: TOKENS }, (_, index) => stop + 1 + ROWS + index);
  const first = stop + 1 + ROWS + TOKENS; // locals before it are i32, those from here on are vectors
  const weights = ws.map((_, row) => first + row);
  const input = first + ROWS;
  const sum = (token, row) => input + 1 + token * ROWS + row;
  const tile = (body) => xs.flatMap((_, token) => ws.flatMap((_, row) => body(token, row)));
  const times = (local, number) => [...get(local), ...constant(number), ...MULTIPLY];

  const step = [
    ...ws.flatMap((pointer, row) => [...get(pointer), ...load, ...set(weights[row]), ...grow(pointer, constant(4 * bytes))]),
    ...xs.flatMap((pointer, token) => [
      ...[...get(pointer), ...LOAD, ...set(input), ...grow(pointer, constant(16))],
      ...weights.flatMap((weight, row) => [
        ...[...get(sum(token, row)), ...get(input), ...get(weight), ...MULTIPLY_F32, ...ADD_F32, ...set(sum(token, row))],
      ]),
    ]),
  ];
  const total = local => [0, 1, 2, 3].flatMap(n => [...get(local), ...lane(n), ...(n ? [0x92] : [])]);
  const block = [
    // where the rows begin: x + (t + token) · width · 4, w + (o + row) · width · bytes
    ...xs.flatMap((pointer, token) => [
      ...[...get(t), ...constant(token), ...ADD, ...times(width, 4), ...MULTIPLY, ...get(x), ...ADD, ...set(pointer)],
    ]),
    ...ws.flatMap((pointer, row) => [
      ...[...get(o), ...constant(row), ...ADD, ...times(width, bytes), ...MULTIPLY, ...get(w), ...ADD, ...set(pointer)],
    ]),
    ...[...get(ws[0]), ...times(width, bytes), ...ADD, ...set(stop)],
    ...tile((token, row) => [...ZERO, ...set(sum(token, row))]),
    ...loop(step, ws[0], stop),
    ...xs.flatMap((_, token) => [
      // y + ((t + token) · rows + o) · 4
      ...[...get(t), ...constant(token), ...ADD, ...get(rows), ...MULTIPLY, ...get(o), ...ADD, ...constant(4), ...MULTIPLY],
      ...[...get(y), ...ADD, ...set(here)],
      ...ws.flatMap((_, row) => [...get(here), ...total(sum(token, row)), ...store(4 * row)]),
    ]),
    ...grow(t, constant(TOKENS)),
  ];
  const body = [
    ...loop([...constant(0), ...set(t), ...loop(block, t, tokens), ...grow(o, constant(ROWS))], o, rows),
    0x0b,
  ];
  const locals = list([
    [...leb(first - t), I32],
    [...leb(ROWS + 1 + TOKENS * ROWS), V128],
  ]);
  return [...locals, ...body];
}

const codes = [matmul(LOAD_BF16, 2), matmul(LOAD, 4)].map(code => [...leb(code.length), ...code]);

/**
 * The module: it imports a memory, and exports the product as `bf16` and `f32`, named for w:
 * (x, w, y, tokens, width, rows), the first three being byte addresses.
 */
export const KERNEL = new Uint8Array([
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...section(1, list([[0x60, ...list(Array(6).fill([I32])), 0]])),
  ...section(2, list([[...text("site"), ...text("memory"), 2, 0, 1]])),
  ...section(3, list([[0], [0]])),
  ...section(7, list([[...text("bf16"), 0, 0], [...text("f32"), 0, 1]])),
  ...section(10, list(codes)),
]);
