"""Compares this trainer with Keras `fit` on IMDB, on this machine, in one interleaved run of about five minutes.

    TFDS_DATA_DIR=... python scripts/bench.py [--json=FILE] [--rounds=6]
    TFDS_DATA_DIR=... python scripts/bench.py --full [--seeds=3]     # hours: whole trainings, to the same quality
    TFDS_DATA_DIR=... python scripts/bench.py --saves=100            # a save alone, beside TensorFlow's own of the same state

Three processes take turns, so that a machine that slows down slows all of them; whoever waits computes nothing.

usual   The script that most users write: TextVectorization as the first layer, random batches of strings, Keras `fit`.
fair    Keras `fit` on this trainer's encoded, sorted batches, with a mask.
ours    This trainer: its flags, its loop, its logs and saves.

A step is timed from its start to the start of the next. An epoch of `usual` and of `fair` is extrapolated from the steps taken, at least
50; that of `ours` is taken whole. Evaluations are taken whole, after a first one that compiles.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

BATCH_SIZE = 64
VALIDATION_BATCHES = 30
STEPS_AN_EPOCH = -(-25_000 // BATCH_SIZE)
TARGET = {"val_loss": 0.3285, "val_accuracy": 0.856}
PROGRAM = [sys.executable, "-m", "trainer.main", f"--flagfile={ROOT / 'trainer/configs/tutorial.flags'}"]


class Turns:
    """A worker's side: takes orders from standard input, answers each with a line of JSON on standard output."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what the libraries print is no answer
        self._steps_left = 0
        self.steps: list[dict] = []
        self.order = ""

    def answer(self, **values) -> None:
        """Answers, and waits for the next order."""
        print(json.dumps(values), file=self._answers, flush=True)
        self.order, _, argument = sys.stdin.readline().strip().partition(" ")
        self._steps_left = int(argument or 0)

    def is_over(self) -> bool:
        """Between two steps: whether training ends here. Waits when the steps of the order are taken."""
        if not self._steps_left:
            steps, self.steps = self.steps, []
            self.answer(steps=steps)
        self._steps_left -= 1
        return self.order not in ("train", "repeat")


