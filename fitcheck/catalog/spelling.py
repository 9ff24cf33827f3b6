"""A model's name as it is read: ``Qwen3-30B-A3B-Instruct`` is the words qwen, instruct and the numbers 3, 30b, a3b."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from msgspec import Struct

MAX_NAME_LENGTH = 300

_FILE_ENDING = re.compile(r"(?:-\d{5}-of-\d{5})?\.gguf$")
_QUANTISATION = re.compile(
    r"(?<![a-z0-9])(?:(?:ud[-_])?(?:i?q|tq)[1-8](?:[-_](?:k|[0-8]|xxs|xs|s|m|l|xl|nl))*|bf16|fp?16|fp?32|fp4|mxfp[48]"
    r"|fp8(?:-(?:dynamic|static|block|kv))*|nvfp4|awq|gptq|autoround|(?:\d+(?:\.\d+)?bpw-)?exl[23]|mlx|dwq"
    r"|(?:unsloth-)?bnb|nf4|[2-8]-?bits?|int[48]|w[48]a(?:8|16)|g128|128g|(?:un)?quantized|qat|gguf|imatrix|i1"
    r"|safetensors)(?![a-z0-9])"
)
_SPACED_UNIT = re.compile(r"(?<=\d)\s+(?:billion|bn|b)\b")
_TOKEN = re.compile(
    r"\d+x\d+(?:\.\d+)?b"  # 8x7b
    r"|(?<![a-z])[ae]\d+(?:\.\d+)?[bm](?![a-z])"  # a3b: active parameters; e4b: effective ones
    r"|(?<![a-z])v0\.\d+"
    r"|\d+(?:\.\d+)*(?:[bmtke](?![a-z]))?"  # 3.1, 30b, 270m, 128k, 16e
    r"|[a-z]+"
)
SIZE = re.compile(r"(?:\d+x)?\d+(?:\.\d+)?[bmt]")
DETAIL = re.compile(r"a\d+(?:\.\d+)?[bm]|v0\.\d+|\d{4}|\d+k")  # active size, revision, year and month, context
_PLAIN_WORDS = frozenset({"instruct", "chat", "it", "hf", "model", "preview", "v"})


class Spelling(Struct, frozen=True):
    """A name as words and numbers, both in the order in which they were written."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]

    def plain(self) -> Spelling:
        """Without the words that say only how a model is used."""
        return Spelling(tuple(word for word in self.words if word not in _PLAIN_WORDS), self.numbers)

    def without(self, words: Iterable[str]) -> Spelling:
        """Without some words, unless nothing would be left."""
        left = tuple(word for word in self.words if word not in words)
        return Spelling(left, self.numbers) if left else self


def spell(text: str) -> Spelling:
    """Read a name; the quantisation and the file ending are left out."""
    text = unicodedata.normalize("NFKC", text[:MAX_NAME_LENGTH]).casefold().replace("_", "-").replace("+", " plus ")
    text = _QUANTISATION.sub(" ", _FILE_ENDING.sub(" ", text.strip()))
    tokens = _TOKEN.findall(_SPACED_UNIT.sub("b", text))
    words = tuple(dict.fromkeys(token for token in tokens if token.isalpha()))  # Qwen_Qwen3-14B says it twice
    return Spelling(words, tuple(token for token in tokens if not token.isalpha()))
