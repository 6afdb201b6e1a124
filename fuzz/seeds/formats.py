#!/usr/bin/env python3
"""Makes the seeds of the image format targets with qemu-img: small files of every variant, with runs of noise, text and zeros.

What qemu-img cannot make is patched in: a VHD that differs from a parent, a VHDX with an entry in its log.
"""
import os, random, struct, subprocess, sys, tempfile

here = os.path.dirname(os.path.abspath(__file__))
work = tempfile.mkdtemp()
os.chdir(work)


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc ^ 0xFFFFFFFF


def sealed(data):
    data = bytearray(data)
    data[4:8] = bytes(4)
    data[4:8] = struct.pack("<I", crc32c(data))
    return data


noise = random.Random(1)
disk = bytearray()
while len(disk) < 300 << 10:
    kind = noise.randrange(3)
    run_len = noise.randrange(1, 40 if kind else 4) * 512
    text = (b"a line of text that compresses, %d\n" % len(disk)) * (run_len // 20)
    disk += [noise.randbytes(run_len), text[:run_len], bytes(run_len)][kind]
disk = disk[: 300 << 10]
open("raw", "wb").write(disk)


def convert(name, *options):
    run("qemu-img", "convert", "-f", "raw", *options, "raw", name)


convert("zlib.qcow2", "-O", "qcow2", "-c", "-o", "cluster_size=512")
run("qemu-img", "snapshot", "-c", "first", "zlib.qcow2")
run("qemu-io", "zlib.qcow2", "-c", "write -P 5 10k 30k", "-c", "write -z 60k 5k")
convert("subclusters.qcow2", "-O", "qcow2", "-c", "-o", "extended_l2=on,compression_type=zstd,cluster_size=16k")
run("qemu-io", "subclusters.qcow2", "-c", "write -P 5 10k 1k", "-c", "write -z 60k 5k")
convert("dynamic.vhd", "-O", "vpc", "-o", "force_size=on")
convert("sparse.vmdk", "-O", "vmdk")
convert("stream.vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized")
convert("dynamic.vdi", "-O", "vdi")
convert("log.vhdx", "-O", "vhdx", "-o", "block_size=1M")

vhd = bytearray(open("dynamic.vhd", "rb").read())
for at in (0, len(vhd) - 512):
    vhd[at + 60 : at + 64] = struct.pack(">I", 4)
    vhd[at + 64 : at + 68] = bytes(4)
    vhd[at + 64 : at + 68] = struct.pack(">I", 0xFFFFFFFF - sum(vhd[at : at + 512]))
# A parent's name, and some sectors that are its own.
vhd[512 + 64 : 512 + 84] = "parent.vhd".encode("utf-16-be")
vhd[512 + 36 : 512 + 40] = bytes(4)
vhd[512 + 36 : 512 + 40] = struct.pack(">I", 0xFFFFFFFF - sum(vhd[512:1536]))
block = struct.unpack(">I", vhd[1536:1540])[0] * 512
vhd[block + 8 : block + 24] = noise.randbytes(16)
open("differencing.vhd", "wb").write(vhd)

vhdx = bytearray(open("log.vhdx", "rb").read())
newest = max((0x10000, 0x20000), key=lambda at: struct.unpack("<Q", vhdx[at + 8 : at + 16]))
log = struct.unpack("<Q", vhdx[newest + 72 : newest + 80])[0]
guid = b"a log of a seed!"
vhdx[newest + 48 : newest + 64] = guid
vhdx[newest : newest + 4096] = sealed(vhdx[newest : newest + 4096])
block = struct.unpack("<Q", vhdx[2 << 20 : (2 << 20) + 8])[0] >> 20 << 20
for number in (1, 2):
    length = len(vhdx)
    entry = struct.pack("<4sIIIQII16sQQ", b"loge", 0, 8192, 0, number, 2, 0, guid, length, length)
    entry += struct.pack("<4s4s8sQQ", b"desc", b"tail", b"leading!", block + number * 4096, number)
    entry += struct.pack("<4sIQQQ", b"zero", 0, 8192, block + 16384 * number, number)
    entry = entry.ljust(4096, b"\0") + b"data" + struct.pack("<I", 0) + noise.randbytes(4084) + struct.pack("<I", number)
    at = log + (number - 1) * 8192
    vhdx[at : at + 8192] = sealed(entry)
open("log.vhdx", "wb").write(vhdx)

for name in sorted(os.listdir(".")):
    if name != "raw":
        run("zstd", "-q", "-f", "-19", name, "-o", os.path.join(here, name + ".zst"))
