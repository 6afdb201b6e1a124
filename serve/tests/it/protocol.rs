//! What a request gets for an answer.

use serve::Limits;

use crate::client::{BAD, HOLE, LEN, Running, content};

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const ZEROES: u16 = 6;
const STATUS: u16 = 7;

/// A simple reply with an error.
fn simple(error: u16) -> u16 {
    0x100 + error
}

/// The error number in a structured reply.
fn error_of(data: &[u8]) -> u32 {
    u32::from_be_bytes(data[..4].try_into().unwrap())
}

#[test]
fn reads_come_in_pieces_with_holes_and_errors_in_their_places() {
    let server = Running::start(Limits::default());
    let mut client = server.ready("");
    let mut bytes = vec![0xcc; (LEN - (HOLE.start - 1000)) as usize];
    client.request(0, READ, 7, HOLE.start - 1000, bytes.len() as u32, &[]);
    let mut holes = 0;
    loop {
        let reply = client.reply();
        assert_eq!(reply.cookie, 7);
        let at = u64::from_be_bytes(reply.data[..8].try_into().unwrap()) - (HOLE.start - 1000);
        match reply.kind {
            1 => bytes[at as usize..at as usize + reply.data.len() - 8].copy_from_slice(&reply.data[8..]),
            2 => {
                let len = u32::from_be_bytes(reply.data[8..].try_into().unwrap());
                assert_eq!((at, u64::from(len)), (1000, HOLE.end - HOLE.start));
                bytes[at as usize..][..len as usize].fill(0);
                holes += 1;
            }
            kind => panic!("kind {kind}"),
        }
        if reply.done {
            break;
        }
    }
    assert!(holes == 1 && bytes == content()[(HOLE.start - 1000) as usize..]);
    // Unreadable sectors: an error with its place, and nothing else after it.
    client.request(0, READ, 8, 0, 2 << 20, &[]);
    let mut last = client.reply();
    while !last.done {
        assert_eq!(last.kind, 1);
        last = client.reply();
    }
    assert_eq!((last.kind, error_of(&last.data)), ((1 << 15) + 2, 5));
    assert_eq!(last.data[6..], BAD.start.to_be_bytes());
    // In one piece where the client wants it so.
    client.request(1 << 2, READ, 9, HOLE.start - 10, 20, &[]);
    let whole = client.reply();
    assert!(whole.done && whole.kind == 1 && whole.data.len() == 28);
}

#[test]
fn block_status_tells_holes_and_allocated_runs() {
    let server = Running::start(Limits::default());
    let mut client = server.ready("");
    client.request(0, STATUS, 1, 4096, (LEN - 4096) as u32, &[]);
    let reply = client.reply();
    let numbers: Vec<u32> = reply.data.chunks(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect();
    assert_eq!((reply.done, reply.kind), (true, 5));
    assert_eq!(numbers, [1, (HOLE.start - 4096) as u32, 0, 1 << 20, 3, 1 << 20, 0]);
    client.request(1 << 3, STATUS, 2, 0, LEN as u32, &[]);
    assert_eq!(client.reply().data.len(), 12, "one run");
    client.request(0, STATUS, 3, 0, 0, &[]);
    assert_eq!(error_of(&client.reply().data), 22);
}

#[test]
fn what_cannot_be_done_is_refused_and_the_connection_goes_on() {
    let server = Running::start(Limits::default());
    let mut client = server.ready("");
    let mut refused = |flags, command, offset, len: u32, error: u16| {
        let payload = if command == WRITE { vec![1; len as usize] } else { Vec::new() };
        client.request(flags, command, 5, offset, len, &payload);
        let reply = client.reply();
        let found = if reply.kind >= 1 << 15 { simple(error_of(&reply.data) as u16) } else { reply.kind };
        assert_eq!((reply.done, reply.cookie, found), (true, 5, simple(error)), "command {command} at {offset}");
    };
    refused(0, WRITE, 0, 512, 1);
    refused(0, ZEROES, 0, 512, 1);
    refused(0, TRIM, 0, 512, 1);
    refused(0, READ, LEN, 1, 22);
    refused(0, READ, u64::MAX, 2, 22);
    refused(0, READ, 0, u32::MAX, 75);
    refused(1 << 9, READ, 0, 1, 22);
    refused(0, 77, 0, 1, 95);
    let mut client = server.ready("writable");
    for command in [WRITE, ZEROES, TRIM] {
        let payload = if command == WRITE { vec![1; 2] } else { Vec::new() };
        client.request(0, command, 6, LEN - 1, 2, &payload);
        assert_eq!(client.reply().kind, simple(28), "past the end there is no space");
    }
    assert!(*server.model.0.read().unwrap() == content(), "nothing was written");
}

#[test]
fn writes_zeroes_and_trims_reach_the_disk() {
    let server = Running::start(Limits::default());
    let mut client = server.ready("writable");
    client.request(1, WRITE, 1, 100, 5, b"hikae");
    assert_eq!(client.reply().kind, simple(0));
    client.request(1 << 1, ZEROES, 2, 8192, 100_000, &[]);
    assert_eq!(client.reply().kind, simple(0));
    client.request(0, TRIM, 3, 3 << 20, 4096, &[]);
    assert_eq!(client.reply().kind, simple(0));
    client.request(0, FLUSH, 4, 0, 0, &[]);
    assert_eq!(client.reply().kind, simple(0));
    let mut expected = content();
    expected[100..105].copy_from_slice(b"hikae");
    expected[8192..108_192].fill(0);
    expected[3 << 20..(3 << 20) + 4096].fill(0);
    assert!(*server.model.0.read().unwrap() == expected);
    // Another connection sees it.
    let mut other = server.ready("");
    other.request(0, READ, 5, 100, 5, &[]);
    assert_eq!(other.reply().data[8..], *b"hikae");
}
