//! Clients that are slow, rude or wrong: they lose their connection, and nobody else notices.

use std::time::{Duration, Instant};

use serve::{Address, Limits};

use crate::client::{LEN, Running, content};

/// A small generator of pseudo-random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Reads the end of the disk and compares it.
fn compare(server: &Running) {
    let mut client = server.ready("");
    let content = content();
    for at in (3 << 20..LEN).step_by(128 << 10) {
        client.request(0, 0, at, at, 64 << 10, &[]);
        let reply = client.reply();
        let at = at as usize;
        assert!(reply.done && reply.data[8..] == content[at..at + (64 << 10)], "at {at}");
    }
}

#[test]
fn bytes_of_no_sense_end_their_connection_only() {
    let server = Running::start(Limits { handshake: Duration::from_secs(2), ..Limits::default() });
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..300_u32 {
        let mut client = match round % 3 {
            // Before the greeting, in the options, and among the requests.
            0 => server.connect(),
            1 => {
                let mut client = server.connect();
                client.greet();
                client
            }
            _ => server.ready("writable"),
        };
        let mut bytes: Vec<u8> = (0..random.next() % 300).map(|_| random.next() as u8).collect();
        if round % 3 == 1 {
            let option = (random.next() % 14) as u32;
            let len = if random.next().is_multiple_of(4) { random.next() as u32 } else { bytes.len() as u32 };
            bytes = [b"IHAVEOPT", &option.to_be_bytes()[..], &len.to_be_bytes(), &bytes].concat();
        }
        if round % 3 == 2 {
            // Requests that may not write: the magic, then noise where commands other than reads are out of range.
            let command = [0_u16, 5, 7, 99][(random.next() % 4) as usize];
            let offset = random.next() >> (random.next() % 64);
            let fields = [
                &0x2560_9513_u32.to_be_bytes()[..],
                &(random.next() as u16 & 15).to_be_bytes(),
                &command.to_be_bytes(),
                &random.next().to_be_bytes(),
                &offset.to_be_bytes(),
                &((random.next() >> (32 + random.next() % 32)) as u32).to_be_bytes(),
            ];
            bytes = fields.concat();
        }
        // The server may have ended the connection before all is sent.
        let _ = std::io::Write::write_all(&mut client.0, &bytes);
        let _ = client.0.shutdown(std::net::Shutdown::Write);
        assert!(client.is_ended(), "round {round}");
    }
    compare(&server);
}

