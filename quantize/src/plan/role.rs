//! What a tensor is for, told by its name, and where it stands in the model.

use bstr::{BStr, ByteSlice};

/// What a tensor is for, as far as the rules of type selection care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Output,
    TokenEmbedding,
    /// Attention values, or a fused tensor that holds them.
    Value,
    Key,
    Query,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Other,
}

impl Role {
    pub(super) fn of(name: &BStr) -> Self {
        const WHOLE: &[(&str, Role)] = &[
            ("output.weight", Role::Output),
            ("token_embd.weight", Role::TokenEmbedding),
            ("per_layer_token_embd.weight", Role::TokenEmbedding),
        ];
        // The last three match experts (`ffn_up_exps`) and shared experts too.
        const PART: &[(&str, Role)] = &[
            ("attn_qkv.weight", Role::Value),
            ("attn_kv_b.weight", Role::Value),
            ("attn_v.weight", Role::Value),
            ("attn_k.weight", Role::Key),
            ("attn_q.weight", Role::Query),
            ("attn_output.weight", Role::AttentionOutput),
            ("ffn_up", Role::Up),
            ("ffn_gate", Role::Gate),
            ("ffn_down", Role::Down),
        ];
        let whole = WHOLE.iter().find(|(word, _)| name == *word);
        let part = || PART.iter().find(|(word, _)| name.contains_str(word));
        whole.or_else(part).map_or(Role::Other, |&(_, role)| role)
    }
}

/// The layer of a name that starts with `blk.N.`, and what follows.
pub(crate) fn layer(name: &BStr) -> Option<(u64, &BStr)> {
    let rest = name.strip_prefix(b"blk.")?;
    let dot = rest.find_byte(b'.')?;
    let digits = &rest[..dot];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // No model has more layers than 32 bits count, and recipes could not name them.
    let number: u32 = digits.to_str().ok()?.parse().ok()?;
    Some((number.into(), rest[dot + 1..].as_bstr()))
}

/// Whether the tensor keeps its type whatever the preset: too small, too sensitive, or not a weight
/// of a matrix product. `dims` does not count trailing dimensions of 1.
pub(super) fn is_kept(name: &BStr, dims: usize, architecture: &str) -> bool {
    const CONTAINED: &[&str] = &[
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
        "attn_rel_b.weight",
        ".position_embd",
        "sam.pos_embd",
        "sam.neck.",
        "sam.net_",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "a.rvq.codebook",
        "mm.a.code_embd",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
    ];
    const CONTAINED_GLM5: &[&str] = &[
        "hc_",
        "indexer.attn_q_b",
        "indexer.attn_k",
        "indexer.proj",
        "indexer_compressor_gate",
        "indexer_compressor_ape",
        "ssm_f_a.weight",
        "ssm_f_b.weight",
        "ssm_g_a.weight",
        "ssm_g_b.weight",
        "ssm_beta.weight",
        "attn_kv_a_mqa.weight",
        "attn_k_b.weight",
        "attn_v_b.weight",
    ];
    let contains = |words: &[&str]| words.iter().any(|word| name.contains_str(word));
    dims < 2
        || !name.ends_with_str("weight")
        || name == "position_embd.weight"
        || name == "token_types.weight"
        || contains(CONTAINED)
        || (architecture == "glm5-next" && contains(CONTAINED_GLM5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_parsed_strictly() {
        let of = |name: &str| layer(name.into()).map(|(n, rest)| (n, rest.to_string()));
        assert_eq!(
            of("blk.12.attn_q.weight"),
            Some((12, "attn_q.weight".into()))
        );
        for name in [
            "blk.x.a",
            "blk..a",
            "blk.1",
            "enc.blk.1.a",
            "blk.99999999999999999999.a",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn roles_follow_the_names() {
        let of = |name: &str| Role::of(name.into());
        assert_eq!(of("output.weight"), Role::Output);
        assert_eq!(of("blk.0.attn_output.weight"), Role::AttentionOutput);
        assert_eq!(of("blk.0.ffn_gate_up_exps.weight"), Role::Gate);
        assert_eq!(of("blk.0.attn_kv_b.weight"), Role::Value);
        assert_eq!(of("blk.0.attn_kv_a_mqa.weight"), Role::Other);
    }
}
