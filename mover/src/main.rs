//! Entry point of `snaphaul`: hands over to `mover::cli`.

fn main() {}
