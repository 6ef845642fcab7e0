// The page: which view is shown, when its figures are asked for, and how it stands with the gateway.

import { ApiError, get, signIn, signOut } from "./api.js";
import { h, nothing } from "./dom.js";
import { ago } from "./format.js";
import { honesty } from "./honesty.js";
import { redraw, say } from "./keep.js";
import { Live } from "./live.js";
import * as periods from "./period.js";
import { Settings } from "./settings.js";

// A view's module is fetched when it is first shown. It exports `view`: {load(context) -> data,
// draw(context, data) -> nodes, tick?(context, data, tick, page), says?(data) -> words, fresh: false if news must not move it}.
const VIEWS = {
  overview: { title: "Overview", module: () => import("./page_overview.js") },
  classes: { title: "Classes", module: () => import("./page_classes.js") },
  prompts: { title: "Prompts", module: () => import("./page_prompts.js") },
  caches: { title: "Caches", module: () => import("./page_caches.js") },
  routing: { title: "Routing", module: () => import("./page_routing.js") },
  requests: { title: "Requests", module: () => import("./page_requests.js") },
  budgets: { title: "Budgets and alerts", short: "Budgets, alerts", module: () => import("./page_budgets.js") },
};
const AGAIN_MS = 4000; // between two loads for news
const POLL_MS = 30_000; // between two looks at what no stream tells of
const UNFINISHED_MS = 2000; // while roll-ups are being made
const SAY_MS = 20_000; // between two announcements

const find = (id) => document.getElementById(id);

