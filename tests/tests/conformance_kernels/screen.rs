//! Cases of the search for the best rows of a head: the query and the three levels, against `tcc_ir::screen`.

use tcc_ir::kernel::KernelSpec;
use tcc_ir::screen::kernel::ScreenKernel;
use tcc_ir::screen::query::{HIGH_OFFSET, LOW_OFFSET, Query, QueryLayout, query};
use tcc_ir::screen::search::{Screened, maxima, threshold};
use tcc_ir::screen::{PANEL_ROWS, ScreenLayout, pack};
use tcc_ir::tensor::Tensor;
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::random::Rng;

use super::case::{Case, Operand, bytes, input};

/// Ragged in every axis; more than one task; a single column.
const SHAPES: [(usize, usize); 8] = [(1, 1), (16, 64), (17, 32), (40, 33), (31, 100), (270, 96), (530, 65), (18, 2560)];

/// A head and one hidden row.
struct Search {
    layout: ScreenLayout,
    weights: Tensor<'static>,
    rows: Vec<f32>,
    screen: Vec<u8>,
    x: Vec<f32>,
    query: Query,
}

impl Search {
    fn new(n: usize, k: usize, weight: DType, rng: &mut Rng) -> Search {
        let layout = ScreenLayout { n, k };
        let weights = rng.tensor(&ValueType::new(weight, &[n, k]));
        let rows = weights.floats(0..n * k).into_owned();
        let screen = pack::screen(&layout, &rows);
        let x: Vec<f32> = match rng.below(4) {
            // Near a row: others drop out early.
            0 => rows[rng.below(n) * k..][..k].iter().map(|w| w + 0.1 * rng.f32()).collect(),
            // Runs of small and of large values, and of zeros.
            1 => (0..k).map(|i| [1e-35, 0.0, 1.0, 1e3][i / 32 % 4] * rng.f32()).collect(),
            _ => (0..k).map(|_| rng.f32()).collect(),
        };
        let query = query(&layout, &x);
        Search { layout, weights, rows, screen, x, query }
    }

    fn screened(&self) -> Screened<'_> {
        Screened { layout: self.layout, screen: &self.screen, rows: &self.rows }
    }

    fn case(&self, step: ScreenKernel, operands: Vec<Operand>) -> Case {
        Case::new(KernelSpec::Screen { layout: self.layout, step }, 1, operands)
    }

    fn query_bytes(&self, threshold: f32) -> Vec<u8> {
        query_bytes(&self.layout, &self.query, threshold)
    }

    /// Lower ends up to whole panels: rows past n are out.
    fn padded(&self, lows: &[f32]) -> Vec<u8> {
        let mut lows = lows.to_vec();
        lows.resize(self.layout.panels() * PANEL_ROWS, f32::NEG_INFINITY);
        floats(&lows)
    }

    fn query_case(&self) -> Case {
        let x = Tensor::f32(&[1, self.layout.k], self.x.clone());
        self.case(ScreenKernel::Query, vec![input(&x), Operand::Output(self.query_bytes(0.0))])
    }

    fn high_case(&self) -> Case {
        let lows = self.screened().high_level(&self.query);
        self.case(
            ScreenKernel::High,
            vec![
                Operand::Input(self.query_bytes(0.0)),
                Operand::Input(self.screen.clone()),
                Operand::Output(self.padded(&lows)),
                Operand::Output(floats(&maxima(&lows))),
            ],
        )
    }

    fn low_case(&self, lows: &[f32], threshold: f32) -> Case {
        let after = self.screened().low_level(&self.query, lows, threshold);
        self.case(
            ScreenKernel::Low,
            vec![
                Operand::Input(self.query_bytes(threshold)),
                Operand::Input(self.screen.clone()),
                Operand::InOut(self.padded(lows), self.padded(&after)),
                Operand::Output(floats(&maxima(&after))),
                Operand::Output(words(&counts(&after))),
            ],
        )
    }

    fn exact_case(&self, lows: &[f32], threshold: f32) -> Case {
        let after = self.screened().exact_level(&self.query, &self.x, lows, threshold);
        let before = counts(lows);
        let both: Vec<u32> = before.iter().zip(counts(&after)).map(|(low, exact)| low | exact << 8).collect();
        self.case(
            ScreenKernel::Exact { weight: self.weights.dtype() },
            vec![
                Operand::Input(floats(&self.x)),
                Operand::Input(bytes(&self.weights)),
                Operand::Input(self.query_bytes(threshold)),
                Operand::Input(self.screen.clone()),
                Operand::InOut(self.padded(lows), self.padded(&after)),
                Operand::Output(floats(&maxima(&after))),
                Operand::InOut(words(&before), words(&both)),
            ],
        )
    }

    /// The three levels one after the other, and the last two with thresholds that keep every row and none.
    fn cases(&self) -> Vec<Case> {
        let screened = self.screened();
        let first = screened.high_level(&self.query);
        let mut cases = vec![self.query_case(), self.high_case()];
        for threshold in [threshold(&first, 1), f32::MIN, f32::MAX] {
            cases.push(self.low_case(&first, threshold));
            let second = screened.low_level(&self.query, &first, threshold);
            cases.push(self.exact_case(&second, tcc_ir::screen::search::threshold(&second, 1)));
            cases.push(self.exact_case(&second, f32::NEG_INFINITY));
        }
        cases
    }
}

/// A query as kernels lay it out.
pub fn query_bytes(layout: &ScreenLayout, query: &Query, threshold: f32) -> Vec<u8> {
    let parts = QueryLayout::new(layout);
    let mut out = vec![0; parts.bytes()];
    let mut put = |at: usize, bytes: Vec<u8>| out[at..at + bytes.len()].copy_from_slice(&bytes);
    put(QueryLayout::NORM as usize, query.norm.to_le_bytes().to_vec());
    put(QueryLayout::SLACK as usize, query.slack.to_le_bytes().to_vec());
    put(QueryLayout::THRESHOLD as usize, threshold.to_le_bytes().to_vec());
    put(QueryLayout::CODES, query.codes.iter().flat_map(|c| c.to_le_bytes()).collect());
    put(parts.scales(), floats(&query.scales));
    let offsets = |factor: i32| query.sums.iter().flat_map(|sum| (factor * sum).to_le_bytes()).collect();
    put(parts.offsets(), offsets(HIGH_OFFSET));
    for (i, four) in query.codes.chunks_exact(4).enumerate() {
        let at = parts.lane_codes() + QueryLayout::lane_code(i / 8, i % 8);
        put(at, four.iter().flat_map(|c| c.to_le_bytes()).collect());
    }
    put(parts.lane_scales(), floats(&query.scales));
    put(parts.lane_offsets(), offsets(LOW_OFFSET));
    out
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Rows of each panel that are in.
fn counts(lows: &[f32]) -> Vec<u32> {
    lows.chunks(PANEL_ROWS).map(|panel| panel.iter().filter(|low| **low > f32::NEG_INFINITY).count() as u32).collect()
}

pub fn screen() -> Vec<Case> {
    let mut rng = Rng::named("screen");
    let mut cases = Vec::new();
    for ((n, k), weight) in SHAPES.into_iter().zip([DType::F32, DType::F16, DType::Bf16].into_iter().cycle()) {
        cases.extend(Search::new(n, k, weight, &mut rng).cases());
    }
    cases
}
