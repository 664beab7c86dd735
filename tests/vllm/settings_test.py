"""What people write to switch the plugin on, and what it says of what it does not know."""

import pytest

from kvarn_vllm import settings


def test_without_a_word_the_plugin_is_off():
    assert settings.read(None, {}).preset == settings.OFF


def test_an_empty_object_switches_it_on():
    assert settings.read({}, {}).preset == "balanced"


def test_the_engines_option_wins_over_the_environment():
    environment = {"KVARN_PRESET": "k4v2", "KVARN_TAIL": "256", "KVARN_DETERMINISTIC": "no"}
    found = settings.read({"preset": "k8v8"}, environment)
    assert (found.preset, found.tail_tiles, found.deterministic) == ("k8v8", 2, False)
    assert settings.read(None, environment).preset == "k4v2"


def test_deterministic_reads_keep_no_rows_of_sealed_tiles():
    found = settings.read({"deterministic": True, "sink": 512}, {})
    assert (found.sink_tiles, found.tail_tiles) == (0, 0)


@pytest.mark.parametrize("config, word", [({"presett": "k4v4"}, "presett"), ({"tail": -1}, "tail"), ({"tail": True}, "tail"),
                                          ({"deterministic": "perhaps"}, "deterministic"), ({"preset": 4}, "preset"),
                                          ({"hot_tiles": "many"}, "hot_tiles"), ("k4v4", "object")])
def test_what_is_not_known_is_named(config, word):
    with pytest.raises(settings.SettingsError, match=word):
        settings.read(config, {})
