//! Figures of the product in a cluster, one line of JSON each; `bench/run cluster` calls it.
//!
//! `cluster-figures WHAT [--small]`, where WHAT is `holder`, `first-byte`, `idle`, `working` or `many`. The program to measure is
//! `SNAPHAUL_BIN`. The cluster is the one of the quick tests: every part is real but the kubelet, so the start of containers is not in any
//! figure.
//!
//! Owns: what is done and what is read off. Must not: judge a figure (`bench/lab` does).

mod bytes;
mod first_byte;
mod holder;
mod idle;
mod many;
mod stage;
mod working;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cluster-figures holder|first-byte|idle|working|many [--small]";

fn main() -> Result<()> {
    let mut words = std::env::args_os().skip(1);
    let what = words.next().context(USAGE)?;
    let small = match words.next() {
        None => false,
        Some(flag) if flag == "--small" => true,
        Some(_) => bail!(USAGE),
    };
    let figures = match what.to_str() {
        Some("holder") => holder::figures(small)?,
        Some("first-byte") => first_byte::figures(small)?,
        Some("idle") => idle::figures(small)?,
        Some("working") => working::figures(small)?,
        Some("many") => many::figures(small)?,
        _ => bail!(USAGE),
    };
    println!("{figures}");
    Ok(())
}
