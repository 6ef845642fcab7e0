// Draw anew without taking anything out of a reader's hands: focus, what is unfolded, what is scrolled, what is typed.

const HELD = "a[href], button, input, select, summary, [tabindex]";

function nameOf(node) {
  return `${node.tagName} ${node.id || node.getAttribute("name") || node.getAttribute("aria-label") || node.textContent.slice(0, 80)}`;
}

function find(host, selector, wanted, order) {
  const alike = [...host.querySelectorAll(selector)].filter((node) => nameOf(node) === wanted);
  return alike[Math.min(order, alike.length - 1)];
}

function orderOf(host, selector, node) {
  return [...host.querySelectorAll(selector)].filter((other) => nameOf(other) === nameOf(node)).indexOf(node);
}

/** Put *nodes* in the place of what *host* holds, and leave the reader where they were. */
export function redraw(host, nodes) {
  const active = host.contains(document.activeElement) ? document.activeElement : null;
  const held = active && { wanted: nameOf(active), order: orderOf(host, HELD, active) };
  const open = [...host.querySelectorAll("details[open] > summary")].map((node) => [nameOf(node), orderOf(host, "summary", node)]);
  const scrolled = [...host.querySelectorAll(".scroll")].filter((node) => node.scrollLeft).map((node) => [nameOf(node), orderOf(host, ".scroll", node), node.scrollLeft]);
  const height = host.offsetHeight;
  host.style.setProperty("min-height", `${height}px`); // so that the page does not jump while pictures find their size
  host.replaceChildren(...nodes);
  for (const [wanted, order] of open) find(host, "summary", wanted, order)?.parentElement.setAttribute("open", "");
  for (const [wanted, order, left] of scrolled) {
    const node = find(host, ".scroll", wanted, order);
    if (node) node.scrollLeft = left;
  }
  if (held) find(host, HELD, held.wanted, held.order)?.focus({ preventScroll: true });
  requestAnimationFrame(() => requestAnimationFrame(() => host.style.removeProperty("min-height")));
}

/** Put the text of a live region, unless it is what it says already. */
export function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
}
