// What is wrong with a page for those who cannot see it, or cannot point: run in the page, returns sentences.
() => {
  const found = [];
  const shown = (node) => node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const told = (node) => `${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : ""}.${node.getAttribute("class") ?? ""} "${node.textContent.trim().slice(0, 40)}"`;
  const named = (node) => {
    const ids = (node.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
    for (const id of ids) if (!document.getElementById(id)) found.push(`${told(node)} is labelled by #${id}, which is not there`);
    return node.getAttribute("aria-label") || ids.some((id) => document.getElementById(id)?.textContent.trim()) || node.textContent.trim() || node.getAttribute("title");
  };

  for (const node of document.querySelectorAll("input, select, textarea"))
    if (shown(node) && !node.labels?.length && !node.getAttribute("aria-label")) found.push(`no label: ${told(node)}`);
  for (const node of document.querySelectorAll("button, a[href], summary, [role=region], section"))
    if (shown(node) && !named(node)) found.push(`no name: ${told(node)}`);
  for (const node of document.querySelectorAll("svg, canvas, img"))
    if (shown(node) && !node.closest("[aria-hidden=true]") && !(node.getAttribute("role") === "img" && (node.getAttribute("aria-label") || named(node)))) found.push(`a picture without a name: ${node.outerHTML.slice(0, 80)}`);
  for (const node of document.querySelectorAll("figure, .waterfall"))
    if (!node.parentElement.querySelector("table")) found.push(`a chart without a table: ${told(node)}`);
  for (const node of document.querySelectorAll("table"))
    if (!node.caption?.textContent.trim() || ![...node.querySelectorAll("th")].every((head) => head.scope)) found.push(`a table without caption or scopes: ${told(node)}`);

  const heads = [...document.querySelectorAll("h1, h2, h3, h4")].filter(shown).map((node) => Number(node.tagName[1]));
  if (heads.filter((level) => level === 1).length !== 1) found.push(`headings of the first level: ${heads.filter((level) => level === 1).length}`);
  heads.forEach((level, i) => { if (level > (heads[i - 1] ?? 0) + 1) found.push(`a heading of level ${level} follows one of ${heads[i - 1] ?? 0}`); });
  for (const [selector, n] of [["main", 1], ["header", 1], ["nav[aria-label]", document.querySelectorAll("nav").length], ["html[lang]", 1]])
    if (document.querySelectorAll(selector).length !== n) found.push(`${selector}: not ${n} of them`);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`two of #${id}`);

  const parse = (text) => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [...numbers.slice(0, 3).map((part) => part * 255), numbers[3] ?? 1] : [numbers[0], numbers[1], numbers[2], numbers[3] ?? 1];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || seen.has(node) || !shown(node) || node.closest(".sr, noscript, [disabled], option")) continue;
    seen.add(node);
    const style = getComputedStyle(node);
    const ink = parse(node.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(node.closest("svg")?.parentElement ?? node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`contrast ${ratio.toFixed(2)}: ${told(node)}`);
  }
  return found;
}
