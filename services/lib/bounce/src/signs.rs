//! Words by which people recognise what came back: subjects and phrases of programs, in the languages in which they are set.
//! Lower case.

/// Of whom reports come.
#[rustfmt::skip] // a list
pub(crate) const DAEMONS: &[&str] = &[
    "mailer-daemon", "mailer daemon", "mailerdaemon", "mail-daemon", "maildaemon", "mail daemon", "mdaemon", "postmaster",
    "mail delivery", "mail deliver", "delivery subsystem", "delivery service", "microsoft exchange", "microsoftexchange",
    "system administrator", "systemadministrator", "mail system", "mailsystem", "mail administrator", "mail transport",
    "mail server", "mailserver", "bounce", "posta-certificata", "servizio postale",
];

/// Subjects of reports.
#[rustfmt::skip] // a list
pub(crate) const FAILED: &[&str] = &[
    "undeliver", "delivery status", "delivery failure", "delivery failed", "delivery has failed", "delivery problem",
    "delivery error", "delivery report", "delivery notification", "delivery unsuccessful", "delivery delayed",
    "failure notice", "failure notification", "returned mail", "returned to sender", "returned message", "returned email",
    "mail returned", "message returned", "nondeliver", "non-deliver", "not delivered", "notdelivered", "mail system error",
    "mail error", "could not be delivered", "could not deliver", "couldn't be delivered", "can't be delivered",
    "cannot be delivered", "could not send", "not be sent", "unable to deliver", "failed mail", "failed delivery",
    "mail failure", "mail delivery", "message status", "status notification", "user unknown", "unknown user",
    "message rejected", "automatically rejected", "mail rejected", "rejected mail", "rejected:", "message delayed", "delayed mail", "invalid address",
    "bounce", "delivering your mail", "delivery to", "non recapitato", "non recapitata", "mancata consegna",
    "mancato recapito", "impossibile recapitare", "anomalia messaggio", "notifica di mancat", "errore di consegna",
    "consegna non riuscita", "messaggio non consegnato", "impossibile consegnare", "unzustellbar", "nicht zustellbar",
    "nicht zugestellt", "zustellung", "rückläufer", "fehler beim zustellen", "non remis", "non distribu", "non délivr",
    "échec de", "echec de", "impossible de remettre", "remise impossible", "no se pudo entregar", "no se ha podido entregar",
    "no entregado", "no entregable", "devuelto", "error de entrega", "fallo en la entrega", "não entregue",
    "não foi entregue", "falha na entrega", "falha de entrega", "devolvid", "não foi possível entregar", "onbestelbaar",
    "niet bezorgd", "niet afgeleverd", "kunde inte levereras", "kan inte levereras", "kunne ikke leveres", "ikke leveret",
    "ikke levert", "niedostarczon", "nie można dostarczyć", "nedoručiteln", "kézbesíthetetlen", "teslim edilemedi",
    "iletilemedi", "недостав", "не достав", "не удалось доставить", "не может быть доставлен", "ошибка доставки", "退信",
    "无法送达", "無法送達", "无法投递", "無法投遞", "投递失败", "未送达", "退回", "配信不能", "配信エラー", "送信エラー", "送信できません", "配送でき", "配信でき", "送達できません",
    "届きませんでした", "エラーメール", "エラー通知", "メールエラー", "전송 실패", "반송", "배달되지", "전송하지 못",
];

/// What reports say in their text.
#[rustfmt::skip] // a list
pub(crate) const FAILED_TEXT: &[&str] = &[
    "undeliver", "not be delivered", "n't be delivered", "not been delivered", "not delivered", "not deliver",
    "unable to deliver", "n't deliver", "delivery failed", "delivery failure", "delivery to the following",
    "failed permanently", "permanent error", "permanent fatal error", "delivery errors", "had delivery", "returned to",
    "being returned", "been returned", "was not sent", "not be sent", "did not reach", "could not reach", "has been rejected", "was rejected",
    "not accepted", "unable to send", "bounced", "error delivering", "delivery error", "error in delivery",
    "delivery has failed", "message delivery", "not accept", "user unknown", "unknown user", "no such user",
    "unknown recipient", "message you sent", "mail you sent", "invalid final", "attempt to deliver", "non recapitat",
    "non è stato possibile", "impossibile", "mancata consegna", "nicht zugestellt", "nicht zustell", "zustellung",
    "konnte nicht", "n'a pas pu", "pas pu être", "échoué", "non distribu", "no se pudo", "no ha podido", "no pudo ser",
    "não pôde", "não foi possível", "não pode ser", "niet worden", "kunne ikke", "kunde inte", "nie można", "не достав",
    "не может быть", "не удалось", "退信", "无法", "無法", "失败", "被拒", "配信", "送信", "できません", "届け", "못했습니다", "실패",
];

