"""The command line, as a user meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import pytest
from conftest import OFTEN, ROOT, assert_same_run
from hypothesis import given, settings
from hypothesis import strategies as st

import main
from files import load_npz
from settings import FORMAT_ARGUMENTS, NUMBERS, Settings
from tasks import TASKS

GOOD = {
    "PI_MNIST FLP": {},
    "SVHN FXP 5 19 19": {"initial_range": 5, "prop_bits": 19, "up_bits": 19},
    "MNIST FXP -3 1 31": {"initial_range": -3, "prop_bits": 1, "up_bits": 31},
    "CIFAR10 DFXP 5 9 11 100 0.0001 2": {
        "initial_range": 5,
        "prop_bits": 9,
        "up_bits": 11,
        "range_update_frequency": 100,
        "max_overflow": 0.0001,
        "init_epochs": 2,
    },
    "PI_MNIST DFXP 5 9 11 1 1e-4 0 --epochs 7 --seed 3": {
        "initial_range": 5,
        "prop_bits": 9,
        "up_bits": 11,
        "range_update_frequency": 1,
        "max_overflow": 0.0001,
        "init_epochs": 0,
        "epochs": 7,
        "seed": 3,
    },
    "--streams published PI_MNIST --seed 0 HFLP": {"streams": "published", "seed": 0},
    "PI_MNIST FXPR 5 9 11": {"initial_range": 5, "prop_bits": 9, "up_bits": 11},
    "PI_MNIST E4M3S 3 - - 10 0.01 0": {
        "initial_range": 3,
        "range_update_frequency": 10,
        "max_overflow": 0.01,
    },
    "PI_MNIST BF16": {},
}
BAD = [
    "",
    "PI_MNIST",
    "PI_MNIST FOO",
    "FOO FLP",
    "pi_mnist FLP",
    "PI_MNIST FXP",
    "PI_MNIST FXP 5 9",
    "PI_MNIST DFXP 5 9 11 100 0.0001",
    "PI_MNIST DFXP 5 9 11 100 0.0001 2 9",
    "PI_MNIST FXP 5 0 11",
    "PI_MNIST FXP 5 9 32",
    "PI_MNIST FXP 65 9 11",
    "PI_MNIST FXP -65 9 11",
    "PI_MNIST FXP 5.0 9 11",
    "PI_MNIST FXP 5 1_0 11",
    "PI_MNIST FXP 5 nine 11",
    "PI_MNIST DFXP 5 9 11 0 0.0001 2",
    "PI_MNIST DFXP 5 9 11 100 1.5 2",
    "PI_MNIST DFXP 5 9 11 100 -0.1 2",
    "PI_MNIST DFXP 5 9 11 100 nan 2",
    "PI_MNIST DFXP 5 9 11 100 inf 2",
    "PI_MNIST DFXP 5 9 11 100 0.1 -1",
    "PI_MNIST FXPR 5 9",
    "PI_MNIST DFXPR 5 9 11 100 1.5 2",
    "PI_MNIST E4M3S",
    "PI_MNIST E4M3S x 7 7 100 0.0001 2",
    "PI_MNIST FLP --out=",
    "PI_MNIST FLP --data=",
    "PI_MNIST FLP --epochs 0",
    "PI_MNIST FLP --epochs x",
    "PI_MNIST FLP --stop-after -1",
    "PI_MNIST FLP --seed 4294967296",
    "PI_MNIST FLP --device tpu",
    "PI_MNIST FLP --streams other",
    "PI_MNIST FLP --nonsense",
    "--resume --out x --seed 7",
    "--resume --out x --epochs 3",
    "--resume --out x --streams device",
    "PI_MNIST FLP --x\ny",
    "PI_MNIST FLP --data",
    "--resume",
    "--resume --out missing",
    "PI_MNIST FLP \N{EN DASH}sample",
    "PI_MNIST FLP \N{EM DASH}epochs 2",
    "PI_MNIST FXP \N{MINUS SIGN}5 9 11",
    "PI_MNIST FLP --resume --out missing",
    f"PI_MNIST FXP {'9' * 5000} 9 11",
]


@pytest.mark.parametrize("line", GOOD)
def test_arguments_become_settings(line, capsys):
    a = main.parse(line.split())
    expected = {
        "task": a.TASK,
        "format": a.FORMAT,
        "epochs": None,
        "seed": 1234,
        "streams": "device",
    } | GOOD[line]
    assert a.settings == Settings(**expected)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("line", BAD)
def test_bad_arguments_give_one_line_and_status_2(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main.main(line.split(" ") if line else [])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert status == 2 and out == ""
    assert err.startswith("main.py: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_does_not_need_is_ignored_aloud(capsys):
    a = main.parse("PI_MNIST FXP 5 9 11 100 0.0001 2".split())
    assert a.settings.init_epochs == 0
    assert capsys.readouterr().err == "main.py: FXP ignores 100 0.0001 2\n"
    assert main.parse("PI_MNIST FLP whatever".split()).settings.format == "FLP"
    capsys.readouterr()
    a = main.parse("PI_MNIST E4M3S 5 9 x 100 0.0001 2".split())
    assert (a.settings.prop_bits, a.settings.up_bits, a.settings.init_epochs) == (31, 31, 2)
    assert capsys.readouterr().err == "main.py: E4M3S ignores 9 x\n"
    main.parse("PI_MNIST BF16 5 9".split())
    assert capsys.readouterr().err == "main.py: BF16 ignores 5 9\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("FXPR 5 9", "FXPR needs UP_BITS as well"),
        ("DFXPR 5 9 11 100", "DFXPR needs MAX_OVERFLOW INIT_EPOCHS as well"),
        (
            "E4M3S 5 100 0.0001 2",
            "E4M3S needs MAX_OVERFLOW INIT_EPOCHS as well, such as E4M3S 5 - ",
        ),
        (
            "E5M2S 5 - - 100 7 2",
            "MAX_OVERFLOW: '7' is not a rate from 0 to 1, such as E5M2S 5 - - 1",
        ),
        ("E5M2S x", "E5M2S needs RANGE_UPDATE_FREQ MAX_OVERFLOW INIT_EPOCHS as well, such as "),
        ("E5M2S x - - - - -", "such as E5M2S 5 - - 100 0.0001 2; it ignores PROP_BITS UP_BITS"),
        ("FP8 5", "FORMAT 'FP8' is none of FLP, HFLP, FXP, DFXP, FXPR, "),
    ],
)
def test_errors_say_what_a_format_needs(line, said, capsys):
    with pytest.raises(SystemExit):
        main.parse(["PI_MNIST", *line.split()])
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize("number_format", FORMAT_ARGUMENTS)
def test_the_command_of_a_run_is_its_settings(number_format):
    own = Settings.published("PI_MNIST", number_format, epochs=3, seed=7)
    words = own.command()[1:]
    assert main.parse(words).settings == own
    assert own.words()[2:-2] == [word for word in words[2:-4] if word != "-"]
    assert Settings(**own.as_json()) == own


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "PI_MNIST",
                    "FLP",
                    "DFXP",
                    "FXP",
                    "5",
                    "9",
                    "0.1",
                    "-1",
                    "--seed",
                    "--epochs",
                    "--out",
                    "--resume",
                    "--",
                    "-",
                    "=",
                    "--epochs=3",
                ]
            ),
            st.text(max_size=6),
        ),
        max_size=10,
    )
)
def test_no_command_line_breaks_the_parser(arguments):
    if {"-h", "--help"} & set(arguments):
        return
    try:
        a = main.parse(arguments)
    except SystemExit as stop:
        assert stop.code == 2
    else:
        assert a.settings is None or a.settings.task in TASKS


def test_help_and_errors_come_before_the_heavy_imports():
    code = (
        "import sys, main\ntry:\n main.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(sorted({'jax', 'pytensor', 'scipy'} & set(sys.modules)))"
    )
    for arguments in (["-h"], ["PI_MNIST", "FOO"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.strip().endswith("[]"), done.stderr
    help_text = subprocess.run(
        [sys.executable, "main.py", "-h"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert help_text.returncode == 0
    for example in (
        "PI_MNIST FLP",
        "SVHN FXP 5 19 19",
        "CIFAR10 DFXP 5 9 11 100 0.0001 2",
        *(number.argument for number in NUMBERS),
    ):
        assert example in help_text.stdout


@pytest.mark.parametrize("line", ["FLP", "HFLP", "FXP 5 19 19", "DFXP 5 9 11 10 0.0001 1"])
def test_a_run_of_each_format(line, sample, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["PI_MNIST", *line.split(), "--data", str(sample), "--sample", "--stop-after", "2"]
    assert main.main(arguments) == 0
    out = capsys.readouterr().out
    folder = next((tmp_path / "runs").iterdir())
    records = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == [0, 1, 2]
    lines = [text for text in out.splitlines() if text.startswith("epoch ")]
    assert [text[:8] for text in lines] == ["epoch 0:", "epoch 1:", "epoch 2:"]
    form = (
        r"epoch 2: validation .* %, test .* %, best .* % in \d; LR 0.04989, M .*; .* s, .* images/s"
    )
    assert re.fullmatch(form, lines[2]) and folder.name in out.splitlines()[-1]
    assert ("layer 2 ranges: z" in out) == line.startswith("DFXP")
    assert 0 <= records[-1]["test_error"] <= 100 and records[0]["validation_error"] > 80
    config = json.loads((folder / "config.json").read_text())
    assert (
        config["command"] == ["main.py", *arguments]
        and config["settings"]["format"] == line.split()[0]
    )
    assert config["device"].startswith("cpu") or config["device"].startswith("gpu")
    assert (
        set(config["versions"]) >= {"python", "jax", "pytensor", "numpy"}
        and "git_revision" in config
    )
    final = load_npz(folder / "final.npz")
    assert final["layer0/W"].shape == (784, 1200) and final["layer2/b"].shape == (10,)
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "best.npz",
        "final.npz",
        "checkpoint.npz",
        "checkpoint.previous.npz",
        ".lock",
    }
    # The same command again prints the result; another stop goes on.
    before = (folder / "metrics.jsonl").read_bytes()
    assert main.main(arguments) == 0
    assert capsys.readouterr().out == out.splitlines(keepends=True)[-1]
    assert (folder / "metrics.jsonl").read_bytes() == before
    if line == "FLP":
        assert (
            main.main(
                [
                    "--resume",
                    "--out",
                    str(folder),
                    "--data",
                    str(sample),
                    "--sample",
                    "--stop-after",
                    "3",
                ]
            )
            == 0
        )
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


def test_stopping_and_going_on_changes_nothing(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = [
        "PI_MNIST",
        "DFXP",
        "5",
        "9",
        "11",
        "10",
        "0.0001",
        "1",
        "--data",
        str(sample),
        "--sample",
        "--streams",
        "published",
    ]
    assert main.main([*common, "--out", "once", "--stop-after", "3"]) == 0
    for stop in ("1", "3"):
        assert main.main([*common, "--out", "twice", "--stop-after", stop]) == 0
    assert_same_run(tmp_path / "once", tmp_path / "twice")


def test_whatever_happens_to_the_records_of_a_run_they_come_back(sample, tmp_path, capsys):
    run = tmp_path / "run"
    line = [
        "PI_MNIST",
        "FLP",
        "--data",
        str(sample),
        "--sample",
        "--out",
        str(run),
        "--stop-after",
        "1",
    ]
    assert main.main(line) == 0
    result = capsys.readouterr().out.splitlines()[-1]
    whole = (run / "metrics.jsonl").read_bytes()

    def damage_and_repeat(damage):
        damage()
        assert main.main(line) == 0
        assert capsys.readouterr().out.splitlines() == [result]
        assert (run / "metrics.jsonl").read_bytes() == whole and (run / "final.npz").exists()

    damage_and_repeat(lambda: (run / "metrics.jsonl").write_bytes(whole[:-40]))
    damage_and_repeat((run / "final.npz").unlink)
    for name in ("checkpoint.npz", "checkpoint.previous.npz"):
        (run / name).write_bytes((run / "final.npz").read_bytes())
    (run / "metrics.jsonl").unlink()
    assert main.main(line) == 2
    assert "checkpoint.npz is damaged" in capsys.readouterr().err


def test_untrained_networks_are_a_run_too(sample, tmp_path, capsys):
    line = [
        "PI_MNIST",
        "FLP",
        "--data",
        str(sample),
        "--sample",
        "--out",
        str(tmp_path / "run"),
        "--stop-after",
        "0",
    ]
    results = []
    for _ in range(2):
        assert main.main(line) == 0
        results.append(capsys.readouterr().out.splitlines()[-1])
    assert results[0] == results[1] and "trained 0 of 800 epochs" in results[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGXCPU])
def test_a_signal_ends_the_run_with_one_line(number, sample, tmp_path):
    victim = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "main.py"),
            "PI_MNIST",
            "FLP",
            "--data",
            str(sample),
            "--sample",
            "--out",
            str(tmp_path / "run"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    victim.stdout.readline()
    victim.send_signal(number)
    _, err = victim.communicate(timeout=120)
    assert victim.returncode == 128 + number
    where = r"after (epoch 0|\d+ of \d+ batches of epoch 1)"
    assert re.fullmatch(rf"main.py: interrupted; the same command resumes {where}\n", err)
    assert (tmp_path / "run" / "checkpoint.npz").exists()


@pytest.mark.parametrize("out", [f"{__file__}/run", "/proc/nothing/run", "x" * 300])
def test_an_impossible_run_folder_is_named(out, sample, capsys):
    assert main.main(["PI_MNIST", "FLP", "--data", str(sample), "--sample", "--out", out]) == 2
    err = capsys.readouterr().err
    assert "cannot be a run folder" in err and err.count("\n") == 1


def test_a_device_that_is_not_there_is_named(sample, tmp_path, program):
    done = program(
        "PI_MNIST",
        "FLP",
        "--data",
        sample,
        "--sample",
        "--device",
        "gpu",
        "--out",
        "run",
        cwd=tmp_path,
    )
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--device cpu" in done.stderr
    assert not (tmp_path / "run").exists()


def test_compiled_programs_are_kept(sample, tmp_path, program, monkeypatch):
    """Where $XDG_CACHE_HOME says; a damaged one, or a folder that cannot be, is
    nobody's trouble.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    line = ["PI_MNIST", "FLP", "--data", sample, "--sample", "--stop-after", "1", "--out"]
    assert program(*line, "first", cwd=tmp_path).stderr == ""
    # Only what always takes long to compile: the small programs are kept or not, as the
    # machine is busy.
    name = "program-*" if jax.default_backend() == "cpu" else "jit_*run-*"
    kept = [
        p
        for p in tmp_path.glob(f"cache/deep-learning-storage/programs-*/{name}")
        if p.stat().st_size > 1000
    ]
    assert kept
    assert program(*line, "again", cwd=tmp_path).stderr == ""
    whole = {path: path.stat().st_size for path in kept}
    for path in kept:
        path.write_bytes(path.read_bytes()[:500])
    (tmp_path / "file").touch()
    damaged = program(*line, "damaged", cwd=tmp_path)
    assert (damaged.returncode, damaged.stderr) == (0, "")
    assert all(path.stat().st_size > 0.9 * size for path, size in whole.items())  # made again
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    nowhere = program(*line, "nowhere", cwd=tmp_path)
    for run, name in ((damaged, "damaged"), (nowhere, "nowhere")):
        assert (run.returncode, run.stderr) == (0, "")
        assert_same_run(tmp_path / "first", tmp_path / name)
    assert_same_run(tmp_path / "first", tmp_path / "again")


