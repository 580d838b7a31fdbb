//! The grammar of commands (RFC 5321 section 4.1).

use mail::Address;

use crate::{
    Body, Command, CommandError, DeliverBy, ForwardPath, MailParams, Notify, OriginalRecipient,
    RcptParams, Release, Return, Secret, Xtext,
};

/// Reads a command line, without its CRLF and without control characters.
pub(crate) fn command(line: &str) -> Result<Command, CommandError> {
    let (verb, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = argument.trim_matches([' ', '\t']);
    let verb_valid = (1..=32).contains(&verb.len())
        && verb.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !verb_valid {
        return Err(CommandError::NoCommand);
    }
    let verb = verb.to_ascii_uppercase();
    match verb.as_str() {
        "EHLO" => client_name(argument)
            .map(Command::Ehlo)
            .ok_or(CommandError::Syntax("Syntax: EHLO hostname")),
        "HELO" => client_name(argument)
            .map(Command::Helo)
            .ok_or(CommandError::Syntax("Syntax: HELO hostname")),
        "MAIL" => mail(argument),
        "RCPT" => rcpt(argument),
        "AUTH" => auth(argument),
        "BDAT" => bdat(argument),
        "DATA" => alone(argument, Command::Data, "Syntax: DATA"),
        "RSET" => alone(argument, Command::Rset, "Syntax: RSET"),
        "QUIT" => alone(argument, Command::Quit, "Syntax: QUIT"),
        "STARTTLS" => alone(argument, Command::StartTls, "Syntax: STARTTLS"),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" => Ok(Command::Expn),
        _ => Ok(Command::Unknown {
            verb: verb.into(),
            argument: argument.into(),
        }),
    }
}

fn alone(argument: &str, command: Command, form: &'static str) -> Result<Command, CommandError> {
    if argument.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Syntax(form))
    }
}

/// Clients give all sorts of names; refused is only what could forge a trace field.
fn client_name(argument: &str) -> Option<Box<str>> {
    let valid = !argument.is_empty()
        && argument.len() <= 255
        && !argument.contains(|c: char| c.is_whitespace() || "()<>@,;\"\\".contains(c));
    valid.then(|| argument.into())
}

fn auth(argument: &str) -> Result<Command, CommandError> {
    const FORM: CommandError = CommandError::Syntax("Syntax: AUTH mechanism [initial-response]");
    let mut words = argument.split_ascii_whitespace();
    let mechanism = words.next().ok_or(FORM)?;
    let mechanism_valid = mechanism.len() <= 20
        && mechanism
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !mechanism_valid {
        return Err(FORM);
    }
    let initial_response = match words.next() {
        None => None,
        Some("=") => Some(Secret::parse("").ok_or(CommandError::AuthEncoding)?),
        Some(response) => Some(Secret::parse(response).ok_or(CommandError::AuthEncoding)?),
    };
    if words.next().is_some() {
        return Err(FORM);
    }
    Ok(Command::Auth {
        mechanism: mechanism.to_ascii_uppercase().into(),
        initial_response,
    })
}

fn bdat(argument: &str) -> Result<Command, CommandError> {
    let mut words = argument.split_ascii_whitespace();
    let size = words
        .next()
        .and_then(number)
        .ok_or(CommandError::ChunkSize)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(CommandError::ChunkSize),
    };
    if words.next().is_some() {
        return Err(CommandError::ChunkSize);
    }
    Ok(Command::Bdat { size, last })
}

fn mail(argument: &str) -> Result<Command, CommandError> {
    const FORM: CommandError = CommandError::Syntax("Syntax: MAIL FROM:<address> [parameters]");
    let (path, parameters) = after_keyword(argument, "FROM:")
        .and_then(path)
        .ok_or(FORM)?;
    let params = mail_params(parameters)?;
    let return_path = match without_source_route(path) {
        "" if path.is_empty() => None,
        mailbox => Some(Address::parse(mailbox).map_err(|_| CommandError::ReturnPath)?),
    };
    if !params.smtputf8 && return_path.as_ref().is_some_and(Address::needs_smtputf8) {
        return Err(CommandError::NeedsSmtpUtf8);
    }
    Ok(Command::Mail {
        return_path,
        params,
    })
}

fn rcpt(argument: &str) -> Result<Command, CommandError> {
    const FORM: CommandError = CommandError::Syntax("Syntax: RCPT TO:<address> [parameters]");
    let (path, parameters) = after_keyword(argument, "TO:").and_then(path).ok_or(FORM)?;
    let params = rcpt_params(parameters)?;
    let address = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        let mailbox =
            Address::parse(without_source_route(path)).map_err(|_| CommandError::Recipient)?;
        ForwardPath::Mailbox(mailbox)
    };
    Ok(Command::Rcpt { address, params })
}

