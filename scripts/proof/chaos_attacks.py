"""Attacks: what another user or an accident can do to the files of a run directory.

An attack takes a `Place` and a random generator, and returns what it did. Its links point to `place.outside`.
"""

import hashlib
import json
import math
import os
import pathlib
import random
import shutil
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from chaos_start import in_fork, steps_of

from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2


class Place(NamedTuple):
    """The run that is attacked, and a folder of files that are not part of it."""

    run: pathlib.Path
    outside: pathlib.Path


FLAGS = """
    --output={outside}/precious.txt --input={outside}/precious.txt --flagfile={outside}/precious.txt --help
    --workdir={outside}/run --init_from={outside}/run --cache_dir={outside}/cache --data_dir={outside}
    --mode=train --mode=evaluate --mode=predict --mode=export --mode=inspect --mode=no_such --text=hello
    --text=other --no_such --verbosity=3
    --checkpoint={outside}/run/checkpoints/ckpt-8 --checkpoint=latest --split=train --profile_steps=1:99
    --allow_inexact_resume=true --connect_secs=99999 --init_optimizer=true --weight_decay=0.0 --bad_rows=stop
    --nodropout --epochs epochs=3 -epochs=3 garbage --epochs=0 --epochs=99999999999 --lstm_units=30000
    --profile_steps={outside} --init_from={outside} --batch_size=65536
    --max_to_keep=0 --max_to_keep=1 --learning_rate=nan --dropout=1e400 --seed=-1 --logical_devices=1024
    --strategy=multi_worker --strategy=mirrored --dataset=csv:{outside}/precious.txt --dataset=../../x
    --train_split=train[:99999999] --train_split= --validation_split= --test_split= --sample_text=
    --sample_text={long} --monitor=no_such --intra_op_threads=256 --inter_op_threads=-1 --dataset=no_such
    --checkpoint_every_secs=1e-300 --log_every_steps=0
    --patience=nan --eval_every_steps=1 --vocab_size=2147483647 --max_length=1 --embedding_dim=2147483647
    --start_from_epoch=9 --dropout=0.5 --learning_rate=0.5 --max_length=-1 --dense_units=0
"""


def _flags(place: Place) -> list[str]:
    return FLAGS.format(outside=place.outside, long="x" * 10**6).split()


def config_flags(place: Place, rng: random.Random) -> str:
    """Writes other flags into config.flags, with or without its checksum."""
    path = place.run / "config.flags"
    *lines, last = path.read_text().splitlines()
    extra = rng.sample(_flags(place), rng.choice((1, 1, 2, 5)))
    names = {flag.partition("=")[0] for flag in extra}
    lines = [line for line in lines if rng.random() < 0.9 and line.partition("=")[0] not in names] + extra
    rng.shuffle(lines)
    text = "".join(f"{line}\n" for line in lines)
    is_sealed = rng.random() < 0.7
    seal = f"{last.rpartition(' ')[0]} {hashlib.sha256(text.encode()).hexdigest()}\n" if is_sealed else last
    path.write_text(text + seal)
    return f"config.flags{' sealed' if is_sealed else ''}: {' '.join(flag[:60] for flag in extra)}"


_ODD_NUMBERS = [0, -1, 1, 1.5, 2**70, -(2**70), math.nan, math.inf, -math.inf]
_VALUES = [*_ODD_NUMBERS, [], {}, None, True, "text", "", "x" * 10**5, "\0", [[]], {"a": 1}]
_JSON = "[] {} null 0 1e400 NaN Infinity [1,2 [{}] text"
_CONTENTS = {
    **{text: text.encode() for text in _JSON.split()},
    "deep list": b"[" * 10**5,
    "deep object": b'{"a":' * 10**5,
    "binary": bytes(range(256)) * 40,
    "empty": b"",
    "NULs": bytes(1000),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "long number": b"9" * 5000,
    "long line": b"x" * 10**7,
    "half a character": b'{"a": "\xe9"}',
}


def _mutated(value: object, rng: random.Random, place: Place) -> object:
    # Returns a JSON value in which one part, at any depth, is replaced.
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        rest = {name: part for name, part in value.items() if name != key}
        return rest if rng.random() < 0.1 else {**rest, key: _mutated(value[key], rng, place)}
    if isinstance(value, str) and rng.random() < 0.3:
        outside = [str(place.outside / "precious.txt"), str(place.outside)]
        return rng.choice([*outside, "/dev/zero", "/dev/full", str(place.outside / "fifo")])
    return rng.choice(_VALUES)


