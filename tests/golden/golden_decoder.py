#!/usr/bin/env python3
"""A second decoder of tile records, written from docs/format/tile_record.md alone; standard library only.

golden_decoder.py GOLDEN_DIRECTORY [PAGE]   checks checksums, decodes every record of the manifest and compares digests;
                                            with PAGE, also that the page's worked example is the golden record
golden_decoder.py --show RECORD AXIS TOKENS DIM BITS [VERSION]   prints the decoded rows
"""

import hashlib
import pathlib
import re
import struct
import sys

PLANES = {8: (8, 0), 6: (4, 2), 5: (4, 1), 4: (4, 0), 3: (2, 1), 2: (2, 0)}
LARGEST_HALF = 65504.0
EXAMPLE = "k_t16_d16_b3_scaled_steps.record"


def single(value):
    """The nearest single. Exact for one sum or product of singles: a double holds the product and, by its 53 >= 2 * 24 + 2
    bits, rounding the sum twice gives the same as rounding it once."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def plane_bytes(rows, bits):
    rows_per_chunk = 32 // bits if bits else 1
    return 64 * -(-rows // rows_per_chunk) if bits else 0


def plane_value(plane, bits, row, lane):
    if bits == 0:
        return 0
    rows_per_chunk = 32 // bits
    chunk, in_chunk = divmod(row, rows_per_chunk)
    byte = plane[64 * chunk + 4 * (lane % 16) + in_chunk % 4]
    return byte >> (in_chunk // 4 * bits) & ((1 << bits) - 1)


def byte_scale(byte, fraction_bits, least_exponent):
    exponent, fraction = divmod(byte, 1 << fraction_bits)
    return 2.0 ** (least_exponent + exponent) * (1 + fraction / (1 << fraction_bits))


def middle_steps(byte, bits):
    """How many steps the middle code lies from zero."""
    distance = byte_scale(byte % 128, 4, 0) - 1
    return (distance if byte < 128 else -distance) * 2.0 ** (max(bits, 4) - 8)


def fields(record, rows, lanes, bits, version):
    """Row scales, row zeros, lane scales, and the bytes they take."""
    if version == 1:
        halves = struct.unpack_from(f"<{2 * rows + lanes}e", record)
        return halves[:rows], halves[rows : 2 * rows], halves[2 * rows :], 4 * rows + 2 * lanes
    scales = [byte_scale(byte, 5, -2 - bits) for byte in record[:rows]]
    zeros = [scale * (middle_steps(middle, bits) - (2**bits - 1) / 2) for scale, middle in zip(scales, record[rows : 2 * rows])]
    return scales, zeros, [byte_scale(byte, 3, -16) for byte in record[2 * rows : 2 * rows + lanes]], 2 * rows + lanes


def decode_tile(record, rows, lanes, bits, version=1):
    """The rotated values, one list per row."""
    first_bits, second_bits = PLANES[bits]
    first_bytes, second_bytes = plane_bytes(rows, first_bits), plane_bytes(rows, second_bits)
    size = (4 * rows + 2 * lanes) // version + (first_bytes + second_bytes) * (lanes // 16)
    if len(record) != size:
        raise ValueError(f"{len(record)} bytes, not {size}")
    row_scale, row_zero, lane_scale, codes = fields(record, rows, lanes, bits, version)
    tile = [[0.0] * lanes for _ in range(rows)]
    for lane in range(lanes):
        begin = codes + lane // 16 * (first_bytes + second_bytes)
        first = record[begin : begin + first_bytes]
        second = record[begin + first_bytes : begin + first_bytes + second_bytes]
        for row in range(rows):
            high = plane_value(first, first_bits, row, lane)
            code = high << second_bits | plane_value(second, second_bits, row, lane)
            value = single(single(code * row_scale[row]) + row_zero[row])
            tile[row][lane] = single(value * lane_scale[lane])
    return tile


def rotate_block(block):
    size = len(block)
    half = 1
    while half < size:
        for i in range(size):
            if i & half == 0:
                a, b = block[i], block[i + half]
                block[i], block[i + half] = single(a + b), single(a - b)
        half *= 2
    norm = single(1.0 / size**0.5)
    return [single(value * norm) for value in block]


def rotate(channels):
    result = []
    while len(result) < len(channels):
        rest = len(channels) - len(result)
        size = 1 << (rest.bit_length() - 1)
        result += rotate_block(channels[len(result) : len(result) + size])
    return result


def half(value):
    return struct.pack("<e", max(-LARGEST_HALF, min(LARGEST_HALF, value)))


def decode_rows(record, axis, tokens, dim, bits, version=1):
    """The tokens' rows, rotated back and rounded to half: bytes, [tokens, dim]."""
    if axis == "k":
        tile = decode_tile(record, dim, tokens, bits, version)
        rows = [[tile[channel][token] for channel in range(dim)] for token in range(tokens)]
    else:
        rows = decode_tile(record, tokens, dim, bits, version)
    return b"".join(half(value) for row in rows for value in rotate(row))


def check_sums(directory):
    """Names of the files of SHA256SUMS whose bytes are not what it says."""
    wrong = []
    for line in (directory / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        if hashlib.sha256((directory / name).read_bytes()).hexdigest() != digest:
            wrong.append(f"{name}: checksum differs")
    return wrong


def check_records(directory):
    """How many records the manifest has, and which decode to other rows than it says."""
    lines = [line for line in (directory / "manifest.txt").read_text().splitlines() if not line.startswith("#")]
    wrong = []
    for line in lines:
        name, _, axis, tokens, dim, bits, _, version, digest = line.split()
        decoded = decode_rows((directory / name).read_bytes(), axis, int(tokens), int(dim), int(bits), int(version))
        if hashlib.sha256(decoded).hexdigest() != digest:
            wrong.append(f"{name}: decodes to other values")
    return len(lines), wrong


def check_page(directory, page):
    """The page's worked example: its hex dump and its decoded token."""
    text = page.read_text()
    record = (directory / EXAMPLE).read_bytes()
    dump = re.search(r"```hex\n(.*?)```", text, re.S).group(1)
    shown = bytes.fromhex("".join(line.split(":")[1] for line in dump.splitlines()))
    wrong = [] if shown == record else [f"{page.name}: the hex dump is not {EXAMPLE}"]
    values = re.search(r"decoded((?: +-?[0-9.]+)+)\n", text).group(1).split()
    token = struct.unpack("<16e", decode_rows(record, "k", 16, 16, 3)[3 * 32 : 4 * 32])
    if [float(value) for value in values] != list(token):
        wrong.append(f"{page.name}: the decoded token is not that of {EXAMPLE}")
    return wrong


def show(path, axis, tokens, dim, bits, version=1):
    tokens, dim = int(tokens), int(dim)
    decoded = decode_rows(pathlib.Path(path).read_bytes(), axis, tokens, dim, int(bits), int(version))
    for token in range(tokens):
        print(" ".join(f"{value:g}" for value in struct.unpack_from(f"<{dim}e", decoded, 2 * dim * token)))


def main(arguments):
    if arguments and arguments[0] == "--show" and len(arguments) in (6, 7):
        show(*arguments[1:])
        return 0
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    directory = pathlib.Path(arguments[0])
    count, wrong = check_records(directory)
    wrong += check_sums(directory)
    for page in arguments[1:]:
        wrong += check_page(directory, pathlib.Path(page))
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{count} records, {len(wrong)} wrong")
    return 1 if wrong or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
