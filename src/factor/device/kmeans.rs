//! The assignment step of k-means on a device: the nearest centroid of each row, and the sums of the
//! rows of each cluster, as products.

use candle_core::{D, DType, Tensor};

use super::Accelerator;
use crate::error::Result;
use crate::factor::init::Clusters;
use crate::factor::stream::Stream;
use crate::task::TaskCtx;

impl Accelerator {
    /// Assigns each row to the nearest of the k centroids `[k][d]`: the one whose a·c − ‖c‖²/2 is
    /// largest. `squares` are their ‖c‖²/2.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and errors of the source or of the device.
    pub(in crate::factor) fn assign(
        &self,
        stream: &Stream<'_>,
        centroids: &[f32],
        squares: &[f32],
        ctx: &TaskCtx,
    ) -> Result<Clusters> {
        let (k, d) = (squares.len(), stream.d);
        let centroids = Tensor::from_slice(centroids, (k, d), &self.device)?;
        let squares = Tensor::from_slice(squares, (1, k), &self.device)?;
        let numbers = Tensor::arange(0, k as u32, &self.device)?.reshape((k, 1))?;
        let mut sums = Tensor::zeros((k, d), DType::F32, &self.device)?;
        let mut labels: Vec<u32> = Vec::with_capacity(stream.n);
        let block = self.plan.block_rows;
        self.for_each_portion(0..stream.n, block, ctx, |rows| {
            let (mut portion_labels, mut portion_sums) =
                (Vec::with_capacity(rows.len()), sums.clone());
            for piece in self.rows.pieces(stream, rows)? {
                let a = self.rows.prepared(&piece)?;
                let scores = a.matmul(&centroids.t()?)?.broadcast_sub(&squares)?;
                let nearest = scores.argmax(D::Minus1)?;
                let member = numbers
                    .broadcast_eq(&nearest.unsqueeze(0)?)?
                    .to_dtype(DType::F32)?;
                portion_sums = (portion_sums + member.matmul(&a)?)?;
                portion_labels.extend(nearest.to_vec1::<u32>()?);
            }
            sums = portion_sums;
            labels.extend(portion_labels);
            Ok(())
        })?;
        let mut counts = vec![0.0; k];
        labels.iter().for_each(|&j| counts[j as usize] += 1.0);
        Ok(Clusters {
            labels,
            sums: sums.flatten_all()?.to_vec1()?,
            counts,
        })
    }
}
