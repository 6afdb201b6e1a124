#!/usr/bin/env python3
"""A second reader of hikae images, written from docs/format.md alone.

    hikread.py list IMAGE                 the generations
    hikread.py extract IMAGE[@GEN] OUT    one generation as a sparse raw file; GEN is a number, latest or ~N
    hikread.py check IMAGE                every frame, table and generation

IMAGE is NAME.hik; --packs FOLDER (as often as needed) names more folders with packs. Everything that is read is
checked as the page demands; the first thing that is wrong ends the program with status 1 and a sentence.
It needs Python 3.9 and the packages blake3, lz4 and zstandard. Numbers such as 3.2 are sections of the page.
"""

import argparse
import json
import os
import struct
import sys
import zlib

import blake3
import lz4.block
import zstandard

ABSENT, ZERO, BAD, DATA = range(4)
CHUNK, NODE, PLACE_MAP, TABLE, RECORD, CATALOGUE = range(1, 7)
STORED, ZSTD, LZ4, ZSTD_WITH_BASE = range(4)
FRAME_HEADER = 0x48
FOOTER = 128
MIB = 1 << 20
LIMITS = {NODE: 16 * MIB, RECORD: 16 * MIB, CATALOGUE: 64 * MIB, TABLE: 64 * MIB, PLACE_MAP: 64 * MIB}
CONTEXTS = {
    NODE: "hikae 2026 node v1",
    PLACE_MAP: "hikae 2026 place map v1",
    TABLE: "hikae 2026 table v1",
    RECORD: "hikae 2026 record v1",
    CATALOGUE: "hikae 2026 catalogue v1",
}


class Damage(Exception):
    """Bytes that are not what the page says."""


def need(condition, what):
    if not condition:
        raise Damage(what)


def derived(context, data):
    return blake3.blake3(data, derive_key_context=context).digest()


# -- 3. Packs ---------------------------------------------------------------------------------------------------------


class Pack:
    """One file: its header is read at once, its footer when somebody asks."""

    def __init__(self, path):
        self.path = path
        self.file = open(path, "rb")
        self.len = os.fstat(self.file.fileno()).st_size
        fixed = self.read(0, 0x38)
        (magic, version, header_len, checksum, self.image_id, self.number, self.chunk_log2, reserved, self.created,
         incompatible_len, compatible_len, reserved2) = struct.unpack("<8sHHI16sIB3sQHHI", fixed)
        need(magic == b"hikaePK\n", f"{path}: not a pack")
        need(version == 1, f"{path}: version {version}, this reader knows 1")
        need(header_len == 0x38 + incompatible_len + compatible_len, f"{path}: header_len is wrong")
        self.header = self.read(0, header_len)
        zeroed = self.header[:0x0C] + bytes(4) + self.header[0x10:]
        need(zlib.crc32(zeroed) == checksum, f"{path}: the header's checksum is wrong")
        need(reserved == bytes(3) and reserved2 == 0, f"{path}: reserved bytes of the header are not 0")
        need(12 <= self.chunk_log2 <= 22, f"{path}: chunk_log2 {self.chunk_log2}")
        incompatible = self.header[0x38:0x38 + incompatible_len].decode("ascii")
        need(not incompatible, f"{path} uses the feature {incompatible}, which this reader does not know")

    def read(self, offset, length):
        data = os.pread(self.file.fileno(), length, offset)
        need(len(data) == length, f"{self.path}: ends before byte {offset + length:#x}")
        return data

    def frame(self, offset):
        """Header of the frame at `offset`, and the frame's length; nothing is checked but what a scan needs."""
        head = self.read(offset, FRAME_HEADER)
        need(head[:4] == b"\xf5hkF", f"{self.path}: no frame at byte {offset:#x}")
        return head, FRAME_HEADER + struct.unpack_from("<I", head, 0x0C)[0]

    def read_footer(self):
        """3.3; the hash is proved by `Image.open_pack`, which can read the frames that it covers."""
        at = f"{self.path}: the footer"
        need(self.len >= len(self.header) + FOOTER, f"{at} is missing")
        raw = self.read(self.len - FOOTER, FOOTER)
        (magic, checksum, number, image_id, self.table_offset, self.table_len, self.place_map_count,
         self.catalogue_offset, self.catalogue_len, reserved, self.place_map_offset, file_len, reserved2,
         self.footer_hash) = struct.unpack("<8sII16sQIIQIIQQ16s32s", raw)
        need(magic == b"hikaeFT\n", f"{at} is missing")
        need(zlib.crc32(raw[:8] + bytes(4) + raw[12:]) == checksum, f"{at}'s checksum is wrong")
        need(number == self.number and image_id == self.image_id, f"{at} is of another pack")
        need(file_len == self.len, f"{at} says {file_len} bytes, the file has {self.len}")
        need(reserved == 0 and reserved2 == bytes(16), f"{at}: reserved bytes are not 0")
        self.footer_middle = raw[0x0C:0x60]


