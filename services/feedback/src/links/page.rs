//! What readers see: pages without anything of others, in the languages of a few of them.

use runtime::Response;

use super::form::{BY, BY_PAGE};

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// Whether somebody wants no more.
    Question,
    /// It is stored.
    Done,
    /// The link's time is over.
    Expired,
    /// There is no such link.
    Unknown,
    /// A POST that says something else.
    NotOneClick,
    /// A method that means nothing here.
    NotAllowed,
    /// It can't be stored now.
    Unavailable,
}

/// A language that pages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    German,
    Spanish,
    French,
    Italian,
}

/// By the beginning of their tags (RFC 5646).
const LANGUAGES: [(&str, Language); 5] = [
    ("en", Language::English),
    ("de", Language::German),
    ("es", Language::Spanish),
    ("fr", Language::French),
    ("it", Language::Italian),
];
/// Languages of a request that are looked at.
const MOST_ASKED: usize = 16;

impl Language {
    /// The first of `Accept-Language` that there is (clients name them in the order of preference); English else.
    pub(super) fn of(asked: Option<&str>) -> Self {
        let tags = asked.unwrap_or_default().split(',').take(MOST_ASKED);
        let known = tags.filter_map(|tag| tag.trim().get(..2)).find_map(|tag| {
            LANGUAGES
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(tag))
        });
        known.map_or(Self::English, |(_, language)| *language)
    }

    fn tag(self) -> &'static str {
        LANGUAGES
            .iter()
            .find(|(_, language)| *language == self)
            .map_or("en", |(tag, _)| tag)
    }

    /// Title and text of a page, and the button of the one that asks.
    fn texts(self, page: Page) -> (&'static str, &'static str) {
        use Language::{English, French, German, Italian, Spanish};
        match (page, self) {
            (Page::Question, English) => (
                "Unsubscribe",
                "Do you want to receive no more of these messages?",
            ),
            (Page::Question, German) => (
                "Abbestellen",
                "Möchten Sie diese Nachrichten nicht mehr erhalten?",
            ),
            (Page::Question, Spanish) => {
                ("Darse de baja", "¿Desea dejar de recibir estos mensajes?")
            }
            (Page::Question, French) => (
                "Se désabonner",
                "Souhaitez-vous ne plus recevoir ces messages ?",
            ),
            (Page::Question, Italian) => (
                "Annulla l’iscrizione",
                "Non desidera più ricevere questi messaggi?",
            ),
            (Page::Done, English) => (
                "Unsubscribed",
                "You will receive no more of these messages.",
            ),
            (Page::Done, German) => ("Abbestellt", "Sie erhalten diese Nachrichten nicht mehr."),
            (Page::Done, Spanish) => ("Baja confirmada", "Ya no recibirá estos mensajes."),
            (Page::Done, French) => ("Désabonné", "Vous ne recevrez plus ces messages."),
            (Page::Done, Italian) => ("Iscrizione annullata", "Non riceverà più questi messaggi."),
            (Page::Expired, English) => (
                "Link expired",
                "This link is no longer valid. Please use the link of a newer message.",
            ),
            (Page::Expired, German) => (
                "Link abgelaufen",
                "Dieser Link gilt nicht mehr. Bitte verwenden Sie den Link einer neueren Nachricht.",
            ),
            (Page::Expired, Spanish) => (
                "Enlace caducado",
                "Este enlace ya no es válido. Utilice el enlace de un mensaje más reciente.",
            ),
            (Page::Expired, French) => (
                "Lien expiré",
                "Ce lien n’est plus valable. Veuillez utiliser le lien d’un message plus récent.",
            ),
            (Page::Expired, Italian) => (
                "Link scaduto",
                "Questo link non è più valido. Usi il link di un messaggio più recente.",
            ),
            (Page::Unknown, English) => (
                "Not found",
                "There is no such page. The link may be incomplete.",
            ),
            (Page::Unknown, German) => (
                "Nicht gefunden",
                "Diese Seite gibt es nicht. Vielleicht ist der Link unvollständig.",
            ),
            (Page::Unknown, Spanish) => (
                "No encontrado",
                "Esta página no existe. Es posible que el enlace esté incompleto.",
            ),
            (Page::Unknown, French) => (
                "Page introuvable",
                "Cette page n’existe pas. Le lien est peut-être incomplet.",
            ),
            (Page::Unknown, Italian) => (
                "Pagina non trovata",
                "Questa pagina non esiste. Il link potrebbe essere incompleto.",
            ),
            (Page::Unavailable, English) => (
                "Try again",
                "Your request could not be stored. Please try again in a minute.",
            ),
            (Page::Unavailable, German) => (
                "Noch einmal versuchen",
                "Ihr Wunsch konnte nicht gespeichert werden. Bitte versuchen Sie es in einer Minute noch einmal.",
            ),
            (Page::Unavailable, Spanish) => (
                "Inténtelo de nuevo",
                "No se ha podido guardar su solicitud. Inténtelo de nuevo dentro de un minuto.",
            ),
            (Page::Unavailable, French) => (
                "Veuillez réessayer",
                "Votre demande n’a pas pu être enregistrée. Veuillez réessayer dans une minute.",
            ),
            (Page::Unavailable, Italian) => (
                "Riprovi",
                "Non è stato possibile salvare la richiesta. Riprovi tra un minuto.",
            ),
            // Only programs see these.
            (Page::NotOneClick, _) => (
                "Bad request",
                "List-Unsubscribe=One-Click is expected (RFC 8058).",
            ),
            (Page::NotAllowed, _) => ("Method not allowed", "GET, HEAD and POST are allowed."),
        }
    }
}

