"""The second reader reads the golden sessions, finds the rows that the library reads, and notices damage."""

import pathlib
import unittest

import session_reader

DIRECTORY = pathlib.Path(__file__).parent
# Checksums of all rows, store by store, as tests/session/golden_session_test.cpp has them from the library.
ROW_DIGESTS = {
    "scaled.session": 13453162074413820943,
    "best_two_commits.session": 7964580979804663358,
    "best_byte_fields.session": 5096330185495789668,
}


class SessionReader(unittest.TestCase):
    def test_checksum_is_xxh3(self):
        known = {0: 0x2D06800538D394C2, 1: 0x13E608BC156DEFED, 4: 0x6D9253B16C8B1ED3, 9: 0xFEFF668361D723A8,
                 17: 0x714A04408E79B80F, 129: 0xC664BF3311C6ABC4, 241: 0x8BEADD3A8874FE17, 1024: 0x9B81661C641C72B1,
                 5000: 0x799AADDD7339581D}
        for size, value in known.items():
            self.assertEqual(session_reader.checksum(bytes((i * 7 + 3) % 256 for i in range(size))), value, size)

    def test_golden_sessions_hold_the_rows_that_the_library_reads(self):
        for name, digest in ROW_DIGESTS.items():
            session = session_reader.read_session((DIRECTORY / name).read_bytes())
            part = session["parts"][0]
            rows = b"".join(session_reader.rows_of(part, store) for store in range(len(part["stores"])))
            self.assertEqual(session_reader.checksum(rows), digest, name)

    def test_tokens_and_settings_are_there(self):
        session = session_reader.read_session((DIRECTORY / "best_two_commits.session").read_bytes())
        part = session["parts"][0]
        self.assertEqual((session["commit"], session["model"], session["metadata"]), (2, b"golden model", b"golden metadata"))
        self.assertEqual((part["bits"], part["tile_tokens"], part["sink"], part["tail"]), ((4, 3), 16, 16, 16))
        tokens = [token for tile in part["tiles"] for token in tile["tokens"]]
        self.assertEqual(tokens, [(1000 + token * 17 % 256, token) for token in range(95)])

    def test_torn_end_leaves_the_first_commit(self):
        data = (DIRECTORY / "best_two_commits.session").read_bytes()
        session = session_reader.read_session(data[:-1])
        self.assertEqual((session["commit"], session["parts"][0]["tokens"]), (1, 70))

    def test_flipped_bit_is_noticed_wherever_it_counts(self):
        data = (DIRECTORY / "scaled.session").read_bytes()
        whole = session_reader.read_session(data)
        noticed = 0
        places = range(0, len(data), 101)
        for at in places:
            damaged = bytearray(data)
            damaged[at] ^= 16
            try:
                self.assertEqual(session_reader.read_session(bytes(damaged)), whole, at)
            except session_reader.Damaged:
                noticed += 1
        self.assertGreater(noticed, len(places) * 0.9)  # the others lie in the room between pieces


if __name__ == "__main__":
    unittest.main()
