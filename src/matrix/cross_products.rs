//! Cross products of a panel with its coefficients: AᵀY and YᵀY, a panel's rows at a time.
//!
//! The lines of a panel run over its rows already, so that nothing has to be packed but the
//! coefficients, which are few: a value of a line against vectors of features is a tile of sums in
//! registers. Invariant: the order of each sum follows from the shapes alone.

use super::panel::PANEL;
use super::simd::{Vector, WIDTH, kernel};

/// Lines that stay in a core's cache from one tile of features to the next.
const STRIP: usize = 1024;

/// As many features as this beyond whole vectors are taken one by one: a vector of them would be
/// mostly empty.
const TAIL: usize = 5;

/// Values of sums a line, of k features: whole vectors, and where few features are left, these.
pub fn padded_width(k: usize) -> usize {
    if k % WIDTH <= TAIL {
        k
    } else {
        k.next_multiple_of(WIDTH)
    }
}

/// The features of a tile, in vectors, from the `at`-th of `vectors` on: as many as keep the
/// registers full.
fn tile_width(vectors: usize, at: usize, widest: usize) -> usize {
    match vectors - at {
        4 if widest > 1 => 4,
        left => left.min(widest),
    }
}

kernel! {
    /// Lays the coefficients `y` `[k][PANEL]` out for [`accumulate`], [`padded_width`]`(k) · PANEL` values: by
    /// tiles of features, in each the rows slowest; features that are not there are zero; the last
    /// few as they are.
    pub fn pack_coefficients(out: &mut [f32], y: &[f32]) = pack_coefficients_body;
}

#[inline(always)]
fn pack_coefficients_body<V: Vector>(out: &mut [f32], y: &[f32]) {
    let (k, vectors) = (y.len() / PANEL, out.len() / (PANEL * WIDTH));
    let mut at = 0;
    while at < vectors {
        let width = tile_width(vectors, at, V::TILE);
        for v in 0..width {
            let first = (at + v) * WIDTH;
            for r in (0..PANEL).step_by(WIDTH) {
                let mut square = [V::splat(0.0); WIDTH];
                for (i, line) in square.iter_mut().enumerate() {
                    if first + i < k {
                        *line = V::load(&y[(first + i) * PANEL + r..]);
                    }
                }
                for (i, row) in V::transpose(square).iter().enumerate() {
                    row.store(&mut out[at * WIDTH * PANEL + ((r + i) * width + v) * WIDTH..]);
                }
            }
        }
        at += width;
    }
    let last = vectors * WIDTH * PANEL;
    if last < out.len() {
        out[last..].copy_from_slice(&y[last..]);
    }
}

kernel! {
    /// `out[i][j] += Σ_rows lines[i] · y[j]`, of lines `[m][PANEL]` and coefficients as [`pack_coefficients`]
    /// lays them; `out` has m · [`padded_width`]`(k)` values, laid out as [`unpack_by_feature`] reads them. Where
    /// `fresh`, what `out` held does not count. With `upper`, tiles that hold no j ≥ i are left as
    /// they are. Meanwhile the values `ahead` are asked for.
    pub fn accumulate(out: &mut [f32], lines: &[f32], y: &[f32], fresh: bool, upper: bool, ahead: &[f32]) = accumulate_body;
}

#[inline(always)]
fn accumulate_body<V: Vector>(
    out: &mut [f32],
    lines: &[f32],
    y: &[f32],
    fresh: bool,
    upper: bool,
    ahead: &[f32],
) {
    let (m, vectors) = (lines.len() / PANEL, y.len() / (PANEL * WIDTH));
    let mut prefetcher = Prefetcher::new(ahead, m * vectors);
    let (out, last) = out.split_at_mut(m * vectors * WIDTH);
    accumulate_tail::<V>(last, lines, &y[vectors * WIDTH * PANEL..], fresh);
    let strips = out
        .chunks_mut((STRIP * vectors * WIDTH).max(1))
        .zip(lines.chunks(STRIP * PANEL));
    for (strip, (out, lines)) in strips.enumerate() {
        let mut at = 0;
        while at < vectors {
            let width = tile_width(vectors, at, V::TILE);
            let y = &y[at * WIDTH * PANEL..(at + width) * WIDTH * PANEL];
            let count = lines.len() / PANEL;
            let wanted = if upper {
                count.min(((at + width) * WIDTH).saturating_sub(strip * STRIP))
            } else {
                count
            };
            let position = TilePosition {
                at,
                vectors,
                lines: wanted,
                fresh,
            };
            match (V::TILE, width) {
                (1, _) => accumulate_column::<V, 6, 1>(out, lines, y, position, &mut prefetcher),
                (_, 1) => accumulate_column::<V, 12, 1>(out, lines, y, position, &mut prefetcher),
                (_, 2) => accumulate_column::<V, 12, 2>(out, lines, y, position, &mut prefetcher),
                (_, 3) => accumulate_column::<V, 8, 3>(out, lines, y, position, &mut prefetcher),
                _ => accumulate_column::<V, 6, 4>(out, lines, y, position, &mut prefetcher),
            }
            at += width;
        }
    }
}

