//! Y on a device, stored by feature (k × rows) in pieces of consecutive rows, because a sweep
//! updates one feature at all rows. The host stores Y by panel; this file converts between the two.
//! It knows nothing of passes.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::factor::panels::Panels;
use crate::matrix::panel::PANEL;

/// Rows that are converted at a time between the two layouts.
const REORDERED_ROWS: usize = 1 << 14;

/// The coefficients of all rows on a device.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceCoefficients {
    pieces: Vec<LinePiece>,
    /// Whether the host has a copy of the present values.
    pub(crate) is_copied: bool,
}

/// The coefficients of consecutive rows, k × rows; the last piece is filled up to whole panels.
#[derive(Debug, Clone)]
struct LinePiece {
    first: usize,
    lines: Tensor,
}

/// Borrowed coefficients, on the host or on a device.
#[derive(Clone, Copy)]
pub(crate) enum CoefficientsRef<'c> {
    Host(&'c Panels),
    Device(&'c DeviceCoefficients),
}

impl CoefficientsRef<'_> {
    /// The coefficients of `rows` on the device, k × rows, filled up to whole panels. The tensor
    /// may share memory with the stored coefficients: it must not be changed.
    pub(super) fn lines(self, rows: Range<usize>, device: &Device) -> Result<Tensor> {
        match self {
            Self::Host(panels) => upload(panels, rows, device),
            Self::Device(coefficients) => coefficients.lines(rows),
        }
    }
}

/// Copies the coefficients of `rows`, which begin at a panel, to the device: k × rows, filled up to
/// whole panels.
fn upload(panels: &Panels, rows: Range<usize>, device: &Device) -> Result<Tensor> {
    let k = panels.k;
    let upload_part = |rows: Range<usize>| -> Result<Tensor> {
        let count = rows.len().div_ceil(PANEL);
        let span = rows.start * k..(rows.start + count * PANEL) * k;
        let values = Tensor::from_slice(&panels.data[span], (count, k, PANEL), device)?;
        Ok(values.transpose(0, 1)?.reshape((k, count * PANEL))?)
    };
    if rows.len() <= REORDERED_ROWS {
        return upload_part(rows);
    }
    let lines = Tensor::zeros((k, rows.len().next_multiple_of(PANEL)), DType::F32, device)?;
    for first in rows.clone().step_by(REORDERED_ROWS) {
        let part = first..rows.end.min(first + REORDERED_ROWS);
        lines.slice_set(&upload_part(part)?, 1, first - rows.start)?;
    }
    Ok(lines)
}

/// Writes the coefficients `lines` of rows from `first` on into `panels`.
pub(super) fn download(lines: &Tensor, first: usize, panels: &mut Panels) -> Result<()> {
    let (k, rows) = lines.dims2()?;
    for begin in (0..rows).step_by(REORDERED_ROWS) {
        let count = REORDERED_ROWS.min(rows - begin);
        let part = lines
            .narrow(1, begin, count)?
            .reshape((k, count / PANEL, PANEL))?
            .transpose(0, 1)?
            .flatten_all()?
            .force_contiguous()?;
        let span = (first + begin) * k..(first + begin + count) * k;
        panels.data[span].copy_from_slice(&part.to_vec1::<f32>()?);
    }
    Ok(())
}

impl DeviceCoefficients {
    /// Copies the host's coefficients to the device, in one piece for each of `strips`.
    pub(super) fn from_panels(
        panels: &Panels,
        strips: impl Iterator<Item = Range<usize>>,
        device: &Device,
    ) -> Result<Self> {
        let piece = |rows: Range<usize>| {
            Ok(LinePiece {
                first: rows.start,
                lines: upload(panels, rows, device)?,
            })
        };
        Ok(Self {
            pieces: strips.map(piece).collect::<Result<_>>()?,
            is_copied: true,
        })
    }

    /// Appends the coefficients (k × rows) of the rows from `first` on, which follow those stored
    /// so far.
    pub(super) fn push(&mut self, first: usize, lines: Tensor) {
        self.pieces.push(LinePiece { first, lines });
    }

    fn lines(&self, rows: Range<usize>) -> Result<Tensor> {
        let end = rows.end.next_multiple_of(PANEL);
        let mut parts = Vec::new();
        for piece in &self.pieces {
            let until = piece.first + piece.lines.dim(1)?;
            let (from, to) = (rows.start.max(piece.first), end.min(until));
            if from < to {
                parts.push(piece.lines.narrow(1, from - piece.first, to - from)?);
            }
        }
        Ok(match &parts[..] {
            [one] => one.contiguous()?,
            parts => Tensor::cat(parts, 1)?.contiguous()?,
        })
    }

    /// The coefficients of one row.
    ///
    /// # Errors
    /// Errors of the device.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<f32>> {
        let first = row / PANEL * PANEL;
        let panel = self.lines(first..first + 1)?;
        let line = panel.narrow(1, row - first, 1)?.flatten_all()?;
        Ok(line.force_contiguous()?.to_vec1()?)
    }

    /// Copies all coefficients to the host, unless it has a copy of the present values.
    ///
    /// # Errors
    /// Errors of the device.
    pub(crate) fn copy_to(&mut self, panels: &mut Panels) -> Result<()> {
        if !self.is_copied {
            for piece in &self.pieces {
                download(&piece.lines, piece.first, panels)?;
            }
            self.is_copied = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::device::Accelerator;

    #[test]
    fn coefficients_come_back_as_they_went_and_rows_are_found_across_pieces() {
        let (k, n) = (3, 300);
        let value = |row: usize, j: usize| (row * 10 + j) as f32;
        let mut panels = Panels::zeros(k, n, None).unwrap();
        for row in 0..n {
            (0..k).for_each(|j| panels.set(row, j, value(row, j)));
        }
        let strips = [0..128, 128..256, 256..300];
        let mut coefficients =
            DeviceCoefficients::from_panels(&panels, strips.into_iter(), &Device::Cpu).unwrap();
        for row in [0, 63, 127, 128, 200, 299] {
            let want: Vec<f32> = (0..k).map(|j| value(row, j)).collect();
            assert_eq!(coefficients.row(row).unwrap(), want);
        }
        let across = coefficients
            .lines(64..192)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        for (j, line) in across.iter().enumerate() {
            let want: Vec<f32> = (64..192).map(|row| value(row, j)).collect();
            assert_eq!(*line, want);
        }
        let mut back = Panels::zeros(k, n, None).unwrap();
        coefficients.is_copied = false;
        coefficients.copy_to(&mut back).unwrap();
        assert_eq!(back.data[..], panels.data[..]);
        // yᵀQy by its formula.
        let q: Vec<f64> = (0..k * k).map(|i| (i % 4) as f64 - 1.0).collect();
        let device = Accelerator::with_block_sizes(candle_core::Device::Cpu, 64, 100, 0, true);
        let at = CoefficientsRef::Device(&coefficients);
        let forms = device.quadratic_forms(at, n, &q).unwrap();
        let sent = device.quadratic_forms(CoefficientsRef::Host(&panels), n, &q);
        assert_eq!(forms, sent.unwrap());
        assert_eq!(forms.len(), n);
        for (row, &found) in forms.iter().enumerate() {
            let mut want = 0.0;
            for j in 0..k {
                for l in 0..k {
                    want += q[j * k + l] * f64::from(value(row, j)) * f64::from(value(row, l));
                }
            }
            assert!((f64::from(found) - want).abs() <= 1e-5 * want.abs().max(1.0));
        }
    }
}
