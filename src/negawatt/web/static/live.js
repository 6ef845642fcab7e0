// The stream of what happens now. It comes back by itself, rests while the tab is hidden, and says how it stands.

const RETRY_MS = 5000;
const PATH = "/admin/api/live";

/**
 * *heard*: {tick(data), reset(), state(name)}; the states are "waiting", "live", "lost" and "resting". *reset*: what is
 * shown may have missed something, and must be asked for anew.
 */
export class Live {
  constructor(heard) {
    this._heard = heard;
    this._source = null;
    this._retry = null;
    this._was = false; // it was heard before
    this.state = "waiting";
    document.addEventListener("visibilitychange", () => (document.hidden ? this._rest() : this.start()));
  }

  start() {
    if (this._source || document.hidden) return;
    clearTimeout(this._retry);
    const source = new EventSource(PATH);
    this._source = source;
    source.addEventListener("open", () => this._alive());
    source.addEventListener("hello", () => this._alive());
    source.addEventListener("tick", (event) => {
      this._alive();
      this._heard.tick(JSON.parse(event.data));
    });
    source.addEventListener("reset", () => this._heard.reset());
    source.addEventListener("bye", () => this._lost());
    source.addEventListener("error", () => {
      this._tell("lost");
      if (source.readyState === EventSource.CLOSED) this._lost(); // refused: a browser does not try again by itself
    });
  }

  stop() {
    clearTimeout(this._retry);
    this._source?.close();
    this._source = null;
  }

  _alive() {
    const missed = this._was && this.state !== "live";
    this._was = true;
    this._tell("live");
    if (missed) this._heard.reset();
  }

  _rest() {
    this.stop();
    this._tell("resting");
  }

  _lost() {
    this.stop();
    this._tell("lost");
    this._retry = setTimeout(() => this.start(), RETRY_MS);
  }

  _tell(state) {
    if (state === this.state) return;
    this.state = state;
    this._heard.state(state);
  }
}
