"""The second decoder reads every golden record, and notices what it must notice. Run with the page as KVARN_PAGE."""

import os
import pathlib
import shutil
import tempfile
import unittest

import golden_decoder

DIRECTORY = pathlib.Path(__file__).parent


class GoldenDecoder(unittest.TestCase):
    def copy_of_vectors(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        copy = pathlib.Path(scratch.name) / "golden"
        shutil.copytree(DIRECTORY, copy, ignore=shutil.ignore_patterns("__pycache__"))
        return copy

    def test_every_record_decodes_to_the_listed_values(self):
        count, wrong = golden_decoder.check_records(DIRECTORY)
        self.assertGreater(count, 30)
        self.assertEqual(wrong, [])

    def test_every_file_has_its_checksum(self):
        self.assertEqual(golden_decoder.check_sums(DIRECTORY), [])
        listed = {line.split()[1] for line in (DIRECTORY / "SHA256SUMS").read_text().splitlines()}
        vectors = {path.name for path in DIRECTORY.iterdir() if path.suffix in (".rows", ".record", ".txt")}
        self.assertEqual(listed, vectors)

    def test_worked_example_of_the_page_is_the_golden_record(self):
        page = pathlib.Path(os.environ["KVARN_PAGE"])
        self.assertEqual(golden_decoder.check_page(DIRECTORY, page), [])

    def test_flipped_bit_of_a_page_or_a_record_is_noticed(self):
        copy = self.copy_of_vectors()
        record = copy / golden_decoder.EXAMPLE
        data = bytearray(record.read_bytes())
        data[-1] ^= 1
        record.write_bytes(data)
        self.assertEqual(len(golden_decoder.check_sums(copy)), 1)
        self.assertEqual(len(golden_decoder.check_records(copy)[1]), 1)
        self.assertEqual(len(golden_decoder.check_page(copy, pathlib.Path(os.environ["KVARN_PAGE"]))), 1)

    def test_every_code_bit_changes_the_decoded_values(self):
        record = (DIRECTORY / golden_decoder.EXAMPLE).read_bytes()
        exact = golden_decoder.decode_tile(record, 16, 16, 3)
        used = [(byte, bit) for byte in range(0x60, 0xE0) for bit in range(8) if byte < 0xA0 or bit < 4]
        for byte, bit in used:
            flipped = bytearray(record)
            flipped[byte] ^= 1 << bit
            changed = golden_decoder.decode_tile(bytes(flipped), 16, 16, 3)
            differences = sum(a != b for row, other in zip(exact, changed) for a, b in zip(row, other))
            self.assertEqual(differences, 1, f"byte {byte:x} bit {bit}")

    def test_record_of_another_size_is_refused(self):
        record = (DIRECTORY / golden_decoder.EXAMPLE).read_bytes()
        with self.assertRaises(ValueError):
            golden_decoder.decode_tile(record[:-1], 16, 16, 3)


if __name__ == "__main__":
    unittest.main()
