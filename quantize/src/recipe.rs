//! Recipes: everything that decides an output's bytes, besides source and importance.

use crate::plan::Options;
use crate::preset::Preset;
use crate::types::Effort;

/// What one quantized output is made by.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The preset it starts from, and whose number the file carries.
    pub preset: Preset,
    /// Changes to it.
    pub options: Options,
    /// How hard the encoders search.
    pub effort: Effort,
}

impl From<Preset> for Recipe {
    fn from(preset: Preset) -> Self {
        Self {
            preset,
            options: Options::default(),
            effort: Effort::default(),
        }
    }
}
