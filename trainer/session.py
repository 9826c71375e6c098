"""A training session: look at the run directory, build what the config describes, restore the state."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from absl import logging

from trainer import (
    build,
    compatibility,
    flagfile,
    machine,
    metrics,
    ngram_counts,
    training_data,
    warm_start,
)
from trainer.compiled_cache import CompiledCache
from trainer.config import Config, Settings
from trainer.data import input_pipeline
from trainer.errors import StorageError
from trainer.fields import FIXED, FREE, INEXACT
from trainer.labels import Classes
from trainer.run import (
    checkpoint_cleanup,
    checkpoint_files,
    checkpoint_manager,
    cluster,
    conditions,
    distribution,
    early_stopping,
    event_files,
    summaries,
    workdir,
)
from trainer.run.checkpoint_files import Found
from trainer.run.distribution import Replicas
from trainer.run.state import TrainState
from trainer.settings import resolve
from trainer.signals import StopRequests
from trainer.steps import EvalStep, make_eval_step
from trainer.trained_model import TrainedModel, all_settings_of, check_size
from trainer.training_data import Data
from trainer.words import plural

_FEWEST_ROWS = 8  # of a shard, if the program chooses the shards: with fewer, more of them gain nothing


@dataclasses.dataclass(frozen=True)
class Start:
    """What a start finds before it changes anything.

    Attributes:
      directory: the run directory.
      found: its checkpoints.
      stored: the run's own settings; empty for a new run.
      config: the settings of this start.
    """

    directory: pathlib.Path
    found: Found
    stored: Settings
    config: Config


@dataclasses.dataclass(frozen=True)
class Session:
    """A run that this process trains; only its state and its files change."""

    config: Config
    directory: pathlib.Path
    data: Data
    replicas: Replicas
    state: TrainState
    eval_step: EvalStep
    checkpoints: checkpoint_manager.Checkpoints
    events: summaries.Summaries
    compiled: CompiledCache
    stop_requests: StopRequests

    @property
    def last_step(self) -> int:
        """The step at which the last epoch ends."""
        return self.config.epochs * self.data.plan.steps_per_epoch

    def stop_reason(self) -> str | None:
        """Why training stops at the state's step, or None."""
        monitored = self.state.monitor_state
        return early_stopping.stop_reason(
            waited=monitored.waited,
            improved=monitored.improved,
            step=int(self.state.step),
            epochs=self.config.epochs,
            steps_per_epoch=self.data.plan.steps_per_epoch,
            patience=self.config.patience,
        )


def look(given: Settings) -> Start:
    """Reads a run directory and determines the settings of this start; changes nothing.

    Raises:
      InputError: when settings contradict each other, or this version does not know the run's own.
      StorageError: when there are checkpoints, but none can be read.
    """
    directory = pathlib.Path(given["workdir"])
    found = checkpoint_files.find(directory)
    stored = all_settings_of(directory, found.newest) if found.newest else {}
    return Start(directory, found, stored, resolve(given, stored))


def open_session(given: Settings, *, stop_requests: StopRequests) -> Session:
    """Opens the run that the command line names, restored to its newest valid checkpoint, or new.

    Raises:
      InputError: when this start may not resume the run; the message names each difference.
      StorageError: when there are checkpoints, but none can be read, or traces of a run without its
        checkpoints.
    """
    start = look(given)
    settings = start.config
    distribution.set_threads(intra_op=settings.intra_op_threads, inter_op=settings.inter_op_threads)
    replicas = Replicas(
        settings.strategy,
        logical_devices=settings.logical_devices,
        cluster=cluster.read_cluster(settings.strategy, check_network=False),
        connect_secs=settings.connect_secs,
    )
    with replicas.peers():
        return _build_and_restore(start, replicas, stop_requests)


def _build_and_restore(start: Start, replicas: Replicas, stop_requests: StopRequests) -> Session:
    if not replicas.is_chief and logging.get_verbosity() == logging.INFO:
        logging.set_verbosity(logging.WARNING)  # The chief logs for all.
    replicas.share(start.directory, workdir.token(start.directory))
    source = _warm_start_source(start)
    start = dataclasses.replace(start, config=_settle(start, source, replicas))
    newest = start.found.newest
    data = training_data.open_data(start.config, is_new=newest is None and replicas.is_chief)
    if newest and len(data.classes) == 2:
        # The numbers of two classes are all that older versions recorded.
        data = dataclasses.replace(data, classes=compatibility.recorded_classes(newest) or data.classes)
    texts = _texts(start.config, data, replicas)
    _check(start, data, texts, replicas)
    state = build.make_state(
        start.config, len(data.vocabulary), data.classes, texts, replicas, longest=data.plan.longest
    )
    checkpoints = _restore(start, state, data, texts, source, replicas, stop_requests)
    events = summaries.Summaries(start.directory / "summaries", is_writer=replicas.is_chief)
    workdir.held(start.directory).check()
    return Session(
        config=start.config,
        directory=start.directory,
        data=data,
        replicas=replicas,
        state=state,
        eval_step=_eval_step(start.config, data.classes, state, replicas),
        checkpoints=checkpoints,
        events=events,
        compiled=CompiledCache(start.config),
        stop_requests=stop_requests,
    )


