#!/usr/bin/env python3
"""A second reader of session files, written from docs/format/session.md alone; standard library only.

session_reader.py FILE   checks everything, then prints parts, stores and tokens

Records are decoded by golden_decoder.py, the second decoder of tile records.
"""

import pathlib
import struct
import sys

import golden_decoder

MASK = (1 << 64) - 1
PRIMES32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
PRIMES64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
MIX1, MIX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)

RECORDS, ROWS, FINAL_ROWS, HISTORY, SHARED_HISTORY, SAMPLES = range(1, 7)
NONE = 0xFFFFFFFF


class Damaged(ValueError):
    """The bytes are no session, or not a whole one."""


def require(condition, what):
    if not condition:
        raise Damaged(what)


def u64(data, at):
    return int.from_bytes(data[at : at + 8], "little")


def u32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def fold(left, right):
    product = left * right
    return (product ^ (product >> 64)) & MASK


def avalanche(value):
    value = (value ^ (value >> 37)) * MIX1 & MASK
    return value ^ (value >> 32)


def old_avalanche(value):
    value = (value ^ (value >> 33)) * PRIMES64[1] & MASK
    value = (value ^ (value >> 29)) * PRIMES64[2] & MASK
    return value ^ (value >> 32)


def rotate_left(value, count):
    return (value << count | value >> (64 - count)) & MASK


def mix16(data, at, secret):
    return fold(u64(data, at) ^ u64(SECRET, secret), u64(data, at + 8) ^ u64(SECRET, secret + 8))


def short_checksum(data):
    size = len(data)
    if size == 0:
        return old_avalanche(u64(SECRET, 56) ^ u64(SECRET, 64))
    if size < 4:
        joined = data[0] << 16 | data[size >> 1] << 24 | data[-1] | size << 8
        return old_avalanche(joined ^ u32(SECRET, 0) ^ u32(SECRET, 4))
    if size <= 8:
        value = (u32(data, size - 4) + (u32(data, 0) << 32)) ^ u64(SECRET, 8) ^ u64(SECRET, 16)
        value ^= rotate_left(value, 49) ^ rotate_left(value, 24)
        value = value * MIX2 & MASK
        value = (value ^ ((value >> 35) + size)) * MIX2 & MASK
        return value ^ (value >> 28)
    first = u64(data, 0) ^ u64(SECRET, 24) ^ u64(SECRET, 32)
    last = u64(data, size - 8) ^ u64(SECRET, 40) ^ u64(SECRET, 48)
    swapped = int.from_bytes(first.to_bytes(8, "little"), "big")
    return avalanche((size + swapped + last + fold(first, last)) & MASK)


