import os
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.data.corpus import open_corpus
from trainer.data.vocabulary import WORDS, Tokenizer, Vocabulary, build_vocabulary
from trainer.errors import InputError

LETTERS = [
    "a",
    "Z",
    "É",
    "é",
    "ß",
    "İ",
    "\u0131",
    "\u212a",
    "ǅ",
    "\u03c3",
    "Σ",
    "ж",
    "Ж",
    "中",
    "\U0001f600",
    "\u0301",
]
SPACES = [
    " ",
    "\t",
    "\n",
    "\v",
    "\f",
    "\r",
    "\x1c",
    "\x1f",
    "\x00",
    "\x85",
    "\xa0",
    "\u2028",
    "\u3000",
    "\ufeff",
]
MARKS = ["'", "-", "_", "[UNK]", "[unk]", "<br />", "$", "^", "`", "|", "¿", "«", "\u2019", "\u2014"]
BROKEN = [b"\xff", b"\xc3", b"\xe4\xb8", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80A"]


def awkward_texts(count):
    rng = random.Random(0)
    pieces = [piece.encode() for piece in LETTERS + SPACES + MARKS] + BROKEN
    every_byte = [b"Xx" + bytes([byte]) + b"yY x" + bytes([byte]) for byte in range(256)]
    return np.array(
        every_byte + [b"".join(rng.choices(pieces, k=rng.randrange(30))) for _ in range(count)], object
    )


def keras_ids(texts, vocab_size):
    layer = keras.layers.TextVectorization(max_tokens=vocab_size)
    layer.adapt(tf.data.Dataset.from_tensor_slices(tf.constant(texts)).batch(100))
    return layer(tf.constant(texts)).numpy()


@pytest.mark.parametrize("vocab_size", [3, 50, 10_000])
def test_ids_of_awkward_bytes_are_those_of_keras(vocab_size):
    texts = awkward_texts(3_000)
    vocabulary = build_vocabulary(batches=np.array_split(texts, 7), vocab_size=vocab_size)
    np.testing.assert_array_equal(vocabulary.encode(texts).to_tensor().numpy(), keras_ids(texts, vocab_size))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="needs real IMDB: set TFDS_DATA_DIR")
def test_the_vocabulary_of_imdb_is_that_of_keras(tmp_path):
    corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=str(tmp_path))
    batches = [texts for texts, _ in corpus.reviews("train")]
    vocabulary = build_vocabulary(batches=batches, vocab_size=1000)
    layer = keras.layers.TextVectorization(max_tokens=1000)
    layer.adapt(map(tf.constant, batches))
    assert vocabulary.tokens == tuple(token.encode() for token in layer.get_vocabulary())
    assert (
        b" ".join(vocabulary.tokens[:20])
        == b" [UNK] the and a of to is in it i this that br was as for with movie but"
    )


def test_only_ascii_letters_are_lowered_and_only_ascii_marks_are_dropped():
    (tokens,) = WORDS(["Don't  SAY «ÉTÉ»\u3000twice.<br />"]).to_list()
    assert tokens == [b"dont", b"say", "«ÉtÉ»\u3000twicebr".encode()]


@pytest.mark.parametrize("text", ["", " \n\t", "...", " !? \r\n"])
def test_an_empty_review_has_no_tokens(text):
    assert WORDS([text, "x"]).to_list() == [[], [b"x"]]


def test_no_texts_have_no_tokens():
    assert WORDS(np.array([], object)).to_list() == []


def test_frequent_tokens_come_first_and_ties_in_descending_order():
    vocabulary = build_vocabulary(batches=[["b a c"], ["c d", "a"]], vocab_size=5)
    assert vocabulary.tokens == (b"", b"[UNK]", b"c", b"a", b"d")


def test_the_vocabulary_does_not_depend_on_how_the_reviews_are_batched():
    texts = awkward_texts(300)
    assert build_vocabulary(batches=[texts], vocab_size=99) == build_vocabulary(
        batches=np.array_split(texts, 11), vocab_size=99
    )


def test_unknown_tokens_are_1_and_no_text_reaches_0():
    vocabulary = Vocabulary((b"", b"[UNK]", b"good"))
    token_ids = vocabulary.encode(["Good, [UNK] film", "", "good"])
    assert token_ids.dtype == tf.int32
    assert token_ids.to_list() == [[2, 1, 1], [], [2]]


def test_a_corpus_without_tokens_has_a_vocabulary():
    vocabulary = build_vocabulary(batches=[["", "..."]], vocab_size=10)
    assert len(vocabulary) == 2
    assert vocabulary.encode(["", "word"]).to_list() == [[], [1]]


CHARACTERS = Tokenizer(tokens="characters")


def test_characters_are_those_of_keras():
    texts = ["这部电影很好看！", "Good, GOOD\tfilm\nagain", "é̂ 🎬", "", "\n", b"\xff"]
    vocabulary = build_vocabulary(batches=[texts], vocab_size=99, tokenizer=CHARACTERS)
    layer = keras.layers.TextVectorization(split="character", vocabulary=_as_text(vocabulary.tokens[2:]))
    np.testing.assert_array_equal(vocabulary.encode(texts).to_tensor(), layer(tf.constant(texts)).numpy())


def _as_text(tokens):
    return [token.decode() for token in tokens]


def test_a_newline_is_an_unknown_character_so_a_vocabulary_file_has_a_token_per_line():
    vocabulary = build_vocabulary(batches=[["a\na\nb"]], vocab_size=9, tokenizer=CHARACTERS)
    assert vocabulary.tokens == (b"", b"[UNK]", b"a", b"b")
    assert vocabulary.encode(["a\nb"]).to_list() == [[2, 1, 3]]
    assert Vocabulary.from_bytes(vocabulary.to_bytes(), CHARACTERS) == vocabulary


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Good<br /><br/>film", b"good film"),
        ('<p class="review">The <A HREF=x>end</a></p>', b"the end"),
        ("Tom&nbsp;&amp;&#160;Jerry &#xE9;", b"tom jerry"),
        ("1 < 2 and 3 > 2, I <3 it", b"1 2 and 3 2 i 3 it"),
        ("AT&T; fish & chips", b"at fish chips"),
        ("<!-- note --><!DOCTYPE html>text", b"text"),
    ],
)
def test_tags_and_entities_are_removed_on_request(text, tokens):
    assert Tokenizer(strip_html=True)([text]).to_list() == [tokens.split()]


def test_each_way_to_make_tokens_has_its_own_id():
    ways = [Tokenizer(tokens, strip) for tokens in ("words", "characters") for strip in (False, True)]
    assert len({way.id for way in ways}) == 4
    assert WORDS.id == "ascii-lower, no ascii punctuation, split at ascii whitespace", "of existing stores"


def test_a_vocabulary_file_gives_back_its_tokens():
    vocabulary = build_vocabulary(batches=[awkward_texts(500)], vocab_size=400)
    assert Vocabulary.from_bytes(vocabulary.to_bytes()) == vocabulary
    assert Vocabulary.from_bytes(vocabulary.to_bytes()).fingerprint == vocabulary.fingerprint


@pytest.mark.parametrize("data", [b"", b"\n", b"\nthe\n[UNK]", b"\n[UNK]\na\na", b"\n[UNK]\na\n"])
def test_a_malformed_vocabulary_file_is_refused(data):
    with pytest.raises(InputError, match="must be an empty line"):
        Vocabulary.from_bytes(data)
