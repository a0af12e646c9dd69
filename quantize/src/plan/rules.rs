//! The rules by which a preset chooses types (`llama_tensor_get_type` of llama.cpp's
//! `src/llama-quant.cpp`), as rows of data and the little code that reads them.

use bstr::{BStr, BString, ByteSlice};
use gristmill_gguf::{Metadata, TensorInfo, TensorType};

use super::PlanError;
use super::role::{Role, layer};
use crate::preset::Preset::{self, *};

/// What the rules ask about a model.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) architecture: String,
    /// Query heads for each key/value head in layer 0; 0 if that layer has no key/value head.
    heads_per_kv: u64,
    experts: u64,
    blocks: u64,
    /// Tensors that hold attention values.
    values: u64,
    /// Whether the token embedding serves as output too.
    pub(super) tied: bool,
    importance: bool,
    /// A 70B model (or one like it) with grouped-query attention.
    seventy: bool,
}

impl Facts {
    pub(super) fn new(
        metadata: &Metadata,
        tensors: &[(BString, &TensorInfo)],
        importance: bool,
    ) -> Self {
        let architecture = metadata
            .str("general.architecture")
            .unwrap_or_default()
            .to_owned();
        // Some keys are arrays with a value for each layer: the first counts.
        let number = |key: &str| {
            let value = metadata.get(format!("{architecture}.{key}"))?;
            let first = value.as_array().and_then(|array| array.get(0));
            first.as_ref().unwrap_or(value).as_u64()
        };
        let blocks = number("block_count").unwrap_or(0);
        let heads = number("attention.head_count").unwrap_or(0);
        let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
        let seventy = match architecture.as_str() {
            "llama" => blocks == 80 && heads != kv_heads,
            "qwen2" | "deci" | "olmo" => blocks == 80,
            "jais2" => blocks == 68,
            _ => false,
        };
        Self {
            heads_per_kv: heads.checked_div(kv_heads).unwrap_or(0),
            experts: number("expert_count").unwrap_or(0),
            blocks,
            values: tensors
                .iter()
                .filter(|(name, _)| Role::of(name.as_ref()) == Role::Value)
                .count() as u64,
            tied: !tensors.iter().any(|(name, _)| name == "output.weight"),
            importance,
            seventy,
            architecture,
        }
    }

    fn is_falcon(&self) -> bool {
        self.architecture == "falcon"
    }
}

/// The tensors of each role met so far: the rules speak of "the third value tensor", which is not
/// always the one of layer 2.
#[derive(Debug, Default)]
pub(super) struct Counters {
    value: u64,
    down: u64,
    gate: u64,
    up: u64,
}

/// A condition of a row.
#[derive(Debug, Clone, Copy)]
enum When {
    Gqa4,
    Experts4,
    Experts8,
    NotExperts8,
    Importance,
    NoImportance,
    Falcon,
    NotFalcon,
    /// The default type's blocks do not fit the rows.
    RowsUnfit,
    /// Position below a number.
    Before(u64),
    /// Position in the first 1/n of the layers.
    First(u64),
    /// Position in the first or last eighth, or every third between.
    Spread,
    /// Position neither in the first nor in the last eighth.
    Middle,
}
use When::*;

/// The first row that names the preset (all presets if it names none) and whose conditions all
/// hold gives the type. `None`: the preset's default type.
struct Row(&'static [Preset], &'static [When], Option<TensorType>);

const fn to(presets: &'static [Preset], when: &'static [When], ty: TensorType) -> Row {
    Row(presets, when, Some(ty))
}

const fn keep(presets: &'static [Preset], when: &'static [When]) -> Row {
    Row(presets, when, None)
}

use TensorType as T;

const LOW_BIT: &[Preset] = &[IQ2_XXS, IQ2_XS, IQ2_S, IQ2_M, IQ1_S, IQ1_M];
const ANY: &[Preset] = &[];

const OUTPUT: &[Row] = &[
    to(&[MXFP4_MOE], &[], T::Q8_0),
    to(ANY, &[Falcon], T::Q8_0),
    to(ANY, &[RowsUnfit], T::Q8_0),
    to(LOW_BIT, &[], T::Q5_K),
    to(&[IQ3_XXS], &[], T::Q5_K),
    to(&[Q8_0], &[], T::Q8_0),
    to(ANY, &[], T::Q6_K),
];

const EMBEDDING: &[Row] = &[
    to(&[IQ2_XXS, IQ2_XS, IQ1_S, IQ1_M], &[], T::Q2_K),
    to(&[IQ2_S, IQ2_M, IQ3_XXS], &[], T::IQ3_S),
    to(&[TQ1_0, TQ2_0, Q2_0], &[], T::Q4_K),
];

const LOW_BIT_VALUE: &[Row] = &[
    to(ANY, &[Gqa4], T::Q4_K),
    to(ANY, &[Experts4], T::Q4_K),
    to(&[IQ2_S, IQ2_M], &[], T::IQ3_S),
    to(ANY, &[], T::Q2_K),
];

