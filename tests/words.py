"""Tokenizers whose answers can be read off: one token per word, numbered."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors

PAD, UNKNOWN, FIRST, BETWEEN, START = range(5)
"""Ids of [PAD], [UNK], [CLS], [SEP] and <s>; the word "w7" is FIRST_WORD + 7."""

FIRST_WORD = 10
WORDS = 90

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>")


def tokenizer(path: Path, kind: str = "bert", *, limit: int | None = None, left: bool = False) -> Path:
    """A tokenizer.json at `path`.

    Args:
        path: of the file.
        kind: "bert" puts [CLS] and [SEP] around texts, "llama" puts <s> before them, "plain" adds nothing.
        limit: tokens to which it says texts are cut.
        left: whether it says that padding comes first.
    """
    vocabulary = {token: number for number, token in enumerate(_SPECIAL)}
    vocabulary |= {f"w{i}": FIRST_WORD + i for i in range(WORDS)}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.add_special_tokens([*_SPECIAL])
    if kind == "bert":
        built.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", FIRST), ("[SEP]", BETWEEN)],
        )
    elif kind == "llama":
        built.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", START)])
    if limit is not None:
        built.enable_truncation(limit)
    if left:
        built.enable_padding(direction="left", pad_id=PAD, pad_token="[PAD]", length=64)
    built.save(str(path))
    return path


def ids(text: str) -> list[int]:
    """What every one of them makes of words, without special tokens."""
    return [FIRST_WORD + int(word[1:]) for word in text.split()]
