"""docs/guide/lmcache.md: its shares and its log line are what the serde makes, its JSON is JSON."""

import json
import pathlib
import re

import pytest
from kvarn_lmcache.chunk_codec import coding_of
from kvarn_lmcache.chunk_format import Group, plan_chunk

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "guide" / "lmcache.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \**(k\dv\d)\**(?:, k\dv\d)? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) million \|$", PAGE, re.M)


def stored_bytes(preset, shape, head_dim):
    return plan_chunk((Group(shape, "bfloat16", 2),), coding_of(preset, head_dim)).total_bytes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_capacity_table_is_right(row):
    preset, *shares, tokens = row
    for head_dim, share in zip((64, 128, 256), shares):
        group = Group((2, 32, 256, 8 * head_dim), "bfloat16", 2)
        assert f"{stored_bytes(preset, group.shape, head_dim) / group.bytes:.3f}" == share
    assert f"{100e9 * 256 / stored_bytes(preset, (2, 32, 256, 1024), 128) / 1e6:.2f}" == tokens


def test_the_page_has_a_row_for_each_preset_and_json_that_can_be_read():
    assert [row[0] for row in ROWS] == ["k8v8", "k6v6", "k4v4", "k4v2", "k2v2"]
    (plugin,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.S | re.M)
    (command,) = re.findall(r"--l2-adapter \\\n  '(.*?)'", PAGE)
    for text in (plugin, command):
        assert json.loads(text)["serde"]["type"] == "kvarn"


def test_the_log_line_has_the_size_of_such_a_chunk():
    plain, stored = map(int, re.search(r"bfloat16: (\d+) -> (\d+) bytes", PAGE).groups())
    plan = plan_chunk((Group((2, 32, 256, 1024), "bfloat16", 2),), coding_of("k4v4", 128))
    assert plan.parts[0].group.bytes == plain and plan.parts[0].stored_bytes == stored
