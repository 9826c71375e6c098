"""The recurrent kernels that are compared, on random batches."""

from collections.abc import Callable

from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    import keras
    import numpy as np
    import tensorflow as tf

from trainer import build, steps
from trainer.config import Config
from trainer.data.input_pipeline import Batch
from trainer.labels import NEGATIVE_POSITIVE
from trainer.model import lstm
from trainer.run.distribution import Replicas

DIM = UNITS = 64
TEXT_OFFSET = 2.7  # of Zipf's law as Mandelbrot adapted it to texts: a token's share is 1 / (rank + 2.7)
TUTORIAL = {"workdir": "none", "pooling": "last", "ngrams": 0, "dropout": 0.0, "token_dropout": 0.0}
TEXTS = dict.fromkeys(("frozen_flags", "fingerprints", "conditions"), "")  # of a state

Call = Callable[[], object]  # returns when the values are computed


class Example:
    """A random batch of reviews, with lengths of 0.95 to 1 times the longest, and random weights.

    Tokens are as frequent as in a text.

    Attributes:
      token_ids: int32 [batch, time].
      lengths: int32 [batch].
      layer: Keras' bidirectional LSTM.
      variables: the embeddings and the six weights of `layer`.
    """

    def __init__(self, batch_size: int, time_steps: int, vocab_size: int, units: int = UNITS) -> None:
        random = np.random.default_rng(0)
        shares = 1 / (np.arange(vocab_size) + TEXT_OFFSET)
        ids = random.choice(vocab_size, (batch_size, time_steps), p=shares / shares.sum())
        self.token_ids = tf.constant(ids, tf.int32)
        lengths = random.integers(time_steps * 19 // 20, time_steps + 1, batch_size)
        self.lengths = tf.constant(lengths, tf.int32)
        self.layer = keras.layers.Bidirectional(keras.layers.LSTM(units))
        self.layer.build((None, None, DIM))
        embeddings = tf.Variable(random.uniform(-0.05, 0.05, (vocab_size, DIM)).astype(np.float32))
        self.variables = [embeddings, *(weight.value for weight in self.layer.trainable_variables)]

    def batch(self) -> Batch:
        """The reviews as a batch of the trainer."""
        rows = len(self.lengths)
        # Half of each, or a model would soon have gradients so small that some libraries slow down.
        labels, weights = tf.range(rows, dtype=tf.float32) % 2.0, tf.ones(rows)
        return Batch(self.token_ids, self.lengths, labels, weights, reviews=tf.constant(float(rows)))


def ours(example: Example) -> tf.Tensor:
    """The trainer's kernel; float32 [batch, 2 * UNITS]."""
    embeddings, *weights = map(tf.convert_to_tensor, example.variables)
    return lstm.bidirectional_lstm(
        token_ids=example.token_ids,
        lengths=example.lengths,
        embeddings=embeddings,
        forward=lstm.LSTMWeights(*weights[:3]),
        backward=lstm.LSTMWeights(*weights[3:]),
        training=True,
    )


def keras_lstm(example: Example) -> tf.Tensor:
    """Keras' layer over masked embeddings, as `model.fit` runs it on a CPU; float32 [batch, 2 * UNITS]."""
    mask = tf.sequence_mask(example.lengths, tf.shape(example.token_ids)[1])
    return example.layer(tf.gather(example.variables[0], example.token_ids), mask=mask)


def block_lstm(example: Example) -> tf.Tensor:
    """TensorFlow's fused operation, which has no mask; float32 [batch, 2 * UNITS]."""
    embedded = tf.transpose(tf.gather(example.variables[0], example.token_ids), [1, 0, 2])
    directions = (embedded, example.variables[1:4]), (tf.reverse(embedded, [0]), example.variables[4:])
    ends = []
    for inputs, (kernel, recurrent, bias) in directions:
        zeros = tf.zeros([tf.shape(inputs)[1], recurrent.shape[0]])
        states = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.shape(inputs, tf.int64)[0],
            x=inputs,
            cs_prev=zeros,
            h_prev=zeros,
            w=tf.concat([kernel, recurrent], axis=0),
            b=bias,
            **dict.fromkeys(("wci", "wcf", "wco"), zeros[0]),
            forget_bias=0.0,
            cell_clip=-1.0,
        )
        ends.append(states.h[-1])
    return tf.concat(ends, axis=1)


def forward(kernel: Callable[[Example], tf.Tensor], example: Example) -> Call:
    """The forward pass."""
    call = tf.function(lambda: tf.reduce_sum(kernel(example)))
    return lambda: call().numpy()


def forward_and_backward(kernel: Callable[[Example], tf.Tensor], example: Example) -> Call:
    """The forward and the backward pass."""

    @tf.function
    def call() -> tf.Tensor:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(kernel(example))
        gradients = tape.gradient(total, example.variables)
        return tf.add_n([tf.reduce_sum(tf.convert_to_tensor(gradient)) for gradient in gradients])

    return lambda: call().numpy()


def train_step(
    batch_size: int,
    time_steps: int,
    vocab_size: int,
    *,
    units: int = UNITS,
    pooling: str = "last",
    shards: int = 1,
) -> Call:
    """The trainer's whole step, on a batch of that shape."""
    own = {"batch_size": batch_size, "lstm_units": units, "pooling": pooling, "shards": shards}
    config, replicas = Config(**TUTORIAL | own), Replicas()
    state = build.make_state(config, vocab_size, NEGATIVE_POSITIVE, TEXTS, replicas, longest=time_steps)
    step = steps.make_train_step(state, replicas, batch_size=batch_size)
    batch = Example(batch_size, time_steps, vocab_size, units).batch()
    return lambda: step((batch,), 0.0).numpy()
