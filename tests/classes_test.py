"""Labels, decisions, probabilities and losses agree with each other."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import classes

LOGITS = np.array([-3.0, -0.25, 0.0, 0.25, 40.0], np.float32)


@pytest.mark.parametrize(
    ("label", "number"),
    [("neg", 0), (" Positive ", 1), (0, 0), (1, 1), (True, 1), ("0.0", 0), ("maybe", None)],
)
def test_a_label_is_parsed_to_its_class_or_none(label, number):
    assert classes.class_of(label) == number


@pytest.mark.parametrize("label", [0, 1])
def test_both_losses_are_the_cross_entropy_of_the_probability(label):
    labels = np.full(LOGITS.shape, label)
    label_probabilities = np.array(classes.probabilities(LOGITS if label else -LOGITS))
    losses = classes.losses(tf.constant(LOGITS), tf.constant(labels, tf.float32)).numpy()
    np.testing.assert_allclose(losses, -np.log(label_probabilities), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(classes.exact_losses(LOGITS, labels), losses, rtol=1e-5, atol=1e-7)


def test_decision_name_and_correctness_agree():
    decisions = classes.decide(LOGITS)
    assert decisions.tolist() == [0, 0, 0, 1, 1]
    names = [classes.name_of(probability) for probability in classes.probabilities(LOGITS)]
    assert names == [classes.NAMES[number] for number in decisions]
    correct = classes.is_correct(tf.constant(LOGITS), tf.constant(decisions, tf.float32))
    assert correct.numpy().tolist() == [1.0] * len(LOGITS)


def test_an_exported_model_gives_the_same_decisions_and_probabilities():
    outputs = classes.serving_outputs(tf.constant(LOGITS[:, None]))
    assert outputs["label"].numpy().tolist() == classes.decide(LOGITS).tolist()
    np.testing.assert_allclose(outputs["probability"], classes.probabilities(LOGITS), rtol=1e-6)
    assert outputs["logit"].numpy().tolist() == LOGITS.tolist()


def test_keras_loss_and_accuracy_equal_ours():
    labels = np.array([0, 1, 0, 1, 1])
    loss = classes.keras_loss()(labels[:, None], LOGITS[:, None])
    assert float(loss) == pytest.approx(float(np.mean(classes.exact_losses(LOGITS, labels))), rel=1e-6)
    (metric,) = classes.keras_metrics()
    metric.update_state(labels[:, None], LOGITS[:, None])
    assert float(metric.result()) == pytest.approx(np.mean(classes.decide(LOGITS) == labels))
