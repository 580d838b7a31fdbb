//! What both sides can and want (SMFIC_OPTNEG).

use super::{Error, write};

/// Of the protocol.
const VERSION: u32 = 6;

/// What a milter may ask for (SMFIF_).
pub(super) mod actions {
    pub const ADD_HEADERS: u32 = 0x01;
    pub const QUARANTINE: u32 = 0x20;
    pub const SET_SYMBOLS: u32 = 0x100;
    pub const OFFERED: u32 = ADD_HEADERS | QUARANTINE | SET_SYMBOLS;
}

/// What a milter need not be told, or need not answer (SMFIP_).
pub(super) mod protocol {
    pub const NO_CONNECT: u32 = 0x01;
    pub const NO_HELO: u32 = 0x02;
    pub const NO_MAIL: u32 = 0x04;
    pub const NO_RCPT: u32 = 0x08;
    pub const NO_BODY: u32 = 0x10;
    pub const NO_HEADERS: u32 = 0x20;
    pub const NO_END_OF_HEADERS: u32 = 0x40;
    pub const SILENT_HEADERS: u32 = 0x80;
    pub const NO_UNKNOWN: u32 = 0x100;
    pub const NO_DATA: u32 = 0x200;
    pub const SKIP: u32 = 0x400;
    pub const SILENT_CONNECT: u32 = 0x1000;
    pub const SILENT_HELO: u32 = 0x2000;
    pub const SILENT_MAIL: u32 = 0x4000;
    pub const SILENT_RCPT: u32 = 0x8000;
    pub const SILENT_DATA: u32 = 0x1_0000;
    pub const SILENT_UNKNOWN: u32 = 0x2_0000;
    pub const SILENT_END_OF_HEADERS: u32 = 0x4_0000;
    pub const SILENT_BODY: u32 = 0x8_0000;
    pub const LEADING_SPACE: u32 = 0x10_0000;
    /// All of them; not that recipients are told which were refused (RCPT_REJ), and no larger packets (MDS).
    pub const OFFERED: u32 = NO_CONNECT
        | NO_HELO
        | NO_MAIL
        | NO_RCPT
        | NO_BODY
        | NO_HEADERS
        | NO_END_OF_HEADERS
        | SILENT_HEADERS
        | NO_UNKNOWN
        | NO_DATA
        | SKIP
        | SILENT_CONNECT
        | SILENT_HELO
        | SILENT_MAIL
        | SILENT_RCPT
        | SILENT_DATA
        | SILENT_UNKNOWN
        | SILENT_END_OF_HEADERS
        | SILENT_BODY
        | LEADING_SPACE;
}

/// Stages for which a milter may name the macros that it wants.
const STAGES: usize = 7;
/// Names of macros in one list.
const MOST_SYMBOLS: usize = 64;

/// What both sides have agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Bits of SMFIF_.
    pub(super) actions: u32,
    /// Bits of SMFIP_.
    pub(super) protocol: u32,
    /// Names of macros by stage; `None`: all that we have.
    symbols: [Option<Vec<String>>; STAGES],
}

/// Appends what we can.
pub fn offer(out: &mut Vec<u8>) {
    let parts = [VERSION, actions::OFFERED, protocol::OFFERED].map(u32::to_be_bytes);
    write(out, b'O', &[&parts.concat()]);
}

impl Agreed {
    /// Reads the answer to the offer: the `data` of a packet with the code `O`.
    pub fn read(data: &[u8]) -> Result<Self, Error> {
        let mut rest = data;
        let version = number(&mut rest)?;
        let actions = number(&mut rest)?;
        let protocol = number(&mut rest)?;
        if !(2..=VERSION).contains(&version) {
            return Err(Error::Negotiation);
        }
        if actions & !actions::OFFERED != 0 {
            return Err(Error::Actions(actions & !actions::OFFERED));
        }
        if protocol & !protocol::OFFERED != 0 {
            return Err(Error::Protocol(protocol & !protocol::OFFERED));
        }
        let mut agreed = Self {
            actions,
            protocol,
            symbols: Default::default(),
        };
        while !rest.is_empty() {
            let stage = number(&mut rest)?;
            let end = memchr::memchr(0, rest).ok_or(Error::Negotiation)?;
            let (list, behind) = rest.split_at_checked(end).ok_or(Error::Negotiation)?;
            rest = behind.get(1..).unwrap_or_default();
            let list = std::str::from_utf8(list).map_err(|_| Error::Negotiation)?;
            let names = list
                .split([' ', ',', '\t'])
                .filter(|name| !name.is_empty())
                .take(MOST_SYMBOLS)
                .map(|name| name.trim_matches(['{', '}']).to_owned());
            let slot = usize::try_from(stage)
                .ok()
                .and_then(|stage| agreed.symbols.get_mut(stage));
            // A stage of a newer version has no command here.
            if let Some(slot) = slot {
                *slot = Some(names.collect());
            }
        }
        Ok(agreed)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.protocol & flag != 0
    }

    /// Whether a macro (without braces) is wanted at a stage.
    pub(super) fn wants(&self, stage: usize, name: &str) -> bool {
        match self.symbols.get(stage) {
            Some(Some(names)) => names.iter().any(|wanted| wanted == name),
            _ => true,
        }
    }
}

fn number(rest: &mut &[u8]) -> Result<u32, Error> {
    let (octets, behind) = rest.split_first_chunk::<4>().ok_or(Error::Negotiation)?;
    *rest = behind;
    Ok(u32::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(version: u32, actions: u32, protocol: u32, lists: &[u8]) -> Vec<u8> {
        let numbers = [version, actions, protocol].map(u32::to_be_bytes).concat();
        [&numbers[..], lists].concat()
    }

    #[test]
    fn agrees_on_what_is_offered_and_nothing_else() {
        let agreed = Agreed::read(&answer(6, 0x21, 0x10, b"")).unwrap();
        assert!(agreed.has(protocol::NO_BODY) && !agreed.has(protocol::NO_DATA));
        assert!(agreed.wants(0, "j"));
        let lists = b"\0\0\0\x02{auth_authen} i\0\0\0\0\x09x\0";
        let agreed = Agreed::read(&answer(6, 0x101, 0, lists)).unwrap();
        assert!(agreed.wants(2, "i") && agreed.wants(2, "auth_authen"));
        assert!(!agreed.wants(2, "mail_addr") && agreed.wants(3, "mail_addr"));
        for (octets, error) in [
            (answer(6, 0x11, 0, b""), Error::Actions(0x10)),
            (answer(6, 0, 0x800, b""), Error::Protocol(0x800)),
            (answer(7, 0, 0, b""), Error::Negotiation),
            (answer(6, 0, 0, b"\0\0"), Error::Negotiation),
            (answer(6, 0, 0, b"\0\0\0\x01x"), Error::Negotiation),
            (Vec::new(), Error::Negotiation),
        ] {
            assert_eq!(Agreed::read(&octets), Err(error));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..100)) {
            let read = Agreed::read(&octets);
            prop_assert!(read.is_err() || octets.len() >= 12);
        }
    }
}
