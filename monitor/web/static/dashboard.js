// Dashboards: draws what the panels bring, in the reader's theme. Vega is loaded before, as a module.
const main = document.getElementById("main");
const themes = JSON.parse(main.dataset.themes);
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // a chart's element: what ends it

// ast: Vega interprets its expressions, as the content security policy forbids to compile them.
// It warns of every scale without a value yet, which says nothing to anybody: errors only.
const options = { ast: true, actions: false, logLevel: 1, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true } };

const end = (element) => {
  drawn.get(element)?.finalize();
  drawn.delete(element);
};
const draw = async (element) => {
  end(element);
  const spec = JSON.parse(element.dataset.chart);
  const theme = themes[dark.matches ? "dark" : "light"];
  const columns = Math.max(2, Math.floor(element.clientWidth / 150));
  spec.config = { ...theme, background: null, legend: { ...theme.legend, columns } };
  try {
    drawn.set(element, await window.vegaEmbed(element, spec, options));
    element.querySelector("svg").setAttribute("aria-hidden", "true"); // the element around it has the name
    element.dataset.drawn = dark.matches ? "dark" : "light";
  } catch (error) {
    element.textContent = "This chart cannot be drawn; the table below has its figures.";
    console.error(error);
  }
};
const charts = (root) => (root.matches("[data-chart]") ? [root] : root.querySelectorAll("[data-chart]"));

document.addEventListener("htmx:load", (event) => main.contains(event.target) && charts(event.target).forEach(draw));
dark.addEventListener("change", () => charts(main).forEach(draw));

// A panel renews itself, but not under somebody's eyes or hands; nor does the page jump meanwhile.
document.addEventListener("htmx:beforeRequest", (event) => {
  const place = event.target;
  if (place.matches(":hover, :focus-within") || place.querySelector("details[open]")) {
    if (charts(place).length) event.preventDefault();
  }
});
document.addEventListener("htmx:beforeSwap", (event) => {
  event.target.style.minHeight = `${event.target.offsetHeight}px`;
  charts(event.target).forEach(end);
});
