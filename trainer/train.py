"""Training: the hand-written step, and the loop that logs, evaluates, judges and saves in the order that makes a kill leave no trace."""

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from trainer import NonFiniteError, files
from trainer.config import FIXED, FREE, INEXACT
from trainer.data import input_pipeline
from trainer.data.input_pipeline import Batch
from trainer.evaluate import BATCH_SIZE, Metrics, batch_spec, evaluate
from trainer.model import classifier
from trainer.progress import Clock, classify_sample_texts, log_line, log_training, with_bars, write_texts
from trainer.run import event_files, summaries
from trainer.run.distribution import Replicas, sum_over_replicas
from trainer.run.early_stopping import verdict
from trainer.run.records import RESULT, is_result_of
from trainer.run.state import Sums, TrainState
from trainer.start import Run, begin, open_run, write_copies


def run(given: Mapping[str, Any], *, signals) -> None:
    """Starts or resumes the run that the command line names, trains it to its end, and writes the ending.

    Args:
      given: the settings that the command line gives; `workdir` is held by this process.
      signals: what signals ask for; see `trainer.main.Signals`.
    """
    run = open_run(given, signals=signals)
    with run.replicas.peers():
        train_to_the_end(run)


def train_to_the_end(run: Run) -> None:
    """Does what is left to do of a run."""
    reason = run.stop_reason()
    if reason and is_result_of(run.directory, int(run.state.step), int(run.state.best_step)):
        write_copies(run)
        logging.info("%s is finished: %s, at step %d. %s", run.directory, reason, int(run.state.step), how_to_go_on(run))
        return
    begin(run)
    if int(run.state.step) == 0:
        # The frozen flags alone: ten epochs and ten more are to leave what twenty do.
        write_texts(run, "train", classify_sample_texts(run), FIXED, INEXACT)
    finish(run, reason or train_and_evaluate(run))


TrainStep = Callable[[tuple[Batch, ...], float], tf.Tensor]


def make_train_step(state: TrainState, replicas: Replicas, *, batch_size: int, clip_norm: float) -> TrainStep:
    """Compiles (the slices of a batch, whether to stop) -> float64 [3]; the step updates the state.

    What it returns is of the whole batch: its loss, the gradients' global norm, and how many processes wish to stop.
    """
    model, optimizer = state.model, state.optimizer
    variables = model.trainable_variables
    rows = input_pipeline.slice_rows(batch_size, replicas.count)

    @tf.function(autograph=False, input_signature=[(batch_spec(rows),) * len(replicas.local), tf.TensorSpec([], tf.float64)])
    def train_step(batches: tuple[Batch, ...], stop: tf.Tensor) -> tf.Tensor:
        def of_replica(number: int) -> tuple[tf.Tensor, ...]:
            batch = batches[number - replicas.local.start]
            with tf.GradientTape() as tape:
                logits = model(batch.token_ids, batch.lengths, training_step=state.step, position=(number, replicas.count))
                losses = batch.weights * classifier.losses(logits, batch.labels)
                loss = tf.reduce_sum(losses) / batch.reviews
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            sums = sums_of(batch, logits, losses)
            # Made dense: the norm of sparse gradients counts a token that a batch holds twice as two.
            gradients = sum_over_replicas([tf.convert_to_tensor(gradient) for gradient in gradients])
            values = sum_over_replicas(tf.stack([tf.cast(value, tf.float64) for value in (*sums, loss, stop)]))
            norm = tf.linalg.global_norm(gradients)
            if clip_norm:
                gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
            optimizer.apply(gradients, variables)
            return values[: len(sums)], tf.stack([values[-2], tf.cast(norm, tf.float64), values[-1]])

        sums, returned = replicas.run(of_replica)
        state.step.assign_add(1)
        state.add_sums(sums)
        return returned

    return train_step


