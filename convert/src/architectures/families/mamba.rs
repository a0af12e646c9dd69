//! Mamba 1 and 2.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::ssm::{CONVOLUTION, DECAY, DECAY_COLUMN, SKIP_COLUMN, TIME_STEP, group_norm};
use super::{SSM, shaped};
use crate::Error;
use crate::expr::Expr;

const FRAME: &[Part] = &[
    Part::TokenEmbd,
    Part::OutputNorm,
    Part::Output,
    Part::AttnNorm,
];

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "mamba",
        classes: &[
            "MambaForCausalLM",
            "MambaLMHeadModel",
            "FalconMambaForCausalLM",
        ],
        parts: &[
            FRAME,
            &[
                Part::SsmIn,
                Part::SsmConv1d,
                Part::SsmX,
                Part::SsmDt,
                Part::SsmA,
                Part::SsmD,
                Part::SsmOut,
            ],
        ],
        params: &[Param::With(mamba)],
        rules: &[
            DECAY,
            CONVOLUTION,
            Rule("lm_head.weight", Action::With(unless_embedding)),
        ],
        ..PLAIN
    },
    Architecture {
        name: "mamba2",
        classes: &["Mamba2ForCausalLM"],
        parts: &[FRAME, SSM],
        params: &[Param::With(mamba2)],
        rules: &[
            Rule("model.backbone*", Action::Replace("model.", "")),
            DECAY_COLUMN,
            SKIP_COLUMN,
            CONVOLUTION,
            TIME_STEP,
            Rule("*.mixer.norm.weight", Action::With(group_norm)),
            Rule("lm_head.weight", Action::With(unless_embedding)),
        ],
        ..PLAIN
    },
];

/// Keys of a model without attention.
fn frame(model: &Model, keys: &mut Keys) -> Result<u32, Error> {
    let hidden = model.config.u32(&["hidden_size", "d_model"])?;
    keys.set("context_length", 1u32 << 20);
    keys.set("embedding_length", hidden);
    keys.set("feed_forward_length", 0u32);
    keys.set("attention.head_count", 0u32);
    keys.set("block_count", model.block_count()?);
    Ok(hidden)
}

fn mamba(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = frame(model, keys)?;
    let inner = config.opt_u32(&["intermediate_size", "d_inner"])?;
    let kernel = config.opt_u32(&["conv_kernel", "d_conv"])?;
    keys.set("ssm.conv_kernel", kernel.unwrap_or(4));
    keys.set("ssm.inner_size", inner.unwrap_or(2 * hidden));
    let state = config.opt_u32(&["state_size", "d_state"])?;
    keys.set("ssm.state_size", state.unwrap_or(16));
    let rank = config.opt_u32(&["time_step_rank", "dt_rank"])?;
    keys.set("ssm.time_step_rank", rank.unwrap_or(hidden.div_ceil(16)));
    let epsilon = config.opt_f64(&["layer_norm_epsilon", "rms_norm_eps"])?;
    keys.set(
        "attention.layer_norm_rms_epsilon",
        epsilon.unwrap_or(1e-5) as f32,
    );
    let normed = config.str("model_type") == Some("falcon_mamba");
    keys.set("ssm.dt_b_c_rms", normed);
    keys.file_type();
    Ok(())
}

fn mamba2(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = frame(model, keys)?;
    let expand = config.opt_u32(&["expand"])?.unwrap_or(2);
    let inner = config
        .opt_u32(&["intermediate_size", "d_inner"])?
        .unwrap_or(expand * hidden);
    let kernel = config.opt_u32(&["conv_kernel", "d_conv"])?;
    keys.set("ssm.conv_kernel", kernel.unwrap_or(4));
    keys.set("ssm.inner_size", inner);
    let state = config.opt_u32(&["state_size", "d_state"])?;
    keys.set("ssm.state_size", state.unwrap_or(128));
    let head = config.opt_u32(&["head_dim", "mamba_d_head"])?.unwrap_or(64);
    keys.set("ssm.time_step_rank", inner / head.max(1));
    let groups = config.opt_u32(&["n_groups"])?.unwrap_or(1);
    keys.set("ssm.group_count", groups);
    let epsilon = config.opt_f64(&["layer_norm_epsilon", "rms_norm_eps"])?;
    keys.set(
        "attention.layer_norm_rms_epsilon",
        epsilon.unwrap_or(1e-5) as f32,
    );
    keys.file_type();
    Ok(())
}

/// A stored output matrix is left out if it is the embedding once more.
fn unless_embedding(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let embedding = model
        .tensors
        .iter()
        .find(|t| t.name.ends_with("embeddings.weight") || t.name.ends_with("embedding.weight"));
    let same = embedding.zip(model.stored(name)).is_some_and(|(a, b)| {
        (a.dtype, &a.shape, a.strides()) == (b.dtype, &b.shape, b.strides())
            && a.bytes() == b.bytes()
    });
    if same {
        return Ok(Vec::new());
    }
    let expr = shaped(name, Ok(expr))?;
    Ok(vec![(name.to_owned(), expr)])
}
