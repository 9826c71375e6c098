"""The start of a run: what is in its directory, whether this start may go on from it, and what is put right before it does."""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from trainer import InputError, StorageError, files
from trainer import config as configuration
from trainer.config import FIXED, FREE, INEXACT, Config
from trainer.data import input_pipeline, token_store
from trainer.data.vocabulary import Vocabulary
from trainer.evaluate import make_eval_step
from trainer.model import lstm
from trainer.run import checkpoint, cluster, distribution, summaries, workdir
from trainer.run.state import Adam, Sums, TrainState, stop_reason
from trainer.trained import all_settings_of, check_size, make_model, open_corpus
from trainer.warm_start import best_metric_of, open_source, take_over

RESULT = "result.json"

NUMERICS = {"kernel": lstm.KERNEL_ID, "batch order": input_pipeline.BATCH_ORDER_ID}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a start has opened; nothing in it changes but the state and the files that `checkpoints` and `events` write."""

    config: Config
    directory: pathlib.Path
    vocabulary: Vocabulary
    stores: Mapping[str, token_store.TokenStore]
    plan: input_pipeline.BatchPlan
    replicas: distribution.Replicas
    state: TrainState
    eval_step: Callable
    checkpoints: checkpoint.Checkpoints
    events: summaries.Summaries
    signals: Any

    @property
    def last_step(self) -> int:
        """The step at which the last epoch ends."""
        return self.config.epochs * self.plan.steps_per_epoch

    def stop_reason(self) -> str | None:
        """Why the run ends at the step that it is at, or None."""
        return stop_reason(
            step=int(self.state.step),
            waited=int(self.state.waited),
            improved=bool(self.state.improved),
            epochs=self.config.epochs,
            steps_per_epoch=self.plan.steps_per_epoch,
            patience=self.config.patience,
        )


def open_run(given: Mapping[str, Any], *, signals) -> Run:
    """Opens the run that the command line names, restored to the newest checkpoint that verifies, or new.

    Raises:
      InputError: when the run was begun otherwise than this start wants to go on; the sentence names each difference.
      StorageError: when there are checkpoints, but none can be read, or traces of a run whose checkpoints are gone.
    """
    directory = pathlib.Path(given["workdir"])
    found = checkpoint.find(directory)
    stored = all_settings_of(directory, found.newest) if found.newest else {}
    config = configuration.resolve(given, stored)
    distribution.set_threads(intra_op=config.intra_op_threads, inter_op=config.inter_op_threads)
    replicas = distribution.Replicas(
        config.strategy,
        logical_devices=config.logical_devices,
        cluster=cluster.read_cluster(config.strategy, check_network=False),
        connect_secs=config.connect_secs,
    )
    with replicas.peers():
        return _open(config, found, stored, replicas, signals)


def _open(config: Config, found: checkpoint.Found, stored: Mapping[str, Any], replicas: distribution.Replicas, signals: Any) -> Run:
    directory = pathlib.Path(config.workdir)
    if not replicas.is_chief and logging.get_verbosity() == logging.INFO:
        logging.set_verbosity(logging.WARNING)  # The chief says it all.
    replicas.share(directory, workdir.token(directory))
    source = open_source(config) if config.init_from and not found.newest else None
    if source and config.init_best_metric:
        config = dataclasses.replace(config, initial_best=best_metric_of(source, config))
    vocabulary, stores = open_data(config)
    texts = {
        "frozen_flags": configuration.to_text(config, FIXED, INEXACT),
        "free_flags": configuration.to_text(config, FREE),
        "fingerprints": json.dumps(
            {"vocabulary": vocabulary.fingerprint} | {f"split {split}": store.fingerprint for split, store in stores.items()}
        ),
        "conditions": json.dumps(
            distribution.conditions(
                numerics=NUMERICS,
                intra_op=config.intra_op_threads,
                inter_op=config.inter_op_threads,
                replicas=replicas,
            )
        ),
    }
    if found.newest is None and summaries.has_points(directory / "summaries"):
        raise StorageError(
            f"{directory} holds the event log of a run, but no checkpoint of it; "
            f"restore its checkpoints from a copy, or delete the directory to start over."
        )
    if found.newest:
        compare(config, found.newest, stored, texts)
        check_size(found.newest, config, len(vocabulary))
        if replicas.is_chief:
            check_copy(config, stored)
    plan = input_pipeline.BatchPlan(
        lengths=stores[config.train_split].lengths, batch_size=config.batch_size, seed=config.seed, max_length=config.max_length
    )
    padded = input_pipeline.padded_ratio(plan, steps=min(plan.steps_per_epoch, input_pipeline.WINDOW_BATCHES))
    logging.info("Batches   %d an epoch, of %d reviews, padded to %.3f times their tokens", plan.steps_per_epoch, plan.batch_size, padded)
    replicas.agree(facts_of(config, texts, found))  # Before anything is changed in the directory.
    state = make_state(config, len(vocabulary), texts, replicas)
    held = workdir.held(directory)
    held.check()
    if replicas.is_chief:
        checkpoint.tidy(directory, found)
    checkpoints = checkpoint.Checkpoints(
        run=directory,
        state=state,
        max_to_keep=config.max_to_keep,
        is_hurried=lambda: signals.received,
        is_writer=replicas.is_chief,
    )
    if found.newest:
        checkpoints.restore(found.newest)
        if replicas.is_chief:
            checkpoints.heal_best()
            checkpoints.prune()
        adopt(config, state, texts)
        if config.init_from:
            logging.info("The run has checkpoints of its own: --init_from=%s is ignored.", config.init_from)
    elif source:
        take_over(source, config, state, vocabulary)
    events = summaries.Summaries(directory / "summaries", is_writer=replicas.is_chief)
    held.check()
    eval_step = make_eval_step(state.model, replicas)
    return Run(config, directory, vocabulary, stores, plan, replicas, state, eval_step, checkpoints, events, signals)


def facts_of(config: Config, texts: Mapping[str, str], found: checkpoint.Found) -> dict[str, str]:
    """What all workers have to be started with alike, by name."""
    facts = {f"--{name}": value for name, value in configuration.shown(config, FIXED, INEXACT, FREE)}
    facts |= {f"the {name}": value for text in ("fingerprints", "conditions") for name, value in json.loads(texts[text]).items()}
    return facts | {"the checkpoint to go on from": str(found.newest.name if found.newest else None)}


def open_data(config: Config) -> tuple[Vocabulary, dict[str, token_store.TokenStore]]:
    """The vocabulary and the encoded reviews of each split, built when they are not in --cache_dir; says what was loaded."""
    corpus = open_corpus(config)
    splits = {"train": config.train_split, "validate": config.validation_split, "test": config.test_split}
    splits = {use: split for use, split in splits.items() if split}
    sizes = ", ".join(f"{corpus.examples(split)} to {use} ({split})" for use, split in splits.items())
    if config.validation_steps:
        sizes += f"; validation takes the first {config.validation_steps * config.batch_size} of its own"
    logging.info("Dataset   %s %s: %s", corpus.name, corpus.version, " ".join(corpus.description.split()))
    logging.info("Reviews   %s", sizes)
    logging.info("Elements  %s", corpus.element_spec)
    logging.info("Citation  %s", " ".join(corpus.citation.split()) or "none")
    vocabulary, stores = token_store.prepare(
        corpus=corpus, splits=list(splits.values()), vocab_size=config.vocab_size, cache_dir=token_store.folder_of(config.cache_dir)
    )
    labels = stores[config.train_split].labels[:]
    if labels.min() == labels.max():
        raise InputError(
            f"--train_split must hold reviews of both labels, but all {len(labels)} of {config.train_split} have the label {labels[0]}; "
            f"name other reviews."
        )
    return vocabulary, stores


def make_state(config: Config, vocab_size: int, texts: Mapping[str, str], replicas: distribution.Replicas) -> TrainState:
    """A state at step 0, with every variable built; each replica has a copy of the model and of the optimizer's."""
    with replicas.scope():
        model, optimizer = make_model(config, vocab_size), Adam(config.learning_rate, name="adam")
        optimizer.build(model.trainable_variables)
    return TrainState(
        model=model,
        optimizer=optimizer,
        lower_is_better=config.lower_is_better,
        initial_best=config.initial_best,
        **texts,
    )


