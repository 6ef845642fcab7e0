"""The real `openai` package as its two clients, behind one face, so that each test runs through both."""

from __future__ import annotations

import asyncio
from typing import Any

import openai


class Sdk:
    """`openai.OpenAI` in a thread, or `openai.AsyncOpenAI`. It does not try again by itself."""

    def __init__(self, kind: str, base_url: str, api_key: str = "any", **options: Any) -> None:
        settings = {"base_url": base_url, "api_key": api_key, "max_retries": 0, "timeout": 15, **options}
        self._sync = openai.OpenAI(**settings) if kind == "sync" else None
        self._async = openai.AsyncOpenAI(**settings) if kind == "async" else None
        self.completions: Any = (self._sync or self._async).chat.completions  # type: ignore[union-attr]

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method of ``chat.completions``."""
        if self._sync is not None:
            return await asyncio.to_thread(lambda: getattr(self.completions, method)(**fields))
        return await getattr(self.completions, method)(**fields)

    async def ask(self, **fields: Any) -> Any:
        return await self.call("create", **fields)

    async def stream(self, **fields: Any) -> list[Any]:
        """Return the chunks of a streamed answer."""
        if self._sync is not None:
            return await asyncio.to_thread(lambda: list(self.completions.create(**fields, stream=True)))
        return [chunk async for chunk in await self.completions.create(**fields, stream=True)]

    async def gathered(self, **fields: Any) -> Any:
        """Return the whole answer as the package itself gathers it from a stream."""
        if self._sync is not None:

            def read() -> Any:
                with self.completions.stream(**fields) as stream:
                    return stream.get_final_completion()

            return await asyncio.to_thread(read)
        async with self.completions.stream(**fields) as stream:
            return await stream.get_final_completion()

    async def raw(self, **fields: Any) -> Any:
        """Return the response with its headers."""
        if self._sync is not None:
            return await asyncio.to_thread(lambda: self.completions.with_raw_response.create(**fields))
        return await self.completions.with_raw_response.create(**fields)

    async def models(self) -> list[Any]:
        if self._sync is not None:
            return await asyncio.to_thread(lambda: list(self._sync.models.list()))  # type: ignore[union-attr]
        assert self._async is not None
        return [model async for model in self._async.models.list()]

    async def close(self) -> None:
        if self._sync is not None:
            self._sync.close()
        if self._async is not None:
            await self._async.close()


def text_of(chunks: list[Any]) -> str:
    """What the chunks of a stream say, of the first choice."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
