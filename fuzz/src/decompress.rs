//! What every decompressor must stand: no panic, nothing written outside of its room, and the same bytes every time.

/// Decompresses into all of a room, or says which rule is broken.
type Decompress = fn(&[u8], &mut [u8]) -> Result<(), &'static str>;

/// Bytes around the room.
const MARGIN: usize = 64;

/// Calls `decompress` with rooms of several sizes.
pub(crate) fn run(data: &[u8], decompress: Decompress) {
    for room in [0, 1, 100, 2490, 4096, 16384, 32768] {
        let (first, second) =
            (decompress_into(data, room, 0x55, decompress), decompress_into(data, room, 0xaa, decompress));
        assert_eq!(first, second, "what is decompressed does not hang on what lay there before");
    }
}

fn decompress_into(data: &[u8], room: usize, fill: u8, decompress: Decompress) -> Option<Vec<u8>> {
    let mut buf = vec![fill; room.saturating_add(MARGIN).saturating_add(MARGIN)];
    let end = MARGIN.saturating_add(room);
    let done = decompress(data, buf.get_mut(MARGIN..end).expect("a room between margins"));
    let untouched = |margin: Option<&[u8]>| margin.is_some_and(|margin| margin.iter().all(|byte| *byte == fill));
    assert!(untouched(buf.get(..MARGIN)) && untouched(buf.get(end..)), "the margins are untouched");
    done.ok()?;
    buf.get(MARGIN..end).map(<[u8]>::to_vec)
}

/// Calls `run` on a seed, on each of its beginnings, and on mutations of it.
#[cfg(test)]
pub(crate) fn on_mutations(seed: &[u8], run: fn(&[u8])) {
    let mut random = crate::mutate::Random::new(5);
    for end in 0..=seed.len() {
        run(&seed[..end]);
    }
    for _ in 0..3000 {
        let mut data = seed.to_vec();
        let len = data.len();
        crate::mutate::mutate(&mut data, len, &mut random);
        run(&data);
    }
}
