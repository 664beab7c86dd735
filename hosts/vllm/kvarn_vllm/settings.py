"""What the user asks for: `--additional-config '{"kvarn": {...}}'`, or KVARN_... in the environment. Knows neither engine nor torch."""

import os
from dataclasses import dataclass, fields

TILE_TOKENS = 128
ROWS = "rows"  # pages of exact rows in the model's own type, read by the engine's own attention: saves nothing, checks the plugin
OFF = "off"


class SettingsError(ValueError):
    """A setting that does not exist or has no meaning; the text says which."""


@dataclass(frozen=True)
class Settings:
    preset: str = OFF  # balanced, near-lossless, small, smallest, k<bits>v<bits>, f16, rows; off: the engine's own cache
    level: str = "fast"  # of the encoder: plain, official, scaled, fast, best
    fields: str = "half"  # half or byte: what a scale or a zero in a page takes
    sink: int = TILE_TOKENS  # tokens at the beginning of a sequence whose rows are kept too, while there is room
    tail: int = TILE_TOKENS  # complete tiles this near to the end of a sequence keep their rows too, while there is room
    hot_tiles: int = 0  # rows that the pool holds beside the pages, in tiles; 0: as many as are needed, two for each sequence
    deterministic: bool = False  # tiles are read from their records alone, whoever computed them and when

    @property
    def sink_tiles(self):
        return 0 if self.deterministic else -(-self.sink // TILE_TOKENS)

    @property
    def tail_tiles(self):
        return 0 if self.deterministic else -(-self.tail // TILE_TOKENS)


def read(config, environment=None):
    """The settings of a dictionary (None: there is none), with what it leaves out from the environment. The plugin is on if
    either names a preset or the dictionary is there."""
    environment = os.environ if environment is None else environment
    if config is not None and not isinstance(config, dict):
        raise SettingsError(f"kvarn: the settings are an object such as {{\"preset\": \"k4v4\"}}, not {config!r}")
    config = None if config is None else dict(config)
    values = {}
    for field in fields(Settings):
        name = f"KVARN_{field.name.upper()}"
        if config and field.name in config:
            values[field.name] = convert(field, config.pop(field.name), field.name)
        elif environment.get(name):
            values[field.name] = convert(field, environment[name], name)
    if config:
        raise SettingsError(f"kvarn has no setting '{sorted(config)[0]}'; there are {', '.join(f.name for f in fields(Settings))}")
    if config is not None:
        values.setdefault("preset", "balanced")
    return Settings(**values)


def convert(field, value, name):
    kind = type(field.default)
    if kind is bool and isinstance(value, str):
        words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
        if value.lower() in words:
            return words[value.lower()]
    elif kind is bool and isinstance(value, bool):
        return value
    elif kind is int and not isinstance(value, bool):
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = -1
        if number >= 0:
            return number
    elif kind is str and isinstance(value, str):
        return value
    raise SettingsError(f"kvarn: {name} cannot be {value!r}")
