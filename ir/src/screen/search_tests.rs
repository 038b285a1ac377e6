//! Bounds hold on hard heads and hidden rows, are not wasteful, and the search finds what the full head finds.

use proptest::prelude::*;

use super::super::pack::screen;
use super::*;

/// A small generator (xorshift): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }

    /// In -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Close to normal: the sum of a few uniform ones.
    fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.unit()).sum::<f32>() * 0.7
    }
}

/// Kinds of rows, of weights and hidden ones alike.
const KINDS: u64 = 10;

fn row(kind: u64, k: usize, random: &mut Random) -> Vec<f32> {
    let mut row: Vec<f32> = (0..k).map(|_| random.normal()).collect();
    match kind {
        0 => row.fill(0.0),
        1 => row.fill(random.unit()),
        2 => row.iter_mut().enumerate().for_each(|(i, w)| *w = if i % 2 == 0 { 1.0 } else { -1.0 }),
        3 => row[random.below(k as u64) as usize] = 300.0,
        4 => row.iter_mut().for_each(|w| *w *= 1e15),
        5 => row.iter_mut().for_each(|w| *w *= 1e-30),
        6 => row.iter_mut().for_each(|w| *w = f32::from_bits(random.below(1 << 23) as u32)),
        7 => row.iter_mut().for_each(|w| *w *= if random.below(4) == 0 { 1e-38 } else { 0.02 }),
        8 => row.iter_mut().for_each(|w| *w = crate::numerics::bf16_to_f32((w.to_bits() >> 16) as u16) * 0.02),
        _ => {}
    }
    row
}

/// A head whose rows are of some kinds, some of them twice.
fn head(n: usize, k: usize, random: &mut Random) -> Vec<f32> {
    let calm = random.below(2) == 0;
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for _ in 0..n {
        let kind = if calm { 8 } else { random.below(KINDS) };
        let again = !rows.is_empty() && random.below(8) == 0;
        let next = if again { rows[random.below(rows.len() as u64) as usize].clone() } else { row(kind, k, random) };
        rows.push(next);
    }
    rows.concat()
}

fn screened<'a>(layout: ScreenLayout, screen: &'a [u8], rows: &'a [f32]) -> Screened<'a> {
    Screened { layout, screen, rows }
}

/// Ids by logit descending, id ascending.
fn ranking(logits: &[f32]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).expect("finite logits").then(a.cmp(b)));
    ids
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn logits_lie_in_their_intervals_and_the_best_are_found(n in 1usize..70, k in 1usize..200, seed in 1u64..u64::MAX, kind in 0..KINDS) {
        let mut random = Random(seed);
        let layout = ScreenLayout { n, k };
        let rows = head(n, k, &mut random);
        let bytes = screen(&layout, &rows);
        let head = screened(layout, &bytes, &rows);
        let x = match random.below(3) {
            // Nearly a row of the head: one logit is far above the rest.
            0 => rows[random.below(n as u64) as usize * k..][..k].iter().map(|w| w + 0.001 * random.unit()).collect(),
            _ => row(kind, k, &mut random),
        };
        let logits: Vec<f32> = rows.chunks_exact(k).map(|row| dot(&x, row)).collect();
        let query = query(&layout, &x);
        for (i, logit) in logits.iter().enumerate().filter(|_| head.limit() * query.norm < LIMIT) {
            let first = head.first(&query, i);
            prop_assert!(first.low <= *logit && *logit <= first.high, "row {i}: {logit} outside {first:?}");
            let second = head.second(&query, i, first.low);
            prop_assert!(second.low <= *logit && *logit <= second.high, "row {i}: {logit} outside {second:?}");
        }
        for count in [1, 2, layout.panels()] {
            let Some(found) = head.search(&x, count) else {
                prop_assert!(head.limit() * query.norm >= LIMIT || count > layout.panels());
                continue;
            };
            prop_assert!(logits.iter().all(|y| y.is_finite()));
            let want = &ranking(&logits)[..count.min(n)];
            prop_assert_eq!(&ranking(&found.logits)[..want.len()], want);
            for id in want {
                prop_assert_eq!(found.logits[*id].to_bits(), logits[*id].to_bits());
            }
        }
    }
}

/// A hidden row along the error of one row's plane puts the logit near the end of its interval: halved bounds are wrong
/// there. (With both planes the hidden row's own quantization error takes most of the other half.)
#[test]
fn bounds_are_tight() {
    let (n, k) = (32, 256);
    let mut random = Random(5);
    let layout = ScreenLayout { n, k };
    let rows: Vec<f32> = (0..n).flat_map(|_| row(8, k, &mut random)).collect();
    let bytes = screen(&layout, &rows);
    let head = screened(layout, &bytes, &rows);
    let mut most_used = [0.0f64; 2];
    for i in 0..n {
        let approximation = |both: bool| -> Vec<f32> {
            let unit = |column: usize| -> Query {
                let mut x = vec![0.0; k];
                x[column] = 127.0;
                query(&layout, &x)
            };
            let one = |column| {
                let query = unit(column);
                let low = if both { head.refinement(&query, i) } else { 0.0 };
                (head.estimate(&query, i) + low) / 127.0
            };
            (0..k).map(one).collect()
        };
        for both in [false, true] {
            let error: Vec<f32> = approximation(both).iter().zip(&rows[i * k..]).map(|(a, w)| w - a).collect();
            let query = query(&layout, &error);
            let first = head.first(&query, i);
            let interval = if both { head.second(&query, i, first.low) } else { first };
            let logit = dot(&error, &rows[i * k..][..k]);
            let middle = (f64::from(interval.low) + f64::from(interval.high)) / 2.0;
            let used = (f64::from(logit) - middle) / (f64::from(interval.high) - middle);
            let most = &mut most_used[usize::from(both)];
            *most = most.max(used);
        }
    }
    assert!((0.85..=1.0).contains(&most_used[0]) && (0.55..=1.0).contains(&most_used[1]), "{most_used:?}");
}

/// Large norms make every bound infinite: the search says that it cannot be made.
#[test]
fn what_cannot_be_bounded_is_refused() {
    let layout = ScreenLayout { n: 40, k: 64 };
    let mut random = Random(9);
    let rows: Vec<f32> = (0..layout.n).flat_map(|_| row(9, layout.k, &mut random)).collect();
    let bytes = screen(&layout, &rows);
    let head = screened(layout, &bytes, &rows);
    for (value, is_refused) in [(1.0, false), (1e25, false), (1e30, true), (f32::INFINITY, true), (f32::NAN, true)] {
        let mut x = row(9, layout.k, &mut random);
        x[17] = value;
        assert_eq!(head.search(&x, 1).is_none(), is_refused, "{value}");
    }
    let x = row(9, layout.k, &mut random);
    assert_eq!([0, 3, 4].map(|count| head.search(&x, count).is_some()), [false, true, false]);
}

/// Trained heads leave few rows; the search is worth nothing if it reads everything.
#[test]
fn few_rows_are_left_where_one_stands_out() {
    let (n, k) = (2000, 256);
    let mut random = Random(3);
    let layout = ScreenLayout { n, k };
    let rows: Vec<f32> = (0..n).flat_map(|_| row(8, k, &mut random)).collect();
    let bytes = screen(&layout, &rows);
    let head = screened(layout, &bytes, &rows);
    let x: Vec<f32> = rows[700 * k..][..k].iter().map(|w| w * 10.0 + 0.5 * random.normal()).collect();
    let found = head.search(&x, 1).expect("bounded");
    assert!(found.rows[0] < n / 20 && found.rows[1] <= 3, "{:?}", found.rows);
}