def usual(turns: Turns | None, seed: int, cache_dir: str) -> None:
    """Keras, as most users write it."""
    import keras
    import tensorflow as tf
    import tensorflow_datasets as tfds

    keras.utils.set_random_seed(seed)
    train, test = tfds.load("imdb_reviews", split=["train", "test"], as_supervised=True)
    train = train.shuffle(10_000).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    test = test.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    encoder = keras.layers.TextVectorization(max_tokens=1000)
    encoder.adapt(train.map(lambda text, label: text))
    layers = [keras.layers.Embedding(1000, 64), keras.layers.Bidirectional(keras.layers.LSTM(64))]
    layers += [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    model = compiled(keras.Sequential([encoder, *layers]))
    if turns is None:
        model.fit(train, epochs=30, validation_data=test, validation_steps=VALIDATION_BATCHES, callbacks=[until_target()], verbose=2)
        return
    model.fit(train.repeat(), epochs=1, steps_per_epoch=10**6, callbacks=[paced(turns)], verbose=0)
    model.evaluate(test, steps=2, verbose=0)
    while turns.order == "evaluate":
        turns.answer(seconds=seconds(lambda: model.evaluate(test, verbose=0)))


def fair(turns: Turns, seed: int, cache_dir: str) -> None:
    """Keras on our batches, masked."""
    import keras
    import tensorflow as tf

    from trainer.data import input_pipeline, token_store
    from trainer.data.corpus import open_corpus

    keras.utils.set_random_seed(seed)
    corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=cache_dir)
    _, stores = token_store.prepare(corpus=corpus, splits=["train"], vocab_size=1000, cache_dir=cache_dir)
    plan = input_pipeline.BatchPlan(lengths=stores["train"].lengths, batch_size=BATCH_SIZE, seed=seed)
    batches = input_pipeline.train_batches(store=stores["train"], plan=plan, max_length=0, first_step=0, last_step=10**6)
    layers = [keras.layers.Embedding(1000, 64, mask_zero=True), keras.layers.Bidirectional(keras.layers.LSTM(64))]
    layers += [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    lengths = (int(plan.lengths(rows).max()) for rows in map(plan.rows, range(10**6)))
    signature = (tf.TensorSpec([BATCH_SIZE, None], tf.int32), *2 * [tf.TensorSpec([BATCH_SIZE], tf.float32)])
    dataset = tf.data.Dataset.from_generator(
        lambda: ((ids, labels, weights) for ((ids, _, labels, weights, _),) in batches), output_signature=signature
    )
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    compiled(keras.Sequential(layers)).fit(dataset, epochs=1, callbacks=[paced(turns, lengths)], verbose=0)


def compiled(model):
    """The loss, the optimizer and the metric of all contenders."""
    import keras

    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss, metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")])
    return model


def paced(turns: Turns, lengths=None):
    """A callback that lets `fit` take its steps when it is its turn."""
    import keras

    class Paced(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            turns.is_over()
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            turns.steps.append({"seconds": time.perf_counter() - self.start, "length": next(lengths) if lengths else None})
            self.model.stop_training = turns.is_over()
            self.start = time.perf_counter()

    return Paced()


def until_target():
    """A callback that ends `fit` when validation is as good as it has to be."""
    import keras

    class UntilTarget(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = is_reached(logs)

    return UntilTarget()


def is_reached(metrics: dict[str, float]) -> bool:
    """Whether validation is as good as it has to be."""
    return metrics["val_loss"] <= TARGET["val_loss"] and metrics["val_accuracy"] >= TARGET["val_accuracy"]


def ours(turns: Turns, seed: int, cache_dir: str, argv: Sequence[str] = ()) -> None:
    """Our own start, loop and evaluation, with more flags where there are any; the step and the saves are timed from outside."""
    from trainer import InterruptedBySignalError, config
    from trainer.main import Signals, importing_tensorflow

    with importing_tensorflow():
        from trainer import start, train

    signals, make_train_step = Signals(), train.make_train_step

    def make_timed_step(*args, **kwargs):
        step, last = make_train_step(*args, **kwargs), {}

        def timed(batch, stop):
            if last:
                last["seconds"] = time.perf_counter() - last["began"]
                if turns.order == "repeat":
                    last["repeated"] = seconds(lambda: step(last["batch"], 0.0))
                turns.steps.append({name: last.get(name) for name in ("seconds", "in_step", "repeated", "length")})
            if turns.is_over():
                os.kill(os.getpid(), signal.SIGTERM)
                stop = 1.0  # the loop has asked for signals before it called
            last.update(batch=batch, length=batch[0].token_ids.shape[1], began=time.perf_counter())
            result = step(batch, stop)
            last["in_step"] = time.perf_counter() - last["began"]
            return result

        return timed

    train.make_train_step = make_timed_step
    with tempfile.TemporaryDirectory() as folder:
        # While others take their turns a minute passes often: saves are timed on their own. So are evaluations.
        flags = [
            f"--workdir={folder}/run",
            f"--cache_dir={cache_dir}",
            f"--seed={seed}",
            "--checkpoint_every_secs=0",
            "--eval_every_steps=100000",
            *argv,
        ]
        given = config.parse([*PROGRAM[2:], *flags])
        run = start.open_run(given, signals=signals)
        start.begin(run)
        with contextlib.suppress(InterruptedBySignalError):
            train.train_and_evaluate(run)
        run = dataclasses.replace(run, signals=Signals())  # the signal that ended the training is no wish to end an evaluation
        train.evaluate_split(run, run.config.test_split, 1, "")
        while turns.order == "evaluate":
            turns.answer(seconds=seconds(lambda: train.evaluate_split(run, run.config.test_split, 0, "")))

        def save():
            run.events.commit()
            run.checkpoints.save()

        saves = []
        for _ in range(10):
            run.state.step.assign_add(1)
            saves.append(seconds(save))
        turns.answer(seconds=statistics.median(saves))


def compare_saves(count: int) -> None:
    """How long a save stalls training, beside a plain write of the same state that is neither synced nor read back; taken in turns."""
    from trainer import config
    from trainer.main import importing_tensorflow

    with importing_tensorflow():
        import tensorflow as tf

        from trainer import start

    with tempfile.TemporaryDirectory() as folder:
        run = start.open_run(config.parse([*PROGRAM[2:], f"--workdir={folder}/run", "--verbosity=-1"]), signals=None)
        start.begin(run)
        plain = tf.train.Checkpoint(root=run.state)

        def save():
            run.events.commit()
            run.checkpoints.save()

        taken = {"ours": [], "plain": [], "ratio": []}
        for step in range(1, count + 4):
            run.state.step.assign(step)
            run.events.write("train", step=step, scalars=dict.fromkeys(("loss", "accuracy", "gradient_norm"), 0.0))
            taken["ours"].append(1000 * seconds(save))
            taken["plain"].append(1000 * seconds(lambda name=f"{folder}/plain-{step}": plain.write(name)))
            taken["ratio"].append(taken["ours"][-1] / taken["plain"][-1])
    ours, plain, ratio = (spread(values[3:]) for values in taken.values())  # the first save and write of a process take longer
    here = machine()
    print(
        f"{here['cpu']}, {here['cores']} cores, {here['date']}; median of {count} (least-most)\n"
        f"A save stalls training for {ours} ms; a plain tf.train.Checkpoint.write of the same state takes {plain} ms; ratio {ratio}."
    )


def seconds(function: Callable) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def variant(name: str, argv: list[str]) -> None:
    """Our program as it is: "ours"; with Keras' LSTM in the place of our kernel: "Keras"; with batches in random order: "unsorted"."""
    from trainer import main

    with main.importing_tensorflow():
        from trainer.data import input_pipeline
        from trainer.model.classifier import Classifier

    if name == "Keras":
        Classifier._encode = lambda self, token_ids, lengths, training: self._encode_with_keras(token_ids, lengths)
    if name == "unsorted":
        input_pipeline.WINDOW_BATCHES = 1
    main.main(argv)


class Contender:
    """The parent's side of a worker."""

    def __init__(self, name: str, cache_dir: str, *argv: str) -> None:
        program = [sys.executable, __file__, f"--play={name}", f"--cache_dir={cache_dir}", "--", *argv]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"A contender has ended; see: {' '.join(self._process.args)}")
        return json.loads(line)

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._process.pid

    def order(self, order: str) -> dict:
        """Gives an order and waits for the answer."""
        print(order, file=self._process.stdin, flush=True)
        return self._read()


def spread(values: list[float]) -> str:
    """A median, and what it lies between."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def seconds_an_epoch(rounds: list[list[dict]], tokens: int) -> list[float]:
    """What an epoch would take at each round's pace, by tokens with padding, or by steps where these are not known."""
    paces = [sum(step["seconds"] for step in steps) / sum(step["length"] or tokens / STEPS_AN_EPOCH for step in steps) for steps in rounds]
    return [pace * tokens for pace in paces]


def compare_steps(rounds: int) -> dict:
    """Steps, evaluation, start, saves and memory, interleaved."""
    with tempfile.TemporaryDirectory() as cache_dir:
        tqdm.write("Each contender reads the corpus and compiles ...", file=sys.stderr)
        contenders = {name: Contender(name, cache_dir) for name in ("ours", "fair", "usual")}
        for contender in contenders.values():
            contender.order("train 3")
        taken: dict[str, list] = {name: [] for name in contenders}
        for number in tqdm(range(rounds), unit="round", disable=None):
            left = STEPS_AN_EPOCH - 3
            counts = {"ours": left * (number + 1) // rounds - left * number // rounds, "fair": 25, "usual": max(10, -(-50 // rounds))}
            for name, contender in contenders.items():
                taken[name].append(contender.order(f"train {counts[name]}")["steps"])
        tqdm.write("An epoch on end, evaluation, start, saves, memory ...", file=sys.stderr)
        on_end = contenders["ours"].order(f"repeat {STEPS_AN_EPOCH}")["steps"]
        evaluations = [{name: contenders[name].order("evaluate")["seconds"] for name in ("ours", "usual")} for _ in range(2)]
        save = contenders["ours"].order("end")["seconds"]
        peak = {name: contender.order("end")["peak_mib"] for name, contender in contenders.items()}
        starts = measure_starts(cache_dir)
    tokens = sum(step["length"] for steps in taken["ours"] for step in steps) * STEPS_AN_EPOCH // (STEPS_AN_EPOCH - 3)
    epochs = {name: seconds_an_epoch(steps, tokens) for name, steps in taken.items()}
    figures = {
        **machine(),
        "epochs": epochs,
        "evaluation": {name: [taken[name] for taken in evaluations] for name in ("ours", "usual")},
        "save": save,
        "peak_mib": peak,
        "starts": starts,
        "not_the_step": 1 - total(on_end, "in_step") / total(on_end, "seconds"),
        "real_to_repeated": total(on_end, "seconds") / total(on_end, "repeated"),
        "by_length": by_length(taken["ours"], taken["fair"]),
    }
    print(table(figures))
    return figures


def total(steps: list[dict], name: str) -> float:
    """The sum of one figure of some steps."""
    return sum(step[name] for step in steps)


def by_length(ours: list[list[dict]], fair: list[list[dict]]) -> dict[str, tuple[float, float]]:
    """Milliseconds a step, of batches whose longest review lies between two bounds: ours, and Keras on the same batches."""
    bounds = [0, 150, 250, 400, 700, 10**6]
    result = {}
    for low, high in itertools.pairwise(bounds):
        times = [[1000 * step["seconds"] for steps in rounds for step in steps if low < step["length"] <= high] for rounds in (ours, fair)]
        if all(times):
            name = f"{low + 1} to {high} tokens" if high < 10**6 else f"over {low} tokens"
            result[name] = tuple(statistics.median(values) for values in times)
    return result


def measure_starts(cache_dir: str) -> dict[str, float]:
    """Seconds from a process' start: `import tensorflow` alone, the first step of a new run, the first step of a resumed one."""
    starts: dict[str, list[float]] = {"import": [], "new": [], "resumed": []}
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
        starts["import"].append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as workdir:
            command = [*PROGRAM, f"--workdir={workdir}", f"--cache_dir={cache_dir}", "--log_every_steps=1"]
            for start in ("new", "resumed"):
                starts[start].append(seconds_until(command, lambda line: line.startswith("train ")))
    return {name: statistics.median(seconds) for name, seconds in starts.items()}


def seconds_until(command: list[str], is_it: Callable[[str], bool]) -> float:
    """Runs the trainer until it says a certain line, and ends it."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        next(filter(is_it, process.stderr))
        seconds = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return seconds


def table(figures: dict) -> str:
    """The figures of `compare_steps` in Markdown."""
    epochs, evaluation, starts, peak = (figures[name] for name in ("epochs", "evaluation", "starts", "peak_mib"))
    evaluation |= {"ratio": [theirs / our for theirs, our in zip(evaluation["usual"], evaluation["ours"], strict=True)]}
    ratios = {name: [theirs / our for theirs, our in zip(epochs[name], epochs["ours"], strict=True)] for name in ("usual", "fair")}
    lines = [
        f"{figures['cpu']}, {figures['cores']} cores, {figures['date']}; median of the rounds (least-most)",
        "",
        "| | usual Keras script | Keras `fit` on our batches | this trainer | usual / ours | fair / ours |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| seconds an epoch | {spread(epochs['usual'])} | {spread(epochs['fair'])} | {spread(epochs['ours'])} "
        f"| {spread(ratios['usual'])} | {spread(ratios['fair'])} |",
        f"| reviews a second | {' | '.join(f'{25_000 / statistics.median(epochs[name]):.0f}' for name in ('usual', 'fair', 'ours'))} | | |",
        f"| seconds to evaluate 25,000 reviews | {spread(evaluation['usual'])} | | {spread(evaluation['ours'])} "
        f"| {spread(evaluation['ratio'])} | |",
        f"| peak memory, MiB | {peak['usual']:.0f} | {peak['fair']:.0f} | {peak['ours']:.0f} "
        f"| {peak['usual'] / peak['ours']:.2f} | {peak['fair'] / peak['ours']:.2f} |",
    ]
    for name, (our, theirs) in figures["by_length"].items():
        lines.append(f"| milliseconds a step, {name} | | {theirs:.0f} | {our:.0f} | | {theirs / our:.1f} |")
    lines += [
        "",
        f"Training time that is not the step: {figures['not_the_step']:.1%}. With real batches a step takes "
        f"{figures['real_to_repeated']:.3f} times as long as with the same batch repeated.",
        f"First step {starts['new']:.1f} s after the process' start, {starts['resumed']:.1f} s when it resumes; "
        f"`import tensorflow` alone takes {starts['import']:.1f} s.",
        f"A save stalls training for {1000 * figures['save']:.0f} ms: {figures['save'] / 60:.2%} of the 60 s between two saves.",
    ]
    return "\n".join(lines)


def compare_trainings(seeds: int, report: pathlib.Path | None) -> dict:
    """Whole trainings, to the same quality and for the same number of epochs; what `report` holds already is not done again."""
    figures = {**machine(), "to_target": {}, "quality": {}}
    if report and report.exists():
        figures = json.loads(report.read_text())

    def measured(part: str, name: str, measure: Callable):
        if name not in figures[part]:
            figures[part][name] = measure()
            if report:
                report.write_text(json.dumps(figures, indent=2) + "\n")
        return figures[part][name]

    print(f"{figures['cpu']}, {figures['cores']} cores, {figures['date']}\n")
    print("Loss and accuracy on the 25,000 test reviews after each epoch of this trainer\n")
    print("| seed | variant | " + " | ".join(str(epoch) for epoch in range(1, 6)) + " |\n" + "| --- " * 7 + "|", flush=True)
    with tempfile.TemporaryDirectory() as cache_dir:
        for name, seed in itertools.product(("ours", "Keras", "unsorted"), range(seeds)):
            metrics = measured("quality", f"{seed} {name}", lambda seed=seed, name=name: five_epochs(seed, name, cache_dir))
            cells = " | ".join(f"{epoch['val_loss']:.3f} {epoch['val_accuracy']:.3f}" for epoch in metrics)
            print(f"| {seed} | {name} | {cells} |", flush=True)
    target = " and ".join(f"{name} {value}" for name, value in TARGET.items())
    print(f"\nSeconds from the process' start, with nothing cached, to {target}\n")
    print("| seed | usual Keras script | this trainer | ratio |\n| --- | --- | --- | --- |", flush=True)
    for seed in range(seeds):
        usual, ours = measured("to_target", str(seed), lambda seed=seed: times_to_target(seed))
        print(f"| {seed} | {usual:.0f} | {ours:.0f} | {usual / ours:.1f} |", flush=True)
    return figures


def times_to_target(seed: int) -> tuple[float, float]:
    """Seconds that the usual script and this trainer take, with nothing cached, until validation is as good as it has to be."""
    began = time.perf_counter()
    play = [sys.executable, __file__, "--play=usual to target", f"--seed={seed}"]
    subprocess.run(play, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    usual = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        command = [*PROGRAM, f"--workdir={folder}/run", f"--cache_dir={folder}/cache", f"--seed={seed}", "--epochs=30"]
        return usual, seconds_until(command, lambda line: line.startswith("validation") and is_reached(validation(line)))


def five_epochs(seed: int, name: str, cache_dir: str) -> list[dict[str, float]]:
    """The test metrics after each of five epochs of a variant of this trainer."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            "--epochs=5",
            "--patience=0",
            "--validation_steps=0",
            f"--seed={seed}",
            f"--workdir={folder}/run",
            f"--cache_dir={cache_dir}",
        ]
        command = [sys.executable, __file__, f"--play=variant {name}", "--", *PROGRAM[2:], *flags]
        said = subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.PIPE, text=True).stderr
    return [validation(line) for line in said.splitlines() if line.startswith("validation")]


def validation(line: str) -> dict[str, float]:
    """The metrics of a line in which the trainer says how an evaluation came out."""
    loss, accuracy = re.search(r"loss ([\d.]+) \| accuracy ([\d.]+)", line).groups()
    return {"val_loss": float(loss), "val_accuracy": float(accuracy)}


def machine() -> dict:
    """What the figures are measured on."""
    names = (line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    return {"cpu": next(names), "cores": len(os.sched_getaffinity(0)), "date": time.strftime("%Y-%m-%d")}


def main() -> int:
    """Plays one contender, or lets all of them play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, help="where to write the figures; --full goes on from what it holds")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--saves", type=int, help="compare so many saves with TensorFlow's own, and nothing else")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--cache_dir", help=argparse.SUPPRESS)
    parser.add_argument("argv", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play == "usual to target":
        usual(None, given.seed, given.cache_dir)
    elif given.play and given.play.startswith("variant "):
        variant(given.play.removeprefix("variant "), given.argv)
    elif given.play:
        turns = Turns()
        more = [given.argv] if given.play == "ours" else []
        {"usual": usual, "fair": fair, "ours": ours}[given.play](turns, given.seed, given.cache_dir, *more)
        turns.answer(peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    elif given.saves:
        compare_saves(given.saves)
    else:
        figures = compare_trainings(given.seeds, given.json) if given.full else compare_steps(given.rounds)
        if given.json:
            given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
