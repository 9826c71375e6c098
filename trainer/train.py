"""Training: the loop that trains, logs, evaluates and saves, in an order that survives any kill."""

import json
import shlex
from collections.abc import Iterator

import numpy as np
from absl import logging

from trainer import build, files, metrics
from trainer.config import Config, Settings
from trainer.data import input_pipeline
from trainer.errors import NonFiniteError
from trainer.fields import FIXED, FREE, INEXACT
from trainer.intervals import SaveInterval, Throughput
from trainer.metrics import Metrics
from trainer.prepare import prepare_directory, write_copies
from trainer.progress import (
    classify_sample_texts,
    log_line,
    log_training,
    warn_if_nothing_was_learned,
    with_progress_bars,
    write_texts,
)
from trainer.run import early_stopping, event_files, records, summaries
from trainer.run.state import Sums
from trainer.session import Session, open_session
from trainer.signals import StopRequests
from trainer.steps import EVALUATION_BATCH_SIZE, Slices, TrainStep, Updates, evaluate, make_train_step
from trainer.words import plural


def run(given: Settings, *, stop_requests: StopRequests) -> None:
    """Starts or resumes the run that the command line names, trains it to its end, and writes the result.

    Args:
      given: the settings that the command line gives; this process holds the lock of `workdir`.
      stop_requests: honoured between two steps and between two batches of an evaluation.
    """
    session = open_session(given, stop_requests=stop_requests)
    with session.replicas.peers():
        train_to_the_end(session)


def train_to_the_end(session: Session) -> None:
    """Does the rest of a run."""
    state, reason = session.state, session.stop_reason()
    step, best_step = int(state.step), int(state.best_step)
    if reason and records.is_result_of(session.directory, step, best_step):
        write_copies(session)
        hint = how_to_continue(session)
        logging.info("%s is finished: %s, at step %d. %s", session.directory, reason, step, hint)
        return
    prepare_directory(session)
    if step == 0:
        # Without the free flags, so that ten epochs and ten more log the same as twenty.
        write_texts(session, "train", classify_sample_texts(session), FIXED, INEXACT)
    finish(session, reason or train_and_evaluate(session))


def train_and_evaluate(session: Session, *, train_step: TrainStep | None = None) -> str:
    """Trains from the state's step to the end of the run; returns why it stopped.

    At step N: update, log, evaluate, commit the event log, save, save the best. A checkpoint of step N
    includes the verdict of N's evaluation. After a kill at any earlier point, the steps since the previous
    checkpoint are repeated, to the same bits.

    Args:
      session: what to train; its directory is prepared.
      train_step: replaces the compiled step, for example to time it; None: a new compiled step.
    """
    config, state = session.config, session.state
    train_step = train_step or make_train_step(
        state,
        session.replicas,
        batch_size=config.batch_size,
        updates=updates_of(config, session.data.plan.steps_per_epoch),
        class_weights=session.data.class_weights,
    )
    step = int(state.step)
    saves, throughput = SaveInterval(step, config), Throughput(step, config.batch_size)
    for batch in with_progress_bars(_train_batches(session), session):
        loss, gradient_norm, stop = train_step(batch, float(session.stop_requests.received)).numpy().tolist()
        session.stop_requests.defer_to_loop = True  # Before the first step there was nothing to save.
        step += 1
        if config.on_nan == "stop":
            _check_finite(step, loss, gradient_norm, saves.saved_step)
        if step % config.log_every_steps == 0:
            rate = throughput.reviews_per_second(step)
            log_training(session, step, gradient_norm, reviews_per_second=rate)
        evaluation_due = step % (config.eval_every_steps or session.data.plan.steps_per_epoch) == 0
        is_best = evaluation_due and evaluate_and_judge(session, step, saved_step=saves.saved_step)
        reason = session.stop_reason() if evaluation_due or step == session.last_step else None
        save_requested = session.stop_requests.take_save_request()
        if evaluation_due or reason or saves.is_due(step) or stop or save_requested:
            # Nothing that was trained on a corrupt store is saved.
            session.data.stores[config.train_split].check(wait=True)
            session.events.commit()
            session.checkpoints.save()
            saves.saved(step)
        if save_requested:
            logging.info("Saved at step %d, as SIGUSR1 requested.", step)
        if is_best:
            session.checkpoints.save_best()
        if saves.saved_step == step:
            session.compiled.keep()
        if reason:
            return reason
        if stop:
            session.replicas.gather("saved")
            session.stop_requests.defer_to_loop = False
            raise session.stop_requests.stopped(f"saved at step {step}; the same command continues.")
    raise AssertionError("the batches ended before the run did")


