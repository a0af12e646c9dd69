//! The encoder's view of a lattice codebook: which points it holds, and which of its points lie
//! near those that it does not hold.

use std::sync::LazyLock;

use crate::codebooks::{
    Grid, IQ1_LEVELS, IQ1S_GRID, IQ2_LEVELS, IQ2S_GRID, IQ2XS_GRID, IQ2XXS_GRID, IQ3S_GRID,
    IQ3S_LEVELS, IQ3XXS_GRID, IQ3XXS_LEVELS,
};
use crate::simd::HALF;

/// Points of IQ2_XXS.
pub(crate) static IQ2XXS: LazyLock<Points> =
    LazyLock::new(|| Points::new(&IQ2XXS_GRID, &IQ2_LEVELS, 2));
/// Points of IQ2_XS.
pub(crate) static IQ2XS: LazyLock<Points> =
    LazyLock::new(|| Points::new(&IQ2XS_GRID, &IQ2_LEVELS, 2));
/// Points of IQ2_S.
pub(crate) static IQ2S: LazyLock<Points> =
    LazyLock::new(|| Points::new(&IQ2S_GRID, &IQ2_LEVELS, 1));
/// Points of IQ3_XXS.
pub(crate) static IQ3XXS: LazyLock<Points> =
    LazyLock::new(|| Points::new(&IQ3XXS_GRID, &IQ3XXS_LEVELS, 2));
/// Points of IQ3_S.
pub(crate) static IQ3S: LazyLock<Points> =
    LazyLock::new(|| Points::new(&IQ3S_GRID, &IQ3S_LEVELS, 3));
/// Points of IQ1_S and IQ1_M.
pub(crate) static IQ1S: LazyLock<Points> =
    LazyLock::new(|| Points::new(&IQ1S_GRID, &IQ1_LEVELS, 3));

/// A point's digits, packed: two bits each where there are three levels, three where there are eight.
pub(crate) type Code = u16;

/// Part of a list of neighbours: half a vector, since most lists are no longer.
pub(crate) type Eight = [Code; HALF];

/// A codebook and the neighbours of the lattice points outside it.
pub(crate) struct Points {
    /// Number of levels of a coordinate.
    levels: usize,
    /// For every lattice point, by [`Points::number`] of its digits.
    sites: Vec<Site>,
    /// The neighbour lists one after another, each filled up to whole [`Eight`]s with its last entry.
    neighbours: Vec<Eight>,
    /// The codebook's row at a point that is in it.
    rows: Vec<u16>,
}

/// What the encoder knows about a lattice point.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    /// Its code, if the codebook holds it.
    pub(crate) code: Code,
    /// Elements of `neighbours` that list what is near; none if the codebook holds it.
    len: u8,
    /// The first of them.
    start: u32,
}

impl Site {
    /// Whether no more than one [`Eight`] of neighbours is listed, but at least one.
    #[inline(always)]
    pub(crate) fn has_few_neighbours(self) -> bool {
        self.len == 1
    }

    /// Whether the codebook holds it.
    #[inline(always)]
    pub(crate) fn is_held(self) -> bool {
        self.len == 0
    }
}

impl Points {
    /// Tables of a codebook. Neighbours are those at the `shells` smallest distances that occur, in
    /// order of distance, then row.
    fn new<const D: usize, const N: usize>(
        grid: &Grid<D, N>,
        levels: &[i8],
        shells: usize,
    ) -> Self {
        let digits: Vec<[u8; D]> = grid
            .iter()
            .map(|row| row.map(|value| levels.iter().take_while(|&&l| l != value).count() as u8))
            .collect();
        // Squared distance of a row's coordinate to each level, all rows of a coordinate together.
        let column = |i: usize, level: usize| -> [u8; N] {
            std::array::from_fn(|row| digits[row][i].abs_diff(level as u8).pow(2))
        };
        let columns: Vec<Vec<[u8; N]>> = (0..D)
            .map(|i| (0..levels.len()).map(|level| column(i, level)).collect())
            .collect();
        let count = levels.len().pow(D as u32);
        let mut tables = Self {
            levels: levels.len(),
            sites: Vec::with_capacity(count),
            neighbours: Vec::new(),
            rows: vec![0; count],
        };
        let codes = std::array::from_fn(|row| tables.code(&digits[row]));
        // Points come in order of their number, so that the distances in the later coordinates can
        // be kept: `partial[i]` is the distance in coordinates `i..`.
        let mut partial = vec![[0; N]; D + 1];
        let mut point = [0; D];
        let mut changed = D;
        loop {
            for i in (0..changed).rev() {
                let (before, after) = partial.split_at_mut(i + 1);
                let column = &columns[i][usize::from(point[i])];
                for row in 0..N {
                    before[i][row] = after[0][row] + column[row];
                }
            }
            tables.push(&point, &codes, &partial[0], shells);
            changed = match point
                .iter()
                .position(|&d| usize::from(d) + 1 < levels.len())
            {
                Some(i) => i + 1,
                None => break tables,
            };
            point[..changed - 1].fill(0);
            point[changed - 1] += 1;
        }
    }

