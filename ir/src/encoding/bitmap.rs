//! `bitmap`: one bit says whether a weight is zero, and those that are not have a sign: 2 - z bits per weight, where z is
//! the share of zeros.
//!
//! A panel is presence bits, then signs. Presence comes in blocks of 32 columns, four bytes for each row: bit `2 p + h` of
//! byte `4 i + j` is 1 if the weight of row `i`, column `32 c + 16 h + 4 p + j` is not zero. So the even bits stand where
//! those of two blocks of `i2` do, and so do the odd bits.
//!
//! Signs are one stream over all blocks of the panel: for each 1 of the presence bits, in the order of bytes and of bits
//! from the lowest, a bit that is 1 for a weight of 1. Eight bytes of presence are a word, whose signs are put in place by
//! one `pdep`. A word of more than [`LONG`] signs begins at the next whole byte: so eight bytes, loaded where a word's
//! first sign is, hold all of them.
//!
//! What a panel needs depends on its weights. All panels of a matrix have the size of the longest, behind a header that
//! says this size: code depends on the shape alone.
//!
//! **Invariant:** whatever a panel's bytes are, no sign is read [`most_bytes`] or more behind its begin. Test:
//! `no_presence_leads_further_than_the_bound`.

/// Columns of one block.
pub const KR: usize = 32;

/// Bytes before the first panel: the panels' size as a u64, then zeros.
pub const HEADER_BYTES: usize = 64;

/// Bytes of one word of presence bits.
pub const WORD_BYTES: usize = 8;

/// Most signs of a word that begins anywhere in a byte.
pub const LONG: u32 = 57;

/// Bytes of a panel from whose presence bits, be they what they may, no load of eight bytes leads out: a word of all ones
/// has eight bytes of signs, and where a word begins at the next whole byte, those before it had fewer.
pub const fn most_bytes(k: usize, nr: usize) -> usize {
    let words = k.div_ceil(KR) * nr / 2;
    (2 * words + 1) * WORD_BYTES
}

/// The shape of panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Panel {
    pub nr: usize,
    /// Bytes of one panel, a multiple of 64: of one matrix, whatever the other's are. 0 where no matrix is meant.
    pub bytes: usize,
}

/// Zeros of a matrix, and what its panels need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Density {
    pub zeros: u64,
    pub weights: u64,
    /// Bytes of the longest panel.
    pub panel_bytes: usize,
}

impl Density {
    /// Of `w: [_, k]` in panels of `nr` rows.
    pub fn of(w: &[i8], k: usize, nr: usize) -> Density {
        w.chunks(nr * k).map(|rows| Density::of_panel(rows, k, nr)).fold(Density::default(), Density::and)
    }

    fn of_panel(rows: &[i8], k: usize, nr: usize) -> Density {
        let (words, bits) = streams(rows, k, nr);
        let zeros = rows.iter().filter(|w| **w == 0).count() as u64;
        // Eight bytes are loaded wherever a sign is.
        let bytes = words.len() * WORD_BYTES + bits.div_ceil(8) + WORD_BYTES;
        Density { zeros, weights: rows.len() as u64, panel_bytes: bytes.next_multiple_of(64) }
    }

    /// Of two parts of a matrix together.
    pub fn and(self, other: Density) -> Density {
        Density {
            zeros: self.zeros + other.zeros,
            weights: self.weights + other.weights,
            panel_bytes: self.panel_bytes.max(other.panel_bytes),
        }
    }

    /// The share of zeros.
    pub fn zero_share(self) -> f64 {
        self.zeros as f64 / self.weights.max(1) as f64
    }
}

/// Where the weight of bit `bit` of presence word `word` is: row of the panel, column.
const fn place(word: usize, bit: usize, nr: usize) -> (usize, usize) {
    let (block, byte) = (word / (nr / 2), word % (nr / 2) * WORD_BYTES + bit / 8);
    let (half, plane) = (bit % 2, bit % 8 / 2);
    (byte / 4, KR * block + 16 * half + 4 * plane + byte % 4)
}

/// The first bit of the signs of a word with `count` of them, where those before end at bit `end`.
pub const fn begin_of(end: usize, count: u32) -> usize {
    if count > LONG { end.next_multiple_of(8) } else { end }
}