def _eval_step(settings: Config, classes: Classes, state: TrainState, replicas: Replicas) -> EvalStep:
    needs_confusion = metrics.needs_confusion(settings.monitor, len(classes))
    return make_eval_step(
        state.evaluated,
        replicas,
        confusion_of=len(classes) if needs_confusion else 0,
        with_scores=metrics.needs_scores(settings.monitor),
    )


def _warm_start_source(start: Start) -> TrainedModel | None:
    is_new = start.found.newest is None
    return warm_start.open_source(start.config) if start.config.init_from and is_new else None


def _settle(start: Start, source: TrainedModel | None, replicas: Replicas) -> Config:
    # Fills in settings that depend on what the first start finds. They are stored with the others: later
    # starts read them from the checkpoint. It can fail, so it comes before the data, which may take minutes.
    settings = start.config
    if settings.schedule != "constant" and not settings.schedule_epochs:
        epochs = start.stored.get("schedule_epochs") or settings.epochs
        settings = dataclasses.replace(settings, schedule_epochs=epochs)
    if source and settings.init_best_metric:
        settings = dataclasses.replace(settings, initial_best=warm_start.best_metric_of(source, settings))
    if not settings.shards:
        shards = start.stored.get("shards") or _shards_for(settings, replicas)
        settings = dataclasses.replace(settings, shards=shards)
    return settings


def _shards_for(settings: Config, replicas: Replicas) -> int:
    # A pair of cores for each shard, on the machine with the fewest.
    cores = min(int(cores) for cores in replicas.gather(str(machine.usable_cores())))
    rows = input_pipeline.slice_rows(settings.batch_size, replicas.count)
    return max(1, min(cores // (2 * len(replicas.local)), rows // _FEWEST_ROWS))


def _texts(settings: Config, data: Data, replicas: Replicas) -> dict[str, str]:
    # The string variables of the state.
    fingerprints = {"vocabulary": data.vocabulary.fingerprint}
    fingerprints |= {f"split {split}": store.fingerprint for split, store in data.stores.items()}
    fingerprints |= compatibility.fingerprint_of(data.classes)
    current = conditions.conditions(
        numerics=compatibility.numerics_of(settings),
        intra_op_threads=settings.intra_op_threads,
        replicas=replicas.count,
    )
    return {
        "frozen_flags": flagfile.to_text(settings, FIXED, INEXACT),
        "free_flags": flagfile.to_text(settings, FREE),
        "fingerprints": json.dumps(fingerprints),
        "conditions": json.dumps(current),
    }


def _check(start: Start, data: Data, texts: Mapping[str, str], replicas: Replicas) -> None:
    # Checks everything before anything in the directory is changed.
    directory, newest, settings = start.directory, start.found.newest, start.config
    if newest is None and event_files.has_points(directory / "summaries"):
        raise StorageError(
            f"{directory} holds the event log of a run, but no checkpoint of it; "
            f"restore its checkpoints from a copy, or delete the directory to start over."
        )
    if newest:
        compatibility.check_compatible(settings, newest, start.stored, texts)
        check_size(newest, settings, len(data.vocabulary), data.classes)
        if replicas.is_chief:
            compatibility.check_copy(settings, start.stored)
    plan = data.plan
    padded = input_pipeline.padded_ratio(plan, steps=min(plan.steps_per_epoch, input_pipeline.WINDOW_BATCHES))
    logging.info(
        "Batches   %d per epoch, of %s in %s; padding adds %.1f%%",
        plan.steps_per_epoch,
        plural(plan.batch_size, "review"),
        plural(settings.shards * replicas.count, "shard"),
        100 * (padded - 1),
    )
    replicas.agree(compatibility.facts_of(settings, texts, newest))


def _restore(
    start: Start,
    state: TrainState,
    data: Data,
    texts: Mapping[str, str],
    source: TrainedModel | None,
    replicas: Replicas,
    stop_requests: StopRequests,
) -> checkpoint_manager.Checkpoints:
    # The first changes in the directory: leftovers removed, the state restored, best/ repaired.
    directory, newest, settings = start.directory, start.found.newest, start.config
    workdir.held(directory).check()
    if replicas.is_chief:
        checkpoint_cleanup.tidy(directory, start.found)
    checkpoints = checkpoint_manager.Checkpoints(
        run=directory,
        state=state,
        max_to_keep=settings.max_to_keep,
        stop_requested=lambda: stop_requests.received,
        is_writer=replicas.is_chief,
    )
    if newest:
        checkpoints.restore(newest)
        if replicas.is_chief:
            checkpoints.repair_best()
            checkpoints.prune()
        compatibility.apply_overrides(settings, state, texts)
        if settings.init_from:
            logging.info("The run already has checkpoints: --init_from=%s is ignored.", settings.init_from)
    elif source:
        warm_start.copy_weights(source, settings, state, data.vocabulary, data.classes)
    if not newest:
        ngram_counts.set_counts(state.model, settings, data)
    return checkpoints
