//! The cross products AᵀY and YᵀY of one panel, added to running sums.
//!
//! A panel stores each neuron's values over the rows contiguously, so A needs no packing; only the
//! coefficients, which are few, are packed. A tile of sums in registers takes one value of each of I
//! lines against J vectors of features. Knows nothing of what lines and features are. Invariant: the
//! order of each sum follows from the shapes alone.

use super::panel::PANEL;
use super::simd::{Vector, WIDTH, kernel};

/// The number of lines of a strip, which fits in a core's cache from one tile of features to the
/// next.
const STRIP: usize = 1024;

/// The largest number of features after the last whole vector that [`accumulate_tail`] computes: a
/// vector of so few would be mostly padding.
const TAIL: usize = 5;

/// The number of sums that a line has for k features: k itself if at most [`TAIL`] features follow
/// the last whole vector, otherwise k rounded up to whole vectors.
pub fn padded_width(k: usize) -> usize {
    if k % WIDTH <= TAIL {
        k
    } else {
        k.next_multiple_of(WIDTH)
    }
}

/// The width in vectors of the tile that starts at vector `at` of `vectors`. Four remaining vectors
/// make one tile rather than one of three and one of one, since a tile of one vector reads a line
/// for few products.
fn tile_width(vectors: usize, at: usize, widest: usize) -> usize {
    match vectors - at {
        4 if widest > 1 => 4,
        left => left.min(widest),
    }
}

kernel! {
    /// Packs the coefficients `y` `[k][PANEL]` for [`accumulate`] into [`padded_width`]`(k) · PANEL`
    /// values: tile by tile `[PANEL][features of the tile]`, padded with zeros, so that a tile reads
    /// its coefficients in order; the tail's features stay `[feature][PANEL]`.
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
    /// `out[i][j] += Σ_rows lines[i] · y[j]` for the m lines `[m][PANEL]` and the k coefficients
    /// that [`pack_coefficients`] packed. `out` holds m · [`padded_width`]`(k)` sums in the layout
    /// that [`unpack_by_feature`] reads. With `overwrite` the sums replace the values of `out`,
    /// which then need not be cleared first. With `upper` the tiles without any j ≥ i are skipped,
    /// for a symmetric product. `ahead` are values that the caller needs next; they are prefetched
    /// between the tiles.
    pub fn accumulate(out: &mut [f32], lines: &[f32], y: &[f32], overwrite: bool, upper: bool, ahead: &[f32]) = accumulate_body;
}

