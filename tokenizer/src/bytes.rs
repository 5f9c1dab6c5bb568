//! How byte-level vocabularies spell bytes: each byte is one printable character (GPT-2's `bytes_to_unicode`).

/// Bytes that GPT-2 leaves as they are; the others become U+0100 onwards, in order.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const fn spelling() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100_u16;
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if is_printable(byte as u8) {
            byte as u8 as char
        } else {
            next += 1;
            match char::from_u32(next as u32 - 1) {
                Some(c) => c,
                None => unreachable!(),
            }
        };
        byte += 1;
    }
    table
}

/// The character that stands for each byte.
pub(crate) static SPELLING: [char; 256] = spelling();

/// The byte that a character stands for.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    static SHIFTED: [u8; 68] = {
        let mut table = [0; 68];
        let mut byte = 0;
        let mut next = 0;
        while byte < 256 {
            if !is_printable(byte as u8) {
                table[next] = byte as u8;
                next += 1;
            }
            byte += 1;
        }
        table
    };
    match u32::from(c) {
        code @ 0..=0xFF => is_printable(code as u8).then_some(code as u8),
        code => SHIFTED.get(code as usize - 0x100).copied(),
    }
}

/// Appends the bytes that `text` spells; a character that spells no byte is taken literally.
pub(crate) fn unspell(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends the spelling of `bytes`.
pub(crate) fn spell(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&byte| SPELLING[usize::from(byte)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        spell(&all, &mut text);
        assert_eq!(text.chars().collect::<std::collections::HashSet<_>>().len(), 256);
        let mut back = Vec::new();
        unspell(&text, &mut back);
        assert_eq!(back, all);
        assert_eq!((SPELLING[32], SPELLING[10], byte_of('\u{144}'), byte_of(' ')), ('Ġ', 'Ċ', None, None));
    }
}
