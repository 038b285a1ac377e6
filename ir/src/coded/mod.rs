//! Coded tables: the rows of a dense matrix as small integers with scales. Fewer bytes, and other numbers: what a screen
//! (`crate::screen`) only looks at first is here all there is.
//!
//! The hidden row is quantized as a screen's query, and rows of four bits are laid out and multiplied as a screen's high
//! planes. `docs/head.md` has the layouts and what they cost in quality.

pub mod pack;
pub mod row;

use crate::screen::{BLOCK, BLOCK_BYTES, PANEL_ROWS, ScreenLayout};

/// How the rows of a table are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowCode {
    /// One byte per weight, one scale (f32) per row.
    Int8,
    /// Four bits per weight, one scale (bf16) per 32 columns: 4.5 bits.
    Int4,
}

impl RowCode {
    pub const ALL: [RowCode; 2] = [RowCode::Int8, RowCode::Int4];

    /// The code's name in the text form and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            RowCode::Int8 => "int8",
            RowCode::Int4 => "int4",
        }
    }

    /// The name of the family of its products.
    pub fn family(self) -> &'static str {
        match self {
            RowCode::Int8 => "coded_int8",
            RowCode::Int4 => "coded_int4",
        }
    }
}

/// Where the parts of a table `[n, k]` lie: panels of 16 rows, one after the other.
///
/// A panel is blocks of 64 columns. With four bits they are those of a screen's high planes; with eight they are rows of
/// lanes, byte j of lane i holding column `4 c + j` of row i, and behind the blocks of a panel stand the 16 scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodedLayout {
    pub code: RowCode,
    pub n: usize,
    pub k: usize,
}

/// Bytes of a block of one panel with eight bits.
pub const BYTE_BLOCK_BYTES: usize = BLOCK * PANEL_ROWS;

/// Bytes of the scales of one panel with eight bits.
pub const ROW_SCALES_BYTES: usize = 4 * PANEL_ROWS;

impl CodedLayout {
    /// What the query of the hidden row depends on.
    pub fn query(&self) -> ScreenLayout {
        ScreenLayout { n: self.n, k: self.k }
    }

    pub fn panels(&self) -> usize {
        self.query().panels()
    }

    pub fn blocks(&self) -> usize {
        self.query().blocks()
    }

    /// Offset of a panel's row scales from its begin, where it has them.
    pub fn row_scales_offset(&self) -> usize {
        self.blocks() * BYTE_BLOCK_BYTES
    }

    pub fn panel_bytes(&self) -> usize {
        match self.code {
            RowCode::Int8 => self.row_scales_offset() + ROW_SCALES_BYTES,
            RowCode::Int4 => self.blocks() * BLOCK_BYTES,
        }
    }

    /// Bytes of the whole table.
    pub fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }
}