/// Where a tile's features are among all, the lines that are wanted, and what becomes of the sums
/// that are there.
#[derive(Clone, Copy)]
struct TilePosition {
    at: usize,
    vectors: usize,
    lines: usize,
    fresh: bool,
}

/// All lines against J vectors of features, I lines at a time.
#[inline(always)]
fn accumulate_column<V: Vector, const I: usize, const J: usize>(
    out: &mut [f32],
    lines: &[f32],
    y: &[f32],
    position: TilePosition,
    prefetcher: &mut Prefetcher<'_>,
) {
    let stride = position.vectors * WIDTH;
    let whole = position.lines / I * I;
    for first in (0..whole).step_by(I) {
        prefetcher.advance::<V>();
        accumulate_tile::<V, I, J>(
            &mut out[first * stride..],
            &lines[first * PANEL..],
            y,
            position,
        );
    }
    for first in whole..position.lines {
        accumulate_tile::<V, 1, J>(
            &mut out[first * stride..],
            &lines[first * PANEL..],
            y,
            position,
        );
    }
}

#[inline(always)]
fn accumulate_tile<V: Vector, const I: usize, const J: usize>(
    out: &mut [f32],
    lines: &[f32],
    y: &[f32],
    position: TilePosition,
) {
    let (stride, start) = (position.vectors * WIDTH, position.at * WIDTH);
    let out = &mut out[..(I - 1) * stride + start + J * WIDTH];
    for i in 0..I {
        for j in 0..J {
            V::prefetch(out[i * stride + start + j * WIDTH..].as_ptr());
        }
    }
    let lines: &[f32] = &lines[..I * PANEL];
    let mut sums = [[V::splat(0.0); J]; I];
    for (r, row) in y.chunks_exact(J * WIDTH).take(PANEL).enumerate() {
        let mut features = [V::splat(0.0); J];
        for j in 0..J {
            features[j] = V::load(&row[j * WIDTH..]);
        }
        for i in 0..I {
            let value = V::splat(lines[i * PANEL + r]);
            for j in 0..J {
                sums[i][j] = sums[i][j].add_product(value, features[j]);
            }
        }
    }
    for i in 0..I {
        for j in 0..J {
            let to = &mut out[i * stride + start + j * WIDTH..];
            let sum = if position.fresh {
                sums[i][j]
            } else {
                V::load(to).add(sums[i][j])
            };
            sum.store(to);
        }
    }
}

/// All lines against few features: the products of as many pairs as a vector has lanes, then all
/// their sums at once.
#[inline(always)]
fn accumulate_tail<V: Vector>(out: &mut [f32], lines: &[f32], y: &[f32], fresh: bool) {
    match y.len() / PANEL {
        0 => {}
        1 => accumulate_few::<V, 16, 1>(out, lines, y, fresh),
        2 => accumulate_few::<V, 8, 2>(out, lines, y, fresh),
        3 => accumulate_few::<V, 5, 3>(out, lines, y, fresh),
        4 => accumulate_few::<V, 4, 4>(out, lines, y, fresh),
        _ => accumulate_few::<V, 3, TAIL>(out, lines, y, fresh),
    }
}

/// I lines at a time against J features.
#[inline(always)]
fn accumulate_few<V: Vector, const I: usize, const J: usize>(
    out: &mut [f32],
    lines: &[f32],
    y: &[f32],
    fresh: bool,
) {
    let (m, y) = (lines.len() / PANEL, &y[..J * PANEL]);
    let whole = m - m % I;
    for first in (0..whole).step_by(I) {
        let lines = &lines[first * PANEL..(first + I) * PANEL];
        let mut products = [V::splat(0.0); WIDTH];
        for c in (0..PANEL).step_by(WIDTH) {
            let mut features = [V::splat(0.0); J];
            for j in 0..J {
                features[j] = V::load(&y[j * PANEL + c..]);
            }
            for i in 0..I {
                let line = V::load(&lines[i * PANEL + c..]);
                for j in 0..J {
                    products[j * I + i] = products[j * I + i].add_product(line, features[j]);
                }
            }
        }
        let mut sums = [0.0; WIDTH];
        V::sum_each(products).store(&mut sums);
        for j in 0..J {
            for (to, sum) in out[j * m + first..j * m + first + I]
                .iter_mut()
                .zip(&sums[j * I..])
            {
                *to = if fresh { *sum } else { *to + *sum };
            }
        }
    }
    for i in whole..m {
        for (j, y) in y.chunks_exact(PANEL).enumerate() {
            let mut sum = V::splat(0.0);
            for c in (0..PANEL).step_by(WIDTH) {
                sum = sum.add_product(V::load(&lines[i * PANEL + c..]), V::load(&y[c..]));
            }
            let to = &mut out[j * m + i];
            *to = if fresh { sum.sum() } else { *to + sum.sum() };
        }
    }
}

/// Values that are wanted later, asked for little by little.
struct Prefetcher<'a> {
    values: &'a [f32],
    at: usize,
    /// Values a tile.
    step: usize,
}

