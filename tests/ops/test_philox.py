import pytest
import torch

from pygen.ops.philox import LOW_DIGITS, NORMAL, UNIFORM, philox4x32, random_words

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return tuple(torch.tensor(int(word, 16)) for word in text.split())


def reference(counter, key):
    """Philox4x32-10 in Python's own integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 % 2**32, (p0 >> 32) ^ c[3] ^ k[1], p0 % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_known_answers(counter, key, result):
    assert philox4x32(words(counter), words(key)) == words(result)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 0x0123456789ABCDEF])
@pytest.mark.parametrize("offset", [0, 2**32 - 2, 2**62, 2**63 - 2, 2**64 - 3])
@pytest.mark.parametrize("stream", [NORMAL, UNIFORM, NORMAL + LOW_DIGITS, UNIFORM + LOW_DIGITS])
def test_counter_and_key_are_laid_out_as_documented(seed, offset, stream):
    signed = offset - 2**64 if offset >= 2**63 else offset
    blocks = torch.stack(random_words(torch.tensor([seed, signed]), 1, 6, stream), 1)
    for block, found in enumerate(blocks.tolist(), start=1):
        low = (offset + block) % 2**64
        counter = [low % 2**32, low >> 32, stream, 0]
        assert found == reference(counter, [seed % 2**32, seed >> 32])


def test_streams_do_not_overlap():
    assert len({NORMAL, UNIFORM, NORMAL + LOW_DIGITS, UNIFORM + LOW_DIGITS}) == 4