    /// Adds the next point, given its distances to the rows.
    fn push<const D: usize, const N: usize>(
        &mut self,
        point: &[u8; D],
        codes: &[Code; N],
        distances: &[u8; N],
        shells: usize,
    ) {
        let mut shell = distances.iter().fold(u8::MAX, |least, &d| least.min(d));
        if shell == 0 {
            let row = distances.iter().take_while(|&&d| d != 0).count();
            self.rows[self.sites.len()] = row as u16;
            self.sites.push(Site {
                code: self.code(point),
                len: 0,
                start: 0,
            });
            return;
        }
        for _ in 1..shells {
            shell = distances.iter().fold(
                u8::MAX,
                |least, &d| if d > shell { least.min(d) } else { least },
            );
        }
        // In order of row; most chunks hold nothing near, and this test is one of few instructions.
        let mut near: Vec<(u8, Code)> = Vec::with_capacity(512);
        for (distances, codes) in distances.chunks(64).zip(codes.chunks(64)) {
            if distances.iter().fold(u8::MAX, |least, &d| least.min(d)) <= shell {
                let both = distances.iter().zip(codes);
                near.extend(
                    both.filter(|&(&d, _)| d <= shell)
                        .map(|(&d, &code)| (d, code)),
                );
            }
        }
        near.sort_by_key(|&(distance, _)| distance);
        let start = self.neighbours.len();
        for chunk in near.chunks(HALF) {
            let eight = std::array::from_fn(|i| chunk[i.min(chunk.len() - 1)].1);
            self.neighbours.push(eight);
        }
        self.sites.push(Site {
            code: 0,
            len: (self.neighbours.len() - start) as u8,
            start: start as u32,
        });
    }

    /// Bits of a digit in a [`Code`].
    #[inline(always)]
    const fn digit_bits(&self) -> usize {
        if self.levels == 3 { 2 } else { 3 }
    }

    fn code(&self, digits: &[u8]) -> Code {
        let bits = self.digit_bits();
        let digits = digits.iter().enumerate();
        digits.fold(0, |code, (i, &digit)| code | u16::from(digit) << (bits * i))
    }

    /// What is known about the point with a number: `Σ digit[i]·levels^i`.
    #[inline(always)]
    pub(crate) fn site(&self, number: usize) -> Site {
        self.sites[number]
    }

    /// The neighbour codes of an absent point.
    #[inline(always)]
    pub(crate) fn neighbours(&self, site: Site) -> &[Eight] {
        &self.neighbours[site.start as usize..][..usize::from(site.len)]
    }

    /// The row of the codebook with this code, which must be one of its points.
    #[inline(always)]
    pub(crate) fn row(&self, code: Code) -> u16 {
        if self.levels == 8 {
            return self.rows[usize::from(code)];
        }
        let digits = (0..8).rev().map(|i| usize::from(code >> (2 * i)) & 3);
        self.rows[digits.fold(0, |number, digit| 3 * number + digit)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use sha2::{Digest, Sha256};

    use super::*;

    /// The hash of `codebooks.json`: for every absent point its code, the length of its list and
    /// the rows in it.
    fn neighbours_hash(points: &Points, dimensions: u32) -> String {
        let mut hash = Sha256::new();
        let number = |code: usize| {
            let bits = points.digit_bits();
            (0..dimensions as usize).rev().try_fold(0, |number, i| {
                let digit = (code >> (bits * i)) & ((1 << bits) - 1);
                (digit < points.levels).then_some(number * points.levels + digit)
            })
        };
        for code in 0..1 << (points.digit_bits() as u32 * dimensions) {
            let site = number(code).map(|n| points.site(n));
            let Some(site) = site.filter(|site| !site.is_held()) else {
                continue;
            };
            let mut list: Vec<Code> = points.neighbours(site).as_flattened().to_vec();
            list.dedup();
            hash.update((code as u16).to_le_bytes());
            hash.update((list.len() as u16).to_le_bytes());
            for code in list {
                hash.update(points.row(code).to_le_bytes());
            }
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    #[test]
    fn neighbour_lists_are_those_of_ggml() {
        let Some(folder) = crate::golden::golden("codebooks") else {
            return;
        };
        let text = std::fs::read(folder.join("codebooks.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let all: [(&str, &LazyLock<Points>, u32); 6] = [
            ("iq2xxs", &IQ2XXS, 8),
            ("iq2xs", &IQ2XS, 8),
            ("iq2s", &IQ2S, 8),
            ("iq1s", &IQ1S, 8),
            ("iq3xxs", &IQ3XXS, 4),
            ("iq3s", &IQ3S, 4),
        ];
        let mut spent = Duration::ZERO;
        for (name, points, dimensions) in all {
            let start = Instant::now();
            LazyLock::force(points);
            spent += start.elapsed();
            let expected = golden[name]["neighbours_sha256"].as_str().unwrap();
            assert_eq!(neighbours_hash(points, dimensions), expected, "{name}");
        }
        println!("checked {} neighbour tables, built in {spent:?}", all.len());
    }
}
