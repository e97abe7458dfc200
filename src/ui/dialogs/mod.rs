//! The dialogs, one file each: help, commands, log, sets of directions, forms, a line to type, and
//! the questions before copying and quitting.

mod copy;
mod form;
mod help;
mod log;
mod palette;
mod question;
mod quit;
mod sets;
#[cfg(test)]
mod snapshot_tests;
mod sweep;
mod train;

pub use copy::CopyDialog;
pub use help::HelpDialog;
pub use log::LogDialog;
pub use palette::PaletteDialog;
pub use question::{Question, QuestionDialog};
pub use quit::QuitDialog;
pub use sets::SetsDialog;
pub use sweep::sweep_dialog;
pub use train::train_dialog;
