// What a viewer chose: theme and time zone. Nothing else is kept in the browser's storage.

import { Times } from "./format.js";

function read(key) {
  try {
    return localStorage.getItem(`negawatt.${key}`);
  } catch (error) {
    console.info(`no storage for the ${key}:`, error.name); // a browser may forbid it; then the choice lasts a visit
    return null;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(`negawatt.${key}`, value);
  } catch (error) {
    console.info(`no storage for the ${key}:`, error.name);
  }
}

/** The viewer's choices. *changed* is called after each change. */
export class Settings {
  constructor(changed) {
    this._changed = changed;
    this.utc = read("zone") === "UTC";
    this.theme = ["light", "dark"].includes(read("theme")) ? read("theme") : "auto";
    this.times = new Times(this.utc ? "UTC" : undefined);
    this.local = new Times(undefined).zone;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this._changed());
  }

  /** Tie the two selects of the page to the choices. */
  tie(zone, theme) {
    const local = this.local.replaceAll("_", " ");
    const options = this.local === "UTC" ? [["UTC", "UTC"]] : [["local", local], ["UTC", "UTC"]];
    zone.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    zone.value = this.utc || this.local === "UTC" ? "UTC" : "local";
    zone.addEventListener("change", () => this.setZone(zone.value));
    theme.value = this.theme;
    theme.addEventListener("change", () => this.setTheme(theme.value));
  }

  setZone(value) {
    this.utc = value === "UTC";
    this.times = new Times(this.utc ? "UTC" : undefined);
    write("zone", value);
    this._changed();
  }

  setTheme(value) {
    this.theme = value;
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    write("theme", value);
    this._changed();
  }
}
