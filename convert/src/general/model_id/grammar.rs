//! The grammars of an id's words: versions, ways of storage, sizes.

/// A size in numbers: `7B`, `8x7B`, `A3B`, `1_6b`, `7b1`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Size<'a> {
    of: Of<'a>,
    whole: &'a str,
    fraction: Option<&'a str>,
    unit: Unit,
}

/// What a size counts.
#[derive(Debug, PartialEq, Eq)]
enum Of<'a> {
    All,
    /// The parameters that a token meets.
    Active,
    /// Those of one of so many experts.
    Experts(&'a str),
}

/// A power of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    K,
    M,
    B,
    T,
}

impl Unit {
    const ALL: [(Self, u8, f64); 4] = [
        (Self::K, b'K', 1e3),
        (Self::M, b'M', 1e6),
        (Self::B, b'B', 1e9),
        (Self::T, b'T', 1e12),
    ];
}

impl Size<'_> {
    pub(super) fn label(&self) -> String {
        let of = match self.of {
            Of::All => String::new(),
            Of::Active => "A".into(),
            Of::Experts(count) => format!("{count}x"),
        };
        let number = self.number();
        format!("{of}{number}{:?}", self.unit)
    }

    fn number(&self) -> String {
        match self.fraction {
            Some(fraction) => format!("{}.{fraction}", self.whole),
            None => self.whole.to_owned(),
        }
    }

    /// The model's parameters, if it is those that are stated.
    pub(super) fn total(&self) -> Option<f64> {
        let (.., scale) = Unit::ALL
            .into_iter()
            .find(|(unit, ..)| *unit == self.unit)?;
        let number: f64 = self.number().parse().ok()?;
        (self.of == Of::All).then_some(number * scale)
    }
}

/// What is left of a word. Letters match in either case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a str);

impl<'a> Cursor<'a> {
    /// Goes past a text if it is next.
    fn skip(&mut self, text: &str) -> Option<()> {
        let (head, rest) = self.0.split_at_checked(text.len())?;
        head.eq_ignore_ascii_case(text).then(|| self.0 = rest)
    }

    /// One or more bytes of a kind.
    fn run(&mut self, of: impl Fn(&u8) -> bool) -> Option<&'a str> {
        let length = self.0.bytes().take_while(of).count();
        let (run, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        (length > 0).then_some(run)
    }

    fn digits(&mut self) -> Option<&'a str> {
        self.run(u8::is_ascii_digit)
    }

    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    /// `v0.1`, `2.5`, `iter3`.
    pub(super) fn version(mut self) -> Option<()> {
        let _ = self.skip("iter").or_else(|| self.skip("v"));
        self.digits()?;
        while self.skip(".").is_some() {
            self.digits()?;
        }
        self.end()
    }

    /// `Q4_K_M`, `IQ2_XS`, `bf16`, `fp32`.
    pub(super) fn encoding(mut self) -> Option<()> {
        let mut float = self;
        if self.skip("iq").or_else(|| self.skip("q")).is_some() {
            self.digits()?;
            while self.skip("_").is_some() {
                self.run(u8::is_ascii_alphanumeric)?;
            }
            return self.end();
        }
        let _ = float.skip("b");
        float.skip("f")?;
        let _ = float.skip("p");
        float.skip("16").or_else(|| float.skip("32"))?;
        float.end()
    }

    pub(super) fn size(mut self) -> Option<Size<'a>> {
        let mut experts = self;
        let of = if self.skip("a").is_some() {
            Of::Active
        } else if let Some(count) = experts.digits()
            && experts.skip("x").is_some()
        {
            self = experts;
            Of::Experts(count)
        } else {
            Of::All
        };
        let whole = self.digits()?;
        let mut fraction = None;
        if self.skip(".").or_else(|| self.skip("_")).is_some() {
            fraction = Some(self.digits()?);
        }
        let letter = self.0.bytes().next()?.to_ascii_uppercase();
        let (unit, ..) = Unit::ALL.into_iter().find(|(_, name, _)| *name == letter)?;
        self.0 = &self.0[1..];
        // `7b1` is 7.1B.
        if fraction.is_none() {
            fraction = self.digits();
            if fraction.is_some_and(|digits| digits.len() > 1) {
                return None;
            }
        }
        self.end()?;
        Some(Size {
            of,
            whole,
            fraction,
            unit,
        })
    }
}