/// What follows `FROM:` or `TO:`. Blanks behind the colon are wrong and common.
fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword)
        .then(|| rest.trim_start_matches(' '))
}

/// Splits `<path> parameters`; a ">" within a quoted local part does not end the path.
fn path(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    let end = inner.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' => return !quoted,
            _ => {}
        }
        false
    })?;
    let (path, rest) = inner.split_at_checked(end)?;
    let parameters = rest.strip_prefix('>')?;
    (parameters.is_empty() || parameters.starts_with([' ', '\t'])).then_some((path, parameters))
}

/// `@a,@b:user@c` becomes `user@c` (RFC 5321 appendix C: accept, and ignore the route).
fn without_source_route(path: &str) -> &str {
    if !path.starts_with('@') {
        return path;
    }
    match path.split_once(':') {
        Some((route, mailbox)) if route.split(',').all(is_route_host) => mailbox,
        _ => path,
    }
}

fn is_route_host(host: &str) -> bool {
    host.strip_prefix('@')
        .is_some_and(|name| mail::Domain::parse(name).is_ok())
}

/// A word as `KEYWORD` or `KEYWORD=value`.
fn parameter(word: &str) -> (String, Option<&str>) {
    match word.split_once('=') {
        Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
        None => (word.to_ascii_uppercase(), None),
    }
}

fn mail_params(text: &str) -> Result<MailParams, CommandError> {
    let mut params = MailParams::default();
    for word in text.split_ascii_whitespace() {
        let (keyword, value) = parameter(word);
        match keyword.as_str() {
            "SIZE" => set(&mut params.size, value.and_then(number), "SIZE")?,
            "BODY" => set(&mut params.body, value.and_then(Body::parse), "BODY")?,
            "RET" => set(&mut params.ret, value.and_then(Return::parse), "RET")?,
            "ENVID" => {
                let envid = value
                    .filter(|value| value.len() <= 100)
                    .and_then(Xtext::parse);
                set(&mut params.envid, envid, "ENVID")?;
            }
            "AUTH" => set(&mut params.auth, value.and_then(Xtext::parse), "AUTH")?,
            "SMTPUTF8" => set_flag(&mut params.smtputf8, value, "SMTPUTF8")?,
            "REQUIRETLS" => set_flag(&mut params.require_tls, value, "REQUIRETLS")?,
            "MT-PRIORITY" => set(
                &mut params.priority,
                value.and_then(priority),
                "MT-PRIORITY",
            )?,
            "BY" => set(
                &mut params.deliver_by,
                value.and_then(DeliverBy::parse),
                "BY",
            )?,
            // One of the two, once.
            "HOLDFOR" => set(
                &mut params.release,
                value.and_then(Release::after),
                "HOLDFOR",
            )?,
            "HOLDUNTIL" => set(
                &mut params.release,
                value.and_then(Release::at),
                "HOLDUNTIL",
            )?,
            _ => return Err(CommandError::UnknownParameter),
        }
    }
    Ok(params)
}

fn rcpt_params(text: &str) -> Result<RcptParams, CommandError> {
    let mut params = RcptParams::default();
    let mut notify = None;
    for word in text.split_ascii_whitespace() {
        let (keyword, value) = parameter(word);
        match keyword.as_str() {
            "NOTIFY" => set(&mut notify, value.and_then(Notify::parse), "NOTIFY")?,
            "ORCPT" => set(
                &mut params.orcpt,
                value.and_then(OriginalRecipient::parse),
                "ORCPT",
            )?,
            _ => return Err(CommandError::UnknownParameter),
        }
    }
    params.notify = notify.unwrap_or_default();
    Ok(params)
}

/// Sets a parameter once; `value` is `None` when it could not be read.
fn set<T>(slot: &mut Option<T>, value: Option<T>, name: &'static str) -> Result<(), CommandError> {
    if slot.is_some() || value.is_none() {
        return Err(CommandError::Parameter(name));
    }
    *slot = value;
    Ok(())
}

fn set_flag(slot: &mut bool, value: Option<&str>, name: &'static str) -> Result<(), CommandError> {
    if *slot || value.is_some() {
        return Err(CommandError::Parameter(name));
    }
    *slot = true;
    Ok(())
}

/// −9 to 9 (RFC 6710): one digit, and a sign before one that is not 0.
fn priority(text: &str) -> Option<i8> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let valid = digits.len() == 1 && digits.bytes().all(|b| b.is_ascii_digit()) && text != "-0";
    valid.then(|| text.parse().ok()).flatten()
}

/// Digits only: `str::parse` would take a sign too.
fn number(text: &str) -> Option<u64> {
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
