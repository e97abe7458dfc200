//! α for a wanted KL.
