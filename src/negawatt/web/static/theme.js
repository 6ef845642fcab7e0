// Before anything is drawn: the theme that was chosen here before, so that the page does not flash in the other one.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("negawatt.theme");
  } catch (error) {
    console.info("no storage for the theme:", error.name); // a browser may forbid it; the system's theme is as good
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
