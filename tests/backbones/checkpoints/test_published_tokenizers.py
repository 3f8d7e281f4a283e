"""Qwen-1's and ChatGLM3's tokenizers, token for token the originals': on recorded texts, and against the libraries that
the originals are built on."""

from __future__ import annotations

import io
import json
import random
import shutil
import unicodedata
from pathlib import Path

import pytest

from msekit.backbones.checkpoints import glm_tokenizer, qwen1
from msekit.backbones.load import load_backbone
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.labels import LabelSpace

HARD = [
    *["", " ", "  ", "\n", "\r\n", "\t", "\x00", "\x01\x7f", "\u200b", "\ufeff", "▁", "▁▁", "e\u0301", "\u0338", "ﬁ"],
    *[
        "情感",
        "🙂",
        "👨\u200d👩\u200d👧",
        "한국어",
        "ก",
        "हिन्दी",
        "\u3000",
        "\xa0",
        "\u2028",
        "\U00020000",
        "1",
        "23",
        "ß",
    ],
    *["-0.4", "+3.0", "'s", "'LL", "!!!", "the", " and", "return", "<s>", "</s>", "<unk>", "<0x0A>", "sop", "[gMASK]"],
    *["<|user|>", "<|im_start|>", "<|endoftext|>", "<|endoftext|", "<|extra_3|>", "<|extra_33|>"],
]
LONG = ["a" * 10_000, "啊" * 10_000, " " * 10_000, "🙂" * 2_500, "ab " * 3_334]


