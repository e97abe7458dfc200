//! The squared error of finished factors on a device, from the residual itself: A − centre − YZᵀ in
//! f32 element by element, its squares summed in f32 within a row and in f64 over rows.

use candle_core::{DType, Tensor};

use super::Accelerator;
use crate::error::Result;
use crate::factor::Factors;
use crate::factor::stream::{Stream, densify};
use crate::task::TaskCtx;

impl Accelerator {
    /// The squared errors of all rows, in units of the square of the stream's power of two: that of
    /// the original rows, and that with the weights of neurons and rows.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and errors of the source or of the device.
    pub(crate) fn residual_errors(
        &self,
        stream: &Stream<'_>,
        factors: &Factors,
        ctx: &TaskCtx,
    ) -> Result<[f64; 2]> {
        let (k, d) = (factors.features.columns(), stream.d);
        let z = Tensor::from_vec(densify(&factors.features), (k, d), &self.device)?;
        let ones = Tensor::ones((d, 1), DType::F32, &self.device)?;
        let scale = stream.preprocessing.scaling.scale;
        let weights = stream.preprocessing.weights.as_deref();
        let mut totals = [0.0f64; 2];
        self.for_each_portion(0..stream.n, self.plan.block_rows, ctx, |rows| {
            let first = rows.start;
            let lines: Vec<f32> = (0..k)
                .flat_map(|j| &factors.coefficients.feature(j)[rows.clone()])
                .map(|v| v * scale)
                .collect();
            let y = Tensor::from_vec(lines, (k, rows.len()), &self.device)?;
            let mut sums = [0.0f64; 2];
            for piece in self.rows.pieces(stream, rows)? {
                let at = piece.rows();
                let y = y.narrow(1, at.start - first, at.len())?.contiguous()?;
                let residual = (self.rows.centred(&piece)? - y.t()?.matmul(&z)?)?;
                let squares = |residual: &Tensor| -> Result<Vec<f32>> {
                    Ok(residual.sqr()?.matmul(&ones)?.flatten_all()?.to_vec1()?)
                };
                let original = squares(&residual)?;
                let weighted = match &self.rows.preparation().neurons {
                    Some(neurons) => squares(&residual.broadcast_mul(neurons)?)?,
                    None => original.clone(),
                };
                sums[0] += original.iter().map(|&v| f64::from(v)).sum::<f64>();
                for (row, &square) in at.zip(&weighted) {
                    let weight = weights.map_or(1.0, |w| f64::from(w[row]));
                    sums[1] += f64::from(square) * weight * weight;
                }
            }
            totals.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
            Ok(())
        })?;
        Ok(totals)
    }
}
