//! The SASL messages that tokens come in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Which of the two mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OAUTHBEARER (RFC 7628 section 3.1).
    OAuthBearer,
    /// XOAUTH2, as Google describes it.
    XOAuth2,
}

/// What a client says.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Whom it wants to be; `None` = whom the token names.
    pub user: Option<String>,
    /// The token; empty when the client has none and only wants to be told how to get one.
    pub token: String,
}

/// Not such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message that carries no token")]
pub struct MessageError;

/// Between the fields, and after the last one once more.
const SEPARATOR: u8 = 1;
/// Octets of the longest user.
const LONGEST_USER: usize = 255;

impl Message {
    /// Reads what a client sent, base64 decoded.
    pub fn read(form: Form, octets: &[u8]) -> Result<Self, MessageError> {
        let text = std::str::from_utf8(octets).map_err(|_| MessageError)?;
        let text = text.strip_suffix("\x01\x01").ok_or(MessageError)?;
        let mut fields = text.split(char::from(SEPARATOR));
        let mut user = match form {
            Form::OAuthBearer => read_header(fields.next().ok_or(MessageError)?)?,
            Form::XOAuth2 => None,
        };
        let mut token = None;
        for field in fields {
            let (key, value) = field.split_once('=').ok_or(MessageError)?;
            match (form, key) {
                (_, "auth") if token.is_none() => token = Some(read_scheme(value)?),
                (Form::XOAuth2, "user") if user.is_none() => user = Some(value.to_owned()),
                (_, "auth" | "user") => return Err(MessageError),
                // Host and port of the server, and whatever comes one day (RFC 7628 section 3.1).
                (_, key) if key.bytes().all(|byte| byte.is_ascii_alphabetic()) => {}
                _ => return Err(MessageError),
            }
        }
        if form == Form::XOAuth2 && user.is_none() {
            return Err(MessageError);
        }
        let shown = |user: &String| {
            !user.is_empty() && user.len() <= LONGEST_USER && !user.contains(char::is_control)
        };
        if !user.iter().all(shown) {
            return Err(MessageError);
        }
        let token = token.unwrap_or_default().to_owned();
        Ok(Self { user, token })
    }
}

/// Tokens are no text for logs.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message(..)")
    }
}

/// The header of GSS-API (RFC 5801 section 4): without channel binding, and perhaps with a user.
fn read_header(header: &str) -> Result<Option<String>, MessageError> {
    let mut parts = header.split(',');
    let (Some("n" | "y"), Some(user), Some(""), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MessageError);
    };
    if user.is_empty() {
        return Ok(None);
    }
    let escaped = user.strip_prefix("a=").ok_or(MessageError)?;
    let mut user = String::with_capacity(escaped.len());
    let mut parts = escaped.split('=');
    user.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(MessageError),
        };
        user.push(character);
        user.push_str(rest);
    }
    Ok(Some(user))
}

/// `Bearer` and a token (RFC 6750 section 2.1); nothing at all where a client has none.
fn read_scheme(value: &str) -> Result<&str, MessageError> {
    if value.is_empty() {
        return Ok("");
    }
    let (scheme, token) = value.split_once(' ').ok_or(MessageError)?;
    let in_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let token = token.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("Bearer") || !token.bytes().all(in_a_token) {
        return Err(MessageError);
    }
    Ok(token)
}

