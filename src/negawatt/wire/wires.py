"""Every protocol that callers may speak, by name."""

from __future__ import annotations

from collections.abc import Mapping

from negawatt.protocol import Wire
from negawatt.wire.chat import CHAT

WIRES: Mapping[str, Wire] = {wire.name: wire for wire in (CHAT,)}
