#!/usr/bin/python3
"""check-image.py RAW FILE... -- do all other readers agree that FILE holds the disk RAW?

Readers: qemu-img (info, check, compare), libyal (Debian's python3-libvhdi, -libvmdk, -libqcow, so this runs with the
system's Python), dissect.hypervisor (in the Python that DISSECT names, else the one in target/python) and 7zz. A FILE may be longer than RAW
by less than a sector of 4096 bytes, with zeros. Exit status 1 where a reader that knows the format refuses or disagrees, 2 where a reader is missing.
"""

import hashlib
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DISSECT = os.environ.get("DISSECT", os.path.join(HERE, "../../target/python/bin/python3"))
QEMU = {".qcow2": "qcow2", ".vhd": "vpc", ".vhdx": "vhdx", ".vmdk": "vmdk", ".vdi": "vdi", ".raw": "raw"}
SEVEN = {".qcow2": "QCOW", ".vhd": "VHD", ".vhdx": "VHDX", ".vmdk": "VMDK", ".vdi": "VDI"}
WITH_DISSECT = """
import hashlib, sys
from pathlib import Path
from dissect.hypervisor.disk import qcow2, vdi, vhd, vhdx, vmdk
path, left = Path(sys.argv[1]), int(sys.argv[2])
opened = {".vhd": lambda: vhd.VHD(path.open("rb")), ".vhdx": lambda: vhdx.VHDX(path.open("rb")), ".vmdk": lambda: vmdk.VMDK(path),
          ".vdi": lambda: vdi.VDI(path.open("rb")), ".qcow2": lambda: qcow2.QCow2(path)}[path.suffix]()
stream = opened.open() if hasattr(opened, "open") else opened
sum = hashlib.sha256()
while left and (part := stream.read(min(left, 1 << 20))):
    sum.update(part)
    left -= len(part)
print(f"short by {left}" if left else sum.hexdigest())
"""


def sum_of(read, length):
    total, at = hashlib.sha256(), 0
    while at < length:
        part = read(at, min(1 << 20, length - at))
        if not part:
            return f"short at {at}"
        total.update(part)
        at += len(part)
    return total.hexdigest()


def sum_of_file(path, length):
    with open(path, "rb") as file:
        return sum_of(lambda _, count: file.read(count), length)


def run(*arguments):
    try:
        return subprocess.run(arguments, capture_output=True, text=True)
    except FileNotFoundError:
        missing(arguments[0])


def missing(what):
    print(f"{what} is missing", file=sys.stderr)
    sys.exit(2)


def with_libyal(path, extension, length):
    try:
        import pyqcow
        import pyvhdi
        import pyvmdk
    except ImportError as error:
        missing(error.name)
    if extension == ".vmdk":
        file = pyvmdk.handle()
        file.open(path)
        file.open_extent_data_files()
    elif extension == ".qcow2":
        file = pyqcow.file()
        file.open(path)
    else:
        file = pyvhdi.file()
        file.open(path)
    size = file.get_media_size()
    if not length <= size < length + 4096:
        return f"a disk of {size} bytes"
    return sum_of(lambda at, count: file.read_buffer_at_offset(count, at), length)


def with_7zz(path, extension, length):
    try:
        process = subprocess.Popen(["7zz", "e", "-so", f"-t{SEVEN[extension]}", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        missing("7zz")
    total, left = hashlib.sha256(), length
    while left and (part := process.stdout.read(min(left, 1 << 20))):
        total.update(part)
        left -= len(part)
    process.kill()
    process.wait()
    return f"short by {left}" if left else total.hexdigest()


def with_qemu(raw, path, length, qemu):
    told = run("qemu-img", "info", "-f", qemu, "--output=json", path)
    if told.returncode:
        yield "qemu-img info", told.stderr
    else:
        size = json.loads(told.stdout)["virtual-size"]
        yield "qemu-img info", "" if length <= size < length + 4096 else f"a disk of {size} bytes"
    checked = run("qemu-img", "check", "-f", qemu, path)
    if checked.returncode != 63:  # "this format has no checks"
        yield "qemu-img check", checked.stdout + checked.stderr if checked.returncode else ""
    compared = run("qemu-img", "compare", "-f", "raw", "-F", qemu, raw, path)
    yield "qemu-img compare", compared.stdout + compared.stderr if compared.returncode else ""


def judge(raw, path, wanted, length, skip):
    extension = os.path.splitext(path)[1]
    qemu = QEMU[extension]
    if "qemu" not in skip:
        yield from with_qemu(raw, path, length, qemu)
    if extension == ".raw":
        return
    if extension != ".vdi" and "libyal" not in skip:
        try:
            found = with_libyal(path, extension, length)
        except OSError as error:
            found = str(error)
        yield "libyal", "" if found == wanted else found
    if "dissect" not in skip:
        # It reads VMDK in steps of 8 KiB and falls over the end of a disk that is no multiple of that long, whoever made the file.
        whole = length - length % 8192 if extension == ".vmdk" else length
        found = run(DISSECT, "-c", WITH_DISSECT, path, str(whole))
        if "ModuleNotFoundError" in found.stderr:
            missing("dissect.hypervisor")
        yield "dissect", "" if found.stdout.strip() == sum_of_file(raw, whole) else found.stdout + found.stderr
    # It takes no VHDX of a disk that does not end with a sector of 4096 bytes, whoever made it.
    if "7zz" not in skip and not (extension == ".vhdx" and length % 4096):
        found = with_7zz(path, extension, length)
        yield "7zz", "" if found == wanted else found


def main():
    arguments = sys.argv[1:]
    # What a reader is known not to be able to do, for this call: --skip=7zz.
    skip = [argument[7:] for argument in arguments if argument.startswith("--skip=")]
    raw, *paths = [argument for argument in arguments if not argument.startswith("--")]
    length = os.path.getsize(raw)
    wanted = sum_of_file(raw, length)
    bad = False
    for path in paths:
        for reader, wrong in judge(raw, path, wanted, length, skip):
            bad = bad or bool(wrong)
            print(f"{os.path.basename(path):24} {reader:18} {wrong.strip().splitlines()[-1][:200] if wrong else 'ok'}")
    sys.exit(1 if bad else 0)


main()