def compare(config: Config, newest: pathlib.Path, stored: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Refuses to go on otherwise than the run was begun, naming every difference, or says what goes on inexactly."""
    fixed = configuration.changes(stored, config, FIXED)
    fingerprints = checkpoint.read_texts(newest, "fingerprints")
    fixed += [
        f"the {name} has other content now" for name, value in json.loads(texts["fingerprints"]).items() if fingerprints.get(name) != value
    ]
    inexact = configuration.changes(stored, config, INEXACT)
    inexact += distribution.differences(json.dumps(checkpoint.read_texts(newest, "conditions")), json.loads(texts["conditions"]))
    if fixed:
        raise InputError(
            f"{config.workdir} must go on as it was begun, but {'; '.join(fixed + inexact)}; "
            f"give the run's own values, or another --workdir to begin a new run."
        )
    if inexact and not config.allow_inexact_resume:
        raise InputError(
            f"{config.workdir} must go on as it was begun to end with the same bits, but {'; '.join(inexact)}; "
            f"give the run's own values, or --allow_inexact_resume to go on with others."
        )
    if inexact:
        logging.warning("Going on inexactly: %s.", "; ".join(inexact))


def check_copy(config: Config, stored: Mapping[str, Any]) -> None:
    """Says so when the readable copy of the settings, which decides nothing, is neither the run's nor this start's."""
    path = pathlib.Path(config.workdir) / "config.flags"
    try:
        copy = configuration.from_file(files.read(path))
    except FileNotFoundError:
        why = "it is missing"
    except OSError as error:
        why = files.reason(error)
    except ValueError as error:
        why = str(error)
    else:
        if all(copy.get(name) == getattr(config, name) for name in copy):
            return
        why = "; ".join(f"--{name} is {copy.get(name)} there" for name, value in stored.items() if copy.get(name) != value)
    if why:
        logging.warning("%s does not have the run's settings (%s); it decides nothing, and is written anew.", path, why)


def adopt(config: Config, state: TrainState, texts: Mapping[str, str]) -> None:
    """Takes what this start may decide into the restored state, which brought the run's own values."""
    state.frozen_flags.assign(texts["frozen_flags"])
    state.free_flags.assign(texts["free_flags"])
    state.conditions.assign(texts["conditions"])
    state.optimizer.learning_rate.assign(config.learning_rate)
    if int(state.best_step) < 0 and config.initial_best is not None:
        state.best_metric.assign(config.initial_best)


def read_starts(directory: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of starts.jsonl; a line that is no start is left out."""
    starts = []
    with contextlib.suppress(OSError):
        for line in files.read(directory / "starts.jsonl", limit=2**26).splitlines():
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
                start = json.loads(line)
                stores = {str(split): str(path) for split, path in start["stores"].items()}
                numbers = {name: int(start[name]) for name in ("step", "steps_recomputed_at_least", "steps_per_epoch")}
                if numbers["steps_per_epoch"] > 0 and all(0 <= number < 2**63 for number in numbers.values()):
                    starts.append({**start, **numbers, "stores": stores})
    return starts


def is_ending_of(directory: pathlib.Path, stop_step: int, best_step: int) -> bool:
    """Whether the ending that is on disk is that of a state which stopped at one step and was best at another."""
    try:
        ending = json.loads(files.read(directory / RESULT))
        return (ending["stop_step"], ending["best_step"]) == (stop_step, best_step)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def begin(run: Run) -> None:
    """Puts the run directory in the state of the restored step: event log rewound, readable copies written, old ending gone."""
    if not run.replicas.is_chief:
        return
    step = int(run.state.step)
    log = summaries.rewind(run.directory / "summaries", step=step)
    if strange := summaries.differences(log.ends, last_points(run)):
        logging.warning(
            "%s is not the event log of this run up to step %d (%s); its curves stay as they are, and go on from here.",
            run.directory / "summaries",
            step,
            "; ".join(strange),
        )
    files.remove(run.directory / RESULT)
    summaries.remove_run(run.directory / "summaries" / "test")
    write_copies(run)
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "step": step,
        "steps_recomputed_at_least": log.last_step - step,
        "steps_per_epoch": run.plan.steps_per_epoch,
        "stores": {split: str(store.path) for split, store in run.stores.items()},
    }
    files.append_line(run.directory / "starts.jsonl", json.dumps(start))
    run.checkpoints.save()
    if step:
        logging.info("Resumed at step %d of %d.", step, run.last_step)


def write_copies(run: Run) -> None:
    """Writes what people and other modes read of the state: settings, conditions, fingerprints, vocabulary."""
    if not run.replicas.is_chief:
        return
    recorded = {name: json.loads(getattr(run.state, name).numpy()) for name in ("conditions", "fingerprints")}
    copies = {
        "config.flags": configuration.to_file(run.config),
        "manifest.json": (json.dumps(recorded, indent=2) + "\n").encode(),
        "vocabulary.txt": run.vocabulary.to_bytes(),
    }
    for name, content in copies.items():
        keep_copy(run.directory / name, content)


def keep_copy(path: pathlib.Path, data: bytes) -> None:
    """Writes a file unless it holds `data` already."""
    with contextlib.suppress(OSError):
        if files.read(path, limit=len(data)) == data:
            return
    files.write_atomically(path, data)


def last_points(run: Run) -> dict[tuple[str, str], tuple[int, float | None]]:
    """The last points that the event log of the restored state has: (run, tag) -> step, 0 for none, and value or None."""
    state, step = run.state, int(run.state.step)
    logged, evaluated = (
        run.plan.step_before(step, reviews=int(Sums(*sums.numpy().tolist()).reviews)) for sums in (state.since_log, state.since_evaluation)
    )
    best = int(state.best_step)
    points: dict[tuple[str, str], tuple[int, float | None]] = {("train", "loss"): (logged, None)}
    points |= {("best", "best_step"): (evaluated, best), ("best", "waited"): (evaluated, int(state.waited))}
    if best >= 0 and not run.config.allow_inexact_resume:  # else another metric may have been monitored
        points["best", run.config.monitor.removeprefix("val_")] = (evaluated, float(state.best_metric))
    return points
