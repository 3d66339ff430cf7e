"""Preprocess CIFAR-10 as the paper had it: global contrast normalisation, then ZCA.

    python -m utilities.cifar10_preprocessing [--data DIR] [--sample]

main.py does the same on first use. The official pickles are read from
DIR/cifar10/cifar-10-batches-py, or come out of DIR/cifar10/cifar-10-python.tar.gz,
which is downloaded if need be. The result, 740 MB, is kept in
DIR/cifar10/preprocessed-KEY/{train,test}.npy; it takes about a minute and 2 GB of
memory. (docs/published_program.md, "Data")
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from datasets import load
from errors import printable_path
from terminal import Parser, add_data_options, data_folder


@terminal.program("cifar10_preprocessing", kept="the same command starts again")
def main(arguments: list[str]) -> int:
    parser = Parser("python -m utilities.cifar10_preprocessing", __doc__)
    add_data_options(parser)
    options = parser.parse_args(arguments)
    folder = data_folder(options.data, options.sample)
    data = load("cifar10", folder, options.sample)
    sizes = ", ".join(f"{len(getattr(data, part)):,} {part}" for part in ("train", "valid", "test"))
    print(f"{data.name} is preprocessed in {printable_path(folder / 'cifar10')}: {sizes}")
    return 0


if __name__ == "__main__":
    terminal.run(main)
