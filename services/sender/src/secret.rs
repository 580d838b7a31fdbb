//! Passwords and tokens in files.

use std::path::Path;

use tokio::io::AsyncReadExt;

/// Octets of a file with a password or a token.
const LONGEST: u64 = 64 * 1024;

/// A secret can't be used. No text of this tells anything of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("the file {0} can't be read: {1}")]
    Unreadable(String, std::io::ErrorKind),
    #[error("the file {0} has no text of one line in it, of at most 64 KiB")]
    Form(String),
}

/// The text in a file, white space around it left out. Read each time, so that a file that is written anew, or a mounted
/// Secret that is switched, holds from the next connection on.
pub(crate) async fn read_secret(path: &Path) -> Result<String, SecretError> {
    let name = || path.display().to_string();
    let unreadable = |error: std::io::Error| SecretError::Unreadable(name(), error.kind());
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut text = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut text).await;
    let length = read.map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|_| SecretError::Form(name()))?;
    let secret = text.trim();
    if length as u64 > LONGEST || secret.is_empty() || secret.chars().any(char::is_control) {
        return Err(SecretError::Form(name()));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_line_in_a_file_is_read_and_nothing_else_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, expected) in [
            ("geheim\n".to_owned(), Some("geheim")),
            (" two words \r\n".to_owned(), Some("two words")),
            ("\n".to_owned(), None),
            ("one\ntwo\n".to_owned(), None),
            ("x".repeat(64 * 1024 + 1), None),
        ] {
            std::fs::write(&path, &content).unwrap();
            let read = read_secret(&path).await;
            assert_eq!(read.ok().as_deref(), expected);
        }
        std::fs::write(&path, b"\xff\n").unwrap();
        assert!(matches!(
            read_secret(&path).await,
            Err(SecretError::Form(_))
        ));
        let missing = read_secret(&folder.path().join("missing")).await;
        assert!(matches!(missing, Err(SecretError::Unreadable(..))));
    }
}