def updates_of(config: Config, steps_per_epoch: int) -> Updates:
    """How the config lets gradients change the weights."""
    return Updates(
        learning_rate=config.learning_rate,
        schedule=build.schedule_of(config, steps_per_epoch),
        clip_norm=config.clip_norm,
        accumulate=config.accumulate,
        ema_momentum=config.ema_momentum,
    )


def _train_batches(session: Session) -> Iterator[Slices]:
    config, step = session.config, int(session.state.step)
    batches = input_pipeline.train_batches(
        store=session.data.stores[config.train_split],
        plan=session.data.plan,
        max_length=config.max_length,
        first_step=step,
        last_step=session.last_step,
        replicas=session.replicas.count,
        local=session.replicas.local,
    )
    if not config.profile_window:
        return batches
    directory = session.directory / "summaries" / "train"
    return summaries.profiled(batches, directory=directory, first_step=step + 1, window=config.profile_window)


def _check_finite(step: int, loss: float, gradient_norm: float, saved_step: int) -> None:
    if not np.isfinite([loss, gradient_norm]).all():
        raise NonFiniteError(
            f"Loss and gradients must be finite, but at step {step} the loss is {loss} and the gradients' "
            f"norm {gradient_norm}; resume from step {saved_step}, which is saved, with a lower "
            f"--learning_rate, with --clip_norm or with --on_nan=continue, each of which needs "
            f"--allow_inexact_resume."
        )


def evaluate_and_judge(session: Session, step: int, *, saved_step: int) -> bool:
    """Evaluates at `step` and updates the best metric and patience; returns whether it is the best so far."""
    config, state = session.config, session.state
    sums = Sums(*state.since_evaluation.numpy().tolist())
    training = {"loss": sums.loss / sums.reviews, "accuracy": sums.correct / sums.reviews}
    shown, monitored = training, dict(training)
    if config.validation_split:
        replayed = f"the evaluation at step {step} is abandoned; {plural(step - saved_step, 'step')} to redo."
        validation = evaluate_split(session, config.validation_split, config.validation_steps, replayed)
        shown = validation.values()
        monitored |= {f"val_{name}": value for name, value in shown.items()}
        session.events.write("validation", step=step, scalars=shown)
    after = early_stopping.verdict(
        state.monitor_state,
        monitored[config.monitor],
        step=step,
        lower_is_better=config.lower_is_better,
        min_delta=config.min_delta,
        baseline=config.baseline,
        counts_for_patience=(step - 1) // session.data.plan.steps_per_epoch >= config.start_from_epoch,
    )
    state.assign_monitor_state(after)
    reduce_learning_rate(session, monitored[config.monitor])
    state.reset_since_evaluation()
    best = {metrics.curve_of(config.monitor): after.best_metric} if after.best_step >= 0 else {}
    since = {metrics.since_evaluation(name): value for name, value in training.items()}
    session.events.write("train", step=step, scalars=since)
    session.events.write(
        "best", step=step, scalars={**best, "best_step": after.best_step, "waited": after.waited}
    )
    is_best = after.best_step == step
    remark = "best so far" if is_best else f"{after.waited} without improvement"
    name = "validation" if config.validation_split else "monitored"
    split = config.validation_split or config.train_split
    log_line(session, name, split, step, shown, remark, is_good=is_best)
    return is_best


