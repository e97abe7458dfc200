//! A study's cache as an [`ActivationSource`], for the factoriser and the analysis.

use std::ops::Range;
use std::sync::Arc;

use crate::activations::store::{CacheDtype, CacheReader};
use crate::activations::{ActivationSource, Block, StoredRows};
use crate::corpus::TokenTable;
use crate::error::Result;

/// A cache with the tokens that its rows belong to.
pub(super) struct StudyRows {
    pub reader: CacheReader,
    pub tokens: Arc<TokenTable>,
    pub imported: bool,
}

impl ActivationSource for StudyRows {
    fn shape(&self) -> (usize, usize) {
        // A cache may hold more rows than the token log for a moment during a collection.
        (self.tokens.rows.len(), self.reader.shape().1)
    }

    fn rows(&self, range: Range<usize>) -> Result<Block<'_>> {
        self.reader.rows(range)
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.reader.read(range, out)
    }

    fn stored_dtype(&self) -> CacheDtype {
        self.reader.dtype()
    }

    fn for_each_stored(
        &self,
        range: Range<usize>,
        f: &mut dyn FnMut(StoredRows<'_>) -> Result<()>,
    ) -> Result<()> {
        self.reader.for_each_stored(range, f)
    }

    fn advise_pass(&self, rows: Range<usize>) {
        self.reader.advise_pass(rows);
    }

    fn describe_row(&self, row: usize) -> String {
        self.tokens.describe_row(row, self.imported)
    }
}
