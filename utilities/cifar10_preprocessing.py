"""Preprocess CIFAR-10 as the paper had it: global contrast normalisation, then ZCA whitening (SPEC section 12).

    python -m utilities.cifar10_preprocessing [--data DIR] [--sample]

main.py does the same on first use. The official pickles are read from DIR/cifar10/cifar-10-batches-py, or come out of
DIR/cifar10/cifar-10-python.tar.gz, which is downloaded if need be. The result, 740 MB, is kept in
DIR/cifar10/preprocessed-KEY/{train,test}.npy; it takes about a minute and 2 GB of memory.
"""

import argparse
import os
import sys
from pathlib import Path

from datasets import DataError, load_cifar10
from main import folder
from utilities.sample_data import ensure_sample


class Parser(argparse.ArgumentParser):
    """Without the usage: one line, status 2."""

    def error(self, message):
        self.exit(2, f"{self.prog.rpartition('.')[2]}: {' '.join(str(message).splitlines())}\n")


def parser(name, description):
    """A Parser with the options that both preprocessing programs have."""
    result = Parser(
        prog=f"python -m utilities.{name}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--data",
        type=folder,
        metavar="DIR",
        help="folder of the data sets (default: $PYLEARN2_DATA_PATH, else data/)",
    )
    result.add_argument(
        "--sample",
        action="store_true",
        help="take the small generated sample, made on first use (default folder data/sample)",
    )
    return result


def data_folder(options, name):
    """The data folder that the options and the environment name; with --sample, the sample `name` is in it then."""
    if not options.sample:
        return options.data or Path(os.environ.get("PYLEARN2_DATA_PATH") or "data")
    data = options.data or Path("data/sample")
    try:
        ensure_sample(data, [name])
    except (ValueError, OSError) as error:
        raise DataError(f"no sample: {error}") from error
    return data


def main(arguments=None):
    command = parser("cifar10_preprocessing", __doc__)
    options = command.parse_args(arguments)
    try:
        where = data_folder(options, "cifar10")
        data = load_cifar10(where, options.sample)
    except DataError as error:
        command.error(error)
    except KeyboardInterrupt:
        command.exit(130, "cifar10_preprocessing: interrupted; the same command starts again\n")
    sizes = ", ".join(f"{len(getattr(data, part)):,} {part}" for part in ("train", "valid", "test"))
    print(f"{data.name} is preprocessed in {where / 'cifar10'}: {sizes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
