"""Switches for the failing disk of `faults.c`: compiled once, controlled while the server runs."""

import mmap
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

WRITE, SYNC, OPEN, TRUNCATE, RENAME, READ, DIRECT, ALLOCATE = range(8)
LOG, STORE = 1, 2
RULES, RULE_INTS, PLACES = 8, 9, 3
KINDS = 8


class Faults:
    """The library, its control file, and the environment that loads it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tallyman-faults-"))
        self.library = self.folder / "faults.so"
        source = Path(__file__).with_name("faults.c")
        subprocess.run(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", self.library, source,
                        "-ldl"], check=True)
        size = 4 * (RULES * RULE_INTS + KINDS * PLACES)
        control = self.folder / "control"
        control.write_bytes(bytes(size))
        with open(control, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), size)

    def prefix(self, data):
        """What goes before the server's command line."""
        return ["env", f"LD_PRELOAD={self.library}", f"FAULTS_FOLDER={data}",
                f"FAULTS_CONTROL={self.folder / 'control'}"]

    def clear(self):
        """No call fails any more; counts begin at 0."""
        self.map[:] = bytes(len(self.map))

    def arm(self, kinds, places, number=0, skip=0, times=1, error=0, half=0, delay_us=0,
            growing=0):
        """Sets rule `number`; the kinds come last, for they switch it on."""
        bits = sum(1 << kind for kind in kinds)
        where = sum(1 << place for place in places)
        at = 4 * RULE_INTS * number
        struct.pack_into("8i", self.map, at + 4, where, skip, times, error, half, delay_us,
                         growing, 0)
        struct.pack_into("i", self.map, at, bits)

    def fired(self, number=0):
        """How often the rule made a call fail, or wait."""
        return struct.unpack_from("i", self.map, 4 * (RULE_INTS * number + RULE_INTS - 1))[0]

    def seen(self, kind, place):
        """How many calls of a kind there were since `clear`."""
        at = 4 * (RULES * RULE_INTS + kind * PLACES + place)
        return struct.unpack_from("i", self.map, at)[0]

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)
