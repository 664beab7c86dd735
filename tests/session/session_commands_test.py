"""`kvarn inspect` and `kvarn verify` from the outside, against the second reader. Run with the program as KVARN_PROGRAM."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import session_reader  # noqa: E402

SESSION = GOLDEN / "best_two_commits.session"


def kvarn(*arguments):
    command = [os.environ["KVARN_PROGRAM"], *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class SessionCommands(unittest.TestCase):
    def damaged(self, change):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        path = pathlib.Path(scratch.name) / "damaged.session"
        path.write_bytes(change(bytearray(SESSION.read_bytes())))
        return path

    def test_inspect_tells_what_the_second_reader_finds(self):
        table = json.loads(kvarn("inspect", SESSION, "--json").stdout)
        session = session_reader.read_session(SESSION.read_bytes())
        part, shown = session["parts"][0], table["parts"][0]
        self.assertEqual((table["commit"], table["model"], table["metadata_bytes"]), (2, "golden model", 15))
        self.assertEqual(table["file_bytes"], SESSION.stat().st_size)
        self.assertEqual((shown["tokens"], shown["tiles"], shown["preset"]), (part["tokens"], len(part["tiles"]), "k4v3"))
        for number, store in enumerate(shown["stores"]):
            items = [item for tile in part["tiles"] for item in tile["items"] if item["store"] == number]
            sealed = [item for item in items if item["kind"] == session_reader.RECORDS]
            self.assertEqual(store["sealed_tiles"], len(sealed))
            self.assertEqual(store["record_bytes"], sum(len(item["bytes"]) for item in sealed))
            total = store["record_bytes"] + store["row_bytes"] + store["query_bytes"]
            self.assertEqual(total, sum(len(item["bytes"]) for item in items))

    def test_inspect_prints_a_line_for_every_side_of_a_layer(self):
        shown = kvarn("inspect", SESSION)
        self.assertEqual(shown.returncode, 0)
        self.assertEqual(sum(line.split()[1:2] in (["K"], ["V"]) for line in shown.stdout.splitlines()), 4)

    def test_verify_accepts_what_is_whole(self):
        checked = kvarn("verify", SESSION)
        self.assertEqual((checked.returncode, checked.stdout.count("\n")), (0, 1))
        self.assertIn("ok, save 2, 95 tokens", checked.stdout)

    def test_verify_names_the_damage_in_one_line(self):
        def flip(data):
            data[300] ^= 1
            return data

        checked = kvarn("verify", self.damaged(flip))
        self.assertEqual((checked.returncode, checked.stdout.count("\n"), checked.stderr), (1, 1, ""))
        self.assertIn("damaged", checked.stdout)
        self.assertEqual(kvarn("verify", "/no/such/file").returncode, 1)

    def test_torn_end_is_told_and_the_save_before_it_accepted(self):
        checked = kvarn("verify", self.damaged(lambda data: data[:-64]))
        self.assertEqual(checked.returncode, 0)
        self.assertIn("ok, save 1, 70 tokens", checked.stdout)
        self.assertIn("broke off", checked.stdout)

    def test_inspect_compares_with_a_source(self):
        table = json.loads(kvarn("inspect", SESSION, "--json", "--source", GOLDEN / "scaled.session").stdout)
        for store in table["parts"][0]["stores"]:
            self.assertTrue(store["compared_tokens"] > 0 and 0 < store["relative_error"] < 0.3, store)
        shown = kvarn("inspect", SESSION, "--source", SESSION).stdout
        lines = [line.split() for line in shown.splitlines() if line.split()[1:2] in (["K"], ["V"])]
        self.assertEqual([line[-1] for line in lines], ["0.00000"] * 4)
        refused = kvarn("inspect", SESSION, "--source", __file__)
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("not a session file", refused.stderr)

    def test_inspect_of_another_file_is_one_line(self):
        shown = kvarn("inspect", __file__)
        self.assertEqual((shown.returncode, shown.stdout), (1, ""))
        self.assertIn("not a session file", shown.stderr)


if __name__ == "__main__":
    unittest.main()