def sums_of(batch: Batch, logits: tf.Tensor, losses: tf.Tensor) -> Sums:
    """What a step adds to its metrics, scalars of several dtypes; `losses` are weighted, float32 [batch]. Part of the compiled step."""
    return Sums(
        loss=tf.reduce_sum(tf.cast(losses, tf.float64)),
        correct=tf.reduce_sum(batch.weights * classifier.is_correct(logits, batch.labels)),
        reviews=tf.reduce_sum(batch.weights),
        real_tokens=tf.reduce_sum(batch.lengths),
        padded_tokens=tf.size(batch.token_ids),
    )


def train_and_evaluate(run: Run) -> str:
    """Trains from the state's step to the end of the run; returns why it ended.

    At step N: update, log, evaluate and judge, commit the event log, save, save the best. A checkpoint of step N holds N's verdict, and a
    kill anywhere before it replays from the previous one and arrives at the same bits.
    """
    config, state = run.config, run.state
    train_step = make_train_step(state, run.replicas, batch_size=config.batch_size, clip_norm=config.clip_norm)
    step = int(state.step)
    batches = input_pipeline.train_batches(
        store=run.stores[config.train_split],
        plan=run.plan,
        max_length=config.max_length,
        first_step=step,
        last_step=run.last_step,
        replicas=run.replicas.count,
        local=run.replicas.local,
    )
    if config.profile_window:
        directory = run.directory / "summaries" / "train"
        batches = summaries.profiled(batches, directory=directory, first_step=step + 1, window=config.profile_window)
    clock = Clock(step, config)
    for batch in with_bars(batches, run):
        loss, norm, stop = train_step(batch, float(run.signals.received)).numpy().tolist()
        run.signals.wait_for_a_save = True  # so far, what is saved is all there was
        step += 1
        if config.on_nan == "stop" and not np.isfinite([loss, norm]).all():
            raise NonFiniteError(
                f"Loss and gradients must be finite, but at step {step} the loss is {loss} and the gradients' norm "
                f"{norm}; step {clock.saved_step} is saved: go on from it with a lower --learning_rate, with --clip_norm "
                f"or with --on_nan=continue, each of which needs --allow_inexact_resume."
            )
        if step % config.log_every_steps == 0:
            log_training(run, step, norm, reviews_per_second=clock.reviews_per_second(step))
        evaluation_due = step % (config.eval_every_steps or run.plan.steps_per_epoch) == 0
        is_best = evaluation_due and evaluate_and_judge(run, step, committed=clock.saved_step)
        reason = run.stop_reason() if evaluation_due or step == run.last_step else None
        asked = run.signals.take_save_request()
        if evaluation_due or reason or clock.is_save_due(step) or stop or asked:
            run.stores[config.train_split].check(wait=True)  # Nothing that was trained on a damaged store is saved.
            run.events.commit()
            run.checkpoints.save()
            clock.saved(step)
        if asked:
            logging.info("Saved at step %d, as SIGUSR1 asks.", step)
        if is_best:
            run.checkpoints.save_best()
        if reason:
            return reason
        if stop:
            run.replicas.gather("saved")
            run.signals.wait_for_a_save = False
            raise run.signals.end(f"saved at step {step}; the same command goes on.")
    raise AssertionError("the batches ended before the run did")