const LOW_BIT_KEY: &[Row] = &[to(ANY, &[Experts8], T::Q4_K)];

const LOW_BIT_DOWN: &[Row] = &[
    to(&[IQ2_S, IQ2_M], &[First(8)], T::IQ3_S),
    to(ANY, &[First(8)], T::Q2_K),
];

const LOW_BIT_ATTENTION_OUTPUT: &[Row] = &[
    to(ANY, &[Experts8], T::Q5_K),
    to(&[IQ1_S, IQ1_M], &[], T::IQ2_XXS),
    to(&[IQ2_S, IQ2_M], &[], T::IQ3_S),
];

const VALUE: &[Row] = &[
    to(&[Q2_K, Q2_K_S, IQ3_XXS, IQ3_XS, IQ3_S], &[Gqa4], T::Q4_K),
    to(&[Q2_K], &[], T::Q3_K),
    to(&[IQ3_XXS], &[Importance], T::IQ3_XXS),
    to(&[IQ3_XXS], &[], T::IQ3_S),
    to(&[IQ3_M], &[], T::Q4_K),
    to(&[Q3_K_M], &[Before(2)], T::Q5_K),
    to(&[Q3_K_M], &[], T::Q4_K),
    to(&[Q3_K_L], &[], T::Q5_K),
    to(&[IQ4_NL, IQ4_XS], &[Gqa4], T::Q5_K),
    to(&[Q4_K_M, Q5_K_M], &[Spread], T::Q6_K),
    to(&[Q4_K_S], &[Before(4)], T::Q5_K),
];

const KEY: &[Row] = &[
    to(ANY, &[Experts8], T::Q8_0),
    to(&[IQ3_XS], &[], T::IQ3_XXS),
    to(&[IQ3_XXS], &[], T::IQ2_S),
];

const QUERY: &[Row] = &[
    to(&[IQ3_XS], &[], T::IQ3_XXS),
    to(&[IQ3_XXS], &[], T::IQ2_S),
];

const DOWN: &[Row] = &[
    to(&[Q2_K], &[], T::Q3_K),
    to(&[Q2_K_S], &[First(8)], T::Q4_K),
    to(&[IQ3_XXS], &[NoImportance, First(8)], T::Q4_K),
    to(&[IQ3_XXS], &[NoImportance], T::Q3_K),
    to(&[Q3_K_M], &[First(16)], T::Q5_K),
    to(&[Q3_K_M], &[NotFalcon], T::Q4_K),
    to(&[Q3_K_M], &[Spread], T::Q4_K),
    to(&[Q3_K_M], &[], T::Q3_K),
    to(&[IQ3_M], &[First(8)], T::Q4_K),
    to(&[IQ3_M], &[Experts8, Spread], T::Q4_K),
    to(&[Q3_K_L], &[Falcon], T::Q4_K),
    to(&[Q3_K_L], &[], T::Q5_K),
    to(&[Q4_K_M], &[Falcon, First(16)], T::Q6_K),
    to(&[Q4_K_M], &[Falcon, Spread], T::Q5_K),
    keep(&[Q4_K_M], &[Falcon]),
    to(&[Q4_K_M, Q5_K_M], &[Spread], T::Q6_K),
    to(&[IQ4_NL, IQ4_XS], &[NoImportance, First(8)], T::Q5_K),
    to(&[Q4_K_S], &[NotFalcon, First(8)], T::Q5_K),
    to(&[Q4_0], &[Importance, First(8)], T::Q4_1),
    to(&[Q5_0], &[Importance, First(8)], T::Q5_1),
];

const ATTENTION_OUTPUT: &[Row] = &[
    to(&[Q3_K_L], &[Falcon], T::Q4_K),
    keep(ANY, &[Falcon]),
    to(
        &[
            Q2_K, IQ3_XS, IQ3_XXS, Q3_K_S, Q3_K_M, IQ4_NL, Q4_K_S, Q4_K_M, IQ3_S, IQ3_M, IQ4_XS,
        ],
        &[Experts8],
        T::Q5_K,
    ),
    to(&[Q2_K], &[NotExperts8], T::Q3_K),
    to(&[IQ3_XXS], &[NotExperts8], T::IQ3_S),
    to(&[Q3_K_M, IQ3_M], &[NotExperts8], T::Q4_K),
    to(&[Q3_K_L], &[NotExperts8], T::Q5_K),
];

const GATE_UP: &[Row] = &[to(&[IQ3_XS], &[Middle], T::IQ3_XXS)];

/// One tensor under the standard rules.
pub(super) struct Subject<'a> {
    pub(super) facts: &'a Facts,
    pub(super) preset: Preset,
    /// The preset's default type.
    pub(super) default: TensorType,
    pub(super) name: &'a BStr,
    pub(super) shape: &'a [u64],
    pub(super) role: Role,
}