/// Nothing is loaded, nothing is run, the form goes nowhere else, and nobody frames the page.
const POLICY: &str =
    "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

impl Page {
    /// A label of metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Done => "unsubscribed",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::NotOneClick => "not_one_click",
            Self::NotAllowed => "not_allowed",
            Self::Unavailable => "unavailable",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::Question | Self::Done => 200,
            Self::NotOneClick => 400,
            Self::Unknown => 404,
            Self::NotAllowed => 405,
            Self::Expired => 410,
            Self::Unavailable => 503,
        }
    }

    /// The page as it is sent.
    pub(super) fn response(self, language: Language) -> Response {
        let mut fields = vec![
            ("content-type", "text/html; charset=utf-8"),
            ("content-security-policy", POLICY),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-robots-tag", "noindex"),
            ("cache-control", "no-store"),
            ("vary", "accept-language"),
        ];
        match self {
            Self::NotAllowed => fields.push(("allow", "GET, HEAD, POST")),
            Self::Unavailable => fields.push(("retry-after", "60")),
            _ => {}
        }
        Response {
            status: self.status(),
            fields,
            body: self.html(language),
        }
    }

    fn html(self, language: Language) -> String {
        let (title, text) = language.texts(self);
        // The form goes where it came from.
        let form = match self {
            Self::Question => format!(
                "<form method=\"post\">\n<input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\n\
                 <button name=\"{BY}\" value=\"{BY_PAGE}\">{title}</button>\n</form>\n"
            ),
            _ => String::new(),
        };
        let tag = language.tag();
        format!(
            "<!DOCTYPE html>\n<html lang=\"{tag}\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n</head>\n\
             <body>\n<h1>{title}</h1>\n<p>{text}</p>\n{form}</body>\n</html>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_the_first_language_of_the_reader_that_it_knows() {
        for (asked, expected) in [
            (None, Language::English),
            (Some(""), Language::English),
            (Some("de"), Language::German),
            (Some("ja, fr-CA;q=0.8, de;q=0.7"), Language::French),
            (Some("IT-CH"), Language::Italian),
            (Some("\u{e9}s, es"), Language::Spanish),
            (Some("x, *"), Language::English),
        ] {
            assert_eq!(Language::of(asked), expected, "{asked:?}");
        }
    }

    #[test]
    fn pages_have_a_form_only_where_they_ask_and_nothing_of_others() {
        const PAGES: [Page; 7] = [
            Page::Question,
            Page::Done,
            Page::Expired,
            Page::Unknown,
            Page::NotOneClick,
            Page::NotAllowed,
            Page::Unavailable,
        ];
        for page in PAGES {
            for (tag, language) in LANGUAGES {
                let response = page.response(language);
                let body = &response.body;
                assert!(body.contains(&format!("lang=\"{tag}\"")));
                assert_eq!(body.contains("<form"), page == Page::Question);
                for foreign in ["http", "src=", "href=", "<script", "<style", "action="] {
                    assert!(!body.contains(foreign), "{foreign}: {body}");
                }
                let has = |name: &str| response.fields.iter().any(|(field, _)| *field == name);
                assert!(has("content-security-policy") && has("referrer-policy"));
                assert!(!has("set-cookie") && !has("location"));
            }
        }
    }
}