def hard_texts(count: int, seed: int) -> list[str]:
    """Joined from what has broken tokenizers before, with random characters in between."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = rng.choices(HARD, k=rng.choice([1, 2, 3, 8, 20]))
        odd = (rng.choice([rng.randrange(1, 0xD7FF), rng.randrange(0xE000, 0x2FFFF)]) for _ in range(rng.randrange(4)))
        texts.append("".join([*parts, *map(chr, odd)]))
    return texts


@pytest.fixture(scope="module")
def real_qwen(test_data: Path):
    return qwen1.load_tokenizer(test_data / "tokenizers")


def test_qwen_equals_the_recorded_ids(real_qwen, test_data: Path):
    recorded = json.loads((test_data / "tokenizers" / "qwen_expected_ids.json").read_text())
    assert len(recorded) == 422
    for text, ids in recorded:
        assert real_qwen(text)["input_ids"] == ids, text
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>", "<|extra_204|>")
    assert real_qwen.convert_tokens_to_ids(specials) == [151643, 151644, 151645, 151646, 151850]
    assert (real_qwen.bos_token_id, real_qwen.eos_token_id, real_qwen.pad_token_id) == (151644, 151643, 151643)


def same_as_tiktoken(tokenizer, folder: Path, texts: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    ranks = qwen1.read_ranks(folder / qwen1.RANK_FILE)
    special = {token: len(ranks) + number for number, token in enumerate(qwen1.SPECIAL)}
    original = tiktoken.Encoding("qwen", pat_str=qwen1.SPLIT, mergeable_ranks=ranks, special_tokens=special)
    for text in texts:
        ids = original.encode(unicodedata.normalize("NFC", text), allowed_special="all", disallowed_special=())
        assert tokenizer(text)["input_ids"] == ids, text
        assert tokenizer.decode(ids) == original.decode(ids), text


def test_qwen_equals_tiktoken_on_the_published_ranks(real_qwen, test_data: Path):
    same_as_tiktoken(real_qwen, test_data / "tokenizers", [*hard_texts(1500, seed=1), *LONG])


def test_qwen_equals_tiktoken_on_other_ranks(published):
    folder = published("qwen1", vocab_size=1000)
    same_as_tiktoken(qwen1.load_tokenizer(folder), folder, [*hard_texts(1500, seed=2), *LONG])


def test_chatglm_equals_the_recorded_ids(test_data: Path, tmp_path: Path):
    shutil.copy(test_data / "tokenizers" / "chatglm3_like_tiny.model", tmp_path / "tokenizer.model")
    tokenizer = glm_tokenizer.load_tokenizer(tmp_path)
    recorded = json.loads((test_data / "tokenizers" / "chatglm3_like_expected_ids.json").read_text())
    assert len(recorded) == 150
    for text, ids in recorded:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
        assert tokenizer(text)["input_ids"] == [3001, 3003, *ids], "[gMASK] sop come first"
    assert tokenizer.convert_tokens_to_ids(["[MASK]", "eop", "<|observation|>"]) == [3000, 3004, 3008]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 0)


def same_as_sentencepiece(folder: Path, texts: list[str]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    original = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = glm_tokenizer.load_tokenizer(folder)
    # as in the original's tokenizer, a piece that reads like a special token bears its number
    special = {token: original.get_piece_size() + number for number, token in enumerate(glm_tokenizer.SPECIAL)}
    for text in texts:
        pieces = original.encode(text, out_type=str)
        ids = [special.get(piece, number) for piece, number in zip(pieces, original.encode(text), strict=True)]
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text


@pytest.mark.parametrize("model", ["tokenizers/chatglm3_like_tiny.model", "backbones/chatglm3-tiny/tokenizer.model"])
def test_chatglm_equals_sentencepiece(test_data: Path, tmp_path: Path, model: str):
    shutil.copy(test_data / model, tmp_path / "tokenizer.model")
    same_as_sentencepiece(tmp_path, [*hard_texts(1500, seed=3), *LONG])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"remove_extra_whitespaces": True},
        {"add_dummy_prefix": False},
        {"byte_fallback": False},
        {"user_defined_symbols": ["<tag>", "return", "ret"]},
    ],
)
def test_chatglm_equals_sentencepiece_on_other_models(tmp_path: Path, settings: dict):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    rng = random.Random(4)
    corpus = ["".join(rng.choices(HARD, k=20)).replace("\x00", "") for _ in range(1500)]
    usual = {"byte_fallback": True, "remove_extra_whitespaces": False, "split_digits": True, "vocab_size": 900}
    usual |= {"normalization_rule_name": "identity", "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, model_type="bpe", **(usual | settings)
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    texts = hard_texts(800, seed=5)
    if "user_defined_symbols" in settings:  # right behind such a piece, the text of a control piece is not told apart
        texts = [text for text in texts if not any(piece in text for piece in ("<s>", "</s>", "<unk>", "<0x0A>"))]
    same_as_sentencepiece(tmp_path, texts)


def test_a_piece_that_reads_like_a_special_token_bears_its_number(published):
    folder = published("chatglm3", padded_vocab_size=65024)  # holds all triples of letters, `sop` among them
    same_as_sentencepiece(folder, ["sop", "a sop", "philosophy", *hard_texts(500, seed=6)])


@pytest.mark.parametrize("kind", ["qwen1", "chatglm3"])
def test_special_tokens_within_a_text(published, kind: str):
    """Qwen's original reads them as special tokens, ChatGLM's as text."""
    backbone = load_backbone(str(published(kind)), device="cpu")
    special = set(backbone.tokenizer.all_special_ids) | set(backbone.tokenizer.added_tokens_decoder)
    written = set(backbone.encode("say <|im_start|> or <|user|> [gMASK]"))
    assert bool(written & special) == (kind == "qwen1")


@pytest.mark.parametrize("kind", ["qwen1", "chatglm3"])
def test_nothing_dies(published, kind: str):
    backbone = load_backbone(str(published(kind)), device="cpu")
    rows = backbone.model.config.vocab_size
    for text in [*HARD, *LONG, "cut emoji \ud83d", "\udc00"]:
        ids = backbone.encode(text)
        assert all(0 <= number < rows for number in ids)
        assert ids or not text
    assert (
        backbone.bos
        == {
            "qwen1": [backbone.tokenizer.convert_tokens_to_ids("<|im_start|>")],
            "chatglm3": backbone.tokenizer.convert_tokens_to_ids(["[gMASK]", "sop"]),
        }[kind]
    )
    assert backbone.tokenizer.decode([backbone.end]) == {"qwen1": "<|endoftext|>", "chatglm3": "</s>"}[kind]


def test_signs_follow_the_rule(real_qwen, test_data: Path, tmp_path: Path):
    def labels(tokenizer) -> list[str]:
        return LabelSpace(
            DATASETS["mosei"], lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], 0
        ).texts

    assert labels(real_qwen)[-1] == "+3.0", "a minus is a token of its own"
    shutil.copy(test_data / "tokenizers" / "chatglm3_like_tiny.model", tmp_path / "tokenizer.model")
    assert labels(glm_tokenizer.load_tokenizer(tmp_path))[-1] == "3.0", "the blank and the minus are one token"


@pytest.mark.parametrize("damage", ["absent", "truncated", "text", "ranks"])
def test_a_damaged_tokenizer_file_is_refused(published, damage: str):
    for kind, name in (("qwen1", "qwen.tiktoken"), ("chatglm3", "tokenizer.model")):
        file = published(kind) / name
        if damage == "absent":
            file.unlink()
        elif damage == "text":
            file.write_text("not a tokenizer\n")
        elif damage == "truncated" or kind == "chatglm3":
            file.write_bytes(file.read_bytes()[:1001])
        else:
            file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:]))
        with pytest.raises(MsekitError) as refusal:
            load_backbone(str(file.parent), device="cpu")
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)
