"""What the measuring programs share: where the host's programs are, how they run with and without the plugin, what the machine is.

Set by ./kvarn bench: KVARN_ENGINE_BIN, KVARN_PLUGIN, KVARN_PROGRAM, KVARN_BENCH, KVARN_MODEL, KVARN_MODEL_GEMMA,
KVARN_TEXT.
"""

import json
import os
import shlex
import subprocess
import sys


def path(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: run this through ./kvarn bench")
    return value


def environment(preset, **settings):
    """The environment of a host program; preset None runs it without the plugin."""
    variables = {name: value for name, value in os.environ.items()
                 if name not in ("GGML_BACKEND_PATH", "KVARN_PRESET", "KVARN_SINK", "KVARN_TAIL", "KVARN_LEVEL", "KVARN_CODEC",
                                  "KVARN_LIMIT")}
    if preset is not None:
        variables.update(GGML_BACKEND_PATH=path("KVARN_PLUGIN"), KVARN_PRESET=preset)
        variables.update({"KVARN_" + name.upper(): str(value) for name, value in settings.items()})
    return variables


def run(command, preset=None, **settings):
    """Runs a host program (without the plugin if preset is None) and returns its output; one error line and exit if it fails."""
    result = subprocess.run([str(part) for part in command], env=environment(preset, **settings), text=True, capture_output=True, check=False,
                            stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:]
        sys.exit(f"{os.path.basename(str(command[0]))} failed with exit code {result.returncode}: {' '.join(last)}")
    return result.stdout + result.stderr


def command():
    """What was run, without the folders of this machine."""
    name = os.path.basename(sys.argv[0]).removesuffix(".py")
    arguments = [os.path.basename(argument) if os.path.isabs(argument) else argument for argument in sys.argv[1:]]
    return " ".join(["./kvarn", "bench", name, *(shlex.quote(argument) for argument in arguments)])


def machine(threads):
    """Processor, cores, commit, instruction set and threads: what every results file states, beside the command."""
    return json.loads(run([path("KVARN_BENCH"), "machine", "--threads", threads])) | {"command": command()}


def write_json(file, results, threads):
    if file:
        with open(file, "w", encoding="utf-8") as out:
            json.dump({"machine": machine(threads), "results": results}, out, indent=1)
            out.write("\n")


def table(rows):
    """Prints rows (the first is the head) as a Markdown table."""
    for index, row in enumerate(rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
        if index == 0:
            print("|" + "---|" * len(row))
    sys.stdout.flush()
