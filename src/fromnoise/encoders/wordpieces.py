"""The vocabulary of BERT: words cut into pieces, read from its files and kept as plain data."""

from functools import cached_property
from pathlib import Path
from typing import Any

from fromnoise.core.config import Settings, validated
from fromnoise.core.errors import FileError
from fromnoise.core.files import read_json

_INSIDE = "##"
_LONGEST_WORD = 100


class WordPieces(Settings):
    """Pieces of words by id; a piece inside a word begins with "##".

    start, end, pad, unknown: pieces that frame and fill a text and stand for what is not known.
    lower: whether a text is put in small letters without accents, as the published vocabulary is.
    """

    pieces: dict[str, int]
    start: str = "[CLS]"
    end: str = "[SEP]"
    pad: str = "[PAD]"
    unknown: str = "[UNK]"
    lower: bool = True

    @property
    def size(self) -> int:
        """How many rows an embedding needs."""
        return max(self.pieces.values(), default=-1) + 1


class WordPieceTokenizer:
    """Text → ids, as BERT's own: cleaned, cut at blanks and signs, each word in its longest pieces.

    Raises FileError for a vocabulary that does not hold together.
    Reference: Wu et al. 2016; Devlin et al. 2019; the same ids as transformers' `BertTokenizer`.
    """

    def __init__(self, vocabulary: WordPieces) -> None:
        self.vocabulary = vocabulary
        ids = vocabulary.pieces.values()
        if min(ids, default=0) < 0 or len(set(ids)) < len(ids):
            raise FileError("the vocabulary gives a piece an id below 0, or two pieces one id")
        for piece in (vocabulary.start, vocabulary.end, vocabulary.pad, vocabulary.unknown):
            if piece not in vocabulary.pieces:
                raise FileError(f"the vocabulary has no piece {piece!r}, which frames a text")
        self.start = vocabulary.pieces[vocabulary.start]
        self.end = vocabulary.pieces[vocabulary.end]
        self.pad = vocabulary.pieces[vocabulary.pad]
        self.comma = vocabulary.pieces.get(",")

    def __call__(self, text: str) -> list[int]:
        """The ids of a text, without its start and end."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _backend(self) -> Any:
        import tokenizers

        words = self.vocabulary
        backend = tokenizers.Tokenizer(
            tokenizers.models.WordPiece(
                vocab=dict(words.pieces),
                unk_token=words.unknown,
                continuing_subword_prefix=_INSIDE,
                max_input_chars_per_word=_LONGEST_WORD,
            )
        )
        backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=words.lower)
        backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        frame = (words.start, words.end, words.pad, words.unknown)
        backend.add_special_tokens(
            [tokenizers.AddedToken(piece, normalized=False) for piece in frame]
        )
        return backend


def read_word_pieces(folder: str | Path) -> WordPieces:
    """The vocabulary in a tokenizer's folder: `tokenizer.json`, or `vocab.txt`, a piece a line.

    Raises FileError for files that are missing, damaged or of another kind of tokenizer.
    """
    folder = Path(folder)
    beside = folder / "tokenizer_config.json"
    lower = _object(beside).get("do_lower_case", True) if beside.is_file() else True
    if (folder / "tokenizer.json").is_file():
        path = folder / "tokenizer.json"
        pieces = _pieces(path)
    elif (folder / "vocab.txt").is_file():
        path = folder / "vocab.txt"
        pieces = {piece: i for i, piece in enumerate(_lines(path))}
    else:
        raise FileError(f"{folder} holds no tokenizer.json, nor vocab.txt")
    vocabulary = validated(WordPieces, {"pieces": pieces, "lower": lower}, str(path))
    WordPieceTokenizer(vocabulary)
    return vocabulary


def _pieces(path: Path) -> Any:
    model = _object(path).get("model")
    if not isinstance(model, dict) or model.get("continuing_subword_prefix") != _INSIDE:
        raise FileError(
            f"{path} is no tokenizer of BERT: pieces inside a word do not begin with {_INSIDE}"
        )
    return model.get("vocab")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path, finite=False)
    if not isinstance(value, dict):
        raise FileError(f"{path} holds no JSON object")
    return value