def texts(place: Place, rng: random.Random) -> str:
    """Writes other content into one of the text files."""
    names = ("manifest.json", "starts.jsonl", "result.json", "vocabulary.txt", "lock")
    path = place.run / rng.choice([name for name in names if (place.run / name).exists()])
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.6:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(_mutated(json.loads(lines[at]), rng, place))
        path.write_text("".join(f"{line}\n" for line in lines))
        return f"{path.name}: {lines[at][:200]}"
    kind = rng.choice(sorted(_CONTENTS))
    path.write_bytes(_CONTENTS[kind])
    return f"{path.name}: {kind}"


MADE = """
    lock .lock config.flags .config.flags.tmp .manifest.json.tmp .result.json.tmp .starts.jsonl.tmp
    .vocabulary.txt.tmp result.json checkpoints/checkpoint checkpoints/.checkpoint.tmp
    checkpoints/checkpoint.tmp123 best/checkpoint best/.checkpoint.tmp checkpoints/ckpt-{next}_temp
    checkpoints/ckpt-{next}.index best/ckpt-{next}.index checkpoints/ckpt-{next}.data-00000-of-00001
    checkpoints/ckpt-1_temp quarantine quarantine/checkpoints profile summaries/test
    summaries/train/.x.tmp summaries/train/x summaries/train/events.out.tfevents.1.x.1.0.v2
    summaries/validation summaries/best summaries/train/plugins export/model.keras
    export/new.model.keras export/old.model.keras export/saved_model export/saved_model/{best}
    export/saved_model/new.{best} export/saved_model/old.{best}
"""


_THINGS: dict[str, Callable[[pathlib.Path, Place], object]] = {
    "a link to a file": lambda path, place: path.symlink_to(place.outside / "precious.txt"),
    "a dangling link": lambda path, place: path.symlink_to(place.outside / "not there"),
    "a link to a folder": lambda path, place: path.symlink_to(place.outside / "serving"),
    "a link to itself": lambda path, place: path.symlink_to(path),
    "a FIFO": lambda path, place: os.mkfifo(path),
    "a folder": lambda path, place: path.mkdir(),
    "a link to /dev/zero": lambda path, place: path.symlink_to("/dev/zero"),
    "a link to /dev/full": lambda path, place: path.symlink_to("/dev/full"),
    "a hard link": lambda path, place: path.hardlink_to(place.outside / "precious.txt"),
    "10 GB of nothing": lambda path, place: (path.touch(), os.truncate(path, 10**10)),
    "unreadable": lambda path, place: (path.write_bytes(b"x"), path.chmod(0)),
}


def replaced(place: Place, rng: random.Random) -> str:
    """Replaces a file, or one that the program will create, by something else."""
    files = [path for path in place.run.rglob("*") if path.is_file() and not path.is_symlink()]
    files = sorted(str(path.relative_to(place.run)) for path in files)
    steps = {"next": steps_of(place.run)[-1] + 1, "best": steps_of(place.run, "best")[-1]}
    name = rng.choice(rng.choice((files, MADE.split()))).format(**steps)
    kinds = sorted(kind for kind in _THINGS if kind != "unreadable" or os.getuid())
    kind = rng.choice(kinds)
    path = place.run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    _THINGS[kind](path, place)
    return f"{name} is {kind}"


