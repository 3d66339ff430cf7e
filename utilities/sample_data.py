"""Write generated digits in the official file formats of MNIST, CIFAR-10 and SVHN.

    python -m utilities.sample_data DIR [--seed 0]

DIR then serves as PYLEARN2_DATA_PATH with --sample, where the real data cannot be had:

    DIR/mnist/                        grey, 28 x 28: 2,000 train, 500 valid, 500 test
    DIR/cifar10/cifar-10-batches-py/  coloured, 32 x 32: 900 train, 100 valid, 200 test
    DIR/SVHN/format2/                 coloured, 32 x 32: 600 train, 600 extra (10 and 5
                                      per class of them are valid), 200 test

Each folder has a manifest.json with the MD5 sums and split sizes. Same seed, same
content. A folder that is not empty is never written into. The digits are strokes under
a random affine map and warp, with random thickness, blur and noise: errors on them say
that a program works, nothing about the published results. (docs/published_program.md,
"Data")
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import terminal
from datasets.sample import ensure_sample
from errors import printable_path
from terminal import Parser


@terminal.program("sample_data")
def main(arguments: list[str]) -> int:
    parser = Parser("python -m utilities.sample_data", __doc__)
    parser.add_argument(
        "dir",
        metavar="DIR",
        type=terminal.folder,
        help="the data folder to make or to complete",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed draws other digits (default 0)"
    )
    options = parser.parse_args(arguments)
    ensure_sample(options.dir, seed=options.seed)
    print(f"the generated sample of mnist, cifar10 and SVHN is in {printable_path(options.dir)}")
    return 0


if __name__ == "__main__":
    terminal.run(main)
