//! A text as the words that rules are about.

/// A pause between sentences, which no phrase goes across.
pub(crate) const STOP: &str = ".";

/// The words of a text in lower case, without accents; what is written without spaces (Chinese, Japanese) gives a word for each
/// character. Apostrophes are left out (`doesnt`), other punctuation separates. Addresses are left out, since whoever has one
/// chose what is in it. At most `limit` words.
pub(crate) fn words_of(text: &str, limit: usize) -> Vec<String> {
    let mut words = Vec::new();
    let ends_chunk = |c: char| c.is_whitespace() || "<>()[]{},;:\"|".contains(c);
    for piece in text.split_inclusive(ends_chunk) {
        if words.len() >= limit {
            break;
        }
        let chunk = piece.trim_end_matches(ends_chunk);
        let is_address = chunk.find('@').is_some_and(|at| at > 0);
        if !is_address {
            push_words(chunk, &mut words);
        }
        let after = piece[chunk.len()..].chars().next();
        let ends_sentence = match after {
            Some(c) if c.is_whitespace() => chunk.ends_with(['.', '!', '?', '。']),
            Some(';') => true,
            _ => false,
        };
        if ends_sentence && words.last().is_some_and(|last| last != STOP) {
            words.push(STOP.to_owned());
        }
    }
    words.truncate(limit);
    words
}

fn push_words(chunk: &str, words: &mut Vec<String>) {
    let mut word = String::new();
    for c in chunk.chars().flat_map(char::to_lowercase) {
        if stands_alone(c) {
            flush(&mut word, words);
            words.push(c.to_string());
        } else if c.is_alphanumeric() {
            push_folded(c, &mut word);
        } else if c == '*' {
            // Of rules: any ending.
            word.push(c);
        } else if !is_mark(c) || is_elided(&word) {
            flush(&mut word, words);
        }
    }
    flush(&mut word, words);
}

fn flush(word: &mut String, words: &mut Vec<String>) {
    if word.chars().any(|c| c != '*') {
        words.push(std::mem::take(word));
    }
    word.clear();
}

/// Articles that lose their end before a vowel: l'utente.
fn is_elided(word: &str) -> bool {
    ["l", "d", "un", "qu", "all", "dall", "dell", "nell", "sull"].contains(&word)
}

/// Apostrophes and accents that are characters of their own.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\'' | '\u{2019}' | '`' | '\u{b4}' | '\u{300}'..='\u{36f}'
    )
}

/// Scripts without spaces between words.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{e00}'..='\u{e7f}')
}

/// Latin letters without their accents: servers leave them out as often as not.
fn push_folded(c: char, word: &mut String) {
    let plain = match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'č' => 'c',
        'ď' | 'đ' => 'd',
        'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => 'e',
        'ğ' => 'g',
        'ì'..='ï' | 'ī' | 'į' | 'ı' => 'i',
        'ł' => 'l',
        'ñ' | 'ń' | 'ň' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ő' => 'o',
        'ř' => 'r',
        'ś' | 'š' | 'ş' | 'ș' => 's',
        'ť' | 'ţ' | 'ț' => 't',
        'ù'..='ü' | 'ū' | 'ů' | 'ű' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        'ё' => 'е',
        'ß' => {
            word.push_str("ss");
            return;
        }
        other => other,
    };
    word.push(plain);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_words_apart_and_leaves_addresses_out() {
        for (text, words) in [
            ("User-Unknown", "user unknown"),
            ("<spam@blocked.example>: doesn't exist", "doesnt exist"),
            ("Boîte PLEINE, größe", "boite pleine grosse"),
            ("用户不存在", "用 户 不 存 在"),
            ("rejected. See b.example", "rejected . see b example"),
            ("550 5.1.1 x", "550 5 1 1 x"),
            ("a; b", "a . b"),
            ("@ * ' ", ""),
            ("L'utente n'existe", "l utente nexiste"),
        ] {
            assert_eq!(words_of(text, 100).join(" "), words, "{text}");
        }
        assert_eq!(words_of("a b c d", 2), ["a", "b"]);
    }
}
