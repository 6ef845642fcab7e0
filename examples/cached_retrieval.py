"""Retrieval that is kept: a small search over a small corpus, asked by many at once. Runs without a network.

python examples/cached_retrieval.py
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from negawatt import LayerCache

CORPUS = {
    "2026-09": {
        "public": ["Send it back within 14 days."],
        "staff": ["Refunds above 200 need a second signature."],
    },
    "2026-10": {
        "public": ["Send it back within 30 days."],
        "staff": ["Refunds above 500 need a second signature."],
    },
}
PUBLIC, STAFF = ("public",), ("public", "staff")


def main() -> None:
    """Ask the same of two versions of the corpus, as two kinds of people."""
    current = ["2026-09"]
    searches: list[str] = []

    with LayerCache("memory:") as cache, ThreadPoolExecutor(20) as pool:

        @cache.cached("retrieval", corpus_version=lambda: current[0], permissions=lambda groups: groups, ttl=600)
        def search(topic: str, groups: tuple[str, ...]) -> list[str]:
            """Return what these *groups* may read about *topic*."""
            searches.append(topic)
            time.sleep(0.05)  # the work that is spared
            return [text for group in groups for text in CORPUS[current[0]][group]]

        found = list(pool.map(lambda n: search("returns", STAFF if n % 2 else PUBLIC), range(200)))
        print(f"200 questions of two kinds of people: {len(searches)} searches")
        print(f"  the public reads {found[0]}")
        print(f"  staff reads      {found[1]}")

        current[0] = "2026-10"
        print(f"a new corpus: {search('returns', PUBLIC)}; {len(searches)} searches")
        print(f"of the old one {cache.invalidate(corpus_version='2026-09')} entries are deleted")
        print(f"{cache.stats()['layers']['retrieval']}")


if __name__ == "__main__":
    main()
