//! One message told to a milter, command by command.

use std::net::IpAddr;

use bytes::Bytes;
use message::fields;

use super::fields::{MOST, from_milter, to_milter};
use super::negotiation::{actions, protocol};
use super::{Agreed, Error, Packet, write};
use crate::{Envelope, Opinion, Reply, Verdict};

/// Octets of the body in one command.
const CHUNK: usize = 65_535;

/// What is to be done after [`Dialogue::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send what was appended, and tell [`Dialogue::heard`] what the milter answers.
    Ask,
    /// Send what was appended; there is no answer.
    Tell,
    /// Nothing was appended: [`Dialogue::content`] or [`Dialogue::end`] first.
    Content,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Another packet belongs to it.
    More,
    /// Go on with [`Dialogue::next`].
    GoOn,
    /// The milter has decided.
    Decided(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Hello,
    Mail,
    Recipient(usize),
    Data,
    /// The field that begins there in the header section.
    Header(usize),
    EndOfHeader,
    Body,
    EndOfMessage,
}

/// What is told of one message.
#[derive(Debug)]
pub struct Dialogue<'a> {
    agreed: Agreed,
    envelope: &'a Envelope,
    /// What comes next.
    stage: Stage,
    /// What was asked last.
    asked: Stage,
    header: Bytes,
    /// What came of the body and is not told yet.
    body: Bytes,
    /// The header section has come.
    begun: bool,
    ended: bool,
    /// Added by the milter; those that go on top of the others.
    on_top: Vec<u8>,
    below: Vec<u8>,
    hold: bool,
}

impl<'a> Dialogue<'a> {
    /// After the negotiation.
    pub fn new(agreed: Agreed, envelope: &'a Envelope) -> Self {
        Self {
            agreed,
            envelope,
            stage: Stage::Connect,
            asked: Stage::Connect,
            header: Bytes::new(),
            body: Bytes::new(),
            begun: false,
            ended: false,
            on_top: Vec::new(),
            below: Vec::new(),
            hold: false,
        }
    }

    /// More of the content, after [`Next::Content`]. The first piece has the header section whole.
    pub fn content(&mut self, mut piece: Bytes) {
        if !self.begun {
            let length = self.envelope.header_length.min(piece.len());
            self.header = piece.split_to(length);
            self.begun = true;
        }
        self.body = piece;
    }

    /// There is no more of it, after [`Next::Content`].
    pub fn end(&mut self) {
        self.begun = true;
        self.ended = true;
    }

