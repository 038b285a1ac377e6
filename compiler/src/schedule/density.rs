//! Counts the zeros of ternary weights where an encoding whose size depends on them might be chosen.
//!
//! That reads every matrix once before the plan, so it is left out where no count could make such an encoding the
//! cheapest: where reading the presence bits alone, without a sign, already costs more than another encoding.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rayon::prelude::*;
use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::bitmap::{self, Density};
use tcc_ir::program::{Program, WeightError, WeightId, WeightStore};
use tcc_ir::tensor::Data;

use super::{Machine, Shape, candidates, cheapest};
use crate::plan::layout::{TernaryWeight, ternary_weights};

/// What was counted.
pub type Densities = BTreeMap<WeightId, Density>;

/// Rows counted by one thread at a time.
const ROWS_PER_JOB: usize = 256;

/// The zeros of the weights of `program` for which any of `machines` might choose a bitmap, or has to.
pub fn of_program(
    program: &Program,
    store: &dyn WeightStore,
    machines: &[Machine],
    forced: Option<Encoding>,
) -> Result<Densities, WeightError> {
    count(program, store, |weight| machines.iter().find_map(|machine| panel_rows(machine, weight, forced)))
}

/// The zeros of every weight with int8 activations in panels of `nr` rows, to show what a bitmap would cost.
pub fn of_all(program: &Program, store: &dyn WeightStore, nr: usize) -> Result<Densities, WeightError> {
    count(program, store, |_| Some(nr))
}

/// The zeros of the weights with int8 activations for which `nr` says the rows of a panel.
fn count(
    program: &Program,
    store: &dyn WeightStore,
    nr: impl Fn(&TernaryWeight) -> Option<usize>,
) -> Result<Densities, WeightError> {
    let mut densities = Densities::new();
    for weight in ternary_weights(program, &Densities::new()).iter().filter(|weight| weight.is_int8) {
        // One weight has several readers.
        if let (Entry::Vacant(place), Some(nr)) = (densities.entry(weight.id), nr(weight)) {
            place.insert(of_weight(store, weight, nr)?);
        }
    }
    Ok(densities)
}

/// Rows of a panel of the bitmap that `machine` reads; `None` for machines without.
pub fn bitmap_rows(machine: &Machine) -> Option<usize> {
    machine.usable().find(|row| matches!(row.encoding, Encoding::Bitmap(_))).map(|row| row.encoding.nr())
}

/// Rows of a panel of the bitmap that `machine` might choose for `weight`.
fn panel_rows(machine: &Machine, weight: &TernaryWeight, forced: Option<Encoding>) -> Option<usize> {
    let nr = bitmap_rows(machine)?;
    if let Some(encoding) = forced {
        return matches!(encoding, Encoding::Bitmap(_)).then_some(nr);
    }
    let Shape { n, k, .. } = weight.shape;
    let all_zeros = Density { zeros: 0, weights: 0, panel_bytes: k.div_ceil(bitmap::KR) * nr * bitmap::KR / 8 };
    let candidates = candidates(machine, Shape { n, k, density: Some(all_zeros), ..weight.shape }, None).ok()?;
    matches!(cheapest(&candidates)?.encoding, Encoding::Bitmap(_)).then_some(nr)
}

fn of_weight(store: &dyn WeightStore, weight: &TernaryWeight, nr: usize) -> Result<Density, WeightError> {
    let tensor = store.tensor(weight.id)?;
    let Data::Trit(w) = &tensor.data else { unreachable!("the weight of a ternary product is trits") };
    let k = weight.shape.k;
    let jobs = w.par_chunks(ROWS_PER_JOB.next_multiple_of(nr) * k);
    Ok(jobs.map(|rows| Density::of(rows, k, nr)).reduce(Density::default, Density::and))
}
