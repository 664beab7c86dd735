"""A kernel object must define one external symbol, its table: any other could be picked by the linker for code that runs on
processors without the object's instruction set. Usage: exported_symbols_test.py NM OBJECT"""

import re
import subprocess
import sys

TABLE = re.compile(r"^_ZN5kvarn\d+k\w+KernelsE$")
SANITIZER = re.compile(r"^(__odr_asan|__asan|__ubsan|__tsan)")


def stray_symbols(listing):
    """External symbols of an nm listing that are not a table; also says whether there is exactly one table."""
    names = [fields[-1] for fields in (line.split() for line in listing.splitlines()) if len(fields) >= 3]
    names = [name for name in names if not SANITIZER.match(name)]
    tables = [name for name in names if TABLE.match(name)]
    return [name for name in names if name not in tables], len(tables) == 1


def self_check():
    table = "0000000000000000 D _ZN5kvarn12kAvx2KernelsE\n"
    leak = "0000000000000040 W _ZSt3maxIfERKT_S2_S2_\n"
    assert stray_symbols(table) == ([], True)
    assert stray_symbols(table + leak) == (["_ZSt3maxIfERKT_S2_S2_"], True)
    assert stray_symbols("") == ([], False)


def main():
    self_check()
    nm, kernel_object = sys.argv[1:3]
    listing = subprocess.run([nm, "--defined-only", "--extern-only", kernel_object], check=True, capture_output=True,
                             text=True).stdout
    stray, has_table = stray_symbols(listing)
    if stray or not has_table:
        sys.exit(f"{kernel_object}: exports {'the table and ' if has_table else 'no table but '}{stray}")


main()