#[inline(always)]
fn accumulate_body<V: Vector>(
    out: &mut [f32],
    lines: &[f32],
    y: &[f32],
    overwrite: bool,
    upper: bool,
    ahead: &[f32],
) {
    let (m, vectors) = (lines.len() / PANEL, y.len() / (PANEL * WIDTH));
    let mut prefetcher = Prefetcher::new(ahead, m * vectors);
    let (out, last) = out.split_at_mut(m * vectors * WIDTH);
    accumulate_tail::<V>(last, lines, &y[vectors * WIDTH * PANEL..], overwrite);
    let strips = out
        .chunks_mut((STRIP * vectors * WIDTH).max(1))
        .zip(lines.chunks(STRIP * PANEL));
    for (strip, (out, lines)) in strips.enumerate() {
        let mut at = 0;
        while at < vectors {
            let width = tile_width(vectors, at, V::TILE);
            let y = &y[at * WIDTH * PANEL..(at + width) * WIDTH * PANEL];
            let count = lines.len() / PANEL;
            let line_count = if upper {
                count.min(((at + width) * WIDTH).saturating_sub(strip * STRIP))
            } else {
                count
            };
            let position = TilePosition {
                at,
                vectors,
                lines: line_count,
                overwrite,
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

/// The position of a tile's features, the lines to compute, and whether sums are overwritten.
#[derive(Clone, Copy)]
struct TilePosition {
    /// The first vector of features of the tile.
    at: usize,
    /// All vectors of features: the stride of `out` between lines.
    vectors: usize,
    /// The number of lines of the strip to compute.
    lines: usize,
    overwrite: bool,
}

/// Adds the products of all lines with J vectors of features, I lines at a time: I × J sums, J
/// vectors of features and one broadcast value fill the registers (24 sums of 32 registers with
/// AVX-512; with 16 registers of 256 bits, of which a vector takes two, 6 × 1).
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

/// Adds the products of I lines with J vectors of features over the panel's rows in order.
#[inline(always)]
fn accumulate_tile<V: Vector, const I: usize, const J: usize>(
    out: &mut [f32],
    lines: &[f32],
    y: &[f32],
    position: TilePosition,
) {
    let (stride, start) = (position.vectors * WIDTH, position.at * WIDTH);
    let out = &mut out[..(I - 1) * stride + start + J * WIDTH];
    // The old sums are read only after the loop over the rows, when the prefetched cache lines have
    // arrived.
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
            let sum = if position.overwrite {
                sums[i][j]
            } else {
                V::load(to).add(sums[i][j])
            };
            sum.store(to);
        }
    }
}

/// Adds the products of all lines with the tail's features. Here a vector runs over rows: the
/// products of I × J ≤ WIDTH pairs of line and feature are kept in one vector each, and their lanes
/// are then summed for all pairs at once by transposing.
#[inline(always)]
fn accumulate_tail<V: Vector>(out: &mut [f32], lines: &[f32], y: &[f32], overwrite: bool) {
    match y.len() / PANEL {
        0 => {}
        1 => accumulate_few::<V, 16, 1>(out, lines, y, overwrite),
        2 => accumulate_few::<V, 8, 2>(out, lines, y, overwrite),
        3 => accumulate_few::<V, 5, 3>(out, lines, y, overwrite),
        4 => accumulate_few::<V, 4, 4>(out, lines, y, overwrite),
        _ => accumulate_few::<V, 3, TAIL>(out, lines, y, overwrite),
    }
}

/// The work of [`accumulate_tail`] for J features, I lines at a time.
#[inline(always)]
fn accumulate_few<V: Vector, const I: usize, const J: usize>(
    out: &mut [f32],
    lines: &[f32],
    y: &[f32],
    overwrite: bool,
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
                *to = if overwrite { *sum } else { *to + *sum };
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
            *to = if overwrite {
                sum.sum()
            } else {
                *to + sum.sum()
            };
        }
    }
}

/// Prefetches a slice step by step, so that requests are spread over the arithmetic and do not fill
/// the memory queues at once.
struct Prefetcher<'a> {
    values: &'a [f32],
    /// The position of the next value to prefetch.
    at: usize,
    /// Values to request at each tile.
    step: usize,
}

impl<'a> Prefetcher<'a> {
    /// Spreads `values` over the tiles that `vectors` vectors of sums make.
    fn new(values: &'a [f32], vectors: usize) -> Self {
        /// Vectors of sums in most tiles of AVX-512.
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

/// The features of one call of [`unpack_by_feature`]: a square of vectors is transposed in registers.
pub const UNPACKED_FEATURES: usize = WIDTH;

kernel! {
    /// Copies sums that [`accumulate`] computed for m lines into `out` `[features][m]`: those of
    /// the features from `first` on, a multiple of [`UNPACKED_FEATURES`]. `out` has at most
    /// [`UNPACKED_FEATURES`] lines.
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
                let computed = lines_of(&sums, m, k);
                for (at, computed) in computed.iter().enumerate() {
                    let (i, j) = (at % m, at / m);
                    assert!(
                        (computed - 2.0 * want(&lines, i, j)).abs() < 1e-4,
                        "{m} × {k}: ({i}, {j})"
                    );
                }
                // The upper half is whole, whatever the tiles.
                let mut gram = vec![0.0; k * padded_width(k)];
                accumulate(&mut gram, &y, &packed, true, true, &[]);
                let computed = lines_of(&gram, k, k);
                for (i, j) in (0..k).flat_map(|j| (0..=j).map(move |i| (i, j))) {
                    assert!(
                        (computed[j * k + i] - want(&y, i, j)).abs() < 1e-4,
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