/// What a client is told of a token that is refused, base64: JSON as RFC 7628 section 3.2.2 or Google has it. The client
/// then sends something meaningless, and gets the reply that the login has failed. `scope`: what a token must have.
pub fn challenge(form: Form, status: &str, scope: Option<&str>) -> String {
    let mut text = match form {
        Form::OAuthBearer => json!({ "status": status }),
        Form::XOAuth2 => json!({ "status": "401", "schemes": "Bearer" }),
    };
    if let Some(scope) = scope {
        text["scope"] = json!(scope);
    }
    STANDARD.encode(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: Form, text: &str) -> Result<(Option<String>, String), MessageError> {
        Message::read(form, text.as_bytes()).map(|message| (message.user, message.token))
    }

    #[test]
    fn reads_the_examples_of_both_descriptions() {
        let some = |user: &str, token: &str| Ok((Some(user.to_owned()), token.to_owned()));
        // RFC 7628 section 4.1.
        let example = "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01\
                       auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        assert_eq!(
            read(Form::OAuthBearer, example),
            some(
                "user@example.com",
                "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
            )
        );
        let example = "user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3\x01\x01";
        assert_eq!(
            read(Form::XOAuth2, example),
            some("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3")
        );
        let escaped = "y,a=a=2Cb=3Dc,\x01auth=bearer  t\x01\x01";
        assert_eq!(read(Form::OAuthBearer, escaped), some("a,b=c", "t"));
        let nobody = Ok((None, "t".to_owned()));
        assert_eq!(
            read(Form::OAuthBearer, "n,,\x01auth=Bearer t\x01\x01"),
            nobody
        );
        // A client that wants to know how to get a token.
        let without = Ok((None, String::new()));
        assert_eq!(read(Form::OAuthBearer, "n,,\x01auth=\x01\x01"), without);
        assert_eq!(read(Form::OAuthBearer, "n,,\x01\x01"), without);
    }

    #[test]
    fn refuses_what_is_malformed() {
        let long = format!("n,a={},\x01auth=Bearer t\x01\x01", "u".repeat(256));
        for text in [
            "",
            "\x01",
            "n,,",
            "n,,\x01auth=Bearer t",
            "n,,\x01auth=Bearer t\x01",
            "auth=Bearer t\x01\x01",
            "p=tls-exporter,,\x01auth=Bearer t\x01\x01",
            "n,b=x,\x01auth=Bearer t\x01\x01",
            "n,a=,\x01auth=Bearer t\x01\x01",
            "n,a=x=2c,\x01auth=Bearer t\x01\x01",
            "n,a=x=,\x01auth=Bearer t\x01\x01",
            "n,a=x,y\x01auth=Bearer t\x01\x01",
            "n,a=x\ny,\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Basic t\x01\x01",
            "n,,\x01auth=Bearert\x01\x01",
            "n,,\x01auth=Bearer t\u{e9}\x01\x01",
            "n,,\x01auth=Bearer t t\x01\x01",
            "n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
            "n,,\x01user=x\x01auth=Bearer t\x01\x01",
            "n,,\x01host\x01auth=Bearer t\x01\x01",
            "n,,\x01\x01auth=Bearer t\x01\x01",
            "n,,\x01h-t=x\x01auth=Bearer t\x01\x01",
            &long,
        ] {
            assert_eq!(read(Form::OAuthBearer, text), Err(MessageError), "{text:?}");
        }
        for text in [
            "auth=Bearer t\x01\x01",
            "user=\x01auth=Bearer t\x01\x01",
            "user=x\x01user=y\x01auth=Bearer t\x01\x01",
            "n,a=x,\x01auth=Bearer t\x01\x01",
        ] {
            assert_eq!(read(Form::XOAuth2, text), Err(MessageError), "{text:?}");
        }
        assert!(Message::read(Form::XOAuth2, b"user=\xff\x01auth=Bearer t\x01\x01").is_err());
    }

    #[test]
    fn challenges_are_the_json_of_both_descriptions() {
        let text = |form, scope| {
            let decoded = STANDARD.decode(challenge(form, "invalid_token", scope));
            String::from_utf8(decoded.unwrap()).unwrap()
        };
        assert_eq!(
            text(Form::OAuthBearer, Some("smtp.send")),
            r#"{"scope":"smtp.send","status":"invalid_token"}"#
        );
        assert_eq!(
            text(Form::OAuthBearer, None),
            r#"{"status":"invalid_token"}"#
        );
        assert_eq!(
            text(Form::XOAuth2, None),
            r#"{"schemes":"Bearer","status":"401"}"#
        );
    }
}
