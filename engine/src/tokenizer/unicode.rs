//! General categories of characters.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, HirKind};

/// The characters of a class such as `\p{M}`, as sorted ranges.
#[derive(Debug)]
struct Ranges(Vec<(char, char)>);

impl Ranges {
    fn of(class: &str) -> Self {
        let class = match regex_syntax::parse(class).map(regex_syntax::hir::Hir::into_kind) {
            Ok(HirKind::Class(Class::Unicode(class))) => class,
            _ => ClassUnicode::empty(),
        };
        Self(
            class
                .iter()
                .map(|range| (range.start(), range.end()))
                .collect(),
        )
    }

    fn contains(&self, c: char) -> bool {
        let after = self.0.partition_point(|&(start, _)| start <= c);
        after > 0 && c <= self.0[after - 1].1
    }
}

static MARK: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{M}"));
static PUNCTUATION: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{P}"));
static CONTROL: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"[\p{Cc}\p{Cf}\p{Co}]"));

/// Marks that combine with a letter (category M).
pub(super) fn is_mark(c: char) -> bool {
    MARK.contains(c)
}

/// Punctuation (category P).
pub(super) fn is_punctuation(c: char) -> bool {
    PUNCTUATION.contains(c)
}

/// Characters without a shape of their own (categories Cc, Cf, Co).
pub(super) fn is_control(c: char) -> bool {
    CONTROL.contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories() {
        assert!(is_mark('\u{301}') && !is_mark('e'));
        assert!(is_punctuation('。') && !is_punctuation('$'));
        assert!(is_control('\u{200d}') && is_control('\u{7}') && !is_control(' '));
    }
}
