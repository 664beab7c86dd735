"""The command kvarn-lmcache: bench and inspect are its own, everything else is LMCache's command line with the serde "kvarn" in it."""

import pathlib
import sys

USAGE = """usage: kvarn-lmcache server ...     LMCache's own command (and all others of lmcache), with the serde "kvarn" known to it:
                                    --l2-adapter '{"type": "fs", "base_path": "/data/kv",
                                                   "serde": {"type": "kvarn", "preset": "k4v4", "head_dim": 128}}'
       kvarn-lmcache bench [...]    for which links compressing pays on this machine (--help lists its options)
       kvarn-lmcache inspect FILE   what is in a stored chunk, and whether it is whole
"""


def main(arguments=None):
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "bench":
        from . import bench  # pylint: disable=import-outside-toplevel

        return bench.main(arguments[1:])
    if arguments[0] == "inspect":
        return inspect(arguments[1:])
    return run_lmcache(arguments)


def run_lmcache(arguments):
    """LMCache's main reads its own messages' language of exit codes: it exits, or returns."""
    try:
        from lmcache.cli.main import main as lmcache_main  # pylint: disable=import-outside-toplevel

        from . import serde  # registers it; pylint: disable=import-outside-toplevel,unused-import
    except ImportError as error:
        print(f"kvarn-lmcache: cannot import LMCache ({error}); pip install lmcache==0.5.6", file=sys.stderr)
        return 1
    lmcache_main(arguments)
    return 0


def inspect(arguments):
    from . import chunk_format  # pylint: disable=import-outside-toplevel
    from .chunk_codec import check_stored  # pylint: disable=import-outside-toplevel

    if len(arguments) != 1:
        print("usage: kvarn-lmcache inspect FILE", file=sys.stderr)
        return 2
    try:
        stored = pathlib.Path(arguments[0]).read_bytes()
        summary = check_stored(stored)
    except (OSError, chunk_format.Damaged) as error:
        print(f"kvarn-lmcache: {arguments[0]}: {error}", file=sys.stderr)
        return 1
    print(f"{summary.total_bytes} bytes, {summary.coding}, checksum right")
    for shape, dtype, records, size in chunk_format.read_groups(stored, summary):
        print(f"  {list(shape)} {dtype}: {'records' if records else 'as it was'}, {size} bytes")
    return 0
