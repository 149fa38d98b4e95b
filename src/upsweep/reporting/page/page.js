"use strict";
// What moves on the page: filters, sorting, plots, the wipe, light and dark. All that is said stands in the HTML.
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse($("data").textContent);
  const tables = all("#ranking table, #why table");
  const runs = new Map(data.runs.map((run) => [run.name, run]));
  const dashes = ["solid", "dash", "dot"];
  const logarithmic = { type: "log", nticks: 5, tickformat: ".2~r" };
  const figure = data.figure; // the headline
  const worth = (value) => (figure.better === "higher" ? value : -value);
  const text = (value) => `${value.toFixed(figure.digits)} ${plain(figure.unit)}`.trim();
  const state = { colour: data.colour, x: "step", only: new Map() };

  // Plotly reads a little HTML in texts: a choice named <b> must stay what it is.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = Array.from({ length: 8 }, (_, i) => css(`--hue-${i}`));
  const axisOf = (key) => data.axes.find((axis) => axis.name === key);
  const visible = (settings) => [...state.only].every(([key, values]) => values.has(settings[key]));
  const labelOf = (run) =>
    plain([run.name, ...data.axes.map((axis) => `${axis.name}=${run.settings[axis.name]}`)].join(" "));

  // What the page's policy would refuse as a style="" in the HTML.
  for (const property of ["left", "right", "min-width"])
    all(`[data-${property}]`).forEach((element) => element.style.setProperty(property, element.getAttribute(`data-${property}`)));

  // The runs (or means) by the value that their colour tells, in the order of the values.
  function coloured(items) {
    const axis = axisOf(state.colour);
    if (!axis) return [{ name: "", colour: palette[0], dash: "solid", items }];
    return axis.values
      .map((value, i) => ({
        name: plain(`${axis.name}=${value}`),
        colour: palette[i % palette.length],
        dash: dashes[Math.floor(i / palette.length) % dashes.length],
        items: items.filter((item) => item.settings[axis.name] === value),
      }))
      .filter((group) => group.items.length);
  }

  // ---- plots

  function draw(id, traces, layout) {
    const element = $(id);
    if (!element) return;
    const axis = { gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--ink") },
      margin: { l: 48, r: 12, t: 26, b: 40 },
      hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line"), font: { color: css("--ink") }, namelength: 0 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      hovermode: "closest",
      ...layout,
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
    };
    Plotly.react(element, traces, base, { displaylogo: false, responsive: true, displayModeBar: false });
  }

  // One trace holds all runs of a colour, with a gap after each: a hundred traces would be slow.
  function joined(lines) {
    const trace = { x: [], y: [], text: [] };
    for (const line of lines) {
      trace.x.push(...line.x, null);
      trace.y.push(...line.y, null);
      trace.text.push(...line.x.map(() => line.text), "");
    }
    return trace;
  }

  // At every place (a step, a frequency) that some line has a point at and all of them cover.
  function mean(lines) {
    const from = Math.max(...lines.map((line) => line.at[0]));
    const to = Math.min(...lines.map((line) => line.at.at(-1)));
    const places = [...new Set(lines.flatMap((line) => line.at))].filter((at) => from <= at && at <= to).sort((a, b) => a - b);
    const average = (key) => places.map((place) => lines.reduce((sum, line) => sum + between(line, key, place), 0) / lines.length);
    return { x: average("x"), y: average("y") };
  }

  // Straight from point to point, as a line is drawn.
  function between(line, key, place) {
    const i = line.at.findIndex((at) => at >= place);
    if (line.at[i] === place) return line[key][i];
    const share = (place - line.at[i - 1]) / (line.at[i] - line.at[i - 1]);
    return line[key][i - 1] + share * (line[key][i] - line[key][i - 1]);
  }

  // A thin line a run, a thick one the mean of those of a colour that finished. points: a run's x and y, and its places.
  function lined(shown, points, hover) {
    const traces = [];
    for (const group of coloured(shown)) {
      const lines = group.items.map((run) => ({ ...points(run), text: labelOf(run), state: run.state, judged: run.judged }));
      const markers = lines.every((line) => line.x.length === 1);
      const common = { type: "scatter", name: group.name, legendgroup: group.name };
      const done = lines.filter((line) => line.state === "finished");
      const single = lines.length === 1 || !done.length;
      traces.push({
        ...common, ...joined(lines), mode: markers ? "markers" : "lines", opacity: single ? 1 : 0.35,
        line: { color: group.colour, width: single ? 2 : 1, dash: group.dash }, marker: { color: group.colour },
        showlegend: single && Boolean(group.name), hovertemplate: `%{text}<br>${hover}`,
      });
      // What was judged on different images has no common mean.
      for (const judged of single ? [] : new Set(done.map((line) => line.judged))) {
        traces.push({
          ...common, ...mean(done.filter((line) => line.judged === judged)), mode: markers ? "markers" : "lines",
          name: [group.name, judged].filter(Boolean).join(", "), line: { color: group.colour, width: 3, dash: group.dash },
          marker: { color: group.colour, size: 9 }, hovertemplate: `mean<br>${hover}`, showlegend: Boolean(group.name || judged),
        });
      }
    }
    return traces;
  }

  function curve({ column, figure, baseline, log }, legend) {
    const hover = `%{y:.${figure ? figure.digits + 2 : 4}~f} at %{x:,.6~r}<extra></extra>`;
    const shown = data.runs.filter((run) => visible(run.settings) && run.history[column]?.some((y) => y !== null));
    const points = (run) => {
      const known = run.history[column].map((y, i) => [run.history[state.x][i], y, run.history.step[i]]).filter(([, y]) => y !== null);
      return { x: known.map(([x]) => x), y: known.map(([, y]) => y), at: known.map(([, , step]) => step) };
    };
    const ys = shown.flatMap((run) => run.history[column]).filter((y) => y !== null);
    const layout = figure ? framed(ys, figure, baseline) : { yaxis: log && ys.every((y) => y > 0) ? logarithmic : {} };
    const xaxis = { title: { text: state.x === "step" ? "steps" : "seconds" }, rangemode: "tozero" };
    draw(`curve-${column}`, lined(shown, points, hover), { ...layout, xaxis, ...(legend ? {} : { showlegend: false }) });
  }

  function spectrum(kind, legend) {
    const shown = data.runs.filter((run) => visible(run.settings) && run.spectrum);
    const points = ({ spectrum }) => ({ x: spectrum.frequency, y: spectrum[kind].map((share) => 100 * share), at: spectrum.frequency });
    const peaks = shown.map((run) => 100 * Math.max(...run.spectrum[kind])).sort((a, b) => a - b);
    const top = 1.05 * (peaks.filter((peak) => peak <= 3 * peaks[peaks.length >> 1]).at(-1) ?? 100); // see framed
    const nyquist = data.scale && { xref: "x", x0: 1 / data.scale, x1: 1 / data.scale, yref: "paper", y0: 0, y1: 1 };
    draw(`spectrum-${kind}`, lined(shown, points, "%{y:.1f} % at %{x:.2f}<extra></extra>"), {
      xaxis: { title: { text: "frequency" }, rangemode: "tozero" },
      yaxis: { title: { text: "% of HR's power" }, range: [0, top || 1] },
      ...(legend ? {} : { showlegend: false }),
      ...(nyquist && {
        shapes: [{ type: "line", ...nyquist, line: { color: css("--quiet"), width: 1, dash: "dot" } }],
        annotations: [{ x: nyquist.x0, xanchor: "left", yref: "paper", y: 1, yanchor: "top", showarrow: false, text: "LR ends", font: { color: css("--quiet"), size: 11 } }],
      }),
    });
  }

  // A run that failed badly must not flatten all others.
  function framed(ys, figure, baseline) {
    if (!ys.length) return { yaxis: {} };
    ys.sort((a, b) => (figure.better === "higher" ? a - b : b - a));
    const ends = [ys.at(-1), ys[Math.floor(ys.length * 0.1)], ...(baseline === null ? [] : [baseline])];
    const [low, top] = [Math.min(...ends), Math.max(...ends)];
    const room = Math.max(figure.noise, (top - low) * 0.08) || Math.abs(top) * 0.05 || 1;
    const yaxis = { range: [low - room, top + room] };
    if (baseline === null) return { yaxis };
    const y = baseline;
    return {
      yaxis,
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: css("--quiet"), width: 1, dash: "dot" } }],
      annotations: [{ xref: "paper", x: 1, xanchor: "right", y, yanchor: "bottom", showarrow: false, text: plain(figure.baseline), font: { color: css("--quiet"), size: 11 } }],
    };
  }

  function curves() {
    data.curves.forEach((one, i) => curve(one, i === 0));
  }

  function cost(id, key, title) {
    const cells = data.cells.filter((cell) => visible(cell.settings) && cell[key] !== null);
    const front = cells.filter((cell) => cell.fronts.includes(key)).sort((a, b) => a[key] - b[key]);
    const letters = data.cells.filter((cell) => cell.fronts.includes(key)).sort((a, b) => a[key] - b[key]);
    const traces = coloured(cells).map((group) => ({
      type: "scatter", mode: "markers", name: group.name, showlegend: Boolean(group.name),
      x: group.items.map((cell) => cell[key]), y: group.items.map((cell) => cell.value),
      text: group.items.map((cell) => plain(cell.label)),
      error_y: { type: "data", array: group.items.map((cell) => cell.sd ?? 0), thickness: 1, width: 0, color: group.colour },
      marker: { color: group.colour, size: 9, line: { color: css("--paper"), width: 1 } },
      hovertemplate: `%{text}<br>${`%{y:.${figure.digits}f} ${plain(figure.unit)}`.trim()}, %{x:,.6~r}<extra></extra>`,
    }));
    traces.unshift({
      type: "scatter", mode: "lines+text", x: front.map((cell) => cell[key]), y: front.map((cell) => cell.value),
      text: front.map((cell) => String.fromCharCode(65 + (letters.indexOf(cell) % 26))), textposition: "top left",
      textfont: { color: css("--ink"), size: 12 }, line: { color: css("--quiet"), width: 1, dash: "dash", shape: "hv" },
      hoverinfo: "skip", showlegend: false, cliponaxis: false,
    });
    const values = cells.map((cell) => cell[key]);
    const wide = Math.min(...values) > 0 && Math.max(...values) > 20 * Math.min(...values); // a baseline has 0 parameters
    const xaxis = { title: { text: title }, type: wide ? "log" : "linear", tickformat: wide ? ".2~s" : ",.5~r", nticks: 6 };
    if (!wide && values.length && Math.max(...values) === Math.min(...values)) xaxis.range = [0, 2 * values[0] || 1];
    draw(id, traces, { xaxis, yaxis: {}, showlegend: (id === "plot-parameters" || !$("plot-parameters")) && Boolean(state.colour) });
  }

  // Parallel coordinates as plain lines: no WebGL, and a value keeps its colour. Runs fan out within a value's place.
  function paths() {
    const shown = data.runs.filter((run) => visible(run.settings) && run.state === "finished" && run.value !== null);
    const best = [...shown].sort((a, b) => worth(a.value) - worth(b.value));
    const share = new Map(best.map((run, i) => [run, best.length > 1 ? i / (best.length - 1) - 0.5 : 0]));
    const annotations = [];
    const quiet = { color: css("--quiet"), size: 11 };
    const bold = { font: { weight: "bold" } };
    const label = (x, y, text, more = {}) => annotations.push({ x, y, text, showarrow: false, ...more });
    const places = data.axes.map((axis, x) => {
      label(x, 1.09, plain(axis.name), bold);
      if (axis.numeric) {
        const numbers = axis.values.map(Number);
        const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
        const scale = low > 0 && high > 20 * low ? Math.log : (v) => v;
        for (const end of [low, high]) label(x, end === low ? 0 : 1, String(end), { xanchor: "right", xshift: -6, font: quiet });
        return (run) => (scale(Number(run.settings[axis.name])) - scale(low)) / (scale(high) - scale(low));
      }
      const n = axis.values.length;
      axis.values.forEach((value, i) => label(x, 1 - (i + 0.5) / n, plain(value), { xanchor: "right", xshift: -6, font: quiet, bgcolor: css("--paper"), opacity: 0.9 }));
      return (run) => 1 - (axis.values.indexOf(run.settings[axis.name]) + 0.5 - 0.6 * share.get(run)) / n;
    });
    const end = data.axes.length;
    const [bottom, top] = [best[0]?.value ?? 0, best.at(-1)?.value ?? 1]; // the best is at the top
    const place = (value) => (top !== bottom ? (value - bottom) / (top - bottom) : 0.5);
    label(end, 1.09, plain(figure.title), bold);
    for (const part of top !== bottom ? [0, 0.25, 0.5, 0.75, 1] : [0.5])
      label(end, part, (bottom + part * (top - bottom)).toFixed(figure.digits), { xanchor: "left", xshift: 6, font: quiet });
    const traces = coloured(shown).map((group) => ({
      type: "scatter", mode: "lines", name: group.name, opacity: 0.65, showlegend: false,
      line: { color: group.colour, width: 1.5, dash: group.dash },
      ...joined(group.items.map((run) => ({
        x: [...places.keys(), end], y: [...places.map((f) => f(run)), place(run.value)],
        text: `${labelOf(run)} seed=${run.seed}<br>${text(run.value)}`,
      }))),
      hovertemplate: "%{text}<extra></extra>",
    }));
    const shapes = [...Array(end + 1).keys()].map((x) => ({
      type: "line", x0: x, x1: x, y0: 0, y1: 1, layer: "below", line: { color: css("--quiet"), width: 1 },
    }));
    const bare = { visible: false, fixedrange: true };
    draw("plot-paths", traces, {
      annotations, shapes, margin: { l: 12, r: 12, t: 12, b: 12 }, dragmode: false,
      xaxis: { ...bare, range: [-0.45, end + 0.4] }, yaxis: { ...bare, range: [-0.06, 1.16] },
    });
  }

  function swatches() {
    const axis = axisOf(state.colour);
    all("td .swatch").forEach((swatch) => swatch.remove());
    for (const table of tables) {
      const column = all("th", table).findIndex((th) => th.textContent === state.colour);
      if (column < 0 || !axis) continue;
      for (const row of table.tBodies[0].rows) {
        const cell = row.cells[column];
        const swatch = document.createElement("i");
        swatch.className = "swatch";
        swatch.style.background = palette[axis.values.indexOf(cell.textContent) % palette.length] ?? "transparent";
        cell.prepend(swatch);
      }
    }
  }

  function drawAll() {
    curves();
    cost("plot-parameters", "parameters", "parameters");
    cost("plot-seconds", "seconds", "seconds");
    paths();
    spectrum("restored", true);
    spectrum("invented", false);
    swatches();
  }

  // ---- filters and colour

  function filter() {
    state.only = new Map();
    for (const box of all("#filters input:checked")) {
      if (!state.only.has(box.dataset.key)) state.only.set(box.dataset.key, new Set());
      state.only.get(box.dataset.key).add(box.value);
    }
    for (const table of tables) {
      const headers = all("th", table).map((th) => th.textContent);
      for (const row of table.tBodies[0].rows)
        row.hidden = !headers.every((key, i) => !state.only.get(key) || state.only.get(key).has(row.cells[i].textContent));
    }
    for (const element of all(".of-run")) element.hidden = !visible(runs.get(element.dataset.run).settings);
    const shown = data.runs.filter((run) => visible(run.settings)).length;
    $("count").textContent = `${shown} of ${data.runs.length} runs shown`;
    $("clear").hidden = !state.only.size;
    drawAll();
  }
  all("#filters input").forEach((box) => box.addEventListener("change", filter));
  $("clear")?.addEventListener("click", () => {
    all("#filters input").forEach((box) => (box.checked = false));
    filter();
  });
  $("colour")?.addEventListener("change", (event) => {
    state.colour = event.target.value;
    drawAll();
  });
  all("input[name=x]").forEach((radio) =>
    radio.addEventListener("change", () => {
      state.x = radio.value;
      curves();
    }),
  );

  // ---- sorting: numbers by their first figure, words by the language; what has no figure comes last

  function sort(th) {
    const table = th.closest("table");
    const column = th.cellIndex;
    const rising = th.getAttribute("aria-sort") === "descending" || (!th.ariaSort && (th.classList.contains("word") || "lower" in th.dataset));
    all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => {
      const text = row.cells[column].textContent;
      return { row, text, number: parseFloat(text.replaceAll(",", "")) };
    });
    const numeric = rows.some(({ number }) => !isNaN(number)) && rows.every(({ text, number }) => !isNaN(number) || ["-", ""].includes(text));
    const sign = rising ? 1 : -1;
    rows.sort((a, b) => {
      if (!numeric) return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
      if (isNaN(a.number) || isNaN(b.number)) return isNaN(a.number) - isNaN(b.number);
      return sign * (a.number - b.number);
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }
  all("th button").forEach((button) => button.addEventListener("click", () => sort(button.parentElement)));

  // ---- the wipe

  const slider = $("slider");
  if (slider) {
    const picture = (id) => document.querySelector(`button[data-crop="${id}"] img`);
    const show = (side) => {
      $(`wipe-${side}`).src = picture($(side).value).src;
      $(`wipe-${side}`).alt = $(side).selectedOptions[0].textContent;
    };
    const move = () => $("wipe").style.setProperty("--at", `${slider.value}%`);
    slider.addEventListener("input", move);
    for (const side of ["left", "right"]) {
      $(side).addEventListener("change", () => show(side));
      show(side);
    }
    all("button[data-crop]").forEach((button) =>
      button.addEventListener("click", () => {
        $("right").value = button.dataset.crop;
        show("right");
        $("wipe").scrollIntoView({ block: "nearest", behavior: "smooth" });
      }),
    );
    move();
  }

  // ---- light and dark

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    drawAll();
  });
  dark.addEventListener("change", drawAll);

  if (data.axes.length) filter();
  else drawAll();
})();
