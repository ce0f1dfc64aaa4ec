"""The byte-level vocabulary of CLIP: read from its files, kept as plain data, and put to use."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import Field

from fromnoise.core.config import Settings, validated
from fromnoise.core.errors import FileError
from fromnoise.core.files import read_json

_WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_START, _END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"
S = TypeVar("S", bound=Settings)


class Vocabulary(Settings):
    """Signs by id and the merges that build them, with the names of what frames a text.

    merges: "a b" each, in their order. added: signs that stand for themselves in a text, whatever
    is around them. start, end, pad, unknown: signs of `signs` or `added`.
    """

    signs: dict[str, int]
    merges: list[str]
    added: dict[str, int] = Field(default_factory=dict)
    start: str = _START
    end: str = _END
    pad: str = _END
    unknown: str = _END

    def id(self, sign: str) -> int:
        """The id of a sign, −1 for one that is not there."""
        return self.added.get(sign, self.signs.get(sign, -1))

    @property
    def size(self) -> int:
        """How many rows an embedding needs."""
        return max((*self.signs.values(), *self.added.values()), default=-1) + 1


class Tokenizer:
    """Text → ids, as CLIP's own: NFC, white space as one blank, small letters; words cut, merged.

    Raises FileError for a vocabulary that does not hold together.
    Reference: Radford et al. 2021 (their `simple_tokenizer`); the same ids as transformers'
    `CLIPTokenizer`.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        ids = [*vocabulary.signs.values(), *vocabulary.added.values()]
        if min(ids, default=0) < 0 or len(set(vocabulary.signs.values())) < len(vocabulary.signs):
            raise FileError("the vocabulary gives a sign an id below 0, or two signs one id")
        for sign in (vocabulary.start, vocabulary.end, vocabulary.pad, vocabulary.unknown):
            if vocabulary.id(sign) < 0:
                raise FileError(f"the vocabulary has no sign {sign!r}, which frames a text")
        self.start, self.end = vocabulary.id(vocabulary.start), vocabulary.id(vocabulary.end)
        self.pad = vocabulary.id(vocabulary.pad)
        comma = f",{_END_OF_WORD}"
        self.comma = vocabulary.signs.get(comma)

    def __call__(self, text: str) -> list[int]:
        """The ids of a text, without its start and end."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _backend(self) -> Any:
        import tokenizers

        vocabulary = self.vocabulary
        pairs = [tuple(merge.split(" ")) for merge in vocabulary.merges]
        odd = [merge for merge in vocabulary.merges if merge.count(" ") != 1]
        if odd:
            raise FileError(f"the merge {odd[0]!r} of this vocabulary is not two signs")
        signs = {**vocabulary.signs, vocabulary.unknown: vocabulary.id(vocabulary.unknown)}
        try:
            backend = tokenizers.Tokenizer(
                tokenizers.models.BPE(
                    vocab=signs,
                    merges=cast(list[tuple[str, str]], pairs),
                    continuing_subword_prefix="",
                    end_of_word_suffix=_END_OF_WORD,
                    fuse_unk=False,
                    unk_token=vocabulary.unknown,
                )
            )
        except Exception as error:
            # The library raises plain exceptions: for a pair that is none, or of unknown signs.
            raise FileError(
                f"the merges of this vocabulary do not fit its signs: {error}"
            ) from None
        _prepare(backend)
        _add(backend, vocabulary)
        return backend


def _prepare(backend: Any) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _add(backend: Any, vocabulary: Vocabulary) -> None:
    from tokenizers import AddedToken

    frame = {name: vocabulary.id(name) for name in (vocabulary.start, vocabulary.end)}
    known = {**frame, **vocabulary.added}
    # The library numbers signs that are new to it from the end of the vocabulary, in this order.
    for sign in sorted(known, key=lambda sign: known[sign]):
        backend.add_special_tokens([AddedToken(sign, normalized=False)])
        if backend.token_to_id(sign) != known[sign]:
            raise FileError(
                f"the added sign {sign!r} has id {known[sign]}; the next free one is "
                f"{backend.token_to_id(sign)}"
            )


def read_vocabulary(folder: str | Path) -> Vocabulary:
    """The vocabulary in a tokenizer's folder: `tokenizer.json`, or `vocab.json` + `merges.txt`.

    What frames a text is read from `tokenizer_config.json` or `special_tokens_map.json` where they
    are. Raises FileError for files that are missing, damaged or of another kind of tokenizer.
    """
    folder = Path(folder)
    framed = _frame(folder)
    if (folder / "tokenizer.json").is_file():
        path = folder / "tokenizer.json"
        parts = _whole(_object(path), path)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        path = folder / "vocab.json"
        parts = {"signs": _object(path), "merges": _merges(folder / "merges.txt")}
        if (folder / "added_tokens.json").is_file():
            parts["added"] = _object(folder / "added_tokens.json")
    else:
        raise FileError(f"{folder} holds no tokenizer.json, nor vocab.json and merges.txt")
    vocabulary = validated(Vocabulary, {**parts, **framed}, str(path))
    Tokenizer(vocabulary)
    return vocabulary


def to_bytes(vocabulary: Settings) -> bytes:
    """A vocabulary as bytes, for a buffer that travels with the weights."""
    return json.dumps(vocabulary.model_dump(), separators=(",", ":")).encode()


def from_bytes(kind: type[S], data: bytes) -> S:
    """The inverse of `to_bytes`. Raises FileError for bytes that are no such vocabulary."""
    from fromnoise.core.strictjson import loads

    return validated(kind, loads(data, "the saved vocabulary"), "the saved vocabulary")


def _whole(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a tokenizer.json says, if it is of this kind."""
    model = raw.get("model")
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != _END_OF_WORD:
        raise FileError(f"{path} is no tokenizer of CLIP: its words do not end in {_END_OF_WORD}")
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise FileError(f"{path} has no list of merges")
    added = raw.get("added_tokens") or []
    if not all(isinstance(sign, dict) and {"content", "id"} <= sign.keys() for sign in added):
        raise FileError(f"{path}: added_tokens are objects with a content and an id")
    known: Any = model.get("vocab")
    return {
        "signs": known,
        "merges": [" ".join(map(str, m)) if isinstance(m, list) else m for m in merges],
        "added": {sign["content"]: sign["id"] for sign in added},
    }


def _frame(folder: Path) -> dict[str, str]:
    """The signs that frame a text, by our names, as far as the folder says."""
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            said |= _object(folder / name)
    names = {"bos_token": "start", "eos_token": "end", "pad_token": "pad", "unk_token": "unknown"}
    framed = {}
    for theirs, ours in names.items():
        sign = said.get(theirs)
        sign = sign.get("content") if isinstance(sign, dict) else sign
        if isinstance(sign, str):
            framed[ours] = sign
    return framed


def _merges(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read: {error}") from None
    return [line for line in lines if line.strip() and not line.startswith("#version")]


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path, finite=False)
    if not isinstance(value, dict):
        raise FileError(f"{path} holds no JSON object")
    return value
