//! The rotary parameters in one form.

use serde_json::{Map, Value as Json};

/// Brings the rotary parameters into one place, `rope_parameters`, whatever spelling the file has.
pub(super) fn mirror_rope(fields: &mut Map<String, Json>) {
    let stated = |fields: &Map<String, Json>, names: &[&str]| {
        names
            .iter()
            .find_map(|&name| fields.get(name).filter(|value| !value.is_null()).cloned())
    };
    let mut rope = match stated(fields, &["rope_parameters", "rope_scaling"]) {
        Some(Json::Object(rope)) => rope,
        _ => Map::new(),
    };
    // Parameters by layer type: those of full attention are the model's.
    if let Some(Json::Object(full)) = rope.get("full_attention").cloned() {
        let local = rope.remove("sliding_attention");
        rope = full;
        if let Some(local) = local {
            rope.insert("sliding_attention".into(), local);
        }
    }
    let mirror = |into: &mut Map<String, Json>, key: &str, names: &[&str]| {
        if into.get(key).is_none_or(Json::is_null)
            && let Some(value) = stated(fields, names)
        {
            into.insert(key.into(), value);
        }
    };
    mirror(
        &mut rope,
        "rope_theta",
        &[
            "global_rope_theta",
            "rope_global_theta",
            "rope_theta_global",
            "rope_theta",
            "rotary_emb_base",
        ],
    );
    let mut local = match rope.remove("sliding_attention") {
        Some(Json::Object(local)) => local,
        _ => Map::new(),
    };
    mirror(
        &mut local,
        "rope_theta",
        &[
            "local_rope_theta",
            "rope_local_theta",
            "rope_theta_local",
            "swa_rope_theta",
            "rope_local_base_freq",
        ],
    );
    if !local.is_empty() {
        rope.insert("sliding_attention".into(), Json::Object(local));
    }
    if !rope.contains_key("rope_type")
        && let Some(kind) = rope.get("type").cloned()
    {
        rope.insert("rope_type".into(), kind);
    }
    mirror(
        &mut rope,
        "partial_rotary_factor",
        &["partial_rotary_factor", "rope_pct", "rope_percent"],
    );
    mirror(
        &mut rope,
        "original_max_position_embeddings",
        &["original_max_position_embeddings"],
    );
    fields.insert("rope_parameters".into(), Json::Object(rope));
}
