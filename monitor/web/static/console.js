// The console's own script: keys, the drawer, and news by server-sent events.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const rows = () => [...document.querySelectorAll("table.alerts tbody tr")];
  let cursor = null; // an alert id, not a row: rows are drawn anew under it
  let lastMarked = null;
  let going = -Infinity; // when g was pressed: the next key says where to
  let targets = [];

  const csrf = $("meta[name=csrf]").content;
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-CSRF-Token"] = csrf;
  });
  // The kill switch's part renews itself, but not under somebody's hands.
  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = event.detail.elt;
    if (part.id === "orders" && (part.contains(document.activeElement) || $("details[open]", part))) event.preventDefault();
  });
  for (const failure of ["htmx:responseError", "htmx:sendError"]) {
    document.addEventListener(failure, (event) => {
      const text = event.detail.xhr && event.detail.xhr.status ? event.detail.xhr.responseText : "";
      notice(text.length < 400 && text ? text : "The console does not answer. Try again.");
    });
  }
  const notice = (text) => {
    const line = document.createElement("p");
    line.className = "bad";
    line.textContent = text;
    $("#notice").replaceChildren(line);
  };

  // --- the cursor -------------------------------------------------------------------------
  const paint = () => {
    for (const row of rows()) row.classList.toggle("cursor", row.dataset.id === cursor);
  };
  const move = (step) => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.dataset.id === cursor);
    const next = all[Math.min(Math.max(at + step, 0), all.length - 1)];
    cursor = next.dataset.id;
    paint();
    next.scrollIntoView({ block: "nearest" });
    if ($("#drawer article")) open(cursor);
  };
  const mark = (row, on) => {
    $("input", row).checked = on;
    row.classList.toggle("marked", on);
    lastMarked = row.dataset.id;
  };
  const select = (range) => {
    const all = rows();
    const to = all.findIndex((row) => row.dataset.id === cursor);
    if (to < 0) return;
    const from = range ? all.findIndex((row) => row.dataset.id === lastMarked) : to;
    const on = range || !$("input", all[to]).checked;
    const [first, last] = [Math.min(from < 0 ? to : from, to), Math.max(from, to)];
    for (const row of all.slice(first, last + 1)) mark(row, on);
  };

  // --- the drawer -------------------------------------------------------------------------
  const remember = (id) => {
    const url = new URL(location.href);
    if (id) url.searchParams.set("open", id);
    else url.searchParams.delete("open");
    history.replaceState(history.state, "", url);
  };
  const open = (id) => {
    if (!$("#drawer")) return;
    remember(id);
    htmx.ajax("GET", `/alerts/${encodeURIComponent(id)}/drawer`, { target: "#drawer", swap: "innerHTML show:#drawer:top" });
  };
  const shut = () => {
    $("#drawer").replaceChildren();
    remember(null);
  };

  // --- what an analyst does ---------------------------------------------------------------
  const chosen = () => {
    const marked = rows().filter((row) => $("input", row).checked);
    if (marked.length) return marked;
    const shown = $("#alert");
    if (shown) return [shown];
    return rows().filter((row) => row.dataset.id === cursor);
  };
  const send = (items, values) => {
    const alert = items.map((item) => `${item.dataset.id}@${item.dataset.version}`);
    const shown = items.map((item) => item.dataset.id).filter((id) => document.getElementById(`row-${id}`));
    htmx.ajax("POST", "/alerts/changes", { target: "#notice", values: { alert, shown, ...values } });
  };
  const act = (what) => {
    const items = chosen();
    if (!items.length) return;
    if (what === "mine") send(items, { mine: "true" });
    else if (what === "closed" || what === "corrected") close(items);
    else send(items, { status: what });
  };
  const close = (items) => {
    targets = items.map((item) => ({ dataset: { ...item.dataset } }));
    const dialog = $("#closing");
    $("form", dialog).reset();
    $("[data-what]", dialog).textContent = items.length > 1 ? `${items.length} alerts` : "this alert";
    dialog.showModal();
  };
  const silence = () => {
    const [item] = chosen();
    if (!item) return;
    htmx.ajax("GET", `/alerts/${encodeURIComponent(item.dataset.id)}/silence`, { target: "#silencing-body", swap: "innerHTML" }).then(() => $("#silencing").showModal());
  };
  const incident = () => {
    const items = chosen();
    if (items.length) htmx.ajax("POST", "/incidents/gather", { target: "#notice", values: { alert: items.map((item) => item.dataset.id) } });
  };
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful && event.target.matches("form[data-silence]")) $("#silencing").close();
  });
  $("#closing form").addEventListener("submit", (event) => {
    const { verdict, reason } = Object.fromEntries(new FormData(event.target));
    const still = targets.filter((item) => item.dataset.status === "closed");
    const rest = targets.filter((item) => item.dataset.status !== "closed");
    if (rest.length) send(rest, { status: "closed", verdict, reason });
    if (still.length) send(still, { verdict, reason });
  });

  // --- news -------------------------------------------------------------------------------
  const load = () => $("#queue") && htmx.ajax("GET", location.href, { target: "#queue", select: "#queue", swap: "outerHTML" });
  document.addEventListener("htmx:afterSettle", paint);
  const live = (state, word) => {
    $("#live").dataset.state = state;
    $("#live span").textContent = word;
  };
  const stream = new EventSource("/alerts/stream");
  stream.addEventListener("open", () => live("on", "live"));
  stream.addEventListener("error", () => live("off", "reconnecting"));
  stream.addEventListener("change", () => htmx.trigger(document.body, "remote"));
  addEventListener("pagehide", () => stream.close());

  // --- hands on mouse and keys ------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);
    if (at("[data-do]")) act(at("[data-do]").dataset.do);
    else if (at("[data-silence-open]")) silence();
    else if (at("[data-incident]")) incident();
    else if (at("[data-shut]")) shut();
    else if (at("[data-load]")) load();
    else if (at("[data-help]")) $("#help").showModal();
    else if (at("[data-dismiss]")) at("dialog").close();
    else if (at("td.select input")) mark(at("tr"), event.target.checked);
    else if (at("table.alerts tbody tr") && plain && !getSelection().toString()) {
      event.preventDefault();
      cursor = at("tr").dataset.id;
      paint();
      open(cursor);
    }
  });
  const keys = {
    j: () => move(1),
    k: () => move(-1),
    x: () => select(false),
    X: () => select(true),
    Enter: () => cursor && open(cursor),
    Escape: () => ($("#drawer article") ? shut() : rows().forEach((row) => mark(row, false))),
    a: () => act("acknowledged"),
    i: () => act("in_progress"),
    m: () => act("mine"),
    c: () => act("closed"),
    s: silence,
    e: incident,
    g: () => (going = performance.now()),
    ".": load,
    "/": () => $("#search") && $("#search").focus(),
    "?": () => $("#help").showModal(),
  };
  const places = { a: "/alerts", i: "/incidents", g: "/agents", r: "/rules", l: "/silences", d: "/dashboards", s: "/status" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input:not([type=checkbox], [type=radio]), textarea, select");
    if (!typing && places[event.key] && performance.now() - going < 1500 && !$("dialog[open]")) {
      location.assign(places[event.key]);
      event.preventDefault();
      return;
    }
    if ($("#closing").open) {
      const radio = !typing && document.querySelectorAll("#closing [type=radio]")[Number(event.key) - 1];
      if (!radio) return;
      radio.checked = true;
      $("#closing [name=reason]").focus();
      event.preventDefault();
    } else if (typing) {
      if (event.key === "Escape") event.target.blur();
    } else if (keys[event.key] && !$("dialog[open]") && !(event.key === "Enter" && event.target.matches("a, button, summary"))) {
      event.preventDefault();
      keys[event.key]();
    }
  });
})();
