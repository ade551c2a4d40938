// What a page of figures draws over other things, or beyond the edge of its place: lines of text, empty if all is well.
window.stViBoxes = {
  // figures, and the places that they must not leave
  figures: () => [...document.querySelectorAll(".js-plotly-plot")].filter((plot) => plot.checkVisibility()),
  fills: (plot) => Math.abs(plot.querySelector(".main-svg").clientWidth - plot.clientWidth) < 3,
  place: (plot) => plot.closest(".jp-OutputArea-output") ?? plot.parentElement,
  seen: (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }),
  name: (element) => JSON.stringify((element.textContent || element.value || element.className).trim().slice(0, 40)),

  // the corners of a drawn text, turned as it is; without the room that a font leaves above and below its letters
  corners(text) {
    const { x, y, width, height } = text.getBBox();
    const lines = Math.max(1, text.querySelectorAll("tspan.line").length);
    const [side, top] = [1, (0.18 * height) / lines];
    const matrix = text.getScreenCTM();
    return [[x + side, y + top], [x + width - side, y + top], [x + width - side, y + height - top], [x + side, y + height - top]]
      .map(([a, b]) => new DOMPoint(a, b).matrixTransform(matrix)).map((point) => [point.x, point.y]);
  },
  corner: ({ left, top, right, bottom }) => [[left, top], [right, top], [right, bottom], [left, bottom]],
  // whether two convex outlines share any area: no line along a side of either parts them
  overlap: (one, other) =>
    [one, other].every((outline) =>
      outline.every(([x, y], number) => {
        const [nextX, nextY] = outline[(number + 1) % outline.length];
        const across = (points) => points.map(([a, b]) => (a - x) * (nextY - y) - (b - y) * (nextX - x));
        const [first, second] = [across(one), across(other)];
        return Math.max(...first) > Math.min(...second) && Math.max(...second) > Math.min(...first);
      })),
  beyond: (points, { left, top, right, bottom }, slack = 1.5) =>
    points.some(([x, y]) => x < left - slack || x > right + slack || y < top - slack || y > bottom + slack),

  ofFigure(plot, number) {
    const { corners, corner, overlap, beyond, name, seen } = stViBoxes, found = [];
    const say = (what) => found.push(`figure ${number}: ${what}`);
    const around = plot.querySelector(".main-svg").getBoundingClientRect();
    const texts = [...plot.querySelectorAll("svg.main-svg text")]
      .filter((text) => text.textContent.trim() && !text.closest(".hoverlayer") && seen(text) && text.getBBox().width)
      .map((text) => [text, corners(text)]);
    texts.forEach(([text, points], first) => {
      if (beyond(points, around)) say(`${name(text)} is cut by the figure`);
      const legend = text.closest(".legend")?.querySelector(".bg");
      if (legend && beyond(points, legend.getBoundingClientRect(), 4)) say(`${name(text)} is cut by its legend`);
      for (const [other, itsPoints] of texts.slice(first + 1))
        if (overlap(points, itsPoints)) say(`${name(text)} is over ${name(other)}`);
    });
    for (const subplot of plot.querySelectorAll(".cartesianlayer > .subplot")) {
      const id = [...subplot.classList].find((each) => each !== "subplot");
      const area = plot.querySelector(`.draglayer > .${id} .nsewdrag`)?.getBoundingClientRect();
      const bars = [...subplot.querySelectorAll(".barlayer .point > path")].map((bar) => bar.getBoundingClientRect());
      if (area && bars.some((bar) => bar.width * bar.height > 0 && beyond(corner(bar), area))) say(`a bar of ${id} is cut`);
    }
    const place = stViBoxes.place(plot).getBoundingClientRect();
    if (around.right > place.right + 1.5 || around.left < place.left - 1.5)
      say(`is ${Math.round(around.width)} pixels wide, its place ${Math.round(place.width)}`);
    return found;
  },

  // controls and cards beside, over and in each other
  ofControls() {
    const { corner, overlap, name, seen } = stViBoxes, found = [];
    const kinds = ".widget-label, .widget-button, .widget-toggle-button, select, textarea, input[type=text], .widget-readout";
    const controls = [...document.querySelectorAll(`.jp-OutputArea-output :is(${kinds}, .js-plotly-plot, .widget-html-content)`)]
      .filter((control) => seen(control) && control.getBoundingClientRect().width)
      .map((control) => [control, corner(control.getBoundingClientRect()).map(([x, y], at) => [x + [1, -1, -1, 1][at], y + [1, 1, -1, -1][at]])]);
    controls.forEach(([control, points], first) => {
      if (control.matches(".widget-label, .widget-button, .widget-toggle-button") && control.scrollWidth > control.clientWidth + 1)
        found.push(`${name(control)} is cut`);
      const place = control.closest(".jp-OutputArea-output").getBoundingClientRect();
      if (Math.max(...points.map(([x]) => x)) > place.right + 1.5) found.push(`${name(control)} is cut by its cell`);
      for (const [other, itsPoints] of controls.slice(first + 1))
        if (!control.contains(other) && overlap(points, itsPoints)) found.push(`${name(control)} is over ${name(other)}`);
    });
    for (const output of document.querySelectorAll(".jp-OutputArea-output:not(:has(.dataframe, > pre))"))
      if (output.scrollWidth > output.clientWidth + 2)
        found.push(`${name(output)} is ${output.scrollWidth} pixels wide, its place ${output.clientWidth}`);
    return found;
  },

  // letters that can hardly be told from what is behind them; the limit is that of WCAG for large letters
  ofColours() {
    const numbers = (colour) => (colour.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const bright = (colour) => numbers(colour).slice(0, 3)
      .map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (element) => {
      const colour = getComputedStyle(element).backgroundColor;
      return (numbers(colour)[3] ?? 1) > 0.5 || !element.parentElement ? colour : behind(element.parentElement);
    };
    const own = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    return [...document.querySelectorAll(".jp-OutputArea-output :not(svg, svg *, style, script, option)")]
      .filter((element) => own(element) && stViBoxes.seen(element))
      .filter((element) => {
        const { color, webkitTextStrokeColor: line, webkitTextStrokeWidth: width } = getComputedStyle(element);
        const letters = parseFloat(width) > 0 ? line : color; // outlined ones are seen by their outline
        const [one, other] = [bright(letters), bright(behind(element))].sort((a, b) => b - a);
        return (one + 0.05) / (other + 0.05) < 3;
      })
      .map((element) => `${stViBoxes.name(element)} can hardly be read`);
  },

  all: () => [
    ...stViBoxes.figures().flatMap((plot, number) => stViBoxes.ofFigure(plot, number)),
    ...stViBoxes.ofControls(),
    ...stViBoxes.ofColours(),
  ],
};
