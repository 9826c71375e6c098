"""Decisions, probabilities and losses agree with each other, for two classes and for more."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import classes
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE, Classes

TWO = np.array([-3.0, -0.25, 0.0, 0.25, 40.0], np.float32)
THREE = np.array([[2.0, 1.0, 0.0], [-1.0, 3.0, 2.9], [0.0, 0.0, 0.0], [-90.0, -90.0, 90.0]], np.float32)
NAMES = {"two": ("negative", "positive"), "three": ("bad", "fair", "good")}
BOTH = pytest.mark.parametrize("kind, logits", [("two", TWO), ("three", THREE)])


def of_each_class(kind, logits):
    """The probability of each class, [texts, classes]."""
    values = classes.probabilities(logits)
    return np.stack([1.0 - values, values], axis=1) if kind == "two" else values


@BOTH
@pytest.mark.parametrize("label", [0, 1])
def test_both_losses_are_the_cross_entropy_of_the_probability(kind, logits, label):
    labels = np.full(len(logits), label)
    losses = classes.losses(tf.constant(logits), tf.constant(labels, tf.float32)).numpy()
    np.testing.assert_allclose(classes.exact_losses(logits, labels), losses, rtol=1e-5, atol=1e-7)
    with np.errstate(divide="ignore"):
        expected = -np.log(of_each_class(kind, logits)[:, label])
    is_exact = expected < 30  # beyond it 1.0 - p has no digits left
    np.testing.assert_allclose(losses[is_exact], expected[is_exact], rtol=1e-5, atol=1e-7)


@BOTH
def test_the_probabilities_of_a_text_add_up_to_one(kind, logits):
    assert of_each_class(kind, logits).sum(axis=1) == pytest.approx(1.0)


@BOTH
def test_decision_name_and_correctness_agree(kind, logits):
    decisions = classes.decide(logits)
    assert decisions.tolist() == ([0, 0, 0, 1, 1] if kind == "two" else [0, 1, 0, 2])
    names = [prediction.label for prediction in classes.predictions(logits, NAMES[kind])]
    assert names == [NAMES[kind][number] for number in decisions]
    for labels in (decisions, np.zeros(len(decisions))):
        correct = classes.is_correct(tf.constant(logits), tf.constant(labels, tf.float32)).numpy()
        assert correct.dtype == np.float32
        assert correct.tolist() == (decisions == labels).tolist()


def test_of_two_classes_the_probability_of_the_second_is_predicted():
    low, *_, high = classes.predictions(TWO, NAMES["two"])
    assert low == ("negative", pytest.approx(0.0474, abs=1e-4), {})
    assert high == ("positive", pytest.approx(1.0), {})


def test_of_more_classes_the_probability_of_the_predicted_one_and_of_each_is_given():
    first = classes.predictions(THREE, NAMES["three"])[0]
    assert first.probabilities == pytest.approx({"bad": 0.6652, "fair": 0.2447, "good": 0.0900}, abs=1e-4)
    assert (first.label, first.probability) == ("bad", first.probabilities["bad"])


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (None, [0, 0, 0, 1, 1]),
        (0.5, [0, 0, 0, 1, 1]),
        (0.4, [0, 1, 1, 1, 1]),
        (0.6, [0, 0, 0, 0, 1]),
        (0.0, [1] * 5),
        (1.0, [0] * 5),
    ],
)
def test_the_second_class_is_predicted_above_the_threshold(threshold, expected):
    assert classes.decide(TWO, threshold).tolist() == expected
    names = [prediction.label for prediction in classes.predictions(TWO, NAMES["two"], threshold)]
    assert names == [NAMES["two"][number] for number in expected]


@BOTH
def test_the_confusion_counts_texts_of_weight_one_by_true_and_predicted_class(kind, logits):
    count, labels = len(NAMES[kind]), np.arange(len(logits)) % len(NAMES[kind])
    weights = np.ones(len(logits), np.float32)
    weights[1] = 0.0
    counted = classes.confusion(
        tf.constant(logits), tf.constant(labels, tf.float32), tf.constant(weights), count
    )
    expected = np.zeros((count, count))
    for at, (label, decision) in enumerate(zip(labels, classes.decide(logits), strict=True)):
        expected[label, decision] += at != 1
    assert counted.dtype == tf.float64
    assert counted.numpy().tolist() == expected.reshape(-1).tolist()


THREE_CLASSES = Classes(("a", "b,c", "d"), (("a",), ("b,c",), ("d",)))


def test_no_class_weights_are_none_and_balanced_ones_are_those_of_scikit_learn():
    assert classes.training_weights("", THREE_CLASSES, [1, 2, 3]) == ()
    assert classes.training_weights("balanced", THREE_CLASSES, [10, 20, 70]) == pytest.approx(
        (100 / 30, 100 / 60, 100 / 210)
    )


def test_class_weights_are_given_by_name_and_are_one_for_the_others():
    assert classes.training_weights("positive=2.5", NEGATIVE_POSITIVE, [1, 1]) == (1.0, 2.5)
    assert classes.training_weights("d=3; b,c=0.5", THREE_CLASSES, [1, 1, 1]) == (1.0, 0.5, 3.0)


@pytest.mark.parametrize(
    "given",
    ["spam=2", "positive", "positive=0", "positive=-1", "positive=nan", "positive=1,positive=2", "=1"],
)
def test_malformed_class_weights_are_refused_and_the_form_in_the_message_works(given):
    with pytest.raises(InputError, match="negative, positive") as caught:
        classes.training_weights(given, NEGATIVE_POSITIVE, [1, 1])
    example = str(caught.value).rpartition("--class_weights='")[2].removesuffix("'.")
    assert classes.training_weights(example, NEGATIVE_POSITIVE, [1, 1]) == (1.0, 2.5)


def test_each_text_has_the_weight_of_its_class():
    weights = classes.weights_of(tf.constant([2.0, 0.0, 2.0]), (1.0, 2.0, 3.0))
    assert weights.numpy().tolist() == [3.0, 1.0, 3.0]


@BOTH
def test_an_exported_model_gives_the_same_decisions_and_probabilities(kind, logits):
    served = tf.constant(logits[:, None] if kind == "two" else logits)
    outputs = {name: value.numpy() for name, value in classes.serving_outputs(served, NAMES[kind]).items()}
    logits_name, probability_name = {
        "two": ("logit", "probability"),
        "three": ("logits", "probabilities"),
    }[kind]
    assert set(outputs) == {logits_name, probability_name, "label", "class_name"}
    np.testing.assert_allclose(
        outputs[probability_name], classes.probabilities(logits), rtol=1e-6, atol=1e-30
    )
    assert outputs[logits_name].tolist() == logits.tolist()
    assert outputs["label"].tolist() == classes.decide(logits).tolist()
    assert outputs["label"].dtype == np.int32
    assert [name.decode() for name in outputs["class_name"]] == [
        prediction.label for prediction in classes.predictions(logits, NAMES[kind])
    ]


@BOTH
def test_keras_loss_and_accuracy_equal_ours(kind, logits):
    labels = np.arange(len(logits)) % 2
    given = logits[:, None] if kind == "two" else logits
    loss = classes.keras_loss(given.shape[1])(labels[:, None], given)
    assert float(loss) == pytest.approx(float(np.mean(classes.exact_losses(logits, labels))), rel=1e-6)
    (metric,) = classes.keras_metrics(given.shape[1])
    assert metric.name == "accuracy"
    metric.update_state(labels[:, None], given)
    assert float(metric.result()) == pytest.approx(np.mean(classes.decide(logits) == labels))