/// What is tried further.
#[rustfmt::skip] // a list
pub(crate) const DELAYED: &[&str] = &[
    "warning message only", "will be retried", "will continue", "will keep trying", "still trying", "still be tried",
    "continue to try", "not yet been delivered", "has not been delivered yet", "delayed", "delay notification",
    "do not need to resend", "don't need to resend", "need not resend", "could not send message for past",
    "not been able to deliver", "temporarily undeliverable", "no action is required on your part", "noch nicht",
    "wird weiterhin versucht", "verzögert", "retard", "in ritardo", "ritardata", "retras", "atrasad", "задерж", "遅延", "延迟",
];

/// Subjects of answers of programs.
#[rustfmt::skip] // a list
pub(crate) const ANSWERS: &[&str] = &[
    "out of office", "out of the office", "out-of-office", "ooo:", "automatic reply", "auto reply", "auto-reply", "autoreply",
    "automated reply", "automated response", "automatic response", "autoresponse", "auto response", "auto-response",
    "autoresponder", "auto:", "vacation", "on holiday", "on leave", "away from", "i am away", "i'm away", "currently away",
    "annual leave", "parental leave", "maternity leave", "automatische antwort", "automatische rückantwort", "abwesenheit",
    "abwesend", "nicht im büro", "außer haus", "im urlaub", "réponse automatique", "reponse automatique", "absence du bureau",
    "absence", "absent(e)", "message d'absence", "risposta automatica", "fuori sede", "fuori ufficio", "assenza", "assente",
    "respuesta automática", "respuesta automatica", "fuera de la oficina", "fuera de oficina", "ausente", "ausencia",
    "resposta automática", "resposta automatica", "fora do escritório", "ausência", "automatisch antwoord", "afwezig",
    "autosvar", "automatiskt svar", "automatisk svar", "frånvaro", "fravær", "automaattinen vastaus", "poissa",
    "automatyczna odpowiedź", "nieobecność", "automatická odpověď", "otomatik yanıt", "автоответ", "автоматический ответ",
    "вне офиса", "自动回复", "自動回覆", "自动答复", "自動応答", "自動返信", "不在通知", "不在", "자동 회신", "자동회신", "부재중", "we have received your",
    "we received your", "thank you for contacting", "thank you for your email", "ticket received",
];

/// What programs say that want a person to answer.
#[rustfmt::skip] // a list
pub(crate) const CHALLENGES: &[&str] = &[
    "awaiting verification", "needs to be verified", "verification required", "sender verification required",
    "please confirm your message", "confirm your message", "confirm that you are", "confirm you are human", "prove that you",
    "challenge-response", "challenge/response", "boxtrapper", "spam arrest", "spamarrest", "tmda", "uol antispam",
    "antispam uol", "click the link below to complete the verification", "click the following link to deliver",
    "request to be added", "approve your address", "your message requires confirmation", "please authenticate your email",
    "held until you", "to release your message", "whitelist request", "bestätigen sie ihre nachricht",
    "confirmez votre message", "confirma tu mensaje", "confirme sua mensagem",
];

/// What begins the copy of the message in a report of words.
#[rustfmt::skip] // a list
pub(crate) const COPIES: &[&str] = &[
    "copy of the message", "copy of your message", "copy of the original", "copy of message", "original message",
    "message follows", "message header", "headers follow", "header follows", "unsent message", "undelivered message",
    "returned message", "rejected message", "original mail", "your message follows", "message text follows", "included below",
    "received header", "message contents", "content of the message", "beginning of your message", "transcript of message",
    "start of message", "start of returned", "forwarded message", "message headers", "contenuto del messaggio",
    "messaggio originale", "mensaje original", "message original", "message d'origine", "ursprüngliche nachricht",
    "originalnachricht", "ursprünglichen nachricht", "mensagem original", "исходное сообщение", "原始邮件", "元のメッセージ", "原文",
];

/// Whether one of the signs is in the text, which is in lower case.
pub(crate) fn has(text: &str, signs: &[&str]) -> bool {
    signs.iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_in_lower_case() {
        for sign in [
            DAEMONS,
            FAILED,
            FAILED_TEXT,
            DELAYED,
            ANSWERS,
            CHALLENGES,
            COPIES,
        ]
        .concat()
        {
            assert_eq!(sign, sign.to_lowercase());
        }
    }
}
