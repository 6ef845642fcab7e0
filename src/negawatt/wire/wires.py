"""Every protocol that callers may speak, by name."""

from __future__ import annotations

from collections.abc import Mapping

from negawatt.protocol import Wire
from negawatt.wire.chat import CHAT
from negawatt.wire.completions import COMPLETIONS
from negawatt.wire.count_tokens import COUNT_TOKENS
from negawatt.wire.embeddings import EMBEDDINGS
from negawatt.wire.messages import MESSAGES
from negawatt.wire.rerank import RERANK
from negawatt.wire.responses import RESPONSES

WIRES: Mapping[str, Wire] = {
    wire.name: wire for wire in (CHAT, RESPONSES, MESSAGES, COUNT_TOKENS, COMPLETIONS, EMBEDDINGS, RERANK)
}
