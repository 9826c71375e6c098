"""Encodes a split of a corpus into the files of a token store."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator

import numpy as np
from absl import logging
from tqdm import tqdm

from trainer.data.corpus import Corpus
from trainer.data.splits import Reviews
from trainer.data.store_manifest import ARRAYS, FileFacts
from trainer.data.vocabulary import Vocabulary
from trainer.parallel import on_all_cores


def encode(corpus: Corpus, split: str, vocabulary: Vocabulary, folder: pathlib.Path) -> dict[str, FileFacts]:
    """Encodes a split and writes its arrays into `folder`, batch by batch.

    Returns:
      Array name -> its entry in the manifest.

    Raises:
      OSError: when a file can't be written.
      StorageError: when the corpus can't be read.
    """
    dtypes = {
        "token_ids": np.min_scalar_type(len(vocabulary) - 1),
        "offsets": np.dtype(np.int64),
        "labels": np.dtype(np.uint8),
    }
    hashes = {name: hashlib.sha256() for name in ARRAYS}
    vocabulary.encode([])  # creates the table once: otherwise each thread would create one

    def encode_batch(reviews: Reviews) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        texts, labels = reviews
        token_ids = vocabulary.encode(texts)
        return (
            token_ids.flat_values.numpy().astype(dtypes["token_ids"]),
            token_ids.row_splits.numpy()[1:],
            labels,
        )

    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in ARRAYS}

        def append(name: str, values: np.ndarray) -> None:
            data = values.astype(dtypes[name], copy=False).data
            opened[name].write(data)
            hashes[name].update(data)

        end = np.zeros(1, np.int64)
        append("offsets", end)
        for token_ids, ends, labels in on_all_cores(encode_batch, read(corpus, split, "Encoding")):
            for name, values in zip(ARRAYS, (token_ids, end + ends, labels), strict=True):
                append(name, values)
            end = end + ends[-1]
        return {
            name: {"dtype": dtypes[name].str, "bytes": file.tell(), "sha256": hashes[name].hexdigest()}
            for name, file in opened.items()
        }


def read(corpus: Corpus, split: str, action: str) -> Iterator[Reviews]:
    """The reviews of a split, as in `Corpus.reviews`; on a terminal, with a progress bar named `action`."""
    logging.info("%s the tokens of %s %s; this is done once.", action, corpus.name, split)
    hidden = None if logging.level_info() else True  # None: hidden unless there is a terminal
    total = corpus.examples(split)
    with tqdm(total=total, desc=f"{action} {split}", unit="review", disable=hidden, leave=False) as bar:
        for texts, labels in corpus.reviews(split):
            yield texts, labels
            bar.update(len(labels))
