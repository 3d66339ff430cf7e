"""Pictures."""

import numpy as np
import pytest

from utilities import figures, pictures


def test_filters_are_tiled_in_order_and_scaled():
    W = np.zeros((3, 3, 2, 2), "float32")
    W[0, 0] = 2.0  # all red, at its own maximum
    W[1, 2, 0, 0] = -0.5
    picture = pictures.tile(W)
    assert picture.shape == (5, 5, 3)
    assert (picture[:2, :2] == [1.0, 0.5, 0.5]).all()
    assert (picture[0, 3] == [0.5, 0.5, 0.0]).all() and (picture[1, 4] == 0.5).all()
    assert (picture[3:5, :2] == 0.5).all() and (picture[2] == 1.0).all()
    assert pictures.tile(np.ones((784, 4), "float32")).shape == (57, 57, 3)


def test_curves_of_a_run(sample, tmp_path):
    import main

    run = tmp_path / "run"
    assert (
        main.main(
            [
                "PI_MNIST",
                "FLP",
                "--data",
                str(sample),
                "--sample",
                "--stop-after",
                "1",
                "--out",
                str(run),
            ]
        )
        == 0
    )
    assert figures.main(["curves", str(run), "-o", str(tmp_path / "deep" / "curves.png")]) == 0
    assert (tmp_path / "deep" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert figures.main(["filters", str(run), "-o", str(tmp_path / "filters.png")]) == 0
    assert (tmp_path / "filters.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["curves", "filters"])
def test_a_folder_without_a_run_gives_one_line(kind, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        figures.main([kind, str(tmp_path / "nothing"), "-o", str(tmp_path / "x.png")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
