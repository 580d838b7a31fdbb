//! Commands and replies as octets.
//!
//! Everything is appended to a buffer, so that commands can be sent in one piece (RFC 2920).
//! Whatever the arguments hold, one call writes exactly one command or one reply: control
//! characters, CR and LF among them, never get through.

use mail::Address;

use crate::{EnhancedCode, MailParams, RcptParams};

/// Longest reply text on one line, octets, so that the line stays under 512 (RFC 5321 section
/// 4.5.3.1.5) with code, enhanced code and CRLF.
const REPLY_TEXT: usize = 480;

/// `EHLO name`. Characters that a name can't have are left out.
pub fn ehlo(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"EHLO ");
    word(out, name);
    end(out);
}

/// `HELO name`.
pub fn helo(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"HELO ");
    word(out, name);
    end(out);
}

/// `MAIL FROM:<return-path>` with all parameters that are set; `None` is `<>`. When it is to be released is between the
/// client and its submission server (RFC 4865 section 3), and never passed on.
pub fn mail(out: &mut Vec<u8>, return_path: Option<&Address>, params: &MailParams) {
    out.extend_from_slice(b"MAIL FROM:<");
    path(out, return_path.map_or("", Address::as_str));
    out.push(b'>');
    if let Some(size) = params.size {
        out.extend_from_slice(format!(" SIZE={size}").as_bytes());
    }
    if let Some(body) = params.body {
        parameter(out, "BODY", body.as_str());
    }
    if params.smtputf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
    if let Some(ret) = params.ret {
        parameter(out, "RET", ret.as_str());
    }
    if let Some(envid) = &params.envid {
        parameter(out, "ENVID", envid.as_str());
    }
    if let Some(auth) = &params.auth {
        parameter(out, "AUTH", auth.as_str());
    }
    if let Some(priority) = params.priority {
        out.extend_from_slice(format!(" MT-PRIORITY={priority}").as_bytes());
    }
    if let Some(by) = params.deliver_by {
        out.extend_from_slice(format!(" BY={by}").as_bytes());
    }
    if params.require_tls {
        out.extend_from_slice(b" REQUIRETLS");
    }
    end(out);
}

/// `RCPT TO:<address>` with all parameters that are set.
pub fn rcpt(out: &mut Vec<u8>, address: &Address, params: &RcptParams) {
    out.extend_from_slice(b"RCPT TO:<");
    path(out, address.as_str());
    out.push(b'>');
    if params.notify.is_given() {
        let names: Vec<&str> = params.notify.names().collect();
        parameter(out, "NOTIFY", &names.join(","));
    }
    if let Some(orcpt) = &params.orcpt {
        parameter(out, "ORCPT", orcpt.as_str());
    }
    end(out);
}

/// `DATA`.
pub fn data(out: &mut Vec<u8>) {
    out.extend_from_slice(b"DATA\r\n");
}

/// `BDAT size [LAST]`; the octets of the chunk follow at once.
pub fn bdat(out: &mut Vec<u8>, size: u64, last: bool) {
    out.extend_from_slice(format!("BDAT {size}{}\r\n", if last { " LAST" } else { "" }).as_bytes());
}

/// `RSET`.
pub fn rset(out: &mut Vec<u8>) {
    out.extend_from_slice(b"RSET\r\n");
}

/// `NOOP`.
pub fn noop(out: &mut Vec<u8>) {
    out.extend_from_slice(b"NOOP\r\n");
}

/// `QUIT`.
pub fn quit(out: &mut Vec<u8>) {
    out.extend_from_slice(b"QUIT\r\n");
}

/// `STARTTLS`.
pub fn starttls(out: &mut Vec<u8>) {
    out.extend_from_slice(b"STARTTLS\r\n");
}

/// `AUTH mechanism [initial-response]`; the response is base64, an empty one goes out as `=`.
pub fn auth(out: &mut Vec<u8>, mechanism: &str, initial_response: Option<&str>) {
    out.extend_from_slice(b"AUTH ");
    word(out, mechanism);
    if let Some(response) = initial_response {
        out.push(b' ');
        word(out, if response.is_empty() { "=" } else { response });
    }
    end(out);
}

/// A line of an AUTH exchange: base64, or `*` to give up.
pub fn auth_line(out: &mut Vec<u8>, text: &str) {
    word(out, text);
    end(out);
}

/// A reply. Every line of `text` becomes one of the reply, long ones become several; the enhanced
/// code stands on each.
pub fn reply(out: &mut Vec<u8>, code: u16, enhanced: Option<EnhancedCode>, text: &str) {
    reply_lines(out, code, enhanced, text.lines());
}

/// A reply of several lines, as for EHLO; without any there is one empty line.
pub fn reply_lines<L: AsRef<str>>(
    out: &mut Vec<u8>,
    code: u16,
    enhanced: Option<EnhancedCode>,
    lines: impl IntoIterator<Item = L>,
) {
    let mut pieces = Vec::new();
    for line in lines {
        split_long(clean(line.as_ref()), &mut pieces);
    }
    if pieces.is_empty() {
        pieces.push(String::new());
    }
    let last = pieces.len().saturating_sub(1);
    for (index, piece) in pieces.iter().enumerate() {
        out.extend_from_slice(format!("{code:03}").as_bytes());
        out.push(if index == last { b' ' } else { b'-' });
        if let Some(enhanced) = enhanced {
            out.extend_from_slice(format!("{enhanced} ").as_bytes());
        }
        out.extend_from_slice(piece.as_bytes());
        end(out);
    }
}

/// Control characters become blanks.
fn clean(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Cuts at the last blank that leaves a line short enough, or where it must.
fn split_long(mut line: String, pieces: &mut Vec<String>) {
    while line.len() > REPLY_TEXT {
        let most = line.floor_char_boundary(REPLY_TEXT);
        let at = line
            .get(..most)
            .and_then(|head| head.rfind(' '))
            .filter(|at| *at > 0)
            .unwrap_or(most);
        let rest = line.split_off(at);
        pieces.push(line);
        line = rest.trim_start().to_owned();
    }
    pieces.push(line);
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Text without blanks and control characters.
fn word(out: &mut Vec<u8>, text: &str) {
    push_without(out, text, |c| c.is_control() || c.is_ascii_whitespace());
}

/// An address may have blanks, in quotes.
fn path(out: &mut Vec<u8>, text: &str) {
    push_without(out, text, char::is_control);
}

fn push_without(out: &mut Vec<u8>, text: &str, forbidden: fn(char) -> bool) {
    if !text.contains(forbidden) {
        return out.extend_from_slice(text.as_bytes());
    }
    let kept: String = text.chars().filter(|c| !forbidden(*c)).collect();
    out.extend_from_slice(kept.as_bytes());
}

fn parameter(out: &mut Vec<u8>, keyword: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(keyword.as_bytes());
    out.push(b'=');
    word(out, value);
}