#[test]
fn a_slow_handshake_is_ended_and_a_silent_client_is_not() {
    let server = Running::start(Limits { handshake: Duration::from_millis(700), ..Limits::default() });
    let mut silent = server.ready("");
    let mut slow = server.connect();
    slow.greet();
    let started = Instant::now();
    // One byte now and then gains nothing.
    while started.elapsed() < Duration::from_millis(1500) {
        let _ = std::io::Write::write_all(&mut slow.0, b"I");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(slow.is_ended());
    silent.request(0, 0, 1, 0, 512, &[]);
    assert_eq!(silent.reply().data.len(), 520);
}

#[test]
fn a_client_that_takes_no_answers_and_one_that_stops_within_a_write_are_ended() {
    let server = Running::start(Limits { stall: Duration::from_millis(500), ..Limits::default() });
    let mut deaf = server.ready("");
    // More than the buffers of the sockets hold.
    for cookie in 0..200 {
        if std::io::Write::write_all(&mut deaf.0, &request(cookie)).is_err() {
            break;
        }
    }
    let mut torn = server.ready("writable");
    torn.request(0, 1, 1, 0, 8192, &[9; 100]);
    compare(&server);
    assert!(torn.is_ended());
    assert!(*server.model.0.read().unwrap() == content(), "half a write is no write");
    std::thread::sleep(Duration::from_millis(1500));
    // What was on its way is there, then comes the end.
    assert!(deaf.is_ended());
}

#[test]
fn a_client_that_takes_no_answers_to_its_options_is_ended() {
    let limits = Limits { connections: 1, handshake: Duration::from_millis(700), ..Limits::default() };
    let server = Running::start(limits);
    let mut deaf = server.connect();
    deaf.greet();
    deaf.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // Each of these has a MiB of answers.
    let name = [&8_u32.to_be_bytes()[..], b"writable", &30_000_u16.to_be_bytes(), &[0, 1].repeat(30_000)].concat();
    let info = [b"IHAVEOPT", &6_u32.to_be_bytes()[..], &(name.len() as u32).to_be_bytes(), &name].concat();
    for _ in 0..40 {
        if std::io::Write::write_all(&mut deaf.0, &info).is_err() {
            break;
        }
    }
    std::thread::sleep(Duration::from_millis(1500));
    // There is room for one connection, and this one has it now.
    compare(&server);
}

#[cfg(unix)]
#[test]
fn requests_that_cannot_be_done_wait_as_others_do() {
    use std::io::{ErrorKind, Read, Write};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = Running::start_at(&Address::Unix(path.clone()), Limits { in_flight: 1 << 20, ..Limits::default() });
    let mut deaf = std::os::unix::net::UnixStream::connect(path).unwrap();
    deaf.read_exact(&mut [0; 18]).unwrap();
    deaf.write_all(&[&[0, 0, 0, 3], &b"IHAVEOPT"[..], &7_u32.to_be_bytes(), &6_u32.to_be_bytes(), &[0; 6]].concat())
        .unwrap();
    deaf.read_exact(&mut [0; 52]).unwrap();
    deaf.set_nonblocking(true).unwrap();
    // Reads of 4 GiB, whose answers nobody takes: the server must stop to take more of them.
    let fields = [&0x2560_9513_u32.to_be_bytes()[..], &[0; 4], &[0; 16], &u32::MAX.to_be_bytes()].concat();
    let requests = fields.repeat(1000);
    let (mut taken, started) = (0, Instant::now());
    while started.elapsed() < Duration::from_millis(1500) {
        match deaf.write(&requests[taken % 28..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(taken < 1 << 20, "{taken} bytes of requests are waiting");
    drop(deaf);
    drop(server);
}

fn request(cookie: u64) -> Vec<u8> {
    let at: u64 = 3 << 20;
    let fields = [
        &0x2560_9513_u32.to_be_bytes()[..],
        &[0; 4],
        &cookie.to_be_bytes(),
        &at.to_be_bytes(),
        &(1_u32 << 20).to_be_bytes(),
    ];
    fields.concat()
}

#[test]
fn many_connections_are_served_and_one_too_many_is_closed() {
    let server = Running::start(Limits { connections: 65, ..Limits::default() });
    let mut clients: Vec<_> = (0..64).map(|_| server.ready("")).collect();
    compare(&server);
    for (cookie, client) in clients.iter_mut().enumerate() {
        for at in 0..4_u64 {
            client.request(0, 0, cookie as u64, (3 << 20) + at * 65_536, 65_536, &[]);
        }
    }
    let content = content();
    for (cookie, client) in clients.iter_mut().enumerate() {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let reply = client.reply();
            assert_eq!(reply.cookie, cookie as u64);
            let at = u64::from_be_bytes(reply.data[..8].try_into().unwrap());
            assert!(reply.data[8..] == content[at as usize..at as usize + 65_536]);
            seen.push(at);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4, "each request has one answer");
    }
    let _one_more = server.ready("");
    let mut too_many = server.connect();
    assert!(too_many.is_ended());
}

/// Ends a server. Fails where it does not end.
fn end(server: Running) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(server);
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(20)).expect("a server that was told to end goes on");
}

#[cfg(unix)]
#[test]
fn a_server_whose_socket_was_removed_ends_and_removes_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let start = || Running::start_at(&Address::Unix(path.clone()), Limits::default());
    end(start());
    assert!(!path.exists());
    let server = start();
    std::fs::remove_file(&path).unwrap();
    let newer = start();
    end(server);
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    end(newer);
    assert!(!path.exists());
    let server = start();
    drop(folder);
    end(server);
}

#[test]
fn a_server_at_all_addresses_ends() {
    end(Running::start_at(&Address::Tcp("0.0.0.0:0".to_owned()), Limits::default()));
}
