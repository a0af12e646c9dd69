//! Qwen3-Next and Qwen 3.5: gated delta nets between layers of attention.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::qwen::MOE_PARAMS;
use super::{
    CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED, layer_types, partial_rotary, shaped, split_gate_up,
};
use crate::Error;
use crate::config::Config;
use crate::expr::{Arithmetic, Expr, ShapeError, Strided};

/// Delta net, and the gate of attention.
const DELTA: &[Part] = &[
    Part::AttnPostNorm,
    Part::AttnGate,
    Part::AttnQkv,
    Part::SsmA,
    Part::SsmConv1d,
    Part::SsmDt,
    Part::SsmNorm,
    Part::SsmOut,
];

const EXPERTS: &[Param] = &[
    MOE_PARAMS,
    Param::With(delta_net),
    Param::BoolUnless("expert_weights_norm", "norm_topk_prob", true),
];

const NEXT: Architecture = Architecture {
    name: "qwen3next",
    classes: &["Qwen3NextForCausalLM"],
    parts: &[
        CORE,
        QKV,
        QK_NORM,
        FFN,
        MOE,
        SHARED,
        NEXTN,
        DELTA,
        &[
            Part::FfnGateInpShexp,
            Part::FfnGateUpExp,
            Part::SsmIn,
            Part::SsmBetaAlpha,
        ],
    ],
    params: EXPERTS,
    rules: &[
        Rule("mtp.*", Action::With(prediction_name)),
        Rule("*.in_proj_qkvz.weight", Action::With(split_qkvz)),
        Rule("*.A_log", Action::NegExp),
        Rule("*.dt_bias", Action::Replace("dt_bias", "dt_proj.bias")),
        Rule("*.conv1d.weight", Action::Squeeze),
        Rule("*.experts.gate_up_proj", Action::With(fused_experts)),
        Rule(
            "*.experts.down_proj",
            Action::Replace("down_proj", "down_proj.weight"),
        ),
        Rule("*norm*.weight", Action::With(plus_one)),
    ],
    extra_layers: predicting_layers,
    ..PLAIN
};

const QWEN35: Architecture = Architecture {
    name: "qwen35",
    classes: &[
        "Qwen3_5ForCausalLM",
        "Qwen3_5ForConditionalGeneration",
        "MiniCPMV4_6ForConditionalGeneration",
    ],
    parts: &[
        CORE,
        QKV,
        QK_NORM,
        FFN,
        NEXTN,
        DELTA,
        &[Part::SsmBeta, Part::SsmAlpha],
    ],
    params: &[Param::Base, Param::With(delta_net)],
    rules: &[
        Rule("mtp.*", Action::With(prediction_name)),
        Rule("*.linear_attn.*", Action::With(tile_values)),
        Rule("*.A_log", Action::NegExp),
        Rule("*.dt_bias", Action::Replace("dt_bias", "dt_proj.bias")),
        Rule("*.conv1d.weight", Action::Squeeze),
        Rule("*.experts.gate_up_proj", Action::With(fused_experts)),
        Rule(
            "*.experts.down_proj",
            Action::Replace("down_proj", "down_proj.weight"),
        ),
        Rule("*norm*.weight", Action::With(plus_one)),
    ],
    ..NEXT
};

pub(super) const ALL: &[Architecture] = &[
    NEXT,
    QWEN35,
    Architecture {
        name: "qwen35moe",
        classes: &[
            "Qwen3_5MoeForCausalLM",
            "Qwen3_5MoeForConditionalGeneration",
        ],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            MOE,
            SHARED,
            NEXTN,
            DELTA,
            &[
                Part::FfnGateInpShexp,
                Part::FfnGateUpExp,
                Part::SsmBeta,
                Part::SsmAlpha,
            ],
        ],
        params: EXPERTS,
        ..QWEN35
    },
];

/// Layers that predict further tokens: as many as are stored.
fn predicting_layers(model: &Model) -> Result<u32, Error> {
    let numbers = model.tensors.iter().filter_map(|tensor| {
        let (number, _) = tensor.name.strip_prefix("mtp.layers.")?.split_once('.')?;
        number.parse::<u32>().ok()
    });
    Ok(numbers.max().map_or(0, |last| last.saturating_add(1)))
}

fn delta_net(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let extra = model.extra_layers()?;
    if extra > 0 {
        keys.set("nextn_predict_layers", extra);
    }
    let values = config.u32(&["linear_num_value_heads"])?;
    keys.set("ssm.conv_kernel", config.u32(&["linear_conv_kernel_dim"])?);
    keys.set("ssm.state_size", config.u32(&["linear_key_head_dim"])?);
    keys.set("ssm.group_count", config.u32(&["linear_num_key_heads"])?);
    keys.set("ssm.time_step_rank", values);
    keys.set(
        "ssm.inner_size",
        config.u32(&["linear_value_head_dim"])? * values,
    );
    let interval = config.opt_u32(&["full_attention_interval"])?.unwrap_or(4);
    let mut recurrent = match layer_types(config, "linear_attention") {
        Some(recurrent) => recurrent,
        None => (1..=config.layers()?)
            .map(|layer| layer % interval.max(1) != 0)
            .collect(),
    };
    recurrent.resize(model.block_count()? as usize, false);
    keys.set("attention.recurrent_layers", recurrent);
    keys.set("full_attention_interval", interval);
    partial_rotary(model, keys, 0.25)
}

