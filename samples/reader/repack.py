#!/usr/bin/env python3
"""Copies everything that an image holds into one new pack with a place map, as section 7 of docs/format.md says.

    repack.py IMAGE

It is no tool for people: it exists so that both readers can be held against place maps. Afterwards the older packs
can be removed; a second run replaces the result of the first, which tests that maps are flattened.
"""

import os
import struct
import sys
import zlib

import zstandard

from hikread import (CATALOGUE, CHUNK, CONTEXTS, FOOTER, FRAME_HEADER, NODE, PLACE_MAP, RECORD, STORED, TABLE, ZSTD,
                     Image, derived)

SEGMENT = 50  # entries: few, so that even a small image has several segments


class Writer:
    def __init__(self, path, header):
        self.file = open(path + ".partial", "wb")
        self.path, self.header, self.at = path, header, 0
        self.write(header)

    def write(self, data):
        self.file.write(data)
        self.at += len(data)

    def frame(self, kind, data, codec=STORED):
        """Appends a frame made here; returns (length, offset) and its id."""
        payload = zstandard.ZstdCompressor().compress(data) if codec == ZSTD else data
        if len(payload) >= len(data):
            codec, payload = STORED, data
        frame_id = derived(CONTEXTS[kind], data)
        rest = struct.pack("<BBHIIIIIQ32s", kind, codec, 0, len(payload), len(data), 0, 0, 0, 0, frame_id) + payload
        place = (FRAME_HEADER + len(payload), self.at)
        self.write(b"\xf5hkF" + struct.pack("<I", zlib.crc32(rest)) + rest)
        return place, frame_id


def moved_frames(image, writer, number):
    """Copies chunks, nodes and records. Returns old place -> new place of each, and the new table."""
    moved, listed = {}, []
    live = {place for place, _, _ in image.catalogue[1].values()}
    for old in sorted(image.packs):
        if image.is_replaced(old):
            continue
        pack = image.pack(old)
        offset = len(pack.header)
        while offset < pack.len - FOOTER:
            head, length = pack.frame(offset)
            place = (old, length, offset)
            if head[8] in (CHUNK, NODE) or place in live:
                moved[place] = (number, length, writer.at)
                if head[8] != RECORD:
                    listed.append((head[0x28:0x48], number, writer.at, length))
                writer.write(pack.read(offset, length))
            offset += length
    return moved, listed


def table(listed):
    blocks = b""
    listed.sort()
    for start in range(0, len(listed), 85):
        part = listed[start:start + 85]
        entries = b"".join(struct.pack("<32sIIQ", i, pack, length, at) for i, pack, at, length in part)
        body = struct.pack("<HH", len(part), 0) + entries.ljust(85 * 48 + 8, b"\0")
        blocks += struct.pack("<I", zlib.crc32(body)) + body
    return blocks


def repack(path):
    image = Image(path, [])
    newest = image.newest
    number = newest.number + 1
    header = bytearray(newest.header)
    struct.pack_into("<I", header, 0x20, number)
    struct.pack_into("<I", header, 0x0C, 0)
    struct.pack_into("<I", header, 0x0C, zlib.crc32(header))
    writer = Writer(f"{path[:-len('.hik')]}.{number:05}.hik", bytes(header))

    moved, listed = moved_frames(image, writer, number)
    entries = dict(moved)
    for replaced in {entry[2] for entry in image.catalogue[0].values() if entry[0]}:
        for old, now in image.read_place_map(image.pack(replaced)).items():
            entries[old] = moved[now]
    order = sorted(entries, key=lambda place: (place[0], place[2]))
    map_offset, segments = writer.at, 0
    for start in range(0, len(order), SEGMENT):
        part = order[start:start + SEGMENT]
        data = struct.pack("<II", len(part), 0)
        for old in part:
            data += struct.pack("<IIQIIQ", *old, *entries[old])
        writer.frame(PLACE_MAP, data, codec=(STORED, ZSTD)[segments % 2])
        segments += 1
    (table_len, table_at), table_id = writer.frame(TABLE, table(listed))

    packs = {old: (entry[1], entry[3]) for old, entry in image.catalogue[0].items()}
    packs[newest.number] = (newest.len, newest.footer_hash)
    generations = sorted(image.catalogue[1].items())
    data = struct.pack("<IIII", 1, len(packs), len(generations), generations[-1][0] + 1)
    for old, (file_len, footer_hash) in sorted(packs.items()):
        data += struct.pack("<IIQII32s", old, 1, file_len, number, 0, footer_hash)
    for generation, (place, record_id, created) in generations:
        data += struct.pack("<IIQIIQ32s", generation, 0, created, *moved[place], record_id)
    (catalogue_len, catalogue_at), catalogue_id = writer.frame(CATALOGUE, data, codec=ZSTD)

    middle = struct.pack("<I16sQIIQIIQQ16s", number, image.image_id, table_at, table_len, segments, catalogue_at,
                         catalogue_len, 0, map_offset, writer.at + FOOTER, bytes(16))
    proved = derived("hikae 2026 pack v1", bytes(header) + middle + table_id + bytes(32) + catalogue_id)
    footer = b"hikaeFT\n" + bytes(4) + middle + proved
    writer.write(footer[:8] + struct.pack("<I", zlib.crc32(footer)) + footer[12:])
    writer.file.close()
    os.rename(writer.path + ".partial", writer.path)
    print(f"{writer.path}: {len(listed)} chunks and nodes, {len(entries)} places in {segments} segments")


if __name__ == "__main__":
    repack(sys.argv[1])
