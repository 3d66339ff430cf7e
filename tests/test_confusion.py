"""Confusion matrices and mistakes, counted, ordered, printed and drawn."""

import numpy as np
import pytest

from utilities import confusion, mistakes, predictions
from utilities.evaluation_files import rendered


def test_the_confusion_matrix_counts_pairs():
    labels = np.array([0, 0, 2, 2, 2])
    predicted = np.array([0, 1, 2, 2, 0])
    matrix = confusion.confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]
    lines = confusion.table(matrix, ["airplane", "bird", "cat"]).splitlines()
    assert lines[0].split() == "class examples wrong error taken for 0 1 2".split()
    assert lines[1].split() == "0 airplane 2 1 50.00 % 1 1 .".split()
    assert lines[2].split() == "1 bird 0 0 - . . .".split()
    assert lines[3].split() == "2 cat 3 1 33.33 % 1 . 2".split()
    assert len({len(line) for line in lines}) == 1


def test_classes_have_the_names_of_their_data_set():
    assert confusion.class_names("svhn", True)[9] == "0"
    assert confusion.class_names("cifar10", False)[3] == "cat"
    assert confusion.class_names("cifar10", True)[3] == "3"


def test_the_most_confident_mistakes_come_first():
    outputs = np.zeros((5, 10), "float32")
    outputs[0, [1, 0]] = 0.5, 0.25
    outputs[1, [1, 0]] = 1.0, 0.5
    outputs[2, [1, 0]] = 1.0, 0.25
    outputs[3, 0] = 1.0  # right
    outputs[4, [1, 0]] = 1.0, 0.25
    found = predictions.Predictions(outputs, np.zeros(5, int), 80.0)
    assert found.mistakes.tolist() == [2, 4, 1, 0] and found.wrong == 4
    captions = mistakes.captions(found.mistakes[:1], found.labels, outputs, confusion.DIGITS)
    assert captions == ["0 → 1\n1.000  #2"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_picture_is_the_same_file(suffix):
    matrix = np.eye(10, dtype=int)
    one, other = (rendered(confusion.draw(matrix, confusion.DIGITS, ""), suffix) for _ in "ab")
    assert one == other


def test_a_network_without_mistakes_has_a_picture_too():
    figure = mistakes.draw(np.zeros((0, 28, 28, 1)), [], "test error 0.00 %")
    assert rendered(figure, ".png").startswith(b"\x89PNG")
    matrix = np.diag(np.arange(10))
    assert rendered(confusion.draw(matrix, confusion.DIGITS, ""), ".png").startswith(b"\x89PNG")