impl Subject<'_> {
    /// The type by the standard rules. `tied_output` is the type asked for the output tensor,
    /// which holds for a tied embedding too.
    pub(super) fn choose(
        &self,
        counters: &mut Counters,
        tied_output: Option<TensorType>,
    ) -> Result<TensorType, PlanError> {
        let facts = self.facts;
        if facts.architecture == "glm5-next"
            && ["attn_q_a", "attn_q_b", "nextn.eh_proj"]
                .iter()
                .any(|part| self.name.contains_str(part))
        {
            return Ok(TensorType::Q8_0);
        }
        let nowhere = (0, facts.blocks);
        if self.role == Role::Output || (self.role == Role::TokenEmbedding && facts.tied) {
            return Ok(tied_output.unwrap_or_else(|| self.first(OUTPUT, nowhere)));
        }
        if self.preset == MXFP4_MOE {
            return Ok(self.experts_only());
        }
        if self.role == Role::TokenEmbedding {
            return Ok(self.first(EMBEDDING, nowhere));
        }
        if LOW_BIT.contains(&self.preset) {
            return Ok(self.low_bit(counters));
        }
        Ok(match self.role {
            Role::Value => {
                let at = next(&mut counters.value);
                let ty = self.first(VALUE, (at, facts.values));
                if facts.experts == 8 {
                    TensorType::Q8_0
                } else if facts.seventy && matches!(ty, TensorType::Q3_K | TensorType::Q4_K) {
                    TensorType::Q5_K
                } else {
                    ty
                }
            }
            Role::Key => self.first(KEY, nowhere),
            Role::Query => self.first(QUERY, nowhere),
            Role::Down => self.first(DOWN, self.position(&mut counters.down)?),
            Role::AttentionOutput => self.first(ATTENTION_OUTPUT, nowhere),
            Role::Gate => self.first(GATE_UP, self.position(&mut counters.gate)?),
            Role::Up => self.first(GATE_UP, self.position(&mut counters.up)?),
            Role::Other | Role::Output | Role::TokenEmbedding => self.default,
        })
    }

    fn low_bit(&self, counters: &mut Counters) -> TensorType {
        let blocks = self.facts.blocks;
        match self.role {
            Role::Value => {
                let at = next(&mut counters.value);
                self.first(LOW_BIT_VALUE, (at, self.facts.values))
            }
            Role::Key => self.first(LOW_BIT_KEY, (0, blocks)),
            Role::Down => self.first(LOW_BIT_DOWN, (next(&mut counters.down), blocks)),
            Role::AttentionOutput => self.first(LOW_BIT_ATTENTION_OUTPUT, (0, blocks)),
            _ => self.default,
        }
    }

    /// The mixture-of-experts preset touches stacked experts; all else stays near lossless.
    fn experts_only(&self) -> TensorType {
        let stacked = self.shape.get(2).is_some_and(|&experts| experts > 1);
        let wanted = self.facts.architecture != "bailingmoe3"
            || matches!(self.role, Role::Up | Role::Gate | Role::Down);
        if stacked && wanted {
            TensorType::MXFP4
        } else {
            TensorType::Q8_0
        }
    }

    /// Where a feed-forward tensor stands among the layers: by count, or by name where a layer may
    /// hold several (experts beside shared experts).
    fn position(&self, counter: &mut u64) -> Result<(u64, u64), PlanError> {
        let blocks = self.facts.blocks;
        let counted = next(counter);
        if self.facts.experts <= 1 {
            return Ok((counted, blocks));
        }
        match layer(self.name) {
            Some((at, _)) if at < blocks => Ok((at, blocks)),
            found => Err(PlanError::Layer {
                tensor: self.name.to_owned(),
                found: found.map(|(at, _)| at),
                layers: blocks,
            }),
        }
    }

    fn first(&self, rows: &[Row], position: (u64, u64)) -> TensorType {
        rows.iter()
            .find(|Row(presets, when, _)| {
                (presets.is_empty() || presets.contains(&self.preset))
                    && when.iter().all(|&when| self.holds(when, position))
            })
            .and_then(|row| row.2)
            .unwrap_or(self.default)
    }

    fn holds(&self, when: When, (at, of): (u64, u64)) -> bool {
        let facts = self.facts;
        let last_eighth = of.saturating_mul(7) / 8;
        match when {
            Gqa4 => facts.heads_per_kv >= 4,
            Experts4 => facts.experts >= 4,
            Experts8 => facts.experts == 8,
            NotExperts8 => facts.experts != 8,
            Importance => facts.importance,
            NoImportance => !facts.importance,
            Falcon => facts.is_falcon(),
            NotFalcon => !facts.is_falcon(),
            RowsUnfit => {
                let row = self.shape.first().copied().unwrap_or(1);
                self.default.row_bytes(row).is_none()
            }
            Before(limit) => at < limit,
            First(share) => at < of / share,
            Spread => at < of / 8 || at >= last_eighth || (at - of / 8) % 3 == 2,
            Middle => at >= of / 8 && at < last_eighth,
        }
    }
}

fn next(counter: &mut u64) -> u64 {
    let at = *counter;
    *counter += 1;
    at
}