def middle_checksum(data):
    size = len(data)
    total = size * PRIMES64[0]
    if size <= 128:
        for pair in range((size - 1) // 32 + 1):
            total += mix16(data, 16 * pair, 32 * pair) + mix16(data, size - 16 * (pair + 1), 32 * pair + 16)
        return avalanche(total & MASK)
    total = avalanche((total + sum(mix16(data, 16 * piece, 16 * piece) for piece in range(8))) & MASK)
    total += sum(mix16(data, 16 * piece, 16 * (piece - 8) + 3) for piece in range(8, size // 16))
    return avalanche((total + mix16(data, size - 16, 136 - 17)) & MASK)


def add_stripe(lanes, words, secret):
    for lane in range(8):
        key = words[lane] ^ u64(SECRET, secret + 8 * lane)
        lanes[lane] = (lanes[lane] + words[lane ^ 1] + (key & 0xFFFFFFFF) * (key >> 32)) & MASK


def long_checksum(data):
    size = len(data)
    lanes = [PRIMES32[2], PRIMES64[0], PRIMES64[1], PRIMES64[2], PRIMES64[3], PRIMES32[1], PRIMES64[4], PRIMES32[0]]
    for stripe in range((size - 1) // 64):
        add_stripe(lanes, struct.unpack_from("<8Q", data, 64 * stripe), stripe % 16 * 8)
        if stripe % 16 == 15:
            for lane in range(8):
                lanes[lane] = (lanes[lane] ^ (lanes[lane] >> 47) ^ u64(SECRET, 128 + 8 * lane)) * PRIMES32[0] & MASK
    add_stripe(lanes, struct.unpack_from("<8Q", data, size - 64), 192 - 64 - 7)
    total = size * PRIMES64[0]
    for pair in range(4):
        secret = 11 + 16 * pair
        total += fold(lanes[2 * pair] ^ u64(SECRET, secret), lanes[2 * pair + 1] ^ u64(SECRET, secret + 8))
    return avalanche(total & MASK)


def checksum(data):
    """XXH3-64, seed 0."""
    if len(data) <= 16:
        return short_checksum(data)
    return middle_checksum(data) if len(data) <= 240 else long_checksum(data)


def aligned(size):
    return (size + 63) // 64 * 64


def newest_commit(data):
    """(trailer offset, number, index bytes) of the newest whole commit."""
    for at in range(len(data) // 64 * 64 - 64, 0, -64):
        trailer = data[at : at + 64]
        if trailer[:8] != b"KVARNEND" or checksum(trailer[:56]) != u64(trailer, 56):
            continue
        number, offset, index_at, index_bytes, index_sum = struct.unpack_from("<5Q", trailer, 8)
        if offset != at or index_at % 64 or not 64 <= index_at < at or index_bytes > at - index_at:
            continue
        if checksum(data[index_at : index_at + index_bytes]) == index_sum:
            return index_at, number, data[index_at : index_at + index_bytes]
    raise Damaged("no whole commit")


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        require(self.at + count <= len(self.data), "cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))


def read_part(cursor):
    tile_tokens, sink, tail, k_bits, v_bits, level, flags, _, _, _, stores, tiles, tokens, _ = cursor.unpack("12I2Q")
    require(16 <= tile_tokens <= 256 and tile_tokens % 16 == 0, "tile length")
    require(flags < 16, "flags")
    part = {"version": 2 if flags & 8 else 1, "tile_tokens": tile_tokens, "sink": sink, "tail": tail, "bits": (k_bits, v_bits), "level": level,
            "flags": flags, "tokens": tokens, "stores": [], "entries": [], "tiles": []}
    for _ in range(stores):
        layer, side, row_values, dim, heads, bits = cursor.unpack("6I")
        require(side in (0, 1) and row_values % 16 == 0 and bits == (k_bits, v_bits)[side], "store")
        require(dim == 0 or row_values % dim == 0, "head dimension")
        part["stores"].append({"layer": layer, "side": "kv"[side], "row": row_values, "dim": dim, "heads": heads, "bits": bits})
    for _ in range(tiles):
        part["entries"].append(cursor.unpack("3Q"))
    return part


def content_size(part, tile, item):
    """The bytes that an item of this kind must have."""
    store = part["stores"][item["store"]]
    tokens, dim, row = part["tile_tokens"], store["dim"], store["row"]
    if item["kind"] == RECORDS:
        rows, lanes = (dim, tokens) if store["side"] == "k" else (tokens, dim)
        planes = sum(golden_decoder.plane_bytes(rows, bits) for bits in golden_decoder.PLANES[item["bits"]])
        return row // dim * ((4 * rows + 2 * lanes) // part["version"] + planes * (lanes // 16))
    if item["kind"] in (ROWS, FINAL_ROWS):
        return tile["used"] * row * 2
    group, step = store["heads"] // (row // dim), 1
    if item["kind"] == HISTORY:
        return 4 + row // dim * (1 + group) * (2 + dim * 2 // part["version"])
    while tokens // step > 1 and tokens // step * group > 32:
        step *= 2
    return 8 + tokens // step * store["heads"] * (2 + dim) if item["kind"] == SAMPLES else 0


def read_tile(data, part, part_number, number, first_token):
    offset, size, head_sum = part["entries"][number]
    require(offset % 64 == 0 and offset >= 64 and size % 64 == 0 and offset + size <= len(data), "place of a tile")
    extent = data[offset : offset + size]
    head_bytes = u32(extent, 4)
    require(head_bytes <= size and checksum(extent[:head_bytes]) == head_sum, "checksum of a tile")
    cursor = Cursor(extent[:head_bytes])
    (magic, _, start, observed, parent, parent_row, used, state, ranked, _, _, items, own_part, own_number) = cursor.unpack("4s I 2Q 10I")
    require(magic == b"KTIL" and own_part == part_number and own_number == number, "head of a tile")
    require(1 <= used <= part["tile_tokens"] and (parent == NONE or parent < number), "rows or parent of a tile")
    live = cursor.take((part["tile_tokens"] // 8 + 7) // 8 * 8)
    ids, positions = cursor.unpack(f"{used}I"), cursor.unpack(f"{used}i")
    rows = [row for row in range(len(live) * 8) if live[row // 8] >> row % 8 & 1]
    require(rows and rows[-1] < used, "rows that hold tokens")
    tile = {"start": start, "used": used, "state": state, "ranked": ranked, "parent": parent, "parent_row": parent_row,
            "observed": observed, "rows": rows, "tokens": [(ids[row], positions[row]) for row in rows],
            "first_token": first_token, "items": []}
    at = aligned(head_bytes)
    for _ in range(items):
        store, kind, bits, count, reference, content_sum = cursor.unpack("I2H2IQ")
        require(store < len(part["stores"]) and RECORDS <= kind <= SAMPLES, "item")
        item = {"store": store, "kind": kind, "bits": bits, "reference": reference, "bytes": extent[at : at + count]}
        own_width = bits == (part["stores"][store]["bits"] if kind == RECORDS else 0)
        require(own_width or (kind == RECORDS and part["mixed"] and bits in golden_decoder.PLANES), "width of an item")
        require(count == content_size(part, tile, item), "size of an item")
        require(checksum(item["bytes"]) == content_sum, "checksum of an item")
        require(kind != SHARED_HISTORY or reference < number, "reference")
        tile["items"].append(item)
        at += aligned(count)
    require(at == size and cursor.at == head_bytes, "end of a tile")
    return tile


def read_session(data):
    """Everything in a session, checked: {commit, model, metadata, parts}."""
    require(data[:8] == b"KVARN\r\n\x1a", "not a session")
    require(u32(data, 8) in (1, 2), "unknown version")
    mixed_widths = u32(data, 8) == 2
    require(len(data) >= 64 and u32(data, 12) == 64 and checksum(data[:56]) == u64(data, 56), "header")
    index_at, number, index = newest_commit(data)
    cursor = Cursor(index)
    magic, parts, commit, model_bytes, metadata_bytes = cursor.unpack("4s I Q 2I")
    cursor.take(40)
    require(magic == b"KIDX" and commit == number and parts <= 64, "index")
    model = cursor.take((model_bytes + 7) // 8 * 8)[:model_bytes]
    session = {"commit": commit, "model": model, "parts": [read_part(cursor) for _ in range(parts)]}
    session["metadata"] = cursor.take(metadata_bytes)
    require(cursor.at == len(index), "end of the index")
    for part_number, part in enumerate(session["parts"]):
        count = 0
        for tile_number in range(len(part["entries"])):
            part["mixed"] = mixed_widths
            part["tiles"].append(read_tile(data[:index_at], part, part_number, tile_number, count))
            count += len(part["tiles"][-1]["tokens"])
        require(count == part["tokens"], "number of tokens")
    return session


def tile_rows(part, tile, store_number):
    """One store's rows of the tokens of a tile, as half bytes."""
    store = part["stores"][store_number]
    row_bytes = 2 * store["row"]
    for item in tile["items"]:
        if item["store"] != store_number or item["kind"] not in (RECORDS, ROWS, FINAL_ROWS):
            continue
        if item["kind"] != RECORDS:
            return [item["bytes"][row * row_bytes : (row + 1) * row_bytes] for row in tile["rows"]]
        heads = store["row"] // store["dim"]
        size = len(item["bytes"]) // heads
        decoded = [golden_decoder.decode_rows(item["bytes"][head * size : (head + 1) * size], store["side"],
                                              part["tile_tokens"], store["dim"], item["bits"], part["version"])
                   for head in range(heads)]
        width = 2 * store["dim"]
        return [b"".join(head[row * width : (row + 1) * width] for head in decoded) for row in tile["rows"]]
    return [bytes(row_bytes) for _ in tile["rows"]]


def rows_of(part, store_number):
    """One store's rows of all tokens, as half bytes."""
    return b"".join(row for tile in part["tiles"] for row in tile_rows(part, tile, store_number))


def main():
    session = read_session(pathlib.Path(sys.argv[1]).read_bytes())
    print(f"commit {session['commit']}, model {session['model']!r}, {len(session['metadata'])} bytes of metadata")
    for part in session["parts"]:
        bits, tiles = part["bits"], part["tiles"]
        print(f"k{bits[0]}v{bits[1]}, {part['tokens']} tokens in {len(tiles)} tiles of {part['tile_tokens']}")
        for number, store in enumerate(part["stores"]):
            sealed = sum(item["kind"] == RECORDS and item["store"] == number for tile in tiles for item in tile["items"])
            print(f"  layer {store['layer']} {store['side']}: {store['row']} values a row, {sealed} tiles sealed")


if __name__ == "__main__":
    try:
        main()
    except Damaged as error:
        sys.exit(f"{sys.argv[1]}: {error}")
