// What the tests ask of a page of JupyterLab; `jupyterapp` is there because the server was told to expose it.
window.stVi = {
  panel: () => window.jupyterapp?.shell.currentWidget,
  kernel: () => stVi.panel()?.sessionContext?.session?.kernel,
  ready: () => Boolean(document.querySelector(".jp-Notebook .jp-CodeCell") && stVi.idle()),
  idle: () => stVi.kernel()?.status === "idle" && stVi.kernel()?.connectionStatus === "connected",
  toTop() {
    document.querySelectorAll(".jp-Notebook, .jp-Notebook .jp-WindowedPanel-outer").forEach((part) => (part.scrollTop = 0));
    return [...document.querySelectorAll(".jp-Notebook .jp-Cell")].at(-1).getBoundingClientRect().bottom;
  },

  // no promise goes to the tests: the browser may forget one that nothing in the page holds
  runAll() {
    jupyterapp.shell.collapseLeft();
    stVi.running = true;
    jupyterapp.commands.execute("notebook:run-all-cells").finally(() => (stVi.running = false));
  },
  // the server may have lost the kernel, or a cell stopped all others
  notRun: () =>
    stVi.panel().content.widgets.filter(({ model }) => model.type === "code" && !model.executionCount).length,
  setTheme(theme) {
    jupyterapp.commands.execute("apputils:change-theme", { theme });
  },
  theme: () => document.body.dataset.jpThemeName,

  figure: (number) => document.querySelectorAll(".jp-Notebook .js-plotly-plot")[number],
  // typed arrays as plain ones; nothing private of plotly, and not what the mouse itself has selected
  plain: (key, value) =>
    key.startsWith("_") || key === "uid" || key === "selectedpoints" || typeof value === "function" ? undefined
    : ArrayBuffer.isView(value) ? Array.from(value) : value,
  data(figure, trace, key) {
    const value = key.split(".").reduce((part, name) => part?.[name], stVi.figure(figure)._fullData[trace]);
    return value === undefined ? null : JSON.parse(JSON.stringify(value, stVi.plain));
  },
  // what every figure has drawn: those of widgets, and those that are outputs of cells
  traces() {
    const figures = [...document.querySelectorAll(".jp-Notebook .js-plotly-plot")];
    const data = (plot) => plot._fullData.map(({ type, visible, name, x, y, z, marker }) => ({ type, visible, name, x, y, z, marker: { color: marker?.color } }));
    const live = (plot) => Boolean(plot.closest(".jupyter-widgets"));
    const of = (kind) => figures.filter((plot) => live(plot) === kind).map(data);
    return JSON.parse(JSON.stringify({ live: of(true), plain: of(false) }, stVi.plain));
  },
  hash(text) {
    let hash = 2166136261;
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
    return hash >>> 0;
  },
  dataDigest(number) {
    const { _fullData, layout } = stVi.figure(number);
    const { title, shapes, annotations, images } = layout;
    return stVi.hash(JSON.stringify([_fullData, title, shapes, annotations, images], stVi.plain));
  },
  // the SVG without what the mouse leaves in it, and what WebGL has painted
  drawnDigest(number) {
    const drawings = [...stVi.figure(number).querySelectorAll("svg.main-svg")].map((svg) => {
      const copy = svg.cloneNode(true);
      copy.querySelectorAll(".hoverlayer, .zoomlayer, .selectionlayer").forEach((layer) => layer.remove());
      return copy.innerHTML;
    });
    const canvases = [...stVi.figure(number).querySelectorAll("canvas")].map((canvas) => canvas.toDataURL());
    return stVi.hash(drawings.join() + canvases.join());
  },
  // When a hand last did something, and when a frame with the last change in an output was drawn; in milliseconds.
  // Only what begins an action counts: a key acts when it goes down, a mouse when its button goes up.
  clock: { input: 0, change: 0 },
  startClock() {
    const byTheMouseItself = ".hoverlayer, .zoomlayer, .selectionlayer, .draglayer, .modebar-container";
    const counts = ({ target }) => {
      const element = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
      return element?.closest(".jp-OutputArea-output") && !element.closest(byTheMouseItself);
    };
    for (const kind of ["pointerup", "keydown", "input"])
      document.addEventListener(kind, (event) => (stVi.clock.input = event.timeStamp), { capture: true });
    new MutationObserver((changes) => changes.some(counts) && stVi.drawn()).observe(
      document.querySelector(".jp-Notebook"), { subtree: true, childList: true, characterData: true, attributes: true });
    stVi.drawn();
  },
  drawn: () => requestAnimationFrame(() => setTimeout(() => (stVi.clock.change = performance.now()))),
  // what WebGL paints is no change of the document
  watchFigures() {
    document.querySelectorAll(".jp-Notebook .js-plotly-plot").forEach((plot) => plot.on("plotly_afterplot", stVi.drawn));
  },
  // milliseconds from the last input to the last change, once nothing has happened for a moment; null until then
  answered() {
    const { input, change } = stVi.clock;
    return stVi.idle() && change > input && performance.now() - change > 300 ? change - input : null;
  },
  // a widget comes in when its code has loaded; until then its place is empty, or has plotly's empty axes in it
  complete() {
    const view = '.jp-Notebook .jp-OutputArea-output[data-mime-type*="widget-view"]';
    const places = [...document.querySelectorAll(`${view}, ${view} .lm-Widget:not(.jupyter-widgets, [class*="jp-"])`)];
    const figures = [...document.querySelectorAll(".jp-Notebook .js-plotly-plot")];
    const drawn = (plot) => plot._fullData && plot.querySelector(".main-svg");
    const waits = (plot) => plot.data?.length === 0 && plot.layout.xaxis?.tickvals?.length === 0;
    return places.every((place) => place.childElementCount) && figures.every((plot) => drawn(plot) && !waits(plot));
  },
  // nothing is under way, and nothing has changed for a moment
  rests: () => stVi.idle() && stVi.complete() && stVi.clock.change > 0 && performance.now() - stVi.clock.change > 300,
};

// anywidget gives up on a widget that has not loaded in 2 s, which a busy machine does not keep
const { timeout } = AbortSignal;
AbortSignal.timeout = (milliseconds) => timeout.call(AbortSignal, 30 * milliseconds);