/// Sizes of the delta net's heads.
struct Heads {
    keys: u64,
    values: u64,
    key_dim: u64,
    value_dim: u64,
}

impl Heads {
    fn of(config: &Config) -> Result<Self, Error> {
        let get = |field: &'static str| config.u32(&[field]).map(u64::from);
        let heads = Self {
            keys: get("linear_num_key_heads")?,
            values: get("linear_num_value_heads")?,
            key_dim: get("linear_key_head_dim")?,
            value_dim: get("linear_value_head_dim")?,
        };
        if heads.keys == 0 || !heads.values.is_multiple_of(heads.keys) {
            return Err(Error::config(
                "linear_num_value_heads",
                "is no multiple of linear_num_key_heads",
            ));
        }
        Ok(heads)
    }

    /// Value heads of each key head.
    fn ratio(&self) -> u64 {
        self.values / self.keys
    }

    /// Value heads in tiles: the first of every key head, then the second, and so on; `dim` rows
    /// each.
    fn tiled(&self, first: u64, dim: u64) -> Strided {
        let ratio = self.ratio();
        Strided::new(first, [(ratio, dim), (self.keys, ratio * dim), (dim, 1)])
    }
}

/// Query, key, value and gate stand together, key head by key head.
fn split_qkvz(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let heads = Heads::of(&model.config)?;
    let values = heads.ratio() * heads.value_dim;
    let group = 2 * heads.key_dim + 2 * values;
    if expr.row_count() != heads.keys * group {
        return Err(Error::tensor(
            name,
            format!(
                "has {} rows, the configuration wants {}",
                expr.row_count(),
                heads.keys * group
            ),
        ));
    }
    let part = |first: u64, rows: u64| {
        let view = Strided::new(first, [(heads.keys, group), (rows, 1)]);
        expr.rows_view(view, &[heads.keys * rows])
    };
    let key = heads.key_dim;
    let fused = (|| -> Result<Expr, ShapeError> {
        let parts = vec![part(0, key)?, part(key, key)?, part(2 * key, values)?];
        Expr::concat(parts, &[heads.keys * (2 * key + values)])
    })();
    let gate = shaped(name, part(2 * key + values, values))?;
    Ok(vec![
        (
            name.replace("in_proj_qkvz", "in_proj_qkv"),
            shaped(name, fused)?,
        ),
        (name.replace("in_proj_qkvz", "in_proj_z"), gate),
    ])
}

/// Brings value heads into tiles wherever they appear.
fn tile_values(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let heads = Heads::of(&model.config)?;
    let same = vec![(name.to_owned(), expr.clone())];
    if heads.ratio() == 1 {
        return Ok(same);
    }
    let is = |part: &str| name.contains(part);
    let before = 2 * heads.keys * heads.key_dim;
    let tiled = if is(".in_proj_qkv.") || is(".conv1d.") {
        // Queries and keys stay; only the value part is tiled.
        (|| {
            let rows = expr.row_count();
            let outer = expr.shape()[1..].to_vec();
            let values = expr.rows_view(
                heads.tiled(before, heads.value_dim),
                &[heads.values * heads.value_dim],
            )?;
            let kept = expr.rows_view(Strided::range(0..before), &[before])?;
            let _ = rows;
            Expr::concat(vec![kept, values], &outer)
        })()
    } else if is(".in_proj_z.") {
        expr.reorder(&heads.tiled(0, heads.value_dim))
    } else if is(".in_proj_a.") || is(".in_proj_b.") || is(".A_log") || is(".dt_bias") {
        expr.reorder(&heads.tiled(0, 1))
    } else if is(".out_proj.") {
        expr.columns(heads.tiled(0, heads.value_dim))
    } else {
        return Ok(same);
    };
    Ok(vec![(name.to_owned(), shaped(name, tiled)?)])
}

fn fused_experts(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    split_gate_up(
        name,
        &expr,
        &name.replace("gate_up_proj", "gate_proj.weight"),
        &name.replace("gate_up_proj", "up_proj.weight"),
    )
}

/// Norms compute with `1 + w`, but for the delta net's own.
fn plus_one(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let own = name.contains("linear_attn.norm");
    let expr = if own || !name.ends_with("norm.weight") {
        expr
    } else {
        expr.compute(Arithmetic::Add(1.0))
    };
    Ok(vec![(name.to_owned(), expr)])
}

/// The predicting layer is stored apart; in the file it is the layer after the last.
fn prediction_name(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layers = model.config.layers()?;
    if model.extra_layers()? == 0 {
        return Ok(Vec::new());
    }
    let rest = name.trim_start_matches("mtp.");
    let name = if let Some(inner) = rest.strip_prefix("layers.") {
        let (number, inner) = inner.split_once('.').unwrap_or(("0", inner));
        let number: u32 = number.parse().unwrap_or(0);
        format!("model.layers.{}.{inner}", layers + number)
    } else {
        let inner = match rest.split('.').next().unwrap_or(rest) {
            "fc" => "eh_proj.weight",
            "pre_fc_norm_embedding" => "enorm.weight",
            "pre_fc_norm_hidden" => "hnorm.weight",
            "norm" => "shared_head.norm.weight",
            _ => rest,
        };
        format!("model.layers.{layers}.{inner}")
    };
    Ok(vec![(name, expr)])
}
