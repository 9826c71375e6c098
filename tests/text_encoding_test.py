"""Text from bytes."""

import codecs
import re

import pytest

from trainer.data import text_encoding
from trainer.data.compression import Source
from trainer.data.text_encoding import Text
from trainer.errors import InputError

SAMPLES = {
    "cp1252": "Ce film est très décevant, même si l’acteur a été à la hauteur – “déjà vu”.",
    "latin-1": "Der Film ist schön, aber für mich viel zu lang. Größe überzeugt.\x81",
    "gb18030": "这部电影非常好看，演员的表演也很出色。我很喜欢。",
    "big5": "這部電影非常好看，演員的表演也很出色。我很喜歡。",
    "shift_jis": "この映画はとても面白かったです。素晴らしい演技でした。カメラもよい。",
    "euc_jp": "この映画はとても面白かったです。素晴らしい演技でした。カメラもよい。",
    "euc_kr": "이 영화는 정말 재미있었어요. 배우들의 연기가 훌륭했습니다.",
    "koi8_r": "Этот фильм очень хороший, актеры сыграли прекрасно. Мне понравилось.",
    "cp1251": "Этот фильм очень хороший, актеры сыграли прекрасно. Мне понравилось.",
}


def text_of(path, content, encoding=""):
    path.write_bytes(content)
    return Text(Source(path), encoding)


def read(path, content, encoding=""):
    return list(text_of(path, content, encoding).lines())


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_byte_order_mark_decides_and_is_not_part_of_the_text(tmp_path, mark, encoding):
    text = text_of(tmp_path / "a", mark + "naïve 😀\r\nfilm".encode(encoding))
    assert text.encoding == encoding
    assert list(text.lines()) == text.sample_lines() == ["naïve 😀\r\n", "film"]


@pytest.mark.parametrize("given", ["utf-8", "utf-16", "UTF8", "utf-16-le"])
def test_a_mark_is_skipped_when_its_encoding_is_given(tmp_path, given):
    encoding = "utf-16" if "16" in given else "utf-8-sig"
    assert read(tmp_path / "a", "good\n".encode(encoding), given) == ["good\n"]


@pytest.mark.parametrize("encoding", SAMPLES)
def test_the_encoding_that_an_error_names_reads_the_text(tmp_path, encoding):
    line = SAMPLES[encoding] + "\n"
    content = ("plain\n" * 30_000 + line * 3).encode(encoding)
    with pytest.raises(InputError, match=r"line 30001 of .*in which all of it can be read") as error:
        read(tmp_path / "a", content)
    given = re.search("--encoding=(\\S+),", str(error.value))[1]
    assert read(tmp_path / "a", content, given)[-1] == line


def test_a_guess_is_tried_on_the_whole_file(tmp_path):
    content = "naïve\n".encode("cp1252") * 50_000 + b"\x81\n"  # no character in cp1252
    with pytest.raises(InputError, match="--encoding=latin-1,"):
        read(tmp_path / "a", content)


def test_bytes_that_are_no_text_in_the_given_encoding_are_an_input_error_with_their_line(tmp_path):
    with pytest.raises(InputError, match="--encoding=gb18030, but line 2 of"):
        read(tmp_path / "a", b"good\n\xff\xff\n", "gb18030")
    with pytest.raises(InputError, match=r"--encoding=utf-16, but line 1 of .*truncated"):
        read(tmp_path / "a", b"\xff\xfeg\0o", "utf-16")


@pytest.mark.parametrize("given", ["latin-9000", "base64", "a\0b", "undefined", "zip", "idna"])
def test_an_unknown_encoding_is_an_input_error(tmp_path, given):
    with pytest.raises(InputError, match="--encoding must name an encoding of text"):
        text_of(tmp_path / "a", b"good", given)


