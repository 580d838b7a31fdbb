//! Base32 of RFC 4648 in lower case, without padding. Case does not matter when it is read: hosts change it.

const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// As text.
pub(super) fn write(octets: &[u8], text: &mut String) {
    let (mut bits, mut count) = (0_u32, 0);
    for octet in octets {
        bits = bits << 8 | u32::from(*octet);
        count += 8;
        while count >= 5 {
            count -= 5;
            push(bits >> count, text);
        }
    }
    if count > 0 {
        push(bits << (5 - count), text);
    }
}

fn push(bits: u32, text: &mut String) {
    let digit = DIGITS[usize::try_from(bits & 31).unwrap_or(0)];
    text.push(char::from(digit));
}

/// `N` octets. `None`: other characters or another length, or bits are set that mean nothing, so that each row of octets has one
/// text but for its case.
pub(super) fn read<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut octets = [0; N];
    let (mut bits, mut count, mut at) = (0_u32, 0, 0);
    for byte in text {
        bits = bits << 5 | digit(*byte)?;
        count += 5;
        if count >= 8 {
            count -= 8;
            *octets.get_mut(at)? = u8::try_from(bits >> count & 255).ok()?;
            at += 1;
        }
        bits &= (1 << count) - 1;
    }
    (bits == 0 && at == N).then_some(octets)
}

fn digit(byte: u8) -> Option<u32> {
    match byte {
        b'a'..=b'z' => Some(u32::from(byte - b'a')),
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'2'..=b'7' => Some(u32::from(byte - b'2') + 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_rfc_4648_does() {
        for (octets, text) in [
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foobar", "mzxw6ytboi"),
        ] {
            let mut written = String::new();
            write(octets.as_bytes(), &mut written);
            assert_eq!(written, text);
        }
        assert_eq!(read(b"mzxw6ytboi"), Some(*b"foobar"));
        assert_eq!(read(b"MZXW6"), Some(*b"foo"));
        for none in [&b"mz"[..], b"mzxq", b"mzxw1", b"mzxw6y"] {
            assert_eq!(read::<3>(none), None);
        }
        // The last bits mean nothing, and are zero.
        assert_eq!(read::<1>(b"mz"), None);
    }
}
