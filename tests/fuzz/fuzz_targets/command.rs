//! Commands: the same in whatever pieces, and what was read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::{AuthLineDecoder, Command, CommandDecoder, ForwardPath, write};

fuzz_target!(|input: &[u8]| {
    let (whole, pieces) = fuzz::pieces(input);
    let mut decoder = CommandDecoder::new();
    let commands = fuzz::items(&pieces, |input| decoder.decode(input));
    let mut decoder = CommandDecoder::new();
    assert_eq!(
        commands,
        fuzz::items(&[whole], |input| decoder.decode(input))
    );

    let mut decoder = AuthLineDecoder::new();
    let lines = fuzz::items(&pieces, |input| decoder.decode(input));
    let mut decoder = AuthLineDecoder::new();
    assert_eq!(lines, fuzz::items(&[whole], |input| decoder.decode(input)));

    for (_, command) in commands {
        match command {
            Ok(command) => write_and_read_again(command),
            Err(error) => {
                let mut reply = Vec::new();
                error.write(&mut reply);
                assert!(reply.starts_with(b"5") && reply.ends_with(b"\r\n"));
            }
        }
    }
});

fn write_and_read_again(mut command: Command) {
    if let Command::Mail { params, .. } = &mut command {
        // Never passed on.
        params.release = None;
    }
    let mut line = Vec::new();
    match &command {
        Command::Ehlo(name) => write::ehlo(&mut line, name),
        Command::Helo(name) => write::helo(&mut line, name),
        Command::Auth {
            mechanism,
            initial_response,
        } => {
            write::auth(
                &mut line,
                mechanism,
                initial_response.as_ref().map(|response| response.expose()),
            );
        }
        Command::Mail {
            return_path,
            params,
        } => write::mail(&mut line, return_path.as_ref(), params),
        Command::Rcpt {
            address: ForwardPath::Mailbox(address),
            params,
        } => write::rcpt(&mut line, address, params),
        Command::Bdat { size, last } => write::bdat(&mut line, *size, *last),
        _ => return,
    }
    let decoded = CommandDecoder::new().decode(&line);
    assert_eq!(
        (decoded.consumed, decoded.item),
        (line.len(), Some(Ok(command)))
    );
}
