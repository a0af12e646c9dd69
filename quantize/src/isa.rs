//! Instruction sets: which ones this CPU has and which one is used.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// Environment variable that forces an instruction set.
pub const VARIABLE: &str = "GRIST_CPU";

/// An instruction set that kernels are compiled for. Encoders and decoders give the same bytes on
/// all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the target guarantees.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

/// `GRIST_CPU` cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The name means nothing.
    #[error("{VARIABLE}={name}: no such instruction set; this CPU has {available}", available = List(available))]
    Unknown {
        /// What the variable holds.
        name: String,
        /// The sets this CPU has.
        available: Vec<Isa>,
    },
    /// The CPU lacks the set.
    #[error("{VARIABLE}={isa}: this CPU lacks it; it has {available}", available = List(available))]
    Unavailable {
        /// The set asked for.
        isa: Isa,
        /// The sets this CPU has.
        available: Vec<Isa>,
    },
}

struct List<'a>(&'a [Isa]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, isa) in self.0.iter().enumerate() {
            write!(f, "{}{isa}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Isa {
    /// All sets, the plainest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Name as in `GRIST_CPU`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this CPU has the set.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Portable => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        matches!(self, Self::Portable)
    }

    /// The sets this CPU has, the plainest first.
    pub fn available() -> Vec<Self> {
        let mut sets = Self::ALL.to_vec();
        sets.retain(|isa| isa.is_available());
        sets
    }

    /// The set to use: what `GRIST_CPU` names, else the widest that this CPU has. The environment
    /// is read once.
    ///
    /// # Errors
    /// If `GRIST_CPU` names a set that is unknown or that this CPU lacks.
    pub fn detect() -> Result<Self, IsaError> {
        static CHOICE: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        CHOICE
            .get_or_init(|| match std::env::var_os(VARIABLE) {
                Some(name) => Self::choose(Some(&name.to_string_lossy())),
                None => Self::choose(None),
            })
            .clone()
    }

    fn choose(forced: Option<&str>) -> Result<Self, IsaError> {
        let available = Self::available();
        let Some(name) = forced.filter(|name| !name.is_empty()) else {
            return Ok(available.last().copied().unwrap_or(Self::Portable));
        };
        match name.parse() {
            Ok(isa) if available.contains(&isa) => Ok(isa),
            Ok(isa) => Err(IsaError::Unavailable { isa, available }),
            Err(name) => Err(IsaError::Unknown { name, available }),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    /// The name that is none.
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_set_is_followed_or_refused_with_the_list() {
        assert_eq!(Isa::choose(Some("Portable")), Ok(Isa::Portable));
        assert_eq!(Isa::choose(None).ok(), Isa::available().last().copied());
        let error = Isa::choose(Some("sse9")).unwrap_err().to_string();
        assert!(
            error.contains("sse9") && error.contains("portable"),
            "{error}"
        );
        for isa in Isa::ALL {
            match Isa::choose(Some(isa.name())) {
                Ok(chosen) => assert_eq!(chosen, isa),
                Err(error) => {
                    assert!(matches!(error, IsaError::Unavailable { .. }) && !isa.is_available());
                }
            }
        }
    }
}
