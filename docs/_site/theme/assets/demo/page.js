// The live demo of the front page: a box to type in, and the nearest sentences below it.
//
// Nothing is loaded before the reader asks for it. Until then, and where the model cannot run, the answers that were
// recorded when the site was built are shown.

import { KERNEL } from "./kernel.js";

const runs = () => self.Worker && self.DecompressionStream && self.WebAssembly?.validate(KERNEL);

for (const box of document.querySelectorAll(".st-vi-live")) start(box, JSON.parse(box.dataset.settings));

function start(box, settings) {
  const { words } = settings;
  let worker, ready, busy;
  const recorded = box.querySelector(".st-vi-recorded");
  if (!runs()) {
    recorded.querySelector("p").textContent = words.old;
    return;
  }
  const answers = new Map(
    [...recorded.querySelectorAll("figure")].map(one => [one.querySelector("figcaption").textContent, one.querySelector("ol")]),
  );
  const input = element("input", { type: "search", lang: "vi", autocomplete: "off", spellcheck: false });
  const button = element("button", { type: "button", className: "md-button", textContent: words.load });
  const status = element("p", { className: "st-vi-status", role: "status" });
  const results = element("div");
  const choices = [...answers.keys()].map(query =>
    element("button", { type: "button", lang: "vi", textContent: query, onclick: () => ask(query) }),
  );
  const examples = element("p", { className: "st-vi-examples" }, element("span", { textContent: words.try }), ...choices);
  const label = element("label", {}, element("span", { textContent: words.label }), input);
  const form = element("form", { onsubmit: event => event.preventDefault() }, label, button);
  box.replaceChildren(form, examples, results, status);
  input.onfocus = load;
  input.oninput = answer;
  button.onclick = load;
  ask(choices[0].textContent);

  function ask(query) {
    input.value = query;
    answer();
  }

  function load() {
    if (worker) return;
    worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.onerror = event => failed(event.message);
    worker.onmessage = ({ data }) => {
      if (data.error) failed(data.error);
      else if (data.done) progress(data.done);
      else if (data.ready) begin();
      else show(data);
    };
    button.disabled = true;
    progress(0);
    worker.postMessage({ address: new URL(settings.address, document.baseURI).href });
  }

  function progress(bytes) {
    status.textContent = words.loading.replace("{done}", Math.round(bytes / 1e6));
  }

  function begin() {
    ready = true;
    button.remove();
    answer();
  }

  function failed(error) {
    worker?.terminate();
    [worker, ready, busy, button.disabled] = [undefined, false, false, false];
    if (!button.isConnected) form.append(button);
    status.textContent = words.failed.replace("{error}", error ?? "");
  }

  /** Answer what is in the box: live, or as recorded. One text at a time; what was typed meanwhile comes next. */
  function answer() {
    const text = input.value;
    if (ready) {
      if (!text.trim()) {
        results.replaceChildren();
        status.textContent = words.empty;
      } else if (!busy) {
        busy = true;
        worker.postMessage({ text, nearest: settings.nearest });
      }
    } else if (answers.has(text)) {
      results.replaceChildren(answers.get(text));
      if (!worker) status.textContent = words.ask;
    } else {
      results.replaceChildren();
    }
  }

  function show({ text, found, ms }) {
    busy = false;
    if (text !== input.value) return answer();
    results.replaceChildren(list(found, settings));
    status.textContent = words.found.replace("{ms}", Math.max(1, Math.round(ms)));
  }
}

/** As `_list` in docs/_site/live_demo.py. */
function list(found, { least, language }) {
  const rows = found.map(({ text, cosine }) => {
    const bar = element("i");
    bar.style.width = `${100 * Math.max(0, (cosine - least) / (1 - least))}%`;
    const number = cosine.toFixed(2);
    return element(
      "li",
      {},
      element("span", { lang: "vi", textContent: text }),
      element("span", { className: "st-vi-bar" }, bar),
      element("b", { textContent: language === "en" ? number : number.replace(".", ",") }),
    );
  });
  return element("ol", {}, ...rows);
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
