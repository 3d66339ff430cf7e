"""Preprocess SVHN as the paper had it: split, global and local contrast normalisation, HDF5 (SPEC section 12).

    SVHN_LOCAL_PATH=LOCAL python -m utilities.svhn_preprocessing [--data DIR] [--lcn-channels first]
    python -m utilities.svhn_preprocessing --sample

From DIR/SVHN/format2/{train,test,extra}_32x32.mat, downloaded if missing, to three files that main.py reads,
LOCAL/h5/{splitted_train,valid,test}_32x32.h5: PyTables, group Data, X float32 (n, 3072) and y (n, 10), Blosc. Started
again after an interruption, it keeps the files that are finished; the outcome is the same, byte for byte.
"""

import os
import sys

from datasets import DataError
from main import folder
from preprocessing import preprocess_svhn
from utilities.cifar10_preprocessing import data_folder, parser


def main(arguments=None):
    command = parser("svhn_preprocessing", __doc__)
    command.add_argument(
        "--local",
        type=folder,
        metavar="LOCAL",
        help="where the HDF5 files go (default: $SVHN_LOCAL_PATH; with --sample: SVHN/ in the data "
        "folder, where main.py --sample looks)",
    )
    command.add_argument(
        "--lcn-channels",
        choices=("all", "first"),
        default="all",
        help="colour channels that are locally normalised: all (default), or the first alone, as "
        "pylearn2 did it by a bug",
    )
    options = command.parse_args(arguments)
    try:
        data = data_folder(options, "svhn")
        local = options.local or (
            data / "SVHN" if options.sample else os.environ.get("SVHN_LOCAL_PATH")
        )
        if not local:
            command.error(
                "SVHN_LOCAL_PATH is not set and --local not given: say where the HDF5 files, 8 GB, are to go"
            )
        preprocess_svhn(
            data,
            local,
            options.sample,
            options.lcn_channels,
            say=lambda line: print(line, flush=True),
        )
    except DataError as error:
        command.error(error)
    except KeyboardInterrupt:
        command.exit(
            130,
            "svhn_preprocessing: interrupted; the same command goes on with the unfinished files\n",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
