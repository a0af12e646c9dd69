//! Constant tables of the i-quants, the ternary and the 4-bit float types.
//!
//! A lattice codebook is stored as a bit set ([`members`]) and expanded while the crate is compiled;
//! nothing is built at start. All tables equal those of llama.cpp's `ggml-common.h`.

mod members;

/// Rows of a lattice codebook: row `i` holds the values of `D` consecutive weights.
pub type Grid<const D: usize, const N: usize> = [[i8; D]; N];

/// Magnitudes of IQ2_XXS.
pub static IQ2XXS_GRID: Grid<8, 256> = expand(&members::IQ2XXS, &IQ2_LEVELS);
/// Magnitudes of IQ2_XS.
pub static IQ2XS_GRID: Grid<8, 512> = expand(&members::IQ2XS, &IQ2_LEVELS);
/// Magnitudes of IQ2_S.
pub static IQ2S_GRID: Grid<8, 1024> = expand(&members::IQ2S, &IQ2_LEVELS);
/// Values of IQ1_S and IQ1_M, before the shift by ±1/8.
pub static IQ1S_GRID: Grid<8, 2048> = expand(&members::IQ1S, &IQ1_LEVELS);
/// Magnitudes of IQ3_XXS.
pub static IQ3XXS_GRID: Grid<4, 256> = expand(&members::IQ3XXS, &IQ3XXS_LEVELS);
/// Magnitudes of IQ3_S.
pub static IQ3S_GRID: Grid<4, 512> = expand(&members::IQ3S, &IQ3S_LEVELS);

/// Value of each lattice digit in IQ2_XXS, IQ2_XS and IQ2_S.
pub const IQ2_LEVELS: [i8; 3] = [8, 25, 43];
/// Value of each lattice digit in IQ3_XXS.
pub const IQ3XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// Value of each lattice digit in IQ3_S.
pub const IQ3S_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
/// Value of each lattice digit in IQ1_S and IQ1_M.
pub const IQ1_LEVELS: [i8; 3] = [-1, 0, 1];

/// What the four bits of IQ4_NL and IQ4_XS stand for.
pub const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Twice the value of an E2M1 number (MXFP4, NVFP4). Code 8 is minus zero and decodes as plus zero.
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The eight sign bits of a seven-bit sign index: the number of ones is always even.
#[inline(always)]
pub const fn even_signs(index: u8) -> u8 {
    /// Not every instruction set counts bits.
    const PARITY: [u8; 128] = {
        let mut all = [0; 128];
        let mut i = 0;
        while i < 128 {
            all[i] = (i.count_ones() & 1) as u8;
            i += 1;
        }
        all
    };
    let index = index & 0x7f;
    index | PARITY[index as usize] << 7
}

/// Half of an E8M0 number, `2^(e - 128)`; the smallest two are subnormal and 255 is no NaN here.
#[inline(always)]
pub const fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(if e < 2 {
        0x0020_0000 << e
    } else {
        (e as u32 - 1) << 23
    })
}

/// Half of an unsigned E4M3 number. Zero and 0x7f (a NaN elsewhere) are zero; bit 7 is ignored but
/// for those two.
#[inline]
pub const fn ue4m3_half(byte: u8) -> f32 {
    if byte == 0 || byte == 0x7f {
        return 0.0;
    }
    let exponent = (byte >> 3) & 15;
    let mantissa = (byte & 7) as u32;
    if exponent == 0 {
        // 2^-10 per unit: the subnormal step 2^-9, halved.
        mantissa as f32 * f32::from_bits((127 - 10) << 23)
    } else {
        // Bias 7, and one less for the half.
        f32::from_bits(((exponent as u32 + 127 - 8) << 23) | (mantissa << 20))
    }
}

/// Lists the members of a lattice set with `levels.len()` digits, each digit replaced by its level.
const fn expand<const D: usize, const N: usize>(members: &[u64], levels: &[i8]) -> Grid<D, N> {
    let mut grid = [[0; D]; N];
    let mut row = 0;
    let mut word = 0;
    while word < members.len() {
        let mut bits = members[word];
        while bits != 0 {
            let mut point = word * 64 + bits.trailing_zeros() as usize;
            let mut i = 0;
            while i < D {
                grid[row][i] = levels[point % levels.len()];
                point /= levels.len();
                i += 1;
            }
            row += 1;
            bits &= bits - 1;
        }
        word += 1;
    }
    assert!(row == N);
    grid
}
