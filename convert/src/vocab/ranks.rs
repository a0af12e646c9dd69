//! Vocabularies that are ranked byte strings: their tokens' spelling and the merges that lead to
//! them.

use std::collections::HashMap;

/// Bytes of the longest token that is read: every way to cut it is tried.
pub(super) const LONGEST: usize = 1024;

/// GPT-2's spelling of bytes: printable Latin-1 letters stand for themselves, the others for
/// letters from U+0100 on.
pub(super) fn spelled(bytes: &[u8]) -> String {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let letter = |byte: u8| {
        if printable(byte) {
            return char::from(byte);
        }
        let before = (0..byte).filter(|&byte| !printable(byte)).count() as u32;
        char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    bytes.iter().map(|&byte| letter(byte)).collect()
}

/// For each token all pairs of tokens that make it up, the best-ranked pair first: tekken's merges.
pub(super) fn all_merges(tokens: &[Vec<u8>]) -> Vec<String> {
    let ranks = ranks(tokens);
    let mut merges = Vec::new();
    for token in tokens {
        let mut pairs: Vec<(usize, usize)> = (1..token.len())
            .filter_map(|at| {
                let (left, right) = token.split_at(at);
                Some((*ranks.get(left)?, *ranks.get(right)?))
            })
            .collect();
        pairs.sort_unstable();
        merges.extend(pairs.iter().map(|&(a, b)| merge(&tokens[a], &tokens[b])));
    }
    merges
}

/// For each token the pair that the ranks below its own lead to, if it is a pair that they lead to:
/// tiktoken's merges.
pub(super) fn merges_below(tokens: &[Vec<u8>]) -> Vec<String> {
    let ranks = ranks(tokens);
    let pairs = tokens.iter().enumerate();
    pairs
        .filter_map(|(rank, token)| {
            let cut = cut_below(token, rank, &ranks)?;
            let (left, right) = token.split_at(cut);
            Some(merge(left, right))
        })
        .collect()
}

/// Merges a token's bytes by the pairs that rank below it. Where two parts are left: the place
/// between them.
fn cut_below(token: &[u8], below: usize, ranks: &HashMap<&[u8], usize>) -> Option<usize> {
    let mut ends: Vec<usize> = (1..=token.len()).collect();
    loop {
        let start = |at: usize| if at == 0 { 0 } else { ends[at - 1] };
        let best = (1..ends.len())
            .filter_map(|at| {
                let rank = *ranks.get(&token[start(at - 1)..ends[at]])?;
                (rank < below).then_some((rank, at))
            })
            .min();
        match best {
            Some((_, at)) => ends.remove(at - 1),
            None => break,
        };
    }
    match ends[..] {
        [cut, _] => Some(cut),
        _ => None,
    }
}

fn ranks(tokens: &[Vec<u8>]) -> HashMap<&[u8], usize> {
    tokens
        .iter()
        .enumerate()
        .map(|(rank, token)| (token.as_slice(), rank))
        .collect()
}

fn merge(left: &[u8], right: &[u8]) -> String {
    format!("{} {}", spelled(left), spelled(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_lead_to_their_tokens() {
        let tokens: Vec<Vec<u8>> = ["a", "b", "c", "ab", "bc", "abc"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
        assert_eq!(all_merges(&tokens), ["a b", "b c", "a bc", "ab c"]);
        assert_eq!(merges_below(&tokens), ["a b", "b c", "ab c"]);
        assert_eq!(spelled(b" \n"), "ĠĊ");
    }
}
