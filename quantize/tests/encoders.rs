//! Properties that hold for every type, effort and instruction set.

use gristmill_gguf::TensorType;
use gristmill_quantize::Isa;
use gristmill_quantize::types::{self, Effort, ImportanceUse};
use proptest::prelude::*;

/// A row length that every type divides into blocks, with a tail for sixteen lanes.
const ROW: usize = 768;

fn encode(
    isa: Isa,
    ty: TensorType,
    effort: Effort,
    values: &[f32],
    importance: Option<&[f32]>,
) -> Vec<u8> {
    let layout = ty.layout();
    let mut bytes = vec![0; values.len() / layout.values * layout.bytes];
    types::encode_on(isa, ty, effort, values, ROW, importance, &mut bytes).unwrap();
    bytes
}

fn decode(ty: TensorType, bytes: &[u8]) -> Vec<f32> {
    let layout = ty.layout();
    let mut values = vec![0.0; bytes.len() / layout.bytes * layout.values];
    types::decode(ty, bytes, &mut values).unwrap();
    values
}

fn needs_importance(ty: TensorType) -> bool {
    types::importance_use(ty).unwrap() == ImportanceUse::Required
}

/// Rows of very different size and shape: values of one exponent range, some of them zero.
fn rows(count: usize) -> impl Strategy<Value = Vec<f32>> {
    let value = (-1.0f32..1.0, 0u8..8).prop_map(|(x, kind)| match kind {
        0 => 0.0,
        1 => 8.0 * x,
        _ => x * x * x,
    });
    (prop::collection::vec(value, count * ROW), -12i32..4)
        .prop_map(|(row, exponent)| row.iter().map(|x| x * 2f32.powi(exponent)).collect())
}

fn importance() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(
        prop_oneof![4 => -4.0f32..4.0, 1 => Just(f32::NEG_INFINITY)],
        ROW,
    )
    .prop_map(|logarithms| logarithms.iter().map(|l| l.exp()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn bytes_do_not_depend_on_the_instruction_set_or_on_grouping(
        values in rows(3),
        importance in importance(),
    ) {
        for ty in types::supported() {
            for effort in [Effort::Reference, Effort::Best] {
                for importance in [Some(importance.as_slice()), None] {
                    if importance.is_none() && needs_importance(ty) {
                        continue;
                    }
                    let best = *Isa::available().last().unwrap();
                    let together = encode(best, ty, effort, &values, importance);
                    for isa in Isa::available() {
                        let single: Vec<u8> = values
                            .chunks(ROW)
                            .flat_map(|row| encode(isa, ty, effort, row, importance))
                            .collect();
                        prop_assert!(single == together, "{ty} {effort:?} {isa}");
                    }
                }
            }
        }
    }

    #[test]
    fn decoded_rows_survive_best_effort(values in rows(1), importance in importance()) {
        // The rows that a type holds exactly are encoded again with no error worth the name.
        for ty in types::supported() {
            let first = encode(Isa::detect().unwrap(), ty, Effort::Best, &values, Some(&importance));
            let decoded = decode(ty, &first);
            let again = encode(Isa::detect().unwrap(), ty, Effort::Best, &decoded, Some(&importance));
            let error = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).zip(&importance)
                    .map(|((&a, &b), &v)| f64::from(v) * (f64::from(a) - f64::from(b)).powi(2))
                    .sum()
            };
            let first_error = error(&values, &decoded);
            let second_error = error(&decoded, &decode(ty, &again));
            prop_assert!(second_error <= 0.5 * first_error + 1e-12, "{ty}: {second_error} {first_error}");
        }
    }
}

#[test]
fn values_that_are_not_finite_do_not_panic() {
    let hostile = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        1e-45,
        -0.0,
    ];
    let values: Vec<f32> = (0..ROW).map(|i| hostile[i * i % hostile.len()]).collect();
    let importance: Vec<f32> = (0..ROW).map(|i| hostile[i % hostile.len()]).collect();
    let ones = vec![1.0; ROW];
    for ty in types::supported() {
        for isa in Isa::available() {
            for effort in [Effort::Reference, Effort::Best] {
                for (values, importance) in [
                    (&values, &ones),
                    (&ones, &importance),
                    (&values, &importance),
                ] {
                    let bytes = encode(isa, ty, effort, values, Some(importance));
                    decode(ty, &bytes);
                }
            }
        }
    }
}

#[test]
fn wrong_sizes_are_refused_with_the_reason() {
    let values = [0.5; 64];
    let mut bytes = [0; 36];
    let refuse = |row_len, importance: Option<&[f32]>, bytes: &mut [u8]| {
        let ty = TensorType::Q4_0;
        types::encode(ty, Effort::Best, &values, row_len, importance, bytes)
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(48, None, &mut bytes).contains("blocks of 32"));
    assert!(refuse(0, None, &mut bytes).contains("row of 0"));
    assert!(refuse(32, Some(&[1.0; 31]), &mut bytes).contains("importance"));
    assert!(refuse(32, None, &mut bytes[..35]).contains("36"));
    let error = types::decode(TensorType::Q4_0, &bytes[..17], &mut []).unwrap_err();
    assert!(error.to_string().contains("Q4_0"), "{error}");
    assert_eq!(
        types::decode(TensorType::I32, &[], &mut []),
        Err(types::Error::NoCodec(TensorType::I32))
    );
}