impl<'a> Prefetcher<'a> {
    /// Spread over the tiles of so many vectors of sums.
    fn new(values: &'a [f32], vectors: usize) -> Self {
        /// Vectors of sums of a tile, about.
        const TILE: usize = 24;
        Self {
            values,
            at: 0,
            step: values
                .len()
                .div_ceil((vectors / TILE).max(1))
                .next_multiple_of(WIDTH),
        }
    }

    #[inline(always)]
    fn advance<V: Vector>(&mut self) {
        let until = self.values.len().min(self.at + self.step);
        while self.at < until {
            V::prefetch_l2(self.values[self.at..].as_ptr());
            self.at += WIDTH;
        }
    }
}

/// Features that [`unpack_by_feature`] takes at once.
pub const UNPACKED_FEATURES: usize = WIDTH;

kernel! {
    /// The sums of m lines and k features that [`accumulate`] left, `[k][m]`: of the features from `first`
    /// on, a multiple of [`UNPACKED_FEATURES`], as many as `out` has lines and no more than that.
    pub fn unpack_by_feature(out: &mut [f32], sums: &[f32], m: usize, first: usize) = unpack_by_feature_body;
}

#[inline(always)]
fn unpack_by_feature_body<V: Vector>(out: &mut [f32], sums: &[f32], m: usize, first: usize) {
    let stride = sums.len() / m / WIDTH * WIDTH;
    if first == stride {
        let start = m * stride;
        out.copy_from_slice(&sums[start..start + out.len()]);
        return;
    }
    for begin in (0..m - m % WIDTH).step_by(WIDTH) {
        let mut square = [V::splat(0.0); WIDTH];
        for (i, line) in square.iter_mut().enumerate() {
            *line = V::load(&sums[(begin + i) * stride + first..]);
        }
        for (line, values) in out.chunks_exact_mut(m).zip(V::transpose(square)) {
            values.store(&mut line[begin..]);
        }
    }
    for (j, line) in out.chunks_exact_mut(m).enumerate() {
        for i in m - m % WIDTH..m {
            line[i] = sums[i * stride + first + j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::simd::Portable;
    #[cfg(target_arch = "x86_64")]
    use crate::matrix::simd::x86::Avx2;

    #[test]
    fn the_sums_follow_the_formula() {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
        for (m, k) in [
            (29, 5),
            (16, 16),
            (7, 33),
            (50, 49),
            (24, 100),
            (13, 64),
            (40, 22),
            (1100, 7),
            (19, 18),
            (23, 35),
        ] {
            let lines: Vec<f32> = (0..m * PANEL).map(value).collect();
            let y: Vec<f32> = (0..k * PANEL).map(|i| value(i + 5)).collect();
            let want = |a: &[f32], i: usize, j: usize| -> f32 {
                (0..PANEL)
                    .map(|r| a[i * PANEL + r] * y[j * PANEL + r])
                    .sum()
            };
            let mut forms: Vec<(Pack, Accumulate)> = vec![
                (pack_coefficients, accumulate),
                (
                    pack_coefficients_body::<Portable>,
                    accumulate_body::<Portable>,
                ),
            ];
            #[cfg(target_arch = "x86_64")]
            if crate::matrix::simd::has_avx2() {
                forms.push((pack_coefficients_body::<Avx2>, accumulate_body::<Avx2>));
            }
            for (pack, accumulate) in forms {
                let (mut packed, mut sums) = (
                    vec![f32::NAN; padded_width(k) * PANEL],
                    vec![f32::NAN; m * padded_width(k)],
                );
                pack(&mut packed, &y);
                accumulate(&mut sums, &lines, &packed, true, false, &lines);
                accumulate(&mut sums, &lines, &packed, false, false, &[]);
                let got = lines_of(&sums, m, k);
                for (at, got) in got.iter().enumerate() {
                    let (i, j) = (at % m, at / m);
                    assert!(
                        (got - 2.0 * want(&lines, i, j)).abs() < 1e-4,
                        "{m} × {k}: ({i}, {j})"
                    );
                }
                // The upper half is whole, whatever the tiles.
                let mut gram = vec![0.0; k * padded_width(k)];
                accumulate(&mut gram, &y, &packed, true, true, &[]);
                let got = lines_of(&gram, k, k);
                for (i, j) in (0..k).flat_map(|j| (0..=j).map(move |i| (i, j))) {
                    assert!(
                        (got[j * k + i] - want(&y, i, j)).abs() < 1e-4,
                        "{k}: ({i}, {j})"
                    );
                }
            }
        }
    }

    type Pack = fn(&mut [f32], &[f32]);
    type Accumulate = fn(&mut [f32], &[f32], &[f32], bool, bool, &[f32]);

    fn lines_of(sums: &[f32], m: usize, k: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; k * m];
        for (i, lines) in out.chunks_mut(UNPACKED_FEATURES * m).enumerate() {
            unpack_by_feature(lines, sums, m, i * UNPACKED_FEATURES);
        }
        out
    }
}