def evaluate_and_judge(run: Run, step: int, *, committed: int) -> bool:
    """Evaluates at `step` and takes the verdict into the state; returns whether it is the best so far."""
    config, state = run.config, run.state
    sums = Sums(*state.since_evaluation.numpy().tolist())
    metrics = {"loss": sums.loss / sums.reviews, "accuracy": sums.correct / sums.reviews}
    if config.validation_split:
        if_stopped = f"the evaluation at step {step} is abandoned; {step - committed} steps will be done again."
        validation = evaluate_split(run, config.validation_split, config.validation_steps, if_stopped)
        run.events.write("validation", step=step, scalars={"loss": validation.loss, "accuracy": validation.accuracy})
        metrics |= {"val_loss": validation.loss, "val_accuracy": validation.accuracy}
    after = verdict(
        state.monitor_state,
        metrics[config.monitor],
        step=step,
        lower_is_better=config.lower_is_better,
        min_delta=config.min_delta,
        baseline=config.baseline,
        counts_for_patience=(step - 1) // run.plan.steps_per_epoch >= config.start_from_epoch,
    )
    state.assign_monitor_state(after)
    state.reset_since_evaluation()
    is_best = after.best_step == step
    shown = validation._asdict() if config.validation_split else metrics
    run.events.write("train", step=step, scalars={f"{name}_since_evaluation": metrics[name] for name in ("loss", "accuracy")})
    best = {config.monitor.removeprefix("val_"): float(state.best_metric)} if int(state.best_step) >= 0 else {}
    run.events.write("best", step=step, scalars={**best, "best_step": int(state.best_step), "waited": int(state.waited)})
    judged = "best so far" if is_best else f"{int(state.waited)} without improvement"
    log_line(run, "validation" if config.validation_split else "judged", step, shown, judged, is_good=is_best)
    return is_best


def evaluate_split(run: Run, split: str, steps: int, if_stopped: str) -> Metrics:
    """Exact metrics over the first `steps` x batch_size reviews of a split, in corpus order; 0 steps: over all."""
    store = run.stores[split]
    examples = min(len(store), steps * run.config.batch_size) or len(store)
    batches = input_pipeline.evaluation_batches(
        store=store,
        batch_size=BATCH_SIZE,
        max_length=run.config.max_length,
        examples=examples,
        replicas=run.replicas.count,
        local=run.replicas.local,
    )
    return evaluate(run.eval_step, batches, stop=lambda: run.signals.received, abandon=lambda: run.signals.end(if_stopped))


def finish(run: Run, reason: str) -> None:
    """Evaluates the best checkpoint on the test split and writes the ending: a pure function of what is committed.

    A kill in here does the ending again, from scratch, until result.json names this stop step and this best step.
    """
    config, hint = run.config, how_to_go_on(run)
    run.replicas.gather("saved")  # Until the chief has saved the best, nobody can read it.
    stop_step, best = int(run.state.step), run.checkpoints.best()
    logging.info("Ended at step %d: %s.", stop_step, reason)
    ending = {"reason": reason, "stop_step": stop_step, "best_step": int(run.state.best_step), "monitor": config.monitor}
    ending["best_metric"] = float(run.state.best_metric) if best else None
    if best:
        run.checkpoints.restore(best)
        logging.info("Best checkpoint: step %d, %s %.4f.", int(run.state.step), config.monitor, ending["best_metric"])
    else:
        logging.info("No checkpoint is best: what follows is of the latest.")
    if run.replicas.is_chief:
        event_files.remove_run(run.directory / "summaries" / "test")
    if config.test_split:
        test = evaluate_split(run, config.test_split, 0, "the ending will be done again.")
        run.events.write("test", step=int(run.state.step), scalars={"loss": test.loss, "accuracy": test.accuracy})
        log_line(run, "test", int(run.state.step), test._asdict(), f"{test.reviews} reviews")
        ending["test"] = test._asdict()
    ending["sample_texts"] = classify_sample_texts(run)
    write_texts(run, "test", ending["sample_texts"], FIXED, INEXACT, FREE)
    run.events.commit()
    if run.replicas.is_chief:
        run.checkpoints.check()
        files.write_atomically(run.directory / RESULT, (json.dumps(ending, indent=2) + "\n").encode())
    logging.info("Look at it: tensorboard --logdir %s\n%s", shlex.quote(str(run.directory / "summaries")), hint)


def how_to_go_on(run: Run) -> str:
    """Which flags would continue a run that has ended."""
    config, waited = run.config, int(run.state.waited)
    more = [f"--patience={waited + 1} (or 0: never stop early)"] if config.patience and waited >= config.patience else []
    more += [f"--epochs={2 * config.epochs}"] if int(run.state.step) >= run.last_step else []
    return f"To go on: the same command with {' and '.join(more)}."
