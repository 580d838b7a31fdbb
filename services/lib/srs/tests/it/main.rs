//! The same addresses as postsrsd makes and takes, with the same secrets.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mail::{Address, Domain};
use srs::{Rewriter, Secrets};

const PROGRAM: &str = "/usr/sbin/postsrsd";
const SECRETS: &str = "the secret that signs\nthe secret that signed before\n";

/// postsrsd, which answers on two ports.
struct Postsrsd {
    process: Child,
    forward: SocketAddr,
    reverse: SocketAddr,
}

impl Drop for Postsrsd {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn free_address() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

impl Postsrsd {
    fn start(secrets: &Path, hash_length: u32) -> Self {
        let (forward, reverse) = (free_address(), free_address());
        let length = hash_length.to_string();
        let process = Command::new(PROGRAM)
            .args(["-d", "ours.example", "-l", "127.0.0.1", "-4", "-s"])
            .arg(secrets)
            .args(["-n", &length, "-N", &length])
            .args(["-f", &forward.port().to_string()])
            .args(["-r", &reverse.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut started = Self {
            process,
            forward,
            reverse,
        };
        let deadline = SystemTime::now() + Duration::from_secs(60);
        while TcpStream::connect(reverse).is_err() {
            if started.process.try_wait().unwrap().is_some() {
                // Somebody else was faster at one of the ports.
                return Self::start(secrets, hash_length);
            }
            assert!(SystemTime::now() < deadline, "postsrsd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        started
    }

    /// What it makes of the address; `Err` is its complaint.
    fn ask(&self, address: SocketAddr, key: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("get {key}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let line = line.trim_end();
        match line.split_once(' ') {
            Some(("200", value)) => Ok(value.to_owned()),
            _ => Err(line.to_owned()),
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[test]
fn agrees_with_postsrsd_there_and_back() {
    assert!(
        Path::new(PROGRAM).exists(),
        "`make servers` installs postsrsd"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets");
    std::fs::write(&file, SECRETS).unwrap();
    let ours = Domain::parse("ours.example").unwrap();
    for hash_length in [4, 8] {
        let theirs = Postsrsd::start(&file, hash_length);
        let own = Rewriter::new(Arc::new(Secrets::parse(SECRETS).unwrap()), hash_length, 21);
        for sender in [
            "user@sender.example",
            "User.Name+tag@Sender.EXAMPLE",
            "a=b=c@sender.example",
            "bounces+12-ab=c.example@em.example",
            "SRS0=abcd=JT=first.example=user@second.example",
            "srs0=abcd=JT=first.example=user@second.example",
            "SRS0+abcd=JT=first.example=user@second.example",
            "SRS0-abcd=JT=first.example=user@second.example",
            "SRS1=abcd=first.example==efgh=JT=zero.example=u@second.example",
            "SRS1=abcd=first.example=+efgh=JT=zero.example=u@second.example",
            "SRS0x@sender.example",
            "prvs=1234567890=user@sender.example",
        ] {
            // Midnight may be between the two.
            let before = now();
            let expected = theirs.ask(theirs.forward, sender).unwrap();
            let address = Address::parse(sender).unwrap();
            let made = [before, now()].map(|now| own.forward(&address, &ours, now).unwrap());
            assert!(
                made.iter().any(|path| path.as_str() == expected),
                "{sender}: {expected}, ours {made:?}"
            );
            let path = Address::parse(&expected).unwrap();
            let back = theirs.ask(theirs.reverse, &expected).unwrap();
            assert_eq!(own.reverse(&path, now()).unwrap().as_str(), back);
            let lower = expected.to_ascii_lowercase();
            let back = theirs.ask(theirs.reverse, &lower).unwrap();
            let path = Address::parse(&lower).unwrap();
            assert_eq!(own.reverse(&path, now()).unwrap().as_str(), back);
        }
        // What the second secret signed weeks ago, or in future; and what nobody signed.
        let second = SECRETS.lines().nth(1).unwrap();
        let before = Rewriter::new(Arc::new(Secrets::parse(second).unwrap()), hash_length, 21);
        let sender = Address::parse("user@sender.example").unwrap();
        for days in [-21_i64, -20, 0, -23, -400, 2] {
            let made_at = now().checked_add_signed(days * 86_400).unwrap();
            let path = before.forward(&sender, &ours, made_at).unwrap();
            let taken = own.reverse(&path, now()).is_ok();
            // At the last day midnight decides.
            assert_eq!(
                taken,
                theirs.ask(theirs.reverse, path.as_str()).is_ok(),
                "{path} of {days}"
            );
            assert_eq!(taken, (-21..=0).contains(&days));
        }
        for forged in [
            "SRS0=AAAA=JT=sender.example=user@ours.example",
            "SRS0=AAAAAAAA=JT=sender.example=user@ours.example",
            "SRS0=AAAA=sender.example@ours.example",
            "SRS1=AAAA=sender.example==x@ours.example",
            "SRS1=AAAA=sender.example@ours.example",
            "user@ours.example",
        ] {
            let address = Address::parse(forged).unwrap();
            assert!(own.reverse(&address, now()).is_err(), "{forged}");
            let theirs = theirs.ask(theirs.reverse, forged);
            assert!(theirs.is_err(), "{forged}: {theirs:?}");
        }
    }
}
