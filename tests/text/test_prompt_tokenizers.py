"""Prompts to token ids: special tokens, truncation, and the word at which a prompt is cut."""

import json
import time
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers

from grncli.runtime.errors import CheckpointError
from grncli.text.encoder_files import find_minilm
from grncli.text.prompt_tokenizers import JsonTokenizer, SentencePieceTokenizer

FILE = Path("spiece.model")


@pytest.fixture(scope="module")
def model(spiece):
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(spiece())
    return processor


@pytest.fixture(scope="module")
def umt5(spiece):
    return SentencePieceTokenizer(FILE, spiece(), max_tokens=16)


@pytest.fixture(scope="module")
def minilm():
    file = find_minilm().tokenizer
    return JsonTokenizer(file, file.read_bytes(), 256, before=("[CLS]",), after=("[SEP]",))


def json_of(model, **changes):
    """The tokenizer.json of the same pieces."""
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    return json.dumps(json.loads(tokenizer.to_str()) | changes).encode()


@pytest.mark.parametrize("prompt", ["a red star", "the 星 café", "two</s>red"])
def test_umt5_ids_are_the_pieces_and_the_end(umt5, model, prompt):
    tokenized = umt5.tokenize(prompt)
    assert tokenized.ids == (*model.encode(prompt), 1)
    assert tokenized.ids.count(1) == 1
    assert tokenized.cut_at is None


def test_the_empty_prompt_is_special_tokens_alone(umt5, minilm):
    assert umt5.tokenize("").ids == (1,)
    assert minilm.tokenize("").ids == (101, 102)


@pytest.mark.parametrize("prompt", ["", "a red star", "the 星 café", "a red star on " * 9])
def test_a_tokenizer_json_gives_the_ids_of_its_sentencepiece_model(umt5, model, prompt):
    other = JsonTokenizer.of_umt5(Path("tokenizer.json"), json_of(model), max_tokens=16)
    assert other.tokenize(prompt.strip()) == umt5.tokenize(prompt.strip())
    assert other.vocabulary == umt5.vocabulary == model.get_piece_size()


@pytest.mark.parametrize("count", range(1, 24))
def test_a_long_prompt_keeps_the_end_and_names_the_first_word_that_is_lost(umt5, model, count):
    words = ["red", "Thursday", "star", "xyzq", "circle", "a"] * 4
    prompt = " ".join(words[:count])
    tokenized, ids = umt5.tokenize(prompt), model.encode(prompt)
    assert tokenized.ids == (*ids[:15], 1)
    lengths = [len(model.encode(" ".join(words[: n + 1]))) for n in range(count)]
    assert tokenized.cut_at == next((word for word, length in zip(words, lengths, strict=False) if length > 15), None)


def test_of_a_text_without_spaces_what_is_lost_is_named(umt5):
    text = "".join(chr(0x4E00 + n) for n in range(100))  # three bytes each
    assert umt5.tokenize(f"a {text}").cut_at == text[4:44]


def test_minilm_reads_256_tokens_with_the_special_ones(minilm):
    fitting = minilm.tokenize(" ".join(["red"] * 254))
    assert (len(fitting.ids), fitting.cut_at) == (256, None)
    cut = minilm.tokenize(" ".join(["red"] * 254 + ["star"]))
    assert (cut.ids, cut.cut_at) == (fitting.ids, "star")


def test_what_spells_a_special_token_is_text(minilm):
    ids = minilm.tokenize("a [SEP] star [CLS]").ids
    assert (ids.count(101), ids.count(102)) == (1, 1)


def test_ten_thousand_words_are_cut_in_seconds(umt5, minilm):
    start = time.process_time()
    for tokenizer, fitting in ((umt5, 1), (minilm, 254)):
        assert tokenizer.tokenize(" ".join(["a"] * fitting + ["star"] * 10_000)).cut_at == "star"
    assert time.process_time() - start < 5


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_damaged_vocabulary_is_refused(content):
    with pytest.raises(CheckpointError, match=r"^spiece\.model: cannot be read as a sentencepiece model"):
        SentencePieceTokenizer(FILE, content, 16)
    with pytest.raises(CheckpointError, match=r"^tokenizer\.json: cannot be read as a tokenizer"):
        JsonTokenizer.of_umt5(Path("tokenizer.json"), content, 16)


def test_a_vocabulary_with_other_special_tokens_is_refused(spiece):
    with pytest.raises(CheckpointError, match=r"padding token at 1 and </s> at 0, expected 0 and 1"):
        SentencePieceTokenizer(FILE, spiece(pad_id=1, eos_id=0), 16)
    file = find_minilm().tokenizer
    with pytest.raises(CheckpointError, match=r"lacks the token </s>"):
        JsonTokenizer.of_umt5(file, file.read_bytes(), 16)