def reduce_learning_rate(session: Session, metric: float) -> None:
    """Reduces the learning rate after --plateau_patience evaluations without improvement."""
    config, before = session.config, session.state.plateau
    if before is None:
        return
    after = early_stopping.plateau_verdict(
        before,
        metric,
        lower_is_better=config.lower_is_better,
        min_delta=config.min_delta,
        patience=config.plateau_patience,
        factor=config.plateau_factor,
    )
    session.state.assign_plateau(after)
    if after.scale < before.scale:
        logging.info("No improvement: the learning rate is multiplied by %g from now on.", after.scale)


def evaluate_split(session: Session, split: str, steps: int, if_stopped: str) -> Metrics:
    """Exact metrics over the first `steps` x batch_size reviews of a split; with 0 steps over all."""
    store = session.data.stores[split]
    batches = input_pipeline.evaluation_batches(
        store=store,
        batch_size=EVALUATION_BATCH_SIZE,
        max_length=session.config.max_length,
        examples=min(len(store), steps * session.config.batch_size) or len(store),
        replicas=session.replicas.count,
        local=session.replicas.local,
    )
    requests = session.stop_requests
    with_scores = metrics.needs_scores(session.config.monitor)
    return evaluate(
        session.eval_step,
        batches,
        stop=lambda: requests.received,
        abandon=lambda: requests.stopped(if_stopped),
        scored=EVALUATION_BATCH_SIZE * session.replicas.count if with_scores else 0,
        replicas=session.replicas.count,
    )


def finish(session: Session, reason: str) -> None:
    """Evaluates the best checkpoint on the test split and writes the result.

    It depends only on committed state. After a kill it is repeated from scratch, until result.json names this
    stop step and this best step.
    """
    config, state, hint = session.config, session.state, how_to_continue(session)
    session.replicas.gather("saved")  # Until the chief has saved the best, the others cannot read it.
    stop_step, best = int(state.step), session.checkpoints.best()
    logging.info("Ended at step %d: %s.", stop_step, reason)
    best_metric = float(state.best_metric) if best else None
    result: dict[str, object] = {
        "reason": reason,
        "stop_step": stop_step,
        "best_step": int(state.best_step),
        "monitor": config.monitor,
        "best_metric": best_metric,
    }
    if best:
        session.checkpoints.restore(best)
        logging.info("Best checkpoint: step %d, %s %.4f.", int(state.step), config.monitor, best_metric)
    else:
        logging.info("There is no best checkpoint: evaluating the latest one.")
    step = int(state.step)
    if session.replicas.is_chief:
        event_files.remove_run(session.directory / "summaries" / "test")
    if config.test_split:
        test = evaluate_split(session, config.test_split, 0, "the final evaluation will be done again.")
        shown = test.values()
        session.events.write("test", step=step, scalars=shown)
        log_line(session, "test", config.test_split, step, shown, plural(test.reviews, "review"))
        warn_if_nothing_was_learned(session, config.test_split, test.loss, test.accuracy)
        result["test"] = {**shown, "reviews": test.reviews}
    sample_texts = classify_sample_texts(session)
    result["sample_texts"] = sample_texts
    write_texts(session, "test", sample_texts, FIXED, INEXACT, FREE)
    session.events.commit()
    session.compiled.keep()
    if session.replicas.is_chief:
        session.checkpoints.check()
        content = (json.dumps(result, indent=2) + "\n").encode()
        files.write_atomically(session.directory / records.RESULT, content)
    logdir = shlex.quote(str(session.directory / "summaries"))
    logging.info("View metrics: tensorboard --logdir %s\n%s", logdir, hint)


def how_to_continue(session: Session) -> str:
    """Which flags would continue a run that has ended."""
    config, waited = session.config, int(session.state.waited)
    has_ended = int(session.state.step) >= config.schedule_epochs * session.data.plan.steps_per_epoch
    if config.schedule != "constant" and not config.final_learning_rate and has_ended:
        return (
            f"The schedule has ended, with a learning rate of 0: to train on, start a new run with "
            f"--init_from={config.workdir}."
        )
    more = []
    if config.patience and waited >= config.patience:
        more.append(f"--patience={waited + 1} (or 0: never stop early)")
    if int(session.state.step) >= session.last_step:
        more.append(f"--epochs={2 * config.epochs}")
    return f"To continue, rerun with {' and '.join(more)}."
