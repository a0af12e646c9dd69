//! The knapsack: least predicted damage within a number of bytes.

use std::collections::BTreeMap;

use gristmill_gguf::{TensorInfo, TensorType};

use super::{BudgetError, ErrorTable, Target, candidates};
use crate::importance::Importance;

/// The type chosen for a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Index in the source.
    pub tensor: usize,
    /// Its type.
    pub ty: TensorType,
    /// Bytes it takes.
    pub bytes: u64,
    /// Predicted divergence.
    pub damage: f64,
}

/// A choice of types.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The types, tensor by tensor.
    pub types: Vec<Choice>,
    /// Predicted divergence of the whole model.
    pub damage: f64,
}

/// The options of one tensor: those that no other beats in both bytes and damage, the smallest
/// first, so that bytes rise and damage falls.
struct Item {
    options: Vec<Choice>,
    at: usize,
}

impl Item {
    fn new(mut options: Vec<Choice>) -> Self {
        options.sort_by(|a, b| (a.bytes.cmp(&b.bytes)).then(a.damage.total_cmp(&b.damage)));
        let mut best = f64::INFINITY;
        options.retain(|option| {
            let better = option.damage < best;
            best = best.min(option.damage);
            better
        });
        Self { options, at: 0 }
    }

    /// The option with the least damage plus price of its bytes.
    fn cheapest(&self, price: f64) -> usize {
        let cost = |option: &Choice| option.damage + price * option.bytes as f64;
        let costs = self.options.iter().map(cost).enumerate();
        costs
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |(at, _)| at)
    }

    fn current(&self) -> &Choice {
        &self.options[self.at]
    }
}

/// Bytes that the data of `choosable` tensors may take so that the model meets the target, known before
/// anything is measured. `overhead` is what the file has besides data.
///
/// # Errors
/// If no choice of types meets it, or there is nothing to choose.
pub fn room(
    tensors: &[TensorInfo],
    choosable: &[usize],
    importance: Option<&Importance>,
    overhead: u64,
    target: Target,
) -> Result<u64, BudgetError> {
    let (mut least, mut most, mut fixed) = (0, 0, 0);
    for (tensor, info) in tensors.iter().enumerate() {
        if !choosable.contains(&tensor) {
            fixed += info.bytes().unwrap_or(0);
            continue;
        }
        let types = candidates(info, importance).into_iter();
        let sizes = types.filter_map(|ty| bytes_as(info, ty));
        let (low, high) = sizes.fold((u64::MAX, 0), |(low, high), bytes| {
            (low.min(bytes), high.max(bytes))
        });
        if high > 0 {
            (least, most) = (least + low, most + high);
        }
    }
    if most == 0 {
        return Err(BudgetError::NothingToChoose);
    }
    let elements: u64 = tensors.iter().map(TensorInfo::elements).sum();
    let bits = |bytes: u64| bytes as f64 * 8.0 / elements.max(1) as f64;
    let budget = match target {
        Target::BitsPerWeight(bits) => (bits * elements as f64 / 8.0).max(0.0) as u64,
        Target::Bytes(bytes) => bytes.saturating_sub(overhead),
    };
    // Half a percent, the promised accuracy, is as far as the ends of the range stretch.
    let asked = bits(budget);
    let (low, high) = (bits(least + fixed), bits(most + fixed));
    if low > asked * 1.005 || asked > high * 1.005 {
        return Err(BudgetError::Unreachable {
            asked,
            least: low,
            most: high,
        });
    }
    Ok(budget.saturating_sub(fixed).max(least))
}

/// Bytes of a tensor's data in a type.
fn bytes_as(info: &TensorInfo, ty: TensorType) -> Option<u64> {
    Some(ty.row_bytes(info.row_len())? * info.rows())
}

