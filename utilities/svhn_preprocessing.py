"""Preprocess SVHN as the paper had it: split, GCN, LCN, and three HDF5 files.

    SVHN_LOCAL_PATH=LOCAL python -m utilities.svhn_preprocessing [--data DIR]
                                                                 [--lcn-channels first]
    python -m utilities.svhn_preprocessing --sample

From DIR/SVHN/format2/{train,test,extra}_32x32.mat, downloaded if missing, to three
files that main.py reads, LOCAL/h5/{splitted_train,valid,test}_32x32.h5: PyTables, group
Data, X float32 (n, 3072) and y (n, 10), Blosc. Started again after an interruption, it
keeps the files that are finished; the outcome is the same, byte for byte.
(docs/published_program.md, "Data")
"""

import sys
from pathlib import Path

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import ending

    ending.watch()

import os

import terminal
from datasets import make_sample, svhn
from terminal import Parser, add_data_options, data_folder, expanded


def make_parser() -> Parser:
    parser = Parser("python -m utilities.svhn_preprocessing", __doc__)
    add_data_options(parser)
    parser.add_argument(
        "--local",
        type=terminal.folder,
        metavar="LOCAL",
        help="where the HDF5 files go (default: $SVHN_LOCAL_PATH; with --sample: SVHN/ in the data "
        "folder, where main.py --sample looks)",
    )
    parser.add_argument(
        "--lcn-channels",
        choices=("all", "first"),
        default="all",
        help="colour channels that are locally normalised: all (default), or the first alone, as "
        "pylearn2 did it by a bug",
    )
    return parser


@terminal.program("svhn_preprocessing", kept="the same command goes on with the unfinished files")
def main(arguments: list[str]) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    data = data_folder(options.data, options.sample)
    local = options.local or (
        data / "SVHN" if options.sample else os.environ.get("SVHN_LOCAL_PATH")
    )
    if not local:
        parser.error(
            "SVHN_LOCAL_PATH is not set and --local not given: say where the HDF5 files, 8 GB, are "
            "to go"
        )
    if options.sample:
        make_sample("svhn", data)
    svhn.preprocess(
        svhn.OFFICIAL.under(data, options.sample),
        expanded(str(local)),
        options.lcn_channels,
        say=lambda line: print(line, flush=True),
    )
    return 0


if __name__ == "__main__":
    terminal.run(main)