    /// Appends the next command.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Next {
        loop {
            let stage = self.stage;
            let (skipped, silent) = self.flags(stage);
            if skipped {
                self.pass(stage);
                continue;
            }
            match stage {
                Stage::Header(_) | Stage::Body if !self.begun => return Next::Content,
                Stage::Body if self.body.is_empty() && !self.ended => return Next::Content,
                _ => {}
            }
            if !self.say(stage, out) {
                continue;
            }
            self.asked = stage;
            return if silent { Next::Tell } else { Next::Ask };
        }
    }

    /// Whether a stage is not wanted, and whether it is not answered.
    fn flags(&self, stage: Stage) -> (bool, bool) {
        use protocol::*;
        let (skip, silent) = match stage {
            Stage::Connect => (NO_CONNECT, SILENT_CONNECT),
            Stage::Hello => (NO_HELO, SILENT_HELO),
            Stage::Mail => (NO_MAIL, SILENT_MAIL),
            Stage::Recipient(_) => (NO_RCPT, SILENT_RCPT),
            Stage::Data => (NO_DATA, SILENT_DATA),
            Stage::Header(_) => (NO_HEADERS, SILENT_HEADERS),
            Stage::EndOfHeader => (NO_END_OF_HEADERS, SILENT_END_OF_HEADERS),
            Stage::Body => (NO_BODY, SILENT_BODY),
            Stage::EndOfMessage => (0, 0),
        };
        (self.agreed.has(skip), self.agreed.has(silent))
    }

    /// The stage is over, or not wanted.
    fn pass(&mut self, stage: Stage) {
        self.stage = match stage {
            Stage::Connect => Stage::Hello,
            Stage::Hello => Stage::Mail,
            Stage::Mail => Stage::Recipient(0),
            Stage::Recipient(_) => Stage::Data,
            Stage::Data => Stage::Header(0),
            Stage::Header(_) => Stage::EndOfHeader,
            Stage::EndOfHeader => Stage::Body,
            Stage::Body | Stage::EndOfMessage => Stage::EndOfMessage,
        };
    }

    /// Appends the command of a stage, and goes on to the next; `false`: there was none left.
    fn say(&mut self, stage: Stage, out: &mut Vec<u8>) -> bool {
        match stage {
            Stage::Connect => {
                self.connect(out);
                self.pass(stage);
            }
            Stage::Hello => {
                write(out, b'H', &[clean(&self.envelope.hello).as_slice(), b"\0"]);
                self.pass(stage);
            }
            Stage::Mail => {
                let path = clean(&self.envelope.return_path);
                self.macros(out, b'M', 2, &self.sender_macros());
                write(out, b'M', &[b"<", &path, b">\0"]);
                self.pass(stage);
            }
            Stage::Recipient(number) => {
                let Some(recipient) = self.envelope.recipients.get(number) else {
                    self.pass(stage);
                    return false;
                };
                self.macros(out, b'R', 3, &address_macros("rcpt", recipient));
                write(out, b'R', &[b"<", &clean(recipient), b">\0"]);
                self.stage = Stage::Recipient(number.saturating_add(1));
            }
            Stage::Data => {
                self.macros(out, b'T', 4, &self.id_macro());
                write(out, b'T', &[]);
                self.pass(stage);
            }
            Stage::Header(at) => return self.header(at, out),
            Stage::EndOfHeader => {
                self.macros(out, b'N', 6, &self.id_macro());
                write(out, b'N', &[]);
                self.pass(stage);
            }
            Stage::Body => {
                let length = self.body.len().min(CHUNK);
                if length == 0 {
                    self.pass(stage);
                    return false;
                }
                let chunk = self.body.split_to(length);
                write(out, b'B', &[&chunk]);
            }
            Stage::EndOfMessage => {
                self.macros(out, b'E', 5, &self.id_macro());
                write(out, b'E', &[]);
            }
        }
        true
    }

    fn connect(&self, out: &mut Vec<u8>) {
        let hostname = &self.envelope.hostname;
        let mut macros = vec![("j", hostname.clone()), ("daemon_name", hostname.clone())];
        let address = self.envelope.client.map(|client| client.to_string());
        if let Some(address) = &address {
            macros.push(("client_addr", address.clone()));
            macros.push(("client_name", format!("[{address}]")));
        }
        self.macros(out, b'C', 0, &macros);
        match (self.envelope.client, address) {
            (Some(client), Some(address)) => {
                let (family, bracketed) = match client {
                    IpAddr::V4(_) => (b"4", format!("[{address}]\0")),
                    IpAddr::V6(_) => (b"6", format!("[IPv6:{address}]\0")),
                };
                // The port is not known.
                let parts = [
                    bracketed.as_bytes(),
                    family,
                    &[0, 0],
                    address.as_bytes(),
                    b"\0",
                ];
                write(out, b'C', &parts);
            }
            _ => write(out, b'C', &[b"unknown\0U"]),
        }
    }

    /// A field of the header section fits into no packet: libmilter takes as much of one as of a chunk of the body. Known
    /// with the first of the content.
    pub fn has_large_field(&self) -> bool {
        let (skipped, _) = self.flags(Stage::Header(0));
        // What is not in name and value is shorter than the two octets that end them.
        !skipped && fields(&self.header).any(|field| field.raw.len() > CHUNK)
    }

    /// The field at `at`.
    fn header(&mut self, at: usize, out: &mut Vec<u8>) -> bool {
        let section = self.header.get(at..).unwrap_or_default();
        let Some(field) = fields(section).next() else {
            self.pass(Stage::Header(at));
            return false;
        };
        self.stage = Stage::Header(at.saturating_add(field.raw.len().max(1)));
        if field.name.is_empty() || field.name.contains(&0) {
            return false;
        }
        let value = to_milter(field.value, self.agreed.has(protocol::LEADING_SPACE));
        write(out, b'L', &[field.name, b"\0", &value, b"\0"]);
        true
    }

    fn sender_macros(&self) -> Vec<(&'static str, String)> {
        let mut macros = self.id_macro();
        macros.extend(address_macros("mail", &self.envelope.return_path));
        let user = &self.envelope.user;
        if !user.is_empty() {
            macros.push(("auth_authen", user.clone()));
            // Which mechanism it was is not kept; milters look whether there was one.
            macros.push(("auth_type", "AUTH".to_owned()));
        }
        macros
    }

    fn id_macro(&self) -> Vec<(&'static str, String)> {
        vec![("i", self.envelope.id.clone())]
    }

    /// Appends the macros that are wanted with the command `of`.
    fn macros(&self, out: &mut Vec<u8>, of: u8, stage: usize, macros: &[(&str, String)]) {
        let mut data = vec![of];
        for (name, value) in macros {
            if !self.agreed.wants(stage, name) {
                continue;
            }
            let braces: (&[u8], &[u8]) = if name.len() > 1 {
                (b"{", b"}")
            } else {
                (b"", b"")
            };
            for part in [
                braces.0,
                name.as_bytes(),
                braces.1,
                b"\0",
                &clean(value),
                b"\0",
            ] {
                data.extend_from_slice(part);
            }
        }
        if data.len() > 1 {
            write(out, b'D', &[&data]);
        }
    }

    /// Takes a packet of the answer to what was asked last.
    pub fn heard(&mut self, packet: &Packet) -> Result<Heard, Error> {
        let at_end = self.asked == Stage::EndOfMessage;
        let decided = |opinion| Ok(Heard::Decided(Verdict::from(opinion)));
        match packet.code {
            b'p' => Ok(Heard::More),
            b'c' if at_end => Ok(Heard::Decided(self.clean())),
            b'c' => Ok(Heard::GoOn),
            b'a' => Ok(Heard::Decided(self.clean())),
            b's' if self.agreed.has(protocol::SKIP) && !at_end => {
                self.skip();
                Ok(Heard::GoOn)
            }
            // A milter that throws mail away would lose it without a word.
            b'r' | b'd' => decided(Opinion::Refuse(Reply::refused("Message refused"))),
            b't' => decided(Opinion::Refuse(Reply::later("Try again later"))),
            b'y' => {
                let text = packet.data.strip_suffix(b"\0").unwrap_or(&packet.data);
                decided(Opinion::Refuse(Reply::parse(text).ok_or(Error::Reply)?))
            }
            b'h' | b'i' if at_end && self.may(actions::ADD_HEADERS) => {
                self.add(packet)?;
                Ok(Heard::More)
            }
            b'q' if at_end && self.may(actions::QUARANTINE) => {
                self.hold = true;
                Ok(Heard::More)
            }
            b'f' | b'4' => Err(Error::GivenUp),
            code @ (b'+' | b'-' | b'2' | b'b' | b'e' | b'h' | b'i' | b'm' | b'q') => {
                Err(Error::Change(char::from(code)))
            }
            code => Err(Error::Unknown(char::from(code))),
        }
    }

    fn may(&self, action: u32) -> bool {
        self.agreed.actions & action != 0
    }

    /// No more commands of the kind that was asked last.
    fn skip(&mut self) {
        match self.asked {
            Stage::Body => self.agreed.protocol |= protocol::NO_BODY,
            Stage::Header(_) => self.agreed.protocol |= protocol::NO_HEADERS,
            Stage::Recipient(_) => self.agreed.protocol |= protocol::NO_RCPT,
            _ => {}
        }
    }

    fn clean(&mut self) -> Verdict {
        let mut fields = std::mem::take(&mut self.on_top);
        fields.append(&mut self.below);
        Verdict {
            fields,
            hold: self.hold,
            ..Opinion::Clean.into()
        }
    }

    fn add(&mut self, packet: &Packet) -> Result<(), Error> {
        let data = match packet.code {
            b'i' => packet.data.get(4..).ok_or(Error::Field)?,
            _ => packet.data.as_slice(),
        };
        let mut parts = data.split(|octet| *octet == 0);
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            return Err(Error::Field);
        };
        let field = from_milter(name, value, self.agreed.has(protocol::LEADING_SPACE))?;
        let length = self.on_top.len().saturating_add(self.below.len());
        if length.saturating_add(field.len()) > MOST {
            return Err(Error::Field);
        }
        if packet.code == b'i' {
            self.on_top.splice(0..0, field);
        } else {
            self.below.extend_from_slice(&field);
        }
        Ok(())
    }
}

/// Without what would end it.
fn clean(text: &str) -> Vec<u8> {
    text.bytes()
        .filter(|octet| !octet.is_ascii_control())
        .collect()
}

fn address_macros(of: &'static str, address: &str) -> Vec<(&'static str, String)> {
    let (whole, host, mailer) = match of {
        "mail" => ("mail_addr", "mail_host", "mail_mailer"),
        _ => ("rcpt_addr", "rcpt_host", "rcpt_mailer"),
    };
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    vec![
        (whole, address.to_owned()),
        (host, domain.to_owned()),
        (mailer, "esmtp".to_owned()),
    ]
}

#[cfg(test)]
mod tests;
