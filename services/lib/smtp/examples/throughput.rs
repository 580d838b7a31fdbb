//! How fast content and commands pass through the codec, on one core:
//! `cargo run --release -p smtp --example throughput`.

use std::hint::black_box;
use std::time::Instant;

use smtp::{CommandDecoder, DataDecoder, DataEncoder, ReplyDecoder};

/// Size of the pieces in which content arrives, bytes.
const PIECE: usize = 16 * 1024;
const ROUNDS: usize = 9;

fn main() {
    for (name, line) in [
        ("lines of 78 octets", "x".repeat(76) + "\r\n"),
        ("lines of 20 octets", "x".repeat(18) + "\r\n"),
        (
            "every line with a dot",
            ".".to_owned() + &"x".repeat(75) + "\r\n",
        ),
    ] {
        let content = line.repeat(1024 * 1024 / line.len()).into_bytes();
        let mut encoded = Vec::new();
        let mut encoder = DataEncoder::new();
        encoder.encode(&content, &mut encoded);
        encoder.finish(&mut encoded);

        let mut out = Vec::with_capacity(encoded.len() * 2);
        report(name, "decode", encoded.len(), || {
            out.clear();
            let mut decoder = DataDecoder::new(u64::MAX);
            for piece in encoded.chunks(PIECE) {
                black_box(decoder.decode(piece, &mut out));
            }
        });
        report(name, "encode", content.len(), || {
            out.clear();
            let mut encoder = DataEncoder::new();
            for piece in content.chunks(PIECE) {
                encoder.encode(black_box(piece), &mut out);
            }
            encoder.finish(&mut out);
        });
        report(name, "passes_unchanged", content.len(), || {
            black_box(DataEncoder::passes_unchanged(black_box(&content)));
        });
    }
    each("MAIL with SIZE", || {
        black_box(CommandDecoder::new().decode(black_box(
            b"MAIL FROM:<bounce@news.example.com> SIZE=10240 BODY=8BITMIME\r\n",
        )));
    });
    each("RCPT", || {
        black_box(CommandDecoder::new().decode(black_box(b"RCPT TO:<somebody@example.com>\r\n")));
    });
    each("reply of one line", || {
        black_box(ReplyDecoder::new().decode(black_box(b"250 2.1.5 Recipient ok\r\n")));
    });
}

/// The best of several rounds over a few hundred MiB in all.
fn report(name: &str, what: &str, octets: usize, mut run: impl FnMut()) {
    let repeats = 64;
    let best = best_of_rounds(repeats, &mut run);
    let megabytes = (octets * repeats) as f64 / 1e6;
    println!("{name:24} {what:18} {:8.0} MB/s", megabytes / best);
}

fn each(name: &str, mut run: impl FnMut()) {
    let repeats = 200_000;
    let best = best_of_rounds(repeats, &mut run);
    println!("{name:24} {:8.0} ns", best * 1e9 / repeats as f64);
}

/// Seconds.
fn best_of_rounds(repeats: usize, run: &mut impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..repeats {
            run();
        }
        best = best.min(begin.elapsed().as_secs_f64());
    }
    best
}