/// The words of presence of a panel, and the bits of its signs.
fn streams(rows: &[i8], k: usize, nr: usize) -> (Vec<u64>, usize) {
    let words: Vec<u64> = (0..k.div_ceil(KR) * nr / 2)
        .map(|word| {
            (0..64).fold(0, |bits, bit| {
                let (i, column) = place(word, bit, nr);
                let is_present = i * k < rows.len() && column < k && rows[i * k + column] != 0;
                bits | u64::from(is_present) << bit
            })
        })
        .collect();
    let bits = words.iter().fold(0, |end, word| begin_of(end, word.count_ones()) + word.count_ones() as usize);
    (words, bits)
}

/// The header of a matrix.
pub(super) fn header(panel: Panel, out: &mut Vec<u8>) {
    let end = out.len() + HEADER_BYTES;
    out.extend_from_slice(&(panel.bytes as u64).to_le_bytes());
    out.resize(end, 0);
}

/// Panics if the rows need more than `panel.bytes`.
pub(super) fn pack_panel(rows: &[i8], k: usize, panel: Panel, out: &mut Vec<u8>) {
    let start = out.len();
    let (words, bits) = streams(rows, k, panel.nr);
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    let mut signs = vec![0u8; bits.div_ceil(8)];
    let mut end = 0;
    for (at, word) in words.iter().enumerate() {
        end = begin_of(end, word.count_ones());
        for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
            let (i, column) = place(at, bit, panel.nr);
            signs[end / 8] |= u8::from(rows[i * k + column] > 0) << (end % 8);
            end += 1;
        }
    }
    out.extend_from_slice(&signs);
    assert!(out.len() + WORD_BYTES <= start + panel.bytes, "the panel is longer than was measured");
    out.resize(start + panel.bytes, 0);
}

/// The weights of a panel, `[nr, k]`.
pub(super) fn unpack_panel(panel: &[u8], k: usize, nr: usize) -> Vec<i8> {
    let mut rows = vec![0; nr * k];
    let (words, signs) = panel.split_at(k.div_ceil(KR) * nr / 2 * WORD_BYTES);
    let mut end = 0;
    for (at, word) in words.chunks_exact(WORD_BYTES).enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        end = begin_of(end, word.count_ones());
        for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
            let (i, column) = place(at, bit, nr);
            rows[i * k + column] = if signs[end / 8] >> (end % 8) & 1 == 1 { 1 } else { -1 };
            end += 1;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes are two bits less the share of zeros, and what padding and rounding cost.
    #[test]
    fn zeros_cost_one_bit() {
        let (nr, k) = (16, 2560);
        for (zeros_of_ten, bits) in [(0, 2.0), (5, 1.5), (10, 1.0)] {
            let w: Vec<i8> = (0..nr * k).map(|i| if i % 10 < zeros_of_ten { 0 } else { 1 }).collect();
            let density = Density::of(&w, k, nr);
            assert_eq!(density.zero_share(), zeros_of_ten as f64 / 10.0);
            let found = 8.0 * density.panel_bytes as f64 / (nr * k) as f64;
            assert!((bits..bits + 0.015).contains(&found), "{found} bits with {zeros_of_ten} of ten zero");
        }
    }

    /// Damaged bits lead no further than the bound says: all of them, and mixtures of all counts about the long ones.
    #[test]
    fn no_presence_leads_further_than_the_bound() {
        let (k, nr) = (100usize, 16);
        let words = k.div_ceil(KR) * nr / 2;
        let ways: [&dyn Fn(usize) -> u32; 4] =
            [&|_| 64, &|i| 57 + (i % 8) as u32, &|i| 57 + 7 * (i % 2) as u32, &|_| 63];
        for counts in ways {
            let mut end = 0;
            for count in (0..words).map(counts) {
                let begin = begin_of(end, count);
                assert!(
                    words * WORD_BYTES + begin / 8 + WORD_BYTES <= most_bytes(k, nr),
                    "a word begins at bit {begin}"
                );
                end = begin + count as usize;
            }
        }
    }

    /// Words of more than 57 signs begin at a byte; those of 57 anywhere.
    #[test]
    fn long_words_begin_at_a_byte() {
        assert_eq!([begin_of(3, 57), begin_of(3, 58), begin_of(8, 64), begin_of(0, 0)], [3, 8, 8, 0]);
        let w: Vec<i8> = (0..16 * 64).map(|i| if i % 61 == 7 { 0 } else { 1 - 2 * (i % 3 % 2) as i8 }).collect();
        let density = Density::of(&w, 64, 16);
        let mut packed = Vec::new();
        pack_panel(&w, 64, Panel { nr: 16, bytes: density.panel_bytes }, &mut packed);
        assert_eq!(unpack_panel(&packed, 64, 16), w);
    }
}