class App {
  constructor() {
    this.page = find("page");
    this.settings = new Settings(() => this._draw());
    this.settings.tie(find("zone"), find("theme"));
    find("zone").addEventListener("change", () => this.load());
    this.live = new Live({ tick: (tick) => this._tick(tick), reset: () => this.load(), state: () => this._tellLive() });
    this.data = null; // of the view that is shown
    this.drawn = null; // the name of that view
    this.view = null; // and its code
    this.loadedAt = null;
    this.inFlight = null;
    this.session = null;
    this.alone = false;
    this._asking = null;
    this._due = null;
    this._saidAt = 0;
    addEventListener("hashchange", () => this._moved());
    find("main").parentElement.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the fragment is the view's name
      find("main").focus();
    });
    setInterval(() => this._tellLive(), 1000);
    setInterval(() => this._poll(), POLL_MS);
  }

  get route() {
    const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
    const [view, ...rest] = path.split("/");
    return { view: view in VIEWS ? view : "overview", id: rest.length ? decodeURIComponent(rest.join("/")) : null,
      query: new URLSearchParams(search ?? "") };
  }

  get context() {
    const { query, id } = this.route;
    const zone = this.settings.times.zone;
    const period = query.get("period") in periods.PERIODS ? query.get("period") : periods.DEFAULT;
    return { query, id, zone, times: this.settings.times, period, asked: periods.asked(period, zone), live: this.live,
      get: (name, parameters) => get(name, parameters, this._asking?.signal), go: (hash) => { location.hash = hash; },
      choose: (name) => this._choose(name), reload: () => this.load(), inFlight: this.inFlight, alone: this.alone };
  }

  async start() {
    this._nav();
    try {
      this.session = await get("session");
    } catch (error) {
      this._failed(error);
      setTimeout(() => this.start(), 5000);
      return;
    }
    if (!this.session.signed_in) return this._login("");
    this._signedIn();
    await this.load();
    this._around();
  }

  /** Ask for the figures of the view that is shown, and draw them. Of two that run the older gives way. */
  async load() {
    if (!this.session?.signed_in) return;
    this._asking?.abort();
    const asking = (this._asking = new AbortController());
    clearTimeout(this._due);
    this._due = null;
    const { view } = this.route;
    const { hash } = location;
    if (this.drawn !== view) this._waiting(view);
    this.page.setAttribute("aria-busy", "true");
    try {
      const shown = await viewOf(view);
      const data = await shown.load(this.context);
      if (asking.signal.aborted) return;
      this.data = data;
      this.drawn = view;
      this.view = shown;
      this.loadedAt = Date.now();
      this._draw();
      if (data.rollup?.complete === false) this._due = setTimeout(() => this.load(), UNFINISHED_MS);
    } catch (error) {
      if (error.name !== "AbortError") this._failed(error);
    } finally {
      if (this._asking === asking) {
        this._asking = null;
        this.page.removeAttribute("aria-busy");
        this.page.dataset.shown = hash;
      }
    }
    this._tellLive();
  }

  _draw() {
    if (!this.data || this.drawn !== this.route.view) return;
    redraw(this.page, this.view.draw(this.context, this.data).filter(Boolean));
    this.facts = this.data.honesty ?? this.facts;
    if (this.data.tiles) this._stands(this.data.tiles);
    honesty(this.facts, find("honesty"), find("honesty-list"));
    const words = this.view.says?.(this.data);
    if (words && Date.now() - this._saidAt > SAY_MS) {
      say(find("says"), words);
      this._saidAt = Date.now();
    }
  }

  _moved() {
    this._nav();
    this._saidAt = 0;
    this.data = this.drawn === this.route.view ? this.data : null;
    scrollTo(0, 0);
    this.load().then(() => find("page").querySelector("h1")?.focus({ preventScroll: true }));
  }

  _waiting(view) {
    this.data = null;
    this.page.replaceChildren(h("div", { class: "head" }, h("h1", { tabindex: "-1" }, VIEWS[view].title)),
      h("p", { class: "loading", role: "status" }, "Asking the gateway …"));
  }

  _choose(period) {
    const { view, query } = this.route;
    query.set("period", period);
    history.replaceState(null, "", `#/${view}?${query}`);
    this._nav();
    this.load();
  }

  /** Ask for what changes without a call: alerts, and all figures while there is no stream. */
  _poll() {
    if (!this.session?.signed_in || document.hidden) return;
    if (this.live.state === "lost" || this.route.view === "budgets") this.load();
    this._around();
  }

  // -- how it stands ------------------------------------------------------------------------------------------------

  _tick(tick) {
    this.inFlight = tick.in_flight;
    if (this.data) this.view.tick?.(this.context, this.data, tick, this.page);
    if (this.view?.fresh !== false && this._due === null)
      this._due = setTimeout(() => this.load(), Math.max(600, AGAIN_MS - (Date.now() - (this.loadedAt ?? 0))));
    this._tellLive();
  }

  _tellLive() {
    const box = find("live");
    const old = this.loadedAt === null ? null : (Date.now() - this.loadedAt) / 1000;
    const flying = this.inFlight ? ` · ${this.inFlight} in flight` : "";
    const aged = old === null ? "" : ` Figures from ${ago(old)}.`;
    const words = { waiting: "Connecting", live: this.alone ? "A ledger, not live" : `Live${flying}`, lost: `Connection lost${old === null ? "" : `, figures ${ago(old)}`}`, resting: "Resting" };
    box.dataset.state = this.live.state;
    say(find("live-text"), words[this.live.state]);
    box.title = aged.trim();
    const lost = this.live.state === "lost";
    if (lost && !this._wasLost) say(find("says"), `The connection to the gateway is lost.${aged}`);
    if (!lost && this._wasLost) say(find("says"), "Connected again.");
    this._wasLost = lost;
  }

  /** Learn from the tiles whether a gateway is behind the page, or its ledger alone. */
  _stands({ uptime }) {
    const alone = uptime.started_s === null;
    if (alone === this.alone) return;
    this.alone = alone;
    this._tellLive();
    this._draw(); // what it says of what is not configured depends on it
  }

  _failed(error) {
    if (error instanceof ApiError && error.status === 401) {
      this.live.stop();
      return this._login(this.session?.signed_in ? "The session has ended; sign in again." : "");
    }
    if (!(error instanceof ApiError)) throw error;
    const notice = h("div", { class: "notice", role: "alert" }, h("div", null, h("b", null, "That did not work. "), error.message,
      error.param ? ` (${error.param})` : ""));
    for (const old of this.page.querySelectorAll(".notice[role=alert], .loading")) old.remove();
    this.page.querySelector(".head")?.after(notice) ?? this.page.prepend(notice);
  }

  /** Ask for what stands around every view: how far to trust the figures, and how many alerts fire. */
  async _around() {
    try {
      if (!this.facts) {
        const context = this.context;
        const { honesty: facts, tiles } = await get("overview", periods.asked("today", context.zone));
        this.facts = facts;
        this._stands(tiles);
        honesty(this.facts, find("honesty"), find("honesty-list"));
      }
      const { alerts } = await get("alerts");
      this.firing = alerts.filter((alert) => alert.state === "firing").length;
      this._nav();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      console.info("not all is known:", error.message); // the pages that need it say it aloud
    }
  }

  // -- around the view ----------------------------------------------------------------------------------------------

  _nav() {
    const { view, query } = this.route;
    const period = query.get("period");
    document.title = `${VIEWS[view].title} · negawatt`;
    const items = Object.entries(VIEWS).map(([name, { title, short }]) => {
      const firing = name === "budgets" && this.firing ? h("span", { class: "n" }, this.firing, h("span", { class: "sr" }, " alerts firing")) : null;
      return h("li", null, h("a", { href: `#/${name}${period ? `?period=${period}` : ""}`, "aria-current": name === view ? "page" : null }, short ?? title, firing));
    });
    redraw(find("nav"), items);
    const bar = find("nav").closest("nav"); // on a narrow window it is wider than there is room
    const chosen = bar.querySelector("[aria-current]");
    bar.scrollLeft += Math.min(0, chosen.getBoundingClientRect().left - bar.getBoundingClientRect().left - 12);
    bar.scrollLeft += Math.max(0, chosen.getBoundingClientRect().right - bar.getBoundingClientRect().right + 12);
  }

  _signedIn() {
    document.body.dataset.signed = "yes";
    this._account();
    this.live.start();
  }

  _account() {
    document.querySelector(".settings .account")?.remove();
    if (this.session.open) return;
    document.querySelector(".settings").append(h("div", { class: "setting account" }, h("span", null, "key ", h("bdi", null, this.session.key_id ?? "")),
      h("button", { type: "button", class: "button", onclick: () => this._out() }, "Sign out")));
  }

  async _out() {
    await signOut();
    this.live.stop();
    this.session = { signed_in: false };
    document.querySelector(".settings .account")?.remove();
    this._login("Signed out.");
  }

  _login(words) {
    this.data = this.drawn = this.facts = null;
    document.body.dataset.signed = "no";
    this.session = { ...this.session, signed_in: false };
    honesty(null, find("honesty"), find("honesty-list"));
    const problem = h("p", { class: "problem", role: "alert" }, words);
    const field = h("input", { id: "key", type: "password", name: "key", autocomplete: "current-password", required: true, spellcheck: "false" });
    const button = h("button", { type: "submit", class: "button main" }, "Sign in");
    const form = h("form", { class: "card login", onsubmit: (event) => this._enter(event, field, button, problem) },
      h("h1", { tabindex: "-1" }, "Sign in"), h("p", { class: "note" }, "This gateway has keys, so its books are for an administrator to read: a key with ",
        h("code", null, "admin = true"), ". It goes to this gateway only, and is not kept in the browser."),
      h("div", { class: "field" }, h("label", { for: "key" }, "Administrator's key"), field), button, problem);
    this.page.replaceChildren(form);
    field.focus();
  }

  async _enter(event, field, button, problem) {
    event.preventDefault();
    button.disabled = true;
    try {
      this.session = await signIn(field.value);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const words = { 401: "No such key here.", 403: "This key is not an administrator's: it may ask models, not read the books.",
        429: "Too many tries. Wait a minute, then try again." };
      problem.textContent = words[error.status] ?? `That did not work: ${error.message}`;
      field.value = "";
      field.focus();
      return;
    } finally {
      button.disabled = false;
    }
    this.page.replaceChildren(nothing("Signed in."));
    this._signedIn();
    await this.load();
    this._around();
  }
}

async function viewOf(name) {
  try {
    return (await VIEWS[name].module()).view;
  } catch (error) {
    console.info(`no module for ${name}:`, error.message);
    throw new ApiError(0, { message: "the gateway does not answer" });
  }
}

new App().start();
