"""What the gates of an LSTM get from a token, computed once per token of a batch, not once per position."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.model import products


def renumbered(token_ids: tf.Tensor, vocab_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The ids as positions in the list of the batch's distinct tokens, and that list.

    The list is padded to one of a few sizes (`products.padded_sizes`), since XLA compiles for each size.
    """
    distinct, positions = tf.unique(tf.reshape(token_ids, [-1]))
    sizes = tf.constant(products.padded_sizes(vocab_size))
    size = tf.reduce_min(tf.boolean_mask(sizes, sizes >= tf.size(distinct)))
    return tf.reshape(positions, tf.shape(token_ids)), tf.pad(distinct, [[0, size - tf.size(distinct)]])


def halves(units: int) -> np.ndarray:
    """Of the gates that are sigmoids, by which their tanh is taken of half; float32 [4 * units]."""
    return np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), units)


def tables(
    embeddings: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    biases: Sequence[tf.Tensor],
    *,
    embeddings_first: bool = False,
) -> Sequence[tf.Tensor]:
    """The inputs of the gates for each token, halved where `halves` says so.

    Args:
      embeddings: float32 [tokens, embedding_dim].
      kernels: of each direction, float32 [embedding_dim, 4 * units].
      biases: of each direction, float32 [4 * units].
      embeddings_first: whether the gradients of kernels and biases are computed one by one after that of the
        embeddings, which takes longest to apply, so that it can be applied meanwhile.

    Returns:
      For each direction float32 [tokens, 4 * units].
    """
    ways = len(kernels)

    @tf.custom_gradient
    def of_weights(
        embeddings: tf.Tensor, *weights: tf.Tensor
    ) -> tuple[Sequence[tf.Tensor], Callable[..., Any]]:
        half = halves(weights[0].shape[1] // 4)
        # Halving is exact, so that it may come before the product, where there is less to halve.
        kernels, biases = (
            [weight * half for weight in of_ways] for of_ways in (weights[:ways], weights[ways:])
        )

        def gradients(*d_tables: tf.Tensor) -> Sequence[tf.Tensor]:
            pairs = zip(d_tables, kernels, strict=True)
            d_embeddings = tf.add_n([tf.matmul(d, kernel, transpose_b=True) for d, kernel in pairs])
            d_kernels, d_biases, before = [], [], [d_embeddings]
            for d_table in d_tables:
                with tf.control_dependencies(before if embeddings_first else []):
                    d_kernels.append(tf.matmul(embeddings, d_table, transpose_a=True))
                with tf.control_dependencies(d_kernels if embeddings_first else []):
                    d_biases.append(tf.reduce_sum(d_table, axis=0))
                before = d_biases
            return d_embeddings, *(gradient * half for gradient in (*d_kernels, *d_biases))

        return [embeddings @ kernel + bias for kernel, bias in zip(kernels, biases, strict=True)], gradients

    # Tensors, since a custom gradient takes a distributed variable for one that the function itself reads.
    return of_weights(embeddings, *map(tf.convert_to_tensor, (*kernels, *biases)))