/// Chooses types so that the predicted damage is least within `room` bytes.
///
/// A price for bytes is found at which the best types just fit (which is optimal but for a
/// remainder smaller than one tensor); the remainder then buys the improvements that are worth
/// most for each byte.
pub fn solve(
    tensors: &[TensorInfo],
    errors: &ErrorTable,
    sensitivities: &BTreeMap<usize, f64>,
    room: u64,
) -> Solution {
    let mut items: Vec<Item> = errors
        .rows()
        .filter(|(_, row)| !row.is_empty())
        .map(|(tensor, row)| {
            let sensitivity = sensitivities.get(&tensor).copied().unwrap_or(1.0);
            let options = row.iter().filter_map(|&(ty, error)| {
                Some(Choice {
                    tensor,
                    ty,
                    bytes: bytes_as(&tensors[tensor], ty)?,
                    damage: error * sensitivity,
                })
            });
            Item::new(options.collect())
        })
        .collect();
    at_price(&mut items, room);
    spend_rest(&mut items, room);
    let types: Vec<Choice> = items.iter().map(|item| *item.current()).collect();
    Solution {
        damage: types.iter().map(|choice| choice.damage).sum(),
        types,
    }
}

/// Sets every item to its best option at the lowest price at which all fit.
fn at_price(items: &mut [Item], room: u64) {
    let bytes_at = |items: &[Item], price: f64| -> u64 {
        let chosen = items.iter().map(|item| &item.options[item.cheapest(price)]);
        chosen.map(|option| option.bytes).sum()
    };
    // Prices span many orders of magnitude: halve the exponents' range, not the prices'.
    let (mut low, mut high) = (-80.0f64, 40.0f64);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if bytes_at(items, middle.exp2()) <= room {
            high = middle;
        } else {
            low = middle;
        }
    }
    for item in items {
        item.at = item.cheapest(high.exp2());
    }
}

/// Takes improvements by what they are worth a byte, as long as any fits.
fn spend_rest(items: &mut [Item], room: u64) {
    let mut used: u64 = items.iter().map(|item| item.current().bytes).sum();
    loop {
        let improvements = items.iter().enumerate().flat_map(|(index, item)| {
            let now = item.current();
            item.options[item.at + 1..]
                .iter()
                .enumerate()
                .map(move |(step, option)| {
                    let bytes = option.bytes - now.bytes;
                    (
                        (now.damage - option.damage) / bytes as f64,
                        bytes,
                        index,
                        item.at + 1 + step,
                    )
                })
        });
        let fitting = improvements.filter(|&(_, bytes, ..)| used + bytes <= room);
        let Some((_, bytes, index, at)) = fitting.max_by(|a, b| a.0.total_cmp(&b.0)) else {
            return;
        };
        items[index].at = at;
        used += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(tensor: usize, bytes: u64, damage: f64) -> Choice {
        Choice {
            tensor,
            ty: TensorType::Q4_K,
            bytes,
            damage,
        }
    }

    /// The least damage by trying everything.
    fn exhaustive(items: &[Item], room: u64) -> f64 {
        let Some((first, rest)) = items.split_first() else {
            return 0.0;
        };
        let fitting = first.options.iter().filter(|option| option.bytes <= room);
        fitting
            .map(|option| option.damage + exhaustive(rest, room - option.bytes))
            .fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn near_the_optimum_and_never_over_the_budget() {
        let mut state = 1u32;
        let mut random = move |limit: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % limit
        };
        let (mut found, mut best) = (0.0, 0.0);
        for _ in 0..60 {
            let mut items: Vec<Item> = (0..6)
                .map(|tensor| {
                    let scale = f64::from(random(100) + 1);
                    let size = u64::from(random(9) + 1);
                    let options = (2..9)
                        .map(|bits| choice(tensor, size * bits, scale * 0.3f64.powi(bits as i32)));
                    Item::new(options.collect())
                })
                .collect();
            let least: u64 = items.iter().map(|item| item.options[0].bytes).sum();
            let room = least + u64::from(random(120));
            at_price(&mut items, room);
            spend_rest(&mut items, room);
            let bytes: u64 = items.iter().map(|item| item.current().bytes).sum();
            assert!(bytes <= room);
            let damage: f64 = items.iter().map(|item| item.current().damage).sum();
            let optimum = exhaustive(&items, room);
            assert!(damage >= optimum * (1.0 - 1e-12));
            found += damage;
            best += optimum;
        }
        assert!(found <= best * 1.15, "{found} against {best}");
    }

    #[test]
    fn beaten_options_are_dropped() {
        let item = Item::new(vec![
            choice(0, 5, 1.0),
            choice(0, 4, 0.5),
            choice(0, 9, 0.1),
        ]);
        let bytes: Vec<u64> = item.options.iter().map(|option| option.bytes).collect();
        assert_eq!(bytes, [4, 9]);
    }
}