def test_ranges_that_cannot_move_are_mentioned(sample, tmp_path, capsys):
    line = "PI_MNIST DFXP 5 9 11 100 0.0001 0 --sample --stop-after 0".split()
    assert main.main([*line, "--data", str(sample), "--out", str(tmp_path / "run")]) == 0
    assert "RANGE_UPDATE_FREQ 100 the ranges never move" in capsys.readouterr().err


def test_killed_in_the_middle(sample, tmp_path, program):
    line = [
        "PI_MNIST",
        "DFXP",
        "5",
        "9",
        "11",
        "10",
        "0.0001",
        "1",
        "--data",
        sample,
        "--sample",
        "--stop-after",
        "8",
    ]
    undisturbed = program(*line, "--out", "undisturbed", cwd=tmp_path)
    assert undisturbed.returncode == 0 and undisturbed.stderr == ""
    victim = subprocess.Popen(
        [sys.executable, "-c", OFTEN, *map(str, line), "--out", tmp_path / "killed"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    metrics, deadline = tmp_path / "killed" / "metrics.jsonl", time.monotonic() + 120
    while (
        not (metrics.exists() and metrics.read_text().count("\n") >= 3)
        and time.monotonic() < deadline
    ):
        time.sleep(0.002)
    victim.send_signal(signal.SIGSTOP)
    second = program(*line, "--out", "killed", cwd=tmp_path)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, "it was not to be finished yet"
    assert second.returncode == 2 and "in use by another process" in second.stderr
    assert not (tmp_path / "killed" / "final.npz").exists()
    assert program(*line, "--out", "killed", cwd=tmp_path).returncode == 0
    assert_same_run(tmp_path / "undisturbed", tmp_path / "killed")


def test_a_folder_of_another_run_is_refused_with_the_difference(sample, tmp_path, capsys):
    common = [
        "--data",
        str(sample),
        "--sample",
        "--stop-after",
        "0",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main.main(["PI_MNIST", "FXP", "5", "19", "19", *common]) == 0
    capsys.readouterr()
    assert main.main(["PI_MNIST", "FXP", "5", "9", "19", *common]) == 2
    err = capsys.readouterr().err
    assert "prop_bits 19 there, 9 here" in err and err.count("\n") == 1


def test_a_number_that_was_not_given_is_called_so(sample, tmp_path, capsys):
    line = ["PI_MNIST", "FLP", "--data", str(sample), "--sample", "--out", str(tmp_path / "run")]
    assert main.main([*line, "--stop-after", "0"]) == 0
    assert "trained 0 of 800 epochs on the generated sample;" in capsys.readouterr().out
    assert main.main([*line, "--epochs", "3"]) == 2
    assert "epochs not given there, 3 here" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert main.main(["PI_MNIST", "FLP", "--out", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_missing_data_starts_nothing(tmp_path, program):
    done = program("PI_MNIST", "FLP", "--sample", "--data", __file__, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_weights_that_become_infinite_stop_the_run(sample, tmp_path, monkeypatch, capsys):
    import dataclasses

    broken = dataclasses.replace(TASKS["PI_MNIST"], LR_start=1e39)
    monkeypatch.setitem(TASKS, "PI_MNIST", broken)
    monkeypatch.chdir(tmp_path)
    assert main.main(["PI_MNIST", "FLP", "--data", str(sample), "--sample"]) == 1
    err = capsys.readouterr().err
    assert "epoch 1, layer" in err and "NaN or infinite" in err and err.count("\n") == 1
    assert (
        len((tmp_path / "runs" / "PI_MNIST_FLP_sample" / "metrics.jsonl").read_text().splitlines())
        == 1
    )


def test_no_progress_bar_in_a_pipe(sample, tmp_path, program):
    done = program(
        "PI_MNIST", "FLP", "--data", sample, "--sample", "--stop-after", "1", cwd=tmp_path
    )
    assert done.returncode == 0 and done.stderr == ""
