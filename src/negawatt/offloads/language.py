"""The language of a text, where there is enough of it and the languages are not next of kin."""

from __future__ import annotations

from functools import cache
from typing import Any

from negawatt.offloads.asking import told
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

# Languages by code; those that short texts mistake for each other (Norwegian and Danish, Serbian and Croatian, Malay
# and Indonesian, Galician and Portuguese) are left out, and so a text in one of them is declined.
_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish",
    "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_LETTERS, _SURE = 40, 0.9999
_ASKED = {
    "what language is this", "what language is this text", "what language is the following", "which language is this",
    "what language is the following text", "which language is this text", "what language is this text in",
    "what language is this in", "what language is this written in", "what language is this text written in",
    "what language is the following text in", "what language is the following text written in",
    "which language is this text written in", "which language is the following text written in",
    "detect the language", "detect the language of this text", "detect the language of the following text",
    "identify the language", "identify the language of this text", "identify the language of the following text",
}  # fmt: skip


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of the language of *text*; None where that is not certain."""
    letters = sum(char.isalpha() for char in text)
    if letters < _LETTERS and not any(char > "\u3000" for char in text):
        return None
    if letters < _LETTERS // 4 or letters < 0.5 * len("".join(text.split())):
        return None
    code, chance = _identifier().classify(text)
    return code if code in _NAMES and chance >= _SURE else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class Language:
    """Answers which language a text is in, with its English name."""

    name = "language"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        wanted = told(ask.text)
        if wanted is None or wanted.wish.lower() not in _ASKED:
            return Declined("it does not ask for a language")
        code = language_of(wanted.body)
        return Declined("code is not certain of the language") if code is None else Answered(_NAMES[code], code)
