//! GPT-2's spelling of bytes: printable Latin-1 letters stand for themselves, the others for
//! letters from U+0100 on, so that every byte string is readable text.

/// The letter of a byte.
pub(super) fn letter(byte: u8) -> char {
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !printable(byte)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes that letters stand for; text with other letters is no spelling.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte).collect()
}

fn byte(letter: char) -> Option<u8> {
    static BYTES: std::sync::LazyLock<std::collections::HashMap<char, u8>> =
        std::sync::LazyLock::new(|| (0..=255).map(|byte| (self::letter(byte), byte)).collect());
    BYTES.get(&letter).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_gpt2() {
        assert_eq!((letter(b' '), letter(b'\n'), letter(0)), ('Ġ', 'Ċ', 'Ā'));
        assert_eq!(letter(0xad), '\u{143}');
        for byte in 0..=255 {
            assert_eq!(bytes(&letter(byte).to_string()).unwrap(), [byte]);
        }
        assert_eq!(bytes(" "), None);
    }
}
