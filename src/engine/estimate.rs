//! What a request will take, before anything is opened.

use super::{Estimate, OpenRequest};
use crate::error::Result;

pub(super) fn estimate(request: &OpenRequest) -> Result<Estimate> {
    let _ = request;
    unimplemented!()
}
