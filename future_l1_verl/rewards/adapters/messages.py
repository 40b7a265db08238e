"""Reads the text of a reply or a prompt that may be a chat."""

from collections.abc import Mapping, Sequence
from typing import Any

Chat = str | Sequence[Any]


def text_of(chat: Chat, role: str) -> str:
    """Returns a text unchanged; of messages (mappings or objects) the text of the last one with the ``role``, or ''."""
    if isinstance(chat, str):
        return chat
    said = [_field(message, "content") for message in chat if _field(message, "role") == role]
    content = said[-1] if said else None
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_field(part, "text") or "" for part in content)


def _field(message: Any, name: str) -> Any:
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)
