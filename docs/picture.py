"""Draw docs/negawatt.svg, the picture of the README: ``python docs/picture.py``."""

from __future__ import annotations

from pathlib import Path

STYLE = """
  text { font: 15px ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .small { font-size: 13px; fill: #57606a }
  .head { font-weight: 600 }
  .mid { text-anchor: middle }
  .card { fill: #ffffff; stroke: #d0d7de }
  .box { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1.2 }
  .lever { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.2 }
  .keep { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.2 }
  .line { fill: none; stroke: #57606a; stroke-width: 1.8 }
  .dash { stroke-dasharray: 5 4 }
  .up { stroke: #1a7f37 }
  .tip { fill: #57606a } .tipup { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9da7b1 }
    .card { fill: #0d1117; stroke: #30363d }
    .box { fill: #161b22; stroke: #6e7681 }
    .lever { fill: #12261e; stroke: #3fb950 }
    .keep { fill: #0c2d4d; stroke: #58a6ff }
    .line { stroke: #9da7b1 } .up { stroke: #3fb950 } .tip { fill: #9da7b1 } .tipup { fill: #3fb950 }
  }
"""
LEVERS = (
    ("meter", "opens the books", "box"),
    ("admit", "who may ask", "box"),
    ("compose", "its final meaning", "box"),
    ("classify", "what kind is it?", "box"),
    ("offload", "can code answer?", "lever"),
    ("exact_cache", "asked before?", "lever"),
    ("item_cache", "some of it before?", "lever"),
    ("coalesce", "asked right now?", "lever"),
    ("semantic_cache", "in other words?", "lever"),
    ("compress", "what is not needed", "lever"),
    ("structure", "what was asked for", "box"),
    ("cap", "as long as useful", "lever"),
    ("route", "the smallest model", "lever"),
    ("retry", "again, or elsewhere", "box"),
)
STEP = 47  # from one lever to the next
LOW = STEP * len(LEVERS) - 329  # how far what stands beside the last levers has moved down
WIDTH, HEIGHT = 960, 470 + LOW
TITLE = "A call goes down through the levers to a provider; a reply comes back up; one row goes to the ledger"


def box(x: int, y: int, width: int, height: int, kind: str) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'


def text(x: float, y: int, words: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y}">{words}</text>'


def arrow(path: str, kind: str = "line") -> str:
    tip = "tipup" if "up" in kind.split() else "tip"
    return f'<path class="{kind}" d="{path}" marker-end="url(#{tip})"/>'


def picture() -> str:
    """Return the SVG."""
    parts = [box(1, 1, WIDTH - 2, HEIGHT - 2, "card")]
    parts += [
        box(20, 34, 166, 92, "box"),
        text(103, 62, "your application", "head mid"),
        text(103, 84, "any SDK,", "small mid"),
        text(103, 102, "base_url changed", "small mid"),
        arrow("M186 57 H252"),
        text(219, 47, "call", "small mid"),
        arrow("M256 77 H190", "line up"),
        text(219, 97, "reply", "small mid"),
    ]
    parts.append(text(404, 30, "negawatt: one list of levers", "head mid"))
    for i, (name, what, kind) in enumerate(LEVERS):
        y = 44 + i * STEP
        parts += [box(256, y, 296, 35, kind), text(272, y + 23, name, "head"), text(416, y + 23, what, "small")]
        if i:
            parts += [arrow(f"M318 {y - 12} V{y - 2}"), arrow(f"M490 {y} V{y - 10}", "line up")]
    parts += [
        text(566, 182, "a lever answers:", "small"),
        text(566, 200, "nothing below it is asked", "small"),
        arrow(f"M552 {337 + LOW} H690"),
        text(621, 328 + LOW, "call", "small mid"),
        arrow(f"M694 {351 + LOW} H556", "line up"),
        text(621, 371 + LOW, "reply", "small mid"),
        box(694, 278 + LOW, 238, 92, "box"),
        text(813, 306 + LOW, "provider", "head mid"),
        text(813, 328 + LOW, "OpenAI, Anthropic, vLLM", "small mid"),
        text(813, 346 + LOW, "or recorded:, modelled:", "small mid"),
        arrow("M552 61 H690"),
        text(621, 51, "one row", "small mid"),
        box(694, 34, 238, 92, "keep"),
        text(813, 60, "ledger", "head mid"),
        text(813, 82, "tokens, money, time, energy,", "small mid"),
        text(813, 100, "what it would have been, why", "small mid"),
    ]
    parts += [
        arrow(f"M932 80 H944 V{412 + LOW} H936", "line dash"),
        box(256, 386 + LOW, 676, 56, "keep"),
        text(272, 408 + LOW, "replay", "head"),
        text(332, 408 + LOW, "recorded traffic through the same path on a virtual clock:", "small"),
        text(332, 427 + LOW, "without levers, with all of them, with all but one", "small"),
        arrow(f"M256 {412 + LOW} H103 V{370 + LOW}", "line dash"),
        text(103, 326 + LOW, "report", "head mid"),
        text(103, 346 + LOW, "what each lever saved,", "small mid"),
        text(103, 362 + LOW, "with an interval", "small mid"),
    ]
    marker = (
        '<marker id="{0}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><path class="{0}" d="M0 0 L8 4 L0 8 z"/></marker>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{TITLE}">'
    defs = f"<defs>{marker.format('tip')}{marker.format('tipup')}</defs>"
    return "\n".join([head, f"<title>{TITLE}</title>", f"<style>{STYLE}</style>", defs, *parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_name("negawatt.svg").write_text(picture(), encoding="utf-8")
