//! The only thing that the shells talk to: [`Command`] in, [`Event`] out, both plain data.
//!
//! Worker threads behind it hold the model, the study and the factors; no long job ever blocks a reading command.

mod messages;

pub use messages::*;
