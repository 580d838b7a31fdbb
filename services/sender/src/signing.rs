//! Signatures for one message at a time.

use bytes::Bytes;
use proto::Sign;
use proto::signer::{SignErrorKind, SignRequest, sign_result};

/// No signature, and the message must not go without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// The signer can't do it now.
    Unavailable(String),
    /// It will not do it before somebody changes something.
    Refused(String),
}

/// The signature fields of a message; may be empty.
pub(crate) async fn sign(signer: &dyn Sign, request: SignRequest) -> Result<Bytes, Unsigned> {
    let results = signer
        .sign(vec![request])
        .await
        .map_err(|error| Unsigned::Unavailable(error.detail))?;
    match results.into_iter().next().and_then(|result| result.kind) {
        Some(sign_result::Kind::Fields(fields)) => Ok(fields),
        Some(sign_result::Kind::Error(error)) => Err(match error.kind() {
            SignErrorKind::NoKey | SignErrorKind::Invalid => Unsigned::Refused(error.detail),
            SignErrorKind::Temporary | SignErrorKind::Unspecified => {
                Unsigned::Unavailable(error.detail)
            }
        }),
        None => Err(Unsigned::Unavailable("the signer gave no answer".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::signer::{SignError, SignResult};
    use proto::{Call, CallError};

    /// Answers by what the domain says.
    struct Scripted;

    impl Sign for Scripted {
        fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>> {
            let error = |kind: SignErrorKind, detail: &str| {
                sign_result::Kind::Error(SignError {
                    kind: kind.into(),
                    detail: detail.into(),
                })
            };
            Box::pin(async move {
                let kind = match requests[0].domain.as_str() {
                    "down.example" => {
                        return Err(CallError {
                            detail: "down".into(),
                        });
                    }
                    "none.example" => error(SignErrorKind::NoKey, "no key for none.example"),
                    "busy.example" => error(SignErrorKind::Temporary, "overloaded"),
                    domain => {
                        sign_result::Kind::Fields(format!("DKIM-Signature: d={domain}\r\n").into())
                    }
                };
                Ok(vec![SignResult { kind: Some(kind) }])
            })
        }
    }

    #[tokio::test]
    async fn what_only_somebody_can_change_is_told_from_what_passes() {
        let of = async |domain: &str| {
            sign(
                &Scripted,
                SignRequest {
                    domain: domain.into(),
                    ..SignRequest::default()
                },
            )
            .await
        };
        assert_eq!(
            of("a.example").await.unwrap(),
            "DKIM-Signature: d=a.example\r\n"
        );
        assert_eq!(
            of("none.example").await,
            Err(Unsigned::Refused("no key for none.example".into()))
        );
        assert_eq!(
            of("busy.example").await,
            Err(Unsigned::Unavailable("overloaded".into()))
        );
        assert_eq!(
            of("down.example").await,
            Err(Unsigned::Unavailable("down".into()))
        );
    }
}
