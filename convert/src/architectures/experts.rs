//! Experts that checkpoints store one by one, as the stacks that GGUF wants.

use std::collections::{BTreeMap, HashMap};

use super::Model;
use super::rules::{Named, shape_error};
use crate::Error;
use crate::expr::Expr;

/// The experts of a layer: for each projection the experts by number.
#[derive(Default)]
struct Group {
    projections: BTreeMap<String, BTreeMap<u64, Expr>>,
    /// Where the last of them stands: there the stacks go.
    last: usize,
}

/// Whether a tensor belongs to one expert of several.
pub(crate) fn is_single(name: &str) -> bool {
    split(name).is_some()
}

/// `PREFIX.experts.7.w1.weight` as `PREFIX.experts`, 7 and `w1.weight`.
fn split(name: &str) -> Option<(&str, u64, &str)> {
    let marker = ".experts.";
    let at = name.find(marker)? + marker.len();
    let (number, projection) = name[at..].split_once('.')?;
    Some((&name[..at - 1], number.parse().ok()?, projection))
}

/// Replaces single experts by stacks: `PREFIX.experts.w1.weight`, in the order of the
/// projections' names, where the last expert of the layer stood.
pub(super) fn stack(model: &Model, tensors: Vec<Named>) -> Result<Vec<Named>, Error> {
    let mut groups: HashMap<String, Group> = HashMap::new();
    let mut out: Vec<(usize, Named)> = Vec::with_capacity(tensors.len());
    for (at, (name, expr)) in tensors.into_iter().enumerate() {
        let Some((prefix, number, projection)) = split(&name) else {
            out.push((at, (name, expr)));
            continue;
        };
        let group = groups.entry(prefix.to_owned()).or_default();
        group.last = at;
        let experts = group.projections.entry(projection.to_owned()).or_default();
        experts.insert(number, expr);
    }
    let stated = model
        .config
        .opt_u32(&["num_local_experts", "num_experts", "n_routed_experts"])
        .unwrap_or(None);
    for (prefix, group) in groups {
        let order = model.architecture.expert_order;
        let place = |name: &str| order.iter().position(|first| name.starts_with(first));
        let mut projections: Vec<_> = group.projections.into_iter().collect();
        projections.sort_by_key(|(name, _)| place(name));
        for (projection, experts) in projections {
            let name = format!("{prefix}.{projection}");
            let count = stated.map_or(experts.len() as u64, u64::from);
            if let Some(missing) = (0..count).find(|number| !experts.contains_key(number)) {
                return Err(Error::tensor(
                    format!("{prefix}.{missing}.{projection}"),
                    format!("is missing: {} of {count} experts are there", experts.len()),
                ));
            }
            let stacked = Expr::stack(experts.into_values().collect())
                .map_err(|error| shape_error(&name, &error))?;
            out.push((group.last, (name, stacked)));
        }
    }
    // Stable: the stacks of a group stay in the order of their names.
    out.sort_by_key(|(at, _)| *at);
    Ok(out.into_iter().map(|(_, named)| named).collect())
}
