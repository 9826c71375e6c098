"""Corpora of any size, made by copying the files of another one."""

import json
import os
import pathlib
import shutil

from tqdm import tqdm


def make_corpus(size: int, work: pathlib.Path) -> str:
    """Makes a dataset of at least `size` training reviews in `work`, if it does not exist; returns its name.

    The reviews are those of IMDB, or without TFDS_DATA_DIR those of sample_reviews.
    """
    name = f"reviews_{size}"
    if (work / name).exists():
        return name
    source = _source(work)
    info = json.loads((source / "dataset_info.json").read_text())
    examples = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
    copies = {"train": -(-size // examples["train"]), "test": 1}
    folder = work / f"{name}.tmp" / source.name
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(source / "features.json", folder)
    keys = ("citation", "description", "fileFormat", "version")
    kept = {key: info[key] for key in keys if key in info}
    splits = [split for split in info["splits"] if split["name"] in copies]
    for split in splits:
        _copy_shards(source, folder, name, split["name"], copies[split["name"]])
        split["shardLengths"] *= copies[split["name"]]
        split["numBytes"] = str(int(split["numBytes"]) * copies[split["name"]])
    (folder / "dataset_info.json").write_text(json.dumps({**kept, "splits": splits, "name": name}))
    folder.parent.rename(work / name)
    return name


def _source(work: pathlib.Path) -> pathlib.Path:
    # The folder of the prepared dataset to copy.
    from trainer.tensorflow_setup import importing_tensorflow

    with importing_tensorflow():
        from trainer.data import corpus

    name = "imdb_reviews/plain_text" if os.environ.get("TFDS_DATA_DIR") else "sample_reviews"
    corpus.open_corpus(name=name, data_dir=None, cache_dir=str(work))  # prepares it
    root = os.environ.get("TFDS_DATA_DIR") or work
    return max(pathlib.Path(root, name).glob("**/dataset_info.json")).parent


def _copy_shards(source: pathlib.Path, folder: pathlib.Path, name: str, split: str, copies: int) -> None:
    shards = sorted(source.glob(f"*-{split}.*")) * copies
    for number, shard in enumerate(tqdm(shards, desc=f"{name} {split}", disable=None, leave=False)):
        shutil.copyfile(shard, folder / f"{name}-{split}.tfrecord-{number:05}-of-{len(shards):05}")


def flags_of(size: int, work: pathlib.Path) -> list[str]:
    """The flags that train on the corpus of a size."""
    splits = [f"--train_split=train[:{size}]", "--validation_split=test", "--test_split=test"]
    dataset = [f"--dataset={make_corpus(size, work)}", f"--data_dir={work}"]
    return [*dataset, *splits, "--validation_steps=30"]


def cache_of(size: int, work: pathlib.Path) -> pathlib.Path:
    """The folder for the encoded corpus of this size."""
    return work / f"cache_{size}"