class Image:
    def __init__(self, path, folders):
        self.packs = {}
        self.maps = {}
        self.opened = set()
        self.problems = []
        self.cached_base = (None, None)
        self.find_packs(path, folders)
        self.open_catalogue()

    def problem(self, what):
        """Something that does not prevent reading the rest."""
        self.problems.append(what)
        print(f"hikread: {what}", file=sys.stderr)

    def find_packs(self, path, folders):
        """2: the header decides what a file is, its name only helps to find it."""
        name = os.path.basename(path)
        need(name.endswith(".hik"), f"{path}: the name of an image ends in .hik")
        stem = name[:-len(".hik")] + "."
        found = []
        for folder in [os.path.dirname(path) or "."] + folders:
            for file in sorted(os.listdir(folder)):
                if file == name or file.startswith(stem) and file.endswith(".hik"):
                    try:
                        found.append((file != name, Pack(os.path.join(folder, file))))
                    except Damage as damage:
                        self.problem(damage)
        need(found, f"{path}: no pack of this image is here")
        found.sort(key=lambda item: item[0])
        self.image_id = found[0][1].image_id
        self.chunk_log2 = found[0][1].chunk_log2
        for _, pack in found:
            if pack.image_id != self.image_id:
                continue
            need(pack.chunk_log2 == self.chunk_log2, f"{pack.path}: another chunk size than the other packs")
            self.packs.setdefault(pack.number, pack)

    def open_catalogue(self):
        """5: the newest pack's catalogue, or that of the newest pack whose catalogue can be read."""
        self.catalogue = None
        for number in sorted(self.packs, reverse=True):
            pack = self.packs[number]
            try:
                pack.read_footer()
                catalogue = self.read_catalogue(pack)
                self.prove_footer(pack, catalogue)
            except Damage as damage:
                self.problem(f"{damage}; an older catalogue serves, newer generations are not seen")
                continue
            self.newest, self.catalogue = pack, catalogue
            self.opened.add(number)
            return
        raise Damage("no pack with a catalogue that can be read")

    def read_catalogue(self, pack):
        place = (pack.number, pack.catalogue_len, pack.catalogue_offset)
        data, _ = self.read_frame(pack, place, CATALOGUE)
        need(len(data) >= 0x10, "the catalogue is too short")
        version, pack_count, generation_count, next_generation = struct.unpack_from("<IIII", data)
        need(version == 1, f"catalogue of version {version}")
        need(len(data) == 0x10 + 56 * pack_count + 64 * generation_count, "the catalogue's length is wrong")
        packs, generations = {}, {}
        at, last = 0x10, -1
        for _ in range(pack_count):
            number, flags, file_len, replaced_by, reserved, footer_hash = struct.unpack_from("<IIQII32s", data, at)
            need(number > last and number < pack.number, "the catalogue's packs are not in order")
            need(flags in (0, 1) and reserved == 0, "unknown flags or reserved bytes in the catalogue")
            packs[number] = (flags == 1, file_len, replaced_by, footer_hash)
            at, last = at + 56, number
        last = 0
        for _ in range(generation_count):
            number, reserved, created, in_pack, length, offset, record_id = struct.unpack_from("<IIQIIQ32s", data, at)
            need(number > last and number < next_generation, "the catalogue's generations are not in order")
            need(reserved == 0, "reserved bytes of the catalogue are not 0")
            generations[number] = ((in_pack, length, offset), record_id, created)
            at, last = at + 64, number
        return packs, generations

    def prove_footer(self, pack, catalogue):
        """3.3: the hash over header, footer and the ids of table, record (behind the table) and catalogue."""
        record = bytes(32)
        for (in_pack, _, offset), record_id, _ in catalogue[1].values():
            if in_pack == pack.number and offset > pack.table_offset:
                record = record_id
        ids = self.frame_id(pack, pack.table_offset) + record + self.frame_id(pack, pack.catalogue_offset)
        proved = derived("hikae 2026 pack v1", pack.header + pack.footer_middle + ids)
        need(proved == pack.footer_hash, f"{pack.path}: the footer's hash is wrong")

    def frame_id(self, pack, offset):
        return pack.frame(offset)[0][0x28:0x48]

    def pack(self, number):
        """A pack whose footer is proved and is the one that the catalogue names."""
        need(number in self.packs, f"pack {number} is missing")
        pack = self.packs[number]
        if number not in self.opened:
            need(number in self.catalogue[0], f"{pack.path}: the catalogue does not know this pack")
            _, file_len, _, footer_hash = self.catalogue[0][number]
            pack.read_footer()
            self.prove_footer(pack, self.read_catalogue(pack))
            need(pack.len == file_len and pack.footer_hash == footer_hash, f"{pack.path}: the catalogue has another one")
            self.opened.add(number)
        return pack

    # -- 3.2 Frames ---------------------------------------------------------------------------------------------------

    def read_frame(self, pack, place, kind, wanted_id=None, may_be_difference=True):
        """Decoded bytes and id of a frame, after every check that the page asks for."""
        _, length, offset = place
        at = f"{pack.path}: the frame at byte {offset:#x}"
        need(length >= FRAME_HEADER and offset >= len(pack.header), f"{at} cannot be one")
        need(offset + length <= pack.len - FOOTER, f"{at} reaches past the last frame")
        raw = pack.read(offset, length)
        (magic, checksum, found, codec, flags, payload_len, logical_len, base_pack, base_len, reserved, base_offset,
         frame_id) = struct.unpack_from("<4sIBBHIIIIIQ32s", raw)
        need(magic == b"\xf5hkF", f"{at} has no magic")
        limit = 1 << self.chunk_log2 if kind == CHUNK else LIMITS[kind]
        need(found == kind, f"{at} is of type {found}, not {kind}")
        need(flags == 0 and reserved == 0, f"{at} has unknown flags or reserved bytes")
        need(logical_len <= limit and payload_len <= logical_len, f"{at} is longer than allowed")
        need(FRAME_HEADER + payload_len == length, f"{at} has another length than its place says")
        need(zlib.crc32(raw[8:]) == checksum, f"{at}: the checksum is wrong")
        payload = raw[FRAME_HEADER:]
        if codec == ZSTD_WITH_BASE:
            need(kind == CHUNK and may_be_difference, f"{at} may not be a difference")
            base = self.read_base((base_pack, base_len, base_offset))
        else:
            need((base_pack, base_len, base_offset) == (0, 0, 0), f"{at} names a base and is no difference")
            base = None
        data = decode(codec, payload, logical_len, base, at)
        need(len(data) == logical_len, f"{at} decodes to {len(data)} bytes, not {logical_len}")
        if kind == CHUNK:
            proved = blake3.blake3(data).digest()
        elif kind == NODE:
            proved = derived(CONTEXTS[NODE], Node(data, at).without_places)
        else:
            proved = derived(CONTEXTS[kind], data)
        need(proved == frame_id, f"{at}: the id is wrong")
        need(wanted_id in (None, proved), f"{at} is whole, but not what the pointer names")
        return data, proved

    def read_base(self, place):
        """The base of a difference: a whole chunk. Neighbours have neighbouring bases, so only the last is kept."""
        if self.cached_base[0] != place:
            pack, place_now = self.resolve(place)
            self.cached_base = (place, self.read_frame(pack, place_now, CHUNK, may_be_difference=False)[0])
        return self.cached_base[1]

    def read_pointer(self, pointer, kind):
        wanted_id, place = pointer
        pack, place = self.resolve(place)
        return self.read_frame(pack, place, kind, wanted_id)[0]

    # -- 7. Place map -------------------------------------------------------------------------------------------------

    def is_replaced(self, number):
        return number in self.catalogue[0] and self.catalogue[0][number][0]

    def resolve(self, place):
        """Where a frame lies now."""
        if not self.is_replaced(place[0]):
            return self.pack(place[0]), place
        replaced_by = self.catalogue[0][place[0]][2]
        if replaced_by not in self.maps:
            self.maps[replaced_by] = self.read_place_map(self.pack(replaced_by))
        need(place in self.maps[replaced_by], f"the place map of pack {replaced_by} does not list {place}")
        now = self.maps[replaced_by][place]
        need(not self.is_replaced(now[0]), f"the place map of pack {replaced_by} leads to a replaced pack")
        return self.pack(now[0]), now

    def read_place_map(self, pack):
        places, offset, last = {}, pack.place_map_offset, (-1, -1)
        for _ in range(pack.place_map_count):
            _, length = pack.frame(offset)
            data, _ = self.read_frame(pack, (pack.number, length, offset), PLACE_MAP)
            need(len(data) >= 8, "a place map segment is too short")
            count, reserved = struct.unpack_from("<II", data)
            need(1 <= count <= 65536 and reserved == 0 and len(data) == 8 + 32 * count, "a place map segment is wrong")
            for old_pack, old_len, old_offset, new_pack, new_len, new_offset in struct.iter_unpack("<IIQIIQ", data[8:]):
                need((old_pack, old_offset) > last, "the place map is not in order")
                last = (old_pack, old_offset)
                places[old_pack, old_len, old_offset] = (new_pack, new_len, new_offset)
            offset += length
        return places

    # -- 6. Generations -----------------------------------------------------------------------------------------------

    def record(self, number):
        place, record_id, _ = self.catalogue[1][number]
        record = json.loads(self.read_frame(self.pack(place[0]), place, RECORD, record_id)[0].decode("utf-8"))
        need(record["format"] == 1, f"generation {number}: record of format {record['format']}")
        need(record["image"] == self.image_id.hex(), f"generation {number}: the record is of another image")
        need(record["generation"] == number, f"generation {number}: the record is of generation {record['generation']}")
        need(record["chunk_size"] == 1 << self.chunk_log2, f"generation {number}: another chunk size than the packs")
        return record

    def walk(self, record):
        """Yields (offset, length, kind, bytes) of the whole disk in ascending order; bytes is None where not Data."""
        size = 1 << self.chunk_log2
        length = record["disk"]["len"]
        chunks = -(-length // size)
        level = 0
        while 256 ** (level + 1) < chunks:
            level += 1
        root = record["root"]
        need(root["level"] == level <= 7, f"the root has level {root['level']}, the disk needs {level}")
        pointer = (bytes.fromhex(root["id"]), (root["pack"], root["len"], root["offset"]))
        if length:
            yield from self.walk_node(pointer, level, 0, chunks, length)

    def walk_node(self, pointer, level, first, last, length):
        """`first` to `last` are the chunks of the disk that this node describes."""
        size = 1 << self.chunk_log2
        span = 256 ** level
        node = Node(self.read_pointer(pointer, NODE), f"node of level {level} over chunk {first}")
        need(node.level == level, f"a node has level {node.level}, not {level}")
        need(node.slots == -(-(last - first) // span), f"a node has {node.slots} slots over {last - first} chunks")
        chunk = first
        for kind, count, runs, child in node.items:
            end = min(chunk + count * span, last)
            start_byte, end_byte = chunk * size, min(end * size, length)
            if kind is not None:
                yield start_byte, end_byte - start_byte, kind, None
            elif level > 0:
                yield from self.walk_node(child, level - 1, chunk, end, length)
            else:
                yield from self.walk_chunk(start_byte, end_byte - start_byte, runs, child)
            chunk = end

    def walk_chunk(self, start, length, runs, child):
        data = None
        if child is not None:
            data = self.read_pointer(child, CHUNK)
            need(len(data) == length, f"the chunk at byte {start:#x} has {len(data)} bytes, not {length}")
        at = 0
        need(runs is None or sum(run for _, run in runs) == -(-length // 512), f"runs at {start:#x} do not add up")
        for kind, sectors in runs or [(DATA, -(-length // 512))]:
            run = min(sectors * 512, length - at)
            piece = data[at:at + run] if data is not None else None
            need(kind == DATA or not piece or not any(piece), f"the chunk at {start:#x} has bytes where it has no data")
            yield start + at, run, kind, piece if kind == DATA else None
            at += run

    # -- 4. Tables; everything ----------------------------------------------------------------------------------------

    def check_pack(self, pack):
        """Every frame in its order, and the table against them. Returns the codecs met."""
        offset, seen, kinds, codecs = len(pack.header), [], [], []
        while offset < pack.len - FOOTER:
            head, length = pack.frame(offset)
            kind = head[8]
            need(kind in (CHUNK, *LIMITS), f"{pack.path}: unknown frame type {kind} at byte {offset:#x}")
            _, frame_id = self.read_frame(pack, (pack.number, length, offset), kind)
            if kind in (CHUNK, NODE):
                seen.append((frame_id, pack.number, offset, length))
            kinds.append(kind)
            codecs.append(head[9])
            need(kind != TABLE or offset == pack.table_offset, f"{pack.path}: a table that the footer does not name")
            offset += length
        front = kinds[:kinds.index(TABLE) - pack.place_map_count] if TABLE in kinds else kinds
        behind = [PLACE_MAP] * pack.place_map_count + [TABLE]
        need(all(kind in (CHUNK, NODE) or kind == RECORD and pack.place_map_count for kind in front)
             and kinds[len(front):] in (behind + [CATALOGUE], behind + [RECORD, CATALOGUE]),
             f"{pack.path}: frames out of order")
        table, _ = self.read_frame(pack, (pack.number, pack.table_len, pack.table_offset), TABLE)
        need(sorted(seen) == read_table(table, pack), f"{pack.path}: the table does not list what the pack holds")
        return codecs


def decode(codec, payload, logical_len, base, at):
    try:
        if codec == STORED:
            return payload
        if codec == ZSTD:
            return zstandard.ZstdDecompressor().decompress(payload, logical_len, allow_extra_data=False)
        if codec == LZ4:
            return lz4.block.decompress(payload, uncompressed_size=logical_len)
        if codec == ZSTD_WITH_BASE:
            prefix = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            return zstandard.ZstdDecompressor(prefix).decompress(payload, logical_len, allow_extra_data=False)
    except (zstandard.ZstdError, lz4.block.LZ4BlockError) as error:
        raise Damage(f"{at} cannot be decoded: {error}") from error
    raise Damage(f"{at} has the unknown codec {codec}")


def read_table(data, pack):
    """4: entries (id, pack, offset, frame length) of all blocks."""
    at = f"{pack.path}: the table"
    need(len(data) % 4096 == 0, f"{at} is not made of blocks")
    entries = []
    for start in range(0, len(data), 4096):
        block = data[start:start + 4096]
        checksum, count, reserved = struct.unpack_from("<IHH", block)
        need(zlib.crc32(block[4:]) == checksum, f"{at}: a block's checksum is wrong")
        last = start + 4096 == len(data)
        need(1 <= count <= 85 and (count == 85 or last) and reserved == 0, f"{at}: a block's count is wrong")
        need(not any(block[8 + 48 * count:]), f"{at}: a block does not end in zeros")
        for entry_id, number, length, offset in struct.iter_unpack("<32sIIQ", block[8:8 + 48 * count]):
            entries.append((entry_id, number, offset, length))
    need(entries == sorted(entries), f"{at} is not in order")
    return entries


class Node:
    """6.1: a decoded node. Items are (kind or None, slots, runs or None, pointer or None)."""

    def __init__(self, data, at):
        need(len(data) >= 4, f"{at} is too short for a node")
        self.level, reserved, self.slots = struct.unpack_from("<BBH", data)
        need(reserved == 0 and self.level <= 7 and 1 <= self.slots <= 256, f"{at} has a wrong head")
        self.items, self.at, self.data, kept = [], 4, data, [data[:4]]
        described, before = 0, None
        try:
            while described < self.slots:
                start = self.at
                tag = self.take("<B")[0]
                if tag <= BAD:
                    count = self.take("<H")[0]
                    need(count >= 1 and tag != before, f"{at}: fills are not merged")
                    self.items.append((tag, count, None, None))
                    kept.append(data[start:self.at])
                    before = tag
                else:
                    need(tag <= 5 and (tag == 3 or self.level == 0), f"{at}: item {tag} on level {self.level}")
                    count, before = 1, None
                    runs = self.take_runs(tag, at) if tag in (4, 5) else None
                    pointer = None
                    if tag in (3, 4):
                        proved, pack, length, offset = self.take("<32sIIQ")
                        pointer = (proved, (pack, length, offset))
                    self.items.append((None, 1, runs, pointer))
                    kept.append(data[start:self.at - (16 if pointer else 0)])
                described += count
        except struct.error as error:
            raise Damage(f"{at}: the node ends early") from error
        need(described == self.slots and self.at == len(data), f"{at}: items and slots do not agree")
        self.without_places = b"".join(kept)

    def take(self, layout):
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def take_runs(self, tag, at):
        count = self.take("<H")[0]
        need(count >= 2, f"{at}: a mixed chunk with one run")
        runs = [(run >> 30, run & 0x3FFFFFFF) for run in self.take(f"<{count}I")]
        need(all(length for _, length in runs), f"{at}: an empty run")
        need(all(a[0] != b[0] for a, b in zip(runs, runs[1:])), f"{at}: neighbouring runs of one kind")
        need(any(kind == DATA for kind, _ in runs) == (tag == 4), f"{at}: runs that do not fit their item")
        return runs


# -- Commands ---------------------------------------------------------------------------------------------------------


def choose(image, wish):
    numbers = sorted(image.catalogue[1])
    need(numbers, "the image has no generation")
    if wish in ("", "latest"):
        return numbers[-1]
    if wish.startswith("~") and wish[1:].isdigit() and int(wish[1:]) < len(numbers):
        return numbers[-1 - int(wish[1:])]
    need(wish.isdigit() and int(wish) in numbers, f"there is no generation {wish}")
    return int(wish)


def list_generations(image):
    print(f"{'generation':>10}  {'created':20}  {'disk bytes':>14}  {'data bytes':>14}  root and label")
    for number in sorted(image.catalogue[1]):
        record = image.record(number)
        print(f"{number:>10}  {record['created']:20}  {record['disk']['len']:>14}  {record['counts']['data']:>14}  "
              f"{record['root']['id']} {record.get('label') or ''}".rstrip())


def extract(image, number, out):
    """Writes the disk; where it is not Data the file has holes. Returns the unreadable ranges."""
    record, bad, at = image.record(number), [], 0
    with open(out, "wb") as file:
        for offset, length, kind, data in image.walk(record):
            need(offset == at, "the tree does not tile the disk")
            at += length
            if kind == DATA:
                os.pwrite(file.fileno(), data, offset)
            elif kind == BAD:
                bad.append((offset, length))
        need(at == record["disk"]["len"], "the tree does not cover the disk")
        file.truncate(record["disk"]["len"])
    return bad


def check(image):
    codecs = []
    for number in sorted(image.packs):
        if not image.is_replaced(number):
            codecs += image.check_pack(image.pack(number))
    for number in image.catalogue[0]:
        need(number in image.packs or image.is_replaced(number), f"pack {number} is missing")
    for number in sorted(image.catalogue[1]):
        record, totals = image.record(number), [0, 0, 0, 0]
        for _, length, kind, _ in image.walk(record):
            totals[kind] += length
        named = [record["counts"][key] for key in ("absent", "zero", "bad", "data")]
        need(totals == named, f"generation {number}: counts {named} in the record, {totals} in the tree")
    names = {STORED: "stored", ZSTD: "zstd", LZ4: "lz4", ZSTD_WITH_BASE: "differences"}
    counts = ", ".join(f"{codecs.count(codec)} {name}" for codec, name in names.items())
    print(f"whole: {len(image.packs)} packs, {len(codecs)} frames ({counts}), {len(image.catalogue[1])} generations")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", metavar="FOLDER", action="append", default=[])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list").add_argument("image")
    extracting = commands.add_parser("extract")
    extracting.add_argument("image")
    extracting.add_argument("out")
    commands.add_parser("check").add_argument("image")
    arguments = parser.parse_args()
    path, wish = arguments.image, ""
    if arguments.command == "extract" and not os.path.exists(path) and "@" in path:
        path, wish = path.rsplit("@", 1)
    try:
        image = Image(path, arguments.packs)
        if arguments.command == "list":
            list_generations(image)
        elif arguments.command == "check":
            check(image)
            return 1 if image.problems else 0
        else:
            bad = extract(image, choose(image, wish), arguments.out)
            for start, length in bad:
                print(f"unreadable at the source: {length} bytes from {start:#x}", file=sys.stderr)
            return 1 if bad else 0
    except (Damage, OSError) as error:
        print(f"hikread: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