def _clear(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


FOLDERS = "checkpoints best summaries summaries/train summaries/test quarantine export export/saved_model"
THEIRS = "serving run empty run/checkpoints run/best run/summaries run/summaries/train run/export/saved_model"


def linked(place: Place, rng: random.Random) -> str:
    """Replaces a folder of the run by a link to a folder outside."""
    name, target = rng.choice(FOLDERS.split()), rng.choice(THEIRS.split())
    path = place.run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    path.symlink_to(place.outside / target)
    return f"{name} -> {target}"


TENSORS = """
    frozen_flags frozen_flags frozen_flags frozen_flags fingerprints conditions step best_step waited
    best_metric graph any any
"""
_INTEGERS = [np.int64(number) for number in (-1, 0, 10**6, 2**62, -(2**62))]
_REALS = [np.float64(number) for number in (math.nan, 1e308)]
_WRONG = [np.float16(1), np.zeros(2, np.int64), b"text", None]


def checkpoints(place: Place, rng: random.Random) -> str:
    """Rewrites the newest or all checkpoints with one tensor replaced."""
    found = [*(place.run / "checkpoints").glob("ckpt-*.index"), *(place.run / "best").glob("ckpt-*.index")]
    prefixes = sorted((path.with_suffix("") for path in found), key=lambda path: int(path.name[5:]))
    prefixes = prefixes if rng.random() < 0.6 else prefixes[-1:]
    name, seed = rng.choice(TENSORS.split()), rng.random()
    for prefix in prefixes:
        change = in_fork(_rewrite, prefix, name, random.Random(seed), place)
    return f"{len(prefixes)} checkpoints: {change}"


def _rewrite(prefix: pathlib.Path, name: str, rng: random.Random, place: Place) -> str:
    reader = tf.train.load_checkpoint(str(prefix))
    tensors = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    key, value = _replacement(name, tensors, rng, place)
    tensors[key] = value
    tensors = {key: value for key, value in tensors.items() if value is not None}
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    return f"{key} is {str(value)[-150:]}"


def _replacement(name: str, tensors: Mapping, rng: random.Random, place: Place) -> tuple[str, object]:
    # Returns the full name of a tensor, and a wrong value for it; None removes it.
    key = f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
    if name == "graph":
        return "_CHECKPOINTABLE_OBJECT_GRAPH", rng.choice([b"", b"garbage", rng.randbytes(3000)])
    if name == "frozen_flags":
        extra = rng.choice(_flags(place))
        lines = tensors[key].decode().splitlines()
        kept = [line for line in lines if line.partition("=")[0] != extra.partition("=")[0]]
        text = "\n".join([*kept, extra, ""]).encode()
        return key, rng.choice([text] * 4 + [b"", rng.randbytes(200), b"--seed", b"\n\n"])
    if name in ("fingerprints", "conditions"):
        mutated = json.dumps(_mutated(json.loads(tensors[key]), rng, place)).encode()
        return key, rng.choice([mutated, mutated, *_CONTENTS.values()])[: 10**6]
    if name == "any":
        key = rng.choice(sorted(tensors))
        shape = np.shape(tensors[key])
        arrays = [np.zeros(shape, np.float16), np.zeros((2, *shape), np.float32), np.int32(7)]
        return key, rng.choice([*arrays, b"text", np.zeros(0), None])
    is_integer = name in ("step", "best_step", "waited")
    return key, rng.choice([*(_INTEGERS if is_integer else _REALS), *_WRONG])


def events(place: Place, rng: random.Random) -> str:
    """Appends records with valid checksums and hostile content to an event file."""
    path = rng.choice(sorted((place.run / "summaries").glob("*/events.*")))
    return f"{path.parent.name}: {in_fork(_append_events, path, rng)}"


def _append_events(path: pathlib.Path, rng: random.Random) -> str:
    wall_time, step = rng.choice((0.0, math.nan, 1e300)), rng.choice((0, 4, -1, 2**62))
    event = tf.compat.v1.Event(wall_time=wall_time, step=step)
    tags = ("loss", "accuracy", "best_step", "loss_since_evaluation", "settings", "\x1b[2J", "x" * 10**5, "")
    tag = rng.choice(tags)
    tensors = _hostile_tensors()
    kind = rng.choice([*tensors, "garbage", "no value", "an old scalar"])
    if kind in tensors:
        event.summary.value.add(tag=tag).tensor.CopyFrom(tensors[kind])
    if kind == "an old scalar":
        event.summary.value.add(tag=tag, simple_value=1.0)
    record = rng.randbytes(100) if kind == "garbage" else event.SerializeToString()
    kept = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in (*kept, *[record] * rng.choice((1, 3, 300))):
            writer.write(each)
    return f"{kind} as {tag[:20]!r} at step {event.step}"


def _hostile_tensors() -> dict[str, tensor_pb2.TensorProto]:
    tensors = {
        "a huge shape": tf.make_tensor_proto(1.0),
        "text": tf.make_tensor_proto("text"),
        "a matrix": tf.make_tensor_proto(np.zeros((3, 3), np.float32)),
        "nothing": tf.make_tensor_proto(np.zeros(0, np.float32)),
        "no content": tf.make_tensor_proto(np.zeros(4, np.float64)),
        "no type": tf.make_tensor_proto(1.0),
        "NaN": tf.make_tensor_proto(math.nan),
        "a resource": tf.make_tensor_proto(1.0),
    }
    tensors["a huge shape"].tensor_shape.dim.add(size=2**40)
    tensors["no content"].tensor_content = b"123"
    tensors["no type"].dtype = 0
    tensors["a resource"].dtype = 20
    return tensors


ATTACKS = [config_flags] * 3 + [texts] * 3 + [replaced] * 5 + [linked] * 2 + [checkpoints] * 4 + [events] * 2