def test_a_nul_byte_is_an_input_error_with_its_line(tmp_path):
    with pytest.raises(InputError, match=r"line 2 of .*NUL byte\); mend it"):
        read(tmp_path / "a", b"good\nba\0d\n")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_an_input_error_whose_remedy_works(tmp_path, encoding):
    content = "good film\nbad film\n".encode(encoding)
    with pytest.raises(InputError, match=f"give --encoding={encoding},"):
        read(tmp_path / "a", content)
    assert read(tmp_path / "a", content, encoding) == ["good film\n", "bad film\n"]


@pytest.mark.parametrize("content", [b"go\0od\n", b"na\xefve\n", b"\xff\xfeg\0o"])
def test_a_sample_that_is_not_all_text_is_refused_before_it_is_used(tmp_path, content):
    text = text_of(tmp_path / "a", b"good\n" * 9 * (content[0] != 255) + content)
    with pytest.raises(InputError, match=r"line (1|10) of"):
        text.check_sample()
    text_of(tmp_path / "a", "naïve\n".encode()).check_sample()


def test_cr_alone_ends_a_line_only_in_a_file_without_lf(tmp_path):
    assert read(tmp_path / "a", b"one\rtwo\r") == ["one\r", "two\r"]
    assert read(tmp_path / "a", b"one\rtwo\nthree\r\n") == ["one\rtwo\n", "three\r\n"]


def test_other_characters_that_unicode_calls_line_breaks_do_not_end_lines(tmp_path):
    line = "one\x0b\x0c\x1c\x85\u2028two\n"
    assert read(tmp_path / "a", line.encode()) == [line]


def test_lines_and_characters_over_the_end_of_a_block_are_whole(tmp_path):
    lines = [f"{number} é {'x' * (number % 300)}\n" for number in range(10_000)]
    assert read(tmp_path / "a", "".join(lines).encode()) == lines


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(text_encoding, "LONGEST_LINE", 2**18)
    with pytest.raises(InputError, match=r"line 2 of .* has more"):
        read(tmp_path / "a", b"good\n" + b"x" * 2**19)


def test_the_sample_of_a_large_file_holds_only_whole_lines(tmp_path):
    lines = text_of(tmp_path / "a", b"good film\n" * 200_000).sample_lines()
    assert 1000 < len(lines) < 200_000 and set(lines) == {"good film\n"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("naïve".encode(), True),
        ("naïve".encode("utf-16"), True),
        (b"naive", True),
        ("naïve".encode("cp1252"), False),
        ("naïve".encode()[:-3], False),
        ("naive".encode("utf-16-le"), False),
        ("映画".encode("iso2022_jp"), False),
        (b"good\n" * 300_000 + "naïve".encode(), True),
        (b"good\n" * 300_000 + "naïve".encode("cp1252"), False),
    ],
)
def test_what_has_a_mark_or_is_utf8_is_recognised(tmp_path, content, expected):
    (tmp_path / "a").write_bytes(content)
    assert text_encoding.is_recognised(Source(tmp_path / "a")) == expected


@pytest.mark.parametrize("start", [0, 300_000])
def test_a_few_damaged_bytes_do_not_hide_that_a_text_is_utf8(tmp_path, start):
    content = b"good\n" * start + "très naïve\n".encode() * 10 + b"caf\xe9\n" + "été\n".encode()
    text = text_of(tmp_path / "a", content)
    text.check_sample()
    lines = list(text.lines())
    assert [text_encoding.is_damaged(line) for line in lines[-3:]] == [False, True, False]
    assert len(lines) == start + 12 and "".join(lines).encode("utf-8", "surrogateescape") == content
    with pytest.raises(InputError, match="--encoding=utf-8, but line"):
        list(Text(Source(tmp_path / "a"), "utf-8").lines())


def test_an_error_shows_how_the_text_reads_and_names_other_encodings(tmp_path):
    with pytest.raises(
        InputError, match=r"give --encoding=cp1252, .*as in 'Un café très agréable'; .* try cp1250"
    ):
        read(tmp_path / "a", "Un café très agréable\n".encode("cp1252"))
