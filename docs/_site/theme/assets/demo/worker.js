// Loads the model and answers, away from the page, so that typing is never held up.

import { Encoder } from "./encoder.js";

const STORE = "st-vi-demo";
let encoder;

self.onmessage = async ({ data }) => {
  try {
    if (data.address) {
      encoder = await Encoder.from(await loaded(data.address));
      for (const text of encoder.sentences.slice(0, 5)) encoder.encode(text); // until its loops are compiled
      postMessage({ ready: true });
    } else {
      const start = performance.now();
      const found = encoder.nearest(encoder.encode(data.text), data.nearest);
      postMessage({ text: data.text, found, ms: performance.now() - start });
    }
  } catch (error) {
    postMessage({ error: error.message });
  }
};

/** The unpacked file; from the browser's own store where it is there already. */
async function loaded(address) {
  const store = await self.caches?.open(STORE).catch(() => undefined); // there is none without https
  let response = await store?.match(address);
  if (!response) {
    response = await fetch(address);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    if (store) keep(store, address, response.clone());
  }
  let done = 0;
  const counted = new TransformStream({
    transform(chunk, controller) {
      done += chunk.length;
      postMessage({ done });
      controller.enqueue(chunk);
    },
  });
  const unpacked = response.body.pipeThrough(counted).pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

/** Keep the file, and drop the one that an older page has loaded. Where there is no room, it is loaded again. */
async function keep(store, address, response) {
  try {
    for (const old of await store.keys()) await store.delete(old);
    await store.put(address, response);
  } catch {
    // the demo works without
  }
}
