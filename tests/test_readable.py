"""What an embedder cannot read it is not asked about."""

from __future__ import annotations

import pytest

from negawatt.recall.readable import unreadable

MINILM = "all-MiniLM-L6-v2@53aa51172d14"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("How do I reset my password?", None),
        ("password", None),
        ("", None),
        ("12345", None),
        ("Where is the Café Müller in Zürich and how do I get to it?", None),
        ("Wie kann ich mein Passwort ändern und wo?", "the embedder does not read german"),
        ("где моя карта", "the embedder does not read cyrillic"),
        ("我的卡在哪里", "the embedder does not read han"),
        ("αβγ", "the embedder does not read greek"),
        ("ქართული", "the embedder does not read these letters"),
        ("how " + "ა" * 10, "the embedder does not read these letters"),
    ],
)
def test_a_model_made_for_english_reads_english(text: str, reason: str | None):
    """Names with accents are no other language; another script is, and so are small words of one."""
    assert unreadable(MINILM, text) == reason


def test_a_model_that_is_not_in_the_table_reads_everything():
    """What it was made for is not known here."""
    assert unreadable("some-multilingual-model@host", "где моя карта") is None
    assert unreadable("hashing-384", "我的卡在哪里") is None
